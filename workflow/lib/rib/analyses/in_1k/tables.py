"""The table `in_1k`: accuracy and calibration of runs on targets in distribution."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rib.schema.layout import Layout
from rib.schema.run import MEAN, PRETRAINED
from rib.statistics.calibration_error import calibration_error_and_floor
from rib.statistics.inputs import Inputs
from rib.statistics.sample_rows import is_right

COLUMNS = ["method", "alpha", "dataset", "rank", "confidence"]
STATE = ["model", "method", "target", "size", "alpha"]  # a network but for its seed
MEASURES = ["accuracy", "ece"]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table in_1k to write."""
    params = inputs.params
    return {"in_1k": in_1k_table(inputs.paths("rows"), params["tests"], params["ood_datasets"])}


def in_1k_table(
    rows: Iterable[Path], tests: Mapping[str, str], ood_datasets: Collection[str]
) -> pd.DataFrame:
    """Accuracy and ECE in and out of distribution, means and spread over seeds.

    Args:
        rows: evaluation rows of the runs on these targets, and of the pretrained models.
        tests: test set of each target: {"imagenet_train": "imagenet_val"}.
        ood_datasets: names of the datasets that count in RI.

    Returns:
        model, method, target, size, alpha (on a curve; else NaN), dataset, seeds (number),
        accuracy, accuracy_sd, ece and ece_sd, all in percent. For each network the rows are the
        test set, each OOD dataset, and `mean`, the mean over the OOD datasets. The pretrained
        model has rows for each target. A standard deviation is NaN with one seed.
    """
    measured = _measured(rows)
    lines = []
    for target, test in tests.items():
        is_of_target = measured["target"] == target
        is_before = measured["method"] == PRETRAINED
        of_target = measured[is_of_target | is_before].assign(target=target)
        of_test = of_target[of_target["dataset"] == test]
        of_ood = of_target[of_target["dataset"].isin(ood_datasets)]
        means = of_ood.groupby([*STATE, "seed"], dropna=False, as_index=False)[MEASURES].mean()
        lines += [of_test, of_ood, means.assign(dataset=MEAN)]
    table = pd.concat(lines, ignore_index=True)
    over_seeds = table.groupby([*STATE, "dataset"], dropna=False, sort=False).agg(
        seeds=("seed", "nunique"),
        accuracy=("accuracy", "mean"),
        accuracy_sd=("accuracy", "std"),
        ece=("ece", "mean"),
        ece_sd=("ece", "std"),
    )
    over_seeds = over_seeds.reset_index()
    order = [*tests.values(), *ood_datasets, MEAN]
    place = over_seeds["dataset"].map(order.index)
    is_fine_tuned = over_seeds["method"] != PRETRAINED
    sorted_table = over_seeds.assign(is_fine_tuned=is_fine_tuned, place=place).sort_values(
        ["model", "target", "is_fine_tuned", "method", "size", "alpha", "place"]
    )
    return sorted_table.drop(columns=["is_fine_tuned", "place"]).reset_index(drop=True)


def _measured(files: Iterable[Path]) -> pd.DataFrame:
    """Accuracy and ECE of each network on each dataset; parts of a dataset are put together."""
    rows_of: dict[tuple[object, ...], list[pd.DataFrame]] = {}
    for path in files:
        run = Layout.run_of(path)
        rows = pq.read_table(path, columns=COLUMNS).to_pandas()
        rows["alpha"] = rows["alpha"].astype(float)
        groups = rows.groupby(["method", "alpha", "dataset"], dropna=False, observed=True)
        for (method, alpha, dataset), group in groups:
            # NaN is unequal to itself, so it could not be a key.
            key = (run.model, method, run.target, run.size, run.seed, str(alpha), dataset)
            rows_of.setdefault(key, []).append(group)
    lines = []
    for (model, method, target, size, seed, alpha, dataset), parts in rows_of.items():
        confidence = np.concatenate([part["confidence"].to_numpy() for part in parts])
        right = np.concatenate([is_right(part) for part in parts])
        error, _ = calibration_error_and_floor(confidence, right)
        accuracy = 100 * right.mean()
        state = (model, str(method), target, size, float(str(alpha)))
        lines.append((*state, seed, str(dataset), accuracy, error))
    return pd.DataFrame(lines, columns=[*STATE, "seed", "dataset", *MEASURES])
