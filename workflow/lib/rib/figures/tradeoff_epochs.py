"""Accuracy on the target against mRI in the course of training, one panel per model."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rib.figures import tradeoff


def draw(
    tradeoff_epochs: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, Mapping],
    targets: Mapping[str, str],
    protocol: str,
    size: str,
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """A line per method from the pretrained model to the end of training, which is a point with confidence intervals.

    Arguments are those of figure `tradeoff`; the table has trained (percent of all steps) in place of alpha.
    """
    share = tradeoff_epochs["trained"] / 100
    table = tradeoff_epochs.assign(alpha=share.where(share.between(0, 1, inclusive="neither")))
    curves = {name: {name: None} for name in methods}
    shared = {"models": models, "methods": methods, "protocol": protocol, "size": size, "confidence": confidence}
    below = f"fine-tuned on {', '.join(targets.values())}; dots at each tenth of the steps; "
    figure, shown = tradeoff.draw(table, **shared, averages=curves, below=below)
    return figure, shown.drop(columns="alpha")
