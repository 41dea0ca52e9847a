"""Tables by number of images against hand-made ones, and their figures against frozen tables."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from rib.analyses.pretraining_sizes import figure as pretraining_sizes
from rib.analyses.pretraining_sizes import tables as pretraining_sizes_tables
from rib.analyses.train_subsets import figure as train_subsets
from rib.analyses.train_subsets import tables as train_subsets_tables
from rib.figures import write_figure
from rib.grid.figure_settings import FigureSettings
from rib.statistics.inputs import Inputs
from rib.statistics.writing import write_tables

METHODS = {
    "ft": {"label": "FT", "colour": "#d55e00", "marker": "o"},
    "lwf": {"label": "LwF", "colour": "#009e73", "marker": "^"},
}
TARGETS = ("a", "b")
# By size, the images of each target that are trained on, and their mean.
TRAIN_IMAGES = {
    "all": {"a": 80, "b": 40, "mean": 60},
    "0.5": {"a": 40, "b": 20, "mean": 30},
    "10": {"a": 10, "b": 10, "mean": 10},
}
PRETRAINED_ON = {"m5": 5, "m50": 50}
LABELS = {"m5": "Five", "m50": "Fifty", "published": "Published"}
MODELS = ("m50", "m5", "published")
CELL = ["model", "method", "size"]
RUN = ["model", "method", "target", "size", "seed"]
GREY = "#bdbdbd"


def ri_table():
    """RI of each run, each another number, with an interval of its own."""
    runs = itertools.product(MODELS, METHODS, TARGETS, TRAIN_IMAGES)
    table = pd.DataFrame(runs, columns=["model", "method", "target", "size"])
    ri = table.index.astype(float)
    return table.assign(seed=0, n=100, ri=ri, ci_low=ri - 1.5, ci_high=ri + 2.5, conditions="paper")


def cells():
    """Each model, method and size, with its accuracy after fine-tuning; before, it is 50."""
    table = pd.DataFrame(itertools.product(MODELS, METHODS, TRAIN_IMAGES), columns=CELL)
    table = table.sort_values(CELL, ignore_index=True)
    return table.assign(ood_after=30.0 + table.index)


def mri_table():
    """mRI of each cell: the difference of its accuracies."""
    table = cells()
    mri = table["ood_after"] - 50.0
    return table.assign(
        mri=mri, ci_low=mri - 1.0, ci_high=mri + 2.0, ood_before=50.0, conditions="paper"
    )


def ood_table():
    """Accuracies of each cell before and after fine-tuning, a row each, with intervals."""
    table = cells()
    before = table.assign(when="before", accuracy=50.0)
    after = table.assign(when="after", accuracy=table["ood_after"])
    both = pd.concat([before, after]).drop(columns="ood_after")
    return both.assign(
        ci_low=both["accuracy"] - 2.0, ci_high=both["accuracy"] + 1.0, conditions="paper"
    )


@dataclass(frozen=True)
class SizeFiles:
    """A folder with tables of a grid, and files of its runs and models; its tables of sizes.

    Two models were pretrained here, and one was published.
    """

    folder: Path

    def table(self, name):
        """The file of a table."""
        return self.folder / f"{name}.csv"

    def read(self, name):
        """A table of this folder."""
        return read(self.table(name))

    def write_sizes(self, pretraining_images=None):
        """Write both tables of sizes.

        Args:
            pretraining_images: numbers that entries of models state.
        """
        files = {name: str(self.table(name)) for name in ("ri", "mri", "ood")}
        manifests = sorted(self.folder.glob("finetune/**/manifest.json"))
        descriptions = sorted(self.folder.glob("models/*/model.json"))
        inputs = Inputs(
            {**files, "manifests": manifests, "descriptions": descriptions},
            {"stated_images": pretraining_images or {}},
        )
        for analysis in (train_subsets_tables, pretraining_sizes_tables):
            tables = analysis.tables(inputs)
            outputs = {name: self.table(name) for name in tables}
            write_tables(tables, outputs, conditions="protocol paper")


@pytest.fixture
def files(tmp_path):
    """Files of a grid, without its tables of sizes."""
    files = SizeFiles(tmp_path)
    ri_table().to_csv(files.table("ri"), index=False)
    mri_table().to_csv(files.table("mri"), index=False)
    ood_table().to_csv(files.table("ood"), index=False)
    for model, target, size in itertools.product(MODELS, TARGETS, TRAIN_IMAGES):
        write_manifest(tmp_path, model, target, size, TRAIN_IMAGES[size][target])
    for model, images in PRETRAINED_ON.items():
        write_description(tmp_path, model, images)
    return files


def write_manifest(folder, model, target, size, images):
    """Write the manifest of a fine-tuning with a number of images."""
    path = folder / f"finetune/{model}/{target}/ft/{size}/0/manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": 99, "train_images": images}))


def write_description(folder, model, images):
    """Write the description of a model that was pretrained on a number of images."""
    path = folder / f"models/{model}/model.json"
    path.parent.mkdir(parents=True)
    test = {"dataset": "t", "images": 9, "accuracy": 80.0 + images / 10}
    path.write_text(json.dumps({"trained": {"images": images, "test": test}}))


def read(path):
    """A table with sizes as they were written."""
    return pd.read_csv(path, dtype={"size": str})


def test_every_ri_has_its_numbers_of_images(files):
    # when
    files.write_sizes()
    # then
    table = files.read("sizes")
    rows_of_a_size = len(MODELS) * len(METHODS) * (len(TARGETS) + len(["mean"]))
    assert len(table) == rows_of_a_size * len(TRAIN_IMAGES)
    for row in table.itertuples():
        assert row.train_images == TRAIN_IMAGES[row.size][row.target]
        expected = PRETRAINED_ON.get(row.model, np.nan)
        np.testing.assert_equal(row.pretraining_images, expected)


def test_every_ri_has_its_numbers_of_images_and_mri_their_mean(files):
    # when
    files.write_sizes()
    # then
    table = files.read("sizes")
    both = table.merge(files.read("ri"), on=RUN, suffixes=("", "_of_ri"))
    assert len(both) == 36
    assert (both["ri"] == both["ri_of_ri"]).all()
    assert (both["ci_low"] == both["ci_low_of_ri"]).all()
    means = table[table["target"] == "mean"]
    both = means.merge(files.read("mri"), on=CELL, suffixes=("", "_of_mri"))
    assert len(means) == len(both) == 18
    assert means["seed"].isna().all()
    assert (both["ri"] == both["mri"]).all()
    assert (both["ci_high"] == both["ci_high_of_mri"]).all()


def test_pretraining_sizes_has_accuracies_whose_difference_is_mri(files):
    # when
    files.write_sizes()
    # then
    table = files.read("pretraining_sizes")
    assert table["pretraining_images"].is_monotonic_increasing
    assert set(table["model"]) == {"m5", "m50"}
    assert len(table) == 2 * len(METHODS) * len(TRAIN_IMAGES)
    np.testing.assert_allclose(table["after"] - table["before"], table["mri"])
    assert (table["before_low"] == 48).all()
    assert (table["after_high"] == table["after"] + 1).all()


def test_published_models_have_the_number_that_they_state(files):
    # when
    files.write_sizes(pretraining_images={"published": 20})
    # then
    table = files.read("pretraining_sizes")
    sizes = files.read("sizes")
    assert list(table["model"].unique()) == ["m5", "published", "m50"]
    assert len(table) == len(MODELS) * len(METHODS) * len(TRAIN_IMAGES)
    published = table[table["model"] == "published"]
    assert set(published["pretraining_images"]) == {20}
    sizes_of_published = sizes[sizes["model"] == "published"]
    assert set(sizes_of_published["pretraining_images"]) == {20}


def test_sizes_that_look_like_numbers_are_kept_as_they_are_written(files):
    # given: the size 10 alone, which is written 010
    for name in ("ri", "mri", "ood"):
        table = files.read(name)
        of_size_10 = table[table["size"] == "10"].assign(size="010")
        of_size_10.to_csv(files.table(name), index=False)
    for folder in files.folder.glob("finetune/*/*/ft/10"):
        folder.rename(folder.with_name("010"))
    # when
    files.write_sizes()
    # then
    for name, number_of_rows in (("sizes", 18), ("pretraining_sizes", 4)):
        table = files.read(name)
        assert len(table) == number_of_rows
        assert set(table["size"]) == {"010"}
        assert set(table["conditions"]) == {"protocol paper"}
        *_, last_column = table
        assert last_column == "conditions"


# Figures.


def spans(axes):
    """Lower and upper end of every vertical interval that was drawn."""
    spans_of_axes = []
    for container in axes.containers:
        _, _, lines_of_intervals = container
        for lines in lines_of_intervals:
            for segment in lines.get_segments():
                low, high = np.round(segment[:, 1], 6)
                spans_of_axes.append((low, high))
    return spans_of_axes


def labels_of(texts):
    """What some labels of a figure say."""
    return [text.get_text() for text in texts]


def intervals(table, name):
    """Lower and upper end of the interval of each row, of columns such as `ci_low`."""
    return set(zip(table[f"{name}_low"], table[f"{name}_high"], strict=True))


def test_train_subsets_has_a_panel_per_model_and_the_tables_intervals(files):
    # given
    files.write_sizes()
    table = files.read("sizes")
    # when
    figure, shown = train_subsets.draw_train_subsets(
        table, models=LABELS, methods=METHODS, confidence=0.95
    )
    # then
    assert [axes.get_title() for axes in figure.axes] == list(LABELS.values())
    assert set(shown["target"]) == {"mean"}
    assert len(shown) == 18
    for axes, model in zip(figure.axes, LABELS, strict=True):
        shown_of_model = shown[shown["model"] == model]
        assert axes.get_xscale() == "log"
        assert labels_of(axes.get_xticklabels()) == ["10", "30", "60"]
        assert len(spans(axes)) == 6
        assert set(spans(axes)) == intervals(shown_of_model, "ci")


def test_train_subsets_joins_the_sizes_of_a_method_by_a_line_of_its_colour(files):
    # given
    files.write_sizes()
    table = files.read("sizes")
    # when
    figure, shown = train_subsets.draw_train_subsets(
        table, models=LABELS, methods=METHODS, confidence=0.95
    )
    # then
    models_and_methods = itertools.product(zip(figure.axes, LABELS, strict=True), METHODS)
    for (axes, model), method in models_and_methods:
        is_shown = (shown["model"] == model) & (shown["method"] == method)
        rows = shown[is_shown].sort_values("train_images")
        (line,) = (
            line
            for line in axes.lines
            if line.get_linestyle() == "-" and to_hex(line.get_color()) == METHODS[method]["colour"]
        )
        assert len(rows) == 3
        assert list(line.get_ydata()) == list(rows["ri"])
        np.testing.assert_allclose(line.get_xdata(), rows["train_images"], rtol=0.05)


def test_pretraining_sizes_draws_before_after_and_mri(files):
    # given
    files.write_sizes()
    table = files.read("pretraining_sizes")
    of_all_images = table[table["size"] == "all"]
    series = dict.fromkeys(PRETRAINED_ON, "Net on digits")
    # when
    figure, shown = pretraining_sizes.draw_pretraining_sizes(
        of_all_images, models=LABELS, series=series, methods=METHODS, confidence=0.9
    )
    # then
    top, bottom = figure.axes
    before = (48.0, 51.0)
    assert len(shown) == 4
    assert set(spans(top)) == {before} | intervals(of_all_images, "after")
    assert set(spans(bottom)) == intervals(of_all_images, "ci")
    assert labels_of(bottom.get_xticklabels()) == ["5", "50"]


def published_models(numbers):
    """Rows of published models m0, m1, ... with FT.

    They are in the order of `numbers` of pretraining images.
    """
    names = [f"m{i}" for i in range(len(numbers))]
    table = pd.DataFrame({"model": names, "pretraining_images": numbers, "method": "ft"})
    before = 30.0 + table.index
    after = 40.0 + 2 * table.index
    mri = 10.0 + table.index
    return table.assign(
        before=before,
        before_low=before - 1,
        before_high=before + 2,
        after=after,
        after_low=after - 1,
        after_high=after + 2,
        mri=mri,
        ci_low=mri - 1,
        ci_high=mri + 2,
    )


def drawn_sizes(table, series):
    """The axes of accuracies, and of mRI below, of a figure of models with FT.

    Args:
        series: the series of some models, by name.
    """
    figure, _ = pretraining_sizes.draw_pretraining_sizes(
        table,
        models={model: model.upper() for model in table["model"]},
        methods={"ft": METHODS["ft"]},
        confidence=0.95,
        series=series,
    )
    figure.canvas.draw()
    top, bottom = figure.axes
    return top, bottom


def test_published_models_are_labelled_points_and_only_a_series_has_a_line():
    # given
    table = published_models([10**3, 10**4, 10**6, 10**9])
    # when
    top, bottom = drawn_sizes(table, series={"m0": "net", "m2": "net"})
    # then
    heights_of_lines = [
        list(line.get_ydata())
        for line in top.lines
        if line.get_color() != GREY and line.get_linestyle() != "None"
    ]
    joined = [heights for heights in heights_of_lines if len(heights) == 2]
    single = [heights for heights in heights_of_lines if len(heights) == 1]
    assert len(heights_of_lines) == 6
    assert joined == [[30, 32], [40, 44]]
    assert len(single) == 4
    assert set(spans(top)) == intervals(table, "before") | intervals(table, "after")
    assert set(spans(bottom)) == intervals(table, "ci")
    assert labels_of(bottom.get_xticklabels()) == ["M0", "M1", "M2", "M3"]


def sizes_in_figure(files, name, table, every_size=False, **params):
    """The sizes that a figure shows which is written as by its job.

    Args:
        name: of the figure.
        table: that it reads.
        every_size: whether it compares training subsets.
        params: further arguments of the function that draws it.
    """
    figure_settings = FigureSettings(
        module=f"rib.analyses.{name}.figure",
        params={"models": LABELS, "methods": METHODS, "confidence": 0.95, **params},
        every_size=every_size,
        without_underfitted=False,
        marks_runs=False,
        size="all",
        sizes=["all", "0.5", "10"],
    )
    paths = {ending: files.folder / f"figure.{ending}" for ending in ("png", "pdf", "csv")}
    inputs = {table: str(files.table(table))}
    write_figure(name, inputs, figure_settings, paths)
    return set(read(paths["csv"])["size"])


def test_only_figures_of_every_size_are_given_all_of_them(files):
    # given
    files.write_sizes()
    series = dict.fromkeys(PRETRAINED_ON, "Net")
    # when
    sizes_of_train_subsets = sizes_in_figure(files, "train_subsets", "sizes", every_size=True)
    sizes_of_pretraining = sizes_in_figure(
        files, "pretraining_sizes", "pretraining_sizes", series=series
    )
    # then
    assert sizes_of_train_subsets == {"all", "0.5", "10"}
    assert sizes_of_pretraining == {"all"}
