"""Interactive views of the page as Vega-Lite specifications: trade-off, RI and accuracies.

Equal input gives equal bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import altair as alt
import numpy as np
import pandas as pd
from pandas import DataFrame

from rib.analysis.fit import UNFINISHED
from rib.base.appearance import GAIN, INK, LOSS, MRI_LABEL, PAGE_INK, PALE, UNCHANGED
from rib.base.rounding import fit_percent, percent, points
from rib.config.run import NO_TARGET, PRETRAINED
from rib.reporting.settings import GridDescription

MEAN = MRI_LABEL  # in place of a target
RUN = ["model", "method", "target"]
TIPS = [f"{column}:N" for column in RUN]
# Which entries of a grid's description the columns of tables name. Rows of a view are sorted by
# the last of its columns first.
ENTRIES_OF_COLUMN = {
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
MOST_ROWS = 80  # of a matrix; with more it begins with one model, or one method of it
CHANGES = [LOSS, UNCHANGED, GAIN]
CELL_WIDTH = alt.Step(68)  # pixels
CELL_HEIGHT = alt.Step(26)


def page_views(
    mri: DataFrame,
    ri: DataFrame,
    accuracy: DataFrame,
    about: GridDescription,
    colours: Mapping[str, str],
) -> dict[str, dict]:
    """Specifications by the name of the figure that each replaces on a screen.

    Args:
        mri: table of mRI.
        ri: table of RI by target, in which seeds are averaged; a mean of several rows is shown
            without an interval.
        accuracy: table of accuracies, in which seeds are averaged.
        about: the choices of the run.
        colours: of methods, by name.
    """
    mri = mri[mri["size"] == about.shown_size]
    if mri.empty:
        return {}
    ri = ri[ri["size"] == about.shown_size]
    # The pretrained model has the size `all`.
    accuracy = accuracy[accuracy["size"].isin([about.shown_size, "all"])]
    accuracy = with_intervals(accuracy, about.confidence)
    means = mri.rename(columns={"mri": "ri"}).assign(target=MEAN)
    is_one_of_several = ri.duplicated(RUN, keep=False)
    ri = ri.assign(
        ci_low=ri["ci_low"].where(~is_one_of_several),
        ci_high=ri["ci_high"].where(~is_one_of_several),
    )
    numbers = ["ri", "ci_low", "ci_high", "fit", "unfinished"]
    changes = pd.concat(
        [_means(ri, numbers, by=RUN), means[[*RUN, *numbers]]],
        ignore_index=True,
    )
    return {
        "tradeoff": _tradeoff(changes, means, accuracy, about, colours),
        "ri_matrix": _ri_matrix(changes, about),
        "accuracy_matrix": _accuracy_matrix(accuracy, about),
    }


def _means(table: DataFrame, numbers: Sequence[str], by: Sequence[str]) -> DataFrame:
    """Means of columns over the rows that are equal in the columns `by`."""
    return table.groupby(list(by), sort=False)[list(numbers)].mean().reset_index()


def with_intervals(accuracy: DataFrame, confidence: float) -> DataFrame:
    """Mean accuracies over seeds, with Wilson's interval `low`, `high` (percent).

    The interval is over the images of a dataset, taken as independent.
    """
    accuracy = _means(accuracy, ["n", "accuracy"], by=[*RUN, "dataset"])
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
    """Labels in place of names, in the order of the run; the column `run` keeps the names."""
    table = table.assign(run=["/".join(names) for names in table[RUN].itertuples(index=False)])
    for column, entries in ENTRIES_OF_COLUMN.items():
        if column not in table:
            continue
        labels = about.labels(entries)
        order = {PRETRAINED: -1}
        for position, name in enumerate(labels):
            order[name] = position
        order[MEAN] = len(labels)
        table = table.assign(order=table[column].map(order)).sort_values("order", kind="stable")
        table = table.drop(columns="order")
        table[column] = [labels.get(name, name) for name in table[column]]
    return table.reset_index(drop=True)


@dataclass(frozen=True)
class Choice:
    """A menu below a view that chooses its rows by a column."""

    column: str
    first: str | None = None  # the value that is chosen at first; None for all


def _chart(table: DataFrame, choices: Sequence[Choice]) -> tuple[alt.Chart, list[alt.Parameter]]:
    """A chart of the rows that are chosen, and the parameters of its menus."""
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
        # The pretrained model is part of every choice of methods and targets.
        always_shown = {"method": PRETRAINED, "target": NO_TARGET}.get(column)
        conditions.append(
            f"({column} === null || indexof([{column}, '{always_shown}'], datum.{column}) >= 0)"
        )
    number_columns = dict.fromkeys(table.select_dtypes("number"), "number")
    data = alt.Data(
        values=table.round(3).to_csv(index=False),
        format=alt.CsvDataFormat(type="csv", parse=number_columns),
    )
    return alt.Chart(data).transform_filter(" && ".join(conditions)), parameters


def _specification(
    chart: alt.TopLevelMixin, parameters: Sequence[alt.Parameter], description: str
) -> dict:
    """The Vega-Lite specification of a chart, with the parameters of its menus."""
    wide = {"labelLimit": 260}
    configured = chart.properties(description=description).configure(
        view={"stroke": None}, background="transparent", axis=wide, legend=wide
    )
    specification = configured.to_dict()
    menus = [parameter.param.to_dict() for parameter in parameters]
    return {**specification, "params": menus + specification.get("params", [])}


def _numbers_with_intervals(
    table: DataFrame, columns: Sequence[str], write: Callable[[float], str]
) -> list[str]:
    """Number and interval of each row, as a hover shows them.

    Vega gets their text, since it would round in its own way.

    Args:
        table: rows of a view.
        columns: those of the number, and of the lower and the upper end; an end may be NaN.
        write: text of a number.
    """
    texts = []
    for number, low, high in table[list(columns)].itertuples(index=False):
        text = write(number)
        if low == low:  # not NaN
            text += f", {write(low)} to {write(high)}"
        texts.append(text)
    return texts


def _tradeoff(
    changes: DataFrame,
    means: DataFrame,
    accuracy: DataFrame,
    about: GridDescription,
    colours: Mapping[str, str],
) -> dict:
    """Accuracy on the target against the change on other datasets, with a point for each run."""
    table = _tradeoff_table(changes, means, accuracy)
    choices = [Choice("model"), Choice("method"), Choice("target", first=MEAN)]
    base, parameters = _chart(_labelled(table, about), choices)
    scale = alt.Undefined
    if colours:
        colour_of_label = {about.methods[name].label: colours[name] for name in colours}
        colour_of_label[PRETRAINED] = INK
        scale = alt.Scale(domain=list(colour_of_label), range=list(colour_of_label.values()))
    at_bottom = {"title": None, "legend": alt.Legend(orient="bottom", symbolLimit=0)}
    colour = alt.Color("method:N", scale=scale, **at_bottom)
    fill = alt.Fill("method:N", scale=scale, **at_bottom)
    x = alt.X("on_target:Q", title="accuracy on the target (%)", scale=alt.Scale(zero=False))
    y = alt.Y("ri:Q", title="mRI, or RI of the chosen target (points)")
    is_filled = alt.condition("datum.unfinished > 0", alt.value(0), alt.value(0.85))
    tips = [
        *TIPS,
        alt.Tooltip("on:N", title="on the target (%)"),
        alt.Tooltip("change:N", title="mRI or RI"),
    ]
    channels = {
        "x": x,
        "y": y,
        "color": colour,
        "fill": fill,
        "fillOpacity": is_filled,
        "tooltip": tips,
    }
    if table["model"].nunique() > 1:
        channels["shape"] = alt.Shape("model:N", **at_bottom)
    zero_line = base.transform_sample(1).mark_rule(color=PALE, aria=False)
    bars = base.mark_rule(opacity=0.5, strokeWidth=2)
    chart = alt.layer(
        zero_line.encode(y=alt.datum(0)),
        bars.encode(x="on_target_low:Q", x2="on_target_high:Q", y=y, color=colour),
        bars.encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=colour),
        base.mark_point(size=110).encode(**channels),
    )
    description = (
        "Accuracy on the target against the change of accuracy on the other datasets, "
        "with confidence intervals."
    )
    sized = chart.properties(width="container", height=340)
    return _specification(sized, parameters, description)


def _tradeoff_table(changes: DataFrame, means: DataFrame, accuracy: DataFrame) -> DataFrame:
    """Rows of the trade-off: of each run, of each mean over targets, and of pretrained models."""
    on_target = ["on_target", "on_target_low", "on_target_high"]
    of_runs = accuracy[accuracy["dataset"] == accuracy["target"]].rename(
        columns={
            "accuracy": "on_target",
            "low": "on_target_low",
            "high": "on_target_high",
        }
    )
    accuracies = pd.concat([of_runs[[*RUN, *on_target]], means[[*RUN, *on_target]]])
    table = changes.merge(accuracies, on=RUN)
    pretrained = means.drop_duplicates("model")[["model", "on_target_before"]]
    pretrained = pretrained.set_axis(["model", "on_target"], axis=1)
    pretrained = pretrained.assign(method=PRETRAINED, target=MEAN, ri=0.0, unfinished=0)
    table = pd.concat([table, pretrained], ignore_index=True)
    return table.assign(
        on=_numbers_with_intervals(table, on_target, percent),
        change=_numbers_with_intervals(table, ["ri", "ci_low", "ci_high"], points),
    )


@dataclass(frozen=True)
class Matrix:
    """How a matrix of coloured cells is drawn; its rows are those of a table's column `row`."""

    value: str  # column of the number that a cell's colour shows
    column: str  # that of the table which the matrix has its columns from
    title: str  # of the colours
    colours: alt.Scale
    tips: list  # what a hover shows


