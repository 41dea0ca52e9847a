"""What evaluation rows must look like before anything is computed from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.config.run import ALL, NO_TARGET, PRETRAINED, RUN_COLUMNS
from rib.config.values import show

TEXT, WHOLE, NUMBER = "a text", "a whole number", "a number"
AGAIN = "take the rows as rib.evaluate returns them"
LARGEST = 2**31 - 1  # of whole numbers in rows
STATE_COLUMNS = [*RUN_COLUMNS, "alpha"]


@dataclass(frozen=True)
class Column:
    """What the values of a column are."""

    kind: str  # TEXT, WHOLE or NUMBER
    least: float = -np.inf  # of numbers
    most: float = np.inf
    optional: bool = False  # whether a table may lack the column
    may_be_missing: bool = False  # whether values may be missing (None or NaN)


# Columns of the rows of rib.evaluation.evaluate, which says what they mean; others are ignored.
COLUMNS = {
    "model": Column(TEXT),
    "target": Column(TEXT),
    "method": Column(TEXT),
    "size": Column(TEXT),
    "seed": Column(WHOLE, least=0, most=LARGEST),
    "alpha": Column(NUMBER, least=0, most=1, may_be_missing=True),
    "dataset": Column(TEXT),
    "row": Column(WHOLE, least=0, most=LARGEST),
    "prediction": Column(WHOLE, least=0, most=LARGEST),
    "rank": Column(WHOLE, least=0, most=LARGEST),
    "log_prob": Column(NUMBER, most=0, optional=True),
    "energy": Column(NUMBER, optional=True),
    "confidence": Column(NUMBER, least=0, most=1, optional=True),
    "margin": Column(NUMBER, optional=True),
    "brier": Column(NUMBER, least=0, most=2, optional=True),
}


def checked_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Evaluation rows of fine-tuned networks and the pretrained ones, with whole numbers as int64.

    Raises:
        UserError: a column is missing; a value is missing, of another type or out of its range; an
            image is scored twice; the rows of a pretrained network are missing or have a target;
            those of a fine-tuned one have none; or two networks were scored on other images. It
            names the column and the first such row by its place in the table, from 0.
    """
    if not isinstance(rows, pd.DataFrame):
        kind = type(rows).__name__
        raise UserError(f"the rows are a {kind}; give a pandas.DataFrame, as rib.evaluate returns.")
    if not len(rows):
        raise UserError("the table of rows is empty; give those that rib.evaluate returns.")
    present = {name: column for name, column in COLUMNS.items() if name in rows.columns}
    for name, column in COLUMNS.items():
        if name not in present and not column.optional:
            raise UserError(f"the rows lack the column '{name}'; {AGAIN}.")
        if list(rows.columns).count(name) > 1:
            raise UserError(f"the rows have the column '{name}' twice; {AGAIN}.")
    rows = rows[list(present)].reset_index(drop=True)
    for name, column in present.items():
        _check_values(rows[name], column)
    whole = [name for name, column in present.items() if column.kind == WHOLE]
    rows = rows.astype(dict.fromkeys(whole, "int64"))
    _refuse_duplicates(rows)
    _check_targets(rows)
    _refuse_other_images(rows)
    return rows


def check_upper_limits(
    rows: pd.DataFrame, images: Mapping[str, int], classes: Mapping[str, int]
) -> None:
    """Raise a UserError if rows (see `checked_rows`) are of images or classes that don't exist.

    Args:
        images: number of images in the index of each dataset.
        classes: number of classes of each dataset.
    """
    names = rows["dataset"].astype(str)
    limits = {"row": images, "prediction": classes, "rank": classes}
    for name, limit_of_dataset in limits.items():
        limit = names.map(limit_of_dataset)
        if (place := _first(rows[name] >= limit)) is not None:
            most = limit.iloc[place] - 1
            why = f"{rows[name].iloc[place]}; on {names.iloc[place]} it is at most {most}"
            raise _wrong(name, place, why)


def _wrong(name: str, place: int, why: str) -> UserError:
    return UserError(
        f"the column '{name}' of the rows, in row {place} (from 0), is {why}; {AGAIN}."
    )


def _first(wrong: pd.Series | np.ndarray) -> int | None:
    """Place of the first true value."""
    places = np.flatnonzero(np.asarray(wrong, dtype=bool))
    return int(places[0]) if len(places) else None


