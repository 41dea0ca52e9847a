"""CKA between a model before fine-tuning and after each epoch of it, one panel per model."""

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
    """CKA with intervals against epochs: on the target's images, and the mean over the other datasets'.

    Args:
        cka_epochs: columns model, method, target, seed, dataset, epoch, cka, ci_low, ci_high; several targets and seeds
            are averaged, and so are the ends of their intervals.
        models: label of each model, one row of panels each.
        methods: label, colour and marker of each method, one line each, from 1 at epoch 0.
        targets: label of each target that was compared.
        confidence: coverage of the intervals, between 0 and 1.

    Returns:
        The figure and the rows it shows.
    """
    first = cka_epochs[cka_epochs["epoch"] == 1].assign(epoch=0, cka=1.0, ci_low=1.0, ci_high=1.0)
    figure, panels, shown = draw_lines(pd.concat([first, cka_epochs]), ["epoch"], models, methods)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel(f"Epochs of fine-tuning; {note(targets, confidence)}", fontsize=8)
    return figure, shown
