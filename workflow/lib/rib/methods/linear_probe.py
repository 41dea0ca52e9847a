"""Linear probing: only the pretrained 1000-way head is trained.

The backbone is frozen, so without augmentation the head's inputs are computed only once. If they
are too large for a GPU beside other jobs, they stay in the host's memory.

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

from rib.grid.stored_outputs import LARGEST_STORED
from rib.methods.base import FineTuning, Task
from rib.models.full_precision import without_autocast
from rib.models.fuse_batch_norm import EXAMPLE, frozen_copy
from rib.models.images import images_at, in_batches, to_device
from rib.models.network import head_inputs, head_parameters

FEATURE_BATCH = 64


class LinearProbing(FineTuning):
    """Minimise CE(c(W h(x) + b), y) over W and b; h are the frozen pretrained features."""

    frozen_network = True  # only the head changes
    stored_outputs = True
    large_outputs_on_host = True

    def setup(self, task: Task) -> None:
        """Prepare for training: compute the features of all images, if there is no augmentation.

        Raises:
            ValueError: the network's head is not one linear layer.
        """
        super().setup(task)
        self._linear_head()  # fail now, not in the first step
        pretrained = frozen_copy(self.model, self.images[slice(EXAMPLE)])
        # (n, d), on the images' device or on the CPU; None with augmentation.
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
        head = self.model.get_classifier()
        if isinstance(head, nn.Linear | nn.Conv2d):
            return head
        raise ValueError(
            f"its head is a {type(head).__name__}, but linear probing trains one linear layer"
        )

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        return head_parameters(self.model)

    def features(self, rows: np.ndarray) -> Tensor:
        """Frozen pretrained features (N, d) of the given rows of the target."""
        if self.stored_features is not None:
            return to_device(images_at(self.stored_features, rows), self.images.device)
        with torch.no_grad():
            return head_inputs(self.pretrained, self.images[rows])

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, outputs) by the head alone."""
        # In BiT's ResNets the head is a pointwise convolution of the pooled map, hence `flatten`.
        head = self._linear_head()
        weight = head.weight.flatten(1)
        head_logits = partial(F.linear, weight=weight, bias=head.bias)
        return without_autocast(head_logits, self.features(rows))