def _check_values(values: pd.Series, column: Column) -> None:
    missing = values.isna()
    if not column.may_be_missing and (place := _first(missing)) is not None:
        raise _wrong(values.name, place, f"missing, not {column.kind}")
    present = values[~missing]
    if (place := _first(~_is_of_kind(present, column.kind))) is not None:
        value = present.iloc[place]
        raise _wrong(
            values.name, int(present.index[place]), f"{_shown_value(value)}, not {column.kind}"
        )
    if column.kind == TEXT:
        return
    if present.dtype == object:  # Python's numbers may be larger than any of a column
        inside = [column.least <= value <= column.most for value in present]
        outside = ~np.array(inside, dtype=bool)
    else:
        numbers = present.to_numpy("float64")
        outside = ~((column.least <= numbers) & (numbers <= column.most)) | np.isinf(numbers)
    if (place := _first(outside)) is not None:
        why = f"{_shown_value(present.iloc[place])}, not {column.kind} {_range_of(column)}"
        raise _wrong(values.name, int(present.index[place]), why)


def _shown_value(value: object) -> str:
    """A value as Python writes it, in one line: 1.5, not np.float64(1.5)."""
    plain = value.item() if isinstance(value, np.generic) else value
    return " ".join(show(plain).split())


def _range_of(column: Column) -> str:
    if np.isinf(column.least) and np.isinf(column.most):
        return "that is finite"
    if np.isinf(column.least):
        return f"of at most {column.most}"
    return f"from {column.least} to {column.most}"


def _is_of_kind(values: pd.Series, kind: str) -> np.ndarray:
    """Whether each value, of which none is missing, is of a kind: (n,) bool."""
    if kind == TEXT:
        return np.array([isinstance(value, str) and value != "" for value in values], dtype=bool)
    if pd.api.types.is_integer_dtype(values.dtype):
        return np.ones(len(values), dtype=bool)
    if kind == NUMBER and pd.api.types.is_float_dtype(values.dtype):
        return np.ones(len(values), dtype=bool)
    if pd.api.types.is_float_dtype(values.dtype):
        is_whole = (values % 1 == 0).to_numpy(dtype=bool)
        # 1.0 is no whole number, but not the value to blame where others have a fraction
        return np.zeros(len(values), dtype=bool) if is_whole.all() else is_whole
    wanted = Integral if kind == WHOLE else Real
    return np.array(
        [isinstance(value, wanted) and not isinstance(value, bool | np.bool_) for value in values],
        dtype=bool,
    )


def _refuse_duplicates(rows: pd.DataFrame) -> None:
    twice = rows.duplicated(subset=[*STATE_COLUMNS, "dataset", "row"])
    if (place := _first(twice)) is not None:
        row = rows.iloc[place]
        network = f"{row['model']}, {row['method']}, {row['target']}"
        raise _wrong(
            "row", place, f"image {row['row']} of {row['dataset']}, which {network} has already"
        )


def _check_targets(rows: pd.DataFrame) -> None:
    """RI is of networks with a target, and of pretrained ones, which have none."""
    pretrained = rows["method"] == PRETRAINED
    usual = {"target": NO_TARGET, "size": ALL, "seed": 0}
    for name, value in usual.items():
        if (place := _first(pretrained & (rows[name] != value))) is not None:
            shown = _shown_value(rows[name].iloc[place])
            raise _wrong(name, place, f"{shown}, but that of a pretrained network is {value!r}")
    if (place := _first(pretrained & rows["alpha"].notna())) is not None:
        raise _wrong("alpha", place, "a number, but a pretrained network has none")
    if (place := _first(~pretrained & (rows["target"] == NO_TARGET))) is not None:
        method = rows["method"].iloc[place]
        raise _wrong("target", place, f"'{NO_TARGET}', without which {method} has no RI")
    if pretrained.all():
        raise UserError("all rows are of pretrained networks; add those of a fine-tuned one.")
    for model in rows["model"].unique():
        if not (pretrained & (rows["model"] == model)).any():
            raise UserError(
                f"the rows of the pretrained {model} are missing; evaluate it on the same datasets."
            )


def _refuse_other_images(rows: pd.DataFrame) -> None:
    """All networks are scored on the images of the first pretrained one."""
    groups = rows.groupby([*STATE_COLUMNS, "dataset"], observed=True, sort=False, dropna=False)
    images: dict[tuple, dict[str, np.ndarray]] = {}
    for (*state, dataset), group in groups:
        # NaN, which is not equal to itself, is no key
        named = tuple("" if pd.isna(value) else value for value in state)
        images.setdefault(named, {})[dataset] = np.sort(group["row"].to_numpy())
    place_of_method = STATE_COLUMNS.index("method")
    first = next(state for state in images if state[place_of_method] == PRETRAINED)
    for state, own in images.items():
        for dataset in [*images[first], *own]:
            both = [
                found.get(dataset, np.array([], dtype=np.int64)) for found in (own, images[first])
            ]
            if not np.array_equal(*both):
                raise UserError(
                    f"the column 'row' has other images of {dataset} for {_network(state)} than for "
                    f"{_network(first)}, first image {np.setxor1d(*both)[0]}; evaluate both on the "
                    "same datasets."
                )


def _network(state: tuple) -> str:
    return "/".join(str(value) for value in state if value != "")
