"""Files of analyses."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rib.base.plugins import LIBRARY
from rib.config.figure_settings import FigureSettings

# Files that say how the page shows tables.
DESCRIPTIONS = sorted(LIBRARY.glob("analyses/*/tables.yaml"))


def drawing_module(figure: str) -> str:
    """The dotted name of the module that draws a figure."""
    (file,) = [
        file
        for file in LIBRARY.glob("analyses/*.py")
        if f"\ndef draw_{figure}(" in file.read_text(encoding="utf-8")
    ]
    return f"rib.analyses.{file.stem}"


def figure_settings(figure: str, params: Mapping[str, Any], **choices: Any) -> FigureSettings:
    """Settings of a figure, which shows the size `all` of a grid with no other one.

    A figure marks runs by itself if the function that draws it has the argument `unfinished`.

    Args:
        params: keyword arguments of this function.
        choices: fields with other values, such as `size`.
    """
    module = drawing_module(figure)
    draw = getattr(importlib.import_module(module), f"draw_{figure}")
    usual = {
        "every_size": False,
        "finished_only": False,
        "marks_runs": "unfinished" in inspect.signature(draw).parameters,
        "size": "all",
        "sizes": ["all"],
    }
    return FigureSettings(module=module, params=dict(params), **{**usual, **choices})


def caption_of(figure: str) -> Path:
    """The file with the caption of a figure."""
    (file,) = LIBRARY.glob(f"analyses/*/{figure}.rst")
    return file
