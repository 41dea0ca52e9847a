# Download published archives and check their digests. Since the content is pinned, results do not
# depend on the download code; later jobs watch the small manifest.

from rib.grid.leaks import evaluated_before, split_before
from rib.schema.addresses import content_of
from rib.data.folders import listing_of
from rib.data.data_settings import DownloadSettings, PreparationSettings, SplitSettings
from rib.records import provenance


def archive_source(name, archive):
    """Source of an archive (address, file or folder) without secrets in addresses.

    A folder's source gets a listing of the files.
    """
    sources = {source["file"]: source for source in CATALOG.sources[name].archives}
    source = dict(sources[archive])
    if source["kind"] in ("file", "folder"):
        source["path"] = local(source["path"])
    if source["kind"] == "folder":
        try:
            source["listing"] = listing_of(source, Path("data/raw", name, archive))
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    return source


def refuse_archives_of_other_families():
    """Refuse a dataset whose archive would replace one that another family was prepared from.

    Datasets of two catalogue folders may have the same name, and thus the same folder in data/raw.
    """
    for name in dict.fromkeys(dataset.raw for dataset in DATASETS_READ):
        dataset = CATALOG.datasets[name]
        folders = Path("results").glob(f"*/prepare/{name}")
        families = {PATHS.family_of(folder) for folder in folders}
        for other_family in sorted(families - {dataset.family}):
            for archive in PATHS.archives(dataset):
                record = provenance.read(Path(f"{archive}.provenance.json"))
                if record is None:
                    continue
                source = content_of(archive_source(name, Path(archive).name))
                if not is_same_source(record["cfg"]["source"], source):
                    raise UserError(
                        f"datasets.yaml, {name}: {archive} is from the source of another dataset "
                        f"of this name, of family {other_family}; rename this one, or delete "
                        f"results/{other_family} if you no longer need it."
                    )


def is_same_source(source, other):
    """Compared without the listing, which changes with a folder's files."""
    return {**source, "listing": None} == {**other, "listing": None}


refuse_archives_of_other_families()


rule download:
    output:
        archive="data/raw/{name}/{archive}",
        manifest="data/raw/{name}/{archive}.manifest.json",
        provenance="data/raw/{name}/{archive}.provenance.json",
    log:
        "logs/download/{name}/{archive}.log",
    wildcard_constraints:
        name="|".join(map(re.escape, CATALOG.sources)),
        archive="|".join(
            re.escape(source["file"])
            for entry in CATALOG.sources.values()
            for source in entry.archives
        ),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        cfg=lambda wildcards: to_params(
            DownloadSettings(source=content_of(archive_source(wildcards.name, wildcards.archive)))
        ),
        # Where to fetch it. The argument `input` keeps addresses out of records, so another address
        # repeats no job.
        source=lambda wildcards, input: CATALOG.with_addresses(
            wildcards.name, archive_source(wildcards.name, wildcards.archive)
        ),
    script:
        "../scripts/download.py"


# Decode and resize, or draw, each image once per geometry; images of very large datasets
# are checked and kept encoded.

FEW_IMAGES = 5000  # up to this number, one thread decodes them
MINUTES_OF_FEW_IMAGES = 60
MINUTES_OF_MANY_IMAGES = 720
# Datasets whose images several threads decode.
MANY_IMAGES = {
    name
    for name, entry in CATALOG.datasets.items()
    if (entry.images or entry.about_images or 0) > FEW_IMAGES
}


# Geometries of the models, with and without crop.
PREPARED_GEOMETRIES = dict(PATHS.geometries)
for PREPARED_GEOMETRY in PATHS.geometries.values():
    UNCROPPED_GEOMETRY = PREPARED_GEOMETRY.without_crop()
    PREPARED_GEOMETRIES[UNCROPPED_GEOMETRY.key] = UNCROPPED_GEOMETRY


