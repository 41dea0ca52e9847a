"""Entries of the catalogue, described in workflow/schemas with their defaults.

An attribute is None if the entry does not have the key.
"""

from dataclasses import dataclass, field
from typing import Any

from rib.config.run import LOADED, METHODS

# Forms of an algorithm: fine-tuning, here or elsewhere, or merging the weights of other methods.
FINETUNE = "finetune"
EXTERNAL = "external"
WEIGHTS = "weights"  # how much of the weights of each parent a merge has
CURVE = "curve"
SELECT = "select"
MERGES = (WEIGHTS, CURVE, SELECT, *LOADED)
EVALUATED = ("ood", "in_distribution")  # roles of datasets that are evaluated


@dataclass(frozen=True)
class Family:
    """Related datasets over one label space, and their default grid."""

    name: str
    title: str
    description: str
    classes: dict[str, Any]
    defaults: dict[str, Any]
    method_settings: dict[str, dict[str, Any]]
    recipes: dict[str, dict[str, dict[str, Any]]]
    can_fit: list[str]
    scores: list[str]  # those of which RI is computed besides that of accuracy
    one_image_per_class: bool
    classes_per_dataset: bool
    expects_gpu: bool
    crop_pct: float | None = None
    example_target: str | None = None
    limits: str | None = None
    fit_threshold: float | None = 0.95  # None marks no run
    # dataset for whose steps a part of a larger target is trained; None: for those of the whole
    subset_ceiling: str | None = None
    reference: str | dict[str, Any] | None = None


@dataclass(frozen=True)
class Parts:
    """The parts in which a dataset is evaluated, each by a job of its own.

    An image belongs to the part that has its level of a slice: with the column `corruption` and the
    levels {"noise": ("gaussian_noise", "shot_noise"), "blur": ("zoom_blur",)}, one with shot noise
    belongs to `noise`.
    """

    column: str  # of the dataset's index, with the slice
    levels: dict[str, tuple[str | int, ...]]  # by part


@dataclass(frozen=True)
class Dataset:
    """One dataset: source, layout and terms of use."""

    name: str
    family: str
    label: str
    # folder of data/raw with its archives: its own, or that of a dataset whose archives it shares
    raw: str
    # empty if they are files of the hub that no job of this run reads
    sources: tuple[dict[str, Any], ...]
    layout: str
    settings: dict[str, Any]
    evaluation_group: str
    licence: str
    origin: str
    role: str
    optional: bool
    adversarially_filtered: bool
    storage: str
    publishable: bool  # whether its images may be shown
    exclude: dict[str, Any]
    classes: dict[str, Any] | None = None
    images: int | None = None
    about_images: int | None = None
    variant_of: str | None = None
    tuning: dict[str, Any] | None = None
    source_group: str | None = None
    icons_file: str | None = None
    only_file: str | None = None
    never_target: str | None = None  # reason why it is only evaluated
    labels_checked: bool = False  # true keeps labels that a pretrained network contradicts
    real_labels: str | None = None
    relative_errors: str | None = None
    # whether we have fetched its archives; otherwise addresses, sizes and digests are others' word
    fetched: bool = True
    # Of repositories of the hub, once their files are known: those whose terms must be accepted,
    # and the licences that their uploaders state.
    gated_repositories: tuple[str, ...] = ()
    licences_on_hub: tuple[str, ...] = ()
    groups: str | None = None  # column of the index with the group of each image
    crop: str = "model"  # `none` if models see whole photos, whatever their own crop
    parts: Parts | None = None  # None if one job evaluates it

    @property
    def folders(self) -> list[str]:
        """The user's folders of images that its archives are packed from."""
        return [source["path"] for source in self.sources if source["kind"] == "folder"]


