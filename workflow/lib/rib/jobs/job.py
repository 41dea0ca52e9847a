"""One job: a log file, a private folder to write in, and a provenance record.

A job writes to work/<digest of its settings and inputs>/. Its outputs move to their declared names
only when all are complete: a job that fails or is killed leaves no partial output, even if the
outputs are on another disk.
"""

import contextlib
import errno
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rib.base.errors import PermanentError, UserError
from rib.base.files import read_json, sha256, write_json, write_text
from rib.base.locks import acquire
from rib.base.progress import log, log_lines
from rib.base.text import redacted
from rib.jobs.messages import is_permanent, message_of, message_of_os_error
from rib.records import integrity, provenance
from rib.records.environment import surroundings
from rib.records.hashing import remember_hash, signature

WORK = Path("work")  # private folders are in here
COPY = ".copy"  # suffix of an output while it is copied to another disk
# File that identifies the job of a private folder: log file, then outputs, one per line.
MARK = "job"
# File with the message of a permanent error, which a retry repeats.
FAILURE = "failure.txt"
# Outputs that state hashes of the other outputs, and are therefore published last.
PROVENANCE = "provenance"
MANIFEST = "manifest"


class Interruption(SystemExit):
    """A signal, such as Ctrl-C's, has asked the job to end. Its code is a shell's, such as 130."""


@contextlib.contextmanager
def job(
    *,
    rule: str,
    name: str,
    cfg: Mapping[str, Any],
    inputs: Mapping[str, str | Sequence[str]],
    outputs: Mapping[str, str],
    log_file: str,
    resumes: str | None = None,
    attempt: int = 1,
) -> Iterator[dict[str, Path]]:
    """Run the body of a job, then publish its outputs, manifest and provenance record.

    Args:
        rule: for messages and the record.
        name: identifies the job within the rule, such as `net/noto/ft`.
        cfg: everything except inputs that the result depends on; must survive a JSON round trip
            unchanged.
        inputs: one or several paths by name, such as `{"datasets": ["data/a.json",
            "data/b.json"]}`.
        outputs: declared paths by name, such as `{"weights": "results/emoji/weights.pt"}`. This
            function writes `manifest` and `provenance` if declared.
        log_file: file for log lines, which also go to standard error.
        resumes: name of a checkpoint file in the private folder. If this file is not empty when the
            job fails or is stopped, the folder stays until the job succeeds or starts with other
            settings.
        attempt: how often this call of Snakemake has started the job, from 1. A retry fails at once
            if the last attempt had a permanent error.

    Yields:
        The path to write each output to, by name: `{"weights": Path("work/3f2a.../weights.pt")}`.

    Raises:
        SystemExit: the body failed or was interrupted; standard error and the log say which, and
            why.
    """
    started = datetime.now(UTC)
    seconds_at_start = time.monotonic()
    cpu_seconds_at_start = _processor_seconds()
    prefix = f"{rule} {name}".rstrip()
    folder_name = None
    with (
        _logging(Path(log_file), prefix, quiet=bool(outputs)),
        _stopped_by(signal.SIGINT),
        _stopped_by(signal.SIGTERM),
    ):
        try:
            _check_survives_json(cfg, rule)
            paths = _paths(inputs)
            files_read = integrity.checked(paths)
            hashes = {str(path): files_read[path].sha256 for path in paths}
            folder_name = _folder_name(rule, name, cfg, hashes, outputs)
            failure = WORK / folder_name / FAILURE
            if attempt > 1 and failure.is_file():
                raise PermanentError(failure.read_text(encoding="utf-8"))
            failure.unlink(missing_ok=True)  # a new call of Snakemake tries again
            state = WORK / folder_name / resumes if resumes else None
            with private(folder_name, log_file, outputs, resumes) as staged:
                with _refusing_exchanged_inputs(files_read, state):
                    yield staged
                record = {
                    "rule": rule,
                    "job": name,
                    "log": log_file,
                    "cfg": cfg,
                    "inputs": hashes,
                    "started": started.isoformat(timespec="seconds"),
                    "seconds": round(time.monotonic() - seconds_at_start, 2),
                    "cpu_seconds": round(_processor_seconds() - cpu_seconds_at_start, 2),
                    "peak_memory": _peak_memory(),
                }
                _publish(staged, outputs, record)
        except Exception as error:
            is_explained = isinstance(error, UserError) or message_of_os_error(error)
            if not is_explained:
                log_lines(redacted(traceback.format_exc()))
            message = redacted(message_of(error, rule, log_file))
            log.error("%s", message)
            if folder_name is not None and is_permanent(error):
                folder = WORK / folder_name
                with contextlib.suppress(OSError):  # without the file a retry computes again
                    _mark(folder, log_file, outputs)
                    write_text(folder / FAILURE, message)
            raise SystemExit(1) from None
        except Interruption:
            if folder_name is not None and _can_resume(WORK / folder_name, resumes):
                log.warning("interrupted, no error; the next call goes on from the saved state")
            else:
                log.warning("interrupted, no error; the next call starts this job again")
            raise
        list_of_outputs = f": {', '.join(outputs.values())}" if outputs else ""
        log.info("done in %.1f s%s", time.monotonic() - seconds_at_start, list_of_outputs)


