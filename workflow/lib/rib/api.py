"""The benchmark in Python, without Snakemake, by the functions of the workflow's jobs.

`settings` are keys of config.yaml (docs/configuration.md) and `cache`, the folder for downloads and checkpoints, by default the
environment variable RIB_CACHE or else the user's cache folder. What was made with the same settings and code is not made again.

All functions raise a UserError if a name is unknown or of another family, or a file was changed or can't be fetched.
"""

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import safetensors.torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import nn

from rib.analysis import bootstrap, counts, ri, tables
from rib.base.errors import UserError
from rib.base.files import sha256, write_json
from rib.base.text import redacted
from rib.config.catalog import PROJECT_CATALOG, Catalog
from rib.config.choices import as_list
from rib.config.entries import EVALUATED, Dataset, Model
from rib.config.grid import resolve_grid
from rib.config.label_space import LabelSpace
from rib.config.model_names import LOCK, parse_name, read_lock
from rib.config.run import ALL, NO_TARGET, PRETRAINED, Run, parent_of, run_of
from rib.config.schema import known_name, validated
from rib.config.settings import takes_fisher
from rib.data import download, folders, images, prepare, prepared, variables, view
from rib.evaluation import evaluate as evaluation
from rib.evaluation import fisher as fisher_information
from rib.evaluation.recipes import State, run_states, write_recipe
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.jobs.code_digest import digest
from rib.models import checkpoint, convert, device
from rib.models.merge import Merge
from rib.models.network import load
from rib.records.hashing import differing
from rib.records.integrity import files_of
from rib.training import finetune as training
from rib.training import pretrain
from rib.training.settings import TrainingSettings

__all__ = ["UserError", "evaluate", "finetune", "list_datasets", "list_methods", "list_models"]
__all__ += ["load_dataset", "load_model", "load_run", "robustness_improvement"]
# Keys of config.yaml in whose place functions have arguments.
CHOICES = {"datasets": "default", "targets": "default", "methods": [], "seeds": [0], "protocol": "paper"}
CHOICES |= {"external": []}
# Files of the outputs of jobs, by argument.
OUTPUTS = {name: f"{name}.json" for name in ("classes", "recipe", "manifest")}
OUTPUTS |= {name: f"{name}.safetensors" for name in ("weights", "checkpoint", "rescue", "tower", "tokens", "fisher")}
OUTPUTS |= {"images": "images.npy", "index": "index.parquet", "history": "history.csv"}
OUTPUTS |= {"description": "model.json", "saved": "state.pt"}


def list_models(family: str | None = None, **settings) -> list[str]:
    """Models of the catalogue, or those meant for a family: `rib.list_models("emoji")`."""
    return [name for name, entry in _catalog(settings, family).models.items() if family in (None, *entry.families)]


def list_datasets(family: str, **settings) -> list[str]:
    """Datasets of a family on which networks are evaluated, without optional ones: `rib.list_datasets("emoji")`."""
    catalog = _catalog(settings, family)
    found = catalog.datasets_of(catalog.families[family], *EVALUATED)
    return [name for name, entry in found.items() if not entry.optional]


def list_methods(**settings) -> list[str]:
    """Methods of the catalogue: `rib.list_methods()`."""
    return list(_catalog(settings).methods)


def load_model(name: str, family: str, **settings) -> nn.Module:
    """A pretrained network in evaluation mode, with a head for a family's classes.

    It takes images (N, 3, size, size) float32, normalised by its attribute `preprocessing` (input_size in pixels; mean and
    std of each RGB channel, in 0..1), and returns logits (N, outputs). Example: `rib.load_model("efficientnet_lite0", "emoji")`.
    """
    stages = _Stages({**settings, "family": family, "models": [name]})
    run = Run(stages.name, NO_TARGET, PRETRAINED, ALL, 0)
    return stages.network(run, stages.model(), run_states(PRETRAINED, None), {})


def load_dataset(name: str, network: nn.Module) -> prepared.PreparedDataset:
    """A dataset as a network sees it: images (n, size, size, 3) uint8, labels (n,) int64, their index and label space.

    Example: `rib.load_dataset("noto", network)`.
    """
    stages = _Stages(_settings(network), datasets=[name])
    return view.load_whole(stages.dataset(name), stages.view)


