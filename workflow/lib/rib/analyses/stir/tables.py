"""Table of STIR, the shared invariances of fine-tuned and pretrained networks.

The features of images in a reference network are inverted to other images with the same features.
STIR is the CKA of the other network's features of the images and of their inversions: 1 if it can't
distinguish them either (Nanda et al. 2022, arXiv 2206.11939, section 3).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from rib.base.errors import UserError
from rib.schema.layout import Layout
from rib.schema.run import RUN_COLUMNS
from rib.statistics.cka import Kernel, cka, jackknife_interval
from rib.statistics.inputs import Inputs

BEFORE = "before"  # the pretrained network, in names of stored features
AFTER = "after"  # the fine-tuned network
# The inverted network, by its name in the table, and the network that sees the inversions.
INVERTED = {"pretrained": BEFORE, "fine-tuned": AFTER}
SEES = {BEFORE: AFTER, AFTER: BEFORE}


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table stir to write: a row per run and reference, the network that was inverted."""
    stir = stir_table(
        features=inputs.paths("features"), indexes=inputs.paths("indexes"), **inputs.params
    )
    return {"stir": stir}


def stir_table(
    *, features: Iterable[Path], indexes: Iterable[Path], layer: str, steps: int, confidence: float
) -> pd.DataFrame:
    """STIR (shared invariances) of each fine-tuned run and its pretrained model, both ways.

    Args:
        features: files <model>/<target>/<method>/<size>/<seed>/<dataset>.safetensors of the stir
            jobs, with features (n, d) such as `after.inverted_before` and `residual_before` (n,).
        indexes: index of each file's images, in the order of `features`.
        layer: whose features were inverted.

    Returns:
        One row per run and reference: model, method, target, size, seed, dataset, layer, reference
        (the inverted network), n, stir, ci_low, ci_high; cka, cka_low, cka_high of both networks on
        the images themselves; fidelity (STIR of the reference with itself), mean residual, and
        passes (n * steps, forward and backward passes of single images in the inversion).

    Raises:
        UserError: there is no fine-tuned run, or too few images.
    """
    rows = []
    for path, index in zip(map(Path, features), indexes, strict=True):
        run_columns = dict(zip(RUN_COLUMNS, Layout.run_of(path).values(RUN_COLUMNS), strict=True))
        described = {**run_columns, "dataset": path.stem, "layer": layer}
        for number_columns in _numbers_of_run(path, index, steps, confidence):
            rows.append({**described, **number_columns})
    if not rows:
        raise UserError(
            "stir: no fine-tuned run is chosen; "
            "choose methods and targets of representations in config."
        )
    return pd.DataFrame(rows)


def _numbers_of_run(
    features: Path, index: Path, steps: int, confidence: float
) -> list[dict[str, Any]]:
    """A row per reference (inverted network): [{"reference": "pretrained", "stir": 0.81, ...}]."""
    stored = load_file(features)
    kernels = _kernels(stored, index, features.stem)
    n = len(kernels["before.images"].groups)
    on_images = cka(kernels["before.images"], kernels["after.images"])
    cka_low, cka_high = jackknife_interval(on_images, confidence)
    rows = []
    for reference, inverted in INVERTED.items():
        stir = _stir(kernels, inverted, sees=SEES[inverted])
        stir_low, stir_high = jackknife_interval(stir, confidence)
        fidelity = _stir(kernels, inverted, sees=inverted)
        row = {
            "reference": reference,
            "n": n,
            "stir": stir[0],
            "ci_low": stir_low,
            "ci_high": stir_high,
            "cka": on_images[0],
            "cka_low": cka_low,
            "cka_high": cka_high,
            "fidelity": fidelity[0],
            "residual": stored[f"residual_{inverted}"].mean(dtype=np.float64),
            "passes": n * steps,
        }
        rows.append(row)
    return rows


def _kernels(stored: Mapping[str, np.ndarray], index: Path, dataset: str) -> dict[str, Kernel]:
    """Kernels by network and images it sees: "before.images", "after.inverted_before"."""
    object_ids = pd.read_parquet(index, columns=["object_id"])["object_id"].astype(str)
    _, groups = np.unique(object_ids, return_inverse=True)
    return {
        name: Kernel.of(features, groups, dataset)
        for name, features in stored.items()
        if "." in name
    }


def _stir(kernels: Mapping[str, Kernel], inverted: str, sees: str) -> np.ndarray:
    """STIR, (1 + objects,): CKA of the network `sees` between images and their inversions."""
    # First over all images, then without each object. `inverted` is the network that was inverted.
    of_images = kernels[f"{sees}.images"]
    of_inversions = kernels[f"{sees}.inverted_{inverted}"]
    return cka(of_images, of_inversions)
