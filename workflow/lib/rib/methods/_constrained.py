"""What methods share whose steps depend on how far each tensor is from its start.

The papers speak of layers; as in their code, a layer is one trained tensor. L is the number of
these.
"""

import torch
from torch import Tensor

from rib.methods.base import FineTuning, Task

# Of Adam.
BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-8


class ConstrainedFineTuning(FineTuning):
    """Full fine-tuning that knows each tensor's deviation from its start.

    It can learn one number per tensor.
    """

    def setup(self, task: Task) -> None:
        """Prepare for training: keep names, values and starting values of all trained tensors."""
        super().setup(task)
        trained_parameters = dict(self.trainable())
        self.names = list(trained_parameters)
        self.parameters: list[Tensor] = list(trained_parameters.values())
        self.starts = [parameter.detach().clone() for parameter in self.parameters]

    def gradients(self) -> list[Tensor]:
        """The gradient of each tensor, zero where the loss doesn't reach it."""
        gradients = []
        for parameter in self.parameters:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            gradients.append(gradient)
        return gradients

    def deviations(self) -> list[Tensor]:
        """theta - start of each tensor."""
        return subtract(self.parameters, self.starts)

    def remember_tensors(self, key: str) -> list[Tensor]:
        """A tensor of zeros in the shape of each trained one, kept from step to step.

        A killed training resumes with what they are then (see rib.methods.base.FineTuning.memory).

        Args:
            key: what they are called in the saved state.
        """
        tensors = [torch.zeros_like(parameter) for parameter in self.parameters]
        for name, tensor in zip(self.names, tensors, strict=True):
            self.memory[f"{key}.{name}"] = tensor
        return tensors

    def remember_numbers(self, key: str, start: float) -> None:
        """Keep one number per trained tensor (L,), for `adam`, with the moments of its gradient.

        Args:
            key: what they are called in the saved state, such as `radius`.
            start: what all of them are at first.
        """
        numbers = torch.full((len(self.starts),), start, device=self.starts[0].device)
        self.memory[key] = numbers
        self.memory[f"{key}_mean"] = torch.zeros_like(numbers)
        self.memory[f"{key}_square"] = torch.zeros_like(numbers)

    def adam(self, key: str, gradient: Tensor, rate: float) -> Tensor:
        """Take a step of Adam on the numbers (L,) that `remember_numbers` keeps under `key`.

        FTP's code and DiGraP's algorithm 1 correct the moments' bias by the steps of training. The
        gradient is zero in the first of them, which has no step before it.

        Args:
            gradient: of the numbers (L,).
            rate: learning rate.

        Returns:
            The numbers (L,) themselves, which may be clipped in place.
        """
        numbers = self.memory[key]
        mean = self.memory[f"{key}_mean"]
        square = self.memory[f"{key}_square"]
        mean.lerp_(gradient, 1 - BETA_1)
        square.lerp_(gradient.square(), 1 - BETA_2)
        corrected_mean = mean / (1 - BETA_1 ** (self.step + 1))
        corrected_square = square / (1 - BETA_2 ** (self.step + 1))
        return numbers.sub_(rate * corrected_mean / (corrected_square.sqrt() + EPSILON))


# torch's functions for many tensors at once take a few launches on a GPU, in place of one for each
# tensor.


def subtract(minuends: list[Tensor], subtrahends: list[Tensor]) -> list[Tensor]:
    """The difference of each pair of tensors; both lists have L."""
    return list(torch._foreach_sub(minuends, subtrahends))


def scale(tensors: list[Tensor], factors: Tensor) -> list[Tensor]:
    """Each of L tensors times its factor, of factors (L,)."""
    return list(torch._foreach_mul(tensors, factors.unbind()))


def dots(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Inner product (L,) of each pair of tensors; both lists have L."""
    products = torch._foreach_mul(left, right)
    return torch.stack([product.sum() for product in products])


def norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm (L,) of each of L tensors."""
    return torch.stack(torch._foreach_norm(tensors))


def ratio(dividend: Tensor, divisor: Tensor) -> Tensor:
    """Quotient of two tensors of a shape, 0 where the divisor is 0."""
    return torch.where(divisor == 0, 0.0, dividend / divisor)
