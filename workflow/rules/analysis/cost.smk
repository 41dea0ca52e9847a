# Cost of one mRI of each method that is trained here, from the records of jobs. The records are not
# inputs, so that the rule also works if only rows and reports were pulled; it depends on the mRI
# table instead. Outputs differ, as times do.

COST = f"{METRICS}/tables/cost.csv"
COSTED = {
    n: [*m.parents]
    for n, m in SHOWN.items()
    if all(WHOLE_GRID.methods[k].trains for k in m.parents or [n])
}

REGISTRY.figure(
    "cost", question="cost", inputs={"cost": COST, "mri": TABLES["mri"]}, settings=LABELLED_MEANS
)
REGISTRY.analysis("cost", tables={"cost": COST}, figures=["cost"])


use rule compare_published as count_costs with:
    input:
        mri=TABLES["mri"],
        fit=TABLES["fit"],
    output:
        **table_files("cost", table=COST),
    log:
        f"{LOGS}/cost.log",
    params:
        # RECORDS_BY_STAGE is defined in report.smk, which is included later.
        cfg=lambda w: tabulation(
            "cost:cost_of",
            records=[
                path
                for stage in ("finetune", "merge", "evaluate")
                for path in RECORDS_BY_STAGE[stage]
            ],
            fisher={name: paths for name, paths in FISHER_RECORDS.items() if name in COSTED},
            shared_fisher={name: list(paths) for name, paths in SHARED_FISHER_RECORDS.items()},
            parents=COSTED,
            conditions=CONDITIONS,
        ),
