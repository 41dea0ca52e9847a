"""Base class of methods whose steps depend on each tensor's distance from its start.

The papers speak of layers; here, as in their code, a layer is one trained tensor. There are L
trained tensors. The start is their values before fine-tuning.
"""

import torch
from torch import Tensor

from rib.methods.base import FineTuning, Task

# Adam's usual constants.
BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-8


class ConstrainedFineTuning(FineTuning):
    """Fine-tuning that knows each tensor's deviation from its start.

    It can learn one number per trained tensor with Adam, such as a radius: a subclass calls
    `remember_numbers` once in `setup`, and `adam` in each step.
    """

    def setup(self, task: Task) -> None:
        """Prepare for training: copy the starting values of all trained tensors."""
        super().setup(task)
        trained_parameters = dict(self.trainable())
        self.names = list(trained_parameters)
        self.parameters: list[Tensor] = list(trained_parameters.values())
        self.starts = [parameter.detach().clone() for parameter in self.parameters]

    def gradients(self) -> list[Tensor]:
        """Gradient of each trained tensor, zero if the loss doesn't depend on it."""
        gradients = []
        for parameter in self.parameters:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            gradients.append(gradient)
        return gradients

    def deviations(self) -> list[Tensor]:
        """theta - start of each trained tensor."""
        return subtract(self.parameters, self.starts)

    def remember_tensors(self, key: str) -> list[Tensor]:
        """Zeros in the shape of each trained tensor, to keep values from one step to the next.

        `memory`, which is saved during training, gets the same tensors. So change them in place
        only, as `copy_` does. After `setup`, a resumed training overwrites the zeros with the saved
        values.

        Args:
            key: `direction` gives `memory` the entries {"direction.fc.weight": tensor, ...}.

        Returns:
            L tensors, in the order of `parameters`.
        """
        tensors = [torch.zeros_like(parameter) for parameter in self.parameters]
        for name, tensor in zip(self.names, tensors, strict=True):
            self.memory[f"{key}.{name}"] = tensor
        return tensors

    def remember_numbers(self, key: str, start: float) -> None:
        """Create one number per trained tensor, such as a radius, for `adam` to learn.

        The numbers live in `memory`, which is saved during training. After `setup`, a resumed
        training overwrites the first values with the saved ones.

        Args:
            key: for L trained tensors, `radius` creates memory["radius"] (L,), and Adam's moments
                memory["radius_mean"] and memory["radius_square"] (L,), which start at 0.
            start: first value of all numbers.
        """
        numbers = torch.full((len(self.starts),), start, device=self.starts[0].device)
        self.memory[key] = numbers
        self.memory[f"{key}_mean"] = torch.zeros_like(numbers)
        self.memory[f"{key}_square"] = torch.zeros_like(numbers)

    def adam(self, key: str, gradient: Tensor, rate: float) -> Tensor:
        """Take a step of Adam on the numbers that `remember_numbers` put into `memory`.

        Args:
            key: `radius` changes memory["radius"] and Adam's moments beside it.
            gradient: of the loss with respect to the numbers, (L,).
            rate: learning rate.

        Returns:
            The numbers (L,), not a copy: the caller may clip them in place.
        """
        numbers = self.memory[key]
        mean = self.memory[f"{key}_mean"]
        square = self.memory[f"{key}_square"]
        mean.lerp_(gradient, 1 - BETA_1)
        square.lerp_(gradient.square(), 1 - BETA_2)
        # As in FTP's code and DiGraP's algorithm 1, the bias is corrected by the steps of training,
        # although the gradient is always zero in the first of them.
        corrected_mean = mean / (1 - BETA_1 ** (self.step + 1))
        corrected_square = square / (1 - BETA_2 ** (self.step + 1))
        return numbers.sub_(rate * corrected_mean / (corrected_square.sqrt() + EPSILON))


# The functions below work on lists of L tensors. torch._foreach_* launches a few GPU kernels for a
# whole list instead of one per tensor.


def subtract(minuends: list[Tensor], subtrahends: list[Tensor]) -> list[Tensor]:
    """Minuend minus subtrahend of each pair of tensors."""
    return list(torch._foreach_sub(minuends, subtrahends))


def scale(tensors: list[Tensor], factors: Tensor) -> list[Tensor]:
    """Each of L tensors times its factor; `factors` has the shape (L,)."""
    return list(torch._foreach_mul(tensors, factors.unbind()))


def dots(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Inner product of each pair of tensors, (L,)."""
    products = torch._foreach_mul(left, right)
    return torch.stack([product.sum() for product in products])


def norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, (L,)."""
    return torch.stack(torch._foreach_norm(tensors))


def ratio(dividend: Tensor, divisor: Tensor) -> Tensor:
    """Quotient of two tensors; 0, not NaN, where the divisor is 0, as in the first step."""
    return torch.where(divisor == 0, 0.0, dividend / divisor)
