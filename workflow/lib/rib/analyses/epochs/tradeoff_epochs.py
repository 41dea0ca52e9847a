"""Accuracy on the target against mRI in the course of training, one panel per model."""

import textwrap

import numpy as np
import pandas as pd

from rib.analyses.tradeoff import COLUMNS, draw_panels
from rib.config.run import PRETRAINED
from rib.figures import Drawn, Labels, Styles


def draw(
    tradeoff_epochs: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    targets: Labels,
    accuracy: str,
) -> Drawn:
    """A line per method from the pretrained model to the end of training.

    Args:
        tradeoff_epochs: columns of `rib.analyses.epochs.tables.tradeoff_table`.
        accuracy: what accuracy on the target is.
    """
    start = tradeoff_epochs[tradeoff_epochs["trained"] == 0].assign(method=PRETRAINED)
    end = tradeoff_epochs[tradeoff_epochs["trained"] == 100]
    points = pd.concat([start, end]).reindex(columns=COLUMNS)
    lines = tradeoff_epochs.assign(alpha=np.nan)  # so that no alpha is written beside them
    target_labels = ", ".join(targets.values())
    note = f"fine-tuned on {target_labels}; dots at each tenth of the steps"
    below = f"{accuracy} (%)\n{textwrap.fill(note, 60)}"
    return draw_panels(points, lines, models, methods, below), tradeoff_epochs