def _ri_matrix(changes: DataFrame, about: GridDescription) -> dict:
    """RI by method and target, and mRI."""
    limit = max(1.0, changes["ri"].abs().max())
    texts = []
    for ri, unfinished in zip(changes["ri"], changes["unfinished"], strict=True):
        texts.append(f"{points(ri)}{UNFINISHED}" if unfinished > 0 else points(ri))
    is_on_light_colour = changes["ri"].between(-0.65 * limit, 0.85 * limit)
    table = changes.assign(
        text=texts,
        shown=_numbers_with_intervals(changes, ["ri", "ci_low", "ci_high"], points),
        fitted=changes["fit"].map(fit_percent),
        dark=(~is_on_light_colour).astype(int),
    )
    table = _labelled(table, about)
    table["row"] = _model_prefixes(table) + table["method"]
    matrix = Matrix(
        value="ri",
        column="target",
        title="RI (points)",
        colours=alt.Scale(domain=[-limit, 0, limit], range=CHANGES),
        tips=[
            *TIPS,
            alt.Tooltip("shown:N", title="RI"),
            alt.Tooltip("fitted:N", title="fit (%)"),
        ],
    )
    first_model = _first(table, "model")
    choices = [Choice("model", first_model), Choice("method"), Choice("target")]
    return _matrix_view(table, matrix, choices)


