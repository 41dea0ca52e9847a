"""Linear probing as in the released code of ImageNet-RIB, which changes more than the head.

In a ViT only the patch embedding and the blocks are frozen; the class token, the position embedding
and norms are trained too. In a CNN only the head is trained, but the network is in training mode,
so the BatchNorm statistics change.

Source: released code, main.py:83-93 (ViT: 83-88), and lib/experiment.py (training mode).
"""

import re
from collections.abc import Iterable

from torch import nn

from rib.methods._outside_blocks import outside_blocks
from rib.methods.base import FineTuning
from rib.models.network import head_parameters

# Parameters of ViTs.
IN_VIT = re.compile(r"(visual\.)?(trunk\.)?(blocks\.0\.attn|transformer\.)")


class LinearProbingReleased(FineTuning):
    """Minimise CE over the head, in a ViT over all parameters of `outside_blocks`."""

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        is_vit = any(IN_VIT.match(name) for name, _ in self.model.named_parameters())
        if is_vit:
            return outside_blocks(self.model)
        return head_parameters(self.model)
