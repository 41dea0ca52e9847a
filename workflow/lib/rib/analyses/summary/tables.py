"""Summary of RI and mRI of all methods, one table per model: Markdown, LaTeX and CSV. No torch."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import pandas as pd

from rib.base.files import table_text
from rib.base.rounding import MINUS, fit_percent, points
from rib.base.text import markdown
from rib.schema.run import ALL, PRETRAINED
from rib.statistics.bootstrap import FEWEST_SEEDS
from rib.statistics.fit import OTHER_RATE, UNDERFITTED
from rib.statistics.inputs import Inputs
from rib.statistics.writing import NUMBERS, read_fit, with_fit

MRI = "mri"  # the last column
CELL_ENDINGS = ["", "_low", "_high", "_fit", "_underfitted", "_best"]
DIFFERENCE = ["reference", "difference", "diff_low", "diff_high"]  # of the ranking
NO_RANK = "\N{EN DASH}"
NEEDS_BOOKTABS = "% Needs \\usepackage{booktabs}. Use table* for wide tables.\n"
LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        UNDERFITTED: r"\dag{}",
        OTHER_RATE: r"\S{}",
    }
)


@dataclass(frozen=True)
class SummaryCell:
    """A value in percentage points, and what is shown with it."""

    value: float
    low: float
    high: float
    fit: float  # percent, mean over the cell's runs
    underfitted: int  # number of underfitted runs in the cell
    best: int  # 1 if its method is clearly better than all others, else 0


class RowKey(NamedTuple):
    """Identifies a row of a table."""

    model: str
    size: str
    method: str


SummaryCells = dict[
    tuple[str, str, str, str], SummaryCell
]  # by model, size, method and column (target or "mri")
LabelsByKind = Mapping[str, Mapping[str, str]]  # such as {"models": {"lite0": "Lite0"}}


def tables(inputs: Inputs) -> dict[str, str]:
    """Texts of the files: {"summary.md": "| ...", "summary.tex": ..., "summary.csv": ...}.

    In the CSV each number's fit (accuracy on training images) has a separate column.
    """
    return summary_files(
        mri=inputs.table("mri"),
        seeds_ri=inputs.table("seeds_ri"),
        comparisons=inputs.table("comparisons"),
        comparisons_ri=inputs.table("comparisons_ri"),
        ranking=inputs.table("ranking"),
        **inputs.params,
        fit=read_fit(inputs.path("fit")),
    )


def best_of(values: pd.Series, compared: pd.DataFrame, confidence: float) -> str | None:
    """The method that is significantly better than all others, which tables show in bold.

    None if the best method ties or is the only one.

    Args:
        values: percentage points by method, for one model, size and column (a target or `mri`).
        compared: columns method, other, p_holm, without underfitted methods.
        confidence: a Holm-adjusted p of at most 1 - confidence is significant.
    """
    compared_methods = [*compared["method"], *compared["other"]]
    values_of_compared = values[values.index.isin(compared_methods)]
    if values_of_compared.empty:
        return None
    best = str(values_of_compared.idxmax())
    has_best = (compared["method"] == best) | (compared["other"] == best)
    with_methods = compared[has_best & (compared["other"] != PRETRAINED)]
    if with_methods.empty:
        return None
    is_better_than_all = (with_methods["p_holm"] <= 1 - confidence).all()
    return best if is_better_than_all else None


def cells_of(values: pd.DataFrame, compared: pd.DataFrame, confidence: float) -> SummaryCells:
    """Cells by model, size, method and column: {("lite0", "all", "ft", "noto"): SummaryCell(...)}.

    Args:
        values: model, method, size, column (a target or `mri`), value, ci_low, ci_high (percentage
            points), fit (percent), underfitted (number of runs).
        compared: model, size, column, method, other, p_holm; a row per tested pair of methods.
    """
    keys = ["model", "size", "column"]
    comparisons_of_key = dict(list(compared.groupby(keys)))
    no_comparisons = compared[:0]
    cells = {}
    for key, values_of_methods in values.groupby(keys, sort=False):
        best = best_of(
            values_of_methods.set_index("method")["value"],
            comparisons_of_key.get(key, no_comparisons),
            confidence,
        )
        for row in values_of_methods.to_dict("records"):
            method = row["method"]
            cells[row["model"], row["size"], method, row["column"]] = SummaryCell(
                value=row["value"],
                low=row["ci_low"],
                high=row["ci_high"],
                fit=row["fit"],
                underfitted=row["underfitted"],
                best=int(method == best),
            )
    return cells


def summary_files(
    mri: pd.DataFrame,
    seeds_ri: pd.DataFrame,
    comparisons: pd.DataFrame,
    comparisons_ri: pd.DataFrame,
    ranking: pd.DataFrame,
    *,
    labels: LabelsByKind,
    confidence: float,
    conditions: str,
    fit: pd.DataFrame | None = None,
) -> dict[str, str]:
    """The tables as Markdown, LaTeX (booktabs) and CSV.

    Args:
        mri: model, method, size, mri, ci_low, ci_high, seeds, fit, underfitted.
        seeds_ri, comparisons, comparisons_ri, ranking: tables of rib.analyses.comparison, with the
            `COLUMNS` of its tables.py; seeds_ri also has fit and underfitted.
        labels: shown models, methods and targets in display order, such as {"models": {"lite0":
            "Lite0"}, "methods": ..., "targets": ...}.
        fit: fit.csv as texts, to add its columns to the CSV.

    Returns:
        Text by file name: summary.md, summary.tex and summary.csv.
    """
    values = _in_one_table(seeds_ri, mri)
    values["value"] = values["ri"].fillna(values["mri"])
    compared = _in_one_table(comparisons_ri, comparisons)
    cells = cells_of(values, compared, confidence)
    differences = ranking.set_index(["model", "size", "method"])[DIFFERENCE]
    rows = _rows_in_display_order(cells, labels)
    note = _note(values, confidence, conditions)
    other_rates = _other_rates(values)

    head_columns = ["Method"]
    if {size for _, size, _, _ in cells} != {ALL}:
        head_columns.append("Size")
    markdown_texts = [markdown(note) + "\n"]
    latex_texts = [NEEDS_BOOKTABS]
    for model in dict.fromkeys(row.model for row in rows):
        rows_of_model = [row for row in rows if row.model == model]
        table = _table_of_model(
            rows_of_model, cells, differences, labels, head_columns, other_rates
        )
        label = labels["models"][model]
        markdown_texts.append(f"## {markdown(label)}\n")
        markdown_texts.append(_markdown(table, len(head_columns)))
        caption = f"{label}. {note}".translate(LATEX)
        latex_texts.append(_latex(table, len(head_columns), caption, f"tab:rib-{model}"))
    numbers = _csv_table(cells, rows, [*labels["targets"], MRI], differences)
    if fit is not None:
        numbers = with_fit(numbers, fit)
    return {
        "summary.md": "\n".join(markdown_texts),
        "summary.tex": "\n".join(latex_texts),
        "summary.csv": table_text(numbers, NUMBERS),
    }


def _table_of_model(
    rows: Sequence[RowKey],
    cells: SummaryCells,
    differences: pd.DataFrame,
    labels: LabelsByKind,
    head_columns: Sequence[str],
    other_rates: Collection[tuple[str, str]],
) -> pd.DataFrame:
    """The table to show: heads, cells of targets and mRI, difference from the reference, fit."""
    model = rows[0].model
    differences_of_model = differences[differences.index.get_level_values("model") == model]
    difference_of_row = differences_of_model.to_dict("index")
    lines = []
    for row in rows:
        method_label = labels["methods"][row.method]
        if (row.model, row.method) in other_rates:
            method_label += f" {OTHER_RATE}"
        heads = [method_label]
        if "Size" in head_columns:
            heads.append(row.size)
        cells_of_row = [cells[*row, column] for column in [*labels["targets"], MRI]]
        difference = _difference_cell(difference_of_row.get(row), row.method)
        fit_of_row = fit_percent(cells[*row, MRI].fit)
        lines.append([*heads, *cells_of_row, difference, fit_of_row])
    difference_column = _difference_header(differences_of_model, labels["methods"])
    cell_columns = [*labels["targets"].values(), "mRI"]
    return pd.DataFrame(lines, columns=[*head_columns, *cell_columns, difference_column, "Fit (%)"])


def _in_one_table(per_target: pd.DataFrame, mean: pd.DataFrame) -> pd.DataFrame:
    """Both tables in one; `column` says where a value goes in the summary: a target or `mri`."""
    table_of_targets = per_target.rename(columns={"target": "column"})
    return pd.concat([table_of_targets, mean.assign(column=MRI)])


def _other_rates(values: pd.DataFrame) -> set[tuple[str, str]]:
    """{("cnn", "replay")}: methods whose learning rate was not chosen for the model."""
    if "other_rate" not in values:
        return set()
    has_other_rate = values["other_rate"] > 0
    return set(values.loc[has_other_rate, ["model", "method"]].itertuples(index=False, name=None))


def _rows_in_display_order(cells: SummaryCells, labels: LabelsByKind) -> list[RowKey]:
    """Rows in the order of labels, sizes in the order of cells; without an mRI, no row."""
    sizes_of_model: dict[str, list[str]] = {}
    for model, size, _, _ in cells:
        sizes = sizes_of_model.setdefault(model, [])
        if size not in sizes:
            sizes.append(size)
    rows = []
    for model in labels["models"]:
        for size in sizes_of_model.get(model, []):
            for method in labels["methods"]:
                if (model, size, method, MRI) in cells:
                    rows.append(RowKey(model, size, method))
    return rows


def _note(values: pd.DataFrame, confidence: float, conditions: str) -> str:
    """What the numbers and marks of the tables mean, in sentences."""
    seeds = int(values["seeds"].max()) if len(values) else 0
    mean_of_seeds = f" (mean of {seeds} seeds)" if seeds > 1 else ""
    over = "objects, for these trained networks"
    if seeds >= FEWEST_SEEDS:
        over = "objects and seeds"
    about_merges = ""  # needed if a method that merges seeds has fewer runs than others
    if values["seeds"].nunique() > 1:
        about_merges = (
            " A merge over seeds is one network per target, without a rank beside means over seeds."
        )
    about_underfitted = ""
    if values["underfitted"].any():
        about_underfitted = f" {UNDERFITTED}: underfitted; such methods have no test."
    about_rates = ""
    if _other_rates(values):
        about_rates = f" {OTHER_RATE}: learning rate not chosen for this network."
    capitalised_conditions = f"{conditions[:1].upper()}{conditions[1:]}"
    return (
        "RI per target and their mean, mRI, in percentage points, with "
        f"{100 * confidence:g} % confidence intervals{mean_of_seeds} over {over}; bold: better "
        f"than every other method (paired test, Holm-adjusted p at most {1 - confidence:.2g}); "
        "differences from the reference: with intervals that hold for all methods of a model and "
        "size together, for ranked methods; fit: mean accuracy on the images trained on."
        f"{about_merges}{about_underfitted}{about_rates} {capitalised_conditions}."
    )


def _csv_table(
    cells: SummaryCells, rows: Sequence[RowKey], columns: Sequence[str], differences: pd.DataFrame
) -> pd.DataFrame:
    """Numbers for summary.csv; column noto gives noto, noto_low, noto_high, noto_fit and so on."""
    lines = []
    for row in rows:
        line = [row.model, row.method, row.size]
        for column in columns:
            line += astuple(cells[*row, column])
        lines.append(line)
    numbers = [f"{column}{ending}" for column in columns for ending in CELL_ENDINGS]
    table = pd.DataFrame(lines, columns=["model", "method", "size", *numbers])
    return table.merge(differences.reset_index(), how="left", on=["model", "size", "method"])


def _difference_cell(
    row_of_ranking: Mapping[Hashable, Any] | None, method: str
) -> SummaryCell | str:
    """Difference from the reference, "reference" for itself, a dash without a rank."""
    if row_of_ranking is None:
        return NO_RANK
    if row_of_ranking["reference"] == method:
        return "reference"
    return SummaryCell(
        value=row_of_ranking["difference"],
        low=row_of_ranking["diff_low"],
        high=row_of_ranking["diff_high"],
        fit=float("nan"),
        underfitted=0,
        best=0,
    )


def _difference_header(differences: pd.DataFrame, methods: Mapping[str, str]) -> str:
    """Header such as "mRI minus Full fine-tuning"; sizes may have different references."""
    references = dict.fromkeys(differences["reference"])
    if not references:
        return "Difference"
    labels = [methods.get(name, name) for name in references]
    return f"mRI minus {' or '.join(labels)}"


def _markdown(table: pd.DataFrame, heads: int) -> str:
    """A table in Markdown; its first columns, `heads` of them, are row headings."""
    sides = ["left"] * heads + ["right"] * (table.shape[1] - heads)
    shown = _shown(table, _in_markdown, markdown)
    return shown.to_markdown(index=False, colalign=sides, disable_numparse=True) + "\n"


def _in_markdown(cell: SummaryCell) -> str:
    """`**1.2**† [0.9, 1.5]`: bold for the best, with the mark of underfitted runs."""
    value = points(cell.value).replace("-", MINUS)
    low = points(cell.low).replace("-", MINUS)
    high = points(cell.high).replace("-", MINUS)
    if cell.best:
        value = f"**{value}**"
    mark = UNDERFITTED if cell.underfitted else ""
    return f"{value}{mark} [{low}, {high}]"


def _latex(table: pd.DataFrame, heads: int, caption: str, label: str) -> str:
    """A table in LaTeX; its first columns, `heads` of them, are row headings."""

    def escape(text: str) -> str:
        """Text with LaTeX's special characters escaped."""
        return text.translate(LATEX)

    shown = _shown(table, _in_latex, escape)
    sides = "l" * heads + "r" * (table.shape[1] - heads)
    return shown.to_latex(index=False, column_format=sides, caption=caption, label=label)


def _in_latex(cell: SummaryCell) -> str:
    r"""1.23 points [0.94, 1.48], underfitted: `$+1.2^{\dag}_{[+0.9, +1.5]}$`; the best is bold."""
    value = points(cell.value)
    if cell.best:
        value = f"\\mathbf{{{value}}}"
    mark = r"^{\dag}" if cell.underfitted else ""
    return f"${value}{mark}_{{[{points(cell.low)}, {points(cell.high)}]}}$"


def _shown(
    table: pd.DataFrame, show_cell: Callable[[SummaryCell], str], escape: Callable[[str], str]
) -> pd.DataFrame:
    """A table with texts in place of cells, and escaped texts."""

    def show(content: SummaryCell | str) -> str:
        if isinstance(content, SummaryCell):
            return show_cell(content)
        return escape(content)

    return table.map(show).rename(columns=escape)
