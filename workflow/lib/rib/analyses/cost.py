"""Cost of one mRI of each method, from the records of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.base.appearance import DARK_BLUE, DARKEST_BLUE, INK, LIGHT_BLUE
from rib.config.analysis import Analysis, Column, Figure, Table
from rib.config.run import PRETRAINED

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from matplotlib.axes import Axes

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels, ModelAndMethod
    from rib.statistics.inputs import Inputs

COST = Table(
    title="Cost of one mRI",
    question="cost",
    note=(
        "Seconds for one mRI of a method (processor time on a CPU, else how long a GPU was held), "
        "mean over seeds: fine-tuning on all targets (including methods that it needs, and for a "
        "merge over seeds with all seeds), merging, and evaluation (including the pretrained "
        "model). Megabytes of what fine-tuning and merging store. Memory: megabytes of main memory "
        "of the training that held most, on a GPU without the GPU's memory."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Device", "device"),
        Column("Jobs", "jobs"),
        Column("Fine-tuning", "finetune", form="number"),
        Column("Merging", "merge", form="number"),
        Column("Evaluation", "evaluate", form="number"),
        Column("Total", "seconds", form="number"),
        Column("Megabytes", "megabytes", form="number"),
        Column("Memory", "memory", form="number"),
    ],
)
CAPTION = """\
What one mRI of each method takes, cheapest on top: the time of the jobs (processor time on a CPU)
that fine-tune on every target (including those of methods that it needs), merge and evaluate, the
pretrained model's evaluation included, mean over seeds; beside it the mRI. Times are those of this
run's machines and differ from run to run.
"""
WIDE = 20  # ratio of largest to smallest cost from which the axis is logarithmic
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
SECONDS_OF_UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake table and figure of each method's time and storage.

    Only methods that are trained here are shown. Records are parameters, not inputs, so that the
    table can be made if only rows and reports were pulled.
    """
    records = paths.records()
    needed = {}  # methods that a method merges, such as {"ft": [], "half": ["ft"]}
    for name in labels.methods:
        parents = list(grid.methods[name].parents)
        # A method without parents is trained itself.
        if all(grid.methods[key].trains for key in parents or [name]):
            needed[name] = parents
    # Methods that one job evaluates: {"wise_ft-alpha": ["wise_ft-alpha0.25", ...], ...}.
    evaluated = {PRETRAINED: [PRETRAINED]}
    for method in grid.methods.values():
        evaluated[method.evaluation] = list(method.evaluated)
    # Records of Fisher information by method: for merges, and shared by trainings on all targets.
    fisher: dict[str, list[str]] = {}
    for run in paths.merged_runs:
        if run.method in needed and (files := paths.fisher("provenance.json", run)):
            fisher.setdefault(run.method, []).extend(files)
    shared_fisher: dict[str, dict[str, None]] = {}
    for run in paths.trained_runs:
        for file in paths.shared_fisher("provenance.json", run):
            shared_fisher.setdefault(run.method, {})[file] = None
    return Analysis(
        inputs={"mri": paths.table("mri"), "fit": paths.table("fit")},
        params={
            "records": [
                path
                for stage in ("finetune", "merge", "evaluate")
                for path in records.get(stage, [])
            ],
            "evaluated": evaluated,
            "fisher": fisher,
            "shared_fisher": {method: list(files) for method, files in shared_fisher.items()},
            "parents": needed,
        },
        makes=["cost.csv"],
        tables={"cost": COST},
        figures={
            "cost": Figure(
                question="cost",
                caption=CAPTION,
                inputs={"cost": paths.table("cost"), "mri": paths.table("mri")},
                params=labels.means,
                marks_runs=True,
            )
        },
    )


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table cost to write: seconds, megabytes and memory for one mRI, by model, method, size."""
    from rib.statistics.cost import cost_of

    return {"cost": cost_of(**inputs.params)}


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
    import matplotlib.pyplot as plt

    from rib.figures import label_of_run
    from rib.figures._panels import name_rows

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
    from matplotlib.ticker import LogLocator, NullFormatter

    if len(seconds) and seconds.max() > WIDE * seconds.min():
        axes.set_xscale("log")
        # Matplotlib would write mathtext, which is off.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.18)
