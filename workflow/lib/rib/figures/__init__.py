"""What figures share: style, notes and files. The modules of figures are in rib.analyses."""

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
from matplotlib.image import AxesImage

from rib.analysis.fit import UNFINISHED, name_unfinished, read_table
from rib.base.files import write_table
from rib.config.figure_settings import FigureSettings
from rib.config.geometry import Geometry
from rib.config.run import ALL, PRETRAINED
from rib.data.prepared import PreparedDataset

STYLE = Path(__file__).with_name("rib.mplstyle")
CHANGES = "PuOr_r"  # colours of gains and losses in matrices, see rib.base.appearance
ROWS = ["dataset", "row", "prediction", "rank"]  # columns of evaluation rows for figures
SHARED = "‡"  # mark of datasets that share source images
# Settings that choose what is shown, by column of the table of fits; the first that a figure has.
CHOICES = {
    "model": ("models", "series", "model"),
    "method": ("methods", "method"),
    "target": ("targets", "target"),
}
LONGEST = 200  # characters of a note that names unfinished runs
NOTE_CHARACTERS = 15  # of a line of a note, per inch of the figure's width
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
    inputs: Mapping[str, str | Sequence[str]],
    settings: FigureSettings,
    files: FigureFiles,
    fit: Path | None = None,
) -> None:
    """Draw a figure and write its files.

    The same input gives the same bytes. Methods with an unfinished run among those shown are
    marked, and the runs are named in a note.

    Args:
        inputs: path or list of paths for each input of `draw`.
        settings: what the figure shows.
        files: where the figure is written.
        fit: CSV file of `rib.analysis.fit.fit_table`, if the figure shows fine-tuned runs.
    """
    module = importlib.import_module(settings.drawing_module)
    shown_size = None if getattr(module, "EVERY_SIZE", False) else settings.size
    finished_only = getattr(module, "FINISHED_ONLY", False)
    runs = _shown_runs(fit, shown_size, settings.draw_settings)
    unfinished_methods = runs.loc[runs["unfinished"] == "yes", "method"]
    draw_settings = settings.draw_settings
    if not finished_only:
        draw_settings = _mark_methods(draw_settings, set(unfinished_methods))
    with plt.style.context(STYLE):
        tables = {}
        for name, paths in inputs.items():
            tables[name] = _of_size(_read(paths, settings.geometry), shown_size)
        drawn, shown_rows = module.draw(**tables, **draw_settings)
        is_one_of_several_sizes = shown_size is not None and settings.sizes != [ALL]
        if is_one_of_several_sizes and any(_has_sizes(table) for table in tables.values()):
            _add_below(drawn, _size_note(shown_size, settings.sizes))
            shown_rows = _with_size(shown_rows, shown_size)
        if len(unfinished_methods):
            _add_wrapped_below(drawn, _unfinished_note(runs, settings.labels, finished_only))
        if settings.note:
            _add_wrapped_below(drawn, settings.note)
        drawn.savefig(files.png, metadata={"Software": None})
        if files.pdf:
            drawn.savefig(files.pdf, metadata={"CreationDate": None})
        plt.close(drawn)
    write_table(files.csv, shown_rows)


def _read(paths: object, geometry: Geometry | None):
    """A table, the dataset of a manifest, or a list of these for a list of paths."""
    if not isinstance(paths, str):
        return [_read(path, geometry) for path in paths]
    path = Path(paths)
    if path.suffix == ".json":
        return PreparedDataset.open(path.parent, path.parts[-3], geometry)
    if path.suffix == ".parquet":
        return pd.read_parquet(path, columns=ROWS)
    return read_table(path)


def _shown_runs(fit: Path | None, size: str | None, settings: Mapping) -> pd.DataFrame:
    """The runs, with their fit, that a figure shows; none without a table of fits.

    Args:
        fit: CSV file of `rib.analysis.fit.fit_table`.
        size: training subset; None for all.
        settings: settings of the figure, see `CHOICES`.
    """
    if fit is None:
        return pd.DataFrame(columns=["method", "unfinished"])
    runs = _of_size(read_table(fit), size)
    choices = {**settings, **settings.get("example", {})}
    for column, names_of_settings in CHOICES.items():
        chosen = None
        for name in names_of_settings:
            if name in choices:
                chosen = choices[name]
                break
        if isinstance(chosen, str):
            runs = runs[runs[column] == chosen]
        elif isinstance(chosen, Mapping):  # some figures have a number of targets
            runs = runs[runs[column].isin(list(chosen))]
    return runs


