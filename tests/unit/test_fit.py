"""Fit and what is unfinished: of runs, in tables, in names and in figures.

The files are made up and not those of a whole workflow.
"""

import itertools
from io import StringIO

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Text

from rib.analysis.fit import fit_table, name_unfinished
from rib.analysis.settings import FitRule
from rib.analysis.writing import read_fit, write_tables
from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.figure_settings import FigureSettings
from rib.config.grid import resolve_grid
from rib.config.run import RUN_COLUMNS, Run
from rib.config.schema import validated
from rib.figures import FigureFiles, write_figure
from tiny.analyses import drawing_module
from tiny.project import ROOT

LABELS = {
    "models": {"m": "Net", "n": "Other"},
    "methods": {"ft": "full fine-tuning", "lwf": "LwF", "wise": "WiSE-FT", "soup": "soup"},
    "targets": {"a": "Set A", "b": "Set B"},
}
CHOICES = {"can_fit": ["ft"], "threshold": 0.95, "whole_targets": True}
# Of runs on the whole target, and of runs on ten of its images, whose accuracy on all of them is
# not their fit.
ACCURACY = pd.DataFrame(
    [
        ("m", method, "a", size, 0, dataset, 60.0 if dataset == "a" else 10.0)
        for method in LABELS["methods"]
        for size in ("all", "10")
        for dataset in "ba"
    ],
    columns=[*RUN_COLUMNS, "dataset", "accuracy"],
)


def fits_of(ft, lwf=0.2, size="all"):
    """Fits of the checkpoints behind a run of each method."""
    own = {
        "ft": {"ft": ft},
        "lwf": {"lwf": lwf},
        "wise": {"ft": ft},
        "soup": {"lwf": lwf, "ft": ft},
    }
    return {Run("m", "none", "pretrained", "all", 0): {}} | {
        Run("m", "a", method, size, 0): parts for method, parts in own.items()
    }


def table_of(fits, **choices):
    return fit_table(fits, ACCURACY, FitRule(**{**CHOICES, **choices})).set_index("method")


@pytest.mark.parametrize(
    ("ft", "threshold", "unfinished"),
    [(0.95, 0.95, "no"), (0.9499, 0.95, "yes"), (0.0, None, "no"), (0.99, 1, "yes")],
)
def test_a_run_and_its_merges_are_unfinished_below_the_threshold(ft, threshold, unfinished):
    """At the threshold it is reached.

    A regularised method is never unfinished, and the pretrained model has no fit.
    """
    table = table_of(fits_of(ft), threshold=threshold)
    assert table["unfinished"].to_dict() == {
        "lwf": "no",
        **dict.fromkeys(("ft", "wise", "soup"), unfinished),
    }
    assert table.loc["ft", "fit"] == pytest.approx(100 * ft) and table.loc["lwf", "fit"] == 20


def test_the_fit_of_a_merge_is_its_accuracy_where_its_target_is_what_it_was_trained_on():
    assert table_of(fits_of(1.0)).loc[["wise", "soup"], "fit"].tolist() == [60, 60]
    for table in (table_of(fits_of(1.0, size="10")), table_of(fits_of(1.0), whole_targets=False)):
        assert table.loc[["wise", "soup"], "fit"].isna().all() and table.loc[
            ["ft", "lwf"], "fit"
        ].tolist() == [100, 20]
    elsewhere = fit_table(fits_of(1.0), ACCURACY.query("dataset != 'a'"), FitRule(**CHOICES))
    elsewhere = elsewhere.set_index("method")
    assert elsewhere.loc[["wise", "soup"], "fit"].isna().all(), "the target is not evaluated"


def test_a_grid_without_fine_tuned_runs_has_no_fits():
    assert list(table_of({}).columns) == [
        "model",
        "target",
        "size",
        "seed",
        "fit",
        "unfinished",
    ] and not len(table_of({}))


# Tables


@pytest.fixture
def fit(tmp_path):
    """ft on a with seed 1 is unfinished, at 50 %; all others are at 100, LwF's are unknown."""
    lines = [
        ("m", method, target, size, seed, None if method == "lwf" else 100.0, "no")
        for method, target, size, seed in itertools.product(
            ("ft", "lwf"), "ab", ("all", "10"), (0, 1)
        )
    ]
    table = pd.DataFrame(lines, columns=[*RUN_COLUMNS, "fit", "unfinished"])
    table.loc[
        table[RUN_COLUMNS].eq(["m", "ft", "a", "all", 1]).all(axis=1), ["fit", "unfinished"]
    ] = 50.0, "yes"
    table.to_csv(tmp_path / "fit.csv", index=False)
    return tmp_path / "fit.csv"


