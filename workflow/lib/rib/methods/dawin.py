"""DaWin: the weights are averaged anew for each image, by how sure each network is of it.

Source: Oh et al. 2025 (arXiv 2410.03782), section 3: a network counts as exp(-H), with the entropy
H of its softmax for the image, divided by the sum over networks.

Deviations from the authors' code (naver-ai/dawin, dawin_rft/):
- Coefficients are per image. Theirs fit a mixture of Beta distributions to those of a dataset and
  merge once for each of its clusters (main_dawin.py:165-201); the form per image is there too, as
  the slow one (202-210).
- Logits are not divided by a temperature before the entropy. Theirs are, by two constants for each
  of three CLIP models (main_dawin.py:33-37, utils.py:256-264); for other models there are none.
- There is no offset, which depends on the other images of the dataset (main_dawin.py:72-85).
- The entropy is that of all outputs of the network, which doesn't know the classes of a dataset;
  theirs is that of the classes (main_dawin.py:68-69).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call


class DaWin(nn.Module):
    """A network with the parameters and buffers sum_k w_k(x) theta_k for an image x."""

    def __init__(self, networks: Mapping[str, nn.Module]):
        """Find the tensors in which the networks differ.

        Raises a ValueError if a network has other tensors than the first.
        """
        super().__init__()
        self.networks = nn.ModuleList(networks.values())
        first_state, *other_states = self._states()
        if any(state.keys() != first_state.keys() for state in other_states):
            raise ValueError("a network has a padding prompt, which can't be averaged with weights")
        self.averaged_names = []  # of the tensors that are averaged
        for name, tensor in first_state.items():
            differs = any(not torch.equal(tensor, state[name]) for state in other_states)
            if tensor.is_floating_point() and differs:
                self.averaged_names.append(name)

    def _states(self) -> list[dict[str, Tensor]]:
        """theta_k: the parameters and buffers of each of the K networks, by name."""
        return [network.state_dict() for network in self.networks]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of images (N, 3, H, W).

        Those of an image are computed by the first network, whose tensors are replaced by averages
        of all networks' tensors with the coefficients that the networks have for this image.
        """
        coefficients = self.coefficients(images)  # (networks, N)
        states = self._states()
        logits = []
        coefficients_of_images = coefficients.unbind(dim=1)
        for image, coefficients_of_image in zip(
            images.split(1), coefficients_of_images, strict=True
        ):
            averaged_tensors = self._average(states, coefficients_of_image)
            logits.append(functional_call(self.networks[0], averaged_tensors, (image,)))
        return torch.cat(logits)

    def _average(
        self, states: Sequence[Mapping[str, Tensor]], coefficients_of_image: Tensor
    ) -> dict[str, Tensor]:
        """Average of the networks' tensors that differ, with coefficients (K,) that add up to 1.

        It is computed as theta_0 + sum_k w_k (theta_k - theta_0), so that equal networks give the
        first, exactly.
        """
        first_state, *other_states = states
        _, *other_coefficients = coefficients_of_image
        averaged_tensors = {}
        for name in self.averaged_names:
            first_tensor = first_state[name]
            change = torch.zeros_like(first_tensor)
            for coefficient, state in zip(other_coefficients, other_states, strict=True):
                change = change + coefficient * (state[name] - first_tensor)
            averaged_tensors[name] = first_tensor + change
        return averaged_tensors

    def coefficients(self, images: Tensor) -> Tensor:
        """Coefficients w_k (K, N) for images (N, 3, H, W); they add up to 1 for each image.

        They are exp(-H_k) / sum_j exp(-H_j), with H_k the entropy of network k's softmax.
        """
        log_probabilities = torch.stack(
            [network(images).float().log_softmax(dim=-1) for network in self.networks]
        )  # (K, N, outputs)
        negative_entropies = (log_probabilities.exp() * log_probabilities).sum(dim=-1)
        return negative_entropies.softmax(dim=0)


def ensemble(networks: Mapping[str, nn.Module]) -> nn.Module:
    """DaWin of the pretrained network and the parents' networks.

    Raises a ValueError if one has a padding prompt.
    """
    return DaWin(networks)
