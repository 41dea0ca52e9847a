"""One job: a log, a private folder to write in, and a record of what was made from what.

A job writes below work/<digest of its settings and inputs>/ and its outputs get their declared names only when
all of them are complete, by renaming; a job that fails or is killed leaves no half-written output.
"""

import contextlib
import errno
import importlib.metadata
import json
import logging
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256 as new_sha256
from pathlib import Path

from filelock import FileLock, Timeout

from rib import integrity
from rib.io import UserError, log, read_json, sha256, write_json, write_text
from rib.owner import is_held

# The libraries that results may depend on.
LIBRARIES = (
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "open_clip_torch",
    "peft",
    "pandas",
    "scipy",
    "pyarrow",
    "pillow",
    "scikit-image",
    "resvg_py",
    "matplotlib",
)


WORK = Path("work")  # of the private folders
MARK = "job"  # file in a private folder that tells whose it is: the job's log file, then its outputs, a line each


# What to lower, by stage, where a GPU's memory is too small.
MEMORY_SETTING = {
    "finetune": "training.micro_batch_size",
    "evaluate": "compute.evaluation_batch_size",
    "selection": "compute.evaluation_batch_size",
    "features": "compute.evaluation_batch_size",
    "inversions": "compute.evaluation_batch_size",
    "stir": "compute.evaluation_batch_size",
    "snapshots": "training.micro_batch_size",
    "epochs": "compute.evaluation_batch_size",
}


# What the system says of a place where nothing can be written, and what to do about it.
UNWRITABLE = {
    errno.ENOSPC: "no space is left on the disk; free some",
    errno.EDQUOT: "your quota on the disk is used up; free some space",
    errno.EROFS: "the folder is read-only; make it writable",
    errno.EACCES: "you may not write or read there; change its permissions",
    errno.EPERM: "you may not write or read there; change its permissions",
}


class Outputs:
    """Paths, inside the job's private folder, of the outputs that a rule declares, by name."""

    def __init__(self, folder: Path, declared: Mapping[str, str]):
        self.declared = {name: Path(path) for name, path in declared.items()}
        self._paths = {name: folder / path.name for name, path in self.declared.items()}
        if len(set(self._paths.values())) != len(self._paths):
            raise ValueError(
                f"outputs of one job need different file names: {sorted(map(str, self.declared.values()))}"
            )

    def __getitem__(self, name: str) -> Path:
        return self._paths[name]

    def items(self):
        return self._paths.items()


@contextlib.contextmanager
def job(
    *,
    stage: str,
    rule: str,
    name: str,
    cfg: Mapping,
    inputs: Mapping[str, object],
    outputs: Mapping[str, str],
    log_file: str,
    resumes: str | None = None,
) -> Iterator[Outputs]:
    """Run a job's body, then publish its outputs, their manifest and their provenance record.

    Args:
        stage: the stage's name.
        rule: the rule's name.
        name: which of the stage's jobs, for people.
        cfg: everything besides the inputs that the result depends on; made of what JSON has, so that the record
            gives it back unchanged.
        inputs: declared inputs by name: a path or a list of paths.
        outputs: declared outputs by name. `manifest` and `provenance`, where declared, are written here.
        log_file: where log lines go, besides standard error.
        resumes: the file in its private folder by which the body goes on where it was; where that holds something, the
            folder is kept when the job fails or is stopped, until it succeeds or is started with other settings.

    Yields:
        Where to write each output.

    Raises:
        SystemExit: the body failed; the reason is on standard error and in the log.
    """
    started, clock, worked = datetime.now(UTC), time.monotonic(), _processor_seconds()
    with _logging(Path(log_file), f"{stage} {name}".rstrip()), _stopped_by(signal.SIGTERM):
        try:
            if repr(json.loads(json.dumps(cfg))) != repr(cfg):
                raise ValueError(f"cfg of rule {rule} holds what JSON has no form for, a tuple for example: {cfg}")
            hashes = input_hashes(inputs)
            integrity.refuse_changed(map(Path, hashes))
            with _private(
                identity(stage, name, outputs, cfg, hashes), [log_file, *outputs.values()], resumes
            ) as folder:
                staged = Outputs(folder, outputs)
                yield staged
                times = {
                    "started": started.isoformat(timespec="seconds"),
                    "seconds": round(time.monotonic() - clock, 2),
                }
                times |= {"cpu_seconds": round(_processor_seconds() - worked, 2), "peak_memory": _peak_memory()}
                what = {"stage": stage, "rule": rule, "job": name, "log": log_file, "cfg": cfg, "inputs": hashes}
                _publish(staged, {**what, **times})
        except Exception as error:
            if not isinstance(error, UserError) and not _of_system(error):
                log.debug("%s", traceback.format_exc())
            log.error("%s", _sentence(error, stage, log_file))
            raise SystemExit(1) from None
        made = f": {', '.join(outputs.values())}" if outputs else ""
        log.info("done in %.1f s%s", time.monotonic() - clock, made)


