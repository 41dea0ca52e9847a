# The page of a run: what was run, tables, figures, how to cite. Snakemake's own report is made after a run (Makefile).


report: "../report/workflow.rst"


PAGE = f"{REPORTS}/index.html"
# Records of the jobs behind the rows. No inputs: the page can then be made anew where only rows and reports were pulled.
UPSTREAM = [
    *(
        f"{path}.provenance.json"
        for entry in (
            *GRID.datasets.values(),
            *([GRID.reference.dataset] if GRID.reference else []),
            *GRID.models.values(),
        )
        for path in archives(entry)
    ),
    *dict.fromkeys(
        prepared("provenance.json", dataset, geometry(model)) for model in GRID.models for dataset in GRID.datasets
    ),
    *expand(f"{MODEL}/provenance.json", model=GRID.models),
    *(
        f"{RUNS}/{'finetune' if GRID.methods[run.method].trains else 'merge'}/{RUN}/provenance.json".format(**vars(run))
        for run in GRID.runs()
        if run.method != PRETRAINED
    ),
    *(path.replace(".parquet", ".provenance.json") for path in ROWS),
]
RECORDS = [
    f"{REPORTS}/tables/provenance.json",
    *(path.replace(".png", ".provenance.json") for path in FIGURES if path.endswith(".png")),
]


rule write_page:
    input:
        mri=TABLES["mri"],
        ri=TABLES["ri"],
        accuracy=TABLES["accuracy"],
        figures=[path for path in FIGURES if path.endswith(".png")],
        records=RECORDS,
        captions=local(WORKFLOW / "report/figures.rst"),
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
            "prepared": {name: prepared("manifest.json", name, geometry(FIRST)) for name in GRID.datasets},
            "about": {
                "config": GRID.resolved(),
                "family": {"title": GRID.family.title, "description": GRID.family.description},
                "targets": GRID.targets,
                "ood": GRID.ood(),
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
