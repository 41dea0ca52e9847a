"""Draws the figure `in_1k`."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd

from rib.base.appearance import INK, PRETRAINED_LABEL
from rib.figures import Drawn, Labels, Styles
from rib.schema.run import MEAN, PRETRAINED

COLUMNS = ["model", "method", "target", "size", "alpha"]


def draw_in_1k(
    in_1k: pd.DataFrame, *, models: Labels, looks: Styles, tests: Mapping[str, str]
) -> Drawn:
    """Draw accuracy in distribution against the mean out of it, a panel per model and target.

    Args:
        in_1k: columns model, method, target, size, alpha, dataset (`mean` for the mean over OOD
            datasets), accuracy (percent).
        models: labels, {"net": "Net"}.
        looks: of methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        tests: test set of each target: {"imagenet_train": "imagenet_val"}.
    """
    points = _points(in_1k, tests)
    panels_of = [(model, target) for model in models for target in tests]
    figure, panels = plt.subplots(
        1, len(panels_of), figsize=(0.8 + 3.2 * len(panels_of), 3.6), squeeze=False
    )
    for axes, (model, target) in zip(panels[0], panels_of, strict=True):
        shown = points[(points["model"] == model) & (points["target"] == target)]
        before = shown[shown["method"] == PRETRAINED]
        axes.plot(before["id"], before["ood"], "*", color=INK, ms=11, label=PRETRAINED_LABEL)
        for method, look in looks.items():
            of_method = shown[shown["method"] == method].sort_values("alpha")
            is_curve = of_method["alpha"].notna().any()
            axes.plot(
                of_method["id"],
                of_method["ood"],
                color=look["colour"],
                marker=look["marker"],
                linestyle="-" if is_curve else "none",
                markersize=4 if is_curve else 6,
                label=look["label"],
            )
        axes.set_title(models[model], fontsize=9)
        axes.set_xlabel("accuracy on the test set (%)", fontsize=8)
    panels[0, 0].set_ylabel("mean OOD accuracy (%)", fontsize=8)
    panels[0, -1].legend(fontsize=7)
    return figure, points


def _points(in_1k: pd.DataFrame, tests: Mapping[str, str]) -> pd.DataFrame:
    """A row for each network, with the columns id and ood (percent)."""
    of_test = in_1k[in_1k["dataset"] == in_1k["target"].map(dict(tests))]
    of_mean = in_1k[in_1k["dataset"] == MEAN]
    on_test = of_test[[*COLUMNS, "accuracy"]].rename(columns={"accuracy": "id"})
    out_of_it = of_mean[[*COLUMNS, "accuracy"]].rename(columns={"accuracy": "ood"})
    return on_test.merge(out_of_it, on=COLUMNS)
