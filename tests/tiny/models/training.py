"""What training, scoring and features need in a test's own process.

That is a network, a few images, and folders as jobs write them.
"""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from rib.base.files import write_json
from rib.catalog.label_space import LabelSpace
from rib.data.identity import PHOTO
from rib.data.view import DatasetView
from rib.evaluation.networks import NetworkState
from rib.methods.base import Task
from rib.models.device import ComputeSettings
from rib.models.images import Images
from rib.schema.algorithm_settings import DEFAULTS_OF_TRAINING
from rib.schema.geometry import Geometry
from rib.schema.run import ALL, Run
from rib.training.loop import train
from rib.training.training_settings import TrainingSettings
from tiny.changed import replace

CPU = torch.device("cpu")
# What manifests state of a device, see rib.models.device.facts_of.
OF_CPU = {
    "device": "cpu",
    "gpu": None,
    "capability": None,
    "precision": "fp32",
    "cuda": None,
    "cudnn": None,
}
HALF = [0.5] * 3
TRAINING = TrainingSettings(
    epochs=2,
    batch_size=4,
    micro_batch_size=ALL,
    momentum=0.9,
    weight_decay=0.0,
    warmup_steps=196,
    warmup_fraction=0.1,
)
RUN = Run("m", "t", "x", ALL, 0)
SPACE = LabelSpace(("a", "b", "c"), ((1, 5), (7,), (9, 20, 30)), ("a", "b", "c"))
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
VIEW = DatasetView(geometry=Geometry(32, 1.0, "bicubic"), budget=ALL, images_per_class=None)
COMPUTE = ComputeSettings(device="cpu", threads_per_job=1)
CODE = "of no rule"  # in place of the digest of a stage's code
FINE_TUNED = (NetworkState("ft", None, {"ft": 1.0}),)  # the states of a run of method ft


def resnet(num_classes: int = 1000) -> torch.nn.Module:
    """A small network with BatchNorm, whose weights are always the same."""
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=num_classes, zero_init_last=False).eval()


def random_images(n: int = 10, side: int = 64, seed: int = 0) -> SimpleNamespace:
    """Images (n, side, side, 3), labels and label space of a dataset of noise."""
    images = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return SimpleNamespace(images=images, rows=None, labels=np.arange(n) % 3, space=SPACE)


def normalised(images: np.ndarray, mean=HALF, std=HALF) -> torch.Tensor:
    """Network inputs (n, 3, H, W) of images (n, H, W, 3), written out."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def settings_of(entry, recipe="paper") -> dict:
    """Settings of an entry's algorithm, trained with a recipe."""
    settings = {**entry.settings, **entry.recipes.get(recipe, {})}
    settings.pop("recipe", None)
    return settings


def with_defaults(algorithm: type, **settings):
    """An algorithm of a class, with the defaults of training where no setting is given."""
    return algorithm(**{**DEFAULTS_OF_TRAINING, **settings})


def images_of(dataset, mean=HALF, std=HALF, device=CPU) -> Images:
    """What a method sees of a dataset."""
    return Images(dataset, {"mean": mean, "std": std}, device)


def images_of_pixels(pixels, mean=HALF, std=HALF, rows=None) -> Images:
    """Images (n, H, W, 3) as a network reads them, whose labels don't matter."""
    labels = np.zeros(len(pixels), np.int64)
    dataset = SimpleNamespace(images=pixels, rows=rows, labels=labels, space=SPACE)
    return images_of(dataset, mean, std)


def task_of(model, target, reference=None, seed=0) -> Task:
    """What a method is set up with: a model and the images of datasets."""
    reference_images = None if reference is None else images_of(reference)
    return Task(model, images_of(target), reference_images, seed)


def trained(algorithm, network, target, training=TRAINING, seed=0, reference=None):
    """A copy of the network that a method has trained, and the history."""
    model = copy.deepcopy(network)
    algorithm.setup(task_of(model, target, reference, seed))
    history, _, _ = train(algorithm, network.state_dict(), training, replace(RUN, seed=seed), CPU)
    return model, history


def masked(logits: torch.Tensor, space: LabelSpace) -> torch.Tensor:
    """Class logits, written out."""
    return torch.stack([logits[:, list(row)].amax(dim=1) for row in space.indices], dim=1)


