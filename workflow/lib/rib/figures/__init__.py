"""Figures: pure functions from tables to a Matplotlib figure, one module each, and how they are written.

A figure's module defines `draw(<inputs by name>, *, <settings>)`, which returns the figure and the rows it shows; one
that compares sizes of the training part sets EVERY_SIZE.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rib.data.prepared import PreparedDataset
from rib.geometry import Geometry
from rib.io import write_table
from rib.runs import ALL, PRETRAINED

STYLE = Path(__file__).with_name("rib.mplstyle")
# What was gained and what was lost, in every figure: dark colours of ColorBrewer's PuOr, which are told apart by
# those who are colour-blind, and the map from losses to gains that they are of.
GAIN, LOSS = "#b35806", "#542788"
CHANGES = "PuOr_r"
ROWS = ["dataset", "row", "image_id", "label", "prediction"]  # of the rows per image, what a figure may show
# A size is a name: 10 images, 0.25 of them, or all.
READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype={"size": str}),
    ".parquet": lambda path: pd.read_parquet(path, columns=ROWS),
}


def write_figure(
    name: str,
    inputs: Mapping[str, object],
    settings: Mapping,
    *,
    size: str,
    sizes: Sequence[str],
    geometry: Mapping | None = None,
    png: Path,
    pdf: Path,
    csv: Path,
) -> None:
    """Draw a figure and write it as PNG, PDF and the CSV of what it shows; the same input gives the same bytes.

    Args:
        name: the figure's module.
        inputs: by argument of its `draw`: a path or a list of paths.
        settings: further keywords of its `draw`.
        size: of the training part; runs of other sizes are not shown, save by figures of every size.
        sizes: all that were run. Where they are more than `all`, the figure says which it shows.
        geometry: at which photos that are kept encoded are shown.
    """
    module = importlib.import_module(f"rib.figures.{name}")
    only = None if getattr(module, "EVERY_SIZE", False) else size
    with plt.style.context(STYLE):
        shape = Geometry(**geometry) if geometry else None
        read = {key: _of_size(_read(value, shape), only) for key, value in inputs.items()}
        figure, shown = module.draw(**read, **settings)
        if list(sizes) != [ALL] and only and any(map(_has_sizes, read.values())):
            others = ", ".join(name for name in sizes if name != only)
            _add_below(figure, f"downstream_size {only}" + (f"; also run: {others}" if others else ""))
            shown = _with_size(shown, only)
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(pdf, metadata={"CreationDate": None})
        plt.close(figure)
    write_table(csv, shown)


def _read(value: object, geometry: Geometry | None):
    """A table, or the dataset whose manifest is given, or a list of them."""
    if not isinstance(value, str):
        return [_read(path, geometry) for path in value]
    path = Path(value)
    if path.suffix == ".json":
        return PreparedDataset.open(path.parent, path.parts[-3], geometry)
    return READERS[path.suffix](path)


def _has_sizes(table: object) -> bool:
    return isinstance(table, pd.DataFrame) and "size" in table


def _with_size(shown: pd.DataFrame, size: str) -> pd.DataFrame:
    """What a figure shows with the size of each run, which the figure may have dropped."""
    if "size" in shown:
        return shown
    methods = shown["method"] if "method" in shown else [None] * len(shown)
    return shown.assign(size=[ALL if method == PRETRAINED else size for method in methods])


def _add_below(figure: Figure, note: str) -> None:
    """A line below all panels, and below what stands there."""
    if label := figure.get_supxlabel():
        (text,) = (text for text in figure.texts if text.get_text() == label)
        text.set_text(f"{label}\n{note}")
    else:
        figure.supxlabel(note, fontsize=7)


def counted(n: int, noun: str) -> str:
    """A number with its noun, for example `1 target` and `5 targets`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _of_size(table: object, size: str | None):
    """A table's rows of runs of one size (None: of all) and of pretrained models; what has no sizes as it is."""
    if size is None or not _has_sizes(table):
        return table
    return table[(table["size"] == size) | (table["method"] == PRETRAINED)]


def text_colour(image, value: float) -> str:
    """Black or white, whichever is readable on an image's colour for a value."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def panel_lines(runs: list[tuple[str, str]], columns: int) -> list[list[tuple[str, str] | None]]:
    """Runs in lines of so many columns, the last one filled up with None."""
    starts = range(0, len(runs), columns)
    return [
        [*runs[start : start + columns], *[None] * (columns - len(runs[start : start + columns]))] for start in starts
    ]
