"""Draws the figure `cka_layers`."""

import pandas as pd

from rib.figures import Drawn, Labels, Styles
from rib.figures._cka import draw_lines, note

TICKS = {
    "stage1": "¼",
    "stage2": "½",
    "stage3": "¾",
    "stage4": "all",
    "pre_logits": "head's\ninput",
}


def draw_cka_layers(
    cka: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """Draw similarity (CKA) of features before and after against depth in the network.

    Panels are models by two columns: on the target, and the mean over other datasets.

    Args:
        cka: columns model, method, target, seed, dataset, layer, depth, cka, ci_low, ci_high,
            averaged over targets and seeds.
        models, targets: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """
    figure, panels, shown_rows = draw_lines(cka, ["layer", "depth"], models, methods)
    layers = shown_rows.drop_duplicates("layer").sort_values("depth")
    panels[0, 0].set_xticks(layers["depth"], [TICKS[name] for name in layers["layer"]])
    figure.supxlabel(f"Relative depth in the network; {note(targets, confidence)}", fontsize=8)
    return figure, shown_rows
