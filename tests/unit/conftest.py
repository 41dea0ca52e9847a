"""The project's catalogue and rules, and small networks and images, for unit tests."""

import pickle
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from rib.base.progress import Progress
from rib.catalog.catalog import Catalog
from rib.schema.yaml_files import SAFE_LOADER
from tiny.projects import wiring as rules

CATALOG = Path(__file__).parents[2] / "workflow/catalog"
# By kind, the entry that a user's is made from.
COPIED = {
    "datasets": "noto",
    "models": "efficientnet_lite0",
    "methods": "ft",
    "recipes": "paper",
    "augmentations": "broad",
}


@pytest.fixture(autouse=True)
def closed_figures():
    """Figures that a test drew are let go, as write_figure does; Matplotlib warns of too many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def progress(monkeypatch):
    """A function that gives what work in this process has told of its progress.

    That is, of each piece of work, what it is, how far it came, of how much, and in which unit.
    """
    bars = []
    initialise = Progress.__init__

    def initialise_and_note(self, *arguments, **settings):
        initialise(self, *arguments, **settings)
        bars.append(self)

    monkeypatch.setattr(Progress, "__init__", initialise_and_note)

    def progress_told():
        return [(bar.desc, bar.n, bar.total, bar.unit) for bar in bars]

    return progress_told


@pytest.fixture(scope="session")
def catalog():
    """The project's catalogue."""
    return Catalog([CATALOG])


@cache
def published(file: str) -> dict:
    """A file of the project's catalogue, parsed."""
    return yaml.load((CATALOG / file).read_text(encoding="utf-8"), SAFE_LOADER)


@pytest.fixture
def with_entries(tmp_path):
    """A function that makes a catalogue with a user's folder, tmp_path.

    The folder's entries are copies of the project's with keys changed. They are given by kind and
    name; None takes a key away. `families` are files of their own.
    """

    def write(path, content):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def make(families=(), **kinds):
        for name, changes in dict(families).items():
            family = {**published("families/emoji.yaml"), **changes}
            write(tmp_path / f"families/{name}.yaml", family)
        for kind, changes_by_name in kinds.items():
            original = published(f"{kind}.yaml")[COPIED[kind]]
            entries = {}
            for name, changes in changes_by_name.items():
                entry = {**original, **changes}
                entries[name] = {key: entry[key] for key in entry if entry[key] is not None}
            write(tmp_path / f"{kind}.yaml", entries)
        return Catalog([CATALOG, tmp_path])

    return make


@pytest.fixture(scope="session")
def wiring(shared_folder):
    """What the rules give to each job, by grid of tiny.projects.wiring.

    Test processes share it: the first that needs it reads it from the rules.
    """
    stored_jobs = shared_folder / "wiring.pickle"
    with FileLock(shared_folder / "wiring.lock"):
        if not stored_jobs.exists():
            stored_jobs.write_bytes(pickle.dumps(rules.read_jobs(rules.GRIDS, rules.FILES)))
    return pickle.loads(stored_jobs.read_bytes())


@pytest.fixture(scope="module")
def network():
    """A small network with BatchNorm."""
    from tiny.models.training import resnet  # not for tests without networks, which start faster

    return resnet()


@pytest.fixture(scope="module")
def target():
    """A few images of noise, of three classes."""
    from tiny.models.training import random_images

    return random_images()
