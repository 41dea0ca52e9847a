"""Fit and what is underfitted: of runs, in tables, in names and in figures.

The files are made up and not those of a whole workflow.
"""

import copy
import itertools
from io import StringIO

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Text

from rib.base.errors import UserError
from rib.base.params import to_params
from rib.catalog.catalog import Catalog
from rib.figures import write_figure
from rib.grid.grid import resolve_grid
from rib.schema.config import config_of
from rib.schema.run import RUN_COLUMNS, Run
from rib.statistics.fit import fit_table, name_other_rates, name_underfitted, read_table
from rib.statistics.statistics_settings import FitRule
from rib.statistics.writing import read_fit, write_tables
from tiny.projects.project import ROOT
from tiny.tables.analyses import figure_settings

LABELS = {
    "models": {"m": "Net", "n": "Other"},
    "methods": {"ft": "full fine-tuning", "lwf": "LwF", "wise": "WiSE-FT", "soup": "soup"},
    "targets": {"a": "Set A", "b": "Set B"},
}
TWO_METHODS = {"ft": LABELS["methods"]["ft"], "lwf": LABELS["methods"]["lwf"]}
CHOICES = {"can_fit": ["ft"], "threshold": 0.95, "whole_targets": True}
MERGES = ["wise", "soup"]
ACCURACY_ON = {"a": 60.0, "b": 10.0}  # of every run
# Of runs on the whole target, and of runs on ten of its images, whose accuracy on all of them is
# not their fit.
ACCURACY = pd.DataFrame(
    [
        ("m", method, "a", size, 0, dataset, ACCURACY_ON[dataset])
        for method in LABELS["methods"]
        for size in ("all", "10")
        for dataset in ("b", "a")
    ],
    columns=[*RUN_COLUMNS, "dataset", "accuracy"],
)


def fits_of(ft, lwf=0.2, size="all"):
    """Fits, 0 to 1, of the checkpoints behind a run of each method.

    Args:
        ft: the fit of fine-tuning's checkpoint.
        lwf: the fit of LwF's checkpoint.
        size: of the target in all runs but the pretrained model's.
    """
    fits_by_method = {
        "ft": {"ft": ft},
        "lwf": {"lwf": lwf},
        "wise": {"ft": ft},
        "soup": {"lwf": lwf, "ft": ft},
    }
    fits = {Run("m", "none", "pretrained", "all", 0): {}}
    for method, fits_of_checkpoints in fits_by_method.items():
        fits[Run("m", "a", method, size, 0)] = fits_of_checkpoints
    return fits


def tabulate(fits, accuracy=ACCURACY, **choices):
    """The table of fits, by method."""
    rule = FitRule(**{**CHOICES, **choices})
    return fit_table(fits, accuracy, rule).set_index("method")


@pytest.mark.parametrize(
    ("ft", "threshold", "underfitted"),
    [(0.95, 0.95, "no"), (0.9499, 0.95, "yes"), (0.0, None, "no"), (0.99, 1, "yes")],
)
def test_a_run_and_its_merges_are_underfitted_below_the_threshold(ft, threshold, underfitted):
    """At the threshold it is reached.

    A regularised method is never underfitted, and the pretrained model has no fit.
    """
    table = tabulate(fits_of(ft), threshold=threshold)
    assert table["underfitted"].to_dict() == {
        "lwf": "no",
        "ft": underfitted,
        "wise": underfitted,
        "soup": underfitted,
    }
    assert table.loc["ft", "fit"] == pytest.approx(100 * ft)
    assert table.loc["lwf", "fit"] == 20