@contextlib.contextmanager
def _stopped_by(number: int) -> Iterator[None]:
    """Let a signal end this process by an exception, so that it cleans up, undisturbed by more signals."""

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
def _private(name: str, mark: Sequence[str], resumes: str | None) -> Iterator[Path]:
    """A job's private folder, which this process alone writes in; see `job` for when it is kept."""
    folder, done = WORK / name, False
    with only_one(name):
        private_folder(folder, mark, keep=resumes is not None)
        try:
            yield folder
            done = True
        finally:
            if done or not _goes_on(folder, resumes):
                shutil.rmtree(folder, ignore_errors=True)


def _processor_seconds() -> float:
    """Processor time of this process and of the ones it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_memory() -> int:
    """Most bytes that this process had in memory at once; a job that was forked has what it was forked with."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _goes_on(folder: Path, resumes: str | None) -> bool:
    """Whether a job that ended early left something to go on with."""
    return resumes is not None and (folder / resumes).is_file() and (folder / resumes).stat().st_size > 0


def _sentence(error: Exception, stage: str, log_file: str) -> str:
    """What to tell the user of an error."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; run fewer jobs at once (--cores) or lower the batch size in config.yaml."
    if sentence := _of_system(error):
        return sentence
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which this module doesn't import
        setting = MEMORY_SETTING.get(stage, "the batch size")
        return f"out of GPU memory; lower {setting} in config.yaml, or jobs_per_gpu."
    return f"{type(error).__name__}: {error} (the full report is in {log_file})"


def _of_system(error: Exception) -> str | None:
    """What to tell the user of a place where nothing can be written, None of other errors."""
    if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
        return None
    return f"{error.filename or Path.cwd()}: {UNWRITABLE[error.errno]}, and run again; what was finished is kept."


def identity(stage: str, name: str, outputs: Mapping[str, str], cfg: Mapping, hashes: Mapping[str, str]) -> str:
    """What tells a job from every other, the same job with other settings or inputs included; see `job`."""
    return new_sha256(repr((stage, name, sorted(outputs.items()), cfg, hashes)).encode()).hexdigest()[:16]


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Wait for a process of a killed run that does the very same job still, until it has ended."""
    WORK.mkdir(exist_ok=True)
    lock = FileLock(_lock(WORK / name))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("a process of an earlier run is at this job still; waiting until it ends")
        lock.acquire()
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def private_folder(folder: Path, mark: Sequence[str], keep: bool) -> None:
    """Make a job's private folder, and take away what is left over, what the same job left with other settings included.

    Args:
        folder: the job's.
        mark: the job's log file, which no other has, and its outputs.
        keep: whether what is in the folder already is kept.
    """
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("\n".join(mark), encoding="utf-8")
    sweep(folder.parent)


def sweep(folder: Path = WORK) -> None:
    """Take away private folders that are left over (see `begun`)."""
    for path in begun(folder)[1]:
        shutil.rmtree(path, ignore_errors=True)
        _lock(path).unlink(missing_ok=True)


def begun(folder: Path = WORK) -> tuple[dict[Path, str], set[Path]]:
    """Private folders of jobs that were begun and have not ended: they are at work, or were stopped and can go on.

    Args:
        folder: of the private folders.

    Returns:
        The log file of each job; and the folders that are left over, of processes that are gone: the same job has finished
        since, or is at work in another folder.
    """
    logs, working, over = {}, {}, set()
    for mark in sorted(folder.glob(f"*/{MARK}")):
        with contextlib.suppress(FileNotFoundError):  # jobs end beside this one
            logs[mark.parent], *outputs = mark.read_text(encoding="utf-8").splitlines()
            if is_held(_lock(mark.parent)):
                working[mark.parent] = logs[mark.parent]
            elif outputs and all(map(os.path.exists, outputs)):
                over.add(mark.parent)
    over |= {path for path, log_file in logs.items() if path not in working and log_file in working.values()}
    return logs, over


