"""Draws the figure `cost`."""

from collections.abc import Collection

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from rib.base.appearance import DARK_BLUE, DARKEST_BLUE, INK, LIGHT_BLUE
from rib.figures import Drawn, Labels, ModelAndMethod, label_of_run
from rib.figures._panels import name_rows

WIDE = 20  # ratio of largest to smallest cost from which the axis is logarithmic
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
SECONDS_OF_UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}


def draw_cost(
    cost: pd.DataFrame,
    mri: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    confidence: float,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw the time of all jobs behind one mRI, cheapest method on top, beside that mRI.

    Args:
        cost: columns model, method, size, device, seconds.
        mri: columns model, method, size, mri, ci_low, ci_high.
        models, methods: labels, {"ft": "FT"}.
        underfitted: pairs to mark, {("net", "ft")}, with low accuracy on training images.
    """

    key = ["model", "method", "size"]
    with_mri = cost.merge(mri[[*key, "mri", "ci_low", "ci_high"]], on=key, validate="one_to_one")
    shown_rows = with_mri.sort_values("seconds", kind="stable")
    drawn_models = [model for model in models if model in set(shown_rows["model"])]
    rows_of_panel = int(shown_rows.groupby("model").size().max()) if drawn_models else 1
    panel_rows = max(1, len(drawn_models))
    size = (7.2, 0.7 + panel_rows * (0.45 + 0.27 * rows_of_panel))
    figure, panels = plt.subplots(panel_rows, 2, figsize=size, squeeze=False, sharex="col")
    unit = _unit(shown_rows["seconds"])
    for i, model in enumerate(drawn_models):
        cost_axes, mri_axes = panels[i]
        rows = shown_rows[shown_rows["model"] == model].reset_index(drop=True)
        _draw_cost(cost_axes, rows["seconds"] / SECONDS_OF_UNITS[unit])
        _draw_mri(mri_axes, rows)
        method_labels = [
            label_of_run(methods[method], (model, method), underfitted) for method in rows["method"]
        ]
        name_rows(cost_axes, method_labels)
        name_rows(mri_axes, [""] * len(rows))
        cost_axes.set_title(models[model], loc="left")
    _scale_cost(panels[0, 0], shown_rows["seconds"])
    devices = _device_names(shown_rows["device"])
    panels[-1, 0].set_xlabel(f"{devices} {unit} for one mRI", fontsize=8)
    panels[-1, 1].set_xlabel(
        f"mRI (percentage points;\n{confidence:.0%} confidence intervals)", fontsize=8
    )
    return figure, shown_rows


def _unit(seconds: pd.Series) -> str:
    """Unit of the axis: the largest in which the longest time is at least 2."""
    for unit, seconds_of_unit in SECONDS_OF_UNITS.items():
        if seconds.max() >= 2 * seconds_of_unit:
            return unit
    return "seconds"


def _device_names(devices: pd.Series) -> str:
    """For the axis: `CPU and GPU` for "cpu" and "cpu+cuda"; `job` if all are unknown."""
    names = set()
    for devices_of_method in devices.dropna():
        names.update(devices_of_method.split("+"))
    known_names = sorted(names - {""})
    if not known_names:
        return "job"
    return " and ".join(DEVICES.get(name, name) for name in known_names)


def _draw_cost(axes: Axes, durations: pd.Series) -> None:
    """Draw a bar and its number for each method, in the unit of the axis."""
    bars = axes.barh(
        durations.index, durations, 0.62, color=LIGHT_BLUE, edgecolor=DARKEST_BLUE, linewidth=0.6
    )
    axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=7.5)


def _draw_mri(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw mRI and its interval separately, since the interval need not contain mRI."""
    middle = (rows["ci_high"] + rows["ci_low"]) / 2
    half_width = (rows["ci_high"] - rows["ci_low"]) / 2
    axes.errorbar(middle, rows.index, xerr=half_width, fmt="none", ecolor=DARK_BLUE, elinewidth=1.2)
    axes.plot(rows["mri"], rows.index, "o", color=DARK_BLUE, markersize=5)
    axes.axvline(0, color=INK, linewidth=1)


def _scale_cost(axes: Axes, seconds: pd.Series) -> None:
    """Make the axis logarithmic if costs differ much, and wide enough for the numbers."""
    if len(seconds) and seconds.max() > WIDE * seconds.min():
        axes.set_xscale("log")
        # Matplotlib would write mathtext, which is off.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.18)
