"""File locks, which the kernel releases however their process ends."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from rib.base.errors import UserError

FOREVER = -1  # timeout of filelock
# Errors of file systems without locks: NFS without its lock service, FUSE, Lustre without `flock`.
WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
# Errors if the path is a link, a folder or a socket.
NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}


def acquire(path: Path, timeout: float = FOREVER) -> FileLock:
    """Lock a file until the lock is released or this process ends.

    The file is created if missing.

    Args:
        timeout: seconds to wait while another process has the lock; -1 waits forever.

    Raises:
        Timeout: another process still has the lock.
        UserError: the file system has no locks, or the path is no plain file.
        OSError: the file cannot be written.
    """
    # Without this option filelock falls back to a marker file, which stays when a process is
    # killed.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:  # which is also an OSError
        raise
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            raise UserError(
                f"{path}: its file system has no file locks ({error.strerror}), by which runs and "
                "jobs know of each other; mount it with them (Lustre: -o flock), or use a folder "
                "on another disk."
            ) from error
        if error.errno in NO_FILE:
            raise UserError(
                f"{path} is a link, a folder or a socket where a lock should be; remove it."
            ) from error
        raise
    return lock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file for a `with` block, however long the wait; errors as in `acquire`."""
    lock = acquire(path)
    try:
        yield
    finally:
        lock.release()
