"""Which settings an algorithm or a layout has, by its signature, and which values they take."""

import math

import pytest

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.config.config import config_of
from rib.config.grid import resolve_grid
from rib.config.settings import Setting, algorithm_settings, check_settings, signature_of
from rib.methods import load_algorithm


def accepted(annotation, value, **how):
    return check_settings({"key": value}, {"key": Setting(annotation, True, None)}, "mine", **how)[
        "key"
    ]


@pytest.mark.parametrize(
    ("annotation", "value", "read"),
    [
        ("float", 1, 1),
        ("float", "1e-3", 0.001),
        ("float", ["1e-5", 0.5], [1e-5, 0.5]),
        ("int", "4", 4),
        ("int", [4, 8], [4, 8]),
        ("str", "all", "all"),
        ("bool", True, True),
        ("list[int]", [0, "1"], [0, 1]),
        ("list[int]", [[0], ["1", 2]], [[0], [1, 2]]),
        ("list", ["a", 1.5], ["a", 1.5]),
        ("dict[str, str]", {"a": ["b"]}, {"a": ["b"]}),
        ("", {"a": [None]}, {"a": [None]}),
        ("str | None", None, None),
        ("str | None", "all", "all"),
        ("int | None", "4", 4),
        ("list[int] | None", None, None),
        ("list[int] | None", [0, "1"], [0, 1]),
        ("dict[str, str] | None", {"a": "b"}, {"a": "b"}),
    ],
)
def test_a_value_of_the_annotations_type_or_a_list_of_them_is_taken(annotation, value, read):
    found = accepted(annotation, value)
    assert found == read and repr(found) == repr(read)


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        ("float", ["fast", True, math.nan, "inf", 10**400, [[0.1]], [], None]),
        ("int", [1.5, "1.5", True, [4, True], math.nan]),
        ("str", [False, 3]),
        ("bool", [1, "true"]),
        ("list[int]", [3, [], [0, "x"], [[0], 1], [[]]]),
        ("list", [[None], [{}]]),
        ("dict", ["x", {1: 2}, {"a": math.nan}]),
        ("", [(1, 2), {1: 2}]),
        ("str | None", [3, True]),
        ("list[int] | None", [3, [], [0, "x"]]),
        ("dict[str, str] | None", ["x", []]),
    ],
)
def test_a_value_of_another_type_is_refused(annotation, values):
    for value in values:
        with pytest.raises(UserError, match="^mine: .*'key'"):
            accepted(annotation, value)


def test_where_nothing_sweeps_a_list_of_values_is_refused():
    assert accepted("list[float]", [0.1, 0.2], sweeps=False) == [0.1, 0.2]
    for annotation, value in (("float", [0.1, 0.2]), ("list[float]", [[0.1], [0.2]])):
        with pytest.raises(UserError, match="^mine: .*'key'"):
            accepted(annotation, value, sweeps=False)


KNOWN = {"rank": Setting("int", True, None), "alpha": Setting("float", False, 8.0)}


def test_defaults_fill_in_what_a_complete_entry_leaves_out():
    assert check_settings({"rank": 4}, KNOWN, "mine") == {"rank": 4, "alpha": 8.0}
    assert check_settings({"rank": 4, "alpha": 1}, KNOWN, "mine") == {"rank": 4, "alpha": 1}
    assert check_settings({}, KNOWN, "mine", complete=False) == {}


@pytest.mark.parametrize(
    ("settings", "named"),
    [({}, "'rank'"), ({"rank": 1, "alpah": 1}, "'alpah'.*'alpha'"), ({"rank": 1, 3: 1}, "3")],
)
def test_missing_and_unknown_settings_are_named(settings, named):
    with pytest.raises(UserError, match=f"^mine: .*{named}"):
        check_settings(settings, KNOWN, "mine")


@pytest.mark.parametrize(
    ("name", "form", "settings"),
    [
        (
            "lwf",
            "finetune",
            ["temperature", "weight", "distil", "lr", "batch_norm", "dropout", "drop_path"],
        ),
        ("linear_probe", "finetune", ["lr"]),
        ("wise_ft", "weights", ["alpha"]),
        ("wise_ft_curve", "curve", ["steps"]),
        ("greedy_soup", "select", ["pretrained"]),
    ],
)
def test_settings_are_the_algorithms_keyword_arguments(name, form, settings):
    found, known = algorithm_settings(LIBRARY / f"methods/{name}.py")
    assert found == form and list(known) == settings
    assert "dropout" not in known or known["dropout"] == Setting("BelowOne", False, 0.0)


FROZEN = "Literal['frozen', 'train']"


