"""Elastic weight consolidation: weights that matter to the pretrained model are held near their start.

What matters is measured by the diagonal of the Fisher information of the pretrained model, on images of the
family's reference dataset or, where it has none, on the target's own.

Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), equation 3. The Fisher's labels are drawn from the model's own
softmax over its 1000 logits; with the images' labels in their place (and their class logits) it is the empirical
Fisher, another quantity (Kunstner et al. 2019, arXiv 1905.12558): the variant ewc_empirical. The released code of
ImageNet-RIB has no Fisher at all: ewc_released.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.io import Progress
from rib.methods import mechanism
from rib.methods._base import FineTuning, Images, Task, anchored
from rib.models.class_logits import class_logits


@mechanism
class ElasticWeightConsolidation(FineTuning):
    """Minimise CE + weight / 2 * sum_i F_i (theta_i - start_i)^2, F_i = mean over x of (d log p(y|x) / d theta_i)^2.

    Args:
        weight: lambda of the paper, from 0.
        fisher: `sampled`, y drawn from the model's softmax; `empirical`, y the image's label.
        fisher_images: most images that F is taken over, evenly spread over the dataset.
    """

    def __init__(self, *, weight: float, fisher: str, fisher_images: int, **common):
        super().__init__(**common)
        if weight < 0 or fisher_images < 1:
            raise ValueError(f"weight is {weight} and fisher_images {fisher_images}; give them from 0 and from 1")
        if fisher not in ("sampled", "empirical"):
            raise ValueError(f"fisher is '{fisher}'; give 'sampled' or 'empirical'")
        self.weight = weight
        self.fisher = fisher
        self.fisher_images = fisher_images

    def begin(self, task: Task) -> None:
        super().begin(task)
        images = task.reference or task.target
        self.anchors = anchored(self.trainable())
        self.information = fisher_diagonal(self.model, images, self.fisher, self.fisher_images, task.seed)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        terms = zip(self.information, self.anchors, strict=True)
        return self.weight / 2 * sum((f * (parameter - start).square()).sum() for f, (parameter, start) in terms)


def fisher_diagonal(model: nn.Module, images: Images, kind: str, most: int, seed: int) -> list[Tensor]:
    """Diagonal of the Fisher information, one tensor per parameter of the model.

    The square is taken of each image's own gradient, so images pass one by one: the square of a batch's mean
    gradient is something else.

    Args:
        model: in evaluation mode.
        images: to average over.
        kind: `sampled` or `empirical`.
        most: largest number of images.
        seed: of the sampled labels.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    rows = np.unique(np.linspace(0, len(images.inputs) - 1, min(most, len(images.inputs))).round().astype(int))
    for row in Progress(rows, desc="Fisher information", unit="image"):
        logits = model(images.inputs[[row]]).float()
        if kind == "empirical":
            scores, label = class_logits(logits, images.members), images.labels[[row]]
        else:
            probabilities = logits.detach().softmax(dim=1).cpu()
            scores, label = logits, torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)
        gradients = torch.autograd.grad(F.cross_entropy(scores, label), parameters)
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_ += gradient.square()
    return [sum_ / len(rows) for sum_ in total]
