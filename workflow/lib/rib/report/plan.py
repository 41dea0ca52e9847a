"""Plan of a run before it starts: jobs, images, hours, download and disk space. No torch.

Hours are images divided by throughput (rib.report.rates). LEFT_OUT names what is not counted.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rib.base.files import in_bytes, read_json
from rib.base.progress import print_lines
from rib.data.folders import files_in
from rib.grid.evaluation_groups import evaluation_groups
from rib.grid.grid import Grid
from rib.grid.memory import GIGA, UNKNOWN, NetworkMemory
from rib.grid.paths import Paths
from rib.grid.stored_outputs import LARGEST_OF_TEACHER_ON_HOST, LARGEST_STORED
from rib.report.rates import (
    EVALUATE,
    GPU_RATES,
    PUBLISHED_CARD,
    TRAIN,
    Rate,
    Rates,
    card_of_rates,
    throughput,
)
from rib.schema.entries import Dataset, Method, Model
from rib.schema.run import PRETRAINED, Run, images_of
from rib.statistics.conditions import conditions_of

HOUR = 3600
FLOAT = 4  # bytes of a stored number
ROW = 9  # bytes of a stored row about one image: 8.7 measured on a million like ImageNet-C's
# Of a job: imports took 4.5 s; CUDA and the weights are a guess.
SECONDS_OF_START = 10
# In which a job reads the index of a dataset: 0.51 s were measured for 250,000 images.
SECONDS_PER_MILLION_ROWS = 2
# Of one core for a JPEG of 224 px, such as ImageNet-C's: 0.88 ms were measured.
SECONDS_OF_DECODING = 0.88e-3
LEFT_OUT = (
    "preparation",
    "monitored datasets, checks of labels and selection",
    "Fisher information for merges",
)


@dataclass(frozen=True)
class Counts:
    """Numbers of images of a grid.

    Attributes:
        images: of each dataset that jobs read, such as {"noto": 1200}; unknown ones are missing.
        proxy: of the pretraining proxy, at most; 0 without one, None if unknown.
    """

    images: Mapping[str, int]
    proxy: int | None


@dataclass(frozen=True)
class Passes:
    """A number of images that pass through networks of a model, for estimating hours.

    Attributes:
        images: their number, with repetitions.
        cost: time of a pass as a multiple of the usual time, such as 0.5.
    """

    model: str
    images: int
    cost: float = 1.0


def print_plan(grid: Grid) -> None:
    """Print what a run of the grid costs: jobs, images, hours, bytes."""
    print_lines(*lines(grid, Path("results", grid.family.name)))


def lines(grid: Grid, results: Path) -> list[str]:
    """Text lines of the plan; `results` is the folder of the family, such as results/emoji."""
    counts = count_images(grid, results)
    rates = throughput(grid, results)
    trained = training_passes(grid, counts)
    evaluated = evaluation_passes(grid, counts)
    taught = teacher_passes(grid, counts)
    jobs = jobs_by_stage(grid)
    stages = ", ".join(f"{count:,} {stage}" for stage, count in jobs.items() if count)
    disk = disk_space(grid, counts)
    contents = ", ".join(f"{content} {in_bytes(size)}" for content, size in disk.items())
    return [
        f"Family {grid.family.title}: {len(grid.models)} models, {len(grid.methods)} methods, "
        f"{len(grid.all_targets)} targets, {len(grid.seeds)} seeds, {len(grid.sizes)} sizes; "
        f"{len(grid.datasets)} datasets in {len(evaluation_groups(grid))} evaluation groups.",
        f"Numbers depend on: {'; '.join(conditions_of(grid))}.",
        f"Jobs       {sum(jobs.values()):,} ({stages}), and those of downloads, merges, tables and "
        "figures",
        f"Training   {_images_and_hours(trained, TRAIN, rates)}",
        *([f"Teachers   {_images_and_hours(taught, EVALUATE, rates)}"] if taught else []),
        f"Evaluation {_images_and_hours(evaluated, EVALUATE, rates)}",
        *_lines_of_decoding(decoded_images(grid, counts)),
        f"Starts     {hours_of_starts(grid, counts):,.1f} hours of one device, "
        f"{SECONDS_OF_START} s of each job and {SECONDS_PER_MILLION_ROWS} s of a million images",
        f"Left out   {'; '.join([*LEFT_OUT, *_uncounted_analyses(grid)])}",
        f"Download   {in_bytes(download(grid))} not downloaded yet",
        f"Disk       {in_bytes(sum(disk.values()))} ({contents})",
        "Datasets   published archives and the licence of their images",
        *(
            _line_of_dataset(dataset, has_been_fetched=grid.catalog.datasets[dataset.raw].fetched)
            for dataset in grid.datasets_read()
        ),
        "Models     published weights and their licence",
        *(_line_of_model(model) for model in grid.models.values()),
        f"Images/s   {_origin_of_rates()}",
        *(_line_of_rates(model, rates_of_model) for model, rates_of_model in rates.items()),
        *_lines_of_gpu_memory(grid),
        *(f"Not known: {sentence}." for sentence in _unknown(grid, counts)),
    ]


# Jobs


def jobs_by_stage(grid: Grid) -> dict[str, int]:
    """Number of jobs by stage, such as {"preparation": 24, "training": 896, "evaluation": 4585}.

    Jobs that download, convert, merge or make tables, figures and the page are not counted.
    """
    paths = Paths(grid)
    prepared = set()
    for dataset in grid.datasets_read():
        for geometry in paths.geometries:
            prepared.add(paths.prepared("manifest.json", dataset.name, geometry))
    pretrained_here = [model for model in grid.models.values() if model.is_trained_here]
    return {
        "preparation": len(prepared),
        "training": len(pretrained_here) + len(paths.trained_runs) + len(_shared_fisher(grid)),
        "evaluation": len(paths.rows(grid.runs())) + len(paths.rows_over_targets()),
    }


def _shared_fisher(grid: Grid) -> set[tuple[str, int, int, str]]:
    """Jobs that compute Fisher information for several trainings, to be counted once.

    {("net", 0, 1000, "sampled")}: model, seed, most images, kind.
    """
    jobs = set()
    for run in Paths(grid).trained_runs:
        shared = grid.shared_fisher(run.method)
        if shared is not None:
            jobs.add((run.model, run.seed, *shared))
    return jobs


# Images of datasets


def count_images(grid: Grid, results: Path) -> Counts:
    """Images of the datasets that jobs read, and of the pretraining proxy.

    They are counted in prepared datasets, else stated by entries, else counted in folders.

    Args:
        results: folder of the family, such as results/emoji.
    """
    images = {}
    for dataset in grid.datasets_read():
        manifest = _manifest(dataset, results)
        stated_images = dataset.images or dataset.about_images
        if manifest:
            images[dataset.name] = read_json(manifest)["n"]
        elif stated_images:
            images[dataset.name] = stated_images
        elif grid.family.one_image_per_class:
            images[dataset.name] = len(grid.catalog.label_space(dataset).keys)
        elif _is_folder(dataset):
            images[dataset.name] = len(files_in(Path(dataset.archives[0]["path"])))
    return Counts(images, _images_of_proxy(grid, results, images))


def _manifest(dataset: Dataset, results: Path) -> Path | None:
    """Manifest of a prepared dataset; None if it is not prepared."""
    # In every geometry it has the same images.
    manifests = sorted(results.glob(f"prepare/{dataset.name}/*/manifest.json"))
    return manifests[0] if manifests else None


def _is_folder(dataset: Dataset) -> bool:
    source_kind: str = dataset.archives[0]["kind"]
    return source_kind == "folder"


def _images_of_proxy(grid: Grid, results: Path, images: Mapping[str, int]) -> int | None:
    """Number of images of the pretraining proxy, at most; None if unknown.

    A class of the reference dataset may have fewer images than the proxy takes.

    Args:
        images: of each dataset, such as {"val": 1000}.
    """
    if grid.reference is None:
        return 0
    dataset = grid.reference.dataset
    images_of_dataset = images.get(dataset.name)
    if grid.reference.images_per_class is None or images_of_dataset is None:
        return images_of_dataset
    most_images = grid.reference.images_per_class * _classes_with_images(grid, dataset, results)
    # The proxy is never the whole dataset: classes must have fewer images, or be fewer, than known.
    return most_images if most_images < images_of_dataset else None


def _classes_with_images(grid: Grid, dataset: Dataset, results: Path) -> int:
    """Number of a dataset's classes that have images, at most."""
    manifest = _manifest(dataset, results)
    if manifest:
        classes: int = read_json(manifest)["classes"]
        return classes
    keys = grid.catalog.label_space(dataset).keys
    if not _is_folder(dataset):
        return len(keys)
    folder = Path(dataset.archives[0]["path"])
    names = {name for file in files_in(folder) for name in file.relative_to(folder).parts}
    return len(names.intersection(keys)) or len(keys)