def marked(fit, text):
    """Lines of a table with the fit of its runs, by comma."""
    table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    path = fit.with_name("table.csv")
    write_tables({"table": table}, {"table": path}, read_fit(fit))
    return [line.split(",") for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ("model,method,target,size,seed", "m,ft,a,all,1", ("50.000000", "1")),
        ("model,method,target,size,seed", "m,ft,a,all,0", ("100.000000", "0")),
        ("model,method,target,size", "m,ft,a,all", ("75.000000", "1")),
        ("model,method,size", "m,ft,all", ("87.500000", "1")),
        ("model,method,size", "m,ft,10", ("100.000000", "0")),
        ("model,method", "m,ft", ("93.750000", "1")),
        ("model,method,target,size,seed", "m,ft,mean,all,", ("87.500000", "1")),
        ("model,method,target,size,seed", "m,lwf,a,all,1", ("", "0")),
        ("model,method,target,size,seed", "m,pretrained,none,all,0", ("", "0")),
    ],
)
def test_a_row_has_the_fit_of_the_runs_that_it_covers(fit, columns, row, expected):
    header, line = marked(fit, f"{columns},value,conditions\n{row},0.10,x; y\n")
    assert header == [*columns.split(","), "value", "conditions", "fit", "unfinished"]
    assert line == [*row.split(","), "0.10", "x; y", *expected], (
        "what was there stays as it was written"
    )


def test_rows_keep_their_order_and_may_repeat_or_be_none(fit):
    lines = marked(fit, "method,model,dataset\nlwf,m,b\nft,m,a\nlwf,m,a\nft,m,b\n")
    assert ["".join(line[:3]) for line in lines[1:]] == ["lwfmb", "ftma", "lwfma", "ftmb"]
    assert [line[-1] for line in lines[1:]] == ["0", "1", "0", "1"]
    assert marked(fit, "model,method,size\n") == [["model", "method", "size", "fit", "unfinished"]]


def test_tables_without_runs_and_the_fits_themselves_are_left_alone(fit):
    assert marked(fit, "dataset,model\na,m\n") == [["dataset", "model"], ["a", "m"]]
    lines = [line.split(",") for line in fit.read_text().splitlines()]
    assert marked(fit, fit.read_text()) == lines


def test_runs_are_found_whether_their_columns_are_numbers_or_texts(fit):
    rows = {"model": ["m"], "method": ["ft"], "target": ["a"], "seed": [1], "value": [0.25]}
    typed = pd.read_csv(fit, dtype={"size": str})
    for table in (pd.DataFrame(rows), pd.DataFrame(rows).astype({"seed": str})):
        for runs in (typed, read_fit(fit)):
            path = fit.with_name("cost.csv")  # numbers of two decimals, but not those of the fit
            write_tables({"table": table}, {"table": path}, runs, conditions="x")
            assert path.read_text().splitlines() == [
                "model,method,target,seed,value,conditions,fit,unfinished",
                "m,ft,a,1,0.25,x,75.000000,1",
            ]


# Names and figures


def test_runs_are_named_by_model_and_method_with_size_and_seed_where_there_are_several():
    runs = pd.DataFrame(
        [("m", "ft", "a", "all", 0), ("m", "ft", "b", "all", 0), ("n", "lwf", "b", "all", 0)]
    )
    runs = runs.set_axis(RUN_COLUMNS, axis=1).assign(unfinished="yes")
    assert name_unfinished(runs, LABELS) == [
        "Net, full fine-tuning on Set A, Set B",
        "Other, LwF on Set B",
    ]
    assert name_unfinished(runs[:1].assign(size="0.5"), LABELS) == [
        "Net, full fine-tuning on Set A (size 0.5)"
    ]
    several = pd.concat([runs[:1], runs[:1].assign(seed=1)])
    assert name_unfinished(several, LABELS) == [
        "Net, full fine-tuning on Set A (seed 0), Set A (seed 1)"
    ]
    several["unfinished"] = ["no", "yes"]
    assert name_unfinished(several, LABELS) == ["Net, full fine-tuning on Set A (seed 1)"]
    assert name_unfinished(runs[:0], LABELS) == []


