"""Comparison of bundles: their tables are computed again from their rows, and their methods are ranked together.

The ranking is over the datasets, targets and seeds that all bundles share, with the same draws of objects, so differences are
paired. Intervals, tests and letters are those of `rib.analysis.comparison`; Holm's correction is over all pairs of a size.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from rib.analysis import tables
from rib.analysis.bootstrap import object_weights
from rib.analysis.comparison import DRAWS, comparison_tables, effects_of, tables_of
from rib.analysis.counts import COLUMNS, count, read_indexes, read_joined_objects, read_rows_of
from rib.analysis.fit import mark_tables, read_table
from rib.analysis.ri import ood_accuracies, ood_parts
from rib.analysis.writing import write_tables
from rib.base.errors import UserError
from rib.base.files import from_home, read_json, refuse_full_disk, write_table, write_text
from rib.base.progress import print_lines
from rib.base.rounding import percent
from rib.config.run import NO_TARGET, PRETRAINED, RUN_COLUMNS, Run, run_of
from rib.data.view import DatasetFiles, DatasetView
from rib.jobs.job import WORK, private
from rib.jobs.messages import message_of_os_error
from rib.reporting.bundle import NAME, Bundle, open_bundle
from rib.reporting.page import RunFacts, run_facts
from rib.reporting.settings import RankingStatistics

TEMPLATE = Path(__file__).with_name("compare.html.jinja")
ROUNDING = 1e-5  # between numbers with six decimals that two machines computed
MOST = 150  # entries of a ranking; for more, the letters take too long
ENTRY = ["bundle", "model", "method"]
SETTINGS = ("ood_datasets", "source_groups", "replicates", "confidence", "seed")


def compare(
    bundles: Sequence[str], statistics: RankingStatistics, log_file: str, folder: Path
) -> None:
    """Check bundles, and write settings.csv, claims.csv, ranking.csv and index.html about them into a folder.

    `statistics` are of the ranking. Raises a UserError if a bundle is missing, of another version
    or hostile, or if a table of it does not follow from its rows.
    """
    paths = [from_home(path, "config, bundles") for path in bundles]
    wrong = [path for path in paths if not (path.is_file() and NAME.fullmatch(_stem(path)))]
    if wrong or not paths:
        what = (
            f"{wrong[0]} is missing or not named by letters, digits, _, . and -"
            if wrong
            else "no bundles are given"
        )
        raise UserError(
            f"config, bundles: {what}; write for example --config bundles='[a.rib.zip, b.rib.zip]'."
        )
    names = names_of(paths)
    with private("compare", log_file, {}, resumes=None):
        refuse_full_disk(WORK, sum(path.stat().st_size for path in paths), "comparing bundles")
        opened, images, claims, settings, runs = zip(*map(check, paths, names), strict=True)
        ranking, notes = rank_all(
            opened, images, statistics.replicates, statistics.confidence, statistics.seed
        )
    settings = (
        pd.DataFrame(dict(zip(names, settings, strict=True)))
        .sort_index()
        .rename_axis("setting")
        .fillna("")
    )
    settings = settings[settings.nunique(axis=1) > 1].reset_index()
    found = {"ranking": ranking, "settings": settings, "claims": pd.concat(claims)}
    options = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE.parent), **options)
    shown = {
        "bundles": list(zip(opened, runs, paths, strict=True)),
        "notes": notes,
        "tables": found,
        "views": None,
        "percent": percent,
    }
    text = templates.get_template(TEMPLATE.name).render(shown)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in found.items():
        write_table(folder / f"{name}.csv", table)
    write_text(folder / "index.html", text)
    print_lines(
        f"The tables of {len(opened)} bundles follow from their rows; open {folder}/index.html."
    )


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of bundles in tables and on the page: of the files, with a folder if files have one name.

    Raises a UserError if two bundles are the same file, or cannot be told apart.
    """
    names = []
    for path in paths:
        alike = [other for other in paths if _stem(other) == _stem(path)]
        names.append(_stem(path) if len(alike) == 1 else f"{_folder(path, alike)}.{_stem(path)}")
    for number, path in enumerate(paths):
        for earlier, name in zip(paths[:number], names, strict=False):
            if path.samefile(earlier):
                raise UserError(
                    f"config, bundles: {earlier} and {path} are the same file; remove one of them.",
                )
            if name == names[number]:
                raise UserError(
                    f"config, bundles: {earlier} and {path} would both be called {name}; rename one of these files."
                )
    return names


def _stem(path: Path) -> str:
    return path.name.removesuffix(".rib.zip")


def _folder(path: Path, alike: Sequence[Path]) -> str:
    """The nearest folder whose name tells a file from others of its name, or else all folders."""
    parents = {other: _parents(other) for other in alike}
    for level, folder in enumerate(parents[path]):
        at_this_level = [folders[level] for folders in parents.values() if level < len(folders)]
        if at_this_level.count(folder) == 1:
            return folder
    return ".".join(reversed(parents[path]))


