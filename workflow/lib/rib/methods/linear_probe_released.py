"""Linear probing as the released code of ImageNet-RIB does it, which trains or moves more than the head.

In a ViT the patch embedding and the blocks are frozen: class token, position embedding, norms outside the blocks
and the head train. In a CNN the head alone has gradients, but the network is in training mode, so that BatchNorm's
statistics follow the batches.

Source: released code, main.py:83-93 (ViT: 83-88), and lib/experiment.py (training mode).
"""

from collections.abc import Iterable

from torch import nn

from rib.methods import mechanism
from rib.methods._base import FineTuning

FROZEN = ("patch_embed.", "blocks.", "conv1.", "transformer.")  # of timm's and open_clip's ViTs


def outside_blocks(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters of a ViT that are in neither patch embedding nor blocks."""
    return [(n, p) for n, p in model.named_parameters() if not n.removeprefix("visual.").startswith(FROZEN)]


def is_vit(model: nn.Module) -> bool:
    """Whether a network has the blocks of timm's or open_clip's ViTs."""
    names = (name.removeprefix("visual.") for name, _ in model.named_parameters())
    return any(name.startswith(("blocks.0.attn", "transformer.")) for name in names)


@mechanism
class LinearProbingReleased(FineTuning):
    """Minimise CE over the head, and in a ViT over all that is neither patch embedding nor block."""

    def __init__(self, **common):
        super().__init__(**common)

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        if is_vit(self.model):
            return outside_blocks(self.model)
        head = {id(parameter) for parameter in self.model.get_classifier().parameters()}
        return [(name, parameter) for name, parameter in self.model.named_parameters() if id(parameter) in head]
