"""Checks of evaluation rows before anything is computed from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.schema.messages import show
from rib.schema.run import ALL, NO_TARGET, PRETRAINED
from rib.statistics.scored_state import STATE_COLUMNS, ScoredState, run_of_row

TEXT = "a text"
WHOLE = "a whole number"
NUMBER = "a number"
AGAIN = "take the rows as rib.load_rows returns them"
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class ColumnRule:
    """Type and range that the values of a column must have."""

    kind: str  # TEXT, WHOLE or NUMBER
    least: float = -np.inf  # for numbers
    most: float = np.inf
    optional: bool = False  # the table may lack the column
    may_be_missing: bool = False  # values may be None or NaN


# rib.evaluation.evaluate explains these columns; others are ignored.
COLUMNS = {
    "model": ColumnRule(TEXT),
    "target": ColumnRule(TEXT),
    "method": ColumnRule(TEXT),
    "size": ColumnRule(TEXT),
    "seed": ColumnRule(WHOLE, least=0, most=LARGEST),
    "alpha": ColumnRule(NUMBER, least=0, most=1, may_be_missing=True),
    "dataset": ColumnRule(TEXT),
    "row": ColumnRule(WHOLE, least=0, most=LARGEST),
    "prediction": ColumnRule(WHOLE, least=0, most=LARGEST),
    "rank": ColumnRule(WHOLE, least=0, most=LARGEST),
    "log_prob": ColumnRule(NUMBER, most=0, optional=True),
    "energy": ColumnRule(NUMBER, optional=True),
    "confidence": ColumnRule(NUMBER, least=0, most=1, optional=True),
    "margin": ColumnRule(NUMBER, optional=True),
    "brier": ColumnRule(NUMBER, least=0, most=2, optional=True),
}


def checked_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The evaluation rows, checked: only the columns in `COLUMNS`, whole numbers as int64.

    Args:
        rows: one row per network (`STATE_COLUMNS`) and image (dataset and row).

    Raises:
        UserError: a column is missing; a value is missing, of another type or out of its range; an
            image is scored twice; rows of a pretrained network are missing or have a target; rows
            of a fine-tuned network have none; or two networks were scored on different images. It
            names the column and the first such row by its position in the table, from 0.
    """
    if not isinstance(rows, pd.DataFrame):
        type_name = type(rows).__name__
        raise UserError(
            f"the rows are a {type_name}; give a pandas.DataFrame, as rib.load_rows returns."
        )
    if not len(rows):
        raise UserError("the table of rows is empty; give those that rib.load_rows returns.")
    _check_columns(rows)
    rules = {name: rule for name, rule in COLUMNS.items() if name in rows.columns}
    rows = rows[list(rules)].reset_index(drop=True)
    for name, rule in rules.items():
        _check_values(rows[name], name, rule)
    whole_numbers = [name for name, rule in rules.items() if rule.kind == WHOLE]
    rows = rows.astype(dict.fromkeys(whole_numbers, "int64"))
    _refuse_duplicates(rows)
    _check_targets(rows)
    _refuse_missing_pretrained(rows)
    _refuse_other_images(rows)
    return rows


def _check_columns(rows: pd.DataFrame) -> None:
    """Raises a UserError if a column is missing, or there twice."""
    for name, rule in COLUMNS.items():
        if name not in rows.columns and not rule.optional:
            raise UserError(f"the rows lack the column '{name}'; {AGAIN}.")
        if list(rows.columns).count(name) > 1:
            raise UserError(f"the rows have the column '{name}' twice; {AGAIN}.")


def check_upper_limits(
    rows: pd.DataFrame, images: Mapping[str, int], classes: Mapping[str, int]
) -> None:
    """Raise a UserError if rows are of images or classes that don't exist.

    Args:
        rows: columns dataset, row, prediction and rank, checked by `checked_rows`.
        images, classes: their numbers by dataset, such as {"noto": 1200} and {"noto": 350}.
    """
    datasets = rows["dataset"].astype(str)
    limits = {"row": images, "prediction": classes, "rank": classes}
    for name, limit_of_dataset in limits.items():
        limit_of_row = datasets.map(limit_of_dataset)
        position = _first_true(rows[name] >= limit_of_row)
        if position is not None:
            most = limit_of_row.iloc[position] - 1
            number = rows[name].iloc[position]
            why = f"{number}; on {datasets.iloc[position]} it is at most {most}"
            raise _wrong_value(name, position, why)


