"""Settings of methods and layouts: what may be set, of which kind and in which range."""

import dataclasses
import datetime
import inspect
import math

import pytest

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY, checked_settings, load_function
from rib.catalog.catalog import PROJECT_CATALOG, Catalog
from rib.methods import stated_in
from rib.methods.base import load_algorithm, refuse_other_facts
from rib.schema.algorithm_settings import (
    DEFAULTS_OF_TRAINING,
    LENGTH,
    RATE,
    RECIPE,
    check_settings,
    settings_of_entry,
)

CATALOG = Catalog([PROJECT_CATALOG])


def checked(of_kind, value):
    """A value that is checked as a setting whose default is of the kind of another value."""
    return check_settings({"key": value}, {"key": of_kind}, "mine")["key"]


@pytest.mark.parametrize(
    ("of_kind", "value", "read"),
    [
        (0.5, 1, 1),
        (8, 0.5, 0.5),
        (0.5, "1e-3", 0.001),
        (0.5, ["1e-5", 0.5], [1e-5, 0.5]),
        (8, [4, 8], [4, 8]),
        ("all", "class", "class"),
        ("all", "4", "4"),
        ("all", ["all", "class"], ["all", "class"]),
        (True, False, False),
        ([0], [0, "1"], [0, 1]),
        ([0], [[0], ["1", 2]], [[0], [1, 2]]),
        (["a"], ["b", "4"], ["b", "4"]),
        ({"a": 1}, {"b": ["c"]}, {"b": ["c"]}),
        (None, {"a": [None]}, {"a": [None]}),
        (None, "1e-3", "1e-3"),
    ],
)
def test_a_value_of_the_defaults_kind_or_a_sweep_over_such_values_is_taken(of_kind, value, read):
    found = checked(of_kind, value)
    assert found == read and repr(found) == repr(read)


@pytest.mark.parametrize(
    ("of_kind", "expected", "values"),
    [
        (0.5, "a number", ["fast", True, math.nan, "inf", 10**400, [[0.1]], None, [4, True]]),
        (8, "a number", ["x", False]),
        ("all", "text, if necessary in quotes", [False, 3, None, ["all", 3]]),
        (True, "true or false", [1, "true", None]),
        ([0], "a (list|number)", [3, [0, "x"], [[0], 1], [True]]),
        ({"a": 1}, "a mapping", ["x", 3]),
        (None, "text, a number, true, false", [(1, 2), {1: 2}, datetime.date(2026, 1, 1)]),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_is_expected(of_kind, expected, values):
    for value in values:
        message = f"^mine: the setting 'key' .*give ({expected}|text, a)"
        with pytest.raises(UserError, match=message):
            checked(of_kind, value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"alpah": 1}, "unknown setting 'alpah' .*did you mean 'alpha'"),
        ({3: 1}, "unknown setting 3; allowed are alpha, lr"),
        ({"alpha": []}, "'alpha' is an empty list"),
        ({"lr": {}}, "'lr' is an empty mapping"),
        ({"lr": {"net": "fast"}}, "'lr' of 'net' is 'fast'; give a number"),
        ({"lr": {"net": [0.1]}}, "'lr' of 'net' is .*; give a number"),
        ({"alpha": {"net": 0.1}}, "'alpha' is .*; give a number"),
    ],
)
def test_an_unknown_or_wrong_setting_is_named(settings, named):
    with pytest.raises(UserError, match=f"^mine: .*{named}"):
        check_settings(settings, {"alpha": 0.5, "lr": 0.001}, "mine")


def test_an_entry_has_all_settings_and_the_defaults_of_training():
    own = {"layers": [0, 1], "weight": "1e-2", "distil": "all"}
    assert settings_of_entry(own, False, "mine") == {**own, "weight": 0.01}
    assert settings_of_entry({**own, "lr": 1, "dropout": 0.1}, True, "mine") == {
        **own,
        **DEFAULTS_OF_TRAINING,
        "weight": 0.01,
        "lr": 1,
        "dropout": 0.1,
    }
    with pytest.raises(UserError, match="mine: the setting 'dropout' is 'much'; give a number"):
        settings_of_entry({"dropout": "much"}, True, "mine")
    with pytest.raises(UserError, match="mine: the setting 'from' is"):
        settings_of_entry({"from": datetime.date(2026, 1, 1)}, False, "mine")


def keyword_arguments(function):
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}


def settings_of_algorithm(method):
    """Settings of an entry that its class or function gets, with a learning rate if it trains."""
    settings = dict(method.settings)
    if method.trains:
        settings.setdefault(RATE, 0.1)
        for key in (RECIPE, *LENGTH):
            settings.pop(key, None)
    return settings


