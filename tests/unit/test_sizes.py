"""Tables by number of images against hand-made ones, and their figures against frozen tables."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from rib.analyses.sizes import pretraining_sizes, train_subsets
from rib.analyses.sizes.settings import SizeSettings
from rib.analyses.sizes.tables import GridTables, size_tables
from rib.config.figure_settings import FigureSettings
from rib.figures import FigureFiles, write_figure
from tiny.analyses import drawing_module
from tiny.tables import write

METHODS = {
    "ft": {"label": "FT", "colour": "#d55e00", "marker": "o"},
    "lwf": {"label": "LwF", "colour": "#009e73", "marker": "^"},
}
SIZES = {"all": (80, 40), "0.5": (40, 20), "10": (10, 10)}  # images of target a and of target b
PRETRAINED_ON = {"m5": 5, "m50": 50}
LABELS = {"m5": "Five", "m50": "Fifty", "published": "Published"}


@pytest.fixture
def files(tmp_path):
    """Tables of two models that were pretrained here and a published one, by name.

    The facts of trainings are beside them.
    """
    runs = [
        (m, f, t, s)
        for m in ("m50", "m5", "published")
        for f in METHODS
        for t in "ab"
        for s in SIZES
    ]
    ri = pd.DataFrame(
        [
            (*run, 0, 100, float(place), place - 1.5, place + 2.5, "paper")
            for place, run in enumerate(runs)
        ],
        columns=[
            "model",
            "method",
            "target",
            "size",
            "seed",
            "n",
            "ri",
            "ci_low",
            "ci_high",
            "conditions",
        ],
    )
    cells = sorted({(model, method, size) for model, method, _, size in runs})
    mri = pd.DataFrame(
        [
            (*cell, place - 20.0, place - 21.0, place - 18.0, 50.0, 30.0 + place, "paper")
            for place, cell in enumerate(cells)
        ],
        columns=[
            "model",
            "method",
            "size",
            "mri",
            "ci_low",
            "ci_high",
            "ood_before",
            "ood_after",
            "conditions",
        ],
    )
    ood = pd.DataFrame(
        [
            (*cell, when, value, value - 2.0, value + 1.0, "paper")
            for place, cell in enumerate(cells)
            for when, value in (("before", 50.0), ("after", 30.0 + place))
        ],
        columns=["model", "method", "size", "when", "accuracy", "ci_low", "ci_high", "conditions"],
    )
    for name, table in {"ri": ri, "mri": mri, "ood": ood}.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    for model, target, size in {(model, target, size) for model, _, target, size in runs}:
        write_manifest(tmp_path, model, target, size, SIZES[size]["ab".index(target)])
    for model, images in PRETRAINED_ON.items():
        facts = {
            "trained": {
                "images": images,
                "test": {"dataset": "t", "images": 9, "accuracy": 80.0 + images / 10},
            }
        }
        (tmp_path / "models" / model).mkdir(parents=True)
        (tmp_path / "models" / model / "model.json").write_text(json.dumps(facts))
    return {
        name: tmp_path / f"{name}.csv"
        for name in ("ri", "mri", "ood", "sizes", "pretraining_sizes")
    }


def write_manifest(folder, model, target, size, images):
    """Write the manifest of a fine-tuning with a number of images."""
    path = folder / f"finetune/{model}/{target}/ft/{size}/0/manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": 99, "train_images": images}))


def write_sizes(files, pretraining_images=None):
    """Write both tables.

    Args:
        files: paths of all tables, see the fixture of this name.
        pretraining_images: numbers that entries of models state.
    """
    folder = files["ri"].parent
    settings = SizeSettings(
        pretraining_images=pretraining_images or {}, conditions="protocol paper", code=""
    )
    write(
        size_tables,
        tables=GridTables(files["ri"], files["mri"], files["ood"]),
        manifests=sorted(folder.glob("finetune/**/manifest.json")),
        descriptions=sorted(folder.glob("models/*/model.json")),
        settings=settings,
        conditions=settings.conditions,
        outputs={name: files[name] for name in ("sizes", "pretraining_sizes")},
    )


def read(path):
    return pd.read_csv(path, dtype={"size": str})


def test_every_ri_has_its_numbers_of_images_and_mri_their_mean(files):
    write_sizes(files)
    table, ri = read(files["sizes"]), read(files["ri"])
    assert list(table)[:7] == [
        "model",
        "method",
        "target",
        "size",
        "seed",
        "train_images",
        "pretraining_images",
    ]
    assert len(table) == 3 * 2 * 3 * (2 + 1)
    for line in table.itertuples():
        expected = (
            np.mean(SIZES[line.size])
            if line.target == "mean"
            else SIZES[line.size]["ab".index(line.target)]
        )
        assert line.train_images == expected
        if line.model == "published":
            assert np.isnan(line.pretraining_images)
        else:
            assert line.pretraining_images == PRETRAINED_ON[line.model]
    both = table.merge(ri, on=["model", "method", "target", "size", "seed"])
    assert (
        len(both) == 36
        and (both["ri_x"] == both["ri_y"]).all()
        and (both["ci_low_x"] == both["ci_low_y"]).all()
    )
    mean = table[table["target"] == "mean"]
    assert mean["seed"].isna().all() and mean["ri"].nunique() == len(mean) == 18


def test_pretraining_sizes_has_accuracies_whose_difference_is_mri(files):
    write_sizes(files)
    table = read(files["pretraining_sizes"])
    assert list(table["pretraining_images"]) == sorted(table["pretraining_images"])
    assert set(table["model"]) == {"m5", "m50"} and len(table) == 2 * 2 * 3
    np.testing.assert_allclose(table["after"] - table["before"], table["mri"])
    assert (table["before_low"] == 48).all() and (table["after_high"] == table["after"] + 1).all()
    assert dict(zip(table["model"], table["held_out"], strict=True)) == {"m5": 80.5, "m50": 85.0}


def test_published_models_have_the_number_that_they_state(files):
    write_sizes(files, pretraining_images={"published": 20})
    table, sizes = read(files["pretraining_sizes"]), read(files["sizes"])
    assert (
        list(dict.fromkeys(table["model"])) == ["m5", "published", "m50"]
        and len(table) == 3 * 2 * 3
    )
    published = table[table["model"] == "published"]
    assert set(published["pretraining_images"]) == {20} and published["held_out"].isna().all()
    assert set(sizes[sizes["model"] == "published"]["pretraining_images"]) == {20}


def test_the_same_input_gives_the_same_bytes(files):
    written = []
    for _ in range(2):
        write_sizes(files)
        written.append([files[name].read_bytes() for name in ("sizes", "pretraining_sizes")])
    assert written[0] == written[1]


def test_sizes_that_look_like_numbers_are_kept_as_they_are_written(files):
    for name in ("ri", "mri", "ood"):
        table = read(files[name])
        table[table["size"] == "10"].assign(size="010").to_csv(files[name], index=False)
    for folder in files["ri"].parent.glob("finetune/*/*/ft/10"):
        folder.rename(folder.with_name("010"))
    write_sizes(files)
    for name, lines in (("sizes", 18), ("pretraining_sizes", 4)):
        table = read(files[name])
        assert len(table) == lines and set(table["size"]) == {"010"}
        assert set(table["conditions"]) == {"protocol paper"} and list(table)[-1] == "conditions"


def spans(axes):
    """Both ends of every vertical interval that was drawn."""
    lines = [lines for container in axes.containers for lines in container[2]]
    return [tuple(np.round(segment[:, 1], 6)) for part in lines for segment in part.get_segments()]


def test_train_subsets_has_a_panel_per_model_and_the_tables_intervals(files):
    write_sizes(files)
    table = read(files["sizes"])
    figure, shown = train_subsets.draw(table, models=LABELS, methods=METHODS, confidence=0.95)
    assert [axes.get_title() for axes in figure.axes] == list(LABELS.values())
    assert set(shown["target"]) == {"mean"} and len(shown) == 18
    for axes, model in zip(figure.axes, LABELS, strict=True):
        assert axes.get_xscale() == "log" and [t.get_text() for t in axes.get_xticklabels()] == [
            "10",
            "30",
            "60",
        ]
        own = shown[shown["model"] == model]
        expected = {(line.ci_low, line.ci_high) for line in own.itertuples()}
        assert set(spans(axes)) == expected and len(spans(axes)) == 6
        for method, look in METHODS.items():
            drawn = [line for line in axes.lines if to_hex(line.get_color()) == look["colour"]]
            (own_line,) = (line for line in drawn if line.get_linestyle() == "-")
            rows = own[own["method"] == method].sort_values("train_images")
            assert list(own_line.get_ydata()) == list(rows["ri"])
            np.testing.assert_allclose(own_line.get_xdata(), rows["train_images"], rtol=0.05)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["FT", "LwF"]
    assert figure.get_supylabel() == "mRI (percentage points)" and "95%" in figure.get_supxlabel()


def test_pretraining_sizes_draws_before_after_and_mri(files):
    write_sizes(files)
    table = read(files["pretraining_sizes"])
    how = {"models": LABELS, "series": dict.fromkeys(PRETRAINED_ON, "Net on digits")}
    whole = table[table["size"] == "all"]
    figure, shown = pretraining_sizes.draw(whole, **how, methods=METHODS, confidence=0.9)
    top, bottom = figure.axes
    assert len(shown) == 4
    expected = {(48.0, 51.0)} | {(line.after_low, line.after_high) for line in whole.itertuples()}
    assert set(spans(top)) == expected
    assert set(spans(bottom)) == {(line.ci_low, line.ci_high) for line in whole.itertuples()}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "before (pretrained)",
        "FT",
        "LwF",
    ]
    assert [text.get_text() for text in bottom.get_xticklabels()] == ["5", "50"]
    assert (
        top.get_ylabel() == "Mean OOD accuracy (%)"
        and bottom.get_ylabel() == "mRI (percentage points)"
    )
    assert "90%" in figure.get_supxlabel()


def published_models(numbers):
    """Rows of published models m0, m1, ... with FT.

    They are in the order of `numbers` of pretraining images.
    """
    table = pd.DataFrame(
        {
            "model": [f"m{i}" for i in range(len(numbers))],
            "pretraining_images": numbers,
            "method": "ft",
        }
    )
    table["before"], table["after"], table["mri"] = (
        30.0 + table.index,
        40.0 + 2 * table.index,
        10.0 + table.index,
    )
    for name, value in (("before", "before"), ("after", "after"), ("ci", "mri")):
        table[f"{name}_low"], table[f"{name}_high"] = table[value] - 1, table[value] + 2
    return table


def drawn_sizes(table, **more):
    labels = {model: model.upper() for model in table["model"]}
    figure, _ = pretraining_sizes.draw(
        table, models=labels, methods={"ft": METHODS["ft"]}, confidence=0.95, **more
    )
    figure.canvas.draw()
    return figure.axes


def test_published_models_are_labelled_points_and_only_a_series_has_a_line():
    table = published_models([10**3, 10**4, 10**6, 10**9])
    top, bottom = drawn_sizes(table, series={"m0": "net", "m2": "net"})
    lines = [
        line
        for line in top.lines
        if line.get_color() != "#bdbdbd" and line.get_linestyle() != "None"
    ]
    assert sorted(len(line.get_xdata()) for line in lines) == [1, 1, 1, 1, 2, 2]
    joined = [list(line.get_ydata()) for line in lines if len(line.get_xdata()) == 2]
    assert joined == [[30, 32], [40, 44]]
    assert set(spans(top)) == {
        (value - 1, value + 2) for value in [*table["before"], *table["after"]]
    }
    assert set(spans(bottom)) == {(value - 1, value + 2) for value in table["mri"]}
    assert [text.get_text() for text in bottom.get_xticklabels()] == ["M0", "M1", "M2", "M3"]


def test_models_of_one_number_stand_side_by_side_below_it():
    top, bottom = drawn_sizes(
        published_models([1281167, 1281167, 1281167, 11797632, 2320000000]), series={}
    )
    (above,) = top.child_axes
    assert [text.get_text() for text in above.get_xticklabels()] == ["1.281", "11.8", "2,320"]
    places = np.log2(bottom.get_xticks())
    assert np.diff(places) == pytest.approx(np.ones(4))
    assert np.log2(above.get_xticks()) == pytest.approx([places[:3].mean(), places[3], places[4]])
    between = sorted(
        np.log2(line.get_xdata()[0]) for line in bottom.lines if line.get_linestyle() == ":"
    )
    assert between == pytest.approx([places[2] + 0.5, places[3] + 0.5])


def test_only_figures_of_every_size_are_given_all_of_them(files, tmp_path):
    write_sizes(files)
    made = {ending: tmp_path / f"x.{ending}" for ending in ("png", "pdf", "csv")}
    settings = {"models": LABELS, "methods": METHODS, "confidence": 0.95}
    for figure, table, more, shown in (
        ("train_subsets", "sizes", {}, set(SIZES)),
        (
            "pretraining_sizes",
            "pretraining_sizes",
            {"series": dict.fromkeys(PRETRAINED_ON, "Net")},
            {"all"},
        ),
    ):
        inputs = {table: str(tmp_path / f"{table}.csv")}
        figure_settings = FigureSettings(
            drawing_module=drawing_module(figure),
            draw_settings={**settings, **more},
            size="all",
            sizes=["all", "0.5", "10"],
        )
        write_figure(inputs, figure_settings, FigureFiles(**made))
        assert set(read(made["csv"])["size"]) == shown
