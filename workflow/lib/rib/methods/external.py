"""Weights that were trained elsewhere; nothing is trained. docs/adding.md says which files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from rib.base.files import sha256
from rib.base.progress import log
from rib.methods import algorithm
from rib.methods.base import FineTuning, Task
from rib.models.weights import read_state, with_weights


@algorithm
class External(FineTuning):
    """Takes a run's weights from files.

    Args:
        run: the run, for messages.
        files: by path, their size in bytes and time of modification in ns when the job was planned.
            The first has the weights; a second one those of the head of an open_clip model.
        model: library, architecture and arguments of the network.
    """

    def __init__(self, run: str, files: Mapping[str, Sequence[int]], model: Mapping):
        super().__init__(lr=1.0)
        self.run = run
        self.files = files
        self.network = model

    def setup(self, task: Task) -> None:
        super().setup(task)
        states = [read_state(Path(file), None, self.run) for file in self.files]
        if self.network["library"] == "timm":
            self._load_network(states[0])
        else:
            self._load_image_tower(*states)
        self.facts = {"taken_from": {Path(file).name: sha256(Path(file)) for file in self.files}}
        for file, planned_size_and_time in self.files.items():
            status = Path(file).stat()
            if [status.st_size, status.st_mtime_ns] != list(planned_size_and_time):
                raise ValueError(f"{file} has changed since the job was planned; run again")

    def _load_network(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a whole network of timm, which must have as many outputs."""
        arguments = {**self.network["arguments"], "num_classes": self.model.num_classes}
        self.model.load_state_dict(self._loaded(state, arguments).state_dict())

    def _load_image_tower(
        self, state: dict[str, Tensor], head_state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Load the weights of an open_clip model's image tower and of its head.

        Args:
            state: of a whole model, or of its image tower alone; it may have the head's tensors.
            head_state: of the head, if it has a file of its own. Without any weights of a head the
                pretrained one is kept.
        """
        pretrained_head = self.model.head.state_dict()
        if head_state is None:
            head_state = {
                key: state.pop(f"head.{key}") for key in pretrained_head if f"head.{key}" in state
            }
        tower_state = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
        if not tower_state:
            tower_state = state
        tower = self._loaded(tower_state, self.network["arguments"]).visual
        self.model.visual.load_state_dict(tower.state_dict())
        if not head_state:
            log.warning("%s: the weights have no head, so the pretrained one is kept", self.run)
            return
        shapes = {
            key: tensor.shape for key, tensor in head_state.items() if tensor.isfinite().all()
        }
        if shapes != {key: tensor.shape for key, tensor in pretrained_head.items()}:
            raise ValueError(
                f"the head of {self.run} has NaN or infinite values, or isn't {self.model.head}"
            )
        self.model.head.load_state_dict(head_state)

    def _loaded(self, state: Mapping[str, Tensor], arguments: Mapping) -> nn.Module:
        """A network of the run's architecture with these weights."""
        return with_weights(
            state,
            self.network["library"],
            self.network["architecture"],
            arguments,
            keys="by_name",
            name=self.run,
        )
