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
    """Diagonal of the Fisher information, a tensor for each parameter in its shape.

    It says how important a value is to the outputs: the mean over images of the squared gradient of
    the cross-entropy with a label.

    Args:
        model: in evaluation mode.
        kind: `sampled`: labels are drawn from the softmax over all outputs; `empirical`: the
            images' labels with their class logits.
        max_images: maximum number of images, evenly spaced over all.
        seed: seed of the sampled labels.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    sums_of_squares = [torch.zeros_like(parameter) for parameter in parameters]
    rows = _evenly_spaced_rows(len(images), max_images)
    # One by one: the gradient of each image is squared, not the mean gradient of a batch.
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
    """Rows of at most `max_images` images: [0, 2, 4] for 5 images, at most 3.

    Many datasets list their images class by class, so such rows cover the classes.
    """
    positions = np.linspace(0, images - 1, min(max_images, images))
    return np.unique(positions.round().astype(int))


def _sampled_label(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A label (1,) drawn from the softmax of the logits (1, outputs) of one image."""
    # On the CPU, where the generator is.
    probabilities = logits.detach().softmax(dim=1).cpu()
    label = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return label.to(logits.device)
