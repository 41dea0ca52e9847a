"""Figures show the numbers of their tables: read back from the drawn objects."""

import ast
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from rib.analyses.cost import cost
from rib.analyses.effective_robustness import effective_robustness
from rib.analyses.robustness import (
    accuracy_matrix,
    before_after,
    examples,
    protocol,
    radar,
    ri_matrix,
)
from rib.analyses.samples import calibration, flips
from rib.base.appearance import GAIN, LOSS
from rib.base.plugins import LIBRARY
from rib.config.figure_settings import FigureSettings
from rib.config.label_space import LabelSpace
from rib.data.prepared import PreparedDataset
from rib.figures import STYLE, FigureFiles, text_colour, write_figure
from tiny.analyses import drawing_module

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
    "datasets": 8,
    "targets": 5,
    "confidence": 0.95,
    "paper": {},
}
DATASETS = {"a": "Set A", "b": "Set B", "c": "Set C"}
TARGETS = {"a": "Set A", "b": "Set B"}
RI_MATRIX = {
    "models": {"m": "M"},
    "methods": {"ft": "FT"},
    "targets": TARGETS,
    "shared": ["b"],
    "confidence": 0.95,
}
RI_COLUMNS = ["model", "method", "target", "seed", "ri", "ci_low", "ci_high"]
EXAMPLE = {**METHOD, "target": "b", "datasets": DATASETS}


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
    """Accuracies of one model: pretrained 10, 20, 30; ft and lwf each their own."""
    states = [
        ("pretrained", "none"),
        *((method, target) for method in ("ft", "lwf") for target in TARGETS),
    ]
    lines = [
        ("m", method, target, 0, dataset, 50, 10.0 * (column + 1) + 7 * row)
        for row, (method, target) in enumerate(states)
        for column, dataset in enumerate(DATASETS)
    ]
    return pd.DataFrame(
        lines, columns=["model", "method", "target", "seed", "dataset", "n", "accuracy"]
    )


@pytest.fixture
def ri():
    lines = [
        ("m", m, t, 0, v, v - 1, v + 1, 99.9, int((m, t) == ("ft", "a")))
        for (m, t), v in {
            ("ft", "a"): 5.0,
            ("ft", "b"): -12.5,
            ("lwf", "a"): 1,
            ("lwf", "b"): 2,
        }.items()
    ]
    return pd.DataFrame(lines, columns=[*RI_COLUMNS, "fit", "unfinished"])


@pytest.fixture
def mri():
    return pd.DataFrame(
        [("m", "ft", -3.75, -5.0, -2.0, np.nan, 1), ("m", "lwf", 1.5, 1.0, 2.0, 100, 0)],
        columns=["model", "method", "mri", "ci_low", "ci_high", "fit", "unfinished"],
    )


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_before_after_has_bars_and_whiskers_of_the_tables_numbers():
    figure, shown = before_after.draw(OOD, **BEFORE_AFTER)
    (axes,) = figure.axes
    assert [round(bar.get_height(), 6) for bar in axes.patches] == [40, 20, 10, 30]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Second", "First"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "before (pretrained)",
        "after FT",
    ]
    ends = [tuple(segment[:, 1]) for lines in axes.collections for segment in lines.get_segments()]
    assert ends == [(35, 46), (15, 26), (8, 13), (28, 33)]
    assert set(shown["method"]) == {"ft"} and len(shown) == 4


def test_before_after_marks_the_papers_bars_where_it_has_them():
    paper = {"m2": {"before": 44.0, "after": 70.0}}
    figure, shown = before_after.draw(OOD, **{**BEFORE_AFTER, "paper": paper})
    before, after = (line for line in figure.axes[0].lines if line.get_marker() == "D")
    np.testing.assert_equal([before.get_ydata(), after.get_ydata()], [[44, np.nan], [70, np.nan]])
    assert figure.axes[0].get_legend().get_texts()[-1].get_text() == "paper (read off its figure)"
    assert (
        figure.axes[0].get_ylim()[1] > 70
        and shown.set_index(["model", "when"]).loc[("m2", "after"), "paper"] == 70
    )
    plain, _ = before_after.draw(OOD, **BEFORE_AFTER)
    assert not [line for line in plain.axes[0].lines if line.get_marker() == "D"]
    assert len(plain.axes[0].get_legend().get_texts()) == 2


