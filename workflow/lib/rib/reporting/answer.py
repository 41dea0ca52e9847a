"""The answer of a run in sentences, which its page and the README begin with.

A sentence is there only if the tables have the numbers that it needs.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas import DataFrame

from rib.base.rounding import MINUS, percent, points
from rib.config.run import MEAN

FULL_FINE_TUNING = "ft"
MOST_LISTED = 3  # networks or differences of which each has its number in a sentence
OTHER_DATASETS = "the out-of-distribution datasets other than the target"
TIE = (
    "An interval that holds 0 does not tell a difference from none; that does not make the two "
    "equal."
)


@dataclass(frozen=True)
class AnswerTables:
    """Tables of one training subset that the answer is read from; those that are not made: None."""

    mri: DataFrame
    in_distribution: DataFrame | None = None
    ranking: DataFrame | None = None
    comparisons: DataFrame | None = None
    pretraining_sizes: DataFrame | None = None
    leak_free: DataFrame | None = None


@dataclass(frozen=True)
class AnswerNames:
    """How the answer names models and methods, and what it knows of them."""

    models: Mapping[str, str]  # labels
    methods: Mapping[str, str]  # labels
    # Parent of each method that averages the parent's weights with the pretrained ones.
    averages: Mapping[str, str]
    target_was_trained_on: bool  # whether accuracy on the target includes the images trained on


@dataclass(frozen=True)
class Statement:
    """A part of the answer: what it is about, and a sentence or two."""

    subject: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The answer of a run; the headline is empty if no network was fine-tuned."""

    headline: str
    statements: list[Statement]


def answer(tables: AnswerTables, names: AnswerNames) -> Answer:
    """The answer of a run: a sentence on the change of accuracy, and statements on the rest."""
    if tables.mri.empty:
        return Answer("", [])
    method = main_method(tables)
    texts = {
        "On the target": on_the_target(tables, names, method),
        "In distribution": in_distribution(tables, names, method),
        "Averaging": averaging(tables, names, method),
        "Size of pretraining": size_of_pretraining(tables, names, method),
        "All methods": all_methods(tables, names),
        "Why there is no spread": no_spread(tables, names),
    }
    statements = [Statement(subject, text) for subject, text in texts.items() if text]
    return Answer(headline(tables, names, method), statements)


def main_method(tables: AnswerTables) -> str:
    """The method that the answer is about.

    It is the reference of the ranking, else full fine-tuning, else the first of the table of mRI.
    """
    methods: list[str] = tables.mri["method"].tolist()
    references: list[str] = []
    if tables.ranking is not None and "reference" in tables.ranking:
        references = tables.ranking["reference"].tolist()
    for reference in references:
        if reference in methods:
            return reference
    if FULL_FINE_TUNING in methods:
        return FULL_FINE_TUNING
    return methods[0]


def headline(tables: AnswerTables, names: AnswerNames, method: str) -> str:
    """How much mean accuracy on the other datasets changed, in one sentence.

    It is of the main method's finished runs; of all methods' where it has none, and of unfinished
    runs where none is finished. An example, without the names of the other datasets: `Full
    fine-tuning changed mean accuracy on ... by -3.1 percentage points.` It has no interval: that of
    the tables is for other images and these very networks, and other networks differ by more.

    Where targets share source images with other datasets, a second sentence has the leak-free
    change: `2 of 4 targets share source images with others; leak-free: -4.0.`
    """
    rows = finished_rows(tables.mri)
    training_is_unfinished = rows.empty
    if training_is_unfinished:
        rows = tables.mri
    if method in set(rows["method"]):
        rows = rows[rows["method"] == method]
    subject = "Fine-tuning"
    if rows["method"].nunique() == 1:
        subject = _capitalised(names.methods[rows["method"].iloc[0]])
    changes = _listed(rows, "mri", None, tables.mri, names)
    sentence = f"{subject} changed mean accuracy on {OTHER_DATASETS} by {changes} percentage points"
    if training_is_unfinished:
        sentence += "; its training is unfinished"
    return f"{sentence}.{_leaks(tables, names, rows)}"