def finetune(network: nn.Module, target: str, method: str = "ft", seed: int = 0, **settings) -> nn.Module:
    """The network that a method makes of a pretrained one on a dataset, in evaluation mode; see `load_model`.

    Methods that it starts from or merges are trained first. Raises a UserError if the method can't be used, has several
    networks, or diverges. Example: `rib.finetune(network, "noto", "lora", training={"epochs": 3})`.
    """
    known = _catalog(_settings(network) | settings).methods
    base = max((name for name in known if f"{method}-".startswith(f"{name}-")), key=len, default=method)
    choices = {"datasets": [target], "targets": [target], "methods": [base], "seeds": [seed]}
    stages = _Stages(_settings(network) | settings, **choices)
    known_name(method, stages.grid.methods, "method with one value of each setting", "finetune")
    stages.current(network)
    run = Run(stages.name, target, method, stages.grid.sizes[0], seed)
    return stages.network(run, stages.model(), *stages.trained(run))


def evaluate(
    network: nn.Module, datasets: Iterable[str], method: str | None = None, target: str | None = None
) -> pd.DataFrame:
    """Rows of a network on datasets: one per image, with the columns of rib.evaluation.evaluate.

    A network that you have trained is scored as it is now; `method` and `target` then name what was done, for RI. Raises a
    UserError if they are missing, or a logit is not finite. Example: `rib.evaluate(network, ["noto", "openmoji"])`.
    """
    stages = _Stages(_settings(network), datasets=as_list(datasets))
    known = {"view": stages.view, "compute": stages.compute, "datasets": [*map(stages.dataset, stages.grid.datasets)]}
    with tempfile.TemporaryDirectory() as folder:
        known |= stages.current(network, method, target, Path(folder, OUTPUTS["checkpoint"]))
        rows, size = Path(folder, "rows.parquet"), stages.grid.config["compute"]["evaluation_batch_size"]
        evaluation.evaluate(**known, manifests=[], batch_size=size, rows=rows, manifest=rows.with_suffix(".json"))
        return pd.read_parquet(rows)


def robustness_improvement(rows: pd.DataFrame, network: nn.Module) -> tuple[pd.DataFrame, pd.DataFrame]:
    """RI of each run, and mRI of each method, in percentage points with confidence intervals, as in ri.csv and mri.csv.

    The rows of `evaluate` are of fine-tuned networks and of those that they started from, on the same datasets, else a
    UserError; the network is any of the family, to find the datasets. Example: `rib.robustness_improvement(rows, network)`.
    """
    stages = _Stages(_settings(network), datasets=list(rows["dataset"].unique()))
    if missing := set(rows["model"]) - set(rows["model"][rows["method"] == PRETRAINED]):
        raise UserError(f"the rows of the pretrained {min(missing)} are missing; evaluate it on the same datasets.")
    paths = {name: stages.dataset(name).folder / OUTPUTS["index"] for name in stages.grid.datasets}
    indexes = {name: pd.read_parquet(path, columns=counts.INDEX_COLUMNS) for name, path in paths.items()}
    counted, how = counts.count(counts.rows_of(rows), indexes), stages.grid.config["statistics"]
    weights = bootstrap.object_weights(counted.objects, how["replicates"], how["seed"])
    ood = ri.ood_accuracies(counted, weights, stages.grid.ood, stages.grid.leak_free_groups())
    return tables.ri_table(ood, how["confidence"]), tables.mri_tables(ood, how["confidence"])[0]


