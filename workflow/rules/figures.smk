# Figures: pure functions of tables, each as PDF, PNG and the CSV it shows.

BEFORE_AFTER = {ending: f"{REPORTS}/figures/before_after.{ending}" for ending in ("png", "pdf", "csv")}
# The paper's figure shows full fine-tuning; a grid without it has tables only.
FIGURES = list(BEFORE_AFTER.values()) if "ft" in GRID.methods else []


rule plot_before_after:
    input:
        ood=TABLES["ood"],
    output:
        **BEFORE_AFTER,
        provenance=f"{REPORTS}/figures/before_after.provenance.json",
    log:
        f"{LOGS}/figures/before_after.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cfg={
            "method": "ft",
            "labels": {name: model.label for name, model in GRID.models.items()},
            "method_label": CATALOG.methods["ft"].label,
            "datasets": len(GRID.datasets),
            "targets": len(GRID.targets),
            "confidence": CONFIG["statistics"]["confidence"],
            "code": digest("figures", WORKFLOW / "lib/rib/figures/rib.mplstyle"),
        },
    script:
        "../scripts/figures.py"
