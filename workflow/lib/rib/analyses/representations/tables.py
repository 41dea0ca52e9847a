"""CKA of each layer of fine-tuned runs with that of their pretrained model. No torch."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from rib.statistics.cka import PRE_LOGITS, comparison_table

DEPTHS = {
    "stage1": 1,
    "stage2": 2,
    "stage3": 3,
    "stage4": 4,
    PRE_LOGITS: 5,
}  # see rib.models.layers


def cka_table(
    features: Iterable[Path], ood_datasets: Collection[str], confidence: float
) -> pd.DataFrame:
    """The CKA of every fine-tuned run with its pretrained model, per dataset and layer.

    Args:
        features: outputs of the features jobs of fine-tuned runs and pretrained models, on the
            same datasets, <model>/<target>/<method>/<size>/<seed>/<dataset>.safetensors.
        ood_datasets: datasets that `others` averages over, except the target.

    Returns:
        model, method, target, size, seed, dataset, layer, depth (1 is nearest to the input), n,
        cka, ci_low, ci_high, biased (the plain estimator, for comparison with published numbers).

    Raises:
        UserError: there is no fine-tuned run, or too few images.
    """
    layers = {layer: {"layer": layer, "depth": depth} for layer, depth in DEPTHS.items()}
    return comparison_table(features, layers, None, ood_datasets, confidence)
