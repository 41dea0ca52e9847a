"""The choice of learning rates from a sweep."""

import json

import pandas as pd
import pytest

from rib.analyses.learning_rates.by_loss import SweptMethod, choice_table, choose
from rib.catalog.catalog import Catalog
from tiny.projects.project import ROOT
from tiny.tables.tables import write

RATES = [0.0001, 0.0003, 0.001]
TARGETS = ["a", "b"]
THRESHOLD = 0.95  # of fit


def runs_of_sweep(method, fits, losses, can_fit):
    """Runs of one method, one with each of `RATES` on each of `TARGETS`.

    Args:
        fits: by rate, the fit on each target in percent.
        losses: by rate, the last loss on each target.
    """
    runs = []
    for lr, fits_of_rate, losses_of_rate in zip(RATES, fits, losses, strict=True):
        for target, fit, loss in zip(TARGETS, fits_of_rate, losses_of_rate, strict=True):
            run = {
                "model": "m",
                "method": method,
                "recipe": "r",
                "can_fit": can_fit,
                "lr": lr,
                "target": target,
                "size": "all",
                "seed": 0,
                "fit": fit,
                "loss": loss,
            }
            runs.append(run)
    return pd.DataFrame(runs)


def chosen_rates(table, method):
    """The rates of a method that a table marks as chosen, ascending.

    Of a chosen rate all runs are marked.
    """
    runs = table[table["method"] == method]
    assert len(runs) == len(RATES) * len(TARGETS)
    chosen = []
    for rate, runs_of_rate in runs.groupby("lr"):
        marks = runs_of_rate["chosen"].unique().tolist()
        assert marks in (["yes"], ["no"])
        if marks == ["yes"]:
            chosen.append(rate)
    return chosen


@pytest.mark.parametrize(
    ("fits", "rates"),
    [
        ([(99, 94), (95, 95), (100, 100)], [0.0003]),  # the smallest at which both reach it
        ([(100, 96), (100, 100), (100, 100)], [0.0001]),
        ([(94, 94), (94, 100), (100, 94)], []),
    ],
)
def test_a_method_that_can_fit_gets_the_smallest_rate_at_which_every_target_is_finished(
    fits, rates
):
    losses_without_a_say = [(3, 3), (2, 2), (1, 1)]
    runs = runs_of_sweep("ft", fits, losses_without_a_say, can_fit=True)
    table = choose(runs, THRESHOLD)
    assert chosen_rates(table, "ft") == rates


@pytest.mark.parametrize(("can_fit", "threshold"), [(False, 0.95), (True, None)])
def test_any_other_gets_the_rate_with_the_lowest_mean_final_loss(can_fit, threshold):
    fits = [(100, 100), (0, 0), (100, 100)]
    losses = [(1.0, 3.0), (1.5, 1.6), (0.1, 4.0)]
    runs = runs_of_sweep("ft", fits, losses, can_fit)
    table = choose(runs, threshold)
    assert chosen_rates(table, "ft") == [0.0003]


def test_methods_are_chosen_each_by_itself_and_the_order_of_runs_does_not_matter():
    # given
    runs_of_ft = runs_of_sweep("ft", fits=[(100, 100)] * 3, losses=[(1, 1)] * 3, can_fit=True)
    runs_of_lwf = runs_of_sweep(
        "lwf", fits=[(0, 0)] * 3, losses=[(3, 3), (2, 2), (1, 1)], can_fit=False
    )
    runs = pd.concat([runs_of_ft, runs_of_lwf])
    shuffled_runs = runs.sample(frac=1, random_state=0)
    # when
    table = choose(runs, THRESHOLD)
    table_of_shuffled = choose(shuffled_runs, THRESHOLD)
    # then
    assert chosen_rates(table_of_shuffled, "ft") == [0.0001]
    assert chosen_rates(table_of_shuffled, "lwf") == [0.001]
    pd.testing.assert_frame_equal(
        table_of_shuffled.reset_index(drop=True), table.reset_index(drop=True)
    )


def test_the_table_has_each_runs_fit_and_last_loss(tmp_path):
    # given
    manifests = []
    histories = []
    for method, fit in (("ft-lr1", 0.5), ("ft-lr2", 0.975)):
        for target in TARGETS:
            folder = tmp_path / f"m/{target}/{method}/all/0"
            folder.mkdir(parents=True)
            manifest = folder / "manifest.json"
            manifest.write_text(json.dumps({"fit": fit}))
            manifests.append(manifest)
            history = folder / "history.csv"
            history.write_text("epoch,loss\n1,9\n2,0.25\n")
            histories.append(history)
    swept_methods = {}
    for rate in (1, 2):
        swept_methods[f"ft-lr{rate}"] = SweptMethod(
            method="ft", entry="ft", recipe="adamw", can_fit=True, lr={"m": float(rate)}
        )
    # when
    write(
        choice_table,
        manifests=manifests,
        histories=histories,
        swept_methods=swept_methods,
        threshold=THRESHOLD,
        conditions="c",
        table=tmp_path / "learning_rates.csv",
    )
    # then
    table = pd.read_csv(tmp_path / "learning_rates.csv")
    assert table["lr"].tolist() == [1, 1, 2, 2]
    assert table["target"].tolist() == ["a", "b", "a", "b"]
    assert table["fit"].tolist() == [50, 50, 97.5, 97.5]
    assert table["loss"].tolist() == [0.25] * 4
    assert table["chosen"].tolist() == ["no", "no", "yes", "yes"]
    assert table["conditions"].tolist() == ["c"] * 4


def test_the_rates_of_the_fashion_family_are_those_that_were_chosen_on_held_out_photos():
    """lp_ft has the rates of ft, ewc_empirical of ewc, and ft_low_rate a tenth of those of ft.

    Networks that are not named have the rate of the CNN on 50,000, where one was chosen.
    """
    # given
    catalog = Catalog([ROOT / "workflow/catalog"])
    sweeps = pd.read_csv(ROOT / "reports/fashion_rates.csv", float_precision="round_trip")
    choices = sweeps[sweeps["chosen"] == "yes"]
    assert set(choices["recipe"]) == {"adamw"}
    chosen_rates_of_methods = {}  # by method and group of networks, as in the family's file
    for choice in choices.itertuples():
        group = catalog.models[choice.model].group
        rate_of_group = chosen_rates_of_methods.setdefault(choice.method, {})
        assert group not in rate_of_group, "one rate is chosen"
        rate_of_group[group] = choice.lr
    for method, other_method in {"lp_ft": "ft", "ewc_empirical": "ewc"}.items():
        assert method not in chosen_rates_of_methods
        chosen_rates_of_methods[method] = chosen_rates_of_methods[other_method]
    # then
    recipe = catalog.families["fashion"].recipes["adamw"]
    rates_of_methods = {method: settings["lr"] for method, settings in recipe.items()}
    low_rates = rates_of_methods.pop("ft_low_rate")
    for group, rate in rates_of_methods["ft"].items():
        assert low_rates.pop(group) == pytest.approx(rate / 10), group
    assert not low_rates
    assert rates_of_methods.keys() == chosen_rates_of_methods.keys()
    for method, chosen_rates in chosen_rates_of_methods.items():
        rates = rates_of_methods[method]
        other_rate = rates.pop("other")
        assert rates == chosen_rates, method
        if "CNN on 50,000" in chosen_rates:
            assert other_rate == chosen_rates["CNN on 50,000"], method
