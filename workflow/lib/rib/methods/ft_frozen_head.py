"""Fine-tuning of all weights but the head's, which stays the pretrained one.

For open_clip's models that is the zero-shot head.

Source: Goyal et al. 2022 (arXiv 2212.00638), whose ablations train CLIP's image encoder with the
cross-entropy of a zero-shot head; Wortsman et al. 2022 (arXiv 2109.01903), section 3, from the same
head with the head trained: ft.
"""

from collections.abc import Iterable

from torch import nn

from rib.methods.base import FineTuning
from rib.models.network import head_parameters


class FrozenHead(FineTuning):
    """Minimise CE(c(W h(x; theta) + b), y) over theta.

    h are the features that the head reads, W and b as pretrained.
    """

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """All parameters of the network but those of its head, by name."""
        names_in_head = {name for name, _ in head_parameters(self.model)}
        return [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if name not in names_in_head
        ]
