"""Elastic weight consolidation: weights that are important to the pretrained model stay near their start.

Importance is the diagonal of the pretrained model's Fisher information, computed on the family's pretraining proxy or,
without one, on the target.

Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), equation 3. Labels are sampled from the model's own softmax over its
1000 logits. Using the images' labels and their class logits instead gives the empirical Fisher, a different quantity
(Kunstner et al. 2019, arXiv 1905.12558): the variant ewc_empirical. The released code of ImageNet-RIB uses no Fisher
information: the variant ewc_released.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.progress import Progress
from rib.methods import algorithm
from rib.methods.base import FineTuning, Images, Task, anchored
from rib.models.class_logits import class_logits


@algorithm
class ElasticWeightConsolidation(FineTuning):
    """Minimise CE + weight / 2 * sum_i F_i (theta_i - start_i)^2, F_i = mean over x of (d log p(y|x) / d theta_i)^2.

    Args:
        weight: lambda in the paper, at least 0.
        fisher: `sampled`: y is sampled from the model's softmax; `empirical`: y is the image's label.
        fisher_images: maximum number of images for F, evenly spaced over the dataset.
    """

    def __init__(self, *, weight: float, fisher: str, fisher_images: int, **common):
        super().__init__(**common)
        if weight < 0 or fisher_images < 1:
            raise ValueError(f"weight is {weight} and fisher_images {fisher_images}; set at least 0 and at least 1")
        if fisher not in ("sampled", "empirical"):
            raise ValueError(f"fisher is '{fisher}'; set 'sampled' or 'empirical'")
        self.weight, self.fisher, self.fisher_images = weight, fisher, fisher_images

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.anchors, images = anchored(self.trainable()), task.reference or task.target
        self.information = fisher_diagonal(self.model, images, self.fisher, self.fisher_images, task.seed)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        terms = zip(self.information, self.anchors, strict=True)
        return self.weight / 2 * sum((f * (parameter - start).square()).sum() for f, (parameter, start) in terms)


def fisher_diagonal(model: nn.Module, images: Images, kind: str, most: int, seed: int) -> list[Tensor]:
    """Diagonal of the Fisher information of a network in evaluation mode, one tensor per parameter.

    At most `most` images are processed, one by one, since the gradient of each is squared, not the mean gradient of a
    batch. The seed is that of the sampled labels.
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
