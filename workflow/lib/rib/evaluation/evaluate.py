"""Evaluation of one run on one evaluation group: one row per image, from which all results are computed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.progress import Progress
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.splits import TEST
from rib.data.view import DatasetFiles, DatasetView, load_dataset
from rib.evaluation.recipes import State
from rib.evaluation.score import score
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.models.state import network_in_state

LARGEST = float(np.finfo(np.float16).max)
CONSTANT = [
    "model",
    "target",
    "method",
    "size",
    "seed",
    "alpha",
    "dataset",
]  # columns with one value or a few
FLOATS = ["log_prob", "energy", "confidence", "margin", "brier"]
# Needs 39 of the 45 MB that the rows of ImageNet-C (3.75 million images) have as plain numbers.
ENCODING = {
    "compression": "zstd",
    "use_dictionary": [*CONSTANT, "prediction"],
    "column_encoding": {
        "row": "DELTA_BINARY_PACKED",
        **dict.fromkeys(["rank", *FLOATS], "BYTE_STREAM_SPLIT"),
    },
}


def evaluate(
    *,
    run: Run,
    states: Sequence[State],
    checkpoints: Mapping[str, Path],
    manifests: Sequence[Path],
    model_folder: Path,
    datasets: Sequence[DatasetFiles],
    view: DatasetView,
    batch_size: int,
    compute: devices.ComputeSettings,
    rows: Path,
    manifest: Path,
    part: str = TEST,
) -> None:
    """Score a run on an evaluation group; each image is read once for all states. A UserError if a logit is not finite.

    Args:
        manifests: of the checkpoints, in their order; none for snapshots.
        datasets: the evaluation group, or some of it.
        rows: written as Parquet, one row per state and image: the run's five columns, alpha (null unless the run is a
            curve), dataset, row (position in the prepared dataset's index, which has ids and labels), and the results
            of `score`: prediction and rank as int16, the others as float16, clipped to its largest finite values.
        manifest: written as JSON: the device, n and label space digest of each dataset, and the fit of each of the
            checkpoints (see rib.training.finetune).
        part: the split that is scored where there is one.
    """
    device = devices.start(compute)
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    loaded = [load_dataset(files, view, part) for files in datasets]
    pixels = [Inputs.of(dataset, preprocessing, device) for dataset in loaded]
    models = [
        network_in_state(model_folder, state.weights, checkpoints, pixels[0]) for state in states
    ]
    alphas = [state.alpha for state in states]
    table = rows_of_networks(run, alphas, models, loaded, pixels, batch_size)
    pq.write_table(table, rows, **ENCODING)
    facts = {
        dataset.name: {"n": len(dataset.labels), "label_space": dataset.space.digest}
        for dataset in loaded
    }
    fit = {
        method: read_json(path)["fit"]
        for method, path in zip(checkpoints, manifests, strict=bool(manifests))
    }
    write_json(manifest, {"device": device.type, "datasets": facts, "fit": fit})


def rows_of_networks(
    run: Run,
    alphas: Sequence[float | None],
    networks: Sequence[Callable[[Tensor], Tensor]],
    datasets: Sequence[PreparedDataset],
    pixels: Sequence[Inputs],
    batch_size: int,
) -> pa.Table:
    """Rows of the networks of a run, one per network and image, as `evaluate` writes them.

    Args:
        run: what the rows are called.
        alphas: one for each network, None unless the run is a curve.
        networks: in evaluation mode; they return logits (N, outputs) of images (N, 3, H, W).
        datasets: those that are scored.
        pixels: the images of each dataset as inputs of the networks.
        batch_size: images per forward pass.

    Raises:
        UserError: a logit is not finite.
    """
    images = sum(len(dataset.labels) for dataset in datasets)
    progress = Progress(desc=f"evaluating {run}", total=images, unit="image")
    tables = []
    for dataset, inputs in zip(datasets, pixels, strict=True):
        scores_of_networks = score(networks, inputs, dataset, batch_size, progress)
        for alpha, scores in zip(alphas, scores_of_networks, strict=True):
            if not scores["energy"].isfinite().all():
                raise UserError(
                    f"evaluating {run} on {dataset.name}: a logit is not finite; don't use these weights."
                )
            tables.append(_rows(dataset, scores, run, alpha))
    progress.close()
    return pa.concat_tables(tables).unify_dictionaries()


def _rows(
    dataset: PreparedDataset, scores: Mapping[str, Tensor], run: Run, alpha: float | None
) -> pa.Table:
    n = len(dataset.labels)

    def constant(text: str) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([text]))

    columns = {key: constant(getattr(run, key)) for key in ("model", "target", "method", "size")}
    columns |= {
        "seed": pa.array([run.seed] * n, pa.int32()),
        "alpha": pa.array([alpha] * n, pa.float64()),
    }
    columns |= {"dataset": constant(dataset.name), "row": dataset.index["row"]}
    columns |= {
        name: pa.array(scores[name].numpy().astype(np.int16)) for name in ("prediction", "rank")
    }
    columns |= {
        name: pa.array(scores[name].clip(-LARGEST, LARGEST).numpy().astype(np.float16))
        for name in FLOATS
    }
    return pa.table(columns)
