"""Entries of the catalogue: the keys of its files, with type, default and meaning.

A field is None if the entry lacks the key and the key has no default. Fields in `DERIVED` are set
when the catalogue is read; no entry may state them.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from rib.schema.algorithm_settings import FISHER, FISHER_IMAGES
from rib.schema.fields import (
    KEYS,
    BelowOne,
    Count,
    Described,
    FileName,
    Flag,
    FromZero,
    Label,
    NonNegative,
    Number,
    Positive,
    Prose,
    Seed,
    Share,
    Side,
    SizeOfSubset,
    Strings,
    Unique,
    UpToOne,
    Whole,
    at_least_one,
    exactly_one,
    matching,
)
from rib.schema.forms import FINETUNE, MERGES
from rib.schema.method_facts import MethodFacts
from rib.schema.source_entries import AnySource, DatasetSource, HubDataset, Source

EVALUATED = ("ood", "in_distribution")  # roles of datasets that are evaluated

Form = Literal["finetune", "external", "coefficients", "curve", "select", "merge", "ensemble"]
Names = Annotated[list[str], Field(min_length=1)]
PathPart = Annotated[str, matching("[A-Za-z0-9_]+", 100)]
Column = Annotated[str, Field(min_length=1)]
Levels = Annotated[tuple[str | Whole, ...], Strict(False), Field(min_length=1)]


def _all_images() -> list[Literal["all"] | int]:
    """The default sizes of training subsets."""
    return ["all"]


def _none(threshold: object) -> object:
    """None for the text "none", anything else unchanged."""
    return None if threshold == "none" else threshold


class Style(Described):
    """Colour and marker in figures."""

    colour: Annotated[str, matching("#[0-9a-fA-F]{6}")] = Field(description="hex colour")
    marker: Annotated[str, matching("[.,ov^<>12348spP*hH+xXDd|_]")] = Field(
        description="a Matplotlib marker: one of .,ov^<>12348spP*hH+xXDd|_"
    )


class Classes(Described):
    """A label space: its class file and the file's format."""

    file: FileName = Field(
        description="a file in catalog/classes; for timm the name of one of its lists: imagenet, "
        "imagenet_a, imagenet_r"
    )
    format: Literal["class_map", "wnids", "index_map", "timm", "own"] = Field(
        description="class_map (emoji, codepoint, wnids, reason, optionally also: other emoji "
        "that are right answers), wnids (one per class), index_map (key, indices), "
        "timm, or own (key, name): classes that are not ImageNet's"
    )


class ProxyPart(Described):
    """The pretraining proxy, if it is a part of an evaluated dataset.

    The pretraining proxy is a set of images that stands in for a model's pretraining data.
    """

    part_of: str = Field(description="the dataset")
    images_per_class: Count = Field(description="number of images per class")


class DefaultGrid(Described):
    """The grid where config.yaml says `default`."""

    models: Names = Field(description="list of models")
    methods: list[str] = Field(description="list of methods")
    recipes: Names = Field(
        default_factory=lambda: ["paper"],
        description="list of recipes; methods trained with the first are named without it",
    )
    targets: Names = Field(description="list of datasets to fine-tune on")
    train_subset: Annotated[list[Literal["all"] | Count], Field(min_length=1)] = Field(
        default_factory=_all_images,
        description="sizes of the training subset: all, or numbers of images",
    )
    image_size: Literal["native"] | Side = Field(
        description="side of the input in pixels, 32 to 1024, or 'native'"
    )
    epochs: Count = Field(
        description="passes over the target, from 1, for methods and recipes that do not say"
    )
    batch_size: Count = Field(description="images per step, from 1")


