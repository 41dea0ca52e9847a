"""Linear probing as in the released code of ImageNet-RIB, which changes more than the head.

In a ViT only the patch embedding and the blocks are frozen; the class token, the position embedding, the norms outside
the blocks and the head are trained. In a CNN only the head is trained, but the network is in training mode, so the
BatchNorm statistics are updated.

Source: released code, main.py:83-93 (ViT: 83-88), and lib/experiment.py (training mode).
"""

from collections.abc import Iterable

from torch import nn

from rib.methods import algorithm
from rib.methods.base import FineTuning
from rib.models.network import head_parameters

FROZEN = ("patch_embed.", "blocks.", "conv1.", "transformer.")  # of timm's and open_clip's ViTs


def outside_blocks(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters of a ViT outside the patch embedding and the blocks."""
    return [(n, p) for n, p in model.named_parameters() if not n.removeprefix("visual.").startswith(FROZEN)]


def is_vit(model: nn.Module) -> bool:
    """Whether a network is a ViT of timm or open_clip."""
    names = (name.removeprefix("visual.") for name, _ in model.named_parameters())
    return any(name.startswith(("blocks.0.attn", "transformer.")) for name in names)


@algorithm
class LinearProbingReleased(FineTuning):
    """Minimise CE over the head; in a ViT over all parameters outside the patch embedding and the blocks."""

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        return outside_blocks(self.model) if is_vit(self.model) else head_parameters(self.model)
