"""Renditions and corruptions have the same bytes with the oldest NumPy and Pillow."""

import subprocess
import sys

import pytest

from tiny.projects.project import ROOT

pytestmark = pytest.mark.slow

# The oldest NumPy with wheels for the oldest Python, and a Pillow of its time. requirements.in has
# no lower bound of either.
OLDEST = {(3, 11): ["numpy==1.23.2", "pillow==9.2.0"]}


@pytest.mark.skipif(sys.version_info[:2] not in OLDEST, reason="for the oldest Python")
def test_renditions_have_the_same_bytes_with_the_oldest_numpy_and_pillow(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([python, *install, *OLDEST[sys.version_info[:2]]], check=True, timeout=300)
    # The library itself reads settings with it.
    subprocess.run([python, "-m", "pip", "install", "-q", "pydantic>=2.10,<3"], check=True)
    path = f"{ROOT / 'workflow/lib'}:{ROOT / 'tests'}"
    job = subprocess.run(
        [python, "-m", "tiny.data.rendered"],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert job.returncode == 0, job.stdout + job.stderr
