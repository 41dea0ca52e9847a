# Download published archives and check their digests. Since the content is pinned, results do not
# depend on the download code; later jobs watch the small manifest.

from rib.config.sources import content_of
from rib.data.folders import listing
from rib.data.settings import DownloadSettings


def archive_files(entry):
    """Paths of an entry's archives."""
    return [f"data/raw/{entry.raw}/{archive['file']}" for archive in entry.sources]


def archive_source(w):
    """Source of the archive that a job fetches, without secrets of its addresses.

    For a folder it includes a listing of its files.
    """
    sources = {source["file"]: source for source in CATALOG.sources[w.name].sources}
    source = dict(sources[w.archive])
    if source["kind"] in ("file", "folder"):
        source["path"] = local(source["path"])
    if source["kind"] == "folder":
        try:
            source["listing"] = listing(Path(source["path"]))
        except UserError as error:
            raise UserError(f"{w.name}: {error}") from None
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
        cfg=lambda w: to_params(DownloadSettings(source=content_of(archive_source(w)))),
        # Where to fetch it. `input` keeps addresses out of records, so that another one runs
        # nothing again.
        source=lambda w, input: CATALOG.with_addresses(w.name, archive_source(w)),
    script:
        "../scripts/download.py"
