"""STIR of each method in both directions and CKA of the same networks, one panel per model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rib.base.rounding import whole_percent
from rib.figures import Drawn, Labels, Styles

# By reference, the network that was inverted. CKA is the same for both.
DOTS = {
    "pretrained": {"label": "STIR(fine-tuned | pretrained)", "color": "#D55E00", "marker": "o"},
    "fine-tuned": {"label": "STIR(pretrained | fine-tuned)", "color": "#0072B2", "marker": "s"},
    "cka": {
        "label": "CKA on the images themselves",
        "color": "#555555",
        "marker": "D",
        "markerfacecolor": "white",
    },
}
CEILING = "reference on its own inversions"  # fidelity, an approximate upper bound of STIR
SIDESTEP = 0.22


def draw(
    stir: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """STIR and CKA with confidence intervals, three dots per method, and the fidelity of inversions as bars.

    Args:
        stir: columns model, method, target, seed, reference, stir, ci_low, ci_high, cka, cka_low, cka_high, fidelity,
            n, residual; values and confidence limits are averaged over targets and seeds.
    """
    numbers = ["stir", "ci_low", "ci_high", "cka", "cka_low", "cka_high", "fidelity", "residual"]
    shown = stir.groupby(["model", "method", "reference"], sort=False)[numbers].mean().reset_index()
    size = (5.6, 0.9 + 2.2 * len(models))
    figure, panels = plt.subplots(
        len(models), 1, figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for axes, (model, label) in zip(panels[:, 0], models.items(), strict=True):
        for side, (reference, style) in zip((-1, 0, 1), DOTS.items(), strict=True):
            kind = (
                ("cka", "cka_low", "cka_high")
                if reference == "cka"
                else ("stir", "ci_low", "ci_high")
            )
            measured = shown["reference"] == ("pretrained" if reference == "cka" else reference)
            rows = (
                shown[(shown["model"] == model) & measured]
                .set_index("method")
                .reindex(list(methods))
            )
            value, low, high = (rows[column] for column in kind)
            places = np.arange(len(methods)) + side * SIDESTEP
            axes.errorbar(
                places,
                value,
                [value - low, high - value],
                linestyle="",
                markersize=5,
                elinewidth=1,
                **style,
            )
            if reference != "cka":
                look = {"color": "black", "markersize": 13, "label": CEILING if side < 0 else None}
                axes.plot(places, rows["fidelity"], "_", **look)
        axes.set_title(label, loc="left")
        axes.set_ylabel("Similarity")
        axes.set_xticks(range(len(methods)), [style["label"] for style in methods.values()])
        axes.tick_params(axis="x", length=0)
    panels[0, 0].set_ylim(min(0, shown[["ci_low", "cka_low"]].min().min()) - 0.02, 1.04)
    what = next(iter(targets.values())) if len(targets) == 1 else f"{len(targets)} targets (mean)"
    least, most = 100 * shown["residual"].min(), 100 * shown["residual"].max()
    figure.supxlabel(
        f"Fine-tuned on {what}; {stir['n'].max()} images; whiskers: {confidence:.0%} confidence intervals;\n"
        f"residual of the inversions: {whole_percent(least)} to {whole_percent(most)} % of the representation's norm",
        fontsize=7,
    )
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7
    )
    return figure, shown
