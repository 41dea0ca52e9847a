"""SHA-256 of files, cached for large ones.

The cache (work/checked) stores a hash with the file's size, times and inode: the next job need not
read the whole file. `rib verify` reads every file.
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
# Bytes from which hashing takes longer than waiting for SETTLED.
REMEMBERED_AT_ONCE = 2 << 30
# Coarsest resolution of file times, in seconds. A second change within this time might go
# unnoticed.
SETTLED = 2.0


def differing(expected: Mapping[Path, str], label: str, remember: bool = False) -> list[Path]:
    """Files that are missing or have another hash than expected.

    Args:
        expected: SHA-256 (hex) by path.
        label: text before the progress bar.
        remember: whether hashes of large unchanged files come from the cache.
    """
    current = hashes(expected, label, remember)
    return [path for path, digest in expected.items() if current[path] != digest]


def hashes(files: Iterable[Path], label: str, remember: bool = False) -> dict[Path, str | None]:
    """SHA-256 (hex) by path, None for missing files; links are followed.

    Args:
        label: text before the progress bar.
        remember: whether hashes of large unchanged files come from the cache.
    """
    hash_of = remembered_hash if remember else sha256
    paths = list(dict.fromkeys(files))
    total_size = sum(path.stat().st_size for path in paths if path.is_file())
    lock = Lock()
    with Progress(desc=label, total=total_size, unit="B") as progress, ThreadPoolExecutor() as pool:
        progress.unit_scale = True

        def count_bytes(number: int) -> None:
            """Show progress; several threads call this."""
            with lock:
                progress.update(number)

        def hash_if_present(path: Path) -> str | None:
            if not path.is_file():
                return None
            return hash_of(path, count_bytes)

        # Threads are enough: hashing releases the GIL.
        digests = pool.map(hash_if_present, paths)
        return dict(zip(paths, digests, strict=True))


def remembered_hash(path: Path, count_bytes: Callable[[int], object]) -> str:
    """SHA-256 (hex) of a file, from the cache if the file is large and unchanged.

    Args:
        count_bytes: called with numbers of bytes that are done, for progress.
    """
    signature_before = signature(path)
    size = signature_before["size"]
    if size < REMEMBERED:  # hashing is faster than the cache
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
    has_settled = time.time() - last_change > SETTLED  # a further change will show in its times
    if signature(path) == signature_before and has_settled:
        facts = {"path": str(path), "signature": signature_before, "sha256": digest}
        _write_note(note, facts)
    return digest


def remember_hash(path: Path, digest: str, signature_when_hashed: Mapping[str, int]) -> None:
    """Cache the hash of a very large output, which the next job then need not read.

    Waits until a second change would show in the file's times (at most SETTLED). Smaller files are
    not cached here. Errors of writing the cache are ignored: the job's work is done.

    Args:
        path: the output in its final place.
        digest: its SHA-256, computed in the job's private folder.
        signature_when_hashed: its signature before it was hashed there.
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
    # The age is negative if a file server's clock is ahead; do not wait longer for that.
    time.sleep(min(max(0.0, SETTLED - age), SETTLED))
    if signature(path) == signature_before:
        facts = {"path": str(path), "signature": signature_before, "sha256": digest}
        with contextlib.suppress(OSError):  # for example if the disk is full
            _write_note(_note_of(path), facts)


def _note_of(path: Path) -> Path:
    """File that remembers the hash of the file at `path`: work/checked/<16 hex digits>.json."""
    name_of_note = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return MEMORY / f"{name_of_note}.json"


def _write_note(note: Path, facts: Mapping[str, object]) -> None:
    """Cache a hash: `{"path": "a.npy", "signature": {"size": 2000, ...}, "sha256": "9f86..."}`."""
    note.parent.mkdir(parents=True, exist_ok=True)
    # The process id is in the name because concurrent jobs may write the same note.
    temporary = note.with_name(f".{note.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    os.replace(temporary, note)


def signature(path: Path) -> dict[str, int]:
    """Facts that change when a file changes, to notice a change without reading the file.

    Size in bytes, times in ns, inode. Links are followed.
    """
    stat = path.stat()
    return {
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        # Every write updates the change time, even if the modification time is reset.
        "changed": stat.st_ctime_ns,
        "inode": stat.st_ino,
    }
