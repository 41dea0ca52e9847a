# Which method is better? Paired comparisons, a ranking with ties, the spread over seeds, and tables for papers.

COMPARISON = {
    name: f"{REPORTS}/tables/{name}.csv" for name in ("comparisons", "comparisons_ri", "ranking", "seeds", "seeds_ri")
}
SUMMARY = {ending: f"{REPORTS}/tables/summary.{ending}" for ending in ("md", "tex", "csv")}


rule compare_methods:
    input:
        counts=COUNTS,
    output:
        **COMPARISON,
        provenance=f"{REPORTS}/tables/comparison.provenance.json",
    log:
        f"{LOGS}/comparison.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=memory(GRID.datasets, 2000),
        runtime=720 if LARGE_SETS else 30,
    params:
        cfg={
            "among": GRID.ood(),
            "groups": LEAK_FREE_GROUPS,
            "conditions": "; ".join(GRID.conditions()),
            "statistics": CONFIG["statistics"],
            "code": digest("comparison"),
        },
    script:
        "../../scripts/comparison.py"


rule write_summary:
    input:
        **{name: COMPARISON[name] for name in ("seeds", "seeds_ri", "comparisons", "comparisons_ri")},
    output:
        **SUMMARY,
        provenance=f"{REPORTS}/tables/summary.provenance.json",
    log:
        f"{LOGS}/summary.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cfg={
            "labels": {"models": LABELS, "methods": METHOD_LABELS, "targets": TARGET_LABELS},
            "conditions": "; ".join(GRID.conditions()),
            "confidence": CONFIDENCE,
            "code": digest("summary"),
        },
    script:
        "../../scripts/summary.py"


analysis(
    "comparison",
    tables={name: COMPARISON[name] for name in ("ranking", "comparisons", "seeds", "seeds_ri")},
    figures={
        "ranking": (
            {"ranking": COMPARISON["ranking"], "seeds": COMPARISON["seeds"]},
            {"models": LABELS, "methods": METHOD_LOOKS, "confidence": CONFIDENCE},
        ),
    },
    optional=False,
    files={
        "RI of every target and mRI, for papers and notes": list(SUMMARY.values()),
        "Methods compared per target": [COMPARISON["comparisons_ri"]],
    },
)
