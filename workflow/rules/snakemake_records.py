"""Snakemake's metadata of outputs and its locks, and registering outputs that were pulled with DVC or accepted.

Only this file uses Snakemake's private interface (persistence, file times); tests/workflow/test_sharing.py and
test_beside.py check the behaviour that it relies on.
"""

import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from zlib import crc32

from snakemake.io import Mtime, _IOFile
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

from rib.base.errors import UserError
from rib.jobs.parent_run import others
from rib.jobs.script import MONITORED

LONG_AGO = 1.0  # seconds since 1970; Snakemake treats 0 as no time


class SnakemakeRecords:
    """Snakemake's metadata of outputs in the current folder."""

    def __init__(self):
        self._store = FilePersistence()
        self.locked = any(self._store._read_locks())

    def knows(self, path: str) -> bool:
        """Whether Snakemake made or adopted this version of a file, or another process is making it."""
        return self.has_other_time(path) is False or (self.locked and self.is_unfinished(path))

    def has_other_time(self, path: str) -> bool | None:
        """Whether a file has another time than Snakemake recorded for it; None if it recorded none."""
        # Without Snakemake's check of all other entries, which takes as long as reading them.
        ended = self._store._io_read(self._store._metadata_path, path).get("endtime")
        return None if ended is None else abs(ended - os.lstat(path).st_mtime) >= 1e-3

    def is_unfinished(self, path: str) -> bool:
        """Whether a job that makes this file has started but not ended."""
        return bool(self._store._filter_incomplete_keys([path]))

    def unlock(self) -> None:
        """Remove the locks of a killed run."""
        shutil.rmtree(self._store._lockdir, ignore_errors=True)

    def adopt(self, path: str, made: Mapping, ended: float) -> None:
        """Register an output as if its job had run here, and ended at this time, in seconds since 1970."""
        record = MetadataRecord(
            rule=made["rule"],
            input=sorted(made["inputs"]),
            log=[made["log"]],
            params=[repr(made["cfg"])],
            record_format_version=RECORD_FORMAT_VERSION,
            job_hash=crc32(made["log"].encode()),
            starttime=ended - made["seconds"],
            endtime=ended,
            incomplete=False,
            input_checksums=made["inputs"],
        )
        self._keep(path, record)

    def _keep(self, path: str, record: MetadataRecord) -> None:
        self._store._write_record(path, record)
        self._store._unmark_incomplete(path)
        os.utime(path, (record.endtime, record.endtime), follow_symlinks=False)

    def accept(self, path: str, made: Mapping) -> None:
        """Register a job whose record, at `path`, was rewritten because its code changed but not its outputs."""
        for output in made["outputs"]:
            self.adopt(output, made, ended_at(made))
        # The record itself is new, so that jobs that read records are re-run.
        self.adopt(path, made, os.lstat(path).st_mtime)


class SeenRecords(SnakemakeRecords):
    """Metadata of outputs as after adoption, but only for this process; nothing is written."""

    def __init__(self):
        super().__init__()
        self.locked = self.locked and bool(others(locked=True))
        self._seen: dict[str, MetadataRecord] = {}

    def _keep(self, path: str, record: MetadataRecord) -> None:
        self._seen[path] = record

    def has_other_time(self, path: str) -> bool | None:
        return None if path in self._seen else super().has_other_time(path)

    def show(self) -> None:
        """Let Snakemake use this metadata and ignore locks, which only matter for writing."""
        seen = self._seen
        read, unfinished = FilePersistence._read_record, FilePersistence._filter_incomplete_keys
        time = _IOFile.mtime_uncached

        async def mtime_uncached(file, *arguments, **more):
            return (
                Mtime(local=seen[file].endtime)
                if file in seen
                else await time(file, *arguments, **more)
            )

        FilePersistence._read_record = lambda store, key: seen.get(key) or read(store, key)
        FilePersistence._filter_incomplete_keys = lambda store, keys: unfinished(
            store, set(keys) - seen.keys()
        )
        FilePersistence._read_locks = lambda store: ()
        _IOFile.mtime_uncached = mtime_uncached


def _delete_own_locks(store: FilePersistence) -> None:
    """Remove the locks of this run; Snakemake's own function would also remove those of other runs."""
    for path in store._lockfile.values():
        Path(path).unlink(missing_ok=True)
    store._lockfile.clear()


def _unlock_unless_at_work(store: FilePersistence) -> None:
    """Implementation of `snakemake --unlock`."""
    if alive := list(others(locked=True).values()):
        raise UserError(
            f"a run is active in this folder ({'; '.join(alive)}); its locks are kept. Stop it first."
        )
    shutil.rmtree(store._lockdir, ignore_errors=True)


def _inputs_of_results(store: FilePersistence, job) -> list[str]:
    """Inputs whose set is recorded and compared: what is only monitored may change without repeating a job."""
    inputs_of_results = list(_all_inputs(store, job))
    for name in MONITORED:
        files = job.input.get(name, ())
        for path in [files] if isinstance(files, str) else files:
            inputs_of_results.remove(path)
    return inputs_of_results


_all_inputs = FilePersistence._input
FilePersistence._input = _inputs_of_results
FilePersistence._delete_locks = _delete_own_locks
FilePersistence.cleanup_locks = _unlock_unless_at_work


def ended_at(made: Mapping) -> float:
    """End time of the job of a record, in seconds since 1970."""
    return datetime.fromisoformat(made["ended"]).timestamp()
