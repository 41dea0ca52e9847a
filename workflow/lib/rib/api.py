"""The benchmark in Python, without Snakemake, by the functions of the workflow's jobs.

`settings` are keys of config.yaml (docs/configuration.md) and `cache`, the folder for downloads and
checkpoints, by default the environment variable RIB_CACHE or else the user's cache folder. What was
made with the same settings and code is not made again. Relative paths are resolved when a function
is called; a network keeps the folders with which it was loaded.

All functions raise a UserError if an argument is of another type, a name is unknown or of another
family, or a file was changed or can't be fetched.
"""

import contextlib
import copy
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import pandas as pd
import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from rib.analysis import bootstrap, counts, ri, row_schema, tables
from rib.analysis.sample_rows import parts_together
from rib.base.errors import UserError
from rib.base.files import read_json, sha256, write_json
from rib.base.locks import locked
from rib.base.settings import from_params, replaced
from rib.base.text import presentable
from rib.config.arguments import path_argument, text_argument, texts_argument, whole_argument
from rib.config.catalog import PROJECT_CATALOG, Catalog
from rib.config.choices import as_list
from rib.config.entries import EVALUATED, Dataset, Model
from rib.config.grid import BEFORE_PART, Grid, resolve_grid
from rib.config.hub_datasets import LOCK as DATASET_LOCK
from rib.config.hub_datasets import HubRepository, read_dataset_lock
from rib.config.label_space import LabelSpace
from rib.config.model_names import LOCK, parse_name, read_lock
from rib.config.run import ALL, NO_TARGET, PRETRAINED, Run, parent_of, run_of
from rib.config.schema import known_name, validated
from rib.config.settings import takes_fisher
from rib.config.sources import content_of
from rib.config.values import show
from rib.data import download, folders, prepare, prepared, variables, view
from rib.data.settings import DatasetView, PreparationSettings
from rib.data.splits import TEST
from rib.evaluation import fisher as fisher_information
from rib.evaluation import merge_files
from rib.evaluation.evaluate import rows_of_networks
from rib.evaluation.merge_files import NetworkState, run_states
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.evaluation.settings import MergeSettings
from rib.jobs.cache_key import cache_key
from rib.jobs.code_digest import digest
from rib.jobs.decode_workers import available_cores, number_of_decode_workers
from rib.models import checkpoint, convert, device
from rib.models.inputs import Inputs
from rib.models.merge import Merge
from rib.models.network import load
from rib.models.settings import ComputeSettings, ConversionSettings, TextSettings
from rib.models.state import for_inference
from rib.models.structure import changed_tensor, has_global_hooks, structural_difference
from rib.records.hashing import differing
from rib.records.integrity import files_of_manifest
from rib.training import finetune as training
from rib.training import pretrain
from rib.training.settings import FineTuningSettings, PretrainingSettings, TrainingSettings

__all__ = ["UserError", "evaluate", "finetune", "list_datasets", "list_methods", "list_models"]
__all__ += ["load_dataset", "load_model", "load_run", "robustness_improvement"]
# Keys of config.yaml in whose place functions have arguments.
CHOICES = {
    "datasets": "default",
    "targets": "default",
    "methods": [],
    "seeds": [0],
    "protocol": "paper",
    "external": [],
}
# Files of the outputs of stages, in folders of the cache as in those of a project.
MANIFEST = "manifest.json"
INDEX = "index.parquet"
CLASSES = "classes.json"
WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.csv"
MERGE_FILE = "merge.json"
FISHER = "fisher.safetensors"
TRAINING_STATE = "state.pt"
RESCUED = "rescue.safetensors"
# Images per forward pass that jobs of Fisher information are given; they choose their own.
FISHER_BATCH = 1
PATHS = ("catalog", "archives")  # settings that are a path or several
NO_RECORDS: Mapping[str, dict[str, Any]] = MappingProxyType({})
NO_REPOSITORIES: Mapping[str, HubRepository] = MappingProxyType({})
# What rib notes of a network, as attributes.
NOTED = ("preprocessing", "run", "settings", "files")
RUN_PATH = "<family>/<protocol>/<model>/<target>/<method>/<size>/<seed>"


class NetworkFiles(TypedDict):
    """What a network was made from: its attribute `files`."""

    model_folder: Path  # of the pretrained model
    states: Sequence[NetworkState]  # one, with the weight of each checkpoint
    checkpoints: Mapping[str, Path]  # by method


def list_models(family: str | None = None, **settings: Any) -> list[str]:
    """Models of the catalogue, or those meant for a family and those of its defaults.

    Example: `rib.list_models("emoji")`.
    """
    if family is None:
        return list(_catalog(_resolved(settings)).models)
    text_argument(family, "family", "a family")
    catalog = _catalog(_resolved(settings), family)
    default_models = catalog.families[family].defaults["models"]
    return [
        name
        for name, entry in catalog.models.items()
        if family in entry.families or name in default_models
    ]


def list_datasets(family: str, **settings: Any) -> list[str]:
    """Datasets of a family on which networks are evaluated, without optional ones.

    Example: `rib.list_datasets("emoji")`.
    """
    text_argument(family, "family", "a family")
    catalog = _catalog(_resolved(settings), family)
    datasets = catalog.datasets_of(catalog.families[family], *EVALUATED)
    return [name for name, entry in datasets.items() if not entry.optional]


def list_methods(**settings: Any) -> list[str]:
    """Methods of the catalogue: `rib.list_methods()`."""
    return list(_catalog(_resolved(settings)).methods)