def _parents(path: Path) -> list[str]:
    """Names of a file's folders, the nearest first, in the characters of a bundle's name."""
    folders = path.resolve().parts[1:-1]
    return [re.sub(r"[^A-Za-z0-9_.-]", "_", folder) for folder in reversed(folders)]


def check(
    path: Path, name: str
) -> tuple[Bundle, dict[str, str], pd.DataFrame, dict[str, str], RunFacts]:
    """A bundle, digests of its scored images, differences of its tables, settings as JSON, and `run_facts`; or a UserError."""
    folder = WORK / "compare" / f"bundle-{name}"
    folder.mkdir()
    try:
        bundle = open_bundle(path, name, folder)
        images, again, run = scored_images(bundle), compute_again(bundle), run_facts(bundle.records)
        lines = [
            (name, claim.name, *difference(claim, again / claim.name)) for claim in bundle.claims
        ]
        made_with = {
            "commits": [commit for commit, _ in run.commits],
            "machines": [machine for machine, _ in run.machines],
            "versions": [version for version, _ in run.versions],
        }
        (flat,) = pd.json_normalize({"config": bundle.config, **made_with}).to_dict("records")
        settings = {
            key: json.dumps(value) for key, value in flat.items()
        }  # as JSON, no text begins as a formula
    except UserError as error:
        raise UserError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from None
    except Exception as error:  # readers of hostile files raise many types
        if message_of_os_error(error):  # of this machine
            raise
        what = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(
            f"{path} is damaged or forged, and nothing was compared: {what}; ask its author."
        ) from error
    claims = pd.DataFrame(
        lines, columns=["bundle", "table", "lines", "numbers", "largest difference"]
    )
    return bundle, images, claims, settings, run


def scored_images(bundle: Bundle) -> dict[str, str]:
    """Digest of the scored images of each dataset; a ValueError if rows are of another run, of no image, or twice."""
    indexes = read_indexes(bundle.indexes.values(), ["image_id", "label", "object_id"])
    spaces = {
        name: read_json(path.with_name("classes.json")) for name, path in bundle.indexes.items()
    }
    if any(
        not index["label"].between(0, len(spaces[name]["keys"]) - 1).all()
        for name, index in indexes.items()
    ):
        raise ValueError("an image is of no class")
    last, found = {name: len(index) - 1 for name, index in indexes.items()}, {}
    for path in bundle.rows:
        part, run = pd.read_parquet(path, columns=[*RUN_COLUMNS, *COLUMNS]), run_of(path)
        known = part["row"].between(0, part["dataset"].astype(str).map(last)) & (part["rank"] >= 0)
        same = all(
            (part[key] == value).all() and NAME.fullmatch(str(value))
            for key, value in vars(run).items()
        )
        if not (known.all() and same) or part.duplicated(["alpha", "dataset", "row"]).any():
            raise ValueError(f"rows of {run} are of another run, of no image, or twice")
        for name in (
            set(part["dataset"].unique()) - found.keys()
        ):  # `count` compares other runs with the first
            images = indexes[name].iloc[np.unique(part["row"][part["dataset"] == name])]
            space = json.dumps(
                [spaces[name].get(key) for key in ("keys", "indices", "also")]
            ).encode()
            found[name] = hashlib.sha256(
                pd.util.hash_pandas_object(images).to_numpy().tobytes() + space
            ).hexdigest()
    return found


def compute_again(bundle: Bundle) -> Path:
    """Folder of the tables that follow from a bundle's rows, by the functions of the workflow's jobs."""
    cfg, folder = bundle.tables, bundle.folder / "again"
    folder.mkdir()
    settings = {key: cfg[key] for key in SETTINGS}
    splits = {path.parts[-2]: path for path in bundle.folder.glob("results/*/*/split/*/*.parquet")}
    proxies = {}
    for name in cfg["excludes_proxy"]:  # none if there is no reference
        proxies[name] = bundle.indexes[bundle.config["reference"]].parent
    outputs = {path.stem: folder / path.name for path in bundle.claims}
    outputs |= {"mri_json": folder / "mri.json", "counts": folder / "counts.npz"}
    made = tables.grid_tables(
        rows=bundle.rows,
        indexes=bundle.indexes.values(),
        manifests=[path.with_suffix(".manifest.json") for path in bundle.rows],
        datasets=[
            DatasetFiles(n, p.parent, proxies.get(n), splits.get(n))
            for n, p in bundle.indexes.items()
        ],
        view=DatasetView(
            None, 1, cfg["view"]["budget"], cfg["view"]["images_per_class"]
        ),  # pixels are not opened
        outputs=outputs,
        **settings | {key: cfg[key] for key in ("fit", "in_distribution")},
    )
    write_tables(made, outputs, conditions=cfg["conditions"])
    compared = comparison_tables(
        counts=outputs["counts"],
        fit=outputs["fit"],
        compare_to=bundle.config["compare_to"],
        **settings,
    )
    write_tables(compared, outputs, conditions=cfg["conditions"])
    mark_tables(folder.glob("*.csv"), outputs["fit"])
    return folder


