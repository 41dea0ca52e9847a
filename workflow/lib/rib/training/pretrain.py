"""Pretraining of a small network from random weights.

It is for controlled comparisons of the size of the pretraining set.

The training loop is that of fine-tuning (rib.training.finetune): linear warm-up then cosine to
zero, the last step kept, with the optimiser of a recipe, or SGD with momentum. All weights train,
and the BatchNorm statistics are updated. Images may be shifted at random, besides the recipe's
augmentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from rib.base.errors import UserError
from rib.base.progress import log
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_whole
from rib.evaluation.score import correct
from rib.methods.base import FineTuning, Task
from rib.models import device as devices
from rib.models.augmentation import Augmentation, Shifts
from rib.models.inputs import Images, Inputs
from rib.models.network import build, write_model
from rib.training.finetune import rescued, train, write_history
from rib.training.settings import PretrainingSettings

BATCH = 64  # images per forward pass in the test


@dataclass(frozen=True)
class PretrainingOutput:
    """Files that a pretraining writes; the first two as rib.models.convert.convert does."""

    weights: Path  # .safetensors: the state dict
    # JSON; `trained` has the number of training images and the test accuracy in percent
    description: Path
    history: Path  # CSV, see rib.training.finetune.write_history
    saved: Path  # the training state, written periodically, from which a killed training resumes
    rescue: Path  # if training diverges, the state after the last finite epoch


def pretrain(
    *,
    dataset: DatasetFiles,
    test: DatasetFiles,
    settings: PretrainingSettings,
    output: PretrainingOutput,
) -> None:
    """Train a network, then write it in the format of rib.models.convert.convert.

    Args:
        dataset: to train on.
        test: on which the accuracy is measured; it has other source images.

    Raises:
        UserError: the loss or a tensor is not finite, or the two datasets share source images.
    """
    entry = settings.entry
    how = entry["pretrain"]
    device = devices.start(settings.compute)
    size = str(how["size"])
    whole_dataset = load_whole(dataset, settings.view)
    training_images = subset(whole_dataset, size, how["seed"], "pretrain.size")
    test_images = load_whole(test, settings.view)
    _refuse_shared_sources(training_images, test_images)
    torch.manual_seed(how["seed"])
    model = build(
        entry["library"],
        entry["architecture"],
        settings.num_classes,
        arguments=entry["arguments"],
    )
    model = model.to(device, memory_format=torch.channels_last)
    method = FineTuning(lr=how["lr"], batch_norm="train")
    images = Images.of(training_images, entry["preprocessing"], device)
    training = settings.training
    if training.augmentation:
        side = training_images.images[[0]].shape[1]
        images.inputs.augmentation = Augmentation(training.augmentation, side, how["seed"])
    if "shift" in how:
        images.inputs.shifts = Shifts(how["shift"], len(training_images.images), how["seed"])
    method.setup(Task(model=model, target=images, reference=None, seed=how["seed"]))
    run = Run(entry["name"], how["dataset"], "pretraining", size, how["seed"])
    random_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with rescued(output.saved, output.rescue, "pretrain of the model's entry"):
        history, _ = train(method, random_weights, training, run, device, output.saved)
    write_history(history, output.history)
    facts = {
        "source": {"pretrain": how},
        "num_classes": settings.num_classes,
        "head": {"from": "pretrained"},
        "trained": {
            "images": len(training_images.labels),
            "test": _tested(model, entry, test_images, device),
        },
    }
    write_model(model, entry, facts, output.weights, output.description)


def _refuse_shared_sources(dataset: PreparedDataset, test: PreparedDataset) -> None:
    """Raise a UserError if a test dataset has images made from those of the training dataset."""
    _, sources = dataset.declared_sources
    _, sources_of_test = test.declared_sources
    shared = set(sources) & set(sources_of_test)
    if shared:
        raise UserError(
            f"pretraining: {test.name} shares {len(shared)} source images with {dataset.name}, "
            f"such as {min(shared)}; give the model's entry a test dataset with other images."
        )


def _tested(
    model: torch.nn.Module, entry: Mapping, test: PreparedDataset, device: torch.device
) -> dict:
    """Accuracy on held-out images, in percent."""
    inputs = Inputs.of(test, entry["preprocessing"], device)
    is_correct = correct(model.eval(), inputs, test, BATCH, f"testing {entry['name']}")
    number_correct = int(is_correct.sum())
    number_of_images = len(test.labels)
    log.info(
        "%s: %d of %d images of %s are correct",
        entry["name"],
        number_correct,
        number_of_images,
        test.name,
    )
    return {
        "dataset": test.name,
        "images": number_of_images,
        "accuracy": round(100 * number_correct / number_of_images, 6),
    }
