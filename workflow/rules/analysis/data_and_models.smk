# What a reader needs to know of the datasets and models: images, objects, identical images, roles,
# heads, resolutions.

# Uses LABEL_VERDICTS of labels.smk, splits_of of split.smk and TABLES of metrics.smk.

from rib.analyses.data_and_models.settings import (
    DataAndModelsSettings,
    DatasetFacts,
    ModelFacts,
)
from rib.config.run import ALL

TRUST_TABLES = {name: f"{METRICS}/tables/{name}.csv" for name in ("data", "models")}
# A preview has the verdicts that there are.
SHOWN_VERDICTS = [path for path in LABEL_VERDICTS if not PREVIEW or Path(path).exists()]
if SHOWN_VERDICTS:
    TRUST_TABLES["labels"] = f"{METRICS}/tables/labels.csv"

REGISTRY.analysis("data_and_models", tables=TRUST_TABLES)


def role_of(name):
    """What a dataset is in this run, in words: `counts in RI; fine-tuned on`."""
    if name not in GRID.datasets:
        return "pretraining or its proxy"
    if name in GRID.ood:
        role = "counts in RI"
    elif GRID.datasets[name].role == "in_distribution":
        role = "in distribution, not in RI"
    else:
        role = "variant, not in RI"
    if name in GRID.targets:
        role += "; fine-tuned on"
    return role


def exclusions_of(name):
    """Why images of an evaluated dataset may not be evaluated: `the pretraining proxy, the budget`.

    Empty if all of its images are evaluated.
    """
    reasons = []
    if name in GRID.datasets and GRID.excludes_proxy(name):
        reasons.append("the pretraining proxy")
    if GRID.budget.limit(name) != ALL:
        reasons.append("the budget")
    if GRID.split_fractions is not None:
        reasons.append("for training and selection")
    return ", ".join(reasons)


def facts_of_dataset(entry):
    """What is known of a dataset before its images are read."""
    return DatasetFacts(
        label=entry.label,
        role=role_of(entry.name),
        excluded=exclusions_of(entry.name),
        licence=entry.licence,
        origin=entry.origin,
    )


def facts_of_model(name, model):
    """What is known of a model before its weights are read."""
    return ModelFacts(
        architecture=model.architecture,
        pretraining=model.pretraining,
        pixels=GRID.geometry(name).size,
        own_pixels=model.preprocessing["input_size"],
        licence=model.licence,
    )


# The datasets that are evaluated or trained on, the pretraining proxy included.
DESCRIBED_DATASETS = [entry.name for entry in DATASETS_READ]


def described(file):
    """A file of each described dataset."""
    return [prepared(file, name, GEOMETRY_OF[FIRST_MODEL]) for name in DESCRIBED_DATASETS]


def description_settings(wildcards):
    """Settings of the job that describes datasets and models."""
    settings = DataAndModelsSettings(
        datasets={entry.name: facts_of_dataset(entry) for entry in DATASETS_READ},
        models={name: facts_of_model(name, model) for name, model in GRID.models.items()},
        split=list(GRID.datasets) if GRID.split_fractions else [],
        conditions=CONDITIONS,
        code=digest("describe_data_and_models"),
    )
    return to_params(settings)


rule describe_data_and_models:
    input:
        accuracy=TABLES["accuracy"],
        prepared=described("manifest.json"),
        indexes=ancient(described("index.parquet")),
        classes=ancient(described("classes.json")),
        descriptions=expand(f"{MODEL}/model.json", model=GRID.models),
        verdicts=SHOWN_VERDICTS,
        splits=splits_of(GEOMETRY_OF[FIRST_MODEL], GRID.datasets),
    output:
        **table_files("data_and_models", **TRUST_TABLES),
    log:
        f"{LOGS}/data_and_models.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=memory_of(DESCRIBED_DATASETS, 2000),
        runtime=30,
    params:
        cfg=description_settings,
    script:
        "../../scripts/describe_data_and_models.py"
