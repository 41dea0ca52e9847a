"""Accuracies and mRI by number of pretraining images."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.schema.entries import Pretraining

PRETRAINING_SIZES = Table(
    title="Sizes of pretraining",
    question="model",
    note=(
        "Models whose number of pretraining images is known: mean accuracy on the other datasets "
        "before and after fine-tuning (percent), and mRI, their difference (percentage points). "
        "Size is confounded with architecture, supervision and recipe, except among models that "
        "were pretrained by one recipe on subsets of one dataset."
    ),
    columns=[
        Column("Model", "model"),
        Column("Pretrained on", "pretraining_images", form="count"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("OOD before (%)", "before", interval=("before_low", "before_high")),
        Column("OOD after (%)", "after", interval=("after_low", "after_high")),
        Column("mRI", "mri", form="signed", interval=("ci_low", "ci_high")),
    ],
)
CAPTION = """\
Robustness against the size of the data that each model was pretrained on. Above: mean accuracy on
the other datasets before (black stars) and after fine-tuning; below: the difference, mRI. Models
joined by a line differ only in size. Between the others size is confounded with architecture,
supervision and recipe, so the figure does not say what more data do. Whiskers are bootstrap
confidence intervals over objects, which leave out how much another pretraining would differ.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake table and figure of mRI by number of pretraining images.

    None if no model is pretrained here and published models don't state different numbers.
    """
    series = {
        name: _series(model.architecture, model.pretrain)
        for name, model in grid.models.items()
        if model.pretrain
    }
    stated_images = {
        name: images
        for name, model in grid.models.items()
        if (images := model.stated_pretraining_images)
    }
    has_several = bool(series) or len(set(stated_images.values())) > 1
    if not has_several or not paths.checkpoint_runs or labels.example_method is None:
        return None
    methods = labels.method_styles
    if len(series) < len(grid.models):
        # There may be many published models; with them, one method is shown.
        methods = {labels.example_method: methods[labels.example_method]}
    pretrained_here = [name for name, model in grid.models.items() if model.is_trained_here]
    return Analysis(
        inputs={
            **{name: paths.table(name) for name in ("mri", "ood", "fit")},
            "descriptions": [paths.model("model.json", name) for name in pretrained_here],
        },
        params={"stated_images": stated_images},
        makes=["pretraining_sizes.csv"],
        tables={"pretraining_sizes": PRETRAINING_SIZES},
        figures={
            "pretraining_sizes": Figure(
                question="model",
                caption=CAPTION,
                inputs={"pretraining_sizes": paths.table("pretraining_sizes")},
                params={**labels.styled_means, "methods": methods, "series": series},
            )
        },
    )


def _series(architecture: str, pretraining: Pretraining) -> str:
    """`cnn on fashion, augmented`: models with the same text differ only in number of images."""
    augmented = "" if pretraining.augmentation is None else ", augmented"
    return f"{architecture} on {pretraining.dataset}{augmented}"
