"""Fit of fine-tuned runs: accuracy on the images that they were trained on. No torch.

A run is underfitted if its method can fit its training images but its fit is below the family's
threshold, or if it merges the weights of such a run. Its RI shows how far training got, not the
effect of the method.

A learning rate that a mapping states for `other` models was not chosen for the network that is
trained with it. Runs with such a rate, and merges of them, are marked, too.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rib.schema.run import ALL, MEAN, PRETRAINED, RUN_COLUMNS, Run, parent_of
from rib.statistics.statistics_settings import FitRule

UNDERFITTED = "†"  # mark in tables and figures
OTHER_RATE = "§"  # mark in tables: the rate was not chosen for the network
FIT_COLUMNS = ["fit", "underfitted"]


def fit_table(
    fits: Mapping[Run, Mapping[str, float]],
    accuracy: pd.DataFrame,
    rule: FitRule,
) -> pd.DataFrame:
    """Fit of each fine-tuned run (percent), and whether it is underfitted (yes or no).

    Fit is the accuracy on the images that the run was trained on. The other columns are model,
    method, target, size, seed and, if the rule names such methods, other_rate: yes for a learning
    rate that was not chosen for the model, else no.

    Args:
        fits: by run, fit (0 to 1) of each checkpoint that makes up its weights, such as {run: {"ft,
            seed 0": 0.99, "ft, seed 1": 0.98}} for a merge of two seeds.
        accuracy: columns of a run, dataset and accuracy (percent). The fit of a merge is its
            accuracy on its target if its parents were trained on all images of the target, and NaN
            otherwise.
    """
    rows_on_target = accuracy[accuracy["target"] == accuracy["dataset"]]
    accuracy_on_target = rows_on_target.set_index(RUN_COLUMNS)["accuracy"].to_dict()
    lines = []
    for run, fit_of_checkpoint in fits.items():
        if run.method == PRETRAINED:
            continue
        run_values = run.values(RUN_COLUMNS)
        fit = None
        if run.method in fit_of_checkpoint:
            fit = 100 * fit_of_checkpoint[run.method]
        elif rule.whole_targets and run.size == ALL:
            fit = accuracy_on_target.get(run_values)
        is_underfitted = _is_below_threshold(fit_of_checkpoint, rule)
        lines.append((*run_values, fit, "yes" if is_underfitted else "no"))
    table = pd.DataFrame(lines, columns=[*RUN_COLUMNS, *FIT_COLUMNS]).astype({"fit": float})
    if rule.other_rates:
        other_rates = []
        for model, method in zip(table["model"], table["method"], strict=True):
            has_other_rate = method in rule.other_rates.get(model, [])
            other_rates.append("yes" if has_other_rate else "no")
        table["other_rate"] = other_rates
    return table


def _is_below_threshold(fit_of_checkpoint: Mapping[str, float], rule: FitRule) -> bool:
    """Whether a checkpoint is below the threshold, of a method that can fit its training images."""
    if rule.threshold is None:
        return False
    return any(
        fit < rule.threshold
        for key, fit in fit_of_checkpoint.items()
        if parent_of(key)["method"] in rule.can_fit
    )


def read_table(path: Path) -> pd.DataFrame:
    """A CSV table of runs; the column size (500, 0.25 or all) is read as text, not as numbers."""
    return pd.read_csv(path, dtype={"size": str})


def underfitted_methods(path: Path) -> set[tuple[str, str, str]]:
    """Model, method and size with an underfitted run in a table of fit: {("net", "ft", "all")}."""
    runs = read_table(path)
    underfitted = runs[runs["underfitted"] == "yes"]
    return set(underfitted[["model", "method", "size"]].itertuples(index=False, name=None))


def marked(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Add the columns fit and underfitted to a table: mean fit and number of underfitted runs.

    If `runs` has the column other_rate, the number of runs with such a rate is added, too. A row
    covers the runs that agree with it in all run columns of the table: without target and seed, the
    runs of all targets and seeds. Target `mean` stands for all targets and seeds.

    Args:
        table: some of the run columns, or `chosen` in place of method.
        runs: run columns of the same types as in the table, fit, underfitted and perhaps other_rate
            (yes or no).
    """
    # `counted` are the columns whose yes are counted, such as ["underfitted"].
    counted = mark_columns(runs)
    runs = runs.assign(**{column: runs[column] == "yes" for column in counted})
    run_columns = list(RUN_COLUMNS)
    if "chosen" in table:
        runs = runs.rename(columns={"method": "chosen"})
        run_columns[run_columns.index("method")] = "chosen"
    keys = [column for column in run_columns if column in table]
    covered_runs = runs
    if "target" in keys:
        # Each run is also covered by the row of target `mean`.
        covered_by_means = runs.assign(target=MEAN, seed="")
        covered_runs = pd.concat([runs, covered_by_means])
    summaries = {"fit": "mean", **dict.fromkeys(counted, "sum")}
    marks = covered_runs.groupby(keys, as_index=False).agg(summaries)
    with_marks = table.merge(marks, how="left", on=keys)
    return with_marks.fillna(dict.fromkeys(counted, 0)).astype(dict.fromkeys(counted, int))


def mark_columns(table: pd.DataFrame) -> list[str]:
    """Columns of a table that mark runs: `underfitted` and perhaps `other_rate`."""
    return [column for column in ("underfitted", "other_rate") if column in table]


def name_other_rates(runs: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Models and methods, as shown, whose learning rate was not chosen for the model.

    An example is ["CNN on 1,000, replay"], model and method.

    Args:
        runs: columns model, method and perhaps other_rate.
        labels: by kind, such as {"models": {"cnn": "CNN"}, "methods": {"ft": "Full fine-tuning"}}.
    """
    if "other_rate" not in runs:
        return []
    pairs = runs.loc[runs["other_rate"] == "yes", ["model", "method"]].drop_duplicates()
    texts = []
    for model, method in pairs.itertuples(index=False):
        texts.append(f"{labels['models'][model]}, {labels['methods'][method]}")
    return texts


def name_underfitted(runs: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Underfitted runs, one text for each model and method.

    An example is ["Lite0, full fine-tuning on Noto, Twemoji"].

    Args:
        runs: columns model, method, target, size, seed, underfitted. Texts name sizes and seeds if
            there are several.
        labels: by kind (models, methods, targets), such as {"models": {"lite0": "Lite0"}, ...}.
    """
    name_sizes = set(runs["size"]) != {ALL}
    name_seeds = runs["seed"].nunique() > 1
    underfitted = runs[runs["underfitted"] == "yes"]
    texts = []
    for _, runs_of_method in underfitted.groupby(["model", "method"], sort=False):
        targets = []
        for run in runs_of_method.to_dict("records"):
            target = labels["targets"][run["target"]]
            if name_sizes:
                target += f" (size {run['size']})"
            if name_seeds:
                target += f" (seed {run['seed']})"
            targets.append(target)
        model_label = labels["models"][run["model"]]
        method_label = labels["methods"][run["method"]]
        texts.append(f"{model_label}, {method_label} on {', '.join(targets)}")
    return texts