def load_run(project: str | Path, run: str, **settings) -> tuple[nn.Module, pd.DataFrame]:
    """The network and the rows of a finished run of a project folder.

    The run is as in the paths of its results, <family>/<protocol>/<model>/<target>/<method>/<size>/<seed>; the settings are
    those of the project that differ from the family's defaults, such as catalog and image_size. Raises a UserError if
    it has several networks. Example: `rib.load_run(".", "emoji/paper/efficientnet_lite0/noto/ft/all/0")`.
    """
    parts = Path(run).parts
    place, path = Path(project, "results", *parts[:2]), Path(*parts[2:])
    rows = sorted(place.glob(f"evaluate*/{path}/*.parquet"))  # of merges over targets in evaluate_over_targets
    if len(parts) != 7 or not rows:
        raise UserError(f"{project} has no finished run {run}; correct a name, or run it.")
    found, recipe = run_of(rows[0]), place / "merge" / path / OUTPUTS["recipe"]
    states = run_states(found.method, recipe if recipe.is_file() else None)
    trained = {name: replace(found, **parent_of(name)) for name in states[0].weights if name != PRETRAINED}
    checkpoints = {name: place / f"finetune/{part}" / OUTPUTS["checkpoint"] for name, part in trained.items()}
    model = place.parent / "models" / found.model
    manifests = [path.with_name(OUTPUTS["manifest"]) for path in (model / OUTPUTS["weights"], *checkpoints.values())]
    _refuse_changed(*manifests, *(path.with_suffix(".manifest.json") for path in rows))
    records = read_lock(Path(project, LOCK))  # of models by name
    name = next((name for name in records if parse_name(name).short == found.model), found.model)
    stages = _Stages({**settings, "family": parts[0], "models": [name]}, records)
    if isinstance(merge := states[0].weights, Merge):
        file = stages.grid.catalog.algorithm_file(str(merge.algorithm))
        of_images = f"{merge.settings['fisher_images']}.safetensors" if takes_fisher(file) else ""
        fisher = {name: place / f"fisher/{part}" / of_images for name, part in trained.items() if of_images}
        _refuse_changed(*(path.with_suffix(".manifest.json") for path in fisher.values()))
        states = [State(None, replace(merge, algorithm=file, fisher=fisher))]
    return stages.network(found, model, states, checkpoints), pd.concat(map(pd.read_parquet, rows), ignore_index=True)


def _catalog(settings: Mapping, family: str | None = None) -> Catalog:
    """The project's catalogue and the user's own; the family, if one is given, must be in it."""
    validated({key: value for key, value in settings.items() if key != "cache"}, "config", "settings")
    catalog = Catalog([PROJECT_CATALOG, *as_list(settings.get("catalog", []))])
    if family is not None:
        known_name(family, catalog.families, "family", "catalogue")
    return catalog


def _settings(network: nn.Module) -> dict:
    """The settings that a network was loaded with."""
    if not hasattr(network, "settings"):
        kind = type(network).__name__
        raise UserError(f"a {kind} was not loaded by rib; copy its weights into one of rib.load_model.")
    return network.settings


def _refuse_changed(*manifests: Path) -> None:
    for manifest in manifests:
        if changed := differing(files_of(manifest), "checking files") if manifest.is_file() else [manifest]:
            raise UserError(f"{changed[0]} is missing or was changed; delete its folder, and make it again.")


