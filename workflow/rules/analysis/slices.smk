# Accuracy by slices, columns that a layout adds to a dataset's index: snakemake slices --config slices='[severity]'

SLICES = f"{REPORTS}/tables/accuracy_by_slice.csv"

REGISTRY.analysis("slices", tables={"slices": SLICES}, optional=True)


use rule compare_samples as compare_slices with:
    output:
        **table_files("accuracy_by_slice", table=SLICES),
    log:
        f"{LOGS}/slices.log",
    params:
        cfg=tabulation("slices:write_slices", slices=CONFIG["slices"], conditions=CONDITIONS),
