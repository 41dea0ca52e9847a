"""The page of a run: one HTML file with tables, figures and provenance. It needs no network."""

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
import vl_convert
import yaml
from docutils.core import publish_parts
from PIL import Image

from rib.base import appearance
from rib.base.devices import name_mixture
from rib.base.errors import UserError
from rib.base.files import in_bytes, read_json, write_text
from rib.base.progress import duration
from rib.base.rounding import MINUS, fit_percent, percent, points
from rib.records import provenance
from rib.report.answer import (
    Answer,
    AnswerNames,
    AnswerTables,
    answer,
)
from rib.report.outside_git import outside_git
from rib.report.report_settings import GridDescription, PageSettings, ShownFigure, ShownTable
from rib.report.views import ENTRIES_OF_COLUMN, page_views
from rib.schema.analysis import QUESTIONS, Column
from rib.schema.run import MEAN, RUN_COLUMNS
from rib.statistics.bootstrap import FEWEST_SEEDS
from rib.statistics.fit import (
    OTHER_RATE,
    UNDERFITTED,
    mark_columns,
    name_other_rates,
    name_underfitted,
    read_table,
)
from rib.statistics.tests import few_objects

TEMPLATE = Path(__file__).with_name("page.html.jinja")
CLOCK = "%Y-%m-%d %H:%M UTC"
PIXELS = 0.6  # page pixels per pixel of a figure
MOST_ROWS = 200  # rows that a large table shows until a script adds the rest
MACHINE = "{processor}, {system}, Python {python}"
NO_COMMIT = "not run from a git checkout"

vega_bundle = cache(vl_convert.javascript_bundle)  # takes seconds


class TableCell(NamedTuple):
    """A cell of a table on the page."""

    text: str
    sort_key: object  # a number, a text, or None for running text


MISSING = TableCell("\N{EN DASH}", float("-inf"))  # for a missing number


@dataclass(frozen=True)
class PageTable:
    """A table on the page."""

    title: str
    note: str
    link: str  # to the CSV file
    question: str  # key of `QUESTIONS`
    open: bool  # whether it is unfolded at first
    header: list[str]
    rows: list[list[TableCell]]


@dataclass(frozen=True)
class PageFigure:
    """A figure on the page."""

    name: str
    link: str  # to its files, without ending
    width: int  # in pixels of the page
    question: str  # key of `QUESTIONS`
    data: str  # image as WebP, in base64
    alt: str  # first sentence of the caption
    caption: str  # HTML


@dataclass(frozen=True)
class RunFacts:
    """Time, machines and versions of a run's jobs.

    `commits`, `machines`, `cards` (GPUs) and `versions` are pairs of value and number of jobs, most
    frequent first.
    """

    stage_rows: list[list[TableCell]]  # one row per stage
    jobs: int
    seconds: float  # of all jobs together
    busy: float  # seconds during which at least one job ran
    started: str  # date and time
    ended: str
    commits: list[tuple[str, int]]
    machines: list[tuple[str, int]]
    cards: list[tuple[str, int]]  # empty if no job used a GPU
    versions: list[tuple[str, int]]
    mixed: list[str]  # differences between jobs


def write_page(
    settings: PageSettings,
    *,
    citation: Path,
    records: Sequence[str],
    cells: Path | None,
    page: Path,
) -> None:
    """Write the page of a run, or of a preview if `settings.partial` is given.

    Args:
        settings: contents of the page.
        citation: CITATION.cff.
        records: provenance records besides `settings.upstream`.
        cells: explanations of each cell of RI (rib.analyses.cells), if they were made.
        page: HTML file that is written.

    Raises:
        UserError: No job has a readable record.
    """
    about = settings.about
    jobs = list(provenance.of_jobs([*settings.upstream, *records]).values())
    if not jobs:
        raise UserError(
            f"each record of the run is missing, has another format version, or "
            f"{provenance.DAMAGED}; "
            "`rib verify` names them."
        )
    csv_files = {name: table.path for name, table in settings.tables.items()}
    fits = pd.concat([read_table(path) for path in settings.fits], ignore_index=True)
    tables = page_tables(settings.tables, about)
    run = run_facts(jobs)
    views = _views(csv_files, settings) if settings.figures else {}
    text = _template().render(
        appearance=appearance,
        about=about,
        partial=settings.partial,
        duration=duration,
        config=yaml.safe_dump(about.config_file, sort_keys=False),
        outside_git=outside_git(about.config_file["catalog"]),
        answer=_answer(csv_files, settings),
        questions=QUESTIONS,
        figures=_figures(settings.figures),
        tables=[table for table in tables if table.rows],
        empty_tables=[table.title for table in tables if not table.rows],
        most_rows=MOST_ROWS,
        views=views,
        bundle=vega_bundle() if views else "",
        cells=_explained_cells(cells, about) if cells else None,
        underfitted=name_underfitted(fits, _labels_of_runs(about)),
        other_rates=name_other_rates(fits, _labels_of_runs(about)),
        devices=name_mixture(fits["device"]),
        fitted=_number_of_fitted(fits, about),
        fewest_seeds=FEWEST_SEEDS,
        files=settings.files,
        run=run,
        commits=[commit for commit, _ in run.commits if commit != NO_COMMIT],
        method_rows=method_rows(about),
        corrupt=_corrupt_images(settings.prepared),
        cite=yaml.safe_load(citation.read_text(encoding="utf-8")),
    )
    write_text(page, text)


