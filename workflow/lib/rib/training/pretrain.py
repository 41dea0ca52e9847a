"""Pretraining of a small network from random weights, to compare sizes of pretraining sets.

The training loop is rib.training.loop, as for fine-tuning: linear warm-up then cosine to zero, the
last step kept, with a recipe's optimiser or SGD with momentum. All weights are trained, and the
BatchNorm statistics are updated. Images may be shifted at random, then augmented as the recipe or
an entry of augmentations.yaml says.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rib.base.errors import UserError
from rib.base.progress import log
from rib.data.dataset import PreparedDataset
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_whole
from rib.evaluation.score import correct
from rib.methods.base import FineTuning, Task
from rib.models import device as devices
from rib.models.augmentation import Augmentation, Shifts, drawn_transforms, recipe_transform
from rib.models.images import Images
from rib.models.network import build, write_model
from rib.schema.run import Run
from rib.training.divergence import rescued
from rib.training.gpu_memory import explained_lack_of_memory
from rib.training.history import write_history
from rib.training.loop import train
from rib.training.training_settings import PretrainingSettings, TrainingSettings

BATCH = 64  # images per forward pass on the test dataset


def pretrain(
    *,
    dataset: DatasetFiles,
    test: DatasetFiles,
    settings: PretrainingSettings,
    weights: Path,
    description: Path,
    history: Path,
    saved: Path,
    rescue: Path,
) -> None:
    """Train a network, and write it in the format of a converted model.

    Args:
        test: dataset for the accuracy, made from other original images (sources).
        weights: .safetensors file to write, with the state dict.
        description: JSON file to write, with the model's facts and {"trained": {"images": 5000,
            "test": {"dataset": "digits", "images": 1000, "accuracy": 91.5}}}, in percent.
        history: CSV file to write, a row per epoch.
        saved: training state, written periodically, from which a killed training resumes.
        rescue: state after the last finite epoch, written if training diverges.

    Raises:
        PermanentError: the loss or a tensor is not finite, or the GPU has too little memory.
        UserError: the two datasets share source images.
    """
    entry: Mapping[str, Any] = settings.entry
    pretraining = entry["pretrain"]
    seed = pretraining["seed"]
    size = str(pretraining["size"])
    whole_dataset = load_whole(dataset, settings.view)
    training_dataset = subset(whole_dataset, size, seed, "pretrain.size")
    test_dataset = load_whole(test, settings.view)
    _refuse_shared_sources(training_dataset, test_dataset)
    device = devices.start(settings.compute)
    torch.manual_seed(seed)
    model = build(
        entry["library"],
        entry["architecture"],
        settings.num_classes,
        arguments=entry["arguments"],
    )
    # torch's types lack memory_format.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    method = FineTuning(lr=pretraining["lr"], batch_norm="train", dropout=0.0, drop_path=0.0)
    images = Images(training_dataset, entry["preprocessing"], device)
    _transform_at_random(images, settings.training, pretraining)
    method.setup(Task(model=model, target=images, reference=None, seed=seed))
    run = Run(entry["name"], pretraining["dataset"], "pretraining", size, seed)
    random_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    setting = "batch_size in the model's entry, pretrain"
    with (
        rescued(saved, rescue, "pretrain of the model's entry"),
        explained_lack_of_memory("training", run, setting),
    ):
        trained = train(method, random_weights, settings.training, run, device, saved)
    devices.record_earlier(trained.earlier_devices, device)
    write_history(trained.history, history)
    facts = {
        "source": {"pretrain": pretraining},
        "num_classes": settings.num_classes,
        "head": {"from": "pretrained"},
        "trained": {
            "images": len(training_dataset.labels),
            "test": _test_accuracy(model, entry, test_dataset, device),
        },
    }
    write_model(model, entry, facts, weights, description)


def _transform_at_random(
    images: Images, training: TrainingSettings, pretraining: Mapping[str, Any]
) -> None:
    """Give images their random transforms; `pretraining` is {"seed": 0, "shift": 2, ...}."""
    # An entry of augmentations.yaml takes the place of the recipe's augmentation.
    seed = pretraining["seed"]
    if training.augmentation:
        transform = recipe_transform(training.augmentation, images.side)
        images.augmentation = Augmentation(transform, seed)
    if "augmentation" in pretraining:
        images.augmentation = Augmentation(drawn_transforms(**pretraining["augmentation"]), seed)
    if "shift" in pretraining:
        images.shifts = Shifts(pretraining["shift"], len(images.pixels), seed)


def _refuse_shared_sources(dataset: PreparedDataset, test: PreparedDataset) -> None:
    """Raise a UserError if both have images of one original: test accuracy would be too high."""
    _, sources = dataset.declared_sources
    _, sources_of_test = test.declared_sources
    shared_sources = set(sources) & set(sources_of_test)
    if shared_sources:
        raise UserError(
            f"pretraining: {test.name} shares {len(shared_sources)} source images with "
            f"{dataset.name}, such as {min(shared_sources)}; give the model's entry a test dataset "
            "with other images."
        )


def _test_accuracy(
    model: torch.nn.Module, entry: Mapping, test: PreparedDataset, device: torch.device
) -> dict:
    """For example {"dataset": "digits", "images": 1000, "accuracy": 91.5}, in percent."""
    images = Images(test, entry["preprocessing"], device)
    is_correct = correct(model.eval(), images, test, BATCH, f"testing {entry['name']}")
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
