"""Training curves of one model: cross-entropy and accuracy per epoch, one column of panels per target."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from rib.figures import Drawn, Labels, Styles

ACROSS = 5  # maximum number of panel columns
ROWS = {"cross_entropy": "cross-entropy", "accuracy": "accuracy (%)"}


def draw(
    training: pd.DataFrame, *, model: str, model_label: str, methods: Styles, targets: Labels
) -> Drawn:
    """Training means of each epoch, one line per method; with several seeds, also thin lines per seed.

    Args:
        training: columns model, method, target, seed, epoch, cross_entropy, accuracy (percent).
        methods: label, colour and marker of each method; only those that train are shown.
    """
    shown = training[training["model"] == model]
    several = shown["seed"].nunique() > 1
    trained = {method: style for method, style in methods.items() if method in set(shown["method"])}
    blocks = -(-len(targets) // ACROSS)
    across = -(-len(targets) // blocks)
    size = (max(4.6, 0.7 + 1.6 * across), 0.7 + 3.1 * blocks)
    figure, panels = plt.subplots(
        2 * blocks, across, figsize=size, squeeze=False, sharex=True, sharey="row"
    )
    pairs = panels.reshape(blocks, 2, across).swapaxes(1, 2).reshape(-1, 2)  # two panels per target
    for place, (target, label) in enumerate(targets.items()):
        _draw_target(pairs[place], shown[shown["target"] == target], trained, several)
        pairs[place, 0].set_title(label, fontsize=8)
        if place + across >= len(targets):  # no panel below
            pairs[place, 1].xaxis.set_tick_params(labelbottom=True)
    for axes in pairs[len(targets) :].flat:
        axes.axis("off")
    for pair in pairs[::across]:
        for axes, label in zip(pair, ROWS.values(), strict=True):
            axes.set_ylabel(label, fontsize=8)
        pair[0].set_ylim(0, 1.05 * max(1e-9, shown["cross_entropy"].max()))
    figure.supxlabel("epoch", fontsize=8)
    title = f"{model_label}, by target" + (
        "; thick: mean over seeds, thin: single seeds" if several else ""
    )
    look = {"ncols": min(4, max(1, len(trained))), "title_fontsize": 8, "fontsize": 7.5}
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside upper center", title=title, **look
    )
    return figure, shown


def _draw_target(pair, runs: pd.DataFrame, methods: Styles, several: bool) -> None:
    """Draw each method's mean over seeds and, if there are several, each seed in the two panels of a target."""
    for axes, quantity in zip(pair, ROWS, strict=True):
        for method, style in methods.items():
            own = runs[runs["method"] == method]
            if several:
                for _, one in own.groupby("seed"):
                    axes.plot(
                        one["epoch"], one[quantity], color=style["colour"], linewidth=0.6, alpha=0.7
                    )
            mean = own.groupby("epoch")[quantity].mean()
            look = {"color": style["colour"], "marker": style["marker"], "label": style["label"]}
            axes.plot(mean.index, mean, markersize=3.5, linewidth=1.4, **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=7)
