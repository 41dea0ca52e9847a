# Protocol held_out: assign each source image of a dataset to a split. Datasets may share sources or
# have identical images, so they are split in the order of the catalogue; a later one does not
# change splits of earlier ones.

from rib.data.settings import SplitSettings

SPLIT = f"{RUNS}/split/{{dataset}}/{{geometry}}"


def splits_of(geometry, datasets):
    """Splits of the given datasets under protocol held_out; an empty list otherwise."""
    if not GRID.split_fractions:
        return []
    return [f"{SPLIT}.parquet".format(dataset=name, geometry=geometry) for name in datasets]


def split_of(geometry, dataset):
    """Split of a dataset under protocol held_out; an empty list otherwise."""
    if not GRID.split_fractions:
        return []
    return f"{SPLIT}.parquet".format(dataset=dataset, geometry=geometry)


def dataset_inputs(role, dataset, geometry):
    """Inputs of a job that reads a dataset's images, by name.

    Most names begin with the dataset's role.
    """
    return {
        role: prepared("manifest.json", dataset, geometry),
        "dataset_files": ancient(files_at(geometry, [dataset])),
        f"{role}_proxy": proxy_of(geometry, [dataset]),
        f"{role}_split": split_of(geometry, dataset),
    }


SPLITS = [path for key in GEOMETRIES for path in splits_of(key, GRID.datasets)]


def split_settings(wildcards):
    """Settings of a job that splits a dataset.

    Its images must be split as those of datasets that are split before it, where these share
    source images with it.
    """
    datasets_before = GRID.evaluated_before(wildcards.dataset)
    with_same_sources = GRID.split_before(wildcards.dataset)
    settings = SplitSettings(
        fractions=GRID.split_fractions,
        view=view_at(wildcards.geometry, wildcards.dataset),
        same_sources=tuple(name in with_same_sources for name in datasets_before),
        code=digest("split_dataset"),
    )
    return to_params(settings)


rule split_dataset:
    input:
        dataset=lambda wildcards: prepared("manifest.json", wildcards.dataset, wildcards.geometry),
        dataset_files=lambda wildcards: ancient(files_at(wildcards.geometry, [wildcards.dataset])),
        dataset_proxy=lambda wildcards: proxy_of(wildcards.geometry, [wildcards.dataset]),
        earlier=lambda wildcards: splits_of(
            wildcards.geometry, GRID.evaluated_before(wildcards.dataset)
        ),
        earlier_prepared=lambda wildcards: [
            prepared("manifest.json", name, wildcards.geometry)
            for name in GRID.evaluated_before(wildcards.dataset)
        ],
        earlier_indexes=lambda wildcards: ancient(
            [
                prepared("index.parquet", name, wildcards.geometry)
                for name in GRID.evaluated_before(wildcards.dataset)
            ]
        ),
    output:
        table="results/{family}/{protocol}/split/{dataset}/{geometry}.parquet",
        provenance="results/{family}/{protocol}/split/{dataset}/{geometry}.provenance.json",
    log:
        "logs/{family}/{protocol}/split/{dataset}/{geometry}.log",
    conda:
        "../../envs/images.yaml"
    resources:
        mem_mb=lambda wildcards: memory_of(
            [wildcards.dataset, *GRID.evaluated_before(wildcards.dataset)], 2000
        ),
        runtime=60,
    params:
        cfg=split_settings,
    script:
        "../scripts/split_dataset.py"
