"""RI per target and mRI of all methods as a table per model, in the forms that papers and notes need. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rib.io import write_text
from rib.runs import ALL, PRETRAINED

MRI = "mri"  # the last column
MINUS = "\N{MINUS SIGN}"
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


@dataclass(frozen=True)
class Cell:
    """A value in percentage points with its interval, and whether its method is better than every other."""

    value: float
    low: float
    high: float
    best: bool


def best_of(values: pd.Series, compared: pd.DataFrame, confidence: float) -> str | None:
    """The method that the paired test finds better than every other; None where the best one ties, or is alone.

    Args:
        values: of one model, size and column, by method.
        compared: their comparisons: method, other, p_holm.
        confidence: between 0 and 1.
    """
    best = values.idxmax()
    pairs = compared[(compared["method"] == best) | (compared["other"] == best)]
    pairs = pairs[pairs["other"] != PRETRAINED]
    return best if len(pairs) and (pairs["p_holm"] <= 1 - confidence).all() else None


def cells_of(values: pd.DataFrame, compared: pd.DataFrame, confidence: float) -> dict[tuple[str, str, str, str], Cell]:
    """Cells by model, size, method and column.

    Args:
        values: model, method, size, column (a target or `mri`), value, ci_low, ci_high.
        compared: model, size, column, method, other, p_holm.
        confidence: between 0 and 1.
    """
    cells = {}
    keys = ["model", "size", "column"]
    tests = dict(list(compared.groupby(keys)))
    for (model, size, column), part in values.groupby(keys, sort=False):
        best = best_of(part.set_index("method")["value"], tests[model, size, column], confidence)
        for line in part.to_dict("records"):
            numbers = (line["value"], line["ci_low"], line["ci_high"])
            cells[model, size, line["method"], column] = Cell(*numbers, line["method"] == best)
    return cells


def write_summary(
    *,
    tables: Mapping[str, Path],
    labels: Mapping[str, Mapping[str, str]],
    conditions: str,
    confidence: float,
    outputs: Mapping[str, Path],
) -> None:
    """Write the tables as Markdown, LaTeX (booktabs) and CSV.

    Args:
        tables: seeds, seeds_ri, comparisons, comparisons_ri (see rib.analysis.comparison).
        labels: of models, methods and targets, each in the order to list.
        conditions: what the numbers hang on.
        confidence: coverage of the intervals, between 0 and 1.
        outputs: `md`, `tex` and `csv`.
    """
    read = {name: pd.read_csv(path, dtype={"size": str}) for name, path in tables.items()}
    values, compared = (
        pd.concat([read[f"{name}_ri"].rename(columns={"target": "column"}), read[name].assign(column=MRI)])
        for name in ("seeds", "comparisons")
    )
    values["value"] = values["ri"].fillna(values["mri"])
    cells = cells_of(values, compared, confidence)
    columns = {**labels["targets"], MRI: "mRI"}
    seeds = int(values["seeds"].max()) if len(values) else 0
    note = (
        f"RI per target and their mean, mRI, in percentage points, with {100 * confidence:g} % intervals over images"
        f"{f' (mean of {seeds} seeds)' if seeds > 1 else ''}; bold: better than every other method (paired sign flips, "
        f"Holm-adjusted p at most {1 - confidence:.2g}). {conditions[:1].upper()}{conditions[1:]}."
    )
    rows = {
        model: [(s, m) for s in dict.fromkeys(key[1] for key in cells) for m in labels["methods"] if (model, s, m, MRI) in cells]
        for model in labels["models"]
    }  # fmt: skip
    parts = {model: found for model, found in rows.items() if found}
    write_text(outputs["md"], _markdown(cells, parts, labels, columns, note))
    write_text(outputs["tex"], _latex(cells, parts, labels, columns, note))
    write_text(outputs["csv"], _csv(cells, parts, columns))


Rows = Mapping[str, Sequence[tuple[str, str]]]  # by model, the size and method of each row
Cells = Mapping[tuple[str, str, str, str], Cell]


def _heads(rows: Rows, columns: Mapping[str, str]) -> list[str]:
    return ["Method", *(["Size"] if _has_sizes(rows) else []), *columns.values()]


def _has_sizes(rows: Rows) -> bool:
    return {size for found in rows.values() for size, _ in found} != {ALL}


def _names(rows: Rows, labels: Mapping, size: str, method: str) -> list[str]:
    return [labels["methods"][method], *([size] if _has_sizes(rows) else [])]


def _markdown(cells: Cells, rows: Rows, labels: Mapping, columns: Mapping[str, str], note: str) -> str:
    lines = [note]
    for model, found in rows.items():
        heads = _heads(rows, columns)
        lines += ["", f"## {labels['models'][model]}", "", _line(heads)]
        lines.append(_line([*["---"] * (len(heads) - len(columns)), *["---:"] * len(columns)]))
        for size, method in found:
            shown = [_in_markdown(cells[model, size, method, column]) for column in columns]
            lines.append(_line([*_names(rows, labels, size, method), *shown]))
    return "\n".join(lines) + "\n"


def _line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(part.replace("|", r"\|") for part in parts) + " |"


def _in_markdown(cell: Cell) -> str:
    value, low, high = (f"{number:+.1f}".replace("-", MINUS) for number in (cell.value, cell.low, cell.high))
    return f"{f'**{value}**' if cell.best else value} [{low}, {high}]"


def _latex(cells: Cells, rows: Rows, labels: Mapping, columns: Mapping[str, str], note: str) -> str:
    parts = ["% Needs \\usepackage{booktabs}. Of wide tables make table*.\n"]
    for model, found in rows.items():
        heads = [head.translate(LATEX) for head in _heads(rows, columns)]
        lines = [
            [text.translate(LATEX) for text in _names(rows, labels, size, method)]
            + [_in_latex(cells[model, size, method, column]) for column in columns]
            for size, method in found
        ]
        parts.append(
            pd.DataFrame(lines, columns=heads).to_latex(
                index=False,
                column_format="l" * (len(heads) - len(columns)) + "r" * len(columns),
                caption=f"{labels['models'][model]}. {note}".translate(LATEX),
                label=f"tab:rib-{model}",
            )
        )
    return "\n".join(parts)


def _in_latex(cell: Cell) -> str:
    """The interval as an index, which keeps columns narrow."""
    value = f"\\mathbf{{{cell.value:+.1f}}}" if cell.best else f"{cell.value:+.1f}"
    return f"${value}_{{[{cell.low:+.1f}, {cell.high:+.1f}]}}$"


def _csv(cells: Cells, rows: Rows, columns: Mapping[str, str]) -> str:
    lines = []
    names = [name for column in columns for name in (column, *(f"{column}_{part}" for part in ("low", "high", "best")))]
    for model, found in rows.items():
        for size, method in found:
            line: dict[str, object] = {"model": model, "method": method, "size": size}
            for column in columns:
                cell = cells[model, size, method, column]
                line |= {column: cell.value, f"{column}_low": cell.low, f"{column}_high": cell.high}
                line[f"{column}_best"] = int(cell.best)
            lines.append(line)
    return pd.DataFrame(lines, columns=["model", "method", "size", *names]).to_csv(
        index=False, float_format="%.6f", lineterminator="\n"
    )
