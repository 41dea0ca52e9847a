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
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rib.analysis.fit import UNFINISHED, name_unfinished, read_table
from rib.base.files import write_table
from rib.config.figure_settings import FigureSettings
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


@dataclass(frozen=True)
class FigureFiles:
    """Where the files of a figure are written."""

    png: Path
    csv: Path  # the data shown
    pdf: Path | None = None  # a preview has none


def write_figure(
    figure: str,
    inputs: Mapping[str, str | Sequence[str]],
    settings: FigureSettings,
    files: FigureFiles,
    fit: Path | None = None,
) -> None:
    """Draw a figure and write its files; the same input gives the same bytes.

    Methods with an unfinished run among those shown are marked, and the runs are named in a note.

    Args:
        figure: name of the figure's module.
        inputs: path or list of paths for each input of `draw`.
        settings: what the figure shows.
        files: where the figure is written.
        fit: CSV file of `rib.analysis.fit.fit_table`, if the figure shows fine-tuned runs.
    """
    module = importlib.import_module(f"rib.figures.{figure}")
    shown_size = None if getattr(module, "EVERY_SIZE", False) else settings.size
    is_of_finished_runs = getattr(module, "FINISHED_ONLY", False)
    shown_runs = _shown_runs(fit, shown_size, settings.draw_settings)
    unfinished_methods = shown_runs[shown_runs["unfinished"] == "yes"]["method"]
    draw_settings = settings.draw_settings
    if not is_of_finished_runs:
        draw_settings = _marked(draw_settings, set(unfinished_methods))
    with plt.style.context(STYLE):
        tables = {}
        for name, paths in inputs.items():
            tables[name] = _of_size(_read(paths, settings.geometry), shown_size)
        drawn, shown = module.draw(**tables, **draw_settings)
        has_sizes = any(_has_sizes(table) for table in tables.values())
        if settings.sizes != [ALL] and shown_size and has_sizes:
            _add_below(drawn, _note_of_sizes(shown_size, settings.sizes))
            shown = _with_size(shown, shown_size)
        if len(unfinished_methods):
            names = name_unfinished(shown_runs, settings.labels)
            note = _note_of_unfinished(names, len(unfinished_methods), is_of_finished_runs)
            _add_below(drawn, _wrapped(note, drawn))
        if settings.note:
            _add_below(drawn, _wrapped(settings.note, drawn))
        drawn.savefig(files.png, metadata={"Software": None})
        if files.pdf:
            drawn.savefig(files.pdf, metadata={"CreationDate": None})
        plt.close(drawn)
    write_table(files.csv, shown)


def _shown_runs(fit: Path | None, size: str | None, draw_settings: Mapping) -> pd.DataFrame:
    """Rows of the table of fits, of the runs that a figure shows; none if it shows no such runs."""
    if fit is None:
        return pd.DataFrame(columns=["method", "unfinished"])
    return _chosen(_of_size(read_table(fit), size), draw_settings)


def _note_of_sizes(shown_size: str, sizes: Sequence[str]) -> str:
    """The training subset that a figure shows, and those that were also run."""
    note = f"train_subset {shown_size}"
    other_sizes = [size for size in sizes if size != shown_size]
    if other_sizes:
        note += f"; also run: {', '.join(other_sizes)}"
    return note


def _with_size(shown: pd.DataFrame, size: str) -> pd.DataFrame:
    """The data shown with a column `size`, which is `all` for pretrained models."""
    if "size" in shown:
        return shown
    if "method" not in shown:
        return shown.assign(size=size)
    return shown.assign(size=[ALL if method == PRETRAINED else size for method in shown["method"]])


def _note_of_unfinished(names: Sequence[str], runs: int, is_of_finished_runs: bool) -> str:
    """What a figure says of its unfinished runs: their names, as many as have room.

    Args:
        names: of the unfinished runs.
        runs: how many unfinished runs there are.
        is_of_finished_runs: whether the figure leaves them out, rather than marks them.
    """
    if is_of_finished_runs:
        lead = "not ranked, since training is unfinished"
    else:
        lead = f"{UNFINISHED} training unfinished"
    number_of_runs = f" ... ({counted(runs, 'run')})"
    shortened = textwrap.shorten("; ".join(names), LONGEST, placeholder=number_of_runs)
    return f"{lead}: {shortened}"


def _wrapped(note: str, figure: Figure) -> str:
    """A note in lines as wide as the figure."""
    return textwrap.fill(note, int(15 * figure.get_figwidth()))


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
