# Download published archives and check their digests. Since the content is pinned, results do not
# depend on the download code; later jobs watch the small manifest.

from rib.config.sources import content_of
from rib.data.folders import listing_of
from rib.data.settings import DownloadSettings
from rib.records import provenance


def archive_files(entry):
    """Paths of the archives of a dataset or model, such as data/raw/noto/images.zip."""
    return [f"data/raw/{entry.raw}/{archive['file']}" for archive in entry.sources]


def archive_source(name, archive):
    """Source of an archive of a dataset or model, without secrets of its addresses.

    The source is an entry of the catalogue that says where the file comes from: an address, or a
    file or folder of this machine. For a folder a listing of its files is added.
    """
    sources = {source["file"]: source for source in CATALOG.sources[name].sources}
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
    """Refuse a dataset whose archive would replace one that another family's dataset is made from.

    Datasets of two catalogue folders may have one name, and so one folder in data/raw.
    """
    for name in dict.fromkeys(dataset.raw for dataset in DATASETS_READ):
        dataset = CATALOG.datasets[name]
        families = {folder.parts[1] for folder in Path("results").glob(f"*/prepare/{name}")}
        for other_family in sorted(families - {dataset.family}):
            for archive in archive_files(dataset):
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
    """Whether two sources of an archive are one, whatever files a folder has now."""
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
            for source in entry.sources
        ),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        cfg=lambda wildcards: to_params(
            DownloadSettings(source=content_of(archive_source(wildcards.name, wildcards.archive)))
        ),
        # Where to fetch it. `input` keeps addresses out of records, so that another one runs
        # nothing again.
        source=lambda wildcards, input: CATALOG.with_addresses(
            wildcards.name, archive_source(wildcards.name, wildcards.archive)
        ),
    script:
        "../scripts/download.py"
