"""Whether files are what the manifests and records beside them say. No torch.

A job watches small manifests and trusts them for the big files that they list, so it looks again before it reads those:
what was edited or damaged since is named, and nothing is built on it. The hash of a big file is remembered with its size
and times, so that the next job that reads it need not; `snakemake verify` believes none of that.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Lock

from rib import provenance
from rib.io import CHUNK, Progress, UserError, read_json

MANIFEST = "manifest.json"
MEMORY = Path("work/checked")
REMEMBERED = 16 << 20  # bytes from which hashing takes longer than looking up (about 12 ms)
SETTLED = 2.0  # seconds after which a further change of a file shows in its times, coarse as some systems' are


def files_of(manifest: Path) -> dict[Path, str]:
    """Files that a manifest lists, with their hashes, those of the manifests that it lists included."""
    facts = read_json(manifest)
    found = {manifest.with_name(name): digest for name, digest in facts.get("files", {}).items()}
    for entry in facts["datasets"].values() if "order" in facts else ():  # rib.data.suites
        listed = Path(entry["manifest"])
        found |= {listed: entry["sha256"]} | (files_of(listed) if listed.is_file() else {})
    return found


def expected(inputs: Iterable[Path]) -> dict[Path, str]:
    """Hashes of a job's inputs, and of all that they list, as far as a record or a manifest says what they are."""
    inputs = list(inputs)
    made: dict[str, str] = {}
    for folder in dict.fromkeys(path.parent for path in inputs):
        for record in filter(None, map(provenance.read, folder.glob(f"*{provenance.ENDING}"))):
            made |= record["outputs"]
    found = {path: made[str(path)] for path in inputs if str(path) in made}
    for path in inputs:
        if path.name.endswith(MANIFEST) and path.is_file():
            found |= files_of(path)
    return found


def refuse_changed(inputs: Iterable[Path]) -> None:
    """Stop before anything is built on inputs that are not what was made.

    Args:
        inputs: a job's; what the manifests among them list is looked at too.

    Raises:
        UserError: one was edited or damaged after it was made.
    """
    listed = {path: digest for path, digest in expected(inputs).items() if path.is_file()}
    found = hashes(listed, "checking inputs", remembered_hash)
    wrong = [str(path) for path, digest in listed.items() if found[path] != digest]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{wrong[0]}{more}: not what was made, by the manifest or record beside it; it was edited or damaged since. Get it "
            f"back with `dvc pull --force {' '.join(wrong[:5])}` where it is shared, or delete it to have it made anew."
        )


def hashes(
    files: Iterable[Path], what: str, hashed: Callable[[Path, Callable], str] | None = None
) -> dict[Path, str | None]:
    """SHA-256 of files, None of those that are missing; in threads, since hashing leaves Python alone.

    Args:
        files: paths; a link counts as what it points to.
        what: for the line of progress.
        hashed: takes a path and what to call with bytes done; None: every byte is read.
    """
    files = list(dict.fromkeys(files))
    total, lock = sum(path.stat().st_size for path in files if path.is_file()), Lock()
    with Progress(desc=what, total=total, unit="B") as progress, ThreadPoolExecutor() as pool:
        progress.unit_scale = True

        def count(number: int) -> None:
            with lock:
                progress.update(number)

        each = pool.map(lambda path: (hashed or read_hash)(path, count) if path.is_file() else None, files)
        return dict(zip(files, each, strict=True))


def read_hash(path: Path, count: Callable[[int], object]) -> str:
    """SHA-256 of a file's bytes, as hex."""
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            count(len(chunk))
    return digest.hexdigest()


def remembered_hash(path: Path, count: Callable[[int], object]) -> str:
    """SHA-256 of a file; of a big one that is, by size and times, as it was when last read, what it was then."""
    before = _signature(path)
    if before["size"] < REMEMBERED:
        return read_hash(path, count)
    note = MEMORY / f"{sha256(str(path).encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["signature"] == before:
            count(before["size"])
            return known["sha256"]
    digest = read_hash(path, count)
    if _signature(path) == before and time.time() - max(before["changed"], before["modified"]) / 1e9 > SETTLED:
        _remember(note, {"path": str(path), "signature": before, "sha256": digest})
    return digest


def _signature(path: Path) -> dict[str, int]:
    stat = path.stat()
    # The system sets the time of change at every write, whatever becomes of the time of modification.
    return {"size": stat.st_size, "modified": stat.st_mtime_ns, "changed": stat.st_ctime_ns, "inode": stat.st_ino}


def _remember(note: Path, facts: Mapping) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(f".{note.name}.{os.getpid()}.tmp")  # jobs that run at once read the same files
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    os.replace(temporary, note)
