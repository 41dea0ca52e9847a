# Agreement of pretrained and fine-tuned models per image, flips, calibration and scores. One job
# reads the rows of all runs, one run at a time; with one job per run, start-up would take longer
# than reading.
# Uses CLASSES, INDEXED, RI_STATISTICS, TABLES, TABLES_OF_ROWS and table_files of metrics.smk,
# rows_of of evaluate.smk, and labels, styles and PUBLISHABLE of figures.smk.

from rib.analyses.samples.settings import CellSettings, SampleSettings

SAMPLE_RUNS = [run for run in GRID.runs() if run.method not in CURVES]
SAMPLE_ROWS = rows_of(SAMPLE_RUNS)
CELL_RUNS = [run for run in SHOWN_GRID.runs() if run.method not in CURVES]
CELL_ROWS = rows_of(CELL_RUNS)
SAMPLE_TABLES = {
    name: f"{METRICS}/tables/{name}.csv" for name in ("samples", "flips", "scores", "mean_scores")
}
SHOWN_SAMPLES = ["flips", "mean_scores"]
if GRID.family.scores:
    SAMPLE_TABLES["ri_scores"] = f"{METRICS}/tables/ri_scores.csv"
    SHOWN_SAMPLES.append("ri_scores")

REGISTRY.figure(
    "flips",
    analysis="samples",
    question="why",
    inputs={"flips": SAMPLE_TABLES["flips"]},
    settings=LABELLED_MEANS,
)
REGISTRY.figure(
    "calibration",
    analysis="samples",
    question="trust",
    inputs={"samples": SAMPLE_TABLES["samples"]},
    settings={"models": MODEL_LABELS, "methods": METHOD_LABELS, "datasets": DATASET_LABELS},
)
REGISTRY.analysis(
    "samples",
    tables={name: SAMPLE_TABLES[name] for name in SHOWN_SAMPLES},
    figures=["flips", "calibration"],
    # One line per run and dataset: thousands for the paper's grid.
    files={
        "Agreement, calibration and scores by run and dataset": [
            SAMPLE_TABLES["samples"],
            SAMPLE_TABLES["scores"],
        ]
    },
)


def sample_settings(wildcards):
    """Settings of the job that compares predictions image by image."""
    settings = SampleSettings(
        methods=methods_of(SAMPLE_RUNS),
        ri=RI_STATISTICS,
        real_labels=[name for name, dataset in GRID.datasets.items() if dataset.real_labels],
        groups={name: dataset.groups for name, dataset in GRID.datasets.items() if dataset.groups},
        scores=GRID.family.scores,
        conditions=CONDITIONS,
        code=digest("compare_samples"),
    )
    return to_params(settings)


rule compare_samples:
    input:
        **INDEXED,
        manifests=beside("manifest", SAMPLE_ROWS),
        rows=ancient(SAMPLE_ROWS),
        classes=ancient(CLASSES),
        fit=TABLES["fit"],
    output:
        **table_files("samples", **SAMPLE_TABLES),
    log:
        f"{LOGS}/samples.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=sample_settings,
    script:
        "../../scripts/compare_samples.py"


CELLS = f"{METRICS}/tables/cells.json"  # what explains each cell of RI, for the page


def cell_settings(wildcards):
    """Settings of the job that explains the cells of RI."""
    settings = CellSettings(
        methods=methods_of(CELL_RUNS),
        ood_datasets=GRID.ood,
        size=GRID.shown_size,
        publishable=list(PUBLISHABLE),
        geometry=GRID.geometry(FIRST_MODEL),
        uncropped=GRID.uncropped,
        code=digest("explain_cells"),
    )
    return to_params(settings)


rule explain_cells:
    input:
        **INDEXED,
        manifests=beside("manifest", CELL_ROWS),
        rows=ancient(CELL_ROWS),
        classes=ancient(CLASSES),
    output:
        **table_files("cells", cells=CELLS),
    log:
        f"{LOGS}/cells.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=cell_settings,
    script:
        "../../scripts/explain_cells.py"
