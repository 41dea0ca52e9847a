"""Fit: accuracy of fine-tuned runs on the images that they were trained on. No torch.

A run is underfitted if it was trained with a method that can fit its training images but its fit is
below the family's threshold, or if it merges the weights of such a run. Its RI describes how far
training got, not what the method does.

A learning rate that a mapping states for `other` models was not chosen for the network that is
trained with it. Runs with such a rate, and merges of them, are marked, too.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rib.config.run import ALL, MEAN, PRETRAINED, RUN_COLUMNS, Run, parent_of
from rib.statistics.settings import FitRule

UNDERFITTED = "†"  # mark in tables and figures
OTHER_RATE = "§"  # mark in tables of a rate that was not chosen for the network
FIT_COLUMNS = ["fit", "underfitted"]


def fit_table(
    fits: Mapping[Run, Mapping[str, float]],
    accuracy: pd.DataFrame,
    rule: FitRule,
) -> pd.DataFrame:
    """One row per fine-tuned run: its columns, fit (percent), underfitted (yes or no).

    The fit is accuracy on the images that the run was trained on. If the rule names methods whose
    learning rate was not chosen for a model, the column other_rate is yes for their runs, and no
    for others; otherwise there is no such column.

    Args:
        fits: by run, the fit (0 to 1) of each checkpoint that makes up its weights, such as
            {"ft, seed 0": 0.99, "ft, seed 1": 0.98} of a merge of two seeds. For the names of
            checkpoints see rib.config.run.parent_of.
        accuracy: accuracies of runs on datasets, see rib.statistics.tables.accuracy_table. The fit
            of a merge is its accuracy on its target if its parents were trained on all of that, and
            NaN otherwise.
        rule: what decides how a run is marked.
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
    """Whether the fit of a checkpoint is below the threshold, if its method can reach it.

    Args:
        fit_of_checkpoint: accuracy on the training images, 0 to 1, by the checkpoint's key.
    """
    if rule.threshold is None:
        return False
    return any(
        fit < rule.threshold
        for key, fit in fit_of_checkpoint.items()
        if parent_of(key)["method"] in rule.can_fit
    )


def read_table(path: Path) -> pd.DataFrame:
    """A table with runs; a size is text: 10 images, 0.25 of them, or all."""
    return pd.read_csv(path, dtype={"size": str})


def marked(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns fit and underfitted of the runs that each of its rows covers.

    They are the mean fit and the number of underfitted runs; if the runs have the column
    other_rate, the number of runs with such a rate is added, too. A row covers the runs that agree
    with it in the run columns that the table has: without target and seed, those of all targets
    and seeds. `rib.statistics.writing.with_fit` has the details.

    Args:
        table: some of the run columns, or `chosen` in place of method.
        runs: a `fit_table` whose run columns have the same types as those of the table.
    """
    counted = mark_columns(runs)
    runs = runs.assign(**{column: runs[column] == "yes" for column in counted})
    run_columns = list(RUN_COLUMNS)
    if "chosen" in table:
        runs = runs.rename(columns={"method": "chosen"})
        run_columns[run_columns.index("method")] = "chosen"
    keys = [column for column in run_columns if column in table]
    covered_runs = runs
    if "target" in keys:
        # Rows of the target `mean` cover each run a second time.
        covered_by_means = runs.assign(target=MEAN, seed="")
        covered_runs = pd.concat([runs, covered_by_means])
    summaries = {"fit": "mean", **dict.fromkeys(counted, "sum")}
    marks = covered_runs.groupby(keys, as_index=False).agg(summaries)
    with_marks = table.merge(marks, how="left", on=keys)
    return with_marks.fillna(dict.fromkeys(counted, 0)).astype(dict.fromkeys(counted, int))


def mark_columns(table: pd.DataFrame) -> list[str]:
    """Columns of a table that say which runs are marked: `underfitted` and perhaps `other_rate`."""
    return [column for column in ("underfitted", "other_rate") if column in table]


def name_other_rates(runs: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Name the models and methods whose learning rate was not chosen for the model.

    An example is `CNN on 1,000, replay`. Without such runs the list is empty.

    Args:
        runs: rows of `fit_table`.
        labels: labels of `models` and `methods`.
    """
    if "other_rate" not in runs:
        return []
    pairs = runs.loc[runs["other_rate"] == "yes", ["model", "method"]].drop_duplicates()
    texts = []
    for model, method in pairs.itertuples(index=False):
        texts.append(f"{labels['models'][model]}, {labels['methods'][method]}")
    return texts


def name_underfitted(runs: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Name underfitted runs, one text for each model and method.

    An example is `Lite0, full fine-tuning on Noto, Twemoji`.

    Args:
        runs: rows of `fit_table`; size and seed are named where they have several.
        labels: labels of `models`, `methods` and `targets`.
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
