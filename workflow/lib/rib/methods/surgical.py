"""Surgical fine-tuning: only chosen blocks of the network are trained.

The blocks are `block1` to `block4`, the quarters of the depth in rib.models.layers, and `head`, the classifier. In a
ResNet they are the paper's blocks and last layer. `block1` begins with the stem and the embeddings; `block4` ends with
what lies before the classifier, such as the last norm.

Source: Lee et al. 2023 (arXiv 2210.11466), section 2: the first block is best for input-level shifts, the last layer for
output-level shifts. In the authors' code, too, the first block begins with the first convolution (main.py, ImageNet-C).
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
        self._refuse_others(BLOCKS)

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.block_of = parameter_blocks(self.model)
        self._refuse_others(sorted(set(self.block_of.values())))

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        return [
            (name, part)
            for name, part in self.model.named_parameters()
            if self.block_of[name] in self.blocks
        ]

    def _refuse_others(self, known: Iterable[str]) -> None:
        if others := [name for name in self.blocks if name not in known]:
            raise ValueError(
                f"blocks names '{others[0]}', which does not exist; set some of {', '.join(known)}"
            )


def parameter_blocks(model: nn.Module) -> dict[str, str]:
    """The block of each parameter, by name; parameters are registered in the order of the forward pass."""
    # Except for the projection of open_clip's ViT, which is a parameter of the whole tower.
    names = sorted((name for name, _ in model.named_parameters()), key="visual.proj".__eq__)
    ends = [f"{module}." for _, module in quarters(model)[:-1]]
    last = [
        max((i for i, name in enumerate(names) if name.startswith(end)), default=-1) for end in ends
    ]
    blocks = {name: BLOCKS[bisect_left(last, i)] for i, name in enumerate(names)}
    return blocks | {name: "head" for name, _ in head_parameters(model)}
