"""RI per target and mRI of all methods, one table per model, as Markdown, LaTeX and CSV. No torch."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import pandas as pd

from rib.analysis.bootstrap import FEWEST_SEEDS
from rib.analysis.fit import UNFINISHED, read_table
from rib.analysis.writing import read_fit, write_tables
from rib.base.files import write_text
from rib.base.rounding import MINUS, fit_percent, points
from rib.base.text import markdown
from rib.config.run import ALL, PRETRAINED

MRI = "mri"  # the last column
NUMBERS = ["value", "ci_low", "ci_high", "fit", "unfinished"]
DIFFERENCE = ["reference", "difference", "diff_low", "diff_high"]  # of the ranking
NO_RANK = "\N{EN DASH}"
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        UNFINISHED: r"\dag{}",
    }
)


@dataclass(frozen=True)
class Cell:
    """A value in percentage points, its confidence interval, the mean fit (percent) and number of unfinished runs that it
    covers, and 1 if its method is better than all others, else 0.
    """

    value: float
    low: float
    high: float
    fit: float
    unfinished: int
    best: int


def best_of(values: pd.Series, compared: pd.DataFrame, confidence: float) -> str | None:
    """The method that is significantly better than all others; None if the best method ties or is the only one.

    Args:
        values: values of one model, size and column, by method.
        compared: comparisons of its methods, without unfinished ones: method, other, p_holm.
    """
    tested = values[values.index.isin([*compared["method"], *compared["other"]])]
    best = tested.idxmax() if len(tested) else None
    pairs = compared[
        ((compared["method"] == best) | (compared["other"] == best))
        & (compared["other"] != PRETRAINED)
    ]
    return best if len(pairs) and (pairs["p_holm"] <= 1 - confidence).all() else None


def cells_of(
    values: pd.DataFrame, compared: pd.DataFrame, confidence: float
) -> dict[tuple[str, str, str, str], Cell]:
    """Cells by model, size, method and column.

    Args:
        values: model, method, size, column (a target or `mri`), value, ci_low, ci_high, fit, unfinished.
        compared: model, size, column, method, other, p_holm.
    """
    cells = {}
    keys = ["model", "size", "column"]
    tests = dict(list(compared.groupby(keys)))
    for (model, size, column), part in values.groupby(keys, sort=False):
        best = best_of(
            part.set_index("method")["value"],
            tests.get((model, size, column), compared[:0]),
            confidence,
        )
        for method, *numbers in part[["method", *NUMBERS]].itertuples(index=False):
            cells[model, size, method, column] = Cell(*numbers, int(method == best))
    return cells


def write_summary(
    *,
    mri: Path,
    seeds_ri: Path,
    comparisons: Path,
    comparisons_ri: Path,
    ranking: Path,
    labels: Mapping[str, Mapping[str, str]],
    conditions: str,
    confidence: float,
    outputs: Mapping[str, Path],
    fit: Path | None = None,
) -> None:
    """Write the tables as Markdown, LaTeX (booktabs) and CSV.

    Args:
        mri, ranking: CSV of rib.analysis.tables, and of rib.analysis.comparison with differences from a reference; the others are of rib.analysis.comparison, and all marked by rib.analysis.fit.
        labels: labels of models, methods and targets, in display order.
        fit: fit.csv; if given, the CSV has the columns of `rib.analysis.writing.with_fit`.
    """
    values, compared = (
        pd.concat(
            [
                read_table(per_target).rename(columns={"target": "column"}),
                read_table(mean).assign(column=MRI),
            ]
        )
        for mean, per_target in ((mri, seeds_ri), (comparisons, comparisons_ri))
    )
    values["value"] = values["ri"].fillna(values["mri"])
    cells = cells_of(values, compared, confidence)
    differences = read_table(ranking).set_index(["model", "size", "method"])[DIFFERENCE]
    columns = {**labels["targets"], MRI: "mRI"}
    count = int(values["seeds"].max()) if len(values) else 0
    over = "objects and seeds" if count >= FEWEST_SEEDS else "objects, for these trained networks"
    once = (
        " A merge over seeds is one network per target, without a rank beside means over seeds."
        * (values["seeds"].nunique() > 1)
    )
    unfinished = (
        f" {UNFINISHED}: training unfinished; such methods have no test."
        if values["unfinished"].any()
        else ""
    )
    note = (
        f"RI per target and their mean, mRI, in percentage points, with {100 * confidence:g} % confidence intervals"
        f"{f' (mean of {count} seeds)' if count > 1 else ''} over {over}; bold: better than every other method (paired "
        f"test, Holm-adjusted p at most {1 - confidence:.2g}); differences from the reference: with intervals that hold for "
        f"all methods of a model and size together, for ranked methods; fit: mean accuracy on the images trained on.{once}{unfinished} "
        f"{conditions[:1].upper()}{conditions[1:]}."
    )
    rows = [
        (*key, method)
        for model in labels["models"]
        for key in dict.fromkeys(cell[:2] for cell in cells if cell[0] == model)
        for method in labels["methods"]
        if (*key, method, MRI) in cells
    ]
    heads = ["Method"] if {size for _, size, _, _ in cells} == {ALL} else ["Method", "Size"]
    texts = {
        "md": [markdown(note) + "\n"],
        "tex": ["% Needs \\usepackage{booktabs}. Use table* for wide tables.\n"],
    }
    for model, own in itertools.groupby(rows, key=lambda row: row[0]):
        lines = []
        for _, size, method in own:
            named, found = (
                [labels["methods"][method], size],
                [cells[model, size, method, name] for name in columns],
            )
            difference = _difference_of(differences, (model, size, method))
            lines.append([*named[: len(heads)], *found, difference, fit_percent(found[-1].fit)])
        minus = _difference_header(
            differences[differences.index.get_level_values("model") == model], labels["methods"]
        )
        table = pd.DataFrame(lines, columns=[*heads, *columns.values(), minus, "Fit (%)"])
        texts["md"] += [f"## {markdown(labels['models'][model])}\n", _markdown(table, len(heads))]
        caption = f"{labels['models'][model]}. {note}".translate(LATEX)
        texts["tex"].append(_latex(table, len(heads), caption, f"tab:rib-{model}"))
    for ending, parts in texts.items():
        write_text(outputs[ending], "\n".join(parts))
    lines = [
        [
            model,
            method,
            size,
            *(
                number
                for column in columns
                for number in astuple(cells[model, size, method, column])
            ),
        ]
        for model, size, method in rows
    ]
    names = [
        f"{column}{end}"
        for column in columns
        for end in ("", "_low", "_high", "_fit", "_unfinished", "_best")
    ]
    table = pd.DataFrame(lines, columns=["model", "method", "size", *names])
    table = table.merge(differences.reset_index(), how="left", on=["model", "size", "method"])
    write_tables({"csv": table}, outputs, None if fit is None else read_fit(fit))


def _difference_of(differences: pd.DataFrame, run: tuple[str, str, str]) -> Cell | str:
    """Difference of a method's mRI from the reference's, `reference` for itself, a dash without a rank.

    `run` is a model, size and method, the index of the differences.
    """
    if run not in differences.index:
        return NO_RANK
    reference, value, low, high = differences.loc[run]
    if run[-1] == reference:
        return "reference"
    return Cell(value, low, high, fit=float("nan"), unfinished=0, best=0)


def _difference_header(differences: pd.DataFrame, methods: Mapping[str, str]) -> str:
    """Header of a model's differences; sizes may have different references."""
    names = [methods.get(name, name) for name in dict.fromkeys(differences["reference"])]
    return f"mRI minus {' or '.join(names)}" if names else "Difference"