LOOKS = {
    name: {"label": label, "colour": "#000000", "marker": "o"}
    for name, label in LABELS["methods"].items()
}
FLIPS = pd.DataFrame(
    [
        {"model": "m", "method": method, "size": size}
        | {
            f"{share}{end}": 5.0
            for share in ("agreement", "right_to_wrong", "wrong_to_right")
            for end in ("", "_low", "_high")
        }
        for method in ("ft", "lwf")
        for size in ("all", "10")
    ]
)


def said(monkeypatch, fit, name, inputs, settings, size="all"):
    """All texts of a figure, after it was written."""
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    files = {}
    for key, table in inputs.items():
        files[key] = str(fit.with_name(f"{key}.csv"))
        table.to_csv(files[key], index=False)
    paths = {ending: fit.with_name(f"figure.{ending}") for ending in ("png", "pdf", "csv")}
    figure_settings = FigureSettings(
        drawing_module=drawing_module(name),
        draw_settings=settings,
        size=size,
        sizes=["all"],
        labels=LABELS,
    )
    write_figure(files, figure_settings, FigureFiles(**paths), fit)
    return [text for text in (text.get_text() for text in kept[0].findobj(Text)) if text]


def test_labels_of_methods_with_an_unfinished_run_are_marked_and_the_runs_named(monkeypatch, fit):
    methods = {name: LABELS["methods"][name] for name in ("ft", "lwf")}
    settings = {"models": {"m": "Net"}, "methods": methods, "confidence": 0.95}
    texts = said(monkeypatch, fit, "flips", {"flips": FLIPS}, settings)
    assert "full fine-tuning †" in texts and "LwF" in texts
    assert any(
        "† training unfinished: Net, full fine-tuning on Set A (seed 1)" in " ".join(t.split())
        for t in texts
    )
    texts = said(monkeypatch, fit, "flips", {"flips": FLIPS}, settings, size="10")
    assert not any("†" in text for text in texts), "runs of that size are finished"
    other = {**settings, "models": {"n": "Other"}}
    assert not any(
        "†" in text
        for text in said(monkeypatch, fit, "flips", {"flips": FLIPS.assign(model="n")}, other)
    )
    assert settings["methods"] == methods, "settings are not changed in place"


def test_a_figure_of_one_method_and_target_is_marked_if_that_run_is_unfinished(monkeypatch, fit):
    accuracy = pd.DataFrame(
        [
            ("m", *run, dataset, 50.0)
            for run in (("pretrained", "none", 0), ("ft", "a", 0), ("ft", "b", 0))
            for dataset in "abc"
        ],
        columns=["model", "method", "target", "seed", "dataset", "accuracy"],
    )
    settings = {"method": "ft", "method_label": "FT", "datasets": {**LABELS["targets"], "c": "C"}}
    settings |= {"models": {"m": {"label": "Net", "colour": "#000000", "marker": "o"}}}
    for target, unfinished in (("a", True), ("b", False)):
        texts = said(
            monkeypatch, fit, "radar", {"accuracy": accuracy}, {**settings, "target": target}
        )
        assert any("after FT †" in text for text in texts) == unfinished
        assert any("training unfinished" in text for text in texts) == unfinished


def test_the_ranking_says_who_has_no_rank_and_why(monkeypatch, fit):
    ranks = {
        "model": "m",
        "method": "lwf",
        "size": "all",
        "mri": 1.0,
        "ci_low": 0.0,
        "ci_high": 2.0,
    }
    ranks |= {
        "seeds": 1,
        "reference": "pretrained",
        "difference": 1.0,
        "diff_low": 0.0,
        "diff_high": 2.0,
    }
    ranks |= {"letters": "a", "smallest_difference": None, "fit": 42.9}
    inputs = {"ranking": pd.DataFrame([ranks])}
    settings = {"models": {"m": "Net"}, "methods": LOOKS, "confidence": 0.95}
    texts = said(monkeypatch, fit, "ranking", inputs, settings)
    reason = "not ranked, since training is unfinished: Net, full fine-tuning on Set A"
    assert "LwF (fit 42.9 %)" in texts and any(reason in " ".join(text.split()) for text in texts)
    inputs["ranking"] = inputs["ranking"][:0]
    texts = said(monkeypatch, fit, "ranking", inputs, settings)
    assert "no method is ranked" in texts and any(
        reason in " ".join(text.split()) for text in texts
    )