def test_radar_closes_a_line_before_and_a_dashed_one_after(accuracy):
    look = {"m": {"label": "M", "colour": "#0072B2", "marker": "o"}}
    figure, _ = radar.draw(accuracy, **EXAMPLE, models=look)
    before, after = figure.axes[0].lines
    assert list(before.get_ydata()) == [10, 20, 30, 10] and before.get_linestyle() == "-"
    assert list(after.get_ydata()) == [24, 34, 44, 24] and after.get_linestyle() == "--"
    weights = {
        label.get_text(): label.get_fontweight() for label in figure.axes[0].get_xticklabels()
    }
    assert weights == {"Set A": "normal", "Set B": "bold", "Set C": "normal"}


def test_ri_matrix_writes_each_value_with_its_interval_fit_and_marks(ri, mri):
    figure, _ = ri_matrix.draw(ri, mri, **{**RI_MATRIX, "methods": {"ft": "FT", "lwf": "LwF"}})
    assert texts(figure)[:3] == ["+5.0†", "+4.0 to +6.0", "fit 99.9"]
    assert texts(figure)[3:8] == ["-12.5‡", "-13.5 to -11.5", "fit 99.9", "-3.8†", "-5.0 to -2.0"]
    assert texts(figure)[-3:] == ["+1.5", "+1.0 to +2.0", "fit 100.0"]
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), [[5, -12.5, -3.75], [1, 2, 1.5]])
    assert image.norm.vmin == -image.norm.vmax == -12.5


def draw_accuracy(accuracy, **changes):
    settings = {
        "models": {"m": "M"},
        "methods": {"ft": "FT"},
        "targets": TARGETS,
        "datasets": DATASETS,
    }
    return accuracy_matrix.draw(accuracy, **{**settings, "source_groups": {}, **changes})


def test_accuracy_matrix_outlines_the_target_and_marks_shared_sources(accuracy):
    figure, _ = draw_accuracy(accuracy, source_groups={"b": "g", "c": "g"})
    assert texts(figure) == ["10", "20", "30", "17", "27", "37", "24", "34", "44‡"]
    outlined = [(patch.get_x() + 0.47, patch.get_y() + 0.47) for patch in figure.axes[0].patches]
    assert outlined == [(0, 1), (1, 2)]


def test_examples_show_the_objects_that_most_sets_have_and_which_answers_are_right():
    # Those of c are not in the order of its index, as files of the parts of a dataset.
    rows = pd.DataFrame(
        [("a", 0, 0, 0), ("b", 0, 1, 2), ("a", 1, 1, 0), ("c", 1, 0, 1), ("c", 0, 1, 0)],
        columns=["dataset", "row", "prediction", "rank"],
    )
    space = LabelSpace(("k0", "k1"), ((3,), (7,)), ("ant", "bee"))
    other = LabelSpace(
        ("k2", "k3"), ((1, 9), (3, 8)), ("wasp", "emmet")
    )  # of which the second is the first's ant
    images = np.zeros((2, 4, 4, 3), np.uint8)
    index = pa.table({"image_id": ["x", "y"]})
    prepared = [
        PreparedDataset(name, images, np.array([0, 1]), None, index, space) for name in "ab"
    ]
    index = pa.table({"image_id": ["x", "z"]})
    prepared.append(PreparedDataset("c", images, np.array([1, 1]), None, index, other))
    figure, shown = examples.draw([rows], prepared, datasets=DATASETS, model_label="M", objects=5)
    assert [axes.get_xlabel() for axes in figure.axes] == ["✓ ant", "✗ bee", "✓ emmet"]
    assert figure.axes[0].get_ylabel() == "ant" and shown["image_id"].tolist() == ["x"] * 3


