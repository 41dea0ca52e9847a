"""Surgical fine-tuning: only chosen blocks of the network are trained.

The blocks are `block1` to `block4`, the quarters of the depth in rib.models.layers, and `head`, the
classifier. In a ResNet they are the paper's blocks and last layer. `block1` begins with the stem
and the embeddings; `block4` ends with what lies before the classifier, such as the last norm.

Source: Lee et al. 2023 (arXiv 2210.11466), section 2: the first block is best for input-level
shifts, the last layer for output-level shifts. In the authors' code, too, the first block begins
with the first convolution (main.py, ImageNet-C).
"""

from bisect import bisect_left
from collections.abc import Iterable

from torch import nn

from rib.methods import algorithm
from rib.methods.base import FineTuning, Task
from rib.models.layers import quarters
from rib.models.network import head_parameters

BLOCKS = ("block1", "block2", "block3", "block4", "head")


@algorithm
class SurgicalFineTuning(FineTuning):
    """Minimise CE over the parameters of some blocks."""

    blocks: list[str]  # a network of fewer than four blocks lacks some

    def __post_init__(self):
        super().__post_init__()
        self._refuse_unknown_blocks(BLOCKS)

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.block_of = parameter_blocks(self.model)
        self._refuse_unknown_blocks(sorted(set(self.block_of.values())))

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        return [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if self.block_of[name] in self.blocks
        ]

    def _refuse_unknown_blocks(self, existing_blocks: Iterable[str]) -> None:
        for block in self.blocks:
            if block not in existing_blocks:
                raise ValueError(
                    f"blocks names '{block}', which does not exist; "
                    f"set some of {', '.join(existing_blocks)}"
                )


def parameter_blocks(model: nn.Module) -> dict[str, str]:
    """The block of each parameter, by name."""
    # Parameters are registered in the order of the forward pass, except for the projection of
    # open_clip's ViT, which is a parameter of the whole tower: it is moved to the end.
    names = sorted(
        (name for name, _ in model.named_parameters()), key=lambda name: name == "visual.proj"
    )
    # A block ends with the last parameter of the module that gives the output of its quarter.
    last_parameters = []
    for _, module in quarters(model)[:-1]:
        last_parameter = -1
        for i, name in enumerate(names):
            if name.startswith(f"{module}."):
                last_parameter = i
        last_parameters.append(last_parameter)
    block_of = {name: BLOCKS[bisect_left(last_parameters, i)] for i, name in enumerate(names)}
    for name, _ in head_parameters(model):
        block_of[name] = "head"
    return block_of