class Family(Described):
    """Related datasets over one label space, and their default grid."""

    DERIVED = frozenset({"name"})

    name: Annotated[str, matching("[A-Za-z0-9_]+", 100)] = Field(
        description="the name of a family, which is the name of its file: letters, digits and _"
    )
    title: Label = Field(description="name of the family in figures and tables")
    description: Prose = Field(description="one sentence: what the datasets have in common")
    limits: Prose | None = Field(
        None,
        description="what numbers of the family cannot show, in sentences for the first lines of "
        "its page",
    )
    classes: Classes = Field(description="a label space")
    crop_pct: Annotated[Number, Field(ge=0.25, le=1)] | None = Field(
        None,
        description="fraction, from 0.25 to 1, of each image that the centre crop keeps, in place"
        " of each model's own",
    )
    example_target: str | None = Field(
        None, description="the target in figures that show a single target, if it is in the grid"
    )
    reference: str | ProxyPart | None = Field(
        None,
        description="the pretraining proxy: a dataset of role reference, or part of an evaluated "
        "dataset, whose source images are then excluded everywhere else",
    )
    one_image_per_class: Flag = Field(
        False,
        description="true if every dataset has one image per class; protocol held_out is then "
        "refused",
    )
    split_by: Literal["source", "object"] = Field(
        "source",
        description="what protocol held_out never divides: source images, which it splits class by "
        "class, or objects, such as an author's photos or a patient's scans, without regard to "
        "classes",
    )
    classes_per_dataset: Flag = Field(
        False,
        description="true if a dataset is trained and scored over only those of the family's "
        "classes of which it has images",
    )
    expects_gpu: Flag = Field(
        False,
        description="true if runs of the family would take far too long on a CPU: a job without a "
        "working GPU then fails, where others compute on the CPU",
    )
    can_fit: list[str] = Field(
        default_factory=list,
        description="methods that can fit the training images in this family, besides those whose"
        " entry says so",
    )
    fit_threshold: Annotated[Share | None, BeforeValidator(_none)] = Field(
        0.95,
        description="accuracy on the images trained on, above 0 and at most 1, below which a run "
        "of a method that can fit them is underfitted and marked; 'none' marks no run",
    )
    subset_ceiling: str | None = Field(
        None,
        description="a dataset of the family: a part of a larger target (train_subset) is trained"
        " for as many steps as the whole of this dataset, or for as many epochs as "
        "the whole target if the part has more images; without it, for as many steps "
        "as the whole target, however large",
    )
    scores: Unique[Literal["macro_f1", "worst_group"]] = Field(
        default_factory=list,
        description="scores besides accuracy of which RI is computed, too (ri_scores.csv): "
        "macro_f1, and worst_group, which needs a dataset with groups",
    )
    method_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings by method, which override those of the entries for this family",
    )
    recipes: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict,
        description="settings by recipe and method, which override those above: lr (a number, or "
        "a mapping by model or group of models, in which the key `other` holds for "
        "models that are not named), and epochs or steps if they differ from the "
        "defaults",
    )
    defaults: DefaultGrid = Field(description="the grid for values 'default' in config.yaml")


class Terms(Described):
    """Terms of a licence that forbids fine-tuning."""

    accept: Annotated[str, matching("[a-z_]+")] = Field(
        description="word that config's accept_terms must list"
    )
    terms: Prose = Field(description="terms of the licence, as a sentence")


class Parts(Described):
    """The parts in which a dataset is evaluated."""

    column: Column = Field(
        description="column of the dataset's index, which its layout gives, with the slice"
    )
    levels: Annotated[dict[PathPart, Levels], Field(min_length=2)] = Field(
        description="levels of the slice by part; each level is in one of them; the name of a "
        "part is used in paths: letters, digits and _"
    )


