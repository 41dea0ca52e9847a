"""One job: a log file, a private folder to write in, and a provenance record.

A job writes to work/<digest of its settings and inputs>/. Its outputs are renamed to their declared
names only when all of them are complete, so a job that fails or is killed leaves no partial output.
That holds where they lie on another disk, too.
"""

import contextlib
import errno
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256 as new_sha256
from itertools import chain
from pathlib import Path

from filelock import Timeout

from rib.base.errors import UserError
from rib.base.files import read_json, sha256, write_json, write_text
from rib.base.locks import acquire
from rib.base.progress import log, log_lines
from rib.base.text import redacted
from rib.jobs.messages import message_of, message_of_os_error
from rib.jobs.parent_run import is_held
from rib.records import integrity, provenance
from rib.records.environment import surroundings

WORK = Path("work")  # contains the private folders
COPY = ".copy"  # ends the hidden name of an output that is being copied to another disk
MARK = "job"  # file in a private folder that identifies its job: the log file, then the outputs, one per line


@contextlib.contextmanager
def job(
    *,
    rule: str,
    name: str,
    cfg: Mapping,
    inputs: Mapping[str, str | Sequence[str]],
    outputs: Mapping[str, str],
    log_file: str,
    resumes: str | None = None,
) -> Iterator[dict[str, Path]]:
    """Run the body of a job, then publish its outputs, their manifest and their provenance record.

    Args:
        rule, name: the rule, and the job within the rule; for messages.
        cfg: everything that the result depends on, except the inputs; must survive a JSON round trip unchanged.
        outputs: paths of declared outputs by name. `manifest` and `provenance` are written here if declared.
        log_file: file for log lines, which also go to standard error.
        resumes: checkpoint file in the private folder. If it is not empty when the job fails or is stopped, the folder
            is kept until the job succeeds or starts with other settings.

    Yields:
        Where to write each output, by name.

    Raises:
        SystemExit: The body failed; the reason is on standard error and in the log.
    """
    started, clock, worked = datetime.now(UTC), time.monotonic(), _processor_seconds()
    with (
        _logging(Path(log_file), f"{rule} {name}".rstrip(), quiet=bool(outputs)),
        _stopped_by(signal.SIGTERM),
    ):
        try:
            if repr(json.loads(json.dumps(cfg))) != repr(cfg):
                raise ValueError(
                    f"cfg of rule {rule} contains values that JSON cannot represent (a tuple?): {cfg}"
                )
            checked = integrity.checked(_paths(inputs))
            hashes = {str(path): checked[path].sha256 for path in _paths(inputs)}
            # Differs between jobs, and between runs of a job with other settings or inputs.
            identity = new_sha256(
                repr((rule, name, sorted(outputs.items()), cfg, hashes)).encode()
            ).hexdigest()[:16]
            with private(identity, log_file, outputs, resumes) as staged:
                with _unless_exchanged(checked, WORK / identity / resumes if resumes else None):
                    yield staged
                record = {
                    **{"rule": rule, "job": name, "log": log_file, "cfg": cfg, "inputs": hashes},
                    "started": started.isoformat(timespec="seconds"),
                    "seconds": round(time.monotonic() - clock, 2),
                    "cpu_seconds": round(_processor_seconds() - worked, 2),
                    "peak_memory": _peak_memory(),
                }
                _publish(staged, outputs, record)
        except Exception as error:
            if not isinstance(error, UserError) and not message_of_os_error(error):
                log_lines(redacted(traceback.format_exc()))
            log.error("%s", redacted(message_of(error, rule, log_file)))
            raise SystemExit(1) from None
        made = f": {', '.join(outputs.values())}" if outputs else ""
        log.info("done in %.1f s%s", time.monotonic() - clock, made)


@contextlib.contextmanager
def _stopped_by(number: int) -> Iterator[None]:
    """Turn a signal into an exception, so that the process cleans up, and ignore further signals."""

    def stop(*_):
        for more in (signal.SIGINT, signal.SIGTERM):
            signal.signal(more, signal.SIG_IGN)
        sys.exit(128 + number)

    handler = signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, handler)


@contextlib.contextmanager
def private(
    name: str, log_file: str, outputs: Mapping[str, str], resumes: str | None
) -> Iterator[dict[str, Path]]:
    """Where a job writes its outputs: a private folder of this process, marked (MARK); see `job` for when it is kept.

    It is empty at first, unless the job may resume. A process of a killed run that still runs the same job is waited
    for, and stale folders of others (see `begun`) are removed.
    """
    folder, done = WORK / name, False
    shared = os.path.commonpath([Path(path).parent for path in outputs.values()]) if outputs else ""
    staged = {key: folder / Path(path).relative_to(shared) for key, path in outputs.items()}
    if len(set(staged.values())) != len(staged):
        raise ValueError(
            f"the outputs of a job must have different names: {sorted(outputs.values())}"
        )
    WORK.mkdir(exist_ok=True)
    try:
        lock = acquire(_lock(folder), timeout=0)
    except Timeout:
        log.info("a process of an earlier run is still running this job; waiting until it ends")
        lock = acquire(_lock(folder))
    try:
        if resumes is None:
            shutil.rmtree(folder, ignore_errors=True)
        for output_folder in {folder, *(path.parent for path in staged.values())}:
            output_folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / MARK, "\n".join([log_file, *outputs.values()]))
        sweep()
        yield staged
        done = True
    finally:
        if done or not (
            resumes and (folder / resumes).is_file() and (folder / resumes).stat().st_size
        ):
            shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _processor_seconds() -> float:
    """Processor time of this process and of those it waited for; os.times counts in ticks of 10 ms."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def _peak_memory() -> int:
    """Peak memory of this process in bytes; for a forked job this includes the memory inherited at the fork."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def sweep() -> None:
    """Remove stale private folders (see `begun`)."""
    for path in begun()[1]:
        shutil.rmtree(path, ignore_errors=True)
        _lock(path).unlink(missing_ok=True)


