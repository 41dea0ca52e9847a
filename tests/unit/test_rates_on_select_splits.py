"""The choice of learning rates on the select splits of the targets."""

import json
import math
import re
import statistics

import numpy as np
import pandas as pd
import pytest
import yaml

from rib.analyses.learning_rates.by_loss import SweptMethod
from rib.analyses.learning_rates.held_out import (
    SelectSplit,
    choose_on_select_splits,
    choose_rate,
    family_recipes,
    mean_accuracies,
    paired_differences,
    warnings_on,
)
from rib.base.errors import UserError
from rib.statistics.counts import RowFiles
from tiny.tables.rows import write_rows
from tiny.tables.tables import write


def photos(right_of_rates, first_object=0):
    """A select split whose images are objects of their own, from a text of 1 and 0 per rate."""
    correct = np.array([[int(digit) for digit in right] for right in right_of_rates], float)
    images = correct.shape[1]
    objects = np.arange(first_object, first_object + images)
    return SelectSplit(correct, np.ones(images, int), objects)


def test_a_difference_and_its_error_by_hand():
    # given: a with 4 images, of which one is lost, and b with 2, of which none is
    splits = [photos(["1010", "1110"]), photos(["11", "11"], first_object=4)]
    # when
    accuracies = mean_accuracies(splits)
    differences, errors = paired_differences(splits, best=1)
    # then: (50 + 100) / 2 and (75 + 100) / 2; (-25 + 0) / 2; the differences of a have the variance
    # 1/4, so their mean has the error 25, of which the mean over two targets has a half
    assert accuracies.tolist() == [75, 87.5]
    assert differences.tolist() == [-12.5, 0]
    assert errors == pytest.approx([12.5, 0])


def test_the_error_is_that_of_a_mean_over_independent_targets():
    """Against the textbook: the sample variance of each target's paired differences."""
    rng = np.random.default_rng(0)
    splits = []
    first_object = 0
    for images in (30, 7, 50):
        right = rng.integers(0, 2, (3, images))
        splits.append(photos(right, first_object))
        first_object += images
    differences, errors = paired_differences(splits, best=2)
    for rate in range(3):
        means, variances = [], []
        for split in splits:
            of_images = (split.correct[rate] - split.correct[2]).tolist()
            means.append(statistics.mean(of_images))
            variances.append(statistics.variance(of_images) / len(of_images))
        assert differences[rate] == pytest.approx(100 * statistics.mean(means))
        assert errors[rate] == pytest.approx(100 * math.sqrt(sum(variances)) / 3)


def test_images_of_one_object_count_as_one():
    """Each image twice, with the same answers: nothing is known better than from each once."""
    once = photos(["100110", "111010"])
    of_images = np.repeat(once.correct, 2, axis=1)
    twice = SelectSplit(2 * once.correct, 2 * once.images, once.objects)
    apart = photos(of_images)
    _, errors = paired_differences([once], best=1)
    _, errors_of_objects = paired_differences([twice], best=1)
    _, errors_of_images = paired_differences([apart], best=1)
    assert errors_of_objects == pytest.approx(errors)
    assert errors_of_images[0] < errors[0]


def test_an_object_with_images_of_two_classes_is_one():
    """It occurs twice, and its images are drawn together."""
    joined = SelectSplit(np.array([[0, 2.0, 1], [2, 2, 0]]), np.array([2, 2, 1]), np.arange(3))
    split = SelectSplit(
        np.array([[0, 0, 2.0, 1], [1, 1, 2, 0]]), np.array([1, 1, 2, 1]), np.array([0, 0, 1, 2])
    )
    for one, other in zip(
        paired_differences([joined], 1), paired_differences([split], 1), strict=True
    ):
        assert one == pytest.approx(other)


def test_unequal_objects_have_the_error_of_a_ratio():
    """Two images of one object and one of another, by hand.

    d is 2 and 0 of 3 images, so D is 2/3; residuals are 2 - 2 * 2/3 and 0 - 2/3.
    """
    split = SelectSplit(np.array([[2.0, 0], [0, 0]]), np.array([2, 1]), np.arange(2))
    differences, errors = paired_differences([split], best=1)
    assert differences[0] == pytest.approx(200 / 3)
    assert errors[0] == pytest.approx(100 * math.sqrt(2 * ((2 / 3) ** 2 + (2 / 3) ** 2)) / 3)


def test_targets_that_share_all_objects_are_as_one():
    split = photos(["100110", "111010"])
    _, of_one = paired_differences([split], best=1)
    _, of_two = paired_differences([split, split], best=1)
    _, of_independent = paired_differences([split, photos(split.correct, 6)], best=1)
    assert of_two == pytest.approx(of_one)
    assert of_independent == pytest.approx(of_one / math.sqrt(2))


ALL = np.array([True, True, True])


