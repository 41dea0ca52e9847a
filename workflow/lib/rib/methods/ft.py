"""Full fine-tuning: all weights are trained with the cross-entropy on the target.

Source: arXiv 2410.21582, section 3.
"""

from rib.methods.base import FineTuning


class FullFineTuning(FineTuning):
    """Minimise CE(c(f(x; theta)), y), the cross-entropy, over all weights theta.

    f are the network's outputs for image x, c the logits that they give the target's classes, y is
    the label.
    """
