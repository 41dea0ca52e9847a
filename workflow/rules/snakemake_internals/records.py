"""Snakemake's metadata of outputs, also of those that were pulled with DVC; its locks.

Snakemake has no interface for outputs that another machine made. So this writes and reads what
Snakemake's class `FilePersistence` does, by its private functions. tests/workflow/test_sharing.py,
test_beside.py and test_changed_results.py notice a change of these.
envs/requirements.in has the oldest version with this format.
"""

import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from zlib import crc32

from snakemake.io import Mtime, _IOFile
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

from rib.jobs.parent_run import other_active_runs

LONG_AGO = 1.0  # seconds since 1970; Snakemake treats 0 as no time
SAME_TIME = 1e-3  # seconds by which the times of one version of a file may differ


class SnakemakeRecords:
    """Snakemake's metadata of outputs in the current folder.

    Attributes:
        locked: whether a run has locked files of the folder, or one that was killed has left its
            locks.
    """

    def __init__(self):
        self._persistence = FilePersistence()
        self.locked = any(self._persistence._read_locks())

    def knows(self, path: str) -> bool:
        """Whether Snakemake made or adopted this version of a file, or is making it."""
        if self.has_other_time(path) is False:
            return True
        return self.locked and self.is_unfinished(path)

    def has_other_time(self, path: str) -> bool | None:
        """Whether a file has another time than Snakemake recorded; None if it recorded none."""
        # Not by `metadata`, which checks all entries of a record; that takes as long as reading
        # them.
        record = self._persistence._io_read(self._persistence._metadata_path, path)
        recorded_time = record.get("endtime")
        if recorded_time is None:
            return None
        return abs(recorded_time - os.lstat(path).st_mtime) >= SAME_TIME

    def is_unfinished(self, path: str) -> bool:
        """Whether a job that makes this file has started but not ended."""
        return bool(self._persistence._filter_incomplete_keys([path]))

    def unlock(self) -> None:
        """Remove the locks of a killed run."""
        shutil.rmtree(self._persistence._lockdir, ignore_errors=True)

    def adopt(self, path: str, job_record: Mapping, ended: float) -> None:
        """Register an output as if its job had run here.

        Args:
            path: the output, whose time of modification becomes `ended`.
            job_record: provenance record of the job.
            ended: when the job ended, in seconds since 1970.
        """
        metadata = MetadataRecord(
            rule=job_record["rule"],
            input=sorted(job_record["inputs"]),
            log=[job_record["log"]],
            params=[repr(job_record["cfg"])],  # each rule has its settings as its only parameter
            record_format_version=RECORD_FORMAT_VERSION,
            job_hash=crc32(job_record["log"].encode()),  # only the outputs of one job share it
            starttime=ended - job_record["seconds"],
            endtime=ended,
            incomplete=False,
            input_checksums=job_record["inputs"],
        )
        self._keep(path, metadata)

    def _keep(self, path: str, metadata: MetadataRecord) -> None:
        """Write metadata of an output, which is finished and gets the time of its job's end."""
        self._persistence._write_record(path, metadata)
        self._persistence._unmark_incomplete(path)
        os.utime(path, (metadata.endtime, metadata.endtime), follow_symlinks=False)


class SeenRecords(SnakemakeRecords):
    """Metadata of outputs as after adoption, but only for this process; nothing is written."""

    def __init__(self):
        super().__init__()
        self.locked = self.locked and bool(other_active_runs(files_are_locked=True))
        self._metadata: dict[str, MetadataRecord] = {}  # of adopted outputs, by path

    def _keep(self, path: str, metadata: MetadataRecord) -> None:
        """Keep metadata of an output in this process, and leave the file as it is."""
        self._metadata[path] = metadata

    def has_other_time(self, path: str) -> bool | None:
        """As in SnakemakeRecords; None for adopted outputs, whose time is not changed."""
        if path in self._metadata:
            return None
        return super().has_other_time(path)

    def apply_to_snakemake(self) -> None:
        """Replace functions of Snakemake, in this process, by ones that know the adopted files.

        For them it reads these records, takes them as complete, and takes the end of their job as
        the time of the file. Locks are ignored, since they only matter for writing.
        """
        adopted = self._metadata
        read_record = FilePersistence._read_record
        filter_incomplete = FilePersistence._filter_incomplete_keys
        time_of_file = _IOFile.mtime_uncached

        def read_adopted_record(persistence, path):
            """Metadata of an adopted file from here, of others as Snakemake reads it."""
            if path in adopted:
                return adopted[path]
            return read_record(persistence, path)

        def filter_incomplete_not_adopted(persistence, paths):
            """The incomplete ones of some files, of which adopted ones never are."""
            return filter_incomplete(persistence, set(paths) - adopted.keys())

        def read_no_locks(persistence):
            """No locks, whatever other runs have locked."""
            return ()

        async def time_of_adopted_file(file, *arguments, **options):
            """The end of its job as the time of an adopted file; that of others as it is."""
            if file in adopted:
                return Mtime(local=adopted[file].endtime)
            return await time_of_file(file, *arguments, **options)

        FilePersistence._read_record = read_adopted_record
        FilePersistence._filter_incomplete_keys = filter_incomplete_not_adopted
        FilePersistence._read_locks = read_no_locks
        _IOFile.mtime_uncached = time_of_adopted_file


def ended_at(job_record: Mapping) -> float:
    """When the job of a provenance record ended, in seconds since 1970."""
    return datetime.fromisoformat(job_record["ended"]).timestamp()
