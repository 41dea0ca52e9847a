"""Adoption of outputs that came by `dvc pull` or `dvc checkout`, at the start of a run.

Snakemake holds no record of them and their times are those of the copying, so it would make them again. Where their
hashes agree with the gathered provenance records, Snakemake's own record and the time of their making are restored;
the run then has nothing to do. This file is the only one that touches Snakemake's private interface (persistence);
tests/workflow/test_sharing.py pins what it relies on.
"""

import os
import sys
from collections.abc import Mapping
from datetime import datetime
from zlib import crc32

from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

from rib import provenance

LONG_AGO = 1.0  # seconds since 1970; Snakemake takes 0 for no time at all


class SnakemakeRecords:
    """What Snakemake noted about outputs, in the current folder."""

    def __init__(self):
        self._store = FilePersistence()
        self._running = any(self._store._read_locks())

    def knows(self, path: str) -> bool:
        """Whether Snakemake made or adopted this very file, or is at work on it in another process."""
        record = self._store._read_record(path)
        if record is not None and abs(record.endtime - os.lstat(path).st_mtime) < 1e-3:
            return True
        return self._running and self.is_unfinished(path)

    def is_unfinished(self, path: str) -> bool:
        """Whether a job that makes this file was started and has not ended."""
        return bool(self._store._filter_incomplete_keys([path]))

    def adopt(self, path: str, made: Mapping, stale: bool) -> None:
        """Note an output as if its job had run here and had ended when its provenance record says.

        Args:
            path: the output.
            made: its job's record.
            stale: whether its inputs here are not the recorded ones; it then counts as older than any input, which
                makes Snakemake compare their checksums, and re-run the job.
        """
        ended = LONG_AGO if stale else datetime.fromisoformat(made["ended"]).timestamp()
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
        self._store._write_record(path, record)
        self._store._unmark_incomplete(path)
        os.utime(path, (ended, ended), follow_symlinks=False)


def adopt_pulled() -> None:
    """Adopt what came by DVC, saying how much it was.

    Raises:
        UserError: a file is not what the records say.
    """
    gathered = provenance.load()
    if not gathered:
        return
    records = SnakemakeRecords()
    pulled = provenance.match(gathered, records.knows, records.is_unfinished)
    stale = provenance.made_from_others(gathered) if pulled else set()
    for path, record in pulled.items():
        for output in [*record["outputs"], path]:
            records.adopt(output, record, path in stale)
    if pulled:
        print(f"Adopted the outputs of {len(pulled)} jobs, which agree with their records.", file=sys.stderr)
