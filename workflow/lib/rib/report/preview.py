"""A preview of an unfinished grid: tables, figures and page of the finished runs.

It calls the functions of a run's jobs one after the other, also while the run goes on.
"""

import shutil
import traceback
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.params import from_params, to_params
from rib.base.progress import log
from rib.figures import write_figure
from rib.grid.figure_settings import figure_settings
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths, beside
from rib.records import provenance
from rib.report.about import describe_grid, page_settings
from rib.report.described import analyses_of_page, described_analyses
from rib.report.page import write_page
from rib.report.report_settings import FinishedShare, PreviewDescription
from rib.schema.analysis import Analysis, Figure, flat
from rib.schema.run import PRETRAINED, Run
from rib.statistics.conditions import conditions_of
from rib.statistics.inputs import Inputs
from rib.statistics.metrics import write_metrics
from rib.statistics.statistics_settings import grid_table_settings, metrics_of
from rib.statistics.writing import make_tables
from rib.training.training_settings import TrainingSettings

NO_FINISHED_RUN = (
    "preview: no run is finished; it needs the rows of a pretrained model, and of all seeds of one "
    "of its methods on a target."
)


class Variant(NamedTuple):
    """A model fine-tuned with one method and size; its mRI is a mean over targets and seeds."""

    model: str
    method: str
    size: str


class VariantOnTarget(NamedTuple):
    """A variant (model, method and size) on one target; its runs differ only in their seeds."""

    variant: Variant
    target: str


def write_preview(grid: Grid, citation: Path) -> Path:
    """Write the preview of a grid, replacing an earlier one, and return its page.

    The page says what is missing, and why a figure can't be made.

    Args:
        citation: CITATION.cff.

    Raises:
        UserError: No run is finished, or the tables of accuracy and RI can't be made.
    """
    runs = finished_runs(grid)
    shown = grid.of_runs(runs)
    paths = Paths(shown, report=f"{Paths(grid).report}/preview")
    shutil.rmtree(paths.report, ignore_errors=True)
    Path(paths.report, "tables").mkdir(parents=True)
    Path(paths.report, "figures").mkdir()
    _write_metrics(shown, paths)
    analyses = described_analyses(shown, paths, grid.config["analyses"])
    analyses = analyses_of_page(analyses, paths)
    left_out: dict[str, str] = {}
    made = {}
    for name, analysis in _in_order(analyses, paths):
        with _noting(name, left_out):
            _make_tables(name, analysis, shown, paths)
            made[name] = analysis
    drawn = {
        name: _with_drawn_figures(name, analysis, shown, paths, left_out)
        for name, analysis in made.items()
    }
    partial = _description(grid, runs, left_out)
    page = Path(paths.report, "index.html")
    settings = page_settings(shown, paths, drawn, describe_grid(shown), code="", partial=partial)
    cells = Path(paths.report, "tables/cells.json")
    write_page(
        settings,
        citation=citation,
        records=[],
        cells=cells if cells.is_file() else None,
        page=page,
    )
    return page


def _write_metrics(grid: Grid, paths: Paths) -> None:
    """Write the tables of accuracy, RI and mRI, from which other tables are made."""
    geometry = paths.first_geometry
    rows = paths.rows(grid.runs())
    proxy = paths.proxy(geometry, grid.datasets)
    outputs = {name: Path(paths.table(name)) for name in metrics_of(grid)}
    outputs["counts"] = Path(paths.counts)
    outputs["mri_json"] = Path(paths.mri_json)
    write_metrics(
        rows=list(map(Path, rows)),
        manifests=[Path(beside("manifest", path)) for path in rows],
        indexes=list(map(Path, paths.indexes())),
        proxy=Path(proxy).parent if isinstance(proxy, str) else None,
        splits=list(map(Path, paths.splits(geometry, grid.datasets))),
        settings=grid_table_settings(grid, code=""),
        outputs=outputs,
    )


def _in_order(analyses: Mapping[str, Analysis], paths: Paths) -> list[tuple[str, Analysis]]:
    """Pairs of name and analysis, so that tables are made before another analysis reads them."""
    tables_of = {
        paths.table(Path(file).stem): name
        for name, analysis in analyses.items()
        for file in analysis.makes
    }
    needed = {
        name: {tables_of[path] for path in flat(analysis.inputs) if path in tables_of}
        for name, analysis in analyses.items()
    }
    return [(name, analyses[name]) for name in TopologicalSorter(needed).static_order()]


def _make_tables(name: str, analysis: Analysis, grid: Grid, paths: Paths) -> None:
    """Write an analysis's tables, from finished runs, into the preview's folder."""
    folder = Path(paths.report, "tables")
    if analysis.makes:
        make_tables(
            name,
            Inputs(analysis.inputs, analysis.params),
            {file: folder / file for file in analysis.makes},
            "; ".join(conditions_of(grid)),
            analysis.without_fit,
        )


def _with_drawn_figures(
    name: str, analysis: Analysis, grid: Grid, paths: Paths, left_out: dict[str, str]
) -> Analysis:
    """The analysis with only figures that could be drawn.

    Reasons for the others go into `left_out`, such as {"cost": "cost.csv is not made"}.
    """
    labels = GridLabels(grid)
    figures: dict[str, Figure] = {}
    for figure_name, figure in analysis.figures.items():
        files = {
            ending: Path(paths.figure(figure_name, ending)) for ending in ("png", "pdf", "csv")
        }
        settings = figure_settings(name, figure, grid, labels)
        fit = Path(paths.table("fit")) if settings.labels else None
        with _noting(figure_name, left_out):
            write_figure(figure_name, figure.inputs, settings, files, fit)
            figures[figure_name] = figure
    return replace(analysis, figures=figures)