def test_protocol_states_the_runs_numbers(accuracy, ri, mri):
    figure, shown = protocol.draw(accuracy, ri, mri, **PROTOCOL)
    written = " ".join(texts(figure))
    assert "-12.5 points" in written and "-3.8 points" in written and "(50 images)" in written
    assert list(shown["change"]) == [14, 14, 14] and "Set B (target)" in written


@pytest.mark.parametrize("size, images", [("all", 301), ("0.5", 150), ("1", 1)])
def test_protocol_states_how_many_images_were_trained_on(accuracy, ri, mri, size, images):
    """Under held_out those are other images than the 50 that are tested."""
    splits = pd.DataFrame(
        {"dataset": ["a", "b"], "train": [7, 301], "select": [2, 100], "test": [50, 50]}
    )
    figure, _ = protocol.draw(accuracy, ri, mri, splits, **protocol_settings(size=size))
    assert f"({images} image{'s' if images > 1 else ''})" in " ".join(texts(figure))


def test_protocol_shows_which_datasets_do_not_count_in_ri(accuracy, ri, mri):
    figure, _ = protocol.draw(
        accuracy, ri, mri, **protocol_settings(left_out={"c": "in distribution"})
    )
    colours = {}
    for text in figure.axes[0].texts:
        colours.setdefault(text.get_position()[1], set()).add(text.get_color())
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    (faint,) = colours[heights["Set C (in distribution)"]]
    assert colours[heights["Set B (target)"]] == {faint} and faint not in colours[heights["Set A"]]


def test_one_target_is_no_plural(accuracy, ri, mri):
    one = {"a": "Set A"}
    figure, _ = protocol.draw(accuracy, ri, mri, **protocol_settings("a", targets=one))
    bars, _ = before_after.draw(OOD, **{**BEFORE_AFTER, "targets": 1, "datasets": 2})
    said = " ".join(texts(figure)) + bars.axes[0].get_xlabel()
    assert "targets" not in said and "1 datasets" not in said and said.count("1 target") == 2


def test_gains_and_losses_have_one_pair_of_colours(accuracy, ri, mri):
    figure, _ = protocol.draw(accuracy, ri, mri, **protocol_settings("a"))
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colours["+7.0"] == GAIN
    figure, _ = protocol.draw(accuracy.assign(accuracy=-accuracy["accuracy"]), ri, mri, **PROTOCOL)
    assert {text.get_text(): text.get_color() for text in figure.axes[0].texts}["-14.0"] == LOSS
    figure, _ = protocol.draw(accuracy.assign(accuracy=50.0), ri, mri, **PROTOCOL)
    unchanged = {text.get_color() for text in figure.axes[0].texts if text.get_text() == "+0.0"}
    assert unchanged and not unchanged & {GAIN, LOSS}
    assert (flips.TO_RIGHT["color"], flips.TO_WRONG["color"]) == (GAIN, LOSS)
    figure, _ = ri_matrix.draw(ri, mri, **RI_MATRIX)
    (image,) = figure.axes[0].images
    high, low = (np.array(image.cmap(end)[:3]) for end in (0.9, 0.1))
    gain, loss = (np.array(to_rgb(colour)) for colour in (GAIN, LOSS))
    assert (
        np.abs(high - gain).sum() < np.abs(high - loss).sum()
        and np.abs(low - loss).sum() < np.abs(low - gain).sum()
    )


DIVERGING = {
    *("PiYG", "PRGn", "BrBG", "PuOr", "RdGy", "RdBu", "RdYlBu"),
    *("RdYlGn", "Spectral", "coolwarm", "bwr", "seismic"),
}


