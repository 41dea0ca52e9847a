"""Example images of the same classes in all datasets, with the pretrained model's predictions."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rib.data.prepared import PreparedDataset
from rib.figures import Drawn, Labels

RIGHT, WRONG = "#1b7837", "#b2182b"


def draw(
    rows: Sequence[pd.DataFrame],
    images: Sequence[PreparedDataset],
    *,
    datasets: Labels,
    model_label: str,
    objects: int,
) -> Drawn:
    """One image of a few classes in every dataset, one row per class and one column per dataset.

    Args:
        rows: the pretrained model's evaluation rows, one table per evaluation group: dataset, row, prediction, rank.
        images: the datasets, in the order of `datasets`.
        objects: number of classes to show, evenly spaced among those in most datasets.
    """
    prepared = dict(zip(datasets, images, strict=True))
    shown = first_of_each_class(pd.concat(rows, ignore_index=True), prepared)
    chosen = choose_classes(shown, objects)
    shown = shown[shown["object"].isin(chosen)]
    size = (1.0 * len(datasets) + 0.6, 1.18 * len(chosen) + 0.4)
    figure, panels = plt.subplots(len(chosen), len(datasets), figsize=size, squeeze=False)
    for line, one in zip(panels, chosen, strict=True):
        for axes, dataset in zip(line, datasets, strict=True):
            axes.set(xticks=[], yticks=[])
            found = shown[(shown["object"] == one) & (shown["dataset"] == dataset)]
            axes.spines[:].set_visible(not found.empty)
            if found.empty:
                axes.text(
                    0.5,
                    0.5,
                    "has none",
                    ha="center",
                    va="center",
                    fontsize=6,
                    transform=axes.transAxes,
                )
            else:
                _show(axes, prepared[dataset], found.iloc[0])
        first = shown[shown["object"] == one].iloc[0]
        line[0].set_ylabel(
            shorten(prepared[first["dataset"]].space.names[first["label"]]), fontsize=7
        )
    for axes, label in zip(panels[0], datasets.values(), strict=True):
        axes.set_title(label, fontsize=7)
    figure.supxlabel(
        f"below each image: prediction of pretrained {model_label} (✓ correct, ✗ wrong)", fontsize=7
    )
    return figure, shown[["dataset", "object", "image_id", "label", "prediction"]]


def first_of_each_class(
    rows: pd.DataFrame, prepared: Mapping[str, PreparedDataset]
) -> pd.DataFrame:
    """The first image of each class in each dataset; `object` is the lowest output index of the class."""
    parts = []
    for name, dataset in prepared.items():
        part = rows[rows["dataset"] == name]
        part = part.assign(label=dataset.labels[part["row"]], dataset=name).drop_duplicates("label")
        ids = dataset.index["image_id"].take(part["row"].to_numpy()).to_pylist()
        parts.append(
            part.assign(
                image_id=ids, object=[dataset.space.indices[label][0] for label in part["label"]]
            )
        )
    return pd.concat(parts, ignore_index=True)


def choose_classes(shown: pd.DataFrame, objects: int) -> list[int]:
    """Evenly spaced classes among those in most datasets."""
    spread = shown.groupby("object", sort=True)["dataset"].nunique()
    common = spread.index[spread == spread.max()].tolist()
    places = np.linspace(0, len(common) - 1, min(objects, len(common))).round().astype(int)
    return [common[place] for place in places]


def shorten(name: str, longest: int = 16) -> str:
    """Shorten a class name to fit below an image."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _show(axes, dataset: PreparedDataset, row: pd.Series) -> None:
    right = row["rank"] == 0
    colour = RIGHT if right else WRONG
    axes.imshow(dataset.images[np.array([row["row"]])][0])
    prediction = shorten(dataset.space.names[row["prediction"]])
    axes.set_xlabel(f"{'✓' if right else '✗'} {prediction}", fontsize=6, color=colour, labelpad=2)
    axes.spines[:].set(
        color=colour, linewidth=1.6 if right else 0.9, linestyle="-" if right else (0, (3, 2))
    )
