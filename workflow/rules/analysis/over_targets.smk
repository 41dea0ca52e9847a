# Merges over targets have no target and no RI: accuracy on the datasets that none of their parents
# was trained on.
# Uses evaluate and its functions of evaluate.smk, and FIT_RULE, INDEXED, TABLES_OF_ROWS and
# table_files of metrics.smk.

from rib.analyses.over_targets.settings import OverTargetsSettings

OVER_TARGETS = f"{METRICS}/tables/merges_over_targets.csv"
# The datasets by evaluation group, and rows of the merges and of the pretrained models on them.
LEFT = {
    group: [name for name in names if name in GRID.not_trained_on]
    for group, names in EVALUATION_GROUPS.items()
}
LEFT_GROUPS = [group for group in LEFT if LEFT[group]]
OVER_TARGETS_ROWS = rows_of(GRID.runs_over_targets(), "evaluate_over_targets", LEFT_GROUPS)
BEFORE_ROWS = rows_of(PRETRAINED_RUNS.values(), groups=LEFT_GROUPS)


def inputs_on_datasets_left(wildcards):
    """Inputs of a job that scores a merge over targets on datasets that it was not trained on."""
    return evaluation_inputs(wildcards, LEFT[wildcards.group])


def over_targets_settings(wildcards):
    """Settings of the job that tabulates merges over targets."""
    settings = OverTargetsSettings(
        methods=[PRETRAINED, *GRID.over_targets],
        datasets=GRID.not_trained_on,
        fit=FIT_RULE,
        **CONFIG["statistics"],
        conditions=CONDITIONS,
        code=digest("tabulate_over_targets"),
    )
    return to_params(settings)


if GRID.over_targets:

    REGISTRY.analysis("over_targets", tables={"merges_over_targets": OVER_TARGETS})

    use rule evaluate as evaluate_over_targets with:
        input:
            unpack(inputs_on_datasets_left),
        output:
            rows="results/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.parquet",
            manifest="results/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.manifest.json",
            provenance="results/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.provenance.json",
        log:
            "logs/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.log",
        params:
            cfg=lambda wildcards: evaluation_settings(wildcards, LEFT[wildcards.group]),

    rule tabulate_over_targets:
        input:
            **INDEXED,
            manifests=beside("manifest", [*BEFORE_ROWS, *OVER_TARGETS_ROWS]),
            rows=ancient([*BEFORE_ROWS, *OVER_TARGETS_ROWS]),
        output:
            **table_files("over_targets", merges_over_targets=OVER_TARGETS),
        log:
            f"{LOGS}/over_targets.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            **TABLES_OF_ROWS,
        params:
            cfg=over_targets_settings,
        script:
            "../../scripts/tabulate_over_targets.py"