class Dataset(Described):
    """One dataset: source, layout and terms of use."""

    DERIVED = frozenset({"name", "archives", "gated_repositories", "licences_on_hub"})

    name: Annotated[str, matching(r"(?!group_|none\Z)[A-Za-z0-9_]+", 100)] = Field(
        description="the name of a dataset, used in paths: letters, digits and _, not starting "
        "with group_, and not none, which is reserved"
    )
    family: str = Field(description="family of the dataset")
    label: Label = Field(description="name in figures and tables")
    source: DatasetSource | None = Field(
        None,
        description="hf-datasets:OWNER/NAME, a dataset of the Hugging Face hub, the same as a "
        "mapping (kind hf-datasets), or another source of the archive",
    )
    sources: Annotated[list[DatasetSource], Field(min_length=2)] | None = Field(
        None, description="sources of a dataset with several archives"
    )
    archives_of: str | None = Field(
        None, description="another dataset whose archives contain it, in place of its own"
    )
    classes: Classes | None = Field(None, description="a label space")
    layout: str = Field(
        description="layout of the archive: a module of rib/data/layouts or of a catalogue "
        "folder's layouts/"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the layout")
    role: Literal["ood", "in_distribution", "reference"] = Field(
        "ood",
        description="ood; in_distribution: evaluated, but neither a target nor part of RI; "
        "reference: the pretraining proxy, not evaluated",
    )
    test: str | None = Field(
        None,
        description="of role reference: the test set of the same images, a dataset of role "
        "in_distribution; config's targets may then name the dataset",
    )
    optional: Flag = Field(
        False, description="true if it is in the grid only when listed in config's datasets"
    )
    variant_of: str | None = Field(
        None,
        description="a dataset of which it is a variant; if both are evaluated, the variant is "
        "not part of RI",
    )
    adversarially_filtered: Flag = Field(
        False,
        description="true if the images were chosen because a given network fails on them; "
        "effective robustness is not computed",
    )
    storage: Literal["array", "encoded"] = Field(
        "array",
        description="array (decoded once per geometry, fast to read) or encoded (images as "
        "published, for datasets too large for arrays)",
    )
    groups: Column | None = Field(
        None,
        description="column of the dataset's index, which its layout gives, with the group of "
        "each image; scores.csv then has the accuracy on the worst group",
    )
    relative_errors: Annotated[str, matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")] | None = Field(
        None,
        description="file of the catalogue with AlexNet's error in percent for each corruption, "
        "its mean over severities 1 to 5; the mean corruption error (mCE) is relative"
        " to it, and over exactly these corruptions",
    )
    publishable: Flag | None = Field(
        None,
        description="whether its images may be shown in figures and on the page; in the project's"
        " catalogue true unless said, in others false unless said",
    )
    tuning: Terms | None = Field(
        None,
        description="for licences that forbid fine-tuning: the dataset is only evaluated unless "
        "config accepts the terms",
    )
    never_target: Prose | None = Field(
        None,
        description="reason why the dataset is evaluated but never fine-tuned on, without a full "
        "stop; for terms of a licence see tuning",
    )
    images: Count | None = Field(
        None, description="exact number of images; preparation fails if it differs"
    )
    about_images: Count | None = Field(
        None, description="approximate number of images, for cost estimates"
    )
    evaluation_group: PathPart = Field(
        "",
        description="name of a group of datasets that one job evaluates together; by default the "
        "dataset alone",
    )
    parts: Parts | None = Field(
        None,
        description="parts of a very large dataset that are evaluated by jobs of their own, by "
        "the levels of a slice; a run that was stopped then continues after the last "
        "finished part, and several GPUs share the evaluation of one run",
    )
    source_group: str | None = Field(
        None, description="name shared by datasets made from the same source images"
    )
    icons_file: FileName | None = Field(
        None,
        description="file in catalog/classes with icon names by codepoint, if the package has no "
        "such table",
    )
    real_labels: Literal["timm"] | None = Field(
        None,
        description="timm: the images are of ILSVRC2012's validation set, named as published, and"
        " are also scored with the ReaL labels that timm contains",
    )
    labels_checked: Flag = Field(
        False,
        description="true if you have looked at the labels, so that a run goes on although a "
        "pretrained network agrees better with other ones",
    )
    only_file: FileName | None = Field(
        None,
        description="file of the catalogue with the ids of the images of the dataset (column "
        "image_id), if it has only some of those that its layout finds",
    )
    digests_file: FileName | None = Field(
        None,
        description="file of the catalogue with the SHA-256 of files in the archive (columns file "
        "and sha256), for a layout that checks them",
    )
    fetched: Flag = Field(
        True,
        description="false if we have not fetched its archives yet: addresses, sizes and digests "
        "are then those that publishers and other projects state",
    )
    exclude: dict[str, Prose] = Field(
        default_factory=dict,
        description="excluded class keys or image ids, with the reason; a key is a text: in "
        "quotes if YAML would read a number",
    )
    licence: Prose = Field(description="licence of the images")
    origin: Prose = Field(description="author of the images")
    # Sources of the archives as jobs get them, also if another dataset (`archives_of`) states them.
    # Empty for files of the hub that no job of this run reads.
    archives: tuple[dict[str, Any], ...] = ()
    # Set once the hub's repositories are resolved: repositories whose terms a user must accept, and
    # the licences that uploaders state.
    gated_repositories: tuple[str, ...] = ()
    licences_on_hub: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _group_alone(cls, keys: Any) -> Any:
        """A dataset without `evaluation_group` gets its own name as group."""
        if isinstance(keys, dict) and "name" in keys:
            return {"evaluation_group": keys["name"], **keys}
        return keys

    @model_validator(mode="after")
    def _has_one_origin_of_archives(self) -> "Dataset":
        return exactly_one(self, "source", "sources", "archives_of")

    @property
    def raw(self) -> str:
        """Name of the dataset whose entry states the archives, and of their folder in data/raw."""
        return self.name if self.archives_of is None else self.archives_of

    @property
    def own_sources(self) -> list[AnySource | HubDataset]:
        """Sources that this entry states; empty if it uses another dataset's archives."""
        return self.sources or ([] if self.source is None else [self.source])

    @property
    def folders(self) -> list[str]:
        """The user's folders of images that the archives are packed from, for messages."""
        return [source["path"] for source in self.archives if source["kind"] == "folder"]


class PublishedWeights(Described):
    """Place of the state dict in the archive, and how its keys are mapped."""

    member: str | None = Field(
        None,
        description="file in the archive: .pth (loaded with weights_only) or .safetensors; the "
        "downloaded file itself by default",
    )
    keys: Literal["by_name", "by_order"] = Field(
        "by_name",
        description="by_name, or by_order for other names in the same order with the same shapes",
    )


class Preprocessing(Described):
    """Preprocessing that a model expects."""

    input_size: Annotated[Whole, Field(ge=32, le=4096)] = Field(
        description="native side of the input in pixels, from 32 to 4096"
    )
    crop_pct: Annotated[Number, Field(ge=0.25, le=1)] = Field(
        description="fraction, from 0.25 to 1, of the resized shorter side that the centre crop "
        "keeps"
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(description="bilinear or bicubic")
    mean: Annotated[list[Number], Field(min_length=3, max_length=3)] = Field(
        description="per RGB channel, in 0..1"
    )
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)] = Field(
        description="per RGB channel, in 0..1"
    )
    crop_mode: Literal["center", "squash"] = Field(
        "center",
        description="center (the shorter side is resized before the centre crop) or squash (both "
        "sides are)",
    )


