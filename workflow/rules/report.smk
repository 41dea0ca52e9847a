# The page of a run: what was run, tables, figures, how to cite. Snakemake's own report is made after a run (Makefile).


report: "../report/workflow.rst"


PAGE = f"{REPORTS}/index.html"
OF_RUNS = {
    stage: [
        f"{RUNS}/{stage}/{RUN}/provenance.json".format(**vars(run))
        for run in GRID.runs()
        if run.method != PRETRAINED and GRID.methods[run.method].trains == (stage == "finetune")
    ]
    for stage in ("finetune", "merge")
}
# Records of the jobs behind the tables, by stage.
CELLS = {
    "download": [
        f"{path}.provenance.json" for entry in (*DATASETS_READ, *GRID.models.values()) for path in archives(entry)
    ],
    "prepare": list(
        dict.fromkeys(
            prepared("provenance.json", entry.name, geometry(model)) for model in GRID.models for entry in DATASETS_READ
        )
    ),
    **({"split": [path.replace(".parquet", ".provenance.json") for path in SPLITS]} if GRID.shares else {}),
    "models": expand(f"{MODEL}/provenance.json", model=GRID.models),
    **OF_RUNS,
    "evaluate": [path.replace(".parquet", ".provenance.json") for path in ROWS],
}
# No inputs of the page, which can then be made anew where only rows and reports were pulled.
UPSTREAM = [path for paths in CELLS.values() for path in paths]
RECORDS = [
    f"{REPORTS}/tables/provenance.json",
    *(path.replace(".png", ".provenance.json") for path in FIGURES if path.endswith(".png")),
]


rule write_page:
    input:
        mri=TABLES["mri"],
        ri=TABLES["ri"],
        accuracy=TABLES["accuracy"],
        extra=list(EXTRA_TABLES.values()),
        files=list(dict.fromkeys(path for paths in EXTRA_FILES.values() for path in paths)),
        figures=[path for path in FIGURES if path.endswith(".png")],
        records=RECORDS,
        captions=local(WORKFLOW / "report/figures.rst"),
        columns=local(WORKFLOW / "report/tables.yaml"),
        citation=local(WORKFLOW.parent / "CITATION.cff"),
    output:
        page=PAGE,
        provenance=f"{REPORTS}/index.provenance.json",
    log:
        f"{LOGS}/report.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cfg={
            "upstream": UPSTREAM,
            "extra": list(EXTRA_TABLES),
            "files": {title: [Path(path).name for path in paths] for title, paths in EXTRA_FILES.items()},
            "prepared": {
                entry.label: prepared("manifest.json", entry.name, geometry(FIRST)) for entry in DATASETS_READ
            },
            "about": {
                "config": GRID.resolved(),
                "family": {"title": GRID.family.title, "description": GRID.family.description},
                "targets": GRID.targets,
                "ood": GRID.ood(),
                "sizes": GRID.sizes,
                "shown_size": GRID.shown_size,
                "conditions": GRID.conditions(),
                "datasets": {
                    name: {key: getattr(entry, key) for key in ("label", "licence", "origin")}
                    for name, entry in GRID.datasets.items()
                },
                "models": {
                    name: {key: getattr(entry, key) for key in ("label", "architecture", "pretraining", "licence")}
                    for name, entry in GRID.models.items()
                },
                "methods": {
                    name: {"label": method.label, "settings": method.settings, "source": method.source}
                    for name, method in GRID.methods.items()
                },
            },
            "code": digest("report", WORKFLOW / "lib/rib/report.html.jinja"),
        },
    script:
        "../scripts/report.py"
