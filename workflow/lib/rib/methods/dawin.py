"""DaWin: the weights are averaged anew for each image, by how sure each network is of it.

Source: Oh et al. 2025 (arXiv 2410.03782), section 3: a network counts as exp(-H), with the entropy H of its softmax for the
image, divided by the sum over networks.

Deviations from the authors' code (naver-ai/dawin, dawin_rft/):
- Weights are per image. Theirs fit a mixture of Beta distributions to the weights of a dataset and merge once for each of
  its clusters (main_dawin.py:165-201); the form per image is there too, as the slow one (202-210).
- Logits are not divided by a temperature before the entropy. Theirs are, by two constants for each of three CLIP models
  (main_dawin.py:33-37, utils.py:256-264); for other models there are none.
- There is no offset, which depends on the other images of the dataset (main_dawin.py:72-85).
- The entropy is that of all outputs of the network, which doesn't know the classes of a dataset; theirs is that of the
  classes (main_dawin.py:68-69).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

# Most images of an evaluated dataset. Measured on one thread of a CPU: 13 images/s for EfficientNet-Lite0 at 96 pixels (92
# for the network alone), 0.3 for ViT-B/16 at 224 (1.4 alone), so two hours and four days for so many. ImageNet-C's 3.75
# million would take 79 hours even with the former; all other datasets of the family imagenet are smaller.
MOST_IMAGES = 100_000


class DaWin(nn.Module):
    """A network with the parameters and buffers sum_k w_k(x) theta_k for an image x."""

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks.values())
        first, *others = (network.state_dict() for network in self.networks)
        if any(other.keys() != first.keys() for other in others):
            raise ValueError("a network has a padding prompt, which can't be averaged with weights")
        floating = {name: tensor for name, tensor in first.items() if tensor.is_floating_point()}
        self.changed = [
            name
            for name in floating
            if any(not torch.equal(first[name], other[name]) for other in others)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of images (N, 3, H, W)."""
        weights = self.weights(images)
        first, *others = (network.state_dict() for network in self.networks)
        logits = []
        for image, (_, *own) in zip(images.split(1), weights.unbind(dim=1), strict=True):
            # From the first network on, so that equal networks give the first, exactly.
            pairs = list(zip(own, others, strict=True))
            state = {
                n: first[n] + sum(w * (other[n] - first[n]) for w, other in pairs)
                for n in self.changed
            }
            logits.append(functional_call(self.networks[0], state, (image,)))
        return torch.cat(logits)

    def weights(self, images: Tensor) -> Tensor:
        """Weights (K, N) of the networks for images (N, 3, H, W); they add up to 1 for each image."""
        found = torch.stack(
            [network(images).float().log_softmax(dim=-1) for network in self.networks]
        )
        return (found.exp() * found).sum(dim=-1).softmax(dim=0)  # of -H


def ensemble(networks: Mapping[str, nn.Module]) -> nn.Module:
    """DaWin of the pretrained network and the parents' networks; a ValueError if one has a padding prompt."""
    return DaWin(networks)
