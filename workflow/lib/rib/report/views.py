"""Interactive views of the page as Vega-Lite specifications: trade-off, RI and accuracies.

Equal input gives equal bytes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from altair.utils.schemapi import UndefinedType
from pandas import DataFrame

from rib.base.appearance import GAIN, INK, LOSS, MRI_LABEL, PAGE_INK, PALE, SHARED, UNCHANGED
from rib.base.rounding import fit_percent, percent, points
from rib.report.report_settings import Entries, GridDescription, Look
from rib.schema.run import NO_TARGET, PRETRAINED
from rib.statistics.fit import UNDERFITTED

MEAN = MRI_LABEL  # stands in the column of targets
RUN_WITHOUT_SEED = ["model", "method", "target"]
TIPS = [f"{column}:N" for column in RUN_WITHOUT_SEED]
# Kind of names in each column of tables. Views are sorted by the last column first.
ENTRIES_OF_COLUMN: dict[str, Entries] = {
    "target": "datasets",
    "dataset": "datasets",
    "first": "datasets",
    "second": "datasets",
    "method": "methods",
    "other": "methods",
    "reference": "methods",
    "chosen": "methods",
    "model": "models",
    "other_model": "models",
}
MOST_ROWS = 30  # of a matrix; a larger one first shows one model and, if necessary, one method
CHANGES = [LOSS, UNCHANGED, GAIN]
# Vega's shapes for Matplotlib's markers; others are circles.
SHAPES = {
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "d": "diamond",
    "P": "cross",
    "X": "M-.5,-.5L.5,.5M-.5,.5L.5,-.5",
    "*": "M0,-.6L.18,-.19L.6,-.19L.26,.08L.38,.5L0,.24L-.38,.5L-.26,.08L-.6,-.19L-.18,-.19Z",
}
# In pixels. A script widens panels and cells on a wide page.
CELL_WIDTH = 60
CELL_HEIGHT = 34
WIDTH_OF_INTERVAL = 88  # for cells with an interval
SMALL_FONT_SIZE = 10
SMALL_LINE_HEIGHT = 13
CHARACTER_WIDTH = 7.5  # at most, of labels
MEAN_CHARACTER_WIDTH = 5.5
SLANT = 30  # of column names, in degrees
LONGEST_LABEL = 340
PANEL_HEIGHT = 340
PANEL_WIDTH = 340  # if the page sets none
FONT_SIZE = 12
LINE_HEIGHT = 14


def page_views(
    mri: DataFrame,
    ri: DataFrame,
    accuracy: DataFrame,
    about: GridDescription,
    looks: Mapping[str, Look],
    in_distribution: DataFrame | None = None,
) -> dict[str, dict[str, Any]]:
    """Vega-Lite specifications of interactive charts, by the figure that each replaces.

    Args:
        mri: columns model, method, size, mri, ci_low, ci_high, fit, underfitted (number of runs),
            on_target, on_target_low, on_target_high, on_target_before.
        ri: columns model, method, target, size, ri, ci_low, ci_high, fit, underfitted. Several
            rows, of different seeds, are averaged and shown without interval.
        accuracy: columns model, method, target, size, dataset, n (images), accuracy (percent).
        about: the run's choices.
        looks: of methods: {"ft": Look(colour="#ff0000", marker="o")}.
        in_distribution: columns model, method, size, change (of accuracy), ci_low, ci_high; None
            without datasets in distribution.
    """
    mri = mri[mri["size"] == about.shown_size]
    if mri.empty:
        return {}
    ri = ri[ri["size"] == about.shown_size]
    # Pretrained models have size `all`.
    accuracy = accuracy[accuracy["size"].isin([about.shown_size, "all"])]
    accuracy = with_intervals(accuracy, about.confidence)
    means = mri.rename(columns={"mri": "ri"}).assign(target=MEAN)
    changes = _changes(ri, means)
    points_of_runs = _tradeoff_table(changes, means, accuracy)
    if in_distribution is not None:
        in_distribution = in_distribution[in_distribution["size"] == about.shown_size]
        points_of_runs = _with_changes_in_distribution(points_of_runs, in_distribution)
    return {
        "tradeoff": _tradeoff(points_of_runs, about, looks),
        "ri_matrix": _ri_matrix(changes, about),
        "accuracy_matrix": _accuracy_matrix(accuracy, about),
    }


def _changes(ri: DataFrame, means: DataFrame) -> DataFrame:
    """RI by model, method and target, mean over seeds, then rows of mRI with target `MEAN`.

    Columns: model, method, target, ri, ci_low, ci_high, fit, underfitted.
    """
    # A mean of several seeds gets no interval: averaged ends would not be one.
    is_one_of_several = ri.duplicated(RUN_WITHOUT_SEED, keep=False)
    ri = ri.assign(
        ci_low=ri["ci_low"].where(~is_one_of_several),
        ci_high=ri["ci_high"].where(~is_one_of_several),
    )
    numbers = ["ri", "ci_low", "ci_high", "fit", "underfitted"]
    changes_by_target = _means(ri, numbers, by=RUN_WITHOUT_SEED)
    return pd.concat([changes_by_target, means[[*RUN_WITHOUT_SEED, *numbers]]], ignore_index=True)


def _means(table: DataFrame, numbers: Sequence[str], by: Sequence[str]) -> DataFrame:
    """Means of the columns `numbers`, a row for each combination of `by`."""
    return table.groupby(list(by), sort=False)[list(numbers)].mean().reset_index()


def with_intervals(accuracy: DataFrame, confidence: float) -> DataFrame:
    """Mean accuracies over seeds, with Wilson's interval `low`, `high` (percent).

    The interval is over the images of a dataset, taken as independent.

    Args:
        accuracy: columns model, method, target, dataset, n (images), accuracy (percent); a row per
            run and dataset.
        confidence: coverage of the interval, 0 to 1.
    """
    accuracy = _means(accuracy, ["n", "accuracy"], by=[*RUN_WITHOUT_SEED, "dataset"])
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    n = accuracy["n"]
    p = accuracy["accuracy"] / 100
    centre = p + z * z / (2 * n)
    half_width = z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    return accuracy.assign(
        low=100 * (centre - half_width) / scale,
        high=100 * (centre + half_width) / scale,
    )


def _labelled(table: DataFrame, about: GridDescription) -> DataFrame:
    """The table with labels in place of names (`Noto` in column target), in the page's order.

    A new column `run` keeps the names, such as `net/wise_ft/noto`.
    """
    runs = table[RUN_WITHOUT_SEED].itertuples(index=False)
    table = table.assign(run=["/".join(names) for names in runs])
    for column, entries in ENTRIES_OF_COLUMN.items():
        if column not in table:
            continue
        labels = about.labels(entries)
        # Pretrained models come first, means over targets last.
        order = {PRETRAINED: -1}
        for position, name in enumerate(labels):
            order[name] = position
        order[MEAN] = len(labels)
        # A stable sort keeps the order of the previous columns among equal names.
        table = table.assign(order=table[column].map(order)).sort_values("order", kind="stable")
        table = table.drop(columns="order")
        table[column] = [labels.get(name, name) for name in table[column]]
    return table.reset_index(drop=True)


@dataclass(frozen=True)
class Menu:
    """A menu below a view that filters its rows by a column."""

    column: str
    first: str | None = None  # initial value; None for all


def _chart(table: DataFrame, choices: Sequence[Menu]) -> tuple[alt.Chart, list[alt.Parameter]]:
    """A chart of the rows that pass all menus, to which marks are added; menus as parameters."""
    parameters = []
    conditions = []
    for choice in choices:
        column = choice.column
        options = [name for name in dict.fromkeys(table[column]) if name != NO_TARGET]
        menu = alt.binding_select(
            options=[None, *options],
            labels=["all", *options],
            name=f"{column.capitalize()} ",
        )
        parameters.append(alt.param(name=column, value=choice.first, bind=menu))
        # The pretrained model passes every choice of methods and targets.
        always_shown = {"method": PRETRAINED, "target": NO_TARGET}.get(column)
        # In Vega's language: nothing is chosen, the row has the chosen name, or it is always shown.
        conditions.append(
            f"({column} === null || indexof([{column}, '{always_shown}'], datum.{column}) >= 0)"
        )
    number_columns = {str(column): "number" for column in table.select_dtypes("number")}
    data = alt.Data(
        values=table.round(3).to_csv(index=False),
        format=alt.CsvDataFormat(type="csv", parse=number_columns),
    )
    return alt.Chart(data).transform_filter(" && ".join(conditions)), parameters


def _specification(
    chart: alt.TopLevelMixin, parameters: Sequence[alt.Parameter], description: str
) -> dict[str, Any]:
    """The chart as a Vega-Lite specification, with its menus and a text for screen readers."""
    text = {"labelLimit": LONGEST_LABEL, "labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE}
    configured = chart.properties(description=description).configure(
        view={"stroke": None}, background="transparent", axis=text, legend=text
    )
    specification: dict[str, Any] = configured.to_dict()
    menus = []
    for parameter in parameters:
        assert not isinstance(parameter.param, UndefinedType)  # `alt.param` always sets it
        menus.append(parameter.param.to_dict())
    return {**specification, "params": menus + specification.get("params", [])}


def _numbers_with_intervals(
    table: DataFrame, columns: Sequence[str], write: Callable[[float], str]
) -> list[str]:
    """`+1.2, +0.3 to +2.1` for a hover, from three columns; Vega would round differently."""
    number_column, *ends = columns
    texts = []
    for number, interval in zip(table[number_column], _intervals(table, ends, write), strict=True):
        text = write(number)
        if interval:
            text += f", {interval}"
        texts.append(text)
    return texts


def _intervals(table: DataFrame, ends: Sequence[str], write: Callable[[float], str]) -> list[str]:
    """["+0.3 to +2.1", ""] for rows, the second with NaN ends; `write` gives a number's text."""
    texts = []
    for low, high in table[list(ends)].itertuples(index=False):
        texts.append("" if math.isnan(low) else f"{write(low)} to {write(high)}")
    return texts


