"""Contact sheet: the same objects in all datasets, with the pretrained model's prediction."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

RIGHT, WRONG = "#1b7837", "#b2182b"


def draw(
    rows: Sequence[pd.DataFrame],
    images: Sequence[np.ndarray],
    *,
    datasets: Mapping[str, str],
    class_names: Sequence[str],
    model_label: str,
    objects: int,
) -> tuple[Figure, pd.DataFrame]:
    """Images of a few objects, a line per object and a column per dataset.

    Args:
        rows: the pretrained model's evaluation rows, one table per suite: dataset, row, object_id, label, prediction.
        images: (n, size, size, 3) uint8 of each dataset, in the order of `datasets`.
        datasets: label of each dataset.
        class_names: name of each class.
        model_label: the model's name.
        objects: how many objects to show: evenly spaced among those that most datasets have.

    Returns:
        The figure and the rows it shows.
    """
    rows = pd.concat(rows, ignore_index=True)
    chosen = choose_objects(rows, objects)
    shown = rows[rows["object_id"].isin(chosen)]
    figure, panels = plt.subplots(
        len(chosen), len(datasets), figsize=(1.0 * len(datasets) + 0.6, 1.18 * len(chosen) + 0.4), squeeze=False
    )
    for line, object_id in enumerate(chosen):
        for column, (dataset, label) in enumerate(datasets.items()):
            axes = panels[line, column]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            axes.spines[:].set_visible(True)
            if line == 0:
                axes.set_title(label, fontsize=7)
            found = shown[(shown["object_id"] == object_id) & (shown["dataset"] == dataset)]
            if found.empty:
                axes.spines[:].set_visible(False)
                axes.text(0.5, 0.5, "not drawn", ha="center", va="center", fontsize=6, transform=axes.transAxes)
            else:
                _show(axes, images[column], found.iloc[0], class_names)
        name = class_names[shown[shown["object_id"] == object_id]["label"].iloc[0]]
        panels[line, 0].set_ylabel(shorten(name), fontsize=7)
    figure.supxlabel(f"below each image: what pretrained {model_label} takes it for, ✓ right, ✗ wrong", fontsize=7)
    return figure, shown[["dataset", "object_id", "label", "prediction"]]


def choose_objects(rows: pd.DataFrame, objects: int) -> list[str]:
    """Objects that the most datasets show, evenly spaced in the order of their classes."""
    spread = rows.groupby(["label", "object_id"])["dataset"].nunique().reset_index()
    common = (
        spread[spread["dataset"] == spread["dataset"].max()].sort_values(["label", "object_id"])["object_id"].tolist()
    )
    places = np.linspace(0, len(common) - 1, min(objects, len(common))).round().astype(int)
    return [common[place] for place in places]


def shorten(name: str, longest: int = 16) -> str:
    """A class name that fits below an image."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _show(axes, images: np.ndarray, row: pd.Series, class_names: Sequence[str]) -> None:
    right = row["label"] == row["prediction"]
    colour = RIGHT if right else WRONG
    axes.imshow(images[row["row"]])
    axes.set_xlabel(
        f"{'✓' if right else '✗'} {shorten(class_names[row['prediction']])}", fontsize=6, color=colour, labelpad=2
    )
    axes.spines[:].set_color(colour)
    axes.spines[:].set_linewidth(1.6 if right else 0.9)
    axes.spines[:].set_linestyle("-" if right else (0, (3, 2)))
