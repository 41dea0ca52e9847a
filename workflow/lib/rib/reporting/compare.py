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
MOST = 150  # entries of a ranking; for more, the letters take too long
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
        """The line that a scored state belongs to."""
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
        ranking, notes = rank_all(
            [checked.bundle for checked in checked_bundles],
            [checked.images for checked in checked_bundles],
            statistics.replicates,
            statistics.confidence,
            statistics.seed,
        )
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
        bundles=[(checked.bundle, checked.run, checked.path) for checked in checked_bundles],
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
    """Settings that differ between bundles: a column `setting`, and one for each bundle."""
    settings = pd.DataFrame({checked.bundle.name: checked.settings for checked in checked_bundles})
    settings = settings.sort_index().rename_axis("setting").fillna("")
    return settings[settings.nunique(axis=1) > 1].reset_index()


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of bundles in tables and on the page.

    They are those of the files, with a folder if files have one name.

    Raises:
        UserError: two bundles are the same file, or cannot be told apart.
    """
    names: list[str] = []
    for path in paths:
        paths_of_name = [other_path for other_path in paths if _stem(other_path) == _stem(path)]
        name = _stem(path)
        if len(paths_of_name) > 1:
            name = f"{_folder(path, paths_of_name)}.{name}"
        names.append(name)
    for number, path in enumerate(paths):
        for earlier_path, earlier_name in zip(paths[:number], names, strict=False):
            if path.samefile(earlier_path):
                raise UserError(
                    f"config, bundles: {earlier_path} and {path} are the same file; "
                    "remove one of them."
                )
            if earlier_name == names[number]:
                raise UserError(
                    f"config, bundles: {earlier_path} and {path} would both be called "
                    f"{earlier_name}; rename one of these files."
                )
    return names


def _stem(path: Path) -> str:
    return path.name.removesuffix(".rib.zip")


def _folder(path: Path, paths_of_name: Sequence[Path]) -> str:
    """The nearest folder that tells a file from others of its name, or else all folders."""
    folders_of_paths = [_folders(path_of_name) for path_of_name in paths_of_name]
    folders = _folders(path)
    for level, folder in enumerate(folders):
        at_this_level = [names[level] for names in folders_of_paths if level < len(names)]
        if at_this_level.count(folder) == 1:
            return folder
    return ".".join(reversed(folders))


def _folders(path: Path) -> list[str]:
    """Names of a file's folders, the nearest first, in the characters of a bundle's name."""
    folders = path.resolve().parts[1:-1]
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
        raise UserError(message if str(path) in message else f"{path}: {message}") from None
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
    lines = [
        (bundle.name, claim.name, *difference(claim, folder / claim.name))
        for claim in bundle.claims
    ]
    columns = ["bundle", "table", "lines", "numbers", "largest difference"]
    return pd.DataFrame(lines, columns=columns)


def _settings_of(bundle: Bundle, run: RunFacts) -> dict[str, str]:
    """Configuration and software of a run as JSON, in which no text begins as a formula."""
    settings = {
        "config": bundle.config,
        "commits": [commit for commit, _ in run.commits],
        "machines": [machine for machine, _ in run.machines],
        "versions": [version for version, _ in run.versions],
    }
    (flat_settings,) = pd.json_normalize(settings).to_dict("records")
    return {key: json.dumps(setting) for key, setting in flat_settings.items()}


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
    digests = {}
    for path in bundle.rows:
        rows = pd.read_parquet(path, columns=[*RUN_COLUMNS, *COLUMNS])
        _refuse_other_rows(rows, run_of(path), indexes)
        # Only the first run of each dataset, since `count` compares the others with it.
        for dataset in set(rows["dataset"].unique()) - digests.keys():
            scored_rows = np.unique(rows["row"][rows["dataset"] == dataset])
            images = indexes[dataset].iloc[scored_rows]
            digests[dataset] = _digest_of_images(images, spaces[dataset])
    return digests


def _refuse_other_rows(rows: pd.DataFrame, run: Run, indexes: Mapping[str, pd.DataFrame]) -> None:
    """Raise a ValueError if rows are of another run, of no image, or there twice."""
    last_rows = {dataset: len(index) - 1 for dataset, index in indexes.items()}
    last_row = rows["dataset"].astype(str).map(last_rows)
    is_of_image = rows["row"].between(0, last_row) & (rows["rank"] >= 0)
    is_of_run = all(
        (rows[column] == stated).all() and NAME.fullmatch(str(stated))
        for column, stated in vars(run).items()
    )
    is_twice = rows.duplicated(["alpha", "dataset", "row"])
    if not is_of_image.all() or not is_of_run or is_twice.any():
        raise ValueError(f"rows of {run} are of another run, of no image, or twice")


def _digest_of_images(images: pd.DataFrame, space: Mapping) -> str:
    """SHA-256 of images, rows of an index, and of the classes that their labels count."""
    classes = json.dumps([space.get(key) for key in ("keys", "indices", "also")])
    hashes = pd.util.hash_pandas_object(images).to_numpy()
    return hashlib.sha256(hashes.tobytes() + classes.encode()).hexdigest()


def compute_again(bundle: Bundle) -> Path:
    """Folder of the tables that follow from a bundle's rows, by the functions of the jobs."""
    folder = bundle.folder / "again"
    folder.mkdir()
    counts_file = folder / "counts.npz"
    outputs = {path.stem: folder / path.name for path in bundle.claims}
    without_pixels = replaced(bundle.tables.view, geometry=None)
    tables_of_grid = tables.grid_tables(
        files=RowFiles(rows=bundle.rows, indexes=list(bundle.indexes.values())),
        manifests=[path.with_suffix(".manifest.json") for path in bundle.rows],
        datasets=_dataset_files(bundle),
        settings=replaced(bundle.tables, view=without_pixels),
        counts_file=counts_file,
    )
    fit = tables_of_grid["fit"]
    conditions = bundle.tables.conditions
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
    """Files of the datasets of a bundle, with their splits and the proxy that they exclude."""
    splits = {path.parts[-2]: path for path in bundle.folder.glob("results/*/*/split/*/*.parquet")}
    datasets = []
    for name, index in bundle.indexes.items():
        proxy = None
        if name in bundle.tables.excludes_proxy:
            proxy = bundle.indexes[bundle.config["reference"]].parent
        datasets.append(DatasetFiles(name, index.parent, proxy, splits.get(name)))
    return datasets


