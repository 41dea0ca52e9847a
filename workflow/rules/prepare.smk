# Each image decoded and resized, or drawn, once per geometry; photos of very large sets checked and kept as they are.


rule prepare:
    input:
        manifests=lambda w: [f"{path}.manifest.json" for path in archives(CATALOG.datasets[w.dataset])],
        archives=lambda w: ancient(archives(CATALOG.datasets[w.dataset])),
    output:
        images=f"{PREPARED}/images.npy",
        index=f"{PREPARED}/index.parquet",
        classes=f"{PREPARED}/classes.json",
        manifest=f"{PREPARED}/manifest.json",
        provenance=f"{PREPARED}/provenance.json",
    log:
        f"{LOGS}/prepare/{{dataset}}/{{geometry}}.log",
    conda:
        "../../envs/images.yaml"
    threads: lambda w: 4 if is_large(w.dataset) else 1
    resources:
        mem_mb=2000,
        runtime=lambda w: 720 if is_large(w.dataset) else 60,
    params:
        cfg=preparation,
    script:
        "../scripts/prepare.py"


# The datasets of a suite in one file, so that a job that needs them all watches one input: in a large grid, inputs are
# what a dry-run spends its time on.
rule list_suite:
    input:
        manifests=lambda w: [prepared("manifest.json", name, w.geometry) for name in SUITES[w.suite]],
        files=lambda w: ancient(
            [prepared(file, name, w.geometry) for name in SUITES[w.suite] for file in PREPARED_FILES]
        ),
    output:
        manifest=f"{SUITE}/manifest.json",
        provenance=f"{SUITE}/provenance.json",
    log:
        f"{LOGS}/prepare/suite_{{suite}}/{{geometry}}.log",
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    resources:
        mem_mb=500,
        runtime=10,
    params:
        cfg=lambda w: {"datasets": SUITES[w.suite], "code": digest("suites")},
    script:
        "../scripts/suites.py"


# Protocol held_out: the part that each source image of a dataset is in. A dataset that shares its sources with others is
# split after those before it in the catalogue, so that another one behind it changes nothing.
SPLITS = [path for key in dict.fromkeys(map(geometry, GRID.models)) for path in splits(key, GRID.datasets)]


rule split_dataset:
    input:
        manifest=lambda w: prepared("manifest.json", w.dataset, w.geometry),
        files=lambda w: ancient([prepared(file, w.dataset, w.geometry) for file in PREPARED_FILES]),
        apart=lambda w: (
            prepared("manifest.json", GRID.reference.name, w.geometry) if GRID.kept_apart(w.dataset) else []
        ),
        earlier=lambda w: splits(w.geometry, GRID.split_before(w.dataset)),
    output:
        table=f"{SPLIT}.parquet",
        provenance=f"{SPLIT}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/split/{{dataset}}/{{geometry}}.log",
    conda:
        "../../envs/images.yaml"
    resources:
        mem_mb=lambda w: memory([w.dataset], 2000),
        runtime=60,
    params:
        cfg=lambda w: {
            "shares": GRID.shares,
            "images": seen_at(w.geometry),
            "code": digest("split"),
        },
    script:
        "../scripts/split.py"