def test_the_fit_of_a_merge_is_its_accuracy_where_its_target_is_what_it_was_trained_on():
    # given
    fits = fits_of(1.0)
    # when
    table = tabulate(fits)
    table_of_ten_images = tabulate(fits_of(1.0, size="10"))
    table_of_parts_of_targets = tabulate(fits, whole_targets=False)
    accuracy_elsewhere = ACCURACY[ACCURACY["dataset"] != "a"]
    table_without_the_target = tabulate(fits, accuracy_elsewhere)
    # then
    assert table.loc[MERGES, "fit"].to_dict() == {"wise": 60, "soup": 60}
    for table_without_fit_of_merges in (
        table_of_ten_images,
        table_of_parts_of_targets,
        table_without_the_target,
    ):
        assert table_without_fit_of_merges.loc[MERGES, "fit"].isna().all()
        assert table_without_fit_of_merges.loc["ft", "fit"] == 100
        assert table_without_fit_of_merges.loc["lwf", "fit"] == 20


def test_a_grid_without_fine_tuned_runs_has_no_fits():
    table = tabulate({})
    assert list(table.columns) == ["model", "target", "size", "seed", "fit", "underfitted"]
    assert len(table) == 0


def test_runs_whose_rate_was_not_chosen_for_the_network_are_marked_where_there_are_any():
    # given
    fits = fits_of(1.0)
    # when
    table = tabulate(fits, other_rates={"m": ["lwf", "soup"], "n": ["ft"]})
    runs = table.reset_index()
    # then
    assert table["other_rate"].to_dict() == {"ft": "no", "lwf": "yes", "wise": "no", "soup": "yes"}
    assert name_other_rates(runs, LABELS) == ["Net, LwF", "Net, soup"]
    table_without_such_runs = tabulate(fits)
    assert "other_rate" not in table_without_such_runs
    assert name_other_rates(table_without_such_runs.reset_index(), LABELS) == []


# Tables


@pytest.fixture
def fit(tmp_path):
    """A file of fits: ft on a with seed 1 is underfitted, at 50 %.

    All others are at 100, and LwF's are unknown.
    """
    fit_of_method = {"ft": 100.0, "lwf": None}
    runs = itertools.product(("ft", "lwf"), ("a", "b"), ("all", "10"), (0, 1))
    rows = [
        ("m", method, target, size, seed, fit_of_method[method], "no")
        for method, target, size, seed in runs
    ]
    table = pd.DataFrame(rows, columns=[*RUN_COLUMNS, "fit", "underfitted"])
    is_underfitted_run = table[RUN_COLUMNS].eq(["m", "ft", "a", "all", 1]).all(axis=1)
    assert is_underfitted_run.sum() == 1
    table.loc[is_underfitted_run, "fit"] = 50.0
    table.loc[is_underfitted_run, "underfitted"] = "yes"
    table["device"] = "cpu in fp32"
    table.to_csv(tmp_path / "fit.csv", index=False)
    return tmp_path / "fit.csv"


def write_with_fit(fit, text):
    """Write a table with the fit of its runs; gives the file's lines, split at commas.

    Args:
        fit: the file of fits.
        text: the table as CSV.
    """
    table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    path = fit.with_name("table.csv")
    write_tables({"table": table}, {"table": path}, read_fit(fit))
    return split_lines(path)


def split_lines(path):
    """The lines of a file, split at commas."""
    return [line.split(",") for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ("model,method,target,size,seed", "m,ft,a,all,1", ("50.000000", "1")),
        ("model,method,target,size,seed", "m,ft,a,all,0", ("100.000000", "0")),
        ("model,method,target,size", "m,ft,a,all", ("75.000000", "1")),
        ("model,method,size", "m,ft,all", ("87.500000", "1")),
        ("model,method", "m,ft", ("93.750000", "1")),
        ("model,method,target,size,seed", "m,ft,mean,all,", ("87.500000", "1")),
        ("model,method,target,size,seed", "m,lwf,a,all,1", ("", "0")),
        ("model,method,target,size,seed", "m,pretrained,none,all,0", ("", "0")),
    ],
)
def test_a_row_has_the_fit_of_the_runs_that_it_covers(fit, columns, row, expected):
    """Its other columns stay as they were written.

    Args:
        expected: the fit, and the number of underfitted runs.
    """
    header, line = write_with_fit(fit, f"{columns},value,conditions\n{row},0.10,x; y\n")
    assert header == [*columns.split(","), "value", "conditions", "fit", "underfitted"]
    assert line == [*row.split(","), "0.10", "x; y", *expected]


