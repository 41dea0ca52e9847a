# Compare the accuracies of pretrained models with those that their publishers state.
# Uses SMALL_TABLES and table_files of metrics.smk.

from rib.analyses.published.settings import PublishedAccuracy, PublishedSettings
from rib.config.run import ALL

STATED = [
    row
    for row in CATALOG.table(
        "published.csv", ("model", "dataset", "accuracy", "source"), ["accuracy"]
    )
    if row["model"] in GRID.models and row["dataset"] in GRID.datasets
]
STATED_ON = sorted(
    {(row["model"], group) for row in STATED for group in GRID.groups_of(row["dataset"])}
)
PUBLISHED = f"{METRICS}/tables/published.csv"


def unlike_published():
    """Reason why accuracies cannot be compared with published ones; None if they can."""
    if GRID.split_fractions:
        return "protocol held_out scores a part"
    if any(GRID.budget.limit(row["dataset"]) != ALL for row in STATED):
        return "the budget leaves images out"
    if GRID.uncropped:
        return "some datasets are read without the models' crop"
    for name, model in GRID.models.items():
        geometry = GRID.geometry(name)
        native = model.preprocessing
        has_native_size = geometry.size == native["input_size"]
        has_native_crop = geometry.crop_pct == native["crop_pct"]
        if not (has_native_size and has_native_crop):
            return "images are not brought to the models' own geometry"
    return None


def published_table(wildcards):
    """The table, if there are published accuracies, in a list."""
    if not STATED:
        raise UserError(
            "the catalogue's published.csv has no accuracy of these models on these datasets; "
            "choose others, or add the file to your own catalogue folder."
        )
    return [PUBLISHED]


def published_accuracies():
    """Accuracies of models of the grid on its datasets that their publishers state."""
    accuracies = []
    for row in STATED:
        accuracy = PublishedAccuracy(
            model=row["model"],
            dataset=row["dataset"],
            accuracy=float(row["accuracy"]),
            source=row["source"],
        )
        accuracies.append(accuracy)
    return accuracies


def published_settings(wildcards):
    """Settings of the job that compares with published accuracies."""
    settings = PublishedSettings(
        published=published_accuracies(),
        expected_images={
            name: dataset.images for name, dataset in GRID.datasets.items() if dataset.images
        },
        obstacle=unlike_published(),
        code=digest("compare_published"),
    )
    return to_params(settings)


rule compare_published:
    input:
        rows=[
            f"{RUNS}/evaluate/{model}/none/{PRETRAINED}/all/0/{group}.parquet"
            for model, group in STATED_ON
        ],
    output:
        **table_files("published", published=PUBLISHED),
    log:
        f"{LOGS}/published.log",
    conda:
        "../../envs/report.yaml"
    resources:
        **SMALL_TABLES,
    params:
        cfg=published_settings,
    script:
        "../scripts/compare_published.py"


rule published:
    input:
        files=published_table,
    output:
        **copies([PUBLISHED], f"{REPORTS}/published"),
    log:
        f"{LOGS}/publish_published.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=publication_settings(f"{REPORTS}/published"),
    script:
        "../scripts/publish.py"
