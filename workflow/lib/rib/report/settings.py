"""Settings of the stages that report a run. No torch, pandas or plots: rules import this module."""

from pathlib import Path
from typing import Any, Literal

from rib.base.settings import FreeSettings, Settings
from rib.evaluation.settings import NetworkSettings

Entries = Literal["models", "methods", "datasets", "sweeps"]  # those of a `GridDescription`


class PublicationSettings(Settings):
    """Where files of a grid are, and where they are published."""

    source: Path  # folder with what was made of the grid
    folder: Path  # below reports/, where the copies will be
    grids: Path  # folder with the folders of all grids, of which `source` is one
    code: str  # digest of the code that publishes


class PaperRow(Settings):
    """A figure or table of the paper, and how far it is confirmed; a row of paper_map.csv."""

    of_paper: str  # for example `figure 1`
    shows: str
    state: str  # how far it could be confirmed


class PaperSettings(Settings):
    """What stands for the figures and tables of the paper, and where it is published."""

    rows: list[PaperRow]
    files: dict[str, list[str]]  # file names by `of_paper`; none if this run makes none
    family: str  # name of the family
    title: str  # of the family
    limits: str | None  # what the family cannot show
    conditions: list[str]  # on which the numbers depend
    folder: Path  # below reports/, where the copies will be
    grids: Path  # folder with the folders of all grids
    code: str  # digest of the code that copies and lists


class FamilyDescription(Settings):
    """What a page says about the family of the datasets."""

    title: str
    description: str
    limits: str | None  # what the family cannot show


class DatasetDescription(Settings):
    """What a page says about an evaluated dataset."""

    label: str
    licence: str
    origin: str


class ReadDatasetDescription(DatasetDescription):
    """What a model card says about a dataset that is read, be it evaluated or the reference."""

    publishable: bool  # whether its images may be shown
    tuning: dict[str, Any] | None  # terms for weights that were trained on it


class ModelDescription(Settings):
    """What a page says about a pretrained model."""

    label: str
    architecture: str
    pretraining: str  # pretraining data
    licence: str
    record: str | None  # name of the published weights, if they have one


class MethodDescription(Settings):
    """What a page says about a method."""

    label: str
    settings: dict[str, Any]
    source: str  # publication
    can_fit: bool  # whether a run that doesn't fit its training images is unfinished
    reference: str  # whether the reference dataset is trained on: `no`, or how


class SweepDescription(Settings):
    """A method that was run with several settings, of which one is chosen."""

    label: str
    variants: list[str]  # names of methods


class GridDescription(Settings):
    """What pages and model cards say about the choices of a run."""

    config: dict[str, Any]  # all choices, resolved
    config_file: dict[str, Any]  # a config.yaml that gives the same run
    family: FamilyDescription
    targets: list[str]
    ood: list[str]  # names of the out-of-distribution datasets
    sizes: list[str]  # training subsets
    shown_size: str  # that of the figures
    conditions: list[str]  # on which the numbers depend
    datasets: dict[str, DatasetDescription]  # evaluated ones
    read: dict[str, ReadDatasetDescription]  # evaluated ones and the reference
    models: dict[str, ModelDescription]
    methods: dict[str, MethodDescription]
    fit_threshold: float | None  # accuracy from which a training is finished, 0 to 1; None for no
    sweeps: dict[str, SweepDescription]  # those of which a variant is chosen
    source_groups: dict[str, str]  # by dataset; those of a group share source images
    sharing_targets: list[str]  # whose source images other evaluated datasets show, too

    @property
    def confidence(self) -> float:
        """Coverage of confidence intervals, 0 to 1."""
        confidence: float = self.config["statistics"]["confidence"]
        return confidence

    def labels(self, entries: Entries) -> dict[str, str]:
        """Labels of all entries of a kind, by name and in the order of the run."""
        return {name: entry.label for name, entry in getattr(self, entries).items()}


class CardDescription(Settings):
    """What a model card says about the choices of a run."""

    family: FamilyDescription
    ood: list[str]  # names of the out-of-distribution datasets
    datasets: dict[str, DatasetDescription]  # evaluated ones
    read: dict[str, ReadDatasetDescription]  # evaluated ones and the reference
    models: dict[str, ModelDescription]
    methods: dict[str, MethodDescription]
    method_settings: dict[str, dict[str, Any]]  # by method
    reference: str | None  # name of the reference dataset
    confidence: float  # coverage of intervals, 0 to 1
    training: dict[str, dict[str, Any]]  # how the run and its parents are trained, by method


class ExportSettings(NetworkSettings):
    """What an export depends on, besides its input files."""

    published: FreeSettings | None  # `weights` of the model's entry
    label_names: list[str] | None  # of the network's outputs; None for ImageNet's
    card: CardDescription


class FinishedShare(Settings):
    """How many runs of a model, a method or a target are finished."""

    subject: str  # for example `model ResNet-50`
    finished: int
    runs: int


class PreviewDescription(Settings):
    """How far a grid is whose page is a preview."""

    finished: int  # number of runs
    runs: int  # number of all runs
    outdated: int  # runs that have rows, but would be made again
    counts: list[FinishedShare]
    targets: str  # labels of the targets over which means are
    left_out: dict[str, str]  # reasons, by the name of what a full run shows

    @property
    def note(self) -> str:
        """What each table and figure of the preview says of it."""
        return f"PREVIEW of {self.finished} of {self.runs} runs; means over {self.targets}"


class PreviewSettings(Settings):
    """What a preview is of: the runs that were finished when it was called.

    Runs have the names that `str(run)` gives.
    """

    finished: list[str]  # runs that have their own accuracies and RI
    compared: list[str]  # those of them that means and comparisons are of
    selectable: list[str]  # those of them among which a variant of a sweep may be chosen
    too_slow: list[str]  # rules, figures and outputs that are left out, since they take too long
    expected: list[str]  # analyses and figures that a full run has
    description: PreviewDescription  # without what is left out, which is known later
    # Whether all jobs were tried. What is not made then has failed, and the page does without.
    all_were_tried: bool = False


class PreviewJobSettings(Settings):
    """How `snakemake preview` starts Snakemake once more."""

    preview: PreviewSettings
    folder: Path  # where the preview is written; an earlier one is removed
    logs: Path  # folder of the logs of its jobs
    config: dict[str, Any]  # that of this call, for a file config.yaml
    linked: list[Path]  # folders and files of the project that jobs read
    command: list[str]  # of Snakemake, without what depends on the folder in which it is called


class PageSettings(Settings):
    """What a page shows, besides the contents of its files."""

    about: GridDescription
    analyses: list[str]  # names of the analyses' tables, in the order of their files
    more_files: dict[str, list[str]]  # names of further files beside the tables, by title
    prepared: dict[str, Path]  # manifests of datasets by label; one that exists lists lost images
    questions: dict[str, str]  # question of each figure (rib.report.questions)
    colours: dict[str, str]  # of methods, #rrggbb, for the interactive views
    # Of each method that averages its parent's weights with the pretrained ones: the parent, and
    # the coefficient of its weights.
    averages: dict[str, str]
    coefficients: dict[str, float]
    upstream: list[str]  # paths of the records of jobs behind the page that are no inputs
    partial: PreviewDescription | None = None
    code: str  # digest of the code that writes the page
