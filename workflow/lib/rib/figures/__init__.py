"""Style, notes and files of figures. The modules that draw them are in rib.analyses."""

import importlib
import shutil
import textwrap
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from rib.base.devices import name_mixture
from rib.base.errors import UserError
from rib.base.files import write_table
from rib.base.progress import log_lines
from rib.data.dataset import PreparedDataset
from rib.grid.figure_settings import FigureSettings, FiguresSettings, folder_of_kept
from rib.jobs.messages import message_of_os_error
from rib.schema.geometry import geometry_of
from rib.schema.layout import Layout
from rib.schema.run import ALL, PRETRAINED
from rib.statistics.fit import UNDERFITTED, name_underfitted, read_table

STYLE = Path(__file__).with_name("rib.mplstyle")
CHANGES = "PuOr_r"  # gains and losses in matrices, as in rib.base.appearance
ROWS = ["dataset", "row", "prediction", "rank"]  # columns of evaluation rows
# Settings that choose models, methods and targets; of several names, a figure's first one counts.
CHOICES = {
    "model": ("models", "series", "model"),
    "method": ("methods", "method"),
    "target": ("targets", "target"),
}
LONGEST = 200  # characters of the note on underfitted runs
NOTE_CHARACTERS = 15  # per line and inch of the figure's width
Drawn = tuple[Figure, pd.DataFrame]  # with the rows it shows
Labels = Mapping[str, str]  # such as {"lite0": "Lite0"}
ModelAndMethod = tuple[str, str]  # such as ("lite0", "ft")
Style = Mapping[str, Any]  # label, colour, marker, perhaps Matplotlib's options
Styles = Mapping[str, Style]  # by name
Input = pd.DataFrame | PreparedDataset  # content of an input file


def write_figures(
    settings: FiguresSettings, files: Mapping[str, Mapping[str, Path]], log_file: Path
) -> None:
    """Draw figures one after the other; one that fails stops no other.

    Snakemake removes all outputs of a job that fails. So the others are moved to a folder beside
    the log, which every call empties first.

    Args:
        settings: of the figures, and their inputs.
        files: by figure and ending, such as {"cost": {"png": Path("cost.png"), "pdf":
            Path("cost.pdf"), "csv": Path("cost.csv")}}.
        log_file: log of the job, which gets the tracebacks.

    Raises:
        UserError: some figures, which it names, could not be drawn.
        OSError: a disk can't be written to.
    """
    kept = folder_of_kept(log_file)
    shutil.rmtree(kept, ignore_errors=True)
    failed = {}
    for name, figure_settings in settings.figures.items():
        fit = Path(settings.fit) if settings.fit and figure_settings.labels else None
        try:
            write_figure(name, settings.inputs[name], figure_settings, files[name], fit)
        except Exception as error:
            if message_of_os_error(error):
                raise  # the others would fail, too
            log_lines(f"The figure {name} could not be drawn:\n{traceback.format_exc()}")
            failed[name] = f"{name} ({type(error).__name__}: {error})"
            plt.close("all")
    if failed:
        drawn = [files[name] for name in files if name not in failed]
        _keep(drawn, kept)
        raise UserError(
            f"could not draw {counted(len(failed), 'figure')} of {len(files)}: "
            f"{', '.join(failed.values())}. The full report is in {log_file}; {kept} has the "
            f"{counted(len(drawn), 'figure')} that could be drawn."
        )


def _keep(drawn: Sequence[Mapping[str, Path]], folder: Path) -> None:
    """Moves drawn figures, [{"png": Path("cost.png"), ...}], out of a failed job's outputs.

    Snakemake would remove them there.
    """
    folder.mkdir(parents=True)
    for files in drawn:
        for path in files.values():
            shutil.move(path, folder / path.name)


