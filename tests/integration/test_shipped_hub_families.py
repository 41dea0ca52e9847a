"""Families of the catalogue as shipped, from stand-ins for their repositories on 127.0.0.1.

A stand-in has the columns, splits and domains of the repository, and photos that are made up.
"""

import re
import sys

import pytest

from rib.catalog.hub_names import LOCK, read_lock
from tiny.data.hub_families import HUB_FAMILIES, write_split
from tiny.projects import family as tiny_family
from tiny.projects.project import Project, copy_project, jobs
from tiny.servers.hub import Repository, environment, served

pytestmark = pytest.mark.thorough

# Of Real World each class has more photos than the reference takes of it.
IMAGES = {
    "officehome": {"Art": 2, "Clipart": 2, "Product": 2, "Real World": 12},
    "camelyon17": {
        "train-center1": 12,
        "train-center2": 8,
        "train-center3": 8,
        "validation-center": 8,
        "test-center": 8,
    },
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    repositories = {}
    for family, hub_family in HUB_FAMILIES.items():
        folder = tmp_path_factory.mktemp(family)
        files = {}
        for split in hub_family.domains:
            path = write_split(folder, family, split, IMAGES[family])
            files[f"data/{split}-00000-of-00001.parquet"] = path.read_bytes()
        repositories[f"datasets/{hub_family.repo}"] = Repository(
            files, licence="other", commit=hub_family.commit
        )
    with served(repositories) as server:
        yield server


def project_of(family, folder):
    """A project with the catalogue as shipped, and beside it a small network."""
    project = Project(copy_project(folder / "project"), family=family)
    tiny_family.make(project.folder / "mine")
    return project


def dry_run(project, check=True):
    """What a dry-run without the hub prints.

    It is in a new process: the hub's client reads its environment when imported.
    """
    config = ["catalog=mine", f"family={project.family}", "models=[tiny_cnn]"]
    words = (sys.executable, "-m", "snakemake", "-n", "--config", *config)
    return project.run(*words, check=check, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("family", HUB_FAMILIES)
def test_a_family_is_resolved_once_and_planned_without_the_hub(family, hub, tmp_path):
    project = project_of(family, tmp_path)
    without_lock = dry_run(project, check=False)
    assert "(not yet fetched by us)" in without_lock and "`rib lock`" in without_lock
    assert not (project.folder / LOCK).exists()
    choices = ("catalog=mine", "models=[tiny_cnn]")
    project.rib("lock", config=choices, **environment(hub, tmp_path / "cache"))
    plan = project.rib("plan", config=choices, HF_HUB_OFFLINE="1")
    hub_family = HUB_FAMILIES[family]
    (repository,) = read_lock(project.folder / LOCK).datasets.values()
    assert repository.commit == hub_family.commit
    assert len(repository.files) == len(hub_family.domains)
    assert re.search(rf"^  {family}_\w+: .*, on the hub: other, not yet fetched by us$", plan, re.M)
    hub.asked.clear()
    planned = jobs(dry_run(project))
    assert not hub.asked
    assert planned["download"] == len(hub_family.domains) + 1  # and the network's weights
    domains = set().union(*hub_family.domains.values())
    assert planned["prepare"] == len(domains)
