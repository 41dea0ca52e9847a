# Figures: pure functions of tables, each as PDF, PNG and the CSV it shows. A grid without fine-tuned runs has none.

SHOWN = {name: method for name, method in GRID.methods.items() if method.form != "curve"}
COMMON = [name for name in GRID.shared_methods() if name in SHOWN]
METHOD = next(iter(name for name in ("ft", *COMMON) if name in COMMON), None)
TARGET = next(iter(name for name in (GRID.family.example_target, *GRID.targets) if name in GRID.targets), None)
FIRST = next(iter(GRID.models))
LABELS = {name: model.label for name, model in GRID.models.items()}
METHOD_LABELS = {name: method.label for name, method in SHOWN.items()}
DATASET_LABELS = {name: dataset.label for name, dataset in GRID.datasets.items()}
TARGET_LABELS = {name: DATASET_LABELS[name] for name in GRID.targets}
SHEET = {name: label for name, label in DATASET_LABELS.items() if GRID.datasets[name].publishable}
EXAMPLE = {
    "target": TARGET,
    "method": METHOD,
    "method_label": METHOD_LABELS.get(METHOD),
    "datasets": DATASET_LABELS,
}
CONFIDENCE = CONFIG["statistics"]["confidence"]
# Per figure, in the order of the page: what `draw` of its module reads, and its settings.
FIGURE_JOBS = {
    "protocol": (
        {"accuracy": TABLES["accuracy"], "ri": TABLES["ri"], "mri": TABLES["mri"]},
        {**EXAMPLE, "model": FIRST, "model_label": LABELS[FIRST], "targets": TARGET_LABELS},
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
FIGURE = f"{REPORTS}/figures/{{figure}}"
if not SHEET:
    del FIGURE_JOBS["examples"]
FIGURES = expand(f"{FIGURE}.{{ending}}", figure=FIGURE_JOBS, ending=["png", "pdf", "csv"]) if METHOD and TARGET else []


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
            "size": GRID.sizes[0],
            "geometry": vars(GRID.geometry(FIRST)),
            "code": digest(
                "figures", *(WORKFLOW / "lib/rib/figures" / name for name in (f"{w.figure}.py", "rib.mplstyle"))
            ),
        },
    script:
        "../scripts/figures.py"