def write_figure(
    name: str,
    inputs: Mapping[str, str | Sequence[str]],
    settings: FigureSettings,
    files: Mapping[str, Path],
    fit: Path | None = None,
) -> None:
    """Draw a figure and write its files; the same input gives the same bytes.

    Methods with a shown underfitted run are marked, and a note names the runs.
    Another note names the devices if they are of several kinds.

    Args:
        name: of the figure; draw_<name> of its module draws it.
        inputs: path or paths by argument of that function, such as {"mri": "mri.csv"}.
        settings: its module and parameters, and the shown training subset (size).
        files: where to write: `png`, `pdf`, and `csv` with the data shown.
        fit: fit.csv, if the figure shows fine-tuned runs.
    """
    draw = getattr(importlib.import_module(settings.module), f"draw_{name}")
    shown_size = None if settings.every_size else settings.size
    runs = _shown_runs(fit, shown_size, settings.params)
    underfitted_runs = runs[runs["underfitted"] == "yes"]
    params = settings.params
    if settings.marks_runs:
        models_and_methods = underfitted_runs[["model", "method"]].itertuples(
            index=False, name=None
        )
        params = {**params, "underfitted": set(models_and_methods)}
    elif not settings.without_underfitted:
        params = _mark_methods(params, set(underfitted_runs["method"]))
    with plt.style.context(STYLE):
        tables = {}
        for argument, paths in inputs.items():
            tables[argument] = _read_input(paths, settings, shown_size)
        drawn, shown_rows = draw(**tables, **params)
        has_other_sizes = settings.sizes != [ALL]
        has_runs = any(_has_sizes(table) for table in tables.values())
        if shown_size is not None and has_other_sizes and has_runs:
            _add_below(drawn, _size_note(shown_size, settings.sizes))
            shown_rows = _with_size(shown_rows, shown_size)
        if len(underfitted_runs):
            assert settings.labels is not None  # figures of runs have labels
            note = _underfitted_note(runs, settings.labels, settings.without_underfitted)
            _add_wrapped_below(drawn, note)
        note_on_devices = name_mixture(runs["device"])
        if note_on_devices is not None:
            _add_wrapped_below(drawn, note_on_devices)
        drawn.savefig(files["png"], metadata={"Software": None})
        drawn.savefig(files["pdf"], metadata={"CreationDate": None})
        plt.close(drawn)
    write_table(files["csv"], shown_rows)


def _read_input(
    paths: str | Sequence[str], settings: FigureSettings, size: str | None
) -> Input | list[Input]:
    """Argument of a figure's function; a single table has rows of one training subset (`size`)."""
    if not isinstance(paths, str):
        return [_read_file(Path(path), settings) for path in paths]
    content = _read_file(Path(paths), settings)
    if isinstance(content, pd.DataFrame):
        return _of_size(content, size)
    return content


def _read_file(path: Path, settings: FigureSettings) -> Input:
    """The dataset of a manifest (JSON), or a table (Parquet or CSV)."""
    if path.suffix == ".json":
        dataset = Layout.dataset_of(path)  # .../prepare/<dataset>/<geometry>/manifest.json
        geometry = geometry_of(dataset, settings.geometry, settings.uncropped)
        return PreparedDataset.open(path.parent, dataset, geometry)
    if path.suffix == ".parquet":
        return pd.read_parquet(path, columns=ROWS)
    return read_table(path)