@dataclass(frozen=True)
class Panel:
    """A panel of the trade-off: the quantity plotted against accuracy on the target."""

    column: str  # of the vertical axis
    ends: Sequence[str]  # columns of its interval
    title: str


MRI_PANEL = Panel("ri", ("ci_low", "ci_high"), "mRI, or RI of the chosen target (points)")
IN_DISTRIBUTION_PANEL = Panel(
    "inside",
    ("inside_low", "inside_high"),
    "change in distribution, mean over targets (points)",
)


def _tradeoff(
    table: DataFrame, about: GridDescription, looks: Mapping[str, Look]
) -> dict[str, Any]:
    """Vega-Lite specification: accuracy on the target against mRI or RI (change of accuracy).

    If `table` has it, a second panel shows the change in distribution.
    """
    labelled = _labelled(table, about)
    first_model = labelled["model"].iloc[0] if labelled["model"].nunique() > 1 else None
    choices = [Menu("model", first_model), Menu("method"), Menu("target", first=MEAN)]
    base, parameters = _chart(labelled, choices)
    channels = _channels_of_points(table, about, looks)
    x = alt.X(
        "on_target:Q",
        title=f"{about.accuracy_on_target} (%)",
        scale=alt.Scale(zero=False),
    )
    chart = _tradeoff_panel(base, x, MRI_PANEL, channels)
    description = (
        "Accuracy on the target against the change of accuracy on the other datasets, "
        "with confidence intervals."
    )
    if IN_DISTRIBUTION_PANEL.column not in table:
        sized = chart.properties(width="container", height=PANEL_HEIGHT)
        return _specification(sized, parameters, description)
    panels = [
        panel.properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
        for panel in (chart, _tradeoff_panel(base, x, IN_DISTRIBUTION_PANEL, channels))
    ]
    description += " Beside it: accuracy on the target against the change in distribution."
    return _specification(alt.concat(*panels, columns=2), parameters, description)


