"""Estimate the cost of a grid before it is run: jobs, images, hours, download and disk space.

Hours are images divided by throughput. Throughput is measured if jobs of the model have run here,
or elsewhere and are recorded in provenance.jsonl; otherwise it is taken from the catalogue's
throughput.csv (timm's benchmark, one RTX 3090 at 224 px), or from that of the other kind of pass.
No torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from rib.base.files import in_bytes, read_json
from rib.base.progress import print_lines
from rib.base.settings import from_params, to_params
from rib.config.compared_runs import compared_runs
from rib.config.entries import Dataset, Model, Pretraining
from rib.config.geometry import Geometry, geometry_of
from rib.config.grid import Grid
from rib.config.memory import GIGA, NetworkMemory
from rib.config.run import ENSEMBLE, PRETRAINED, Run, images_of
from rib.data.folders import files_in
from rib.data.settings import DatasetView
from rib.records import provenance
from rib.training.settings import TrainingSettings

HOUR = 3600
STATED_SIDE = 224  # pixels at which throughput.csv was measured
FLOAT = 4  # bytes of a stored number
ROW = 9  # bytes of a stored row about one image: 8.7 measured on a million like ImageNet-C's
RAW = Path("data/raw")  # archives as published
# Stages, in their order.
PREPARATION = "preparation"
TRAINING = "training"
EVALUATION = "evaluation"
SNAPSHOTS = "snapshots"  # trainings that are repeated, to keep weights in their course
FEATURES = "features"
# Kinds of passes of an image through a network. Passes of optional analyses are called as their
# stages.
TRAIN = "train"
EVALUATE = "evaluate"


@dataclass(frozen=True)
class PassesOfKind:
    """What a plan says of the passes of one kind.

    Attributes:
        title: of their line in the plan.
        as_long_as: the kind whose images/s count for these passes, TRAIN or EVALUATE.
        is_optional: whether only optional analyses need them.
    """

    title: str
    as_long_as: str
    is_optional: bool = False


KINDS = {
    TRAIN: PassesOfKind("Training", as_long_as=TRAIN),
    EVALUATE: PassesOfKind("Evaluation", as_long_as=EVALUATE),
    SNAPSHOTS: PassesOfKind("Snapshots", as_long_as=TRAIN, is_optional=True),
    FEATURES: PassesOfKind("Features", as_long_as=EVALUATE, is_optional=True),
}
# Rules of the jobs in which the rates are measured.
MEASURED_RULES = {TRAIN: "finetune", EVALUATE: "evaluate"}
PASSES_OF_TRAINING = 3.5  # evaluations of an image in the time of training on it: throughput.csv
KEPT_SNAPSHOTS = 10  # in the course of a training (rules/train.smk)
IMPORTED = "import_checkpoint"  # a rule that trains nothing

Gathered = Mapping[str, Sequence[Mapping[str, Any]]]  # records of provenance.jsonl, by path


class FeatureJob(NamedTuple):
    """A job that computes features of a run on a dataset."""

    run: Run
    dataset: str
    networks: int  # through which each image passes: one, or the snapshots of the run


class Throughput(NamedTuple):
    """How many images of a model pass through one device."""

    rates: dict[str, float]  # images/s by kind of pass, without those that are unknown
    origin: str  # a phrase about where the rates come from


@dataclass
class Plan:
    """Costs of a grid; unknown costs are listed and not included in the sums."""

    jobs: dict[str, int] = field(default_factory=dict)  # number by stage
    # Passes of an image through a network, by kind.
    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    # Hours of one device by kind of pass, only of models with known throughput.
    hours: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    rates: dict[str, Throughput] = field(default_factory=dict)  # by model
    download: int = 0  # bytes still to be downloaded
    disk: dict[str, int] = field(default_factory=dict)  # bytes by content
    unknown: list[str] = field(default_factory=list)  # sentences about unknown costs

    def add_passes(self, model: str, kind: str, images: int, hours_factor: float = 1) -> None:
        """Add passes of images through a model, and the hours that they take.

        Args:
            model: name of the model.
            kind: kind of the passes.
            images: number of passes.
            hours_factor: what a pass takes, as a multiple of that of the usual pass of its kind.
        """
        self.images[kind] += images
        rate = self.rates[model].rates.get(KINDS[kind].as_long_as)
        if rate:
            self.hours[kind] += images / rate / HOUR * hours_factor


def print_plan(grid: Grid) -> None:
    """Print the estimated cost of a grid."""
    results = Path("results", grid.family.name)
    print_lines(*lines(plan(grid, results), grid))


def plan(grid: Grid, results: Path) -> Plan:
    """Estimate the cost of a grid.

    Args:
        grid: the grid.
        results: folder with the family's results, in which throughput was measured.
    """
    estimate = Plan(jobs=_jobs_by_stage(grid))
    runs = [*grid.runs(), *grid.runs_over_targets()]
    counts = _image_counts(estimate, grid, results)
    used_images = {name: _used_images(grid, name, counts) for name in counts}
    _add_archives(estimate, grid)
    _add_prepared_images(estimate, grid, counts)
    _add_weights(estimate, grid, runs)
    _add_rates(estimate, grid, results, used_images)
    for name, model in grid.models.items():
        if model.is_trained_here:
            assert model.pretrain is not None
            estimate.add_passes(name, TRAIN, _images_seen_in_pretraining(model.pretrain, counts))
    for run in runs:
        _add_training(estimate, grid, run, used_images, TRAIN)
        _add_evaluation(estimate, grid, run, used_images)
    for run in _runs_with_snapshots(grid):
        _add_training(estimate, grid, run, used_images, SNAPSHOTS)
    for job in _feature_jobs(grid):
        _add_features(estimate, grid, job, used_images)
    _add_shared_fisher(estimate, grid, counts)
    estimate.disk["rows per image"] = ROW * estimate.images[EVALUATE]
    return estimate


# Jobs


def _jobs_by_stage(grid: Grid) -> dict[str, int]:
    """Number of jobs by stage, such as {"preparation": 24, "training": 896, "evaluation": 4585}.

    Jobs that download, convert, merge or make tables, figures and the page are not counted.
    """
    preparations = 0
    for dataset in grid.datasets_read():
        preparations += len(_geometries_of(grid, dataset))
    runs = grid.runs()
    trained_here = sum(model.is_trained_here for model in grid.models.values())
    trained = sum(_is_trained(grid, run) for run in runs)
    shared_fisher = sum(map(len, _shared_fisher(grid).values())) * len(grid.seeds)
    groups = grid.evaluation_groups()
    groups_over_targets = [
        group for group, names in groups.items() if set(names) & set(grid.not_trained_on)
    ]
    evaluations = _evaluated_entries(grid, runs) * len(groups)
    evaluations += _evaluated_entries(grid, grid.runs_over_targets()) * len(groups_over_targets)
    return {
        PREPARATION: preparations,
        TRAINING: trained_here + trained + shared_fisher,
        EVALUATION: evaluations,
        SNAPSHOTS: len(_runs_with_snapshots(grid)),
        FEATURES: len(_feature_jobs(grid)),
    }


def _evaluated_entries(grid: Grid, runs: Iterable[Run]) -> int:
    """Number of entries that runs are evaluated in; runs of one entry share a job."""
    return len({replace(run, method=grid.evaluation_of(run.method)) for run in runs})


def _geometries_of(grid: Grid, dataset: Dataset) -> set[Geometry | None]:
    """Geometries at which a dataset is prepared; only None if its images stay encoded."""
    if dataset.storage == "encoded":
        return {None}
    geometries = map(grid.geometry, grid.models)
    return {geometry_of(dataset.name, geometry, grid.uncropped) for geometry in geometries}


def _is_trained(grid: Grid, run: Run) -> bool:
    return run.method != PRETRAINED and grid.methods[run.method].trains


def _is_chosen(grid: Grid, analysis: str) -> bool:
    """Whether an optional analysis is part of the run."""
    return grid.config["analyses"] == "all" or analysis in grid.config["analyses"]


def _runs_with_snapshots(grid: Grid) -> list[Run]:
    """Runs that are trained once more, to keep weights in the course of training."""
    if not _is_chosen(grid, "epochs"):
        return []
    return [run for run in compared_runs(grid) if _is_trained(grid, run)]


def _feature_jobs(grid: Grid) -> set[FeatureJob]:
    """Jobs of the chosen optional analyses that compute features."""
    pretrained = [run for run in grid.runs() if run.method == PRETRAINED]
    jobs = set()
    if _is_chosen(grid, "representations"):
        for run, dataset in product([*pretrained, *compared_runs(grid)], grid.ood):
            jobs.add(FeatureJob(run, dataset, networks=1))
    if _is_chosen(grid, "epochs"):
        for run, dataset in product(pretrained, grid.ood):
            jobs.add(FeatureJob(run, dataset, networks=1))
        for run, dataset in product(_runs_with_snapshots(grid), grid.ood):
            jobs.add(FeatureJob(run, dataset, networks=KEPT_SNAPSHOTS))
    if _is_chosen(grid, "distances"):
        names = [dataset.name for dataset in grid.datasets_read()]
        for run, name in product(pretrained, names):
            jobs.add(FeatureJob(run, name, networks=1))
    return jobs


def _images_seen_in_pretraining(pretraining: Pretraining, counts: Mapping[str, int]) -> int:
    """Number of images, with repetitions, on which a model is pretrained.

    Args:
        pretraining: `pretrain` of the model's entry.
        counts: number of images by dataset.
    """
    if pretraining.steps is not None:
        return pretraining.steps * pretraining.batch_size
    assert pretraining.epochs is not None  # it has steps or epochs
    images_of_dataset = counts[pretraining.dataset]
    return pretraining.epochs * images_of(str(pretraining.size), images_of_dataset)


# Images


def _image_counts(estimate: Plan, grid: Grid, results: Path) -> dict[str, int]:
    """Number of images of each dataset that is read; unknown ones count as 0 and are listed."""
    counts = {}
    for dataset in grid.datasets_read():
        count = _images_of_dataset(dataset, grid, results)
        if count is None:
            count = 0
            estimate.unknown.append(
                f"{dataset.label} has an unknown number of images until it is prepared"
            )
        counts[dataset.name] = count
    return counts


def _images_of_dataset(dataset: Dataset, grid: Grid, results: Path) -> int | None:
    """Number of images of a dataset, or about that many; None if it is unknown.

    It is known from what is prepared, or else from the entry, or from the number of classes if the
    family has one image of each, or from the files in the dataset's folder.
    """
    # In every geometry it has the same images.
    manifests = sorted(results.glob(f"prepare/{dataset.name}/*/manifest.json"))
    if manifests:
        prepared_images: int = read_json(manifests[0])["n"]
        return prepared_images
    if dataset.images:
        return dataset.images
    if dataset.about_images:
        return dataset.about_images
    if grid.family.one_image_per_class:
        return len(grid.catalog.label_space(dataset).keys)
    first_source = dataset.archives[0]
    if first_source["kind"] == "folder":
        return len(files_in(Path(first_source["path"])))
    return None


def _used_images(grid: Grid, name: str, counts: Mapping[str, int]) -> int:
    """How many images of a dataset a run uses: without the pretraining proxy, within the budget.

    The proxy is images of the reference dataset that stand in for the pretraining data. If they are
    a tenth of it, it is assumed that each dataset that excludes them loses a tenth of its images.
    """
    images = counts[name]
    if grid.excludes_proxy(name):
        assert grid.reference is not None  # it has the proxy
        images_of_reference = max(1, counts[grid.reference.dataset.name])
        share_of_proxy = min(1, _most_images_of_proxy(grid) / images_of_reference)
        images = round(images * (1 - share_of_proxy))
    return grid.budget.images(name, images)


def _most_images_of_proxy(grid: Grid) -> int:
    """Number of images in the pretraining proxy, which stand in for the pretraining data.

    The true number is smaller if a class of the reference dataset has fewer images than the proxy
    takes of each.
    """
    assert grid.reference is not None and grid.reference.images_per_class is not None
    classes = len(grid.catalog.label_space(grid.reference.dataset).keys)
    return grid.reference.images_per_class * classes


def _add_training(
    estimate: Plan, grid: Grid, run: Run, used_images: Mapping[str, int], kind: str
) -> None:
    """Add the images that a run is trained on in all epochs, if it is trained.

    Args:
        kind: of the passes: TRAIN, or SNAPSHOTS if the training is repeated.
    """
    cost_of_training = 1.0
    if run.method != PRETRAINED:
        cost_of_training = grid.methods[run.method].cost_of("training")
    trained_images = _trained_images(grid, run, used_images)
    estimate.add_passes(run.model, kind, trained_images, cost_of_training)


def _add_evaluation(estimate: Plan, grid: Grid, run: Run, used_images: Mapping[str, int]) -> None:
    """Add the images that a run is scored on."""
    datasets = list(grid.datasets)
    if run.method in grid.over_targets:
        datasets = list(grid.not_trained_on)
    evaluated_images = _evaluated_images(grid, run, used_images, datasets)
    estimate.add_passes(run.model, EVALUATE, evaluated_images)


def _add_features(
    estimate: Plan, grid: Grid, job: FeatureJob, used_images: Mapping[str, int]
) -> None:
    """Add the images of which a job computes features."""
    tested_images = round(_test_share(grid) * used_images[job.dataset])
    most_images: int = grid.config["representations"]["images"]
    passes = job.networks * min(most_images, tested_images)
    estimate.add_passes(job.run.model, FEATURES, passes)


def _trained_images(grid: Grid, run: Run, used_images: Mapping[str, int]) -> int:
    """Images that a run is trained on, counted once per epoch; 0 if it is not trained.

    For example 3 epochs on 1000 images are 3000 images.
    """
    method = grid.methods.get(run.method)  # None for the pretrained model
    if method is None or not method.trains:
        return 0
    training = grid.training_of(run.method, run.target, run.size)
    if training["steps"]:
        steps: int = training["steps"]
        batch_size: int = training["batch_size"]
        return steps * batch_size
    train_share = 1.0
    if grid.split_fractions:
        train_share = grid.split_fractions["train"]
    images_of_target = math.ceil(used_images[run.target] * train_share)
    epochs: int = training["epochs"]
    if training["subset_length"] == "steps":  # a subset has as many steps as the whole
        return epochs * images_of_target
    return epochs * images_of(run.size, images_of_target)


def _evaluated_images(
    grid: Grid,
    run: Run,
    used_images: Mapping[str, int],
    datasets: Iterable[str],
) -> int:
    """Images of datasets that pass through a run's networks when it is evaluated."""
    images = sum(used_images[name] for name in datasets)
    return round(_networks_of(grid, run) * _test_share(grid) * images)