def _template() -> jinja2.Template:
    """The page's Jinja template, with the filter `texts` and compact JSON."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["texts"] = _texts_of_rows
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return templates.get_template(TEMPLATE.name)


def _texts_of_rows(rows: Iterable[Sequence[TableCell]]) -> list[list[str]]:
    """[["ResNet", "+1.2"]], texts of cells, from which a script adds rows to large tables."""
    texts = []
    for row in rows:
        texts.append([cell.text for cell in row])
    return texts


def _views(tables: Mapping[str, Path], settings: PageSettings) -> dict[str, dict[str, Any]]:
    """Interactive views as Vega-Lite specifications, by the figure that each replaces.

    For example {"tradeoff": {...}, "ri_matrix": {...}, "accuracy_matrix": {...}}.
    """
    in_distribution = None
    if "in_distribution" in tables:
        in_distribution = read_table(tables["in_distribution"])
    ri_of_seeds = tables.get("seeds_ri", tables["ri"])
    if settings.partial is not None:  # a preview's seeds_ri lacks some runs
        ri_of_seeds = tables["ri"]
    ri = read_table(ri_of_seeds)
    return page_views(
        mri=read_table(tables["mri"]),
        ri=ri[ri["target"].isin(settings.about.targets)],
        accuracy=read_table(tables["accuracy"]),
        about=settings.about,
        looks=settings.looks,
        in_distribution=in_distribution,
    )


def _explained_cells(path: Path, about: GridDescription) -> dict[str, Any]:
    """Content of cells.json, with labels in place of the names of images' datasets.

    It is {"cells": {"net/ft/noto": {"classes": [...], "flips": [...]}}, "images": [["Noto", "cat",
    "<WebP as base64>", "<text that must stand beside it>"]]}.
    """
    explained = read_json(path)
    labels = about.labels("datasets")
    images = []
    for dataset, *facts_of_image in explained["images"]:
        images.append((labels[dataset], *facts_of_image))
    return {**explained, "images": images}


def _labels_of_runs(about: GridDescription) -> dict[str, dict[str, str]]:
    """{"models": {"net": "Net"}, "methods": {"ft": "FT"}, "targets": {"noto": "Noto"}}."""
    return {
        "models": about.labels("models"),
        "methods": about.labels("methods"),
        "targets": {**about.labels("read"), **about.labels("datasets")},
    }


def _number_of_fitted(fits: pd.DataFrame, about: GridDescription) -> int:
    """Number of runs that could be underfitted: their method can fit its training images."""
    methods = [name for name, method in about.methods.items() if method.can_fit]
    return int(fits["method"].isin(methods).sum())


def _corrupt_images(manifests: Mapping[str, Path]) -> dict[str, list[str]]:
    """Images that can't be decoded, by dataset, for a note: {"Noto": ["a.png"], "Fluent": []}.

    Manifests, {"Noto": Path("manifest.json")}, may be missing.
    """
    return {
        label: read_json(manifest)["corrupt"]
        for label, manifest in manifests.items()
        if manifest.is_file()
    }


def with_choices(mri: pd.DataFrame, selection: Path | None, about: GridDescription) -> pd.DataFrame:
    """mRI with a row for the chosen value of a swept setting, in place of rows for all values.

    The best of all variants would profit from chance. A row `wise_ft` replaces the rows
    `wise_ft-alpha0.3` and `wise_ft-alpha0.5`. `select: oracle` changes nothing, since it chooses by
    the result itself.

    Args:
        mri: columns model, method, size, mri, underfitted and perhaps others; a row per variant.
        selection: CSV file of the chosen variants, if variants are chosen. Rows with the target
            `mean` are used: its column ri as mri, and further columns that `mri` has.
        about: the run's choices.
    """
    if selection is None or about.config["select"] == "oracle":
        return mri
    variants: list[str] = []
    for sweep in about.sweeps.values():
        variants += sweep.variants
    rows_of_other_methods = mri[~mri["method"].isin(variants)]
    choices = read_table(selection)
    chosen_means = choices[choices["target"] == MEAN].dropna(subset=["ri"])
    chosen_means = chosen_means.rename(columns={"ri": "mri"}).reindex(columns=mri.columns)
    chosen_means["underfitted"] = chosen_means["underfitted"].fillna(0)
    return pd.concat([rows_of_other_methods, chosen_means], ignore_index=True)


def _answer(tables: Mapping[str, Path], settings: PageSettings) -> Answer:
    """The page's first numbers, for the shown training subset and the chosen values of settings."""
    about = settings.about
    means = with_choices(read_table(tables["mri"]), tables.get("selection"), about)
    more_tables = {}
    for name in ("in_distribution", "ranking", "leak_free"):
        if name in tables:
            more_tables[name] = _of_shown_size(tables[name], about)
    shown = AnswerTables(mri=means[means["size"] == about.shown_size], **more_tables)
    names = AnswerNames(
        models=about.labels("models"),
        methods={**about.labels("sweeps"), **about.labels("methods")},
        averages=settings.averages,
        coefficients=settings.coefficients,
    )
    return answer(shown, names)


