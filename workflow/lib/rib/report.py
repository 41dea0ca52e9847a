"""The page of a run: one HTML file with what was run, its tables and its figures, that needs no network."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pandas as pd
import yaml
from docutils.core import publish_parts
from PIL import Image

from rib import provenance
from rib.io import in_bytes, read_json, write_text

TEMPLATE = Path(__file__).with_name("report.html.jinja")
DECIMALS = 1  # of percentages and their differences
CLOCK = "%Y-%m-%d %H:%M UTC"
DATASET_COLUMNS = ("target", "dataset", "first", "second")  # of tables, that name datasets
PIXELS = 0.6  # of the page, per pixel of a figure

Cell = tuple[str, object]  # what is shown, and what to sort by: a number, a text, or None for running text
NONE: Cell = ("\N{EN DASH}", float("-inf"))  # there is no such number


def write_page(
    *,
    tables: Mapping[str, Path],
    extra: Mapping[str, Path],
    files: Mapping[str, Sequence[str]],
    columns: Path,
    figures: Iterable[Path],
    records: Iterable[str],
    captions: Path,
    citation: Path,
    about: Mapping,
    prepared: Mapping[str, str],
    page: Path,
) -> None:
    """Write the page.

    Args:
        tables: paths of `mri`, `ri` and `accuracy` as CSV.
        extra: paths of the analyses' tables by name, as CSV.
        files: names of further files beside the tables, by what they are called.
        columns: YAML file that says how the analyses' tables are shown (workflow/report/tables.yaml).
        figures: PNG files, in the order of the page.
        records: paths of the provenance records of the run's jobs; of one that was not pulled, the gathered record
            is taken.
        captions: reStructuredText template that gives a figure's caption by its name.
        citation: CITATION.cff.
        about: `config`, `family`, `models`, `methods`, `datasets`: what was chosen, for people.
        prepared: manifests of the datasets by label, of which those that are here tell which images were left out.
        page: the file to write.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = duration
    read = {name: pd.read_csv(path, dtype={"size": str}) for name, path in tables.items()}
    gathered = provenance.load()
    found = (provenance.read(Path(path)) or next(iter(gathered.get(path, [])), None) for path in records)
    run = run_facts([record for record in found if record])
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        about=about,
        config=yaml.safe_dump(about["config"], sort_keys=False),
        figures=[_figure(path, captions) for path in figures],
        tables=[*result_tables(read, about), *extra_tables(extra, columns, about)],
        files=files,
        run=run,
        stage_rows=[_stage_row(stage) for stage in run["stages"]],
        cost_per_mri=run["seconds"] / len(read["mri"]) if len(read["mri"]) else None,
        **catalogue_rows(read["accuracy"], about),
        corrupt={name: ids for name, path in prepared.items() if (ids := _corrupt(Path(path)))},
        cite=yaml.safe_load(citation.read_text(encoding="utf-8")),
    )
    write_text(page, text)


def _stage_row(stage: Mapping) -> list[Cell]:
    """A stage's costs; older records don't tell all of them."""
    times = [(duration(stage[key]), stage[key]) for key in ("seconds", "longest")]
    worked = duration(stage["cpu_seconds"]) if stage["cpu_seconds"] else "not told"
    sizes = [in_bytes(stage[key]) if stage[key] else "not told" for key in ("peak_memory", "bytes")]
    ends = [(text, stage[key]) for text, key in zip(sizes, ("peak_memory", "bytes"), strict=True)]
    return [(stage["name"], stage["name"]), _count(stage["jobs"]), *times, (worked, stage["cpu_seconds"]), *ends]


def _corrupt(manifest: Path) -> list[str]:
    """Images that preparation left out of a dataset."""
    return read_json(manifest)["corrupt"] if manifest.is_file() else []


def _figure(path: Path, captions: Path) -> dict[str, object]:
    caption = caption_of(path.stem, captions)
    with Image.open(path) as image:
        width = round(PIXELS * image.width)
    return {
        "name": path.stem,
        "width": width,
        "data": base64.b64encode(path.read_bytes()).decode(),
        "alt": caption.split(". ")[0],
        "caption": publish_parts(caption, writer="html5", settings_overrides={"raw_enabled": False})["body"],
    }