def used_images(grid: Grid, counts: Counts) -> dict[str, int]:
    """Number of images that runs use of each dataset, for the plan's hours.

    Images beyond config's budget are not used. Nor is the pretraining proxy, the part of the
    reference dataset that stands for the pretraining data: it is left out of the reference and of
    datasets made from the same source images.

    Args:
        counts: with the images {"val": 1000, "val_cartoon": 1000} and a proxy of 100 images of
            "val", both have 900. An unknown proxy counts as empty.
    """
    used = {}
    for dataset in grid.datasets_read():
        images = counts.images.get(dataset.name, 0)
        if grid.excludes_proxy(dataset.name):
            assert grid.reference is not None  # it has the proxy
            images_of_reference = counts.images.get(grid.reference.dataset.name, 0)
            share = (counts.proxy or 0) / max(1, images_of_reference)
            images = round(images * (1 - share))
        used[dataset.name] = grid.budget.images(dataset.name, images)
    return used


# Passes and their hours


def training_passes(grid: Grid, counts: Counts) -> list[Passes]:
    """Images that pass through networks in training, for the plan's hours.

    Counted are pretraining, fine-tuning and Fisher information that several runs share: an image
    in 30 epochs counts 30 times. `Passes(model="net", images=9000, cost=0.5)` are 9,000 images at
    half the time of an image in full fine-tuning.

    Args:
        counts: images of datasets and of the pretraining proxy.
    """
    passes = []
    for name, model in grid.models.items():
        if model.is_trained_here:
            assert model.pretrain is not None
            images = counts.images.get(model.pretrain.dataset, 0)
            size = str(model.pretrain.size)
            images_in_epochs = _images_in_epochs(grid.pretraining(name), size, images)
            passes.append(Passes(model=name, images=images_in_epochs))
    used = used_images(grid, counts)
    passes.extend(passes_of_training(grid, used, run) for run in Paths(grid).trained_runs)
    for name, _seed, most_images, _kind in _shared_fisher(grid):
        images = most_images if counts.proxy is None else min(most_images, counts.proxy)
        passes.append(Passes(model=name, images=images))
    return passes


