"""The finished runs of a grid, and the jobs of its reports with these runs only, for `snakemake preview`."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

from code_changes import settings_now
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from rib.base.errors import UserError
from rib.config.run import PRETRAINED, Run, run_of
from rib.records import provenance
from rib.records.hashing import differing

ALL_CELLS = ("ri_matrix", "accuracy_matrix")  # figures that leave a cell empty if it has no number
# A preview of more runs reads their rows once, and draws fewer bootstrap replicates.
LARGE, REPLICATES, READS_AGAIN = 1000, 200, ("compare_samples", "compare_slices")


@dataclass(frozen=True)
class Finished:
    """What can be shown of a grid: names of runs whose cells (all seeds of a model, method, target and size) are finished.

    Means and comparisons are of `compared`, the runs of methods that are finished on all of `targets`. `outdated` is the
    number of runs whose rows differ from their records, or would be made again with the settings and code of now.
    """

    runs: set[str]
    compared: set[str]
    targets: list[str]
    outdated: int


def valid_records(workflow, records: Iterable[str]) -> dict[str, dict]:
    """Records of jobs that a run would not repeat, by path, from those of all jobs, of earlier stages first."""
    valid, hashes = {}, {}
    for path in records:
        if made := provenance.read(Path(path)):
            now = settings_now(workflow.get_rule(made["rule"]), path) if workflow.is_rule(made["rule"]) else None
            same = all(hashes.get(file, digest) == digest for file, digest in made["inputs"].items())
            if holds := same and repr(now) == repr(made["cfg"]):
                valid[path] = made
            hashes |= made["outputs"] if holds else dict.fromkeys(made["outputs"])
    return valid


def finished_runs(workflow, runs: Sequence[Run], rows_of: Callable, records: Iterable[str]) -> Finished:
    """The finished ones of a grid's runs, of which `rows_of` has the files and `records` those of all jobs.

    Raises:
        UserError: there are none.
    """
    valid, rows = valid_records(workflow, records), {run: rows_of([run]) for run in runs}
    stated = {file: digest for made in valid.values() for file, digest in made["outputs"].items()}
    whole = {run: files for run, files in rows.items() if stated.keys() >= {*files}}
    damaged = differing({Path(file): stated[file] for files in whole.values() for file in files}, "checking rows", True)
    done = {run for run, files in whole.items() if {*damaged}.isdisjoint(map(Path, files))}
    cells: dict[tuple, list[Run]] = {}
    for run in runs:
        cells.setdefault((run.model, run.method, run.size, run.target), []).append(run)
    started = {run.model for run in done if run.method == PRETRAINED}
    cells = {key: own for key, own in cells.items() if key[0] in started and done.issuperset(own)}
    targets, compared = common_targets([key for key in cells if key[1] != PRETRAINED])
    if not targets:
        raise UserError(
            "preview: no run is finished; it needs the rows of a pretrained model, and those of all seeds of one of its "
            "methods on a target. `snakemake status` says how far the grid is."
        )
    before = {key for key in cells if key[1] == PRETRAINED and key[0] in {model for model, *_ in compared}}
    named = {key: {*map(str, own)} for key, own in cells.items()}
    on_disk = sum(all(map(Path.is_file, map(Path, files))) for files in rows.values())
    of_means = set().union(*(named[key] for key in compared | before))
    return Finished(set().union(*named.values()), of_means, targets, on_disk - len(done))


def common_targets(cells: Iterable[tuple[str, str, str, str]]) -> tuple[list[str], set[tuple[str, str, str, str]]]:
    """Targets, and the cells (model, method, size, target) of methods finished on all of them: the most cells, of the
    most finished targets.
    """
    own: dict[tuple, set[str]] = {}
    for *method, target in cells:
        own.setdefault(tuple(method), set()).add(target)
    order = [target for target, _ in Counter(chain.from_iterable(own.values())).most_common()]
    order.sort(key=lambda target: -sum(target in part for part in own.values()))
    choices = [order[: number + 1] for number in range(len(order))]
    best = max(choices, key=lambda some: len(some) * sum(part.issuperset(some) for part in own.values()), default=[])
    return best, {(*method, target) for method, part in own.items() if part.issuperset(best) for target in best}


def report_jobs(workflow, paths: Iterable[str], folder: str) -> Iterator[SimpleNamespace]:
    """Jobs that make files in a folder of reports, each after those whose files it reads."""
    made: set[str] = set()

    def jobs_of(path: str) -> Iterator[SimpleNamespace]:
        if path in made or not path.startswith(folder):
            return
        rule = next(rule for rule in workflow.rules if rule.is_producer(path))
        w = Wildcards(fromdict=rule.get_wildcards(path))
        given, output = rule.expand_input(w)[0], rule.expand_output(w)[0]
        made.update(map(str, output))
        for file in given:
            yield from jobs_of(str(file))
        named = {key: str(it) if isinstance(it, str) else [*map(str, it)] for key, it in given.items()}
        cfg = rule.params.cfg(w) if callable(rule.params.cfg) else rule.params.cfg
        made_here = {key: str(path) for key, path in output.items()}
        name, script = w.get("figure", rule.name), Path(rule.script).name
        yield SimpleNamespace(name=name, rule=rule.name, script=script, wildcards=w, cfg=cfg, input=named, output=made_here)

    for path in paths:
        yield from jobs_of(path)


def restrict(job: SimpleNamespace, finished: Finished, runs_folder: str, note: str) -> str:
    """Leave out of a job what is not of finished runs; returns why it cannot be run with the rest, if so."""
    large, metrics = len(finished.runs) > LARGE, job.rule == "compute_metrics"
    runs = finished.runs if metrics or job.name in ALL_CELLS else finished.compared
    depth, cfg = len(Path(runs_folder).parts) + 7, dict(job.cfg)

    def kept(path: str) -> bool:
        of_run = path.startswith(f"{runs_folder}/") and len(Path(path).parts) == depth
        return not of_run or str(run_of(Path(path))) in runs

    if large and job.rule in READS_AGAIN:
        return f"a preview of more than {LARGE} runs does not read their rows again"
    if "runs" in cfg:  # those of the manifests
        pairs = zip(cfg["runs"], job.input["manifests"], strict=True)
        cfg["runs"] = [run for run, path in pairs if kept(path)]
    given = {key: it if isinstance(it, str) else [*filter(kept, it)] for key, it in job.input.items()}
    if any(job.input[key] and not files for key, files in given.items()):
        return "no run that it needs is finished"
    if job.rule == "plot_figure":
        cfg |= {"settings": chosen(cfg["settings"], runs, finished.targets), "note": note}
    elif job.rule != "write_page":
        cfg = chosen(cfg, runs, finished.targets) | {"conditions": f"{note}; {cfg.get('conditions', '')}"}
    if large and "replicates" in cfg:
        cfg["replicates"] = min(REPLICATES, cfg["replicates"])
    job.input, job.cfg = given, cfg | ({"compared": sorted(finished.compared)} if metrics else {})
    return ""


def chosen(settings: Mapping, runs: Collection[str], targets: Sequence[str]) -> dict:
    """Settings whose `models`, `methods` and `targets`, also inside of others, are those of runs.

    A list of methods has those that all models share, and a number of targets is that of `targets`.
    """
    pairs = {(model, method) for model, _, method, *_ in (name.split("/") for name in runs) if method != PRETRAINED}
    models = {model for model, method in pairs if settings.get("method", method) == method}
    shared = {method for _, method in pairs if all((model, method) in pairs for model in models)}
    known = {"models": models, "methods": {method for _, method in pairs}, "targets": {name.split("/")[1] for name in runs}}

    def part(key: str, value):
        if key == "targets" and isinstance(value, int):
            return len(targets)
        if key in known and isinstance(value, Mapping):
            return {name: entry for name, entry in value.items() if name in known[key]}
        if key in known and isinstance(value, list):
            return [name for name in value if name in (shared if key == "methods" else known[key])]
        return {name: part(name, entry) for name, entry in value.items()} if isinstance(value, Mapping) else value

    return {key: part(key, value) for key, value in settings.items()}


def preview_jobs(
    jobs: Iterable[SimpleNamespace], finished: Finished, *, runs_folder: str, moved: Callable[[str], str], logs: str, note: str
) -> tuple[list[SimpleNamespace], dict[str, str]]:
    """What scripts take as `snakemake`, for the jobs of reports with the finished runs; why others are left out, by name.

    `moved` says where a preview has a report's file; it has no records.
    """
    found, left_out = [], {}
    for job in jobs:
        if why := restrict(job, finished, runs_folder, note):
            left_out[job.name] = why
            continue
        given = {key: moved(it) if isinstance(it, str) else [*map(moved, it)] for key, it in job.input.items()}
        output = OutputFiles(fromdict={key: moved(path) for key, path in job.output.items() if key != "provenance"})
        parts = {"input": InputFiles(fromdict=given), "output": output, "params": Params(fromdict={"cfg": job.cfg})}
        log = Log([f"{logs}/{job.name}.log"])
        found.append(SimpleNamespace(**{**vars(job), **parts, "log": log, "threads": 1}))
    return found, left_out
