"""The page of a run: one HTML file with its tables, figures and provenance, which needs no network."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd
import vl_convert
import yaml
from docutils.core import publish_parts
from PIL import Image

from rib.analysis.bootstrap import FEWEST_SEEDS
from rib.analysis.comparison import few_objects
from rib.analysis.fit import UNFINISHED, name_unfinished, read_table
from rib.base.errors import UserError
from rib.base.files import in_bytes, read_json, write_text
from rib.base.progress import duration
from rib.base.rounding import MINUS, fit_percent, percent, points
from rib.config.run import MEAN, RUN_COLUMNS
from rib.records import provenance
from rib.records.environment import outside_git
from rib.reporting.questions import QUESTIONS
from rib.reporting.views import KINDS, labels_of, page_views

TEMPLATE = Path(__file__).with_name("page.html.jinja")
CLOCK = "%Y-%m-%d %H:%M UTC"
PIXELS = 0.6  # page pixels per pixel of a figure
MOST_ROWS = 200  # of a table before it is sorted, filtered or copied, when a script adds the others

Cell = tuple[
    str, object
]  # displayed text, and sort key: a number, a text, or None for running text
NONE: Cell = ("\N{EN DASH}", float("-inf"))  # missing number
bundle = cache(vl_convert.javascript_bundle)  # takes seconds


def write_page(
    *,
    mri: Path,
    ri: Path,
    accuracy: Path,
    fit: Path,
    analyses: Mapping[str, Path],
    more_files: Mapping[str, Sequence[str]],
    columns: Path,
    figures: Iterable[Path],
    records: Iterable[str],
    captions: Iterable[Path],
    citation: Path,
    about: Mapping,
    prepared: Mapping[str, str],
    partial: Mapping | None = None,
    questions: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    cells: Path | None = None,
    page: Path,
) -> None:
    """Write the page.

    Args:
        mri, ri, accuracy, fit: CSV files.
        analyses: CSV files of the analyses' tables, by name.
        more_files: names of further files in the folder of the tables, by title.
        columns: YAML file that describes how to show the tables (workflow/report/tables.yaml).
        figures: PNG files, in the order of the page.
        records: paths of the provenance records of the run's jobs; a missing one is replaced by the gathered record.
        captions: reStructuredText file of each figure.
        about: the choices of the run: `config`, `config_file` (a config.yaml that gives it), `family`, `models`, `methods`, `datasets`, `fit_threshold` and so on.
        prepared: manifests of the datasets by label; those that exist list the excluded images.
        partial: of a preview, numbers of `finished`, `outdated` and all `runs`, also as `counts` (what, finished, all); the
            `targets` of means, and reasons by name for what is `left_out`.
        questions: question (rib.reporting.questions) of each figure by name; the first for others.
        colours: of methods, by name, for the interactive views.
        cells: what explains each cell of RI (rib.analysis.cells), if it is known.
    """
    tables = page_tables({"mri": mri, "ri": ri, "accuracy": accuracy, **analyses}, columns, about)
    fits, labels = (
        read_table(fit),
        {name: labels_of(about[name]) for name in ("models", "methods", "datasets")},
    )
    if not (made := list(provenance.of_jobs(records).values())):
        raise UserError(
            f"each record of the run is missing, or {provenance.DAMAGED}; `snakemake verify` names them."
        )
    run, means, accuracies = run_facts(made), read_table(mri), read_table(accuracy)
    of_targets = read_table(
        ri if partial else analyses.get("seeds_ri", ri)
    )  # a preview's seeds_ri lacks some runs
    views = page_views(means, of_targets, accuracies, about, colours or {}) if figures else {}
    explained = read_json(cells) if cells else {"images": []}
    explained["images"] = [(labels["datasets"][name], *more) for name, *more in explained["images"]]
    options = {
        "autoescape": True,
        "undefined": jinja2.StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE.parent), **options)
    templates.filters["texts"] = lambda rows: [[shown for shown, _ in row] for row in rows]
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    text = templates.get_template(TEMPLATE.name).render(
        about=about,
        partial=partial,
        duration=duration,
        config=yaml.safe_dump(about["config_file"], sort_keys=False),
        outside_git=outside_git(about["config_file"]["catalog"]),
        answer=answer(with_choices(means, analyses.get("selection"), about), about),
        questions=QUESTIONS,
        figures=_figures([*figures], captions, questions or {}),
        tables=tables,
        most_rows=MOST_ROWS,
        views=views,
        bundle=bundle() if views else "",
        cells=explained if cells else None,
        unfinished=name_unfinished(fits, {**labels, "targets": labels["datasets"]}),
        fitted=int(
            fits["method"]
            .isin([name for name, method in about["methods"].items() if method["can_fit"]])
            .sum()
        ),
        fewest_seeds=FEWEST_SEEDS,
        inside=changes_inside(analyses["in_distribution"], about)
        if "in_distribution" in analyses
        else [],
        files=more_files,
        run=run,
        cost_per_mri=run["seconds"] / len(means)
        if len(means) and not partial
        else None,  # a preview lacks some mRI
        method_rows=method_rows(about),
        corrupt={
            name: read_json(Path(path))["corrupt"]
            for name, path in prepared.items()
            if Path(path).is_file()
        },
        cite=yaml.safe_load(citation.read_text(encoding="utf-8")),
    )
    write_text(page, text)


def with_choices(mri: pd.DataFrame, selection: Path | None, about: Mapping) -> pd.DataFrame:
    """Means in which a chosen variant stands for each sweep; the best of all variants would favour chance.

    An upper bound (rule oracle) chooses by the result itself and stands for nothing.
    """
    if selection is None or about["config"]["select"] == "oracle":
        return mri
    variants = [name for sweep in about["sweeps"].values() for name in sweep["variants"]]
    chosen = read_table(selection)
    chosen = chosen[chosen["target"] == MEAN].dropna(subset=["ri"])
    chosen = chosen.rename(columns={"ri": "mri"}).reindex(columns=mri.columns)
    chosen["unfinished"] = chosen["unfinished"].fillna(0)
    return pd.concat([mri[~mri["method"].isin(variants)], chosen], ignore_index=True)


def answer(mri: pd.DataFrame, about: Mapping) -> str:
    """How much survived, in one sentence: lowest and highest mRI of finished runs, or of all if none finished."""
    rows = mri[mri["size"] == about["shown_size"]]
    rows = rows if (unfinished := rows["unfinished"] > 0).all() else rows[~unfinished]
    if rows.empty:
        return ""
    ends = []
    for row in rows.sort_values("mri", kind="stable").iloc[[0, -1]].to_dict("records"):
        value, low, high = (FORMS["signed"](row[key]) for key in ("mri", "ci_low", "ci_high"))
        known = {"models": about["models"], "methods": {**about["methods"], **about["sweeps"]}}
        names = [known[kind][row[kind[:-1]]]["label"] for kind in known if len(about[kind]) > 1]
        ends.append(f"{value} [{low}, {high}]" + f" ({', '.join(names)})" * bool(names))
    above, below = (rows["ci_low"] > 0).sum(), (rows["ci_high"] < 0).sum()
    pairs = (
        f"{len(rows)} {'unfinished' if unfinished.all() else 'finished'} pairs of model and method"
    )
    counts = f"; of {pairs} {above} have an interval above 0, {below} below" * (len(rows) > 1)
    changes = " to ".join(dict.fromkeys(ends))
    return (
        "Fine-tuning changed mean accuracy on the out-of-distribution datasets other than the target by "
        f"{changes} percentage points "
        f"({100 * about['config']['statistics']['confidence']:g}\N{NO-BREAK SPACE}% confidence intervals){counts}."
    )


def changes_inside(path: Path, about: Mapping) -> list[str]:
    """Accuracy in distribution before and after each method, of the size that figures show: a range over models."""
    table, found = read_table(path), []
    for method, rows in table[table["size"] == about["shown_size"]].groupby("method", sort=False):
        before, after = (
            percent(part.min())
            if len(part) == 1
            else f"{percent(part.min())} to {percent(part.max())}"
            for part in (rows["before"], rows["after"])
        )
        found.append(f"{about['methods'][method]['label']}: {before} % before, {after} % after")
    return found


def _figures(
    paths: Sequence[Path], captions: Iterable[Path], questions: Mapping[str, str]
) -> list[dict[str, object]]:
    texts = [path.read_text(encoding="utf-8").strip() for path in captions]
    with ThreadPoolExecutor() as pool:
        images = pool.map(_webp, paths)
    return [
        {
            "name": path.stem,
            "width": width,
            "question": questions.get(path.stem, next(iter(QUESTIONS))),
            "data": data,
            "alt": text.split(". ")[0],
            "caption": publish_parts(
                text, writer="html5", settings_overrides={"raw_enabled": False}
            )["body"],
        }
        for path, text, (width, data) in zip(paths, texts, images, strict=True)
    ]


def _webp(path: Path) -> tuple[int, str]:
    """Width of a figure on the page, and its image as lossless WebP, which is half as large as PNG, in base64."""
    data = io.BytesIO()
    with Image.open(path) as image:
        image.save(data, "WEBP", lossless=True)
        return round(PIXELS * image.width), base64.b64encode(data.getvalue()).decode()


def page_tables(paths: Mapping[str, Path], columns: Path, about: Mapping) -> list[dict]:
    """Tables of results: each with title, note, CSV file, header and rows of cells. Tables with fits have a column for
    them, last.

    Args:
        paths: CSV files by name.
        columns: YAML file with title, question, note and columns of each table. A column is given by its header: a column of the
            CSV file, or value, form and interval. The table `accuracy` also has a column for each dataset.
        about: see `write_page`.
    """
    known = yaml.safe_load(columns.read_text(encoding="utf-8"))
    interval = f"{100 * about['config']['statistics']['confidence']:g} % confidence interval"
    found = []
    for name, path in paths.items():
        entry, table = known[name], read_table(path)
        parts = [
            (key, part if isinstance(part, dict) else {"value": part})
            for key, part in entry["columns"].items()
        ]
        if name == "accuracy":
            runs = [*RUN_COLUMNS, "fit", "unfinished"]
            table = table.pivot(index=runs, columns="dataset", values="accuracy").reset_index()
            datasets = [dataset for dataset in about["datasets"] if dataset in table]
            parts += [
                (about["datasets"][name]["label"], {"value": name, "form": "number"})
                for name in datasets
            ]
        if "fit" in table:
            parts.append(("Fit (%)", {"value": "fit", "form": "fit"}))
        header = [
            text
            for key, part in parts
            for text in ([key, interval] if "interval" in part else [key])
        ]
        lines = _labelled(table, about).to_dict("records")
        rows = [[cell for _, part in parts for cell in _cells(line, part)] for line in lines]
        note = (
            f"{entry['note']} {few[0].upper()}{few[1:]}."
            if (few := few_objects(table))
            else entry["note"]
        )
        if (question := entry.get("question")) not in QUESTIONS:
            raise UserError(
                f"{columns}: the table '{name}' has no question; give one of {', '.join(QUESTIONS)}."
            )
        shown = {"title": entry["title"], "note": note, "file": path.name, "question": question}
        shown["open"] = entry.get("open", False)
        found.append({**shown, "header": header, "rows": rows})
    return found


def _cells(line: Mapping, part: Mapping) -> list[Cell]:
    """A value, and its confidence interval if it has one."""
    value = line[part["value"]]
    if value != value:  # NaN
        return [NONE] * (2 if "interval" in part else 1)
    usual = (
        "text" if isinstance(value, str | bool) else "count" if isinstance(value, int) else "number"
    )
    form = part.get("form", usual)
    cell = (FORMS[form](value), value)
    if "interval" not in part:
        return [cell]
    write = FORMS[form if form in ("signed", "decimals") else "number"]
    low, high = (line[key] for key in part["interval"])
    return [cell, NONE if low != low else (f"{write(low)} to {write(high)}", low)]


def method_rows(about: Mapping) -> list[list[Cell]]:
    """Rows of the table of methods."""
    rows = []
    for name, entry in about["methods"].items():
        settings = ", ".join(f"{key} {value}" for key, value in entry["settings"].items())
        rows.append(
            [(entry["label"], name), (settings or "none of its own", None), (entry["source"], None)]
        )
    return rows


def _labelled(table: pd.DataFrame, about: Mapping) -> pd.DataFrame:
    """Replace names by labels where possible, and mark methods of unfinished runs."""
    for column in set(KINDS) & set(table):
        labels = labels_of(about[KINDS[column]])
        if KINDS[column] == "methods":
            labels = labels_of(about.get("sweeps", {})) | labels
        table = table.assign(**{column: [labels.get(name, name) for name in table[column]]})
    if "unfinished" in table:
        table["method"] += [f" {UNFINISHED}" * bool(number) for number in table["unfinished"]]
    return table


# How values are written, by form.
FORMS = {
    "signed": lambda value: points(value).replace("-", MINUS),  # a difference
    "number": percent,
    "fit": fit_percent,
    "decimals": lambda value: f"{value:.3f}".replace(
        "-", MINUS
    ),  # of order 1, for which one decimal is too coarse
    "count": "{:,.0f}".format,  # pandas reads those of a column with missing values as floats
    "p": "{:.2g}".format,
    "text": str,
}


def run_facts(records: list[dict]) -> dict:
    """Summarize the records of a run's jobs: time, machines and versions.

    Returns:
        `stage_rows`: a row of cells for each stage; `jobs`, `seconds`: totals; `busy`: seconds during which at least
        one job ran; `started`, `ended`: dates and times; `commits`, `machines`, `versions`: distinct values with their
        number of jobs, most frequent first; `mixed`: differences between jobs; `accepted`: jobs kept after a change of
        code (rib.records.accept).
    """
    rules = dict.fromkeys(record["rule"] for record in records)
    machine = "{processor}, {system}, Python {python}"
    spans = sorted(
        (datetime.fromisoformat(r["started"]), timedelta(seconds=r["seconds"])) for r in records
    )
    return {
        "stage_rows": [
            _stage_row(rule, [record for record in records if record["rule"] == rule])
            for rule in rules
        ],
        "jobs": len(records),
        "seconds": sum(record["seconds"] for record in records),
        "busy": _covered(spans),
        "started": f"{spans[0][0]:{CLOCK}}",
        "ended": f"{max(start + length for start, length in spans):{CLOCK}}",
        "commits": Counter(
            record.get("commit") or "not run from a git checkout" for record in records
        ).most_common(),
        "machines": Counter(
            machine.format(**record["machine"]) for record in records
        ).most_common(),
        "versions": Counter(
            " ".join(pair) for record in records for pair in record["versions"].items()
        ).most_common(),
        "mixed": _mixed(records),
        "accepted": sum("accepted" in record for record in records),
    }


def _stage_row(stage: str, records: list[dict]) -> list[Cell]:
    """Total costs of the jobs of a stage, and the maximum of a single job."""
    seconds = [record["seconds"] for record in records]
    times = (sum(seconds), max(seconds), sum(record["cpu_seconds"] for record in records))
    sizes = (
        max(record["peak_memory"] for record in records),
        sum(sum(r["sizes"].values()) for r in records),
    )
    costs = [
        *((duration(value), value) for value in times),
        *((in_bytes(value), value) for value in sizes),
    ]
    return [(stage, stage), (f"{len(records):,}", len(records)), *costs]


def _mixed(records: list[dict]) -> list[str]:
    """What differs in versions and machines, by stage, for example `torch 2.6 (finetune, evaluate), 2.7 (evaluate)`."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for record in records:
        for name, value in {**record["versions"], **record["machine"]}.items():
            found.setdefault(name, {}).setdefault(value, {})[record["rule"]] = None  # ordered set
    return [
        f"{name} "
        + ", ".join(f"{value} ({', '.join(stages)})" for value, stages in sorted(values.items()))
        for name, values in found.items()
        if len(values) > 1
    ]


def _covered(spans: Sequence[tuple[datetime, timedelta]]) -> float:
    """Seconds covered by at least one of the spans of start and length, which are sorted."""
    total, end = timedelta(), spans[0][0]
    for start, length in spans:
        total += max(start + length - max(start, end), timedelta())
        end = max(end, start + length)
    return total.total_seconds()
