"""Pretraining of a small network from random weights, for controlled comparisons of the pretraining set size.

The training loop is that of fine-tuning (rib.training.finetune): SGD with momentum, linear warm-up then cosine to zero,
no augmentation, the last epoch kept. All weights train, and the BatchNorm statistics are updated.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from rib.base.errors import UserError
from rib.base.progress import log
from rib.config.run import ALL, Run
from rib.data.prepared import PreparedDataset
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, DatasetView, load_whole
from rib.evaluation.score import correct
from rib.methods.base import FineTuning, Task
from rib.models import device as devices
from rib.models.inputs import Images, Inputs
from rib.models.network import build, write_model
from rib.training.finetune import rescued, train, write_history
from rib.training.settings import TrainingSettings

BATCH = 64  # images per forward pass in the test


def pretrain(
    *,
    dataset_folder: Path,
    test_folder: Path,
    entry: Mapping,
    num_classes: int,
    view: DatasetView,
    compute: devices.ComputeSettings,
    rescue: Path,
    saved: Path,
    weights: Path,
    description: Path,
    history: Path,
) -> None:
    """Train a network, then write it in the format of rib.models.convert.convert.

    Raises a UserError if the loss or a tensor is not finite, or the two datasets share source images.

    Args:
        entry: the model's catalogue entry with `pretrain`.
        saved, rescue: as in rib.training.finetune.finetune.
        description: written as JSON; `trained` has the number of training images and the test accuracy in percent.
    """
    device, how = devices.start(compute), entry["pretrain"]
    dataset = load_whole(DatasetFiles(how["dataset"], dataset_folder), view)
    dataset = subset(dataset, str(how["size"]), "pretrain.size")
    test = load_whole(DatasetFiles(how["test"], test_folder), view)
    if shared := set(dataset.declared_sources[1]) & set(test.declared_sources[1]):
        raise UserError(
            f"pretraining: {test.name} shares {len(shared)} source images with {dataset.name}, such as {min(shared)}; "
            "give the model's entry a test dataset with other images."
        )
    torch.manual_seed(how["seed"])
    model = build(
        entry["library"], entry["architecture"], num_classes, arguments=entry["arguments"]
    )
    model = model.to(device, memory_format=torch.channels_last)
    method = FineTuning(lr=how["lr"], batch_norm="train")
    method.setup(Task(model, Images.of(dataset, entry["preprocessing"], device), None, how["seed"]))
    run = Run(entry["name"], how["dataset"], "pretraining", str(how["size"]), how["seed"])
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {
        key: how[key]
        for key in ("epochs", "batch_size", "momentum", "weight_decay", "warmup_fraction")
    }
    # Only the fraction bounds the warm-up, and BatchNorm needs whole batches.
    training = TrainingSettings(**given, warmup_steps=math.inf, micro_batch_size=ALL)
    with rescued(saved, rescue, "pretrain of the model's entry"):
        rows, _ = train(method, first, training, run, device, saved)
    write_history(rows, history)
    trained = {"images": len(dataset.labels), "test": _tested(model, entry, test, device)}
    facts = {
        "source": {"pretrain": how},
        "num_classes": num_classes,
        "head": {"from": "pretrained"},
    }
    write_model(model, entry, facts | {"trained": trained}, weights, description)


def _tested(
    model: torch.nn.Module, entry: Mapping, test: PreparedDataset, device: torch.device
) -> dict:
    """Accuracy on held-out images, in percent."""
    inputs = Inputs.of(test, entry["preprocessing"], device)
    right = int(correct(model.eval(), inputs, test, BATCH, f"testing {entry['name']}").sum())
    log.info(
        "%s: %d of %d images of %s are correct", entry["name"], right, len(test.labels), test.name
    )
    return {
        "dataset": test.name,
        "images": len(test.labels),
        "accuracy": round(100 * right / len(test.labels), 6),
    }