def decode_workers_of(wildcards):
    """Threads that decode a dataset's images in preparation; a small dataset needs one."""
    return decode_workers(beside_gpu=False) if wildcards.dataset in MANY_IMAGES else 1


def preparation_settings(wildcards):
    """Settings of a job that prepares a dataset, with the layout files that it runs."""
    entry = CATALOG.datasets[wildcards.dataset]
    layouts = [CATALOG.layout_file(entry.layout)]
    photos_layout = CATALOG.photos_layout_file(entry)
    if photos_layout:
        layouts.append(photos_layout)
    fields = {  # a dict because `storage` is a keyword of Snakemake
        "digests": tuple(archive.get("digest") for archive in entry.archives),
        "layout": local(layouts[0]),
        "photos_layout": local(photos_layout) if photos_layout else None,
        "settings": entry.settings,
        "source_group": entry.source_group,
        "icons": CATALOG.icons(entry),
        "exclude": sorted(entry.exclude),
        "only": CATALOG.only(entry),
        "file_digests": CATALOG.file_digests(entry),
        "space": CATALOG.label_space(entry),
        "classes_per_dataset": GRID.family.classes_per_dataset,
        "storage": entry.storage,
        "geometry": PREPARED_GEOMETRIES.get(wildcards.geometry),  # None for `encoded`
        "expected": entry.images,
        "about": entry.about_images,
        "code": digest("prepare", *layouts),
    }
    return to_params(PreparationSettings(**fields))


rule prepare:
    input:
        manifests=lambda wildcards: [
            f"{path}.manifest.json" for path in PATHS.archives(CATALOG.datasets[wildcards.dataset])
        ],
        archives=lambda wildcards: ancient(PATHS.archives(CATALOG.datasets[wildcards.dataset])),
    output:
        images="results/{family}/prepare/{dataset}/{geometry}/images.npy",
        index="results/{family}/prepare/{dataset}/{geometry}/index.parquet",
        classes="results/{family}/prepare/{dataset}/{geometry}/classes.json",
        manifest="results/{family}/prepare/{dataset}/{geometry}/manifest.json",
        provenance="results/{family}/prepare/{dataset}/{geometry}/provenance.json",
    log:
        "logs/{family}/prepare/{dataset}/{geometry}.log",
    priority: 1  # before trainings: checks of their labels read all datasets
    conda:
        "../../envs/images.yaml"
    threads: decode_workers_of
    resources:
        mem_mb=2000,
        runtime=lambda wildcards: time_limit(
            MINUTES_OF_MANY_IMAGES if wildcards.dataset in MANY_IMAGES else MINUTES_OF_FEW_IMAGES
        ),
    params:
        cfg=preparation_settings,
        # For messages. The argument `input` keeps it out of records, so another folder with the
        # same images repeats nothing.
        folders=lambda wildcards, input: CATALOG.datasets[wildcards.dataset].folders,
    script:
        "../scripts/prepare.py"


# Protocol held_out: assign each source image of a dataset to a split. Datasets may share sources
# or have identical images, so they are split in catalogue order; a later dataset does not change
# earlier splits.


def split_settings(wildcards):
    """Settings of a job that splits a dataset; shared source images keep their earlier split."""
    datasets_before = evaluated_before(GRID, wildcards.dataset)
    with_same_sources = split_before(GRID, wildcards.dataset)
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
            wildcards.geometry, evaluated_before(GRID, wildcards.dataset)
        ),
        earlier_prepared=lambda wildcards: [
            PATHS.prepared("manifest.json", name, wildcards.geometry)
            for name in evaluated_before(GRID, wildcards.dataset)
        ],
        earlier_indexes=lambda wildcards: ancient(
            [
                PATHS.prepared("index.parquet", name, wildcards.geometry)
                for name in evaluated_before(GRID, wildcards.dataset)
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
            [wildcards.dataset, *evaluated_before(GRID, wildcards.dataset)], 2000
        ),
        runtime=time_limit(60),
    params:
        cfg=split_settings,
    script:
        "../scripts/split_dataset.py"
