"""Messages for lack of GPU memory, which name the setting that helps."""

from collections.abc import Iterator
from contextlib import contextmanager

from rib.jobs.messages import OTHER_REMEDIES, is_out_of_gpu_memory, lack_of_gpu_memory
from rib.methods.base import Contrastive, FineTuning
from rib.schema.run import Run


@contextmanager
def explained_lack_of_memory(phase: str, run: Run, setting: str | None) -> Iterator[None]:
    """Turn torch's error for lack of GPU memory into a message with a remedy.

    Args:
        phase: what the body does, such as `training`.
        setting: setting that lowers this phase's memory, such as `training.micro_batch_size in
            config.yaml`; None if there is none.

    Raises:
        UserError: the GPU has too little memory. It is a PermanentError unless other processes hold
            much of it.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_gpu_memory(error):
            raise
        remedies = f"lower {setting}, {OTHER_REMEDIES}" if setting else OTHER_REMEDIES
        raise lack_of_gpu_memory(error, f" while {phase} {run}", remedies) from error


def setting_of_training_memory(method: FineTuning) -> str:
    """The setting that lowers the memory of a method's training steps, for messages."""
    if isinstance(method, Contrastive) and method.normalises_by_batch(method.model):
        return "training.batch_size in config.yaml"
    return "training.micro_batch_size in config.yaml"
