"""The last state of a training whose values are all finite."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class GoodState:
    """A copy of all tensors that training may change, to go back to if training diverges.

    At first it is the start of training, then the end of the last epoch with finite values. It
    stays on the device, since copying it to the CPU would take much of a short epoch's time.

    Attributes:
        kept: the copies, such as {"fc.bias": tensor}.

    Args:
        model: the trained network, whose buffers may change, such as BatchNorm statistics.
        trainable: trained parameters, by name; a padding prompt lies outside the network.
    """

    def __init__(self, model: nn.Module, trainable: Mapping[str, Tensor]):
        parameters_of_network = dict(model.named_parameters())
        # The tensors that training changes in place, such as {"fc.bias": parameter}.
        self._current: dict[str, Tensor] = dict(trainable)
        for name, tensor in model.state_dict().items():
            if name not in parameters_of_network:
                self._current[name] = tensor
        self.kept = {name: tensor.detach().clone() for name, tensor in self._current.items()}

    @torch.no_grad()
    def keep(self) -> None:
        """Remember weights and buffers after an epoch in which all stayed finite, for `restore`."""
        for name, tensor in self._current.items():
            self.kept[name].copy_(tensor)

    @torch.no_grad()
    def restore(self) -> None:
        """Copy `kept` back into network and trained parameters, after training has diverged."""
        for name, tensor in self._current.items():
            tensor.copy_(self.kept[name])

    def is_finite(self) -> Tensor:
        """Whether all current values are finite, as a scalar on the device."""
        finite_tensors = [tensor.isfinite().all() for tensor in self._current.values()]
        return torch.stack(finite_tensors).all()

    def first_infinite_tensor(self) -> str:
        """Name of the first current tensor with a value that is not finite, for a message."""
        for name, tensor in self._current.items():
            if not tensor.isfinite().all():
                return name
        raise ValueError("all values are finite")
