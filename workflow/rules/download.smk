# Download published archives and check their digests. Since the content is pinned, results do not depend on the
# download code; later jobs watch the small manifest.

from rib.data.folders import listing


def archive_files(entry):
    """Paths of an entry's archives."""
    return [f"data/raw/{entry.raw}/{archive['file']}" for archive in entry.sources]


def archive_source(w):
    """Settings of a download job; for a folder they include a listing of its files."""
    found = next(
        archive for archive in CATALOG.sources[w.name].sources if archive["file"] == w.archive
    )
    if found["kind"] in ("file", "folder"):
        found = {**found, "path": local(found["path"])}
    if found["kind"] != "folder":
        return found
    try:
        return {**found, "listing": listing(Path(found["path"]))}
    except UserError as error:
        raise UserError(f"{w.name}: {error}") from None


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
            re.escape(part["file"]) for entry in CATALOG.sources.values() for part in entry.sources
        ),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        cfg=lambda w: {"source": archive_source(w)},
        urls=lambda w, input: CATALOG.urls.get((w.name, w.archive), []),  # `input` keeps signatures out of records
    script:
        "../scripts/download.py"
