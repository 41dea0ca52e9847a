"""Cost of one mRI and the mRI itself for each method, one row of panels per model."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

WIDE = 20  # ratio of largest to smallest cost above which the axis is logarithmic
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
UNITS = [("hours", 3600), ("minutes", 60), ("seconds", 1)]
BAR, DOT = "#9ecae1", "#08519c"


def draw(
    cost: pd.DataFrame, mri: pd.DataFrame, *, models: Mapping[str, str], methods: Mapping[str, str], confidence: float
) -> tuple[Figure, pd.DataFrame]:
    """Job time for one mRI, cheapest method on top, and mRI with its confidence interval.

    Args:
        cost: columns model, method, size, device, seconds.
        mri: columns model, method, size, mri, ci_low, ci_high.
    """
    columns = ["model", "method", "size", "mri", "ci_low", "ci_high"]
    shown = cost.merge(mri[columns], on=columns[:3], validate="one_to_one").sort_values("seconds", kind="stable")
    drawn = [model for model in models if model in set(shown["model"])]
    count = int(shown.groupby("model").size().max()) if drawn else 1
    unit, length = next((unit for unit in UNITS if shown["seconds"].max() >= 2 * unit[1]), UNITS[-1])
    figure, panels = plt.subplots(
        max(1, len(drawn)),
        2,
        figsize=(7.2, 0.7 + max(1, len(drawn)) * (0.45 + 0.27 * count)),
        squeeze=False,
        sharex="col",
    )
    for (left, right), model in zip(panels, drawn, strict=bool(drawn)):
        rows = shown[shown["model"] == model].reset_index(drop=True)
        _draw_costs(left, rows, length)
        middle, half = (rows["ci_high"] + rows["ci_low"]) / 2, (rows["ci_high"] - rows["ci_low"]) / 2
        right.errorbar(middle, rows.index, xerr=half, fmt="none", ecolor=DOT, elinewidth=1.2)
        right.plot(rows["mri"], rows.index, "o", color=DOT, markersize=5)
        right.axvline(0, color="#252525", linewidth=1)
        for axes in (left, right):
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.grid(True, axis="x")
            axes.grid(False, axis="y")
        left.set_yticks(rows.index, [methods[method] for method in rows["method"]])
        right.set_yticks(rows.index, [""] * len(rows))
        left.set_title(models[model], loc="left")
    if len(shown) and shown["seconds"].max() > WIDE * shown["seconds"].min():
        panels[0, 0].set_xscale("log")
    panels[0, 0].margins(x=0.18)  # for the numbers
    where = " and ".join(DEVICES.get(name, name) for name in sorted(set("+".join(shown["device"]).split("+")) - {""}))
    panels[-1, 0].set_xlabel(f"{where or 'job'} {unit} for one mRI", fontsize=8)
    panels[-1, 1].set_xlabel(f"mRI (percentage points;\n{confidence:.0%} confidence intervals)", fontsize=8)
    return figure, shown


def _draw_costs(axes, rows: pd.DataFrame, length: float) -> None:
    values = rows["seconds"] / length
    axes.barh(rows.index, values, height=0.62, color=BAR, edgecolor="#08306b", linewidth=0.6)
    for place, value in zip(rows.index, values, strict=True):
        axes.annotate(
            f"{value:.3g}", (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5
        )
