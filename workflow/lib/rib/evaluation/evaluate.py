"""Evaluation of networks on datasets: a row per network and image, the source of all results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rib.base.devices import kinds_of_job
from rib.base.files import read_json, write_json
from rib.base.progress import Progress
from rib.data.dataset import PreparedDataset
from rib.data.parts import batches_with_part, check_part, images_of_part
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.evaluation_settings import EvaluationSettings
from rib.evaluation.finite import refuse_infinite
from rib.evaluation.networks import NetworkState, RunNetworks, states_as_json
from rib.evaluation.score import score
from rib.grid.evaluation_batches import images_per_pass
from rib.models import device as devices
from rib.models.images import Images
from rib.models.state import network_in_state
from rib.schema.run import Run

LARGEST = float(np.finfo(np.float16).max)  # of the stored columns' type
# Columns with one value or a few in a file.
CONSTANT = ["model", "target", "method", "size", "seed", "alpha", "dataset"]
FLOATS = ["log_prob", "energy", "confidence", "margin", "brier"]
# 39 MB instead of 45 MB as plain numbers, for ImageNet-C's 3.75 million images.
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
    networks: RunNetworks,
    checkpoint_manifests: Sequence[Path],
    datasets: Sequence[DatasetFiles],
    settings: EvaluationSettings,
    rows: Path,
    manifest: Path,
) -> None:
    """Score the networks of a job on its datasets; each image is read once for all networks.

    Args:
        run: all networks have its model, target, size and seed; its method is the entry's name.
        checkpoint_manifests: manifest of each checkpoint, in the same order; none for snapshots.
        datasets: only one with `settings.part`; the part has the same rows as in the whole dataset.
        rows: Parquet file to write, with the columns model, target, method, size, seed, alpha (in
            WiSE-FT's curve the fine-tuned model's share; of a snapshot the share of training; null
            for other networks), dataset, row (position in the prepared dataset's index, which has
            ids and labels), and the results of `score`: prediction and rank as int16, the others as
            float16, clipped to finite values.
        manifest: JSON file to write: the device; {"evaluation_batch_size": 64}; {"datasets":
            {"noto": {"n": 500, "label_space": "9e362fcf05878fda"}}}; {"fit": {"ft": 0.98}}, the
            accuracy on training images; {"trained_on": {"results/.../manifest.json": ["cpu in
            fp32"]}}, kinds of devices; and `networks` as `states_as_json` gives them.

    Raises:
        UserError: a logit is not finite, or the part doesn't fit the dataset.
    """
    prepared_datasets = [load_dataset(files, settings.view, settings.split) for files in datasets]
    if settings.part is not None:  # such as one corruption of ImageNet-C
        (files,) = datasets
        (dataset,) = prepared_datasets
        index = files.folder / "index.parquet"
        where = f"datasets.yaml, {files.name}, parts"
        check_part(index, settings.part, settings.other_levels, where)
        is_in_part = images_of_part(index, settings.part)
    facts_of_trainings = [read_json(path) for path in checkpoint_manifests]
    trained_on = {
        str(path): kinds_of_job(facts)
        for path, facts in zip(checkpoint_manifests, facts_of_trainings, strict=True)
    }
    preprocessing = networks.preprocessing
    device = devices.start(settings.compute)
    batch_size = images_per_pass(settings.evaluation_batch_size, device.type)
    inputs_of_datasets = [Images(dataset, preprocessing, device) for dataset in prepared_datasets]
    models = [
        network_in_state(
            networks.model_folder, state.mixture, networks.checkpoints, inputs_of_datasets[0]
        )
        for state in networks.states
    ]
    if settings.part is None:
        numbers_of_images = [len(dataset.labels) for dataset in prepared_datasets]
        table = rows_of_networks(
            run, networks.states, models, prepared_datasets, inputs_of_datasets, batch_size
        )
    else:
        numbers_of_images = [int(is_in_part[dataset.index["row"]].sum())]
        # The last digits of an image's scores may depend on the other images of its batch, so the
        # dataset's whole batches are scored.
        dataset_of_batches = batches_with_part(dataset, is_in_part, batch_size)
        inputs = Images(dataset_of_batches, preprocessing, device)
        rows_of_batches = rows_of_networks(
            run, networks.states, models, [dataset_of_batches], [inputs], batch_size
        )
        table = rows_of_batches.filter(is_in_part[rows_of_batches["row"]])
    pq.write_table(table, rows, **ENCODING)
    facts_of_datasets = {
        dataset.name: {"n": number_of_images, "label_space": dataset.space.digest}
        for dataset, number_of_images in zip(prepared_datasets, numbers_of_images, strict=True)
    }
    facts = {
        **devices.facts_of(device),
        "evaluation_batch_size": batch_size,
        "datasets": facts_of_datasets,
        "fit": _fit_of_checkpoints(networks.checkpoints, facts_of_trainings),
        "trained_on": trained_on,
        "networks": states_as_json(networks.states),
    }
    write_json(manifest, facts)


def _fit_of_checkpoints(
    checkpoints: Mapping[str, Path], facts_of_trainings: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Fits (accuracies on training images), {"ft, seed 1": 0.98}; none of snapshots."""
    if not facts_of_trainings:
        return {}
    return {name: facts["fit"] for name, facts in zip(checkpoints, facts_of_trainings, strict=True)}


def rows_of_networks(
    run: Run,
    states: Sequence[NetworkState],
    networks: Sequence[Callable[[Tensor], Tensor]],
    datasets: Sequence[PreparedDataset],
    inputs_of_datasets: Sequence[Images],
    evaluation_batch_size: int,
) -> pa.Table:
    """Table with a row per network and image, in the columns that `evaluate` writes.

    Args:
        run: all networks have its model, target, size and seed.
        states: method and alpha of each network.
        networks: in evaluation mode, from images (N, 3, H, W) to logits (N, outputs).
        datasets: labels and rows of the images; `inputs_of_datasets` are their pixels.

    Raises:
        UserError: a logit is not finite.
    """
    number_of_images = sum(len(dataset.labels) for dataset in datasets)
    progress = Progress(desc=f"evaluating {run}", total=number_of_images, unit="image")
    tables = []
    for dataset, inputs in zip(datasets, inputs_of_datasets, strict=True):
        scores_of_networks = score(networks, inputs, dataset, evaluation_batch_size, progress)
        for state, scores in zip(states, scores_of_networks, strict=True):
            scored_run = replace(run, method=state.method)
            what = f"evaluating {scored_run} on {dataset.name}: a logit"
            refuse_infinite(scores["energy"], what)
            tables.append(_rows(dataset, scores, scored_run, state.alpha))
    progress.close()
    return pa.concat_tables(tables).unify_dictionaries()


def _rows(
    dataset: PreparedDataset, scores: Mapping[str, Tensor], run: Run, alpha: float | None
) -> pa.Table:
    """A row per image, in the columns that `evaluate` writes; `scores` are tensors (n,)."""
    number_of_images = len(dataset.labels)
    columns = {}
    for key in ("model", "target", "method", "size"):
        columns[key] = _constant_text(getattr(run, key), number_of_images)
    columns["seed"] = pa.array([run.seed] * number_of_images, pa.int32())
    columns["alpha"] = pa.array([alpha] * number_of_images, pa.float64())
    columns["dataset"] = _constant_text(dataset.name, number_of_images)
    columns["row"] = dataset.index["row"]
    for name in ("prediction", "rank"):
        columns[name] = pa.array(scores[name].numpy().astype(np.int16))
    for name in FLOATS:
        clipped = scores[name].clip(-LARGEST, LARGEST)
        columns[name] = pa.array(clipped.numpy().astype(np.float16))
    return pa.table(columns)


def _constant_text(text: str, length: int) -> pa.DictionaryArray:
    """Column with one text in all rows; a dictionary array stores it once."""
    index_of_text = pa.array([0] * length, pa.int32())
    return pa.DictionaryArray.from_arrays(index_of_text, pa.array([text]))
