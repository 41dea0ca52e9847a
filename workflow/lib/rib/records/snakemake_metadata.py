"""Snakemake's metadata of outputs, also of those that another machine made.

When a job has ended, Snakemake stores its settings and inputs for each output, and later runs the
job again if they differ. It publishes no way to do the same for files that were pulled. This module
calls private methods of its class FilePersistence, and is the only one that uses what Snakemake
doesn't publish. tests/workflow/test_snakemake_metadata.py compares it with the installed Snakemake.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

SAME_TIME = 1e-3  # seconds by which the times of one version of a file may differ


class Stored(NamedTuple):
    """What Snakemake has stored of an output."""

    settings: str  # text of the rule's parameter `cfg`, the only one that Snakemake compares
    inputs: list[str]  # sorted; a file that the job reads in two roles is there twice
    checksums: dict[str, str]  # SHA-256 of small inputs, by path
    ended: float  # time of the output when its job ended, in seconds since 1970


class SnakemakeMetadata:
    """Snakemake's metadata in the current folder."""

    def __init__(self) -> None:
        self._persistence = FilePersistence()

    def read(self, output: str) -> Stored | None:
        """What is stored of an output; None if nothing is."""
        record = self._persistence._read_record(output)
        if record is None or record.endtime is None or not record.params:
            return None
        checksums = {
            path: checksum.removeprefix("sha256:")
            for path, checksum in (record.input_checksums or {}).items()
        }
        return Stored(record.params[0], record.input or [], checksums, record.endtime)

    def is_of_this_version(self, output: str, stored: Stored) -> bool:
        """Whether an output is still the file that its job wrote, by its time."""
        return abs(stored.ended - os.lstat(output).st_mtime) < SAME_TIME

    def is_unfinished(self, output: str) -> bool:
        """Whether a job that makes this file has started but not ended."""
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
            output: path of the file, whose time of modification becomes `ended`.
            rule: name of the rule.
            settings: its parameter `cfg`.
            inputs: as Snakemake lists them, see `Stored`.
            checksums: SHA-256 of inputs, by path.
            log_file: path of the job's log.
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