def begun() -> tuple[dict[Path, str], set[Path]]:
    """Private folders of jobs that have started but not ended: they are running, or were stopped and can resume.

    Returns:
        The log file of each job that makes files, by private folder; and the stale folders: their process is gone, and
        the same job has since finished or is running in another folder.
    """
    logs, working, over = {}, {}, set()
    for mark in sorted(WORK.glob(f"*/{MARK}")):
        with contextlib.suppress(FileNotFoundError):  # other jobs may end meanwhile
            log_file, *outputs = mark.read_text(encoding="utf-8").splitlines()
            if outputs:  # `status` and `plan` make none
                logs[mark.parent] = log_file
            if is_held(_lock(mark.parent)):
                working[mark.parent] = log_file
            elif all(map(os.path.exists, outputs)):
                over.add(mark.parent)
    over |= {
        path
        for path, log_file in logs.items()
        if path not in working and log_file in working.values()
    }
    return logs, over


def _lock(folder: Path) -> Path:
    """Lock file held by the process that writes to a private folder."""
    return folder.with_suffix(".lock")


def reason(log_file: Path) -> str | None:
    """The last error message in a job's log; None if there is none."""
    text = log_file.read_text(encoding="utf-8", errors="replace") if log_file.is_file() else ""
    return (
        re.split(r"^[\d:]{8} ERROR ", text, flags=re.MULTILINE)[-1].strip()
        if " ERROR " in text
        else None
    )


def _publish(staged: Mapping[str, Path], declared: Mapping[str, str], record: dict) -> None:
    """Move finished outputs to their declared names, the manifest after the files that it lists."""
    hashes = {}
    for name, path in staged.items():
        if name not in ("manifest", "provenance"):
            if not path.is_file():
                raise RuntimeError(f"the job did not write its output '{name}' ({path.name})")
            hashes[declared[name]] = sha256(path)
    if manifest := staged.get("manifest"):
        facts = read_json(manifest) if manifest.is_file() else {}
        write_json(
            manifest, {**facts, "files": {Path(path).name: made for path, made in hashes.items()}}
        )
        hashes[declared["manifest"]] = sha256(manifest)
    if "provenance" in staged:
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        sizes = {
            path: staged[name].stat().st_size for name, path in declared.items() if path in hashes
        }
        record = {**record, **surroundings(), "outputs": hashes, "sizes": sizes, "ended": ended}
        provenance.write(staged["provenance"], record)
    in_order = sorted(staged, key=lambda name: (name == "manifest", name == "provenance"))
    _rename({staged[name]: Path(declared[name]) for name in in_order})


def _rename(targets: Mapping[Path, Path]) -> None:
    """Rename finished files, in the given order; they get their names whole or not at all.

    `work/` and the results may lie on different disks, between which nothing can be renamed. The
    files are then copied beside their targets first, all of them before the first is renamed.

    Raises an OSError that names the target if it cannot be written.
    """
    to_rename = dict(targets)
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            break
        del to_rename[source]
    copies = {}
    for source, target in to_rename.items():
        copies[source] = target.with_name(f".{target.name}{COPY}")
    try:
        for source, copy in copies.items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, copy)
        for source, copy in copies.items():
            os.replace(copy, to_rename[source])
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file with its times, a link as a link; raises an OSError that names the copy."""
    copy.unlink(missing_ok=True)  # a job that was killed may have left a part of it
    try:
        shutil.copy2(source, copy, follow_symlinks=False)  # archives are links to the user's
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(copy)) from error


def _paths(inputs: Mapping[str, str | Sequence[str]]) -> list[Path]:
    """Paths of all inputs, sorted, each once."""
    given = [[value] if isinstance(value, str) else value for value in inputs.values()]
    return sorted(set(map(Path, chain.from_iterable(given))), key=str)


@contextlib.contextmanager
def _unless_exchanged(
    files: Mapping[Path, integrity.CheckedFile], state: Path | None
) -> Iterator[None]:
    """Raise a UserError at the end of the body, however that ends, if one of the files was exchanged meanwhile.

    Args:
        files: what the body reads, as it was before.
        state: file from which the job would resume. It is then removed, since other bytes may be in it.
    """
    try:
        yield
    finally:
        try:
            integrity.refuse_exchanged(files)
        except UserError:
            if state:
                state.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _logging(path: Path, prefix: str, quiet: bool) -> Iterator[None]:
    """Write log lines to a file, and those from INFO (from WARNING if quiet) to standard error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file, to_screen = (
            logging.FileHandler(path, mode="w", encoding="utf-8"),
            logging.StreamHandler(sys.stderr),
        )
    except OSError as error:
        sys.exit(f"{prefix}: {message_of_os_error(error) or error}")
    to_file.handleError = lambda record: None  # the job itself reports a full disk
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    to_screen.setFormatter(logging.Formatter(f"{prefix}: %(message)s"))
    to_screen.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers[:] = [to_file, to_screen]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        for output in log.handlers:
            output.close()
        log.handlers.clear()
