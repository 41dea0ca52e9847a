"""Saved training state, from which a killed training resumes with bit-identical results."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rib.base.errors import UserError
from rib.base.progress import log

SAVE_EVERY = 300.0  # seconds between two saves
Tensors = Mapping[str, Tensor]


class TrainingState:
    """Everything that the next step depends on, in one file; a path of None saves nothing."""

    def __init__(
        self,
        path: Path | None,
        model: nn.Module,
        optimizer: Optimizer,
        trainable: Tensors,
        memory: Tensors,
    ):
        self.path, self.model, self.optimizer = path, model, optimizer
        # Trained parameters may lie outside the network, such as a padding prompt; `memory` is the method's.
        self.tensors = {"trainable": trainable, "memory": memory}
        self.saved = time.monotonic()

    def save_if_due(
        self, epoch: int, step: int, rows: list[dict], sums: list[Tensor], good: Tensors
    ) -> None:
        """Save if SAVE_EVERY seconds have passed.

        In the current epoch, counted from 0, `step` steps were completed, for each of which `sums` has a tensor (4,);
        `good` are the changed tensors after the last completed epoch.
        """
        if self.path is None or time.monotonic() - self.saved < SAVE_EVERY:
            return
        state = {
            "place": (epoch, step, rows, sums, good),
            "random": torch.get_rng_state(),
            **self.tensors,
        }
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if torch.cuda.is_available():
            state["cuda_random"] = torch.cuda.get_rng_state()
        temporary = self.path.with_suffix(".tmp")
        _write(state, temporary)
        os.replace(temporary, self.path)
        self.saved = time.monotonic()

    def restore(self) -> tuple[int, int, list[dict], list[Tensor], Tensors]:
        """Restore the saved state and return the arguments of `save_if_due`; start from scratch if none was saved.

        Raises:
            UserError: The file is damaged, or contains other objects than this class saves.
        """
        if self.path is None or not self.path.is_file():
            return 0, 0, [], [], {}
        state = self._read()
        self.model.load_state_dict(state["model"], strict=True)
        with torch.no_grad():
            for kind, tensors in self.tensors.items():
                for name, tensor in tensors.items():
                    tensor.copy_(state[kind][name])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if "cuda_random" in state:
            torch.cuda.set_rng_state(state["cuda_random"])
        epoch, step, rows, sums, good = state["place"]
        device = next(iter(self.tensors["trainable"].values())).device
        log.info("resuming after epoch %d, step %d", epoch, step)
        return epoch, step, rows, [part.to(device) for part in sums], good

    def _read(self) -> dict:
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (MemoryError, OSError):
            raise
        except Exception:  # not shown: torch's messages recommend less safe ways to load
            raise UserError(
                f"{self.path} is damaged, or is not the saved state of a training; delete it and run again."
            ) from None


def _write(state: Mapping, path: Path) -> None:
    """Write a state with torch; raises an OSError that names the path if it cannot be written."""
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        cause = (
            error if isinstance(error, OSError) else error.__context__
        )  # torch's own does not say why
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
