"""The page of a run: one HTML file with its tables, figures and provenance, which needs no network."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import jinja2
import pandas as pd
import yaml
from docutils.core import publish_parts
from PIL import Image

from rib.base.files import in_bytes, read_json, write_text
from rib.base.progress import duration
from rib.config.run import RUN_COLUMNS
from rib.records import provenance

TEMPLATE = Path(__file__).with_name("page.html.jinja")
DECIMALS = 1  # of percentages and their differences
CLOCK = "%Y-%m-%d %H:%M UTC"
DATASET_COLUMNS = ("target", "dataset", "first", "second")  # table columns with names of datasets
PIXELS = 0.6  # page pixels per pixel of a figure

Cell = tuple[str, object]  # displayed text, and sort key: a number, a text, or None for running text
NONE: Cell = ("\N{EN DASH}", float("-inf"))  # missing number


def write_page(
    *,
    mri: Path,
    ri: Path,
    accuracy: Path,
    analyses: Mapping[str, Path],
    more_files: Mapping[str, Sequence[str]],
    columns: Path,
    figures: Iterable[Path],
    records: Iterable[str],
    captions: Iterable[Path],
    citation: Path,
    about: Mapping,
    prepared: Mapping[str, str],
    page: Path,
) -> None:
    """Write the page.

    Args:
        mri, ri, accuracy: CSV files.
        analyses: CSV files of the analyses' tables, by name.
        more_files: names of further files in the folder of the tables, by title.
        columns: YAML file that describes how to show the analyses' tables (workflow/report/tables.yaml).
        figures: PNG files, in the order of the page.
        records: paths of the provenance records of the run's jobs; a missing one is replaced by the gathered record.
        captions: reStructuredText file of each figure.
        citation: CITATION.cff.
        about: the choices of the run: `config`, `family`, `models`, `methods`, `datasets` and so on.
        prepared: manifests of the datasets by label; those that exist list the excluded images.
        page: the file to write.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = duration
    tables = {"mri": mri, "ri": ri, "accuracy": accuracy}
    read = {name: pd.read_csv(path, dtype={"size": str}) for name, path in tables.items()}
    gathered = provenance.load()
    found = (provenance.read(Path(path)) or next(iter(gathered.get(path, [])), None) for path in records)
    run = run_facts([record for record in found if record])
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        about=about,
        config=yaml.safe_dump(about["config"], sort_keys=False),
        figures=[_figure(*pair) for pair in zip(figures, captions, strict=True)],
        tables=[*result_tables(read, about), *extra_tables(analyses, columns, about)],
        files=more_files,
        run=run,
        stage_rows=[_stage_row(stage) for stage in run["stages"]],
        cost_per_mri=run["seconds"] / len(read["mri"]) if len(read["mri"]) else None,
        **catalogue_rows(read["accuracy"], about),
        corrupt={name: ids for name, path in prepared.items() if (ids := _corrupt(Path(path)))},
        cite=yaml.safe_load(citation.read_text(encoding="utf-8")),
    )
    write_text(page, text)


def _stage_row(stage: Mapping) -> list[Cell]:
    """Costs of a stage; older records do not contain all of them."""
    times = [(duration(stage[key]), stage[key]) for key in ("seconds", "longest")]
    worked = duration(stage["cpu_seconds"]) if stage["cpu_seconds"] else "unknown"
    sizes = [in_bytes(stage[key]) if stage[key] else "unknown" for key in ("peak_memory", "bytes")]
    ends = [(text, stage[key]) for text, key in zip(sizes, ("peak_memory", "bytes"), strict=True)]
    return [(stage["name"], stage["name"]), _count(stage["jobs"]), *times, (worked, stage["cpu_seconds"]), *ends]


def _corrupt(manifest: Path) -> list[str]:
    """Images of a dataset that could not be decoded."""
    return read_json(manifest)["corrupt"] if manifest.is_file() else []


def _figure(path: Path, caption_file: Path) -> dict[str, object]:
    caption = caption_file.read_text(encoding="utf-8").strip()
    with Image.open(path) as image:
        width = round(PIXELS * image.width)
    return {
        "name": path.stem,
        "width": width,
        "data": base64.b64encode(path.read_bytes()).decode(),
        "alt": caption.split(". ")[0],
        "caption": publish_parts(caption, writer="html5", settings_overrides={"raw_enabled": False})["body"],
    }


