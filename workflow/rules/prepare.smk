# Each image decoded and resized, or drawn, once per geometry.

GEOMETRIES = {geometry.key: geometry for geometry in map(GRID.geometry, GRID.models)}


def preparation(w):
    entry = CATALOG.datasets[w.dataset]
    layout = CATALOG.layout_file(entry.layout)
    return {
        "digest": entry.source["digest"],
        "layout": local(layout),
        "arguments": {
            **entry.settings,
            "source_group": entry.source_group,
            "icons": CATALOG.icons(entry),
            "exclude": entry.exclude,
        },
        "space": SPACE.to_json(),
        "geometry": vars(GEOMETRIES[w.geometry]),
        "code": digest("prepare", layout),
    }


rule prepare:
    input:
        archive=lambda w: ancient(archive(CATALOG.datasets[w.dataset])),
    output:
        images=f"{PREPARED}/images.npy",
        index=f"{PREPARED}/index.parquet",
        classes=f"{PREPARED}/classes.json",
        manifest=f"{PREPARED}/manifest.json",
        provenance=f"{PREPARED}/provenance.json",
    log:
        f"{LOGS}/prepare/{{dataset}}/{{geometry}}.log",
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        cfg=preparation,
    script:
        "../scripts/prepare.py"