def test_a_row_counts_the_runs_whose_rate_was_not_chosen_for_the_network(fit):
    # given
    runs = pd.read_csv(fit)
    is_ft = runs["method"] == "ft"
    runs.assign(other_rate=is_ft.map({True: "yes", False: "no"})).to_csv(fit, index=False)
    # when
    header, *lines = write_with_fit(
        fit, "model,method,size\nm,ft,all\nm,lwf,all\nm,pretrained,all\n"
    )
    # then
    assert header == ["model", "method", "size", "fit", "underfitted", "other_rate"]
    runs_of_ft = 4  # two targets, two seeds
    counts = {line[1]: line[-1] for line in lines}
    assert counts == {"ft": str(runs_of_ft), "lwf": "0", "pretrained": "0"}


def test_rows_keep_their_order_and_may_repeat_or_be_none(fit):
    header, *lines = write_with_fit(fit, "method,model,dataset\nlwf,m,b\nft,m,a\nlwf,m,a\nft,m,b\n")
    assert header == ["method", "model", "dataset", "fit", "underfitted"]
    assert lines == [
        ["lwf", "m", "b", "", "0"],
        ["ft", "m", "a", "93.750000", "1"],
        ["lwf", "m", "a", "", "0"],
        ["ft", "m", "b", "93.750000", "1"],
    ]
    (header_without_rows,) = write_with_fit(fit, "model,method,size\n")
    assert header_without_rows == ["model", "method", "size", "fit", "underfitted"]


def test_tables_without_runs_and_the_fits_themselves_are_left_alone(fit):
    assert write_with_fit(fit, "dataset,model\na,m\n") == [["dataset", "model"], ["a", "m"]]
    assert write_with_fit(fit, fit.read_text()) == split_lines(fit)


def test_runs_are_found_whether_their_columns_are_numbers_or_texts(fit):
    # given
    table = pd.DataFrame(
        {"model": ["m"], "method": ["ft"], "target": ["a"], "seed": [1], "value": [0.25]}
    )
    table_with_seed_as_text = table.astype({"seed": str})
    fits_as_read_by_pandas = pd.read_csv(fit, dtype={"size": str})
    path = fit.with_name("cost.csv")  # numbers of two decimals, but not those of the fit
    for costs in (table, table_with_seed_as_text):
        for fits in (fits_as_read_by_pandas, read_fit(fit)):
            # when
            write_tables({"table": costs}, {"table": path}, fits, conditions="x")
            # then
            assert path.read_text().splitlines() == [
                "model,method,target,seed,value,conditions,fit,underfitted",
                "m,ft,a,1,0.25,x,75.000000,1",
            ]
            path.unlink()


# Names and figures


def test_runs_are_named_by_model_and_method_with_size_and_seed_where_there_are_several():
    # given
    runs = pd.DataFrame(
        [("m", "ft", "a", "all", 0), ("m", "ft", "b", "all", 0), ("n", "lwf", "b", "all", 0)],
        columns=RUN_COLUMNS,
    ).assign(underfitted="yes")
    one_run = runs.head(1)
    half_of_target = one_run.assign(size="0.5")
    two_seeds = pd.concat([one_run, one_run.assign(seed=1)])
    second_seed_alone = two_seeds.assign(underfitted=["no", "yes"])
    no_runs = runs.head(0)
    # then
    assert name_underfitted(runs, LABELS) == [
        "Net, full fine-tuning on Set A, Set B",
        "Other, LwF on Set B",
    ]
    assert name_underfitted(half_of_target, LABELS) == ["Net, full fine-tuning on Set A (size 0.5)"]
    assert name_underfitted(two_seeds, LABELS) == [
        "Net, full fine-tuning on Set A (seed 0), Set A (seed 1)"
    ]
    assert name_underfitted(second_seed_alone, LABELS) == [
        "Net, full fine-tuning on Set A (seed 1)"
    ]
    assert name_underfitted(no_runs, LABELS) == []