def result_tables(read: Mapping[str, pd.DataFrame], about: Mapping) -> list[dict]:
    """Tables of results: each with title, note, CSV file, header and rows of cells."""
    interval = f"{100 * about['config']['statistics']['confidence']:g} % confidence interval"
    wide = read["accuracy"].pivot(index=RUN_COLUMNS, columns="dataset", values="accuracy").reset_index()
    mri, ri, wide = (_labelled(table, about) for table in (read["mri"], read["ri"], wide))
    datasets = [name for name in about["datasets"] if name in wide]
    return [
        {
            "title": "Mean robustness improvement",
            "note": "mRI is the mean of RI over targets: mean accuracy on the other datasets after fine-tuning minus "
            "before, in percentage points.",
            "file": "mri.csv",
            "header": ["Model", "Method", "Size", "mRI", interval, "OOD before (%)", "OOD after (%)"],
            "rows": [
                [
                    *_names(line, ["model", "method", "size"]),
                    *_signed(line, "mri"),
                    *(_number(line[f"ood_{when}"]) for when in ("before", "after")),
                ]
                for line in mri.to_dict("records")
            ],
        },
        {
            "title": "Robustness improvement per target",
            "note": "RI is the mean, over all datasets except the target, of accuracy after fine-tuning on the target "
            "minus before, in percentage points.",
            "file": "ri.csv",
            "header": ["Model", "Method", "Target", "Size", "Seed", "RI", interval, "Images"],
            "rows": [
                [*_names(line, RUN_COLUMNS), *_signed(line, "ri"), _count(line["n"])] for line in ri.to_dict("records")
            ],
        },
        {
            "title": "Accuracy on every dataset",
            "note": "Top-1 accuracy in percent of each run (rows) on each dataset (columns).",
            "file": "accuracy.csv",
            "header": [
                "Model",
                "Method",
                "Target",
                "Size",
                "Seed",
                *(about["datasets"][name]["label"] for name in datasets),
            ],
            "rows": [
                [*_names(line, RUN_COLUMNS), *(_number(line[name]) for name in datasets)]
                for line in wide.to_dict("records")
            ],
        },
    ]


def extra_tables(paths: Mapping[str, Path], columns: Path, about: Mapping) -> list[dict]:
    """Tables of the analyses, in the form of `result_tables`.

    Args:
        paths: CSV files by name.
        columns: YAML file with title, note and columns of each table. A column is given by its header: a column of the
            CSV file, or value, form and interval.
        about: see `write_page`.
    """
    known = yaml.safe_load(columns.read_text(encoding="utf-8"))
    interval = f"{100 * about['config']['statistics']['confidence']:g} % confidence interval"
    found = []
    for name, path in paths.items():
        entry = known[name]
        table = _labelled(pd.read_csv(path, dtype={"size": str}), about)
        parts = {
            header: part if isinstance(part, dict) else {"value": part} for header, part in entry["columns"].items()
        }
        header = [text for key, part in parts.items() for text in ([key, interval] if "interval" in part else [key])]
        rows = [[cell for part in parts.values() for cell in _cells(line, part)] for line in table.to_dict("records")]
        found.append(
            {"title": entry["title"], "note": entry["note"], "file": path.name, "header": header, "rows": rows}
        )
    return found


def _cells(line: Mapping, part: Mapping) -> list[Cell]:
    """A value, and its confidence interval if it has one."""
    value = line[part["value"]]
    usual = "text" if isinstance(value, str | bool) else "count" if isinstance(value, int) else "number"
    form = part.get("form", usual)
    if value != value:  # NaN
        return [NONE] * (2 if "interval" in part else 1)
    cell = {
        "signed": lambda: (_plus(value), value),
        "number": lambda: _number(value),
        "count": lambda: _count(value),
        "decimals": lambda: (_decimals(value), value),
        "p": lambda: (f"{value:.2g}", value),
        "text": lambda: (str(value), value),
    }[form]()
    if "interval" not in part:
        return [cell]
    write = {"signed": _plus, "decimals": _decimals}.get(form, lambda number: _number(number)[0])
    low, high = (line[key] for key in part["interval"])
    return [cell, NONE if low != low else (f"{write(low)} to {write(high)}", low)]


def catalogue_rows(accuracy: pd.DataFrame, about: Mapping) -> dict[str, list[list[Cell]]]:
    """Rows of the tables of datasets, models and methods."""
    images = accuracy.drop_duplicates("dataset").set_index("dataset")["n"]
    return {
        "dataset_rows": [
            [(entry["label"], name), _count(images[name]), ("yes" if name in about["targets"] else "no", name),
             (entry["licence"], name), (entry["origin"], None)]
            for name, entry in about["datasets"].items()
        ],
        "model_rows": [
            [(entry["label"], name), (entry["architecture"], name), (entry["pretraining"], None), (entry["licence"], name)]
            for name, entry in about["models"].items()
        ],
        "method_rows": [
            [(entry["label"], name), (_settings(entry["settings"]), None), (entry["source"], None)]
            for name, entry in about["methods"].items()
        ],
    }  # fmt: skip


