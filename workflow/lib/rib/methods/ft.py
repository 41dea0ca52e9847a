"""Full fine-tuning: all weights are trained with the cross-entropy on the target.

Source: arXiv 2410.21582, section 3.
"""

from rib.methods.base import FineTuning


class FullFineTuning(FineTuning):
    """Minimise CE(c(f(x; theta)), y) over all theta.

    c are the class logits of the target's label space.
    """
