"""Remove tables and figures that an earlier config of the same name left in the report."""

from collections.abc import Iterable
from pathlib import Path

from rib.records import provenance


def remove_other_files(report: Path, files: Iterable[Path]) -> None:
    """Remove tables and figures of jobs for another config, with their records.

    Users' files and the folders of analyses on demand stay.

    Args:
        report: folder with tables/ and figures/, such as reports/fashion.
        files: tables and figures of the present config.
    """
    present = set(files)
    for folder in ("tables", "figures"):
        for path in sorted(report.glob(f"{folder}/*{provenance.ENDING}")):
            record = provenance.read(path)
            if record is None:
                continue
            outputs = {Path(output) for output in record["outputs"]}
            for output in outputs - present:
                output.unlink(missing_ok=True)
            if not outputs & present:
                path.unlink()