def _evaluated_together(grid: Grid, run: Run) -> int:
    """How many methods the job that evaluates a run scores."""
    method = grid.methods.get(run.method)  # None for the pretrained model
    return 1 if method is None else len(method.evaluated)


def _test_share(grid: Grid) -> float:
    """The share of a dataset's images that is in its test split; all without splits."""
    if not grid.split_fractions:
        return 1.0
    return 1 - sum(grid.split_fractions.values())


def _networks_of(grid: Grid, run: Run) -> int:
    """How many networks each image passes through when a run is evaluated.

    A curve has a network at each of its steps and one at its start; an ensemble consists of the
    pretrained network and those of its parents. Other runs have one network.
    """
    method = grid.methods.get(run.method)  # None for the pretrained model
    if method is None:
        return 1
    if method.form == "curve":
        steps: int = method.settings["steps"]
        return steps + 1
    if method.form == ENSEMBLE:
        return 1 + len(method.parents)
    return 1


def _shared_fisher(grid: Grid) -> dict[str, set[tuple[int, str]]]:
    """Fisher information that trainings on all targets share: most images and kind, by model.

    It is computed once for each seed; the kind is such as `sampled`.
    """
    fisher_of_model = {}
    for name in grid.models:
        shared = map(grid.shared_fisher, grid.methods_of(name))
        fisher_of_model[name] = {variant for variant in shared if variant is not None}
    return fisher_of_model