def _channels_of_points(
    table: DataFrame, about: GridDescription, looks: Mapping[str, Look]
) -> dict[str, Any]:
    """Arguments of `encode` for points: {"color": ..., "shape": ..., "tooltip": ...}.

    Colour and shape are by method, hollow if underfitted; a hover shows the numbers. The chart's
    data need the columns model, method, target (as labels), underfitted, on and change.

    Args:
        table: data of the chart, perhaps with names; a column inside requires change_inside.
        looks: {"ft": Look(colour="#ff0000", marker="o")}; if empty, Vega chooses.
    """
    colour_scale: alt.Scale | UndefinedType = alt.Undefined
    shape_scale: alt.Scale | UndefinedType = alt.Undefined
    if looks:
        methods = [about.methods[name].label for name in looks]
        colours = [look.colour for look in looks.values()]
        shapes = [SHAPES.get(look.marker, "circle") for look in looks.values()]
        colour_scale = alt.Scale(domain=[*methods, PRETRAINED], range=[*colours, INK])
        shape_scale = alt.Scale(domain=[*methods, PRETRAINED], range=[*shapes, "circle"])
    legend = alt.Legend(orient="bottom", symbolLimit=0)
    tips = [
        *TIPS,
        alt.Tooltip("on:N", title="on the target (%)"),
        alt.Tooltip("change:N", title="mRI or RI"),
    ]
    if IN_DISTRIBUTION_PANEL.column in table:
        tips.append(alt.Tooltip("change_inside:N", title="in distribution"))
    return {
        "color": alt.Color("method:N", scale=colour_scale, title=None, legend=legend),
        "fill": alt.Fill("method:N", scale=colour_scale, title=None, legend=legend),
        "shape": alt.Shape("method:N", scale=shape_scale, title=None, legend=legend),
        "fillOpacity": alt.condition("datum.underfitted > 0", alt.value(0), alt.value(0.85)),
        "tooltip": tips,
    }