def rate(step: int, steps: int, peak: float, training) -> float:
    """Learning rate of a step, counted from 0, written out."""
    warmup = min(training.warmup_steps, math.floor(training.warmup_fraction * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def trained_by_hand(
    model, pixels, labels, space, peak, training, seed, penalty=lambda model, rows, logits, step: 0
):
    """Reference of the whole training, on whole batches.

    It is SGD with momentum and weight decay from their definition.

    Args:
        model: in the mode in which it trains; changed in place.
        pixels: (n, 3, H, W).
        labels: (n,) indices of classes.
        space: the label space, by which logits become class logits.
        peak: the highest learning rate.
        penalty: of model, rows and logits of a batch, and the step.

    Returns:
        A row of the history per epoch.
    """
    parameters = list(model.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    n = len(labels)
    batch_size = training.batch_size
    steps = math.ceil(n / batch_size) * training.epochs
    step = 0
    history = []
    for epoch in range(training.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(n)
        sums = np.zeros(3)  # of losses, cross-entropies and right answers
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            logits = model(pixels[rows])
            class_logits = masked(logits, space)
            batch_labels = torch.as_tensor(labels)[rows]
            log_probabilities = F.log_softmax(class_logits, dim=1)
            label_log_probabilities = log_probabilities[torch.arange(len(rows)), batch_labels]
            cross_entropy = -label_log_probabilities.sum() / len(rows)
            loss = cross_entropy + penalty(model, rows, logits, step)
            lr = rate(step, steps, peak, training)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient, velocity in zip(
                    parameters, gradients, velocities, strict=True
                ):
                    decayed_gradient = gradient + training.weight_decay * parameter
                    velocity.mul_(training.momentum).add_(decayed_gradient)
                    parameter -= lr * velocity
            right = int((class_logits.argmax(dim=1) == batch_labels).sum())
            sums += [loss.item() * len(rows), cross_entropy.item() * len(rows), right]
            step += 1
        mean_loss, mean_cross_entropy, accuracy = sums / n
        history.append(
            {
                "epoch": epoch + 1,
                "lr": lr,
                "loss": mean_loss,
                "cross_entropy": mean_cross_entropy,
                "accuracy": accuracy,
            }
        )
    return history


def model_folder(folder: Path, network: torch.nn.Module) -> Path:
    """Write what a models job writes for a test_resnet into a new folder; gives the folder."""
    folder.mkdir()
    safetensors.torch.save_file(network.state_dict(), folder / "weights.safetensors")
    facts = {"library": "timm", "architecture": "test_resnet", "num_classes": network.num_classes}
    write_json(folder / "model.json", {**facts, "preprocessing": {"mean": MEAN, "std": STD}})
    return folder


# Part of a split by image, repeated; five images and three classes: every class is in every part.
PATTERN = ("train", "select", "train", "test", "test")


def rows_of(part: str, n: int) -> list[int]:
    """Numbers of the images in a part of a split, as `split_file` says."""
    return [i for i in range(n) if PATTERN[i % len(PATTERN)] == part]


def split_file(path: Path, n: int) -> Path:
    """Write what a split job writes for a dataset of n images; gives its path.

    See `prepared_folder` for the dataset.
    """
    columns = {
        "source_id": [f"source{i}" for i in range(n)],
        "part": [PATTERN[i % len(PATTERN)] for i in range(n)],
        "images": [1] * n,
    }
    pq.write_table(pa.table(columns), path)
    return path


def prepared_folder(folder: Path, dataset) -> Path:
    """Write what a prepare job writes for a dataset into a new folder; gives the folder.

    Image i is named `i`, its source `sourcei`.
    """
    folder.mkdir()
    n = len(dataset.labels)
    index = {
        "row": pa.array(range(n), pa.int32()),
        "image_id": [f"{i}" for i in range(n)],
        "label": pa.array(dataset.labels, pa.int16()),
        "source_id": [f"source{i}" for i in range(n)],
        "object_id": [f"object{i}" for i in range(n)],
        PHOTO: [f"photo{i}" for i in range(n)],
    }
    pq.write_table(pa.table(index), folder / "index.parquet")
    np.save(folder / "images.npy", dataset.images)
    write_json(folder / "classes.json", dataset.space.to_json())
    return folder