@pytest.mark.parametrize(
    ("right_of_rates", "is_eligible", "best", "chosen"),
    [
        # the first loses 3 of 8, with an error of 18 points; the second loses 1, with one of 12.5
        (["11110000", "11111100", "11111110"], ALL, 2, 1),
        # the best is the smallest rate
        (["11111110", "11111100", "11110000"], ALL, 0, 0),
        # equal accuracies on other images: the smaller rate is the best
        (["11110000", "11111100", "00111111"], ALL, 1, 1),
        # the same answers everywhere, with no error at all
        (["11110000", "11110000", "11110000"], ALL, 0, 0),
        # the second may not be chosen, and the first is too far from the best
        (["11110000", "11111100", "11111110"], np.array([True, False, True]), 2, 2),
        # the best may not be chosen
        (["11100000", "11111100", "11111110"], np.array([True, True, False]), 1, 1),
        # less accurate by exactly one error: 1 of 4
        (["1110", "1110", "1111"], ALL, 2, 0),
        (["11110000", "11111100", "11111110"], np.array([False, False, False]), None, None),
    ],
)
def test_the_smallest_eligible_rate_within_one_error_of_the_best_is_chosen(
    right_of_rates, is_eligible, best, chosen
):
    choice = choose_rate([photos(right_of_rates)], is_eligible)
    assert (choice.best, choice.chosen) == (best, chosen)
    assert np.isnan(choice.differences).all() == (best is None)


RATES = [0.001, 0.003, 0.01]
THRESHOLD = 0.95


@pytest.fixture
def sweep(tmp_path):
    """Writes the files of sweeps, chooses and returns the table and the methods.

    It takes, by method, right answers at each rate on targets a and b, and fits at each rate.
    """

    def choose(right_of_methods, fits_of_methods=None, cannot_fit=(), models=("m",), rates=RATES):
        manifests, rows, swept_methods = [], [], {}
        for method, right_of_rates in right_of_methods.items():
            for rate, answers in zip(rates, right_of_rates, strict=True):
                variant = f"{method}-lr{rate}"
                swept_methods[variant] = SweptMethod(
                    method=method,
                    entry=method.split("-")[0],
                    recipe="adamw",
                    can_fit=method not in cannot_fit,
                    lr=dict.fromkeys(models, rate),
                )
                fits = (fits_of_methods or {}).get(method, [(1.0, 1.0)] * len(rates))
                fit_of_targets = fits[rates.index(rate)]
                for model in models:
                    for target, right, fit in zip("ab", answers, fit_of_targets, strict=True):
                        run = {"model": model, "method": variant, "target": target, "size": "all"}
                        ranks = [0 if digit == "1" else 3 for digit in right]
                        images = {"dataset": target, "row": range(len(ranks)), "rank": ranks}
                        table = pd.DataFrame({**run, "seed": 100, "alpha": np.nan, **images})
                        rows += write_rows(tmp_path / "select", table)
                        folder = tmp_path / "finetune" / model / target / variant / "all/100"
                        folder.mkdir(parents=True)
                        manifests.append(folder / "manifest.json")
                        manifests[-1].write_text(json.dumps({"fit": fit}))
                        index = tmp_path / "prepare" / target / "32px/index.parquet"
                        index.parent.mkdir(parents=True, exist_ok=True)
                        ids = [f"{target}{i}" for i in range(len(ranks))]
                        images = {"object_id": ids, "label": 0, "photo_sha256": ids}
                        pd.DataFrame(images).to_parquet(index)
        files = RowFiles(rows, sorted((tmp_path / "prepare").glob("*/*/index.parquet")))
        write(
            choose_on_select_splits,
            manifests=manifests,
            select_files=files,
            swept_methods=swept_methods,
            targets=["a", "b"],
            threshold=THRESHOLD,
            conditions="c",
            table=tmp_path / "learning_rates.csv",
        )
        return pd.read_csv(tmp_path / "learning_rates.csv"), swept_methods

    return choose


def recipes_of(table, swept_methods):
    """The recipes for the file of the family fashion."""
    return family_recipes(
        table, swept_methods=swept_methods, family="fashion", targets=["a", "b"], seeds=[100]
    )


# Accuracies 62.5, 87.5 and 100; only the last two are within one error of each other.
RISING = [("1000", "1111"), ("1110", "1111"), ("1111", "1111")]


def test_the_table_has_each_rate_with_what_it_was_chosen_by(sweep):
    table, _ = sweep({"ft": RISING}, {"ft": [(0.5, 1), (0.975, 1), (1, 0.96)]})
    assert table["lr"].tolist() == RATES
    assert table["accuracy"].tolist() == [62.5, 87.5, 100]
    assert table["difference"].tolist() == [-37.5, -12.5, 0]
    assert table["standard_error"].tolist() == pytest.approx([12.5, 12.5, 0])
    assert table["lowest_fit"].tolist() == [50, 97.5, 96]
    assert table["all_fit"].tolist() == ["no", "yes", "yes"]
    assert table["chosen"].tolist() == ["no", "yes", "no"]
    assert table["at_edge"].tolist() == ["no", "no", "yes"]
    names = table[["model", "method", "recipe", "conditions"]].drop_duplicates()
    assert names.to_numpy().tolist() == [["m", "ft", "adamw", "c"]]


