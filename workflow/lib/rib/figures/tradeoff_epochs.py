"""Accuracy on the target against mRI in the course of training, one panel per model."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rib.figures import tradeoff
from rib.figures.cka_layers import trained_on


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
    table = tradeoff_epochs.assign(alpha=tradeoff_epochs["trained"] / 100).replace({"alpha": {0: float("nan")}})
    curves = {name: {name: None} for name in methods}
    looks = {"protocol": protocol, "size": size, "confidence": confidence}
    figure, shown = tradeoff.draw(table, models=models, methods=methods, averages=curves, **looks)
    figure.supxlabel(f"{figure.get_supxlabel()}\n{trained_on(targets)}; dots at each tenth of the steps", fontsize=8)
    return figure, shown.drop(columns="alpha")
