"""Figures show the numbers of their tables: read back from the drawn objects."""

import errno
import itertools
from dataclasses import dataclass
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from rib.analyses.accuracy_matrix import figure as accuracy_matrix
from rib.analyses.before_after import describe as before_after_describe
from rib.analyses.before_after import figure as before_after_figure
from rib.analyses.calibration import figure as calibration
from rib.analyses.cost import figure as cost
from rib.analyses.effective_robustness import figure as effective_robustness
from rib.analyses.examples import figure as examples
from rib.analyses.protocol import figure as protocol
from rib.analyses.radar import figure as radar
from rib.analyses.ri_matrix import figure as ri_matrix
from rib.analyses.samples import figure as samples
from rib.base.appearance import GAIN, LOSS
from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace
from rib.data.dataset import PreparedDataset
from rib.figures import STYLE, text_colour, write_figure, write_figures
from rib.grid.figure_settings import FiguresSettings
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from tiny.projects.grids import grid
from tiny.tables.analyses import figure_settings

OOD = pd.DataFrame(
    [
        ("m1", "ft", "before", 20.0, 15.0, 26.0),
        ("m1", "ft", "after", 30.0, 28.0, 33.0),
        ("m2", "ft", "before", 40.0, 35.0, 46.0),
        ("m2", "ft", "after", 10.0, 8.0, 13.0),
        ("m1", "lwf", "after", 99.0, 99.0, 99.0),
    ],
    columns=["model", "method", "when", "accuracy", "ci_low", "ci_high"],
)
METHOD = {"method": "ft", "method_label": "FT"}
LABELS = {"m2": "Second", "m1": "First"}
BEFORE_AFTER = {
    **METHOD,
    "models": LABELS,
    "number_of_datasets": 8,
    "number_of_targets": 5,
    "confidence": 0.95,
    "paper": {},
}
DATASETS = {"a": "Set A", "b": "Set B", "c": "Set C"}
TARGETS = {"a": "Set A", "b": "Set B"}
METHODS = {"ft": "FT", "lwf": "LwF"}
RI_MATRIX = {
    "models": {"m": "M"},
    "methods": {"ft": "FT"},
    "targets": TARGETS,
    "shared": ["b"],
    "confidence": 0.95,
}
EXAMPLE = {**METHOD, "target": "b", "datasets": DATASETS}
LOOK_OF_M = {"label": "M", "colour": "#0072B2", "marker": "o"}


def protocol_settings(target=EXAMPLE["target"], size="all", **changes):
    """Settings of the figure of the protocol."""
    example = {
        "model": "m",
        "model_label": "M",
        "method": EXAMPLE["method"],
        "method_label": EXAMPLE["method_label"],
        "target": target,
        "size": size,
    }
    settings = {"left_out": {}, "targets": TARGETS, "datasets": EXAMPLE["datasets"]}
    return {"example": example, **settings, **changes}


PROTOCOL = protocol_settings()


