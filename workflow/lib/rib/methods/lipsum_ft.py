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
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.config.stored_outputs import MOST_STORED
from rib.methods import Count, NonNegative
from rib.methods.base import FineTuning, Task
from rib.methods.lwf import pretrained_outputs
from rib.models.network import Classifier

TEXT_STREAM = 3  # of random numbers; epochs, replay and captions have others


@dataclass(kw_only=True)
class LipsumFineTuning(FineTuning):
    """Minimise CE + weight / (2 M) * sum_m (v_m(x; theta) - v_m(x; start))^2.

    The second term is the mean over the batch. v_m(x) = s <f(x), g(t_m)>, f and g the unit-norm
    features of the image and of random text m, s the pretrained scale. The text tower is frozen.
    """

    weight: NonNegative  # of the second term
    texts: Count  # M, number of random texts in a step
    length: Count  # words of a text, less than the context length

    def setup(self, task: Task) -> None:
        """Prepare for training: compute or prepare the pretrained features of the images.

        Raises:
            ValueError: the model has no text tower, or the random texts are too long for it.
        """
        super().setup(task)
        if task.text is None:
            raise ValueError("it needs the model's text tower, but there is none")
        self.text = task.text
        self.encoded_step = -1  # the step whose texts are encoded
        self.encoded_texts = self.encode(0)  # an error now if texts are too long
        self.pretrained_features = pretrained_outputs(
            _image_features, task, MOST_STORED, "features"
        )

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, 1000) of the given rows of the target."""
        # The features are kept for `penalty`, which is called next.
        self.features = self.model.forward_features(self.images[rows])
        return self.model.forward_head(self.features)

    @torch.no_grad()
    def encode(self, step: int) -> Tensor:
        """s g(t_m): scaled features (M, d) of the random texts of a step."""
        draws = np.random.default_rng([self.task.seed, step, TEXT_STREAM])
        tokens = self.text.random(self.texts, self.length, draws)
        return self.text.tower.logit_scale.exp() * self.text.encode(tokens)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """weight / (2 M) * sum_m (v_m(x; theta) - v_m(x; start))^2, the mean over the images x.

        v_m(x) is the similarity of image x to the random text m of M, with the weights theta as
        they are now, or as they were at the start of training.
        """
        if self.encoded_step != self.step:  # all micro-batches of a step have the same texts
            self.encoded_texts = self.encode(self.step)
            self.encoded_step = self.step
        # v_m(x; theta) - v_m(x; start) is the similarity to the text of f(x; theta) - f(x; start),
        # since similarities are linear in the image's features.
        feature_differences = self.features.float() - self.pretrained_features(rows)  # (N, d)
        similarity_differences = feature_differences @ self.encoded_texts.T  # (N, M)
        return self.weight / 2 * similarity_differences.square().mean()


def _image_features(network: Classifier, images: Tensor) -> Tensor:
    """f (N, d) of images (N, 3, H, W)."""
    return network.forward_features(images)
