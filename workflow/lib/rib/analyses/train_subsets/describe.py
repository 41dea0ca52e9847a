"""RI by number of fine-tuning images."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table

SIZES = Table(
    title="Sizes of the training subset",
    question="survived",
    note=(
        'RI of each target, and mRI as target "mean", in percentage points, with the numbers of '
        "fine-tuning images and, where known, of pretraining images."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed", form="count"),
        Column("Fine-tuned on", "train_images", form="count"),
        Column("Pretrained on", "pretraining_images", form="count"),
        Column("RI", "ri", form="signed", interval=("ci_low", "ci_high")),
    ],
)
CAPTION = """\
Mean robustness improvement by the number of images that were fine-tuned on (logarithmic scale); a
panel per model, a line per method. Training sets are nested; below 0 robustness was lost. Whiskers
are bootstrap confidence intervals over objects, which all lines share, so don't judge by whether
whiskers overlap. Points are shifted a little sideways so that whiskers don't hide one another.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake RI by number of fine-tuning images; None with one number."""
    # One training per model, target and size suffices: its manifest has the number of images.
    counted = {(run.model, run.target, run.size): run for run in paths.checkpoint_runs}
    if not counted or len(grid.sizes) == 1:
        return None
    stated_images = {
        name: images
        for name, model in grid.models.items()
        if (images := model.stated_pretraining_images)
    }
    pretrained_here = [name for name, model in grid.models.items() if model.is_trained_here]
    return Analysis(
        inputs={
            **{name: paths.table(name) for name in ("ri", "mri", "fit")},
            "manifests": [paths.checkpoint("manifest.json", run) for run in counted.values()],
            "descriptions": [paths.model("model.json", name) for name in pretrained_here],
        },
        params={"stated_images": stated_images},
        makes=["sizes.csv"],
        tables={"sizes": SIZES},
        figures={
            "train_subsets": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"sizes": paths.table("sizes")},
                params=labels.styled_means,
                every_size=True,
            )
        },
    )
