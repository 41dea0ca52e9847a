"""CKA between the pretrained model and each epoch of fine-tuning, one row of panels per model."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rib.figures.cka_layers import draw_lines, note


def draw(
    cka_epochs: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, Mapping],
    targets: Mapping[str, str],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """CKA with confidence intervals against epochs: on the target, and the mean over the other datasets.

    Args:
        cka_epochs: columns model, method, target, seed, dataset, epoch, cka, ci_low, ci_high; CKA and its confidence
            limits are averaged over targets and seeds.
    """
    first = cka_epochs[cka_epochs["epoch"] == 1].assign(epoch=0, cka=1.0, ci_low=1.0, ci_high=1.0)
    figure, panels, shown = draw_lines(pd.concat([first, cka_epochs]), ["epoch"], models, methods)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel(f"Epochs of fine-tuning; {note(targets, confidence)}", fontsize=8)
    return figure, shown
