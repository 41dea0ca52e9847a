# Draw figures, each as PNG, PDF and CSV with the numbers shown: those of tables in one job, that of
# images in another, and those of each optional analysis in one of its own.
# Uses HAS_FIGURES and RUN_LABELS of figures.smk, and TABLES of metrics.smk.

from rib.config.figure_settings import FigureSettings, FiguresSettings

STYLE = WORKFLOW / "lib/rib/figures/rib.mplstyle"
FIGURES_OF_RULES = REGISTRY.figures_of_rules() if HAS_FIGURES else {}


def shows_fine_tuned_runs(figure):
    """Whether a figure shows fine-tuned runs; the table of fits decides how these are marked.

    Such a figure has a setting that says of which methods.
    """
    return not figure.settings.keys().isdisjoint({"method", "methods", "example"})


def figure_settings(name):
    """What a figure shows."""
    figure = REGISTRY.figures[name]
    return FigureSettings(
        drawing_module=figure.dotted_name,
        draw_settings=figure.settings,
        size=GRID.shown_size,
        sizes=GRID.sizes,
        geometry=GRID.geometry(FIRST_MODEL),
        uncropped=GRID.uncropped,
        labels=RUN_LABELS if shows_fine_tuned_runs(figure) else None,
        note=PREVIEW.description.note if PREVIEW else "",
    )


def fit_for(names):
    """The table of fits, if one of the given figures shows fine-tuned runs."""
    if any(shows_fine_tuned_runs(REGISTRY.figures[name]) for name in names):
        return TABLES["fit"]
    return None


def plot_settings(names):
    """Settings of a job that draws the given figures."""
    modules = [REGISTRY.figures[name].module for name in names]
    settings = FiguresSettings(
        figures={name: figure_settings(name) for name in names},
        inputs={name: REGISTRY.figures[name].inputs for name in names},
        fit=fit_for(names),
        code=digest("plot_figures", *modules, STYLE),
    )
    return to_params(settings)


def plot_inputs(names):
    """Files that a job reads which draws the given figures, each once."""
    files = []
    for name in names:
        files.extend(REGISTRY.figures[name].paths)
    if fit_for(names):
        files.append(fit_for(names))
    return list(dict.fromkeys(files))


def plot_outputs(rule_name, names):
    """Outputs of a job that draws the given figures, by file name; a preview has no PDF files."""
    outputs = {}
    for name in names:
        outputs[f"{name}.png"] = report(
            f"{METRICS}/figures/{name}.png",
            caption=str(REGISTRY.figures[name].caption),
            category="Figures",
            labels={"figure": name},
        )
        outputs[f"{name}.csv"] = f"{METRICS}/figures/{name}.csv"
        if not PREVIEW:
            outputs[f"{name}.pdf"] = f"{METRICS}/figures/{name}.pdf"
    return report_files(**outputs, provenance=plot_record(rule_name))


def plot_record(rule_name):
    """Record of a job that draws figures, named after them if it draws a part."""
    if rule_name == "plot_figures":
        return f"{METRICS}/figures/provenance.json"
    return f"{METRICS}/figures/{rule_name.removeprefix('plot_')}.provenance.json"


def figure_files(*names):
    """Files of the given figures."""
    return expand(
        f"{METRICS}/figures/{{name}}.{{ending}}", name=names, ending=["png", "pdf", "csv"]
    )


for RULE_NAME, FIGURE_NAMES in FIGURES_OF_RULES.items():

    rule:
        name:
            RULE_NAME
        input:
            files=plot_inputs(FIGURE_NAMES),
        output:
            **plot_outputs(RULE_NAME, FIGURE_NAMES),
        log:
            f"{LOGS}/{RULE_NAME}.log",
        conda:
            "../../envs/report.yaml"
        resources:
            mem_mb=memory_of(GRID.datasets, 1000) if RULE_NAME == "plot_examples" else 1000,
            runtime=30,
        params:
            cfg=lambda wildcards, names=FIGURE_NAMES: plot_settings(names),
        script:
            "../scripts/plot_figures.py"