def load_model(name: str, family: str, **settings: Any) -> nn.Module:
    """A pretrained network in evaluation mode, with a head for a family's classes.

    It takes images (N, 3, size, size) float32, normalised by its attribute `preprocessing`
    (input_size in pixels; mean and std of each RGB channel, in 0..1), and returns logits
    (N, outputs). Example: `rib.load_model("efficientnet_lite0", "emoji")`.
    """
    text_argument(name, "name", "a model")
    text_argument(family, "family", "a family")
    _refuse_arguments(settings, "models")
    stages = _Stages({**_resolved(settings), "family": family, "models": [name]})
    run = Run(stages.name, NO_TARGET, PRETRAINED, ALL, seed=0)
    return stages.network(run, stages.model(), run_states(PRETRAINED, None), {})


def load_dataset(name: str, network: nn.Module) -> prepared.PreparedDataset:
    """A dataset as a network sees it.

    It has images (n, size, size, 3) uint8, labels (n,) int64, their index and label space.
    Example: `rib.load_dataset("noto", network)`.
    """
    text_argument(name, "name", "a dataset")
    stages = _Stages(_settings(network), datasets=[name])
    return view.load_whole(stages.dataset(name), stages.view)


def finetune(
    network: nn.Module, target: str, method: str = "ft", seed: int = 0, **settings: Any
) -> nn.Module:
    """The network that a method makes of a pretrained one on a dataset, in evaluation mode.

    For the network see `load_model`. Methods that it starts from or merges are trained first.
    Raises a UserError if the network was changed since it was loaded or is not a pretrained one, or
    if the method can't be used, has several networks, or diverges.
    Example: `rib.finetune(network, "noto", "lora", training={"epochs": 3})`.
    """
    text_argument(target, "target", "a dataset")
    text_argument(method, "method", "a method")
    whole_argument(seed, "seed")
    _refuse_arguments(settings, "family", "models")
    all_settings = {**_settings(network), **_resolved(settings)}
    entry = _entry_of_method(method, _catalog(all_settings).methods)
    stages = _Stages(
        all_settings, datasets=[target], targets=[target], methods=[entry], seeds=[seed]
    )
    known_name(method, stages.grid.methods, "method with one value of each setting", "finetune")
    stages.refuse_other_than_pretrained(network)
    (size,) = stages.grid.sizes[:1]
    run = Run(stages.name, target, method, size, seed)
    states, checkpoints = stages.trained(run)
    return stages.network(run, stages.model(), states, checkpoints)


def _entry_of_method(method: str, entries: Iterable[str]) -> str:
    """The catalogue entry of a method, which may be a variant with one value of each setting.

    A variant is named after its entry: `lora-rank4` is of the entry `lora`. If several entries
    fit, such as `lora` and `lora-rank4`, it is the longest; without any, it is the name itself.
    """
    fitting_entries = [entry for entry in entries if f"{method}-".startswith(f"{entry}-")]
    return max(fitting_entries, key=len, default=method)


def evaluate(
    network: nn.Module,
    datasets: Iterable[str],
    method: str | None = None,
    target: str | None = None,
) -> pd.DataFrame:
    """Rows of a network on datasets: one per image, with the columns of rib.evaluation.evaluate.

    The given network is scored, in evaluation mode, as it is now: with its weights, modules, hooks
    and attributes of this moment. Nothing is kept, so each call computes. `method` and `target`
    name in the rows, for RI, what was done to it; a network that was changed since rib made it
    needs them. Raises a UserError if they are missing, the network doesn't return logits
    (N, outputs), or one is not finite. Example: `rib.evaluate(network, ["noto", "openmoji"])`.
    """
    names = texts_argument(datasets, "datasets", "datasets")
    stages = _Stages(_settings(network), datasets=names)
    files = _files_of(network)
    reference = stages.network(_run_of(network), **files)
    run = stages.run_of_rows(network, _change(network, reference), method, target)
    chosen_device = device.start(stages.compute)
    _refuse_misplaced(network, chosen_device.type)
    scored_datasets = [
        view.load_dataset(stages.dataset(name), stages.view, TEST) for name in stages.grid.datasets
    ]
    facts = read_json(files["model_folder"] / DESCRIPTION)
    inputs_of_datasets = [
        Inputs.of(dataset, facts["preprocessing"], chosen_device) for dataset in scored_datasets
    ]
    is_as_built = not structural_difference(network, reference, NOTED) and not has_global_hooks()
    with contextlib.ExitStack() as stack:
        if is_as_built:
            weights = files["states"][0].weights
            scored = for_inference(copy.deepcopy(network).eval(), weights, inputs_of_datasets[0])
        else:
            # Fusing BatchNorm is known to change nothing for networks as rib builds them only.
            scored = stack.enter_context(_in_evaluation_mode(network))
        rows = rows_of_networks(
            run,
            alphas=[None],
            networks=[_checked_logits(scored, facts["num_classes"])],
            datasets=scored_datasets,
            inputs_of_datasets=inputs_of_datasets,
            evaluation_batch_size=stages.grid.config["compute"]["evaluation_batch_size"],
        )
    table: pd.DataFrame = rows.to_pandas()
    return table


