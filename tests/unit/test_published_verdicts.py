"""Measured accuracies beside published ones, from rows made up."""

import numpy as np
import pandas as pd
import pytest

from rib.analyses.published.settings import PublishedAccuracy, PublishedSettings
from rib.analyses.published.tables import TOLERANCE, compare


@pytest.fixture
def rows(tmp_path):
    """Answers of two models on two datasets of 1,000 and 500 images, in a file per model.

    They are given by how many are right, by both.
    """
    right = {("net", "a"): 802, ("net", "b"): 300, ("other", "a"): 500, ("other", "b"): 250}
    for model in ("net", "other"):
        parts = []
        for dataset, n in (("a", 1000), ("b", 500)):
            ranks = 3 * (np.arange(n) >= right[model, dataset])
            parts.append(pd.DataFrame({"model": model, "dataset": dataset, "rank": ranks}))
        text = {"model": "category", "dataset": "category"}  # as files with dictionaries are read
        pd.concat(parts).assign(confidence=0.5).astype(text).to_parquet(
            tmp_path / f"{model}.parquet"
        )
    return [tmp_path / "net.parquet", tmp_path / "other.parquet"]


def compared(rows, stated, table, expected=None, obstacle=None):
    published = [
        PublishedAccuracy(model=model, dataset=dataset, accuracy=accuracy, source=source)
        for model, dataset, accuracy, source in stated
    ]
    settings = PublishedSettings(
        published=published, expected_images=expected or {}, obstacle=obstacle, code=""
    )
    compare(rows=rows, settings=settings, table=table)
    return pd.read_csv(table)


def test_each_published_number_has_what_was_measured_and_the_difference(rows, tmp_path, capsys):
    stated = [
        ("other", "b", 50.15, "x"),
        ("net", "a", 80.4, "y"),
        ("net", "b", 59.7, "z"),
        ("third", "a", 50, "none"),
    ]
    table = compared(rows, stated, tmp_path / "t.csv")
    assert list(table) == [
        *("model", "dataset", "published", "measured", "difference", "images", "verdict", "source")
    ]
    assert table.to_numpy().tolist() == [
        ["other", "b", 50.15, 50.0, -0.15, 500, "within", "x"],
        ["net", "a", 80.4, 80.2, -0.2, 1000, "within", "y"],
        ["net", "b", 59.7, 60.0, 0.3, 500, "outside", "z"],
    ]
    assert "other,b,50.150,50.000,-0.150,500,within,x\n" in (tmp_path / "t.csv").read_text()
    printed = capsys.readouterr().out
    assert "2 of 3 " in printed and "net on a: 80.20, published 80.40: within" in printed


@pytest.mark.parametrize(
    ("off", "verdict"), [(0.0, "within"), (0.19, "within"), (0.21, "outside"), (9.0, "outside")]
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_difference_counts_either_way(rows, tmp_path, off, verdict, sign):
    assert TOLERANCE == 0.2
    table = compared(rows, [("net", "a", 80.2 + sign * off, "x")], tmp_path / "t.csv")
    assert table["verdict"].tolist() == [verdict]


def test_a_dataset_that_is_not_whole_is_not_compared(rows, tmp_path):
    stated = [("net", "a", 10.0, "x"), ("net", "b", 60.0, "x")]
    table = compared(rows, stated, tmp_path / "t.csv", expected={"a": 1200, "b": 500})
    assert table["verdict"].tolist() == ["not comparable: 1000 of 1200 images", "within"]


def test_settings_that_are_not_those_of_published_numbers_are_an_obstacle_to_all(rows, tmp_path):
    table = compared(
        rows,
        [("net", "a", 80.2, "x"), ("net", "b", 1.0, "x")],
        tmp_path / "t.csv",
        {"a": 5},
        "half precision",
    )
    assert set(table["verdict"]) == {"not comparable: half precision"}
    assert table["difference"].tolist() == [0.0, 59.0]
