"""Settings of the stages that share, check and accept results. Rules import this module."""

from pathlib import Path
from typing import Any

from rib.base.settings import Settings


class DescribedDataset(Settings):
    """What a description of a prepared dataset says about it, besides its files."""

    folder: str  # with a folder for each size and crop of its images
    label: str
    family: str  # description of its family
    licence: str
    origin: str  # author of the images
    url: str  # of a page about the images


class TrackSettings(Settings):
    """What `snakemake track` adds to DVC."""

    units: list[str]  # patterns of folders and files, each of which gets a .dvc file
    report: Path  # folder of the published tables and figures
    # by name, the datasets whose images may be passed on, which are described for machines
    described: dict[str, DescribedDataset]


class PullSettings(Settings):
    """What `snakemake pull` gets from DVC's storage."""

    wanted: list[str]  # folders and files; everything that is tracked if empty


class VerifySettings(Settings):
    """What `snakemake verify` checks."""

    records: list[str]  # paths of the records of the grid's jobs
    folders: list[str]  # jobs with files in them are checked, too
    log_file: str  # which lists all differences


class ChangedJob(Settings):
    """A finished job of which only the code has changed."""

    code: str  # current digest of its code
    kind: str  # jobs of one kind run the same code
    model: str  # empty if the job is of no model


class MirrorSettings(Settings):
    """A copy of the project in which a sample of jobs is re-run."""

    catalog_folders: list[str]  # the user's catalogue folders
    output_folders: list[str]  # folders with outputs of jobs
    config: dict[str, Any]  # the whole configuration, including the command line
    options: list[str]  # Snakemake's options for cores and GPUs


class AcceptSettings(Settings):
    """Which results `snakemake accept` keeps, and how it checks them."""

    changes: dict[str, ChangedJob]  # by path of the job's record
    mirror: MirrorSettings
