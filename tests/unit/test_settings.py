"""Settings of methods and layouts: what may be set, of which kind and in which range."""

import dataclasses
import datetime
import inspect
import math

import pytest

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY, checked_settings, load_function
from rib.config.catalog import PROJECT_CATALOG, Catalog
from rib.config.config import config_of
from rib.config.grid import resolve_grid
from rib.config.settings import (
    DEFAULTS_OF_TRAINING,
    LENGTH,
    RATE,
    RECIPE,
    TRAINING,
    check_settings,
    settings_of_entry,
)
from rib.methods import stated_in
from rib.methods.base import load_algorithm

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


def test_a_learning_rate_may_be_a_mapping_of_models_to_numbers():
    rates = {"net": "1e-3", "other": 1}
    assert check_settings({"lr": rates}, TRAINING, "mine") == {"lr": {"net": 0.001, "other": 1}}


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


def test_settings_of_a_method_are_swept_by_what_config_lists(with_entries):
    settings = {"layers": [0, 1], "rank": 4, "lr": 1}
    catalog = with_entries(methods={"mine": {"settings": settings}})
    config = config_of(
        {"family": "emoji", "methods": ["mine"], "method_settings": {"mine": {"rank": [1, 2]}}},
        "config.yaml",
    )
    grid = resolve_grid(config, catalog)
    for rank in (1, 2):
        method = grid.methods[f"mine-rank{rank}"]
        assert method.settings.items() >= {"layers": [0, 1], "rank": rank, "dropout": 0.0}.items()


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
    ("name", "settings", "sentence"),
    [
        (
            "wise_ft",
            {"alpha": -0.01},
            "the setting 'alpha' is -0.01, but it should be greater than",
        ),
        ("wise_ft", {"alpha": 1.01}, "the setting 'alpha' is 1.01, but it should be less than or"),
        ("wise_ft", {}, "the setting 'alpha' is missing; add it in"),
        (
            "wise_ft",
            {"alpha": 1, "beta": 2},
            "there is no setting 'beta', known are alpha; correct it in",
        ),
        ("ties", {"density": 0, "scaling": 1}, "the setting 'density' is 0, but"),
        ("dare", {"density": 1.01, "scaling": 1}, "the setting 'density' is 1.01, but"),
        ("task_arithmetic", {"scaling": -0.3}, "the setting 'scaling' is -0.3, but"),
        ("fisher", {"fisher_images": 0}, "the setting 'fisher_images' is 0, but"),
        ("soup", {"pretrained": "perhaps"}, "the setting 'pretrained' is 'perhaps', but"),
        ("wise_ft_curve", {"steps": 0}, "the setting 'steps' is 0, but"),
        ("wise_ft_selected", {"steps": 1.5}, "the setting 'steps' is 1.5, but"),
    ],
)
def test_a_merge_refuses_settings_in_one_sentence_before_it_is_called(name, settings, sentence):
    file = LIBRARY / f"methods/{name}.py"
    function = load_function(file, CATALOG.methods[name].form)
    with pytest.raises(UserError) as refused:
        checked_settings(function, settings, file, stated_in(f"{name}-alpha0.5"))
    message = str(refused.value)
    assert message.startswith(f"{name}.py: {sentence}")
    assert message.endswith(f" methods.yaml, {name}, or in method_settings.")


def test_a_function_that_a_module_lacks_is_named():
    file = LIBRARY / "methods/wise_ft.py"
    with pytest.raises(UserError, match=f"^{file} has no function 'merge'; add it"):
        load_function(file, "merge")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("from rib.methods import Positiv", "ImportError: cannot import name 'Positiv'"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("shares = 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_module_that_can_not_be_imported_is_named_with_its_line(tmp_path, line, sentence):
    path = tmp_path / "mine.py"
    path.write_text(f"import math\n\n{line}\n")
    with pytest.raises(UserError, match=f"^{path}, line 3: {sentence}.*; correct it") as refused:
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
    ("changes", "sentence"),
    [
        ({"size": 0}, "the setting 'size' is 0, but it should be greater than 0; correct it in"),
        ({"names": ["a", 3]}, "the setting 'names' has 3, but it should be a valid string"),
        (
            {"nmaes": []},
            "there is no setting 'nmaes', known are lr, batch_norm, .*size, names; correct",
        ),
        ({"lr": -1}, "the setting 'lr' is -1"),
        ({"batch_norm": "frosen"}, "the setting 'batch_norm' is 'frosen', .*'frozen' or 'train'"),
    ],
)
def test_fields_of_a_class_are_its_settings(tmp_path, changes, sentence):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    settings = {"names": ["a"], "lr": 0.1, "size": 2, **DEFAULTS_OF_TRAINING}
    assert load_algorithm(path, settings, "own-size2").size == 2
    ending = r" methods\.yaml, own, or in method_settings\.$"
    with pytest.raises(UserError, match=rf"^mine\.py: {sentence}.*{ending}"):
        load_algorithm(path, {**settings, **changes}, "own-size2")