def _markdown(table: pd.DataFrame, heads: int) -> str:
    sides = ["left"] * heads + ["right"] * (table.shape[1] - heads)
    return (
        _shown(table, _in_markdown, markdown).to_markdown(
            index=False, colalign=sides, disable_numparse=True
        )
        + "\n"
    )


def _in_markdown(cell: Cell) -> str:
    value, low, high = (
        points(number).replace("-", MINUS) for number in (cell.value, cell.low, cell.high)
    )
    return f"{f'**{value}**' if cell.best else value}{UNFINISHED * bool(cell.unfinished)} [{low}, {high}]"


def _latex(table: pd.DataFrame, heads: int, caption: str, label: str) -> str:
    shown = _shown(table, _in_latex, lambda text: text.translate(LATEX))
    sides = "l" * heads + "r" * (table.shape[1] - heads)
    return shown.to_latex(index=False, column_format=sides, caption=caption, label=label)


def _in_latex(cell: Cell) -> str:
    """The confidence interval as a subscript, to keep columns narrow."""
    value = f"\\mathbf{{{points(cell.value)}}}" if cell.best else points(cell.value)
    mark = r"^{\dag}" if cell.unfinished else ""
    return f"${value}{mark}_{{[{points(cell.low)}, {points(cell.high)}]}}$"


def _shown(
    table: pd.DataFrame, of_cell: Callable[[Cell], str], escape: Callable[[str], str]
) -> pd.DataFrame:
    return table.map(
        lambda value: of_cell(value) if isinstance(value, Cell) else escape(value)
    ).rename(columns=escape)