class Pretraining(Described):
    """How a model is trained from random weights."""

    dataset: str = Field(description="the training data, a dataset of role reference")
    size: SizeOfSubset = Field(
        "all",
        description="size of the training data: 'all', a number of images from 1, or a fraction "
        "from 0.0001 to below 1; subsets of one seed are nested",
    )
    test: str = Field(
        description="a dataset of role in_distribution, on which its held-out accuracy is measured"
    )
    epochs: Count | None = Field(None, description="passes over the images, from 1")
    steps: Count | None = Field(None, description="steps, from 1, in place of epochs")
    batch_size: Count = Field(description="images per step, from 1")
    lr: Positive = Field(description="peak learning rate")
    recipe: str | None = Field(
        None,
        description="optimiser and schedule, an entry of recipes.yaml; without it SGD, whose "
        "settings are the next three keys",
    )
    momentum: BelowOne | None = Field(None, description="momentum of SGD, by default 0.9")
    weight_decay: NonNegative | None = Field(
        None, description="L2 weight decay of SGD, by default 0"
    )
    warmup_fraction: UpToOne | None = Field(
        None, description="linear warm-up as a fraction of all steps, by default 0.1"
    )
    shift: Annotated[Whole, Field(ge=1, le=32)] | None = Field(
        None,
        description="images are shifted at random by up to so many pixels in each direction, 1 to"
        " 32; without it they are not",
    )
    augmentation: str | None = Field(
        None,
        description="random transforms of the images after the shift, an entry of "
        "augmentations.yaml; without it none but the recipe's",
    )
    seed: Seed = Field(
        0,
        description="seed of the initial weights, of the images that are drawn and of their "
        "order, from 0 to 2^64 - 1",
    )

    @model_validator(mode="after")
    def _has_one_length(self) -> "Pretraining":
        return exactly_one(self, "epochs", "steps")


