# How far datasets lie apart, by pretrained models' features and by compression, and whether that predicts what fine-tuning does.

DISTANCE_SETS = [entry.name for entry in DATASETS_READ]
# What the models were pretrained for: a dataset that is evaluated, else the reference.
IN_DISTRIBUTION = next((name for name in DISTANCE_SETS if CATALOG.datasets[name].role != "ood"), None)
DISTANCES_APART = [name for name in GRID.datasets if GRID.kept_apart(name)]
DISTANCE_KINDS = {"otdd": "OTDD", "mmd2": "MMD²", "frechet": "Fréchet distance", "ncd": "NCD"}
DISTANCE_TABLES = {
    "distances": f"{REPORTS}/tables/distances.csv",
    "association": f"{REPORTS}/tables/association.csv",
}
FEATURES_BEFORE = FEATURES.format(
    model="{model}", target="none", method=PRETRAINED, size="all", seed=0, dataset="{dataset}"
)
DISTANCES_OF = f"{RUNS}/distances/{{model}}/features"
COMPRESSION_OF = f"{RUNS}/distances/{{geometry}}/compression"

analysis(
    "distances",
    tables=DISTANCE_TABLES,
    figures={
        "distance_drop": (
            {**DISTANCE_TABLES, "ri": TABLES["ri"]},
            {
                "models": LABELS,
                "method": METHOD,
                "method_label": METHOD_LABELS.get(METHOD),
                "targets": TARGET_LABELS,
                "among": GRID.ood(),
                "in_distribution": IN_DISTRIBUTION,
                "in_distribution_label": IN_DISTRIBUTION and CATALOG.datasets[IN_DISTRIBUTION].label,
                "kinds": DISTANCE_KINDS,
                "confidence": CONFIDENCE,
            },
        ),
        "distance_matrix": (
            {"distances": DISTANCE_TABLES["distances"]},
            {
                "models": LABELS,
                "datasets": {name: CATALOG.datasets[name].label for name in DISTANCE_SETS},
                "kinds": DISTANCE_KINDS,
            },
        ),
    },
    optional=True,
)


rule measure_distances:
    input:
        manifests=expand(f"{FEATURES_BEFORE}.manifest.json", dataset=DISTANCE_SETS, allow_missing=True),
        features=ancient(expand(f"{FEATURES_BEFORE}.safetensors", dataset=DISTANCE_SETS, allow_missing=True)),
        index=ancient(expand(f"{FEATURES_BEFORE}.index.parquet", dataset=DISTANCE_SETS, allow_missing=True)),
    output:
        table=f"{DISTANCES_OF}.csv",
        provenance=f"{DISTANCES_OF}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/distances/{{model}}.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        cfg={"datasets": DISTANCE_SETS, "code": digest("distances")},
    script:
        "../../scripts/distances.py"


# Once for all models that see images alike.
rule compress_datasets:
    input:
        manifests=[prepared("manifest.json", name, "{geometry}") for name in DISTANCE_SETS],
        images=ancient([prepared(file, name, "{geometry}") for name in DISTANCE_SETS for file in PREPARED_FILES]),
        apart=prepared("manifest.json", GRID.reference.name, "{geometry}") if DISTANCES_APART else [],
        splits=splits("{geometry}", DISTANCE_SETS),
    output:
        table=f"{COMPRESSION_OF}.csv",
        provenance=f"{COMPRESSION_OF}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/distances/{{geometry}}.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=memory(DISTANCE_SETS, 4000),
        runtime=240,
    params:
        cfg=lambda w: {
            "datasets": DISTANCE_SETS,
            "apart": DISTANCES_APART,
            "images": {**images(FIRST), **seen_at(w.geometry)},
            "split": DISTANCE_SETS if GRID.shares else [],
            "megabytes": CONFIG["distances"]["compressed_megabytes"],
            "code": digest("compression_distances"),
        },
    script:
        "../../scripts/compression_distances.py"


rule associate_distances:
    input:
        features=expand(f"{DISTANCES_OF}.csv", model=GRID.models),
        compression=[COMPRESSION_OF.format(geometry=geometry(model)) + ".csv" for model in GRID.models],
        accuracy=TABLES["accuracy"],
        ri=TABLES["ri"],
    output:
        **DISTANCE_TABLES,
        provenance=f"{REPORTS}/tables/distances.provenance.json",
    log:
        f"{LOGS}/association.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        cfg={
            "models": list(GRID.models),
            "choices": {
                "targets": GRID.targets,
                "among": GRID.ood(),
                "in_distribution": IN_DISTRIBUTION,
                # A pair's accuracies are over all images, and such an RI is not.
                "pairs": LEAK_FREE_GROUPS is None,
                "confidence": CONFIDENCE,
                "seed": CONFIG["statistics"]["seed"],
            },
            "conditions": "; ".join(GRID.conditions()),
            "code": digest("association"),
        },
    script:
        "../../scripts/association.py"


rule distances:
    input:
        list(DISTANCE_TABLES.values()),
        figure_files(["distance_drop", "distance_matrix"] if METHOD and TARGET else []),
