# Protocol held_out: assign each source image of a dataset to a split. Datasets may share sources or
# have identical images, so they are split in the order of the catalogue; a later one does not
# change splits of earlier ones.

from rib.data.settings import SplitSettings


def dataset_inputs(role, dataset, geometry):
    """Inputs of a job that reads a dataset's images, by name.

    Most names begin with the dataset's role.
    """
    return {
        role: PATHS.prepared("manifest.json", dataset, geometry),
        "dataset_files": ancient(PATHS.prepared_files(geometry, [dataset])),
        f"{role}_proxy": PATHS.proxy(geometry, [dataset]),
        f"{role}_split": PATHS.split(geometry, dataset),
    }


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
        dataset=lambda wildcards: PATHS.prepared(
            "manifest.json", wildcards.dataset, wildcards.geometry
        ),
        dataset_files=lambda wildcards: ancient(
            PATHS.prepared_files(wildcards.geometry, [wildcards.dataset])
        ),
        dataset_proxy=lambda wildcards: PATHS.proxy(wildcards.geometry, [wildcards.dataset]),
        earlier=lambda wildcards: PATHS.splits(
            wildcards.geometry, GRID.evaluated_before(wildcards.dataset)
        ),
        earlier_prepared=lambda wildcards: [
            PATHS.prepared("manifest.json", name, wildcards.geometry)
            for name in GRID.evaluated_before(wildcards.dataset)
        ],
        earlier_indexes=lambda wildcards: ancient(
            [
                PATHS.prepared("index.parquet", name, wildcards.geometry)
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