def passes_of_training(grid: Grid, used: Mapping[str, int], run: Run) -> Passes:
    """Images of a run's training, each counted in every epoch: Passes("net", 9000, 0.5).

    Args:
        used: images that runs use, by dataset: {"noto": 1080}.
    """
    training = grid.training_of(run.method, run.target, run.size)
    images = _trainable_images(grid, used, run.target)
    cost = grid.methods[run.method].cost_of("training")
    return Passes(run.model, _images_in_epochs(training, run.size, images), cost)


def _trainable_images(grid: Grid, used: Mapping[str, int], target: str) -> int:
    """Used images of a target that may be trained on: all, or the share of its train split."""
    train_share = grid.split_fractions["train"] if grid.split_fractions else 1.0
    return math.ceil(train_share * used[target])


def teacher_passes(grid: Grid, counts: Counts) -> list[Passes]:
    """Images that pass through teachers, networks whose outputs a training imitates.

    A teacher sees each image once, or in each epoch if they are too many to store its outputs.

    Args:
        counts: images of datasets and of the pretraining proxy.
    """
    used = used_images(grid, counts)
    return [
        passes_of_teacher(grid, used, run)
        for run in Paths(grid).trained_runs
        if grid.methods[run.method].pretrained_teacher
    ]


def passes_of_teacher(grid: Grid, used: Mapping[str, int], run: Run) -> Passes:
    """Images that a run's teacher, a network it imitates, sees: once, or in each epoch if many.

    Args:
        used: images that runs use, by dataset: {"noto": 1080}.
    """
    training = grid.training_of(run.method, run.target, run.size)
    whole = _trainable_images(grid, used, run.target)
    images = images_of(run.size, whole)
    if training.get("augmentation") or not _are_stored(grid.methods[run.method], images):
        images = _images_in_epochs(training, run.size, whole)
    return Passes(run.model, images)


