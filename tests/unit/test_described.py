"""What files of analyses describe: what is drawn has its arguments, and all is plain JSON."""

import importlib
import inspect
import json

import pytest

from rib.config.paths import Paths
from rib.report.described import described_analyses
from tiny.grids import grid

# Small grids of which each figure is in one.
GRIDS = {
    "drawings": {"family": "emoji", "methods": ["ft", "wise_ft"]},
    "clothes": {"family": "fashion", "protocol": "held_out", "train_subset": [20, "all"]},
    "photos": {
        "family": "imagenet",
        "datasets": ["imagenet_val", "imagenet_v2", "imagenet_r"],
        "methods": ["ft"],
    },
    "without a common method": {
        "family": "imagenet",
        "datasets": ["imagenet_val", "imagenet_v2", "imagenet_r"],
        "models": ["ViT-B-32.openai", "resnet18.tv_in1k"],
        "methods": ["flyp"],
    },
}


@pytest.fixture(params=GRIDS)
def described(request):
    """What each analysis describes of a grid, by the name of its module."""
    return describe(request.param)


def describe(name):
    """What each analysis describes of one of `GRIDS`."""
    resolved = grid(**GRIDS[name])
    return described_analyses(resolved, Paths(resolved))


def test_functions_that_draw_have_the_arguments_of_their_figures(described):
    for name, analysis in described.items():
        for figure_name, figure in analysis.figures.items():
            module = importlib.import_module(f"rib.analyses.{name}")
            parameters = inspect.signature(getattr(module, f"draw_{figure_name}")).parameters
            tables = [
                key for key, given in parameters.items() if given.kind is not given.KEYWORD_ONLY
            ]
            keywords = {
                key for key, given in parameters.items() if given.kind is given.KEYWORD_ONLY
            }
            required = [key for key in tables if parameters[key].default is inspect.Parameter.empty]
            assert set(required) <= figure.inputs.keys() <= set(tables), figure_name
            assert figure.params.keys() == keywords - {"unfinished"}, figure_name
            assert figure.marks_runs == ("unfinished" in keywords), figure_name


def test_parameters_are_plain_json(described):
    """Snakemake compares them with those of an earlier run."""
    for name, analysis in described.items():
        for params in (analysis.params, *(figure.params for figure in analysis.figures.values())):
            assert repr(json.loads(json.dumps(params))) == repr(dict(params)), name


def test_captions_and_notes_are_there(described):
    for analysis in described.values():
        assert all(figure.caption.strip() for figure in analysis.figures.values())
        assert all(table.note and table.columns for table in analysis.tables.values())


def test_a_grid_without_a_common_method_has_tables_but_no_figures():
    analyses = describe("without a common method")
    assert {"mri", "worst_classes"} <= analyses["robustness"].tables.keys()
    assert "cost" in analyses["cost"].tables
    assert [name for name in analyses if analyses[name].figures] == []
