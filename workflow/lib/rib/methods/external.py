"""Weights that were trained elsewhere; docs/adding.md describes their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from rib.base.files import sha256
from rib.base.progress import log
from rib.methods.base import FineTuning, Task
from rib.models.network import OpenClipClassifier
from rib.models.training_layouts import HEADS, unwrapped
from rib.models.weights import read_state, with_weights


class External(FineTuning):
    """Takes a run's weights from files; nothing is trained.

    Args:
        run: the run as text, for messages.
        files: size in bytes and time of modification in ns of each file when the job was planned,
            such as {"weights.pt": [1024, 1764526800000000000]}. The first file has the weights; a
            second one has the weights of an open_clip model's head.
        model: facts of the network, {"library": "timm", "architecture": "resnet18", "arguments":
            {}}.
    """

    def __init__(self, run: str, files: Mapping[str, Sequence[int]], model: Mapping):
        # These have no effect, since nothing is trained.
        super().__init__(lr=1.0, batch_norm="frozen", dropout=0.0, drop_path=0.0)
        self.run = run
        self.files = files
        self.facts_of_model = model  # the network itself is `self.model`

    def setup(self, task: Task) -> None:
        """Load the weights from the files.

        Raises:
            ValueError: a file has changed since the job was planned, or the head doesn't fit.
            UserError: a file has no weights, or weights of another network.
        """
        super().setup(task)
        states = [
            unwrapped(read_state(Path(file), None, self.run, of_training=True))
            for file in self.files
        ]
        if self.facts_of_model["library"] == "timm":
            self._load_network(states[0])
        elif len(states) == 1:
            self._load_image_tower(states[0])
        else:
            state, head_state = states
            self._load_image_tower(state, head_state)
        self.facts = {"taken_from": {Path(file).name: sha256(Path(file)) for file in self.files}}
        self._refuse_changed_files()

    def _refuse_changed_files(self) -> None:
        for file, planned_size_and_time in self.files.items():
            status = Path(file).stat()
            if [status.st_size, status.st_mtime_ns] != list(planned_size_and_time):
                raise ValueError(f"{file} has changed since the job was planned; run again")

    def _load_network(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a whole timm network into the pretrained one."""
        # A head with another number of outputs is refused.
        arguments = {**self.facts_of_model["arguments"], "num_classes": self.model.num_classes}
        self.model.load_state_dict(self._loaded(state, arguments).state_dict())

    def _load_image_tower(
        self, state: dict[str, Tensor], head_state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Copy an open_clip model's image tower and head; the head may be in either argument."""
        classifier = cast(OpenClipClassifier, self.model)
        if head_state is None:
            head_state = _head_of(state)
        tower_state = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
        if not tower_state:
            tower_state = {
                key: tensor for key, tensor in state.items() if not key.startswith(HEADS)
            }
        loaded = self._loaded(tower_state, self.facts_of_model["arguments"])
        tower = loaded.get_submodule("visual")
        classifier.visual.load_state_dict(tower.state_dict())
        if head_state:
            self._load_head(classifier.head, head_state)
        else:
            log.warning("%s: the weights have no head, so the pretrained one is kept", self.run)

    def _load_head(self, head: nn.Linear, state: Mapping[str, Tensor]) -> None:
        """Copy `state`, {"weight": (C, d), "bias": (C,)}, into the head; no bias means zeros."""
        state = {"bias": torch.zeros_like(head.bias), **state}
        expected_shapes = {key: tensor.shape for key, tensor in head.state_dict().items()}
        shapes = {key: tensor.shape for key, tensor in state.items()}
        are_finite = all(tensor.isfinite().all() for tensor in state.values())
        if shapes != expected_shapes or not are_finite:
            raise ValueError(f"the head of {self.run} has NaN or infinite values, or isn't {head}")
        head.load_state_dict(state)

    def _loaded(self, state: Mapping[str, Tensor], arguments: Mapping) -> nn.Module:
        """A new network with these weights, after the library's conversion of their names."""
        return with_weights(
            state,
            self.facts_of_model["library"],
            self.facts_of_model["architecture"],
            arguments,
            keys="by_name",
            name=self.run,
        )


def _head_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of the first of HEADS in a state dict: {"weight": (C, d), "bias": (C,)}."""
    for prefix in HEADS:
        head_state = {
            name: state[f"{prefix}{name}"]
            for name in ("weight", "bias")
            if f"{prefix}{name}" in state
        }
        if head_state:
            return head_state
    return {}
