"""Accuracy on the target against mRI in the course of training, one panel per model."""

import textwrap

import numpy as np
import pandas as pd

from rib.config.run import PRETRAINED
from rib.figures import Drawn, Labels, Styles
from rib.figures.tradeoff import COLUMNS, draw_panels


def draw(
    tradeoff_epochs: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    targets: Labels,
    accuracy: str,
) -> Drawn:
    """A line per method from the pretrained model to the end of training; columns of `rib.analysis.tables.tradeoff_table`."""
    start, end = (tradeoff_epochs[tradeoff_epochs["trained"] == percent] for percent in (0, 100))
    points = pd.concat([start.assign(method=PRETRAINED), end]).reindex(columns=COLUMNS)
    note = textwrap.fill(
        f"fine-tuned on {', '.join(targets.values())}; dots at each tenth of the steps", 60
    )
    lines = tradeoff_epochs.assign(alpha=np.nan)
    return draw_panels(points, lines, models, methods, f"{accuracy} (%)\n{note}"), tradeoff_epochs
