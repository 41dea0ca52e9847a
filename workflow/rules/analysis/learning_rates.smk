# Learning rates chosen from a sweep on the training images alone: `snakemake learning_rates` runs
# no evaluation.

from rib.config.sweeps import in_path

LEARNING_RATES = f"{METRICS}/tables/learning_rates.csv"
RATED_RUNS = [run for run in TRAINED_RUNS if "lr" in GRID.methods[run.method].settings]

if RATED_RUNS:

    REGISTRY.analysis("learning_rates", tables={"learning_rates": LEARNING_RATES}, optional=True)

    use rule compare_published as choose_learning_rates with:
        input:
            manifests=[f"{CHECKPOINT}/manifest.json".format(**vars(run)) for run in RATED_RUNS],
            histories=[f"{CHECKPOINT}/history.csv".format(**vars(run)) for run in RATED_RUNS],
        output:
            **table_files("learning_rates", table=LEARNING_RATES),
        log:
            f"{LOGS}/learning_rates.log",
        params:
            cfg=tabulation(
                "learning_rates:choice_table",
                variants={
                    name: {
                        # the method with what else is swept, such as lora-rank4
                        "method": name.replace(f"-lr{in_path(method.settings['lr'])}", ""),
                        "recipe": method.schedule,
                        "can_fit": method.can_fit,
                        "lr": {
                            model: GRID.settings(name, model)["lr"]
                            for model in GRID.models
                            if name in GRID.methods_of(model)
                        },
                    }
                    for name, method in (
                        (run.method, GRID.methods[run.method]) for run in RATED_RUNS
                    )
                },
                threshold=GRID.family.fit_threshold,
                conditions=CONDITIONS,
            ),