def _mark_methods(settings: Mapping, methods: Collection[str]) -> dict:
    """Settings in which the labels of the given methods are marked as unfinished."""
    marked = dict(settings)
    if "methods" in settings:
        marked["methods"] = {
            name: _mark(label) if name in methods else label
            for name, label in settings["methods"].items()
        }
    if settings.get("method") in methods:
        marked["method_label"] = _mark(settings["method_label"])
    example = settings.get("example", {})
    if example.get("method") in methods:
        marked["example"] = {**example, "method_label": _mark(example["method_label"])}
    return marked


def _mark(label: str | Mapping) -> str | dict:
    """A label, or a style with a label, that is marked as unfinished."""
    if isinstance(label, str):
        return f"{label} {UNFINISHED}"
    return {**label, "label": _mark(label["label"])}


def _has_sizes(table: object) -> bool:
    """Whether an input of a figure is a table of runs with different training subsets."""
    return isinstance(table, pd.DataFrame) and "size" in table


def _of_size(table: object, size: str | None):
    """Rows of runs of one size (None for all) and of pretrained models.

    A table without sizes is not changed.
    """
    if size is None or not _has_sizes(table):
        return table
    return table[(table["size"] == size) | (table["method"] == PRETRAINED)]


def _with_size(shown_rows: pd.DataFrame, size: str) -> pd.DataFrame:
    """The rows that a figure shows with the column size, which is `all` for pretrained models."""
    if "size" in shown_rows:
        return shown_rows
    if "method" not in shown_rows:
        return shown_rows.assign(size=[size] * len(shown_rows))
    sizes = [ALL if method == PRETRAINED else size for method in shown_rows["method"]]
    return shown_rows.assign(size=sizes)


def _size_note(shown_size: str, sizes: Sequence[str]) -> str:
    """A note on the training subset that a figure shows, and on the others."""
    note = f"train_subset {shown_size}"
    other_sizes = [size for size in sizes if size != shown_size]
    if other_sizes:
        note += f"; also run: {', '.join(other_sizes)}"
    return note


def _unfinished_note(
    runs: pd.DataFrame, labels: Mapping[str, Labels] | None, finished_only: bool
) -> str:
    """A note that names the unfinished ones of the runs."""
    lead = f"{UNFINISHED} training unfinished"
    if finished_only:
        lead = "not ranked, since training is unfinished"
    unfinished = (runs["unfinished"] == "yes").sum()
    names = textwrap.shorten(
        "; ".join(name_unfinished(runs, labels)),
        LONGEST,
        placeholder=f" ... ({counted(unfinished, 'run')})",
    )
    return f"{lead}: {names}"


def _add_wrapped_below(figure: Figure, note: str) -> None:
    """Add a note as `_add_below`, broken into lines that fit the figure's width."""
    characters = int(NOTE_CHARACTERS * figure.get_figwidth())
    _add_below(figure, textwrap.fill(note, characters))


def _add_below(figure: Figure, note: str) -> None:
    """Add a line below all panels and existing notes."""
    existing_note = figure.get_supxlabel()
    if not existing_note:
        figure.supxlabel(note, fontsize=7)
        return
    (text,) = (text for text in figure.texts if text.get_text() == existing_note)
    text.set_text(f"{existing_note}\n{note}")


def counted(n: int, noun: str) -> str:
    """A number with its noun, for example `1 target` and `5 targets`."""
    ending = "" if n == 1 else "s"
    return f"{n:,} {noun}{ending}"


def text_colour(image: AxesImage, value: float) -> str:
    """Black or white, whichever is readable on the image's colour of a value."""
    red, green, blue, _ = image.cmap(image.norm(value))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return "black" if luminance > 0.5 else "white"
