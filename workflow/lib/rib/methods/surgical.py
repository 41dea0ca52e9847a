"""Surgical fine-tuning: only chosen blocks of the network are trained.

`block1` to `block4` are the quarters of the depth in rib.models.layers, `head` is the classifier.
In a ResNet they are the paper's blocks and last layer. `block1` includes the stem and the
embeddings; `block4` includes all that follows up to the classifier, such as the last norm.

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
CLIP_PROJECTION = "visual.proj"  # of open_clip's ViT: registered first, used last


@dataclass(kw_only=True)
class SurgicalFineTuning(FineTuning):
    """Minimise CE over the parameters of some blocks."""

    blocks: Annotated[list[Block], Field(min_length=1)]

    def setup(self, task: Task) -> None:
        """Prepare for training: find the block of each parameter.

        Raises:
            ValueError: the network has fewer than four blocks and lacks a chosen one.
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
        """Parameters of the chosen blocks, by name."""
        return [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if self.block_of[name] in self.blocks
        ]


def parameter_blocks(model: Classifier) -> dict[str, str]:
    """Block of each parameter, by name, such as {"conv1.weight": "block1", "fc.bias": "head"}."""
    names = _names_in_forward_order(model)
    three_quarters = quarters(model)[:-1]
    # A block ends with the last parameter of the module that gives its quarter's output. What
    # follows belongs to the next block; `block4` has no such end.
    last_parameters = [_last_parameter_of(module, names) for _, module in three_quarters]
    block_of = {}
    for i, name in enumerate(names):
        # Number of blocks that end before this parameter.
        number = bisect_left(last_parameters, i)
        block_of[name] = BLOCKS[number]
    for name, _ in head_parameters(model):
        block_of[name] = "head"
    return block_of


def _names_in_forward_order(model: nn.Module) -> list[str]:
    """Names of all parameters, so that blocks are ranges of this list."""
    # Networks register them in the order of the forward pass, but for CLIP_PROJECTION.
    names = [name for name, _ in model.named_parameters()]
    if CLIP_PROJECTION in names:
        names.remove(CLIP_PROJECTION)
        names.append(CLIP_PROJECTION)
    return names


def _last_parameter_of(module: str, names: Sequence[str]) -> int:
    """Position in `names` of the module's last parameter; -1 if it has none."""
    last_position = -1
    for i, name in enumerate(names):
        if name.startswith(f"{module}."):
            last_position = i
    return last_position