def _lock(folder: Path) -> Path:
    """The file that the process which writes in a private folder has locked."""
    return folder.with_suffix(".lock")


def reason(log_file: Path) -> str | None:
    """The sentence by which a job that failed said why, in its log; None where it did not come to that."""
    text = log_file.read_text(encoding="utf-8", errors="replace") if log_file.is_file() else ""
    return re.split(r"^[\d:]{8} ERROR ", text, flags=re.MULTILINE)[-1].strip() if " ERROR " in text else None


def _publish(staged: Outputs, record: dict) -> None:
    """Give finished outputs their declared names, the watched manifest after the bytes it speaks for."""
    hashes = {}
    for name, path in staged.items():
        if name not in ("manifest", "provenance"):
            if not path.is_file():
                raise RuntimeError(f"the job did not write its output '{name}' ({path.name})")
            hashes[str(staged.declared[name])] = sha256(path)
    if "manifest" in staged.declared:
        manifest = staged["manifest"]
        facts = read_json(manifest) if manifest.is_file() else {}
        write_json(manifest, {**facts, "files": {Path(path).name: made for path, made in hashes.items()}})
        hashes[str(staged.declared["manifest"])] = sha256(manifest)
    if "provenance" in staged.declared:
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        size = sum(path.stat().st_size for _, path in staged.items() if path.is_file())
        record = {**record, "bytes": size, **surroundings(), "outputs": hashes, "ended": ended}
        # In the order given: Snakemake compares settings by their text, in which order counts.
        write_text(staged["provenance"], json.dumps(record, indent=1) + "\n")
    for name, path in sorted(staged.items(), key=lambda item: (item[0] == "manifest", item[0] == "provenance")):
        staged.declared[name].parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, staged.declared[name])


def input_hashes(inputs: Mapping[str, object]) -> dict[str, str]:
    """SHA-256 of every input, taken from the manifest beside a file where that lists it."""
    hashes = {}
    for value in inputs.values():
        for path in map(Path, [value] if isinstance(value, str | Path) else value):
            hashes[str(path)] = _listed_hash(path) or sha256(path)
    return dict(sorted(hashes.items()))


def _listed_hash(path: Path) -> str | None:
    for manifest in (
        path.with_name("manifest.json"),
        path.with_suffix(".manifest.json"),
        Path(f"{path}.manifest.json"),
    ):
        if manifest != path and manifest.is_file():
            return read_json(manifest).get("files", {}).get(path.name)
    return None


def surroundings() -> dict[str, object]:
    """What a job ran on: the project's commit, versions of libraries, and the machine."""
    machine = {"system": platform.platform(), "processor": processor(), "python": platform.python_version()}
    return {"commit": commit(), "versions": versions(), "machine": machine}


def commit() -> str | None:
    """The project's commit, with `-dirty` where tracked files differ from it; None outside a git checkout."""
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # A repository around the project's folder is not the project's.
    here = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path.cwd().parent)}
    try:
        return subprocess.run(describe, env=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of the installed libraries that results may depend on."""
    found = {}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def processor() -> str:
    """Model name of the processor; its instruction set is part of what makes bytes reproducible."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def _logging(path: Path, prefix: str) -> Iterator[None]:
    """Write log lines to a file, and those for people to standard error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file, to_screen = logging.FileHandler(path, mode="w"), logging.StreamHandler(sys.stderr)
    except OSError as error:
        sys.exit(f"{prefix}: {_of_system(error) or error}")
    to_file.handleError = lambda record: None  # a full disk is told of by the job itself
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    to_screen.setFormatter(logging.Formatter(f"{prefix}: %(message)s"))
    to_screen.setLevel(logging.INFO)
    log.handlers[:] = [to_file, to_screen]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        for output in log.handlers:
            output.close()
        log.handlers.clear()
