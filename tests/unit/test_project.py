"""Files that tools and people read agree with what the project pins and checks."""

import re
from pathlib import Path

import pytest
import yaml

from rib.catalog.catalog import Catalog
from rib.catalog.hub_names import UnresolvedError
from rib.grid.grid import resolve_grid
from rib.report import readme
from rib.report.plan import print_plan
from rib.schema.config import config_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_pre_commit_has_the_pinned_tools():
    pins = dict(
        re.findall(
            r"^([a-z]+)==([0-9.]+)", Path("envs/requirements-dev.txt").read_text(), re.MULTILINE
        )
    )
    revisions = {
        repo["repo"].rsplit("/", 1)[1].removesuffix("-pre-commit"): repo["rev"].removeprefix("v")
        for repo in yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"]
    }
    assert revisions["ruff"] == pins["ruff"] and revisions["snakefmt"] == pins["snakefmt"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "workflow/configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_example_configs_are_planned_or_ask_for_their_names(path, capsys):
    try:
        grid = grid_of(path)
    except UnresolvedError as error:
        assert "`rib lock`" in str(error)
        assert all(name.startswith("open_clip/") for name in error.models)
        return
    assert len(grid.runs()) > 3
    print_plan(grid)
    assert re.search(r"^Training .* hours", capsys.readouterr().out, re.M)


def grid_of(path):
    """The grid of a config file."""
    config = config_of(yaml.safe_load(path.read_text()), str(path))
    return resolve_grid(config, Catalog([readme.CATALOG]))


def test_the_first_run_of_imagenet_needs_no_login():
    grid = grid_of(ROOT / "workflow/configs/imagenet_first.yaml")
    for name in {*grid.targets, *grid.datasets}:
        source = grid.catalog.datasets[name].source
        assert source.kind in ("http", "mirrors"), name
