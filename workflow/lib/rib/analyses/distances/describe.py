"""Distances between datasets, and their relation to effects of fine-tuning.

rules/features.smk measures them from pretrained features and by compression.
"""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.leaks import leak_free_groups
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table

DISTANCES = Table(
    title="Distances between datasets",
    question="why",
    note=(
        "In the input space of the pretrained model's head: optimal transport dataset distance "
        "(otdd), unbiased squared maximum mean discrepancy (mmd2) and Frechet distance of "
        "Gaussians. ncd: normalised compression distance of pixels, without a model. All datasets "
        "contribute the same number of images."
    ),
    columns=[
        Column("Model", "model"),
        Column("First", "first"),
        Column("Second", "second"),
        Column("Distance", "distance"),
        Column("Value", "value", form="decimals"),
        Column("Images of each", "n"),
        Column("Details", "note"),
    ],
)
ASSOCIATION = Table(
    title="Distance and change of accuracy",
    question="why",
    note=(
        "Correlations of distance with the effect of fine-tuning. pairs: distance between target "
        "and another dataset, with the change of accuracy there; targets: distance to the "
        "in-distribution dataset, else mean distance to the others, with RI; in_distribution: that "
        "distance, with the change of accuracy in distribution. p is two-sided, from permutations "
        "of targets (pairs: Mantel test), not adjusted for multiple tests. Intervals are Fisher's; "
        "pairs are not independent and have none."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Distance", "distance"),
        Column("Level", "level"),
        Column("Statistic", "statistic"),
        Column("Correlation", "value", form="decimals", interval=("ci_low", "ci_high")),
        Column("p", "p", form="p"),
        Column("Permutations", "permutations"),
        Column("Exact", "exact"),
        Column("Points", "n"),
    ],
)
CAPTION_OF_DROP = """\
Whether a target's distance predicts what fine-tuning on it does to robustness. Each point is a
target, at its distance to what the models were pretrained for or, where no such dataset is there,
at its mean distance to the other datasets; above each panel the correlations with p over all
permutations of the targets (random ones where there are too many). With a handful of targets only a
very strong association differs clearly from none.
"""
CAPTION_OF_MATRIX = """\
Distances between the datasets, in the space of the pretrained model's features before its head
(OTDD, MMD², Fréchet distance) and by compressing pixels together (NCD: 0 for equal datasets, 1
where nothing is shared). Compare pairs with each other, not with 0: MMD² is unbiased and may be
below 0 where datasets do not differ clearly, and OTDD and Fréchet distance are above 0 even between
samples of one source. Where NCD is near 1 everywhere, small differences mean nothing.
"""
KINDS = {"otdd": "OTDD", "mmd2": "MMD²", "frechet": "Fréchet distance", "ncd": "NCD"}


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figures of distances and their relation to RI."""
    datasets = {dataset.name: dataset for dataset in grid.datasets_read()}
    # An evaluated dataset in distribution, else the pretraining proxy's dataset.
    in_distribution = next(
        (name for name, dataset in datasets.items() if dataset.role != "ood"), None
    )
    table_paths = {name: paths.table(name) for name in ("distances", "association")}
    folder = paths.stage("distances")
    figures = {}
    if labels.has_figures:
        figures["distance_drop"] = Figure(
            question="why",
            caption=CAPTION_OF_DROP,
            inputs={**table_paths, "ri": paths.table("ri")},
            params={
                "models": labels.models,
                "targets": labels.targets,
                "example": labels.one_method,
                "kinds": KINDS,
                "ood_datasets": grid.ood,
                "in_distribution": in_distribution,
                "in_distribution_label": (
                    datasets[in_distribution].label if in_distribution else None
                ),
                "confidence": labels.confidence,
            },
        )
        figures["distance_matrix"] = Figure(
            question="why",
            caption=CAPTION_OF_MATRIX,
            inputs={"distances": table_paths["distances"]},
            params={
                "models": labels.models,
                "datasets": {name: dataset.label for name, dataset in datasets.items()},
                "kinds": KINDS,
            },
        )
    return Analysis(
        inputs={
            "features": [f"{folder}/{model}/features.csv" for model in grid.models],
            "compression": [
                f"{folder}/{paths.geometry_of(model)}/compression.csv" for model in grid.models
            ],
            "accuracy": paths.table("accuracy"),
            "ri": paths.table("ri"),
            "fit": paths.table("fit"),
        },
        params={
            "models": list(grid.models),
            "targets": list(grid.targets),
            "ood_datasets": grid.ood,
            "in_distribution": in_distribution,
            # Accuracies of pairs use all images, which a leak-free RI does not.
            "pairs": leak_free_groups(grid) is None,
            "confidence": labels.confidence,
            "seed": grid.config["statistics"]["seed"],
        },
        makes=["distances.csv", "association.csv"],
        tables={"distances": DISTANCES, "association": ASSOCIATION},
        figures=figures,
        on_demand=True,
    )
