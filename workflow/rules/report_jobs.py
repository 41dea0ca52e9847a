"""The finished runs of a grid, and the jobs of its reports with these only: `snakemake preview`."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from code_changes import settings_now
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from rib.base.errors import UserError
from rib.config.run import PRETRAINED, Run, run_of
from rib.records import provenance
from rib.records.hashing import differing

# A preview of more runs draws fewer bootstrap replicates, and leaves out what reads rows again or
# writes each run's number.
LARGE, REPLICATES = 1000, 200
SLOW = {
    "compare_samples",
    "compare_slices",
    "explain_cells",
    "accuracy_matrix",
    "ri_matrix",
    "classes",
}
TOO_SLOW = "it takes too long for a preview"
NOT_MADE = ("provenance", "pdf", "crate")  # outputs that a preview lacks
# Jobs that show each run, whichever others are finished.
PER_CELL = {"compute_metrics", "explain_cells", "ri_matrix", "accuracy_matrix"}


class Finished(NamedTuple):
    """What is finished of a grid.

    A run counts if all seeds of its model, method, target and size are finished.
    """

    runs: set[str]  # names
    compared: set[str]  # those that means are of: of methods that are finished on all `targets`
    targets: list[str]
    outdated: int  # number of runs that have rows, but would be made again
    # those of `compared` whose variant is scored on the select split, wherever `select` needs that
    selectable: set[str]


def finished_runs(
    workflow,
    runs: Sequence[Run],
    rows_of: Callable,
    select_rows: Sequence[str],
    records: Iterable[str],
) -> Finished:
    """The finished ones of a grid's runs; a UserError without any.

    Args:
        rows_of: files with the rows of given runs.
        select_rows: files with rows of the select split, of the runs among which a variant is
            chosen by them.
        records: of all jobs of the grid, in order of stages.
    """
    hashes: dict[str, str | None] = {}  # of outputs, None if a run would make them again
    for path in records:
        if made := provenance.read(Path(path)):
            now = (
                settings_now(workflow.get_rule(made["rule"]), path)
                if workflow.is_rule(made["rule"])
                else None
            )
            same = all(
                hashes.get(file, digest) == digest for file, digest in made["inputs"].items()
            )
            hashes |= (
                made["outputs"]
                if same and repr(now) == repr(made["cfg"])
                else dict.fromkeys(made["outputs"])
            )
    rows = {run: rows_of([run]) for run in runs}
    needed = [*chain.from_iterable(rows.values()), *select_rows]
    recorded = {Path(file): hashes[file] for file in needed if hashes.get(file)}
    valid = recorded.keys() - differing(recorded, "checking rows", remember=True)
    done = {run for run, files in rows.items() if valid.issuperset(map(Path, files))}
    cells: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.model, run.method, run.size, run.target), []).append(run)
    before = {run.model: str(run) for run in done if run.method == PRETRAINED}
    tuned = {key: own for key, own in cells.items() if key[0] in before and key[1] != PRETRAINED}
    cells = {key: own for key, own in tuned.items() if done.issuperset(own)}
    if not cells:
        raise UserError(
            "preview: no run is finished; it needs the rows of a pretrained model, and of all "
            "seeds of one of its methods on a target. `snakemake status` says how far the grid is."
        )
    targets, among = common_targets(cells)
    outdated = sum(all(map(Path.is_file, map(Path, files))) for files in rows.values()) - len(done)
    compared = {str(run) for key in among for run in cells[key]} | {
        before[model] for model, *_ in among
    }
    shown = {str(run) for own in cells.values() for run in own} | {*before.values()}
    unscored = {run_of(path) for path in map(Path, select_rows) if path not in valid}
    variant_of = {run: (run.model, run.method, run.size) for run in runs}
    unscored_variants = {variant_of[run] for run in unscored if str(run) in compared}
    selectable = compared - {str(run) for run in runs if variant_of[run] in unscored_variants}
    return Finished(shown, compared, targets, outdated, selectable)


def common_targets(cells: Iterable[tuple[str, ...]]) -> tuple[list[str], set[tuple[str, ...]]]:
    """The most finished targets, and the cells of methods that have all of them.

    A cell is a model, method, size and target; the targets are those with the most cells.
    """
    own: dict[tuple, set[str]] = {}
    for *method, target in cells:
        own.setdefault(tuple(method), set()).add(target)
    order = [
        target for target, _ in Counter(sorted(chain.from_iterable(own.values()))).most_common()
    ]
    choices = [order[: number + 1] for number in range(len(order))]
    best = max(
        choices, key=lambda some: len(some) * sum(part.issuperset(some) for part in own.values())
    )
    return best, {
        (*method, target)
        for method, part in own.items()
        if part.issuperset(best)
        for target in best
    }


def preview_jobs(
    workflow,
    paths: Iterable[str],
    finished: Finished,
    here: Callable[[str], str],
    runs_folder: str,
    logs: str,
    note: str,
) -> tuple[list[SimpleNamespace], dict[str, str]]:
    """Jobs of reports with the finished runs, as scripts take them, and why others are left out.

    Each job comes after those that it needs. `here` says where a preview has a file;
    `note` is for tables and figures.
    """
    jobs, left_out, seen, large = [], {}, set(), len(finished.runs) > LARGE

    def add(path: str) -> None:
        if path in seen or here(path) == path:
            return
        rule = next(rule for rule in workflow.rules if rule.is_producer(path))
        w = Wildcards(fromdict=rule.get_wildcards(path))
        output, given, name = (
            rule.expand_output(w)[0],
            rule.expand_input(w)[0],
            w.get("figure", rule.name),
        )
        seen.update(output)
        for file in given:
            add(str(file))
        cfg = dict(rule.params.cfg(w) if callable(rule.params.cfg) else rule.params.cfg)
        runs = finished.runs if name in PER_CELL else finished.compared
        if "variants" in cfg:
            runs = finished.selectable
            cfg["variants"] = finished_sweeps(cfg["variants"], runs)
            if not cfg["variants"]:
                left_out[name] = "no sweep has two finished variants"
                return
        lists = {key: [*map(str, it)] for key, it in given.items() if not isinstance(it, str)}
        kept = {
            key: [it for it in files if _is_of(it, runs_folder, runs)]
            for key, files in lists.items()
        }
        tuned = {
            key: any(f"/{PRETRAINED}/" not in it for it in files) for key, files in kept.items()
        }
        if (large and name in SLOW) or any(
            not tuned[key] and lists[key] != kept[key] for key in lists
        ):
            left_out[name] = TOO_SLOW if large and name in SLOW else "no run of it is finished"
            return
        if rule.name == "plot_figure":
            shown = of_runs(cfg["draw_settings"], runs, len(finished.targets))
            cfg |= {"draw_settings": shown, "note": note}
        elif rule.name != "write_page":
            cfg = of_runs(cfg, runs, 0)
            if "conditions" in cfg:
                cfg["conditions"] = f"{note}; {cfg['conditions']}"
        if rule.name == "compute_metrics":
            cfg["compared"] = sorted(finished.compared)
        statistics = cfg.get("ri", cfg)
        if large and "replicates" in statistics:
            statistics["replicates"] = min(REPLICATES, statistics["replicates"])
        named = {
            key: [*map(here, kept[key])] if key in kept else here(str(it))
            for key, it in given.items()
        }
        left_out.update(dict.fromkeys(SLOW.intersection(output.keys()) if large else (), TOO_SLOW))
        made = {
            key: here(str(it))
            for key, it in output.items()
            if key not in NOT_MADE and key not in left_out
        }
        parts = {
            "input": InputFiles(fromdict=named),
            "output": OutputFiles(fromdict=made),
            "wildcards": w,
        }
        parts |= {
            "params": Params(fromdict={"cfg": cfg}),
            "log": Log([f"{logs}/{name}.log"]),
            "threads": 1,
        }
        jobs.append(
            SimpleNamespace(name=name, rule=rule.name, script=Path(rule.script).name, **parts)
        )

    for path in paths:
        add(path)
    return jobs, left_out


def finished_sweeps(
    variants: Mapping[str, Sequence[str]], runs: Iterable[str]
) -> dict[str, list[str]]:
    """The variants of each method that runs are of, for methods that have at least two."""
    methods = {name.split("/")[2] for name in runs}
    finished = {
        base: [name for name in names if name in methods] for base, names in variants.items()
    }
    return {base: names for base, names in finished.items() if len(names) > 1}


def _is_of(path: str, runs_folder: str, runs: set[str]) -> bool:
    """Whether a file is of one of the runs, or of none of the grid's.

    Files of runs are <stage>/<model>/<target>/<method>/<size>/<seed>/<file>.
    """
    inside = (
        Path(path).parts[len(Path(runs_folder).parts) :]
        if path.startswith(f"{runs_folder}/")
        else ()
    )
    return len(inside) != 7 or str(run_of(Path(path))) in runs


def of_runs(settings: Mapping, runs: Iterable[str], targets: int) -> dict:
    """Settings whose `models`, `methods` and `targets`, also inside of others, are those of runs.

    A list of methods has those that all models share; a number of targets becomes `targets`.
    `averages` are by method.
    """
    tuned = [run.split("/")[:3] for run in runs if f"/{PRETRAINED}/" not in run]
    models = {model for model, _, method in tuned if settings.get("method", method) == method}
    known = {
        "models": models,
        "methods": {run[2] for run in tuned},
        "targets": {run[1] for run in tuned},
    }
    known["averages"] = known["methods"]
    shared = known["methods"].intersection(
        *({run[2] for run in tuned if run[0] == model} for model in models)
    )

    def part(key: str, value):
        if key in known and isinstance(value, Mapping):
            return {name: entry for name, entry in value.items() if name in known[key]}
        if key in known and isinstance(value, list):
            return [name for name in value if name in (shared if key == "methods" else known[key])]
        if key == "targets" and isinstance(value, int):
            return targets
        return (
            {name: part(name, entry) for name, entry in value.items()}
            if isinstance(value, Mapping)
            else value
        )

    return {key: part(key, value) for key, value in settings.items()}
