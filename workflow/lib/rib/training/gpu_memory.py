"""Lack of GPU memory in a training, as a sentence that names the setting that helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rib.base.errors import PermanentError
from rib.config.run import Run
from rib.jobs.messages import OTHER_REMEDIES
from rib.methods.base import FineTuning


@contextmanager
def explained_lack_of_memory(phase: str, run: Run, setting: str | None) -> Iterator[None]:
    """While the body runs, a lack of GPU memory is a sentence.

    Args:
        phase: what the body does, such as `training`.
        setting: key of config.yaml or of an entry that lowers the memory of this phase, such as
            `training.micro_batch_size in config.yaml`; None if there is none.

    Raises:
        PermanentError: torch finds too little memory on the GPU.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedy = f"lower {setting}, {OTHER_REMEDIES}" if setting else OTHER_REMEDIES
        raise PermanentError(f"out of GPU memory while {phase} {run}; {remedy}.") from error


def setting_of_training_memory(method: FineTuning) -> str:
    """The setting that lowers the memory of a training step of a method."""
    if method.whole_batches:  # its batches can't be divided
        return "training.batch_size in config.yaml"
    return "training.micro_batch_size in config.yaml"