def _add_shared_fisher(estimate: Plan, grid: Grid, counts: Mapping[str, int]) -> None:
    """Add Fisher information that trainings on all targets share."""
    size_on_disk = 0
    for name, variants in _shared_fisher(grid).items():
        for most_images, _kind in sorted(variants):
            images = min(most_images, _images_of_proxy(grid, counts))
            for _seed in grid.seeds:
                size_on_disk += _size_of_weights(grid.models[name])
                estimate.add_passes(name, TRAIN, images)
    if size_on_disk:
        estimate.disk["shared Fisher information"] = size_on_disk


def _images_of_proxy(grid: Grid, counts: Mapping[str, int]) -> int:
    """Images that stand for the pretraining data."""
    assert grid.reference is not None  # it has the proxy
    images = counts[grid.reference.dataset.name]
    if grid.reference.images_per_class is None:
        return images
    return min(images, _most_images_of_proxy(grid))


# Bytes


def _add_archives(estimate: Plan, grid: Grid) -> None:
    """Add the size of all archives of datasets, and what of them and of models is not here yet."""
    size_on_disk = 0
    files_without_size = []
    for path, source in _archives_of_datasets(grid).items():
        size = _size_of_archive(path, source)
        if size is None:
            files_without_size.append(source["file"])
            continue
        size_on_disk += size
        if not path.is_file() and source["kind"] != "folder":
            estimate.download += size
    if files_without_size:
        estimate.unknown.append(f"no size is stated for {', '.join(sorted(files_without_size))}")
    for name, model in grid.models.items():
        if model.source and not (RAW / name / model.archives[0]["file"]).is_file():
            estimate.download += model.archives[0].get("size", _size_of_weights(model))
    estimate.disk["archives"] = size_on_disk


