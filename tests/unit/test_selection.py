"""The choice of a sweep's variant: by hand, and against plain loops over images.

What config refuses is tested, too.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from rib.analyses.selection.describe import SELECTION
from rib.analyses.selection.tables import (
    Trained,
    choices_of,
    gains_of,
    select_accuracies,
    select_variants,
    selection_table,
)
from rib.base.errors import UserError
from rib.grid.leaks import source_groups
from rib.report.page import page_tables
from rib.statistics.bootstrap import object_weights
from rib.statistics.counts import Counts, RowFiles, write_counts
from rib.statistics.objects import ALL_INDICES
from rib.statistics.statistics_settings import RIStatistics
from tiny.projects.descriptions import description
from tiny.projects.grids import grid
from tiny.tables.analyses import shown
from tiny.tables.rows import write_rows
from tiny.tables.states import state_of
from tiny.tables.tables import write

VARIANTS = {"ft": ["ft-lr1", "ft-lr2", "ft-lr3"], "lora": ["lora-rank1", "lora-rank2"]}
ALL_VARIANTS = [*VARIANTS["ft"], *VARIANTS["lora"]]
# By dataset, the objects that it has an image of.
OBJECTS = {"a": [0, 1, 2, 3], "b": [2, 3, 4], "c": [0, 4, 5, 6, 7], "d": [1, 3, 5, 7]}
NUMBER_OF_OBJECTS = 8
# `a` and `c` share source images, so neither chooses for the other.
GROUPS = {"a": "g", "b": "b", "c": "g", "d": "d"}
TARGETS = ["b", "d"]
SELECT_OBJECTS = {target: OBJECTS[target] for target in TARGETS}
# Under leave_one_out, by target and dataset, the datasets that choose.
CHOOSING_DATASETS = {
    "b": {"a": ["d"], "c": ["d"], "d": ["a", "c"]},
    "d": {"a": ["b"], "b": ["a", "c"], "c": ["b"]},
}
PRETRAINED = state_of("m", "pretrained", "none", "all", 0)
NOTHING_RIGHT = {dataset: [0] * len(objects) for dataset, objects in OBJECTS.items()}
# Half of a 95 % interval of the normal distribution in standard deviations, rounded down.
NORMAL_QUANTILE = 1.95


def variant_state(variant, target, seed=0):
    """The state of a network that was fine-tuned with a variant."""
    return state_of("m", variant, target, "all", seed)


def trained(method, target):
    """The key of a choice among the variants of a method, or of a variant's gains."""
    return Trained("m", method, "all", target)


def counts_of(answers, objects=OBJECTS):
    """Counts of one image per object.

    Args:
        answers: by state and dataset, 0 or 1 per object: whether it is classified right.
        objects: by dataset.
    """
    states = sorted(answers)
    correct = {}
    for dataset in objects:
        correct[dataset] = np.array([answers[state][dataset] for state in states], np.uint16)
    return Counts(
        states=states,
        datasets=list(objects),
        objects=NUMBER_OF_OBJECTS,
        object_indices={dataset: np.array(indices) for dataset, indices in objects.items()},
        labels={dataset: np.zeros(len(indices), int) for dataset, indices in objects.items()},
        images={dataset: np.ones(len(indices), np.uint16) for dataset, indices in objects.items()},
        correct=correct,
    )


def random_answers(random_seed, objects=OBJECTS, targets=TARGETS, seeds=(0, 1)):
    """Right and wrong answers of the pretrained model and all variants, as `counts_of` takes them.

    Args:
        random_seed: of the answers.
        seeds: of the trainings.
    """
    rng = np.random.default_rng(random_seed)
    states = [PRETRAINED]
    for variant, target, seed in itertools.product(ALL_VARIANTS, targets, seeds):
        states.append(variant_state(variant, target, seed))
    answers = {}
    for state in states:
        answers[state] = {
            dataset: rng.integers(0, 2, len(indices)) for dataset, indices in objects.items()
        }
    return answers


def random_select_answers(random_seed):
    """Random answers of networks that were trained without the select splits, on these splits."""
    return random_answers(random_seed, SELECT_OBJECTS, targets=["none"])


