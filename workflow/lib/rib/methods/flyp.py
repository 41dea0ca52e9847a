"""FLYP: the loss of pretraining, on images and captions of their classes. Both towers are trained.

Source: Goyal et al. 2022 (arXiv 2212.00638), section 3. As there, an image's negatives are all
other captions of the batch, even captions of its own class, and the temperature is trained. The
paper has no SigLIP models; here they keep their loss of pretraining: Zhai et al. 2023
(arXiv 2303.15343), algorithm 1. Images are prepared as for all methods.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.methods.base import Contrastive, Pairs, Task
from rib.methods.ft_frozen_head import FrozenHead
from rib.models.checkpoint import differing_tensors
from rib.models.device import autocast
from rib.models.network import OpenClipClassifier
from rib.models.text import set_zero_shot_weights

TOWER = "text."  # prefix of the text tower's parameters
CAPTION_STREAM = 2  # stream of random numbers, another than that of epochs or replay


class FinetuneLikeYouPretrain(Contrastive, FrozenHead):
    """Minimise the contrastive loss of S_ij = s <f(x_i), g(t_j)> + b over both towers, s and b.

    f and g are the unit-norm features of an image and a text. t_i is a caption of image i: the
    prompt of one output of its class, with a template that is drawn anew in each step. The
    checkpoint has the image tower, and a head that the trained text tower makes from the prompts of
    all classes.

    In the history, `loss` is the contrastive loss, without label smoothing. `cross_entropy`, with
    the recipe's label smoothing, and `accuracy` use the pretrained head, since making a head of all
    prompts takes longer than an epoch of a small target.
    """

    text_tower = True

    @property
    def network(self) -> OpenClipClassifier:
        """The trained network; only open_clip's models have a text tower."""
        return cast(OpenClipClassifier, self.model)

    def setup(self, task: Task) -> None:
        """Prepare for training: list the outputs of each class, for captions."""
        super().setup(task)
        assert task.text is not None  # the entry has `text: required`
        self.text = task.text
        self.labels = task.target.labels.tolist()
        # Outputs of each class, such as [[3], [5, 8]]; `members` repeats some: [[3, 3], [5, 8]].
        self.outputs = [sorted(set(outputs)) for outputs in task.target.members.tolist()]

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Parameters of both towers; names in the text tower start with `text.`."""
        trained_parameters = list(super().trainable())
        for name, parameter in self.text.tower.named_parameters():
            trained_parameters.append((TOWER + name, parameter))
        return trained_parameters

    def captions(self, batch: np.ndarray) -> Tensor:
        """Tokens (N, L) of a random caption of each image, such as "a photo of a dog."

        They depend on the seed, the step and the rows (N,) of the whole batch alone.
        """
        draws = np.random.default_rng([self.task.seed, self.step, CAPTION_STREAM])
        outputs_of_images = []
        for row in batch:
            outputs_of_class = self.outputs[self.labels[row]]
            outputs_of_images.append(int(draws.choice(outputs_of_class)))
        _, number_of_templates, _ = self.text.prompts.shape
        templates = draws.integers(number_of_templates, size=len(batch))
        return self.text.prompts[outputs_of_images, templates]

    def encode(self, rows: np.ndarray, captions: Tensor) -> Pairs:
        """Features of a micro-batch: its rows (n,) and captions (n, L)."""
        with autocast(self.images.device):
            features = self.model.forward_features(self.images[rows])
        return Pairs(features, self.text.encode(captions))

    def contrast(self, pairs: Pairs, taught: Pairs | None) -> Tensor:
        """Contrastive loss of a batch's images and captions."""
        similarities = self.text.similarities(pairs.images, pairs.captions)
        return contrastive_loss(similarities, sigmoid=self.text.tower.logit_bias is not None)

    def changed_tensors(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Changed tensors of the image tower, and a head from the trained text tower."""
        # The text tower itself is not stored. The head is made in a copy: training goes on with the
        # pretrained head, whether or not snapshots are kept.
        head = copy.deepcopy(self.network.head)
        set_zero_shot_weights(head, self.text.tower, self.text.prompts)
        state = self.model.state_dict()
        for name, tensor in head.state_dict().items():  # `weight` and `bias`
            state[f"head.{name}"] = tensor
        return differing_tensors(pretrained, state)


def contrastive_loss(similarities: Tensor, sigmoid: bool) -> Tensor:
    """Loss of pretraining for the similarities S (N, N) of images (rows) and texts (columns).

    Image i belongs to text i. CLIP's loss is the mean of the cross-entropies over texts and over
    images. SigLIP's (`sigmoid`) is -sum_ij log sigmoid(z_ij S_ij) / N, with z_ij = 1 for i = j and
    -1 otherwise.
    """
    n = len(similarities)
    if sigmoid:
        signs = 2 * torch.eye(n, device=similarities.device) - 1
        return -F.logsigmoid(signs * similarities).sum() / n
    text_of_image = torch.arange(n, device=similarities.device)
    loss_over_texts = F.cross_entropy(similarities, text_of_image)
    loss_over_images = F.cross_entropy(similarities.T, text_of_image)
    return (loss_over_texts + loss_over_images) / 2
