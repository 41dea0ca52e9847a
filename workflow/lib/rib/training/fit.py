"""The fit of a training: its accuracy on the images that it was trained on."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rib.base.files import read_json
from rib.base.progress import Progress, log
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.subsets import first_images
from rib.evaluation.score import score
from rib.models.images import Images
from rib.models.state import network_in_state

FIT_IMAGES = 5000  # on which the fit is measured, at most
FIT_BATCH = 64


class InfiniteLogitsError(Exception):
    """A network gives a logit that is infinite or not a number.

    Its weights may be finite, but so large that its layers overflow.
    """


def images_of_fit(dataset: PreparedDataset) -> PreparedDataset:
    """The training images on which the fit is measured: at most 5,000 of a dataset."""
    return first_images(dataset, FIT_IMAGES)


def measure_fit(
    run: Run, model_folder: Path, checkpoint: Path, images: PreparedDataset, device: torch.device
) -> float:
    """Accuracy of the stored checkpoint on training images, as it is evaluated: 0 to 1.

    Args:
        images: those of `images_of_fit`.

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
    """Accuracy of a stored checkpoint on images, as it is evaluated: 0 to 1; see `scores_of`."""
    scores = scores_of(checkpoint, model_folder, dataset, evaluation_batch_size, device, label)
    return _accuracy(scores)


def _accuracy(scores: Mapping[str, Tensor]) -> float:
    """Share of images with a right answer, 0 to 1, from the scores of a network."""
    return (scores["rank"] == 0).float().mean().item()


def scores_of(
    checkpoint: Path,
    model_folder: Path,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    device: torch.device,
    label: str,
) -> dict[str, Tensor]:
    """Scores of images by a stored checkpoint, as it is evaluated; see rib.evaluation.score.

    Args:
        evaluation_batch_size: images per forward pass.
        label: that of the progress bar.
    """
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    images = Images(dataset, preprocessing, device)
    # The state is this checkpoint alone, whatever its name.
    weights = {"checkpoint": 1.0}
    network = network_in_state(model_folder, weights, {"checkpoint": checkpoint}, images)
    progress = Progress(desc=label, total=len(images), unit="image")
    (scores,) = score([network], images, dataset, evaluation_batch_size, progress)
    progress.close()
    return scores
