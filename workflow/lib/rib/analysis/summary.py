"""RI per target and mRI of all methods, one table per model, as Markdown, LaTeX and CSV. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rib.base.files import write_table, write_text
from rib.config.run import ALL, PRETRAINED

MRI = "mri"  # the last column
MINUS = "\N{MINUS SIGN}"
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


@dataclass(frozen=True)
class Cell:
    """A value in percentage points with its confidence interval, and whether its method is better than all others."""

    value: float
    low: float
    high: float
    best: bool


def best_of(values: pd.Series, compared: pd.DataFrame, confidence: float) -> str | None:
    """The method that is significantly better than all others; None if the best method ties or is the only one.

    Args:
        values: values of one model, size and column, by method.
        compared: their comparisons: method, other, p_holm.
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
    seeds: Path,
    seeds_ri: Path,
    comparisons: Path,
    comparisons_ri: Path,
    labels: Mapping[str, Mapping[str, str]],
    conditions: str,
    confidence: float,
    outputs: Mapping[str, Path],
) -> None:
    """Write the tables as Markdown, LaTeX (booktabs) and CSV.

    Args:
        seeds, seeds_ri, comparisons, comparisons_ri: CSV of rib.analysis.comparison.
        labels: labels of models, methods and targets, in display order.
        outputs: `md`, `tex` and `csv`.
    """
    values, compared = (
        pd.concat([_read(per_target).rename(columns={"target": "column"}), _read(mean).assign(column=MRI)])
        for mean, per_target in ((seeds, seeds_ri), (comparisons, comparisons_ri))
    )
    values["value"] = values["ri"].fillna(values["mri"])
    cells = cells_of(values, compared, confidence)
    columns = {**labels["targets"], MRI: "mRI"}
    count = int(values["seeds"].max()) if len(values) else 0
    note = (
        f"RI per target and their mean, mRI, in percentage points, with {100 * confidence:g} % confidence intervals"
        f"{f' (mean of {count} seeds)' if count > 1 else ''}; bold: better than every other method (paired sign flips, "
        f"Holm-adjusted p at most {1 - confidence:.2g}). {conditions[:1].upper()}{conditions[1:]}."
    )
    sized = {size for _, size, _, _ in cells} != {ALL}
    keys = [(m, s, k) for m, s in dict.fromkeys(key[:2] for key in cells) for k in labels["methods"]]
    rows = {
        model: [(size, method) for name, size, method in keys if name == model and (name, size, method, MRI) in cells]
        for model in labels["models"]
    }
    texts = {"md": [note + "\n"], "tex": ["% Needs \\usepackage{booktabs}. Use table* for wide tables.\n"]}
    for model in (model for model, found in rows.items() if found):
        lines = [
            [labels["methods"][method], *([size] if sized else []), *(cells[model, size, method, c] for c in columns)]
            for size, method in rows[model]
        ]
        heads = ["Method", *(["Size"] if sized else [])]
        table = pd.DataFrame(lines, columns=[*heads, *columns.values()])
        aligned = {"left": len(heads), "right": len(columns)}
        texts["md"] += [f"## {labels['models'][model]}\n", _markdown(table, aligned)]
        caption = f"{labels['models'][model]}. {note}".translate(LATEX)
        texts["tex"].append(_latex(table, aligned, caption, f"tab:rib-{model}"))
    for ending, parts in texts.items():
        write_text(outputs[ending], "\n".join(parts))
    write_table(outputs["csv"], _csv(cells, rows, columns))


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"size": str})


def _markdown(table: pd.DataFrame, aligned: Mapping[str, int]) -> str:
    shown = table.map(lambda value: _in_markdown(value) if isinstance(value, Cell) else value.replace("|", r"\|"))
    shown = shown.rename(columns=lambda head: head.replace("|", r"\|"))
    sides = [side for side, number in aligned.items() for _ in range(number)]
    return shown.to_markdown(index=False, colalign=sides, disable_numparse=True) + "\n"


def _in_markdown(cell: Cell) -> str:
    value, low, high = (f"{number:+.1f}".replace("-", MINUS) for number in (cell.value, cell.low, cell.high))
    return f"{f'**{value}**' if cell.best else value} [{low}, {high}]"


def _latex(table: pd.DataFrame, aligned: Mapping[str, int], caption: str, label: str) -> str:
    shown = table.map(lambda value: _in_latex(value) if isinstance(value, Cell) else value.translate(LATEX))
    return shown.rename(columns=lambda head: head.translate(LATEX)).to_latex(
        index=False,
        column_format="".join(side[0] * number for side, number in aligned.items()),
        caption=caption,
        label=label,
    )


def _in_latex(cell: Cell) -> str:
    """The confidence interval as a subscript, to keep columns narrow."""
    value = f"\\mathbf{{{cell.value:+.1f}}}" if cell.best else f"{cell.value:+.1f}"
    return f"${value}_{{[{cell.low:+.1f}, {cell.high:+.1f}]}}$"


def _csv(
    cells: Mapping[tuple, Cell], rows: Mapping[str, Sequence[tuple[str, str]]], columns: Iterable[str]
) -> pd.DataFrame:
    lines = []
    for model, found in rows.items():
        for size, method in found:
            own = {column: cells[model, size, method, column] for column in columns}
            numbers = {f"{column}{end}": value for column, cell in own.items() for end, value in _ends(cell).items()}
            lines.append({"model": model, "method": method, "size": size, **numbers})
    names = [f"{column}{end}" for column in columns for end in ("", "_low", "_high", "_best")]
    return pd.DataFrame(lines, columns=["model", "method", "size", *names])


def _ends(cell: Cell) -> dict[str, float | int]:
    return {"": cell.value, "_low": cell.low, "_high": cell.high, "_best": int(cell.best)}
