"""The table of STIR: shared invariances of fine-tuned and pretrained networks (see rib.evaluation.inversion)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from rib.analysis.cka import Kernel, cka, jackknife_interval
from rib.base.errors import UserError
from rib.config.run import RUN_COLUMNS, run_of

# The network that was inverted, and the one that sees the inversions.
REFERENCES = {"pretrained": ("before", "after"), "fine-tuned": ("after", "before")}


def stir_table(
    *, features: Iterable[Path], indexes: Iterable[Path], layer: str, steps: int, confidence: float
) -> pd.DataFrame:
    """STIR of every fine-tuned run and its pretrained model, in both directions.

    Args:
        features: outputs of the stir jobs, <model>/<target>/<method>/<size>/<seed>/<dataset>.safetensors.
        steps: descent steps of each inversion.

    Returns:
        One row per run and reference: model, method, target, size, seed, dataset, layer, reference (the network that was
        inverted), n, stir, ci_low, ci_high; cka, cka_low, cka_high of both networks on the images themselves; fidelity
        (STIR of the reference with itself), mean residual and number of passes (forward and backward, per image) of the
        inversion.

    Raises:
        UserError: there is no fine-tuned run, or too few images.
    """
    lines = []
    for path, index in zip(map(Path, features), indexes, strict=True):
        objects = pd.read_parquet(index, columns=["object_id"])["object_id"].astype(str)
        groups = np.unique(objects, return_inverse=True)[1]
        stored = load_file(path)
        kernels = {
            name: Kernel.of(part, groups, path.stem) for name, part in stored.items() if "." in name
        }
        plain = cka(kernels["before.images"], kernels["after.images"])
        for reference, (inverted, sees) in REFERENCES.items():
            values = cka(kernels[f"{sees}.images"], kernels[f"{sees}.inverted_{inverted}"])
            own = cka(kernels[f"{inverted}.images"], kernels[f"{inverted}.inverted_{inverted}"])
            what = (*run_of(path).values(RUN_COLUMNS), path.stem, layer, reference, len(groups))
            numbers = [
                number
                for one in (values, plain)
                for number in (one[0], *jackknife_interval(one, confidence))
            ]
            residual = stored[f"residual_{inverted}"].mean(dtype=np.float64)
            lines.append((*what, *numbers, own[0], residual, len(groups) * steps))
    if not lines:
        raise UserError(
            "stir: no fine-tuned run is chosen; choose methods and targets of representations in config."
        )
    columns = [*RUN_COLUMNS, "dataset", "layer", "reference", "n", "stir", "ci_low", "ci_high"]
    columns += ["cka", "cka_low", "cka_high", "fidelity", "residual", "passes"]
    return pd.DataFrame(lines, columns=columns)
