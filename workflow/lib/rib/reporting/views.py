"""Interactive views of the page as Vega-Lite specifications: trade-off, RI and accuracies. Equal input gives equal bytes."""

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import altair as alt
import numpy as np
import pandas as pd
from pandas import DataFrame

from rib.analysis.fit import UNFINISHED
from rib.base.appearance import GAIN, INK, LOSS, MRI_LABEL, PALE, UNCHANGED
from rib.base.rounding import fit_percent, percent, points
from rib.config.run import NO_TARGET, PRETRAINED

MEAN = MRI_LABEL  # in place of a target
RUN = ["model", "method", "target"]
TIPS = [f"{column}:N" for column in RUN]
# What columns of tables name; rows of a view are sorted by the last of its columns first.
KINDS = dict.fromkeys(("target", "dataset", "first", "second"), "datasets")
KINDS |= {
    "method": "methods",
    "other": "methods",
    "reference": "methods",
    "chosen": "methods",
    "model": "models",
    "other_model": "models",
}
MOST_ROWS = 80  # of a matrix; with more it begins with one model, or one method of it
CHANGES = [LOSS, UNCHANGED, GAIN]
CELL = alt.Step(68), alt.Step(26)  # pixels


def page_views(
    mri: DataFrame, ri: DataFrame, accuracy: DataFrame, about: Mapping, colours: Mapping[str, str]
) -> dict[str, dict]:
    """Specifications by the name of the figure that each replaces on a screen.

    Args:
        mri, ri, accuracy: tables, in which seeds are averaged; a mean of several rows of RI is shown without an interval.
        about: see `rib.reporting.page.write_page`.
        colours: of methods, by name.
    """
    own = [about["shown_size"], "all"]  # the pretrained model has the latter
    mri, ri, accuracy = (
        table[table["size"].isin(own)] for table in (mri[mri["size"] == own[0]], ri, accuracy)
    )
    if mri.empty:
        return {}
    accuracy = with_intervals(accuracy, about["config"]["statistics"]["confidence"])
    means = mri.rename(columns={"mri": "ri"}).assign(target=MEAN)
    values = ["ri", "ci_low", "ci_high", "fit", "unfinished"]
    ri = ri[ri["size"] == own[0]]
    ri = ri.assign(
        **{end: ri[end].where(~ri.duplicated(RUN, keep=False)) for end in ("ci_low", "ci_high")}
    )
    changes = pd.concat([_means(ri, values), means[[*RUN, *values]]], ignore_index=True)
    return {
        "tradeoff": _tradeoff(changes, means, accuracy, about, colours),
        "ri_matrix": _ri_matrix(changes, about),
        "accuracy_matrix": _accuracy_matrix(accuracy, about),
    }


def _means(table: DataFrame, values: Sequence[str], keys: Sequence[str] = RUN) -> DataFrame:
    return table.groupby(list(keys), sort=False)[list(values)].mean().reset_index()


