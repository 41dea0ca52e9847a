"""DaWin: the weights are averaged anew for each image; the surer a network is, the more it counts.

Source: Oh et al. 2025 (arXiv 2410.03782), section 3: the coefficient of a network is exp(-H),
divided by the sum over networks, where H is the entropy of its softmax for the image.

Deviations from the authors' code (naver-ai/dawin, dawin_rft/):
- Each image has its own coefficients, which is the code's slow form (main_dawin.py:202-210). Its
  fast form fits a mixture of Beta distributions to a dataset's coefficients and merges once per
  cluster (165-201).
- No temperature. The code divides logits by two constants for each of three CLIP models
  (main_dawin.py:33-37, utils.py:256-264) and has none for other models.
- No offset, which would depend on the other images of the dataset (main_dawin.py:72-85).
- The entropy is over all outputs, since the network doesn't know a dataset's classes; the code's is
  over the classes (main_dawin.py:68-69).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call


class DaWin(nn.Module):
    """A network whose tensors are averaged anew for each image x: sum_k w_k(x) theta_k.

    theta_k are the parameters and buffers of network k; w_k(x) add up to 1.
    """

    def __init__(self, networks: Mapping[str, nn.Module]):
        """Combine networks such as {"pretrained": network, "ft": network}.

        Raises:
            ValueError: the networks don't have the same tensors.
        """
        super().__init__()
        self.networks = nn.ModuleList(networks.values())
        first_state, *other_states = self._states()
        if any(state.keys() != first_state.keys() for state in other_states):
            raise ValueError("a network has a padding prompt, which can't be averaged with weights")
        self.averaged_names = []  # tensors that differ between the networks
        for name, tensor in first_state.items():
            differs = any(not torch.equal(tensor, state[name]) for state in other_states)
            if tensor.is_floating_point() and differs:
                self.averaged_names.append(name)

    def _states(self) -> list[dict[str, Tensor]]:
        return [network.state_dict() for network in self.networks]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of images (N, 3, H, W), each with its own averaged weights."""
        coefficients = self.coefficients(images)  # (K, N)
        states = self._states()
        logits = []
        coefficients_of_images = coefficients.unbind(dim=1)
        for image, coefficients_of_image in zip(
            images.split(1), coefficients_of_images, strict=True
        ):
            averaged_tensors = self._average(states, coefficients_of_image)
            # The first network computes with the averages in place of its tensors.
            logits.append(functional_call(self.networks[0], averaged_tensors, (image,)))
        return torch.cat(logits)

    def _average(
        self, states: Sequence[Mapping[str, Tensor]], coefficients_of_image: Tensor
    ) -> dict[str, Tensor]:
        """Tensors for one image, such as {"fc.weight": tensor}, with its coefficients (K,)."""
        # theta_0 + sum_k w_k (theta_k - theta_0), which for equal networks is exactly theta_0.
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
        """Coefficients w_k (K, N) of the networks for images (N, 3, H, W).

        w_k = exp(-H_k) / sum_j exp(-H_j), where H_k is the entropy of network k's softmax.
        """
        log_probabilities = torch.stack(
            [network(images).float().log_softmax(dim=-1) for network in self.networks]
        )  # (K, N, outputs)
        negative_entropies = (log_probabilities.exp() * log_probabilities).sum(dim=-1)
        return negative_entropies.softmax(dim=0)


def ensemble(networks: Mapping[str, nn.Module]) -> nn.Module:
    """One network that averages the weights of these networks anew for each image.

    Args:
        networks: such as {"pretrained": network, "ft": network}.
    """
    return DaWin(networks)
