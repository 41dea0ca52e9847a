import sys

import pytest

from rib.io import Progress


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