def _are_stored(method: Method, images: int) -> bool:
    """Whether a method keeps its teacher's outputs for so many images."""
    if method.stored_outputs is None or method.stored_outputs.bytes_per_image == UNKNOWN:
        return False
    size = method.stored_outputs.bytes_per_image * images
    is_on_host = method.stored_outputs.large_on_host and size / 2 <= LARGEST_OF_TEACHER_ON_HOST
    return size <= LARGEST_STORED or is_on_host


def _images_in_epochs(training: Mapping[str, Any], size: str, images: int) -> int:
    """Number of images in a training, each counted in every epoch: 3 epochs of 1000 are 3000.

    Args:
        training: epochs or steps, batch_size, subset_length.
        size: training subset, such as `all` or `1000`.
        images: number of images of the whole target.
    """
    if training["steps"]:
        steps: int = training["steps"]
        batch_size: int = training["batch_size"]
        return steps * batch_size
    epochs: int = training["epochs"]
    if training.get("subset_length") == "steps":  # a subset has as many steps as the whole
        return epochs * images
    return epochs * images_of(size, images)


def evaluation_passes(grid: Grid, counts: Counts) -> list[Passes]:
    """Images that are scored, once for each network: [Passes("net", 9000), ...].

    Args:
        counts: images of datasets and of the pretraining proxy.
    """
    used = used_images(grid, counts)
    memory = NetworkMemory(grid)
    passes = []
    for entry, method in _method_of_entry(grid).items():
        images = images_of_test_splits(grid, used, _evaluated_datasets(grid, method))
        passes.append(Passes(entry.model, memory.networks_of(method) * images))
    return passes


def _method_of_entry(grid: Grid) -> dict[Run, str]:
    """Any method of each entry; its runs, such as alphas of wise_ft, are evaluated together."""
    methods = {}
    for run in [*grid.runs(), *grid.runs_over_targets()]:
        methods[replace(run, method=grid.evaluation_of(run.method))] = run.method
    return methods


def _evaluated_datasets(grid: Grid, method: str) -> Iterable[str]:
    return grid.not_trained_on if method in grid.over_targets else grid.datasets


def decoded_images(grid: Grid, counts: Counts) -> int:
    """How often jobs decode an image of datasets that are kept encoded, for the plan's core-hours.

    An evaluation decodes each image once for all of its networks, a training in each epoch.

    Args:
        counts: images of datasets and of the pretraining proxy.
    """
    used = used_images(grid, counts)
    encoded = {entry.name for entry in grid.datasets_read() if entry.storage == "encoded"}
    images = 0
    for method in _method_of_entry(grid).values():
        datasets = encoded.intersection(_evaluated_datasets(grid, method))
        images += images_of_test_splits(grid, used, datasets)
    for run in Paths(grid).trained_runs:
        if run.target in encoded:
            images += _images_read_in_training(grid, used, run)
    return images


