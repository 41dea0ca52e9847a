"""Mean OOD accuracy before and after fine-tuning, and mRI, of groups of networks.

A small dot is a network, a large marker the mean over the networks of a group with its t interval.
"""

import textwrap
from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import INK, PRETRAINED_LABEL
from rib.figures import Drawn, Labels, Styles, counted
from rib.figures._panels import method_legend

STYLE_BEFORE_FINE_TUNING = {"label": f"before ({PRETRAINED_LABEL})", "colour": INK, "marker": "*"}
STEP = 0.22  # inches from one marker of a group to the next
BETWEEN = 0.5  # inches between the markers of two groups
BESIDE_AXES = 1.0  # width of what is beside the axes, in inches
NARROWEST = 4.2  # width of the figure, in inches
LABEL_CHARACTERS = 14  # of a line of a group's label, per inch
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


def draw(
    networks: pd.DataFrame,
    network_groups: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    confidence: float,
) -> Drawn:
    """Mean OOD accuracy (percent) and mRI (percentage points), with groups side by side.

    The upper panel has the accuracy before fine-tuning and after each method, the lower one the mRI
    of each method. Groups are in the order of their pretraining images. Networks with an unfinished
    run of a method are not drawn for it.

    Args:
        networks: columns group, model, method, size, measure, value and counted, as written by
            rib.analyses.networks.tables.
        network_groups: columns group, pretraining_images, method, size, measure, networks, mean,
            over, ci_low, ci_high. A mean has several rows, which differ in the interval. The one
            whose `over` is `networks` is drawn: its interval is over the networks of the group, and
            NaN if there is one network.
        models: those with a group.
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
            points_of_method = _of(points, method, measure)
            means_of_method = _of(means, method, measure)
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


def _drawn_rows(
    networks: pd.DataFrame,
    network_groups: pd.DataFrame,
    models: Collection[str],
    methods: Collection[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of both tables of `draw` that are drawn: points of networks, and means of groups.

    Both have their number in the column `value`.
    """
    is_counted = networks["model"].isin(models) & (networks["counted"] == "yes")
    is_shown = is_counted & networks["method"].isin(methods) & networks["measure"].isin(MEASURES)
    points = networks.loc[is_shown, POINT_COLUMNS]
    is_over_networks = network_groups["over"] == "networks"
    is_shown = network_groups["method"].isin(methods) & network_groups["measure"].isin(MEASURES)
    means = network_groups[is_over_networks & is_shown]
    return points, means.rename(columns={"mean": "value"})[MEAN_COLUMNS]


def _groups_in_order(means: pd.DataFrame) -> list[str]:
    """Groups in the order of their pretraining images; those of an unknown number come last."""
    in_order = means.sort_values("pretraining_images", kind="stable")
    return list(dict.fromkeys(in_order["group"]))


def _before_fine_tuning(
    points: pd.DataFrame, means: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies before fine-tuning: points of networks, and one mean for each group.

    The tables repeat them for each method, without the networks that have an unfinished run of it.
    Of each group, the rows of the method with the most networks are taken.
    """
    all_means = means[means["measure"] == "ood_before"]
    most_networks_first = all_means.sort_values("networks", ascending=False, kind="stable")
    chosen_means = most_networks_first.drop_duplicates("group")
    all_points = points[points["measure"] == "ood_before"]
    chosen_points = all_points.merge(chosen_means[["group", "method"]], on=["group", "method"])
    return chosen_points, chosen_means


def _of(table: pd.DataFrame, method: str, measure: str) -> pd.DataFrame:
    """The rows of a method and measure."""
    return table[(table["method"] == method) & (table["measure"] == measure)]


def _shifted(
    x_of_groups: Mapping[str, float], index: int, number_of_series: int
) -> dict[str, float]:
    """Where a series is drawn in each group: series stand side by side around the group's middle.

    Args:
        index: of the series, from 0 on.
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
    """Draw the networks of a series as dots, and the means of groups with their intervals.

    Args:
        points: rows with group and value, one for each network.
        means: rows with group, value, ci_low and ci_high; an interval that is NaN is not drawn.
        x_of_groups: where each group is drawn.
        style: label, colour and marker.
    """
    colour = style["colour"]
    # Numbers also if there are no rows, which pandas maps to texts.
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
    """Name the groups below the axis, with their numbers of networks.

    Args:
        width: of a group, in inches.
    """
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
    """How many networks of a group count, which may differ between methods."""
    fewest = int(min(numbers))
    most = int(max(numbers))
    if most == 1:
        return "1 network, no interval"
    if fewest == most:
        return counted(most, "network")
    return f"{fewest} to {most} networks"
