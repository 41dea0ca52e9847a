"""The finished runs of a grid, and those of them that can be compared: for `snakemake preview`."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from snakemake_internals.rules import rule_named, settings_now

from rib.base.errors import UserError
from rib.config.run import PRETRAINED, Run
from rib.records import provenance
from rib.records.hashing import differing

NO_FINISHED_RUN = (
    "preview: no run is finished; it needs the rows of a pretrained model, and of all seeds of one "
    "of its methods on a target."
)


class Variant(NamedTuple):
    """What has a mean over targets and seeds."""

    model: str
    method: str
    size: str


class Cell(NamedTuple):
    """A variant on one target. Its runs differ in their seeds."""

    variant: Variant
    target: str


@dataclass(frozen=True)
class FinishedRuns:
    """What is finished of a grid.

    A run counts if all seeds of its cell are finished, and its pretrained model is evaluated.

    Attributes:
        runs: those that count, in the order of the grid.
        compared: those of them that means are of: of variants that are finished on all `targets`,
            and of their pretrained models.
        selectable: those of `compared` among which a variant of a sweep can be chosen, since rows
            of the select split are there wherever the choice needs them.
        targets: the targets that means are over.
        outdated: number of runs that have rows, but would be made again.
    """

    runs: list[Run]
    compared: list[Run]
    selectable: list[Run]
    targets: list[str]
    outdated: int


def finished_runs(
    workflow,
    runs: Sequence[Run],
    rows_of: Callable[[Sequence[Run]], list[str]],
    select_rows: Mapping[Run, Sequence[str]],
    records: Iterable[str],
) -> FinishedRuns:
    """The finished ones of a grid's runs; a UserError if there are none.

    Args:
        workflow: Snakemake's.
        runs: all runs of the grid.
        rows_of: gives the files with the rows of some runs.
        select_rows: files with rows of the select split, by run, of the runs among which a variant
            is chosen by them.
        records: provenance records of all jobs of the grid, in the order of stages.
    """
    rows_of_run = {run: list(map(Path, rows_of([run]))) for run in runs}
    files = [Path(file) for files_of_run in select_rows.values() for file in files_of_run]
    for rows in rows_of_run.values():
        files.extend(rows)
    valid_files = _valid_files(files, _current_outputs(workflow, records))
    evaluated = {run for run, rows in rows_of_run.items() if valid_files.issuperset(rows)}

    pretrained_runs = {run.model: run for run in evaluated if run.method == PRETRAINED}
    cells = _finished_cells(runs, evaluated, pretrained_runs)
    if not cells:
        raise UserError(NO_FINISHED_RUN)
    counted = set(pretrained_runs.values())
    for runs_of_cell in cells.values():
        counted.update(runs_of_cell)

    targets, compared_cells = common_targets(cells)
    compared = set()
    for cell in compared_cells:
        compared.update(cells[cell])
        compared.add(pretrained_runs[cell.variant.model])

    without_choice = {
        variant_of(run)
        for run, files_of_run in select_rows.items()
        if run in compared and not valid_files.issuperset(map(Path, files_of_run))
    }
    runs_with_rows = [run for run, rows in rows_of_run.items() if all(map(Path.is_file, rows))]
    compared_in_order = [run for run in runs if run in compared]
    return FinishedRuns(
        runs=[run for run in runs if run in counted],
        compared=compared_in_order,
        selectable=[run for run in compared_in_order if variant_of(run) not in without_choice],
        targets=targets,
        outdated=len(runs_with_rows) - len(evaluated),
    )


def variant_of(run: Run) -> Variant:
    """The variant that a run belongs to."""
    return Variant(run.model, run.method, run.size)


def _current_outputs(workflow, records: Iterable[str]) -> dict[Path, str]:
    """Hashes of the outputs of finished jobs, of those that a run would not make again.

    A job would be made again if its settings are others now, or if one of its inputs would be.

    Args:
        records: provenance records in the order of stages.
    """
    hash_of_output: dict[str, str | None] = {}  # None if a run would make the output again
    for path in records:
        record = provenance.read(Path(path))
        if record is None:
            continue
        rule = rule_named(workflow, record["rule"])
        current_settings = settings_now(rule, path) if rule is not None else None
        has_same_settings = repr(current_settings) == repr(record["cfg"])
        has_same_inputs = all(
            hash_of_output.get(file, digest) == digest for file, digest in record["inputs"].items()
        )
        if has_same_settings and has_same_inputs:
            hash_of_output.update(record["outputs"])
        else:
            hash_of_output.update(dict.fromkeys(record["outputs"]))
    return {Path(file): digest for file, digest in hash_of_output.items() if digest is not None}


def _valid_files(files: Iterable[Path], current_outputs: Mapping[Path, str]) -> set[Path]:
    """The files that are outputs of finished jobs and have the bytes that these made."""
    recorded_hashes = {file: current_outputs[file] for file in files if file in current_outputs}
    changed_files = differing(recorded_hashes, "checking rows", remember=True)
    return recorded_hashes.keys() - set(changed_files)


def _finished_cells(
    runs: Iterable[Run], evaluated: Collection[Run], pretrained_models: Collection[str]
) -> dict[Cell, list[Run]]:
    """The cells of a grid whose runs are all evaluated, with these runs.

    A cell is a variant (model, method and size) on one target. Its runs differ in their seeds.

    Args:
        runs: all runs of the grid.
        evaluated: those of them that are evaluated.
        pretrained_models: models whose pretrained run is evaluated. Cells of others don't count.
    """
    runs_of_cells: dict[Cell, list[Run]] = defaultdict(list)
    for run in runs:
        if run.method != PRETRAINED and run.model in pretrained_models:
            runs_of_cells[Cell(variant_of(run), run.target)].append(run)
    finished_cells = {}
    for cell, runs_of_cell in runs_of_cells.items():
        if all(run in evaluated for run in runs_of_cell):
            finished_cells[cell] = runs_of_cell
    return finished_cells


def common_targets(cells: Collection[Cell]) -> tuple[list[str], set[Cell]]:
    """Targets, and the cells of all variants that are finished on each of these targets.

    A cell is a variant (model, method and size) on one target.

    The targets are those that most variants are finished on, as many of them as give the most
    cells: of two targets with 5 and 3 variants, of which 3 are finished on both, both are taken,
    since 2 targets times 3 variants are more cells than 1 target times 5.
    """
    targets_of_variant: dict[Variant, set[str]] = defaultdict(set)
    for cell in cells:
        targets_of_variant[cell.variant].add(cell.target)
    # Sorted, so that equally frequent targets are in the order of their names.
    number_of_cells = Counter(sorted(cell.target for cell in cells))
    targets_by_frequency = [target for target, _ in number_of_cells.most_common()]

    best_targets: list[str] = []
    best_variants: list[Variant] = []
    for number in range(1, len(targets_by_frequency) + 1):
        targets = targets_by_frequency[:number]
        variants = [
            variant
            for variant, finished_targets in targets_of_variant.items()
            if finished_targets.issuperset(targets)
        ]
        if len(targets) * len(variants) > len(best_targets) * len(best_variants):
            best_targets = targets
            best_variants = variants
    compared_cells = set()
    for variant in best_variants:
        for target in best_targets:
            compared_cells.add(Cell(variant, target))
    return best_targets, compared_cells