def _images_read_in_training(grid: Grid, used: Mapping[str, int], run: Run) -> int:
    """Images that a run reads: once if it trains on outputs that it stores, as linear probing."""
    method = grid.methods[run.method]
    if method.stored_outputs is not None and not method.pretrained_teacher:
        return images_of(run.size, _trainable_images(grid, used, run.target))
    return passes_of_training(grid, used, run).images


def images_of_test_splits(grid: Grid, used: Mapping[str, int], datasets: Iterable[str]) -> int:
    """Number of images that an evaluation on these datasets scores.

    Args:
        used: images that runs use, by dataset: {"noto": 1080}.
    """
    test_share = 1 - sum(grid.split_fractions.values()) if grid.split_fractions else 1.0
    return round(test_share * sum(used[name] for name in datasets))


def hours_of_starts(grid: Grid, counts: Counts) -> float:
    """Hours in which jobs that train or evaluate begin, and read the indexes of their datasets.

    Args:
        counts: images of datasets and of the pretraining proxy.
    """
    jobs = jobs_by_stage(grid)
    rows = sum(counts.images.get(run.target, 0) for run in Paths(grid).trained_runs)
    rows_of_entry = 0  # a dataset in parts is read by a job for each of them
    for datasets in evaluation_groups(grid).values():
        rows_of_entry += sum(counts.images.get(name, 0) for name in datasets)
    rows += rows_of_entry * len(evaluation_passes(grid, counts))
    seconds = (jobs["training"] + jobs["evaluation"]) * SECONDS_OF_START
    return (seconds + rows / 1e6 * SECONDS_PER_MILLION_ROWS) / HOUR


def hours(passes: Iterable[Passes], kind: str, rates: Rates) -> float:
    """Hours of one device for passes of a kind (`train` or `evaluate`).

    Models whose images per second (`rates` by model and kind) are unknown are left out.
    """
    seconds = 0.0
    for part in passes:
        if kind in rates[part.model]:
            seconds += part.images / rates[part.model][kind].images * part.cost
    return seconds / HOUR


# Bytes


def download(grid: Grid) -> int:
    """Bytes of archives and pretrained weights that are not in data/raw yet, of known size."""
    size_of_download = 0
    for path, source in _archives_of_datasets(grid).items():
        if not path.is_file() and source["kind"] != "folder":
            size_of_download += _size_of_archive(path, source) or 0
    for model in grid.models.values():
        if model.source and not Path("data/raw", model.raw, model.archives[0]["file"]).is_file():
            size_of_download += model.archives[0].get("size", _size_of_weights(model))
    return size_of_download


def disk_space(grid: Grid, counts: Counts) -> dict[str, int]:
    """Bytes by content, such as {"archives": 55000000, "rows per image": 7600000}.

    Args:
        counts: images of datasets and of the pretraining proxy.
    """
    archives = 0
    for path, source in _archives_of_datasets(grid).items():
        archives += _size_of_archive(path, source) or 0
    geometries = {grid.geometry(model) for model in grid.models}
    pixels_of_image = sum(geometry.size**2 for geometry in geometries)
    prepared = 0
    for dataset in grid.datasets_read():
        if dataset.storage == "encoded":  # a copy of the archives
            prepared += sum(source.get("size", 0) for source in dataset.archives)
        elif dataset.storage == "array":  # of 3 bytes per pixel, at each size of models' images
            prepared += 3 * pixels_of_image * counts.images.get(dataset.name, 0)
    pretrained = 0
    for model in grid.models.values():
        copies = 2 if model.source else 1  # as published and as converted, or as trained here
        pretrained += copies * _size_of_weights(model)
    checkpoints = 0.0
    for run in [*grid.runs(), *grid.runs_over_targets()]:
        if run.method != PRETRAINED:
            share_of_weights = grid.methods[run.method].cost_of("storage")
            checkpoints += share_of_weights * _size_of_weights(grid.models[run.model])
    size_by_content = {
        "archives": archives,
        "prepared images": prepared,
        "pretrained weights": pretrained,
        "checkpoints, at most": round(checkpoints),
    }
    fisher = [_size_of_weights(grid.models[name]) for name, *_ in _shared_fisher(grid)]
    if fisher:
        size_by_content["shared Fisher information"] = sum(fisher)
    evaluated_images = sum(passes.images for passes in evaluation_passes(grid, counts))
    size_by_content["rows per image"] = ROW * evaluated_images
    return size_by_content


