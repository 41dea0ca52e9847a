# What stands for the figures and tables of the paper, as far as they could be confirmed, in one folder.

PAPER = f"{REPORTS}/paper"
PAPER_PARTS = CATALOG.table("paper_map.csv", ("of_paper", "shows", "figure", "tables", "state"), ())
KNOWN_TABLES = TABLES | {
    name: path for entry in REGISTRY.analyses.values() for name, path in entry.tables.items()
}
PAPER_FILES = {
    row["of_paper"]: figure_files(*{row["figure"]} & REGISTRY.figures.keys())
    + [KNOWN_TABLES[name] for name in row["tables"].split() if name in KNOWN_TABLES]
    for row in PAPER_PARTS
}


use rule status as paper with:
    input:
        files=sum(PAPER_FILES.values(), []),
    output:
        **{Path(path).name: f"{PAPER}/{Path(path).name}" for path in sum(PAPER_FILES.values(), [])},
        readme=f"{PAPER}/README.md",
        provenance=f"{PAPER}/provenance.json",
    log:
        f"{LOGS}/paper.log",
    params:
        cfg={
            "function": "rib.reporting.paper:write_paper",
            "parts": PAPER_PARTS,
            "made": {
                key: [Path(path).name for path in paths] for key, paths in PAPER_FILES.items()
            },
            "family": {key: getattr(GRID.family, key) for key in ("name", "title", "limits")},
            "conditions": GRID.conditions(),
            "folder": PAPER,
            "grids": str(Path(METRICS).parent),
            "code": digest(
                "look",
                *(REPORTING / name for name in ("paper.py", "publication.py", "settings.py")),
            ),
        },