class Model(Described):
    """One pretrained model: a source of published weights, settings for training it, or both.

    With both, this project published the weights, and `pretrain` is how it trained them.
    """

    DERIVED = frozenset({"name", "archives"})

    name: Annotated[str, matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", 100)] = Field(
        description="the name of a model, used in paths: letters, digits, _, . and -, starting "
        "with a letter, digit or _"
    )
    record: str | None = Field(
        None,
        description="a model's name (docs/adding.md): keys that the entry does not have are those"
        " of its record in hub.lock.json",
    )
    families: list[str] = Field(description="families in which models 'all' includes it")
    label: Label = Field(description="name in figures and tables")
    type: Literal["vit", "cnn"] = Field(description="vit (attention) or cnn (convolutions)")
    pretraining: Prose = Field(description="pretraining data")
    group: Label | None = Field(
        None,
        description="name of a group of replicates: models that differ only in what chance "
        "decides, such as pretrain.seed",
    )
    pretraining_images: Count | None = Field(
        None,
        description="number of images, or image-text pairs, of the largest dataset that published"
        " weights were pretrained on",
    )
    baseline: Flag = Field(
        False,
        description="true for a model trained with labels on only the in-distribution dataset's "
        "training images; lines of effective robustness are fitted to such models",
    )
    library: Literal["timm", "open_clip"] = Field(
        description="the library that builds it: timm, or open_clip for a visual tower"
    )
    architecture: Annotated[str, matching("[A-Za-z0-9_.-]+")] = Field(
        description="name of the architecture in that library"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="keyword arguments of the library's create_model, those that "
        "rib.schema.model_arguments lists",
    )
    resized_by: Literal["img_size", "force_image_size"] | None = Field(
        None, description="the argument with which the network is built for another input size"
    )
    parameters: Count | None = Field(None, description="number of parameters, for cost estimates")
    head: Literal["published", "zero_shot", "none"] = Field(
        "published",
        description="published (the head of the weights), zero_shot (made from class names by an "
        "open_clip text tower) or none (fitted on the family's reference)",
    )
    source: Source | None = Field(None, description="the archive or weights file as published")
    tokenizer: list[Source] = Field(
        default_factory=list,
        description="files of an open_clip text tower's tokenizer, for those that open_clip does "
        "not contain",
    )
    gated: Flag = Field(
        False, description="true if the hub gives the weights only to users who accepted terms"
    )
    pretrain: Pretraining | None = Field(
        None,
        description="settings for training it from random weights on the family's classes; with a"
        " source as well, that is a network which was trained so and published, and "
        "it is trained again only on demand (snakemake pretrain_again)",
    )
    weights: PublishedWeights = Field(
        default_factory=PublishedWeights,
        description="location of the state dict in the archive, and mapping of its keys",
    )
    preprocessing: Preprocessing = Field(description="preprocessing that the model expects")
    licence: Prose = Field(description="licence of the weights")
    style: Style | None = Field(None, description="style in figures")
    # Sources of the weights and then of the tokenizer, as jobs get them.
    archives: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _has_weights(self) -> "Model":
        return at_least_one(self, "source", "pretrain")

    @property
    def is_trained_here(self) -> bool:
        """Whether a run trains it from random weights because nobody has published it."""
        return self.source is None

    @property
    def stated_pretraining_images(self) -> int | None:
        """Number of pretraining images that the entry or its `pretrain` states.

        None if unknown: `pretrain` may take a fraction of a dataset, or all of it.
        """
        if self.pretraining_images is None and self.pretrain:
            size = self.pretrain.size
            return size if isinstance(size, int) else None
        return self.pretraining_images

    @property
    def raw(self) -> str:
        """Name of the folder of data/raw with the weights."""
        return self.name


