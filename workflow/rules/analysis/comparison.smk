# Compare methods: differences from a reference, paired comparisons, a ranking, the variation
# between seeds, and tables for papers.

COMPARISON = {
    name: f"{METRICS}/tables/{name}.csv"
    for name in ("comparisons", "comparisons_ri", "ranking", "seeds_ri")
}
SUMMARY = {ending: f"{METRICS}/tables/summary.{ending}" for ending in ("md", "tex", "csv")}

REGISTRY.figure(
    "ranking", question="method", inputs={"ranking": COMPARISON["ranking"]}, settings=STYLED_MEANS
)
REGISTRY.analysis(
    "comparison",
    tables={name: COMPARISON[name] for name in ("ranking", "comparisons", "seeds_ri")},
    figures=["ranking"],
    files={
        "RI of every target and mRI, for papers and notes": list(SUMMARY.values()),
        "Methods compared per target": [COMPARISON["comparisons_ri"]],
    },
)


use rule compute_metrics as compare_methods with:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **table_files("comparison", **COMPARISON),
    log:
        f"{LOGS}/comparison.log",
    params:
        cfg=tabulation("comparison:comparison_tables", compare_to=GRID.compare_to, **MEANS_OF_RI),


use rule compare_published as write_summary with:
    input:
        **{
            name: COMPARISON[name]
            for name in ("seeds_ri", "comparisons", "comparisons_ri", "ranking")
        },
        **{name: TABLES[name] for name in ("mri", "fit")},
    output:
        **table_files("summary", **SUMMARY),
    log:
        f"{LOGS}/summary.log",
    params:
        cfg=tabulation("summary:write_summary", labels=LABELS, **STATISTICS),
