"""CKA with the pretrained model in the course of fine-tuning, one row of panels per model."""

import pandas as pd

from rib.analyses.representations.cka_layers import draw_lines, note
from rib.figures import Drawn, Labels, Styles


def draw(
    cka_epochs: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """CKA with confidence intervals against the share of steps.

    One column of panels is on the target, the other the mean over the other datasets.

    Args:
        cka_epochs: columns model, method, target, seed, dataset, trained, cka, ci_low, ci_high;
            CKA and its confidence limits are averaged over targets and seeds.
    """
    first_snapshots = cka_epochs[cka_epochs["trained"] == cka_epochs["trained"].min()]
    # The pretrained model is equal to itself.
    before_training = first_snapshots.assign(trained=0.0, cka=1.0, ci_low=1.0, ci_high=1.0)
    with_start = pd.concat([before_training, cka_epochs])
    figure, _, shown_rows = draw_lines(with_start, ["trained"], models, methods)
    figure.supxlabel(f"Steps of fine-tuning (%); {note(targets, confidence)}", fontsize=8)
    return figure, shown_rows