class Recipe(Described):
    """Optimiser and schedule of training."""

    NULLABLE = frozenset({"layer_decay", "clip_norm"})
    DERIVED = frozenset({"name"})

    name: Annotated[str, matching("[a-z0-9_]+", 100)] = Field(
        description="the name of a recipe, used in paths: lower-case letters, digits and _"
    )
    label: Label = Field(description="name in figures and tables")
    optimizer: Literal["sgd", "adamw", "lion"] = Field(
        description="sgd (with momentum), adamw or lion, as made by timm's factory"
    )
    momentum: BelowOne = Field(0.9, description="momentum of sgd, 0 to below 1")
    weight_decay: NonNegative = Field(
        0.0, description="weight decay, from 0; decoupled for adamw and lion"
    )
    decay_norm_and_bias: Flag = Field(
        True, description="false exempts biases and scales of norms from weight decay"
    )
    layer_decay: Share | None = Field(
        None,
        description="factor of the learning rate per layer from the head down, above 0 to 1; null"
        " for the same rate everywhere",
    )
    clip_norm: Positive | None = Field(
        None, description="maximum norm of the gradient, above 0; null for no clipping"
    )
    label_smoothing: BelowOne = Field(0.0, description="label smoothing, 0 to below 1")
    augmentation: Unique[Literal["flip", "crop", "randaugment"]] = Field(
        default_factory=list, description="list of flip, crop and randaugment; empty for none"
    )
    warmup_steps: FromZero = Field(500, description="maximum linear warm-up in steps, from 0")
    warmup_fraction: UpToOne = Field(
        0.1,
        description="maximum warm-up as a fraction of all steps, 0 to 1; the shorter of the two "
        "is used",
    )
    source: Prose = Field(description="paper or file that defines it")

    @property
    def training(self) -> dict[str, Any]:
        """Settings of training: {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0, ...}.

        They are fields of rib.training.training_settings.TrainingSettings, without learning rate
        and epochs, which also depend on method and family.
        """
        return self.model_dump(exclude={"name", "label", "source"})


class Cost(Described):
    """Cost of a method as a multiple of full fine-tuning."""

    training: NonNegative | None = Field(None, description="seconds of fine-tuning")
    storage: NonNegative | None = Field(None, description="bytes of what it stores")


class StoredOutputs(Described):
    """Outputs of the network that training starts from, kept in memory for the training images."""

    bytes_per_image: Literal["unknown"] | Count = Field(
        description="bytes for each training image, or 'unknown' if they depend on the network; "
        "memory is then planned for the most that a GPU keeps, and hours for computing them in "
        "each epoch"
    )
    large_on_host: Flag = Field(
        False,
        description="true if outputs that are too large for a GPU are kept in the host's memory, "
        "those of a pretrained_teacher in fp16 and up to 8 GB, and not computed in each step",
    )


