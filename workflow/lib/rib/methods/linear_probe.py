"""Linear probing: only the pretrained 1000-way head is trained.

The backbone is frozen, so without augmentation the head's inputs are computed only once and
training is cheap. If they are too large for a GPU beside other jobs, the host keeps them.

Source: Kumar et al. 2022 (arXiv 2202.10054), section 2. The released code of ImageNet-RIB also
trains the class token, the position embedding and the final norm (main.py:83-88): the method
linear_probe_released.
"""

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.config.stored_outputs import LARGEST_STORED
from rib.methods.base import FineTuning, Task
from rib.models.full_precision import without_autocast
from rib.models.fuse_batch_norm import EXAMPLE, frozen_copy
from rib.models.images import in_batches, rows_of, to_device
from rib.models.network import head_inputs, head_parameters

FEATURE_BATCH = 64


class LinearProbing(FineTuning):
    """Minimise CE(c(W h(x) + b), y) over W and b, h the frozen pretrained features."""

    frozen_network = True  # only the head changes

    def setup(self, task: Task) -> None:
        """Prepare for training: without augmentation, compute the features of all images once.

        Raises:
            ValueError: the network's head is not one linear layer.
        """
        super().setup(task)
        self._linear_head()  # an error now if there is none
        pretrained = frozen_copy(self.model, self.images[slice(EXAMPLE)])
        # (n, d) of all images of the target, on their device or on the CPU; None if each epoch
        # shows other images.
        self.stored_features: Tensor | None = None
        if self.images.augmentation:
            self.pretrained = pretrained
        else:
            with torch.no_grad():
                features_of_one_image = head_inputs(pretrained, self.images[slice(1)])
            device = self.images.device
            if len(self.images) * features_of_one_image.nbytes > LARGEST_STORED:
                device = torch.device("cpu")

            def features_of_images(images: Tensor) -> Tensor:
                return head_inputs(pretrained, images).to(device)

            self.stored_features = in_batches(
                features_of_images, self.images, FEATURE_BATCH, "features"
            )

    def _linear_head(self) -> nn.Linear | nn.Conv2d:
        """The network's head, which is trained.

        Raises:
            ValueError: it is not one linear layer.
        """
        head = self.model.get_classifier()
        if isinstance(head, nn.Linear | nn.Conv2d):
            return head
        raise ValueError(
            f"its head is a {type(head).__name__}, but linear probing trains one linear layer"
        )

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters of the head, by name."""
        return head_parameters(self.model)

    def features(self, rows: np.ndarray) -> Tensor:
        """Frozen pretrained features (N, d) of the given rows of the target."""
        if self.stored_features is not None:
            return to_device(rows_of(self.stored_features, rows), self.images.device)
        with torch.no_grad():
            return head_inputs(self.pretrained, self.images[rows])

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, 1000) of the given rows of the target, from their frozen features."""
        # The head is a pointwise convolution of the pooled map in BiT's ResNets.
        head = self._linear_head()
        weight = head.weight.flatten(1)
        head_logits = partial(F.linear, weight=weight, bias=head.bias)
        return without_autocast(head_logits, self.features(rows))