def _archives_of_datasets(grid: Grid) -> dict[Path, Mapping[str, Any]]:
    """Sources of the archives of all datasets, by path, such as data/raw/noto/images.zip.

    Datasets may share archives, which are listed once.
    """
    archives: dict[Path, Mapping[str, Any]] = {}
    for dataset in grid.datasets_read():
        for source in dataset.archives:
            archives[RAW / dataset.raw / source["file"]] = source
    return archives


def _add_prepared_images(estimate: Plan, grid: Grid, counts: Mapping[str, int]) -> None:
    """Add the disk space of prepared images.

    Arrays have three bytes per pixel, and are there once for each size at which models see images.
    Encoded datasets are copies of their archives.
    """
    images_in_arrays = 0
    size_of_encoded = 0
    for dataset in grid.datasets_read():
        if dataset.storage == "array":
            images_in_arrays += counts[dataset.name]
        if dataset.storage == "encoded":
            size_of_encoded += sum(source.get("size", 0) for source in dataset.archives)
    geometries = {grid.geometry(model) for model in grid.models}
    pixels_of_image = sum(geometry.size**2 for geometry in geometries)
    estimate.disk["prepared images"] = 3 * pixels_of_image * images_in_arrays + size_of_encoded


def _add_weights(estimate: Plan, grid: Grid, runs: Sequence[Run]) -> None:
    """Add the disk space of pretrained weights and of the checkpoints of runs."""
    size_of_pretrained = 0
    for model in grid.models.values():
        copies = 2 if model.source else 1  # as published and as converted, or as trained here
        size_of_pretrained += copies * _size_of_weights(model)
    size_of_checkpoints = 0.0
    for run in runs:
        if run.method != PRETRAINED:
            share_of_weights = grid.methods[run.method].cost_of("storage")
            size_of_checkpoints += _size_of_weights(grid.models[run.model]) * share_of_weights
    estimate.disk["pretrained weights"] = size_of_pretrained
    estimate.disk["checkpoints, at most"] = round(size_of_checkpoints)
    unsized_models = [name for name, model in grid.models.items() if not _size_of_weights(model)]
    if unsized_models:
        estimate.unknown.append(
            f"the entries of {', '.join(unsized_models)} do not state parameters, "
            "so their checkpoints are not included"
        )


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


