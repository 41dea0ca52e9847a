"""Tables of a large grid from rows of noise: time and memory of the jobs that compute metrics and comparisons."""

import itertools
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis import comparison, model_comparison, samples, tables
from rib.base.files import write_json
from rib.config.label_space import LabelSpace
from rib.config.run import ALL, NO_TARGET, PRETRAINED, Run
from rib.data.view import DatasetFiles, DatasetView

MODELS, METHODS, TARGETS, SEEDS, IMAGES, CLASSES = 14, 12, 8, 3, 1000, 200
METHOD_NAMES, DATASETS = [f"method{i}" for i in range(METHODS)], [f"dataset{i}" for i in range(TARGETS)]
FLOATS = ("log_prob", "brier", "energy", "confidence", "margin")


def runs() -> list[Run]:
    """4,046 runs: the pretrained model of each of 14, and 12 methods on 8 targets with 3 seeds each."""
    found = [Run(f"model{i}", NO_TARGET, PRETRAINED, ALL, 0) for i in range(MODELS)]
    tuned = itertools.product(range(MODELS), DATASETS, METHOD_NAMES, range(SEEDS))
    return found + [Run(f"model{i}", target, method, ALL, seed) for i, target, method, seed in tuned]


def write_grid(folder: Path) -> None:
    """Indexes, rows and manifests of the grid, each dataset with 1000 objects of its own."""
    labels = np.arange(IMAGES) % CLASSES
    space = LabelSpace(tuple(map(str, range(CLASSES))), tuple((i,) for i in range(CLASSES)), tuple(map(str, range(CLASSES))))
    for name in DATASETS:
        place = folder / "prepare" / name / "none"
        place.mkdir(parents=True)
        ids = [f"{name}/{i}" for i in range(IMAGES)]
        index = {"row": np.arange(IMAGES, dtype=np.int32), "image_id": ids, "label": labels.astype(np.int16)}
        pd.DataFrame({**index, "source_id": ids, "object_id": ids}).to_parquet(place / "index.parquet")
        write_json(place / "classes.json", space.to_json())
        write_json(place / "manifest.json", {"corrupt": []})
    rng, n = np.random.default_rng(0), TARGETS * IMAGES
    constant = {"dataset": pd.Categorical(np.repeat(DATASETS, IMAGES)), "row": np.tile(np.arange(IMAGES, dtype=np.int32), TARGETS)}
    for run in runs():
        path = folder / "evaluate" / str(run)
        path.mkdir(parents=True)
        rank = rng.geometric(0.5, n) - 1
        prediction = np.where(rank == 0, np.tile(labels, TARGETS), rng.integers(CLASSES, size=n))
        values = {name: rng.random(n).astype(np.float16) for name in FLOATS}
        table = pd.DataFrame({**constant, "prediction": prediction.astype(np.int16), "rank": rank.astype(np.int16), **values})
        table["log_prob"] *= -1
        table = table.assign(**{key: pd.Categorical([value] * n) for key, value in vars(run).items() if key != "seed"})
        table.assign(seed=np.int32(run.seed), alpha=np.nan).to_parquet(path / "all.parquet", compression="zstd")
        write_json(path / "all.manifest.json", {"device": "cpu", "fit": {run.method: 1.0}})
