"""What a failed job or command says: the problem and its remedy."""

import contextlib
import errno
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rib.base.errors import PermanentError, UserError
from rib.base.progress import print_lines
from rib.base.text import redacted
from rib.jobs.gpu_lock import gigabytes_of_other_processes, problem_of_driver

# What helps when a GPU runs out of memory, whatever the job does.
OTHER_REMEDIES = "lower compute.jobs_per_gpu in config.yaml if it is above 1, or use a larger GPU"

# A rule whose jobs have no batches.
IMAGE_BY_IMAGE = "compute_fisher"

# In errors that torch does not raise as its OutOfMemoryError: of memory that CUDA pins on the host,
# or takes for itself, and of a library's workspace.
OF_CUDA = "CUDA error: out of memory"
OF_CUBLAS = "CUBLAS_STATUS_ALLOC_FAILED"
CUDA_ERROR = "CUDA error: "  # begins torch's messages about a GPU that has failed
# Gigabytes of a GPU that other processes must hold to be to blame. CUDA itself takes about half.
FEWEST_GIGABYTES_OF_OTHERS = 1.0

# torch writes this after the name of an operator that it refuses to compute.
NONDETERMINISTIC = " does not have a deterministic implementation"
NO_PERMISSION = "you may not write or read there; change its permissions"
# Why a path cannot be written, and what to do, by error number.
UNWRITABLE = {
    errno.ENOSPC: "no space is left on the disk, or it takes no more files (`df -i`); free some",
    errno.EDQUOT: "your quota on the disk is used up; free some space",
    errno.EFBIG: (
        "the file is larger than the disk or the limit of your shell (`ulimit -f`) allows; raise "
        "the limit or use another disk"
    ),
    errno.EROFS: "the folder is read-only; make it writable",
    errno.EACCES: NO_PERMISSION,
    errno.EPERM: NO_PERMISSION,
    errno.ELOOP: "the link leads back to itself; delete it",
}


@contextlib.contextmanager
def errors_as_sentences() -> Iterator[None]:
    """In the block, an error that the user can correct ends the process with one sentence.

    These are UserError, and paths that cannot be written. Other errors pass through.

    Raises:
        SystemExit: with status 1, after the sentence is on standard error.
    """
    try:
        yield
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else message_of_os_error(error)
        if message is None:
            raise
        print_lines(redacted(message), file=sys.stderr)
        raise SystemExit(1) from None


def message_of(error: Exception, rule: str, log_file: str) -> str:
    """Message for the user about an error in a job; an unexpected one names the log."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "out of memory; run fewer jobs at once (--cores) or lower the batch size in "
            "config.yaml."
        )
    message = message_of_os_error(error)
    if message is not None:
        return message
    if is_out_of_gpu_memory(error):
        # Trainings give a more precise message (rib.training.gpu_memory).
        remedies = OTHER_REMEDIES
        if rule != IMAGE_BY_IMAGE:
            remedies = f"lower compute.evaluation_batch_size in config.yaml, {OTHER_REMEDIES}"
        return str(lack_of_gpu_memory(error, "", remedies))
    if CUDA_ERROR in str(error):
        problem = problem_of_driver()
        if problem is not None:
            return (
                f"the GPU failed ({str(error).splitlines()[0]}), and {problem}: restart the "
                "machine or use another, and run again; finished results are kept."
            )
    operator, is_of_operator, _ = str(error).partition(NONDETERMINISTIC)
    if is_of_operator:  # torch's error
        return (
            f"the network needs {operator}, for which CUDA has no deterministic algorithm; set "
            "compute.deterministic to warn in config.yaml, after which a training gives other "
            "numbers each time, or compute.device to cpu."
        )
    return f"{type(error).__name__}: {error} (the full report is in {log_file})"


def is_permanent(error: Exception) -> bool:
    """Whether the same job would fail with the same error again; a retry then stops at once.

    False if the machine is to blame, such as a full disk or a lost file system.
    """
    if isinstance(error, PermanentError) or NONDETERMINISTIC in str(error):
        return True
    if not is_out_of_gpu_memory(error):
        return False
    return isinstance(lack_of_gpu_memory(error, "", OTHER_REMEDIES), PermanentError)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether CUDA lacks memory: of the GPU, or memory that it pins on the host."""
    # By name, because importing torch is slow.
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and (OF_CUDA in str(error) or OF_CUBLAS in str(error))


def lack_of_gpu_memory(error: BaseException, activity: str, remedies: str) -> UserError:
    """The error to raise in place of one that `is_out_of_gpu_memory`.

    It is permanent unless other processes hold much of the GPU, which they may give back.

    Args:
        error: torch's.
        activity: such as ` while training net/ft`.
        remedies: what the user may do, such as `lower jobs_per_gpu`.
    """
    memory = "GPU memory"
    if OF_CUDA in str(error):
        memory = "GPU memory, or of host memory that CUDA pins"
    gigabytes = gigabytes_of_other_processes()
    if gigabytes >= FEWEST_GIGABYTES_OF_OTHERS:
        return UserError(
            f"out of {memory}{activity}: other processes hold {gigabytes:.1f} GB of this GPU "
            f"(nvidia-smi shows them); wait for their end or use another GPU, or {remedies}."
        )
    return PermanentError(f"out of {memory}{activity}; {remedies}.")


def message_of_os_error(error: BaseException) -> str | None:
    """Message for the user about a path that cannot be written; None for other errors."""
    number = _error_number(error)
    if number not in UNWRITABLE:
        return None
    return f"{_path_of(error)}: {UNWRITABLE[number]}, and run again; finished results are kept."


def _path_of(error: BaseException) -> str:
    """The path in an error, or the working folder; `a or b` for a move or link from a to b."""
    path = getattr(error, "filename", None) or Path.cwd()
    destination = getattr(error, "filename2", None)
    if destination:
        return f"{path} or {destination}"
    return str(path)


def _error_number(error: BaseException) -> int | None:
    """The system's error number, such as errno.ENOSPC; None for errors of other kinds."""
    if isinstance(error, OSError):
        return error.errno
    # The class belongs to a Rust library that is not imported here.
    if type(error).__name__ == "SafetensorError":
        match = re.search(r"\(os error ([0-9]+)\)", str(error))
        if match:
            return int(match[1])
    return None