# Throughput


def _add_rates(estimate: Plan, grid: Grid, results: Path, used_images: Mapping[str, int]) -> None:
    """Add the throughput of each model."""
    gathered = provenance.load()
    columns = ("architecture", EVALUATE, TRAIN)
    stated_rates = {
        row["architecture"]: row
        for row in grid.catalog.table("throughput.csv", columns, (EVALUATE, TRAIN))
    }
    for name in grid.models:
        estimate.rates[name] = _throughput(
            measured={
                kind: _measured(results, MEASURED_RULES[kind], name) for kind in MEASURED_RULES
            },
            recorded=_recorded(grid, name, results, used_images, gathered),
            stated=_stated(grid, name, stated_rates),
        )


def _stated(
    grid: Grid, model: str, stated_rates: Mapping[str, Mapping[str, str]]
) -> dict[str, float]:
    """Images/s of a model by kind, as throughput.csv states them, at the model's image size.

    Args:
        grid: the grid.
        model: name of the model.
        stated_rates: rows of throughput.csv by architecture.
    """
    row = stated_rates.get(grid.models[model].architecture)
    if row is None:
        return {}
    scale = (STATED_SIDE / grid.geometry(model).size) ** 2
    return {kind: float(row[kind]) * scale for kind in MEASURED_RULES}


