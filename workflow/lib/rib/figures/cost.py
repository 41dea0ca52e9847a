"""Cost of one mRI and the mRI itself for each method, one row of panels per model."""

import matplotlib.pyplot as plt
import pandas as pd

from rib.figures import Drawn, Labels
from rib.figures._panels import name_rows

WIDE = 20  # ratio of largest to smallest cost above which the axis is logarithmic
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
UNITS = [("hours", 3600), ("minutes", 60), ("seconds", 1)]
BAR, DOT = "#9ecae1", "#08519c"


def draw(
    cost: pd.DataFrame, mri: pd.DataFrame, *, models: Labels, methods: Labels, confidence: float
) -> Drawn:
    """Job time for one mRI, cheapest method on top, and mRI with its confidence interval.

    Args:
        cost: columns model, method, size, device, seconds.
        mri: columns model, method, size, mri, ci_low, ci_high.
    """
    columns = ["model", "method", "size", "mri", "ci_low", "ci_high"]
    shown = cost.merge(mri[columns], on=columns[:3], validate="one_to_one").sort_values(
        "seconds", kind="stable"
    )
    drawn = [model for model in models if model in set(shown["model"])]
    count = int(shown.groupby("model").size().max()) if drawn else 1
    unit, length = next(
        (unit for unit in UNITS if shown["seconds"].max() >= 2 * unit[1]), UNITS[-1]
    )
    size = (7.2, 0.7 + max(1, len(drawn)) * (0.45 + 0.27 * count))
    figure, panels = plt.subplots(max(1, len(drawn)), 2, figsize=size, squeeze=False, sharex="col")
    for (left, right), model in zip(panels, drawn, strict=bool(drawn)):
        rows = shown[shown["model"] == model].reset_index(drop=True)
        bars = left.barh(
            rows.index,
            rows["seconds"] / length,
            0.62,
            color=BAR,
            edgecolor="#08306b",
            linewidth=0.6,
        )
        left.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=7.5)
        middle, half = (
            (rows["ci_high"] + rows["ci_low"]) / 2,
            (rows["ci_high"] - rows["ci_low"]) / 2,
        )
        right.errorbar(middle, rows.index, xerr=half, fmt="none", ecolor=DOT, elinewidth=1.2)
        right.plot(rows["mri"], rows.index, "o", color=DOT, markersize=5)
        right.axvline(0, color="#252525", linewidth=1)
        name_rows(left, [methods[method] for method in rows["method"]])
        name_rows(right, [""] * len(rows))
        left.set_title(models[model], loc="left")
    if len(shown) and shown["seconds"].max() > WIDE * shown["seconds"].min():
        panels[0, 0].set_xscale("log")
        panels[0, 0].xaxis.set_major_formatter(
            "{x:g}"
        )  # Matplotlib's own is mathtext, which is off
    panels[0, 0].margins(x=0.18)  # for the numbers
    devices = sorted(set("+".join(shown["device"].dropna()).split("+")) - {""})
    where = " and ".join(DEVICES.get(name, name) for name in devices)
    panels[-1, 0].set_xlabel(f"{where or 'job'} {unit} for one mRI", fontsize=8)
    panels[-1, 1].set_xlabel(
        f"mRI (percentage points;\n{confidence:.0%} confidence intervals)", fontsize=8
    )
    return figure, shown
