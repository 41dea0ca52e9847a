"""Draws the figures `networks` and `method_differences`."""

import textwrap
from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import INK, PRETRAINED_LABEL
from rib.figures import Drawn, Labels, Styles, counted
from rib.figures._panels import method_legend, name_rows

STYLE_BEFORE_FINE_TUNING = {"label": f"before ({PRETRAINED_LABEL})", "colour": INK, "marker": "*"}
STEP = 0.22  # inches between neighbouring markers of a group
BETWEEN = 0.5  # inches between the markers of two groups
BESIDE_AXES = 1.0  # width outside the axes, in inches
NARROWEST = 4.2  # smallest width of the figure, in inches
LABEL_CHARACTERS = 14  # per line of a group's label and inch
MEASURES = ["mri", "ood_before", "ood_after"]
POINT_COLUMNS = ["group", "model", "method", "size", "measure", "value"]
MEAN_COLUMNS = [
    "group",
    "pretraining_images",
    "method",
    "size",
    "measure",
    "networks",
    "value",
    "ci_low",
    "ci_high",
]


def draw_networks(
    networks: pd.DataFrame,
    network_groups: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    confidence: float,
) -> Drawn:
    """Draw mean accuracy on other datasets (percent) and mRI (points), groups side by side.

    A group has networks pretrained alike but with different seeds; groups are in the order of their
    pretraining images. Above is accuracy before and after each method, below mRI. A network with an
    underfitted run of a method is left out for it.

    Args:
        networks: columns group, model, method, size, measure, value, counted.
        network_groups: columns group, pretraining_images, method, size, measure, networks, mean,
            over, ci_low, ci_high. Rows with `over` = `networks` are drawn; with one network their
            interval is NaN.
        models: labels of models with a group, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """

    points, means = _drawn_rows(networks, network_groups, list(models), list(methods))
    if means.empty:
        figure = plt.figure(figsize=(NARROWEST, 1))
        figure.text(0.5, 0.6, "no network has finished training", ha="center")
        return figure, means
    groups = _groups_in_order(means)
    number_of_series = 1 + len(methods)
    width_of_group = STEP * number_of_series + BETWEEN
    width = max(NARROWEST, BESIDE_AXES + width_of_group * len(groups))
    figure, (accuracy_axes, mri_axes) = plt.subplots(
        2, figsize=(width, 5.8), sharex=True, height_ratios=(3, 2)
    )
    x_of_groups = {group: width_of_group * i for i, group in enumerate(groups)}

    points_before, means_before = _before_fine_tuning(points, means)
    x_before = _shifted(x_of_groups, 0, number_of_series)
    _draw_series(accuracy_axes, points_before, means_before, x_before, STYLE_BEFORE_FINE_TUNING)
    for i, (method, style) in enumerate(methods.items(), start=1):
        x_of_method = _shifted(x_of_groups, i, number_of_series)
        for axes, measure in ((accuracy_axes, "ood_after"), (mri_axes, "mri")):
            points_of_method = _rows_of(points, method, measure)
            means_of_method = _rows_of(means, method, measure)
            _draw_series(axes, points_of_method, means_of_method, x_of_method, style)

    mri_axes.axhline(0, color=INK, linewidth=0.8)
    accuracy_axes.set_ylabel("Mean OOD accuracy (%)")
    mri_axes.set_ylabel("mRI (percentage points)")
    _label_groups(mri_axes, x_of_groups, means, width_of_group)
    note = (
        "Groups in the order of their pretraining images; dots: networks; markers: their mean, "
        f"with its {confidence:.0%} t interval over networks, wide where these are few"
    )
    figure.supxlabel(textwrap.fill(note, int(13 * width)), fontsize=8)
    method_legend(figure, accuracy_axes)
    return figure, pd.concat([points, means], ignore_index=True)


