# Choose a variant of each sweep (config, select) by what is stored; the rule target needs rows of
# the select splits.

SELECTION = f"{METRICS}/tables/selection.csv"
SELECT_SPLIT = f"{RUNS}/select/{RUN_PATH}/{{evaluation_group}}"
SELECT_ROWS = [
    f"{SELECT_SPLIT}.parquet".format(**vars(run), evaluation_group=GRID.group_of(run.target))
    for run in SELECTABLE_RUNS
    if CONFIG["select"] == "target"
    and any(run.method in names for names in GRID.selection["variants"].values())
]

if GRID.selection:

    REGISTRY.analysis("selection", tables={"selection": SELECTION})

    use rule evaluate_run as score_select_split with:
        input:
            unpack(lambda w: evaluation_inputs(w, [w.target])),
        output:
            **job_files(SELECT_SPLIT, rows="parquet"),
        log:
            f"{RUN_LOGS}/select/{RUN_PATH}/{{evaluation_group}}.log",
        params:
            cfg=lambda w: evaluation_settings(w, [w.target], only=[w.target], part="select"),

    use rule compute_metrics as select_variants with:
        input:
            **INDEXED,
            counts=COUNTS,
            fit=TABLES["fit"],
            manifests=beside("manifest", SELECT_ROWS),
            rows=ancient(SELECT_ROWS),
        output:
            **table_files("selection", table=SELECTION),
        log:
            f"{LOGS}/selection.log",
        params:
            cfg=tabulation("selection:selections", **GRID.selection, **MEANS_OF_RI),