def _tradeoff_panel(
    base: alt.Chart, x: alt.X, panel: Panel, channels: Mapping[str, Any]
) -> alt.LayerChart | alt.FacetChart:
    """A panel's points with intervals of both numbers, and a line at 0."""
    y = alt.Y(f"{panel.column}:Q", title=panel.title)
    low, high = panel.ends
    zero_line = base.transform_sample(1).mark_rule(color=PALE, aria=False)
    bars = base.mark_rule(opacity=0.5, strokeWidth=2)
    colour = channels["color"]
    return alt.layer(
        zero_line.encode(y=alt.datum(0)),
        bars.encode(x="on_target_low:Q", x2="on_target_high:Q", y=y, color=colour),
        bars.encode(x=x, y=f"{low}:Q", y2=f"{high}:Q", color=colour),
        base.mark_point(size=110).encode(x=x, y=y, **channels),
    )


def _tradeoff_table(changes: DataFrame, means: DataFrame, accuracy: DataFrame) -> DataFrame:
    """The points of the trade-off: RI, mRI and pretrained models, with accuracy on the target.

    `changes` are from `_changes`, `accuracy` from `with_intervals`; `means` are rows of mRI with
    accuracies on the target. The result has the columns of `changes`, on_target with on_target_low
    and on_target_high, and the texts `on` and `change` for a hover.
    """
    on_target = ["on_target", "on_target_low", "on_target_high"]
    accuracy_on_target = accuracy[accuracy["dataset"] == accuracy["target"]].rename(
        columns={
            "accuracy": "on_target",
            "low": "on_target_low",
            "high": "on_target_high",
        }
    )
    columns = [*RUN_WITHOUT_SEED, *on_target]
    accuracies = pd.concat([accuracy_on_target[columns], means[columns]])
    table = changes.merge(accuracies, on=RUN_WITHOUT_SEED)
    pretrained = means.drop_duplicates("model")[["model", "on_target_before"]]
    pretrained = pretrained.set_axis(["model", "on_target"], axis=1)
    pretrained = pretrained.assign(method=PRETRAINED, target=MEAN, ri=0.0, underfitted=0)
    table = pd.concat([table, pretrained], ignore_index=True)
    return table.assign(
        on=_numbers_with_intervals(table, on_target, percent),
        change=_numbers_with_intervals(table, ["ri", "ci_low", "ci_high"], points),
    )


def _with_changes_in_distribution(table: DataFrame, in_distribution: DataFrame) -> DataFrame:
    """The points with the change in distribution: inside, inside_low, inside_high.

    Only means over targets have this change; it is 0 for pretrained models. `in_distribution` has
    the columns model, method, change, ci_low and ci_high, and one row per model and method.
    """
    columns = ["inside", "inside_low", "inside_high"]
    changes = in_distribution[["model", "method", "change", "ci_low", "ci_high"]]
    changes = changes.set_axis(["model", "method", *columns], axis=1).assign(target=MEAN)
    table = table.merge(changes, on=RUN_WITHOUT_SEED, how="left")
    table.loc[table["method"] == PRETRAINED, "inside"] = 0.0
    return table.assign(change_inside=_numbers_with_intervals(table, columns, points))


