# List which figures and tables stand for which of the paper, as far as they could be confirmed.

from os.path import relpath

from rib.report.settings import PaperRow, PaperSettings

PAPER = f"{REPORT}/paper/README.md"
PAPER_MAP = CATALOG.table("paper_map.csv", ("of_paper", "shows", "figure", "tables", "state"), ())
KNOWN_TABLES = dict(TABLES)
for NAME in ANALYSES:
    for FILE, FILE_PATH in tables_of(NAME).items():
        KNOWN_TABLES[Path(FILE).stem] = FILE_PATH


def files_for_paper(row):
    """Files of this run that stand for a figure or table of the paper, a row of paper_map.csv.

    In the row, `figure` is the name of a figure, and `tables` are names of tables with spaces
    between them. Those that this run does not make are left out.
    """
    files = []
    if row["figure"] in DRAWN:
        files += [figure_file(row["figure"], ending) for ending in ("png", "pdf", "csv")]
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
    conditions=list(GRID.conditions()),
    code=digest("paper", REPORTING / "paper.py", REPORTING / "settings.py"),
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