def test_no_figure_has_colours_of_its_own_for_gains_and_losses():
    modules = [*LIBRARY.glob("figures/*.py"), *LIBRARY.glob("analyses/*/*.py")]
    for path in modules:
        if path.name != "__init__.py":
            tree = ast.parse(path.read_text())
            texts = {
                str(node.value).removesuffix("_r")
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
            }
            assert not texts & (DIVERGING | {GAIN, LOSS}), path.name
            names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            assert not stored & {"GAIN", "LOSS", "GAINED", "LOST"}, path.name


def test_text_is_dark_on_light_and_light_on_dark(accuracy):
    figure, _ = draw_accuracy(accuracy)
    image = figure.axes[0].images[0]
    assert text_colour(image, 0) == "black" and text_colour(image, 100) == "white"


def written(folder, name, inputs, settings, size, sizes):
    """Paths of a figure's files by ending."""
    folder.mkdir(exist_ok=True)
    files = {key: folder / f"{key}.csv" for key in inputs}
    for key, path in files.items():
        inputs[key].to_csv(path, index=False)
    paths = {ending: folder / f"{name}.{ending}" for ending in ("png", "pdf", "csv")}
    figure_settings = FigureSettings(
        drawing_module=drawing_module(name), draw_settings=settings, size=size, sizes=sizes
    )
    write_figure(
        {key: str(path) for key, path in files.items()},
        figure_settings,
        FigureFiles(**paths),
    )
    return paths


def test_the_same_table_gives_the_same_files(tmp_path):
    made = [
        written(tmp_path / name, "before_after", {"ood": OOD}, BEFORE_AFTER, "all", ["all"])
        for name in "ab"
    ]
    first, second = ([path.read_bytes() for path in paths.values()] for paths in made)
    assert first == second


@pytest.mark.parametrize("size", ["all", "10"])  # also where every size is a number
def test_runs_of_another_size_are_not_shown(tmp_path, size):
    ood = pd.concat([OOD.assign(size=size), OOD.assign(size="0.5", accuracy=99.0)])
    paths = written(tmp_path, "before_after", {"ood": ood}, BEFORE_AFTER, size, [size, "0.5"])
    shown = pd.read_csv(paths["csv"], dtype={"size": str})
    assert set(shown["size"]) == {size} and set(shown["model"]) == set(OOD["model"])


def drawn(monkeypatch, tmp_path, name, inputs, settings, size, sizes):
    """A figure as it is written, all its texts as one, and its CSV."""
    kept = []
    monkeypatch.setattr("rib.figures.plt.close", kept.append)
    paths = written(tmp_path, name, inputs, settings, size, sizes)
    (figure,) = kept
    return (
        figure,
        "\n".join(text.get_text() for text in figure.findobj(Text)),
        pd.read_csv(paths["csv"]),
    )


@pytest.mark.parametrize("size, sizes", [("all", ["0.5", "all", "10"]), ("0.5", ["0.5"])])
def test_a_figure_says_which_size_it_shows_where_that_is_a_choice(
    accuracy, ri, mri, monkeypatch, tmp_path, size, sizes
):
    ood = pd.concat([OOD.assign(size=name) for name in sizes])
    _, said, shown = drawn(
        monkeypatch, tmp_path, "before_after", {"ood": ood}, BEFORE_AFTER, size, sizes
    )
    assert f"train_subset {size}" in said and set(shown["size"].astype(str)) == {size}
    assert all(name in said.split("train_subset")[1] for name in sizes)
    tables = {"ri": ri, "mri": mri}
    inputs = {
        key: pd.concat([table.assign(size=s) for s in sizes]) for key, table in tables.items()
    }
    figure, said, shown = drawn(monkeypatch, tmp_path, "ri_matrix", inputs, RI_MATRIX, size, sizes)
    assert (
        f"train_subset {size}" in figure.get_supxlabel()
        and "fine-tuned on" in figure.get_supxlabel()
    )
    assert set(shown["size"].astype(str)) == {size}, "a table whose rows had lost it"