@dataclass(frozen=True)
class SelectSplits:
    """What is counted on the select splits of the targets, and bootstrap weights of its objects."""

    counts: Counts
    weights: np.ndarray  # (replicates, objects)


def accuracies_on_select(select):
    """Accuracies on the select splits as `choices_of` takes them."""
    accuracies = {}
    for target in select.counts.datasets:
        accuracies_of_states = select.counts.accuracy_on(
            target, select.weights, ALL_INDICES, ALL_INDICES
        ).T
        for state, accuracy in zip(select.counts.states, accuracies_of_states, strict=True):
            of_seeds = accuracies.setdefault(trained(state.run.method, target), [])
            of_seeds.append(accuracy)
    return accuracies


def choose(rule, counts, weights, select=None, variants=VARIANTS, source_groups=None):
    """Choices by `trained` of method and target.

    Args:
        weights: of objects, (replicates, objects).
        select: select splits, for the rule target.
        source_groups: of datasets, if what shares source images with the target does not count.
    """
    accuracies = {}
    if select is not None:
        accuracies = accuracies_on_select(select)
    gains = gains_of(counts, weights, counts.datasets, source_groups)
    return choices_of(gains, accuracies, rule, variants, GROUPS)


def has_images_of_every_dataset(weights):
    """Whether bootstrap weights (objects,) leave images in each dataset."""
    images = [weights[indices].sum() for indices in OBJECTS.values()]
    return min(images) > 0


def weights_for_every_dataset(random_seed, replicates=40):
    """Bootstrap weights with which every dataset keeps an object, the first without resampling."""
    # more replicates than needed, of which some leave a dataset without images
    weights = object_weights(NUMBER_OF_OBJECTS, 2 * replicates, random_seed)
    usable_weights = np.array([row for row in weights if has_images_of_every_dataset(row)])
    assert len(usable_weights) > replicates
    return usable_weights[: 1 + replicates]


# Against plain loops over images


@dataclass(frozen=True)
class Replicate:
    """Answers to the images of one bootstrap replicate."""

    answers: dict  # 0 or 1 per object, by state and dataset
    weights: np.ndarray  # (objects,) how often each is drawn

    def accuracy(self, state, dataset):
        """Accuracy of a state in percent, one image after the other."""
        images = 0
        right = 0
        for index, is_right in zip(OBJECTS[dataset], self.answers[state][dataset], strict=True):
            images += int(self.weights[index])
            right += int(self.weights[index]) * int(is_right)
        return 100 * right / images

    def mean_accuracy(self, variant, target, dataset):
        """Accuracy of a variant, mean over two seeds."""
        accuracies = [
            self.accuracy(variant_state(variant, target, seed), dataset) for seed in (0, 1)
        ]
        return sum(accuracies) / len(accuracies)

    def gain(self, variant, target, dataset):
        """Accuracy of a variant minus that of the pretrained model."""
        accuracy_before = self.accuracy(PRETRAINED, dataset)
        return self.mean_accuracy(variant, target, dataset) - accuracy_before


def score_by_loops(rule, variant, target, dataset, test, select):
    """The score of a variant by which the variant for a dataset is chosen.

    Args:
        test, select: replicates of the test images and of the select splits.
    """
    if rule == "target":
        return select.mean_accuracy(variant, "none", target)
    if rule == "leave_one_out":
        choosing_datasets = CHOOSING_DATASETS[target][dataset]
    else:
        choosing_datasets = other_datasets(target)
    gains = [test.gain(variant, target, choosing) for choosing in choosing_datasets]
    return sum(gains) / len(gains)


def other_datasets(target):
    """The datasets in the RI of a target."""
    return [dataset for dataset in OBJECTS if dataset != target]


def choice_by_loops(rule, variants, target, test, select):
    """The variant that each dataset chooses, and RI of the choice, by loops over the definitions.

    Args:
        test, select: replicates of the test images and of the select splits.
    """
    chosen_variants = []
    gains = []
    for dataset in other_datasets(target):
        best, *others = variants
        best_score = score_by_loops(rule, best, target, dataset, test, select)
        for variant in others:
            score = score_by_loops(rule, variant, target, dataset, test, select)
            if score > best_score + 1e-7:
                best = variant
                best_score = score
        chosen_variants.append(best)
        gains.append(test.gain(best, target, dataset))
    return chosen_variants, sum(gains) / len(gains)