def _archives_of_datasets(grid: Grid) -> dict[Path, Mapping[str, Any]]:
    """Sources by path: {Path("data/raw/noto/images.zip"): {"kind": "http", ...}}.

    Datasets may share archives, which count once.
    """
    archives: dict[Path, Mapping[str, Any]] = {}
    for dataset in grid.datasets_read():
        files = map(Path, Paths(grid).archives(dataset))
        archives.update(zip(files, dataset.archives, strict=True))
    return archives


def _size_of_archive(path: Path, source: Mapping[str, Any]) -> int | None:
    """Bytes of an archive: of the file or folder if it is here, else as stated; None if unknown."""
    if path.is_file():
        return path.stat().st_size
    if source.get("size") is None and source["kind"] == "folder":
        return sum(file.stat().st_size for file in files_in(Path(source["path"])))
    stated_size: int | None = source.get("size")
    return stated_size


def _size_of_weights(model: Model) -> int:
    """Bytes of a model's weights; 0 if its number of parameters is not stated."""
    return FLOAT * (model.parameters or 0)


# Text


def _images_and_hours(passes: Collection[Passes], kind: str, rates: Rates) -> str:
    """`9,000 images, 2.5 hours of one device, without net`, whose images per second are unknown."""
    images = sum(part.images for part in passes)
    models_without_rate = [name for name in rates if kind not in rates[name]]
    if images and len(models_without_rate) == len(rates):
        return f"{images:,} images, hours unknown"
    text = f"{images:,} images, {hours(passes, kind, rates):,.1f} hours of one device"
    if images and models_without_rate:
        text += f", without {', '.join(models_without_rate)}"
    return text


def _lines_of_decoding(images: int) -> list[str]:
    """[`Decoding   3,000,000 images, 0.7 hours of one core, ...`]; [] without encoded images."""
    if images == 0:
        return []
    return [
        f"Decoding   {images:,} images, {images * SECONDS_OF_DECODING / HOUR:,.1f} hours of one "
        f"core, {1000 * SECONDS_OF_DECODING:.2f} ms each as measured for a JPEG of 224 px; larger "
        "photos take longer"
    ]


def _origin_of_rates() -> str:
    """Clause of the plan: for which card hours are estimated, and who measured it."""
    card = card_of_rates()
    if card is not None:
        return f"of one {card}, as make gpu measured them ({GPU_RATES}; stated: {PUBLISHED_CARD})"
    return (
        f"of one {PUBLISHED_CARD} in mixed precision, as timm published them (stated); make gpu "
        "measures another card"
    )


def _uncounted_analyses(grid: Grid) -> list[str]:
    """["the optional analysis stir"], for the plan's line `Left out`: work that is not counted.

    Most compute nothing from images, but some train and invert networks.
    """
    analyses = grid.config["analyses"]
    if analyses == "all":
        return ["all optional analyses"]
    return [f"the optional analysis {name}" for name in analyses]


