# Compare methods: differences from a reference, paired comparisons, a ranking, the variation
# between seeds, and tables for papers.

from rib.analysis.settings import MethodComparisonSettings

COMPARISON = {
    name: f"{METRICS}/tables/{name}.csv"
    for name in ("comparisons", "comparisons_ri", "ranking", "seeds_ri")
}
SUMMARY = {ending: f"{METRICS}/tables/summary.{ending}" for ending in ("md", "tex", "csv")}

REGISTRY.figure(
    "ranking",
    analysis="comparison",
    question="method",
    inputs={"ranking": COMPARISON["ranking"]},
    settings=STYLED_MEANS,
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


def comparison_settings(w):
    """Settings of the job that compares methods."""
    settings = MethodComparisonSettings(
        ri=RI_STATISTICS,
        compare_to=GRID.compare_to,
        conditions=CONDITIONS,
        code=digest("compare_methods"),
    )
    return to_params(settings)


rule compare_methods:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **COMPARISON,
        provenance=record_of_tables("comparison"),
    log:
        f"{LOGS}/comparison.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=comparison_settings,
    script:
        "../../scripts/compare_methods.py"


use rule old_published as write_summary with:
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
        cfg=tabulation("analyses.comparison.summary:write_summary", labels=LABELS, **STATISTICS),