def _of_shown_size(path: Path, about: GridDescription) -> pd.DataFrame:
    """Rows of a CSV table for the training subset (size) that the page shows."""
    table = read_table(path)
    return table[table["size"] == about.shown_size]


def _figures(shown: Mapping[str, ShownFigure]) -> list[PageFigure]:
    """Figures with images as texts and captions as HTML, so that the page is one file."""
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(_webp, [figure.path for figure in shown.values()]))
    figures = []
    for (name, figure), (width, encoded_image) in zip(shown.items(), images, strict=True):
        caption = publish_parts(
            figure.caption, writer="html5", settings_overrides={"raw_enabled": False}
        )
        first_sentence, *_ = figure.caption.strip().split(". ")
        page_figure = PageFigure(
            name=name,
            link=figure.link,
            width=width,
            question=figure.question,
            data=encoded_image,
            alt=first_sentence,
            caption=caption["body"],
        )
        figures.append(page_figure)
    return figures


def _webp(path: Path) -> tuple[int, str]:
    """Width in pixels of the page, and the image as lossless WebP in base64.

    Lossless WebP is half as large as PNG.
    """
    file = io.BytesIO()
    with Image.open(path) as image:
        image.save(file, "WEBP", lossless=True)
        width = round(PIXELS * image.width)
    return width, base64.b64encode(file.getvalue()).decode()


def page_tables(shown: Mapping[str, ShownTable], about: GridDescription) -> list[PageTable]:
    """Tables of results with informative columns, last the runs' fit (training accuracy) if known.

    The table `accuracy` gets a column for each dataset.

    Args:
        shown: by name, such as `ranking`, where each table is and how it is shown.
        about: the run's choices.
    """
    tables = []
    for name, shown_table in shown.items():
        table = read_table(shown_table.path)
        described_columns = [Column(**fields) for fields in shown_table.columns]
        shown_columns = [
            column for column in described_columns if column.value in table or not column.optional
        ]
        if name == "accuracy":
            table = _with_column_per_dataset(table)
            shown_columns += _dataset_columns(table, about)
        if "fit" in table:
            shown_columns.append(Column("Fit (%)", value="fit", form="fit"))
        shown_columns = _informative(shown_columns, table, about)
        page_table = PageTable(
            title=shown_table.title,
            note=_note(shown_table.note, table),
            link=shown_table.link,
            question=shown_table.question,
            open=shown_table.open,
            header=_header(shown_columns, about.confidence),
            rows=_rows(_labelled(table, about), shown_columns),
        )
        tables.append(page_table)
    return tables


def _with_column_per_dataset(accuracy: pd.DataFrame) -> pd.DataFrame:
    """A row per run, with its accuracy on each dataset in a column: noto, twemoji, ..."""
    runs = [*RUN_COLUMNS, "fit", *mark_columns(accuracy)]
    return accuracy.pivot(index=runs, columns="dataset", values="accuracy").reset_index()


def _dataset_columns(accuracy: pd.DataFrame, about: GridDescription) -> list[Column]:
    """Columns of the page for datasets that the table has as columns, such as `noto`."""
    return [
        Column(dataset.label, value=name, form="number")
        for name, dataset in about.datasets.items()
        if name in accuracy
    ]


