"""Estimate the cost of a grid before it is run: jobs, images, hours, download and disk space. No torch.

Hours are images divided by throughput. Throughput is measured if jobs of the model have run here, or
elsewhere and are recorded in provenance.jsonl; otherwise it is taken from the catalogue's
throughput.csv (timm's benchmark, one RTX 3090 at 224 px), or from that of the other kind of pass.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.files import in_bytes, read_json
from rib.base.progress import print_lines
from rib.base.settings import from_params, to_params
from rib.config.catalog import Catalog
from rib.config.entries import Dataset, Model
from rib.config.grid import Grid, resolve_grid
from rib.config.run import ALL, ENSEMBLE, PRETRAINED, Run, images_of
from rib.data.folders import files_of
from rib.data.settings import DatasetView
from rib.records import provenance
from rib.training.settings import TrainingSettings

STATED_SIDE = 224  # pixels at which throughput.csv was measured
FLOAT = 4  # bytes of a stored number
ROW = 9  # bytes of a stored row about one image: 8.7 measured on a million like those of ImageNet-C
TRAIN, EVALUATE = "train", "evaluate"
PASSES_OF_TRAINING = 3.5  # evaluations of an image in the time of training on it: throughput.csv
IMPORTED = "import_checkpoint"  # a rule that trains nothing


@dataclass
class Plan:
    """Costs of a grid; unknown costs are listed and not included in the sums."""

    jobs: dict[str, int] = field(default_factory=dict)  # number by rule
    # Passes of an image through a network, and hours of one device, the latter only of models with known throughput.
    images: dict[str, int] = field(default_factory=lambda: {TRAIN: 0, EVALUATE: 0})
    hours: dict[str, float] = field(default_factory=lambda: {TRAIN: 0.0, EVALUATE: 0.0})
    rates: dict[str, tuple[dict[str, float], str]] = field(
        default_factory=dict
    )  # images/s and their origin, by model
    download: int = 0  # bytes still to be downloaded
    disk: dict[str, int] = field(default_factory=dict)  # bytes by content
    unknown: list[str] = field(default_factory=list)  # sentences about unknown costs


def print_plan(
    config: Mapping, catalog: Sequence[str], results: str, jobs: Mapping[str, int]
) -> None:
    """Print the estimated cost of a grid.

    Args:
        config: config.yaml, validated.
        catalog: catalogue folders.
        results: the family's folder, in which throughput was measured.
        jobs: their number, by rule.
    """
    grid = resolve_grid(config, Catalog(catalog, config["external"]))
    print_lines(*lines(plan(grid, Path(results), jobs), grid))


def plan(grid: Grid, results: Path, jobs: Mapping[str, int]) -> Plan:
    """Estimate the cost of a grid: `jobs` by rule; throughput was measured in `results`, the family's folder."""
    found, runs = Plan(jobs=dict(jobs)), [*grid.runs(), *grid.runs_over_targets()]
    counts = {
        dataset.name: _images(dataset, grid, results, found) for dataset in grid.datasets_read()
    }
    _add_bytes(found, grid, counts, runs)
    rates = grid.catalog.table(
        "throughput.csv", ("architecture", EVALUATE, TRAIN), (EVALUATE, TRAIN)
    )
    stated = {row["architecture"]: row for row in rates}
    seen = {name: _seen(grid, name, counts) for name in grid.datasets}
    gathered = provenance.load()
    for name, model in grid.models.items():
        recorded = _recorded(grid, name, results, seen, gathered)
        found.rates[name] = _rates(name, model, grid, stated, results, recorded)
        if model.pretrain:
            images = images_of(str(model.pretrain["size"]), counts[model.pretrain["dataset"]])
            _add_images(found, name, {TRAIN: model.pretrain["epochs"] * images})
    for run in runs:
        _add_run(found, grid, run, seen)
    if fisher_jobs := _shared_fisher(grid, counts):
        found.disk["shared Fisher information"] = sum(
            FLOAT * (grid.models[name].parameters or 0) for name, _ in fisher_jobs
        )
    for name, images in fisher_jobs:
        _add_images(found, name, {TRAIN: images})
    found.disk["rows per image"] = ROW * found.images[EVALUATE]
    return found