def _accuracy_matrix(accuracy: DataFrame, about: GridDescription) -> dict:
    """Accuracy by run and dataset."""
    table = accuracy.assign(
        text=accuracy["accuracy"].map(percent),
        shown=_numbers_with_intervals(accuracy, ["accuracy", "low", "high"], percent),
        dark=(accuracy["accuracy"] > 70).astype(int),
    )
    table = _labelled(table, about)
    on_target = [f" on {target}" if target != NO_TARGET else "" for target in table["target"]]
    table["row"] = _model_prefixes(table) + table["method"] + on_target
    matrix = Matrix(
        value="accuracy",
        column="dataset",
        title="accuracy (%)",
        colours=alt.Scale(domain=[0, 100], scheme="blues"),
        tips=[
            *TIPS,
            "dataset:N",
            alt.Tooltip("shown:N", title="accuracy (%)"),
            alt.Tooltip("n:Q", title="images"),
        ],
    )
    tuned = table[table["target"] != NO_TARGET]
    choices = [
        Choice("model", _first(tuned, "model")),
        Choice("method", _first(tuned, "method")),
        Choice("target"),
    ]
    return _matrix_view(table, matrix, choices)


def _model_prefixes(table: DataFrame) -> pd.Series:
    """Text with which the name of each row begins: its model and a comma.

    It is empty if the table has only one model.
    """
    if table["model"].nunique() == 1:
        return pd.Series("", index=table.index)
    return table["model"] + ", "


def _first(table: DataFrame, column: str) -> str | None:
    """The value of a column to begin with: None, for all, unless these are too many rows."""
    if len(table[RUN].drop_duplicates()) > MOST_ROWS:
        return table[column].iloc[0]
    return None


def _matrix_view(table: DataFrame, matrix: Matrix, choices: Sequence[Choice]) -> dict:
    """Coloured cells with their text."""
    base, parameters = _chart(table, choices)
    order_of_columns = list(dict.fromkeys(table[matrix.column]))
    order_of_rows = list(dict.fromkeys(table["row"]))
    axis = alt.Axis(orient="top", labelAngle=-30)
    cells = base.encode(
        x=alt.X(f"{matrix.column}:N", sort=order_of_columns, title=None, axis=axis),
        y=alt.Y("row:N", sort=order_of_rows, title=None),
    )
    colour = alt.Color(
        f"{matrix.value}:Q",
        title=matrix.title,
        scale=matrix.colours,
        legend=alt.Legend(orient="bottom", gradientLength=220),
    )
    text_colour = alt.condition("datum.dark > 0", alt.value("white"), alt.value(PAGE_INK))
    texts = cells.mark_text(fontSize=11).encode(
        text="text:N", color=text_colour, tooltip=matrix.tips
    )
    rectangles = cells.mark_rect(stroke="white").encode(colour, tooltip=matrix.tips)
    chart = alt.layer(rectangles, texts).properties(width=CELL_WIDTH, height=CELL_HEIGHT)
    description = f"{matrix.title} by {matrix.column}; the tables have the numbers."
    return _specification(chart, parameters, description)