def _wrong_value(name: str, position: int, why: str) -> UserError:
    """An error whose `why` completes "the value is", such as "missing, not a number"."""
    return UserError(
        f"the column '{name}' of the rows, in row {position} (from 0), is {why}; {AGAIN}."
    )


def _first_true(flags: pd.Series | np.ndarray) -> int | None:
    """Position of the first True, or None."""
    positions = np.flatnonzero(np.asarray(flags, dtype=bool))
    return int(positions[0]) if len(positions) else None


def _check_values(values: pd.Series, name: str, rule: ColumnRule) -> None:
    """Raises a UserError for the first value that is missing, of another type or out of range."""
    is_missing = values.isna()  # its index is positions in the table
    if not rule.may_be_missing:
        position = _first_true(is_missing)
        if position is not None:
            raise _wrong_value(name, position, f"missing, not {rule.kind}")
    present = values[~is_missing]
    position = _first_true(~_is_of_kind(present, rule.kind))
    if position is not None:
        why = f"{_shown_value(present.iloc[position])}, not {rule.kind}"
        raise _wrong_value(name, int(present.index[position]), why)
    if rule.kind == TEXT:
        return
    position = _first_true(_is_outside(present, rule))
    if position is not None:
        shown = _shown_value(present.iloc[position])
        why = f"{shown}, not {rule.kind} {_range_of(rule)}"
        raise _wrong_value(name, int(present.index[position]), why)


def _is_outside(numbers: pd.Series, rule: ColumnRule) -> np.ndarray:
    """Which numbers the rule's range excludes, (n,) bool; infinite ones, too."""
    if numbers.dtype == object:  # Python's numbers may exceed every NumPy type
        is_inside = [rule.least <= number <= rule.most for number in numbers]
        return ~np.array(is_inside, dtype=bool)
    floats = numbers.to_numpy("float64")
    return ~((rule.least <= floats) & (floats <= rule.most)) | np.isinf(floats)


def _shown_value(value: object) -> str:
    """For messages, in one line: 1.5, not np.float64(1.5)."""
    if isinstance(value, np.generic):
        value = value.item()
    return " ".join(show(value).split())


def _range_of(rule: ColumnRule) -> str:
    """For messages: `from 0 to 1`, or `of at most 0`."""
    if np.isinf(rule.least) and np.isinf(rule.most):
        return "that is finite"
    if np.isinf(rule.least):
        return f"of at most {rule.most}"
    return f"from {rule.least} to {rule.most}"


def _is_of_kind(values: pd.Series, kind: str) -> np.ndarray:
    """Whether each of the present values is of a kind, (n,) bool; a text must not be empty."""
    if kind == TEXT:
        return np.array([isinstance(value, str) and value != "" for value in values], dtype=bool)
    all_right = np.ones(len(values), dtype=bool)
    if pd.api.types.is_integer_dtype(values.dtype):
        return all_right
    if pd.api.types.is_float_dtype(values.dtype):
        if kind == NUMBER:
            return all_right
        has_no_fraction = (values % 1 == 0).to_numpy(dtype=bool)
        if has_no_fraction.all():
            # 1.0 is not stored as a whole number, so all values are wrong.
            return ~all_right
        # The message should name a value with a fraction, which says more than 1.0.
        return has_no_fraction
    # Python's own numbers, or anything else.
    number_type = Integral if kind == WHOLE else Real
    is_number = [
        isinstance(value, number_type) and not isinstance(value, bool | np.bool_)
        for value in values
    ]
    return np.array(is_number, dtype=bool)


