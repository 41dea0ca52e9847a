"""What a grid costs before it is run: jobs, images, hours, bytes to fetch and to keep. No torch.

Hours are images over images/s: those measured here, where jobs of a model have run, else stated ones (the catalogue's
throughput.csv: one RTX 3090 at 224 px, timm's benchmark).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rib.catalog import Catalog, Dataset, Model
from rib.data.folders import files_of
from rib.grid import Grid
from rib.io import in_bytes, read_json
from rib.runs import ALL, PRETRAINED, Run, images_of

STATED_SIDE = 224  # pixels at which throughput.csv was measured
FLOAT = 4  # bytes of a stored number
ROW = 16  # bytes of a stored row about one image: 15.8 measured on a million like ImageNet-C's
TRAIN, EVALUATE = "train", "evaluate"


@dataclass
class Plan:
    """Costs of a grid; what can't be known is listed and left out of the sums.

    Attributes:
        jobs: by rule.
        images: passes of an image through a network, by `train` and `evaluate`.
        hours: of one device, likewise; of the models with a known rate.
        rates: by model: images/s of training and evaluation, and where they come from.
        download: bytes to fetch that are not here yet.
        disk: bytes by what they hold.
        unknown: sentences.
    """

    jobs: dict[str, int] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=lambda: {TRAIN: 0, EVALUATE: 0})
    hours: dict[str, float] = field(default_factory=lambda: {TRAIN: 0.0, EVALUATE: 0.0})
    rates: dict[str, tuple[dict[str, float], str]] = field(default_factory=dict)
    download: int = 0
    disk: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def plan(grid: Grid, catalog: Catalog, results: Path) -> Plan:
    """Add up what a grid costs.

    Args:
        grid: resolved.
        catalog: its catalogue.
        results: folder of the family's results, where measured numbers are looked for.
    """
    found = Plan()
    counts = {dataset.name: _images(dataset, catalog, results, found) for dataset in grid.datasets_read()}
    _add_jobs(found, grid)
    _add_bytes(found, grid, counts)
    rates = catalog.table("throughput.csv", ("architecture", EVALUATE, TRAIN), (EVALUATE, TRAIN))
    stated = {row["architecture"]: row for row in rates}
    for name, model in grid.models.items():
        found.rates[name] = _rates(name, model, grid, stated, results)
        if model.pretrain:
            images = model.pretrain["epochs"] * images_of(
                str(model.pretrain["size"]), counts[model.pretrain["dataset"]]
            )
            _add_images(found, name, {TRAIN: images})
    for run in grid.runs():
        _add_run(found, grid, run, counts)
    found.disk["rows per image"] = ROW * found.images[EVALUATE]
    return found


def _images(dataset: Dataset, catalog: Catalog, results: Path, found: Plan) -> int:
    """Images of a dataset: as prepared here, else as its entry says, else as its folder holds."""
    for manifest in sorted(results.glob(f"prepare/{dataset.name}/*/manifest.json")):
        return read_json(manifest)["n"]
    if dataset.images or dataset.about_images:
        return dataset.images or dataset.about_images
    if catalog.families[dataset.family].one_image_per_class:
        return len(catalog.space(dataset).keys)
    if dataset.sources[0]["kind"] == "folder":
        return len(files_of(Path(dataset.sources[0]["path"])))
    found.unknown.append(f"{dataset.label} has an unknown number of images until it is prepared")
    return 0


def _add_jobs(found: Plan, grid: Grid) -> None:
    runs = [run for run in grid.runs() if run.method != PRETRAINED]
    here = sum(model.pretrain is not None for model in grid.models.values())
    trained = sum(grid.methods[run.method].trains for run in runs)
    geometries = {model: grid.geometry(model).key for model in grid.models}
    datasets = grid.datasets_read()
    found.jobs = {
        "download": len(
            {(entry.raw, part["file"]) for entry in (*datasets, *grid.models.values()) for part in entry.sources}
        ),
        "prepare": len({(d.name, _form(d, geometry)) for d in datasets for geometry in geometries.values()}),
        "list_suite": len(grid.suites()) * len(set(geometries.values())),
        **({"split_dataset": len(grid.datasets) * len(set(geometries.values()))} if grid.shares else {}),
        **{rule: n for rule, n in (("convert_model", len(grid.models) - here), ("pretrain_model", here)) if n},
        "finetune": trained,
        "merge": len(runs) - trained,
        "evaluate_run": len(grid.runs()) * len(grid.suites()),
    }


def _form(dataset: Dataset, geometry: str) -> str:
    return geometry if dataset.storage == "array" else dataset.storage


def _add_bytes(found: Plan, grid: Grid, counts: Mapping[str, int]) -> None:
    raw, unsized = 0, []
    sources = {(e.raw, part["file"]): part for e in grid.datasets_read() for part in e.sources}
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
        found.unknown.append(f"nobody states the size of {', '.join(sorted(unsized))}")
    weights = {name: FLOAT * (model.parameters or 0) for name, model in grid.models.items()}
    for name, model in grid.models.items():
        if model.source and not any((Path("data/raw") / name / part["file"]).is_file() for part in model.sources):
            found.download += model.source.get("size", weights[name])
    arrays = {
        (d.name, grid.geometry(model)): counts[d.name] * grid.geometry(model).size ** 2 * 3
        for d in grid.datasets_read()
        if d.storage == "array"
        for model in grid.models
    }
    encoded = sum(part.get("size", 0) for d in grid.datasets_read() if d.storage == "encoded" for part in d.sources)
    runs = [run for run in grid.runs() if run.method != PRETRAINED and grid.methods[run.method].stores == "all"]
    found.disk = {
        "archives": raw,
        "prepared images": sum(arrays.values()) + encoded,
        "pretrained weights": sum((1 + len(model.sources)) * weights[name] for name, model in grid.models.items()),
        "checkpoints, at most": sum(weights[run.model] for run in runs if grid.methods[run.method].trains),
    }
    if missing := [name for name, size in weights.items() if not size]:
        found.unknown.append(
            f"the entries of {', '.join(missing)} don't state parameters, so their checkpoints' size is left out"
        )


def _rates(name: str, model: Model, grid: Grid, stated: Mapping, results: Path) -> tuple[dict[str, float], str]:
    """Images/s of a model in training and evaluation, and where they come from; unknown ones are not there."""
    measured = {
        TRAIN: _measured(results, "finetune", name, lambda manifest: manifest["images"]),
        EVALUATE: _measured(
            results, "evaluate", name, lambda manifest: sum(part["n"] for part in manifest["datasets"].values())
        ),
    }
    measured = {kind: rate for kind, rate in measured.items() if rate}
    if len(measured) == 2 or model.architecture not in stated:
        return measured, "measured here" if measured else "unknown"
    scale = (STATED_SIDE / grid.geometry(name).size) ** 2
    rates = {kind: float(stated[model.architecture][kind]) * scale for kind in (TRAIN, EVALUATE)}
    return {**rates, **measured}, "stated" if not measured else f"measured here for {next(iter(measured))}, else stated"


def _measured(results: Path, stage: str, model: str, images) -> float | None:
    """Images/s of a stage's finished jobs of a model, start-up included."""
    total, seconds = 0, 0.0
    for record in results.glob(f"*/{stage}/{model}/**/*provenance.json"):
        manifest = record.with_name(record.name.replace("provenance.json", "manifest.json"))
        if manifest.is_file():
            total += images(read_json(manifest))
            seconds += read_json(record)["seconds"]
    return total / seconds if seconds else None


