"""Effect of fine-tuning on representations: CKA of each layer with the pretrained model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.config.analysis import Analysis, Column, Figure, Table
from rib.config.compared_runs import compared_runs, megabytes_of_kernels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import pandas as pd

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels, Styles
    from rib.statistics.inputs import Inputs

CKA = Table(
    title="Similarity of representations before and after fine-tuning",
    question="why",
    note=(
        "Debiased linear CKA of a layer's features with those of the pretrained model on the same "
        "images, with jackknife confidence intervals. 'others' is the mean over all datasets other "
        "than the target. Biased is the plain estimator, for comparison with published numbers."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed"),
        Column("Dataset", "dataset"),
        Column("Layer", "layer"),
        Column("CKA", "cka", form="decimals", interval=("ci_low", "ci_high")),
        Column("Biased", "biased", form="decimals"),
        Column("Images", "n"),
    ],
)
CAPTION = """\
How much of a representation survives fine-tuning, from input to head: debiased linear CKA between
each layer's features before and after, on the same images. 1 means the same up to rotation and
scale, 0 unrelated. Left: on the target; right: the mean over the other datasets. Positions of a
stage are averaged, so that layers of CNNs and ViTs can be compared.
"""
# From the input to the head (rib.models.layers).
DEPTHS = {"stage1": 1, "stage2": 2, "stage3": 3, "stage4": 4, "pre_logits": 5}
TICKS = {
    "stage1": "¼",
    "stage2": "½",
    "stage3": "¾",
    "stage4": "all",
    "pre_logits": "head's\ninput",
}


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake table and figure of features' similarity, on demand.

    Config's `representations` chooses the runs.
    """
    runs = [*paths.pretrained_runs.values(), *compared_runs(grid)]
    return Analysis(
        inputs={"features": paths.features(runs), "fit": paths.table("fit")},
        params={"ood_datasets": grid.ood, "confidence": labels.confidence},
        makes=["cka.csv"],
        tables={"cka": CKA},
        figures={
            "cka_layers": Figure(
                question="why",
                caption=CAPTION,
                inputs={"cka": paths.table("cka")},
                params=labels.of_compared_runs,
            )
        },
        on_demand=True,
        megabytes=megabytes_of_kernels(grid.config["representations"]["images"]),
    )


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
    from rib.statistics.cka import comparison_table

    layers = {layer: {"layer": layer, "depth": depth} for layer, depth in DEPTHS.items()}
    # None compares each layer with the same layer of the pretrained model.
    return comparison_table(features, layers, None, ood_datasets, confidence)


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
    from rib.figures._cka import draw_lines, note

    figure, panels, shown_rows = draw_lines(cka, ["layer", "depth"], models, methods)
    layers = shown_rows.drop_duplicates("layer").sort_values("depth")
    panels[0, 0].set_xticks(layers["depth"], [TICKS[name] for name in layers["layer"]])
    figure.supxlabel(f"Relative depth in the network; {note(targets, confidence)}", fontsize=8)
    return figure, shown_rows