def with_intervals(accuracy: DataFrame, confidence: float) -> DataFrame:
    """Mean accuracies over seeds, with Wilson's interval `low`, `high` (percent) over the images of a dataset, taken as
    independent."""
    found = _means(accuracy, ["n", "accuracy"], [*RUN, "dataset"])
    z, n, p = NormalDist().inv_cdf(0.5 + confidence / 2), found["n"], found["accuracy"] / 100
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = (100 * (centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return found.assign(low=low, high=high)


def labels_of(entries: Mapping[str, Mapping]) -> dict[str, str]:
    return {name: entry["label"] for name, entry in entries.items()}


def _labelled(table: DataFrame, about: Mapping) -> DataFrame:
    """Labels in place of names, in the order of the run; the column `run` keeps the names."""
    table = table.assign(run=["/".join(names) for names in table[RUN].itertuples(index=False)])
    for column, kind in KINDS.items():
        order = {
            PRETRAINED: -1,
            **{name: place for place, name in enumerate(about[kind])},
            MEAN: len(about[kind]),
        }
        if column in table:
            table = table.sort_values(
                column, key=lambda names, order=order: names.map(order), kind="stable"
            )
            labels = labels_of(about[kind])
            table[column] = [labels.get(name, name) for name in table[column]]
    return table.reset_index(drop=True)


def _chart(table: DataFrame, **first: str | None) -> tuple[alt.Chart, list[alt.Parameter]]:
    """A chart of the rows that are chosen, with a choice for each of some columns: the first value, None for all."""
    params = []
    for column, value in first.items():
        shown = [name for name in dict.fromkeys(table[column]) if name != NO_TARGET]
        select = alt.binding_select(
            options=[None, *shown], labels=["all", *shown], name=f"{column.capitalize()} "
        )
        params.append(alt.param(name=column, value=value, bind=select))
    formats = dict.fromkeys(table.select_dtypes("number"), "number")
    data = alt.Data(
        values=table.round(3).to_csv(index=False),
        format=alt.CsvDataFormat(type="csv", parse=formats),
    )
    # The pretrained model is part of every choice of methods and targets.
    absent = {"method": PRETRAINED, "target": NO_TARGET}
    chosen = (
        f"({name} === null || indexof([{name}, '{absent.get(name)}'], datum.{name}) >= 0)"
        for name in first
    )
    return alt.Chart(data).transform_filter(" && ".join(chosen)), params


def _spec(chart: alt.TopLevelMixin, params: list[alt.Parameter], description: str) -> dict:
    wide = {"labelLimit": 260}
    looks = {"view": {"stroke": None}, "background": "transparent", "axis": wide, "legend": wide}
    made = chart.properties(description=description).configure(**looks).to_dict()
    return {**made, "params": [param.param.to_dict() for param in params] + made.get("params", [])}


def _shown(
    table: DataFrame, value: str, low: str, high: str, text_of: Callable[[float], str]
) -> list[str]:
    """Number and interval, as a hover shows them; Vega gets their text, since it would round in its own way."""
    rows = table[[value, low, high]].itertuples(index=False)
    return [text_of(a) + (f", {text_of(b)} to {text_of(c)}" if b == b else "") for a, b, c in rows]


def _tradeoff(
    changes: DataFrame, means: DataFrame, accuracy: DataFrame, about: Mapping, colours: Mapping
) -> dict:
    columns = ["on_target", "on_target_low", "on_target_high"]
    names = dict(zip(("accuracy", "low", "high"), columns, strict=True))
    runs = accuracy[accuracy["dataset"] == accuracy["target"]].rename(columns=names)
    table = changes.merge(pd.concat([part[[*RUN, *columns]] for part in (runs, means)]), on=RUN)
    origin = means.drop_duplicates("model")[["model", "on_target_before"]].set_axis(
        ["model", "on_target"], axis=1
    )
    table = pd.concat(
        [table, origin.assign(method=PRETRAINED, target=MEAN, ri=0.0, unfinished=0)],
        ignore_index=True,
    )
    table = table.assign(
        on=_shown(table, *columns, percent), change=_shown(table, "ri", "ci_low", "ci_high", points)
    )
    base, params = _chart(_labelled(table, about), model=None, method=None, target=MEAN)
    named = {about["methods"][name]["label"]: own for name, own in colours.items()} | {
        PRETRAINED: INK
    }
    scale = alt.Scale(domain=list(named), range=list(named.values())) if colours else alt.Undefined
    bottom = {"title": None, "legend": alt.Legend(orient="bottom", symbolLimit=0)}
    colour, inside = (kind("method:N", scale=scale, **bottom) for kind in (alt.Color, alt.Fill))
    x = alt.X("on_target:Q", title="accuracy on the target (%)", scale=alt.Scale(zero=False))
    y = alt.Y("ri:Q", title="mRI, or RI of the chosen target (points)")
    own = {"shape": alt.Shape("model:N", **bottom)} if table["model"].nunique() > 1 else {}
    fill = alt.condition("datum.unfinished > 0", alt.value(0), alt.value(0.85))
    tips = [
        *TIPS,
        alt.Tooltip("on:N", title="on the target (%)"),
        alt.Tooltip("change:N", title="mRI or RI"),
    ]
    bars = base.mark_rule(opacity=0.5, strokeWidth=2)
    chart = alt.layer(
        base.transform_sample(1).mark_rule(color=PALE, aria=False).encode(y=alt.datum(0)),
        bars.encode(x="on_target_low:Q", x2="on_target_high:Q", y=y, color=colour),
        bars.encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=colour),
        base.mark_point(size=110).encode(
            x=x, y=y, color=colour, fill=inside, fillOpacity=fill, tooltip=tips, **own
        ),
    )
    said = "Accuracy on the target against the change of accuracy on the other datasets, with confidence intervals."
    return _spec(chart.properties(width="container", height=340), params, said)


def _ri_matrix(changes: DataFrame, about: Mapping) -> dict:
    limit = max(1.0, changes["ri"].abs().max())
    numbers = zip(changes["ri"], changes["unfinished"], strict=True)
    marks = [f"{points(ri)}{UNFINISHED * (n > 0)}" for ri, n in numbers]
    table = changes.assign(text=marks, shown=_shown(changes, "ri", "ci_low", "ci_high", points))
    table["fitted"] = changes["fit"].map(fit_percent)
    table = _labelled(
        table.assign(dark=(~changes["ri"].between(-0.65 * limit, 0.85 * limit)).astype(int)), about
    )
    table["row"] = (
        table["method"]
        if table["model"].nunique() == 1
        else table["model"] + ", " + table["method"]
    )
    tips = [*TIPS, alt.Tooltip("shown:N", title="RI"), alt.Tooltip("fitted:N", title="fit (%)")]
    colours, first = alt.Scale(domain=[-limit, 0, limit], range=CHANGES), _first(table, "model")
    return _matrix(
        table, "ri", "target", colours, "RI (points)", tips, model=first, method=None, target=None
    )


def _accuracy_matrix(accuracy: DataFrame, about: Mapping) -> dict:
    values, shown = accuracy["accuracy"], _shown(accuracy, "accuracy", "low", "high", percent)
    table = accuracy.assign(text=values.map(percent), shown=shown, dark=(values > 70).astype(int))
    table = _labelled(table, about)
    own = [""] * len(table) if table["model"].nunique() == 1 else table["model"] + ", "
    on = [f" on {target}" * (target != NO_TARGET) for target in table["target"]]
    table["row"] = own + table["method"] + on
    tuned = table[table["target"] != NO_TARGET]
    tips = [
        *TIPS,
        "dataset:N",
        alt.Tooltip("shown:N", title="accuracy (%)"),
        alt.Tooltip("n:Q", title="images"),
    ]
    colours, first = (
        alt.Scale(domain=[0, 100], scheme="blues"),
        {name: _first(tuned, name) for name in RUN[:2]},
    )
    return _matrix(
        table, "accuracy", "dataset", colours, "accuracy (%)", tips, **first, target=None
    )


def _first(table: DataFrame, column: str) -> str | None:
    """The value of a column to begin with: None, for all, unless these are too many rows."""
    return table[column].iloc[0] if len(table[RUN].drop_duplicates()) > MOST_ROWS else None


def _matrix(
    table: DataFrame,
    value: str,
    column: str,
    colours: alt.Scale,
    title: str,
    tips: list,
    **first: str | None,
) -> dict:
    """Coloured cells with their text, a row for each `row`; `first` are the values that are chosen at first."""
    base, params = _chart(table, **first)
    order = [list(dict.fromkeys(table[name])) for name in (column, "row")]
    x = alt.X(f"{column}:N", sort=order[0], title=None, axis=alt.Axis(orient="top", labelAngle=-30))
    cells = base.encode(x=x, y=alt.Y("row:N", sort=order[1], title=None))
    legend = alt.Legend(orient="bottom", gradientLength=220)
    dark = alt.condition("datum.dark > 0", alt.value("white"), alt.value("#1c1c1c"))
    colour = alt.Color(f"{value}:Q", title=title, scale=colours, legend=legend)
    texts = cells.mark_text(fontSize=11).encode(text="text:N", color=dark, tooltip=tips)
    chart = alt.layer(cells.mark_rect(stroke="white").encode(colour, tooltip=tips), texts)
    said = f"{title} by {column}; the tables have the numbers."
    return _spec(chart.properties(width=CELL[0], height=CELL[1]), params, said)
