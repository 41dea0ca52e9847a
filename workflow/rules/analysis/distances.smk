# Distances between datasets, from pretrained features and by compression, and their relation to
# effects of fine-tuning.

# Uses TABLES of metrics.smk, what figures.smk says of models and methods, and prepared files and
# proxies of prepare.smk.

from rib.analyses.distances.settings import (
    AssociationSettings,
    CompressionSettings,
    FeatureDistanceSettings,
    MeasuredDistances,
)

DISTANCE_SETS = [entry.name for entry in DATASETS_READ]
# The in-distribution dataset: an evaluated one, else the reference.
IN_DISTRIBUTION = next(
    (name for name in DISTANCE_SETS if CATALOG.datasets[name].role != "ood"), None
)
DISTANCE_KINDS = {"otdd": "OTDD", "mmd2": "MMD²", "frechet": "Fréchet distance", "ncd": "NCD"}
DISTANCE_TABLES = {name: f"{METRICS}/tables/{name}.csv" for name in ("distances", "association")}
FEATURES_BEFORE = f"{RUNS}/features/{{model}}/none/{PRETRAINED}/all/0/{{dataset}}"
DISTANCES_OF = f"{METRICS}/distances/{{model}}/features"
COMPRESSION_OF = f"{METRICS}/distances/{{geometry}}/compression"


def label_in_distribution():
    """Label of the in-distribution dataset, if there is one."""
    if IN_DISTRIBUTION is None:
        return None
    return CATALOG.datasets[IN_DISTRIBUTION].label


REGISTRY.figure(
    "distance_drop",
    analysis="distances",
    question="why",
    inputs={**DISTANCE_TABLES, "ri": TABLES["ri"]},
    settings={
        "models": {name: MODEL_LABELS[name] for name in EXAMPLE_MODELS},
        "targets": TARGET_LABELS,
        "example": ONE_METHOD,
        "measured": to_params(
            MeasuredDistances(
                kinds=DISTANCE_KINDS,
                ood_datasets=GRID.ood,
                in_distribution=IN_DISTRIBUTION,
                in_distribution_label=label_in_distribution(),
            )
        ),
        "confidence": CONFIDENCE,
    },
)
DISTANCE_LABELS = {name: CATALOG.datasets[name].label for name in DISTANCE_SETS}
REGISTRY.figure(
    "distance_matrix",
    analysis="distances",
    question="why",
    inputs={"distances": DISTANCE_TABLES["distances"]},
    settings={"models": MODEL_LABELS, "datasets": DISTANCE_LABELS, "kinds": DISTANCE_KINDS},
)
REGISTRY.analysis(
    "distances", tables=DISTANCE_TABLES, figures=["distance_drop", "distance_matrix"], optional=True
)


def distance_settings(wildcards):
    """Settings of a job that computes distances in the feature space of a model."""
    settings = FeatureDistanceSettings(datasets=DISTANCE_SETS, code=digest("measure_distances"))
    return to_params(settings)


rule measure_distances:
    input:
        manifests=expand(
            f"{FEATURES_BEFORE}.manifest.json", dataset=DISTANCE_SETS, allow_missing=True
        ),
        features=ancient(
            expand(f"{FEATURES_BEFORE}.safetensors", dataset=DISTANCE_SETS, allow_missing=True)
        ),
        index=ancient(
            expand(f"{FEATURES_BEFORE}.index.parquet", dataset=DISTANCE_SETS, allow_missing=True)
        ),
    output:
        **report_files(
            distances=f"{DISTANCES_OF}.csv",
            provenance=f"{DISTANCES_OF}.provenance.json",
        ),
    log:
        f"{LOGS}/distances/{{model}}.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        cfg=distance_settings,
    script:
        "../../scripts/measure_distances.py"


def compression_settings(wildcards):
    """Settings of a job that compresses the datasets at a geometry."""
    settings = CompressionSettings(
        view=view_at(wildcards.geometry, *DISTANCE_SETS),
        excludes_proxy=[name for name in DISTANCE_SETS if GRID.excludes_proxy(name)],
        split=DISTANCE_SETS if GRID.split_fractions else [],
        megabytes=CONFIG["distances"]["compressed_megabytes"],
        code=digest("compress_datasets"),
    )
    return to_params(settings)


# Once for all models with the same geometry.
rule compress_datasets:
    input:
        manifests=lambda wildcards: [
            prepared("manifest.json", name, wildcards.geometry) for name in DISTANCE_SETS
        ],
        indexes=lambda wildcards: ancient(
            [prepared("index.parquet", name, wildcards.geometry) for name in DISTANCE_SETS]
        ),
        dataset_files=lambda wildcards: ancient(files_at(wildcards.geometry, DISTANCE_SETS)),
        proxy=lambda wildcards: proxy_of(wildcards.geometry, DISTANCE_SETS),
        splits=splits_of("{geometry}", DISTANCE_SETS),
    output:
        **report_files(
            compression=f"{COMPRESSION_OF}.csv",
            provenance=f"{COMPRESSION_OF}.provenance.json",
        ),
    log:
        f"{LOGS}/distances/{{geometry}}.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=memory_of(DISTANCE_SETS, 4000),
        runtime=240,
    params:
        cfg=compression_settings,
    script:
        "../../scripts/compress_datasets.py"


def association_settings(wildcards):
    """Settings of the job that compares distances with effects of fine-tuning."""
    settings = AssociationSettings(
        models=list(GRID.models),
        targets=GRID.targets,
        ood_datasets=GRID.ood,
        in_distribution=IN_DISTRIBUTION,
        # Accuracies of pairs use all images, unlike a leak-free RI.
        pairs=GRID.leak_free_groups() is None,
        confidence=CONFIDENCE,
        seed=CONFIG["statistics"]["seed"],
        conditions=CONDITIONS,
        code=digest("associate_distances"),
    )
    return to_params(settings)


rule associate_distances:
    input:
        features=expand(f"{DISTANCES_OF}.csv", model=GRID.models),
        compression=[
            COMPRESSION_OF.format(geometry=GEOMETRY_OF[model]) + ".csv" for model in GRID.models
        ],
        accuracy=TABLES["accuracy"],
        ri=TABLES["ri"],
        fit=TABLES["fit"],
    output:
        **table_files("distances", **DISTANCE_TABLES),
    log:
        f"{LOGS}/association.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        cfg=association_settings,
    script:
        "../../scripts/associate_distances.py"