@contextmanager
def _noting(name: str, left_out: dict[str, str]) -> Iterator[None]:
    """An exception in the block becomes a reason in `left_out`; the log gets the traceback."""
    try:
        yield
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        if isinstance(error, FileNotFoundError):
            left_out[name] = f"{error.filename} is not made"
        elif isinstance(error, UserError):
            left_out[name] = str(error)
        else:
            left_out[name] = f"{type(error).__name__}: {error}"


def finished_runs(grid: Grid) -> list[Run]:
    """Runs that a preview shows: all seeds are evaluated, and all methods on the same targets.

    `common_targets` chooses the targets. Their pretrained models are included.

    Raises:
        UserError: There are none.
    """
    paths = Paths(grid)
    evaluated = {
        run for run in grid.runs() if all(map(Path.is_file, _rows_and_manifests(paths, run)))
    }
    pretrained = {run.model: run for run in evaluated if run.method == PRETRAINED}
    runs_of_cells: dict[VariantOnTarget, list[Run]] = defaultdict(list)
    for run in grid.runs():
        if run.method != PRETRAINED and run.model in pretrained:
            variant = Variant(run.model, run.method, run.size)
            runs_of_cells[VariantOnTarget(variant, run.target)].append(run)
    finished_cells = {
        cell: runs for cell, runs in runs_of_cells.items() if evaluated.issuperset(runs)
    }
    if not finished_cells:
        raise UserError(NO_FINISHED_RUN)
    counted: set[Run] = set()
    for cell in common_targets(finished_cells):
        counted.update(finished_cells[cell])
        counted.add(pretrained[cell.variant.model])
    return [run for run in grid.runs() if run in counted]


def _rows_and_manifests(paths: Paths, run: Run) -> list[Path]:
    """Files that a run's evaluations write; if all are there, the run is finished."""
    rows = paths.rows([run])
    return [*map(Path, rows), *(Path(beside("manifest", path)) for path in rows)]


def common_targets(cells: Collection[VariantOnTarget]) -> list[VariantOnTarget]:
    """Choose targets, and return the cells of all variants that are finished on each of these.

    A cell is a variant (model, method and size) on a target. As many of the most frequent targets
    are taken as give most cells. If two have 5 and 3 variants, 3 of them on both, both are taken: 2
    times 3 cells are more than 5.
    """
    targets_of_variant: dict[Variant, set[str]] = defaultdict(set)
    for cell in cells:
        targets_of_variant[cell.variant].add(cell.target)
    # Sorting first puts equally frequent targets in alphabetical order.
    number_of_cells = Counter(sorted(cell.target for cell in cells))
    targets_by_frequency = [target for target, _ in number_of_cells.most_common()]
    best: list[VariantOnTarget] = []
    for number in range(1, len(targets_by_frequency) + 1):
        targets = targets_by_frequency[:number]
        chosen = [
            VariantOnTarget(variant, target)
            for variant, finished_targets in targets_of_variant.items()
            if finished_targets.issuperset(targets)
            for target in targets
        ]
        if len(chosen) > len(best):
            best = chosen
    return best


def _description(
    grid: Grid, finished: Collection[Run], left_out: Mapping[str, str]
) -> PreviewDescription:
    """How much of the grid is finished; `left_out`: {"cost": "cost.csv is not made"}."""
    labels = GridLabels(grid)
    methods = {name: method.label for name, method in grid.methods.items()}
    shares = []
    target_labels = {name: grid.catalog.datasets[name].label for name in grid.all_targets}
    names = {"model": labels.models, "method": methods, "target": target_labels}
    for attribute, labels_of_names in names.items():
        for name, label in labels_of_names.items():
            runs = [run for run in grid.runs() if getattr(run, attribute) == name]
            if runs:
                share = FinishedShare(
                    subject=f"{attribute} {label}",
                    finished=sum(run in finished for run in runs),
                    runs=len(runs),
                )
                shares.append(share)
    targets = dict.fromkeys(run.target for run in finished if run.method != PRETRAINED)
    return PreviewDescription(
        finished=len(finished),
        runs=len(grid.runs()),
        counts=shares,
        targets=", ".join(target_labels[name] for name in targets),
        other_settings=runs_with_other_settings(grid, finished),
        left_out=dict(left_out),
    )


def runs_with_other_settings(grid: Grid, runs: Iterable[Run]) -> list[str]:
    """Names of runs whose training was recorded with other settings than the grid's."""
    paths = Paths(grid)
    names = []
    for run in runs:
        if run.method == PRETRAINED or not grid.methods[run.method].trains:
            continue
        record = provenance.read(Path(paths.checkpoint("provenance.json", run)))
        if record is None:
            continue
        training = from_params(TrainingSettings, grid.training_of(run.method, run.target, run.size))
        present = {
            "settings": grid.settings_on(run.method, run.model),
            "training": to_params(training),
        }
        if any(record["cfg"][key] != value for key, value in present.items()):
            names.append(str(run))
    return names