def _check_survives_json(cfg: Mapping[str, Any], rule: str) -> None:
    """A ValueError if JSON would change the settings: a tuple would become a list."""
    # The record stores the settings as JSON, and Snakemake compares them as text.
    if repr(json.loads(json.dumps(cfg))) != repr(cfg):
        raise ValueError(
            f"cfg of rule {rule} contains values that JSON cannot represent (a tuple?): {cfg}"
        )


def _folder_name(
    rule: str,
    name: str,
    cfg: Mapping[str, Any],
    hashes: Mapping[str, str],
    outputs: Mapping[str, str],
) -> str:
    """16 hex digits of settings and inputs, so that a changed job resumes no old state."""
    identity = (rule, name, sorted(outputs.items()), cfg, hashes)
    return new_sha256(repr(identity).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _stopped_by(signal_number: int) -> Iterator[None]:
    """In the block, the signal raises Interruption, so that private files are removed."""

    def stop(*_: object) -> None:
        # A second signal must not interrupt the cleaning.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Interruption(128 + signal_number)  # as in shells

    handler_before = signal.signal(signal_number, stop)
    try:
        yield
    finally:
        signal.signal(signal_number, handler_before)


@contextlib.contextmanager
def private(
    name: str, log_file: str, outputs: Mapping[str, str], resumes: str | None
) -> Iterator[dict[str, Path]]:
    """A private folder of this process, in which a job writes its outputs.

    The folder is empty unless the job may resume, and kept afterwards only in this case. This waits
    for a killed run's process that still runs the job, and removes stale folders.

    Args:
        name: of the folder.
        log_file, outputs: of the job, whose paths a file in the folder lists; outputs by name.
        resumes: name of a checkpoint file in the folder; the folder stays if this file is not
            empty.

    Yields:
        Paths in the folder by name of the output, such as `{"weights":
            Path("work/3f2a.../weights.pt")}`.
    """
    folder = WORK / name
    staged = _staged_outputs(folder, outputs)
    WORK.mkdir(exist_ok=True)
    lock = _lock_folder(folder)
    succeeded = False
    try:
        if resumes is None:
            shutil.rmtree(folder, ignore_errors=True)
        for output_folder in {folder, *(path.parent for path in staged.values())}:
            output_folder.mkdir(parents=True, exist_ok=True)
        _mark(folder, log_file, outputs)
        remove_stale_folders()
        yield staged
        succeeded = True
    finally:
        if succeeded or not _can_resume(folder, resumes):
            shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _mark(folder: Path, log_file: str, outputs: Mapping[str, str]) -> None:
    """Write the file that names the folder's job; without it, nothing would remove the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARK, "\n".join([log_file, *outputs.values()]))


def _staged_outputs(folder: Path, outputs: Mapping[str, str]) -> dict[str, Path]:
    """Paths of outputs in the private folder, by name; subfolders keep equal file names apart."""
    if not outputs:
        return {}
    # results/a/x.png and results/b/x.png become <folder>/a/x.png and <folder>/b/x.png.
    common_folder = os.path.commonpath([Path(path).parent for path in outputs.values()])
    staged = {}
    for name, path in outputs.items():
        staged[name] = folder / Path(path).relative_to(common_folder)
    if len(set(staged.values())) != len(staged):
        raise ValueError(
            f"the outputs of a job must have different names: {sorted(outputs.values())}"
        )
    return staged


def _lock_folder(folder: Path) -> FileLock:
    """Lock the folder; waits while a process of an earlier run still works in it."""
    try:
        return acquire(_lock_file(folder), timeout=0)
    except Timeout:
        log.info("a process of an earlier run is still running this job; waiting until it ends")
        return acquire(_lock_file(folder))


def _can_resume(folder: Path, resumes: str | None) -> bool:
    """Whether the folder has a checkpoint file `resumes` that is not empty, from which to go on."""
    if not resumes:
        return False
    state = folder / resumes
    return state.is_file() and state.stat().st_size > 0


def _processor_seconds() -> float:
    """For the record: processor time of this process and of child processes that ended."""
    seconds = 0.0  # not from os.times, which has ticks of 10 ms
    for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(processes)
        seconds += usage.ru_utime + usage.ru_stime
    return seconds


def _peak_memory() -> int:
    """For the record: largest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def remove_stale_folders() -> None:
    """Remove private folders that no job needs any more.

    A folder is stale if its process is gone, and the same job has since finished or is running in
    another folder. Other folders belong to jobs that are running, can resume, or had a permanent
    error.
    """
    for folder in _stale_folders():
        shutil.rmtree(folder, ignore_errors=True)
        _lock_file(folder).unlink(missing_ok=True)


def _stale_folders() -> set[Path]:
    """Folders whose process is gone, and whose job has finished or runs in another folder."""
    logs = {}
    running_folders = set()
    logs_of_running = set()
    stale_folders = set()
    for mark in sorted(WORK.glob(f"*/{MARK}")):
        folder = mark.parent
        with contextlib.suppress(FileNotFoundError):  # another job may end and remove its folder
            log_file, *outputs = mark.read_text(encoding="utf-8").splitlines()
            logs[folder] = log_file
            if _is_running(folder):
                running_folders.add(folder)
                logs_of_running.add(log_file)
            elif all(map(os.path.exists, outputs)):
                stale_folders.add(folder)
    # A job has the same log file in all of its folders.
    for folder, log_file in logs.items():
        runs_elsewhere = log_file in logs_of_running
        if folder not in running_folders and runs_elsewhere:
            stale_folders.add(folder)
    return stale_folders


def _is_running(folder: Path) -> bool:
    """Whether a process works in the folder: a killed one leaves a lock file that is not locked."""
    if not _lock_file(folder).exists():
        return False
    try:
        acquire(_lock_file(folder), timeout=0).release()
    except Timeout:
        return True
    return False


def _lock_file(folder: Path) -> Path:
    """Lock file of a private folder: `work/3f2a....lock`."""
    return folder.with_suffix(".lock")


def _publish(
    staged: Mapping[str, Path], declared: Mapping[str, str], record: dict[str, Any]
) -> None:
    """Complete manifest and record, and move all outputs to their declared paths."""
    # Record and manifest state hashes of the other outputs, so they are written and moved last.
    names = [name for name in staged if name not in (PROVENANCE, MANIFEST)]
    names_of_last = [name for name in (PROVENANCE, MANIFEST) if name in staged]
    hashes = {}  # SHA-256 by declared path
    signatures_when_hashed = {}  # by output name
    for name in names:
        path = staged[name]
        if not path.is_file():
            raise RuntimeError(f"the job did not write its output '{name}' ({path.name})")
        # Taken before hashing, to notice a change meanwhile.
        signatures_when_hashed[name] = signature(path)
        hashes[declared[name]] = sha256(path)
    if MANIFEST in staged:
        _complete_manifest(staged[MANIFEST], hashes)
        hashes[declared[MANIFEST]] = sha256(staged[MANIFEST])
    if PROVENANCE in staged:
        sizes = {
            declared_path: staged[name].stat().st_size
            for name, declared_path in declared.items()
            if declared_path in hashes
        }
        provenance.write(staged[PROVENANCE], _complete_record(record, hashes, sizes))
    _rename({staged[name]: Path(declared[name]) for name in [*names, *names_of_last]})
    for name in names:
        path = Path(declared[name])
        remember_hash(path, hashes[declared[name]], signatures_when_hashed[name])


def _complete_record(
    record: Mapping[str, Any], hashes: Mapping[str, str], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Adds facts known only at the end; `hashes` and `sizes` (bytes) are by declared path."""
    ended = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {**record, **surroundings(), "outputs": hashes, "sizes": sizes, "ended": ended}


def _complete_manifest(manifest: Path, hashes: Mapping[str, str]) -> None:
    """Adds {"files": {"weights.safetensors": "<64 hex digits>"}} to facts that the job wrote."""
    facts = read_json(manifest) if manifest.is_file() else {}
    hashes_by_name = {Path(path).name: digest for path, digest in hashes.items()}
    write_json(manifest, {**facts, "files": hashes_by_name})


def _rename(targets: Mapping[Path, Path]) -> None:
    """Move files to their targets, each whole or not at all; an OSError names the target."""
    remaining = dict(targets)
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(source, target)
        except OSError as error:
            is_on_other_disk = error.errno == errno.EXDEV
            if not is_on_other_disk:
                raise
            break
        del remaining[source]
    # Nothing can be renamed between disks, so copy all files beside their targets before the first
    # gets its name.
    copies = {}
    for source, target in remaining.items():
        copies[source] = target.with_name(f".{target.name}{COPY}")
    try:
        for source, copy in copies.items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, copy)
        for source, copy in copies.items():
            os.replace(copy, remaining[source])
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file; an OSError names the copy, since the user must make room there."""
    copy.unlink(missing_ok=True)  # a killed job may have left a part
    try:
        # An archive may be a link to the user's file.
        shutil.copy2(source, copy, follow_symlinks=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(copy)) from error


def _paths(inputs: Mapping[str, str | Sequence[str]]) -> list[Path]:
    """Input files, each once: {"a": "y.csv", "b": ["x.csv", "y.csv"]} gives x.csv and y.csv."""
    paths = set()
    for path_or_paths in inputs.values():
        if isinstance(path_or_paths, str):
            paths.add(Path(path_or_paths))
        else:
            paths.update(map(Path, path_or_paths))
    return sorted(paths, key=str)


@contextlib.contextmanager
def _refusing_exchanged_inputs(
    files: Mapping[Path, integrity.CheckedFile], saved_state: Path | None
) -> Iterator[None]:
    """A `with` block that ends in a UserError if an input was changed meanwhile."""
    try:
        yield
    finally:
        # The body may have read new bytes, but the job's record would state a hash of the old ones.
        # Check also after a failure or stop: new bytes may be the reason, or may be in the saved
        # state.
        try:
            integrity.refuse_exchanged(files)
        except UserError:
            # The job must not resume from a state computed from new bytes.
            if saved_state:
                saved_state.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _logging(path: Path, prefix: str, quiet: bool) -> Iterator[None]:
    """Log to a file, and to standard error after `prefix`, there only warnings if `quiet`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    except OSError as error:
        sys.exit(f"{prefix}: {message_of_os_error(error) or error}")
    # A subclass would have only this method.
    to_file.handleError = _ignore_error  # type: ignore[method-assign]
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    to_screen = logging.StreamHandler(sys.stderr)
    to_screen.setFormatter(logging.Formatter(f"{prefix}: %(message)s"))
    to_screen.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers[:] = [to_file, to_screen]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers.clear()


def _ignore_error(record: logging.LogRecord) -> None:
    """Ignore that a line can't be logged: the job itself reports a full disk."""
