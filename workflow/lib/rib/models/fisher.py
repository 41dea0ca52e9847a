"""Fisher information of a network's parameters."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.progress import Progress
from rib.models.class_logits import class_logits
from rib.models.images import Images


def fisher_diagonal(
    model: nn.Module, images: Images, kind: str, max_images: int, seed: int
) -> list[Tensor]:
    """Diagonal of the Fisher information of a network, one tensor per parameter.

    It is the mean over images of the squared gradient of the cross-entropy with a label. Images are
    processed one by one, since the gradient of each is squared, not the mean gradient of a batch.

    Args:
        model: in evaluation mode.
        kind: `sampled`, for labels drawn from the network's softmax over all of its outputs, or
            `empirical`, for the images' own labels and their class logits.
        max_images: of more images that many are used, evenly spaced.
        seed: of the sampled labels.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    sums_of_squares = [torch.zeros_like(parameter) for parameter in parameters]
    rows = _evenly_spaced_rows(len(images), max_images)
    batches_of_one = [slice(row, row + 1) for row in rows]
    images.expect(batches_of_one)
    for only_this_row in Progress(batches_of_one, desc="Fisher information", unit="image"):
        logits = model(images[only_this_row]).float()
        if kind == "empirical":
            scores = class_logits(logits, images.members)
            label = images.labels[only_this_row]
        else:
            scores = logits
            label = _sampled_label(logits, generator)
        gradients = torch.autograd.grad(F.cross_entropy(scores, label), parameters)
        for sum_of_squares, gradient in zip(sums_of_squares, gradients, strict=True):
            sum_of_squares += gradient.square()
    return [sum_of_squares / len(rows) for sum_of_squares in sums_of_squares]


def _evenly_spaced_rows(images: int, max_images: int) -> np.ndarray:
    """Rows of at most so many images, ascending, from the first to the last one."""
    positions = np.linspace(0, images - 1, min(max_images, images))
    return np.unique(positions.round().astype(int))


def _sampled_label(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A label (1,) int64 drawn from the softmax of an image's logits (1, C)."""
    probabilities = logits.detach().softmax(dim=1).cpu()
    label = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return label.to(logits.device)
