# Learning rates chosen from a sweep on the training images alone: `snakemake learning_rates` runs
# no evaluation.
# Uses CHECKPOINT and TRAINED_RUNS of finetune.smk, and SMALL_TABLES and table_files of
# metrics.smk.

from rib.analyses.learning_rates.settings import LearningRateSettings, SweptMethod
from rib.config.sweeps import in_path

LEARNING_RATES = f"{METRICS}/tables/learning_rates.csv"
ALL_RATED_RUNS = [run for run in TRAINED_RUNS if "lr" in WHOLE_GRID.methods[run.method].settings]
RATED_RUNS = [run for run in ALL_RATED_RUNS if run in REPORTED_RUNS]


def swept_method(name):
    """What the choice of a learning rate needs to know of a method of the grid."""
    method = GRID.methods[name]
    rates = {
        model: GRID.settings(name, model)["lr"]
        for model in GRID.models
        if name in GRID.methods_of(model)
    }
    return SweptMethod(
        method=name.replace(f"-lr{in_path(method.settings['lr'])}", ""),
        recipe=method.schedule,
        can_fit=method.can_fit,
        lr=rates,
    )


def learning_rate_settings(w):
    """Settings of the job that chooses learning rates."""
    settings = LearningRateSettings(
        swept_methods={run.method: swept_method(run.method) for run in RATED_RUNS},
        threshold=GRID.family.fit_threshold,
        conditions=CONDITIONS,
        code=digest("choose_learning_rates"),
    )
    return to_params(settings)


if ALL_RATED_RUNS:

    REGISTRY.analysis("learning_rates", tables={"learning_rates": LEARNING_RATES}, optional=True)

    rule choose_learning_rates:
        input:
            manifests=[f"{CHECKPOINT}/manifest.json".format(**vars(run)) for run in RATED_RUNS],
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
