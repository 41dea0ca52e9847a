"""The documentation as a site: it builds without a warning, and a broken link is an error."""

import re
import shutil
import subprocess
import sys

import pytest

from tiny.projects.project import ROOT

pytestmark = pytest.mark.thorough

BUILD = "python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -c docs . build/site"


@pytest.fixture
def pages(tmp_path):
    """A copy of the pages and of all that they link to."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, listed):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def build(folder):
    command = [sys.executable, *BUILD.split()[1:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_site_has_every_page_and_leads_from_the_readme_to_it(pages):
    assert f"@{BUILD}\n" in (ROOT / "Makefile").read_text()
    done = build(pages)
    assert done.returncode == 0, done.stderr
    front = (pages / "build/site/README.html").read_text()
    for page in (pages / "docs").glob("*.md"):
        assert (pages / f"build/site/docs/{page.stem}.html").is_file()
    assert {"docs/methods.html", "docs/configuration.html", "data/README.html"} <= set(
        front.split('"')
    )


def test_broken_links_fail(pages):
    page = pages / "docs/how-it-works.md"
    links = "[gone](gone_page.md) [gone](methods.md#gone_part) ![gone](../reports/gone_figure.png)"
    page.write_text(f"{page.read_text()}\n{links}\n")
    done = build(pages)
    assert done.returncode != 0
    for name in ("gone_page", "gone_part", "gone_figure"):
        assert re.search(f"how-it-works.md.*{name}", done.stderr)
