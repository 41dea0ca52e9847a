"""Heat maps of the distances between datasets, one panel per model and kind of distance."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rib.analysis.association import matrix_of
from rib.figures import Drawn, Labels, text_colour


def draw(distances: pd.DataFrame, *, models: Labels, datasets: Labels, kinds: Labels) -> Drawn:
    """Distances as colour and number; each panel has its own colour range.

    Args:
        distances: columns model, first, second, distance, value, n.
        kinds: label of each kind of distance, one column of panels each.
    """
    names, size = list(datasets), 0.34 * len(datasets)
    inches = (1.0 + len(kinds) * (size + 0.25), 1.0 + len(models) * (size + 0.35))
    figure, panels = plt.subplots(
        len(models), len(kinds), figsize=inches, squeeze=False, sharex=True, sharey=True
    )
    for line, (model, label) in zip(panels, models.items(), strict=True):
        for axes, (kind, title) in zip(line, kinds.items(), strict=True):
            part = distances[(distances["model"] == model) & (distances["distance"] == kind)]
            matrix = matrix_of(part).reindex(index=names, columns=names)
            grid = np.where(np.tri(len(names), k=-1), matrix, np.nan)
            image = axes.imshow(grid, cmap="Blues", aspect="equal")
            spread = np.nanmax(grid) - np.nanmin(
                grid
            )  # up to three decimals, as needed to distinguish the values
            digits = np.clip(2 - np.floor(np.log10(spread)), 0, 3) if spread > 0 else 1
            for row, column in np.argwhere(~np.isnan(grid)):
                text, colour = (
                    f"{grid[row, column]:.{int(digits)}f}",
                    text_colour(image, grid[row, column]),
                )
                axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=colour)
            axes.set_title(f"{title}, n = {part['n'].iloc[0]}", fontsize=8)
            axes.set_xticks(
                range(len(names) - 1),
                list(datasets.values())[:-1],
                rotation=40,
                ha="right",
                fontsize=7,
            )
            axes.set_yticks(range(1, len(names)), list(datasets.values())[1:], fontsize=7)
            axes.set(xlim=(-0.5, len(names) - 1.5), ylim=(len(names) - 0.5, 0.5))
            axes.tick_params(length=0)
            axes.grid(False)
            axes.spines[["left", "bottom"]].set_visible(False)
        line[0].set_ylabel(label, fontsize=9)
    figure.supxlabel(
        "darker: larger distance (range per panel); n: images of each dataset", fontsize=7
    )
    return figure, distances[distances["model"].isin(list(models))]
