"""RI by number of fine-tuning images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rib.base.appearance import INK
from rib.config.analysis import Analysis, Column, Figure, Table
from rib.config.run import MEAN

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure as PlottedFigure

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels, Styles
    from rib.statistics.inputs import Inputs

SIZES = Table(
    title="Sizes of the training subset",
    question="survived",
    note=(
        'RI of each target, and mRI as target "mean", in percentage points, with the numbers of '
        "fine-tuning images and, where known, of pretraining images."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed", form="count"),
        Column("Fine-tuned on", "train_images", form="count"),
        Column("Pretrained on", "pretraining_images", form="count"),
        Column("RI", "ri", form="signed", interval=("ci_low", "ci_high")),
    ],
)
CAPTION = """\
Mean robustness improvement by the number of images that were fine-tuned on (logarithmic scale); a
panel per model, a line per method. Training sets are nested; below 0 robustness was lost. Whiskers
are bootstrap confidence intervals over objects, which all lines share, so don't judge by whether
whiskers overlap. Points are shifted a little sideways so that whiskers don't hide one another.
"""
COLUMNS = 3  # maximum number of panel columns


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake RI by number of fine-tuning images; None with one number."""
    # One training per model, target and size suffices: its manifest has the number of images.
    counted = {(run.model, run.target, run.size): run for run in paths.checkpoint_runs}
    if not counted or len(grid.sizes) == 1:
        return None
    stated_images = {
        name: images
        for name, model in grid.models.items()
        if (images := model.stated_pretraining_images)
    }
    pretrained_here = [name for name, model in grid.models.items() if model.is_trained_here]
    return Analysis(
        inputs={
            **{name: paths.table(name) for name in ("ri", "mri", "fit")},
            "manifests": [paths.checkpoint("manifest.json", run) for run in counted.values()],
            "descriptions": [paths.model("model.json", name) for name in pretrained_here],
        },
        params={"stated_images": stated_images},
        makes=["sizes.csv"],
        tables={"sizes": SIZES},
        figures={
            "train_subsets": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"sizes": paths.table("sizes")},
                params=labels.styled_means,
                every_size=True,
            )
        },
    )


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table sizes to write: RI and mRI by numbers of training images."""
    from rib.statistics.sizes import images_of_pretraining, size_table

    pretraining_images = images_of_pretraining(
        inputs.params["stated_images"], inputs.paths("descriptions")
    )
    sizes = size_table(
        inputs.table("ri"), inputs.table("mri"), inputs.paths("manifests"), pretraining_images
    )
    return {"sizes": sizes}


def draw_train_subsets(
    sizes: pd.DataFrame, *, models: Labels, methods: Styles, confidence: float
) -> Drawn:
    """Draw mRI (change of accuracy elsewhere, in points) by number of training images.

    Args:
        sizes: columns model, method, target, size, train_images, ri, ci_low, ci_high. Rows with the
            target MEAN have mRI in the column ri.
        models: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """
    import numpy as np

    from rib.figures._panels import image_axis, line_with_intervals, method_legend

    is_chosen = sizes["model"].isin(list(models)) & sizes["method"].isin(list(methods))
    shown_rows = sizes[(sizes["target"] == MEAN) & is_chosen]
    figure, panels = _panels(len(models))
    for axes, (model, label) in zip(panels.flat, models.items(), strict=False):
        of_model = shown_rows[shown_rows["model"] == model]
        for i, (method, style) in enumerate(methods.items()):
            of_method = of_model[of_model["method"] == method].sort_values("train_images")
            line_with_intervals(
                axes,
                of_method,
                over="train_images",
                columns=["ri", "ci_low", "ci_high"],
                style=style,
                index=i,
                lines=len(methods),
            )
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(label)
        image_axis(axes, np.unique(of_model["train_images"]))
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    figure.supylabel("mRI (percentage points)", fontsize=9)
    figure.supxlabel(
        f"Fine-tuning images (log scale); whiskers: {confidence:.0%} confidence intervals",
        fontsize=8,
    )
    method_legend(figure, panels.flat[0])
    return figure, shown_rows.reset_index(drop=True)


def _panels(number_of_models: int) -> tuple[PlottedFigure, np.ndarray]:
    """A figure and its array of panels, (rows, columns), at least one per model."""
    import matplotlib.pyplot as plt

    columns = min(COLUMNS, number_of_models)
    if number_of_models == 4:
        columns = 2  # two and two look better than three and one
    rows = math.ceil(number_of_models / columns)
    width = max(3.6, 1.2 + 2.1 * columns)
    height = 0.9 + 2.2 * rows
    return plt.subplots(rows, columns, figsize=(width, height), sharey=True, squeeze=False)