LOOKS = {
    name: {"label": label, "colour": "#000000", "marker": "o"}
    for name, label in LABELS["methods"].items()
}


def table_of_flips():
    """The table of flips of ft and LwF on the whole target and on ten images, all shares 5 %."""
    shares = {}
    for share in ("agreement", "right_to_wrong", "wrong_to_right"):
        shares[share] = 5.0
        shares[f"{share}_low"] = 5.0
        shares[f"{share}_high"] = 5.0
    rows = [
        {"model": "m", "method": method, "size": size, **shares}
        for method in ("ft", "lwf")
        for size in ("all", "10")
    ]
    return pd.DataFrame(rows)


FLIPS = table_of_flips()
FLIPS_SETTINGS = {"models": {"m": "Net"}, "methods": TWO_METHODS, "confidence": 0.95}


def write_and_read_figure(monkeypatch, fit, name, inputs, params, **choices):
    """Write a figure; gives all texts in it, in one line each.

    Args:
        fit: the file of fits.
        name: of the figure.
        inputs: tables that it draws, by name.
        params: other arguments of the function that draws it.
        choices: further settings, such as the size of the targets whose runs it shows.
    """
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    files = {}
    for table_name, table in inputs.items():
        files[table_name] = str(fit.with_name(f"{table_name}.csv"))
        table.to_csv(files[table_name], index=False)
    settings = figure_settings(name, params, labels=LABELS, **choices)
    figure_files = {ending: fit.with_name(f"figure.{ending}") for ending in ("png", "pdf", "csv")}
    write_figure(name, files, settings, figure_files, fit)
    figure = figures[0]
    texts = [" ".join(artist.get_text().split()) for artist in figure.findobj(Text)]
    texts_shown = [text for text in texts if text]
    assert texts_shown
    return texts_shown


def contain(texts, part):
    """Whether one of the texts has this part."""
    return any(part in text for text in texts)


def test_labels_of_methods_with_an_underfitted_run_are_marked_and_the_runs_named(monkeypatch, fit):
    # given
    settings = copy.deepcopy(FLIPS_SETTINGS)
    settings_of_other_model = {**settings, "models": {"n": "Other"}}
    flips_of_other_model = FLIPS.assign(model="n")
    # when
    texts = write_and_read_figure(monkeypatch, fit, "flips", {"flips": FLIPS}, settings)
    texts_of_ten_images = write_and_read_figure(
        monkeypatch, fit, "flips", {"flips": FLIPS}, settings, size="10"
    )
    texts_of_other_model = write_and_read_figure(
        monkeypatch, fit, "flips", {"flips": flips_of_other_model}, settings_of_other_model
    )
    # then
    note = "† underfitted: Net, full fine-tuning on Set A (seed 1)"
    assert "full fine-tuning †" in texts
    assert "LwF" in texts
    assert contain(texts, note)
    assert not contain(texts_of_ten_images, "†"), "runs of that size are finished"
    assert not contain(texts_of_other_model, "†"), "runs of that model are not in the file"
    assert settings == FLIPS_SETTINGS, "settings are not changed in place"


def test_a_figure_names_kinds_of_devices_if_its_runs_have_several(monkeypatch, fit):
    # given
    runs = read_table(fit)
    runs.loc[runs["method"] == "lwf", "device"] = "cuda (compute capability 9.0) in bf16"
    of_one_kind = write_and_read_figure(monkeypatch, fit, "flips", {"flips": FLIPS}, FLIPS_SETTINGS)
    runs.to_csv(fit, index=False)
    # when
    texts = write_and_read_figure(monkeypatch, fit, "flips", {"flips": FLIPS}, FLIPS_SETTINGS)
    # then
    assert contain(texts, "capability 9.0") and contain(texts, "cpu in fp32")
    assert not contain(of_one_kind, "cpu in fp32")