@pytest.mark.parametrize("rule", ["target", "leave_one_out", "oracle"])
@pytest.mark.parametrize("seed", range(3))
def test_every_replicate_chooses_as_plain_loops_do(rule, seed):
    # given
    answers = random_answers(seed)
    weights = weights_for_every_dataset(seed)
    select_answers = random_select_answers(seed + 50)
    select_weights = weights_for_every_dataset(seed + 100)
    select = SelectSplits(counts_of(select_answers, SELECT_OBJECTS), select_weights)
    # when
    choices = choose(rule, counts_of(answers), weights, select)
    # then
    assert list(choices) == [trained(method, target) for method in VARIANTS for target in TARGETS]
    chooses_otherwise = False
    for key, choice in choices.items():
        variants = VARIANTS[key.method]
        datasets = len(other_datasets(key.target))
        for replicate in range(len(weights)):
            expected_variants, expected_ri = choice_by_loops(
                rule,
                variants,
                key.target,
                test=Replicate(answers, weights[replicate]),
                select=Replicate(select_answers, select_weights[replicate]),
            )
            best_of_datasets = np.broadcast_to(choice.best[:, replicate], datasets)
            assert [variants[best] for best in best_of_datasets] == expected_variants
            assert choice.ri[:, replicate].mean() == pytest.approx(expected_ri)
        without_resampling = choice.best[:, :1]
        chooses_otherwise |= (choice.best != without_resampling).any()
    assert chooses_otherwise, (
        "no replicate chose otherwise, so that this test would pass without choosing again"
    )


# By hand


def test_each_rule_by_hand():
    """One target, b, and three variants of ft, where the pretrained model knows nothing."""
    # given these gains on a, c and d
    right_on_others = {
        # 100, 0 and 50 percent: RI 50
        "ft-lr1": {"a": [1, 1, 1, 1], "c": [0, 0, 0, 0, 0], "d": [1, 1, 0, 0]},
        # 25, 100 and 75 percent: RI 66.7
        "ft-lr2": {"a": [1, 0, 0, 0], "c": [1, 1, 1, 1, 1], "d": [1, 1, 1, 0]},
        # 0, 80 and 100 percent: RI 60
        "ft-lr3": {"a": [0, 0, 0, 0], "c": [1, 1, 1, 1, 0], "d": [1, 1, 1, 1]},
    }
    answers = {PRETRAINED: NOTHING_RIGHT}
    select_answers = {}
    for variant, right in right_on_others.items():
        answers[variant_state(variant, "b")] = {**right, "b": [1, 1, 1]}
        is_best_on_select = variant == "ft-lr3"
        select_answers[variant_state(variant, "none")] = {"b": [1, is_best_on_select, 0]}
    weights = np.ones((2, NUMBER_OF_OBJECTS), np.uint8)
    select = SelectSplits(counts_of(select_answers, {"b": OBJECTS["b"]}), weights)
    # when
    choice_of_rule = {}
    for rule in ("target", "leave_one_out", "oracle"):
        choices = choose(rule, counts_of(answers), weights, select, {"ft": [*right_on_others]})
        choice_of_rule[rule] = choices[trained("ft", "b")]
    # then the target takes lr3
    by_target = choice_of_rule["target"]
    assert by_target.best.tolist() == [[2, 2]]
    assert by_target.ri[0, 0] == pytest.approx(60)
    # and the oracle lr2
    by_oracle = choice_of_rule["oracle"]
    assert by_oracle.best.tolist() == [[1, 1]]
    assert by_oracle.ri[0, 0] == pytest.approx(200 / 3)
    # and a and c, by d alone, lr3, which gains 0 and 80 there; d, by a and c, takes lr2 (62.5
    # against 50 and 40), which gains 75 there
    left_one_out = choice_of_rule["leave_one_out"]
    assert left_one_out.best[:, 0].tolist() == [2, 2, 1]
    assert left_one_out.ri[0, 0] == pytest.approx((0 + 80 + 75) / 3)
    table = selection_table({trained("ft", "b"): left_one_out}, "leave_one_out", 0.95)
    assert table["chosen"].iloc[0] == "ft-lr3", "the choice of two of three datasets"


