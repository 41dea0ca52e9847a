"""Radar chart of accuracies before and after fine-tuning on one target, one pair of lines per model.

Source: arXiv 2410.21582, radar figure (two pretraining sources, fine-tuned on ImageNet-R; before solid, after dashed).
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rib.config.run import PRETRAINED
from rib.figures import Drawn, Labels, Styles


def draw(
    accuracy: pd.DataFrame,
    *,
    target: str,
    method: str,
    method_label: str,
    models: Styles,
    datasets: Labels,
) -> Drawn:
    """Top-1 accuracy (percent) by dataset, mean over seeds, from model, method, target, seed, dataset, accuracy."""
    own = accuracy[accuracy["model"].isin(list(models))]
    own = own[
        (own["method"] == PRETRAINED) | ((own["method"] == method) & (own["target"] == target))
    ]
    shown = own.groupby(["model", "method", "dataset"], sort=False)["accuracy"].mean().reset_index()
    angles = np.linspace(0, 2 * np.pi, len(datasets), endpoint=False)
    figure, axes = plt.subplots(figsize=(5.2, 4.6), subplot_kw={"projection": "polar"})
    axes.set(theta_zero_location="N", theta_direction=-1)
    axes.grid(True, axis="both")
    for model, style in models.items():
        look = {"color": style["colour"], "linewidth": 1.4, "marker": style["marker"]}
        for state, line, filled in ((PRETRAINED, "-", True), (method, "--", False)):
            rows = shown[(shown["model"] == model) & (shown["method"] == state)].set_index(
                "dataset"
            )
            values = rows["accuracy"].loc[list(datasets)].to_numpy()
            face = style["colour"] if filled else "white"
            label = f"{style['label']}, {'before' if filled else f'after {method_label}'}"
            ring = [*angles, angles[0]], [*values, values[0]]
            axes.plot(*ring, line, markersize=4.5, markerfacecolor=face, label=label, **look)
    axes.set_xticks(angles, list(datasets.values()))
    for angle, name, text in zip(angles, datasets, axes.get_xticklabels(), strict=True):
        side = np.sin(angle)  # labels point away from the circle
        text.set_horizontalalignment(
            "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
        )
        text.set_fontweight("bold" if name == target else "normal")
    axes.set(
        rlabel_position=180 / len(datasets),
        ylim=(0, max(10, 10 * np.ceil(shown["accuracy"].max() / 10))),
    )
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.tick_params(axis="y", labelsize=7)
    axes.tick_params(axis="x", pad=2, labelsize=8)
    title = f"Top-1 accuracy; fine-tuned on {datasets[target]} (bold)"
    axes.legend(
        loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.1), title=title, title_fontsize=8
    )
    return figure, shown