def _images(dataset: Dataset, grid: Grid, results: Path, found: Plan) -> int:
    """Number of images of a dataset: as prepared, else from its entry, else from its folder."""
    for manifest in sorted(results.glob(f"prepare/{dataset.name}/*/manifest.json")):
        return read_json(manifest)["n"]
    if dataset.images or dataset.about_images:
        return dataset.images or dataset.about_images
    if grid.family.one_image_per_class:
        return len(grid.catalog.label_space(dataset).keys)
    if dataset.sources[0]["kind"] == "folder":
        return len(files_of(Path(dataset.sources[0]["path"])))
    found.unknown.append(f"{dataset.label} has an unknown number of images until it is prepared")
    return 0


def _add_bytes(found: Plan, grid: Grid, counts: Mapping[str, int], runs: Sequence[Run]) -> None:
    raw, unsized, datasets = 0, [], grid.datasets_read()
    sources = {(e.raw, part["file"]): part for e in datasets for part in e.sources}
    for (folder, file), part in sources.items():
        here = Path("data/raw") / folder / file
        size = here.stat().st_size if here.is_file() else part.get("size")
        if size is None and part["kind"] == "folder":
            size = sum(path.stat().st_size for path in files_of(Path(part["path"])))
        if size is None:
            unsized.append(file)
        raw += size or 0
        found.download += 0 if here.is_file() or part["kind"] == "folder" else size or 0
    if unsized:
        found.unknown.append(f"no size is stated for {', '.join(sorted(unsized))}")
    weights = {name: FLOAT * (model.parameters or 0) for name, model in grid.models.items()}
    for name, model in grid.models.items():
        if model.source and not (Path("data/raw") / name / model.source["file"]).is_file():
            found.download += model.source.get("size", weights[name])
    images = sum(counts[d.name] for d in datasets if d.storage == "array")
    pixels = sum(geometry.size**2 for geometry in set(map(grid.geometry, grid.models)))
    encoded = sum(
        part.get("size", 0) for d in datasets if d.storage == "encoded" for part in d.sources
    )
    tuned = [run for run in runs if run.method != PRETRAINED]
    stored = sum(weights[run.model] * grid.methods[run.method].cost_of("storage") for run in tuned)
    found.disk = {
        "archives": raw,
        "prepared images": 3 * pixels * images + encoded,
        "pretrained weights": sum(
            (1 + bool(model.source)) * weights[name] for name, model in grid.models.items()
        ),
        "checkpoints, at most": round(stored),
    }
    if missing := ", ".join(name for name, size in weights.items() if not size):
        found.unknown.append(
            f"the entries of {missing} do not state parameters, so their checkpoints are not included"
        )


def _rates(
    name: str,
    model: Model,
    grid: Grid,
    stated: Mapping[str, Mapping],
    results: Path,
    recorded: Mapping[str, float],
) -> tuple[dict[str, float], str]:
    """Images/s of a model in training and evaluation, and their origin.

    Args:
        stated: rows of throughput.csv by architecture.
        results: folder with the family's results.
        recorded: images/s by kind, as in the gathered records.

    Returns:
        Images/s by kind, without those that are unknown; and a phrase about where they come from.
    """
    stages = {TRAIN: "finetune", EVALUATE: "evaluate"}
    rates, origins = {}, {}
    for kind, stage in stages.items():
        if rate := _measured(results, stage, name):
            rates[kind], origins[kind] = rate, "measured here"
        elif kind in recorded:
            rates[kind], origins[kind] = recorded[kind], "as recorded"
        elif model.architecture in stated:
            scale = (STATED_SIDE / grid.geometry(name).size) ** 2
            rates[kind], origins[kind] = float(stated[model.architecture][kind]) * scale, "stated"
    if rates.keys() == {EVALUATE}:
        rates[TRAIN] = rates[EVALUATE] / PASSES_OF_TRAINING
        origins[TRAIN] = "a guess from evaluation"
    elif rates.keys() == {TRAIN}:
        rates[EVALUATE] = rates[TRAIN] * PASSES_OF_TRAINING
        origins[EVALUATE] = "a guess from training"
    if len(set(origins.values())) == 1:
        return rates, origins[TRAIN]
    return rates, ", ".join(f"{kind} {origin}" for kind, origin in origins.items()) or "unknown"