@pytest.mark.parametrize("name", CATALOG.methods)
def test_an_entry_has_exactly_the_settings_of_its_class_or_function(name):
    method = CATALOG.methods[name]
    settings = settings_of_algorithm(method)
    file = CATALOG.algorithm_file(method.algorithm)
    if method.trains:
        algorithm = load_algorithm(file, settings, name)  # refuses a value or another setting
        assert {field.name for field in dataclasses.fields(algorithm)} == settings.keys()
        assert {setting: getattr(algorithm, setting) for setting in settings} == settings
    else:
        function = load_function(file, method.form)
        assert checked_settings(function, settings, file, name) == settings
        assert keyword_arguments(function) == settings.keys()


@pytest.mark.parametrize("name", [name for name, m in CATALOG.methods.items() if m.trains])
def test_an_entry_says_of_its_method_what_the_class_says(name):
    method = CATALOG.methods[name]
    file = CATALOG.algorithm_file(method.algorithm)
    algorithm = load_algorithm(file, settings_of_algorithm(method), name)
    refuse_other_facts(algorithm, method.facts, name)


@pytest.mark.parametrize("name", [name for name, m in CATALOG.methods.items() if m.form == "merge"])
def test_an_entry_of_a_merge_says_whether_its_function_takes_fisher_information(name):
    method = CATALOG.methods[name]
    function = load_function(CATALOG.algorithm_file(method.algorithm), method.form)
    inputs = inspect.signature(function).parameters.keys() - keyword_arguments(function)
    assert (len(inputs) == 2) == method.fisher_information


@pytest.mark.parametrize("name", CATALOG.datasets)
def test_a_datasets_settings_fit_its_layout(name):
    dataset = CATALOG.datasets[name]
    layouts = [(dataset.layout, dataset.settings)]
    if "photos" in dataset.settings:
        photos = dataset.settings["photos"]
        layouts.append((photos["layout"], photos["settings"]))
    for layout, settings in layouts:
        file = CATALOG.layout_file(layout)
        items = load_function(file, "items")
        assert checked_settings(items, settings, file, name).items() >= settings.items()


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("wise_ft", {"alpha": 1.01}, "'alpha' is 1.01"),
        ("wise_ft", {}, "'alpha' is missing"),
        ("wise_ft", {"alpha": 1, "beta": 2}, "'beta', known are alpha"),
        ("ties", {"density": 0, "scaling": 1}, "'density' is 0"),
        ("soup", {"pretrained": "perhaps"}, "'pretrained' is 'perhaps'"),
        ("wise_ft_selected", {"steps": 1.5}, "'steps' is 1.5"),
    ],
)
def test_a_merge_refuses_settings_in_one_sentence_before_it_is_called(name, settings, named):
    file = LIBRARY / f"methods/{name}.py"
    function = load_function(file, CATALOG.methods[name].form)
    where = rf"methods\.yaml, {name}, or in method_settings\.$"
    with pytest.raises(UserError, match=rf"^{name}\.py: .*{named}.*{where}"):
        checked_settings(function, settings, file, stated_in(f"{name}-alpha0.5"))


def test_a_function_that_a_module_lacks_is_named():
    file = LIBRARY / "methods/wise_ft.py"
    with pytest.raises(UserError, match=f"^{file} has no function 'merge'; add it"):
        load_function(file, "merge")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("from rib.methods import Positiv", "ImportError: .*'Positiv'"),
        ("shares = 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_module_that_can_not_be_imported_is_named_with_its_line(tmp_path, line, error):
    path = tmp_path / "mine.py"
    path.write_text(f"import math\n\n{line}\n")
    with pytest.raises(UserError, match=f"^{path}, line 3: {error}") as refused:
        load_algorithm(path, {}, "mine")
    assert "\n" not in str(refused.value)


OWN = """from __future__ import annotations

from pydantic.dataclasses import dataclass

from rib.methods import Positive
from rib.methods.base import FineTuning


@dataclass(kw_only=True)
class Mine(FineTuning):
    size: Positive
    names: list[str]
"""


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": 0}, "'size' is 0, .*greater than 0"),
        ({"names": ["a", 3]}, "'names' has 3, .*string"),
        ({"nmaes": []}, "'nmaes', known are lr, batch_norm, .*size, names"),
        ({"batch_norm": "frosen"}, "'batch_norm' is 'frosen', .*'frozen' or 'train'"),
    ],
)
def test_fields_of_a_class_are_its_settings(tmp_path, changes, named):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    settings = {"names": ["a"], "lr": 0.1, "size": 2, **DEFAULTS_OF_TRAINING}
    assert load_algorithm(path, settings, "own-size2").size == 2
    ending = r" methods\.yaml, own, or in method_settings\.$"
    with pytest.raises(UserError, match=rf"^mine\.py: .*{named}.*{ending}"):
        load_algorithm(path, {**settings, **changes}, "own-size2")