def _throughput(
    measured: Mapping[str, float | None],
    recorded: Mapping[str, float],
    stated: Mapping[str, float],
) -> Throughput:
    """Images/s of a model: as measured here, else as recorded, else as stated, else a guess.

    Args:
        measured: images/s by kind of pass, for example {"train": 100.0, "evaluate": None}.
        recorded: the same, without the kinds that are not known.
        stated: the same.
    """
    rates: dict[str, float] = {}
    origins: dict[str, str] = {}
    for kind in MEASURED_RULES:
        measured_rate = measured[kind]
        if measured_rate:
            rates[kind] = measured_rate
            origins[kind] = "measured here"
        elif kind in recorded:
            rates[kind] = recorded[kind]
            origins[kind] = "as recorded"
        elif kind in stated:
            rates[kind] = stated[kind]
            origins[kind] = "stated"
    if TRAIN not in rates and EVALUATE in rates:
        rates[TRAIN] = rates[EVALUATE] / PASSES_OF_TRAINING
        origins[TRAIN] = "a guess from evaluation"
    elif EVALUATE not in rates and TRAIN in rates:
        rates[EVALUATE] = rates[TRAIN] * PASSES_OF_TRAINING
        origins[EVALUATE] = "a guess from training"
    if not origins:
        return Throughput(rates, "unknown")
    phrases = [f"{kind} {origin}" for kind, origin in origins.items()]
    origin = ", ".join(phrases)
    if len(set(origins.values())) == 1:
        origin = origins[TRAIN]
    return Throughput(rates, origin)


