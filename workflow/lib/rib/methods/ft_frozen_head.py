"""Fine-tuning of all weights but the head's, which stays the pretrained one: zero-shot for open_clip's models.

Source: Goyal et al. 2022 (arXiv 2212.00638), whose ablations train CLIP's image encoder with the cross-entropy of a
zero-shot head; Wortsman et al. 2022 (arXiv 2109.01903), section 3, from the same head with the head trained: ft.
"""

from collections.abc import Iterable

from torch import nn

from rib.methods import algorithm
from rib.methods.base import FineTuning
from rib.models.network import head_parameters


@algorithm
class FrozenHead(FineTuning):
    """Minimise CE(c(W h(x; theta) + b), y) over theta, h the features that the head reads, W and b as pretrained."""

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        head = dict(head_parameters(self.model))
        return [(name, part) for name, part in self.model.named_parameters() if name not in head]
