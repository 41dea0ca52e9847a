"""Rows of noise of a large grid: 14 models, 12 methods, 8 targets, 3 seeds, scored on 8 datasets of 1000 images."""

import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis import comparison, model_comparison, samples, tables
from rib.base.files import write_json
from rib.config.label_space import LabelSpace
from rib.config.run import ALL, NO_TARGET, PRETRAINED, Run
from rib.data.view import DatasetFiles, DatasetView
from tiny.tables import write

MODELS, METHODS, SEEDS, IMAGES, CLASSES = 14, [f"method{i}" for i in range(12)], 3, 1000, 200
DATASETS = [f"dataset{i}" for i in range(8)]
FLOATS = ("log_prob", "brier", "energy", "confidence", "margin")


def runs() -> list[Run]:
    """4,046 runs."""
    found = [Run(f"model{i}", NO_TARGET, PRETRAINED, ALL, 0) for i in range(MODELS)]
    tuned = itertools.product(range(MODELS), DATASETS, METHODS, range(SEEDS))
    return found + [
        Run(f"model{i}", target, method, ALL, seed) for i, target, method, seed in tuned
    ]


def write_rows(folder: Path) -> None:
    """Indexes, rows and manifests of the grid."""
    labels, keys = np.arange(IMAGES) % CLASSES, tuple(map(str, range(CLASSES)))
    for name in DATASETS:
        place = folder / "prepare" / name / "none"
        place.mkdir(parents=True)
        ids = [f"{name}/{i}" for i in range(IMAGES)]
        index = {"row": np.arange(IMAGES, dtype=np.int32), "label": labels.astype(np.int16)}
        index |= dict.fromkeys(("image_id", "source_id", "object_id"), ids)
        pd.DataFrame(index).to_parquet(place / "index.parquet")
        write_json(
            place / "classes.json",
            LabelSpace(keys, tuple((i,) for i in range(CLASSES)), keys).to_json(),
        )
        write_json(place / "manifest.json", {"storage": "array", "corrupt": []})
    rng, n = np.random.default_rng(0), len(DATASETS) * IMAGES
    index = np.tile(np.arange(IMAGES, dtype=np.int32), len(DATASETS))
    for run in runs():
        path = folder / "evaluate" / str(run)
        path.mkdir(parents=True)
        rank, other = (rng.geometric(0.5, n) - 1).astype(np.int16), rng.integers(CLASSES, size=n)
        values = {name: rng.random(n).astype(np.float16) for name in FLOATS}
        values["prediction"] = np.where(rank == 0, np.tile(labels, len(DATASETS)), other).astype(
            np.int16
        )
        names = {
            key: pd.Categorical([value]).repeat(n)
            for key, value in vars(run).items()
            if key != "seed"
        }
        whole = {
            **names,
            "seed": np.int32(run.seed),
            "alpha": np.nan,
            "row": index,
            "rank": rank,
            **values,
        }
        table = pd.DataFrame({"dataset": pd.Categorical(np.repeat(DATASETS, IMAGES)), **whole})
        table.to_parquet(path / "all.parquet", compression="zstd")
        write_json(path / "all.manifest.json", {"device": "cpu", "fit": {run.method: 1.0}})


def write_tables(folder: Path) -> None:
    """Write the tables of the grid, as the jobs of a run do one after another, and how many seconds it took."""

    class Outputs(dict):
        def __missing__(self, name: str) -> Path:
            return folder / f"{name}.csv"

    begun = time.perf_counter()
    outputs, prepared = (
        Outputs(counts=folder / "counts.npz"),
        [folder / "prepare" / name / "none" for name in DATASETS],
    )
    rows = [folder / "evaluate" / str(run) / "all.parquet" for run in runs()]
    means = {"ood_datasets": DATASETS, "source_groups": None, "conditions": ""}
    means |= {"replicates": 2000, "confidence": 0.95, "seed": 0}
    of_rows = {**means, "rows": rows, "indexes": [path / "index.parquet" for path in prepared]}
    of_counts = {**means, "counts": outputs["counts"], "fit": outputs["fit"]}
    write(
        tables.grid_tables,
        **of_rows,
        manifests=[path.with_suffix(".manifest.json") for path in rows],
        datasets=[DatasetFiles(path.parent.name, path, pixels=False) for path in prepared],
        view=DatasetView(geometry=None, budget="all", images_per_class=None),
        fit={"can_fit": METHODS, "threshold": 0.9, "whole_targets": True},
        outputs=outputs,
    )
    write(comparison.comparison_tables, **of_counts, compare_to="ft", outputs=outputs)
    write(model_comparison.model_tables, **of_counts, methods=METHODS, outputs=outputs)
    classes = [path / "classes.json" for path in prepared]
    write(samples.sample_tables, **of_rows, classes=classes, real_labels=[], outputs=outputs)
    (folder / "seconds").write_text(f"{time.perf_counter() - begun:.0f}")
