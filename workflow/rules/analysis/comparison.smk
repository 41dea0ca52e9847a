# Compare methods: differences from a reference, paired comparisons, a ranking, the variation
# between seeds, and tables for papers.

# Uses TABLES, COUNTS and RI_STATISTICS of metrics.smk, and labels of figures.smk.

from rib.analyses.comparison.settings import SummaryLabels, SummarySettings
from rib.statistics.settings import MethodComparisonSettings

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


def comparison_settings(wildcards):
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
        **table_files("comparison", **COMPARISON),
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


def summary_settings(wildcards):
    """Settings of the job that writes tables for papers."""
    settings = SummarySettings(
        labels=SummaryLabels(models=MODEL_LABELS, methods=METHOD_LABELS, targets=TARGET_LABELS),
        confidence=CONFIDENCE,
        conditions=CONDITIONS,
        code=digest("write_summary"),
    )
    return to_params(settings)


rule write_summary:
    input:
        seeds_ri=COMPARISON["seeds_ri"],
        comparisons=COMPARISON["comparisons"],
        comparisons_ri=COMPARISON["comparisons_ri"],
        ranking=COMPARISON["ranking"],
        mri=TABLES["mri"],
        fit=TABLES["fit"],
    output:
        **table_files("summary", **SUMMARY),
    log:
        f"{LOGS}/summary.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **SMALL_TABLES,
    params:
        cfg=summary_settings,
    script:
        "../../scripts/write_summary.py"
