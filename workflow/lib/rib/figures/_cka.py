"""Lines of CKA before and after fine-tuning, one row of panels per model."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.figures import Labels, Styles

ON_TARGET = "target"
ON_OTHERS = "others"
TITLES = {ON_TARGET: "on the target", ON_OTHERS: "on the other datasets (mean)"}
SIDESTEP = 0.05  # horizontal shift between lines, to separate their points


def note(targets: Labels, confidence: float) -> str:
    """`fine-tuned on 5 targets (mean); bands: 95% confidence intervals`, below a figure."""
    fine_tuned_on = f"{len(targets)} targets (mean)"
    if len(targets) == 1:
        (fine_tuned_on,) = targets.values()
    return f"fine-tuned on {fine_tuned_on}; bands: {confidence:.0%} confidence intervals"


def draw_lines(
    cka: pd.DataFrame, along: Sequence[str], models: Labels, methods: Styles
) -> tuple[Figure, np.ndarray, pd.DataFrame]:
    """Panels of CKA (similarity to pretrained features), a line and band per method.

    Args:
        cka: columns model, method, target, dataset, cka, ci_low, ci_high, and `along`; CKA and its
            confidence limits are averaged over targets and seeds.
        along: columns that identify the points of a line, such as ["layer", "depth"]; the last one
            is the horizontal axis.

    Returns:
        The figure; its panels, models by two (target, mean over others); and the rows shown.
    """
    on_target = cka[cka["dataset"] == cka["target"]].assign(dataset=ON_TARGET)
    on_others = cka[cka["dataset"] == ON_OTHERS]
    points = pd.concat([on_target, on_others]).groupby(
        ["model", "dataset", "method", *along], sort=False
    )
    shown_rows = points[["cka", "ci_low", "ci_high"]].mean().reset_index()
    figure, panels = plt.subplots(
        len(models),
        len(TITLES),
        figsize=(7.2, 0.9 + 2.3 * len(models)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row_of_panels, (model, model_label) in zip(panels, models.items(), strict=True):
        for axes, (dataset, title) in zip(row_of_panels, TITLES.items(), strict=True):
            is_shown_here = (shown_rows["model"] == model) & (shown_rows["dataset"] == dataset)
            _draw_methods(axes, shown_rows[is_shown_here], along[-1], methods)
            axes.set_title(f"{model_label}, {title}", loc="left")
        row_of_panels[0].set_ylabel("Linear CKA with\npretrained (debiased)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(methods)))
    return figure, panels, shown_rows


def _draw_methods(axes: Axes, rows: pd.DataFrame, along: str, methods: Styles) -> None:
    """One line with a band and error bars for each method; `along` is the horizontal axis."""
    for i, (method, style) in enumerate(methods.items()):
        points = rows[rows["method"] == method].sort_values(along)
        x = points[along] + SIDESTEP * (i - (len(methods) - 1) / 2)
        cka, low, high = points["cka"], points["ci_low"], points["ci_high"]
        axes.fill_between(x, low, high, color=style["colour"], alpha=0.2, linewidth=0)
        axes.errorbar(
            x,
            cka,
            [cka - low, high - cka],
            color=style["colour"],
            marker=style["marker"],
            label=style["label"],
            markersize=4.5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
        )