def _measured(results: Path, stage: str, model: str) -> float | None:
    """Images/s of a model's finished jobs of a stage, including start-up; None without any.

    The record of each job states its seconds; the manifest beside it says how many images it
    passed through the network.

    Args:
        results: folder with the family's results, such as results/emoji.
        stage: `finetune` or `evaluate`.
    """
    images = 0
    seconds = 0.0
    for path in results.glob(f"*/{stage}/{model}/**/*provenance.json"):
        manifest = path.with_name(path.name.replace("provenance.json", "manifest.json"))
        record = provenance.read(path) if manifest.is_file() else None
        if record is None or record["rule"] == IMPORTED:
            continue
        facts = read_json(manifest)
        if stage == MEASURED_RULES[TRAIN]:
            images += facts["images"]
        else:
            images += sum(dataset["n"] for dataset in facts["datasets"].values())
        seconds += record["seconds"]
    if not seconds:
        return None
    return images / seconds


def _recorded(
    grid: Grid,
    model: str,
    results: Path,
    used_images: Mapping[str, int],
    gathered: Gathered,
) -> dict[str, float]:
    """Images/s of a model in jobs that ran on other machines, for training and evaluation.

    A record says how many seconds a job took, with its start-up, but not how many images passed
    through the network. That number is known from the grid if the job had the grid's settings and
    datasets, so only such jobs count. A rate is left out if there are none.

    Args:
        grid: the grid.
        model: name of the model.
        results: folder with the family's results, as in the paths of records.
        used_images: images that a run uses, by dataset.
        gathered: records of provenance.jsonl, by path.
    """
    images = {TRAIN: 0, EVALUATE: 0}
    seconds = {TRAIN: 0.0, EVALUATE: 0.0}
    folder = results / grid.config["protocol"]
    for run in grid.runs():
        if run.model != model:
            continue
        for record in _records_of_training(grid, run, folder, gathered):
            images[TRAIN] += _trained_images(grid, run, used_images)
            seconds[TRAIN] += record["seconds"]
        for group, datasets in grid.evaluation_groups().items():
            for record in _records_of_evaluation(grid, run, group, folder, gathered):
                images_of_group = _evaluated_images(grid, run, used_images, datasets)
                images[EVALUATE] += round(grid.share_of_group(group) * images_of_group)
                seconds[EVALUATE] += record["seconds"] / _evaluated_together(grid, run)
    rates = {}
    for kind, images_of_kind in images.items():
        if images_of_kind and seconds[kind]:
            rates[kind] = images_of_kind / seconds[kind]
    return rates


def _records_of_training(
    grid: Grid, run: Run, folder: Path, gathered: Gathered
) -> list[Mapping[str, Any]]:
    """Gathered records of a run's training, if it was trained as the grid says.

    Args:
        folder: that of the grid's protocol, such as results/emoji/paper.
    """
    method = grid.methods.get(run.method)  # None for the pretrained model
    if method is None or not method.trains:
        return []
    names = grid.datasets_of_training(run)
    view = to_params(from_params(DatasetView, grid.view_of(run.model, names)))
    training_of_run = grid.training_of(run.method, run.target, run.size)
    training = to_params(from_params(TrainingSettings, training_of_run))
    path = f"{folder}/finetune/{run}/{provenance.ENDING}"
    return [
        record
        for record in gathered.get(path, ())
        if record["cfg"].get("view") == view and record["cfg"].get("training") == training
    ]


def _records_of_evaluation(
    grid: Grid, run: Run, group: str, folder: Path, gathered: Gathered
) -> list[Mapping[str, Any]]:
    """Gathered records of a run's evaluation on a group of datasets, seen as the grid says.

    Args:
        folder: that of the grid's protocol, such as results/emoji/paper.
    """
    names = grid.evaluation_groups()[group]
    view = to_params(from_params(DatasetView, grid.view_of(run.model, names)))
    evaluation = replace(run, method=grid.evaluation_of(run.method))
    path = f"{folder}/evaluate/{evaluation}/{group}.{provenance.ENDING}"
    return [record for record in gathered.get(path, ()) if record["cfg"].get("view") == view]


