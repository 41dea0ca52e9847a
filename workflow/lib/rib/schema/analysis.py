"""Declarations of an analysis: its job, tables and figures. No pandas, no plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# Questions that the page answers, in its order.
QUESTIONS = {
    "survived": "How much survived?",
    "method": "Which method?",
    "model": "Which model?",
    "why": "Why?",
    "cost": "What did it cost?",
    "trust": "Can I trust it?",
}
Question = Literal["survived", "method", "model", "why", "cost", "trust"]
# How numbers of a column are written: a key of rib.report.page.FORMS.
Form = Literal["signed", "number", "fit", "decimals", "count", "p", "text"]
# A path or several for each argument: {"mri": "reports/x/tables/mri.csv", "rows": ["a.parquet"]}.
Files = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Column:
    """A column of a table as the page shows it.

    Args:
        header: text above the column.
        value: name of the column in the CSV file.
        form: how numbers are written: `signed` (+1.2), `number` (1.2), `fit` (99.95), `decimals`
            (0.123), `count`, `p` (0.013) or `text`; None chooses by type.
        interval: columns with the lower and upper end of the confidence interval.
        optional: whether some runs lack this column.
        repeats_without: another column of the CSV file. If it is empty in all rows, this column
            would repeat a third one and is left out.
    """

    header: str
    value: str
    form: Form | None = None
    interval: tuple[str, str] | None = None
    optional: bool = False
    repeats_without: str | None = None


@dataclass(frozen=True)
class Table:
    """How the page shows a table.

    Args:
        title: text above the table.
        question: key of `QUESTIONS`.
        note: what the table shows, and how certain it is.
        columns: shown columns, in order.
        open: whether the table is unfolded at first.
    """

    title: str
    question: Question
    note: str
    columns: Sequence[Column]
    open: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure, drawn by the function `draw_<name>` of the analysis.

    Args:
        question: key of `QUESTIONS`.
        caption: reStructuredText; its first sentence is the alternative text.
        inputs: files by argument: CSV tables, rows, or manifests of prepared datasets, such as
            {"mri": "reports/x/tables/mri.csv"}.
        params: other arguments, as JSON values: {"models": {"net": "Net"}, "confidence": 0.95}.
            `models`, `methods`, `targets` and `datasets` give labels, or label, colour and marker,
            in display order; `model`, `method` and `target` select an example, with labels
            `..._label`, or are together in `example`; `confidence` is the coverage of intervals.
        every_size: whether it compares training subsets; other figures show the largest.
        without_underfitted: whether it leaves out methods with an underfitted run instead of
            marking them.
        marks_runs: whether it names the methods of each model itself; it then gets the argument
            `underfitted`: pairs of model and method that fit the training images badly.
    """

    question: Question
    caption: str
    inputs: Files
    params: Mapping[str, Any] = field(default_factory=dict)
    every_size: bool = False
    without_underfitted: bool = False
    marks_runs: bool = False

    @property
    def paths(self) -> list[str]:
        """All files that the figure reads."""
        return flat(self.inputs)

    @property
    def of_runs(self) -> bool:
        """Whether it shows fine-tuned runs, so that underfitted ones are marked or left out.

        Such a figure has a parameter that names methods.
        """
        return not self.params.keys().isdisjoint({"method", "methods", "example"})


@dataclass(frozen=True)
class Analysis:
    """Tables and figures that an analysis makes of a grid.

    Args:
        inputs: files of the job that makes the tables, by argument. If a file has a manifest, the
            job runs again when the manifest changes. An input `fit` (table of each run's accuracy
            on its training images) adds columns of this fit to the tables.
        params: other values on which the tables depend, as JSON values.
        makes: files that the job writes: `ranking.csv`, `summary.tex`.
        without_fit: tables without columns of the fit, despite the input `fit`.
        tables: tables of `makes` that the page shows, by name.
        files: files of `makes` to which the page links, by title.
        figures: by name.
        of_metrics: whether the rule compute_metrics makes the tables.
        on_demand: whether the run makes it only if config's `analyses` lists it.
        folder: of tables and figures: reports/fashion, or reports/fashion/stir for an analysis on
            demand outside the run. `describe` leaves it empty.
        megabytes: memory of the job that makes the tables, if it needs more than other jobs that
            read the same files.
    """

    inputs: Files = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    makes: Sequence[str] = ()
    without_fit: Sequence[str] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    of_metrics: bool = False
    on_demand: bool = False
    folder: str = ""
    megabytes: int = 0

    @property
    def made_files(self) -> dict[str, str]:
        """Paths of the files that the job writes: {"mri.csv": "reports/x/tables/mri.csv"}."""
        return {file: f"{self.folder}/tables/{file}" for file in self.makes}

    def figure_files(self, figure: str) -> dict[str, str]:
        """Paths of a figure by ending: {"png": "reports/x/figures/cost.png", "pdf": ..., ...}."""
        return {
            ending: f"{self.folder}/figures/{figure}.{ending}" for ending in ("png", "pdf", "csv")
        }


def flat(files: Files) -> list[str]:
    """All paths, each once: {"a": "x.csv", "b": ["y.csv", "x.csv"]} gives ["x.csv", "y.csv"]."""
    paths: list[str] = []
    for path_or_paths in files.values():
        paths.extend([path_or_paths] if isinstance(path_or_paths, str) else path_or_paths)
    return list(dict.fromkeys(paths))
