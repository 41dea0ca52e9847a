# Cost of one mRI of each method that is trained here, from the records of jobs. The records are not
# inputs, so that the rule also works if only rows and reports were pulled; it depends on the mRI
# table instead. Outputs differ, as times do.

from rib.analyses.cost.settings import CostSettings

COST = f"{METRICS}/tables/cost.csv"
COSTED = {
    n: [*m.parents]
    for n, m in SHOWN.items()
    if all(WHOLE_GRID.methods[k].trains for k in m.parents or [n])
}

REGISTRY.figure(
    "cost",
    analysis="cost",
    question="cost",
    inputs={"cost": COST, "mri": TABLES["mri"]},
    settings=LABELLED_MEANS,
)
REGISTRY.analysis("cost", tables={"cost": COST}, figures=["cost"])


# RECORDS_BY_STAGE and the records of Fisher information are defined in report.smk, which is included
# later.
def cost_settings(wildcards):
    """Settings of the job that sums up costs."""
    records = []
    for stage in ("finetune", "merge", "evaluate"):
        records.extend(RECORDS_BY_STAGE.get(stage, []))
    evaluated = {PRETRAINED: [PRETRAINED]}
    for method in WHOLE_GRID.methods.values():
        evaluated[method.evaluation] = list(method.evaluated)
    settings = CostSettings(
        records=records,
        evaluated=evaluated,
        fisher={name: paths for name, paths in FISHER_RECORDS.items() if name in COSTED},
        shared_fisher=SHARED_FISHER_RECORDS,
        parents=COSTED,
        conditions=CONDITIONS,
        code=digest("count_costs"),
    )
    return to_params(settings)


rule count_costs:
    input:
        mri=TABLES["mri"],
        fit=TABLES["fit"],
    output:
        **table_files("cost", cost=COST),
    log:
        f"{LOGS}/cost.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **SMALL_TABLES,
    params:
        cfg=cost_settings,
    script:
        "../../scripts/count_costs.py"
