"""Fine-tuning of all weights but the head's: open_clip's models keep their zero-shot head.

Source: Goyal et al. 2022 (arXiv 2212.00638), ablations: CLIP's image encoder is trained with the
cross-entropy of a zero-shot head. Wortsman et al. 2022 (arXiv 2109.01903), section 3, train the
head too: the method ft.
"""

from collections.abc import Iterable

from torch import nn

from rib.methods.base import FineTuning
from rib.models.network import head_parameters


class FrozenHead(FineTuning):
    """Minimise CE(c(W h(x; theta) + b), y) over theta; h are the head's inputs.

    W and b stay as pretrained; c are the class logits of the target's label space.
    """

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """All parameters but the head's, by name."""
        names_in_head = {name for name, _ in head_parameters(self.model)}
        return [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if name not in names_in_head
        ]