def _recorded(
    grid: Grid,
    model: str,
    results: Path,
    seen: Mapping[str, int],
    gathered: Mapping[str, Sequence[Mapping]],
) -> dict[str, float]:
    """Images/s of a model's runs of this grid that ran elsewhere, by kind, including start-up.

    How many images a run passed stands in files that may not be here, so only runs count whose
    training and images are those of the grid.

    Args:
        results: folder with the family's results, as in the paths of records.
        seen: images that a run uses, by dataset.
        gathered: records of provenance.jsonl, by path.
    """
    images = {TRAIN: 0, EVALUATE: 0}
    seconds = {TRAIN: 0.0, EVALUATE: 0.0}
    folder = results / grid.config["protocol"]
    view = to_params(from_params(DatasetView, grid.view_of(model)))
    for run in grid.runs():
        if run.model != model:
            continue
        method = grid.methods.get(run.method)
        training = None
        if method and method.trains:
            training = to_params(from_params(TrainingSettings, grid.training(run.method)))
        for record in gathered.get(f"{folder}/finetune/{run}/{provenance.ENDING}", ()):
            cfg = record["cfg"]
            if cfg.get("view") == view and cfg.get("training") == training and training:
                images[TRAIN] += _trained_images(grid, run, seen)
                seconds[TRAIN] += record["seconds"]
        for group, datasets in grid.evaluation_groups().items():
            for record in gathered.get(f"{folder}/evaluate/{run}/{group}.{provenance.ENDING}", ()):
                if record["cfg"].get("view") == view:
                    images[EVALUATE] += _evaluated_images(grid, run, seen, datasets)
                    seconds[EVALUATE] += record["seconds"]
    return {kind: images[kind] / seconds[kind] for kind in images if images[kind] and seconds[kind]}


def _measured(results: Path, stage: str, model: str) -> float | None:
    """Images/s of a model's finished jobs of a stage, including start-up."""
    total, seconds = 0, 0.0
    for record in results.glob(f"*/{stage}/{model}/**/*provenance.json"):
        file = record.with_name(record.name.replace("provenance.json", "manifest.json"))
        if file.is_file() and (made := provenance.read(record)) and made["rule"] != IMPORTED:
            facts = read_json(file)
            total += (
                facts["images"]
                if stage == "finetune"
                else sum(d["n"] for d in facts["datasets"].values())
            )
            seconds += made["seconds"]
    return total / seconds if seconds else None


def _add_run(found: Plan, grid: Grid, run: Run, seen: Mapping[str, int]) -> None:
    """Add the images of one run: those it trains on in all epochs, and those it is evaluated on."""
    scored = grid.not_trained_on if run.method in grid.over_targets else grid.datasets
    passes = {
        TRAIN: _trained_images(grid, run, seen),
        EVALUATE: _evaluated_images(grid, run, seen, scored),
    }
    method = grid.methods.get(run.method)  # None for the pretrained model
    _add_images(found, run.model, passes, method.cost_of("training") if method else 1)


def _trained_images(grid: Grid, run: Run, seen: Mapping[str, int]) -> int:
    """Images that a run is trained on, counted once per epoch; 0 if it is not trained."""
    method = grid.methods.get(run.method)
    if not (method and method.trains):
        return 0
    share = grid.split_fractions["train"] if grid.split_fractions else 1
    whole = math.ceil(seen[run.target] * share)
    how = grid.training(run.method)
    if how["steps"]:
        return how["steps"] * how["batch_size"]
    counted = whole if how["subset_length"] == "steps" else images_of(run.size, whole)
    return how["epochs"] * counted


def _evaluated_images(
    grid: Grid,
    run: Run,
    seen: Mapping[str, int],
    datasets: Iterable[str],
) -> int:
    """Images of datasets that pass through a run's networks when it is evaluated."""
    method = grid.methods.get(run.method)
    share = 1 - sum(grid.split_fractions.values()) if grid.split_fractions else 1
    states = method.settings["steps"] + 1 if method and method.form == "curve" else 1
    states += len(method.parents) if method and method.form == ENSEMBLE else 0
    return round(states * share * sum(seen[name] for name in datasets))


