import pickle
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from rib.base.progress import Progress
from rib.config.catalog import Catalog
from rib.config.schema import SAFE_LOADER
from tiny import wiring as rules

CATALOG = Path(__file__).parents[2] / "workflow/catalog"
COPIED = {
    "datasets": "noto",
    "models": "efficientnet_lite0",
    "methods": "ft",
    "recipes": "paper",
}  # the entry that a user's is made from


@pytest.fixture(autouse=True)
def closed_figures():
    """Figures that a test drew are let go, as write_figure does; Matplotlib warns of too many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def progress(monkeypatch):
    """What work in this process tells of its progress: what it is, how far it came, of how much, in which unit."""
    begun, begin = [], Progress.__init__

    def noted(self, *arguments, **settings):
        begin(self, *arguments, **settings)
        begun.append(self)

    monkeypatch.setattr(Progress, "__init__", noted)
    return lambda: [(one.desc, one.n, one.total, one.unit) for one in begun]


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
    """Makes a catalogue with a user's folder, tmp_path, whose entries are copies of the project's with keys changed.

    Entries are given by kind and name; None takes a key away. `families` are files of their own.
    """

    def write(path, entry):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(entry))

    def make(families=(), **kinds):
        for name, changes in dict(families).items():
            write(
                tmp_path / f"families/{name}.yaml", {**published("families/emoji.yaml"), **changes}
            )
        for kind, entries in kinds.items():
            whole = published(f"{kind}.yaml")[COPIED[kind]]
            changed = {name: {**whole, **changes} for name, changes in entries.items()}
            write(
                tmp_path / f"{kind}.yaml",
                {
                    name: {k: v for k, v in entry.items() if v is not None}
                    for name, entry in changed.items()
                },
            )
        return Catalog([CATALOG, tmp_path])

    return make


@pytest.fixture(scope="session")
def wiring(tmp_path_factory, worker_id):
    """What the rules give to each job, by grid of tiny.wiring. Test processes share it: the first that needs it reads it."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder if worker_id == "master" else folder.parent
    known = shared / "wiring.pickle"
    with FileLock(shared / "wiring.lock"):
        if not known.exists():
            known.write_bytes(pickle.dumps(rules.read_jobs(rules.GRIDS, rules.FILES)))
    return pickle.loads(known.read_bytes())


@pytest.fixture(scope="module")
def network():
    """A small network with BatchNorm."""
    from tiny.training import resnet  # not for tests without networks, which start faster

    return resnet()


@pytest.fixture(scope="module")
def target():
    """A few images of noise, of three classes."""
    from tiny.training import random_images

    return random_images()
