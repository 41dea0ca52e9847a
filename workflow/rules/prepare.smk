# Decode and resize, or draw, each image once per geometry; photos of very large datasets are
# checked and kept encoded.

from rib.data.dataset_part import DatasetPart, PartSettings
from rib.data.settings import GroupSettings, PreparationSettings

PREPARED = f"results/{FAMILY}/prepare/{{dataset}}/{{geometry}}"
PREPARED_FILES = ["images.npy", "index.parquet", "classes.json"]
GROUP = f"results/{FAMILY}/prepare/group_{{evaluation_group}}/{{geometry}}"
# Groups that are whole datasets, and groups that are a part of one.
GROUPS_OF_PARTS = [name for name in EVALUATION_GROUPS if GRID.part_of_group(name) is not None]
GROUPS_OF_DATASETS = [name for name in EVALUATION_GROUPS if name not in GROUPS_OF_PARTS]
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
PREPARED_GEOMETRIES = dict(GEOMETRIES)
for PREPARED_GEOMETRY in GEOMETRIES.values():
    UNCROPPED_GEOMETRY = PREPARED_GEOMETRY.without_crop()
    PREPARED_GEOMETRIES[UNCROPPED_GEOMETRY.key] = UNCROPPED_GEOMETRY


def prepared(file, dataset, geometry):
    """A file of a prepared dataset, such as results/emoji/prepare/noto/224/manifest.json.

    Encoded datasets (photos as published, decoded when used) are the same at all geometries, and
    those that models see without their crop are prepared without it.
    """
    if CATALOG.datasets[dataset].storage == "encoded":
        geometry = "encoded"
    elif dataset in GRID.uncropped:
        geometry = GEOMETRIES[geometry].without_crop().key
    return f"{PREPARED}/{file}".format(dataset=dataset, geometry=geometry)


def files_at(geometry, datasets):
    """All files of prepared datasets that jobs read."""
    return [prepared(file, name, geometry) for name in datasets for file in PREPARED_FILES]


def proxy_of(geometry, datasets):
    """Manifest of the dataset that contains the pretraining proxy.

    The proxy is images that stand in for the pretraining data. Without a dataset from which they
    are excluded, it isn't needed, and this is an empty list.
    """
    if not any(GRID.excludes_proxy(dataset) for dataset in datasets):
        return []
    return prepared("manifest.json", GRID.reference.dataset.name, geometry)


def decode_workers_of(wildcards):
    """Threads that decode the images of a dataset when it is prepared; a small one needs one."""
    if wildcards.dataset in MANY_IMAGES:
        return decode_workers()
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


def group_settings(wildcards):
    """Settings of a job that lists an evaluation group."""
    settings = GroupSettings(
        datasets=EVALUATION_GROUPS[wildcards.evaluation_group], code=digest("list_group")
    )
    return to_params(settings)


def part_settings(wildcards):
    """Settings of a job that lists a part of a dataset."""
    (dataset,) = EVALUATION_GROUPS[wildcards.evaluation_group]
    settings = PartSettings(
        dataset=dataset,
        part=from_params(DatasetPart, GRID.part_of_group(wildcards.evaluation_group)),
        other_levels=tuple(GRID.levels_of_other_parts(wildcards.evaluation_group)),
        code=digest("list_part"),
    )
    return to_params(settings)


rule prepare:
    input:
        manifests=lambda wildcards: [
            f"{path}.manifest.json" for path in archive_files(CATALOG.datasets[wildcards.dataset])
        ],
        archives=lambda wildcards: ancient(archive_files(CATALOG.datasets[wildcards.dataset])),
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


# List the datasets of a group in one file, which jobs watch as a single input: inputs dominate the
# time of a dry-run.
rule list_group:
    input:
        manifests=lambda wildcards: [
            prepared("manifest.json", name, wildcards.geometry)
            for name in EVALUATION_GROUPS[wildcards.evaluation_group]
        ],
        files=lambda wildcards: ancient(
            files_at(wildcards.geometry, EVALUATION_GROUPS[wildcards.evaluation_group])
        ),
    output:
        **job_files(GROUP, inside=True),
    log:
        f"{LOGS}/prepare/group_{{evaluation_group}}/{{geometry}}.log",
    wildcard_constraints:
        evaluation_group=any_of(GROUPS_OF_DATASETS),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        cfg=group_settings,
    script:
        "../scripts/list_group.py"


# The same for a group that is a part of a dataset. It checks the parts, which it can as soon as the
# dataset is prepared. They are no settings of `prepare`, so that a change of them prepares nothing.
if GROUPS_OF_PARTS:

    rule list_part:
        input:
            manifest=lambda wildcards: prepared(
                "manifest.json", *EVALUATION_GROUPS[wildcards.evaluation_group], wildcards.geometry
            ),
            index=lambda wildcards: ancient(
                prepared(
                    "index.parquet",
                    *EVALUATION_GROUPS[wildcards.evaluation_group],
                    wildcards.geometry,
                )
            ),
            files=lambda wildcards: ancient(
                files_at(wildcards.geometry, EVALUATION_GROUPS[wildcards.evaluation_group])
            ),
        output:
            **job_files(GROUP, inside=True),
        log:
            f"{LOGS}/prepare/group_{{evaluation_group}}/{{geometry}}.log",
        wildcard_constraints:
            evaluation_group=any_of(GROUPS_OF_PARTS),
        localrule: True
        conda:
            "../../envs/images.yaml"
        params:
            cfg=part_settings,
        script:
            "../scripts/list_part.py"