@pytest.fixture
def accuracy():
    """Accuracies of model m, which was pretrained and then fine-tuned with ft and lwf.

    The pretrained model has 10, 20 and 30 on sets A, B and C, and each run 7 more than the one
    before it.
    """
    runs = [("pretrained", "none"), *itertools.product(METHODS, TARGETS)]
    rows = []
    for number_of_run, (method, target) in enumerate(runs):
        for number_of_dataset, dataset in enumerate(DATASETS, start=1):
            rows.append(
                {
                    "model": "m",
                    "method": method,
                    "target": target,
                    "seed": 0,
                    "dataset": dataset,
                    "n": 50,
                    "accuracy": 10.0 * number_of_dataset + 7 * number_of_run,
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def ri():
    """RI of each run, with an interval of one point on either side; ft on a is underfitted."""
    runs = [("ft", "a", 5.0), ("ft", "b", -12.5), ("lwf", "a", 1.0), ("lwf", "b", 2.0)]
    table = pd.DataFrame(runs, columns=["method", "target", "ri"])
    return table.assign(
        model="m",
        seed=0,
        ci_low=table["ri"] - 1,
        ci_high=table["ri"] + 1,
        fit=99.9,
        underfitted=[1, 0, 0, 0],
    )


@pytest.fixture
def mri():
    """Their means over targets; that of ft is of underfitted runs."""
    return pd.DataFrame(
        [("m", "ft", -3.75, -5.0, -2.0, np.nan, 1), ("m", "lwf", 1.5, 1.0, 2.0, 100, 0)],
        columns=["model", "method", "mri", "ci_low", "ci_high", "fit", "underfitted"],
    )


def texts(figure):
    """Texts that were written into the axes of a figure, in order."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def labels_of(list_of_texts):
    """What some labels of a figure say."""
    return [text.get_text() for text in list_of_texts]


def vertical_spans(axes):
    """Lower and upper end of each whisker of upright bars, in the order of drawing."""
    spans = []
    for whiskers in axes.collections:
        for points in whiskers.get_segments():
            heights = points[:, 1]
            spans.append(tuple(heights))
    return spans


def horizontal_spans(lines):
    """Left and right end of each line of a collection of lying ones."""
    spans = []
    for points in lines.get_segments():
        distances_from_left = points[:, 0]
        spans.append(tuple(distances_from_left))
    return spans


def panel_of(figure):
    """The first axes of a figure, which others, such as a colour bar, may follow."""
    panel, *_ = figure.axes
    return panel


def image_of(figure):
    """The coloured cells of the first axes of a figure."""
    (image,) = panel_of(figure).images
    return image


def test_before_after_has_bars_and_whiskers_of_the_tables_numbers():
    figure, shown = before_after_figure.draw_before_after(OOD, **BEFORE_AFTER)
    (axes,) = figure.axes
    before = [40, 20]
    after = [10, 30]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(before + after, abs=1e-6)
    assert labels_of(axes.get_xticklabels()) == ["Second", "First"]
    assert vertical_spans(axes) == [(35, 46), (15, 26), (8, 13), (28, 33)]
    assert set(shown["method"]) == {"ft"}
    assert len(shown) == 4


def diamonds(axes):
    """The lines of an axes that mark numbers of the paper."""
    return [line for line in axes.lines if line.get_marker() == "D"]


def test_before_after_marks_the_papers_bars_where_it_has_them():
    # given
    settings = {**BEFORE_AFTER, "paper": {"m2": {"before": 44.0, "after": 70.0}}}
    # when
    figure, shown = before_after_figure.draw_before_after(OOD, **settings)
    # then
    (axes,) = figure.axes
    before, after = diamonds(axes)
    np.testing.assert_equal(before.get_ydata(), [44, np.nan])
    np.testing.assert_equal(after.get_ydata(), [70, np.nan])
    _, top = axes.get_ylim()
    assert top > 70
    papers_numbers = shown.set_index(["model", "when"])["paper"]
    assert papers_numbers["m2", "after"] == 70


def bars_of_the_paper(**choices):
    """The paper's numbers in the figure of the bars, of a grid of some choices."""
    of_choices = grid(**choices)
    analysis = before_after_describe.describe(of_choices, Paths(of_choices), GridLabels(of_choices))
    return analysis.figures["before_after"].params["paper"]


def test_only_networks_of_the_paper_have_its_bars():
    model = "vit_base_patch16_224.augreg_in1k"
    paper = bars_of_the_paper(family="imagenet", models=[model], methods=["ft"])
    assert paper == {model: {"before": 42.7, "after": 44.0}}
    assert bars_of_the_paper(family="fashion", methods=["ft"]) == {}


def test_radar_closes_a_line_before_and_a_dashed_one_after(accuracy):
    figure, _ = radar.draw_radar(accuracy, **EXAMPLE, models={"m": LOOK_OF_M})
    (axes,) = figure.axes
    before, after = axes.lines
    assert list(before.get_ydata()) == [10, 20, 30, 10]
    assert before.get_linestyle() == "-"
    assert list(after.get_ydata()) == [24, 34, 44, 24]
    assert after.get_linestyle() == "--"
    assert labels_of(axes.get_xticklabels()) == ["Set A", "Set B", "Set C"]


def test_ri_matrix_writes_each_value_with_its_interval_fit_and_marks(ri, mri):
    figure, _ = ri_matrix.draw_ri_matrix(ri, mri, **{**RI_MATRIX, "methods": METHODS})
    of_ft = [
        *("+5.0†", "+4.0 to +6.0", "fit 99.9"),
        *("-12.5‡", "-13.5 to -11.5", "fit 99.9"),
        *("-3.8†", "-5.0 to -2.0"),
    ]
    of_lwf = [
        *("+1.0", "+0.0 to +2.0", "fit 99.9"),
        *("+2.0‡", "+1.0 to +3.0", "fit 99.9"),
        *("+1.5", "+1.0 to +2.0", "fit 100.0"),
    ]
    assert texts(figure) == of_ft + of_lwf
    image = image_of(figure)
    np.testing.assert_allclose(image.get_array(), [[5, -12.5, -3.75], [1, 2, 1.5]])


TWO_MODELS = {"m": "M", "n": "N"}
UNDERFITTED = {("m", "ft")}


def of_two_models(table):
    """The rows of model m, and the same of a model n."""
    return pd.concat([table, table.assign(model="n")])


def visible_texts(figure):
    """All texts of a figure with something in them, each in one line."""
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    return [" ".join(text.get_text().split()) for text in shown]


def test_rows_and_panels_are_marked_by_the_runs_of_their_own_model(accuracy, ri, mri):
    # given
    models_and_methods = {"models": TWO_MODELS, "methods": METHODS, "underfitted": UNDERFITTED}
    looks = {name: {**LOOK_OF_M, "label": label} for name, label in TWO_MODELS.items()}
    matrix_settings = {**RI_MATRIX, **models_and_methods}
    accuracies = of_two_models(accuracy)
    # when
    matrix, _ = ri_matrix.draw_ri_matrix(of_two_models(ri), of_two_models(mri), **matrix_settings)
    panels, _ = draw_accuracy(accuracies, **models_and_methods)
    rings, _ = radar.draw_radar(accuracies, **EXAMPLE, models=looks, underfitted=UNDERFITTED)
    # then
    rows_of_m, rows_of_n = [labels_of(axes.get_yticklabels()) for axes in matrix.axes[:2]]
    assert rows_of_m == ["FT †", "LwF"]
    assert rows_of_n == ["FT", "LwF"]
    titles = [axes.get_title() for axes in panels.axes if axes.get_title()]
    assert titles == ["M, FT †", "M, LwF", "N, FT", "N, LwF"]
    (legend,) = rings.legends
    marked = [label for label in labels_of(legend.get_texts()) if "†" in label]
    assert len(marked) == 1
    assert marked[0].startswith("M")


def test_costs_and_calibration_are_marked_by_the_runs_of_their_own_model():
    # given
    run = {"model": "m", "method": "ft", "size": "all"}
    costs = of_two_models(pd.DataFrame([{**run, "device": "cpu", "seconds": 9.0}]))
    means = of_two_models(pd.DataFrame([{**run, "mri": 1.0, "ci_low": 0.5, "ci_high": 1.5}]))
    errors = of_two_models(calibration_errors())
    settings = {"models": TWO_MODELS, "methods": {"ft": "FT"}, "underfitted": UNDERFITTED}
    # when
    bars, _ = cost.draw_cost(costs, means, **settings, confidence=0.95)
    dumbbells, _ = calibration.draw_calibration(errors, **settings, datasets=DATASETS)
    # then
    for marked, unmarked, figure in (("FT †", "FT", bars), ("M, FT †", "N, FT", dumbbells)):
        texts_of_figure = visible_texts(figure)
        assert texts_of_figure.count(marked) == 1
        assert texts_of_figure.count(unmarked) == 1


def draw_accuracy(accuracy, **changes):
    """The matrix of accuracies of ft, with some settings changed, and what it shows."""
    settings = {
        "models": {"m": "M"},
        "methods": {"ft": "FT"},
        "targets": TARGETS,
        "datasets": DATASETS,
        "source_groups": {},
        "accuracy_on_target": "fit of the training images",
    }
    return accuracy_matrix.draw_accuracy_matrix(accuracy, **{**settings, **changes})


def test_accuracy_matrix_outlines_the_target_and_marks_shared_sources(accuracy):
    # when
    figure, _ = draw_accuracy(accuracy, source_groups={"b": "g", "c": "g"})
    # then
    pretrained = ["10", "20", "30"]
    tuned_on_a = ["17", "27", "37"]
    tuned_on_b = ["24", "34", "44‡"]
    assert texts(figure) == pretrained + tuned_on_a + tuned_on_b
    half_a_cell = 0.47
    outlined_cells = []
    for outline in panel_of(figure).patches:
        column = outline.get_x() + half_a_cell
        row = outline.get_y() + half_a_cell
        outlined_cells.append((column, row))
    a_after_tuning_on_a = (0, 1)
    b_after_tuning_on_b = (1, 2)
    assert outlined_cells == [a_after_tuning_on_a, b_after_tuning_on_b]


def test_examples_show_the_objects_that_most_sets_have_and_which_answers_are_right():
    # given: rows of c are not in the order of its index, as files of the parts of a dataset
    rows = pd.DataFrame(
        [("a", 0, 0, 0), ("b", 0, 1, 2), ("a", 1, 1, 0), ("c", 1, 0, 1), ("c", 0, 1, 0)],
        columns=["dataset", "row", "prediction", "rank"],
    )
    space = LabelSpace(("k0", "k1"), ((3,), (7,)), ("ant", "bee"))
    # of which the second is the first's ant
    space_of_c = LabelSpace(("k2", "k3"), ((1, 9), (3, 8)), ("wasp", "emmet"))
    images = np.zeros((2, 4, 4, 3), np.uint8)
    index = pa.table({"image_id": ["x", "y"]})
    index_of_c = pa.table({"image_id": ["x", "z"]})
    prepared = [
        PreparedDataset("a", images, np.array([0, 1]), None, index, space),
        PreparedDataset("b", images, np.array([0, 1]), None, index, space),
        PreparedDataset("c", images, np.array([1, 1]), None, index_of_c, space_of_c),
    ]
    # when
    figure, shown = examples.draw_examples(
        [rows], prepared, datasets=DATASETS, model_label="M", objects=5
    )
    # then
    assert [axes.get_xlabel() for axes in figure.axes] == ["✓ ant", "✗ bee", "✓ emmet"]
    assert panel_of(figure).get_ylabel() == "ant"
    assert shown["image_id"].tolist() == ["x", "x", "x"]


def test_examples_name_the_authors_of_all_photos_that_they_show_and_of_no_other():
    # given datasets with two images of each class, by different authors
    space = LabelSpace(("k0", "k1"), ((3,), (7,)), ("ant", "bee"))
    images = np.zeros((4, 4, 4, 3), np.uint8)
    labels = np.array([0, 0, 1, 1])
    credit = "Author of {}, https://example.org/{}, CC BY 2.0"
    prepared = []
    for dataset in ("a", "b", "c"):
        names = [f"{dataset}{number}" for number in range(4)]
        columns = {"image_id": names}
        if dataset != "c":  # which needs none
            columns["attribution"] = [credit.format(name, name) for name in names]
        index = pa.table(columns)
        prepared.append(PreparedDataset(dataset, images, labels, None, index, space))
    rows = pd.DataFrame(
        [(dataset, row, 0, row // 2) for dataset in "abc" for row in range(4)],
        columns=["dataset", "row", "prediction", "rank"],
    )
    # when
    figure, shown = examples.draw_examples(
        [rows], prepared, datasets=DATASETS, model_label="M", objects=2
    )
    # then
    written = figure.get_supxlabel().replace("\n", " ")
    for name in ("a0", "a2", "b0", "b2"):
        assert credit.format(name, name) in written
    for name in ("a1", "b3", "c0"):
        assert f"Author of {name}" not in written
    assert "ropped, resized" in written
    assert shown.loc[shown["dataset"] == "a", "attribution"].tolist() == [
        credit.format(name, name) for name in ("a0", "a2")
    ]


def test_protocol_states_the_runs_numbers(accuracy, ri, mri):
    figure, shown = protocol.draw_protocol(accuracy, ri, mri, **PROTOCOL)
    written = " ".join(texts(figure))
    assert "-12.5" in written
    assert "-3.8" in written
    assert "50 images" in written
    assert shown["change"].tolist() == [14, 14, 14]


@pytest.mark.parametrize("size, images", [("all", 301), ("0.5", 150)])
def test_protocol_states_how_many_images_were_trained_on(accuracy, ri, mri, size, images):
    """Under held_out those are other images than the 50 that are tested."""
    data = pd.DataFrame(
        {"dataset": ["a", "b"], "train": [7, 301], "select": [2, 100], "test": [50, 50]}
    )
    figure, _ = protocol.draw_protocol(accuracy, ri, mri, data, **protocol_settings(size=size))
    assert f"{images} images" in " ".join(texts(figure))


def test_protocol_shows_which_datasets_do_not_count_in_ri(accuracy, ri, mri):
    # given
    settings = protocol_settings(left_out={"c": "in distribution"})
    # when
    figure, _ = protocol.draw_protocol(accuracy, ri, mri, **settings)
    # then
    (left_out,) = [text for text in texts(figure) if "in distribution" in text]
    assert "Set C" in left_out


def colours_of(figure, text):
    """The colours in which a text is written in the axes of a figure."""
    (axes,) = figure.axes
    return {written.get_color() for written in axes.texts if written.get_text() == text}


def test_gains_and_losses_have_one_pair_of_colours(accuracy, ri, mri):
    # given
    falling = accuracy.assign(accuracy=-accuracy["accuracy"])
    # when
    figure_of_gains, _ = protocol.draw_protocol(accuracy, ri, mri, **protocol_settings("a"))
    figure_of_losses, _ = protocol.draw_protocol(falling, ri, mri, **PROTOCOL)
    # then
    colours_of_gains = colours_of(figure_of_gains, "+7.0")
    colours_of_losses = colours_of(figure_of_losses, "-14.0")
    assert GAIN in colours_of_gains
    assert LOSS not in colours_of_gains
    assert LOSS in colours_of_losses
    assert GAIN not in colours_of_losses


def test_the_map_of_ri_goes_from_the_colour_of_losses_to_that_of_gains(ri, mri):
    figure, _ = ri_matrix.draw_ri_matrix(ri, mri, **RI_MATRIX)
    image = image_of(figure)

    def distance(share_of_map, colour):
        """Of a place of the map, 0 to 1 from its lower end, to a colour."""
        colour_of_map = to_rgb(image.cmap(share_of_map))
        return np.abs(np.subtract(colour_of_map, to_rgb(colour))).sum()

    assert distance(0.9, GAIN) < distance(0.9, LOSS)
    assert distance(0.1, LOSS) < distance(0.1, GAIN)


def test_text_is_dark_on_light_and_light_on_dark(accuracy):
    figure, _ = draw_accuracy(accuracy)
    image = image_of(figure)
    assert text_colour(image, 0) == "black"
    assert text_colour(image, 100) == "white"


@dataclass(frozen=True)
class Sizes:
    """The size that a figure shows, of those of the grid."""

    shown: str = "all"
    of_grid: tuple[str, ...] = ("all",)


def write(folder, name, inputs, params, sizes=Sizes()):
    """Write a figure as its job does.

    Args:
        folder: where its files are written, and the tables that it reads.
        name: of the figure.
        inputs: its tables by name.
        params: other arguments of the function that draws it.

    Returns:
        Paths of the figure's files by ending.
    """
    folder.mkdir(exist_ok=True)
    tables = {}
    for table_name, table in inputs.items():
        path = folder / f"{table_name}.csv"
        table.to_csv(path, index=False)
        tables[table_name] = str(path)
    paths = {ending: folder / f"{name}.{ending}" for ending in ("png", "pdf", "csv")}
    settings = figure_settings(name, params, size=sizes.shown, sizes=list(sizes.of_grid))
    write_figure(name, tables, settings, paths)
    return paths


def test_the_same_table_gives_the_same_files(tmp_path):
    paths = write(tmp_path / "a", "before_after", {"ood": OOD}, BEFORE_AFTER)
    other_paths = write(tmp_path / "b", "before_after", {"ood": OOD}, BEFORE_AFTER)
    for ending in ("png", "pdf", "csv"):
        content = paths[ending].read_bytes()
        assert content != b""
        assert content == other_paths[ending].read_bytes()


@pytest.fixture
def write_all(monkeypatch):
    """A function that writes figures as one job does; each is `before_after` of one table."""

    def write_figures_of(folder, tables):
        """Write them.

        Args:
            folder: where the figures, the tables and the log are written.
            tables: the table of each figure, by the figure's name.

        Returns:
            Files of each figure, by its name.
        """
        folder.mkdir(exist_ok=True)
        inputs = {}
        files = {}
        for name, table in tables.items():
            draw = before_after_figure.draw_before_after
            monkeypatch.setattr(before_after_figure, f"draw_{name}", draw, raising=False)
            table.to_csv(folder / f"{name}_table.csv", index=False)
            inputs[name] = {"ood": str(folder / f"{name}_table.csv")}
            files[name] = {ending: folder / f"{name}.{ending}" for ending in ("png", "pdf", "csv")}
        settings_of_one = figure_settings("before_after", BEFORE_AFTER)
        settings = FiguresSettings(
            figures=dict.fromkeys(tables, settings_of_one), inputs=inputs, fit=None, code=""
        )
        write_figures(settings, files, folder / "plot.log")
        return files

    return write_figures_of


def test_a_figure_that_fails_is_named_and_the_others_are_kept_beside_the_log(tmp_path, write_all):
    without_accuracy = OOD.drop(columns="accuracy")
    tables = {"first": OOD, "broken": without_accuracy, "last": OOD}
    with pytest.raises(UserError) as raised:
        write_all(tmp_path / "job", tables)
    message = str(raised.value)
    assert "broken (KeyError: 'accuracy'" in message
    kept = tmp_path / "job/plot"
    assert str(kept) in message
    assert str(tmp_path / "job/plot.log") in message
    whole = write_all(tmp_path / "whole", {"first": OOD, "last": OOD})
    assert len(list(kept.iterdir())) == 6
    for files in whole.values():
        for path in files.values():
            assert (kept / path.name).read_bytes() == path.read_bytes()


@pytest.mark.thorough
def test_figures_that_a_failed_job_kept_are_gone_when_it_succeeds(tmp_path, write_all):
    with pytest.raises(UserError):
        write_all(tmp_path / "job", {"first": OOD, "broken": OOD.drop(columns="accuracy")})
    assert (tmp_path / "job/plot").is_dir()
    write_all(tmp_path / "job", {"first": OOD, "broken": OOD})
    assert not (tmp_path / "job/plot").exists()


def test_a_full_disk_is_no_matter_of_one_figure(tmp_path, monkeypatch, write_all):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(before_after_figure, "draw_before_after", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        write_all(tmp_path / "job", {"first": OOD, "last": OOD})


@pytest.mark.thorough
@pytest.mark.parametrize("size", ["all", "10"])  # also where every size is a number
def test_runs_of_another_size_are_not_shown(tmp_path, size):
    of_another_size = OOD.assign(size="0.5", accuracy=99.0)
    ood = pd.concat([OOD.assign(size=size), of_another_size])
    paths = write(tmp_path, "before_after", {"ood": ood}, BEFORE_AFTER, Sizes(size, (size, "0.5")))
    shown = pd.read_csv(paths["csv"], dtype={"size": str})
    assert set(shown["size"]) == {size}
    assert set(shown["model"]) == set(OOD["model"])
    assert set(shown["accuracy"]) <= set(OOD["accuracy"])


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as it was written."""

    figure: Figure
    texts: str  # all of them
    shown: pd.DataFrame  # the numbers, as its CSV has them


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function that writes a figure, see `write`, and gives what was drawn."""
    closed_figures = []
    monkeypatch.setattr("rib.figures.plt.close", closed_figures.append)

    def draw(name, inputs, settings, sizes):
        paths = write(tmp_path, name, inputs, settings, sizes)
        figure = closed_figures.pop()
        assert closed_figures == []
        texts_of_figure = "\n".join(text.get_text() for text in figure.findobj(Text))
        shown = pd.read_csv(paths["csv"], dtype={"size": str})
        return DrawnFigure(figure, texts_of_figure, shown)

    return draw


def of_sizes(table, sizes):
    """The rows of a table once for each size."""
    return pd.concat([table.assign(size=size) for size in sizes])


@pytest.mark.thorough
@pytest.mark.parametrize("size, sizes", [("all", ["0.5", "all", "10"]), ("0.5", ["0.5"])])
def test_a_figure_says_which_size_it_shows_where_that_is_a_choice(
    accuracy, ri, mri, drawn, size, sizes
):
    # given
    ood = of_sizes(OOD, sizes)
    tables_of_ri = {"ri": of_sizes(ri, sizes), "mri": of_sizes(mri, sizes)}
    # when
    bars = drawn("before_after", {"ood": ood}, BEFORE_AFTER, Sizes(size, tuple(sizes)))
    matrix = drawn("ri_matrix", tables_of_ri, RI_MATRIX, Sizes(size, tuple(sizes)))
    # then
    for figure in (bars, matrix):
        assert f"train_subset {size}" in figure.texts
        assert set(figure.shown["size"]) == {size}


def test_a_method_that_a_model_lacks_has_an_empty_panel(accuracy):
    figure, shown = draw_accuracy(accuracy, methods={"ft": "FT", "for_vits": "V"})
    panel, empty_panel, *_ = figure.axes
    assert panel.axison
    assert not empty_panel.axison
    assert "ft" in set(shown["method"])
    assert "for_vits" not in set(shown["method"])


def test_flips_diverge_from_zero_with_their_intervals():
    # given
    shares = {
        **{"agreement": 60.0, "agreement_low": 50.0, "agreement_high": 72.0},
        **{"right_to_wrong": 5.0, "right_to_wrong_low": 3.0, "right_to_wrong_high": 8.0},
        **{"wrong_to_right": 9.0, "wrong_to_right_low": 8.0, "wrong_to_right_high": 12.0},
    }
    methods = ("ft", "lwf", "not drawn")
    table = pd.DataFrame([{"model": "m", "method": method, **shares} for method in methods])
    drawn_methods = {"lwf": "LwF", "ft": "FT"}
    # when
    figure, shown = samples.draw_flips(
        table, models={"m": "M"}, methods=drawn_methods, confidence=0.9
    )
    # then
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [-5, -5, 9, 9]
    spans_of_flips = [span for lines in left.collections for span in horizontal_spans(lines)]
    assert spans_of_flips == [(-8, -3), (-8, -3), (8, 12), (8, 12)]
    agreement, *_ = right.collections
    assert horizontal_spans(agreement) == [(50, 72), (50, 72)]
    assert labels_of(left.get_yticklabels()) == ["LwF", "FT"]
    assert left.yaxis_inverted()
    assert texts(figure) == ["5.0", "5.0", "9.0", "9.0", "60", "60"]
    assert set(shown["method"]) == {"ft", "lwf"}


def calibration_errors():
    """Errors of two seeds of ft on each target, which are large on the target itself."""
    rows = []
    for target, seed, dataset in itertools.product(TARGETS, (0, 1), TARGETS):
        rows.append(
            {
                "model": "m",
                "method": "ft",
                "target": target,
                "seed": seed,
                "dataset": dataset,
                "ece_before": 20.0,
                "ece_after": 99.0 if dataset == target else 10.0 + 4 * seed,
                "ece_floor_before": 3.0,
                "ece_floor_after": 1.0 + seed,
            }
        )
    return pd.DataFrame(rows)


def positions(markers):
    """Where the markers of a collection are."""
    return [tuple(position) for position in markers.get_offsets()]


def test_calibration_joins_the_errors_before_and_after_on_the_other_datasets():
    # given: two seeds, whose errors after fine-tuning have a mean of 12 and whose floors one of 1.5
    errors = calibration_errors()
    methods = {"ft": "FT", "vit": "V"}
    # when
    figure, shown = calibration.draw_calibration(
        errors, models={"m": "M"}, methods=methods, datasets=DATASETS
    )
    # then
    panel, panel_of_absent_method = figure.axes
    assert not panel_of_absent_method.axison
    assert shown["ece_before"].tolist() == [20, 20]
    assert shown["ece_after"].tolist() == [12, 12]
    joined, before, after, floor_before, floor_after = panel.collections
    without_c = slice(2)
    assert horizontal_spans(joined)[without_c] == [(20, 12), (20, 12)]
    assert positions(before)[without_c] == [(20, 0), (20, 1)]
    assert positions(after)[without_c] == [(12, 0), (12, 1)]
    assert positions(floor_before) == [(3, 0), (3, 1)]
    assert positions(floor_after) == [(1.5, 0), (1.5, 1)]
    assert labels_of(panel.get_yticklabels()) == ["Set A", "Set B", "Set C"]


@pytest.fixture
def figure_of_effective_robustness():
    """Set B against set A, of ft and lwf that were fine-tuned on B and on C; and its numbers."""
    baselines = []
    for accuracy_on_a in (50.0, 60.0, 80.0):
        baselines.append(
            {
                "model": f"b{accuracy_on_a}",
                "dataset": "b",
                "in_distribution": "a",
                "id": accuracy_on_a,
                "ood": accuracy_on_a - 20,
            }
        )
    runs = pd.DataFrame(itertools.product(["ft", "lwf"], ["b", "c"]), columns=["method", "target"])
    table = runs.assign(
        model="m",
        dataset="b",
        in_distribution="a",
        id_before=85.0,
        ood_before=70.0,
        id_after=40.0,
        ood_after=15.0,
        rho_before=5.0,
        rho_after=-5.0,
    )
    return effective_robustness.draw_effective_robustness(
        table,
        baselines=baselines,
        models={"m": {**LOOK_OF_M, "marker": "s"}},
        methods=METHODS,
        datasets=DATASETS,
        confidence=0.9,
    )


def test_effective_robustness_joins_before_and_after_beside_the_baselines(
    figure_of_effective_robustness,
):
    figure, shown = figure_of_effective_robustness
    assert set(shown["target"]) == {"c"}, "what was fine-tuned on is not shown"
    panel, _ = figure.axes
    _, _, baselines, before, after = panel.lines
    assert list(baselines.get_xdata()) == [50, 60, 80]
    assert list(baselines.get_ydata()) == [30, 40, 60]
    assert before.get_xydata().tolist() == [[85, 70]]
    assert before.get_markerfacecolor() == "white"
    assert after.get_xydata().tolist() == [[40, 15]]
    assert after.get_markerfacecolor() == LOOK_OF_M["colour"]
    (arrow,) = panel.texts
    assert arrow.xyann == (85, 70)
    assert arrow.xy == (40, 15)


def test_effective_robustness_shows_all_points(figure_of_effective_robustness):
    figure, _ = figure_of_effective_robustness
    first_panel, _ = figure.axes
    left, right = first_panel.get_xlim()
    bottom, top = first_panel.get_ylim()
    assert left < 40
    assert right > 85
    assert bottom < 15
    assert top > 70


MATHTEXT = {
    "no formula": r"$\frac{",
    "formula": r"$x^2$",
}


@pytest.mark.parametrize("text", MATHTEXT.values(), ids=MATHTEXT)
def test_dollars_in_labels_of_figures_are_text(tmp_path, text):
    # then a figure is written
    settings = {**BEFORE_AFTER, "method_label": text, "models": {"m2": text, "m1": text}}
    paths = write(tmp_path, "before_after", {"ood": OOD}, settings)
    for path in paths.values():
        assert path.stat().st_size > 0
    # and in every kind of text
    with plt.style.context(STYLE):
        figure, axes = plt.subplots()
        axes.plot([0, 1], label=text)
        axes.set_xticks([0], [text])
        written_texts = [
            axes.set_title(text),
            axes.text(0, 0, text),
            axes.annotate(text, (0, 0)),
            figure.suptitle(text),
        ]
        axes.legend()
        figure.canvas.draw()
    assert labels_of(written_texts) == [text] * 4
    parsed_texts = [written for written in figure.findobj(Text) if written.get_parse_math()]
    assert parsed_texts == []


def test_only_rates_of_one_method_and_recipe_are_joined():
    settings = {
        "ft": {"recipe": ["adamw", "paper"], "lr": [0.001, 0.00001]},
        "lwf": {"lr": [0.001]},
        "wise_ft": {"alpha": [0.25, 0.75]},
    }
    choices = {"family": "fashion", "methods": ["ft", "lwf", "wise_ft"]}
    assert GridLabels(grid(**choices, method_settings=settings)).rates == [
        [("ft-lr0.00001", "0.00001"), ("ft-lr0.001", "0.001")],
        [("ft-paper-lr0.00001", "0.00001"), ("ft-paper-lr0.001", "0.001")],
    ]