def test_a_figure_says_nothing_of_sizes_where_all_is_the_only_one(monkeypatch, tmp_path):
    inputs = {"ood": OOD.assign(size="all")}
    _, said, _ = drawn(monkeypatch, tmp_path, "before_after", inputs, BEFORE_AFTER, "all", ["all"])
    assert "size" not in said


def test_a_method_that_a_model_lacks_has_an_empty_panel(accuracy):
    figure, shown = draw_accuracy(accuracy, methods={"ft": "FT", "for_vits": "V"})
    assert [axes.axison for axes in figure.axes[:2]] == [True, False] and "for_vits" not in set(
        shown["method"]
    )


def test_flips_diverge_from_zero_with_their_intervals():
    shares = {
        "agreement": (60.0, 50.0, 72.0),
        "right_to_wrong": (5.0, 3.0, 8.0),
        "wrong_to_right": (9.0, 8.0, 12.0),
    }
    ends = ("", "_low", "_high")
    values = {
        f"{name}{end}": x
        for name, spread in shares.items()
        for end, x in zip(ends, spread, strict=True)
    }
    table = pd.DataFrame(
        [{"model": "m", "method": method, **values} for method in ("ft", "lwf", "not drawn")]
    )
    figure, shown = flips.draw(
        table, models={"m": "M"}, methods={"lwf": "LwF", "ft": "FT"}, confidence=0.9
    )
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [-5, -5, 9, 9]
    ends = [tuple(segment[:, 0]) for lines in left.collections for segment in lines.get_segments()]
    assert ends == [(-8, -3)] * 2 + [(8, 12)] * 2
    assert [tuple(segment[:, 0]) for segment in right.collections[0].get_segments()] == [
        (50, 72)
    ] * 2
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "LwF",
        "FT",
    ] and left.yaxis_inverted()
    assert texts(figure) == ["5.0", "5.0", "9.0", "9.0", "60", "60"] and set(shown["method"]) == {
        "ft",
        "lwf",
    }
    assert "90%" in figure.get_supxlabel()


