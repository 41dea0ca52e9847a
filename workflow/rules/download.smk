# Download published archives and check their digests. Since the content is pinned, results do not
# depend on the download code; later jobs watch the small manifest.

from rib.config.sources import content_of
from rib.data.folders import listing_of
from rib.data.settings import DownloadSettings


def archive_files(entry):
    """Paths of the archives of a dataset or model, such as data/raw/noto/images.zip."""
    return [f"data/raw/{entry.raw}/{archive['file']}" for archive in entry.sources]


def archive_source(wildcards):
    """Source of the archive that a job fetches, without secrets of its addresses.

    The source is an entry of the catalogue that says where the file comes from: an address, or a
    file or folder of this machine. For a folder a listing of its files is added.
    """
    sources = {source["file"]: source for source in CATALOG.sources[wildcards.name].sources}
    source = dict(sources[wildcards.archive])
    if source["kind"] in ("file", "folder"):
        source["path"] = local(source["path"])
    if source["kind"] == "folder":
        try:
            archive = Path("data/raw", wildcards.name, wildcards.archive)
            source["listing"] = listing_of(source, archive)
        except UserError as error:
            raise UserError(f"{wildcards.name}: {error}") from None
    return source


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
            DownloadSettings(source=content_of(archive_source(wildcards)))
        ),
        # Where to fetch it. `input` keeps addresses out of records, so that another one runs
        # nothing again.
        source=lambda wildcards, input: CATALOG.with_addresses(
            wildcards.name, archive_source(wildcards)
        ),
    script:
        "../scripts/download.py"
