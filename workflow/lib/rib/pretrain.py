"""Pretraining of a small network from random weights on a part of a dataset, for controlled comparisons of its size.

The loop is fine-tuning's (rib.finetune): SGD with momentum, linear warm-up then cosine to zero, no augmentation, the last
epoch kept. BatchNorm's statistics follow the batches, and all weights train.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from rib.data.prepared import PreparedDataset
from rib.data.splits import opened, pretraining_images
from rib.evaluate import score
from rib.finetune import DivergenceError, on_device, rescued, train, warn_of_chance, write_history
from rib.io import Progress, UserError, log, write_json
from rib.methods._base import FineTuning, Task
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.models.pretrained import build
from rib.runs import ALL

BATCH = 64  # images per forward pass when the result is tested


def pretrain(
    *,
    dataset_folder: Path,
    test_folder: Path,
    entry: Mapping,
    outputs: int,
    images: Mapping,
    compute: Mapping,
    rescue: Path,
    saved: Path,
    weights: Path,
    description: Path,
    history: Path,
) -> None:
    """Train a network, then write it as rib.models.pretrained.convert writes a published one.

    Args:
        dataset_folder: what a prepare job wrote for the dataset to train on.
        test_folder: likewise for the one that tests.
        entry: the model's catalogue entry with `pretrain`.
        outputs: of the head.
        images: how datasets are seen (rib.data.splits.opened).
        compute: device, threads (see rib.models.device.start).
        rescue: where the state after the last good epoch is kept when training diverges.
        saved: where the state is kept in the midst of training.
        weights: written as .safetensors: the network's whole state dict.
        description: written as JSON: what later stages need to know of the model, and under `trained` the number of
            images it saw and its accuracy on the test dataset in percent.
        history: written as CSV, as fine-tuning's.

    Raises:
        UserError: the loss or a tensor is not finite, or the test dataset holds source images that are trained on.
    """
    device, how = devices.start(**compute), entry["pretrain"]
    dataset = pretraining_images(dataset_folder, how["dataset"], images, str(how["size"]))
    test = opened(test_folder, how["test"], images)
    _refuse_shared(dataset, test)
    torch.manual_seed(how["seed"])
    model = build(entry["library"], entry["architecture"], outputs).to(device, memory_format=torch.channels_last)
    method = FineTuning(lr=how["lr"], batch_norm="train", dropout=0.0, drop_path=0.0)
    seen = on_device(dataset, entry["preprocessing"], device)
    method.begin(Task(model, seen, None, how["seed"], how["batch_size"]))
    what = {"model": entry["name"], "method": "pretraining", "target": how["dataset"]}
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # Warm-up is bounded by its share of all steps alone; BatchNorm needs whole batches.
    training = {**how, "warmup_steps": math.inf, "micro_batch_size": ALL}
    try:
        rows, _ = train(method, first, training, how["seed"], device, what, saved)
    except DivergenceError as error:
        saved.unlink(missing_ok=True)  # it leads nowhere
        raise UserError(f"{error}; {rescued(error, rescue)}lower lr in pretrain of the model's entry.") from error
    warn_of_chance(rows, dataset, "/".join(what.values()))
    write_history(rows, history)
    trained = {"images": len(dataset.labels), "test": _tested(model, entry, test, device)}
    _write(model, entry, outputs, trained, weights, description)


def _refuse_shared(dataset: PreparedDataset, test: PreparedDataset) -> None:
    if shared := set(dataset.sources[1]) & set(test.sources[1]):
        raise UserError(
            f"pretraining: {test.name} tests {len(shared)} source images that {dataset.name} trains on, {min(shared)} for "
            "one; give the model's entry a test dataset of other images."
        )


def _tested(model: torch.nn.Module, entry: Mapping, test: PreparedDataset, device: torch.device) -> dict:
    """Accuracy on held-out images of the same kind, in percent."""
    inputs = Inputs(test.images, entry["preprocessing"]["mean"], entry["preprocessing"]["std"], device, test.rows)
    progress = Progress(desc=f"testing {entry['name']}", total=len(test.labels), unit="image")
    (found,) = score([model.eval()], inputs, test, BATCH, progress)
    progress.close()
    right = int((found["prediction"].numpy() == test.labels).sum())
    log.info("%s: %d of %d images of %s are right", entry["name"], right, len(test.labels), test.name)
    return {"dataset": test.name, "images": len(test.labels), "accuracy": round(100 * right / len(test.labels), 6)}


def _write(
    model: torch.nn.Module, entry: Mapping, outputs: int, trained: Mapping, weights: Path, description: Path
) -> None:
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, weights)
    keys = ("name", "pretraining", "library", "architecture", "preprocessing", "licence")
    facts = {"source": {"pretrain": entry["pretrain"]}, "outputs": outputs, "head": {"from": "pretrained"}}
    write_json(description, {key: entry[key] for key in keys} | facts | {"trained": trained})
