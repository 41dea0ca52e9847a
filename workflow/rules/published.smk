# Compare the accuracies of pretrained models with those that their publishers state.
# Uses SMALL_TABLES and table_files of metrics.smk.

from rib.analyses.published.obstacles import obstacle_to_comparison
from rib.analyses.published.settings import PublishedAccuracy, PublishedSettings

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
            obstacle=obstacle_to_comparison(GRID, row["model"], row["dataset"]),
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
