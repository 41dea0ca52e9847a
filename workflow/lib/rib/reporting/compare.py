"""Comparison of bundles: tables are computed again from rows, and methods are ranked together.

The ranking is over the datasets, targets and seeds that all bundles share, with the same draws of
objects, so differences are paired. Intervals, tests and letters are those of
`rib.analysis.comparison`; Holm's correction is over all pairs of a size.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from rib.analysis import tables
from rib.analysis.bootstrap import object_weights
from rib.analysis.comparison import DRAWS, comparison_tables, effects_of, tables_of
from rib.analysis.counts import (
    COLUMNS,
    RowFiles,
    count,
    read_indexes,
    read_joined_objects,
    read_rows_of,
)
from rib.analysis.fit import read_table
from rib.analysis.ri import Ood, ood_accuracies, ood_parts
from rib.analysis.scored_state import ScoredState
from rib.analysis.settings import MethodComparisonSettings
from rib.analysis.writing import write_tables
from rib.base import appearance
from rib.base.errors import UserError
from rib.base.files import from_home, read_json, refuse_full_disk, write_table, write_text
from rib.base.progress import print_lines
from rib.base.rounding import percent
from rib.base.settings import replaced
from rib.config.run import NO_TARGET, PRETRAINED, RUN_COLUMNS, Run, run_of
from rib.data.view import DatasetFiles
from rib.jobs.job import WORK, private
from rib.jobs.messages import message_of_os_error
from rib.reporting.bundle import NAME, Bundle, open_bundle
from rib.reporting.page import RunFacts, run_facts
from rib.reporting.settings import RankingStatistics

TEMPLATE = Path(__file__).with_name("compare.html.jinja")
ROUNDING = 1e-5  # between numbers with six decimals that two machines computed
MOST_RANKED = 150  # entries of a ranking; for more, the letters take too long
ENTRY = ["bundle", "model", "method"]


@dataclass(frozen=True)
class RankedMethod:
    """A line of the ranking: a method of a model in a bundle."""

    bundle: str
    model: str
    method: str

    def __str__(self) -> str:
        return f"{self.bundle}/{self.model}/{self.method}"

    def __lt__(self, other: "RankedMethod") -> bool:
        return str(self) < str(other)

    @classmethod
    def of_state(cls, state: ScoredState) -> "RankedMethod":
        """The line that a scored network belongs to."""
        return cls(state.bundle, state.run.model, state.run.method)


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle whose tables follow from its rows."""

    path: Path
    bundle: Bundle
    images: dict[str, str]  # digest of the scored images of each dataset
    claims: pd.DataFrame  # its tables, with their largest difference from those computed again
    settings: dict[str, str]  # as JSON, by key
    run: RunFacts


