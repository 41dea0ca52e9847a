"""Lipsum-FT: the similarities of an image to random texts stay as they were before fine-tuning.

Source: Nam et al. 2024 (arXiv 2404.00860), section 5.1: the energy of an image and a text is their
negative similarity, and random texts are drawn anew in each step. As in their code
(scripts/Lipsum-FT.py, lines 193-201), similarities have the pretrained temperature. There the head
has it too, apart from its weights (line 187); here the weights contain it, as for all methods.
Words are drawn from all tokens but the start, the end and the padding; their code (line 171) allows
CLIP's padding, which is also the token of "!".
"""

import numpy as np
import torch
from torch import Tensor, nn

from rib.methods import Count, NonNegative, algorithm
from rib.methods.base import FineTuning, Task
from rib.methods.lwf import MOST_STORED, pretrained_outputs

TEXT_STREAM = 3  # of random numbers; epochs, replay and captions have others


@algorithm
class LipsumFineTuning(FineTuning):
    """Minimise CE + weight / (2 M) * sum_m (v_m(x; theta) - v_m(x; start))^2.

    The second term is the mean over the batch. v_m(x) = s <f(x), g(t_m)>, f and g the unit-norm
    features of the image and of random text m, s the pretrained scale. The text tower is frozen.
    """

    weight: NonNegative  # of the second term
    texts: Count  # M, number of random texts in a step
    length: Count  # words of a text, less than the context length

    def setup(self, task: Task) -> None:
        super().setup(task)
        if task.text is None:
            raise ValueError("it needs the model's text tower, but there is none")
        self.encoded_step = -1  # the step whose texts are encoded
        self.encoded_texts = self.encode(0)  # an error now if texts are too long
        self.start = pretrained_outputs(_image_features, task, MOST_STORED, "features")

    def logits(self, rows: np.ndarray) -> Tensor:
        self.features = self.model.forward_features(self.inputs[rows])
        return self.model.forward_head(self.features)

    @torch.no_grad()
    def encode(self, step: int) -> Tensor:
        """s g(t_m): scaled features (M, d) of the random texts of a step."""
        text = self.task.text
        draws = np.random.default_rng([self.task.seed, step, TEXT_STREAM])
        tokens = text.random(self.texts, self.length, draws)
        return text.tower.logit_scale.exp() * text.encode(tokens)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        if self.encoded_step != self.step:  # all micro-batches of a step have the same texts
            self.encoded_texts = self.encode(self.step)
            self.encoded_step = self.step
        # The difference of similarities is the similarity of the difference.
        differences = (self.features.float() - self.start(rows)) @ self.encoded_texts.T
        return self.weight / 2 * differences.square().mean()


def _image_features(network: nn.Module, images: Tensor) -> Tensor:
    """f (N, d) of images (N, 3, H, W)."""
    return network.forward_features(images)
