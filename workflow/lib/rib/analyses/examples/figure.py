"""Draws the figure `examples`."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.data.dataset import PreparedDataset
from rib.figures import NOTE_CHARACTERS, Drawn, Labels

RIGHT = {"colour": "#1b7837", "mark": "✓", "linewidth": 1.6, "linestyle": "-"}
WRONG = {"colour": "#b2182b", "mark": "✗", "linewidth": 0.9, "linestyle": (0, (3, 2))}


def draw_examples(
    rows: Sequence[pd.DataFrame],
    images: Sequence[PreparedDataset],
    *,
    datasets: Labels,
    model_label: str,
    objects: int,
) -> Drawn:
    """Draw one image of a few classes in every dataset, with the pretrained model's prediction.

    Args:
        rows: the pretrained model's evaluation rows, one table per evaluation group: dataset, row,
            prediction, rank (0 if the prediction is right).
        images: the prepared datasets with pixels, in the order of `datasets`.
        datasets: labels, such as {"noto": "Noto"}.
        objects: number of classes to show, evenly spaced among classes in most datasets.
    """

    prepared = dict(zip(datasets, images, strict=True))
    candidates = first_of_each_class(pd.concat(rows, ignore_index=True), prepared)
    classes = choose_classes(candidates, objects)
    shown_rows = candidates[candidates["object"].isin(classes)]
    size = (1.0 * len(datasets) + 0.6, 1.18 * len(classes) + 0.4)
    figure, panels = plt.subplots(len(classes), len(datasets), figsize=size, squeeze=False)
    for row_of_panels, shown_class in zip(panels, classes, strict=True):
        of_class = shown_rows[shown_rows["object"] == shown_class]
        for axes, dataset in zip(row_of_panels, datasets, strict=True):
            of_dataset = of_class[of_class["dataset"] == dataset]
            axes.set(xticks=[], yticks=[])
            if of_dataset.empty:
                _show_none(axes)
            else:
                _show(axes, prepared[dataset], of_dataset.iloc[0])
        row_of_panels[0].set_ylabel(_class_name(of_class.iloc[0], prepared), fontsize=7)
    for axes, label in zip(panels[0], datasets.values(), strict=True):
        axes.set_title(label, fontsize=7)
    note = (
        f"below each image: prediction of pretrained {model_label} "
        f"({RIGHT['mark']} correct, {WRONG['mark']} wrong)"
    )
    characters = int(NOTE_CHARACTERS * figure.get_figwidth())
    texts = [note, *credits_of(shown_rows["attribution"])]
    lines = [line for text in texts for line in textwrap.wrap(text, characters)]
    figure.supxlabel("\n".join(lines), fontsize=7)
    columns = ["dataset", "object", "image_id", "label", "prediction", "attribution"]
    if not shown_rows["attribution"].any():
        columns.remove("attribution")
    return figure, shown_rows[columns]


def credits_of(attributions: Iterable[str]) -> list[str]:
    """What must stand below the figure about the authors of its images; [] if nothing must.

    Args:
        attributions: of each image, such as `Ann, https://example.org/7, CC BY 2.0`, or "".
    """
    different = sorted({attribution for attribution in attributions if attribution})
    if not different:
        return []
    return ["Cropped, resized and, but for plain photos, rendered; by:", *different]


def first_of_each_class(
    rows: pd.DataFrame, prepared: Mapping[str, PreparedDataset]
) -> pd.DataFrame:
    """The first image of each class in each dataset, from which the figure takes some.

    Args:
        rows: evaluation rows: dataset, row, prediction, rank.
        prepared: datasets by name, such as {"noto": PreparedDataset(...)}.

    Returns:
        The columns of `rows`, label, image_id, attribution ("" for none), and object, the lowest
        output index of the class.
    """
    tables = []
    for name, dataset in prepared.items():
        # Files of a dataset's parts are not in the order of its index.
        of_dataset = rows[rows["dataset"] == name].sort_values("row", kind="stable")
        labelled = of_dataset.assign(label=dataset.labels[of_dataset["row"]], dataset=name)
        first_rows = labelled.drop_duplicates("label")
        index_rows = first_rows["row"].to_numpy()
        attributions = [dataset.attribution(row) or "" for row in index_rows.tolist()]
        image_ids = dataset.index["image_id"].take(index_rows).to_pylist()
        outputs = [dataset.space.indices[label][0] for label in first_rows["label"]]
        tables.append(
            first_rows.assign(image_id=image_ids, object=outputs, attribution=attributions)
        )
    return pd.concat(tables, ignore_index=True)


def choose_classes(shown_rows: pd.DataFrame, objects: int) -> list[int]:
    """Network outputs of the classes to show, such as [3, 120, 251].

    They are evenly spaced among the classes that the largest number of datasets has.

    Args:
        shown_rows: object (the class) and dataset of images.
        objects: number of classes.
    """
    datasets_of_class = shown_rows.groupby("object", sort=True)["dataset"].nunique()
    is_common = datasets_of_class == datasets_of_class.max()
    common_classes = datasets_of_class.index[is_common].tolist()
    number = min(objects, len(common_classes))
    chosen = np.linspace(0, len(common_classes) - 1, number).round().astype(int)
    return [common_classes[i] for i in chosen]


def shorten(name: str, longest: int = 16) -> str:
    """A class name that fits below an image: `a very long nam…` for `a very long name indeed`."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 1]}…"


def _class_name(row: pd.Series, prepared: Mapping[str, PreparedDataset]) -> str:
    """Name beside a row of images: the class of its first image, in that image's dataset."""
    space = prepared[row["dataset"]].space
    return shorten(space.names[row["label"]])


def _show_none(axes: Axes) -> None:
    """Write that the dataset has no image of the class."""
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, "has none", ha="center", va="center", fontsize=6, transform=axes.transAxes)


def _show(axes: Axes, dataset: PreparedDataset, row: pd.Series) -> None:
    """Show an image with its prediction.

    The frame's colour and style say whether the prediction is right (rank 0).
    """
    look = RIGHT if row["rank"] == 0 else WRONG
    assert dataset.images is not None  # the dataset was loaded with pixels
    index_row = np.array([row["row"]])
    (image,) = dataset.images[index_row]
    axes.imshow(image)
    prediction = shorten(dataset.space.names[row["prediction"]])
    axes.set_xlabel(f"{look['mark']} {prediction}", fontsize=6, color=look["colour"], labelpad=2)
    axes.spines[:].set_visible(True)
    axes.spines[:].set(
        color=look["colour"], linewidth=look["linewidth"], linestyle=look["linestyle"]
    )