@dataclass(frozen=True)
class Matrix:
    """A matrix of coloured cells; rows come from the table's column `row`."""

    value: str  # column of the number behind the colour
    column: str  # the table's column with names of the matrix's columns
    title: str  # of the colour legend
    marks: str  # title above the columns, which explains the marks in cells
    colours: alt.Scale
    tips: Sequence[str | alt.Tooltip]  # content of a hover
    small_lines: Sequence[str] = ()  # columns for small lines below a cell's text
    cell_width: int = CELL_WIDTH


def _ri_matrix(changes: DataFrame, about: GridDescription) -> dict[str, Any]:
    """Vega-Lite specification of RI by method (rows) and target (columns), with mRI.

    Cells also have interval and fit (accuracy on training images), as in the figure.
    """
    limit = max(1.0, changes["ri"].abs().max())
    texts = []
    for cell in changes.to_dict("records"):
        text = points(cell["ri"])
        if cell["target"] in about.sharing_targets:
            text += SHARED
        if cell["underfitted"] > 0:
            text += UNDERFITTED
        texts.append(text)
    intervals = _intervals(changes, ["ci_low", "ci_high"], points)
    fits = changes["fit"].map(fit_percent)
    is_on_light_colour = changes["ri"].between(-0.65 * limit, 0.85 * limit)
    table = changes.assign(
        text=texts,
        interval=intervals,
        fitted=fits,
        fit_line=[f"fit {fit}" if fit else "" for fit in fits],
        shown=_numbers_with_intervals(changes, ["ri", "ci_low", "ci_high"], points),
        dark=(~is_on_light_colour).astype(int),
    )
    table = _labelled(table, about)
    table["row"] = table["method"] + _model_lines(table)
    marks = "target that was fine-tuned on"
    if about.sharing_targets:
        marks += f" ({SHARED} other datasets share its source images)"
    matrix = Matrix(
        value="ri",
        column="target",
        title="RI (points)",
        marks=marks,
        colours=alt.Scale(domain=[-limit, 0, limit], range=CHANGES),
        tips=[
            *TIPS,
            alt.Tooltip("shown:N", title="RI"),
            alt.Tooltip("fitted:N", title="fit (%)"),
        ],
        small_lines=["interval", "fit_line"],
        cell_width=WIDTH_OF_INTERVAL,
    )
    choices = [Menu("model", _first(table, "model")), Menu("method"), Menu("target")]
    return _matrix_view(table, matrix, choices)


def _accuracy_matrix(accuracy: DataFrame, about: GridDescription) -> dict[str, Any]:
    """Vega-Lite specification of accuracy by run (rows) and dataset (columns).

    The target's cell is outlined, and cells with shared source images are marked.
    """
    texts = []
    has_shared = False
    for cell in accuracy.to_dict("records"):
        text = percent(cell["accuracy"])
        group = about.source_groups.get(cell["target"])
        shares_group = group is not None and group == about.source_groups.get(cell["dataset"])
        if shares_group and cell["target"] != cell["dataset"]:
            text += SHARED
            has_shared = True
        texts.append(text)
    marks = f"evaluated on (outlined: {about.accuracy_on_target}"
    if has_shared:
        marks += f"; {SHARED} shares its source images"
    table = accuracy.assign(
        text=texts,
        own=(accuracy["target"] == accuracy["dataset"]).astype(int),
        shown=_numbers_with_intervals(accuracy, ["accuracy", "low", "high"], percent),
        dark=(accuracy["accuracy"] > 70).astype(int),
    )
    table = _labelled(table, about)
    on_target = [f" on {target}" if target != NO_TARGET else "" for target in table["target"]]
    table["row"] = table["method"] + on_target + _model_lines(table)
    matrix = Matrix(
        value="accuracy",
        column="dataset",
        title="accuracy (%)",
        marks=f"{marks})",
        colours=alt.Scale(domain=[0, 100], scheme="blues"),
        tips=[
            *TIPS,
            "dataset:N",
            alt.Tooltip("shown:N", title="accuracy (%)"),
            alt.Tooltip("n:Q", title="images"),
        ],
    )
    # Initially the view shows model and method of the first fine-tuned run.
    fine_tuned = table[table["target"] != NO_TARGET]
    first_model = _first(fine_tuned, "model")
    of_first_model = fine_tuned
    if first_model is not None:
        of_first_model = fine_tuned[fine_tuned["model"] == first_model]
    choices = [
        Menu("model", first_model),
        Menu("method", _first(of_first_model, "method")),
        Menu("target"),
    ]
    return _matrix_view(table, matrix, choices)