def test_a_figure_of_one_method_and_target_is_marked_if_that_run_is_underfitted(monkeypatch, fit):
    # given
    runs = [("pretrained", "none", 0), ("ft", "a", 0), ("ft", "b", 0)]
    accuracy = pd.DataFrame(
        [
            ("m", method, target, seed, dataset, 50.0)
            for method, target, seed in runs
            for dataset in ("a", "b", "c")
        ],
        columns=["model", "method", "target", "seed", "dataset", "accuracy"],
    )
    settings = {
        "method": "ft",
        "method_label": "FT",
        "datasets": {**LABELS["targets"], "c": "C"},
        "models": {"m": {"label": "Net", "colour": "#000000", "marker": "o"}},
    }

    def texts_of_target(target):
        settings_of_target = {**settings, "target": target}
        return write_and_read_figure(
            monkeypatch, fit, "radar", {"accuracy": accuracy}, settings_of_target
        )

    # when
    texts_of_underfitted = texts_of_target("a")
    texts_of_finished = texts_of_target("b")
    # then
    assert contain(texts_of_underfitted, "after FT †")
    assert contain(texts_of_underfitted, "† underfitted")
    assert contain(texts_of_finished, "after FT")
    assert not contain(texts_of_finished, "†")
    assert not contain(texts_of_finished, "† underfitted")


def test_the_ranking_says_who_has_no_rank_and_why(monkeypatch, fit):
    # given
    rank_of_lwf = {
        "model": "m",
        "method": "lwf",
        "size": "all",
        "mri": 1.0,
        "ci_low": 0.0,
        "ci_high": 2.0,
        "seeds": 1,
        "reference": "pretrained",
        "difference": 1.0,
        "diff_low": 0.0,
        "diff_high": 2.0,
        "letters": "a",
        "smallest_difference": None,
        "fit": 42.9,
    }
    ranking = pd.DataFrame([rank_of_lwf])
    empty_ranking = ranking.head(0)
    params = {"models": {"m": "Net"}, "methods": LOOKS, "confidence": 0.95}

    def texts_of(table):
        return write_and_read_figure(
            monkeypatch, fit, "ranking", {"ranking": table}, params, without_underfitted=True
        )

    # when
    texts = texts_of(ranking)
    texts_without_ranks = texts_of(empty_ranking)
    # then
    reason = "not ranked, since underfitted: Net, full fine-tuning on Set A"
    assert "LwF (fit 42.9 %)" in texts
    assert contain(texts, reason)
    assert "no method is ranked" in texts_without_ranks
    assert contain(texts_without_ranks, reason)


def test_many_underfitted_runs_are_counted(monkeypatch, fit):
    # given
    runs = pd.read_csv(fit, dtype={"size": str}).assign(underfitted="yes")
    runs_of_nine_seeds = pd.concat([runs.assign(seed=seed) for seed in range(9)])
    runs_on_whole_targets = runs_of_nine_seeds[runs_of_nine_seeds["size"] == "all"]
    assert len(runs_on_whole_targets) == 72
    runs_on_whole_targets.to_csv(fit, index=False)
    # when
    texts = write_and_read_figure(monkeypatch, fit, "flips", {"flips": FLIPS}, FLIPS_SETTINGS)
    # then
    note = max(texts, key=len)
    assert note.endswith("... (72 runs)")
    assert len(note) < 320


# The catalogue


def names_of_methods_that_can_fit(methods):
    """Names of those that are held to the threshold."""
    return {name for name, method in methods.items() if method.can_fit}