# Text


def lines(estimate: Plan, grid: Grid) -> list[str]:
    """Text lines of a plan."""
    jobs = ", ".join(f"{count:,} {stage}" for stage, count in estimate.jobs.items() if count)
    disk = ", ".join(f"{content} {in_bytes(size)}" for content, size in estimate.disk.items())
    text = [
        f"Family {grid.family.title}: {len(grid.models)} models, {len(grid.methods)} methods, "
        f"{len(grid.targets)} targets, {len(grid.seeds)} seeds, {len(grid.sizes)} sizes; "
        f"{len(grid.datasets)} datasets in {len(grid.evaluation_groups())} evaluation groups.",
        f"Numbers depend on: {'; '.join(grid.conditions())}.",
        f"Jobs       {sum(estimate.jobs.values()):,} ({jobs}), and those of downloads, merges, "
        "tables and figures",
        *_lines_of_passes(estimate),
        f"Download   {in_bytes(estimate.download)} not downloaded yet",
        f"Disk       {in_bytes(sum(estimate.disk.values()))} ({disk})",
        "Datasets   published archives and the licence of their images",
    ]
    for dataset in grid.datasets_read():
        has_been_fetched = grid.catalog.datasets[dataset.raw].fetched
        text.append(_line_of_dataset(dataset, has_been_fetched))
    text += [
        "Models     published weights and their licence",
    ]
    text += [_line_of_model(name, model) for name, model in grid.models.items()]
    text.append(
        "Images/s   of one device (stated: an RTX 3090 in mixed precision, timm's benchmark)"
    )
    text += [_line_of_rates(name, rates) for name, rates in estimate.rates.items()]
    text += _lines_of_gpu_memory(grid)
    text += [f"Not known: {sentence}." for sentence in estimate.unknown]
    return text


def _lines_of_passes(estimate: Plan) -> list[str]:
    """Images and hours of each kind of passes; what only optional analyses need if it is made."""
    text = []
    for kind, passes in KINDS.items():
        images = estimate.images[kind]
        if images or not passes.is_optional:
            text.append(f"{passes.title:<10} {images:,} images, {_hours(estimate, kind)}")
    return text


def _line_of_rates(model: str, throughput: Throughput) -> str:
    """Images per second of a model: `  net: train 120, evaluate 420 (measured here)`."""
    rates = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in throughput.rates.items())
    if not rates:
        rates = "no jobs have run and no rate is stated"
    return f"  {model}: {rates} ({throughput.origin})"


def _lines_of_gpu_memory(grid: Grid) -> list[str]:
    """How much memory of a GPU each model needs, if runs may compute on one."""
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


def _line_of_dataset(dataset: Dataset, has_been_fetched: bool) -> str:
    """Size, terms and state of a dataset's archives.

    Args:
        dataset: it may share the archives of another one.
        has_been_fetched: whether we have fetched these archives.
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


def _line_of_model(name: str, model: Model) -> str:
    """Size and terms of a model's published weights."""
    facts = ["trained here"]
    if model.source:
        facts = [in_bytes(model.archives[0].get("size", _size_of_weights(model)))]
    facts.append(model.licence)
    if model.gated:
        facts.append("gated")
    return f"  {name}: {', '.join(facts)}"


def _hours(estimate: Plan, kind: str) -> str:
    """Hours of passes of a kind, with the models that are not included."""
    if not estimate.images[kind]:
        return "0.0 hours of one device"
    models_without_rate = [
        name
        for name, throughput in estimate.rates.items()
        if KINDS[kind].as_long_as not in throughput.rates
    ]
    if len(models_without_rate) == len(estimate.rates):
        return "hours unknown"
    hours = f"{estimate.hours[kind]:,.1f} hours of one device"
    if models_without_rate:
        hours += f", without {', '.join(models_without_rate)}"
    return hours
