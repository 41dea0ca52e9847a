"""Keys of config.yaml, with type, default and meaning.

The table of docs/configuration.md is made from these classes.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from rib.schema.checking import checked
from rib.schema.fields import (
    Count,
    Described,
    Flag,
    Fraction,
    FromZero,
    LocalPath,
    Positive,
    Seed,
    Share,
    Side,
    SizeOfSubset,
    Unique,
    Whole,
    matching,
)

Folders = LocalPath | list[LocalPath]
Names = str | list[str]
DefaultOrCount = Literal["default"] | Count
LimitOfDataset = Annotated[
    Literal["all"] | Count | Share,
    Field(
        description="'all', a number of images from 1, or a share of the dataset's images, above 0 "
        "and at most 1, with a decimal point (1 is one image)"
    ),
]
SeedOfTraining = Annotated[
    Whole,
    Field(
        ge=0,
        le=2147483647,
        description="a whole number from 0 to 2147483647, which rows of results can hold",
    ),
]
Layer = Literal["stage1", "stage2", "stage3", "stage4", "pre_logits"]


class ImageBudget(Described):
    """Limits for machines that are too small for all images."""

    max_images_per_dataset: (
        Literal["all"] | Count | Annotated[dict[str, LimitOfDataset], Field(min_length=1)]
    ) = Field(
        "all",
        description="'all', a number of images from 1, or these or shares (0.1) by dataset, with "
        "`default` for all others; of larger datasets a subset is used that is "
        "balanced over classes and over the columns by which they are sliced, the "
        "same for all seeds; subsets are nested",
    )


class Limits(Described):
    """Limits of images and archives."""

    photo_megabytes: Count = Field(256, description="millions of bytes of an encoded image, from 1")
    photo_megapixels: Annotated[Whole, Field(ge=2)] = Field(
        100, description="millions of pixels of an image, from 2, checked before it is decoded"
    )
    archive_ratio: Count = Field(
        100,
        description="bytes that a byte of an archive may unpack to, from 1; up to 64 MiB are "
        "always unpacked, and a tar without compression has no such limit",
    )


class Split(Described):
    """Fractions of the splits of protocol held_out."""

    train: Fraction = Field(
        0.6, description="fraction of the source images for training, between 0 and 1"
    )
    select: Fraction = Field(
        0.2,
        description="fraction for selection (alpha, ingredients of a soup), between 0 and 1; the "
        "rest is for testing",
    )


class Training(Described):
    """Settings shared by every fine-tuning method."""

    epochs: DefaultOrCount = Field(
        "default",
        description="passes over the target, from 1; 'default' depends on method, recipe and "
        "family",
    )
    steps: DefaultOrCount = Field(
        "default",
        description="steps of training, from 1, in place of epochs; 'default' depends on method, "
        "recipe and family",
    )
    batch_size: DefaultOrCount = Field(
        "default", description="images per step, from 1; 'default' is the family's"
    )
    micro_batch_size: Literal["all"] | Count = Field(
        "all",
        description="images per forward and backward pass, from 1, for GPUs with too little "
        "memory for a batch; gradients are accumulated; 'all' is the whole batch",
    )
    subset_length: Literal["steps", "epochs"] = Field(
        "steps",
        description="training on a subset (train_subset) has as many 'steps' as on the whole "
        "target, at most those of the family's subset_ceiling, or as many 'epochs'",
    )


class Compute(Described):
    """Settings of the computation."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="'auto' (CUDA if it works, else CPU), 'cpu' or 'cuda'"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="precision of networks: 'fp32', 'bf16' (autocast; weights, heads and losses "
        "remain in fp32), or 'auto': bf16 on CUDA devices that compute in it (Ampere "
        "and later), else fp32; on a CPU bf16 is only faster with AMX",
    )
    compile: Flag = Field(
        False,
        description="true uses torch.compile, which takes a minute or more per job (requires a "
        "C++ compiler)",
    )
    gradient_checkpointing: Flag = Field(
        False,
        description="true keeps fewer activations in fine-tuning and computes the others again in"
        " the backward pass: less memory, a third more time. Refused for networks "
        "without it and for methods that update BatchNorm statistics",
    )
    deterministic: Literal["strict", "warn"] = Field(
        "strict",
        description="what a network does that needs an operator of CUDA without a deterministic "
        "algorithm: 'strict' fails, 'warn' computes with a warning, and a training "
        "then gives other numbers each time",
    )
    threads_per_job: Annotated[Count, Field(le=1024)] = Field(
        1,
        description="torch threads of one job, 1 to 1024; results depend on it, so it does not "
        "change with --cores",
    )
    jobs_per_gpu: Count = Field(
        1,
        description="jobs that may share one GPU, from 1; for --resources gpu=N, multiply the "
        "number of GPUs by this",
    )
    gpu_memory_gb: Literal["unknown"] | Positive = Field(
        "unknown",
        description="memory of a GPU in GB, above 0, or 'unknown'; if it is stated, a model whose"
        " training or evaluation would take more is refused, and the message says what to set (an "
        "estimate, which `rib plan` shows)",
    )
    max_runtime: Count = Field(
        2880,
        description="most minutes that a job asks a cluster for, from 1; a longer training goes on "
        "when it is submitted again, so a partition's limit may be shorter than a training",
    )
    decode_workers: DefaultOrCount = Field(
        "default",
        description="threads per job that decode images (ImageNet-C, and images that are "
        "prepared), from 1; no more than the job has cores; results do not depend on it. "
        "'default' is 8 beside a GPU that is certain (device is cuda, the family expects_gpu, or "
        "--resources gpu=N), else 4",
    )
    evaluation_batch_size: DefaultOrCount = Field(
        "default",
        description="images per forward pass in evaluation, from 1, or 'default': 64 on a CPU, 256"
        " on a GPU, as the job finds it; manifests state the number",
    )