def test_leave_one_out_does_not_choose_by_what_shares_sources_with_the_target():
    """The target `a` shares its source images with `c`.

    `b` and `d` choose by each other alone, and `c` by both.
    """
    # given that the pretrained model knows nothing
    right_on_others = {
        # 100, 0 and 0 percent on b, c and d
        "ft-lr1": {"b": [1, 1, 1], "c": [0, 0, 0, 0, 0], "d": [0, 0, 0, 0]},
        # 0, 0 and 75 percent
        "ft-lr2": {"b": [0, 0, 0], "c": [0, 0, 0, 0, 0], "d": [1, 1, 1, 0]},
        # 0, 100 and 0 percent: the best only by c
        "ft-lr3": {"b": [0, 0, 0], "c": [1, 1, 1, 1, 1], "d": [0, 0, 0, 0]},
    }
    answers = {PRETRAINED: NOTHING_RIGHT}
    for variant, right in right_on_others.items():
        answers[variant_state(variant, "a")] = {**right, "a": [1, 1, 1, 1]}
    weights = np.ones((1, NUMBER_OF_OBJECTS), np.uint8)
    # when
    choices = choose(
        "leave_one_out", counts_of(answers), weights, variants={"ft": [*right_on_others]}
    )
    # then b, by d, takes lr2; c, by b and d, lr1; d, by b, lr1
    choice = choices[trained("ft", "a")]
    assert choice.best[:, 0].tolist() == [1, 0, 0]
    assert choice.ri[0, 0] == pytest.approx(0)


def test_a_replicate_that_draws_other_objects_chooses_another_variant():
    """Each variant knows one of two objects.

    RI of the choice is 100 in every replicate, of each variant alone 50 at most.
    """
    # given
    answers = {
        PRETRAINED: {"a": [0, 0], "b": [0]},
        variant_state("ft-lr1", "b"): {"a": [1, 0], "b": [1]},
        variant_state("ft-lr2", "b"): {"a": [0, 1], "b": [1]},
    }
    counts = counts_of(answers, {"a": [0, 1], "b": [2]})
    without_resampling = [1, 1, 1, 0, 0, 0, 0, 0]
    first_object_twice = [2, 0, 1, 0, 0, 0, 0, 0]
    second_object_twice = [0, 2, 1, 0, 0, 0, 0, 0]
    weights = np.array([without_resampling, first_object_twice, second_object_twice], np.uint8)
    # when
    choices = choose("oracle", counts, weights, variants={"ft": ["ft-lr1", "ft-lr2"]})
    # then
    choice = choices[trained("ft", "b")]
    assert choice.best.tolist() == [[0, 0, 1]]
    assert choice.ri.tolist() == [[50, 100, 100]]
    first_line = selection_table(choices, "oracle", 0.95).iloc[0]
    assert first_line["chosen"] == "ft-lr1"
    assert first_line["chosen_share"] == 50
    assert first_line["ri"] == 50


def test_equal_variants_go_to_the_first_of_the_grid_whatever_rounding_does():
    """Means of 0.1, 0.2 and 0.3 over seeds differ by their order."""
    gains_of_seeds = {"x": [0.1, 0.2, 0.3], "y": [0.3, 0.2, 0.1], "z": [0.2, 0.3, 0.1]}
    means = {np.mean(gains) for gains in gains_of_seeds.values()}
    assert len(means) > 1
    gains = {}
    for variant, of_seeds in gains_of_seeds.items():
        gains[trained(variant, "t")] = {"a": [np.array([gain]) for gain in of_seeds]}
    for order in itertools.permutations(gains_of_seeds):
        choices = choices_of(gains, {}, "oracle", {"ft": order}, {"a": "a", "t": "t"})
        assert choices[trained("ft", "t")].best.tolist() == [[0]]