@pytest.mark.parametrize(
    ("annotation", "fit", "unfit", "expected"),
    [
        ("Share", [1e-9, 1], [0, 1.01, "x"], "a number above 0 and at most 1"),
        ("Positive", [1e-9, "1e-3"], [0, -1, None], "a number above 0"),
        ("NonNegative", [0, 2.0], [-1e-9, float("nan"), float("inf")], "a number of at least 0"),
        ("BelowOne", [0, 0.99], [-1e-9, 1], "a number of at least 0 and below 1"),
        ("UpToOne", [0, 1.0], [-1e-9, 1.01, True], "a number from 0 to 1"),
        ("Count", [1, "2"], [0, 1.0, True], "a whole number from 1"),
        (FROZEN, ["frozen", "train"], ["", "eval", None, ["train"]], "'frozen' or 'train'"),
        (f"list[{FROZEN}]", [["train"]], [["eval"]], "'frozen' or 'train'"),
    ],
)
def test_a_value_out_of_the_range_of_its_annotation_is_refused(annotation, fit, unfit, expected):
    for value in fit:
        assert accepted(annotation, value, sweeps=False) == {"1e-3": 0.001, "2": 2}.get(
            str(value), value
        )
    for value in unfit:
        with pytest.raises(UserError, match=f"^mine: the setting 'key' is .*; give {expected}\\.$"):
            accepted(annotation, value, sweeps=False)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("wise_ft", "alpha", -0.01),
        ("wise_ft", "alpha", 1.01),
        ("wise_ft_curve", "steps", 0),
        ("wise_ft_selected", "steps", 0),
    ],
)
def test_settings_of_merges_are_checked_before_anything_is_trained(name, key, value):
    known = algorithm_settings(LIBRARY / f"methods/{name}.py")[1]
    with pytest.raises(UserError, match=f"the setting '{key}' is {value}; give a"):
        check_settings({key: value}, known, "mine")


OWN = """from __future__ import annotations

from rib.methods import Positive, algorithm
from rib.methods.base import FineTuning


@algorithm
class Mine(FineTuning):
    size: Positive = 2
    names: list[str]
"""


def test_fields_of_a_class_are_its_settings(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    _, known = algorithm_settings(path)
    assert list(known)[:3] == ["size", "names", "lr"] and known["size"] == Setting(
        "Positive", False, 2
    )
    assert load_algorithm(path, {"names": ["a"], "lr": 0.1}).size == 2
    with pytest.raises(UserError, match=r"mine\.py: size is 0; set a number above 0"):
        load_algorithm(path, {"names": ["a"], "lr": 0.1, "size": 0})


def test_a_signature_is_positional_and_keyword_only_arguments(tmp_path):
    path = tmp_path / "plot.py"
    path.write_text("def draw(a, b: str = 'x', *, c: int, d=-1, e=None): ...\n")
    positional, keywords = signature_of(path, "draw")
    assert positional == {"a": Setting("", True, None), "b": Setting("str", False, "x")}
    assert keywords == {
        "c": Setting("int", True, None),
        "d": Setting("", False, -1),
        "e": Setting("", False, None),
    }
    with pytest.raises(UserError, match=f"^{path} .*'items'"):
        signature_of(path, "items")


ALGORITHM = """from rib.methods import algorithm


@algorithm
class Layered:
    def __init__(self, *, layers: list[int], rank: int = {rank}, lr: float = 0.5, **common): ...
"""


@pytest.fixture
def layered(with_entries, tmp_path):
    """Makes a catalogue with a method of a user's own algorithm."""
    (tmp_path / "methods").mkdir()

    def make(settings, rank="4"):
        (tmp_path / "methods/layered.py").write_text(ALGORITHM.format(rank=rank))
        return with_entries(methods={"mine": {"algorithm": "layered", "settings": settings}})

    return make


def test_defaults_of_an_algorithms_signature_are_part_of_a_methods_settings(layered):
    """Its own, and those of FineTuning where it takes these as `**common`.

    What an entry or config gives comes first.
    """
    catalog = layered({"layers": [0, 1]})
    defaults = {"rank": 4, "lr": 0.5, "batch_norm": "frozen", "dropout": 0.0, "drop_path": 0.0}
    assert catalog.methods["mine"].settings == {"layers": [0, 1], **defaults}
    config = config_of(
        {"family": "emoji", "methods": ["mine"], "method_settings": {"mine": {"rank": [1, 2]}}},
        "config.yaml",
    )
    grid = resolve_grid(config, catalog)
    assert {name: method.settings for name, method in grid.methods.items()} == {
        f"mine-rank{rank}": {"layers": [0, 1], **defaults, "rank": rank} for rank in (1, 2)
    }
    assert layered({"layers": [0], "lr": 1, "dropout": 0.1}).methods["mine"].settings == {
        **{"layers": [0], **defaults},
        **{"lr": 1, "dropout": 0.1},
    }


@pytest.mark.parametrize("rank", ["2 * 4", "SIZE", "len('four')"])
def test_a_default_that_is_not_a_plain_value_is_refused_with_file_and_line(layered, rank):
    with pytest.raises(UserError, match=r"methods/layered\.py line 6.*'rank'"):
        _ = layered({"layers": [0]}, rank).methods


def test_a_default_of_another_type_than_its_annotation_is_refused(layered):
    with pytest.raises(UserError, match=r"methods\.yaml, mine: .*'rank'"):
        _ = layered({"layers": [0]}, "'four'").methods


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (b"def items(\n", " line 1 "),
        (b"x = 1\ndef f(:\n", " line 2 "),
        (b"\xff", " "),
        (b"class A: ...\n", " .*@algorithm"),
        (None, " "),
    ],
)
def test_a_module_that_cannot_be_read_or_has_no_algorithm_is_named(tmp_path, source, place):
    path = tmp_path / "bad.py"
    path.mkdir() if source is None else path.write_bytes(source)
    with pytest.raises(UserError, match=f"^{path}{place}"):
        algorithm_settings(path)
