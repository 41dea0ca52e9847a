# Compare the accuracies of pretrained models with those that their publishers state.

STATED = [
    row
    for row in CATALOG.table(
        "published.csv", ("model", "dataset", "accuracy", "source"), ["accuracy"]
    )
    if row["model"] in GRID.models and row["dataset"] in GRID.datasets
]
STATED_ON = sorted({(row["model"], GRID.group_of(row["dataset"])) for row in STATED})
PUBLISHED = f"{METRICS}/tables/published.csv"


def unlike_published():
    """Reason why accuracies cannot be compared with published ones; None if they can."""
    if GRID.split_fractions:
        return "protocol held_out scores a part"
    if CONFIG["budget"]["max_images_per_dataset"] != "all":
        return "the budget leaves images out"
    for name, model in GRID.models.items():
        geometry, native = GRID.geometry(name), model.preprocessing
        if (geometry.size, geometry.crop_pct) != (native["input_size"], native["crop_pct"]):
            return "images are not brought to the models' own geometry"
    return None


def published_table(w):
    """The table, if there are published accuracies, in a list."""
    if not STATED:
        raise UserError(
            "the catalogue's published.csv has no accuracy of these models on these datasets; choose others, or add "
            "the file to your own catalogue folder."
        )
    return [PUBLISHED]


# Other rules that read only tables and records inherit from this one. Their files are in other
# folders, hence the absolute paths.
rule compare_published:
    input:
        rows=[
            f"{RUNS}/evaluate/{model}/none/{PRETRAINED}/all/0/{group}.parquet"
            for model, group in STATED_ON
        ],
    output:
        **table_files("published", table=PUBLISHED),
    log:
        f"{LOGS}/published.log",
    conda:
        str(WORKFLOW.parent / "envs/report.yaml")
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=lambda w: tabulation(
            "analyses.published.tables:compare",
            published=STATED,
            expected={name: entry.images for name, entry in GRID.datasets.items() if entry.images},
            obstacle=unlike_published(),
        ),
    script:
        str(WORKFLOW / "scripts/tabulate.py")


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