def test_a_replicate_without_images_to_choose_by_has_no_ri():
    # given that no object of the select split is in the second replicate
    gains_of_replicates = [np.full(2, 5.0)]
    gains = {}
    for variant in ("x", "y"):
        gains[trained(variant, "t")] = {"a": gains_of_replicates, "b": gains_of_replicates}
    select = {
        trained("x", "t"): [np.array([1.0, np.nan])],
        trained("y", "t"): [np.array([2.0, np.nan])],
    }
    # when
    choices = choices_of(gains, select, "target", {"ft": ["x", "y"]}, {})
    # then
    choice = choices[trained("ft", "t")]
    assert choice.best[0, 0] == 1
    assert choice.ri[0].tolist() == pytest.approx([5, np.nan], nan_ok=True)


def test_the_table_has_the_accuracy_that_was_chosen_by_and_equal_variants():
    """Of three variants two are best on the select split; the first of the grid is taken."""
    accuracies = {"x": 80.0, "y": 90.0, "z": 90.0}
    gains = {}
    select = {}
    for variant, accuracy in accuracies.items():
        gains[trained(variant, "t")] = {"a": [np.full(2, 5.0)]}
        select[trained(variant, "t")] = [np.full(2, accuracy)]
    variants = {"ft": list(accuracies)}

    choices = choices_of(gains, select, "target", variants, {})
    line = selection_table(choices, "target", 0.95).iloc[0]
    assert line["chosen"] == "y"
    assert line["tied_with"] == "z"
    assert line["select_accuracy"] == 90

    choices = choices_of(gains, {}, "oracle", variants, {})
    line = selection_table(choices, "oracle", 0.95).iloc[0]
    assert np.isnan(line["select_accuracy"]), "nothing was held out"


# Intervals


def test_the_oracle_has_no_interval():
    """A choice by the very results that are scored has RI as an upper bound.

    It has no interval.
    """
    counts = counts_of(random_answers(0))
    choices = choose("oracle", counts, weights_for_every_dataset(0))
    table = selection_table(choices, "oracle", 0.95)
    assert table["ri"].notna().all()
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_intervals_over_three_seeds_are_no_narrower_than_over_objects_alone():
    """The choice is that of the mean over seeds.

    The variance of seeds is added to that of the replicates.
    """
    for random_seed in range(5):
        counts = counts_of(random_answers(random_seed, seeds=(0, 1, 2)))
        weights = weights_for_every_dataset(random_seed, replicates=400)
        choices = choose("leave_one_out", counts, weights)
        table = selection_table(choices, "leave_one_out", 0.95).set_index(["method", "target"])
        reach = table["ci_high"] - table["ri"]
        means_over_seeds = {}
        for key, choice in choices.items():
            assert choice.ri.shape == (3, len(weights))
            means_over_seeds[key] = choice.ri.mean(axis=0)
            observed, *of_replicates = means_over_seeds[key]
            assert table.loc[(key.method, key.target), "ri"] == pytest.approx(observed)
            narrowest = NORMAL_QUANTILE * np.std(of_replicates)
            assert reach[key.method, key.target] >= narrowest
        for method in VARIANTS:
            of_targets = [means_over_seeds[trained(method, target)] for target in TARGETS]
            _, *of_replicates = np.mean(of_targets, axis=0)
            assert reach[method, "mean"] >= NORMAL_QUANTILE * np.std(of_replicates)


# What a choice depends on


