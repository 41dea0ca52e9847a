"""The choice of learning rates from a sweep."""

import itertools
import json

import pandas as pd
import pytest

from rib.analyses.learning_rates.settings import LearningRateSettings, SweptMethod
from rib.analyses.learning_rates.tables import choice_table, choose
from tiny.tables import write

RATES = [0.0001, 0.0003, 0.001]


def runs(fits, losses, can_fit):
    """Runs of one method: fit in percent and loss of each rate on each of two targets."""
    lines = [
        {
            "model": "m",
            "method": "x",
            "recipe": "r",
            "can_fit": can_fit,
            "lr": lr,
            "target": target,
            "size": "all",
        }
        | {"seed": 0, "fit": fit, "loss": loss}
        for lr, pair in zip(RATES, zip(fits, losses, strict=True), strict=True)
        for target, fit, loss in zip("ab", *pair, strict=True)
    ]
    return pd.DataFrame(lines)


def chosen(table):
    return sorted(set(table.loc[table["chosen"] == "yes", "lr"]))


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
    losses = [(3, 3), (2, 2), (1, 1)]  # the loss has no say
    assert chosen(choose(runs(fits, losses, True), 0.95)) == rates


@pytest.mark.parametrize(("can_fit", "threshold"), [(False, 0.95), (True, None)])
def test_any_other_gets_the_rate_with_the_lowest_mean_final_loss(can_fit, threshold):
    fits, losses = [(100, 100), (0, 0), (100, 100)], [(1.0, 3.0), (1.5, 1.6), (0.1, 4.0)]
    assert chosen(choose(runs(fits, losses, can_fit), threshold)) == [0.0003]


def test_methods_are_chosen_each_by_itself_and_the_order_of_runs_does_not_matter():
    one = runs([(100, 100)] * 3, [(1, 1)] * 3, True)
    other = runs([(0, 0)] * 3, [(3, 3), (2, 2), (1, 1)], False).assign(method="y")
    both = pd.concat([one, other])
    table = choose(both.sample(frac=1, random_state=0), 0.95)
    assert chosen(table[table["method"] == "x"]) == [0.0001] and chosen(
        table[table["method"] == "y"]
    ) == [0.001]
    pd.testing.assert_frame_equal(
        table.reset_index(drop=True), choose(both, 0.95).reset_index(drop=True)
    )


def test_the_table_has_each_runs_fit_and_last_loss(tmp_path):
    files = {"manifest.json": [], "history.csv": []}
    for method, target in itertools.product(["ft-lr1", "ft-lr2"], "ab"):
        folder = tmp_path / "m" / target / method / "all/0"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(
            json.dumps({"fit": 0.5 if method == "ft-lr1" else 0.975})
        )
        (folder / "history.csv").write_text("epoch,loss\n1,9\n2,0.25\n")
        for name, paths in files.items():
            paths.append(folder / name)
    swept_methods = {
        f"ft-lr{lr}": SweptMethod(
            method="ft", entry="ft", recipe="adamw", can_fit=True, lr={"m": float(lr)}
        )
        for lr in (1, 2)
    }
    settings = LearningRateSettings(
        swept_methods=swept_methods, threshold=0.95, conditions="c", code=""
    )
    manifests, histories = files.values()
    write(
        choice_table,
        manifests=manifests,
        histories=histories,
        settings=settings,
        conditions=settings.conditions,
        table=tmp_path / "learning_rates.csv",
    )
    table = pd.read_csv(tmp_path / "learning_rates.csv")
    assert table["lr"].tolist() == [1, 1, 2, 2] and table["target"].tolist() == ["a", "b"] * 2
    assert table["fit"].tolist() == [50, 50, 97.5, 97.5] and set(table["loss"]) == {0.25}
    assert table["chosen"].tolist() == ["no", "no", "yes", "yes"] and set(table["conditions"]) == {
        "c"
    }
