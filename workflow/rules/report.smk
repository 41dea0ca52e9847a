# Write the page of a run, with tables, figures and provenance. Snakemake's own report is made after
# a run (Makefile).

from rib.report.about import page_settings


report: "../report/workflow.rst"


PAGE = f"{REPORT}/index.html"
PAGE_TABLES = list(TABLES.values())
PAGE_FIGURES = []
for NAME, ANALYSIS in CHOSEN_ANALYSES.items():
    PAGE_TABLES.extend(tables_of(NAME).values())
    PAGE_FIGURES.extend(ANALYSIS.figures)
CELLS = [path for path in PAGE_TABLES if Path(path).name == "cells.json"]
# Files of rib.report of which the page is made; digests leave this package out.
PAGE_CODE = [
    *sorted(REPORTING.glob("page*")),
    REPORTING / "answer.py",
    REPORTING / "citation.jinja",
    REPORTING / "settings.py",
    REPORTING / "stale.py",
    REPORTING / "views.py",
]


def files_of_figures(endings):
    """Files of the figures of the page."""
    return [figure_file(name, ending) for name in PAGE_FIGURES for ending in endings]


# All files of the present config; those of an earlier one of the same name are removed.
REPORT_FILES = [
    PATHS.counts,
    MRI_JSON,
    *PAGE_TABLES,
    *files_of_figures(["png", "pdf", "csv"]),
]


rule write_page:
    input:
        tables=[path for path in PAGE_TABLES if path not in CELLS],
        figures=files_of_figures(["png"]),
        cells=CELLS,
        records=[f"{REPORT}/tables/provenance.json"],
        citation=local(WORKFLOW.parent / "CITATION.cff"),
    output:
        page=PAGE,
        provenance=f"{REPORT}/index.provenance.json",
    log:
        f"logs/{REPORT}/page.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cfg=to_params(page_settings(GRID, PATHS, CHOSEN_ANALYSES, digest("write_page", *PAGE_CODE))),
        files=lambda wildcards, input: REPORT_FILES,  # `input`: the page is not of them
    script:
        "../scripts/write_page.py"


rule tables:
    input:
        PAGE_TABLES,


rule figures:
    input:
        files_of_figures(["png", "pdf", "csv"]),