def _informative(
    columns: Iterable[Column], table: pd.DataFrame, about: GridDescription
) -> list[Column]:
    """The columns without those that say nothing.

    They have no entries, repeat another column, or state facts such as the only seed.
    """
    # A table without rows keeps its columns.
    if table.empty:
        return list(columns)
    stated_elsewhere = set()
    if len(about.sizes) == 1:
        stated_elsewhere.add("size")
    if len(about.config.get("seeds", ())) == 1:
        stated_elsewhere.update(["seed", "seeds"])
    informative = []
    for column in columns:
        if column.value in stated_elsewhere or _has_no_entry(table, [column.value]):
            continue
        if column.repeats_without and _has_no_entry(table, [column.repeats_without]):
            continue
        if column.interval and _has_no_entry(table, column.interval):
            column = replace(column, interval=None)
        informative.append(column)
    return informative


def _has_no_entry(table: pd.DataFrame, columns: Sequence[str]) -> bool:
    """Whether all cells of these columns are empty, so the page omits them."""
    is_empty = table[list(columns)].isna()
    return bool(is_empty.to_numpy().all())


def _header(columns: Iterable[Column], confidence: float) -> list[str]:
    """Header of a table; intervals have columns: ["Model", "mRI", "95 % confidence interval"]."""
    header = []
    for column in columns:
        header.append(column.header)
        if column.interval:
            header.append(f"{100 * confidence:g} % confidence interval")
    return header


def _note(note: str, table: pd.DataFrame) -> str:
    """A table's note, with a warning if its intervals come from too few objects."""
    warning = few_objects(table)
    if not warning:
        return note
    return f"{note} {warning[0].upper()}{warning[1:]}."


def _rows(table: pd.DataFrame, columns: Sequence[Column]) -> list[list[TableCell]]:
    """A row of cells for each row of the table; a column with an interval gets two cells."""
    rows = []
    for line in table.to_dict("records"):
        row = []
        for column in columns:
            row += _cells(line, column)
        rows.append(row)
    return rows


def _cells(line: Mapping[Hashable, Any], column: Column) -> list[TableCell]:
    """Cells of one row and column: [`+1.2`], or [`+1.2`, `+0.3 to +2.1`] with an interval."""
    value = line[column.value]
    if pd.isna(value):
        return [MISSING, MISSING] if column.interval else [MISSING]
    form = column.form or _form_of(value)
    cells = [TableCell(FORMS[form](value), value)]
    if column.interval:
        form_of_ends = form if form in ("signed", "decimals") else "number"
        low_column, high_column = column.interval
        cells.append(_interval_cell(line[low_column], line[high_column], form_of_ends))
    return cells


def _form_of(value: object) -> str:
    """How to write a value of a column without form: a key of `FORMS`."""
    if isinstance(value, str | bool):
        return "text"
    if isinstance(value, int):
        return "count"
    return "number"


def _interval_cell(low: float, high: float, form: str) -> TableCell:
    """`+0.3 to +2.1`, sorted by the lower end."""
    if math.isnan(low):
        return MISSING
    write = FORMS[form]
    return TableCell(f"{write(low)} to {write(high)}", low)


def _setting_in_words(key: str, setting: object) -> str:
    """A method's setting: `rank 4`, or `lr 0.001 (net_1k), 0.0005 (net_50k)` by model."""
    if isinstance(setting, Mapping):
        by_model = ", ".join(f"{number} ({model})" for model, number in setting.items())
        return f"{key} {by_model}"
    return f"{key} {setting}"


def method_rows(about: GridDescription) -> list[list[TableCell]]:
    """Rows of the table of methods: label, settings such as `rank 4, lr 0.001`, source."""
    rows = []
    for name, method in about.methods.items():
        settings = ", ".join(
            _setting_in_words(key, setting) for key, setting in method.settings.items()
        )
        row = [
            TableCell(method.label, name),
            TableCell(settings or "none of its own", None),
            TableCell(method.source, None),
        ]
        rows.append(row)
    return rows


def _labelled(table: pd.DataFrame, about: GridDescription) -> pd.DataFrame:
    """The table with labels in place of names, such as `Noto` in the column `target`.

    Methods also get the marks of their runs: † underfitted, § at a rate not chosen for the network.
    """
    for column, entries in ENTRIES_OF_COLUMN.items():
        if column not in table:
            continue
        labels = about.labels(entries)
        if entries == "datasets":
            labels = {**about.labels("read"), **labels}  # targets in distribution
        if entries == "methods":
            labels = {**about.labels("sweeps"), **labels}
        table = table.assign(**{column: [labels.get(name, name) for name in table[column]]})
    for column, mark in (("underfitted", UNDERFITTED), ("other_rate", OTHER_RATE)):
        if column in table:
            marks = [f" {mark}" if number else "" for number in table[column]]
            table["method"] += marks
    return table


