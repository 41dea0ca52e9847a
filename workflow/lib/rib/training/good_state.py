"""The last state of a training whose values are all finite."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class GoodState:
    """A copy of all tensors that training may change, as they were after the last good epoch.

    It stays on the device, since copying it to the CPU would take much of a short epoch's time. At
    first it is the state with which training starts.

    Attributes:
        kept: the copy, by name.

    Args:
        model: the network that is trained, whose buffers may change, such as the statistics of
            BatchNorm.
        trainable: the trained parameters, which may lie outside the network, such as a padding
            prompt.
    """

    def __init__(self, model: nn.Module, trainable: Mapping[str, Tensor]):
        """Arguments are those of the class."""
        parameters_of_network = dict(model.named_parameters())
        self._current: dict[str, Tensor] = dict(trainable)
        for name, tensor in model.state_dict().items():
            if name not in parameters_of_network:
                self._current[name] = tensor
        self.kept = {name: tensor.detach().clone() for name, tensor in self._current.items()}

    @torch.no_grad()
    def keep(self) -> None:
        """Replace the copy by the current state."""
        for name, tensor in self._current.items():
            self.kept[name].copy_(tensor)

    @torch.no_grad()
    def restore(self) -> None:
        """Let network and trained parameters have the values of the copy again."""
        for name, tensor in self._current.items():
            tensor.copy_(self.kept[name])

    def is_finite(self) -> Tensor:
        """Whether all values of the current state are finite, as a scalar on the device."""
        finite_tensors = [tensor.isfinite().all() for tensor in self._current.values()]
        return torch.stack(finite_tensors).all()

    def first_infinite_tensor(self) -> str:
        """Name of the first tensor of the current state with a value that is not finite.

        Raises:
            ValueError: there is none.
        """
        for name, tensor in self._current.items():
            if not tensor.isfinite().all():
                return name
        raise ValueError("all values are finite")
