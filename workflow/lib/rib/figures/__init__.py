"""Figures: pure functions from tables to a Matplotlib figure, one module each, and their output files.

A figure's module defines `draw(<inputs by name>, *, <settings>)`, which returns the figure and the rows it shows. A
figure that compares training subsets sets EVERY_SIZE, one without methods that have unfinished runs FINISHED_ONLY.
These settings have the same meaning in all figures: `models`, `methods`, `targets` and `datasets` give labels, or
label, colour and marker, in display order; `model`, `method` and `target` select an example, with labels `..._label`;
`confidence` is the coverage of confidence intervals, 0 to 1.
"""

import importlib
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rib.analysis.fit import UNFINISHED, name_unfinished, read_table
from rib.base.files import write_table
from rib.config.geometry import Geometry
from rib.config.run import ALL, PRETRAINED
from rib.data.prepared import PreparedDataset

STYLE = Path(__file__).with_name("rib.mplstyle")
# Colours of gains and losses in all figures: dark ends of ColorBrewer's PuOr, which is colour-blind safe.
GAIN, LOSS = "#b35806", "#542788"
CHANGES = "PuOr_r"
ROWS = ["dataset", "row", "prediction", "rank"]  # columns of evaluation rows for figures
SHARED = "‡"  # mark of datasets that share source images
# Settings that choose what is shown, by column of the table of fits.
CHOICES = {
    "model": ("models", "series", "model"),
    "method": ("methods", "method"),
    "target": ("targets", "target"),
}
LONGEST = 200  # characters of a note that names unfinished runs
Drawn = tuple[Figure, pd.DataFrame]  # a figure and the rows it shows
Labels = Mapping[str, str]  # by name of a model, method or dataset
Styles = Mapping[str, Mapping]  # label, colour and marker, by name


def write_figure(
    figure: str,
    inputs: Mapping[str, object],
    settings: Mapping,
    *,
    size: str,
    sizes: Sequence[str],
    geometry: Geometry | None = None,
    fit: Path | None = None,
    labels: Mapping[str, Labels] | None = None,
    note: str = "",
    png: Path,
    pdf: Path | None = None,
    csv: Path,
) -> None:
    """Draw a figure and write it as PNG, PDF and a CSV of the data shown; the same input gives the same bytes.

    Methods with an unfinished run among those shown are marked, and the runs are named in a note.

    Args:
        inputs: path or list of paths for each input of `draw`.
        settings: keyword arguments of `draw`.
        size: training subset to show; figures with EVERY_SIZE show all.
        sizes: all training subsets; if there are others than `all`, the figure states which one it shows.
        geometry: geometry of encoded photos.
        fit: CSV file of `rib.analysis.fit.fit_table`, if the figure shows fine-tuned runs.
        labels: labels for `rib.analysis.fit.name_unfinished`.
        note: what else is said below the figure.
    """
    module = importlib.import_module(f"rib.figures.{figure}")
    only = None if getattr(module, "EVERY_SIZE", False) else size
    finished_only = getattr(module, "FINISHED_ONLY", False)
    runs = (
        _chosen(_of_size(read_table(fit), only), settings)
        if fit
        else pd.DataFrame(columns=["method", "unfinished"])
    )
    unfinished = runs[runs["unfinished"] == "yes"]["method"]
    if not finished_only:
        settings = _marked(settings, set(unfinished))
    with plt.style.context(STYLE):
        read = {key: _of_size(_read(value, geometry), only) for key, value in inputs.items()}
        drawn, shown = module.draw(**read, **settings)
        if list(sizes) != [ALL] and only and any(map(_has_sizes, read.values())):
            others = ", ".join(name for name in sizes if name != only)
            _add_below(drawn, f"train_subset {only}" + (f"; also run: {others}" if others else ""))
            if "size" not in shown:
                methods = shown["method"] if "method" in shown else [None] * len(shown)
                shown = shown.assign(
                    size=[ALL if method == PRETRAINED else only for method in methods]
                )
        if len(unfinished):
            lead = (
                "not ranked, since training is unfinished"
                if finished_only
                else f"{UNFINISHED} training unfinished"
            )
            named = "; ".join(name_unfinished(runs, labels))
            named = textwrap.shorten(
                named, LONGEST, placeholder=f" ... ({counted(len(unfinished), 'run')})"
            )
            _add_below(drawn, textwrap.fill(f"{lead}: {named}", int(15 * drawn.get_figwidth())))
        if note:
            _add_below(drawn, textwrap.fill(note, int(15 * drawn.get_figwidth())))
        drawn.savefig(png, metadata={"Software": None})
        if pdf:  # a preview has none
            drawn.savefig(pdf, metadata={"CreationDate": None})
        plt.close(drawn)
    write_table(csv, shown)


def _read(value: object, geometry: Geometry | None):
    """A table, the dataset of a manifest, or a list of these."""
    if not isinstance(value, str):
        return [_read(path, geometry) for path in value]
    path = Path(value)
    if path.suffix == ".json":
        return PreparedDataset.open(path.parent, path.parts[-3], geometry)
    if path.suffix == ".parquet":
        return pd.read_parquet(path, columns=ROWS)
    return read_table(path)


def _chosen(fit: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """Runs that the settings of a figure choose."""
    for column, keys in CHOICES.items():
        chosen = next((settings[key] for key in keys if key in settings), None)
        if isinstance(chosen, str | Mapping):  # some figures have a number of targets
            fit = fit[fit[column].isin([chosen] if isinstance(chosen, str) else list(chosen))]
    return fit


def _marked(settings: Mapping, methods: Collection[str]) -> dict:
    """Settings in which the labels of the given methods are marked."""

    def mark(label: str | Mapping) -> str | dict:
        return (
            f"{label} {UNFINISHED}"
            if isinstance(label, str)
            else {**label, "label": mark(label["label"])}
        )

    found = dict(settings)
    if "methods" in settings:
        found["methods"] = {
            name: mark(look) if name in methods else look
            for name, look in settings["methods"].items()
        }
    if settings.get("method") in methods:
        found["method_label"] = mark(settings["method_label"])
    return found


def _has_sizes(table: object) -> bool:
    return isinstance(table, pd.DataFrame) and "size" in table


def _add_below(figure: Figure, note: str) -> None:
    """Add a line below all panels and existing notes."""
    if label := figure.get_supxlabel():
        (text,) = (text for text in figure.texts if text.get_text() == label)
        text.set_text(f"{label}\n{note}")
    else:
        figure.supxlabel(note, fontsize=7)


def counted(n: int, noun: str) -> str:
    """A number with its noun, for example `1 target` and `5 targets`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _of_size(table: object, size: str | None):
    """Rows of runs of one size (None for all) and of pretrained models; a table without sizes is not changed."""
    if size is None or not _has_sizes(table):
        return table
    return table[(table["size"] == size) | (table["method"] == PRETRAINED)]


def text_colour(image, value: float) -> str:
    """Black or white, whichever is readable on the image's colour of a value."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