def _settings(settings: Mapping) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "none of its own"


def _labelled(table: pd.DataFrame, about: Mapping) -> pd.DataFrame:
    """Replace names by labels where possible."""
    kinds = {"model": "models", "method": "methods", "other": "methods"} | dict.fromkeys(DATASET_COLUMNS, "datasets")
    for column in set(kinds) & set(table):
        labels = {name: entry["label"] for name, entry in about[kinds[column]].items()}
        table = table.assign(**{column: [labels.get(name, name) for name in table[column]]})
    return table


def _names(line: Mapping, columns: Iterable[str]) -> list[Cell]:
    return [(str(line[column]), line[column]) for column in columns]


def _count(value: int) -> Cell:
    return f"{value:,}", int(value)


def _number(value: float) -> Cell:
    return f"{value:.{DECIMALS}f}", value


def _decimals(value: float) -> str:
    """Format a number of order 1, for which one decimal is too coarse."""
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _signed(line: Mapping, column: str) -> list[Cell]:
    value, low, high = line[column], line["ci_low"], line["ci_high"]
    return [(_plus(value), value), (f"{_plus(low)} to {_plus(high)}", low)]


def _plus(value: float) -> str:
    """Format a difference with its sign, a true minus sign and no negative zero."""
    return f"{round(value, DECIMALS) + 0.0:+.{DECIMALS}f}".replace("-", "\N{MINUS SIGN}")


def run_facts(records: list[dict]) -> dict:
    """Summarize the records of a run's jobs: time, machines and versions.

    Returns:
        `stages`: for each stage its name, jobs, seconds, longest, cpu_seconds, peak_memory and bytes; `jobs`,
        `seconds`: totals; `busy`: seconds during which at least one job ran; `started`, `ended`: dates and times;
        `commits`, `machines`, `versions`: distinct values with their number of jobs, most frequent first; `mixed`:
        differences between jobs; `accepted`: jobs kept after a change of code (rib.records.accept).
    """
    stages: dict[str, list[dict]] = {}
    for record in records:
        stages.setdefault(record["rule"], []).append(record)
    spans = sorted((datetime.fromisoformat(r["started"]), timedelta(seconds=r["seconds"])) for r in records)
    return {
        "stages": [_stage_costs(stage, made) for stage, made in stages.items()],
        "jobs": len(records),
        "seconds": sum(record["seconds"] for record in records),
        "busy": _covered((start, start + length) for start, length in spans),
        "started": f"{spans[0][0]:{CLOCK}}",
        "ended": f"{max(start + length for start, length in spans):{CLOCK}}",
        "commits": Counter(record.get("commit") or "not run from a git checkout" for record in records).most_common(),
        "machines": Counter(
            f"{m['processor']}, {m['system']}, Python {m['python']}" for m in (record["machine"] for record in records)
        ).most_common(),
        "versions": Counter(
            f"{name} {version}" for record in records for name, version in record["versions"].items()
        ).most_common(),
        "mixed": _mixed(records),
        "accepted": sum("accepted" in record for record in records),
    }


def _stage_costs(stage: str, records: list[dict]) -> dict:
    """Total costs of the jobs of a stage, and the maximum of a single job."""
    seconds = [record["seconds"] for record in records]
    return {
        "name": stage,
        "jobs": len(records),
        "seconds": sum(seconds),
        "longest": max(seconds),
        "cpu_seconds": sum(record.get("cpu_seconds", 0) for record in records),
        "peak_memory": max(record.get("peak_memory", 0) for record in records),
        "bytes": sum(record.get("bytes", 0) for record in records),
    }


def _mixed(records: list[dict]) -> list[str]:
    """Libraries with several versions, and differing machines, with the stages of each value.

    For example `torch 2.6 (finetune, evaluate), 2.7 (evaluate)`. A stage need not use every library.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for record in records:
        machine = {key: record["machine"].get(key, "unknown") for key in ("python", "processor", "system")}
        for name, value in {**record["versions"], **machine}.items():
            found.setdefault(name, {}).setdefault(value, {})[record["rule"]] = None  # ordered set
    return [
        f"{name} " + ", ".join(f"{value} ({', '.join(stages)})" for value, stages in sorted(values.items()))
        for name, values in found.items()
        if len(values) > 1
    ]


def _covered(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds covered by at least one of the spans, which are sorted by start."""
    total, end = timedelta(), None
    for start, stop in spans:
        total += max(stop - (start if end is None else max(start, end)), timedelta())
        end = stop if end is None else max(end, stop)
    return total.total_seconds()
