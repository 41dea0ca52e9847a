"""Diverged trainings: an error, and a file with the last finite state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from rib.base.errors import PermanentError
from rib.methods.base import FineTuning
from rib.schema.run import Run
from rib.training.good_state import GoodState


class DivergenceError(Exception):
    """Training led to a value that is infinite or not a number.

    Attributes:
        finite_epochs: number of completed epochs with finite values only.
        finite_changes: tensors that training had changed after these epochs, {"fc.bias": tensor}.
    """

    def __init__(
        self,
        run: Run,
        infinite_value: str,
        lr: float,
        finite_epochs: int,
        finite_changes: Mapping[str, Tensor],
    ):
        """`infinite_value` is part of the message: "the loss at epoch 2, step 9"."""
        self.finite_epochs = finite_epochs
        self.finite_changes = finite_changes
        super().__init__(
            f"training diverged: model {run.model}, method {run.method}, target {run.target}: "
            f"{infinite_value} is not finite with the peak learning rate {lr:g}"
        )


@contextmanager
def rescued(saved: Path, rescue: Path, entry: str) -> Iterator[None]:
    """If training diverges, write the state after the last finite epoch to `rescue`.

    Args:
        saved: the saved training state, which is then deleted.
        rescue: checkpoint to write, with the changed tensors.
        entry: place of the learning rate, for the message: "pretrain of the model's entry".

    Raises:
        PermanentError: training diverged.
    """
    try:
        yield
    except DivergenceError as error:
        saved.unlink(missing_ok=True)  # resuming would diverge again
        what_is_kept = "no epoch was finished"
        if error.finite_epochs:
            rescue.parent.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(dict(error.finite_changes), rescue)
            what_is_kept = f"the state after epoch {error.finite_epochs} is kept in {rescue}"
        raise PermanentError(f"{error}; {what_is_kept}; lower lr in {entry}.") from error


def refuse_infinite_state(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    good_state: GoodState,
    sums: Sequence[Tensor],
    epoch: int,
    run: Run,
) -> None:
    """Raise a DivergenceError, with the last good state, if a value is not finite.

    A check after each epoch and, in a long one, each time that the state is saved avoids a GPU
    synchronisation at every step.

    Args:
        pretrained: the state dict that changes are compared with.
        good_state: the state after the epoch before; its methods check the current values.
        sums: loss, cross-entropy, accuracy and norm of the gradient, summed over the images of each
            of the epoch's steps so far, (4,). The norm alone may be infinite.
        epoch: the epoch, counted from 0.
    """
    is_finite_step = torch.stack(list(sums))[:, :-1].isfinite().all(dim=1)
    if is_finite_step.all() & good_state.is_finite():
        return
    if is_finite_step.all():  # the loss of the last step was finite, but not its update
        name = good_state.first_infinite_tensor()
        infinite_value = f"'{name}' after step {method.step}"
    else:
        first_step_of_epoch = method.step - len(sums) + 1
        first_infinite_step = first_step_of_epoch + int((~is_finite_step).nonzero()[0])
        infinite_value = f"the loss at epoch {epoch + 1}, step {first_infinite_step}"
    finite_changes: Mapping[str, Tensor] = {}
    if epoch > 0:
        good_state.restore()
        finite_changes = method.changed_tensors(pretrained)
    raise DivergenceError(run, infinite_value, method.lr, epoch, finite_changes)
