"""Mean OOD accuracy before and after fine-tuning against the number of images of the pretraining data."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

WIDTH = 0.115  # of a model's label in inches
PLOT = 5.4  # width of the axes in inches


def draw(
    ranks: pd.DataFrame,
    *,
    method: str,
    method_label: str,
    models: Mapping[str, Mapping],
    images: Mapping[str, int],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """Accuracies (percent) before (open) and after (filled) by number of images (log axis), a labelled column per model.

    Models with about the same number are drawn side by side.

    Args:
        ranks: columns method, model, ood_before, before_low, before_high, ood_after, after_low, after_high.
        images: number of pretraining images, by model; others are not shown.
    """
    shown = ranks[(ranks["method"] == method) & ranks["model"].isin(list(images))]
    shown = shown.assign(pretraining_images=shown["model"].map(images))
    shown = shown.sort_values(["pretraining_images", "ood_before"]).reset_index(drop=True)
    logs = np.log10(shown["pretraining_images"].to_numpy())
    # The places closest to the numbers that leave each label its width.
    apart = WIDTH * (np.ptp(logs) + 0.3) / PLOT * np.arange(len(shown))
    places = 10 ** (isotonic_regression(logs - apart).x + apart)
    figure, axes = plt.subplots(figsize=(PLOT + 1, 5))
    for place, row in zip(places, shown.to_dict("records"), strict=True):
        colour, marker = models[row["model"]]["colour"], models[row["model"]]["marker"]
        axes.plot(2 * [place], [row["ood_before"], row["ood_after"]], color=colour, linewidth=0.6)
        for when, face in (("before", "white"), ("after", colour)):
            axes.plot(2 * [place], [row[f"{when}_low"], row[f"{when}_high"]], "_-", color=colour, linewidth=0.9)
            axes.plot(place, row[f"ood_{when}"], marker, color=colour, markerfacecolor=face, markersize=5)
    axes.set_xscale("log")
    axes.set_ylabel("Mean OOD accuracy (%)")
    axes.set_xlabel("Images or image-text pairs of the pretraining data (log scale)")
    named = axes.secondary_xaxis("top")
    named.set_xticks(places, [models[model]["label"] for model in shown["model"]], rotation=90, fontsize=6)
    named.tick_params(axis="x", which="both", length=0)
    named.spines["top"].set_visible(False)
    note = f"open: before, filled: after {method_label}; whiskers: {confidence:.0%} confidence intervals"
    figure.supxlabel(f"{note}\nmodels with about the same number stand side by side", fontsize=7)
    return figure, shown
