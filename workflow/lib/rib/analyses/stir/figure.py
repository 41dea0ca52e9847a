"""Draws the figure `stir`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import BLUE, VERMILION
from rib.base.rounding import whole_percent
from rib.figures import Drawn, Labels, Style, Styles

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
