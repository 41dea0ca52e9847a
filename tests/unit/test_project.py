"""Files that tools and people read agree with what the project pins and checks."""

import re
from pathlib import Path

import pytest
import yaml

from rib.catalog.catalog import Catalog
from rib.grid.grid import resolve_grid
from rib.report import readme
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
def test_example_configs_give_a_grid(path):
    config = config_of(yaml.safe_load(path.read_text()), str(path))
    assert len(resolve_grid(config, Catalog([readme.CATALOG])).runs()) > 3
