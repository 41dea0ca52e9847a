"""Draws the figures `cka_epochs` and `tradeoff_epochs`."""

import textwrap

import pandas as pd

from rib.analyses.tradeoff.figure import COLUMNS, draw_panels
from rib.figures import Drawn, Labels, Styles
from rib.figures._cka import draw_lines, note
from rib.schema.run import PRETRAINED


def draw_cka_epochs(
    cka_epochs: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """Draw similarity (CKA) to the pretrained model's features against the share of steps.

    Panels are models by two columns: on the target, and the mean over other datasets.

    Args:
        cka_epochs: columns model, method, target, seed, dataset, trained, cka, ci_low, ci_high,
            averaged over targets and seeds.
        models, targets: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """

    first_snapshots = cka_epochs[cka_epochs["trained"] == cka_epochs["trained"].min()]
    # The pretrained model equals itself.
    before_training = first_snapshots.assign(trained=0.0, cka=1.0, ci_low=1.0, ci_high=1.0)
    with_start = pd.concat([before_training, cka_epochs])
    figure, _, shown_rows = draw_lines(with_start, ["trained"], models, methods)
    figure.supxlabel(f"Steps of fine-tuning (%); {note(targets, confidence)}", fontsize=8)
    return figure, shown_rows


def draw_tradeoff_epochs(
    tradeoff_epochs: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    targets: Labels,
    accuracy: str,
) -> Drawn:
    """Draw mRI against accuracy on the target in the course of training.

    Each method's line begins at the pretrained model.

    Args:
        tradeoff_epochs: columns model, method, trained (percent of steps), on_target, mri.
        models, targets: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        accuracy: label of accuracy on the target.
    """

    start = tradeoff_epochs[tradeoff_epochs["trained"] == 0].assign(method=PRETRAINED)
    end = tradeoff_epochs[tradeoff_epochs["trained"] == 100]
    points = pd.concat([start, end]).reindex(columns=COLUMNS)
    lines = tradeoff_epochs.assign(beside="", style="-")
    target_labels = ", ".join(targets.values())
    note = f"fine-tuned on {target_labels}; dots at each tenth of the steps"
    below = f"{accuracy} (%)\n{textwrap.fill(note, 60)}"
    return draw_panels(points, lines, models, methods, below), tradeoff_epochs
