"""Training curves of one model: cross-entropy and accuracy per epoch, one column of panels per target."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

ACROSS = 5  # maximum number of panel columns
ROWS = {"cross_entropy": "cross-entropy", "accuracy": "accuracy (%)"}


def draw(
    training: pd.DataFrame,
    *,
    model: str,
    model_label: str,
    methods: Mapping[str, Mapping],
    targets: Mapping[str, str],
) -> tuple[Figure, pd.DataFrame]:
    """Training means of each epoch, one line per method; with several seeds, also thin lines per seed.

    Args:
        training: columns model, method, target, seed, epoch, cross_entropy, accuracy (percent).
        methods: label, colour and marker of each method; only those that train are shown.
    """
    shown = training[training["model"] == model]
    several = shown["seed"].nunique() > 1
    blocks = -(-len(targets) // ACROSS)
    across = -(-len(targets) // blocks)
    figure, panels = plt.subplots(
        2 * blocks,
        across,
        figsize=(max(4.6, 0.7 + 1.6 * across), 0.7 + 3.1 * blocks),
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    trained = [method for method in methods if method in set(shown["method"])]
    for place in range(blocks * across):
        block, column = divmod(place, across)
        pair = panels[2 * block : 2 * block + 2, column]
        if place >= len(targets):
            for axes in pair:
                axes.axis("off")
            continue
        target = list(targets)[place]
        _draw_target(pair, shown[shown["target"] == target], {method: methods[method] for method in trained}, several)
        pair[0].set_title(targets[target], fontsize=8)
        if place + across >= len(targets):  # no panel below
            pair[1].xaxis.set_tick_params(labelbottom=True)
    for line, label in enumerate(list(ROWS.values()) * blocks):
        panels[line, 0].set_ylabel(label, fontsize=8)
        if line % 2 == 0:
            panels[line, 0].set_ylim(0, 1.05 * max(1e-9, shown["cross_entropy"].max()))
    figure.supxlabel("epoch", fontsize=8)
    styles = [Line2D([], [], **_style(methods[method]), label=methods[method]["label"]) for method in trained]
    note = "; thick: mean over seeds, thin: single seeds" if several else ""
    figure.legend(
        handles=styles,
        loc="outside upper center",
        ncols=min(4, max(1, len(styles))),
        title=f"{model_label}, by target{note}",
        title_fontsize=8,
        fontsize=7.5,
    )
    return figure, shown


def _style(style: Mapping) -> dict[str, object]:
    return {"color": style["colour"], "marker": style["marker"], "markersize": 3.5, "linewidth": 1.4}


def _draw_target(pair, runs: pd.DataFrame, methods: Mapping[str, Mapping], several: bool) -> None:
    """Draw the two panels of a target."""
    for axes, quantity in zip(pair, ROWS, strict=True):
        for method, style in methods.items():
            _draw_method(axes, runs[runs["method"] == method], quantity, style, several)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=7)


def _draw_method(axes, runs: pd.DataFrame, quantity: str, style: Mapping, several: bool) -> None:
    """Draw the mean over seeds and, if there are several, each seed."""
    if several:
        for _, one in runs.groupby("seed"):
            axes.plot(one["epoch"], one[quantity], color=style["colour"], linewidth=0.6, alpha=0.7)
    mean = runs.groupby("epoch")[quantity].mean()
    axes.plot(mean.index, mean, **_style(style))
