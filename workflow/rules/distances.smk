# Measure distances between datasets: from the features of a pretrained model, and by compressing
# their pixels. The analysis `distances` relates them to effects of fine-tuning.

DATASETS_OF_DISTANCES = [entry.name for entry in DATASETS_READ]


def features_before_tuning(ending):
    """A file with the features of a pretrained model on each dataset; `{model}` stays."""
    return expand(
        f"results/{{family}}/{{protocol}}/features/{{model}}/none/pretrained/all/0/{{dataset}}.{ending}",
        dataset=DATASETS_OF_DISTANCES,
        allow_missing=True,
    )


rule measure_distances:
    input:
        manifests=features_before_tuning("manifest.json"),
        features=ancient(features_before_tuning("safetensors")),
        index=ancient(features_before_tuning("index.parquet")),
    output:
        distances="results/{family}/{protocol}/distances/{model}/features.csv",
        provenance="results/{family}/{protocol}/distances/{model}/features.provenance.json",
    log:
        "logs/{family}/{protocol}/distances/{model}/features.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        cfg={"datasets": DATASETS_OF_DISTANCES, "code": digest("measure_distances")},
    script:
        "../scripts/measure_distances.py"


def compression_settings(wildcards):
    """Settings of a job that compresses the datasets at a geometry."""
    return {
        "view": to_params(view_at(wildcards.geometry, *DATASETS_OF_DISTANCES)),
        "excludes_proxy": [name for name in DATASETS_OF_DISTANCES if GRID.excludes_proxy(name)],
        "split": DATASETS_OF_DISTANCES if GRID.split_fractions else [],
        "megabytes": CONFIG["distances"]["compressed_megabytes"],
        "code": digest("compress_datasets"),
    }


# Once for all models with the same geometry.
rule compress_datasets:
    input:
        manifests=lambda wildcards: [
            PATHS.prepared("manifest.json", name, wildcards.geometry)
            for name in DATASETS_OF_DISTANCES
        ],
        indexes=lambda wildcards: ancient(
            [
                PATHS.prepared("index.parquet", name, wildcards.geometry)
                for name in DATASETS_OF_DISTANCES
            ]
        ),
        dataset_files=lambda wildcards: ancient(
            PATHS.prepared_files(wildcards.geometry, DATASETS_OF_DISTANCES)
        ),
        proxy=lambda wildcards: PATHS.proxy(wildcards.geometry, DATASETS_OF_DISTANCES),
        splits=PATHS.splits("{geometry}", DATASETS_OF_DISTANCES),
    output:
        compression="results/{family}/{protocol}/distances/{geometry}/compression.csv",
        provenance="results/{family}/{protocol}/distances/{geometry}/compression.provenance.json",
    log:
        "logs/{family}/{protocol}/distances/{geometry}/compression.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=memory_of(DATASETS_OF_DISTANCES, 4000),
        runtime=240,
    params:
        cfg=compression_settings,
    script:
        "../scripts/compress_datasets.py"
