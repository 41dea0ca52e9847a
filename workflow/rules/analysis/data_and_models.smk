# What a reader needs to know of the datasets and models: images, objects, identical images, roles,
# heads, resolutions.

TRUST_TABLES = {name: f"{METRICS}/tables/{name}.csv" for name in ("data", "models")}

REGISTRY.analysis("data_and_models", tables=TRUST_TABLES)


def role_of(name):
    """What a dataset is in this run, in words."""
    tuned = "; fine-tuned on" if name in GRID.targets else ""
    if name in GRID.ood:
        return f"counts in RI{tuned}"
    if name not in GRID.datasets:
        return "pretraining or its proxy"
    if GRID.datasets[name].role == "in_distribution":
        return f"in distribution, not in RI{tuned}"
    return f"variant, not in RI{tuned}"


def exclusions_of(name):
    """Why images of an evaluated dataset may not be evaluated, in words."""
    reasons = {
        "the pretraining proxy": name in GRID.datasets and GRID.excludes_proxy(name),
        "the budget": CONFIG["budget"]["max_images_per_dataset"] != "all",
        "for training and selection": GRID.split_fractions is not None,
    }
    return ", ".join(reason for reason, applies in reasons.items() if applies)


# The datasets that are evaluated or trained on, the pretraining proxy included.
FACTS_OF_DATASETS = {
    entry.name: {
        "label": entry.label,
        "role": role_of(entry.name),
        "excluded": exclusions_of(entry.name),
        "licence": entry.licence,
        "origin": entry.origin,
    }
    for entry in DATASETS_READ
}
FACTS_OF_MODELS = {
    name: {
        "architecture": model.architecture,
        "pretraining": model.pretraining,
        "pixels": GRID.geometry(name).size,
        "own_pixels": model.preprocessing["input_size"],
        "licence": model.licence,
    }
    for name, model in GRID.models.items()
}


use rule old_published as describe_data_and_models with:
    input:
        accuracy=TABLES["accuracy"],
        prepared=[
            prepared("manifest.json", name, GEOMETRY_OF[FIRST_MODEL]) for name in FACTS_OF_DATASETS
        ],
        indexes=ancient(
            [
                prepared("index.parquet", name, GEOMETRY_OF[FIRST_MODEL])
                for name in FACTS_OF_DATASETS
            ]
        ),
        classes=ancient(
            [
                prepared("classes.json", name, GEOMETRY_OF[FIRST_MODEL])
                for name in FACTS_OF_DATASETS
            ]
        ),
        descriptions=expand(f"{MODEL}/model.json", model=GRID.models),
    output:
        **table_files("data_and_models", **TRUST_TABLES),
    log:
        f"{LOGS}/data_and_models.log",
    resources:
        mem_mb=memory_of(FACTS_OF_DATASETS, 2000),
        runtime=30,
    params:
        cfg=tabulation(
            "analyses.data_and_models.tables:data_and_models",
            datasets=FACTS_OF_DATASETS,
            models=FACTS_OF_MODELS,
            conditions=CONDITIONS,
        ),
