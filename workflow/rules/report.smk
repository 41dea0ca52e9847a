# Write the page of a run, with tables, figures and provenance. The Makefile makes Snakemake's own
# report after a run.

from os.path import relpath
from rib.report.about import page_settings
from rib.report.report_settings import PaperRow, PaperSettings
from rib.statistics.statistics_settings import metrics_of


report: "../report/workflow.rst"


PAGE = f"{REPORT}/index.html"
TABLES_OF_METRICS = {name: PATHS.table(name) for name in metrics_of(GRID)}
PAGE_TABLES = list(TABLES_OF_METRICS.values())
PAGE_FIGURES = []
for ANALYSIS in PAGE_ANALYSES.values():
    PAGE_TABLES.extend(ANALYSIS.made_files.values())
    PAGE_FIGURES.extend(map(ANALYSIS.figure_files, ANALYSIS.figures))
FILES_OF_FIGURES = [path for files in PAGE_FIGURES for path in files.values()]
CELLS = [path for path in PAGE_TABLES if Path(path).name == "cells.json"]
# Digests follow imports, and no Python module imports a template.
TEMPLATES = [*sorted(REPORTING.glob("page.*.jinja")), REPORTING / "citation.jinja"]
# All files of the present config; files of an earlier config of the same name are removed.
REPORT_FILES = [PATHS.counts, PATHS.mri_json, *PAGE_TABLES, *FILES_OF_FIGURES]


rule write_page:
    input:
        tables=[path for path in PAGE_TABLES if path not in CELLS],
        figures=[files["png"] for files in PAGE_FIGURES],
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
        runtime=time_limit(10),
    params:
        cfg=to_params(
            page_settings(GRID, PATHS, PAGE_ANALYSES, ABOUT, digest("write_page", *TEMPLATES))
        ),
        files=lambda wildcards, input: REPORT_FILES,  # `input` keeps it out of records
    script:
        "../scripts/write_page.py"


rule tables:
    input:
        PAGE_TABLES,


rule figures:
    input:
        FILES_OF_FIGURES,


# List this run's counterparts of the paper's figures and tables.

PAPER = f"{REPORT}/paper/README.md"
PAPER_MAP = CATALOG.table("paper_map.csv", ("of_paper", "shows", "figure", "tables", "state"), ())
KNOWN_TABLES = dict(TABLES_OF_METRICS)
KNOWN_FIGURES = {}
for ANALYSIS in ANALYSES.values():
    KNOWN_TABLES.update({Path(file).stem: path for file, path in ANALYSIS.made_files.items()})
    KNOWN_FIGURES.update({figure: ANALYSIS.figure_files(figure) for figure in ANALYSIS.figures})


def files_for_paper(row):
    """Files of this run for a row of paper_map.csv, without files that the run does not make.

    `figure` of the row is a name, `tables` has names with spaces between them.
    """
    files = list(KNOWN_FIGURES.get(row["figure"], {}).values())
    for name in row["tables"].split():
        if name in KNOWN_TABLES:
            files.append(KNOWN_TABLES[name])
    return files


PAPER_FILES = {row["of_paper"]: files_for_paper(row) for row in PAPER_MAP}
PAPER_SETTINGS = PaperSettings(
    rows=[
        PaperRow(of_paper=row["of_paper"], shows=row["shows"], state=row["state"])
        for row in PAPER_MAP
    ],
    files={
        of_paper: [relpath(path, Path(PAPER).parent) for path in paths]
        for of_paper, paths in PAPER_FILES.items()
    },
    family=FAMILY,
    title=GRID.family.title,
    limits=GRID.family.limits,
    conditions=list(ABOUT.conditions),
    code=digest("paper"),
)


rule paper:
    input:
        files=[path for paths in PAPER_FILES.values() for path in paths],
    output:
        readme=PAPER,
        provenance=f"{REPORT}/paper/provenance.json",
    log:
        f"logs/{REPORT}/paper.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=to_params(PAPER_SETTINGS),
    script:
        "../scripts/paper.py"
