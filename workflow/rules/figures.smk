# What figures show: labels, styles and settings that they share, and the figures that belong to no
# other analysis. They are drawn in plot.smk, when all are registered. A grid without fine-tuned runs
# has none.

from rib.config.compared_runs import example_target

# Content and labels of figures.
SHOWN = {
    name: method
    for name, method in GRID.methods.items()
    if name not in [*CURVES, *GRID.over_targets]
}
SHARED = [name for name in SHOWN if all(name in GRID.methods_of(model) for model in GRID.models)]
EXAMPLE_METHOD = example_method(SHOWN, SHARED)
EXAMPLE_TARGET = example_target(GRID)
HAS_FIGURES = bool(EXAMPLE_METHOD and EXAMPLE_TARGET)
MODEL_LABELS = {name: model.label for name, model in GRID.models.items()}
# All models, but in a preview whose models share no method.
EXAMPLE_MODELS = [name for name in GRID.models if EXAMPLE_METHOD in GRID.methods_of(name)]
if not EXAMPLE_MODELS:
    EXAMPLE_MODELS = list(GRID.models)
MODEL_STYLES = {name: {"label": model.label, **model.style} for name, model in GRID.models.items()}
METHOD_LABELS = {name: method.label for name, method in SHOWN.items()}
SHADES = shades_of([method.style["colour"] for method in SHOWN.values()])
METHOD_STYLES = {
    name: {"label": method.label, **method.style, "colour": colour}
    for (name, method), colour in zip(SHOWN.items(), SHADES)
}
DATASET_LABELS = {name: dataset.label for name, dataset in GRID.datasets.items()}
TARGET_LABELS = {name: DATASET_LABELS[name] for name in GRID.targets}
# Settings that several figures share.
ONE_MODEL = {"model": EXAMPLE_MODELS[0], "model_label": MODEL_LABELS[EXAMPLE_MODELS[0]]}
ONE_METHOD = {"method": EXAMPLE_METHOD, "method_label": METHOD_LABELS.get(EXAMPLE_METHOD)}
EXAMPLE = {"target": EXAMPLE_TARGET, **ONE_METHOD, "datasets": DATASET_LABELS}
LABELLED_MEANS = {"models": MODEL_LABELS, "methods": METHOD_LABELS, "confidence": CONFIDENCE}
STYLED_MEANS = {**LABELLED_MEANS, "methods": METHOD_STYLES}
FITTED = (
    "fit of the training images"
    if GRID.shown_size == "all"
    else "accuracy on the target, partly trained on"
)
ON_TARGET = {
    "accuracy": "test accuracy on the target" if CONFIG["protocol"] == "held_out" else FITTED
}
LABELS = labels_of(GRID)
SHOWN_LABELS = labels_of(SHOWN_GRID)
# For the names of unfinished runs, curves among them.
RUN_LABELS = {
    **labels_of(WHOLE_GRID),
    "methods": {name: method.label for name, method in WHOLE_GRID.methods.items()},
}


def paper_bars():
    """The bars of the paper that are also part of this run, in percent.

    By model, accuracy before and after fine-tuning: {"net": {"before": 70.1, "after": 68.2}}.
    """
    numbers = ("ood_before", "ood_after")
    rows = CATALOG.table("paper.csv", ("family", "model", "method", *numbers, "source"), numbers)
    bars = {}
    for row in rows:
        is_of_example = row["family"] == FAMILY and row["method"] == EXAMPLE_METHOD
        is_of_run = CONFIG["protocol"] == "paper" and row["model"] in GRID.models
        if is_of_example and is_of_run:
            bars[row["model"]] = {
                "before": float(row["ood_before"]),
                "after": float(row["ood_after"]),
            }
    return bars


def not_in_ri():
    """Datasets that are not part of the example's RI, and why: {"noto_blur": "variant"}."""
    source_groups = GRID.leak_free_groups() or {}
    reasons = {}
    for name, dataset in GRID.datasets.items():
        if name not in GRID.ood:
            reasons[name] = "variant" if dataset.role == "ood" else "in distribution"
    group_of_target = source_groups.get(EXAMPLE_TARGET)
    for name in GRID.ood:
        if name in source_groups and source_groups[name] == group_of_target:
            reasons[name] = "shared images"
    return reasons


REGISTRY.figure(
    "protocol",
    analysis="robustness",
    question="trust",
    inputs={
        **{name: TABLES[name] for name in ("accuracy", "ri", "mri")},
        **({"data": f"{METRICS}/tables/data.csv"} if GRID.split_fractions else {}),
    },
    settings={
        "example": {
            **ONE_MODEL,
            **ONE_METHOD,
            "target": EXAMPLE_TARGET,
            "size": GRID.shown_size,
        },
        "left_out": not_in_ri(),
        "targets": TARGET_LABELS,
        "datasets": DATASET_LABELS,
    },
)
REGISTRY.figure(
    "ri_matrix",
    analysis="robustness",
    question="survived",
    inputs={"ri": TABLES["ri"], "mri": TABLES["mri"]},
    settings={
        **SHOWN_LABELS,
        "shared": SHOWN_GRID.sharing_targets(),
        "confidence": CONFIDENCE,
    },
)
PAPER_BARS = paper_bars()
REGISTRY.figure(
    "before_after",
    analysis="robustness",
    question="survived",
    caption="before_after_with_paper" if PAPER_BARS else "",
    inputs={"ood": TABLES["ood"]},
    settings={
        **ONE_METHOD,
        "models": {name: MODEL_LABELS[name] for name in EXAMPLE_MODELS},
        "number_of_datasets": len(GRID.ood),
        "number_of_targets": len(GRID.targets),
        "confidence": CONFIDENCE,
        "paper": PAPER_BARS,
    },
)
ACCURACY = {"accuracy": TABLES["accuracy"]}
REGISTRY.figure(
    "radar",
    analysis="robustness",
    question="survived",
    inputs=ACCURACY,
    settings={**EXAMPLE, "models": {name: MODEL_STYLES[name] for name in EXAMPLE_MODELS[:2]}},
)
REGISTRY.figure(
    "accuracy_matrix",
    analysis="robustness",
    question="survived",
    inputs=ACCURACY,
    settings={**SHOWN_LABELS, "datasets": DATASET_LABELS, "source_groups": SOURCE_GROUPS},
)
if PUBLISHABLE := {
    name: label for name, label in DATASET_LABELS.items() if GRID.datasets[name].publishable
}:
    REGISTRY.figure(
        "examples",
        analysis="robustness",
        question="trust",
        inputs={
            "rows": rows_of([PRETRAINED_RUNS[FIRST_MODEL]]),
            "images": [
                prepared("manifest.json", name, GEOMETRY_OF[FIRST_MODEL]) for name in PUBLISHABLE
            ],
        },
        settings={"datasets": PUBLISHABLE, "model_label": MODEL_LABELS[FIRST_MODEL], "objects": 8},
    )
