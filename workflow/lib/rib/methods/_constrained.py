"""What methods share that take other steps than the optimiser's, depending on how far each tensor is from its start.

The papers speak of layers; as in their code, a layer is one trained tensor. L is the number of these.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rib.methods.base import FineTuning, Task

BETAS, EPSILON = (0.9, 0.999), 1e-8


class ConstrainedFineTuning(FineTuning):
    """Full fine-tuning that knows each tensor's deviation from its start, and can learn one number per tensor."""

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.names, self.parameters = zip(*self.trainable(), strict=True)
        self.starts = [part.detach().clone() for part in self.parameters]

    def gradients(self) -> list[Tensor]:
        """The gradient of each tensor, zero where the loss doesn't reach it."""
        return [
            torch.zeros_like(part) if part.grad is None else part.grad for part in self.parameters
        ]

    def deviations(self) -> Sequence[Tensor]:
        """theta - start of each tensor."""
        return torch._foreach_sub(self.parameters, self.starts)

    def remember_tensors(self, key: str) -> list[Tensor]:
        """A tensor of zeros in the shape of each trained one, kept from step to step."""
        kept = [torch.zeros_like(part) for part in self.parameters]
        self.memory |= {
            f"{key}.{name}": tensor for name, tensor in zip(self.names, kept, strict=True)
        }
        return kept

    def remember_numbers(self, key: str, start: float) -> None:
        """One number per tensor (L,), learned by `adam`, with the moments of its gradient."""
        first = torch.full((len(self.starts),), start, device=self.starts[0].device)
        self.memory |= {
            key: first,
            f"{key}_mean": torch.zeros_like(first),
            f"{key}_square": torch.zeros_like(first),
        }

    def adam(self, key: str, gradient: Tensor, rate: float) -> Tensor:
        """Take a step of Adam on the numbers of `key`, and return them; they may be clipped in place.

        FTP's code and DiGraP's algorithm 1 correct the moments' bias by the steps of training. The gradient is zero in the
        first of them, which has no step before it.
        """
        number, mean, square = (self.memory[name] for name in (key, f"{key}_mean", f"{key}_square"))
        mean.lerp_(gradient, 1 - BETAS[0])
        square.lerp_(gradient.square(), 1 - BETAS[1])
        mean, square = (
            m / (1 - beta ** (self.step + 1)) for m, beta in zip((mean, square), BETAS, strict=True)
        )
        return number.sub_(rate * mean / (square.sqrt() + EPSILON))


def dots(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner product (L,) of each pair of tensors."""
    return torch.stack([product.sum() for product in torch._foreach_mul(left, right)])


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm (L,) of each tensor."""
    return torch.stack(torch._foreach_norm(tensors))


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Quotient, 0 where the divisor is 0."""
    return torch.where(below == 0, 0.0, above / below)
