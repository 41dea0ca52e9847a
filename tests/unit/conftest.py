import sys

import pytest


@pytest.fixture(autouse=True)
def closed_figures():
    """Figures that a test drew are let go, as write_figure does; Matplotlib warns of too many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
