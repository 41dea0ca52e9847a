"""CKA of each layer before and after fine-tuning, one row of panels per model."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.figures import Drawn, Labels, Styles

TICKS = {
    "stage1": "¼",
    "stage2": "½",
    "stage3": "¾",
    "stage4": "all",
    "pre_logits": "head's\ninput",
}
OWN, OTHERS = "target", "others"
COLUMNS = {OWN: "on the target", OTHERS: "on the other datasets (mean)"}
SIDESTEP = 0.05  # horizontal shift between lines, so that points don't overlap


def draw(
    cka: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """CKA with confidence intervals against depth: on the target, and the mean over the other datasets.

    Args:
        cka: columns model, method, target, seed, dataset, layer, depth, cka, ci_low, ci_high; CKA and its confidence
            limits are averaged over targets and seeds.
    """
    figure, panels, shown = draw_lines(cka, ["layer", "depth"], models, methods)
    layers = shown.drop_duplicates("layer").sort_values("depth")
    panels[0, 0].set_xticks(layers["depth"], [TICKS[name] for name in layers["layer"]])
    figure.supxlabel(f"Relative depth in the network; {note(targets, confidence)}", fontsize=8)
    return figure, shown


def note(targets: Labels, confidence: float) -> str:
    what = next(iter(targets.values())) if len(targets) == 1 else f"{len(targets)} targets (mean)"
    return f"fine-tuned on {what}; bands: {confidence:.0%} confidence intervals"


def draw_lines(
    cka: pd.DataFrame, along: Sequence[str], models: Labels, methods: Styles
) -> tuple[Figure, np.ndarray, pd.DataFrame]:
    """Panels of CKA, models by datasets (the target, the mean over the others), with one line and band per method.

    Args:
        cka: see `draw`.
        along: columns that identify the points of a line; the last one is the horizontal axis.
    """
    rows = pd.concat(
        [cka[cka["dataset"] == cka["target"]].assign(dataset=OWN), cka[cka["dataset"] == OTHERS]]
    )
    keys = ["model", "dataset", "method", *along]
    shown = rows.groupby(keys, sort=False)[["cka", "ci_low", "ci_high"]].mean().reset_index()
    size = (7.2, 0.9 + 2.3 * len(models))
    figure, panels = plt.subplots(
        len(models), 2, figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for line, (model, label) in zip(panels, models.items(), strict=True):
        for axes, (place, title) in zip(line, COLUMNS.items(), strict=True):
            _panel(
                axes,
                shown[(shown["model"] == model) & (shown["dataset"] == place)],
                along[-1],
                methods,
            )
            axes.set_title(f"{label}, {title}", loc="left")
        line[0].set_ylabel("Linear CKA with\npretrained (debiased)")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=min(4, len(methods)),
    )
    return figure, panels, shown


def _panel(axes: Axes, rows: pd.DataFrame, along: str, methods: Styles) -> None:
    for place, (method, style) in enumerate(methods.items()):
        part = rows[rows["method"] == method].sort_values(along)
        where = part[along] + SIDESTEP * (place - (len(methods) - 1) / 2)
        whiskers = [part["cka"] - part["ci_low"], part["ci_high"] - part["cka"]]
        look = {"color": style["colour"], "marker": style["marker"], "label": style["label"]}
        axes.fill_between(
            where, part["ci_low"], part["ci_high"], color=style["colour"], alpha=0.2, linewidth=0
        )
        axes.errorbar(
            where,
            part["cka"],
            whiskers,
            **look,
            markersize=4.5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
        )
