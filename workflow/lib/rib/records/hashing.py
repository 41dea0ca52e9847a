"""Hashes of files, and comparison with the hashes in records and manifests.

The hash of a large file is cached with its size and times, so that the next job need not read the
whole file. `rib verify` does not use the cache.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from rib.base.files import sha256
from rib.base.progress import Progress

MEMORY = Path("work/checked")
# Bytes from which hashing takes longer than the cache lookup (about 12 ms).
REMEMBERED = 16 << 20
# Bytes from which hashing takes longer than to wait until a file has settled.
REMEMBERED_AT_ONCE = 2 << 30
# Seconds; coarsest resolution of file times, below which a second change could go unnoticed.
SETTLED = 2.0


def differing(expected: Mapping[Path, str], label: str, remember: bool = False) -> list[Path]:
    """Files that are missing or whose hash is not the expected one.

    See `hashes` for `label` and `remember`.
    """
    current = hashes(expected, label, remember)
    return [path for path, digest in expected.items() if current[path] != digest]


def hashes(files: Iterable[Path], label: str, remember: bool = False) -> dict[Path, str | None]:
    """SHA-256 of files, None for missing ones; links are followed.

    The files are hashed in threads, since hashing releases the GIL.

    Args:
        label: text before the progress bar.
        remember: whether large files with unchanged size and times are not read again.
    """
    hash_of = remembered_hash if remember else sha256
    paths = list(dict.fromkeys(files))
    total_size = sum(path.stat().st_size for path in paths if path.is_file())
    lock = Lock()
    with Progress(desc=label, total=total_size, unit="B") as progress, ThreadPoolExecutor() as pool:
        progress.unit_scale = True

        def count_bytes(number: int) -> None:
            """Show on the progress bar that more bytes are hashed; called by several threads."""
            with lock:
                progress.update(number)

        def hash_if_present(path: Path) -> str | None:
            """SHA-256 of a file; None if it is missing."""
            if not path.is_file():
                return None
            return hash_of(path, count_bytes)

        digests = pool.map(hash_if_present, paths)
        return dict(zip(paths, digests, strict=True))


def remembered_hash(path: Path, count_bytes: Callable[[int], object]) -> str:
    """SHA-256 of a file; a large file with unchanged size and times is not read again.

    Args:
        path: the file.
        count_bytes: called with numbers of bytes that are done.
    """
    signature_before = signature(path)
    size = signature_before["size"]
    if size < REMEMBERED:
        return sha256(path, count_bytes)
    note = _note_of(path)
    with contextlib.suppress(OSError, ValueError, KeyError):
        remembered = json.loads(note.read_text(encoding="utf-8"))
        if remembered["signature"] == signature_before:
            count_bytes(size)
            digest_in_note: str = remembered["sha256"]
            return digest_in_note
    digest = sha256(path, count_bytes)
    last_change = max(signature_before["changed"], signature_before["modified"]) / 1e9
    has_settled = time.time() - last_change > SETTLED
    if signature(path) == signature_before and has_settled:
        facts = {"path": str(path), "signature": signature_before, "sha256": digest}
        _write_note(note, facts)
    return digest


def remember_hash(path: Path, digest: str, signature_when_hashed: Mapping[str, int]) -> None:
    """Remember the hash of a very large file that a job has made, so that no other job reads it.

    It waits until a second change would be noticed. Smaller files are left to the next job, as is a
    file of which nothing can be noted: the job has done its work.

    Args:
        path: the file, which was hashed where the job wrote it, and then moved here.
        digest: SHA-256 of its bytes.
        signature_when_hashed: its signature, taken before it was hashed.
    """
    if signature_when_hashed["size"] < REMEMBERED_AT_ONCE:
        return
    signature_before = signature(path)
    # Moving a file changes its change time, and its inode if it goes to another disk.
    for fact in ("size", "modified"):
        if signature_before[fact] != signature_when_hashed[fact]:
            return
    last_change = max(signature_before["changed"], signature_before["modified"]) / 1e9
    age = time.time() - last_change
    time.sleep(min(max(0.0, SETTLED - age), SETTLED))
    if signature(path) == signature_before:
        facts = {"path": str(path), "signature": signature_before, "sha256": digest}
        with contextlib.suppress(OSError):  # such as a full disk
            _write_note(_note_of(path), facts)


def _note_of(path: Path) -> Path:
    """The file in which the hash of another file is remembered."""
    name_of_note = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return MEMORY / f"{name_of_note}.json"


def _write_note(note: Path, facts: Mapping[str, object]) -> None:
    """Write what is remembered of a file; processes that write the same note don't disturb others.

    Args:
        note: JSON file, below MEMORY.
        facts: path, signature and hash of the file.
    """
    note.parent.mkdir(parents=True, exist_ok=True)
    # Of this process, since concurrent jobs read the same files.
    temporary = note.with_name(f".{note.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    os.replace(temporary, note)


def signature(path: Path) -> dict[str, int]:
    """Facts about a file that change with its bytes, without reading them.

    These are its size, times in ns and inode. Links are followed.
    """
    stat = path.stat()
    return {
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        # Every write updates the change time, even if the modification time is reset.
        "changed": stat.st_ctime_ns,
        "inode": stat.st_ino,
    }
