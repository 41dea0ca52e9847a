"""Files that tools read agree with what the project pins."""

from pathlib import Path

import pytest
import yaml

from rib.catalog import Catalog, validated
from rib.docs import config_table, graph, renewed, standing_parts
from rib.grid import Grid

ROOT = Path(__file__).parents[2]


def test_pre_commit_has_the_pinned_tools():
    pins = dict(
        line.split("==") for line in (ROOT / "envs/requirements-dev.txt").read_text().splitlines() if "==" in line
    )
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {
        repo["repo"].rsplit("/", 1)[1].removesuffix("-pre-commit"): repo["rev"].removeprefix("v") for repo in hooks
    }
    assert revisions["ruff"] == pins["ruff"] and revisions["snakefmt"] == pins["snakefmt"]


def test_the_github_workflow_runs_the_projects_own_script():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())["jobs"]
    assert "bash .ci/run" in [step.get("run") for step in jobs["ci"]["steps"]]


def test_what_the_readme_takes_from_elsewhere_is_fresh(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    assert renewed(text, standing_parts()) == text, "stale: run `make docs`"


def test_every_key_of_config_is_in_the_readmes_table():
    keys = yaml.safe_load((ROOT / "config.yaml").read_text())
    for key, value in keys.items():
        for name in [f"{key}.{part}" for part in value] if isinstance(value, dict) else [key]:
            assert f"| `{name}` |" in config_table()


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_example_configs_give_a_grid(path):
    config = validated(yaml.safe_load(path.read_text()), "config", str(path))
    assert len(Grid(config, Catalog([ROOT / "workflow/catalog"])).runs()) > 3


def test_a_part_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="no place for 'graph'"):
        renewed("# README", {"graph": "x"})


def test_the_graph_leaves_out_targets_and_what_can_be_inferred():
    printed = """flowchart TB
	id0[all]
	id1[evaluate]
	id2[write_page]
	id3[metrics]
	id1 --> id3
	id1 --> id2
	id3 --> id2
	id2 --> id0
"""
    assert graph(printed).splitlines()[2:-1] == ["    evaluate --> metrics", "    metrics --> write_page"]
