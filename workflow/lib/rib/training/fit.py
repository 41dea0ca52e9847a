"""The fit of a training: its accuracy on the training images, in evaluation mode, 0 to 1."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rib.base.files import read_json
from rib.base.progress import Progress, log
from rib.data.dataset import PreparedDataset
from rib.data.subsets import first_images
from rib.evaluation.score import score
from rib.models.images import Images
from rib.models.state import network_in_state
from rib.schema.run import Run

FIT_IMAGES = 5000  # maximum number of images on which the fit is measured
FIT_BATCH = 64


class InfiniteLogitsError(Exception):
    """A logit is infinite or not a number; finite weights may be so large that layers overflow."""


def images_of_fit(dataset: PreparedDataset) -> PreparedDataset:
    """Training images on which the fit is measured, at most 5,000."""
    return first_images(dataset, FIT_IMAGES)


def measure_fit(
    run: Run, model_folder: Path, checkpoint: Path, images: PreparedDataset, device: torch.device
) -> float:
    """Accuracy (0 to 1, six digits) of a checkpoint on training images: it shows underfitted runs.

    Args:
        images: result of `images_of_fit`.

    Raises:
        InfiniteLogitsError: a logit of one of these images is not finite.
    """
    scores = scores_of(checkpoint, model_folder, images, FIT_BATCH, device, f"fit of {run}")
    if not scores["energy"].isfinite().all():
        raise InfiniteLogitsError
    fit = _accuracy(scores)
    log.info("%s: %.1f %% of %d training images are correct", run, 100 * fit, len(images.labels))
    return round(fit, 6)


def accuracy_of(
    checkpoint: Path,
    model_folder: Path,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    device: torch.device,
    label: str,
) -> float:
    """Accuracy (0 to 1) of a stored checkpoint on a dataset, for monitoring a training."""
    scores = scores_of(checkpoint, model_folder, dataset, evaluation_batch_size, device, label)
    return _accuracy(scores)


def _accuracy(scores: Mapping[str, Tensor]) -> float:
    """Share (0 to 1) of images with rank 0: the network is right."""
    return (scores["rank"] == 0).float().mean().item()


def scores_of(
    checkpoint: Path,
    model_folder: Path,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    device: torch.device,
    label: str,
) -> dict[str, Tensor]:
    """Scores of a stored checkpoint on the n images of a dataset, in evaluation mode.

    Returns:
        Tensors (n,) by the names of rib.evaluation.score.score: {"rank": tensor, "energy": tensor,
        ...}. The rank is 0 if the network is right; the energy is NaN if a logit is not finite.
    """
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    images = Images(dataset, preprocessing, device)
    mixture = {"checkpoint": 1.0}  # an average that is the checkpoint alone
    network = network_in_state(model_folder, mixture, {"checkpoint": checkpoint}, images)
    progress = Progress(desc=label, total=len(images), unit="image")
    (scores,) = score([network], images, dataset, evaluation_batch_size, progress)
    progress.close()
    return scores