class Representations(Described):
    """Features of runs, and the runs whose features are compared."""

    layers: Literal["default"] | Annotated[Unique[Layer], Field(min_length=1)] = Field(
        "default",
        description="'default' (all), or a list of stage1 to stage4 (output after each quarter of"
        " the network's depth, mean over positions) and pre_logits (input of the "
        "head)",
    )
    images: Annotated[Whole, Field(ge=4, le=10000)] = Field(
        1000,
        description="images per dataset, 4 to 10000; from larger datasets a class-balanced subset"
        " is used",
    )
    targets: Literal["default", "all"] | Annotated[Unique[str], Field(min_length=1)] = Field(
        "default",
        description="targets whose runs are compared: 'default' (the family's example target), "
        "'all' or a list",
    )
    methods: Literal["default"] | Annotated[Unique[str], Field(min_length=1)] = Field(
        "default",
        description="methods whose runs are compared: 'default' (all methods of the grid except "
        "curves) or a list",
    )


class Distances(Described):
    """Distances between datasets."""

    compressed_megabytes: Annotated[Positive, Field(le=500)] = Field(
        2,
        description="megabytes of pixels per dataset for the compression distance, up to 500; run"
        " time grows with it",
    )


class Stir(Described):
    """STIR: invariances that networks share, found by inverting representations."""

    images: Annotated[Whole, Field(ge=5, le=10000)] = Field(
        64,
        description="images of each target, 5 to 10000, class-balanced; each needs `steps` "
        "forward and backward passes per run",
    )
    steps: FromZero = Field(200, description="steps of gradient descent on pixels, from 0")
    layer: Layer = Field(
        "pre_logits",
        description="layer whose representation is inverted: stage1 to stage4 or pre_logits (see "
        "representations.layers)",
    )
    start: Literal["noise", "mean"] = Field(
        "noise",
        description="initial image: 'noise' (uniform, the same for every run) or 'mean' (channel "
        "means)",
    )
    lr: Positive = Field(
        0.1,
        description="initial learning rate of Adam, above 0, in units of the pixel range; decays "
        "to 0 by a cosine schedule",
    )
    seed: Seed = Field(0, description="seed of the noise, a whole number from 0 to 2^64 - 1")


class Statistics(Described):
    """Confidence intervals."""

    replicates: Annotated[Whole, Field(ge=100)] = Field(
        2000, description="bootstrap replicates, from 100"
    )
    confidence: Fraction = Field(
        0.95, description="level of the confidence intervals, between 0 and 1"
    )
    seed: FromZero = Field(0, description="seed of the resampling, a whole number from 0")