def difference(claimed: Path, again: Path) -> tuple[int, int, float]:
    """Lines and numbers of a table, and the largest difference from the one computed again; a UserError beyond rounding."""
    sides = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (claimed, again)]
    if list(sides[0]) != list(sides[1]) or len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{claimed.name} does not follow from the rows, which give other columns or lines."
        )
    numbers = [side.apply(pd.to_numeric, errors="coerce").astype(float) for side in sides]
    apart = (numbers[0] - numbers[1]).abs()
    for line, column in np.argwhere(~((sides[0] == sides[1]) | (apart <= ROUNDING)).to_numpy())[:1]:
        is_claimed, is_found = (repr(side.iat[line, column][:50]) for side in sides)
        raise UserError(
            f"{claimed.name} does not follow from the rows: line {line + 2}, {apart.columns[column]}, is {is_claimed}, and "
            f"the rows give {is_found}; ask its author, nothing was compared."
        )
    return len(apart), int(apart.count().sum()), float(np.nanmax(apart.to_numpy(), initial=0.0))


def rank_all(
    bundles: Sequence[Bundle],
    images: Sequence[Mapping[str, str]],
    replicates: int,
    confidence: float,
    seed: int,
) -> tuple[pd.DataFrame, list[str]]:
    """Models and methods of all bundles by mRI over what they share, with letters, and notes on what can't be compared.

    Differences are from the pretrained models, whose mRI is 0, so their simultaneous intervals are of mRI.

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
    in_ri = shared["dataset"].intersection(*(bundle.tables["ood_datasets"] for bundle in bundles))
    which = {"ood_datasets": in_ri, "source_groups": bundles[0].tables["source_groups"]}
    alike = all(bundle.tables["source_groups"] == which["source_groups"] for bundle in bundles)
    many = sum(len({(run.model, run.method) for run in own}) for own in runs) > MOST
    if (
        many
        or not alike
        or not all(shared.values())
        or any(in_ri <= {target} for target in shared["target"])
    ):
        why = f"they share too few datasets, targets or seeds, differ in leak_free, or are more than {MOST}"
        return pd.DataFrame(columns=ENTRY), [
            *notes,
            f"The methods of these bundles are not ranked together: {why}.",
        ]
    scored, found, targets = {}, [], {*shared["target"], NO_TARGET}
    paths = [
        {name: bundle.indexes[name] for name in bundle.indexes if name in shared["dataset"]}
        for bundle in bundles
    ]
    # Together, so that all bundles have the same objects, also if only some say which photos are identical.
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
        # With bundle/model/method in place of the method, and no model, all are compared with one another.
        scored |= {
            ("", f"{bundle.name}/{state[0]}/{state[1]}", *state[2:]): (ood[state], after - before)
            for state, (before, after) in ood_parts(counts, **which).items()
            if state[4] in shared["seed"] and state[5] is None
        }
    fits = [
        read_table(path).assign(bundle=one.name)
        for one in bundles
        for path in one.claims
        if path.stem == "fit"
    ]
    unfinished = pd.concat(fits).query("unfinished == 'yes'")
    for size in sorted({state[3] for state in scored}):
        ood, parts = (
            {state: pair[i] for state, pair in scored.items() if state[3] == size} for i in (0, 1)
        )
        untested = {
            "/".join(entry) for entry in unfinished[unfinished["size"] == size][ENTRY].to_numpy()
        }
        effects = effects_of(ood, parts, size, untested)
        effects = replace(
            effects, columns={None: effects.columns[None]}, parts=effects.parts[:, -1:]
        )
        ranked = tables_of(effects, confidence, DRAWS, seed, compare_to=PRETRAINED)[
            "ranking"
        ].reset_index(drop=True)
        names = ranked.pop("method").tolist()
        found.append(
            pd.DataFrame(
                [(*name.split("/"), size) for name in names], columns=[*ENTRY, "size"]
            ).join(ranked)
        )
        without = sorted({state[1] for state in ood} - {*names})
        notes += [
            f"{name} has no rank: its training is unfinished, or it merges all seeds."
            for name in without
        ]
    return pd.concat(found), notes


def over_other_seeds(runs: Collection[Run], shared: Collection[int]) -> list[str]:
    """Methods that merge seeds of which some are not shared: they have the first seed's run only, where others have all."""
    found: dict[str, set[int]] = {}
    for run in runs:
        found.setdefault(run.method, set()).add(run.seed)
    seeds = set().union(*found.values())
    return sorted(
        name for name, own in found.items() if own != seeds and not seeds.issubset(shared)
    )