def caption_of(figure: str, captions: Path) -> str:
    """A figure's caption as reStructuredText, from the template that Snakemake's own report uses too."""
    template = jinja2.Template(captions.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
    return template.render(snakemake=SimpleNamespace(wildcards=SimpleNamespace(figure=figure))).strip()


def result_tables(read: Mapping[str, pd.DataFrame], about: Mapping) -> list[dict]:
    """The page's tables of results: each a title, a note, its CSV, a header, and rows of cells."""
    sure = f"{100 * about['config']['statistics']['confidence']:g} % interval"
    run = ["model", "method", "target", "size", "seed"]
    wide = read["accuracy"].pivot(index=run, columns="dataset", values="accuracy").reset_index()
    mri, ri, wide = (_labelled(table, about) for table in (read["mri"], read["ri"], wide))
    datasets = [name for name in about["datasets"] if name in wide]
    return [
        {
            "title": "Mean robustness improvement",
            "note": "mRI is the mean of RI over targets: mean accuracy off the target after fine-tuning less before, in "
            "percentage points.",
            "file": "mri.csv",
            "header": ["Model", "Method", "Size", "mRI", sure, "OOD before (%)", "OOD after (%)"],
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
            "note": "RI is the mean, over all datasets but the target, of accuracy after fine-tuning on the target less "
            "before, in percentage points.",
            "file": "ri.csv",
            "header": ["Model", "Method", "Target", "Size", "Seed", "RI", sure, "Images"],
            "rows": [[*_names(line, run), *_signed(line, "ri"), _count(line["n"])] for line in ri.to_dict("records")],
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
                [*_names(line, run), *(_number(line[name]) for name in datasets)] for line in wide.to_dict("records")
            ],
        },
    ]


def extra_tables(paths: Mapping[str, Path], columns: Path, about: Mapping) -> list[dict]:
    """The analyses' tables, shown as a file of columns says; each is in the form of `result_tables`.

    Args:
        paths: CSV by name.
        columns: of each table its title, note and columns by header: a column of the CSV, or value, form and interval.
        about: see `write_page`.
    """
    known = yaml.safe_load(columns.read_text(encoding="utf-8"))
    sure = f"{100 * about['config']['statistics']['confidence']:g} % interval"
    found = []
    for name, path in paths.items():
        look = known[name]
        table = _labelled(pd.read_csv(path, dtype={"size": str}), about)
        parts = {
            header: part if isinstance(part, dict) else {"value": part} for header, part in look["columns"].items()
        }
        header = [text for key, part in parts.items() for text in ([key, sure] if "interval" in part else [key])]
        rows = [[cell for part in parts.values() for cell in _cells(line, part)] for line in table.to_dict("records")]
        found.append({"title": look["title"], "note": look["note"], "file": path.name, "header": header, "rows": rows})
    return found


def _cells(line: Mapping, part: Mapping) -> list[Cell]:
    """A value, and its interval where it has one."""
    value = line[part["value"]]
    usual = "text" if isinstance(value, str | bool) else "count" if isinstance(value, int) else "number"
    form = part.get("form", usual)
    if value != value:  # NaN: there is none
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
    """Rows of the page's tables of datasets, models and methods: what they are, and on what terms."""
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
    """A table with names replaced by labels, where there is one."""
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
    """A number of the size of 1, of which one decimal would say too little."""
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _signed(line: Mapping, column: str) -> list[Cell]:
    value, low, high = line[column], line["ci_low"], line["ci_high"]
    return [(_plus(value), value), (f"{_plus(low)} to {_plus(high)}", low)]


def _plus(value: float) -> str:
    """A difference with its sign, a true minus and no negative zero."""
    return f"{round(value, DECIMALS) + 0.0:+.{DECIMALS}f}".replace("-", "\N{MINUS SIGN}")


def run_facts(records: list[dict]) -> dict:
    """When, how long, where and with what the jobs of a run were made.

    Returns:
        `stages`: name, jobs, seconds, longest, cpu_seconds, peak_memory, bytes of each; `jobs`, `seconds`: in all; `busy`: seconds during which at least
        one job ran; `started`, `ended`: dates and times; `commits`, `machines`, `versions`: each distinct one with its
        number of jobs, most frequent first; `mixed`: lines that name what differs between jobs, and in which stages;
        `accepted`: jobs whose results were kept after a change of their code (rib.accept).
    """
    stages: dict[str, list[dict]] = {}
    for record in records:
        stages.setdefault(record["stage"], []).append(record)
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
    """What the jobs of a stage took together, and the most that one did."""
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
    """What differs between jobs, with the stages of each: libraries of several versions, and machines.

    For example `torch 2.6 (finetune, evaluate), 2.7 (evaluate)`; a stage need not have every library.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for record in records:
        machine = {key: record["machine"].get(key, "not told") for key in ("python", "processor", "system")}
        for name, value in {**record["versions"], **machine}.items():
            found.setdefault(name, {}).setdefault(value, {})[record["stage"]] = None  # a set that keeps the order
    return [
        f"{name} " + ", ".join(f"{value} ({', '.join(stages)})" for value, stages in sorted(values.items()))
        for name, values in found.items()
        if len(values) > 1
    ]


def _covered(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds covered by at least one of the spans, which come sorted by start."""
    total, end = timedelta(), None
    for start, stop in spans:
        total += max(stop - (start if end is None else max(start, end)), timedelta())
        end = stop if end is None else max(end, stop)
    return total.total_seconds()


def duration(seconds: float) -> str:
    """Seconds as people say them, for example `2 h 05 min`, `4 min 08 s`, `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
