# Analyses of rows, tables and features: each a file of rules/analysis/, with its rules and a call of `analysis`.


include: "features.smk"


for path in sorted((WORKFLOW / "rules/analysis").glob("*.smk")):

    include: path


OPTIONAL = [name for name, entry in ANALYSES.items() if entry["optional"]]
for name in [] if CONFIG["analyses"] == "all" else CONFIG["analyses"]:
    if name not in OPTIONAL:
        raise UserError(f"config, analyses: there is no '{name}'; there are {', '.join(OPTIONAL) or 'none'}.")
EXTRA_TABLES = {name: path for entry in ANALYSES.values() if entry["chosen"] for name, path in entry["tables"].items()}
EXTRA_FILES = {
    title: paths for entry in ANALYSES.values() if entry["chosen"] for title, paths in entry["files"].items()
}
ALL_TABLES = [*TABLES.values(), *EXTRA_TABLES.values(), *(path for paths in EXTRA_FILES.values() for path in paths)]