def _shown_runs(fit: Path | None, size: str | None, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of fit.csv for shown runs, to mark underfitted ones; {"method": "ft"} limits them."""
    if fit is None:
        return pd.DataFrame(columns=["model", "method", "underfitted", "device"])
    runs = _of_size(read_table(fit), size)
    choices = {**settings, **settings.get("example", {})}
    for column, names_of_settings in CHOICES.items():
        names_in_choices = [name for name in names_of_settings if name in choices]
        if not names_in_choices:
            continue
        chosen = choices[names_in_choices[0]]
        if isinstance(chosen, str):  # a name
            runs = runs[runs[column] == chosen]
        elif isinstance(chosen, Mapping):  # labels by name; else a number of targets
            runs = runs[runs[column].isin(list(chosen))]
    return runs


def _mark_methods(settings: Mapping[str, Any], methods: Collection[str]) -> dict[str, Any]:
    """Settings with marked labels of underfitted `methods`: {"methods": {"lora": "LoRA †"}}."""
    # Labels are in methods, in method_label, or in method_label of the example.
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


def _mark(label: str | Style) -> str | dict[str, Any]:
    """`LoRA` becomes `LoRA †`, for methods with low accuracy on their training images."""
    if isinstance(label, str):
        return f"{label} {UNDERFITTED}"
    style = dict(label)
    style["label"] = f"{style['label']} {UNDERFITTED}"
    return style


def label_of_run(
    label: str, model_and_method: ModelAndMethod, underfitted: Collection[ModelAndMethod]
) -> str:
    """Label of a method beside one model's numbers, marked if a run there is underfitted.

    With ("lite0", "lora") in `underfitted`, `LoRA` becomes `LoRA †` beside lite0 alone.
    """
    if model_and_method in underfitted:
        return f"{label} {UNDERFITTED}"
    return label


def _has_sizes(table: object) -> bool:
    """Whether an input is a table with a column for the training subset of each run."""
    return isinstance(table, pd.DataFrame) and "size" in table


def _of_size(table: pd.DataFrame, size: str | None) -> pd.DataFrame:
    """Rows of one size, such as `1000`, and rows of pretrained models; None keeps all rows.

    A table without the column size is returned as it is; others also need the column method.
    """
    if size is None or not _has_sizes(table):
        return table
    return table[(table["size"] == size) | (table["method"] == PRETRAINED)]


def _with_size(shown_rows: pd.DataFrame, size: str) -> pd.DataFrame:
    """Adds the training subset to a figure's rows if missing; pretrained models get `all`."""
    if "size" in shown_rows:
        return shown_rows
    if "method" not in shown_rows:
        return shown_rows.assign(size=[size] * len(shown_rows))
    sizes = [ALL if method == PRETRAINED else size for method in shown_rows["method"]]
    return shown_rows.assign(size=sizes)


def _size_note(shown_size: str, sizes: Sequence[str]) -> str:
    """Note below a figure: `train_subset 0.5; also run: all`."""
    note = f"train_subset {shown_size}"
    other_sizes = [size for size in sizes if size != shown_size]
    if other_sizes:
        note += f"; also run: {', '.join(other_sizes)}"
    return note


def _underfitted_note(
    runs: pd.DataFrame, labels: Mapping[str, Labels], without_underfitted: bool
) -> str:
    """Which runs are marked: `† underfitted: Lite0, full fine-tuning on Noto`."""
    lead = f"{UNDERFITTED} underfitted"
    if without_underfitted:
        lead = "not ranked, since underfitted"
    underfitted = (runs["underfitted"] == "yes").sum()
    names = textwrap.shorten(
        "; ".join(name_underfitted(runs, labels)),
        LONGEST,
        placeholder=f" ... ({counted(underfitted, 'run')})",
    )
    return f"{lead}: {names}"


def _add_wrapped_below(figure: Figure, note: str) -> None:
    """Adds a note below all panels, in lines as long as the figure is wide."""
    characters = int(NOTE_CHARACTERS * figure.get_figwidth())
    _add_below(figure, textwrap.fill(note, characters))


def _add_below(figure: Figure, note: str) -> None:
    """Adds a line below all panels and existing notes."""
    existing_note = figure.get_supxlabel()
    if not existing_note:
        figure.supxlabel(note, fontsize=7)
        return
    # A second supxlabel would change the existing note's font. So its text is changed, which
    # Matplotlib keeps among the figure's texts.
    for text in figure.texts:
        if text.get_text() == existing_note:
            text.set_text(f"{existing_note}\n{note}")


def counted(n: int, noun: str) -> str:
    """A number with its noun: `1 target`, `5 targets`."""
    ending = "" if n == 1 else "s"
    return f"{n:,} {noun}{ending}"


def text_colour(image: AxesImage, value: float) -> str:
    """Colour of a number in a matrix: black or white, readable on the colour of its cell."""
    shade = image.norm(np.asarray(value))  # 0 to 1
    red, green, blue, _ = image.cmap(shade)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return "black" if luminance > 0.5 else "white"
