"""Which runs of an unfinished grid are compared (workflow/rules/report_jobs.py).

Settings of reports are restricted to them.
"""

import itertools
import random
import sys

import pytest

from rib.base.plugins import load_module
from tiny.project import ROOT


@pytest.fixture(scope="module")
def report_jobs():
    sys.path.insert(0, str(ROOT / "workflow/rules"))
    try:
        yield load_module(ROOT / "workflow/rules/report_jobs.py")
    finally:
        sys.path.remove(str(ROOT / "workflow/rules"))


def test_what_is_compared_has_the_same_targets_for_each_method(report_jobs):
    every = list(itertools.product("ab", ["ft", "lwf", "lora"], ["all"], ["x", "y", "z"]))
    for seed in range(50):
        some = random.Random(seed).sample(every, k=random.Random(seed).randint(1, len(every)))
        targets, compared = report_jobs.common_targets(some)
        methods = {cell[:3] for cell in compared}
        assert compared and compared <= set(some)
        assert compared == {(*method, target) for method in methods for target in targets}
        largest = max(sum(cell[3] == target for cell in some) for target in "xyz")
        assert len(compared) >= largest, "no single target has more"
    assert report_jobs.common_targets(every)[1] == set(every), "of a finished grid, everything"


def test_settings_name_only_what_the_runs_are_of(report_jobs):
    runs = {
        "a/none/pretrained/all/0",
        "a/x/ft/all/0",
        "a/x/lwf/all/0",
        "b/none/pretrained/all/0",
        "b/x/ft/all/0",
    }
    labels = {
        "models": {"a": "A", "b": "B", "c": "C"},
        "methods": {"ft": "F", "lwf": "L", "lora": "R"},
        "targets": {"x": "X", "y": "Y"},
    }
    expected = {
        "models": {"a": "A", "b": "B"},
        "methods": {"ft": "F", "lwf": "L"},
        "targets": {"x": "X"},
    }
    assert report_jobs.of_runs(labels, runs, 1) == expected
    assert report_jobs.of_runs({"labels": labels, "size": "all"}, runs, 1) == {
        "labels": expected,
        "size": "all",
    }
    example = report_jobs.of_runs(
        {"models": labels["models"], "method": "lwf", "targets": 2}, runs, 1
    )
    assert example == {"models": {"a": "A"}, "method": "lwf", "targets": 1}
    assert report_jobs.of_runs({"methods": ["ft", "lwf"]}, runs, 1) == {"methods": ["ft"]}, (
        "those of all models"
    )


def test_averages_and_variants_are_those_of_finished_methods(report_jobs):
    """As in a preview during a sweep, when a variant is finished but not its merge.

    It is the second of three variants.
    """
    runs = {"a/none/pretrained/all/0", "a/x/ft-1/all/0", "a/x/ft-2/all/0", "a/x/merge-1/all/0"}
    averages = {"merge-1": ["ft-1", 0.5], "merge-2": ["ft-2", 0.5], "merge-3": ["ft-3", 0.5]}
    assert report_jobs.of_runs({"averages": averages}, runs, 1) == {
        "averages": {"merge-1": ["ft-1", 0.5]}
    }
    variants = {"ft": ["ft-1", "ft-2", "ft-3"], "merge": ["merge-1", "merge-2", "merge-3"]}
    assert report_jobs.finished_sweeps(variants, runs) == {"ft": ["ft-1", "ft-2"]}