def robustness_improvement(
    rows: pd.DataFrame, network: nn.Module
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """RI of each run, and mRI of each method, as in ri.csv and mri.csv.

    They are in percentage points, with confidence intervals. RI is the mean change of accuracy over
    the out-of-distribution datasets other than the target; datasets in distribution do not count.

    The rows of `evaluate` are of fine-tuned networks and of those that they started from, on the
    same images; a UserError names the column and the row of what is missing, of another type, out
    of range or there twice. The network is any of the family, to find the datasets.
    Example: `rib.robustness_improvement(rows, network)`.
    """
    rows = row_schema.checked_rows(rows)
    stages = _Stages(_settings(network), datasets=rows["dataset"].unique().tolist())
    folder_of = {name: stages.dataset(name).folder for name in stages.grid.datasets}
    source_groups = stages.grid.leak_free_groups()
    index_paths = [folder / INDEX for folder in folder_of.values()]
    objects_of = counts.read_objects(index_paths, source_groups)
    _refuse_rows_of_other_images(rows, objects_of, folder_of)
    counts_of_runs = counts.count(counts.rows_of(rows), objects_of)
    statistics = stages.grid.config["statistics"]
    weights = bootstrap.object_weights(
        counts_of_runs.objects, statistics["replicates"], statistics["seed"]
    )
    accuracies = ri.ood_accuracies(counts_of_runs, weights, stages.grid.ood, source_groups)
    ri_table = tables.ri_table(accuracies, statistics["confidence"])
    mri_table, _ = tables.mri_tables(accuracies, statistics["confidence"])
    return ri_table, mri_table


def _refuse_rows_of_other_images(
    rows: pd.DataFrame, objects_of: Mapping[str, Sized], folder_of: Mapping[str, Path]
) -> None:
    """Raise a UserError if rows are of images or classes that their dataset does not have.

    Args:
        rows: as from `evaluate`.
        objects_of: the object of each image, by dataset.
        folder_of: prepared folder of each dataset.
    """
    images_of = {name: len(objects) for name, objects in objects_of.items()}
    classes_of = {}
    for name, folder in folder_of.items():
        space = LabelSpace.from_json(read_json(folder / CLASSES))
        classes_of[name] = len(space.keys)
    row_schema.check_upper_limits(rows, images_of, classes_of)


def load_run(project: str | Path, run: str, **settings: Any) -> tuple[nn.Module, pd.DataFrame]:
    """The network and the rows of a finished run of a project folder.

    The run is as in the paths of its results, without wildcards:
    <family>/<protocol>/<model>/<target>/<method>/<size>/<seed>. The settings are those of the
    project that differ from the family's defaults, such as catalog and image_size. Raises a
    UserError if there is no such run or it has several networks.
    Example: `rib.load_run(".", "emoji/paper/efficientnet_lite0/noto/ft/all/0")`.
    """
    project = path_argument(project, "project")
    text_argument(str(run) if isinstance(run, Path) else run, "run", "a run")
    _refuse_arguments(settings, "family", "models")
    stages_folder, finished_run, rows = _finished_run(project, Path(run))
    merge_file = stages_folder / "merge" / str(finished_run) / MERGE_FILE
    states = run_states(finished_run.method, merge_file if merge_file.is_file() else None)
    parents = {
        key: _run_of_parent(finished_run, key) for key in states[0].weights if key != PRETRAINED
    }
    checkpoints = {
        key: stages_folder / "finetune" / str(parent) / CHECKPOINT
        for key, parent in parents.items()
    }
    model_folder = stages_folder.parent / "models" / finished_run.model
    _refuse_changed(
        model_folder / MANIFEST,
        *(path.with_name(MANIFEST) for path in checkpoints.values()),
        *(path.with_suffix(".manifest.json") for path in rows),
    )
    records = read_lock(project / LOCK)  # of models by name
    repositories = read_dataset_lock(project / DATASET_LOCK)  # of datasets on the hub by name
    name = _name_in_records(finished_run.model, records)
    family = stages_folder.parent.name
    settings_of_run = {**_resolved(settings), "family": family, "models": [name]}
    stages = _Stages(settings_of_run, records, repositories)
    merge = states[0].weights
    if isinstance(merge, Merge):
        merge = _merge_of_project(merge, parents, stages_folder / "fisher", stages.grid.catalog)
        states = [NetworkState(None, merge)]
    _refuse_missing_parts(stages.grid, rows)
    table = _rows_in_order(rows)
    return stages.network(finished_run, model_folder, states, checkpoints), table


def _rows_in_order(files: Sequence[Path]) -> pd.DataFrame:
    """The rows of a run as jobs without parts would have written them.

    Args:
        files: one for each evaluation group, sorted, so that those of the parts of a dataset come
            one after the other.
    """
    tables = []
    for _, parts in itertools.groupby(files, key=_group_without_part):
        tables.append(parts_together([pd.read_parquet(path) for path in parts]))
    # Grids with other evaluation groups, or without parts, may have left the same rows again.
    rows = pd.concat(tables).drop_duplicates(ignore_index=True)
    is_twice = rows.duplicated(["dataset", "alpha", "row"])
    if is_twice.any():
        dataset = rows["dataset"][is_twice].iloc[0]
        raise UserError(
            f"{files[0].parent}: rows of the same images of {dataset} differ between files; delete "
            "those that are out of date, and run the workflow again."
        )
    return rows


def _refuse_missing_parts(grid: Grid, files: Sequence[Path]) -> None:
    """Raise a UserError if a run has rows of some parts of a dataset, and not of all.

    Args:
        files: the rows of a run, one file for each evaluation group.
    """
    names = {path.stem for path in files}
    for dataset in grid.datasets:
        groups = grid.groups_of(dataset)
        missing_groups = [group for group in groups if group not in names]
        has_whole_dataset = _group_without_part(Path(groups[0])) in names
        if missing_groups and len(missing_groups) < len(groups) and not has_whole_dataset:
            raise UserError(
                f"{files[0].parent}: there are no rows of {', '.join(missing_groups)}; run the "
                "workflow again."
            )


def _group_without_part(rows: Path) -> str:
    """Name of the evaluation group of a file of rows, without that of a part of its dataset."""
    return rows.stem.partition(BEFORE_PART)[0]


def _run_of_parent(run: Run, key: str) -> Run:
    """The run of a merge's parent: that of the merge, except for what the parent's key says.

    Of the merge net/red/soup/all/0, the parent with the key `ft, seed 1` is net/red/ft/all/1.
    """
    differences: dict[str, Any] = {**parent_of(key)}  # texts, and the number of a seed
    return replace(run, **differences)


def _name_in_records(model: str, records: Iterable[str]) -> str:
    """The name of a model in the project's records, from its name in paths of results.

    The two differ for a model that was named by its repository, of which paths have a short name.
    A model without a record is in the catalogue, under the name that it has in paths.
    """
    for name in records:
        if parse_name(name).short == model:
            return name
    return model


def _merge_of_project(
    merge: Merge, parents: Mapping[str, Run], fisher_folder: Path, catalog: Catalog
) -> Merge:
    """A merge that is computed on loading, with its files in a project's folder.

    They are the file of its algorithm, and those of its parents' Fisher information if the
    algorithm takes it. Raises a UserError if one of the latter is missing or was changed.

    Args:
        merge: as its file describes it, without files.
        parents: the runs that are merged, by key.
        fisher_folder: folder of the project's Fisher information.
        catalog: in which the algorithm is found by its name.
    """
    algorithm = catalog.algorithm_file(str(merge.algorithm))
    fisher = {}
    if takes_fisher(algorithm):
        file = f"{merge.settings['fisher_images']}.safetensors"
        fisher = {key: fisher_folder / str(parent) / file for key, parent in parents.items()}
    _refuse_changed(*(path.with_suffix(".manifest.json") for path in fisher.values()))
    return replace(merge, algorithm=algorithm, fisher=fisher)


def _finished_run(project: Path, name: Path) -> tuple[Path, Run, list[Path]]:
    """Where a run's results are in a project.

    Args:
        project: folder of the project.
        name: of the run, such as emoji/paper/efficientnet_lite0/noto/ft/all/0 (see RUN_PATH).

    Returns:
        The folder of the protocol, such as results/emoji/paper; the run; and its rows, which are
        Parquet files, one for each evaluation group.

    Raises:
        UserError: the run is not named in full, or the project has no rows of it.
    """
    missing = UserError(f"{project} has no finished run {name}; name it as {RUN_PATH}, or run it.")
    is_complete = len(name.parts) == len(Path(RUN_PATH).parts)
    leaves_project = ".." in name.parts or name.is_absolute()
    if not is_complete or leaves_project or not name.name.isdecimal():
        raise missing
    family, protocol, *folders_of_run = name.parts
    stages_folder = project / "results" / family / protocol
    rows: list[Path] = []
    try:
        # Merges over targets are in a folder of their own.
        for stage in ("evaluate", "evaluate_over_targets"):
            folder = stages_folder.joinpath(stage, *folders_of_run)
            if folder.is_dir():
                rows += sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
    except OSError as error:  # a name is too long, or a folder not readable
        raise missing from error
    if not rows:
        raise missing
    return stages_folder, run_of(rows[0]), rows


def _resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with absolute paths: {"catalog": "~/mine"} gives {"catalog": "/home/me/mine"}.

    Paths of another type are left for the schema of the settings to refuse. A cache of None is left
    out.
    """
    resolved = dict(settings)
    if resolved.get("cache") is None:
        resolved.pop("cache", None)
    else:
        resolved["cache"] = str(path_argument(resolved["cache"], "cache"))
    for key in PATHS:
        path_or_paths = resolved.get(key)
        if _is_path(path_or_paths):
            resolved[key] = str(path_argument(path_or_paths, key))
        elif isinstance(path_or_paths, list | tuple) and all(map(_is_path, path_or_paths)):
            resolved[key] = [str(path_argument(path, key)) for path in path_or_paths]
    return resolved


def _is_path(setting: object) -> bool:
    """Whether a setting can be a path."""
    return isinstance(setting, str | os.PathLike)


def _refuse_arguments(settings: Mapping[str, Any], *names: str) -> None:
    """Raise a UserError if settings have what is an argument of functions, or not for them."""
    for name in sorted(settings.keys() & set(names)):
        raise UserError(
            f"'{name}' is an argument of functions, or of the workflow only; leave it out."
        )


def _catalog(settings: Mapping[str, Any], family: str | None = None) -> Catalog:
    """The project's catalogue and the user's own; the family, if one is given, must be in it."""
    validated(_without_cache(settings), "config", "settings")
    own_folders = [Path(folder) for folder in as_list(settings.get("catalog", []))]
    catalog = Catalog([PROJECT_CATALOG, *own_folders])
    if family is not None:
        known_name(family, catalog.families, "family", "catalogue")
    return catalog


def _without_cache(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are keys of config.yaml: all but the folder of the cache."""
    return {key: setting for key, setting in settings.items() if key != "cache"}


def _settings(network: nn.Module) -> dict[str, Any]:
    """The settings that a network was loaded with; a UserError if it was not loaded by rib."""
    if not isinstance(network, nn.Module) or not isinstance(getattr(network, "run", None), Run):
        class_name = type(network).__name__
        raise UserError(
            f"a {class_name} was not loaded by rib; copy its weights into one of rib.load_model."
        )
    settings: dict[str, Any] = vars(network)["settings"]
    return settings


def _run_of(network: nn.Module) -> Run:
    """The run that a network was loaded as."""
    run: Run = vars(network)["run"]
    return run


def _files_of(network: nn.Module) -> NetworkFiles:
    """The files that a network was made from when it was loaded."""
    files: NetworkFiles = vars(network)["files"]
    return files


def _change(network: nn.Module, reference: nn.Module) -> str | None:
    """A clause on what a network differs in from the reference, which it was when it was loaded.

    It is None if they don't differ.
    """
    difference = structural_difference(network, reference, NOTED)
    if difference:
        return f"the network was changed since it was loaded ({difference})"
    tensor = changed_tensor(network, reference)
    if tensor:
        return f"the network's weights were changed since it was loaded ('{tensor}')"
    if has_global_hooks():
        return (
            "the network was changed since it was loaded (torch has forward hooks of all modules)"
        )
    return None


def _refuse_misplaced(network: nn.Module, kind: str) -> None:
    """Raise a UserError if a network can't take images (float32) on a kind of device."""
    tensors = [*network.parameters(), *network.buffers()]
    for tensor in tensors:
        if tensor.device.type != kind:
            raise UserError(
                f"the network has tensors on {tensor.device.type}, but computes on {kind} "
                f"(compute.device); call network.to('{kind}') first."
            )
    types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if types and torch.float32 not in types:
        raise UserError(
            "the network's weights are not float32, as its images are; call network.float() first."
        )


@contextlib.contextmanager
def _in_evaluation_mode(network: nn.Module) -> Iterator[nn.Module]:
    """The network itself in evaluation mode; each of its modules is then in its mode of before."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training


def _checked_logits(network: nn.Module, outputs: int) -> Callable[[Tensor], Tensor]:
    """A network's function, with a UserError if it doesn't return logits (N, outputs)."""

    def logits_of(pixels: Tensor) -> Tensor:
        """Logits (N, outputs) of images (N, 3, H, W); a UserError for anything else."""
        logits = network(pixels)
        wanted = (len(pixels), outputs)
        if isinstance(logits, Tensor) and logits.shape == wanted:
            return logits
        if isinstance(logits, Tensor):
            returned = f"{tuple(logits.shape)}"
        else:
            returned = f"a {type(logits).__name__}"
        raise UserError(
            f"of {len(pixels)} images the network returns {returned}; let it return logits "
            f"{wanted}, as it did when it was loaded."
        )

    return logits_of


def _cache_folder(settings: Mapping[str, Any]) -> Path:
    """The folder of the cache: that of the settings, else of RIB_CACHE, else the user's own."""
    folder = settings.get("cache")
    if not folder:
        folder = os.environ.get("RIB_CACHE")
    if not folder:
        folder = user_cache_path("imagenet-rib")
    return path_argument(folder, "cache")


def _make_folder(folder: Path, make: Callable[[Path], None]) -> None:
    """Make a folder of the cache, which gets its name only when all of its files are complete.

    Args:
        folder: the folder, which does not exist.
        make: writes the files into an empty folder.
    """
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir()
    make(unfinished)
    # In place of the stage's own manifest; the training has ended.
    (unfinished / MANIFEST).unlink(missing_ok=True)
    (unfinished / TRAINING_STATE).unlink(missing_ok=True)
    digests = {path.name: sha256(path) for path in unfinished.iterdir()}
    write_json(unfinished / MANIFEST, {"files": digests})
    unfinished.rename(folder)


def _refuse_changed(*manifests: Path) -> None:
    """Raise a UserError if a manifest is missing, or a file that it lists is missing or changed."""
    for manifest in manifests:
        changed = [manifest]
        if manifest.is_file():
            changed = differing(files_of_manifest(manifest), "checking files")
        if changed:
            raise UserError(
                f"{changed[0]} is missing or was changed; delete its folder, and make it again."
            )


class _Stages:
    """Stages of the workflow for one model, each run when its outputs are first needed."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        records: Mapping[str, dict[str, Any]] = NO_RECORDS,
        repositories: Mapping[str, HubRepository] = NO_REPOSITORIES,
        **choices: Any,
    ):
        """Stages with settings, among them family and models.

        Args:
            settings: see `_resolved`.
            choices: settings that are arguments of functions.
            records: facts of models by name, besides those of the catalogue.
            repositories: of datasets on the hub by name, besides those of the catalogue.
        """
        _refuse_arguments(settings, *CHOICES, *choices)
        self.cache = _cache_folder(settings)
        self.settings = {**settings, "cache": str(self.cache)}
        catalog = _catalog(settings)
        catalog.records.update(records)
        if repositories:
            catalog.hub_repositories.update(repositories)
        all_choices = {**CHOICES, **choices, **_without_cache(settings)}
        config = validated(all_choices, "config", "settings")
        self.grid = resolve_grid(config, catalog)
        (self.name,) = self.grid.models
        self.geometry = self.grid.geometry(self.name)
        self.decode_workers = number_of_decode_workers(
            config["compute"]["decode_workers"],
            cores=available_cores(),
            gpus=0 if config["compute"]["device"] == "cpu" else torch.cuda.device_count(),
        )
        datasets_read = [dataset.name for dataset in self.grid.datasets_read()]
        self.view = from_params(DatasetView, self.grid.view_of(self.name, datasets_read))
        self.compute = from_params(ComputeSettings, self.grid.compute())
        variables.set_from(config)

    def network(
        self,
        run: Run,
        model_folder: Path,
        states: Sequence[NetworkState],
        checkpoints: Mapping[str, Path],
    ) -> nn.Module:
        """The network of a run, with what it was made from as attributes."""
        if len(states) > 1:
            raise UserError(
                f"'{run.method}' is a curve of {len(states)} networks; choose a method with one."
            )
        pretrained, facts = load(model_folder, device.start(self.compute))
        network = checkpoint.apply(pretrained, states[0].weights, checkpoints).eval()
        notes: Any = network  # torch types all attributes of a module as tensors or modules
        notes.preprocessing = {
            **facts["preprocessing"],
            # of this project, in place of those of the published weights
            "input_size": self.geometry.size,
            "crop_pct": self.geometry.crop_pct,
        }
        notes.run = run
        notes.settings = self.settings
        notes.files = NetworkFiles(
            model_folder=model_folder, states=states, checkpoints=checkpoints
        )
        return network

    def refuse_other_than_pretrained(self, network: nn.Module) -> None:
        """Raise a UserError unless training would start from the network as it is.

        Training starts from the files of the pretrained model, so the network must be that model,
        unchanged.
        """
        run = _run_of(network)
        if run.method != PRETRAINED:
            raise UserError(
                f"the network is that of {run}, but methods start from pretrained ones; "
                "give finetune a network of rib.load_model."
            )
        pretrained_network = self.network(run, **_files_of(network))
        change = _change(network, pretrained_network)
        if change:
            raise UserError(f"{change}; to fine-tune, load it again with rib.load_model.")

    def run_of_rows(
        self, network: nn.Module, change: str | None, method: str | None, target: str | None
    ) -> Run:
        """What the rows of a network are called: what it was made as, or what the user calls it.

        Args:
            network: as rib made it, or changed since.
            change: what was changed since the network was made, if anything was.
            method: what the user calls that which was done to the network, if it was named.
            target: the dataset that the user says it was trained on, if it was named.
        """
        if method is None and target is None:
            if change:
                raise UserError(
                    f"{change}; to score it, give evaluate a method and a target as its names."
                )
            return _run_of(network)
        method = text_argument(
            method, "method", "what was done to the network, along with the target"
        )
        target = text_argument(
            target, "target", "the dataset that it was trained on, along with the method"
        )
        if method == PRETRAINED or not presentable(method):
            raise UserError(
                f"'method' is {show(method)}, which can't be the name of what was done; "
                "choose another."
            )
        known_targets = self.grid.catalog.datasets_of(self.grid.family, *EVALUATED)
        known_name(target, known_targets, "target", "evaluate")
        return replace(_run_of(network), method=method, target=target)

    def kept(
        self, place: str, made_with: Mapping[str, object], make: Callable[[Path], None]
    ) -> Path:
        """Folder of the cache with all outputs of a stage; they are made if they are not there.

        The folder of the place `finetune/net/red/ft/all/0` is `finetune/net/red/ft/all/0/<key>`,
        in which the key is a hash of what the outputs are made with. A manifest in the folder has
        the hash of each file. Raises a UserError if a file was changed since.

        Args:
            place: the folder's place in the cache, without its key.
            made_with: all that the outputs depend on (see rib.jobs.cache_key).
            make: writes the outputs into an empty folder.
        """
        folder = self.cache / place / cache_key(made_with, self.cache)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder.parent} can't be made ({error.strerror}); choose another folder as cache."
            ) from error
        with locked(Path(f"{folder}.lock")):
            if not folder.exists():
                _make_folder(folder, make)
        _refuse_changed(folder / MANIFEST)
        return folder

    def archives(self, entry: Dataset | Model) -> list[Path]:
        """Published files of a dataset or model."""
        return [self.archive(entry, source) for source in entry.sources]

    def archive(self, entry: Dataset | Model, source: Mapping[str, Any]) -> Path:
        """A published file of a dataset or model.

        Args:
            entry: the dataset or model.
            source: where the file comes from, one of the entry's `sources`.
        """
        source = dict(source)
        file: str = source["file"]
        if source["kind"] == "folder":
            source["listing"] = folders.listing(Path(source["path"]))
        with_addresses = self.grid.catalog.with_addresses(entry.raw, source)

        def make(folder: Path) -> None:
            """Download the file into a folder of the cache."""
            download.download(
                # With the full addresses, which may contain passwords; the cache's key has none.
                source=with_addresses,
                target=folder / file,
                what=entry.name,
                partial=self.cache / "partial",
            )

        made_with = {"source": content_of(source), "code": digest(Path(download.__file__))}
        folder = self.kept(f"raw/{entry.raw}", made_with, make)
        return folder / file

    def dataset(self, name: str) -> view.DatasetFiles:
        """Files of a dataset, prepared for the input size of the model, in the cache.

        If it contains images of the pretraining proxy, which stand in for the pretraining data,
        these are left out whenever it is read. `proxy` is then the folder of the dataset that the
        proxy is a part of; otherwise it is None.
        """
        folder = self._prepared_folder(name)
        return view.DatasetFiles(
            name,
            folder,
            proxy=self._folder_with_proxy(name, folder),
            decode_workers=self.decode_workers,
        )

    def _prepared_folder(self, name: str) -> Path:
        """Folder of a dataset's images at the input size of the model, in the cache."""
        entry = self.grid.catalog.datasets[name]
        fields = self.grid.preparation(name, self.geometry)
        layouts = [Path(fields["layout"])]
        if fields["photos_layout"]:
            layouts.append(Path(fields["photos_layout"]))
        settings = PreparationSettings(**fields, code=digest(Path(prepare.__file__), *layouts))
        archives = self.archives(entry)
        corrupt_allowed = self.grid.config["corrupt_images"]

        def make(folder: Path) -> None:
            """Prepare the images of the dataset in a folder of the cache."""
            prepare.prepare(
                name=name,
                archives=archives,
                settings=settings,
                corrupt_allowed=corrupt_allowed,
                decode_workers=self.decode_workers,
                output=prepare.PreparationOutput(
                    images=folder / "images.npy",
                    index=folder / INDEX,
                    classes=folder / CLASSES,
                    manifest=folder / MANIFEST,
                ),
                folders=entry.folders,
            )

        made_with = {
            "name": name,
            "archives": archives,
            "settings": settings,
            "corrupt_allowed": corrupt_allowed,
            # Of photos and archives. They are no argument of `prepare`, which reads them from
            # environment variables, but they decide which images it accepts.
            "limits": self.grid.config["limits"],
        }
        return self.kept(f"prepare/{name}", made_with, make)

    def _folder_with_proxy(self, name: str, folder: Path) -> Path | None:
        """Folder of the dataset with the pretraining proxy; None if a dataset keeps all its images.

        The pretraining proxy is images that stand in for the pretraining data. They can be a part
        of a dataset that is evaluated. They are then left out of that dataset, and of those made
        from the same source images, whenever these are read.

        Args:
            name: of the dataset from which images may be left out.
            folder: the prepared folder of this dataset.
        """
        if not self.grid.excludes_proxy(name):
            return None
        assert self.grid.reference is not None  # it is the proxy
        dataset_with_proxy = self.grid.reference.dataset.name
        if name == dataset_with_proxy:
            return folder
        return self._prepared_folder(dataset_with_proxy)

    def _dataset_with_all_images(self, name: str) -> view.DatasetFiles:
        """Files of a dataset that is read with all its images.

        Those of the pretraining proxy, which stand in for the pretraining data, are not left out.
        """
        return replace(self.dataset(name), proxy=None)

    def reference(self) -> view.DatasetFiles | None:
        """The dataset with the pretraining proxy, images that stand in for the pretraining data.

        None if the run has no proxy.
        """
        if not self.grid.reference:
            return None
        return self._dataset_with_all_images(self.grid.reference.dataset.name)

    def model(self) -> Path:
        """Folder of the model, converted or trained here."""
        if self.grid.models[self.name].is_trained_here:
            return self.pretrained()
        return self.converted()

    def pretrained(self) -> Path:
        """Folder of the model, which is trained here."""
        facts = self.grid.conversion(self.name)
        pretraining = self.grid.models[self.name].pretrain
        assert pretraining is not None  # it is trained here
        dataset = self._dataset_with_all_images(pretraining["dataset"])
        test = self._dataset_with_all_images(pretraining["test"])
        settings = PretrainingSettings(
            entry=facts["entry"],
            num_classes=facts["num_classes"],
            training=from_params(TrainingSettings, self.grid.pretraining(self.name)),
            view=self.view,
            compute=self.compute,
            code=digest(Path(pretrain.__file__)),
        )

        def make(folder: Path) -> None:
            """Pretrain the model, and write its weights into a folder of the cache."""
            pretrain.pretrain(
                dataset=dataset,
                test=test,
                settings=settings,
                output=pretrain.PretrainingOutput(
                    weights=folder / WEIGHTS,
                    description=folder / DESCRIPTION,
                    history=folder / HISTORY,
                    saved=folder / TRAINING_STATE,
                    rescue=folder / RESCUED,
                ),
            )

        made_with = {"dataset": dataset, "test": test, "settings": settings}
        return self.kept(f"models/{self.name}", made_with, make)

    def converted(self) -> Path:
        """Folder of the model, which was published."""
        archives = self.archives(self.grid.models[self.name])
        has_fitted_head = self.grid.head(self.name) == "fitted"
        reference = self.reference() if has_fitted_head else None
        settings = ConversionSettings(
            **self.grid.conversion(self.name),
            view=self.view if has_fitted_head else None,
            compute=self.compute,
            code=digest(Path(convert.__file__)),
        )

        def make(folder: Path) -> None:
            """Convert the published weights into a folder of the cache."""
            convert.convert(
                archives=archives,
                reference=reference,
                settings=settings,
                output=convert.ModelOutput(
                    weights=folder / WEIGHTS, description=folder / DESCRIPTION
                ),
            )

        made_with = {"archives": archives, "reference": reference, "settings": settings}
        return self.kept(f"models/{self.name}", made_with, make)

    def text(self) -> Path:
        """Folder of the model's text tower."""
        archives = self.archives(self.grid.models[self.name])
        facts = self.grid.conversion(self.name)
        settings = TextSettings(
            entry=facts["entry"],
            class_names=facts["class_names"],
            code=digest(Path(convert.__file__)),
        )

        def make(folder: Path) -> None:
            """Write the model's text tower and its tokens into a folder of the cache."""
            convert.store_text(
                archives=archives,
                settings=settings,
                tower=folder / "tower.safetensors",
                tokens=folder / "tokens.safetensors",
            )

        made_with = {"archives": archives, "settings": settings}
        return self.kept(f"text/{self.name}", made_with, make)

    def trained(self, run: Run) -> tuple[list[NetworkState], dict[str, Path]]:
        """States of a run of a method, and the checkpoints that they are made of, by key.

        A method that is trained has one checkpoint. A merge has those of its parents, which are
        trained first; so are the methods that a training starts from.
        """
        method = self.grid.methods[run.method]
        parents = {}
        for key in self.grid.parents_of(run.method):
            parent = _run_of_parent(run, key)
            _, checkpoints = self.trained(parent)
            parents[key] = checkpoints[parent.method]
        if method.trains:
            checkpoint_file = self.fine_tuned(run, parents)
            return run_states(run.method, None), {run.method: checkpoint_file}
        merge_file = self.merged(run, parents)
        algorithm = self.grid.catalog.algorithm_file(method.algorithm)
        fisher = []
        if takes_fisher(algorithm):
            fisher = [self.fisher(run, key, parents) for key in parents]
        return run_states(run.method, merge_file, str(algorithm), fisher), parents

    def merged(self, run: Run, parents: Mapping[str, Path]) -> Path:
        """File of a merge, which says how its weights are computed from checkpoints.

        Args:
            run: that of the merge.
            parents: checkpoint of each run that is merged, by its key, such as `ft, seed 1`.
        """
        method = self.grid.methods[run.method]
        algorithm = self.grid.catalog.algorithm_file(method.algorithm)
        manifests = [path.with_name(MANIFEST) for path in parents.values()]
        settings = MergeSettings(
            algorithm=str(algorithm),
            settings=method.settings,
            parents=tuple(parents),
            form=method.form,  # type: ignore[arg-type]  # a text of the catalogue, checked here
            code=digest(Path(merge_files.__file__), algorithm),
        )

        def make(folder: Path) -> None:
            """Write the file of the merge into a folder of the cache."""
            merge_files.write_merge(
                run=run, manifests=manifests, settings=settings, merge_file=folder / MERGE_FILE
            )

        made_with = {"run": run, "manifests": manifests, "settings": settings}
        return self.kept(f"merge/{run}", made_with, make) / MERGE_FILE

    def fine_tuned(self, run: Run, start: Mapping[str, Path]) -> Path:
        """Checkpoint of a run that is trained, from the checkpoints of other methods if any."""
        method = self.grid.methods[run.method]
        algorithm = self.grid.catalog.algorithm_file(method.algorithm)
        saves_memory = self.grid.config["compute"]["gradient_checkpointing"]
        inputs = training.FineTuningInputs(
            model_folder=self.model(),
            target=self.dataset(run.target),
            reference=self.reference() if method.reference != "no" else None,
            start=start,
            text_folder=self.text() if method.text == "required" else None,
            shared_fisher=self.shared_fisher(run),
        )
        settings = FineTuningSettings(
            algorithm=str(algorithm),
            settings=self.grid.settings(run.method, self.name),
            parents=tuple(start),
            training=from_params(
                TrainingSettings, self.grid.training_of(run.method, run.target, run.size)
            ),
            view=self.view,
            compute=replaced(self.compute, gradient_checkpointing=saves_memory),
            code=digest(Path(training.__file__), algorithm),
        )

        def make(folder: Path) -> None:
            """Train the run, and write its checkpoint into a folder of the cache."""
            training.finetune(
                run=run,
                inputs=inputs,
                settings=settings,
                output=training.FineTuningOutput(
                    checkpoint=folder / CHECKPOINT,
                    manifest=folder / MANIFEST,
                    saved=folder / TRAINING_STATE,
                    rescue=folder / RESCUED,
                    history=folder / HISTORY,
                ),
            )

        made_with = {"run": run, "inputs": inputs, "settings": settings}
        return self.kept(f"finetune/{run}", made_with, make) / CHECKPOINT

    def shared_fisher(self, run: Run) -> Path | None:
        """File of the Fisher information that trainings on all targets share, if there is one."""
        shared = self.grid.shared_fisher(run.method)
        if shared is None:
            return None
        fisher_images, kind = shared
        reference = self.reference()
        assert reference is not None  # on which the shared information is computed
        source = self.run_on_dataset(
            run=Run(self.name, NO_TARGET, PRETRAINED, ALL, run.seed),
            checkpoints={},
            dataset=reference,
        )
        return self.fisher_of(source, fisher_images, kind)

    def fisher(self, run: Run, parent: str, checkpoints: Mapping[str, Path]) -> Path:
        """File of the Fisher information of a parent of a merge.

        Args:
            run: of the merge.
            parent: key of the parent, such as `ft` or `ft, seed 1`.
            checkpoints: of all parents, by key.
        """
        run_of_parent = _run_of_parent(run, parent)
        source = self.run_on_dataset(
            run=run_of_parent,
            checkpoints={run_of_parent.method: checkpoints[parent]},
            dataset=self.dataset(run_of_parent.target),
        )
        fisher_images = self.grid.methods[run.method].settings["fisher_images"]
        return self.fisher_of(source, fisher_images, "sampled")

    def run_on_dataset(
        self, run: Run, checkpoints: Mapping[str, Path], dataset: view.DatasetFiles
    ) -> RunOnDataset:
        """A run and the dataset on which its Fisher information is computed.

        Args:
            checkpoints: that of the run, by its method; empty for the pretrained model.
        """
        return RunOnDataset(
            run=run,
            states=run_states(run.method, None),
            checkpoints=checkpoints,
            model_folder=self.model(),
            dataset=dataset,
            view=self.view,
            evaluation_batch_size=FISHER_BATCH,
            compute=self.compute,
        )

    def fisher_of(self, source: RunOnDataset, fisher_images: int, kind: str) -> Path:
        """File of the Fisher information of a run on a dataset.

        Args:
            source: the run and the dataset.
            fisher_images: maximum number of images of the dataset that it is computed on.
            kind: `sampled` or `empirical`, see rib.models.fisher.
        """

        def make(folder: Path) -> None:
            """Compute the Fisher information into a folder of the cache."""
            fisher_information.compute_fisher(
                source=source,
                fisher_images=fisher_images,
                kind=kind,
                fisher=folder / FISHER,
                manifest=folder / MANIFEST,
            )

        made_with = {
            "source": source,
            "fisher_images": fisher_images,
            "kind": kind,
            "code": digest(Path(fisher_information.__file__)),
        }
        return self.kept(f"fisher/{source.run}", made_with, make) / FISHER
