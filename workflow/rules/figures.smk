# Figures: pure functions of tables, each as PDF, PNG and the CSV it shows. A grid without fine-tuned runs has none.

PAPER_BARS = ("ood_before", "ood_after")
# The paper's bars that this run has too.
IN_PAPER = {
    row["model"]: {when: float(row[f"ood_{when}"]) for when in ("before", "after")}
    for row in CATALOG.table("paper.csv", ("family", "model", "method", *PAPER_BARS, "source"), PAPER_BARS)
    if (row["family"], row["method"], CONFIG["protocol"]) == (FAMILY, METHOD, "paper") and row["model"] in GRID.models
}
# Of the example's datasets those without a part in its RI, and why.
NOT_IN_RI = {
    name: "in distribution" if GRID.datasets[name].role != "ood" else "variant"
    for name in GRID.datasets
    if name not in GRID.ood()
} | {
    name: "shared images"
    for name in GRID.ood()
    if LEAK_FREE_GROUPS and TARGET in GROUPS and GROUPS.get(name) == GROUPS[TARGET]
}
# Per figure, in the order of the page: what `draw` of its module reads, and its settings.
FIGURE_JOBS = {
    "protocol": (
        {
            **{name: TABLES[name] for name in ("accuracy", "ri", "mri")},
            **({"splits": SPLIT_COUNTS} if GRID.shares else {}),
        },
        {
            **EXAMPLE,
            "size": GRID.shown_size,
            "left_out": NOT_IN_RI,
            "model": FIRST,
            "model_label": LABELS[FIRST],
            "targets": TARGET_LABELS,
        },
    ),
    "before_after": (
        {"ood": TABLES["ood"]},
        {
            "method": METHOD,
            "method_label": METHOD_LABELS.get(METHOD),
            "labels": LABELS,
            "datasets": len(GRID.ood()),
            "targets": len(GRID.targets),
            "confidence": CONFIDENCE,
            "paper": IN_PAPER,
        },
    ),
    "ri_matrix": (
        {"ri": TABLES["ri"], "mri": TABLES["mri"]},
        {
            "models": LABELS,
            "methods": METHOD_LABELS,
            "targets": TARGET_LABELS,
            "shared": [name for name in GRID.targets if list(GROUPS.values()).count(GROUPS.get(name)) > 1],
            "confidence": CONFIDENCE,
        },
    ),
    "accuracy_matrix": (
        {"accuracy": TABLES["accuracy"]},
        {
            "models": LABELS,
            "methods": METHOD_LABELS,
            "targets": TARGET_LABELS,
            "datasets": DATASET_LABELS,
            "groups": GROUPS,
        },
    ),
    "radar": (
        {"accuracy": TABLES["accuracy"]},
        {
            **EXAMPLE,
            "models": {
                name: {"label": GRID.models[name].label, **GRID.models[name].style} for name in list(LABELS)[:2]
            },
        },
    ),
    "examples": (
        {
            "rows": [path for path in ROWS if f"/{FIRST}/none/pretrained/" in path],
            "images": [prepared("manifest.json", name, geometry(FIRST)) for name in SHEET],
        },
        {"datasets": SHEET, "model_label": LABELS[FIRST], "objects": 8},
    ),
}
if not SHEET:
    del FIGURE_JOBS["examples"]
FIGURES = figure_files(FIGURE_JOBS) if METHOD and TARGET else []
for analysis in ANALYSES.values():
    FIGURE_JOBS |= analysis["figures"]
    if analysis["chosen"] and METHOD and TARGET:
        FIGURES += figure_files(analysis["figures"])


rule plot_figure:
    input:
        unpack(lambda w: FIGURE_JOBS[w.figure][0]),
    output:
        png=report(f"{FIGURE}.png", caption="../report/figures.rst", category="Figures"),
        pdf=f"{FIGURE}.pdf",
        csv=f"{FIGURE}.csv",
        provenance=f"{FIGURE}.provenance.json",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(FIGURE_JOBS),
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=lambda w: memory(SHEET, 1000) if w.figure == "examples" else 1000,
        runtime=10,
    params:
        cfg=lambda w: {
            "settings": FIGURE_JOBS[w.figure][1],
            "size": GRID.shown_size,
            "sizes": GRID.sizes,
            "geometry": vars(GRID.geometry(FIRST)),
            "code": digest(
                "figures", *(WORKFLOW / "lib/rib/figures" / name for name in (f"{w.figure}.py", "rib.mplstyle"))
            ),
        },
    script:
        "../scripts/figures.py"
