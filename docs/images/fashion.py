"""A sheet of the fashion family: an image of each class in each set, docs/images/fashion.png.

    PYTHONPATH=workflow/lib python docs/images/fashion.py data/raw/fashion_train

The pictures are those that the workflow prepares at 32 pixels. Rows of the set `corrupted` show one
corruption each, at severity 3.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from rib.base.plugins import load_module
from rib.catalog.catalog import PROJECT_CATALOG, Catalog
from rib.data.images import DatasetSource
from rib.schema.entries import Dataset
from rib.schema.geometry import Geometry

FAMILY = "fashion"
GEOMETRY = Geometry(size=32, crop_pct=1.0, interpolation="bicubic")
NUMBER_OF_SEVERITIES = 5
SHOWN_SEVERITY = 3


def main(folder: Path) -> None:
    """Draw the sheet.

    Args:
        folder: the four decompressed idx files.
    """
    catalog = Catalog([PROJECT_CATALOG])
    datasets = catalog.datasets_of(catalog.families[FAMILY], "reference", "in_distribution", "ood")
    class_names = catalog.family_label_space(FAMILY).names
    figure, panels = plt.subplots(
        len(class_names), len(datasets), figsize=(10, 10), layout="constrained"
    )
    for column, dataset in enumerate(datasets.values()):
        pictures = pictures_of(dataset, catalog, folder)
        panels[0, column].set_title(dataset.label.replace(" ", "\n").replace("-", "-\n"), size=8)
        for row, class_name in enumerate(class_names):
            panel = panels[row, column]
            panel.imshow(pictures[row], interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            if column == 0:
                panel.set_ylabel(class_name, size=8)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


def pictures_of(dataset: Dataset, catalog: Catalog, folder: Path) -> list[np.ndarray]:
    """One picture of each class of a dataset, (32, 32, 3) uint8.

    It is another image for each class: of the first class the third, of the second the eighth and
    so on, so that those of `corrupted` have one corruption each, at severity 3.
    """
    photos_layout = catalog.photos_layout_file(dataset)
    source = DatasetSource(
        name=dataset.name,
        archives=[folder / archive["file"] for archive in dataset.sources],
        space=catalog.label_space(dataset),
        geometry=GEOMETRY,
        photos_layout=str(photos_layout) if photos_layout else None,
    )
    only = catalog.only(dataset)
    pictures: list[list[np.ndarray]] = [[] for _ in source.space.keys]
    layout = load_module(catalog.layout_file(dataset.layout))
    for item in layout.items(source, **dataset.settings):
        if only is None or item.image_id in only:
            pictures[item.label].append(item.picture)
        is_enough = [
            len(pictures_of_class) > number_of_image(label)
            for label, pictures_of_class in enumerate(pictures)
        ]
        if all(is_enough):
            break
    chosen = []
    for label, pictures_of_class in enumerate(pictures):
        chosen.append(pictures_of_class[number_of_image(label) % len(pictures_of_class)])
    return chosen


def number_of_image(label: int) -> int:
    """Which image of a class is shown, from 0."""
    return label * NUMBER_OF_SEVERITIES + SHOWN_SEVERITY - 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
