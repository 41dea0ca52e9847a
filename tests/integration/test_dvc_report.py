"""docs/dvc-report.md: its steps show what it says, with the installed DVC."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPORT = Path(__file__).parents[2] / "docs/dvc-report.md"
FIXED = (
    "DVC has fixed this: update docs/dvc-report.md and docs/sharing.md, "
    "and see whether rib.records.pull is needed"
)


def test_plain_dvc_pull_still_writes_outside_the_project(tmp_path):
    """If it fails, nothing is wrong here: the docs, which warn of `dvc pull`, are out of date."""
    text = REPORT.read_text()
    script = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]
    folder = tmp_path / "above/empty"
    folder.mkdir(parents=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "outside.txt").read_text() == "hostile\n", FIXED
    assert (folder / "second/Makefile").read_text() == "hostile\n", FIXED
    assert done.stdout == "hostile\nhostile\n"
