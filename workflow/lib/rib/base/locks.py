"""Locks on files, which the kernel releases whenever and however their process ends."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from rib.base.errors import UserError

FOREVER = -1  # timeout
# Errors where the file system has no locks: of NFS without its lock service, of FUSE, of Lustre
# without `flock`.
WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
# Errors where something else lies at the place of the file: a link, a folder, a socket.
NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}


def acquire(path: Path, timeout: float = FOREVER) -> FileLock:
    """Lock a file, which is created if it is missing.

    The lock is held until it is released or this process ends.

    Args:
        path: the file.
        timeout: seconds to wait while another process holds the lock.

    Raises:
        Timeout: another process still holds it.
        UserError: the file system has no locks, or no plain file lies at the path.
        OSError: the file cannot be written.
    """
    # In place of a lock, filelock would write a marker, which stays when a process is killed.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:  # an OSError too
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
    """Hold the lock of a file in a `with` block.

    It is waited for without limit. Raises as `acquire`.
    """
    lock = acquire(path)
    try:
        yield
    finally:
        lock.release()