def difference(claimed: Path, again: Path) -> tuple[int, int, float]:
    """Lines and numbers of a table, and the largest difference from the one computed again.

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
        claimed_text = claimed_cells.iat[line, column][:50]
        text = cells.iat[line, column][:50]
        raise UserError(
            f"{claimed.name} does not follow from the rows: line {line + 2}, "
            f"{differences.columns[column]}, is {claimed_text!r}, and the rows give {text!r}; "
            "ask its author, nothing was compared."
        )
    largest_difference = float(np.nanmax(differences.to_numpy(), initial=0.0))
    return len(differences), int(differences.count().sum()), largest_difference


def _numbers(cells: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table of texts; NaN for other texts."""
    return cells.apply(pd.to_numeric, errors="coerce").astype(float)


def rank_all(
    bundles: Sequence[Bundle],
    images: Sequence[Mapping[str, str]],
    replicates: int,
    confidence: float,
    seed: int,
) -> tuple[pd.DataFrame, list[str]]:
    """Models and methods of all bundles by mRI over what they share, and notes.

    Letters say which are told apart, notes what can't be compared. Differences are from the
    pretrained models, whose mRI is 0, so their simultaneous intervals are of mRI.

    Columns: bundle, model, method, size and those of `rib.analysis.comparison.rank`.
    """
    runs = [
        {run for run in map(run_of, bundle.rows) if run.target != NO_TARGET} for bundle in bundles
    ]
    had = {key: [{getattr(run, key) for run in own} for own in runs] for key in ("target", "seed")}
    had["dataset"] = images
    shared = {kind: set.intersection(*map(set, own)) for kind, own in had.items()}
    shared["dataset"] = {
        name for name in shared["dataset"] if len({own[name] for own in images}) == 1
    }
    shared["target"] &= shared["dataset"]
    left_out = {kind: sorted(set().union(*own) - shared[kind]) for kind, own in had.items()}
    why = "it is not in all bundles with the same images"
    notes = [
        f"The {kind} {name} is left out: {why}."
        for kind, names in left_out.items()
        for name in names
    ]
    merged = {
        one.name: over_other_seeds(own, shared["seed"])
        for one, own in zip(bundles, runs, strict=True)
    }
    why = "it merges seeds that are not in all bundles"
    notes += [
        f"{bundle}'s {method} is left out: {why}."
        for bundle, own in merged.items()
        for method in own
    ]
    in_ri = shared["dataset"].intersection(*(bundle.tables.ri.ood_datasets for bundle in bundles))
    which = {"ood_datasets": in_ri, "source_groups": bundles[0].tables.ri.source_groups}
    alike = all(bundle.tables.ri.source_groups == which["source_groups"] for bundle in bundles)
    many = sum(len({(run.model, run.method) for run in own}) for own in runs) > MOST
    if (
        many
        or not alike
        or not all(shared.values())
        or any(in_ri <= {target} for target in shared["target"])
    ):
        why = (
            "they share too few datasets, targets or seeds, differ in leak_free, or are more than "
            f"{MOST}"
        )
        return pd.DataFrame(columns=ENTRY), [
            *notes,
            f"The methods of these bundles are not ranked together: {why}.",
        ]
    ood_of_bundles: dict[ScoredState, Ood] = {}
    contributions: dict[ScoredState, np.ndarray] = {}
    found, targets = [], {*shared["target"], NO_TARGET}
    paths = [
        {name: bundle.indexes[name] for name in bundle.indexes if name in shared["dataset"]}
        for bundle in bundles
    ]
    # Together, so that all bundles have the same objects, also if only some say which photos are
    # identical.
    objects = read_joined_objects(
        [path for own in paths for path in own.values()], which["source_groups"]
    )
    for bundle, of_bundle in zip(bundles, paths, strict=True):
        left = [
            (path, run)
            for path in bundle.rows
            if (run := run_of(path)).method not in merged[bundle.name]
        ]
        indexes = {name: objects[path] for name, path in of_bundle.items()}
        counts = count(read_rows_of(path for path, run in left if run.target in targets), indexes)
        ood = ood_accuracies(counts, object_weights(counts.objects, replicates, seed), **which)
        for state, (before, after) in ood_parts(counts, **which).items():
            if state.run.seed in shared["seed"] and not state.is_on_curve:
                state_of_bundle = replace(state, bundle=bundle.name)
                ood_of_bundles[state_of_bundle] = ood[state]
                contributions[state_of_bundle] = after - before
    fits = [
        read_table(path).assign(bundle=one.name)
        for one in bundles
        for path in one.claims
        if path.stem == "fit"
    ]
    unfinished = pd.concat(fits).query("unfinished == 'yes'")
    for size in sorted({state.run.size for state in ood_of_bundles}):
        unfinished_entries = unfinished.loc[unfinished["size"] == size, ENTRY]
        untested = {RankedMethod(*entry) for entry in unfinished_entries.to_numpy()}
        effects = effects_of(
            ood_of_bundles, contributions, size, untested, name_of=RankedMethod.of_state
        )
        effects = replace(
            effects,
            columns={None: effects.columns[None]},
            contributions=effects.contributions[:, -1:],
        )
        tables_of_size = tables_of(effects, confidence, DRAWS, seed, compare_to=PRETRAINED)
        ranking = tables_of_size["ranking"].reset_index(drop=True)
        ranked_methods = ranking.pop("method").tolist()
        entries = pd.DataFrame(
            [(*astuple(ranked), size) for ranked in ranked_methods], columns=[*ENTRY, "size"]
        )
        found.append(entries.join(ranking))
        without_rank = {*effects.names} - {PRETRAINED, *ranked_methods}
        notes += [
            f"{name} has no rank: its training is unfinished, or it merges all seeds."
            for name in sorted(map(str, without_rank))
        ]
    return pd.concat(found), notes


def over_other_seeds(runs: Collection[Run], shared: Collection[int]) -> list[str]:
    """Methods that merge seeds of which some are not shared.

    They have the first seed's run only, where others have all.
    """
    found: dict[str, set[int]] = {}
    for run in runs:
        found.setdefault(run.method, set()).add(run.seed)
    seeds = set().union(*found.values())
    return sorted(
        name for name, own in found.items() if own != seeds and not seeds.issubset(shared)
    )
