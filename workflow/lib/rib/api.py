"""The benchmark in Python, without Snakemake, by the functions of the workflow's jobs.

`settings` are keys of config.yaml (docs/configuration.md) and `cache`, the folder for downloads and checkpoints, by default the
environment variable RIB_CACHE or else the user's cache folder. What was made with the same settings and code is not made again.
Networks are evaluated and fine-tuned as they were loaded, whatever was done to their weights since.

All functions raise a UserError if a name is unknown or of another family, or a file was damaged or can't be fetched.
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

import pandas as pd
from filelock import FileLock
from platformdirs import user_cache_path
from torch import nn

from rib.analysis import bootstrap, counts, ri, tables
from rib.base.errors import UserError
from rib.base.files import sha256, write_json
from rib.base.plugins import arguments
from rib.base.text import redacted
from rib.config.catalog import PROJECT_CATALOG, Catalog
from rib.config.choices import as_list
from rib.config.entries import EVALUATED, Dataset, Model
from rib.config.grid import resolve_grid
from rib.config.label_space import LabelSpace
from rib.config.run import ALL, NO_TARGET, PRETRAINED, Run
from rib.config.schema import known_name, read_yaml, validated
from rib.data import download, folders, images, prepare, prepared, variables, view
from rib.evaluation import evaluate as evaluation
from rib.evaluation import recipes
from rib.jobs.code_digest import digest
from rib.models import checkpoint, convert, device
from rib.models import network as networks
from rib.records.hashing import differing
from rib.records.integrity import files_of
from rib.training import finetune as training
from rib.training import pretrain

__all__ = ["UserError", "evaluate", "finetune", "list_datasets", "list_methods", "list_models"]
__all__ += ["load_dataset", "load_model", "load_run", "robustness_improvement"]
CACHE = "RIB_CACHE"
# Keys of config.yaml in whose place functions have arguments.
CHOICES = {"datasets": "default", "targets": "default", "methods": [], "seeds": [0], "protocol": "paper"}
OUTPUTS = {  # of jobs, by argument
    **{"images": "images.npy", "index": "index.parquet", "classes": "classes.json", "weights": "weights.safetensors"},
    **{"description": "model.json", "checkpoint": "checkpoint.safetensors", "history": "history.csv"},
    **{"saved": "state.safetensors", "rescue": "rescue.safetensors", "manifest": "manifest.json"},
}


def list_models(family: str | None = None, **settings) -> list[str]:
    """Models of the catalogue, or those meant for a family: `rib.list_models("emoji")`."""
    return [name for name, entry in _catalog(settings, family).models.items() if family in (None, *entry.families)]


def list_datasets(family: str, **settings) -> list[str]:
    """Datasets of a family on which networks are evaluated, without optional ones: `rib.list_datasets("emoji")`."""
    found = (catalog := _catalog(settings, family)).datasets_of(catalog.families[family], *EVALUATED)
    return [name for name, entry in found.items() if not entry.optional]


def list_methods(**settings) -> list[str]:
    """Methods of the catalogue: `rib.list_methods()`."""
    return list(_catalog(settings).methods)


def load_model(name: str, family: str | None = None, **settings) -> nn.Module:
    """A pretrained network in evaluation mode, with a head for a family, by default the first that the model is meant for.

    It takes images (N, 3, size, size) float32, normalised by its attribute `preprocessing` (input_size in pixels; mean and
    std of each RGB channel, in 0..1), and returns logits (N, outputs). Example: `rib.load_model("efficientnet_lite0")`.
    """
    models = _catalog(settings, family).models
    family = family or models[known_name(name, models, "model", "load_model")].families[0]
    stages = _Stages({**settings, "family": family}, name)
    return stages.network(
        Run(name, NO_TARGET, PRETRAINED, ALL, 0), stages.model(), recipes.run_states(PRETRAINED, None)
    )


def load_dataset(name: str, network: nn.Module) -> prepared.PreparedDataset:
    """A dataset as a network sees it: images (n, size, size, 3) uint8, labels (n,) int64, their index and label space.

    Example: `rib.load_dataset("noto", network)`.
    """
    stages = _Stages(network.settings, network.run.model, datasets=[name])
    return view.load_whole(
        **arguments(view.load_whole, {**stages.known, "files": stages.dataset(name)}, stages.workers)
    )


def finetune(network: nn.Module, target: str, method: str = "ft", seed: int = 0, **settings) -> nn.Module:
    """The network that a method makes of a pretrained one on a dataset, in evaluation mode; see `load_model`.

    Methods that it starts from or merges are trained first. Raises a UserError if the method can't be used, has several
    networks, or diverges. Example: `rib.finetune(network, "noto", "lora", training={"epochs": 3})`.
    """
    settings, run = {**network.settings, **settings}, Run(network.run.model, target, method, ALL, seed)
    stages = _Stages(settings, run.model, datasets=[target], targets=[target], methods=[method], seeds=[seed])
    chosen = stages.grid.methods[
        known_name(method, stages.grid.methods, "method with one value of each setting", "finetune")
    ]
    run, parents = replace(run, size=stages.grid.sizes[0]), [method] if chosen.trains else chosen.parents
    checkpoints = {name: stages.checkpoint(replace(run, method=name)) for name in parents}
    states = recipes.run_states(method, None)
    if not chosen.trains:
        algorithm = stages.grid.catalog.algorithm_file(chosen.algorithm)
        states = recipes.merge_states(algorithm, chosen.settings, parents)
    return stages.network(run, stages.model(), states, checkpoints)


def evaluate(network: nn.Module, datasets: Iterable[str]) -> pd.DataFrame:
    """Rows of a network on datasets: one per image, with the columns of rib.evaluation.evaluate.

    Raises a UserError if a logit is not finite. Example: `rib.evaluate(network, ["noto", "openmoji"])`.
    """
    stages, parts = _Stages(network.settings, network.run.model, datasets=list(datasets)), []
    known = {**stages.known, **network.files, "run": network.run, "manifests": []}
    for group in stages.grid.evaluation_groups().values():
        with tempfile.TemporaryDirectory() as folder:
            known |= {"datasets": list(map(stages.dataset, group)), "rows": Path(folder, "rows.parquet")}
            known["manifest"] = Path(folder, OUTPUTS["manifest"])
            evaluation.evaluate(**arguments(evaluation.evaluate, known, stages.workers))
            parts.append(pd.read_parquet(known["rows"]))
    return pd.concat(parts, ignore_index=True)


def robustness_improvement(rows: pd.DataFrame, network: nn.Module) -> tuple[pd.DataFrame, pd.DataFrame]:
    """RI of each run, and mRI of each method, in percentage points with confidence intervals, as in ri.csv and mri.csv.

    Args:
        rows: of `evaluate`, of fine-tuned networks and of those that they started from, on the same datasets, else a UserError.
        network: any of the family, to find the datasets. Example: `rib.robustness_improvement(rows, network)`.
    """
    stages = _Stages(network.settings, network.run.model, datasets=list(rows["dataset"].unique()))
    if missing := set(rows["model"]) - set(rows["model"][rows["method"] == PRETRAINED]):
        raise UserError(f"the rows of the pretrained {min(missing)} are missing; evaluate it on the same datasets.")
    paths = {name: stages.dataset(name).folder / OUTPUTS["index"] for name in stages.grid.datasets}
    indexes = {name: pd.read_parquet(path, columns=counts.INDEX_COLUMNS) for name, path in paths.items()}
    counted, how = counts.count([rows], indexes), stages.grid.config["statistics"]
    weights = bootstrap.object_weights(counted.objects, how["replicates"], how["seed"])
    ood = ri.ood_accuracies(counted, weights, stages.grid.ood, stages.grid.leak_free_groups())
    return tables.ri_table(ood, how["confidence"]), tables.mri_tables(ood, how["confidence"])[0]


def load_run(
    project: str | Path,
    model: str,
    target: str = NO_TARGET,
    method: str = PRETRAINED,
    seed: int = 0,
    size: str = ALL,
    **settings,
) -> tuple[nn.Module, pd.DataFrame]:
    """The network and the rows of a finished run of a project folder, by default those of a pretrained model.

    Settings are those of its config.yaml, unless given. Raises a UserError if the run isn't finished, or is a curve of several
    networks. Example: `rib.load_run(".", "efficientnet_lite0", "noto", "ft")`.
    """
    cache = settings.pop("cache", None)
    config = validated({**read_yaml(Path(project, "config.yaml")), **settings}, "config", f"{project}/config.yaml")
    config["catalog"] = [str(Path(project, folder)) for folder in as_list(config["catalog"])]
    run, results = Run(model, target, method, size, seed), Path(project, "results", config["family"])
    place, folder = results / config["protocol"], results / "models" / model
    recipe = place / f"merge/{run}/recipe.json"
    states = recipes.run_states(method, recipe if recipe.is_file() else None)
    trained = [replace(run, method=name) for name in states[0].weights if name != PRETRAINED]
    checkpoints = {part.method: place / f"finetune/{part}" / OUTPUTS["checkpoint"] for part in trained}
    manifests = [path.with_name("manifest.json") for path in (folder / "model.json", *checkpoints.values())]
    of_rows = sorted((place / f"evaluate/{run}").glob("*.manifest.json"))
    if not of_rows or not all(map(Path.is_file, manifests)):
        raise UserError(f"{project} has no finished run {run} of family {config['family']}; correct a name, or run it.")
    _refuse_changed(*manifests, *of_rows)
    rows = [pd.read_parquet(str(path).replace(".manifest.json", ".parquet")) for path in of_rows]
    own = {key: value for key, value in config.items() if key not in {*CHOICES, "models"}}
    stages = _Stages({**own, "cache": cache}, model)
    return stages.network(run, folder, states, checkpoints), pd.concat(rows, ignore_index=True)


def _catalog(settings: Mapping, family: str | None = None) -> Catalog:
    """The project's catalogue and the user's own; the family, if one is given, must be in it."""
    catalog = Catalog([PROJECT_CATALOG, *as_list(settings.get("catalog", []))])
    if family is not None:
        known_name(family, catalog.families, "family", "catalogue")
    return catalog


def _refuse_changed(*manifests: Path) -> None:
    for manifest in manifests:
        if changed := differing(files_of(manifest), "checking files"):
            raise UserError(f"{changed[0]} was edited or damaged; delete its folder, so that it is made again.")


class _Stages:
    """Stages of the workflow for one model, each run when its outputs are first needed."""

    def __init__(self, settings: Mapping, model: str, **choices):
        config = dict(models=[model], **CHOICES | choices, **settings)
        self.cache = Path(config.pop("cache", None) or os.environ.get(CACHE) or user_cache_path("imagenet-rib"))
        config = validated(config, "config", "settings")
        self.settings, self.name, self.workers = settings, model, config["compute"]["decode_workers"]
        self.grid = resolve_grid(config, _catalog(config))
        self.known = {"view": self.grid.view_of(model), "compute": self.grid.compute()}
        self.known["batch_size"] = config["compute"]["evaluation_batch_size"]
        variables.set_from(config)

    def kept(self, place: str, function: Callable, known: Mapping, *code: str, **outputs: str) -> Path:
        """Folder of the cache with the outputs of a job's function, never unfinished, and compared with their digests.

        Args:
            known: arguments by name, of which the function takes those that it has.
            code: files of code that it loads.
            outputs: names of further outputs, by argument.
        """
        known = arguments(function, {**self.known, **known}, self.workers)
        made_with = [known, digest(Path(inspect.getfile(function)), *map(Path, code))]
        text = redacted(json.dumps(made_with, sort_keys=True, default=str)).replace(str(self.cache), "")
        folder = self.cache / place / hashlib.sha256(text.encode()).hexdigest()[:16]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                part = folder.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                part.mkdir()
                files = {name: part / file for name, file in {**OUTPUTS, **outputs}.items()}
                function(**arguments(function, files) | known)
                for name in ("saved", "manifest"):
                    files[name].unlink(missing_ok=True)
                write_json(files["manifest"], {"files": {path.name: sha256(path) for path in part.iterdir()}})
                part.rename(folder)
        _refuse_changed(folder / OUTPUTS["manifest"])
        return folder

    def archives(self, entry: Dataset | Model) -> list[Path]:
        """Published files of a dataset or model."""
        made = []
        for source in entry.sources:
            given = {
                **folders.with_listing(source, entry.name),
                "urls": self.grid.catalog.urls.get((entry.raw, source["file"])),
            }
            known = {"source": given, "what": entry.name, "partial": self.cache / "partial"}
            made.append(self.kept(f"raw/{entry.raw}", download.download, known, target=source["file"]) / source["file"])
        return made

    def dataset(self, name: str) -> view.DatasetFiles:
        """A dataset at the model's geometry."""
        known = self.grid.preparation(name, self.grid.geometry(self.name))
        of_source = {"name": name, "archives": self.archives(self.grid.catalog.datasets[name])}
        of_source |= {**known, "space": LabelSpace.from_json(known["space"])}
        known["dataset"] = images.DatasetSource(**arguments(images.DatasetSource, of_source))
        known |= {"corrupt_allowed": self.grid.config["corrupt_images"], "workers": self.workers}
        folder = self.kept(f"prepare/{name}", prepare.prepare, known, known["layout"])
        if not self.grid.excludes_proxy(name):
            return view.DatasetFiles(name, folder)
        whole = self.grid.reference.name
        return view.DatasetFiles(name, folder, folder if name == whole else self.dataset(whole).folder)

    def reference(self) -> view.DatasetFiles | None:
        """The dataset with the pretraining proxy, if there is one."""
        return replace(self.dataset(self.grid.reference.name), proxy=None) if self.grid.reference else None

    def model(self) -> Path:
        """Folder of the model, converted or trained here."""
        entry, known = self.grid.models[self.name], self.grid.conversion(self.name)
        if how := entry.pretrain:
            known |= {f"{key}_folder": self.dataset(how[key]).folder for key in ("dataset", "test")}
            return self.kept(f"models/{self.name}", pretrain.pretrain, known)
        known |= {
            "archive": self.archives(entry)[0],
            "reference": self.reference() if known["head"] == "fitted" else None,
        }
        return self.kept(f"models/{self.name}", convert.convert, known)

    def checkpoint(self, run: Run) -> Path:
        """Checkpoint of a run, trained after those that it starts from."""
        method = self.grid.methods[run.method]
        algorithm = str(self.grid.catalog.algorithm_file(method.algorithm))
        known = {"run": run, "model_folder": self.model(), "target": self.dataset(run.target), "algorithm": algorithm}
        known |= {"settings": method.settings, "training": self.grid.training(run.method)}
        known |= {"start": {name: self.checkpoint(replace(run, method=name)) for name in method.parents}}
        known |= {"reference": self.reference() if method.reference != "no" else None}
        return self.kept(f"finetune/{run}", training.finetune, known, algorithm) / OUTPUTS["checkpoint"]

    def network(
        self, run: Run, folder: Path, states: Sequence[recipes.State], checkpoints: Mapping[str, Path] | None = None
    ) -> nn.Module:
        """The network of a run, with what it was made from as attributes."""
        if len(states) > 1:
            raise UserError(f"'{run.method}' is a curve of {len(states)} networks; choose a method with one.")
        network, facts = networks.load(folder, device.start(device.ComputeSettings(**self.known["compute"])))
        network = checkpoint.apply(network, states[0].weights, checkpoints or {}).eval()
        geometry = self.grid.geometry(self.name)
        network.preprocessing = {**facts["preprocessing"], "input_size": geometry.size, "crop_pct": geometry.crop_pct}
        network.files = {"model_folder": folder, "states": states, "checkpoints": checkpoints or {}}
        network.run, network.settings = run, self.settings
        return network
