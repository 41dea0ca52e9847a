# Learning rates chosen from a sweep: `snakemake learning_rates`. Under protocol paper they are
# chosen on the training images, and nothing is evaluated; under held_out on the select splits of
# the targets, which are all that is evaluated.
# Uses CHECKPOINT and TRAINED_RUNS of finetune.smk, rows_on_select_splits of evaluate.smk,
# WHOLE_GRID and REPORTED_RUNS of reported_runs.smk, and SMALL_TABLES, TABLES_OF_ROWS and
# table_files of metrics.smk.

from rib.analyses.learning_rates.settings import (
    HeldOutRateSettings,
    LearningRateSettings,
    SweptMethod,
)

LEARNING_RATES = f"{METRICS}/tables/learning_rates.csv"
# The chosen rates as the family's file takes them.
CHOSEN_RECIPES = f"{METRICS}/tables/learning_rates.yaml"
ALL_RATED_RUNS = [run for run in TRAINED_RUNS if "lr" in WHOLE_GRID.methods[run.method].settings]
RATED_RUNS = [run for run in ALL_RATED_RUNS if run in REPORTED_RUNS]
RATED_CHECKPOINTS = [f"{CHECKPOINT}/manifest.json".format(**vars(run)) for run in RATED_RUNS]
RATED_ROWS = rows_on_select_splits(RATED_RUNS)


def swept_method(name):
    """What the choice of a learning rate needs to know of a method of the grid.

    The method `lora-lr0.001-rank4` is swept over learning rates as `lora-rank4`.
    """
    method = GRID.methods[name]
    rate_of_model = {}
    for model in GRID.models:
        if name in GRID.methods_of(model):
            rate_of_model[model] = GRID.settings(name, model)["lr"]
    return SweptMethod(
        method=method.without_rate,
        entry=method.base,
        recipe=method.schedule,
        can_fit=method.can_fit,
        lr=rate_of_model,
    )


def fields_of_rate_settings(code):
    """Fields of the settings of a job that chooses learning rates, whose code has a digest."""
    return {
        "swept_methods": {run.method: swept_method(run.method) for run in RATED_RUNS},
        "threshold": GRID.family.fit_threshold,
        "conditions": CONDITIONS,
        "code": code,
    }


def learning_rate_settings(wildcards):
    """Settings of the job that chooses learning rates on the training images."""
    fields = fields_of_rate_settings(digest("choose_learning_rates"))
    return to_params(LearningRateSettings(**fields))


def held_out_rate_settings(wildcards):
    """Settings of the job that chooses learning rates on the select splits of the targets."""
    fields = fields_of_rate_settings(digest("choose_rates_on_select_splits"))
    settings = HeldOutRateSettings(
        methods=methods_of(RATED_RUNS),
        **fields,
        family=FAMILY,
        targets=list(GRID.targets),
        seeds=list(GRID.seeds),
    )
    return to_params(settings)


if ALL_RATED_RUNS and not GRID.split_fractions:

    REGISTRY.analysis("learning_rates", tables={"learning_rates": LEARNING_RATES}, optional=True)

    rule choose_learning_rates:
        input:
            manifests=RATED_CHECKPOINTS,
            histories=[f"{CHECKPOINT}/history.csv".format(**vars(run)) for run in RATED_RUNS],
        output:
            **table_files("learning_rates", learning_rates=LEARNING_RATES),
        log:
            f"{LOGS}/learning_rates.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            **SMALL_TABLES,
        params:
            cfg=learning_rate_settings,
        script:
            "../../scripts/choose_learning_rates.py"


if ALL_RATED_RUNS and GRID.split_fractions:

    REGISTRY.analysis(
        "learning_rates",
        tables={"held_out_learning_rates": LEARNING_RATES},
        files={"Chosen learning rates, for the family's file": [CHOSEN_RECIPES]},
        optional=True,
    )

    rule choose_rates_on_select_splits:
        input:
            checkpoints=RATED_CHECKPOINTS,
            manifests=beside("manifest", RATED_ROWS),
            rows=ancient(RATED_ROWS),
            prepared=[
                prepared("manifest.json", name, GEOMETRY_OF[FIRST_MODEL]) for name in GRID.targets
            ],
            indexes=ancient(
                [
                    prepared("index.parquet", name, GEOMETRY_OF[FIRST_MODEL])
                    for name in GRID.targets
                ]
            ),
        output:
            **table_files("learning_rates", learning_rates=LEARNING_RATES, recipes=CHOSEN_RECIPES),
        log:
            f"{LOGS}/learning_rates.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            **TABLES_OF_ROWS,
        params:
            cfg=held_out_rate_settings,
        script:
            "../../scripts/choose_rates_on_select_splits.py"
