# Tables, figures and a page of the runs that are finished now; can be used during a run.
#
# A job finds the finished runs, and starts Snakemake once more: with this workflow, in a folder of
# its own, for these runs only (see reported_runs.smk). There, the rule `preview` makes the page.

from finished_runs import finished_runs
from preview_files import rules_of_folder
from rib.report.preview import REPLICATES, SLOW, is_large
from rib.report.settings import (
    FinishedShare,
    PreviewDescription,
    PreviewJobSettings,
    PreviewSettings,
)


def finished_shares(finished):
    """How many runs of each model, method and target are finished, given the finished runs."""
    runs = GRID.runs()
    labels_of_attributes = {
        "model": MODEL_LABELS,
        "method": RUN_LABELS["methods"],
        "target": TARGET_LABELS,
    }
    shares = []
    for attribute, labels in labels_of_attributes.items():
        for name, label in labels.items():
            runs_of_name = [run for run in runs if getattr(run, attribute) == name]
            share = FinishedShare(
                subject=f"{attribute} {label}",
                finished=sum(run in finished for run in runs_of_name),
                runs=len(runs_of_name),
            )
            shares.append(share)
    return shares


def preview_of_now():
    """What a preview shows that is made now: which runs are finished, and how far the grid is."""
    select_rows = {run: rows_on_select_splits([run]) for run in RUNS_ON_SELECT_SPLIT}
    finished = finished_runs(workflow, GRID.runs(), rows_of, select_rows, UPSTREAM)
    description = PreviewDescription(
        finished=len(finished.runs),
        runs=len(GRID.runs()),
        outdated=finished.outdated,
        counts=finished_shares(set(finished.runs)),
        targets=", ".join(TARGET_LABELS[name] for name in finished.targets),
        left_out={},
    )
    chosen_analyses = REGISTRY.chosen()
    names_of_analyses = [
        name for name, analysis in REGISTRY.analyses.items() if analysis in chosen_analyses
    ]
    names_of_figures = REGISTRY.chosen_figures() if HAS_FIGURES else []
    return PreviewSettings(
        finished=[str(run) for run in finished.runs],
        compared=[str(run) for run in finished.compared],
        selectable=[str(run) for run in finished.selectable],
        too_slow=SLOW if is_large(len(finished.runs)) else [],
        expected=[*names_of_analyses, *names_of_figures],
        description=description,
    )


def config_of_preview(preview):
    """The configuration of this call, for a preview; fewer bootstrap replicates if it is large.

    Paths are absolute, since the preview is made in another folder.
    """
    statistics = CONFIG["statistics"]
    if is_large(len(preview.finished)):
        fewer_replicates = min(REPLICATES, statistics["replicates"])
        statistics = {**statistics, "replicates": fewer_replicates}
    external = [str(Path(file).expanduser().resolve()) for file in CONFIG["external"]]
    return {**config, "statistics": statistics, "external": external}


def preview_settings(wildcards):
    """Settings of `snakemake preview`."""
    preview = preview_of_now()
    rules_of_reports = [rule.name for rule in rules_of_folder(workflow, METRICS)]
    settings = PreviewJobSettings(
        preview=preview,
        folder=Path(f"{REPORTS}/preview"),
        logs=Path(f"{LOGS}/preview"),
        config=config_of_preview(preview),
        linked=[Path(folder) for folder in ("data", "results", "logs", *FOLDERS[1:])],
        command=[
            *(sys.executable, "-m", "snakemake", "preview"),
            *("--snakefile", str(Path(workflow.basedir) / "Snakefile")),
            *("--allowed-rules", "preview", *rules_of_reports),
        ],
    )
    return to_params(settings)


if PREVIEW:

    rule preview:
        input:
            PAGE,

else:

    rule preview:
        log:
            f"{LOGS}/preview.log",
        localrule: True
        conda:
            "../../envs/report.yaml"
        params:
            cfg=preview_settings,
        script:
            "../scripts/preview.py"
