# Archives as published, fetched by their package client, digest checked. Their bytes are pinned, so the code that
# fetches them is no part of what they depend on; what is made of them watches the small manifest.


rule download:
    output:
        archive="data/raw/{name}/{archive}",
        manifest="data/raw/{name}/{archive}.manifest.json",
        provenance="data/raw/{name}/{archive}.provenance.json",
    log:
        "logs/download/{name}/{archive}.log",
    wildcard_constraints:
        name="|".join(map(re.escape, SOURCES)),
        archive="|".join(re.escape(part["file"]) for entry in SOURCES.values() for part in entry.sources),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        cfg=lambda w: {"source": source(w)},
    script:
        "../scripts/download.py"
