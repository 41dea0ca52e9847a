"""Draws the figure `training`."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import MaxNLocator

from rib.figures import Drawn, Labels, Styles

ACROSS = 5  # maximum number of panel columns
QUANTITIES = {"cross_entropy": "cross-entropy", "accuracy": "accuracy (%)"}


def draw_training(
    training: pd.DataFrame, *, model: str, model_label: str, methods: Styles, targets: Labels
) -> Drawn:
    """Draw loss and accuracy of each epoch, a line per method, a column of panels per target.

    Several seeds also get thin lines.

    Args:
        training: columns model, method, target, seed, epoch, cross_entropy, accuracy (percent).
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        targets: labels, {"noto": "Noto"}.
    """
    shown_rows = training[training["model"] == model]
    several_seeds = shown_rows["seed"].nunique() > 1
    methods_with_training = set(shown_rows["method"])
    trained = {name: style for name, style in methods.items() if name in methods_with_training}
    figure, panels_of_targets = _panels(len(targets))
    # Rows of targets in the figure, and targets per row.
    blocks, across, _ = panels_of_targets.shape
    panels_in_order = panels_of_targets.reshape(-1, len(QUANTITIES))
    for i, (target, label) in enumerate(targets.items()):
        panels = panels_in_order[i]
        for axes, quantity in zip(panels, QUANTITIES, strict=True):
            of_target = shown_rows[shown_rows["target"] == target]
            _draw_quantity(axes, of_target, quantity, trained, several_seeds)
        upper_axes, lower_axes = panels
        upper_axes.set_title(label, fontsize=8)
        has_panel_below = i + across < len(targets)
        if not has_panel_below:
            lower_axes.xaxis.set_tick_params(labelbottom=True)
    for axes in panels_in_order[len(targets) :].flat:
        axes.axis("off")
    highest = 1.05 * max(1e-9, shown_rows["cross_entropy"].max())
    for block in range(blocks):
        entropy_axes, accuracy_axes = panels_of_targets[block, 0]  # leftmost
        entropy_axes.set_ylabel(QUANTITIES["cross_entropy"], fontsize=8)
        accuracy_axes.set_ylabel(QUANTITIES["accuracy"], fontsize=8)
        entropy_axes.set_ylim(0, highest)
    figure.supxlabel("epoch", fontsize=8)
    title = f"{model_label}, by target"
    if several_seeds:
        title += "; thick: mean over seeds, thin: single seeds"
    handles, labels = panels_in_order[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        title=title,
        ncols=min(4, max(1, len(trained))),
        title_fontsize=8,
        fontsize=7.5,
    )
    return figure, shown_rows


def _panels(targets: int) -> tuple[MatplotlibFigure, np.ndarray]:
    """A figure and its panels (blocks, targets of a block, quantities)."""
    # A block is a row of targets with a panel for each quantity. Seven targets give two blocks of
    # four, where the last place stays empty.
    blocks = math.ceil(targets / ACROSS)
    across = math.ceil(targets / blocks)
    size = (max(4.6, 0.7 + 1.6 * across), 0.7 + 3.1 * blocks)
    quantities = len(QUANTITIES)
    figure, panels = plt.subplots(
        quantities * blocks, across, figsize=size, squeeze=False, sharex=True, sharey="row"
    )
    by_block = panels.reshape(blocks, quantities, across)
    return figure, by_block.swapaxes(1, 2)


def _draw_quantity(
    axes: Axes, runs: pd.DataFrame, quantity: str, methods: Styles, several_seeds: bool
) -> None:
    """Draw a line per method, mean over seeds, and a thin line per seed if there are several."""
    for method, style in methods.items():
        of_method = runs[runs["method"] == method]
        if several_seeds:
            for _, of_seed in of_method.groupby("seed"):
                axes.plot(
                    of_seed["epoch"],
                    of_seed[quantity],
                    color=style["colour"],
                    linewidth=0.6,
                    alpha=0.7,
                )
        means = of_method.groupby("epoch")[quantity].mean()
        axes.plot(
            means.index,
            means,
            color=style["colour"],
            marker=style["marker"],
            label=style["label"],
            markersize=3.5,
            linewidth=1.4,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
