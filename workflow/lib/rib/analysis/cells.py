"""What explains a cell of RI: the classes that lose most, and images whose prediction changes. No torch.

A cell is a model, method and target, of the lowest seed. Images are small, of datasets whose licence allows showing them,
and of the same few candidates for all cells, so that the file stays small.
"""

import base64
import io
import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from rib.analysis.counts import read_indexes
from rib.analysis.samples import compared, read_rows, right
from rib.base.files import read_json, write_text
from rib.base.progress import Progress
from rib.config.geometry import Geometry
from rib.config.label_space import LabelSpace
from rib.config.run import PRETRAINED, by_run
from rib.data.prepared import PreparedDataset

CLASSES, MOST = 5, {"lost": 4, "gained": 2}  # classes and images of a cell
IMAGES, SIDE = 400, 56  # candidates of all datasets together, and their size in pixels
READ = ("row", "prediction", "rank")


def write_cells(
    *,
    rows: Collection[Path],
    indexes: Collection[Path],
    classes: Collection[Path],
    prepared: Collection[Path],
    publishable: Collection[str],
    geometry: Mapping,
    ood_datasets: Collection[str],
    size: str,
    cells: Path,
) -> None:
    """Write what explains each cell of RI.

    Args:
        rows: Parquet files of all runs except curves; folder names identify the run.
        indexes, classes, prepared: index, label space and manifest of each dataset; folder names identify it.
        publishable: datasets whose images may be shown.
        size: of the training subset.
        cells: JSON file. `cells` has, by model/method/target, `classes` (see `lost_classes`) and `flips` (place in
            `images`, lost or gained, the wrong prediction); `images` are dataset, class and WebP picture as base64.
    """
    spaces = {path.parts[-3]: LabelSpace.from_json(read_json(path)) for path in classes}
    labels = {
        name: own["label"].to_numpy() for name, own in read_indexes(indexes, ["label"]).items()
    }
    folders = {path.parts[-3]: path.parent for path in prepared if path.parts[-3] in publishable}
    opened = {
        name: PreparedDataset.open(path, name, Geometry(**geometry))
        for name, path in folders.items()
    }
    files = by_run(rows)
    pretrained = {run.model: run for run in files if run.method == PRETRAINED}
    before = lru_cache(1)(lambda model: read_rows(files[pretrained[model]].values(), READ))
    tuned = sorted(
        (run for run in files if run.size == size and run.method != PRETRAINED),
        key=lambda run: -run.seed,
    )
    runs = {
        f"{run.model}/{run.method}/{run.target}": run for run in tuned
    }  # the last one, of the lowest seed, stays
    found, places = {}, {}
    for cell, run in Progress(sorted(runs.items()), desc="explaining cells", unit="cell"):
        counted, flips = [], {"lost": [], "gained": []}
        for name, after in read_rows(files[run].values(), READ).items():
            if name in ood_datasets and name != run.target:
                was = before(run.model)[name]
                _, lost, gained = compared(was, after, name, (pretrained[run.model], run)).values()
                counted.append((spaces[name], labels[name][after["row"]], right(was), right(after)))
                step = -(
                    -len(labels[name]) * len(opened) // IMAGES
                )  # of which each dataset has as many candidates
                candidate = (after["row"] % step == 0).to_numpy() & (name in opened)
                for kind, flags, wrong in (("lost", lost, after), ("gained", gained, was)):
                    own = wrong.loc[flags & candidate, ["row", "prediction"]]
                    flips[kind] += [
                        (row // step, name, row, guess)
                        for row, guess in own.itertuples(index=False)
                    ]
        some = [(kind, *flip) for kind, own in flips.items() for flip in sorted(own)[: MOST[kind]]]
        named = [
            (places.setdefault(it[2:4], len(places)), it[0], spaces[it[2]].names[it[4]])
            for it in some
        ]
        found[cell] = {"classes": lost_classes(counted), "flips": named}
    images = [
        (name, spaces[name].names[labels[name][row]], _picture(opened[name], row))
        for name, row in places
    ]
    write_text(
        cells,
        json.dumps({"images": images, "cells": found}, ensure_ascii=False, separators=(",", ":")),
    )


def lost_classes(
    counted: Collection[tuple[LabelSpace, np.ndarray, np.ndarray, np.ndarray]],
) -> list[tuple]:
    """Classes whose accuracy falls most: name, number of images, and how many are right before and after.

    Args:
        counted: label space, and of each image the label and whether it is right before and after, by dataset. Classes of
            two datasets are the same if they have the same network outputs.
    """
    sums: dict[tuple, list] = {}
    for space, *arrays in counted:
        n, was, now = (
            np.bincount(arrays[0], by, len(space.keys)).astype(int) for by in (None, *arrays[1:])
        )
        for label in np.flatnonzero(n):
            entry = sums.setdefault(space.indices[label], [space.names[label], 0, 0, 0])
            entry[1:] = (a + int(b[label]) for a, b in zip(entry[1:], (n, was, now), strict=True))
    lost = [entry for entry in sums.values() if entry[3] < entry[2]]
    return sorted(lost, key=lambda entry: (entry[3] - entry[2]) / entry[1])[:CLASSES]


def _picture(dataset: PreparedDataset, row: int) -> str:
    data, image = io.BytesIO(), Image.fromarray(dataset.images[np.array([row])][0])
    image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(data, "WEBP", quality=80)
    return base64.b64encode(data.getvalue()).decode()