class Config(Described):
    """What to run: config.yaml."""

    family: str = Field(
        "fashion", description="family of datasets to run, a file of catalog/families"
    )
    catalog: Folders = Field(
        default_factory=list,
        description="your own folders with additional catalogue entries, one path or a list",
    )
    archives: Folders = Field(
        default_factory=list,
        description="folders with archives that you already have, one path or a list; a file "
        "there with the right name and digest is not downloaded again, nor is one in "
        "which a mirror has the content packed",
    )
    external: list[LocalPath] = Field(
        default_factory=list,
        description="your own tables of weights that were trained elsewhere, paths of CSV files "
        "with the columns model, target, method, seed, file; their methods are added "
        "to the grid",
    )
    models: Names = Field(
        "default", description="'default' (the family's short list), 'all', or a list of models"
    )
    methods: Names = Field(
        "default",
        description="'default' (the family's short list), 'all', or a list of methods; parents "
        "are added",
    )
    recipes: Names = Field(
        "default",
        description="optimisers and schedules: 'default' (the family's), 'all' (those with a "
        "learning rate for the method), or a list; each method is trained with each, with variants "
        "named for example ft-adamw",
    )
    targets: Names = Field(
        "default",
        description="'default' (the family's short list), 'all', or a list of datasets to "
        "fine-tune on; by name also a training set whose entry has the key test, such as "
        "fashion_train",
    )
    datasets: Names = Field(
        "default",
        description="'default' (all of the family except optional ones), 'all', or a list of "
        "datasets to evaluate on",
    )
    reference: str = Field(
        "default",
        description="the pretraining proxy, used in place of the pretraining data: 'default' (the"
        " family's), 'none', or a dataset of role reference",
    )
    budget: ImageBudget = Field(
        default_factory=ImageBudget,
        description="limits for machines that are too small for all images",
    )
    leak_free: Flag = Field(
        False,
        description="true excludes from RI the images that share a source image with the target; "
        "identical images are one (protocol held_out never tests on such images)",
    )
    corrupt_images: FromZero = Field(
        0,
        description="maximum number of images of a dataset, from 0, that are excluded because "
        "they cannot be decoded; the report lists them",
    )
    limits: Limits = Field(
        default_factory=Limits,
        description="limits of images and archives; an image that is larger counts as one that "
        "cannot be decoded (corrupt_images), an archive that unpacks to more is "
        "refused",
    )
    accept_terms: Names = Field(
        default_factory=list,
        description="additional terms of datasets that you accept, one word or a list, for "
        "example objectnet_tuning: fine-tuning on ObjectNet, which its licence "
        "forbids without permission of its authors",
    )
    seeds: Annotated[Unique[SeedOfTraining], Field(min_length=1)] = Field(
        default_factory=lambda: [0],
        description="list of training seeds, whole numbers from 0 to 2147483647; the grid is run "
        "for each",
    )
    method_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings by method, which override those of the entry and the family; a list"
        " of values is swept, with variants named for example lora-rank4",
    )
    train_subset: Literal["default"] | Annotated[Unique[SizeOfSubset], Field(min_length=1)] = Field(
        "default",
        description="'default' (the family's) or a list of sizes of the subset of the target that"
        " is trained on: 'all', a number of images from 1, or a fraction from 0.0001 "
        "to below 1; each seed draws its own, and those of a seed are nested; the "
        "grid is run for each, and figures that do not compare sizes show the largest",
    )
    protocol: Literal["paper", "held_out"] = Field(
        "paper",
        description="'paper' trains on the whole target and evaluates on whole datasets; "
        "'held_out' splits every class of every dataset into train, select and test "
        "by source image, of which identical images are one, and evaluates on test",
    )
    split: Split = Field(
        default_factory=Split, description="fractions of the splits of protocol held_out"
    )
    select: Literal["none", "target", "leave_one_out", "oracle"] = Field(
        "none",
        description="how a variant of each swept method is chosen, for tables/selection.csv: "
        "'none' (not at all), 'target' (by the target's select split; protocol "
        "held_out), 'leave_one_out' (for each evaluation dataset, by those that share"
        " no source images with it or the target), or 'oracle' (by RI itself, an "
        "upper bound)",
    )
    compare_to: str = Field(
        "default",
        description="the method that differences of mRI in ranking, page and summary are from: "
        "'default' (`ft`, or `pretrained` in a run without it), a method of the run, "
        "or `pretrained`, the pretrained model, which also takes its place where the "
        "method has no rank for a model",
    )
    image_size: Literal["default", "native"] | Side = Field(
        "default",
        description="side of the square input in pixels, 32 to 1024; 'default' is the family's, "
        "'native' each model's own",
    )
    uncropped: Names = Field(
        "default",
        description="datasets of which models see whole images, resized to the input without the "
        "model's crop, in training and in evaluation: 'default' (none), 'all', or a "
        "list; [imagenet_c] for errors that can be compared with published ones",
    )
    training: Training = Field(
        default_factory=Training, description="settings shared by every fine-tuning method"
    )
    compute: Compute = Field(default_factory=Compute, description="settings of the computation")
    name: Annotated[str, matching("[A-Za-z0-9_-]*")] = Field(
        "",
        description="folder in reports/ for the tables, figures and page, letters, digits, - and "
        "_; the family's name if empty, with _held_out under that protocol; a run "
        "whose results are to be kept needs a name of its own",
    )
    analyses: Literal["all"] | list[str] = Field(
        default_factory=list,
        description="expensive analyses that are part of the run: 'all' or a list; each can also "
        "be run separately (snakemake NAME)",
    )
    monitor: Unique[str] = Field(
        default_factory=list,
        description="datasets of this run whose accuracy is shown after every epoch of a training"
        " (docs/cluster.md), each on at most 200 images of a fixed class-balanced "
        "subset; no result depends on it",
    )
    slices: list[str] = Field(
        default_factory=list,
        description="columns of the datasets' indexes by which the analysis slices splits "
        "accuracies, such as severity and corruption of ImageNet-C; if empty, all "
        "that there are",
    )
    representations: Representations = Field(
        default_factory=Representations,
        description="features of runs, and the runs whose features are compared",
    )
    distances: Distances = Field(
        default_factory=Distances, description="distances between datasets"
    )
    stir: Stir = Field(
        default_factory=Stir, description="shared invariances by representation inversion"
    )
    statistics: Statistics = Field(default_factory=Statistics, description="confidence intervals")


def config_of(choices: object, where: str) -> dict[str, Any]:
    """The whole config: the keys that a user states, and defaults for all others.

    Args:
        choices: keys as stated, such as {"family": "emoji"}.
        where: the file, for messages.

    Raises:
        UserError: A key is unknown, or a value has the wrong type or is out of bounds.
    """
    return checked(Config, choices, where).model_dump()
