# Archives as published, fetched by their package client, digest checked.

SOURCES = {entry.name: entry for entry in [*CATALOG.datasets.values(), *CATALOG.models.values()]}


rule download:
    output:
        archive="data/raw/{name}/{archive}",
        provenance="data/raw/{name}/{archive}.provenance.json",
    log:
        "logs/download/{name}/{archive}.log",
    wildcard_constraints:
        name="|".join(SOURCES),
        archive=r"(?!.*\.provenance\.json$)[^/]+",
    conda:
        "../../envs/fetch.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        cfg=lambda w: {"source": SOURCES[w.name].source, "code": digest("download")},
    script:
        "../scripts/download.py"