@dataclass(frozen=True)
class Model:
    """One pretrained model: the source of published weights, settings for training it, or both.

    A model with both was published by this project: `pretrain` is the recipe that made the weights.
    """

    name: str
    families: list[str]
    label: str
    type: str
    pretraining: str
    library: str
    architecture: str
    arguments: dict[str, Any]
    weights: dict[str, Any]
    preprocessing: dict[str, Any]
    licence: str
    head: str
    baseline: bool
    gated: bool
    record: str | None = None
    resized_by: str | None = None
    tokenizer: list[dict[str, Any]] = field(default_factory=list)
    # the grid's models have one (rib.config.model_names.with_styles)
    style: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    pretrain: dict[str, Any] | None = None
    parameters: int | None = None
    pretraining_images: int | None = None  # None if unknown, or if a recipe states its size
    group: str | None = None  # replicates have the same: they differ only in what chance decides

    @property
    def sources(self) -> tuple[dict[str, Any], ...]:
        return (self.source, *self.tokenizer) if self.source else ()

    @property
    def is_trained_here(self) -> bool:
        """Whether a run trains it from random weights, since it isn't published."""
        return self.source is None

    @property
    def stated_pretraining_images(self) -> int | None:
        """Number of pretraining images, as the entry or its recipe states it.

        None if it is not known: a recipe may take a fraction of a dataset, or all of it.
        """
        if self.pretraining_images is None and self.pretrain:
            size = self.pretrain["size"]
            return size if isinstance(size, int) else None
        return self.pretraining_images

    @property
    def raw(self) -> str:
        """Folder of data/raw with the weights."""
        return self.name


@dataclass(frozen=True)
class Schedule:
    """Optimiser and schedule of training, an entry of recipes.yaml.

    The learning rate and the number of epochs depend on method and family, too.
    """

    label: str
    source: str
    # the other keys of the entry, in the order of the schema: settings of rib.training.settings
    training: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A fine-tuning method: an algorithm (a module) with settings, or a merge of other methods.

    The catalogue has one for each entry; a grid has one for each variant of these, that is for each
    schedule and combination of swept settings (rib.config.sweeps).
    """

    name: str
    label: str
    form: str  # FINETUNE, EXTERNAL or one of MERGES
    algorithm: str
    settings: dict[str, Any]
    # methods that must run first: those that a merge averages, or that training starts from
    parents: tuple[str, ...]
    reference: str
    types: tuple[str, ...]
    source: str
    style: dict[str, Any]
    # `training` and `storage` against full fine-tuning, if they were measured
    cost: dict[str, float]
    # whether a run that doesn't fit its training images counts as unfinished, if the family has a
    # threshold
    can_fit: bool
    text: str
    fewest_parents: int = 1  # of a merge
    # most images of an evaluated dataset, for a method that takes long; None for any number
    most_images: int | None = None
    # what a merge's parents differ in: `methods`, or of each of these all `seeds`, `variants` with
    # one schedule, or `targets`
    over: str = METHODS
    # settings by schedule, which override `settings`
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Only variants have the next six.
    base: str | None = None  # name of the entry that it is a variant of
    # name without a swept rate of its own, which all rates of its sweep share: `lora-rank4` of
    # `lora-lr0.01-rank4`
    without_rate: str | None = None
    schedule: str | None = None  # schedule with which it, or its parents, are trained
    length: dict[str, int] = field(default_factory=dict)  # its `epochs` or `steps`, if it trains
    # Name of the job that evaluates it: its own, or `wise_ft-alpha` for wise_ft-alpha0.5.
    evaluation: str = ""
    # Settings of each variant that this job evaluates, by name:
    # {"wise_ft-alpha0.25": {"alpha": 0.25}, "wise_ft-alpha0.5": {"alpha": 0.5}}
    evaluated: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether it is fine-tuned here."""
        return self.form == FINETUNE

    def cost_of(self, resource: str) -> float:
        """Cost of `training` or `storage` as a multiple of that of full fine-tuning.

        The cost of a merge is without that of its parents. What was not measured counts as 0 for
        merges and as 1 for other methods.
        """
        unmeasured_cost = 0.0 if self.form in MERGES else 1.0
        return self.cost.get(resource, unmeasured_cost)