def _leaks(tables: AnswerTables, names: AnswerNames, rows: DataFrame) -> str:
    """A sentence on targets that share source images with other datasets; empty without any.

    Args:
        rows: of mRI, those whose changes the headline has.
    """
    if tables.leak_free is None:
        return ""
    means = tables.leak_free[tables.leak_free["target"] == MEAN]
    rows = rows[["model", "method"]].merge(means, on=["model", "method"])
    if rows.empty or rows["sharing_targets"].max() == 0:
        return ""
    sharing = rows["sharing_targets"].max()
    targets = rows["targets"].max()
    verb = "shares" if sharing == 1 else "share"
    noun = "target" if targets == 1 else "targets"
    sentence = f" {sharing} of {targets} {noun} {verb} source images with others"
    leak_free_rows = rows.dropna(subset="leak_free")
    if leak_free_rows.empty:
        return f"{sentence}, and not every target leaves other images to test on."
    changes = _listed(leak_free_rows, "leak_free", None, tables.mri, names)
    return f"{sentence}; leak-free: {changes}."


def finished_rows(mri: DataFrame) -> DataFrame:
    """Rows of mRI without an unfinished run."""
    if "unfinished" not in mri:
        return mri
    has_unfinished_run = mri["unfinished"] > 0
    return mri[~has_unfinished_run]


def on_the_target(tables: AnswerTables, names: AnswerNames, method: str) -> str:
    """Accuracy on the target before and after the main method; empty if it is not known."""
    rows = tables.mri[tables.mri["method"] == method]
    if "on_target" not in rows or rows["on_target"].isna().all():
        return ""
    changes = []
    for row in _extremes(rows, "on_target").to_dict("records"):
        before = percent(row["on_target_before"])
        after = percent(row["on_target"])
        interval = f"[{percent(row['on_target_low'])}, {percent(row['on_target_high'])}]"
        labels = _labels_of(row, rows, tables.mri, names)
        changes.append(f"from {before} to {after} % {interval}{labels}")
    text = f"{_capitalised(names.methods[method])} took mean accuracy {_joined(changes, rows)}"
    if names.target_was_trained_on:
        text += "; its images include those trained on"
    return f"{text}."


def in_distribution(tables: AnswerTables, names: AnswerNames, method: str) -> str:
    """Change of accuracy in distribution by the main method; empty without such a dataset."""
    if tables.in_distribution is None:
        return ""
    rows = tables.in_distribution[tables.in_distribution["method"] == method]
    if rows.empty:
        return ""
    changes = []
    for row in _extremes(rows, "change").to_dict("records"):
        before = percent(row["before"])
        after = percent(row["after"])
        change = _change_of(row, "change", ("ci_low", "ci_high"))
        labels = _labels_of(row, rows, tables.mri, names)
        changes.append(f"from {before} to {after} %, by {change} points{labels}")
    return f"{_capitalised(names.methods[method])} took mean accuracy {_joined(changes, rows)}."


def averaging(tables: AnswerTables, names: AnswerNames, method: str) -> str:
    """What averaging the main method's weights with the pretrained ones saved; empty without it."""
    differences = differences_of_averages(tables, names.averages, method)
    if differences.empty:
        return ""
    label = names.methods[method]
    changes = _listed(differences, "difference", ("low", "high"), tables.mri, names)
    text = (
        f"Compared with {label}, averages of its weights and the pretrained ones changed mean "
        f"accuracy on the other datasets by {changes} points"
    )
    on_target = _targets_of_averages(tables.mri, differences, method)
    if on_target:
        text += f"; on the target {on_target}"
    text += "."
    if len(differences) > MOST_LISTED and differences["low"].notna().all():
        text += (
            f" Of {len(differences)} differences {_counted_by_sign(differences, 'low', 'high')}."
        )
    holds_zero = (differences["low"] <= 0) & (differences["high"] >= 0)
    if holds_zero.any():
        text += f" {TIE}"
    return text


def differences_of_averages(
    tables: AnswerTables, averages: Mapping[str, str], parent: str
) -> DataFrame:
    """mRI of each finished average minus that of its parent, for each model.

    Args:
        averages: parent of each method that averages, for example {"wise_ft": "ft"}.
        parent: the parent whose averages are compared with it.

    Returns:
        model, method, difference, low, high: the interval of the ranking, which is simultaneous, if
        that has differences from the parent, else that of the pair; NaN without one.
    """
    mri_of_run: dict[tuple[str, str], float] = {}  # by model and method
    for row in finished_rows(tables.mri).to_dict("records"):
        mri_of_run[row["model"], row["method"]] = row["mri"]
    lines = []
    for (model, method), mri in mri_of_run.items():
        is_average_of_parent = averages.get(method) == parent
        if is_average_of_parent and (model, parent) in mri_of_run:
            difference = mri - mri_of_run[model, parent]
            low, high = _interval_of_difference(tables, model, method, parent)
            lines.append((model, method, difference, low, high))
    return pd.DataFrame(lines, columns=["model", "method", "difference", "low", "high"])


