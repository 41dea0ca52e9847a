"""Files of the folders of analyses."""

from pathlib import Path

from rib.base.plugins import LIBRARY

# Files that say how the page shows tables.
DESCRIPTIONS = sorted(LIBRARY.glob("analyses/*/tables.yaml"))


def drawing_module(figure: str) -> str:
    """The dotted name of the module that draws a figure."""
    (file,) = LIBRARY.glob(f"analyses/*/{figure}.py")
    return f"rib.analyses.{file.parent.name}.{figure}"


def caption_of(figure: str) -> Path:
    """The file with the caption of a figure."""
    (file,) = LIBRARY.glob(f"analyses/*/{figure}.rst")
    return file
