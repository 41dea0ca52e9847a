"""Full fine-tuning: all weights train on the target's cross-entropy.

Source: arXiv 2410.21582, section 3.
"""

from rib.methods import mechanism
from rib.methods._base import FineTuning


@mechanism
class FullFineTuning(FineTuning):
    """Minimise CE(c(f(x; theta)), y) over all theta, c the class logits of the target's class space."""

    def __init__(self, **common):
        super().__init__(**common)
