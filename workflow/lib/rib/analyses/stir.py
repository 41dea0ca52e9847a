"""Shared invariances of fine-tuned and pretrained networks (STIR), by representation inversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.base.appearance import BLUE, VERMILION
from rib.base.rounding import whole_percent
from rib.config.analysis import Analysis, Column, Figure, Table
from rib.config.compared_runs import compared_runs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels, Style, Styles
    from rib.statistics.inputs import Inputs

STIR = Table(
    title="Shared invariances (STIR)",
    question="why",
    note=(
        "Inversion finds images with the same representation in the reference network as the given "
        "images. STIR is the debiased CKA between the other network's features of both. Fidelity "
        "is STIR of the reference with itself, the residual is the relative distance between the "
        "representations, and passes are forward and backward passes per image."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed"),
        Column("Reference", "reference"),
        Column("STIR", "stir", form="decimals", interval=("ci_low", "ci_high")),
        Column("CKA", "cka", form="decimals"),
        Column("Fidelity", "fidelity", form="decimals"),
        Column("Residual", "residual", form="decimals"),
        Column("Images", "n"),
        Column("Passes", "passes"),
    ],
)
CAPTION = """\
Which invariances fine-tuned and pretrained networks share. For each image another is sought that
the reference network (behind the bar) represents alike; STIR is how alike the other network finds
the two: 1, it ignores whatever the reference ignores; 0, it sees only what the reference ignores.
CKA compares the networks on the images themselves. Inversions that stopped short lower STIR, which
hardly exceeds the black dashes, the reference's own CKA of images and inversions.
"""
# By reference, the network that was inverted.
PRETRAINED = {"label": "STIR(fine-tuned | pretrained)", "color": VERMILION, "marker": "o"}
FINE_TUNED = {"label": "STIR(pretrained | fine-tuned)", "color": BLUE, "marker": "s"}
CKA = {
    "label": "CKA on the images themselves",
    "color": "#555555",
    "marker": "D",
    "markerfacecolor": "white",
}
STIR_COLUMNS = ["stir", "ci_low", "ci_high"]
CKA_COLUMNS = ["cka", "cka_low", "cka_high"]
CEILING = "reference on its own inversions"  # fidelity, roughly an upper bound of STIR
SIDESTEP = 0.22


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake table and figure of shared invariances, on demand.

    Config's `representations` chooses the runs; each is inverted on its target.
    """
    runs = compared_runs(grid)
    return Analysis(
        inputs={
            "features": [f"{paths.stage('stir')}/{run}/{run.target}.safetensors" for run in runs],
            "indexes": [
                f"{paths.stage('inversions')}/{run}/{run.target}.index.parquet" for run in runs
            ],
            "fit": paths.table("fit"),
        },
        params={
            "layer": grid.config["stir"]["layer"],
            "steps": grid.config["stir"]["steps"],
            "confidence": labels.confidence,
        },
        makes=["stir.csv"],
        tables={"stir": STIR},
        figures={
            "stir": Figure(
                question="why",
                caption=CAPTION,
                inputs={"stir": paths.table("stir")},
                params=labels.of_compared_runs,
            )
        },
        on_demand=True,
    )


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table stir to write: a row per run and reference, the network that was inverted."""
    from rib.statistics.stir import stir_table

    stir = stir_table(
        features=inputs.paths("features"), indexes=inputs.paths("indexes"), **inputs.params
    )
    return {"stir": stir}


def draw_stir(
    stir: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """Draw how many invariances fine-tuned and pretrained networks share, a panel per model.

    Dots are STIR in both directions, and CKA (similarity of features), with confidence intervals; a
    dash is the fidelity of inversions, the reference's own CKA.

    Args:
        stir: columns model, method, target, seed, reference, stir, ci_low, ci_high, cka, cka_low,
            cka_high, fidelity, n, residual, averaged over targets and seeds.
        models, targets: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """
    import matplotlib.pyplot as plt

    runs = stir.groupby(["model", "method", "reference"], sort=False)
    numbers = [*STIR_COLUMNS, *CKA_COLUMNS, "fidelity", "residual"]
    shown_rows = runs[numbers].mean().reset_index()
    figure, panels = plt.subplots(
        len(models),
        1,
        figsize=(5.6, 0.9 + 2.2 * len(models)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes, (model, model_label) in zip(panels[:, 0], models.items(), strict=True):
        of_model = shown_rows[shown_rows["model"] == model]
        rows_of_references = {}
        for reference in ("pretrained", "fine-tuned"):
            of_reference = of_model[of_model["reference"] == reference].set_index("method")
            rows_of_references[reference] = of_reference.reindex(list(methods))
        pretrained_rows = rows_of_references["pretrained"]
        fine_tuned_rows = rows_of_references["fine-tuned"]
        _draw_dots(axes, pretrained_rows[STIR_COLUMNS], -SIDESTEP, PRETRAINED)
        _draw_fidelity(axes, pretrained_rows["fidelity"], -SIDESTEP, CEILING)
        _draw_dots(axes, fine_tuned_rows[STIR_COLUMNS], 0, FINE_TUNED)
        _draw_fidelity(axes, fine_tuned_rows["fidelity"], 0, None)
        # CKA is the same for both references.
        _draw_dots(axes, pretrained_rows[CKA_COLUMNS], SIDESTEP, CKA)
        axes.set_title(model_label, loc="left")
        axes.set_ylabel("Similarity")
        axes.set_xticks(range(len(methods)), [style["label"] for style in methods.values()])
        axes.tick_params(axis="x", length=0)
    lowest = shown_rows[["ci_low", "cka_low"]].min().min()
    panels[0, 0].set_ylim(min(0, lowest) - 0.02, 1.04)
    figure.supxlabel(_note(stir, shown_rows["residual"], targets, confidence), fontsize=7)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=7)
    return figure, shown_rows


def _draw_dots(axes: Axes, rows: pd.DataFrame, shift: float, style: Style) -> None:
    """Draw a dot with whiskers for each method, `shift` right of its place.

    The columns of `rows` are the value, and its lower and upper limits.
    """
    import numpy as np

    value_column, low_column, high_column = rows.columns
    values = rows[value_column]
    below = values - rows[low_column]
    above = rows[high_column] - values
    axes.errorbar(
        np.arange(len(rows)) + shift,
        values,
        [below, above],
        linestyle="",
        markersize=5,
        elinewidth=1,
        **style,
    )


def _draw_fidelity(axes: Axes, fidelity: pd.Series, shift: float, label: str | None) -> None:
    """Draw a dash per method, which STIR hardly exceeds: the reference's CKA with inversions."""
    import numpy as np

    x = np.arange(len(fidelity)) + shift
    axes.plot(x, fidelity, "_", color="black", markersize=13, label=label)


def _note(stir: pd.DataFrame, residuals: pd.Series, targets: Labels, confidence: float) -> str:
    """Text below the figure: targets, images, whiskers, and how well inversions succeeded."""
    fine_tuned_on = f"{len(targets)} targets (mean)"
    if len(targets) == 1:
        (fine_tuned_on,) = targets.values()
    smallest = whole_percent(100 * residuals.min())
    largest = whole_percent(100 * residuals.max())
    return (
        f"Fine-tuned on {fine_tuned_on}; {stir['n'].max()} images; "
        f"whiskers: {confidence:.0%} confidence intervals;\n"
        f"residual of the inversions: {smallest} to {largest} % of the representation's norm"
    )
