"""Evaluation of one run on one suite of datasets: a row per image, from which every number derives."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from rib.data.prepared import PreparedDataset
from rib.data.splits import TEST, opened, part
from rib.io import Progress, UserError, write_json
from rib.models import device as devices
from rib.models.class_logits import class_logits, class_members
from rib.models.fold import EXAMPLE
from rib.models.inputs import Inputs
from rib.models.pretrained import load
from rib.models.state import network_in_state
from rib.passes import Scoring


def evaluate(
    *,
    model_folder: Path,
    scorings: Sequence[Scoring],
    datasets: Mapping[str, Path],
    apart: Mapping[str, Path],
    images: Mapping,
    splits: Mapping[str, Path],
    batch_size: int,
    compute: Mapping,
) -> None:
    """Score runs of one model on a suite; each image is read once and passes through all their states.

    Written per run, as its `rows` and `manifest` say. Rows, as Parquet: the run's five columns, which are repeated in every
    row, alpha (null unless the run is a curve), dataset, row, image_id, source_id, object_id, label, prediction (indices
    into the dataset's class space), confidence (softmax probability of the prediction), margin (the label's logit less the
    highest other class logit). The manifest, as JSON: the device, per dataset n and the class space's digest.

    Args:
        model_folder: what a models job wrote.
        scorings: the runs.
        datasets: what the prepare jobs wrote, by dataset.
        apart: folder of the dataset of which a part stands for pretraining, by dataset that shares its sources.
        images: how datasets are seen (rib.data.splits.opened).
        splits: by dataset, its split (protocol `held_out`), of which the test part is scored; empty for all images.
        batch_size: images per forward pass.
        compute: see rib.models.device.start.

    Raises:
        UserError: a logit is not finite.
    """
    if not scorings:
        return
    device = devices.start(**compute)
    preprocessing = load(model_folder, torch.device("cpu"))[1]["preprocessing"]
    suite = [
        part(opened(folder, name, images, apart.get(name)), TEST, splits.get(name)) for name, folder in datasets.items()
    ]
    pixels = [Inputs(d.images, preprocessing["mean"], preprocessing["std"], device, d.rows) for d in suite]
    example = pixels[0][slice(EXAMPLE)]
    states = [
        (scoring, alpha, network_in_state(model_folder, weights, scoring.checkpoints, example, device))
        for scoring in scorings
        for alpha, weights in scoring.states
    ]
    title = ", ".join("/".join(map(str, scoring.run.values())) for scoring in scorings)
    progress = Progress(desc=f"evaluating {title}", total=sum(len(dataset.labels) for dataset in suite), unit="image")
    tables: dict[Path, list[pa.Table]] = {scoring.rows: [] for scoring in scorings}
    for dataset, inputs in zip(suite, pixels, strict=True):
        found = score([model for *_, model in states], inputs, dataset, batch_size, progress)
        for (scoring, alpha, _), scores in zip(states, found, strict=True):
            if not scores["margin"].isfinite().all():
                which = "/".join(map(str, scoring.run.values()))
                raise UserError(
                    f"evaluating {which} on {dataset.name}: a logit is not finite; don't use these weights."
                )
            tables[scoring.rows].append(_rows(dataset, scores, scoring.run, alpha))
    progress.close()
    facts = {dataset.name: {"n": len(dataset.labels), "class_space": dataset.space.digest} for dataset in suite}
    for scoring in scorings:
        _write(scoring, tables.pop(scoring.rows), {"device": device.type, "datasets": facts})


def _write(scoring: Scoring, tables: Sequence[pa.Table], facts: Mapping) -> None:
    write_json(scoring.manifest, facts)
    unfinished = scoring.rows.with_suffix(".tmp")
    pq.write_table(pa.concat_tables(tables).unify_dictionaries(), unfinished, compression="zstd")
    os.replace(unfinished, scoring.rows)  # last, since it says that all is there


@torch.inference_mode()
def score(
    models: Sequence[nn.Module], inputs: Inputs, dataset: PreparedDataset, batch_size: int, progress: Progress
) -> list[dict[str, Tensor]]:
    """Prediction, confidence and margin of every image by every network; each batch is read once.

    Returns:
        Per network: prediction (n,) int64, confidence (n,) float32 in 0..1, margin (n,) float32.
    """
    members = class_members(dataset.space, inputs.device)
    labels = torch.from_numpy(dataset.labels).to(inputs.device)
    parts: list[list[dict]] = [[] for _ in models]
    for start in range(0, len(inputs), batch_size):
        batch = slice(start, start + batch_size)
        pixels = inputs[batch]
        for model, found in zip(models, parts, strict=True):
            with devices.autocast(inputs.device):
                logits = model(pixels)
            found.append(_summary(class_logits(logits.float(), members), labels[batch]))
        progress.update(len(pixels))
    return [{name: torch.cat([part[name] for part in found]).cpu() for name in found[0]} for found in parts]


def _summary(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    prediction = scores.argmax(dim=1)  # the first of equal scores
    confidence = scores.softmax(dim=1).gather(1, prediction[:, None])[:, 0]
    return {"prediction": prediction, "confidence": confidence, "margin": own - others}


def _rows(
    dataset: PreparedDataset, scores: Mapping[str, Tensor], run: Mapping[str, object], alpha: float | None
) -> pa.Table:
    n = len(dataset.labels)

    def constant(value: object, kind: pa.DataType) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([value], kind))

    columns = {key: constant(run[key], pa.string()) for key in ("model", "target", "method", "size")}
    columns["seed"] = pa.array([run["seed"]] * n, pa.int32())
    columns["alpha"] = pa.array([alpha] * n, pa.float64())
    columns["dataset"] = constant(dataset.name, pa.string())
    columns |= {name: dataset.index[name] for name in ("row", "image_id", "source_id", "object_id", "label")}
    columns["prediction"] = pa.array(scores["prediction"].numpy().astype("int16"))
    columns |= {name: pa.array(scores[name].numpy()) for name in ("confidence", "margin")}
    return pa.table(columns)
