"""Settings of the stages that report a run, for rules. No torch, pandas or plots."""

from pathlib import Path
from typing import Any, Literal

from rib.base.params import FreeSettings, Settings, Texts
from rib.evaluation.evaluation_settings import NetworkSettings
from rib.statistics.statistics_settings import GridTableSettings

Entries = Literal["models", "methods", "datasets", "read", "sweeps"]  # fields of `GridDescription`


class PaperRow(Settings):
    """A figure or table of the paper, from a row of paper_map.csv."""

    of_paper: str  # for example `figure 1`
    shows: str
    state: str  # how far it could be confirmed


class PaperSettings(Settings):
    """Counterparts of the paper's figures and tables, with links to files."""

    rows: list[PaperRow]
    files: dict[str, list[str]]  # links by `of_paper`; empty if this run makes no file
    family: str  # name of the family
    title: str  # of the family
    limits: str | None  # conclusions that the family doesn't allow
    conditions: list[str]  # on which the numbers depend
    code: str  # digest of the code that writes the list


class FamilyDescription(Settings):
    """A family of datasets, as pages introduce it."""

    title: str
    description: str
    limits: str | None  # conclusions that the family doesn't allow


class DatasetDescription(Settings):
    """An evaluated dataset, as pages credit it."""

    label: str
    licence: str
    origin: str


class ReadDatasetDescription(DatasetDescription):
    """A dataset that jobs read: evaluated, pretraining proxy, or for pretraining here."""

    publishable: bool  # whether its images may be shown
    tuning: dict[str, Any] | None  # terms for weights that were trained on it


class ModelDescription(Settings):
    """A pretrained model, as pages credit it."""

    label: str
    architecture: str
    pretraining: str  # pretraining data
    licence: str
    record: str | None  # library's or hub's name of the published weights, if they have one


class MethodDescription(Settings):
    """A fine-tuning method, as pages show it."""

    label: str
    settings: dict[str, Any]
    source: str  # publication
    can_fit: bool  # whether runs that don't fit their training images count as underfitted
    reference: str  # `no`, or how the pretraining proxy is used


class SweepDescription(Settings):
    """A method that was run with several settings, one of which is chosen."""

    label: str
    variants: list[str]  # names of variants


class GridDescription(Settings):
    """The choices of a run, as pages and model cards show them."""

    config: dict[str, Any]  # all keys, with `default` and `all` resolved
    config_file: dict[str, Any]  # content of a config.yaml that gives the same run
    family: FamilyDescription
    targets: list[str]  # out of distribution
    ood: list[str]  # names of datasets that count in RI
    sizes: list[str]  # training subsets
    shown_size: str  # the size in figures
    conditions: list[str]  # on which the numbers depend
    accuracy_on_target: str  # axis label, such as `fit of the training images`
    datasets: dict[str, DatasetDescription]  # evaluated ones
    read: dict[str, ReadDatasetDescription]  # all that jobs read
    models: dict[str, ModelDescription]
    methods: dict[str, MethodDescription]
    fit_threshold: float | None  # a lower fit (0 to 1) is marked underfitted; None marks none
    sweeps: dict[str, SweepDescription]  # only sweeps with a chosen variant
    source_groups: dict[str, str]  # by dataset; datasets of one group share source images
    id_targets: Texts = ()  # in distribution; no mean over targets has them
    sharing_targets: list[str]  # whose source images are also in other evaluated datasets

    @property
    def confidence(self) -> float:
        """Coverage of confidence intervals, 0 to 1."""
        confidence: float = self.config["statistics"]["confidence"]
        return confidence

    def labels(self, entries: Entries) -> dict[str, str]:
        """Labels of all models, methods, datasets or sweeps, by name and in the run's order."""
        return {name: entry.label for name, entry in getattr(self, entries).items()}


class ExportSettings(NetworkSettings):
    """Inputs of an export and its model card besides files."""

    published: FreeSettings  # `weights` of the model's entry
    label_names: list[str] | None  # of the network's outputs; None for ImageNet's
    metrics: GridTableSettings  # for computing the card's accuracies and RI
    tables: Texts  # names of the tables to compute
    family: FamilyDescription
    ood: list[str]  # names of the out-of-distribution datasets
    datasets: dict[str, DatasetDescription]  # evaluated ones
    read: dict[str, ReadDatasetDescription]  # all that jobs read
    models: dict[str, ModelDescription]
    methods: dict[str, MethodDescription]
    method_settings: dict[str, dict[str, Any]]  # by method
    reference: str | None  # dataset with the pretraining proxy
    confidence: float  # coverage of intervals, 0 to 1
    training: dict[str, dict[str, Any]]  # settings of the run and its parents, by method


class FinishedShare(Settings):
    """Number of finished runs of a model, a method or a target."""

    subject: str  # for example `model ResNet-50`
    finished: int
    runs: int


class PreviewDescription(Settings):
    """Progress of the grid behind a preview."""

    finished: int  # number of runs
    runs: int  # number of all runs
    counts: list[FinishedShare]
    targets: str  # labels of the targets in means
    other_settings: list[str]  # runs whose training was recorded with other settings
    left_out: dict[str, str]  # reasons by the name of a missing table or figure


class ShownTable(Settings):
    """A table that the page reads from a CSV file."""

    path: Path  # CSV file
    link: str  # from the folder of the page
    title: str
    question: str  # key of rib.schema.analysis.QUESTIONS
    note: str
    open: bool  # whether it is unfolded at first
    columns: list[dict[str, Any]]  # fields of rib.schema.analysis.Column


class ShownFigure(Settings):
    """A figure that the page includes."""

    path: Path  # PNG file
    link: str  # from the folder of the page, without ending
    question: str  # key of rib.schema.analysis.QUESTIONS
    caption: str  # reStructuredText


class Look(Settings):
    """Colour and marker of a method."""

    colour: str  # #rrggbb
    marker: str  # Matplotlib's


class PageSettings(Settings):
    """Everything that a page shows, except the contents of its files."""

    about: GridDescription
    tables: dict[str, ShownTable]  # by name, in the order of the page
    figures: dict[str, ShownFigure]
    files: dict[str, list[str]]  # links to further files, by title
    fits: list[Path]  # tables of the fits of runs
    prepared: dict[str, Path]  # manifests by label of the dataset; one may be missing
    looks: dict[str, Look]  # of methods, for the interactive views
    # Parent of each method that averages its parent's weights with the pretrained ones, such as
    # {"half": "ft"}, and the parent's coefficient, such as {"half": 0.5}.
    averages: dict[str, str]
    coefficients: dict[str, float]
    upstream: list[str]  # paths of records of jobs behind the page that are not inputs
    partial: PreviewDescription | None = None
    code: str  # digest of the code that writes the page