def _refuse_duplicates(rows: pd.DataFrame) -> None:
    """Raises a UserError if a network has scored an image twice."""
    is_duplicate = rows.duplicated(subset=[*STATE_COLUMNS, "dataset", "row"])
    position = _first_true(is_duplicate)
    if position is not None:
        row = rows.iloc[position]
        network = f"{row['model']}, {row['method']}, {row['target']}"
        why = f"image {row['row']} of {row['dataset']}, which {network} has already"
        raise _wrong_value("row", position, why)


def _check_targets(rows: pd.DataFrame) -> None:
    """Raises a UserError for pretrained rows with a target, and others without."""
    # Pretrained rows also have size `all`, seed 0 and no alpha.
    is_pretrained = rows["method"] == PRETRAINED
    values_of_pretrained = {"target": NO_TARGET, "size": ALL, "seed": 0}
    for name, value_of_pretrained in values_of_pretrained.items():
        position = _first_true(is_pretrained & (rows[name] != value_of_pretrained))
        if position is not None:
            shown = _shown_value(rows[name].iloc[position])
            why = f"{shown}, but that of a pretrained network is {value_of_pretrained!r}"
            raise _wrong_value(name, position, why)
    position = _first_true(is_pretrained & rows["alpha"].notna())
    if position is not None:
        raise _wrong_value("alpha", position, "a number, but a pretrained network has none")
    position = _first_true(~is_pretrained & (rows["target"] == NO_TARGET))
    if position is not None:
        method = rows["method"].iloc[position]
        raise _wrong_value("target", position, f"'{NO_TARGET}', without which {method} has no RI")


def _refuse_missing_pretrained(rows: pd.DataFrame) -> None:
    """Raises a UserError if rows of a pretrained network are missing, which RI needs."""
    is_pretrained = rows["method"] == PRETRAINED
    if is_pretrained.all():
        raise UserError("all rows are of pretrained networks; add those of a fine-tuned one.")
    for model in rows["model"].unique():
        if not (is_pretrained & (rows["model"] == model)).any():
            raise UserError(
                f"the rows of the pretrained {model} are missing; evaluate it on the same datasets."
            )


def _refuse_other_images(rows: pd.DataFrame) -> None:
    """Raises a UserError unless all networks scored the images of the first pretrained network."""
    images_of_states = _images_of_states(rows)
    first = next(state for state in images_of_states if state.is_pretrained)
    images_of_first = images_of_states[first]
    no_images = np.array([], dtype=np.int64)
    for state, images_of_dataset in images_of_states.items():
        for dataset in [*images_of_first, *images_of_dataset]:
            images = images_of_dataset.get(dataset, no_images)
            expected_images = images_of_first.get(dataset, no_images)
            if not np.array_equal(images, expected_images):
                different = np.setxor1d(images, expected_images)
                raise UserError(
                    f"the column 'row' has other images of {dataset} for {_network(state)} than "
                    f"for {_network(first)}, first image {different[0]}; evaluate both on the same "
                    "datasets."
                )


def _images_of_states(rows: pd.DataFrame) -> dict[ScoredState, dict[str, np.ndarray]]:
    """Images that each network scored, by row of the dataset's index: {state: {"noto": [0, 5]}}."""
    groups = rows.groupby([*STATE_COLUMNS, "dataset"], observed=True, sort=False, dropna=False)
    images_of_states: dict[ScoredState, dict[str, np.ndarray]] = {}
    for _, rows_of_group in groups:
        first_row = rows_of_group.iloc[0]
        run = run_of_row(first_row.to_dict())
        alpha = first_row["alpha"]
        state = ScoredState(run, None if pd.isna(alpha) else float(alpha))
        images_of_dataset = images_of_states.setdefault(state, {})
        images_of_dataset[first_row["dataset"]] = np.sort(rows_of_group["row"].to_numpy())
    return images_of_states


def _network(state: ScoredState) -> str:
    """A network in messages, such as net/noto/ft/all/0."""
    return "/".join(str(value) for value in state.column_values() if value is not None)
