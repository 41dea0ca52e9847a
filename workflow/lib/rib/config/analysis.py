"""What the file of an analysis declares: its job, tables and figures. No pandas, no plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# The questions that the page answers, in its order.
QUESTIONS = {
    "survived": "How much survived?",
    "method": "Which method?",
    "model": "Which model?",
    "why": "Why?",
    "cost": "What did it cost?",
    "trust": "Can I trust it?",
}
Question = Literal["survived", "method", "model", "why", "cost", "trust"]
# How numbers of a column are written, see rib.report.page.FORMS.
Form = Literal["signed", "number", "fit", "decimals", "count", "p", "text"]
# A file or several, by the name of an argument.
Files = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Column:
    """A column of a table as the page shows it.

    Args:
        header: above the column.
        value: name of the column of the CSV file.
        form: how numbers are written: `signed` (+1.2), `number` (1.2), `fit` (99.95), `decimals`,
            `count`, `p` (of a test) or `text`; by their type if None.
        interval: columns of the ends of the confidence interval.
        optional: whether some runs have no such column.
        repeats_without: a column without which this one repeats another.
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
        title: above the table.
        question: that it helps to answer.
        note: what is in the table, and how sure it is.
        columns: those that are shown, in their order.
        open: whether the table is unfolded at first.
    """

    title: str
    question: Question
    note: str
    columns: Sequence[Column]
    open: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure, which the function `draw_<name>` of the analysis draws.

    Args:
        question: that it helps to answer.
        caption: reStructuredText; its first sentence is the alternative text.
        inputs: files that it is drawn from, by argument: CSV tables, rows, or manifests of prepared
            datasets.
        params: other arguments, as values of JSON. `models`, `methods`, `targets` and `datasets`
            give labels, or label, colour and marker, in display order; `model`, `method` and
            `target` select an example, with labels `..._label`, or stand together in `example`;
            `confidence` is the coverage of confidence intervals, 0 to 1.
        every_size: whether it compares training subsets; others show the largest.
        without_underfitted: whether it leaves out methods with an underfitted run, in place of
            marking them.
        marks_runs: whether it names the methods of each model by itself; it has the argument
            `underfitted`, pairs of a model and a method with an underfitted run.
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
        """All files that it is drawn from."""
        return flat(self.inputs)

    @property
    def of_runs(self) -> bool:
        """Whether it shows fine-tuned runs; the table of fits decides how these are marked.

        Such a figure has a parameter that says of which methods.
        """
        return not self.params.keys().isdisjoint({"method", "methods", "example"})


@dataclass(frozen=True)
class Analysis:
    """What an analysis makes of a grid.

    Args:
        inputs: files of the job that makes the tables, by name. Where a file has a manifest, the
            job runs again when the manifest changes. With `fit`, the table of fits, the tables get
            columns of the fit of their runs.
        params: what else the tables depend on, as values of JSON.
        makes: files that the job writes: `ranking.csv`, `summary.tex`.
        without_fit: tables that get no columns of the fit, although there is an input `fit`.
        tables: that the page shows, by name; they are among the files that the job writes.
        files: those that the page links to, by title; they are among the files that the job writes.
        figures: by name.
        of_metrics: whether the rule compute_metrics makes the tables that the page shows.
        on_demand: whether it is part of a run only if config's `analyses` lists it.
        folder: of its tables and figures: reports/fashion, or reports/fashion/stir of an analysis
            on demand that is no part of the run. It is not stated by `describe`.
        megabytes: memory of the job that makes the tables, if it needs more than one that reads
            the same files.
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
    """All paths of files, each once."""
    paths: list[str] = []
    for path_or_paths in files.values():
        paths.extend([path_or_paths] if isinstance(path_or_paths, str) else path_or_paths)
    return list(dict.fromkeys(paths))