def _interval_of_difference(
    tables: AnswerTables, model: str, method: str, parent: str
) -> tuple[float, float]:
    """Confidence interval of a method's mRI minus its parent's; NaN, NaN if no table has it.

    The ranking has differences of all methods from a reference, which may be the parent. The table
    of comparisons has a row for each pair of methods, in one of the two orders.
    """
    if tables.ranking is not None and "diff_low" in tables.ranking:
        for row in tables.ranking.to_dict("records"):
            is_of_pair = (row["model"], row["method"], row["reference"]) == (model, method, parent)
            if is_of_pair:
                return row["diff_low"], row["diff_high"]
    if tables.comparisons is not None:
        for row in tables.comparisons.to_dict("records"):
            pair = (row["model"], row["method"], row["other"])
            if pair == (model, method, parent):
                return row["ci_low"], row["ci_high"]
            if pair == (model, parent, method):  # the parent minus the method
                return -row["ci_high"], -row["ci_low"]
    return float("nan"), float("nan")


def _targets_of_averages(mri: DataFrame, differences: DataFrame, parent: str) -> str:
    """Accuracy on the target of averages and of their parent; empty if it is not known."""
    if "on_target" not in mri:
        return ""
    is_average = mri["method"].isin(differences["method"])
    of_averages = mri.loc[is_average, "on_target"]
    of_parent = mri.loc[mri["method"] == parent, "on_target"]
    if of_averages.isna().any() or of_parent.isna().any():
        return ""
    return f"averages have {_range_of(of_averages)} %, not {_range_of(of_parent)} %"


def size_of_pretraining(tables: AnswerTables, names: AnswerNames, method: str) -> str:
    """The networks with the fewest and the most pretraining images; empty if there is one size.

    There is no p value: networks of two sizes say nothing of networks of these sizes in general.
    """
    if tables.pretraining_sizes is None:
        return ""
    table = tables.pretraining_sizes
    rows = table[table["method"] == method].sort_values("pretraining_images", kind="stable")
    if rows["pretraining_images"].nunique() < 2:
        return ""
    among = "Between these two networks"
    if len(rows) > 2:
        among = f"Of these {len(rows)} networks, those with the fewest and the most images"
    changes = []
    for row in rows.iloc[[0, -1]].to_dict("records"):
        before = percent(row["before"])
        after = percent(row["after"])
        label = names.models[row["model"]]
        images = f"{row['pretraining_images']:,.0f} images"
        changes.append(f"from {before} to {after} % ({label}, {images})")
    return (
        f"{among}: {names.methods[method]} took mean accuracy on the other datasets "
        f"{' and '.join(changes)}. Another pretraining of the same size may differ as much."
    )


def all_methods(tables: AnswerTables, names: AnswerNames) -> str:
    """How many pairs of model and method gained and lost, and the extremes.

    Empty if all pairs are of one method.
    """
    rows = finished_rows(tables.mri)
    if rows["method"].nunique() < 2:
        return ""
    changes = _listed(rows, "mri", ("ci_low", "ci_high"), tables.mri, names)
    counts = _counted_by_sign(rows, "ci_low", "ci_high")
    return f"Of {len(rows)} finished pairs of model and method {counts}: {changes} points."


def no_spread(tables: AnswerTables, names: AnswerNames) -> str:
    """What an interval without width means; empty if there is none."""
    rows = finished_rows(tables.mri)
    rows_without_width = rows[rows["ci_low"] == rows["ci_high"]].to_dict("records")
    if not rows_without_width:
        return ""
    row = rows_without_width[0]
    change = _change_of(row, "mri", ("ci_low", "ci_high"))
    labels = _labels_of(row, tables.mri, tables.mri, names)
    text = (
        f"The interval of {change}{labels} has no width, since every draw of objects gives the "
        f"same change: accuracy on the other datasets is {percent(row['ood_before'])} % before "
        f"and {percent(row['ood_after'])} % after."
    )
    if row["ood_before"] >= 100:
        text += " No accuracy is higher, so these datasets are too easy to show a gain."
    return text


