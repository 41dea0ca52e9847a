"""Settings of the stages that share and check results. Rules import this module."""

from pathlib import Path

from rib.base.settings import Settings


class TrackSettings(Settings):
    """What `snakemake track` adds to DVC."""

    units: list[str]  # patterns of folders and files, each of which gets a .dvc file
    report: Path  # folder of the published tables and figures


class PullSettings(Settings):
    """What `snakemake pull` gets from DVC's storage."""

    wanted: list[str]  # folders and files; everything that is tracked if empty


class VerifySettings(Settings):
    """What `snakemake verify` checks."""

    records: list[str]  # paths of the records of the grid's jobs
    folders: list[str]  # jobs with files in them are checked, too
    log_file: str  # which lists all differences
