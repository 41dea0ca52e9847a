"""Accuracy by class and the classes that lose most, by hand."""

import numpy as np
import pandas as pd

from rib.catalog.label_space import LabelSpace
from rib.schema.run import RUN_COLUMNS
from rib.statistics.classes import WORST, class_table, worst_classes
from rib.statistics.counts import Counts
from rib.statistics.fit import marked
from tiny.tables.states import state_of

STATES = [
    state_of("m", "ft", "a", "all", 0),
    state_of("m", "ft", "b", "all", 0),
    state_of("m", "ft", "b", "all", 1),
    state_of("m", "pretrained", "none", "all", 0),
    state_of("m", "wise_ft_curve", "b", "all", 0, 0.5),
]
# Two images of cat and one of dog in a; a cat, two dogs and no eel in b. Classes of b have other
# keys and one more output.
SPACES = {
    "a": LabelSpace(("cat", "dog"), ((0,), (1, 2)), ("Cat", "Dog"), 5),
    "b": LabelSpace(("eel", "dog2", "cat2"), ((3,), (1, 2), (0,)), ("Eel", "Dog2", "Cat2"), 5),
}
COUNTS = Counts(
    states=STATES,
    datasets=["a", "b"],
    objects=5,
    object_indices={"a": np.array([0, 1]), "b": np.array([1, 2, 3])},
    labels={"a": np.array([0, 1]), "b": np.array([1, 2, 1])},
    images={"a": np.array([2, 1], np.uint16), "b": np.array([1, 1, 1], np.uint16)},
    correct={
        "a": np.array([[0, 0], [1, 1], [0, 1], [2, 1], [0, 0]], np.uint16),
        "b": np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]], np.uint16),
    },
)


def test_accuracy_by_class_is_over_the_runs_of_other_targets():
    table = class_table(COUNTS, SPACES, None)
    assert set(table["method"]) == {"ft"}
    found = table.drop(columns=["model", "method", "size"]).to_numpy().tolist()
    assert found == [
        ["a", "cat", "Cat", "0", 2, 100, 25, -75],  # two runs on b: 1 and 0 of 2
        ["a", "dog", "Dog", "1 2", 1, 100, 100, 0],
        ["b", "dog2", "Dog2", "1 2", 2, 50, 50, 0],  # one run on a
        ["b", "cat2", "Cat2", "0", 1, 100, 100, 0],
    ]


def test_leak_free_classes_leave_out_objects_of_the_target():
    """Datasets a and b share object 1: a dog of either."""
    table = class_table(COUNTS, SPACES, {"a": "g", "b": "g"}).set_index(["dataset", "class"])
    assert table.index.tolist() == [("a", "cat"), ("b", "dog2"), ("b", "cat2")]
    assert table.loc[("b", "dog2"), ["n", "before", "after"]].tolist() == [1, 0, 100]


def test_classes_of_several_datasets_are_matched_by_their_outputs():
    table = class_table(COUNTS, SPACES, None)
    (line,) = worst_classes(table, ["a", "b"]).to_dict("records")  # dog does not lose
    assert line == {
        **{
            "model": "m",
            "method": "ft",
            "size": "all",
            "class": "cat",
            "name": "Cat",
            "datasets": 2,
            "n": 3,
        },
        **{"before": 100, "after": 62.5, "change": -37.5},
    }
    assert worst_classes(table, ["b"]).empty, "only OOD datasets count"


def test_at_most_ten_classes_of_each_group_are_listed_worst_first():
    rng, lines = np.random.default_rng(0), []
    for method in ("ft", "lwf"):
        for number in rng.permutation(30):
            change = float(number - 20) if method == "ft" else float(number - 3)
            lines.append(
                (
                    "m",
                    method,
                    "all",
                    "a",
                    f"k{number}",
                    "x",
                    str(number),
                    5,
                    50,
                    50 + change,
                    change,
                )
            )
    columns = [
        "model",
        "method",
        "size",
        "dataset",
        "class",
        "name",
        "outputs",
        "n",
        "before",
        "after",
        "change",
    ]
    worst = worst_classes(pd.DataFrame(lines, columns=columns), ["a"])
    assert worst[worst["method"] == "ft"]["change"].tolist() == [-20.0 + i for i in range(WORST)]
    assert worst[worst["method"] == "lwf"]["change"].tolist() == [-3, -2, -1]


def test_a_grid_without_fine_tuning_has_empty_tables():
    table = class_table(COUNTS.select_states([3]), SPACES, None)
    assert table.empty and worst_classes(table, ["a", "b"]).empty
    assert marked(table, pd.DataFrame(columns=[*RUN_COLUMNS, "fit", "underfitted"])).empty


def test_the_order_of_states_does_not_matter():
    table = class_table(COUNTS.select_states([4, 2, 3, 0, 1]), SPACES, None)
    pd.testing.assert_frame_equal(table, class_table(COUNTS, SPACES, None))
