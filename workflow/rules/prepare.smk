# Decode and resize, or draw, each image once per geometry; photos of very large datasets are checked and kept encoded.

PREPARED = f"results/{FAMILY}/prepare/{{dataset}}/{{geometry}}"
PREPARED_FILES = ["images.npy", "index.parquet", "classes.json"]
GROUP = f"results/{FAMILY}/prepare/group_{{evaluation_group}}/{{geometry}}"
# Datasets that are prepared with several threads.
MANY_IMAGES = {
    name
    for name, entry in CATALOG.datasets.items()
    if (entry.images or entry.about_images or 0) > 5000
}


def prepared(file, dataset, geometry):
    """A file of a prepared dataset; encoded ones (photos as published, decoded when used) have no geometry."""
    encoded = CATALOG.datasets[dataset].storage == "encoded"
    return f"{PREPARED}/{file}".format(dataset=dataset, geometry="encoded" if encoded else geometry)


def files_at(geometry, datasets):
    """All files of prepared datasets that jobs read."""
    return [prepared(file, name, geometry) for name in datasets for file in PREPARED_FILES]


def proxy_of(geometry, datasets):
    """Manifest of the dataset that contains the pretraining proxy, if one of the given datasets excludes it."""
    excluded = any(map(GRID.excludes_proxy, datasets))
    return prepared("manifest.json", GRID.reference.dataset.name, geometry) if excluded else []


def preparation(w):
    """Settings of a prepare job."""
    layout = CATALOG.layout_file(CATALOG.datasets[w.dataset].layout)
    settings = GRID.preparation(w.dataset, GEOMETRIES.get(w.geometry))
    return {**settings, "layout": local(layout), "code": digest("prepare", layout)}


rule prepare:
    input:
        manifests=lambda w: [
            f"{path}.manifest.json" for path in archive_files(CATALOG.datasets[w.dataset])
        ],
        archives=lambda w: ancient(archive_files(CATALOG.datasets[w.dataset])),
    output:
        **job_files(
            PREPARED,
            inside=True,
            images="images.npy",
            index="index.parquet",
            classes="classes.json",
        ),
    log:
        f"{LOGS}/prepare/{{dataset}}/{{geometry}}.log",
    conda:
        "../../envs/images.yaml"
    threads: lambda w: 4 if w.dataset in MANY_IMAGES else 1
    resources:
        mem_mb=2000,
        runtime=lambda w: 720 if w.dataset in MANY_IMAGES else 60,
    params:
        cfg=preparation,
    script:
        "../scripts/prepare.py"


# List the datasets of a group in one file, which jobs watch as a single input: inputs dominate the time of a dry-run.
rule list_group:
    input:
        manifests=lambda w: [
            prepared("manifest.json", n, w.geometry) for n in EVALUATION_GROUPS[w.evaluation_group]
        ],
        files=lambda w: ancient(files_at(w.geometry, EVALUATION_GROUPS[w.evaluation_group])),
    output:
        **job_files(GROUP, inside=True),
    log:
        f"{LOGS}/prepare/group_{{evaluation_group}}/{{geometry}}.log",
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        cfg=lambda w: {
            "datasets": EVALUATION_GROUPS[w.evaluation_group],
            "code": digest("list_group"),
        },
    script:
        "../scripts/list_group.py"
