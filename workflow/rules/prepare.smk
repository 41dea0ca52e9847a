# Decode and resize, or draw, each image once per geometry; photos of very large datasets are
# checked and kept encoded.

from rib.data.settings import PreparationSettings

FEW_IMAGES = 5000  # at most so many are decoded by one thread
MINUTES_OF_FEW_IMAGES = 60
MINUTES_OF_MANY_IMAGES = 720
# Datasets whose images are decoded by several threads.
MANY_IMAGES = {
    name
    for name, entry in CATALOG.datasets.items()
    if (entry.images or entry.about_images or 0) > FEW_IMAGES
}


# Geometries of prepared arrays: those of the models, with and without their crop.
PREPARED_GEOMETRIES = dict(PATHS.geometries)
for PREPARED_GEOMETRY in PATHS.geometries.values():
    UNCROPPED_GEOMETRY = PREPARED_GEOMETRY.without_crop()
    PREPARED_GEOMETRIES[UNCROPPED_GEOMETRY.key] = UNCROPPED_GEOMETRY


def decode_workers_of(wildcards):
    """Threads that decode the images of a dataset when it is prepared; a small one needs one."""
    if wildcards.dataset in MANY_IMAGES:
        return CONFIG["compute"]["decode_workers"]
    return 1


def preparation_settings(wildcards):
    """Settings of a job that prepares a dataset; the layouts are Python files that it runs."""
    fields = GRID.preparation(wildcards.dataset, PREPARED_GEOMETRIES.get(wildcards.geometry))
    layouts = [fields["layout"]]
    fields["layout"] = local(fields["layout"])
    if fields["photos_layout"]:
        layouts.append(fields["photos_layout"])
        fields["photos_layout"] = local(fields["photos_layout"])
    fields["code"] = digest("prepare", *layouts)
    return to_params(PreparationSettings(**fields))


rule prepare:
    input:
        manifests=lambda wildcards: [
            f"{path}.manifest.json" for path in archive_files(CATALOG.datasets[wildcards.dataset])
        ],
        archives=lambda wildcards: ancient(archive_files(CATALOG.datasets[wildcards.dataset])),
    output:
        images="results/{family}/prepare/{dataset}/{geometry}/images.npy",
        index="results/{family}/prepare/{dataset}/{geometry}/index.parquet",
        classes="results/{family}/prepare/{dataset}/{geometry}/classes.json",
        manifest="results/{family}/prepare/{dataset}/{geometry}/manifest.json",
        provenance="results/{family}/prepare/{dataset}/{geometry}/provenance.json",
    log:
        "logs/{family}/prepare/{dataset}/{geometry}.log",
    conda:
        "../../envs/images.yaml"
    threads: decode_workers_of
    resources:
        mem_mb=2000,
        runtime=lambda wildcards: (
            MINUTES_OF_MANY_IMAGES if wildcards.dataset in MANY_IMAGES else MINUTES_OF_FEW_IMAGES
        ),
    params:
        cfg=preparation_settings,
        # For messages. With the argument `input`, another folder of the same images prepares
        # nothing again.
        folders=lambda wildcards, input: CATALOG.datasets[wildcards.dataset].folders,
    script:
        "../scripts/prepare.py"
