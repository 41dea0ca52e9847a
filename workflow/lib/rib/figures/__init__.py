"""Figures: pure functions from a table to a Matplotlib figure, and how they are written."""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd

from rib.io import write_text

STYLE = Path(__file__).with_name("rib.mplstyle")


def write_figure(plot: Callable, table: Path, settings: Mapping, *, png: Path, pdf: Path, csv: Path) -> None:
    """Draw a figure and write it as PNG, PDF and the CSV of what it shows; the same input gives the same bytes.

    Args:
        plot: `plot(table, **settings)` returns (figure, the rows shown).
        table: CSV to read.
        settings: keywords of `plot`.
    """
    with plt.style.context(STYLE):
        figure, shown = plot(pd.read_csv(table), **settings)
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(pdf, metadata={"CreationDate": None})
        plt.close(figure)
    write_text(csv, shown.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
