"""Evaluation rows from which nothing is computed.

Each column, and what a table must have as a whole.
"""

import numpy as np
import pandas as pd
import pytest

from rib.base.errors import UserError
from rib.statistics.row_schema import check_upper_limits, checked_rows

DATASETS = {"red": 4, "green": 3}
CLASSES = 5


def scored(method, target, alpha=None):
    """Rows of a network on all images, as evaluations return them."""
    images = [(dataset, row) for dataset, count in DATASETS.items() for row in range(count)]
    count = len(images)
    table = pd.DataFrame(
        {
            "model": ["net"] * count,
            "target": [target] * count,
            "method": [method] * count,
            "size": ["all"] * count,
            "seed": np.zeros(count, np.int32),
            "alpha": np.full(count, np.nan if alpha is None else alpha),
            "dataset": [dataset for dataset, _ in images],
            "row": np.array([row for _, row in images], np.int64),
            "prediction": np.arange(count, dtype=np.int16) % CLASSES,
            "rank": np.arange(count, dtype=np.int16) % CLASSES,
            "log_prob": np.full(count, -1.5, np.float16),
            "energy": np.full(count, 2.5, np.float16),
            "confidence": np.full(count, 0.5, np.float16),
            "margin": np.full(count, -0.5, np.float16),
            "brier": np.full(count, 1.5, np.float16),
        }
    )
    texts = ["model", "target", "method", "size", "dataset"]
    return table.astype(dict.fromkeys(texts, "category"))


@pytest.fixture
def rows():
    """With indexes that repeat, as in concatenated tables, and columns of texts as objects."""
    return pd.concat([scored("pretrained", "none"), scored("ft", "red")])


def with_value(rows, column, place, value):
    changed = rows.copy()
    values = changed[column].astype(object).to_numpy().copy()
    values[place] = value
    try:
        changed[column] = pd.Series(values, index=changed.index).infer_objects()
    except ValueError:
        changed[column] = values
    return changed


def refusal(rows):
    with pytest.raises(UserError) as refused:
        checked_rows(rows)
    sentence = str(refused.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_rows_of_evaluations_are_taken_as_they_are(rows):
    checked = checked_rows(rows)
    for column in rows:
        assert checked[column].tolist() == rows[column].tolist() or column == "alpha"
    assert list(checked.index) == list(range(14))
    one = checked_rows(pd.concat([scored("pretrained", "none"), scored("curve", "red", alpha=0.5)]))
    assert one["alpha"].notna().sum() == 7


@pytest.mark.parametrize(
    ("column", "missing"), [("model", None), ("rank", np.nan), ("row", pd.NA)], ids=str
)
def test_a_missing_value_is_refused(rows, column, missing):
    sentence = refusal(with_value(rows, column, 9, missing))
    assert f"'{column}'" in sentence and "row 9 " in sentence and "missing" in sentence


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rank", -1),
        ("rank", 1.5),
        ("rank", "1"),
        ("rank", True),
        ("rank", np.inf),
        ("model", 3),
        ("model", ""),
        ("energy", "0.5"),
        ("energy", np.inf),
        ("energy", True),
        ("alpha", 1.5),
        ("alpha", "half"),
        ("confidence", 1.5),
        ("confidence", -0.5),
        ("log_prob", 0.5),
        ("brier", 2.5),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(rows, column, value):
    sentence = refusal(with_value(rows, column, 9, value))
    assert f"'{column}'" in sentence and "row 9 " in sentence


@pytest.mark.parametrize("kind", [str, float, bool, "complex128"], ids=str)
def test_a_column_of_another_type_is_refused(rows, kind):
    sentence = refusal(rows.astype({"rank": kind}))
    assert "'rank'" in sentence and "row 0 " in sentence


def test_a_table_without_a_column_is_refused(rows):
    assert "'rank'" in refusal(rows.drop(columns="rank"))


def test_other_columns_and_types_of_whole_numbers_do_not_matter(rows):
    wide = rows.assign(note="mine").drop(columns=["energy", "brier"])
    wide = wide.astype({"rank": object, "seed": "Int64", "prediction": "uint8"})
    assert checked_rows(wide)["rank"].tolist() == rows["rank"].tolist()


@pytest.mark.parametrize(
    ("rows_of", "named"),
    [
        (lambda: [], "list"),
        (lambda: pd.DataFrame(), "empty"),
        (lambda: pd.concat([scored("ft", "red")] * 2, axis=1), "'model' twice"),
        (lambda: scored("pretrained", "none"), "fine-tuned"),
        (lambda: scored("ft", "red"), "pretrained net"),
        (
            lambda: pd.concat([scored("pretrained", "none"), scored("pretrained", "red")]),
            "'target'",
        ),
        (lambda: pd.concat([scored("pretrained", "none"), scored("soup", "none")]), "'target'"),
        (
            lambda: pd.concat([scored("pretrained", "none", alpha=0.5), scored("ft", "red")]),
            "'alpha'",
        ),
        (
            lambda: pd.concat([scored("pretrained", "none").assign(seed=1), scored("ft", "red")]),
            "'seed'",
        ),
    ],
)
def test_a_table_of_something_else_is_refused(rows_of, named):
    assert named in refusal(rows_of())


def test_an_image_that_is_scored_twice_is_refused(rows):
    sentence = refusal(pd.concat([rows, rows.iloc[[10]]]))
    assert "'row'" in sentence and "row 14 " in sentence and "image 3 of red" in sentence
    refusal(pd.concat([rows, rows]))


@pytest.mark.parametrize(
    ("left_out", "dataset", "image"),
    [([2], "red", 2), ([9], "red", 2), ([4, 5, 6], "green", 0), ([11, 12, 13], "green", 0)],
    ids=["before", "after", "dataset before", "dataset after"],
)
def test_other_images_before_and_after_are_refused(rows, left_out, dataset, image):
    kept = [place for place in range(len(rows)) if place not in left_out]
    sentence = refusal(rows.iloc[kept])
    assert f"of {dataset}" in sentence and f"image {image};" in sentence
    assert "net/pretrained/none" in sentence and "net/ft/red" in sentence


def test_images_and_classes_that_do_not_exist_are_refused(rows):
    images = {"red": 4, "green": 3}
    classes = {"red": CLASSES, "green": CLASSES}
    check_upper_limits(checked_rows(rows), images, classes)
    for column, limits in {"row": images, "rank": classes, "prediction": classes}.items():
        changed = with_value(rows, column, 11, limits["green"])
        with pytest.raises(
            UserError, match=f"'{column}'.* row 11 .*green.* {limits['green'] - 1};"
        ):
            check_upper_limits(checked_rows_of_part(changed, column), images, classes)


def checked_rows_of_part(rows, column):
    """As `checked_rows`, but images that don't exist are in one network only."""
    return rows.reset_index(drop=True) if column == "row" else checked_rows(rows)