def _signed(difference: float) -> str:
    """`+1.2` for 1.2; a minus sign is the typographic one."""
    return points(difference).replace("-", MINUS)


def _decimals(number: float) -> str:
    """`0.123`, for numbers around 1, for which one decimal is too coarse."""
    return f"{number:.3f}".replace("-", MINUS)


def _count(number: float) -> str:
    """`1,200` for 1200.0: pandas reads whole numbers as floats if some are missing."""
    return f"{number:,.0f}"


def _p_value(number: float) -> str:
    """Two significant digits: `0.013`."""
    return f"{number:.2g}"


# How values are written, by form.
FORMS: dict[str, Callable[[Any], str]] = {
    "signed": _signed,
    "number": percent,
    "fit": fit_percent,
    "decimals": _decimals,
    "count": _count,
    "p": _p_value,
    "text": str,
}


def run_facts(records: Sequence[Mapping[str, Any]]) -> RunFacts:
    """Summary of the records of a run's jobs.

    Args:
        records: at least one provenance record: rule, start, seconds, commit, machine and versions
            of libraries of a job.
    """
    records_of_rule: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        records_of_rule.setdefault(record["rule"], []).append(record)
    spans = sorted(_span(record) for record in records)
    first_start, _ = spans[0]
    last_end = max(start + length for start, length in spans)
    commits = Counter(record.get("commit") or NO_COMMIT for record in records)
    machines = Counter(MACHINE.format(**record["machine"]) for record in records)
    cards = Counter(record["machine"]["gpu"] for record in records if "gpu" in record["machine"])
    versions: Counter[str] = Counter()
    for record in records:
        versions.update(f"{library} {version}" for library, version in record["versions"].items())
    return RunFacts(
        stage_rows=[_stage_row(rule, group) for rule, group in records_of_rule.items()],
        jobs=len(records),
        seconds=sum(record["seconds"] for record in records),
        busy=_covered(spans),
        started=f"{first_start:{CLOCK}}",
        ended=f"{last_end:{CLOCK}}",
        commits=commits.most_common(),
        machines=machines.most_common(),
        cards=cards.most_common(),
        versions=versions.most_common(),
        mixed=_mixed(records),
    )


def _span(record: Mapping[str, Any]) -> tuple[datetime, timedelta]:
    """Start and length of a job, from its record."""
    return datetime.fromisoformat(record["started"]), timedelta(seconds=record["seconds"])


def _stage_row(stage: str, records: Sequence[Mapping[str, Any]]) -> list[TableCell]:
    """Cells: stage, number of jobs, total, longest and processor time, most memory, bytes."""
    seconds = [record["seconds"] for record in records]
    processor_seconds = sum(record["cpu_seconds"] for record in records)
    peak_memory = max(record["peak_memory"] for record in records)
    written_bytes = sum(sum(record["sizes"].values()) for record in records)
    row = [TableCell(stage, stage), TableCell(f"{len(records):,}", len(records))]
    for time in (sum(seconds), max(seconds), processor_seconds):
        row.append(TableCell(duration(time), time))
    for size in (peak_memory, written_bytes):
        row.append(TableCell(in_bytes(size), size))
    return row


def _mixed(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Libraries and machines that differ between jobs, for a warning.

    ["torch 2.6 (finetune, evaluate), 2.7 (evaluate)"], with stages in the order of the run.
    """
    # Stages by library or part of the machine, and by version.
    stages_of: dict[str, dict[str, list[str]]] = {}
    for record in records:
        versions_of_job = {**record["versions"], **record["machine"]}
        for name, version in versions_of_job.items():
            stages = stages_of.setdefault(name, {}).setdefault(version, [])
            if record["rule"] not in stages:
                stages.append(record["rule"])
    mixtures = []
    for name, stages_of_version in stages_of.items():
        if len(stages_of_version) > 1:
            versions = []
            for version, stages in sorted(stages_of_version.items()):
                versions.append(f"{version} ({', '.join(stages)})")
            mixtures.append(f"{name} {', '.join(versions)}")
    return mixtures


def _covered(spans: Sequence[tuple[datetime, timedelta]]) -> float:
    """Seconds in which a job ran: 20 for 0 to 10 s and 5 to 20 s. Spans are sorted by start."""
    total = timedelta()
    end_of_covered, _ = spans[0]
    for start, length in spans:
        end = start + length
        if end > end_of_covered:
            # The part before `end_of_covered` is counted already.
            total += end - max(start, end_of_covered)
            end_of_covered = end
    return total.total_seconds()