def _add_run(found: Plan, grid: Grid, run: Run, counts: Mapping[str, int]) -> None:
    """Images of one run: those it trains on in all epochs, and those it is evaluated on."""
    seen = {name: _seen(grid, name, counts) for name in grid.datasets}
    test = 1 - sum(grid.shares.values()) if grid.shares else 1
    states, epochs, by = 1, 0, TRAIN
    if run.method != PRETRAINED:
        method = grid.methods[run.method]
        states = method.settings["steps"] + 1 if method.form == "curve" else 1
        epochs = grid.training()["epochs"] if method.trains else 0
        if method.trains_on == "features":
            epochs, by = 1, EVALUATE
    passes = {TRAIN: 0, EVALUATE: round(states * test * sum(seen.values()))}
    if epochs:
        passes[by] += epochs * images_of(
            run.size, math.ceil(seen[run.target] * (grid.shares["train"] if grid.shares else 1))
        )
    _add_images(found, run.model, passes)


def _add_images(found: Plan, model: str, passes: Mapping[str, int]) -> None:
    """Passes of images through a model, by kind, and the hours they take."""
    for kind, images in passes.items():
        found.images[kind] += images
        if rate := found.rates[model][0].get(kind):
            found.hours[kind] += images / rate / 3600


def _seen(grid: Grid, name: str, counts: Mapping[str, int]) -> int:
    """Images of a dataset that a run sees: without the part that stands for pretraining, within the budget."""
    images = counts[name]
    if grid.kept_apart(name):
        whole = counts[grid.reference.name] or 1
        classes = len(grid.catalog.space(grid.reference.dataset).keys)
        images = round(images * (1 - min(1, grid.reference.images_per_class * classes / whole)))
    budget = grid.config["budget"]["max_images_per_dataset"]
    return images if budget == ALL else min(images, budget)


def _hours(found: Plan, kind: str) -> str:
    without = [name for name, (rates, _) in found.rates.items() if kind not in rates]
    if len(without) == len(found.rates):
        return "hours unknown"
    return f"{found.hours[kind]:,.1f} hours of one device" + (f", without {', '.join(without)}" if without else "")


def lines(found: Plan, grid: Grid) -> list[str]:
    """A plan as people read it."""
    jobs = ", ".join(f"{count:,} {rule}" for rule, count in found.jobs.items())
    text = [
        f"Family {grid.family.title}: {len(grid.models)} models, {len(grid.methods)} methods, {len(grid.targets)} targets, "
        f"{len(grid.seeds)} seeds, {len(grid.sizes)} sizes; {len(grid.datasets)} datasets in {len(grid.suites())} suites.",
        f"Numbers hang on: {'; '.join(grid.conditions())}.",
        f"Jobs       {sum(found.jobs.values()):,} ({jobs}), and tables, figures and the page",
    ]
    for kind, what in ((TRAIN, "Training"), (EVALUATE, "Evaluation")):
        text.append(f"{what:<11}{found.images[kind]:,} images, {_hours(found, kind)}")
    text.append(f"Download   {in_bytes(found.download)} that are not here yet")
    disk = ", ".join(f"{what} {in_bytes(size)}" for what, size in found.disk.items())
    text.append(f"Disk       {in_bytes(sum(found.disk.values()))} ({disk})")
    text.append("Images/s   of one device (stated: an RTX 3090 in mixed precision, timm's benchmark)")
    for name, (rates, where) in found.rates.items():
        shown = (
            ", ".join(f"{kind} {rate:,.0f}" for kind, rate in rates.items()) or "no jobs have run and none is stated"
        )
        text.append(f"  {name}: {shown} ({where})")
    text += [f"Not known: {sentence}." for sentence in found.unknown]
    return text