def test_a_method_that_cannot_fit_is_chosen_by_accuracy_alone(sweep):
    unfitted = [(0.1, 0.2)] * 3
    right = {"ft": RISING, "linear_probe": RISING}
    fits = {"ft": unfitted, "linear_probe": unfitted}
    table, _ = sweep(right, fits, cannot_fit=["linear_probe"])
    chosen = table[table["chosen"] == "yes"]
    assert chosen[["method", "lr"]].to_numpy().tolist() == [["linear_probe", 0.003]]
    assert set(table.loc[table["method"] == "linear_probe", "all_fit"]) == {"not required"}


def test_a_method_without_a_rate_that_fits_is_named_with_what_was_tried(sweep):
    table, methods = sweep({"ft": RISING}, {"ft": [(0.5, 1), (1, 0.949), (0.03, 0.02)]})
    assert set(table["chosen"]) == {"no"} and table["difference"].isna().all()
    (sentence,) = warnings_on(table, THRESHOLD)
    for part in ("ft with recipe adamw on m", "50.0 %", "94.9 %", "2.0 %"):
        assert part in sentence
    snippet = recipes_of(table, methods)
    assert yaml.safe_load(snippet) == {"recipes": {}}
    assert "ft with recipe adamw on m" in snippet


@pytest.mark.parametrize(
    ("right_of_rates", "fits", "advice"),
    [
        # chosen 0.003, while the best is the largest
        (RISING, [(1, 1)] * 3, ["0.01 is the largest .* 0.033 "]),
        (RISING[::-1], [(1, 1)] * 3, ["0.001 is the smallest .* 0.00033 "]),
        ([RISING[0], RISING[2], RISING[0]], [(1, 1)] * 3, []),
        # larger and smaller ones were tried, but don't fit
        ([RISING[2]] * 3, [(0, 1), (1, 1), (0, 1)], []),
        # at both edges: all are alike
        ([RISING[2]] * 3, [(0, 1), (0, 1), (1, 1)], ["0.01 is the largest"]),
    ],
)
def test_a_rate_at_the_edge_asks_for_a_further_one(sweep, right_of_rates, fits, advice):
    table, _ = sweep({"ft": right_of_rates}, {"ft": fits})
    sentences = warnings_on(table, THRESHOLD)
    assert len(sentences) == len(advice) == (table["at_edge"] == "yes").sum()
    for sentence, pattern in zip(sentences, advice, strict=True):
        assert re.search(f"ft with recipe adamw on m: .*{pattern}", sentence)


def test_one_rate_is_no_sweep(sweep):
    table, _ = sweep({"ft": RISING[:1]}, rates=[0.001])
    assert table[["chosen", "at_edge"]].to_numpy().tolist() == [["yes", "yes"]]
    (sentence,) = warnings_on(table, THRESHOLD)
    assert re.search("only .* 0.001", sentence)


def test_the_recipes_are_those_of_a_familys_file(sweep):
    methods = {"ft": RISING[::-1], "linear_probe": RISING}
    table, methods = sweep(methods, models=["m", "n"])
    snippet = recipes_of(table, methods)
    assert yaml.safe_load(snippet)["recipes"] == {
        "adamw": {
            "ft": {"lr": {"m": 0.001, "n": 0.001}},
            "linear_probe": {"lr": {"m": 0.003, "n": 0.003}},
        }
    }
    assert "families/fashion.yaml" in snippet


def test_small_rates_are_read_as_numbers(sweep):
    table, methods = sweep({"ft": RISING[:1]}, rates=[0.00001])
    recipes = yaml.safe_load(recipes_of(table, methods))["recipes"]
    assert recipes == {"adamw": {"ft": {"lr": {"m": 0.00001}}}}


def test_variants_by_something_else_than_the_rate_are_left_to_the_reader(sweep):
    table, methods = sweep({"lora-rank4": RISING, "lora-rank8": RISING[::-1]})
    snippet = recipes_of(table, methods)
    assert yaml.safe_load(snippet) == {"recipes": {}}
    assert re.search("# lora-rank4 .*0.003\n", snippet)
    assert re.search("# lora-rank8 .*0.001\n", snippet)


@pytest.mark.parametrize(
    ("right_on_b", "said"), [("1", "'b' has 1 objects"), ("", "'b' has 0 objects")]
)
def test_a_select_split_that_is_too_small_is_refused(sweep, right_on_b, said):
    with pytest.raises(UserError, match=f"{said}.*split.select"):
        sweep({"ft": [("1010", right_on_b)]}, rates=[0.001])


def test_answers_of_several_seeds_are_averaged():
    """Two runs at the first rate, of which one is right on the second image."""
    split = SelectSplit(np.array([[1, 0.5], [1, 1]]), np.ones(2, int), np.arange(2))
    choice = choose_rate([split], np.array([True, True]))
    assert choice.accuracies.tolist() == [75, 100] and choice.differences.tolist() == [-25, 0]
