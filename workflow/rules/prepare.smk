# Decode and resize, or draw, each image once per geometry; photos of very large datasets are
# checked and kept encoded.

from rib.data.settings import GroupSettings, PreparationSettings

PREPARED = f"results/{FAMILY}/prepare/{{dataset}}/{{geometry}}"
PREPARED_FILES = ["images.npy", "index.parquet", "classes.json"]
GROUP = f"results/{FAMILY}/prepare/group_{{evaluation_group}}/{{geometry}}"
FEW_IMAGES = 5000  # at most so many are decoded by one thread
DECODE_WORKERS_OF_MANY_IMAGES = 4
MINUTES_OF_FEW_IMAGES = 60
MINUTES_OF_MANY_IMAGES = 720
# Datasets whose images are decoded by several threads.
MANY_IMAGES = {
    name
    for name, entry in CATALOG.datasets.items()
    if (entry.images or entry.about_images or 0) > FEW_IMAGES
}


def prepared(file, dataset, geometry):
    """A file of a prepared dataset.

    Encoded ones (photos as published, decoded when used) have no geometry.
    """
    if CATALOG.datasets[dataset].storage == "encoded":
        geometry = "encoded"
    return f"{PREPARED}/{file}".format(dataset=dataset, geometry=geometry)


def files_at(geometry, datasets):
    """All files of prepared datasets that jobs read."""
    return [prepared(file, name, geometry) for name in datasets for file in PREPARED_FILES]


def proxy_of(geometry, datasets):
    """Manifest of the dataset that contains the pretraining proxy.

    It is an empty list unless one of the given datasets excludes the proxy.
    """
    if not any(GRID.excludes_proxy(dataset) for dataset in datasets):
        return []
    return prepared("manifest.json", GRID.reference.dataset.name, geometry)


def preparation_settings(w):
    """Settings of a job that prepares a dataset."""
    fields = GRID.preparation(w.dataset, GEOMETRIES.get(w.geometry))
    layouts = [fields["layout"]]
    fields["layout"] = local(fields["layout"])
    if fields["photos_layout"]:
        layouts.append(fields["photos_layout"])
        fields["photos_layout"] = local(fields["photos_layout"])
    fields["code"] = digest("prepare", *layouts)
    return to_params(PreparationSettings(**fields))


def group_settings(w):
    """Settings of a job that lists an evaluation group."""
    settings = GroupSettings(
        datasets=EVALUATION_GROUPS[w.evaluation_group], code=digest("list_group")
    )
    return to_params(settings)


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
    threads: lambda w: DECODE_WORKERS_OF_MANY_IMAGES if w.dataset in MANY_IMAGES else 1
    resources:
        mem_mb=2000,
        runtime=lambda w: (
            MINUTES_OF_MANY_IMAGES if w.dataset in MANY_IMAGES else MINUTES_OF_FEW_IMAGES
        ),
    params:
        cfg=preparation_settings,
    script:
        "../scripts/prepare.py"


# List the datasets of a group in one file, which jobs watch as a single input: inputs dominate the
# time of a dry-run.
rule list_group:
    input:
        manifests=lambda w: [
            prepared("manifest.json", name, w.geometry)
            for name in EVALUATION_GROUPS[w.evaluation_group]
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
        cfg=group_settings,
    script:
        "../scripts/list_group.py"