class _Stages:
    """Stages of the workflow for one model, each run when its outputs are first needed."""

    def __init__(self, settings: Mapping, records: Mapping[str, dict] = MappingProxyType({}), **choices):
        if fixed := sorted(settings.keys() & (CHOICES | choices).keys()):
            raise UserError(f"'{fixed[0]}' is an argument of functions, or of the workflow only; leave it out.")
        cache = settings.get("cache") or os.environ.get("RIB_CACHE") or user_cache_path("imagenet-rib")
        self.cache, catalog = Path(str(cache)), _catalog(settings)
        catalog.records.update(records)
        own = {key: value for key, value in settings.items() if key != "cache"}
        config = validated(CHOICES | choices | own, "config", "settings")
        self.settings, self.grid = settings, resolve_grid(config, catalog)
        (self.name,) = self.grid.models
        self.geometry, self.workers = self.grid.geometry(self.name), config["compute"]["decode_workers"]
        self.view = view.DatasetView(**self.grid.view_of(self.name) | {"geometry": self.geometry}, workers=self.workers)
        self.compute = device.ComputeSettings(**self.grid.compute())
        variables.set_from(config)

    def network(self, run: Run, folder: Path, states: Sequence[State], checkpoints: Mapping[str, Path]) -> nn.Module:
        """The network of a run, with what it was made from as attributes."""
        if len(states) > 1:
            raise UserError(f"'{run.method}' is a curve of {len(states)} networks; choose a method with one.")
        network, facts = load(folder, device.start(self.compute))
        network = checkpoint.apply(network, states[0].weights, checkpoints).eval()
        used = {"input_size": self.geometry.size, "crop_pct": self.geometry.crop_pct}
        network.preprocessing, network.run, network.settings = facts["preprocessing"] | used, run, self.settings
        network.files = {"model_folder": folder, "states": states, "checkpoints": checkpoints}
        return network

    def current(
        self, network: nn.Module, method: str | None = None, target: str | None = None, file: Path | None = None
    ):
        """Run, states and checkpoints of a network as it is now; what was trained since it was loaded is written to a file."""
        of, now = {"run": network.run, **network.files}, network.state_dict()
        loaded = self.network(network.run, *network.files.values()).state_dict()
        if now.keys() == loaded.keys() and not checkpoint.changed_tensors(loaded, now):
            return of
        if not (method and target and file):
            raise UserError(
                "the network's weights were changed since it was loaded; to score it, give evaluate a method and a target "
                "as its names; to fine-tune, load it again."
            )
        start = load(network.files["model_folder"], device.start(self.compute))[0].state_dict()
        if now.keys() != start.keys():
            raise UserError("the network has other tensors than the pretrained one; merge adapters into it first.")
        safetensors.torch.save_file(checkpoint.changed_tensors(start, now), file)
        run = replace(network.run, method=method, target=target)
        return of | {"run": run, "states": [State(None, {method: 1.0})], "checkpoints": {method: file}}

    def kept(self, place: str, function: Callable, known: Mapping, *code: str, **outputs: str) -> Path:
        """Folder of the cache with all outputs of a job's function, compared with their digests.

        The function takes those of the `known` arguments that it has, and loads files of `code`; `outputs` are names of
        further outputs, by argument.
        """
        known = {"view": self.view, "compute": self.compute, **known}
        known = {name: known[name] for name in inspect.signature(function).parameters if name in known}
        made_with = [known, digest(Path(inspect.getfile(function)), *map(Path, code))]
        text = redacted(json.dumps(made_with, sort_keys=True, default=repr)).replace(str(self.cache), "")
        folder = self.cache / place / hashlib.sha256(text.encode()).hexdigest()[:16]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                part = folder.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                part.mkdir()
                files = {name: part / file for name, file in {**OUTPUTS, **outputs}.items()}
                of_function = files.keys() & inspect.signature(function).parameters.keys()
                function(**known, **{name: files[name] for name in of_function})
                for name in ("saved", "manifest"):
                    files[name].unlink(missing_ok=True)
                write_json(files["manifest"], {"files": {path.name: sha256(path) for path in part.iterdir()}})
                part.rename(folder)
        _refuse_changed(folder / OUTPUTS["manifest"])
        return folder

    def archives(self, entry: Dataset | Model) -> list[Path]:
        """Published files of a dataset or model."""
        made, known = [], {"what": entry.name, "partial": self.cache / "partial"}
        for source in entry.sources:
            known["source"] = {**source, "urls": self.grid.catalog.urls.get((entry.raw, source["file"]))}
            if source["kind"] == "folder":
                known["source"]["listing"] = folders.listing(Path(source["path"]))
            made.append(self.kept(f"raw/{entry.raw}", download.download, known, target=source["file"]) / source["file"])
        return made

    def dataset(self, name: str) -> view.DatasetFiles:
        """A dataset at the model's geometry."""
        known, entry = self.grid.preparation(name, self.geometry), self.grid.catalog.datasets[name]
        geometry, space = known["geometry"] and self.geometry, LabelSpace.from_json(known["space"])
        named = {key: known[key] for key in ("source_group", "icons", "exclude")}
        known["dataset"] = images.DatasetSource(name, self.archives(entry), space, geometry, **named)
        known |= {"workers": self.workers, "corrupt_allowed": self.grid.config["corrupt_images"]}
        folder, proxy = self.kept(f"prepare/{name}", prepare.prepare, known, known["layout"]), None
        if self.grid.excludes_proxy(name):
            whole = self.grid.reference.dataset.name
            proxy = folder if name == whole else self.dataset(whole).folder
        return view.DatasetFiles(name, folder, proxy)

    def reference(self) -> view.DatasetFiles | None:
        """The dataset with the pretraining proxy, if there is one."""
        return replace(self.dataset(self.grid.reference.dataset.name), proxy=None) if self.grid.reference else None

    def model(self) -> Path:
        """Folder of the model, converted or trained here."""
        entry = self.grid.models[self.name]
        known = {**self.grid.conversion(self.name), "view": self.view, "compute": self.compute}
        if how := entry.pretrain:
            known |= {f"{key}_folder": self.dataset(how[key]).folder for key in ("dataset", "test")}
            return self.kept(f"models/{self.name}", pretrain.pretrain, known)
        known["archives"] = self.archives(entry)
        known["reference"] = self.reference() if known["head"] == "fitted" else None
        return self.kept(f"models/{self.name}", convert.convert, known)

    def text(self) -> Path:
        """Folder of the model's text tower."""
        entry = self.grid.models[self.name]
        known = {**self.grid.conversion(self.name), "archives": self.archives(entry)}
        return self.kept(f"text/{self.name}", convert.store_text, known)

    def trained(self, run: Run) -> tuple[list[State], dict[str, Path]]:
        """States of a run of a method, and the checkpoints that they are made of, by key."""
        method, parents = self.grid.methods[run.method], {}
        for key in self.grid.parents_of(run.method):
            parent = replace(run, **parent_of(key))
            parents[key] = self.trained(parent)[1][parent.method]
        algorithm = str(self.grid.catalog.algorithm_file(method.algorithm))
        known = {"algorithm": algorithm, "settings": method.settings, "parents": list(parents), "start": parents}
        known |= {"run": run, "form": method.form}
        if not method.trains:
            known["manifests"] = [path.with_name(OUTPUTS["manifest"]) for path in parents.values()]
            folder = self.kept(f"merge/{run}", write_recipe, known, algorithm)
            fisher = [self.fisher(run, name, parents) for name in parents if takes_fisher(Path(algorithm))]
            return run_states(run.method, folder / OUTPUTS["recipe"], algorithm, fisher), parents
        known |= {"model_folder": self.model(), "target": self.dataset(run.target)}
        known |= {"reference": self.reference() if method.reference != "no" else None}
        known |= {"text_folder": self.text()} if method.text == "required" else {}
        known["shared_fisher"] = self.shared_fisher(run)
        saving = self.grid.config["compute"]["gradient_checkpointing"]
        known |= {"compute": replace(self.compute, gradient_checkpointing=saving)}
        known |= {"training": TrainingSettings(**self.grid.training(run.method))}
        folder = self.kept(f"finetune/{run}", training.finetune, known, algorithm)
        return run_states(run.method, None), {run.method: folder / OUTPUTS["checkpoint"]}

    def shared_fisher(self, run: Run) -> Path | None:
        """File of the Fisher information that trainings on all targets share, if the run's method has one."""
        if (shared := self.grid.shared_fisher(run.method)) is None:
            return None
        fisher_images, kind = shared
        of = Run(self.name, NO_TARGET, PRETRAINED, ALL, run.seed)
        how = (self.view, 1, self.compute)
        source = RunOnDataset(of, run_states(PRETRAINED, None), {}, self.model(), self.reference(), *how)
        known = {"source": source, "fisher_images": fisher_images, "kind": kind}
        return self.kept(f"fisher/{of}", fisher_information.compute_fisher, known) / OUTPUTS["fisher"]

    def fisher(self, run: Run, parent: str, checkpoints: Mapping[str, Path]) -> Path:
        """File of the Fisher information of a parent of a merge."""
        of = replace(run, **parent_of(parent))
        own = {of.method: checkpoints[parent]}
        data, how = self.dataset(of.target), (self.view, 1, self.compute)
        source = RunOnDataset(of, run_states(of.method, None), own, self.model(), data, *how)
        known = {"source": source, "fisher_images": self.grid.methods[run.method].settings["fisher_images"]}
        return self.kept(f"fisher/{of}", fisher_information.compute_fisher, known) / OUTPUTS["fisher"]
