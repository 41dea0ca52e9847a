# What stands for the figures and tables of the paper, as far as they could be confirmed, in one
# folder.

from rib.report.settings import PaperRow, PaperSettings

PAPER = f"{REPORTS}/paper"
PAPER_MAP = CATALOG.table("paper_map.csv", ("of_paper", "shows", "figure", "tables", "state"), ())
KNOWN_TABLES = dict(TABLES)
for ANALYSIS in REGISTRY.analyses.values():
    KNOWN_TABLES.update(ANALYSIS.tables)


def files_for_paper(row):
    """Files of this run that stand for a figure or table of the paper, a row of paper_map.csv.

    In the row, `figure` is the name of a figure, and `tables` are names of tables with spaces
    between them. Those that this run does not make are left out.
    """
    files = []
    if row["figure"] in REGISTRY.figures:
        files += figure_files(row["figure"])
    for name in row["tables"].split():
        if name in KNOWN_TABLES:
            files.append(KNOWN_TABLES[name])
    return files


PAPER_FILES = {row["of_paper"]: files_for_paper(row) for row in PAPER_MAP}
ALL_PAPER_FILES = [path for paths in PAPER_FILES.values() for path in paths]
PAPER_SETTINGS = PaperSettings(
    rows=[
        PaperRow(of_paper=row["of_paper"], shows=row["shows"], state=row["state"])
        for row in PAPER_MAP
    ],
    files={
        of_paper: [Path(path).name for path in paths] for of_paper, paths in PAPER_FILES.items()
    },
    family=FAMILY,
    title=GRID.family.title,
    limits=GRID.family.limits,
    conditions=list(GRID.conditions()),
    folder=Path(PAPER),
    grids=Path(METRICS).parent,
    code=digest(
        "paper",
        REPORTING / "paper.py",
        REPORTING / "publication.py",
        REPORTING / "settings.py",
    ),
)


rule paper:
    input:
        files=ALL_PAPER_FILES,
    output:
        **{Path(path).name: f"{PAPER}/{Path(path).name}" for path in ALL_PAPER_FILES},
        readme=f"{PAPER}/README.md",
        provenance=f"{PAPER}/provenance.json",
    log:
        f"{LOGS}/paper.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=to_params(PAPER_SETTINGS),
    script:
        "../scripts/paper.py"
