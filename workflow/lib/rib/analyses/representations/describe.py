"""Effect of fine-tuning on representations: CKA of each layer with the pretrained model's."""

from rib.grid.compared_runs import compared_runs, megabytes_of_kernels
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table

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
