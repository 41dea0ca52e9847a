"""Evaluation of one run on one suite of datasets: a row per image, from which every number derives."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from rib.data.prepared import PreparedDataset
from rib.io import Progress, UserError, write_json
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.class_logits import class_logits, class_members
from rib.models.fold import fold_batch_norm
from rib.models.inputs import Inputs
from rib.models.pretrained import load

EXAMPLE = 4  # images with which folding is checked


def evaluate(
    *,
    model_folder: Path,
    weights: Mapping[str, float],
    checkpoints: Mapping[str, Path],
    datasets: Mapping[str, Path],
    run: Mapping[str, object],
    batch_size: int,
    compute: Mapping,
    rows: Path,
    manifest: Path,
) -> None:
    """Score a run on a suite.

    Args:
        model_folder: what a models job wrote.
        weights: weight of each averaged state by method (see rib.models.checkpoint.apply).
        checkpoints: file of each fine-tuned method.
        datasets: what the prepare jobs wrote, by dataset.
        run: model, target, method, seed: repeated in every row.
        batch_size: images per forward pass.
        compute: device, threads_per_job.
        rows: written as Parquet: the run's four columns, dataset, row, image_id, source_id, object_id, label,
            prediction (indices into the dataset's class space), confidence (softmax probability of the
            prediction), margin (the label's logit less the highest other class logit).
        manifest: written as JSON: the device, per dataset n and the class space's digest.

    Raises:
        UserError: a logit is not finite.
    """
    device = devices.start(compute["device"], compute["threads_per_job"])
    model, facts = load(model_folder, device)
    apply(model, weights, checkpoints)
    model.eval()
    preprocessing = facts["preprocessing"]
    opened = [PreparedDataset.open(folder, name) for name, folder in datasets.items()]
    title = "/".join(map(str, run.values()))
    progress = Progress(desc=f"evaluating {title}", total=sum(len(dataset.labels) for dataset in opened), unit="image")
    pixels = [Inputs(dataset.images, preprocessing["mean"], preprocessing["std"], device) for dataset in opened]
    if device.type == "cpu":  # on a GPU it gains little, and rounds weights anew in bf16
        fold_batch_norm(model, pixels[0][slice(EXAMPLE)])
    tables = []
    for dataset, inputs in zip(opened, pixels, strict=True):
        scores = score(model, inputs, dataset, batch_size, progress)
        if not scores["margin"].isfinite().all():
            raise UserError(f"evaluating {title} on {dataset.name}: a logit is not finite; don't use these weights.")
        tables.append(_rows(dataset, scores, run))
    progress.close()
    pq.write_table(pa.concat_tables(tables).unify_dictionaries(), rows, compression="zstd")
    facts_of = {dataset.name: {"n": len(dataset.labels), "class_space": dataset.space.digest} for dataset in opened}
    write_json(manifest, {"device": device.type, "datasets": facts_of})


@torch.inference_mode()
def score(
    model: nn.Module, inputs: Inputs, dataset: PreparedDataset, batch_size: int, progress: Progress
) -> dict[str, Tensor]:
    """Prediction, confidence and margin of every image.

    Returns:
        prediction (n,) int64, confidence (n,) float32 in 0..1, margin (n,) float32.
    """
    members = class_members(dataset.space, inputs.device)
    labels = torch.from_numpy(dataset.labels).to(inputs.device)
    parts = []
    for start in range(0, len(inputs), batch_size):
        batch = slice(start, start + batch_size)
        with devices.autocast(inputs.device):
            logits = model(inputs[batch])
        scores = class_logits(logits.float(), members)  # (N, C)
        parts.append(_summary(scores, labels[batch]))
        progress.update(len(scores))
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _summary(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    prediction = scores.argmax(dim=1)  # the first of equal scores
    confidence = scores.softmax(dim=1).gather(1, prediction[:, None])[:, 0]
    return {"prediction": prediction, "confidence": confidence, "margin": own - others}


def _rows(dataset: PreparedDataset, scores: Mapping[str, Tensor], run: Mapping[str, object]) -> pa.Table:
    n = len(dataset.labels)

    def constant(value: object, kind: pa.DataType) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([value], kind))

    columns = {key: constant(run[key], pa.string()) for key in ("model", "target", "method")}
    columns["seed"] = pa.array([run["seed"]] * n, pa.int32())
    columns["dataset"] = constant(dataset.name, pa.string())
    columns |= {name: dataset.index[name] for name in ("row", "image_id", "source_id", "object_id", "label")}
    columns["prediction"] = pa.array(scores["prediction"].numpy().astype("int16"))
    columns |= {name: pa.array(scores[name].numpy()) for name in ("confidence", "margin")}
    return pa.table(columns)
