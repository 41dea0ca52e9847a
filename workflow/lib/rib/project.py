"""A project folder in Python: networks, rows and tables of finished runs; RI and mRI from rows.

RI is the mean change of accuracy over the out-of-distribution datasets other than the target;
datasets in distribution do not count. mRI is the mean of RI over targets and seeds.

Nothing is run, downloaded or written. All functions raise a UserError if a file is missing or was
changed, or if a name is unknown.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.catalog.catalog import PROJECT_CATALOG, Catalog
from rib.catalog.label_space import LabelSpace
from rib.evaluation.networks import NetworkState, states_from_json
from rib.grid.evaluation_groups import BEFORE_PART
from rib.grid.grid import Grid, resolve_grid
from rib.grid.leaks import leak_free_groups
from rib.models import checkpoint
from rib.models.merge import Merge, Mixture
from rib.models.network import load
from rib.records.hashing import differing
from rib.records.integrity import files_of_manifest
from rib.schema.algorithm_settings import FISHER_IMAGES
from rib.schema.config import config_of
from rib.schema.layout import Layout
from rib.schema.run import PRETRAINED, Run, parent_of
from rib.statistics import bootstrap, counts, row_schema, tables
from rib.statistics.ri import Ood, ood_accuracies
from rib.statistics.sample_rows import parts_together
from rib.statistics.scored_state import ScoredState

__all__ = ["UserError", "load_network", "load_rows", "load_tables", "mri", "ri"]
RUN_PATH = "<family>/<protocol>/<model>/<target>/<method>/<size>/<seed>"
CPU = torch.device("cpu")


def load_network(
    project: str | Path, run: str, catalog: str | Path | Sequence[str | Path] = ()
) -> nn.Module:
    """The network of a finished run, on the CPU in evaluation mode.

    Its input is images (N, 3, size, size) float32, normalised by its attribute `preprocessing`
    (mean and std of each RGB channel, in 0..1); its output is logits (N, outputs).

    Args:
        project: folder of the project.
        run: as in paths of results, `<family>/<protocol>/<model>/<target>/<method>/<size>/<seed>`.
        catalog: your catalogue folders, as in config.yaml; needed for merges with an algorithm in
            them.

    Example: `rib.load_network(".", "emoji/paper/efficientnet_lite0/noto/ft/all/0")`.
    """
    stages, named_run = _stages_and_run(project, run)
    states = _states_of(_files_of_rows(stages, named_run)[0], named_run.method)
    if len(states) > 1:
        raise UserError(
            f"{run} is a curve of {len(states)} networks; name the run of a method with one."
        )
    mixture = states[0].mixture
    # Runs whose checkpoints are mixed: {"ft, seed 1": Run("net", "noto", "ft", "all", 1)}.
    parents = {key: _run_of_parent(named_run, key) for key in mixture if key != PRETRAINED}
    checkpoints = {
        key: stages / f"finetune/{parent}/checkpoint.safetensors" for key, parent in parents.items()
    }
    model_folder = stages.parent / "models" / named_run.model
    _refuse_changed(
        model_folder / "manifest.json",
        *(path.with_name("manifest.json") for path in checkpoints.values()),
    )
    if isinstance(mixture, Merge):
        whole_catalog = _catalog(Path(project), catalog)
        mixture = _with_files(mixture, parents, stages / "fisher", whole_catalog)
    pretrained, facts = load(model_folder, CPU)
    network = checkpoint.apply(pretrained, mixture, checkpoints).eval()
    preprocessing: Any = {key: facts["preprocessing"][key] for key in ("mean", "std")}
    network.preprocessing = preprocessing
    return network


def load_rows(project: str | Path, run: str) -> pd.DataFrame:
    """Rows of a finished run: one for each network and image of all scored datasets.

    Columns: model, target, method, size, seed, alpha, dataset, row (position in the dataset's
    index), prediction (a class), rank (0: right), log_prob, energy, confidence, margin and brier. A
    curve has several networks, whose rows differ in `alpha`.

    Args:
        project: folder of the project.
        run: as in paths of results, `<family>/<protocol>/<model>/<target>/<method>/<size>/<seed>`.

    Example: `rib.load_rows(".", "emoji/paper/efficientnet_lite0/noto/ft/all/0")`.
    """
    stages, named_run = _stages_and_run(project, run)
    files = _files_of_rows(stages, named_run)
    _refuse_changed(*(path.with_suffix(".manifest.json") for path in files))
    tables_of_groups = []
    # Files are sorted, so the parts of a dataset follow one another.
    for _, parts in itertools.groupby(files, key=_group_without_part):
        tables_of_parts = []
        for path in parts:
            table = pd.read_parquet(path)
            tables_of_parts.append(table[table["method"] == named_run.method])
        tables_of_groups.append(parts_together(tables_of_parts))
    # Grids with other evaluation groups or parts may have left the same rows a second time.
    rows = pd.concat(tables_of_groups).drop_duplicates(ignore_index=True)
    is_twice = rows.duplicated(["dataset", "alpha", "row"])
    if is_twice.any():
        dataset = rows["dataset"][is_twice].iloc[0]
        raise UserError(
            f"{files[0].parent}: rows of the same images of {dataset} differ between files; delete "
            "those that are out of date, and run the workflow again."
        )
    return rows


def load_tables(project: str | Path, name: str) -> dict[str, pd.DataFrame]:
    """Tables of a report by name, such as "ri" and "mri".

    Args:
        project: folder of the project.
        name: folder in reports/: config's `name`, by default the family, plus `_held_out` under
            that protocol.

    Example: `rib.load_tables(".", "emoji")["mri"]`.
    """
    folder = Path(project).expanduser() / "reports" / name
    files = sorted(folder.glob("tables/*.csv"))
    if not files:
        raise UserError(f"{folder} has no tables; run the workflow, or correct the name.")
    return {path.stem: pd.read_csv(path) for path in files}


def ri(
    before: pd.DataFrame, after: pd.DataFrame, project: str | Path, family: str, **settings: Any
) -> pd.DataFrame:
    """RI of each run, with its confidence interval, in percentage points, as in ri.csv.

    RI is the mean change of accuracy over out-of-distribution datasets other than the target.

    Args:
        before: rows of the pretrained networks, from `load_rows`.
        after: rows of fine-tuned networks on the same images.
        project: folder with the prepared datasets of the rows.
        family: of these datasets.
        settings: keys of config.yaml that differ from the defaults, such as `catalog`, `leak_free`
            and `statistics`.

    Example: `rib.ri(before, after, ".", "emoji")[["target", "ri", "ci_low", "ci_high"]]`.
    """
    accuracies, confidence = _accuracies(before, after, project, family, settings)
    return tables.ri_table(accuracies, confidence)


def mri(
    before: pd.DataFrame, after: pd.DataFrame, project: str | Path, family: str, **settings: Any
) -> pd.DataFrame:
    """mRI of each model and method, with its confidence interval, as in mri.csv.

    mRI is the mean of RI over targets and seeds. Arguments are the same as for `ri`.

    Example: `rib.mri(before, after, ".", "emoji")[["method", "mri", "ci_low", "ci_high"]]`.
    """
    accuracies, confidence = _accuracies(before, after, project, family, settings)
    table, _ = tables.mri_tables(accuracies, confidence)
    return table


def _accuracies(
    before: pd.DataFrame,
    after: pd.DataFrame,
    project: str | Path,
    family: str,
    settings: Mapping[str, Any],
) -> tuple[dict[ScoredState, Ood], float]:
    """Resampled accuracies before and after, by fine-tuned network, and the intervals' level.

    For example ({state: Ood}, 0.95), from which RI is computed; arguments are the same as for `ri`.
    Each array of an Ood is (1 + replicates,), in percent, with the accuracy without resampling
    first.
    """
    rows = row_schema.checked_rows(pd.concat([before, after], ignore_index=True))
    datasets = sorted(rows["dataset"].unique())
    grid = _grid(Path(project), family, datasets, settings)
    folder_of = {name: _prepared_folder(Path(project), family, name) for name in datasets}
    source_groups = leak_free_groups(grid)
    index_paths = [folder / "index.parquet" for folder in folder_of.values()]
    objects_of = counts.read_objects(index_paths, source_groups)
    classes_of = {
        name: len(LabelSpace.from_json(read_json(folder / "classes.json")).keys)
        for name, folder in folder_of.items()
    }
    images_of = {name: len(objects) for name, objects in objects_of.items()}
    row_schema.check_upper_limits(rows, images_of, classes_of)
    counts_of_runs = counts.count(counts.rows_by_run(rows), objects_of)
    statistics = grid.config["statistics"]
    object_weights = bootstrap.object_weights(
        counts_of_runs.objects, statistics["replicates"], statistics["seed"]
    )
    accuracies = ood_accuracies(counts_of_runs, object_weights, grid.ood, source_groups)
    return accuracies, statistics["confidence"]


def _grid(project: Path, family: str, datasets: Sequence[str], settings: Mapping[str, Any]) -> Grid:
    """The grid of these datasets, which says how RI is computed from their rows.

    `settings` are keys of config.yaml that differ from the defaults: {"leak_free": True}.
    """
    choices = {**settings, "family": family, "datasets": list(datasets)}
    config = config_of(choices, "settings")
    catalog = _catalog(project, config["catalog"])
    return resolve_grid(config, catalog)


def _catalog(project: Path, folders: str | Path | Sequence[str | Path]) -> Catalog:
    """The project's catalogue with the user's folders."""
    own_folders = [folders] if isinstance(folders, str | Path) else folders
    # Relative folders are the project's, as in its config.yaml.
    in_project = [project / Path(folder).expanduser() for folder in own_folders]
    return Catalog([PROJECT_CATALOG, *in_project], project=project)


def _prepared_folder(project: Path, family: str, dataset: str) -> Path:
    """Folder such as results/emoji/prepare/noto/224px-bicubic-crop0.875, at any geometry.

    Its labels and objects are the same at all geometries.
    """
    pattern = Layout(family, protocol="*").of_dataset(dataset, "*", "index.parquet")
    folders = sorted(project.glob(pattern))
    if not folders:
        raise UserError(f"{project} has no prepared images of {dataset}; run the workflow.")
    return folders[0].parent


def _stages_and_run(project: str | Path, run: str) -> tuple[Path, Run]:
    """Folder such as results/emoji/paper, and the run; a UserError unless the run has rows."""
    project = Path(project).expanduser()
    missing = UserError(f"{project} has no finished run {run}; name it as {RUN_PATH}, or run it.")
    try:
        family, protocol, run_of_model = run.split("/", maxsplit=2)
        name = Run.parse(run_of_model)
    except ValueError as error:
        raise missing from error
    stages = project / "results" / family / protocol
    if not _files_of_rows(stages, name):
        raise missing
    return stages, name


def _files_of_rows(stages: Path, run: Run) -> list[Path]:
    """Files with the run's rows, one per evaluation group, such as emoji.parquet.

    Rows of wise_ft-alpha0.5 are in the folder wise_ft-alpha.
    """
    files: list[Path] = []
    # Merges over targets have a separate folder.
    for stage in ("evaluate", "evaluate_over_targets"):
        entries = (stages / stage / run.model / run.target).glob("*")
        for entry in sorted(entries):
            for path in sorted((entry / run.size / str(run.seed)).glob("*.parquet")):
                if _states_of(path, run.method):
                    files.append(path)
    return files


def _states_of(rows: Path, method: str) -> list[NetworkState]:
    """A method's networks as mixtures of checkpoints, from the manifest beside the rows.

    For example [NetworkState("wise_ft-alpha0.5", None, {"pretrained": 0.5, "ft": 0.5})].
    """
    manifest = rows.with_suffix(".manifest.json")
    if not manifest.is_file():
        return []
    states = states_from_json(read_json(manifest)["networks"])
    return [state for state in states if state.method == method]


def _group_without_part(rows: Path) -> str:
    """`imagenet_c` for .../imagenet_c-noise.parquet; rows of a dataset's parts are joined by it."""
    return rows.stem.partition(BEFORE_PART)[0]