def assert_is_not_below(choice, other_choice):
    """RI of a choice, mean over seeds, is in no replicate below that of another."""
    ri = choice.ri.mean(axis=0)
    other_ri = other_choice.ri.mean(axis=0)
    assert (ri >= other_ri - 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_is_never_below_a_variant_or_another_rule(seed):
    # given
    counts = counts_of(random_answers(seed))
    weights = weights_for_every_dataset(seed)
    select = SelectSplits(counts_of(random_select_answers(seed), SELECT_OBJECTS), weights)
    # when
    by_oracle = choose("oracle", counts, weights)
    by_target = choose("target", counts, weights, select)
    # then
    assert by_target.keys() == by_oracle.keys()
    for key, choice in by_target.items():
        assert_is_not_below(by_oracle[key], choice)
    for variant in VARIANTS["ft"]:
        without_a_choice = choose("oracle", counts, weights, variants={"ft": [variant]})
        for target in TARGETS:
            key = trained("ft", target)
            assert_is_not_below(by_oracle[key], without_a_choice[key])


def test_what_the_target_chooses_does_not_depend_on_the_other_datasets():
    # given the same answers on the select splits, and others on the test images
    weights = weights_for_every_dataset(0)
    select = SelectSplits(counts_of(random_select_answers(9), SELECT_OBJECTS), weights)
    # when
    choices = choose("target", counts_of(random_answers(1)), weights, select)
    choices_of_others = choose("target", counts_of(random_answers(2)), weights, select)
    # then
    ri_differs = False
    for key, choice in choices.items():
        other_choice = choices_of_others[key]
        assert (choice.best == other_choice.best).all()
        ri_differs |= (choice.ri != other_choice.ri).any()
    assert ri_differs


def test_leak_free_excludes_from_choice_and_ri_what_shares_sources_with_the_target():
    """Target d; b has three objects, of which 3 is one of d's.

    Without it the second variant is best on b.
    """
    # given
    answers = {
        PRETRAINED: {"b": [0, 0, 0], "d": [0, 0, 0, 0]},
        variant_state("ft-lr1", "d"): {"b": [1, 1, 0], "d": [1, 1, 1, 1]},
        variant_state("ft-lr2", "d"): {"b": [0, 0, 1], "d": [1, 1, 1, 1]},
    }
    counts = counts_of(answers, {"b": [1, 3, 4], "d": [0, 1, 3, 5]})
    weights = np.ones((1, NUMBER_OF_OBJECTS))
    variants = {"ft": ["ft-lr1", "ft-lr2"]}
    key = trained("ft", "d")
    # when
    with_all_objects = choose("oracle", counts, weights, variants=variants)[key]
    leak_free = choose(
        "oracle", counts, weights, variants=variants, source_groups={"b": "g", "d": "g"}
    )[key]
    # then
    assert with_all_objects.best.item() == 0
    assert with_all_objects.ri.item() == pytest.approx(200 / 3)
    assert leak_free.best.item() == 1
    assert leak_free.ri.item() == 100


def without_variants(answers, variants):
    """The answers of all states but those of some variants."""
    return {
        state: of_datasets
        for state, of_datasets in answers.items()
        if state.run.method not in variants
    }


@pytest.mark.parametrize("rule", ["target", "leave_one_out", "oracle"])
def test_a_choice_is_among_the_variants_that_are_finished_if_there_are_two(rule):
    """As in a preview during a sweep.

    ft-lr1 is not evaluated, lora-rank2 not on the select split or not at all.
    """
    # given
    weights = np.ones((5, NUMBER_OF_OBJECTS))
    if rule == "target":
        counts = counts_of(without_variants(random_answers(0), ["ft-lr1"]))
        select_answers = without_variants(random_select_answers(50), ["lora-rank2"])
        select = SelectSplits(counts_of(select_answers, SELECT_OBJECTS), weights)
    else:
        counts = counts_of(without_variants(random_answers(0), ["ft-lr1", "lora-rank2"]))
        select = None
    finished_variants = ["ft-lr2", "ft-lr3"]
    # when
    choices = choose(rule, counts, weights, select)
    # then
    expected = choose(rule, counts, weights, select, variants={"ft": finished_variants})
    assert choices.keys() == {trained("ft", "b"), trained("ft", "d")}
    for key, choice in choices.items():
        assert choice.variants == finished_variants
        assert (choice.best == expected[key].best).all()
        assert (choice.ri == expected[key].ri).all()


# The rows of select splits


def test_select_splits_are_counted_together_and_drawn_apart_from_test_images(tmp_path):
    """Targets a and b have the same four objects, and the same predictions on each."""
    # given
    ranks_of_variant = {"x-1": [0, 0, 3, 3], "x-2": [0, 3, 3, 3]}
    index = pd.DataFrame({"object_id": ["w", "x", "y", "z"], "label": [0, 1, 2, 3]})
    indexes = []
    row_files = []
    for target in ("a", "b"):
        path = tmp_path / target / "32px/index.parquet"
        path.parent.mkdir(parents=True)
        index.assign(photo_sha256=target + index["object_id"]).to_parquet(path)
        indexes.append(path)
        for variant, ranks in ranks_of_variant.items():
            columns = {
                "model": "m",
                "method": variant,
                "target": target,
                "size": "all",
                "seed": 0,
                "alpha": np.nan,
                "dataset": target,
                "row": range(4),
                "rank": ranks,
            }
            row_files += write_rows(tmp_path, pd.DataFrame(columns))
    # when
    replicates = 50
    seed = 3
    accuracies = select_accuracies(RowFiles(row_files, indexes), replicates, seed)
    # then
    accuracy_of = {}
    for key, accuracies_of_seeds in accuracies.items():
        (accuracy_of[key],) = accuracies_of_seeds
    observed = {key: accuracy[0] for key, accuracy in accuracy_of.items()}
    assert observed == {
        trained("x-1", "a"): 50,
        trained("x-2", "a"): 25,
        trained("x-1", "b"): 50,
        trained("x-2", "b"): 25,
    }
    for variant in ranks_of_variant:
        on_a = accuracy_of[trained(variant, "a")]
        on_b = accuracy_of[trained(variant, "b")]
        assert on_a.tolist() == on_b.tolist()
        assert len(on_a) == 1 + replicates
    # x-1 is right on the first two of four objects
    draws_of_test_objects = object_weights(4, replicates, seed)
    accuracy_with_these_draws = 100 / 4 * draws_of_test_objects[:, :2].sum(axis=1)
    assert (accuracy_of[trained("x-1", "a")] != accuracy_with_these_draws).any()


# The table and the page


def fit_of_runs(model):
    """The fit of a model's runs: those on `b` are underfitted, those on `d` differ by seed."""
    lines = []
    for variant, target, seed in itertools.product(ALL_VARIANTS, TARGETS, (0, 1)):
        if target == "b":
            fit = 90.0
            underfitted = "yes"
        else:
            fit = 100.0 - 10 * seed
            underfitted = "no"
        lines.append((model, variant, target, "all", seed, fit, underfitted))
    columns = ["model", "method", "target", "size", "seed", "fit", "underfitted"]
    return pd.DataFrame(lines, columns=columns)


def with_a_twin(counts):
    """Counts in which another model, `n`, has the answers of `m`."""
    states_of_twin = []
    for state in counts.states:
        states_of_twin.append(replace(state, run=replace(state.run, model="n")))
    return replace(
        counts,
        states=[*counts.states, *states_of_twin],
        correct={
            dataset: np.concatenate([correct, correct])
            for dataset, correct in counts.correct.items()
        },
    )


def test_the_table_has_each_models_choices_and_the_fit_of_what_was_chosen(tmp_path):
    # given
    write_counts(with_a_twin(counts_of(random_answers(0))), tmp_path / "counts.npz")
    statistics = RIStatistics(
        ood_datasets=list(OBJECTS),
        source_groups=None,
        replicates=100,
        confidence=0.95,
        seed=0,
    )
    # when the table is made twice
    first_file = tmp_path / "first.csv"
    second_file = tmp_path / "second.csv"
    for file in (first_file, second_file):
        write(
            select_variants,
            counts=tmp_path / "counts.npz",
            select_files=RowFiles(rows=[], indexes=[]),
            ri=statistics,
            rule="oracle",
            variants=VARIANTS,
            groups=GROUPS,
            conditions="c",
            table=file,
            fit_of_runs=pd.concat([fit_of_runs("m"), fit_of_runs("n")]),
        )
    # then
    assert first_file.read_bytes() == second_file.read_bytes()
    table = pd.read_csv(first_file)
    expected_keys = itertools.product(["m", "n"], ["ft", "lora"], ["b", "d", "mean"])
    keys = table[["model", "method", "target"]].itertuples(index=False, name=None)
    assert list(keys) == list(expected_keys)
    assert set(table["rule"]) == {"oracle (upper bound)"}
    assert set(table.loc[table["method"] == "ft", "variants"]) == {3}
    assert set(table.loc[table["method"] == "lora", "variants"]) == {2}

    on_b = table[table["target"] == "b"]
    on_d = table[table["target"] == "d"]
    means = table[table["target"] == "mean"]
    assert set(on_b["fit"]) == {90}
    assert set(on_d["fit"]) == {95}, "the mean over seeds"
    assert means["fit"].isna().all()
    assert set(on_b["underfitted"]) == {2}
    assert set(on_d["underfitted"]) == set(means["underfitted"]) == {0}

    mean_of_targets = (on_b["ri"].to_numpy() + on_d["ri"].to_numpy()) / 2
    np.testing.assert_allclose(means["ri"], mean_of_targets, atol=1e-5)
    assert means[["chosen", "chosen_share"]].isna().all(axis=None)
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_the_page_has_labels_of_the_method_and_of_its_variants(tmp_path):
    # given a choice on one target, and the mean over targets
    on_target = {
        "model": "m",
        "method": "ft",
        "rule": "oracle (upper bound)",
        "size": "all",
        "target": "b",
        "chosen": "ft-lr1",
        "tied_with": None,
        "select_accuracy": 91.0,
        "chosen_share": 87.5,
        "variants": 3,
        "ri": 1.0,
        "ci_low": 0.5,
        "ci_high": 2.0,
        "fit": 90.0,
        "underfitted": 1,
    }
    without_choice = {"chosen": None, "select_accuracy": None, "chosen_share": None}
    mean = {**on_target, **without_choice, "target": "mean", "underfitted": 0}
    pd.DataFrame([on_target, mean]).to_csv(tmp_path / "selection.csv", index=False)
    about = {
        "models": {},
        "methods": {"ft": {"label": "full"}, "ft-lr1": {"label": "full, lr 1"}},
        "datasets": {"b": {"label": "B"}},
        "config": {"seeds": [0, 1], "statistics": {"confidence": 0.95}},
        "sizes": ["all", "10"],
    }
    # when
    settings = {"selection": shown(tmp_path / "selection.csv", SELECTION)}
    (table_on_page,) = page_tables(settings, description(about))
    # then
    row_on_target, row_of_mean = table_on_page.rows
    texts_on_target = {text for text, _ in row_on_target}
    assert {"full †", "B", "full, lr 1", "91.0", "+0.5 to +2.0"} <= texts_on_target
    texts_of_mean = [text for text, _ in row_of_mean]
    text_of_column = dict(zip(table_on_page.header, texts_of_mean, strict=True))
    assert text_of_column["Target"] == "mean"
    assert text_of_column["Chosen"] == "\N{EN DASH}"


# Config


SWEEP = {"method_settings": {"lora": {"rank": [4, 8]}}, "methods": ["lora"]}


def test_variants_are_those_of_one_entry_by_setting_recipe_or_parent_and_no_curve():
    by_setting = grid(
        select="oracle",
        methods=["ft", "linear_probe", "wise_ft", "wise_ft_curve"],
        method_settings={"ft": {"lr": [0.1, 0.2]}, "wise_ft": {"alpha": 0.5}},
    )
    assert by_setting.selection.variants == {
        "ft": ["ft-lr0.1", "ft-lr0.2"],
        "wise_ft": ["wise_ft-lr0.1", "wise_ft-lr0.2"],
    }
    methods_of_grid = {method.base for method in by_setting.methods.values()}
    assert {"ft", "wise_ft_curve"} <= methods_of_grid

    by_recipe = grid(select="oracle", recipes=["adamw", "paper"], methods=["linear_probe"])
    assert by_recipe.selection.variants == {"linear_probe": ["linear_probe", "linear_probe-paper"]}


def test_datasets_that_share_source_images_have_one_group():
    sweep = grid(select="leave_one_out", **SWEEP)
    groups = sweep.selection.groups
    assert list(groups) == sweep.ood
    assert groups["noto"] == "noto"
    assert groups["fluent_flat"] == groups["fluent_3d"] == source_groups(sweep)["fluent_3d"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"select": "oracle", "methods": ["ft", "linear_probe"]},
            "config, select: no method .* several variants",
        ),
        ({"select": "target", **SWEEP}, "config, select: target .* protocol paper .* held_out"),
        (
            {
                "select": "leave_one_out",
                **SWEEP,
                "datasets": ["noto", "twemoji"],
                "targets": ["noto"],
            },
            "config, select: for target 'noto' and dataset 'twemoji', leave_one_out",
        ),
    ],
)
def test_choices_that_cannot_be_made_are_refused(choices, message):
    with pytest.raises(UserError, match=message):
        grid(**choices)
