# Agreement of pretrained and fine-tuned models per image, flips, calibration and scores. One job
# reads the rows of all runs, one run at a time; with one job per run, start-up would take longer
# than reading.

SAMPLE_ROWS = rows_of([run for run in GRID.runs() if run.method not in CURVES])
CELL_ROWS = rows_of([run for run in SHOWN_GRID.runs() if run.method not in CURVES])
SAMPLE_TABLES = {
    name: f"{METRICS}/tables/{name}.csv" for name in ("samples", "flips", "scores", "mean_scores")
}

REGISTRY.figure(
    "flips", question="why", inputs={"flips": SAMPLE_TABLES["flips"]}, settings=LABELLED_MEANS
)
REGISTRY.figure(
    "calibration",
    question="trust",
    inputs={"samples": SAMPLE_TABLES["samples"]},
    settings={"models": MODEL_LABELS, "methods": METHOD_LABELS, "datasets": DATASET_LABELS},
)
REGISTRY.analysis(
    "samples",
    tables={name: SAMPLE_TABLES[name] for name in ("flips", "mean_scores")},
    figures=["flips", "calibration"],
    # One line per run and dataset: thousands for the paper's grid.
    files={
        "Agreement, calibration and scores by run and dataset": [
            SAMPLE_TABLES["samples"],
            SAMPLE_TABLES["scores"],
        ]
    },
)


use rule compute_metrics as compare_samples with:
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
    params:
        cfg=tabulation(
            "samples:sample_tables",
            real_labels=[name for name, dataset in GRID.datasets.items() if dataset.real_labels],
            **MEANS_OF_RI,
        ),


CELLS = f"{METRICS}/tables/cells.json"  # what explains each cell of RI, for the page


use rule compare_samples as explain_cells with:
    input:
        **INDEXED,
        manifests=beside("manifest", CELL_ROWS),
        rows=ancient(CELL_ROWS),
        classes=ancient(CLASSES),
        fit=TABLES["fit"],
    output:
        **table_files("cells", cells=CELLS),
    log:
        f"{LOGS}/cells.log",
    params:
        cfg=tabulation(
            "cells:write_cells",
            publishable=list(PUBLISHABLE),
            geometry=vars(GRID.geometry(FIRST_MODEL)),
            ood_datasets=GRID.ood,
            size=GRID.shown_size,
        ),