def changes_in_distribution(table: DataFrame, methods: Mapping[str, str]) -> list[str]:
    """Accuracy in distribution before and after each method; each is a range over models.

    Args:
        table: the table in_distribution, of one training subset.
        methods: labels of the methods.
    """
    changes = []
    for method, rows in table.groupby("method", sort=False):
        before = _range_of(rows["before"])
        after = _range_of(rows["after"])
        changes.append(f"{methods[str(method)]}: {before} % before, {after} % after")
    return changes


def _listed(
    rows: DataFrame,
    column: str,
    ends: tuple[str, str] | None,
    mri: DataFrame,
    names: AnswerNames,
) -> str:
    """Changes with their intervals and labels: of few rows all, of many the lowest and highest.

    Examples are `-3.1 [-4.0, -2.2]` of one row, `-3.1 [-4.0, -2.2] (ResNet) and +0.4 [+0.1, +0.7]
    (ViT)` of two, and the same with `to` for `and` of many.

    Args:
        rows: model, method, and the columns of the change and of the ends of its interval.
        column: that of the change.
        ends: columns of the lower and the upper end of its interval; None shows no interval.
        mri: table that has all models of the run.
    """
    changes = []
    for row in _extremes(rows, column).to_dict("records"):
        changes.append(_change_of(row, column, ends) + _labels_of(row, rows, mri, names))
    return _joined(changes, rows)


def _extremes(rows: DataFrame, column: str) -> DataFrame:
    """All of few rows; of many those with the lowest and the highest number of a column."""
    if len(rows) <= MOST_LISTED:
        return rows
    return rows.sort_values(column, kind="stable").iloc[[0, -1]]


def _joined(texts: list[str], rows: DataFrame) -> str:
    """Texts of `_extremes` of some rows, as part of a sentence.

    They are `a`, `a and b` or `a, b and c` if these are all rows, and `a to b` of more rows.
    """
    if len(texts) == 1:
        return texts[0]
    if len(rows) > MOST_LISTED:
        return " to ".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _change_of(row: Mapping[Hashable, Any], column: str, ends: tuple[str, str] | None) -> str:
    """A change with its interval, if it has one: `-3.1 [-4.0, -2.2]`.

    Args:
        row: a line of a table.
        column: that of the change.
        ends: columns of the lower and the upper end of its interval, which may be NaN, or None.
    """
    text = _signed(row[column])
    if ends is None:
        return text
    low_column, high_column = ends
    has_interval = not math.isnan(row[low_column])
    if has_interval:
        text += f" [{_signed(row[low_column])}, {_signed(row[high_column])}]"
    return text


def _labels_of(
    row: Mapping[Hashable, Any], rows: DataFrame, mri: DataFrame, names: AnswerNames
) -> str:
    """Labels in brackets: of the model if the run has several, of the method if the rows have.

    An example is ` (ResNet-50, WiSE-FT)`; it is empty if both are clear without.

    Args:
        row: the line whose labels are wanted.
        rows: all lines that are shown.
        mri: table that has all models of the run.
    """
    labels = []
    if mri["model"].nunique() > 1:
        labels.append(names.models[row["model"]])
    if rows["method"].nunique() > 1:
        labels.append(names.methods[row["method"]])
    if not labels:
        return ""
    return f" ({', '.join(labels)})"


def _counted_by_sign(rows: DataFrame, low: str, high: str) -> str:
    """How many rows have an interval above and below 0.

    Args:
        low: column of the lower end.
        high: column of the upper end.
    """
    above = (rows[low] > 0).sum()
    below = (rows[high] < 0).sum()
    return f"{above} have an interval above 0 and {below} below"


def _range_of(percentages: pd.Series) -> str:
    """The smallest and the largest of some percentages, as text; one if they read the same."""
    smallest = percent(percentages.min())
    largest = percent(percentages.max())
    if smallest == largest:
        return smallest
    return f"{smallest} to {largest}"


def _signed(difference: float) -> str:
    """A difference in percentage points, with the typographic minus sign."""
    return points(difference).replace("-", MINUS)


def _capitalised(label: str) -> str:
    """A label as it begins a sentence; other letters than the first stay as they are."""
    return label[0].upper() + label[1:]
