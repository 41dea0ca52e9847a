"""First numbers of a run's page: the effect of one method on each network.

The sentences around them are in page.html.jinja.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
from pandas import DataFrame

from rib.base.rounding import MINUS, percent, points
from rib.schema.run import MEAN

FULL_FINE_TUNING = "ft"
HALF_WAY = 0.5  # the shown average is the one closest to it
MOST_SHOWN = 3  # networks; of more, only the lowest and the highest change are shown


@dataclass(frozen=True)
class AnswerTables:
    """Tables of one training subset behind the answer; None if the run doesn't make them."""

    mri: DataFrame  # a row per model and method: mri, ood_before, ood_after, underfitted
    in_distribution: DataFrame | None = None  # model, method, change
    ranking: DataFrame | None = None  # reference, the method that others are compared with
    # model, method, target, leak_free (mRI), targets and sharing_targets (numbers)
    leak_free: DataFrame | None = None


@dataclass(frozen=True)
class AnswerNames:
    """Labels of models and methods, and the methods that average weights."""

    models: Mapping[str, str]  # labels
    methods: Mapping[str, str]  # labels
    # Parent of each method that averages its parent's weights with the pretrained ones, such as
    # {"half": "ft"}, and the coefficient of the parent, such as {"half": 0.5}.
    averages: Mapping[str, str]
    coefficients: Mapping[str, float]


@dataclass(frozen=True)
class KeyNumbers:
    """Numbers of one network, as texts; None if the run doesn't have them."""

    model: str  # label
    before: str  # mean accuracy on the other datasets, in percent
    after: str
    change: str  # in percentage points, such as `-3.1`; so are the rest
    change_in_distribution: str | None
    gain_of_average: str | None  # the average's change minus the method's
    change_of_average: str | None
    leak_free: str | None  # change without images that share a source with the target


@dataclass(frozen=True)
class Answer:
    """The answer of a run; without numbers if no network was fine-tuned."""

    method: str = ""  # label
    average: str = ""  # label
    # One for each network, the lowest change first.
    numbers: list[KeyNumbers] = field(default_factory=list)
    models: int = 0  # all that were fine-tuned, of which `numbers` may show only two
    underfitted: bool = False  # whether every run is underfitted, so that `numbers` shows such runs
    targets: int = 0
    sharing_targets: int = 0  # targets that share source images with other datasets


def answer(tables: AnswerTables, names: AnswerNames) -> Answer:
    """The page's first numbers: how much accuracy the main method changes on other datasets.

    For each network these are accuracies before and after, their difference, and the same for an
    average with the pretrained weights. Underfitted runs (low accuracy on training images) are left
    out, unless all runs are underfitted.
    """
    mri = tables.mri
    if mri.empty:
        return Answer()
    rows = fitted_rows(mri)
    underfitted = rows.empty
    if underfitted:
        rows = mri
    method = main_method(tables)
    if method not in set(rows["method"]):
        method = str(rows["method"].iloc[0])
    average = _average_half_way(rows, names, method)
    rows_of_method = rows[rows["method"] == method]
    leak_free = _leak_free_means(tables.leak_free, method)
    shown_rows = _extremes(rows_of_method)
    numbers = []
    for row in shown_rows.to_dict("records"):
        model = row["model"]
        change_of_average = None
        if average is not None:
            change_of_average = _value(rows[rows["method"] == average], model, "mri")
        gain = None
        if change_of_average is not None:
            gain = change_of_average - row["mri"]
        change_in_distribution = None
        if tables.in_distribution is not None:
            table = tables.in_distribution
            change_in_distribution = _value(table[table["method"] == method], model, "change")
        numbers.append(
            KeyNumbers(
                model=names.models[model],
                before=percent(row["ood_before"]),
                after=percent(row["ood_after"]),
                change=_signed(row["mri"]),
                change_in_distribution=_text(change_in_distribution),
                gain_of_average=_text(gain),
                change_of_average=_text(change_of_average),
                leak_free=_text(_value(leak_free, model, "leak_free")),
            )
        )
    return Answer(
        method=names.methods[method],
        average=names.methods[average] if average is not None else "",
        numbers=numbers,
        models=len(rows_of_method),
        underfitted=underfitted,
        targets=0 if leak_free.empty else int(leak_free["targets"].max()),
        sharing_targets=0 if leak_free.empty else int(leak_free["sharing_targets"].max()),
    )


def main_method(tables: AnswerTables) -> str:
    """The method of the answer: the ranking's reference, else `ft`, else the first in `mri`."""
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


def fitted_rows(mri: DataFrame) -> DataFrame:
    """Rows of the table `mri` without underfitted runs (low accuracy on training images).

    Its column `underfitted` has the number of such runs behind a mean.
    """
    if "underfitted" not in mri:
        return mri
    has_underfitted_run = mri["underfitted"] > 0
    return mri[~has_underfitted_run]


def _average_half_way(rows: DataFrame, names: AnswerNames, method: str) -> str | None:
    """Name of the method's average with the pretrained weights whose share is closest to 0.5."""
    methods = dict.fromkeys(rows["method"])
    averages = [name for name in methods if names.averages.get(name) == method]
    if not averages:
        return None
    return min(averages, key=lambda name: abs(names.coefficients[name] - HALF_WAY))


def _leak_free_means(leak_free: DataFrame | None, method: str) -> DataFrame:
    """mRI of a method without images that share a source with the target's: a row per model.

    Empty if no target shares source images.
    """
    if leak_free is None:
        return pd.DataFrame(columns=["model", "targets", "sharing_targets", "leak_free"])
    is_shown = (leak_free["target"] == MEAN) & (leak_free["method"] == method)
    return leak_free[is_shown & (leak_free["sharing_targets"] > 0)]


def _extremes(rows: DataFrame) -> DataFrame:
    """Rows for the answer, sorted by mRI; of more than three only the lowest and the highest."""
    rows = rows.sort_values("mri", kind="stable")
    return rows if len(rows) <= MOST_SHOWN else rows.iloc[[0, -1]]


def _value(rows: DataFrame, model: str, column: str) -> float | None:
    """A model's number in a column, such as `mri`; None if it has none."""
    values = rows.loc[rows["model"] == model, column].dropna()
    return None if values.empty else float(values.iloc[0])


def _text(change: float | None) -> str | None:
    """A change as the page writes it, `+1.2`; None stays None."""
    return None if change is None else _signed(change)


def _signed(change: float) -> str:
    """`+1.2` for 1.2; a minus sign is the typographic one."""
    return points(change).replace("-", MINUS)
