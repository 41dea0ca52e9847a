"""Trainings that diverge, and the last good state, which is kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from torch import Tensor

from rib.base.errors import PermanentError
from rib.config.run import Run
from rib.methods.base import FineTuning
from rib.training.good_state import GoodState


class DivergenceError(Exception):
    """Training diverged: it led to a value that is infinite or not a number.

    Attributes:
        finite_epochs: the number of epochs that were completed before, all with finite values.
        finite_changes: the tensors that training had changed, as they were after these epochs.
    """

    def __init__(
        self,
        run: Run,
        infinite_value: str,
        lr: float,
        finite_epochs: int,
        finite_changes: Mapping[str, Tensor],
    ):
        """Describe the divergence, and keep what `rescued` stores.

        Args:
            infinite_value: what is not finite, for the message: `the loss at epoch 2, step 9`.
            lr: the peak learning rate.
            finite_epochs, finite_changes: see the class.
        """
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
        saved: the training state, which is deleted.
        entry: the catalogue's entry that has the learning rate, for the message.

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
    sums: Tensor,
    epoch: int,
    run: Run,
) -> None:
    """Raise a DivergenceError if a value is not finite after an epoch.

    Values are checked only once per epoch, to avoid a GPU synchronisation at every step, and all
    together on the device. If one is not finite, the training goes back to the last good state.

    Args:
        good_state: as it was kept after the epoch before.
        sums: loss, cross-entropy and accuracy of each step of the epoch, (steps, 3), summed over
            its images.
        epoch: that has just ended, counted from 0, so also the number of epochs before it.
    """
    is_finite_step = sums.isfinite().all(dim=1)
    if is_finite_step.all() & good_state.is_finite():
        return
    if is_finite_step.all():  # the last step's loss was finite, but its update is not
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