def _run_of_parent(run: Run, key: str) -> Run:
    """Of the merge net/red/soup/all/0, the parent `ft, seed 1` is the run net/red/ft/all/1."""
    differences: dict[str, Any] = {**parent_of(key)}  # a seed is a number, all else is text
    return replace(run, **differences)


def _with_files(
    merge: Merge, parents: Mapping[str, Run], fisher_folder: Path, catalog: Catalog
) -> Mixture:
    """The merge with its algorithm's file and its parents' files of Fisher information.

    The manifest names only the algorithm, since its file differs between machines. Parents are
    runs by their keys in the merge, such as "ft, seed 1".
    """
    algorithm = catalog.algorithm_file(str(merge.algorithm))
    fisher = {}
    if FISHER_IMAGES in merge.settings:
        file = f"{merge.settings[FISHER_IMAGES]}.safetensors"
        fisher = {key: fisher_folder / str(parent) / file for key, parent in parents.items()}
    _refuse_changed(*(path.with_suffix(".manifest.json") for path in fisher.values()))
    return replace(merge, algorithm=algorithm, fisher=fisher)


def _refuse_changed(*manifests: Path) -> None:
    """A UserError if a manifest, or a file that it lists, is missing or changed."""
    for manifest in manifests:
        changed: Iterable[Path] = [manifest]
        if manifest.is_file():
            changed = differing(files_of_manifest(manifest), "checking files")
        for file in changed:
            raise UserError(f"{file} is missing or was changed; pull it, or run the workflow.")
