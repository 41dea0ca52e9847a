# Tables and figures of analyses. Each analysis is a folder lib/rib/analyses/<name>: describe.py
# declares inputs, tables and figures, tables.py makes the tables, figure.py draws.

from rib.schema.analysis import flat
from rib.grid.figure_settings import FiguresSettings, figure_settings

ANALYSES_FOLDER = WORKFLOW / "lib/rib/analyses"
STYLE = WORKFLOW / "lib/rib/figures/rib.mplstyle"


def with_manifests(files):
    """Inputs of a job by name: large files are `ancient`, and their manifests `watched` instead."""
    inputs = {}
    manifests = []
    for name, path_or_paths in files.items():
        is_one = isinstance(path_or_paths, str)
        paths = [path_or_paths] if is_one else path_or_paths
        manifests.extend(filter(None, map(manifest_of, paths)))
        marked = [ancient(path) if manifest_of(path) else path for path in paths]
        inputs[name] = marked[0] if is_one else marked
    if manifests:
        inputs["watched"] = list(dict.fromkeys(manifests))
    return inputs


def limits_of(analysis):
    """Memory and time for an analysis; rows of very large datasets take long to read."""
    reads_rows = any(path.endswith((".parquet", ".npz")) for path in flat(analysis.inputs))
    megabytes = memory_of(GRID.datasets, 2000) if reads_rows else 2000
    return {
        "mem_mb": max(megabytes, analysis.megabytes),
        "runtime": time_limit(720 if reads_rows and LARGE_DATASETS else 120),
    }


def analysis_settings(name):
    """Settings of the job that makes an analysis's tables."""
    analysis = ANALYSES[name]
    return {
        "analysis": name,
        "inputs": list(analysis.inputs),
        "params": dict(analysis.params),
        "without_fit": list(analysis.without_fit),
        "conditions": CONDITIONS,
        "code": digest("analyse", ANALYSES_FOLDER / name / "tables.py"),
    }


for NAME, ANALYSIS in ANALYSES.items():
    if ANALYSIS.makes:

        rule:
            name:
                f"analyse_{NAME}"
            input:
                **with_manifests(ANALYSIS.inputs),
            output:
                **ANALYSIS.made_files,
                provenance=f"{ANALYSIS.folder}/tables/{NAME}.provenance.json",
            log:
                f"logs/{PATHS.report}/{NAME}.log",
            conda:
                "../../envs/report.yaml"
            resources:
                **limits_of(ANALYSIS),
            params:
                cfg=lambda wildcards, name=NAME: analysis_settings(name),
            script:
                "../scripts/analyse.py"


def is_of_tables(figure):
    """Whether a figure reads only tables, so that anyone who pulled the tables can draw it."""
    return all(path.startswith("reports/") for path in figure.paths)


def figure_jobs():
    """Names of the figures that each job draws: {"figures": ["radar", "cost"], "stir": ["stir"]}.

    The job `figures` draws all of the page's figures that read only tables. A figure of images has
    a separate job, as do the figures of an analysis on demand.
    """
    jobs = {}
    for name, analysis in ANALYSES.items():
        for figure_name, figure in analysis.figures.items():
            job = "figures" if name in PAGE_ANALYSES else name
            if not is_of_tables(figure):
                job = figure_name
            jobs.setdefault(job, []).append(figure_name)
    return jobs


FIGURE_JOBS = figure_jobs()
ANALYSIS_OF_FIGURE = {
    figure: name for name, analysis in ANALYSES.items() for figure in analysis.figures
}
DRAWN = {figure: ANALYSES[name].figures[figure] for figure, name in ANALYSIS_OF_FIGURE.items()}


def folder_of(names):
    """Folder of the report with the figures of one job."""
    return ANALYSES[ANALYSIS_OF_FIGURE[names[0]]].folder


def fit_for(names):
    """A list with the table of fits, if one of the figures shows fine-tuned runs; else empty."""
    if not any(DRAWN[name].of_runs for name in names):
        return []
    return [f"{folder_of(names)}/tables/fit.csv"]


def drawing_settings(names):
    """Settings of a job that draws figures."""
    modules = {ANALYSES_FOLDER / ANALYSIS_OF_FIGURE[name] / "figure.py" for name in names}
    settings = FiguresSettings(
        figures={
            name: figure_settings(ANALYSIS_OF_FIGURE[name], DRAWN[name], GRID, LABELS)
            for name in names
        },
        inputs={name: dict(DRAWN[name].inputs) for name in names},
        fit=next(iter(fit_for(names)), None),
        code=digest("draw_figures", *sorted(modules), STYLE),
    )
    return to_params(settings)


def drawing_inputs(names):
    """Files that a job reads to draw figures, each once."""
    files = fit_for(names)
    for name in names:
        files.extend(DRAWN[name].paths)
    return list(dict.fromkeys(files))


def drawing_outputs(names):
    """Outputs of a job that draws figures: {"cost.png": ..., "cost.pdf": ..., ...}."""
    outputs = {}
    for name in names:
        files = ANALYSES[ANALYSIS_OF_FIGURE[name]].figure_files(name)
        files["png"] = report(files["png"], category="Figures", labels={"figure": name})
        outputs.update({f"{name}.{ending}": path for ending, path in files.items()})
    return outputs


for NAME, FIGURE_NAMES in FIGURE_JOBS.items():

    rule:
        name:
            f"draw_{NAME}"
        input:
            **with_manifests({"files": drawing_inputs(FIGURE_NAMES)}),
        output:
            **drawing_outputs(FIGURE_NAMES),
            provenance=f"{folder_of(FIGURE_NAMES)}/figures/{NAME}.provenance.json",
        log:
            f"logs/{PATHS.report}/draw_{NAME}.log",
        conda:
            "../../envs/report.yaml"
        resources:
            mem_mb=1000 if NAME == "figures" else memory_of(GRID.datasets, 1000),
            runtime=time_limit(30),
        params:
            cfg=lambda wildcards, names=FIGURE_NAMES: drawing_settings(names),
        script:
            "../scripts/draw_figures.py"


# `snakemake stir` and the like make what an analysis on demand adds, in a separate folder.
for NAME, ANALYSIS in ANALYSES.items():
    if ANALYSIS.on_demand:

        rule:
            name:
                NAME
            input:
                ANALYSIS.made_files.values(),
                [ANALYSIS.figure_files(figure).values() for figure in ANALYSIS.figures],
