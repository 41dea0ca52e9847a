"""Surgical fine-tuning: only chosen blocks of the network are trained.

The blocks are `block1` to `block4`, the quarters of the depth in rib.models.layers, and `head`, the
classifier. In a ResNet they are the paper's blocks and last layer. `block1` begins with the stem
and the embeddings; `block4` ends with what lies before the classifier, such as the last norm.

Source: Lee et al. 2023 (arXiv 2210.11466), section 2: the first block is best for input-level
shifts, the last layer for output-level shifts. In the authors' code, too, the first block begins
with the first convolution (main.py, ImageNet-C).
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from rib.methods.base import FineTuning, Task
from rib.models.layers import quarters
from rib.models.network import Classifier, head_parameters

Block = Literal["block1", "block2", "block3", "block4", "head"]
BLOCKS = get_args(Block)
CLIP_PROJECTION = "visual.proj"  # parameter of open_clip's ViT as a whole, registered first


@dataclass(kw_only=True)
class SurgicalFineTuning(FineTuning):
    """Minimise CE over the parameters of some blocks."""

    blocks: Annotated[list[Block], Field(min_length=1)]

    def setup(self, task: Task) -> None:
        """Prepare for training; a ValueError if the network lacks a chosen block.

        A network of fewer than four blocks lacks some.
        """
        super().setup(task)
        self.block_of = parameter_blocks(self.model)
        blocks_of_network = sorted(set(self.block_of.values()))
        for block in self.blocks:
            if block not in blocks_of_network:
                raise ValueError(
                    f"blocks names '{block}', which does not exist; "
                    f"set some of {', '.join(blocks_of_network)}"
                )

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters of the chosen blocks, by name."""
        return [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if self.block_of[name] in self.blocks
        ]


def parameter_blocks(model: Classifier) -> dict[str, str]:
    """The block of each parameter, by name: {"conv1.weight": "block1", ..., "fc.bias": "head"}.

    A block ends with the last parameter of the module that gives the output of its quarter of the
    network; what follows belongs to the next one. After the third block all belong to `block4`.
    """
    names = _names_in_forward_order(model)
    three_quarters = quarters(model)[:-1]
    last_parameters = [_last_parameter_of(module, names) for _, module in three_quarters]
    block_of = {}
    for i, name in enumerate(names):
        # The number of blocks that have ended before this parameter.
        number = bisect_left(last_parameters, i)
        block_of[name] = BLOCKS[number]
    for name, _ in head_parameters(model):
        block_of[name] = "head"
    return block_of


def _names_in_forward_order(model: nn.Module) -> list[str]:
    """Names of a network's parameters in the order in which a forward pass uses them.

    They are registered in this order, except for the projection of open_clip's ViT, which comes
    last.
    """
    names = [name for name, _ in model.named_parameters()]
    if CLIP_PROJECTION in names:
        names.remove(CLIP_PROJECTION)
        names.append(CLIP_PROJECTION)
    return names


def _last_parameter_of(module: str, names: Sequence[str]) -> int:
    """Position of the last parameter of a module among the names of all; -1 if it has none."""
    last_position = -1
    for i, name in enumerate(names):
        if name.startswith(f"{module}."):
            last_position = i
    return last_position
