"""Lipsum-FT: the similarities of an image to random texts stay as they were before fine-tuning.

Source: Nam et al. 2024 (arXiv 2404.00860), section 5.1: the energy of an image and a text is their
negative similarity, and random texts are drawn anew in each step. As in their code
(scripts/Lipsum-FT.py, lines 193-201), similarities have the pretrained temperature. Their code also
multiplies the head's output by it (line 187); here the head's weights include it, as for all
methods. Words are drawn from all tokens but the start, the end and the padding; their code
(line 171) allows CLIP's padding, which is also the token of "!".
"""

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.methods import Count, NonNegative
from rib.methods._distil import Distillation
from rib.methods.base import Task
from rib.models.network import Classifier

TEXT_STREAM = 3  # stream of random numbers; epochs, replay and captions have others


@dataclass(kw_only=True)
class LipsumFineTuning(Distillation):
    """Minimise CE + weight / (2 M) * sum_m (v_m(x; theta) - v_m(x; start))^2.

    The second term is a mean over the batch. v_m(x) = s <f(x), g(t_m)>, where f and g are the
    unit-norm features of the image and of random text m, and s is the pretrained scale. The text
    tower is frozen.
    """

    text_tower = True
    large_outputs_on_host = True

    weight: NonNegative
    texts: Count  # M, number of random texts in a step
    length: Count  # words of a text, less than the context length

    def setup(self, task: Task) -> None:
        """Prepare for training: store the pretrained features of the images.

        Raises:
            ValueError: the random texts are too long for the text tower.
        """
        super().setup(task)
        assert task.text is not None  # the entry has `text: required`
        self.text = task.text
        self.encoded_step = -1  # the step whose texts are encoded
        self.encoded_texts = self.encode(0)  # fail now if texts are too long
        self.pretrained_features = self.pretrained_outputs(_image_features, "features")

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, outputs); keeps the features for `penalty`."""
        self.features = self.model.forward_features(self.images[rows])
        return self.model.forward_head(self.features)

    @torch.no_grad()
    def encode(self, step: int) -> Tensor:
        """Features s g(t_m) (M, d) of the random texts of a step."""
        draws = np.random.default_rng([self.task.seed, step, TEXT_STREAM])
        tokens = self.text.random(self.texts, self.length, draws)
        return self.text.tower.logit_scale.exp() * self.text.encode(tokens)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """Distance from the pretrained similarities, by the features that `self.logits` kept."""
        if self.encoded_step != self.step:  # all micro-batches of a step have the same texts
            self.encoded_texts = self.encode(self.step)
            self.encoded_step = self.step
        # v_m(x; theta) - v_m(x; start) = s <f(x; theta) - f(x; start), g(t_m)>
        feature_differences = self.features.float() - self.pretrained_features(rows)  # (N, d)
        similarity_differences = feature_differences @ self.encoded_texts.T  # (N, M)
        return self.weight / 2 * similarity_differences.square().mean()


def _image_features(network: Classifier, images: Tensor) -> Tensor:
    """Unit-norm features (N, d) of images, for `Distillation.pretrained_outputs`."""
    return network.forward_features(images)
