"""Training curves of one model: cross-entropy and accuracy on the target per epoch, a column of panels per target."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

ACROSS = 5  # targets beside each other, at most
ROWS = {"cross_entropy": "cross-entropy", "accuracy": "accuracy (%)"}


def draw(
    training: pd.DataFrame,
    *,
    model: str,
    model_label: str,
    methods: Mapping[str, Mapping],
    targets: Mapping[str, str],
) -> tuple[Figure, pd.DataFrame]:
    """Means over the images of an epoch, while it trains; a line per method, thin ones per seed where there are several.

    Args:
        training: columns model, method, target, seed, epoch, cross_entropy, accuracy (percent).
        model: the model shown.
        model_label: its name.
        methods: label, colour and marker of each method; those that train are shown.
        targets: label of each target.

    Returns:
        The figure and the rows it shows.
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
        if place + across >= len(targets):  # none of its own below it
            pair[1].xaxis.set_tick_params(labelbottom=True)
    for line, label in enumerate(list(ROWS.values()) * blocks):
        panels[line, 0].set_ylabel(label, fontsize=8)
        if line % 2 == 0:
            panels[line, 0].set_ylim(0, 1.05 * max(1e-9, shown["cross_entropy"].max()))
    figure.supxlabel("epoch", fontsize=8)
    looks = [Line2D([], [], **_look(methods[method]), label=methods[method]["label"]) for method in trained]
    note = "; thick: mean over seeds, thin: each" if several else ""
    figure.legend(
        handles=looks,
        loc="outside upper center",
        ncols=min(4, max(1, len(looks))),
        title=f"{model_label}, by target{note}",
        title_fontsize=8,
        fontsize=7.5,
    )
    return figure, shown


def _look(look: Mapping) -> dict[str, object]:
    return {"color": look["colour"], "marker": look["marker"], "markersize": 3.5, "linewidth": 1.4}


def _draw_target(pair, runs: pd.DataFrame, methods: Mapping[str, Mapping], several: bool) -> None:
    """The two panels of a target."""
    for axes, quantity in zip(pair, ROWS, strict=True):
        for method, look in methods.items():
            _draw_method(axes, runs[runs["method"] == method], quantity, look, several)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=7)


def _draw_method(axes, runs: pd.DataFrame, quantity: str, look: Mapping, several: bool) -> None:
    """The mean over seeds, and each seed where there are several."""
    if several:
        for _, one in runs.groupby("seed"):
            axes.plot(one["epoch"], one[quantity], color=look["colour"], linewidth=0.6, alpha=0.7)
    mean = runs.groupby("epoch")[quantity].mean()
    axes.plot(mean.index, mean, **_look(look))