def test_many_unfinished_runs_are_counted(monkeypatch, fit):
    table = pd.read_csv(fit).assign(unfinished="yes")
    table = pd.concat([table.assign(seed=seed) for seed in range(9)])
    table[table["size"] == "all"].to_csv(fit, index=False)
    settings = {
        "models": {"m": "Net"},
        "methods": {name: LABELS["methods"][name] for name in ("ft", "lwf")},
        "confidence": 0.95,
    }
    note = " ".join(
        max(said(monkeypatch, fit, "flips", {"flips": FLIPS}, settings), key=len).split()
    )
    assert note.endswith("... (72 runs)") and len(note) < 320


# The catalogue


def test_methods_that_train_everything_on_the_task_alone_can_fit():
    catalog = Catalog([ROOT / "workflow/catalog"])
    can_fit = {name for name, method in catalog.methods.items() if method.can_fit}
    assert can_fit == {
        "ft",
        "lp_ft",
        "ft_released",
        "ft_frozen_head",
    }  # of which the last has the pretrained head
    thresholds = {name: family.fit_threshold for name, family in catalog.families.items()}
    assert thresholds == {**dict.fromkeys(thresholds, 0.95), "imagenet": None}


def test_a_family_without_a_threshold_has_a_default_so_that_runs_that_learned_nothing_are_marked(
    with_entries,
):
    catalog = with_entries(families={"mine": {}})
    threshold = catalog.families["mine"].fit_threshold
    of_random_weights = table_of(fits_of(0.11), can_fit=["ft"], threshold=threshold)
    assert of_random_weights.loc["ft", "unfinished"] == "yes"


def test_a_family_of_ones_own_has_its_own_threshold(with_entries):
    catalog = with_entries(families={"mine": {"fit_threshold": 0.3}})
    can_fit = [name for name, method in catalog.methods.items() if method.can_fit]
    for family, unfinished in (
        ("mine", "no"),
        ("emoji", "yes"),
        ("fashion", "yes"),
        ("imagenet", "no"),
    ):
        threshold = catalog.families[family].fit_threshold
        assert (
            table_of(fits_of(0.5), can_fit=can_fit, threshold=threshold).loc["ft", "unfinished"]
            == unfinished
        )


def grid_of(catalog, **choices):
    return resolve_grid(validated(choices, "config", "config.yaml"), catalog)


def test_a_family_names_further_methods_that_can_fit_in_it(with_entries):
    """A run of such a method is unfinished below the threshold, with each swept value.

    This is not so in other families.
    """
    catalog = Catalog([ROOT / "workflow/catalog"])
    defaults = grid_of(catalog, family="emoji").family.defaults
    catalog = with_entries(
        families={"mine": {"can_fit": ["lwf"], "defaults": {**defaults, "targets": ["my_set"]}}},
        datasets={"my_set": {"family": "mine"}},
        models={"my_model": {"families": ["mine"]}},
    )
    choices = {
        "methods": ["ft", "lwf", "linear_probe"],
        "method_settings": {"lwf": {"lr": [0.1, 0.2]}},
    }
    for family, expected in (
        ("mine", {"ft", "lwf-lr0.1", "lwf-lr0.2"}),
        ("emoji", {"ft", "linear_probe"}),
    ):
        models = ["my_model"] if family == "mine" else ["efficientnet_lite0"]
        methods = grid_of(catalog, family=family, models=models, **choices).methods
        can_fit = [name for name, method in methods.items() if method.can_fit]
        assert set(can_fit) == expected
        fits = {Run("m", "a", name, "all", 0): {name: 0.9} for name in methods}
        table = table_of(fits, can_fit=can_fit, threshold=catalog.families[family].fit_threshold)
        assert set(table.index[table["unfinished"] == "yes"]) == expected


def test_an_unknown_method_that_can_fit_is_refused_in_one_sentence(with_entries):
    catalog = with_entries(
        families={"mine": {"can_fit": ["lwff"]}}, datasets={"my_set": {"family": "mine"}}
    )
    with pytest.raises(UserError, match=r"families/mine\.yaml, can_fit: .*'lwff'.*'lwf'") as error:
        grid_of(catalog, family="mine", methods=["ft"], targets=["my_set"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, 95])
def test_a_threshold_outside_0_to_1_is_refused_in_one_sentence(tmp_path, threshold):
    text = (ROOT / "workflow/catalog/families/emoji.yaml").read_text()
    (tmp_path / "families").mkdir()
    (tmp_path / "families/mine.yaml").write_text(
        text.replace("fit_threshold: 0.95", f"fit_threshold: {threshold}")
    )
    with pytest.raises(UserError, match=r"'fit_threshold' is .*above 0 and at most 1") as error:
        _ = Catalog([ROOT / "workflow/catalog", tmp_path]).families
    assert "\n" not in str(error.value)
