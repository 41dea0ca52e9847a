"""The tables of this analysis."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from rib.statistics.cka import comparison_table
from rib.statistics.inputs import Inputs

# From the input to the head (rib.models.layers).
DEPTHS = {"stage1": 1, "stage2": 2, "stage3": 3, "stage4": 4, "pre_logits": 5}


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table cka to write: similarity of features before and after, by layer."""
    return {"cka": cka_table(inputs.paths("features"), **inputs.params)}


def cka_table(
    features: Iterable[Path], ood_datasets: Collection[str], confidence: float
) -> pd.DataFrame:
    """Similarity of each fine-tuned run's features to its pretrained model's, by layer.

    It is debiased linear CKA on the same images: 1 means the same up to rotation and scale, 0
    unrelated.

    Args:
        features: files of fine-tuned runs and pretrained models on the same datasets,
            <model>/<target>/<method>/<size>/<seed>/<dataset>.safetensors.
        ood_datasets: datasets that `others` averages over, except the target.
        confidence: coverage of intervals, 0 to 1.

    Returns:
        model, method, target, size, seed, dataset, layer, depth (1 is nearest to the input), n,
        cka, ci_low, ci_high, biased (plain estimator).

    Raises:
        UserError: There is no fine-tuned run, or there are too few images.
    """
    layers = {layer: {"layer": layer, "depth": depth} for layer, depth in DEPTHS.items()}
    # None compares each layer with the same layer of the pretrained model.
    return comparison_table(features, layers, None, ood_datasets, confidence)