def _shared_fisher(grid: Grid, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Model and images of each Fisher information that trainings on all targets share: one per seed and kind."""
    jobs = []
    for model in grid.models:
        shared = {grid.shared_fisher(method) for method in grid.methods_of(model)} - {None}
        images_of_proxy = counts[grid.reference.dataset.name] if shared else 0
        if shared and grid.reference.images_per_class is not None:
            classes = len(grid.catalog.label_space(grid.reference.dataset).keys)
            images_of_proxy = min(images_of_proxy, grid.reference.images_per_class * classes)
        jobs += [
            (model, min(most, images_of_proxy)) for most, _ in sorted(shared) for _ in grid.seeds
        ]
    return jobs


def _add_images(found: Plan, model: str, passes: Mapping[str, int], training: float = 1) -> None:
    """Add passes of images through a model, by kind, and the hours they take; in training as a multiple of ft's."""
    for kind, images in passes.items():
        found.images[kind] += images
        if rate := found.rates[model][0].get(kind):
            found.hours[kind] += images / rate / 3600 * (training if kind == TRAIN else 1)


def _seen(grid: Grid, name: str, counts: Mapping[str, int]) -> int:
    """Images of a dataset that a run uses: without the pretraining proxy, within the budget."""
    images = counts[name]
    if grid.excludes_proxy(name):
        whole = counts[grid.reference.dataset.name] or 1
        classes = len(grid.catalog.label_space(grid.reference.dataset).keys)
        images = round(images * (1 - min(1, grid.reference.images_per_class * classes / whole)))
    budget = grid.config["budget"]["max_images_per_dataset"]
    return images if budget == ALL else min(images, budget)


def _hours(found: Plan, kind: str) -> str:
    if not found.images[kind]:
        return "0.0 hours of one device"
    without = [name for name, (rates, _) in found.rates.items() if kind not in rates]
    if len(without) == len(found.rates):
        return "hours unknown"
    return f"{found.hours[kind]:,.1f} hours of one device" + (
        f", without {', '.join(without)}" if without else ""
    )


def lines(found: Plan, grid: Grid) -> list[str]:
    """Text lines of a plan."""
    jobs = ", ".join(f"{count:,} {rule}" for rule, count in found.jobs.items())
    disk = ", ".join(f"{what} {in_bytes(size)}" for what, size in found.disk.items())
    text = [
        f"Family {grid.family.title}: {len(grid.models)} models, {len(grid.methods)} methods, {len(grid.targets)} targets, "
        f"{len(grid.seeds)} seeds, {len(grid.sizes)} sizes; {len(grid.datasets)} datasets in {len(grid.evaluation_groups())} evaluation groups.",
        f"Numbers depend on: {'; '.join(grid.conditions())}.",
        f"Jobs       {sum(found.jobs.values()):,} ({jobs})",
        f"Training   {found.images[TRAIN]:,} images, {_hours(found, TRAIN)}",
        f"Evaluation {found.images[EVALUATE]:,} images, {_hours(found, EVALUATE)}",
        f"Download   {in_bytes(found.download)} not downloaded yet",
        f"Disk       {in_bytes(sum(found.disk.values()))} ({disk})",
        "Models     published weights and their licence",
    ]
    for name, model in grid.models.items():
        size = model.source and in_bytes(model.source.get("size", FLOAT * (model.parameters or 0)))
        text.append(
            f"  {name}: {', '.join([size or 'trained here', model.licence, *['gated'] * model.gated])}"
        )
    text.append(
        "Images/s   of one device (stated: an RTX 3090 in mixed precision, timm's benchmark)"
    )
    for name, (rates, where) in found.rates.items():
        shown = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in rates.items())
        text.append(f"  {name}: {shown or 'no jobs have run and no rate is stated'} ({where})")
    text += [f"Not known: {sentence}." for sentence in found.unknown]
    return text
