"""Read and write Snakemake's metadata of outputs, also for outputs from another machine.

Snakemake stores the settings and inputs of each output, and runs the job again if they change. It
has no public way to store them for pulled files. This module alone calls private methods (of
FilePersistence); tests/workflow/test_snakemake_metadata.py compares it with the installed
Snakemake.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

SAME_TIME = 1e-3  # seconds; tolerance of two times of the same file


class Stored(NamedTuple):
    """Snakemake's metadata of an output."""

    settings: str  # repr of the rule's parameter `cfg`, the only one that Snakemake compares
    inputs: list[str]  # sorted; a file with two roles in the job occurs twice
    checksums: dict[str, str]  # SHA-256 (hex) of small inputs by path
    ended: float  # the output's modification time when its job ended, in seconds since 1970


class SnakemakeMetadata:
    """Snakemake's metadata of outputs in the current folder."""

    def __init__(self) -> None:
        self._persistence = FilePersistence()

    def read(self, output: str) -> Stored | None:
        """Metadata of an output; None if Snakemake has none."""
        record = self._persistence._read_record(output)
        if record is None or record.endtime is None or not record.params:
            return None
        checksums = {
            path: checksum.removeprefix("sha256:")
            for path, checksum in (record.input_checksums or {}).items()
        }
        return Stored(record.params[0], record.input or [], checksums, record.endtime)

    def is_of_this_version(self, output: str, stored: Stored) -> bool:
        """Whether the output is still the one stored, by its modification time."""
        return abs(stored.ended - os.lstat(output).st_mtime) < SAME_TIME

    def is_unfinished(self, output: str) -> bool:
        """Whether a job started to write this file but has not ended."""
        return bool(self._persistence._filter_incomplete_keys([output]))

    def write(
        self,
        output: str,
        *,
        rule: str,
        settings: Mapping[str, Any],
        inputs: Sequence[str],
        checksums: Mapping[str, str],
        log_file: str,
        started: float,
        ended: float,
    ) -> None:
        """Store metadata of an output as if its job had run here.

        Args:
            output: path; the file's modification time becomes `ended`.
            rule, log_file: of the job.
            settings: the rule's parameter `cfg`.
            inputs: sorted paths; a file with two roles occurs twice.
            checksums: SHA-256 (hex) of inputs by path.
            started, ended: seconds since 1970.
        """
        record = MetadataRecord(
            rule=rule,
            input=list(inputs),
            log=[log_file],
            params=[repr(settings)],
            record_format_version=RECORD_FORMAT_VERSION,
            job_hash=crc32(log_file.encode()),  # only the outputs of one job share it
            starttime=started,
            endtime=ended,
            incomplete=False,
            input_checksums=dict(checksums),
        )
        self._persistence._write_record(output, record)
        self._persistence._unmark_incomplete(output)
        os.utime(output, (ended, ended), follow_symlinks=False)