def _line_of_dataset(dataset: Dataset, has_been_fetched: bool) -> str:
    """`  noto: 55 MB, OFL-1.1, gated`: size, licence and state of a dataset's archives.

    `has_been_fetched` says whether the catalogue's authors have downloaded them before.
    """
    facts = []
    sizes = [source.get("size") for source in dataset.archives]
    stated_sizes = [size for size in sizes if size is not None]
    if stated_sizes:
        at_least = "" if len(stated_sizes) == len(sizes) else "at least "
        facts.append(f"{at_least}{in_bytes(sum(stated_sizes))}")
    facts.append(dataset.licence)
    if dataset.licences_on_hub:
        facts.append(f"on the hub: {', '.join(dataset.licences_on_hub)}")
    if dataset.gated_repositories:
        facts.append("gated")
    if not has_been_fetched:
        facts.append("not yet fetched by us")
    return f"  {dataset.name}: {', '.join(facts)}"


def _line_of_model(model: Model) -> str:
    """`  net: 45 MB, Apache-2.0, gated`: size and licence of a model's weights."""
    facts = ["trained here"]
    if model.source:
        facts = [in_bytes(model.archives[0].get("size", _size_of_weights(model)))]
    facts.append(model.licence)
    if model.gated:
        facts.append("gated")
    return f"  {model.name}: {', '.join(facts)}"


def _line_of_rates(model: str, rates: Mapping[str, Rate]) -> str:
    """A model's images per second: `  net: train 120, evaluate 420 (measured here)`."""
    if not rates:
        return f"  {model}: no jobs have run and no rate is stated (unknown)"
    numbers = ", ".join(f"{kind} {rate.images:,.0f}" for kind, rate in rates.items())
    origins = list({rate.origin for rate in rates.values()})
    if len(origins) > 1:
        origins = [f"{kind} {rate.origin}" for kind, rate in rates.items()]
    return f"  {model}: {numbers} ({', '.join(origins)})"


def _lines_of_gpu_memory(grid: Grid) -> list[str]:
    """Lines of the plan on GPU memory, [`  net: evaluation 2.1 GB (256 images)`]; [] on a CPU."""
    memory = NetworkMemory(grid)
    if memory.on_cpu:
        return []
    checkpointing = ", with gradient checkpointing" if memory.checkpointing else ""
    text = [f"GPU memory estimated, in {memory.precision}{checkpointing}"]
    for name in grid.models:
        images = memory.images_of_pass(name)
        in_training = memory.training_on_gpu(name, images, memory.checkpointing)
        in_evaluation = memory.evaluation_on_gpu(name)
        if in_training is None or in_evaluation is None:
            text.append(f"  {name}: its architecture or number of parameters is not known")
            continue
        phrases = []
        if images:
            phrases.append(f"training {in_training / GIGA:.1f} GB ({images} images in a pass)")
        phrases.append(
            f"evaluation {in_evaluation / GIGA:.1f} GB ({memory.evaluation_batch_size} images)"
        )
        text.append(f"  {name}: {', '.join(phrases)}")
    return text


def _unknown(grid: Grid, counts: Counts) -> list[str]:
    """["no size is stated for images.zip"]: numbers that the plan's sums lack."""
    sentences = [
        f"{dataset.label} has an unknown number of images until it is prepared"
        for dataset in grid.datasets_read()
        if dataset.name not in counts.images
    ]
    if counts.proxy is None and grid.reference is not None:
        sentences.append(
            f"the part of {grid.reference.dataset.label} that is the reference is counted as "
            "evaluated until it is prepared, since the number of its images is unknown"
        )
    files_without_size = [
        source["file"]
        for path, source in _archives_of_datasets(grid).items()
        if _size_of_archive(path, source) is None
    ]
    if files_without_size:
        sentences.append(f"no size is stated for {', '.join(sorted(files_without_size))}")
    unsized_models = [name for name, model in grid.models.items() if not _size_of_weights(model)]
    if unsized_models:
        sentences.append(
            f"the entries of {', '.join(unsized_models)} do not state parameters, "
            "so their checkpoints are not included"
        )
    return sentences
