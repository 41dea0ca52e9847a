"""Rows of noise of a large grid.

It has 14 models, 12 methods, 8 targets and 3 seeds, scored on 8 datasets of 1000 images.
"""

import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analyses.comparison import tables as comparison
from rib.analyses.models import tables as model_comparison
from rib.analyses.samples import tables as samples
from rib.base.files import write_json
from rib.catalog.label_space import LabelSpace
from rib.data.view import DatasetFiles, DatasetView
from rib.schema.run import ALL, NO_TARGET, PRETRAINED, Run
from rib.statistics import tables, writing
from rib.statistics.counts import RowFiles
from rib.statistics.statistics_settings import FitRule, GridTableSettings, RIStatistics

MODELS = 14
METHODS = [f"method{i}" for i in range(12)]
SEEDS = 3
IMAGES = 1000  # of each dataset
CLASSES = 200
DATASETS = [f"dataset{i}" for i in range(8)]
FLOATS = ("log_prob", "brier", "energy", "confidence", "margin")


def runs() -> list[Run]:
    """The 4,046 runs of the grid, the pretrained models first."""
    pretrained = [Run(f"model{i}", NO_TARGET, PRETRAINED, ALL, 0) for i in range(MODELS)]
    combinations = itertools.product(range(MODELS), DATASETS, METHODS, range(SEEDS))
    fine_tuned = [
        Run(f"model{i}", target, method, ALL, seed) for i, target, method, seed in combinations
    ]
    return pretrained + fine_tuned


def write_rows(folder: Path) -> None:
    """Write indexes, rows and manifests of the grid."""
    labels = np.arange(IMAGES) % CLASSES
    class_keys = tuple(str(i) for i in range(CLASSES))
    class_indices = tuple((i,) for i in range(CLASSES))
    space = LabelSpace(class_keys, class_indices, class_keys)
    for name in DATASETS:
        prepared = folder / "prepare" / name / "none"
        prepared.mkdir(parents=True)
        ids = [f"{name}/{i}" for i in range(IMAGES)]
        index = {"row": np.arange(IMAGES, dtype=np.int32), "label": labels.astype(np.int16)}
        index |= dict.fromkeys(("image_id", "source_id", "object_id"), ids)
        pd.DataFrame(index).to_parquet(prepared / "index.parquet")
        write_json(prepared / "classes.json", space.to_json())
        write_json(prepared / "manifest.json", {"storage": "array", "corrupt": []})
    rng = np.random.default_rng(0)
    n = len(DATASETS) * IMAGES
    row_numbers = np.tile(np.arange(IMAGES, dtype=np.int32), len(DATASETS))
    label_of_row = np.tile(labels, len(DATASETS))
    for run in runs():
        path = folder / "evaluate" / str(run)
        path.mkdir(parents=True)
        rank = (rng.geometric(0.5, n) - 1).astype(np.int16)
        wrong_prediction = rng.integers(CLASSES, size=n)
        scores = {name: rng.random(n).astype(np.float16) for name in FLOATS}
        prediction = np.where(rank == 0, label_of_row, wrong_prediction).astype(np.int16)
        names_of_run = {
            column: pd.Categorical([name]).repeat(n)
            for column, name in vars(run).items()
            if column != "seed"
        }
        columns = {
            "dataset": pd.Categorical(np.repeat(DATASETS, IMAGES)),
            **names_of_run,
            "seed": np.int32(run.seed),
            "alpha": np.nan,
            "row": row_numbers,
            "rank": rank,
            **scores,
            "prediction": prediction,
        }
        table = pd.DataFrame(columns)
        table.to_parquet(path / "all.parquet", compression="zstd")
        write_json(
            path / "all.manifest.json",
            {
                "device": "cpu",
                "trained_on": {},
                "fit": {run.method: 1.0},
                "networks": [{"method": run.method}],
            },
        )


def write_tables(folder: Path) -> None:
    """Write the tables of the grid, and into `seconds` how many seconds it took.

    They are written as the jobs of a run do, one after another.
    """

    class Outputs(dict):
        """Files of tables by name; a table without another file is a CSV file of its name."""

        def __missing__(self, name: str) -> Path:
            return folder / f"{name}.csv"

    begun = time.perf_counter()
    outputs = Outputs(counts=folder / "counts.npz")
    prepared = [folder / "prepare" / name / "none" for name in DATASETS]
    rows = [folder / "evaluate" / str(run) / "all.parquet" for run in runs()]
    files = RowFiles(rows=rows, indexes=[path / "index.parquet" for path in prepared])
    statistics = RIStatistics(
        ood_datasets=DATASETS, source_groups=None, replicates=2000, confidence=0.95, seed=0
    )
    grid_tables = tables.grid_tables(
        files=files,
        manifests=[path.with_suffix(".manifest.json") for path in rows],
        datasets=[DatasetFiles(path.parent.name, path, pixels=False) for path in prepared],
        settings=GridTableSettings(
            fit=FitRule(can_fit=METHODS, threshold=0.9, whole_targets=True),
            in_distribution=[],
            view=DatasetView(geometry=None, budget="all", images_per_class=None),
            excludes_proxy=[],
            split=[],
            ri=statistics,
            conditions="",
            code="",
        ),
        counts_file=outputs["counts"],
    )
    writing.write_tables(grid_tables, outputs, conditions="")
    method_tables = comparison.comparison_tables(
        outputs["counts"], outputs["fit"], ri=statistics, compare_to="ft"
    )
    writing.write_tables(method_tables, outputs, conditions="")
    model_tables = model_comparison.model_tables(
        outputs["counts"], outputs["fit"], ri=statistics, methods=METHODS
    )
    writing.write_tables(model_tables, outputs, conditions="")
    sample_tables = samples.sample_tables(
        files=files,
        classes=[path / "classes.json" for path in prepared],
        ri=statistics,
        real_labels=[],
        groups={},
        scores=[],
    )
    writing.write_tables(sample_tables, outputs, conditions="")
    (folder / "seconds").write_text(f"{time.perf_counter() - begun:.0f}")
