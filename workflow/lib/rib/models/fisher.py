"""Fisher information of a network's parameters."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.progress import Progress
from rib.models.class_logits import class_logits
from rib.models.inputs import Images


def fisher_diagonal(
    model: nn.Module, images: Images, kind: str, most: int, seed: int
) -> list[Tensor]:
    """Diagonal of the Fisher information of a network in evaluation mode, one tensor per parameter.

    At most `most` images are processed, one by one, since the gradient of each is squared, not the mean gradient of a
    batch. The seed is that of the sampled labels. `kind` is `sampled`, for labels drawn from the network's softmax over all of
    its outputs, or `empirical`, for the images' own labels and their class logits.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    rows = np.unique(
        np.linspace(0, len(images.inputs) - 1, min(most, len(images.inputs))).round().astype(int)
    )
    for row in Progress(rows, desc="Fisher information", unit="image"):
        logits = model(images.inputs[[row]]).float()
        if kind == "empirical":
            scores, label = class_logits(logits, images.members), images.labels[[row]]
        else:
            probabilities = logits.detach().softmax(dim=1).cpu()
            scores, label = (
                logits,
                torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device),
            )
        gradients = torch.autograd.grad(F.cross_entropy(scores, label), parameters)
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_ += gradient.square()
    return [sum_ / len(rows) for sum_ in total]
