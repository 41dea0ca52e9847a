"""Saved training state, from which a killed training resumes with bit-identical results."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from rib.base.progress import log
from rib.models.checkpoint import with_prefix

SAVE_EVERY = 300.0  # seconds between two saves
WEIGHTS, OPTIMIZER, MEMORY, GOOD = "weights.", "optimizer.", "memory.", "good."
SUMS, CPU_RANDOM, CUDA_RANDOM = "sums", "random.cpu", "random.cuda"
Tensors = Mapping[str, Tensor]


class TrainingState:
    """Everything that the next step depends on, in one file; a path of None saves nothing."""

    def __init__(self, path: Path | None, model: nn.Module, optimizer: Optimizer, trainable: Tensors, memory: Tensors):
        self.path, self.model, self.optimizer, self.trainable = path, model, optimizer, trainable
        self.memory = memory  # of the method
        self.saved = time.monotonic()

    def save_if_due(self, epoch: int, step: int, rows: list[dict], sums: Iterable[Tensor], good: Mapping) -> None:
        """Save if SAVE_EVERY seconds have passed.

        In the current epoch, counted from 0, `step` steps were completed, for each of which `sums` has a tensor (4,);
        `good` are the changed tensors after the last completed epoch.
        """
        if self.path is None or time.monotonic() - self.saved < SAVE_EVERY:
            return
        # Trained parameters may lie outside the network, such as a padding prompt.
        tensors = {WEIGHTS + name: part for name, part in {**self.trainable, **self.model.state_dict()}.items()}
        for name, part in self.trainable.items():
            own = self.optimizer.state[part].items()  # such as SGD's momentum_buffer, Adam's exp_avg and step
            tensors |= {f"{OPTIMIZER}{key}.{name}": value for key, value in own if value is not None}
        tensors |= {MEMORY + name: tensor for name, tensor in self.memory.items()}
        tensors |= {GOOD + name: tensor for name, tensor in good.items()}
        tensors |= {CPU_RANDOM: torch.get_rng_state(), SUMS: torch.stack(list(sums))}
        if torch.cuda.is_available():
            tensors[CUDA_RANDOM] = torch.cuda.get_rng_state()
        temporary = self.path.with_suffix(".tmp")
        metadata = {"place": json.dumps({"epoch": epoch, "step": step, "rows": rows})}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        os.replace(temporary, self.path)
        self.saved = time.monotonic()

    def restore(self) -> tuple[int, int, list[dict], list[Tensor], dict[str, Tensor]]:
        """Restore the saved state and return the arguments of `save_if_due`; start from scratch if none was saved."""
        if self.path is None or not self.path.is_file():
            return 0, 0, [], [], {}
        with safe_open(self.path, "pt") as file:
            place = json.loads(file.metadata()["place"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights, own = with_prefix(tensors, WEIGHTS), self.model.state_dict().keys()
        self.model.load_state_dict({name: tensor for name, tensor in weights.items() if name in own}, strict=True)
        with torch.no_grad():
            for name in weights.keys() - own:
                self.trainable[name].copy_(weights[name])
            for name, tensor in self.memory.items():
                tensor.copy_(tensors[MEMORY + name])
        for key_and_name, value in with_prefix(tensors, OPTIMIZER).items():
            key, name = key_and_name.split(".", 1)
            part = self.trainable[name]
            whole = value.shape == part.shape  # of one value per weight, and in memory as the weights are
            fused = part.device if self.optimizer.defaults.get("fused") else value.device  # where torch counts steps
            self.optimizer.state[part][key] = torch.empty_like(part).copy_(value) if whole else value.to(fused)
        torch.set_rng_state(tensors[CPU_RANDOM])
        if CUDA_RANDOM in tensors:
            torch.cuda.set_rng_state(tensors[CUDA_RANDOM])
        device = next(iter(self.trainable.values())).device
        log.info("resuming after epoch %d, step %d", place["epoch"], place["step"])
        return place["epoch"], place["step"], place["rows"], list(tensors[SUMS].to(device)), with_prefix(tensors, GOOD)
