"""Shared invariances of fine-tuned and pretrained networks (STIR), by representation inversion."""

from rib.grid.compared_runs import compared_runs
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table

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
