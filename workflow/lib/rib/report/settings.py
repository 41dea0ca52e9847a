"""Settings of the stages that report a run. No torch, pandas or plots: rules import this module."""

from pathlib import Path
from typing import Any, Literal

from rib.base.settings import FreeSettings, Settings, Texts
from rib.evaluation.settings import NetworkSettings
from rib.statistics.settings import GridTableSettings

Entries = Literal["models", "methods", "datasets", "sweeps"]  # those of a `GridDescription`


class PaperRow(Settings):
    """A figure or table of the paper, and how far it is confirmed; a row of paper_map.csv."""

    of_paper: str  # for example `figure 1`
    shows: str
    state: str  # how far it could be confirmed


class PaperSettings(Settings):
    """What stands for the figures and tables of the paper, and links to the files."""

    rows: list[PaperRow]
    files: dict[str, list[str]]  # links by `of_paper`; none if this run makes none
    family: str  # name of the family
    title: str  # of the family
    limits: str | None  # what the family cannot show
    conditions: list[str]  # on which the numbers depend
    code: str  # digest of the code that lists them


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
    can_fit: bool  # whether a run that doesn't fit its training images is underfitted
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
    accuracy_on_target: str  # in words, such as `fit of the training images`
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


class ExportSettings(NetworkSettings):
    """What an export and its model card depend on, besides their input files."""

    published: FreeSettings  # `weights` of the model's entry
    label_names: list[str] | None  # of the network's outputs; None for ImageNet's
    metrics: GridTableSettings  # how accuracies and RI of the card are computed
    tables: Texts  # names of the tables that are computed
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


class FinishedShare(Settings):
    """How many runs of a model, a method or a target are finished."""

    subject: str  # for example `model ResNet-50`
    finished: int
    runs: int


class PreviewDescription(Settings):
    """How far a grid is whose page is a preview."""

    finished: int  # number of runs
    runs: int  # number of all runs
    counts: list[FinishedShare]
    targets: str  # labels of the targets over which means are
    other_settings: list[str]  # runs whose training was recorded with other settings
    left_out: dict[str, str]  # reasons, by the name of what a full run shows


class ShownTable(Settings):
    """A table of the page."""

    path: Path  # CSV file
    link: str  # from the folder of the page
    title: str
    question: str  # key of rib.config.analysis.QUESTIONS
    note: str
    open: bool  # whether it is unfolded at first
    columns: list[dict[str, Any]]  # fields of rib.config.analysis.Column


class ShownFigure(Settings):
    """A figure of the page."""

    path: Path  # PNG file
    link: str  # from the folder of the page, without ending
    question: str  # key of rib.config.analysis.QUESTIONS
    caption: str  # reStructuredText


class Look(Settings):
    """How points of a method look."""

    colour: str  # #rrggbb
    marker: str  # Matplotlib's


class PageSettings(Settings):
    """What a page shows, besides the contents of its files."""

    about: GridDescription
    tables: dict[str, ShownTable]  # by name, in the order of the page
    figures: dict[str, ShownFigure]
    files: dict[str, list[str]]  # links to further files, by title
    fit: Path  # table of the fits of runs
    prepared: dict[str, Path]  # manifests of datasets by label; one that exists lists lost images
    looks: dict[str, Look]  # of methods, for the interactive views
    # Of each method that averages its parent's weights with the pretrained ones: the parent, and
    # the coefficient of its weights.
    averages: dict[str, str]
    coefficients: dict[str, float]
    upstream: list[str]  # paths of the records of jobs behind the page that are no inputs
    partial: PreviewDescription | None = None
    code: str  # digest of the code that writes the page