def compare(
    bundles: Sequence[str], statistics: RankingStatistics, log_file: str, folder: Path
) -> None:
    """Check bundles, and write settings.csv, claims.csv, ranking.csv and index.html about them.

    Args:
        bundles: paths, in which ~ is the home folder.
        statistics: of the ranking.
        log_file: that of the job.
        folder: where the files are written.

    Raises:
        UserError: a bundle is missing, of another version or hostile, or a table of it does not
            follow from its rows.
    """
    paths = _paths_of_bundles(bundles)
    names = names_of(paths)
    with private("compare", log_file, {}, resumes=None):
        size = sum(path.stat().st_size for path in paths)
        refuse_full_disk(WORK, size, "comparing bundles")
        checked_bundles = [check(path, name) for path, name in zip(paths, names, strict=True)]
        ranking, notes = rank_all(checked_bundles, statistics)
    tables_of_comparison = {
        "ranking": ranking,
        "settings": _differing_settings(checked_bundles),
        "claims": pd.concat([checked.claims for checked in checked_bundles]),
    }
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = templates.get_template(TEMPLATE.name).render(
        appearance=appearance,
        checked_bundles=checked_bundles,
        notes=notes,
        tables=tables_of_comparison,
        views=None,
        percent=percent,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables_of_comparison.items():
        write_table(folder / f"{name}.csv", table)
    write_text(folder / "index.html", page)
    print_lines(
        f"The tables of {len(checked_bundles)} bundles follow from their rows; "
        f"open {folder}/index.html."
    )


def _paths_of_bundles(bundles: Sequence[str]) -> list[Path]:
    """The files of bundles; a UserError if none is given, or one is missing or has a bad name."""
    example = "write for example --config bundles='[a.rib.zip, b.rib.zip]'."
    paths = [from_home(path, "config, bundles") for path in bundles]
    if not paths:
        raise UserError(f"config, bundles: no bundles are given; {example}")
    for path in paths:
        if not path.is_file() or not NAME.fullmatch(_stem(path)):
            raise UserError(
                f"config, bundles: {path} is missing or not named by letters, digits, _, . and -; "
                f"{example}"
            )
    return paths


def _differing_settings(checked_bundles: Sequence[CheckedBundle]) -> pd.DataFrame:
    """Settings that differ between bundles: a column `setting`, and one for each bundle.

    A row is for example: config.training.epochs, 3, 10.
    """
    settings = pd.DataFrame({checked.bundle.name: checked.settings for checked in checked_bundles})
    settings = settings.sort_index().rename_axis("setting").fillna("")
    is_different = settings.nunique(axis=1) > 1
    return settings[is_different].reset_index()


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of bundles in tables and on the page.

    They are those of the files: `a` for a.rib.zip. Files of one name have a folder before it:
    ann/a.rib.zip and bob/a.rib.zip are called `ann.a` and `bob.a`.

    Raises:
        UserError: two bundles are the same file, or cannot be told apart.
    """
    names: list[str] = []
    for path in paths:
        name = _stem(path)
        paths_of_name = [other_path for other_path in paths if _stem(other_path) == name]
        if len(paths_of_name) > 1:
            name = f"{_folder(path, paths_of_name)}.{name}"
        names.append(name)
    for later in range(len(paths)):
        for earlier in range(later):
            if paths[later].samefile(paths[earlier]):
                raise UserError(
                    f"config, bundles: {paths[earlier]} and {paths[later]} are the same file; "
                    "remove one of them."
                )
            if names[later] == names[earlier]:
                raise UserError(
                    f"config, bundles: {paths[earlier]} and {paths[later]} would both be called "
                    f"{names[earlier]}; rename one of these files."
                )
    return names


def _stem(path: Path) -> str:
    """Name of a bundle's file without its ending: `a` of a.rib.zip."""
    return path.name.removesuffix(".rib.zip")


def _folder(path: Path, paths_of_name: Sequence[Path]) -> str:
    """The nearest folder that tells a file from others of its name, or else all folders.

    Of x/ann/out/a.rib.zip and x/bob/out/a.rib.zip, these are `ann` and `bob`.

    Args:
        path: the file.
        paths_of_name: all files of its name, itself among them.
    """
    folders_of_files = [_folders(path_of_name) for path_of_name in paths_of_name]
    folders = _folders(path)
    for level, folder in enumerate(folders):
        folders_at_level = []
        for folders_of_file in folders_of_files:
            if level < len(folders_of_file):
                folders_at_level.append(folders_of_file[level])
        if folders_at_level.count(folder) == 1:
            return folder
    return ".".join(reversed(folders))


def _folders(path: Path) -> list[str]:
    """Names of a file's folders, the nearest first, in the characters of a bundle's name.

    Of /home/ann b/a.rib.zip they are `ann_b` and `home`.
    """
    _root, *folders, _file = path.resolve().parts
    return [re.sub(r"[^A-Za-z0-9_.-]", "_", folder) for folder in reversed(folders)]


def check(path: Path, name: str) -> CheckedBundle:
    """Unpack a bundle, and compute its tables again.

    Raises:
        UserError: it is of another version, damaged or forged, or a table does not follow from its
            rows.
    """
    folder = WORK / "compare" / f"bundle-{name}"
    folder.mkdir()
    try:
        bundle = open_bundle(path, name, folder)
        images = scored_images(bundle)
        folder_of_tables = compute_again(bundle)
        run = run_facts(bundle.records)
        return CheckedBundle(
            path=path,
            bundle=bundle,
            images=images,
            claims=_checked_claims(bundle, folder_of_tables),
            settings=_settings_of(bundle, run),
            run=run,
        )
    except UserError as error:
        message = str(error)
        if str(path) not in message:
            message = f"{path}: {message}"
        raise UserError(message) from None
    except Exception as error:  # readers of hostile files raise many types
        if message_of_os_error(error):  # of this machine
            raise
        first_line = str(error).partition("\n")[0]
        reason = first_line[:200] or type(error).__name__
        raise UserError(
            f"{path} is damaged or forged, and nothing was compared: {reason}; ask its author."
        ) from error


def _checked_claims(bundle: Bundle, folder: Path) -> pd.DataFrame:
    """The tables of a bundle: their size, and their largest difference from those in a folder."""
    tables_of_bundle = []
    for claim in bundle.claims:
        lines, numbers, largest_difference = difference(claim, folder / claim.name)
        tables_of_bundle.append((bundle.name, claim.name, lines, numbers, largest_difference))
    columns = ["bundle", "table", "lines", "numbers", "largest difference"]
    return pd.DataFrame(tables_of_bundle, columns=columns)


def _settings_of(bundle: Bundle, run: RunFacts) -> dict[str, str]:
    """Configuration and software of a run as JSON, by key, such as `config.training.epochs`.

    All are JSON, in which no text begins as a formula: a spreadsheet would compute that.
    """
    settings = {
        "config": bundle.config,
        "commits": [commit for commit, _ in run.commits],
        "machines": [machine for machine, _ in run.machines],
        "versions": [version for version, _ in run.versions],
    }
    # A table of one row, in which the keys of nested mappings are joined by points.
    (flat_settings,) = pd.json_normalize(settings).to_dict("records")
    return {str(key): json.dumps(setting) for key, setting in flat_settings.items()}


def scored_images(bundle: Bundle) -> dict[str, str]:
    """Digest of the scored images of each dataset.

    Raises:
        ValueError: rows are of another run, of no image, or there twice.
    """
    indexes = read_indexes(bundle.indexes.values(), ["image_id", "label", "object_id"])
    spaces = {}
    for dataset, path in bundle.indexes.items():
        spaces[dataset] = read_json(path.with_name("classes.json"))
        last_label = len(spaces[dataset]["keys"]) - 1
        if not indexes[dataset]["label"].between(0, last_label).all():
            raise ValueError("an image is of no class")
    # The first run of each dataset is enough, since `count` compares the others with it. It has
    # several files if the dataset was evaluated in parts.
    first_runs: dict[str, Run] = {}
    rows_of_first_runs: dict[str, list[pd.DataFrame]] = {}
    for path in bundle.rows:
        run = run_of(path)
        rows = pd.read_parquet(path, columns=[*RUN_COLUMNS, *COLUMNS])
        _refuse_other_rows(rows, run, indexes)
        for dataset in rows["dataset"].unique():
            if dataset not in first_runs:
                first_runs[dataset] = run
            if first_runs[dataset] == run:
                of_dataset = rows.loc[rows["dataset"] == dataset, ["alpha", "row"]]
                rows_of_first_runs.setdefault(dataset, []).append(of_dataset)
    digests: dict[str, str] = {}
    for dataset, rows_of_parts in rows_of_first_runs.items():
        scored = pd.concat(rows_of_parts)
        if scored.duplicated().any():
            raise ValueError(f"rows of {first_runs[dataset]} on {dataset} are there twice")
        images = indexes[dataset].iloc[np.unique(scored["row"])]
        digests[dataset] = _digest_of_images(images, spaces[dataset])
    return digests


def _refuse_other_rows(rows: pd.DataFrame, run: Run, indexes: Mapping[str, pd.DataFrame]) -> None:
    """Raise a ValueError if rows are of another run, of no image, or there twice.

    Args:
        rows: with the columns of the run, dataset, row (the image's in the index) and rank.
        run: that of the file of the rows.
        indexes: images of each dataset, a row for each.
    """
    last_rows = {dataset: len(index) - 1 for dataset, index in indexes.items()}
    last_row = rows["dataset"].astype(str).map(last_rows)
    is_of_image = rows["row"].between(0, last_row) & (rows["rank"] >= 0)
    is_of_run = True
    for column, entry in vars(run).items():
        is_valid_name = NAME.fullmatch(str(entry)) is not None
        if not is_valid_name or not (rows[column] == entry).all():
            is_of_run = False
    is_twice = rows.duplicated(["alpha", "dataset", "row"])
    if not is_of_image.all() or not is_of_run or is_twice.any():
        raise ValueError(f"rows of {run} are of another run, of no image, or twice")


def _digest_of_images(images: pd.DataFrame, space: Mapping[str, Any]) -> str:
    """SHA-256 of images, rows of an index, and of the classes that their labels count.

    Args:
        images: image_id, label and object_id of each.
        space: contents of classes.json, of which `keys`, `indices` and `also` say what the labels
            are.
    """
    classes = json.dumps([space.get(key) for key in ("keys", "indices", "also")])
    hashes = pd.util.hash_pandas_object(images).to_numpy()
    return hashlib.sha256(hashes.tobytes() + classes.encode()).hexdigest()


def compute_again(bundle: Bundle) -> Path:
    """Folder of the tables that follow from a bundle's rows, by the functions of the jobs."""
    folder = bundle.folder / "again"
    folder.mkdir()
    counts_file = folder / "counts.npz"
    outputs = {path.stem: folder / path.name for path in bundle.claims}
    conditions = bundle.tables.conditions
    without_pixels = replaced(bundle.tables.view, geometry=None)
    tables_of_grid = tables.grid_tables(
        files=RowFiles(rows=bundle.rows, indexes=list(bundle.indexes.values())),
        manifests=[path.with_suffix(".manifest.json") for path in bundle.rows],
        datasets=_dataset_files(bundle),
        settings=replaced(bundle.tables, view=without_pixels),
        counts_file=counts_file,
    )
    fit = tables_of_grid["fit"]
    write_tables(tables_of_grid, outputs, fit, conditions=conditions)
    comparison_settings = MethodComparisonSettings(
        ri=bundle.tables.ri,
        compare_to=bundle.config["compare_to"],
        conditions=conditions,
        code="",  # nothing is recorded
    )
    tables_of_comparison = comparison_tables(counts_file, outputs["fit"], comparison_settings)
    write_tables(tables_of_comparison, outputs, fit, conditions=conditions)
    return folder


def _dataset_files(bundle: Bundle) -> list[DatasetFiles]:
    """Files of the datasets of a bundle, with their splits and the proxy that they exclude.

    The pretraining proxy is images that stand in for the pretraining data.
    """
    splits = {}
    for path in bundle.folder.glob("results/*/*/split/*/*.parquet"):
        dataset = path.parent.name  # results/<family>/<protocol>/split/<dataset>/<name>.parquet
        splits[dataset] = path
    datasets = []
    for name, index in bundle.indexes.items():
        proxy = None
        if name in bundle.tables.excludes_proxy:
            proxy = bundle.indexes[bundle.config["reference"]].parent
        datasets.append(DatasetFiles(name, index.parent, proxy, splits.get(name)))
    return datasets


def difference(claimed: Path, again: Path) -> tuple[int, int, float]:
    """Lines and numbers of a table, and the largest difference from the one computed again.

    Args:
        claimed: CSV file of the table in the bundle.
        again: CSV file of the table that was computed from the bundle's rows.

    Raises:
        UserError: the difference is beyond rounding.
    """
    claimed_cells = pd.read_csv(claimed, dtype=str, keep_default_na=False)
    cells = pd.read_csv(again, dtype=str, keep_default_na=False)
    if list(claimed_cells) != list(cells) or len(claimed_cells) != len(cells):
        raise UserError(
            f"{claimed.name} does not follow from the rows, which give other columns or lines."
        )
    differences = (_numbers(claimed_cells) - _numbers(cells)).abs()
    is_same = (claimed_cells == cells) | (differences <= ROUNDING)
    differing_cells = np.argwhere(~is_same.to_numpy())
    if len(differing_cells):
        line, column = differing_cells[0]
        claimed_text = str(claimed_cells.iat[line, column])[:50]
        text = str(cells.iat[line, column])[:50]
        raise UserError(
            f"{claimed.name} does not follow from the rows: line {line + 2}, "
            f"{differences.columns[column]}, is {claimed_text!r}, and the rows give {text!r}; "
            "ask its author, nothing was compared."
        )
    largest_difference = float(np.nanmax(differences.to_numpy(), initial=0.0))
    number_of_numbers = int(differences.count().sum())  # NaN stands for other texts
    return len(differences), number_of_numbers, largest_difference


def _numbers(cells: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table of texts; NaN for other texts."""
    numbers: pd.DataFrame = cells.apply(pd.to_numeric, errors="coerce").astype(float)
    return numbers


@dataclass(frozen=True)
class Shared:
    """What all bundles have, and what is ranked: the rest of each bundle is left out."""

    targets: set[str]
    seeds: set[int]
    datasets: set[str]  # those whose scored images are the same


@dataclass(frozen=True)
class StatesOfBundles:
    """What is compared of the fine-tuned networks of all bundles."""

    ood: dict[ScoredState, Ood]
    # of each object to the RI, (objects,) percentage points
    contributions: dict[ScoredState, np.ndarray]

    def sizes(self) -> list[str]:
        """Sizes of the training subsets, sorted as text."""
        return sorted({state.run.size for state in self.ood})


def rank_all(
    checked_bundles: Sequence[CheckedBundle], statistics: RankingStatistics
) -> tuple[pd.DataFrame, list[str]]:
    """Models and methods of all bundles by mRI over what they share, and notes.

    Letters say which are told apart, notes what can't be compared. Differences are from the
    pretrained models, whose mRI is 0, so their simultaneous intervals are of mRI.

    Columns: bundle, model, method, size and those of `rib.analysis.comparison.rank`. The table is
    empty if the bundles can't be ranked together.
    """
    bundles = [checked.bundle for checked in checked_bundles]
    runs_of_bundles = [_runs_with_target(bundle) for bundle in bundles]
    shared, notes = _shared_by_all(runs_of_bundles, [checked.images for checked in checked_bundles])
    merges_left_out = {}  # by bundle
    for bundle, runs in zip(bundles, runs_of_bundles, strict=True):
        merges = over_other_seeds(runs, shared.seeds)
        merges_left_out[bundle.name] = merges
        notes += [
            f"{bundle.name}'s {method} is left out: it merges seeds that are not in all bundles."
            for method in merges
        ]
    ood_datasets = set(shared.datasets)
    for bundle in bundles:
        ood_datasets &= set(bundle.tables.ri.ood_datasets)
    if not _can_be_ranked(bundles, runs_of_bundles, shared, ood_datasets):
        notes.append(
            "The methods of these bundles are not ranked together: they share too few datasets, "
            f"targets or seeds, differ in leak_free, or are more than {MOST_RANKED}."
        )
        return pd.DataFrame(columns=ENTRY), notes
    states = _states_of_bundles(bundles, shared, merges_left_out, ood_datasets, statistics)
    unfinished = _unfinished_fits(bundles)
    rankings = []
    for size in states.sizes():
        ranking, names_without_rank = _rank_size(states, size, unfinished, statistics)
        rankings.append(ranking)
        for name in names_without_rank:
            notes.append(f"{name} has no rank: its training is unfinished, or it merges all seeds.")
    return pd.concat(rankings), notes


def _runs_with_target(bundle: Bundle) -> set[Run]:
    """Runs of a bundle that are fine-tuned on one target."""
    runs = {run_of(path) for path in bundle.rows}
    return {run for run in runs if run.target != NO_TARGET}


def _shared_by_all(
    runs_of_bundles: Sequence[Collection[Run]], images_of_bundles: Sequence[Mapping[str, str]]
) -> tuple[Shared, list[str]]:
    """What all bundles have, and a note on each target, seed and dataset that only some have.

    Args:
        images_of_bundles: digest of the scored images of each dataset, by bundle.
    """
    targets_of_bundles = []
    seeds_of_bundles = []
    for runs in runs_of_bundles:
        targets_of_bundles.append({run.target for run in runs})
        seeds_of_bundles.append({run.seed for run in runs})
    datasets_of_bundles = [set(images) for images in images_of_bundles]
    datasets = set()
    for dataset in set.intersection(*datasets_of_bundles):
        digests = {images[dataset] for images in images_of_bundles}
        if len(digests) == 1:
            datasets.add(dataset)
    shared = Shared(
        # A target is a dataset, whose images must be the same, too.
        targets=set.intersection(*targets_of_bundles) & datasets,
        seeds=set.intersection(*seeds_of_bundles),
        datasets=datasets,
    )
    notes = [
        *_notes_on_left_out("target", targets_of_bundles, shared.targets),
        *_notes_on_left_out("seed", seeds_of_bundles, shared.seeds),
        *_notes_on_left_out("dataset", datasets_of_bundles, shared.datasets),
    ]
    return shared, notes


def _notes_on_left_out(
    noun: str, names_of_bundles: Sequence[set[Any]], shared: set[Any]
) -> list[str]:
    """A note on each target, seed or dataset of a bundle that is not shared, sorted.

    Args:
        noun: `target`, `seed` or `dataset`.
        names_of_bundles: the names, or numbers of seeds, that each bundle has.
        shared: those that all bundles have.
    """
    left_out = set()
    for names in names_of_bundles:
        left_out |= names - shared
    return [
        f"The {noun} {name} is left out: it is not in all bundles with the same images."
        for name in sorted(left_out)
    ]


def _can_be_ranked(
    bundles: Sequence[Bundle],
    runs_of_bundles: Sequence[Collection[Run]],
    shared: Shared,
    ood_datasets: Collection[str],
) -> bool:
    """Whether the methods of all bundles can be ranked together, by RI on what they share.

    They can if they are few enough, the bundles leave out the same images for leak-free results,
    and the bundles share targets, seeds and datasets to compute RI from.

    Args:
        runs_of_bundles: runs of each bundle; each model and method in them is a line of the
            ranking.
        shared: targets, seeds and datasets that all bundles have.
        ood_datasets: out-of-distribution datasets that all bundles share.
    """
    number_of_entries = 0
    for runs in runs_of_bundles:
        number_of_entries += len({(run.model, run.method) for run in runs})
    if number_of_entries > MOST_RANKED:
        return False
    # Source groups say which images a leak-free RI leaves out. RI over other images differ even if
    # methods do not.
    source_groups = bundles[0].tables.ri.source_groups
    if any(bundle.tables.ri.source_groups != source_groups for bundle in bundles):
        return False
    if not shared.targets or not shared.seeds or not shared.datasets:
        return False
    # RI is over the datasets other than the target.
    return all(set(ood_datasets) - {target} for target in shared.targets)


def _states_of_bundles(
    bundles: Sequence[Bundle],
    shared: Shared,
    merges_left_out: Mapping[str, Collection[str]],
    ood_datasets: Collection[str],
    statistics: RankingStatistics,
) -> StatesOfBundles:
    """Accuracies of all bundles' networks on what they share, from the same draws of objects.

    Args:
        merges_left_out: methods that are not compared, by bundle.
        ood_datasets: out-of-distribution datasets that all bundles share.
    """
    source_groups = bundles[0].tables.ri.source_groups
    indexes_of_bundles = [_shared_indexes(bundle, shared.datasets) for bundle in bundles]
    all_indexes: list[Path] = []
    for indexes in indexes_of_bundles:
        all_indexes.extend(indexes.values())
    # Together, so that all bundles have the same objects, also if only some say which photos are
    # identical.
    objects_of_path = read_joined_objects(all_indexes, source_groups)
    states = StatesOfBundles(ood={}, contributions={})
    for bundle, indexes in zip(bundles, indexes_of_bundles, strict=True):
        rows = _compared_rows(bundle, shared.targets, merges_left_out[bundle.name])
        objects = {dataset: objects_of_path[path] for dataset, path in indexes.items()}
        counts = count(read_rows_of(rows), objects)
        weights = object_weights(counts.objects, statistics.replicates, statistics.seed)
        ood = ood_accuracies(counts, weights, ood_datasets, source_groups)
        parts_of_ri = ood_parts(counts, ood_datasets, source_groups)
        for state, (before, after) in parts_of_ri.items():
            if state.run.seed in shared.seeds and not state.is_on_curve:
                state_of_bundle = replace(state, bundle=bundle.name)
                states.ood[state_of_bundle] = ood[state]
                states.contributions[state_of_bundle] = after - before
    return states


def _shared_indexes(bundle: Bundle, shared_datasets: Collection[str]) -> dict[str, Path]:
    """Files of the indexes of a bundle's datasets that all bundles have, by dataset."""
    indexes = {}
    for dataset, path in bundle.indexes.items():
        if dataset in shared_datasets:
            indexes[dataset] = path
    return indexes


def _compared_rows(
    bundle: Bundle, targets: Collection[str], methods_left_out: Collection[str]
) -> list[Path]:
    """Files with the rows of runs on the given targets, and of those without a target.

    The latter are pretrained models, from which changes are computed.
    """
    rows = []
    for path in bundle.rows:
        run = run_of(path)
        is_compared = run.target in targets or run.target == NO_TARGET
        if is_compared and run.method not in methods_left_out:
            rows.append(path)
    return rows


def _unfinished_fits(bundles: Sequence[Bundle]) -> pd.DataFrame:
    """Lines of the fit tables of all bundles, about trainings that are unfinished."""
    fits = []
    for bundle in bundles:
        for claim in bundle.claims:
            if claim.stem == "fit":
                fits.append(read_table(claim).assign(bundle=bundle.name))
    return pd.concat(fits).query("unfinished == 'yes'")


def _rank_size(
    states: StatesOfBundles, size: str, unfinished: pd.DataFrame, statistics: RankingStatistics
) -> tuple[pd.DataFrame, list[str]]:
    """The ranking of methods with a size of the training subset, and names of those without a rank.

    The ranking has the columns bundle, model, method and size, and those of
    `rib.analysis.comparison.rank`.

    Args:
        unfinished: fits of unfinished trainings, whose methods get no rank.
    """
    unfinished_of_size = unfinished.loc[unfinished["size"] == size, ENTRY]
    untested = {RankedMethod(*entry) for entry in unfinished_of_size.to_numpy()}
    effects = effects_of(
        states.ood, states.contributions, size, untested, name_of=RankedMethod.of_state
    )
    # Of the effects on RI of each target and on mRI, only the last is ranked by.
    effects_on_mri = replace(
        effects,
        columns={None: effects.columns[None]},
        contributions=effects.contributions[:, -1:],
    )
    tables_of_size = tables_of(
        effects_on_mri, statistics.confidence, DRAWS, statistics.seed, compare_to=PRETRAINED
    )
    ranking = tables_of_size["ranking"].reset_index(drop=True)
    # The column `method` has a RankedMethod in each row, which becomes three columns of text.
    ranked_methods = ranking.pop("method").tolist()
    entries = pd.DataFrame([astuple(ranked) for ranked in ranked_methods], columns=ENTRY)
    entries["size"] = size
    names_without_rank = set(effects.names) - {PRETRAINED, *ranked_methods}
    return entries.join(ranking), sorted(map(str, names_without_rank))


def over_other_seeds(runs: Collection[Run], shared: Collection[int]) -> list[str]:
    """Methods that merge seeds of which some are not shared, sorted.

    A merge of seeds is a run with the first seed, while other methods have a run with each seed.
    So if a bundle has seeds that are not shared, its methods without a run of some seed are such
    merges.

    Args:
        runs: of one bundle.
        shared: seeds that all bundles have.
    """
    seeds = {run.seed for run in runs}
    if seeds.issubset(shared):
        return []
    seeds_of_methods: dict[str, set[int]] = {}
    for run in runs:
        seeds_of_methods.setdefault(run.method, set()).add(run.seed)
    merges = []
    for method, seeds_of_method in seeds_of_methods.items():
        if seeds_of_method != seeds:
            merges.append(method)
    return sorted(merges)