class Method(Described):
    """A fine-tuning method: an algorithm (a module) with settings, or a merge of other methods.

    The catalogue has one per entry. A grid has one per variant: an entry with one recipe and one
    combination of swept settings (rib.grid.sweeps).
    """

    DERIVED = frozenset(
        {"name", "base", "without_rate", "recipe", "length", "evaluation", "evaluated"}
    )

    name: Annotated[str, matching(r"(?!pretrained\Z)[a-z0-9_]+", 100)] = Field(
        description="the name of a method, used in paths: lower-case letters, digits and _; "
        "pretrained is reserved for the model before fine-tuning"
    )
    label: Label = Field(description="name in figures and tables")
    algorithm: str = Field(
        description="a module of rib/methods or of a catalogue folder's methods/"
    )
    form: Form = Field(
        FINETUNE,
        description="what the algorithm's module has: finetune, a class that trains; for a merge "
        "the function of this name: coefficients (of each parent in an average), curve "
        "(several averages), select (an average that held-out images choose), merge (a checkpoint, "
        "from those of its parents) or ensemble (the predictions of all parents); external is for "
        "weights that were trained elsewhere",
    )
    fewest_parents: Count = Field(1, description="for a merge: the smallest number of parents")
    most_images: Count | None = Field(
        None,
        description="for a method that takes long to evaluate: the largest number of images of an "
        "evaluated dataset; the method is left out if one has more",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="all settings of the algorithm with their defaults, each with its reason in a "
        "comment; a list is one value, no sweep; also lr, batch_norm, dropout and drop_path of a "
        "method that trains, and recipe: the only recipe to train it with",
    )
    recipes: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="for training: settings by recipe, in place of those above: lr, and epochs or"
        " steps if they differ from the family's",
    )
    parents: Strings = Field(
        (), description="for a merge: the merged methods, besides the pretrained model"
    )
    over: Literal["methods", "seeds", "variants", "targets"] = Field(
        "methods",
        description="for a merge, what it merges: the parents (methods), or of each parent the "
        "runs with every seed (seeds), its variants with the same recipe (variants) "
        "or the runs on every target (targets)",
    )
    starts_from: str | None = Field(
        None,
        description="for training: the method whose weights on the same target and seed are the "
        "starting point; the pretrained model by default",
    )
    reference: Literal["no", "optional", "required"] = Field(
        "no",
        description="whether it uses the family's reference dataset: no, optional or required "
        "(the method is left out if there is none)",
    )
    text: Literal["no", "required"] = Field(
        "no",
        description="required if it trains with texts, which only open_clip's models with a "
        "zero-shot head have (the method is left out for others)",
    )
    pretrained_teacher: Flag = Field(
        False,
        description="true if it imitates outputs of the network that training starts from, which "
        "therefore sees the training images too: once if the outputs are stored, else in each "
        "epoch",
    )
    stored_outputs: StoredOutputs | None = Field(
        None,
        description="outputs of the network that training starts from, if they are stored for the "
        "training images",
    )
    padding_prompt: Flag = Field(
        False,
        description="true if it trains a padding prompt, which can neither be averaged nor "
        "exported",
    )
    fisher_information: Flag = Field(
        False,
        description="true if it uses Fisher information: a method that trains that of its start, "
        "with the settings fisher and fisher_images, a merge that of its parents, with the "
        "setting fisher_images",
    )
    cost: Cost = Field(
        default_factory=Cost,
        description="measured against full fine-tuning for as many epochs, without the methods "
        "that it needs; what is not given counts as 1, and as 0 for a merge",
    )
    can_fit: Flag = Field(
        False,
        description="true if it can fit the images that it trains on, since it trains all weights"
        " and nothing but the task holds them back; its runs below the family's "
        "fit_threshold are underfitted",
    )
    types: Annotated[tuple[Literal["vit", "cnn"], ...], Strict(False), Field(min_length=1)] = Field(
        ("vit", "cnn"), description="supported types of models: vit, cnn"
    )
    source: Prose = Field(description="paper, equation or file that defines it")
    style: Style = Field(description="style in figures")
    # Only variants have the next six.
    base: str | None = None  # name of the entry
    # name without the swept learning rate, shared by all rates of the sweep: `lora-rank4` for
    # `lora-lr0.01-rank4`
    without_rate: str | None = None
    recipe: str | None = None  # that trains it or its parents
    length: dict[str, int] = Field(default_factory=dict)  # its `epochs` or `steps`, if it trains
    # Name of the job that evaluates it: its own name, or `wise_ft-alpha` for wise_ft-alpha0.5.
    evaluation: str = ""
    # Settings of each variant that the job evaluates: {"wise_ft-alpha0.25": {"alpha": 0.25},
    # "wise_ft-alpha0.5": {"alpha": 0.5}}
    evaluated: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_settings_of_fisher_information(self) -> "Method":
        names = {FISHER, FISHER_IMAGES} if self.trains else {FISHER_IMAGES}
        if self.fisher_information and not names <= self.settings.keys():
            raise PydanticCustomError(
                KEYS, f"fisher_information needs the settings {' and '.join(sorted(names))}"
            )
        if FISHER_IMAGES in self.settings and not self.fisher_information:
            raise PydanticCustomError(
                KEYS, f"the setting {FISHER_IMAGES} needs the key fisher_information: true"
            )
        return self

    @property
    def facts(self) -> MethodFacts:
        """What the class of its algorithm must say, too: MethodFacts(text_tower=True)."""
        stored = self.stored_outputs
        return MethodFacts(
            pretrained_teacher=self.pretrained_teacher,
            stored_outputs=stored is not None,
            large_outputs_on_host=stored is not None and stored.large_on_host,
            padding_prompt=self.padding_prompt,
            text_tower=self.text == "required",
            fisher_information=self.fisher_information,
        )

    @property
    def trains(self) -> bool:
        """Whether it is fine-tuned here."""
        return self.form == FINETUNE

    def cost_of(self, resource: Literal["training", "storage"]) -> float:
        """Cost as a multiple of full fine-tuning.

        The cost of a merge excludes its parents. A cost that wasn't measured counts as 0 for merges
        and as 1 for other methods.
        """
        measured_cost: float | None = getattr(self.cost, resource)
        if measured_cost is None:
            return 0.0 if self.form in MERGES else 1.0
        return measured_cost
