"""Files that tools read agree with what the project pins."""

from pathlib import Path

import yaml

from rib.docs import BEGIN, config_table, with_config_table

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


def test_the_readmes_table_of_config_is_that_of_the_schema():
    text = (ROOT / "README.md").read_text()
    assert BEGIN in text and with_config_table(text) == text, "stale: run `make docs`"
    keys = yaml.safe_load((ROOT / "config.yaml").read_text())
    for key, value in keys.items():
        for name in [f"{key}.{part}" for part in value] if isinstance(value, dict) else [key]:
            assert f"| `{name}` |" in config_table()
