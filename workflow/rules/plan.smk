# Estimate the cost of the grid before it is run.

from rib.reporting.settings import PlanSettings


def plan_settings(w):
    """Settings of `snakemake plan`."""
    settings = PlanSettings(config=CONFIG, catalog=FOLDERS, results=Path(f"results/{FAMILY}"))
    return to_params(settings)


rule plan:
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=plan_settings,
    script:
        "../scripts/plan.py"
