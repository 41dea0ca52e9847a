"""Weights that were trained elsewhere; nothing is trained. docs/adding.md says which files they may be."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.base.files import sha256
from rib.base.progress import log
from rib.methods import algorithm
from rib.methods.base import FineTuning, Task
from rib.models.weights import read_state, with_weights


@algorithm
class External(FineTuning):
    """Takes a run's weights from files, whose size and time (ns) are given; `model` has library, architecture, arguments."""

    def __init__(self, run: str, files: Mapping[str, Sequence[int]], model: Mapping):
        super().__init__(lr=1.0)
        self.files, self.of = files, {**model, "keys": "by_name", "name": run}

    def setup(self, task: Task) -> None:
        super().setup(task)
        own, (state, *more) = (
            self.model,
            (read_state(Path(file), None, self.of["name"]) for file in self.files),
        )
        if self.of["library"] == "timm":
            self.of["arguments"] = {**self.of["arguments"], "num_classes": own.num_classes}
            own.load_state_dict(with_weights(state, **self.of).state_dict())
        else:  # an image tower, whose head may be missing
            expected = own.head.state_dict()
            head = (
                more[0]
                if more
                else {k: state.pop(f"head.{k}") for k in expected if f"head.{k}" in state}
            )
            tower = {
                key: tensor for key, tensor in state.items() if key.startswith("visual.")
            } or state
            own.visual.load_state_dict(with_weights(tower, **self.of).visual.state_dict())
            shapes = {key: tensor.shape for key, tensor in head.items() if tensor.isfinite().all()}
            if not head:
                log.warning(
                    "%s: the weights have no head, so the pretrained one is kept", self.of["name"]
                )
            elif shapes != {key: tensor.shape for key, tensor in expected.items()}:
                raise ValueError(
                    f"the head of {self.of['name']} has NaN or infinite values, or isn't {own.head}"
                )
            own.head.load_state_dict(head or expected)
        self.facts = {"taken_from": {Path(file).name: sha256(Path(file)) for file in self.files}}
        for file, planned in self.files.items():
            if [(found := Path(file).stat()).st_size, found.st_mtime_ns] != planned:
                raise ValueError(f"{file} has changed since the job was planned; run again")