def test_methods_that_train_everything_on_the_task_alone_can_fit():
    catalog = Catalog([ROOT / "workflow/catalog"])
    assert names_of_methods_that_can_fit(catalog.methods) == {
        "ft",
        "lp_ft",
        "ft_released",
        "ft_frozen_head",  # whose head is the pretrained one
    }


def test_a_family_without_a_threshold_has_a_default_so_that_runs_that_learned_nothing_are_marked(
    with_entries,
):
    catalog = with_entries(families={"mine": {}})
    threshold = catalog.families["mine"].fit_threshold
    table_of_random_weights = tabulate(fits_of(0.11), can_fit=["ft"], threshold=threshold)
    assert table_of_random_weights.loc["ft", "underfitted"] == "yes"


def resolve(catalog, **choices):
    """The grid of a configuration."""
    return resolve_grid(config_of(choices, "config.yaml"), catalog)


@pytest.fixture
def catalog_with_own_family(with_entries):
    """The catalogue and a family, mine, in which LwF can fit; it has a dataset and a model."""
    own_catalog = Catalog([ROOT / "workflow/catalog"])
    defaults = resolve(own_catalog, family="emoji").family.defaults
    family = {"can_fit": ["lwf"], "defaults": {**to_params(defaults), "targets": ["my_set"]}}
    return with_entries(
        families={"mine": family},
        datasets={"my_set": {"family": "mine"}},
        models={"my_model": {"families": ["mine"]}},
    )


def check_that_methods_can_fit(catalog, family, model, expected_methods):
    """Check which methods of a family can fit, and that they are underfitted at 90 %."""
    grid = resolve(
        catalog,
        family=family,
        models=[model],
        methods=["ft", "lwf", "linear_probe"],
        method_settings={"lwf": {"lr": [0.1, 0.2]}},
    )
    can_fit = names_of_methods_that_can_fit(grid.methods)
    assert can_fit == expected_methods
    fits = {Run("m", "a", method, "all", 0): {method: 0.9} for method in grid.methods}
    threshold = catalog.families[family].fit_threshold
    table = tabulate(fits, can_fit=list(can_fit), threshold=threshold)
    underfitted_methods = set(table.index[table["underfitted"] == "yes"])
    assert underfitted_methods == expected_methods


def test_a_family_names_further_methods_that_can_fit_in_it(catalog_with_own_family):
    """A run of such a method is underfitted below the threshold, with each swept value.

    This is not so in other families.
    """
    check_that_methods_can_fit(
        catalog_with_own_family, "mine", "my_model", {"ft", "lwf-lr0.1", "lwf-lr0.2"}
    )
    check_that_methods_can_fit(
        catalog_with_own_family, "emoji", "efficientnet_lite0", {"ft", "linear_probe"}
    )


def test_an_unknown_method_that_can_fit_is_refused_in_one_sentence(with_entries):
    catalog = with_entries(
        families={"mine": {"can_fit": ["lwff"]}}, datasets={"my_set": {"family": "mine"}}
    )
    with pytest.raises(UserError, match=r"families/mine\.yaml, can_fit: .*'lwff'.*'lwf'") as error:
        resolve(catalog, family="mine", methods=["ft"], targets=["my_set"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", [0, 1.01])
def test_a_threshold_outside_0_to_1_is_refused_in_one_sentence(tmp_path, threshold):
    # given
    family = (ROOT / "workflow/catalog/families/emoji.yaml").read_text()
    usual_line = "fit_threshold: 0.95"
    assert usual_line in family
    (tmp_path / "families").mkdir()
    own_family = tmp_path / "families/mine.yaml"
    own_family.write_text(family.replace(usual_line, f"fit_threshold: {threshold}"))
    # when
    with pytest.raises(UserError, match=r"'fit_threshold' is .*above 0 and at most 1") as error:
        _ = Catalog([ROOT / "workflow/catalog", tmp_path]).families
    # then
    assert "\n" not in str(error.value)