def draw_method_differences(
    networks: pd.DataFrame,
    method_differences: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    confidence: float,
) -> Drawn:
    """Draw each method's mRI minus the reference's, best on top; a panel for each group.

    Args:
        networks: columns group, model, method, size, measure, value, counted.
        method_differences: columns method, size, measure, group, reference, networks, mean, over,
            ci_low, ci_high. Rows of mRI with `over` = `networks` are drawn; with one network their
            interval is NaN.
        models: labels of models with a group, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """
    is_drawn = (method_differences["measure"] == "mri") & (method_differences["over"] == "networks")
    drawn = method_differences[is_drawn & method_differences["method"].isin(methods)]
    if drawn.empty:
        figure = plt.figure(figsize=(NARROWEST, 1))
        figure.text(0.5, 0.6, "no method is compared with another", ha="center")
        return figure, drawn
    drawn = drawn.sort_values("mean", ascending=False, kind="stable")
    reference = drawn["reference"].iloc[0]
    differences_of_networks = _differences_of_networks(networks, reference, list(models))
    groups = [group for group in networks["group"].unique() if group in set(drawn["group"])]
    rows_of_groups = [drawn[drawn["group"] == group] for group in groups]
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(5.8, 0.9 + sum(0.7 + 0.22 * len(rows) for rows in rows_of_groups)),
        height_ratios=[len(rows) + 0.6 for rows in rows_of_groups],
        squeeze=False,
        sharex=True,
    )
    for axes, group, rows in zip(panels[:, 0], groups, rows_of_groups, strict=True):
        points = differences_of_networks[differences_of_networks["group"] == group]
        _draw_differences(axes, rows, points, methods)
        axes.set_title(f"{group}, {_number_of_networks(rows['networks'])}", loc="left", fontsize=9)
    panels[-1, 0].set_xlabel(
        f"mRI minus that of {methods[reference]['label']} (percentage points)\n"
        f"dots: networks; markers: means; bars: {confidence:.0%} t intervals\n"
        "over networks, each by itself; filled: the interval excludes 0",
        fontsize=8,
    )
    return figure, drawn


def _differences_of_networks(
    networks: pd.DataFrame, reference: str, models: Collection[str]
) -> pd.DataFrame:
    """mRI of each method minus the reference's by network: group, model, method, difference."""
    is_shown = networks["model"].isin(models) & (networks["measure"] == "mri")
    shown = networks[is_shown & (networks["counted"] == "yes")]
    of_reference = shown.loc[shown["method"] == reference, ["model", "size", "value"]]
    pairs = shown.merge(of_reference, on=["model", "size"], suffixes=("", "_of_reference"))
    return pairs.assign(difference=pairs["value"] - pairs["value_of_reference"])


def _draw_differences(
    axes: Axes, rows: pd.DataFrame, points: pd.DataFrame, methods: Styles
) -> None:
    """Draw a group's methods, one below the other: bar, mean and a dot for each network."""
    for y, row in enumerate(rows.to_dict("records")):
        style = methods[row["method"]]
        axes.plot(
            [row["ci_low"], row["ci_high"]],
            [y, y],
            color=style["colour"],
            linewidth=2.5,
            alpha=0.6,
            solid_capstyle="butt",
        )
        is_off_zero = row["ci_low"] > 0 or row["ci_high"] < 0
        axes.plot(
            row["mean"],
            y,
            marker=style["marker"],
            markersize=6,
            markeredgecolor=INK,
            markeredgewidth=0.8,
            markerfacecolor=style["colour"] if is_off_zero else "white",
            zorder=4,
        )
        of_method = points.loc[points["method"] == row["method"], "difference"]
        axes.scatter(of_method, [y] * len(of_method), s=7, color=INK, linewidths=0, zorder=5)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    name_rows(axes, [methods[method]["label"] for method in rows["method"]])