def _model_lines(table: DataFrame) -> pd.Series:
    """Second line of row names: a line break and the model; empty with only one model."""
    if table["model"].nunique() == 1:
        return pd.Series("", index=table.index)
    return "\n" + table["model"]


def _first(table: DataFrame, column: str) -> str | None:
    """Name that a menu shows first; None (all) unless the matrix would have too many rows."""
    if table["row"].nunique() <= MOST_ROWS:
        return None
    first_name: str = table[column].iloc[0]
    return first_name


def _matrix_view(table: DataFrame, matrix: Matrix, choices: Sequence[Menu]) -> dict[str, Any]:
    """Vega-Lite specification of a matrix with menus.

    `table` has a line per cell: row, column, text, dark (0 or 1) and perhaps own (outlined).
    """
    base, parameters = _chart(table, choices)
    order_of_columns = list(dict.fromkeys(table[matrix.column]))
    order_of_rows = list(dict.fromkeys(table["row"]))
    axis = alt.Axis(orient="top", labelAngle=-SLANT, titleAnchor="end", titleAlign="right")
    has_two_lines = any("\n" in name for name in order_of_rows)
    lines_of_name = alt.Axis(
        labelExpr=r"split(datum.label, '\n')",
        labelLineHeight=LINE_HEIGHT,
        labelOffset=-LINE_HEIGHT / 2 if has_two_lines else 0,  # centres the first line
    )
    cells = base.encode(
        x=alt.X(f"{matrix.column}:N", sort=order_of_columns, title=matrix.marks, axis=axis),
        y=alt.Y("row:N", sort=order_of_rows, title=None, axis=lines_of_name),
    )
    colour = alt.Color(
        f"{matrix.value}:Q",
        title=matrix.title,
        scale=matrix.colours,
        legend=alt.Legend(orient="bottom"),
    )
    tips = list(matrix.tips)
    text_colour = alt.condition("datum.dark > 0", alt.value("white"), alt.value(PAGE_INK))
    height_of_small_lines = SMALL_LINE_HEIGHT * len(matrix.small_lines)
    middle_of_text = -height_of_small_lines / 2
    layers = [
        cells.mark_rect(stroke="white").encode(colour, tooltip=tips),
        cells.mark_text(fontSize=FONT_SIZE + 1, dy=middle_of_text).encode(
            text="text:N", color=text_colour, tooltip=tips
        ),
    ]
    for number, column in enumerate(matrix.small_lines, start=1):
        middle_of_line = middle_of_text + 2 + SMALL_LINE_HEIGHT * number
        small_text = cells.mark_text(fontSize=SMALL_FONT_SIZE, dy=middle_of_line)
        shown_text = small_text.encode(text=f"{column}:N", color=text_colour, tooltip=tips)
        layers.append(shown_text.properties(name=f"small_{number}"))  # hidden on a narrow screen
    if "own" in table:
        outlined = cells.transform_filter("datum.own > 0")
        layers.append(outlined.mark_rect(filled=False, stroke=INK, strokeWidth=2))
    longest_line = 0  # of row names, in characters
    for name in order_of_rows:
        for line in name.split("\n"):
            longest_line = max(longest_line, len(line))
    labels_width = min(LONGEST_LABEL, CHARACTER_WIDTH * longest_line)
    # Names of columns are slanted, so the last one reaches beyond its column.
    length_of_last = MEAN_CHARACTER_WIDTH * len(order_of_columns[-1])
    last_column_width = length_of_last * math.cos(math.radians(SLANT))
    chart = alt.layer(*layers).properties(
        width=alt.Step(matrix.cell_width),
        height=alt.Step(CELL_HEIGHT + height_of_small_lines),
        usermeta={
            "labels_width": labels_width,
            "last_column_width": round(last_column_width),
            "columns": len(order_of_columns),
        },
    )
    description = f"{matrix.title} by {matrix.column}; the tables have the numbers."
    return _specification(chart, parameters, description)