def test_calibration_joins_the_errors_before_and_after_on_the_other_datasets():
    lines = [
        (
            "m",
            "ft",
            target,
            seed,
            dataset,
            20.0,
            10.0 + 4 * seed if target != dataset else 99.0,
            3.0,
            1.0 + seed,
        )
        for target, seed, dataset in itertools.product(TARGETS, (0, 1), TARGETS)
    ]
    columns = ["model", "method", "target", "seed", "dataset", "ece_before", "ece_after"]
    columns += ["ece_floor_before", "ece_floor_after"]
    figure, shown = calibration.draw(
        pd.DataFrame(lines, columns=columns),
        models={"m": "M"},
        methods={"ft": "FT", "vit": "V"},
        datasets=DATASETS,
    )
    axes, absent = figure.axes
    assert (
        shown[["ece_before", "ece_after"]].to_numpy().tolist() == [[20, 12]] * 2
        and not absent.axison
    )
    joined, before, after, floor_before, floor_after = axes.collections
    assert [tuple(segment[:, 0]) for segment in joined.get_segments()][:2] == [(20, 12)] * 2
    assert [tuple(place) for place in before.get_offsets()[:2]] == [(20, 0), (20, 1)]
    assert [tuple(place) for place in after.get_offsets()[:2]] == [(12, 0), (12, 1)]
    assert [tuple(place) for place in floor_before.get_offsets()] == [(3, 0), (3, 1)]
    assert [tuple(place) for place in floor_after.get_offsets()] == [(1.5, 0), (1.5, 1)]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert (
        named[2:] == ["floor before", "floor after"]
        and "perfectly calibrated" in figure.get_supxlabel()
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == list(DATASETS.values())


def test_effective_robustness_joins_before_and_after_beside_the_baselines():
    baselines = [
        {"model": f"b{i}", "dataset": "b", "in_distribution": "a", "id": x, "ood": x - 20.0}
        for i, x in enumerate((50.0, 60.0, 80.0))
    ]
    values = {"id_before": 85.0, "ood_before": 70.0, "id_after": 40.0, "ood_after": 15.0}
    values |= {"rho_before": 5.0, "rho_after": -5.0}
    lines = [
        {
            "model": "m",
            "method": method,
            "target": target,
            "dataset": "b",
            "in_distribution": "a",
            **values,
        }
        for method, target in itertools.product(("ft", "lwf"), "bc")
    ]
    figure, shown = effective_robustness.draw(
        pd.DataFrame(lines),
        baselines=baselines,
        models={"m": {"label": "M", "colour": "#0072B2", "marker": "s"}},
        methods={"ft": "FT", "lwf": "LwF"},
        datasets=DATASETS,
        confidence=0.9,
    )
    assert len(figure.axes) == 2 and set(shown["target"]) == {"c"}, (
        "what was fine-tuned on is not shown"
    )
    axes = figure.axes[0]
    _, _, dots, before, after = axes.lines
    assert list(dots.get_xdata()) == [50, 60, 80] and list(dots.get_ydata()) == [30, 40, 60]
    assert (before.get_xydata().tolist(), before.get_markerfacecolor()) == ([[85, 70]], "white")
    assert (after.get_xydata().tolist(), after.get_markerfacecolor()) == ([[40, 15]], "#0072B2")
    (arrow,) = axes.texts
    assert (arrow.xyann, arrow.xy) == ((85, 70), (40, 15))
    assert [panel.get_title() for panel in figure.axes] == ["Set B, FT", "Set B, LwF"]
    assert (
        figure.axes[1].get_xlabel() == "Set A (%)"
        and "90%" in figure.legends[0].get_texts()[-1].get_text()
    )
    assert axes.get_xlim()[0] < 40 and axes.get_xlim()[1] > 85 and axes.get_ylim()[0] < 15


MATHTEXT = {
    "unfinished": r"$\frac{",
    "formula": r"$x^2$",
    "one dollar": "5 $",
    "two dollars": "$ or $$",
    "escaped": r"\$5",
}


@pytest.mark.attack("text")
@pytest.mark.parametrize("text", MATHTEXT.values(), ids=MATHTEXT)
def test_dollars_in_labels_of_figures_are_text(tmp_path, text):
    settings = {**BEFORE_AFTER, "method_label": text, "models": {"m2": text, "m1": text}}
    paths = written(tmp_path, "before_after", {"ood": OOD}, settings, "all", ["all"])
    assert all(path.stat().st_size for path in paths.values())
    with plt.style.context(STYLE):
        drawn, axes = plt.subplots()
        axes.plot([0, 1], label=text)
        axes.set_xticks([0], [text])
        for name in (
            axes.set_title(text),
            axes.text(0, 0, text),
            axes.annotate(text, (0, 0)),
            drawn.suptitle(text),
        ):
            assert name.get_text() == text
        axes.legend()
        drawn.canvas.draw()
        assert not any(part.get_parse_math() for part in drawn.findobj(Text))


def test_logarithmic_axes_are_without_mathtext():
    keys = pd.DataFrame({"model": "m", "method": ["a", "b"], "size": "all"})
    costs, means = (
        keys.assign(device="cpu", seconds=[1.0, 4000.0]),
        keys.assign(mri=1.0, ci_low=0.5, ci_high=1.5),
    )
    with plt.style.context(STYLE):
        made, _ = cost.draw(
            costs, means, models={"m": "M"}, methods={"a": "A", "b": "B"}, confidence=0.95
        )
        made.canvas.draw()
    texts = [part.get_text() for part in made.findobj(Text)]
    assert "10" in texts and not any("$" in text for text in texts)
