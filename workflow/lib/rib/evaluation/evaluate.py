"""Evaluation of one run on one evaluation group: one row per image, from which all results are computed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.progress import Progress
from rib.config.label_space import LabelSpace
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.splits import TEST
from rib.data.view import DatasetFiles, DatasetView, load_dataset
from rib.evaluation.recipes import State
from rib.models import device as devices
from rib.models.class_logits import class_logits, class_members
from rib.models.inputs import Inputs
from rib.models.state import network_in_state

LARGEST = float(np.finfo(np.float16).max)
CONSTANT = ["model", "target", "method", "size", "seed", "alpha", "dataset"]  # columns with one value or a few
FLOATS = ["log_prob", "energy", "confidence", "margin"]
# Needs 33 of the 38 MB that the rows of ImageNet-C (3.75 million images) have as plain numbers.
ENCODING = {
    "compression": "zstd",
    "use_dictionary": [*CONSTANT, "prediction"],
    "column_encoding": {"row": "DELTA_BINARY_PACKED", **dict.fromkeys(["rank", *FLOATS], "BYTE_STREAM_SPLIT")},
}


def evaluate(
    *,
    run: Run,
    states: Sequence[State],
    checkpoints: Mapping[str, Path],
    model_folder: Path,
    datasets: Sequence[DatasetFiles],
    view: DatasetView,
    batch_size: int,
    compute: devices.ComputeSettings,
    rows: Path,
    manifest: Path,
) -> None:
    """Score a run on an evaluation group; each image is read once and passes through all states of the run.

    Args:
        datasets: the evaluation group; the test split is scored where there is one.
        rows: written as Parquet, one row per state and image: the run's five columns, alpha (null unless the run is a
            curve), dataset, row (position in the prepared dataset's index, which has ids and labels), and the results
            of `score`: prediction and rank as int16, the others as float16, clipped to its largest finite values.
        manifest: written as JSON: the device, and n and label space digest of each dataset.

    Raises:
        UserError: a logit is not finite.
    """
    device = devices.start(compute)
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    loaded = [load_dataset(files, view, TEST) for files in datasets]
    pixels = [Inputs(d.images, preprocessing["mean"], preprocessing["std"], device, d.rows) for d in loaded]
    models = [network_in_state(model_folder, state.weights, checkpoints, pixels[0]) for state in states]
    progress = Progress(desc=f"evaluating {run}", total=sum(len(dataset.labels) for dataset in loaded), unit="image")
    tables = []
    for dataset, inputs in zip(loaded, pixels, strict=True):
        found = score(models, inputs, dataset, batch_size, progress)
        for state, scores in zip(states, found, strict=True):
            if not scores["energy"].isfinite().all():
                raise UserError(f"evaluating {run} on {dataset.name}: a logit is not finite; don't use these weights.")
            tables.append(_rows(dataset, scores, run, state.alpha))
    progress.close()
    pq.write_table(pa.concat_tables(tables).unify_dictionaries(), rows, **ENCODING)
    facts = {dataset.name: {"n": len(dataset.labels), "label_space": dataset.space.digest} for dataset in loaded}
    write_json(manifest, {"device": device.type, "datasets": facts})


@torch.inference_mode()
def score(
    models: Sequence[nn.Module], inputs: Inputs, dataset: PreparedDataset, batch_size: int, progress: Progress
) -> list[dict[str, Tensor]]:
    """Score every network on every image, from the logits of the dataset's classes; each batch is read once.

    Right answers are the label and the classes that the label space also counts as right (`also`).

    Returns:
        For each network, tensors (n,), int64 or float32: prediction, the first of equal classes; rank, the number of
        classes that beat the best right answer, of equal ones those with a lower index (0: correct; a NaN beats all);
        log_prob, the log-softmax of the label; energy, the log-sum-exp of all classes, NaN if a logit is not finite;
        confidence, the softmax of the prediction, 0 to 1; margin, the logit of the best right answer minus the highest
        of the other classes.
    """
    members, answers = class_members(dataset.space, inputs.device), _right_answers(dataset.space, inputs.device)
    labels = torch.from_numpy(dataset.labels).to(inputs.device)
    parts: list[list[dict]] = [[] for _ in models]
    for start in range(0, len(inputs), batch_size):
        batch = slice(start, start + batch_size)
        pixels, right = inputs[batch], answers[labels[batch]]
        for model, found in zip(models, parts, strict=True):
            with devices.autocast(inputs.device):
                logits = model(pixels)
            found.append(_summary(class_logits(logits.float(), members), right))
        progress.update(len(pixels))
    return [{name: torch.cat([part[name] for part in found]).cpu() for name in found[0]} for found in parts]


def _right_answers(space: LabelSpace, device: torch.device) -> Tensor:
    """Right answers to images of each class, the class first: (C, K) int64, padded with the class."""
    also = space.also or [()] * len(space.keys)
    width = max(map(len, also))
    rows = [[label, *others, *[label] * (width - len(others))] for label, others in enumerate(also)]
    return torch.tensor(rows, dtype=torch.int64, device=device)


def _summary(scores: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Results of `score` for class logits (N, C) and right answers (N, K), the label first."""
    own = scores.gather(1, right)
    best = own.amax(dim=1, keepdim=True)
    place = right.masked_fill(own != best, scores.shape[1]).amin(dim=1, keepdim=True)  # the first of equal answers
    classes = torch.arange(scores.shape[1], device=scores.device)
    beaten = (best > scores) | ((best == scores) & (classes >= place))
    others = scores.scatter(1, right, float("-inf")).amax(dim=1)
    prediction, log_probs = scores.argmax(dim=1), scores.log_softmax(dim=1)  # argmax: the first of equal scores
    return {
        "prediction": prediction,
        "rank": scores.shape[1] - beaten.sum(dim=1),
        "log_prob": log_probs.gather(1, right[:, :1])[:, 0],
        "energy": scores.logsumexp(dim=1).where(scores.isfinite().all(dim=1), torch.nan),
        "confidence": log_probs.gather(1, prediction[:, None])[:, 0].exp(),
        "margin": best[:, 0] - others,
    }


def _rows(dataset: PreparedDataset, scores: Mapping[str, Tensor], run: Run, alpha: float | None) -> pa.Table:
    n = len(dataset.labels)

    def constant(text: str) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([text]))

    columns = {key: constant(getattr(run, key)) for key in ("model", "target", "method", "size")}
    columns["seed"] = pa.array([run.seed] * n, pa.int32())
    columns["alpha"] = pa.array([alpha] * n, pa.float64())
    columns["dataset"] = constant(dataset.name)
    columns["row"] = dataset.index["row"]
    columns |= {name: pa.array(scores[name].numpy().astype(np.int16)) for name in ("prediction", "rank")}
    for name in FLOATS:
        columns[name] = pa.array(scores[name].clip(-LARGEST, LARGEST).numpy().astype(np.float16))
    return pa.table(columns)