def _drawn_rows(
    networks: pd.DataFrame,
    network_groups: pd.DataFrame,
    models: Collection[str],
    methods: Collection[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to draw: of single networks, and means of groups, with the number in column `value`."""
    is_counted = networks["model"].isin(models) & (networks["counted"] == "yes")
    is_shown = is_counted & networks["method"].isin(methods) & networks["measure"].isin(MEASURES)
    points = networks.loc[is_shown, POINT_COLUMNS]
    is_over_networks = network_groups["over"] == "networks"
    is_shown = network_groups["method"].isin(methods) & network_groups["measure"].isin(MEASURES)
    means = network_groups[is_over_networks & is_shown]
    return points, means.rename(columns={"mean": "value"})[MEAN_COLUMNS]


def _groups_in_order(means: pd.DataFrame) -> list[str]:
    """Names of groups by number of pretraining images; unknown numbers come last."""
    in_order = means.sort_values("pretraining_images", kind="stable")
    return list(dict.fromkeys(in_order["group"]))


def _before_fine_tuning(
    points: pd.DataFrame, means: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of networks and means of groups before fine-tuning, once.

    The tables repeat these accuracies for each method; the one with most networks is taken.
    """
    all_means = means[means["measure"] == "ood_before"]
    most_networks_first = all_means.sort_values("networks", ascending=False, kind="stable")
    chosen_means = most_networks_first.drop_duplicates("group")
    all_points = points[points["measure"] == "ood_before"]
    chosen_points = all_points.merge(chosen_means[["group", "method"]], on=["group", "method"])
    return chosen_points, chosen_means


def _rows_of(table: pd.DataFrame, method: str, measure: str) -> pd.DataFrame:
    """Rows of a method and measure, such as `ft` and `mri`, which are drawn in one panel."""
    return table[(table["method"] == method) & (table["measure"] == measure)]


def _shifted(
    x_of_groups: Mapping[str, float], index: int, number_of_series: int
) -> dict[str, float]:
    """x of series `index` in each group; series stand side by side around the group's middle.

    {"a": 0, "b": 2}, index 0 of 3 gives {"a": -0.22, "b": 1.78}.
    """
    shift = STEP * (index - (number_of_series - 1) / 2)
    return {group: x + shift for group, x in x_of_groups.items()}


def _draw_series(
    axes: Axes,
    points: pd.DataFrame,
    means: pd.DataFrame,
    x_of_groups: Mapping[str, float],
    style: Mapping[str, str],
) -> None:
    """Draw dots for networks, and markers with intervals for means."""
    colour = style["colour"]
    # Without rows, map() would give texts.
    x_of_points = points["group"].map(x_of_groups).astype(float)
    x_of_means = means["group"].map(x_of_groups).astype(float)
    axes.scatter(
        x_of_points + STEP / 3,
        points["value"],
        s=7,
        color=colour,
        alpha=0.55,
        linewidths=0,
        zorder=2,
    )
    heights = means["value"]
    axes.errorbar(
        x_of_means,
        heights,
        [heights - means["ci_low"], means["ci_high"] - heights],
        fmt=style["marker"],
        color=colour,
        label=style["label"],
        markersize=5,
        elinewidth=0.9,
        capsize=2,
        zorder=3,
    )


def _label_groups(
    axes: Axes, x_of_groups: Mapping[str, float], means: pd.DataFrame, width: float
) -> None:
    """Name groups `width` apart, with numbers of networks, and separate them by lines."""
    labels = []
    for group in x_of_groups:
        name = textwrap.fill(group, int(LABEL_CHARACTERS * width))
        numbers = means.loc[means["group"] == group, "networks"]
        labels.append(f"{name}\n{_number_of_networks(numbers)}")
    axes.set_xticks(list(x_of_groups.values()), labels, fontsize=8)
    middles = list(x_of_groups.values())
    axes.set_xlim(middles[0] - width / 2, middles[-1] + width / 2)
    for panel in axes.figure.axes:
        panel.tick_params(axis="x", length=0)
        for middle in middles[1:]:
            panel.axvline(middle - width / 2, color="#bdbdbd", linewidth=0.8, linestyle=":")


def _number_of_networks(numbers: pd.Series) -> str:
    """For a group's label: `3 networks`, or `2 to 3 networks` if methods differ."""
    fewest = int(min(numbers))
    most = int(max(numbers))
    if most == 1:
        return "1 network, no interval"
    if fewest == most:
        return counted(most, "network")
    return f"{fewest} to {most} networks"
