# Figures: pure functions of tables, each as PDF, PNG and the CSV it shows.

FIGURES = [f"{REPORTS}/figures/before_after.{ending}" for ending in ("png", "pdf", "csv")]


rule plot_before_after:
    input:
        ood=TABLES["ood"],
    output:
        png=FIGURES[0],
        pdf=FIGURES[1],
        csv=FIGURES[2],
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
            "code": digest("figures"),
        },
    script:
        "../scripts/figures.py"
