"""Hashes of files, and comparison with the hashes in records and manifests.

The hash of a large file is cached with its size and times, so that the next job need not read the whole file.
`snakemake verify` does not use the cache.
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
REMEMBERED = 16 << 20  # bytes from which hashing takes longer than the cache lookup (about 12 ms)
SETTLED = 2.0  # seconds; coarsest resolution of file times, below which a second change could go unnoticed


def differing(expected: Mapping[Path, str], what: str, remember: bool = False) -> list[Path]:
    """Files that are missing or whose hash is not the expected one; see `hashes`."""
    found = hashes(expected, what, remember)
    return [path for path, digest in expected.items() if found[path] != digest]


def hashes(files: Iterable[Path], what: str, remember: bool = False) -> dict[Path, str | None]:
    """SHA-256 of files, None for missing ones; links are followed. In threads, since hashing releases the GIL.

    `what` labels the progress bar; with `remember`, large files with unchanged size and times are not read again.
    """
    hash_of = remembered_hash if remember else sha256
    files = list(dict.fromkeys(files))
    total, lock = sum(path.stat().st_size for path in files if path.is_file()), Lock()
    with Progress(desc=what, total=total, unit="B") as progress, ThreadPoolExecutor() as pool:
        progress.unit_scale = True

        def count(number: int) -> None:
            with lock:
                progress.update(number)

        each = pool.map(lambda path: hash_of(path, count) if path.is_file() else None, files)
        return dict(zip(files, each, strict=True))


def remembered_hash(path: Path, count: Callable[[int], object]) -> str:
    """SHA-256 of a file; a large file with unchanged size and times is not read again."""
    before = signature(path)
    if before["size"] < REMEMBERED:
        return sha256(path, count)
    note = MEMORY / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["signature"] == before:
            count(before["size"])
            return known["sha256"]
    digest = sha256(path, count)
    if (
        signature(path) == before
        and time.time() - max(before["changed"], before["modified"]) / 1e9 > SETTLED
    ):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(
            f".{note.name}.{os.getpid()}.tmp"
        )  # concurrent jobs read the same files
        facts = {"path": str(path), "signature": before, "sha256": digest}
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        os.replace(temporary, note)
    return digest


def signature(path: Path) -> dict[str, int]:
    """What of a file changes with its bytes, without reading them: size, times in ns, inode. Links are followed."""
    stat = path.stat()
    # Every write updates the change time, even if the modification time is reset.
    return {
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        "changed": stat.st_ctime_ns,
        "inode": stat.st_ino,
    }
