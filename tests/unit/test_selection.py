"""The choice of a sweep's variant: by hand, and against plain loops over images.

What config refuses is tested, too.
"""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.selection.settings import VariantChoiceSettings
from rib.analyses.selection.tables import (
    Trained,
    choices_of,
    gains_of,
    select_accuracies,
    select_variants,
    selection_table,
)
from rib.analysis.bootstrap import object_weights
from rib.analysis.counts import ALL_INDICES, Counts, RowFiles, write_counts
from rib.analysis.settings import RIStatistics
from rib.base.errors import UserError
from rib.reporting.page import page_tables
from tiny.analyses import DESCRIPTIONS
from tiny.descriptions import description
from tiny.grids import grid
from tiny.rows import write_rows
from tiny.states import state_of
from tiny.tables import write

VARIANTS = {"ft": ["ft-lr1", "ft-lr2", "ft-lr3"], "lora": ["lora-rank1", "lora-rank2"]}
NAMES = [name for own in VARIANTS.values() for name in own]
DATASETS = {"a": [0, 1, 2, 3], "b": [2, 3, 4], "c": [0, 4, 5, 6, 7], "d": [1, 3, 5, 7]}  # objects
GROUPS = {
    "a": "g",
    "b": "b",
    "c": "g",
    "d": "d",
}  # `a` and `c` share source images, so neither chooses for the other
TARGETS = ["b", "d"]
OTHERS = {
    "b": {"a": ["d"], "c": ["d"], "d": ["a", "c"]},
    "d": {"a": ["b"], "b": ["a", "c"], "c": ["b"]},
}
PRETRAINED = ("m", "pretrained", "none", "all", 0, None)


def counts_of(correct, datasets=DATASETS):
    """Counts of one image per object from {state: {dataset: 0 or 1 per object}}."""
    states = sorted(correct, key=str)
    return Counts(
        states=[state_of(*values) for values in states],
        datasets=list(datasets),
        objects=8,
        object_indices={name: np.array(objects) for name, objects in datasets.items()},
        labels={name: np.zeros(len(objects), int) for name, objects in datasets.items()},
        images={name: np.ones(len(objects), np.uint16) for name, objects in datasets.items()},
        correct={
            name: np.array([correct[state][name] for state in states], np.uint16)
            for name in datasets
        },
    )


def drawn(seed, datasets=DATASETS, targets=TARGETS, seeds=(0, 1)):
    """Random right and wrong predictions of all states."""
    rng = np.random.default_rng(seed)
    runs = [
        PRETRAINED,
        *(("m", *run, None) for run in itertools.product(NAMES, targets, ["all"], seeds)),
    ]
    return {
        run: {name: rng.integers(0, 2, len(objects)) for name, objects in datasets.items()}
        for run in runs
    }


def accuracy(right, objects, weights):
    """In percent, one image after the other."""
    shown = sum(int(weights[place]) for place in objects)
    return (
        100
        * sum(int(weights[place]) * int(hit) for place, hit in zip(objects, right, strict=True))
        / shown
    )


def slow(correct, weights, rule, names, target, select=None, select_weights=None, seeds=(0, 1)):
    """Chosen variant of each dataset and RI in one replicate; None if undefined.

    They are computed by loops over the definitions.
    """
    others = [name for name in DATASETS if name != target]

    def on(state, name):
        return accuracy(correct[state][name], DATASETS[name], weights)

    def gain(variant, name):
        return sum(on(("m", variant, target, "all", s, None), name) for s in seeds) / len(
            seeds
        ) - on(PRETRAINED, name)

    def score(variant, scored):
        if rule == "target":
            runs = [select[("m", variant, "none", "all", s, None)][target] for s in seeds]
            return sum(accuracy(right, DATASETS[target], select_weights) for right in runs) / len(
                seeds
            )
        by = OTHERS[target][scored] if rule == "leave_one_out" else others
        return sum(gain(variant, name) for name in by) / len(by)

    chosen = {}
    for name in others:
        best = names[0]
        for variant in names[1:]:
            if score(variant, name) > score(best, name) + 1e-7:
                best = variant
        chosen[name] = best
    return chosen, sum(gain(chosen[name], name) for name in others) / len(others)


def chosen_by(
    rule, counts, weights, select=None, variants=VARIANTS, groups=GROUPS, source_groups=None
):
    """Choices by method and target, all of one size.

    `select` has counts and weights of the select splits.
    """
    held_out = {}
    for target in select[0].datasets if select else ():
        for state, own in zip(
            select[0].states,
            select[0].accuracy_on(target, select[1], ALL_INDICES, ALL_INDICES).T,
            strict=True,
        ):
            held_out.setdefault(
                Trained(state.run.model, state.run.method, "all", target), []
            ).append(own)
    gains = gains_of(counts, weights, counts.datasets, source_groups)
    found = choices_of(gains, held_out, rule, variants, groups)
    return {(method, target): choice for (_, method, _, target), choice in found.items()}


def full_weights(seed, replicates=40):
    """Bootstrap weights with which every dataset keeps an object."""
    weights = object_weights(8, replicates, seed)
    kept = [all(row[objects].sum() for objects in DATASETS.values()) for row in weights]
    return weights[kept]


@pytest.mark.parametrize("rule", ["target", "leave_one_out", "oracle"])
@pytest.mark.parametrize("seed", range(3))
def test_every_replicate_chooses_as_plain_loops_do(rule, seed):
    correct, weights, other = drawn(seed), full_weights(seed), full_weights(seed + 100)
    n = min(len(weights), len(other))
    weights, other = weights[:n], other[:n]
    held_out = drawn(seed + 50, {name: DATASETS[name] for name in TARGETS}, targets=["none"])
    select = counts_of(held_out, {name: DATASETS[name] for name in TARGETS})
    found = chosen_by(rule, counts_of(correct), weights, (select, other))
    assert list(found) == [(method, target) for method in VARIANTS for target in TARGETS]
    again = 0
    for (method, target), (best, ris, *_) in found.items():
        names = VARIANTS[method]
        for row in range(n):
            chosen, ri = slow(correct, weights[row], rule, names, target, held_out, other[row])
            assert [names[i] for i in np.broadcast_to(best[:, row], len(chosen))] == list(
                chosen.values()
            )
            assert ris[:, row].mean() == pytest.approx(ri)
        again += (best != best[:, :1]).any()
    assert again, (
        "no replicate chose otherwise, so that this test would pass without choosing again"
    )


def test_each_rule_by_hand():
    """One target, b, and three variants of ft.

    Accuracies are in percent of a (4 images), c (5) and d (4); the pretrained model's are 0.
    """
    right = {  # correct on a, c, d: RI
        "ft-lr1": ([1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0]),  # 100, 0, 50: 50
        "ft-lr2": ([1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0]),  # 25, 100, 75: 66.7
        "ft-lr3": ([0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1]),  # 0, 80, 100: 60
    }
    correct = {PRETRAINED: {"a": [0] * 4, "b": [0] * 3, "c": [0] * 5, "d": [0] * 4}}
    for name, (a, c, d) in right.items():
        correct["m", name, "b", "all", 0, None] = {"a": a, "b": [1, 1, 1], "c": c, "d": d}
    held_out = {
        ("m", name, "none", "all", 0, None): {"b": [1, name == "ft-lr3", 0]} for name in right
    }
    select = counts_of(held_out, {"b": DATASETS["b"]})
    weights = np.ones((2, 8), np.uint8)
    own = {"variants": {"ft": list(right)}, "select": (select, weights)}
    found = {
        rule: chosen_by(rule, counts_of(correct), weights, **own)["ft", "b"]
        for rule in ("target", "leave_one_out", "oracle")
    }
    assert (found["target"][0].tolist(), found["target"][1][0, 0]) == ([[2, 2]], pytest.approx(60))
    assert (found["oracle"][0].tolist(), found["oracle"][1][0, 0]) == (
        [[1, 1]],
        pytest.approx(200 / 3),
    )
    # a and c by d alone: lr3 (0 and 80 there); d by a and c: lr2 (62.5 against 50 and 40), 75 there
    assert found["leave_one_out"][0][:, 0].tolist() == [2, 2, 1]
    assert found["leave_one_out"][1][0, 0] == pytest.approx((0 + 80 + 75) / 3)
    table = selection_table(
        {Trained("m", "ft", "all", "b"): found["leave_one_out"]}, "leave_one_out", 0.95
    )
    assert table["chosen"].tolist()[0] == "ft-lr3", "the choice of two of three datasets"


def test_leave_one_out_does_not_choose_by_what_shares_sources_with_the_target():
    """The target `a` shares its source images with `c`.

    `b` and `d` choose by each other alone, and `c` by both.
    """
    # given: percent right on b, c and d; the pretrained model knows nothing
    right = {
        "ft-lr1": ([1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0]),  # 100, 0, 0
        "ft-lr2": ([0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0]),  # 0, 0, 75
        "ft-lr3": ([0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0]),  # 0, 100, 0: the best only by c
    }
    correct = {PRETRAINED: {"a": [0] * 4, "b": [0] * 3, "c": [0] * 5, "d": [0] * 4}}
    for name, (b, c, d) in right.items():
        correct["m", name, "a", "all", 0, None] = {"a": [1] * 4, "b": b, "c": c, "d": d}
    # when
    choice = chosen_by(
        "leave_one_out", counts_of(correct), np.ones((1, 8), np.uint8), variants={"ft": list(right)}
    )
    # then: b by d takes lr2, c by b and d lr1, d by b lr1
    best, ri, *_ = choice["ft", "a"]
    assert best[:, 0].tolist() == [1, 0, 0]
    assert ri[0, 0] == pytest.approx(0)


def test_a_replicate_that_draws_other_objects_chooses_another_variant():
    """Each variant knows one of two objects.

    RI of the choice is 100 in every replicate, of each variant alone 50 at most.
    """
    correct = {PRETRAINED: {"a": [0, 0], "b": [0]}}
    for name, right in (("ft-lr1", [1, 0]), ("ft-lr2", [0, 1])):
        correct["m", name, "b", "all", 0, None] = {"a": right, "b": [1]}
    counts = counts_of(correct, {"a": [0, 1], "b": [2]})
    weights, variants = (
        np.array([[1, 1, 1], [2, 0, 1], [0, 2, 1]], np.uint8),
        {"ft": ["ft-lr1", "ft-lr2"]},
    )
    choice = chosen_by("oracle", counts, weights, variants=variants)["ft", "b"]
    best, ri, *_ = choice
    assert best.tolist() == [[0, 0, 1]] and ri.tolist() == [[50, 100, 100]]
    line = selection_table({Trained("m", "ft", "all", "b"): choice}, "oracle", 0.95).iloc[0]
    assert (line["chosen"], line["chosen_share"], line["ri"]) == ("ft-lr1", 50, 50)


def test_equal_variants_go_to_the_first_of_the_grid_whatever_rounding_does():
    """Means of 0.1, 0.2 and 0.3 over seeds differ by their order."""
    seeds = {"x": [0.1, 0.2, 0.3], "y": [0.3, 0.2, 0.1], "z": [0.2, 0.3, 0.1]}
    assert len({np.mean(values) for values in seeds.values()}) > 1
    gains = {
        Trained("m", name, "all", "t"): {"a": [np.array([value]) for value in own]}
        for name, own in seeds.items()
    }
    for order in itertools.permutations(seeds):
        ((best, *_),) = choices_of(
            gains, {}, "oracle", {"ft": order}, {"a": "a", "t": "t"}
        ).values()
        assert best.tolist() == [[0]]


def test_a_replicate_without_images_to_choose_by_has_no_ri():
    keys = [Trained("m", name, "all", "t") for name in ("x", "y")]
    gains = {key: {name: [np.full(2, 5.0)] for name in "ab"} for key in keys}
    select = {key: [np.array([score, np.nan])] for key, score in zip(keys, (1.0, 2.0), strict=True)}
    ((best, ri, *_),) = choices_of(gains, select, "target", {"ft": ["x", "y"]}, {}).values()
    assert best[0, 0] == 1 and ri[0].tolist() == pytest.approx([5, np.nan], nan_ok=True)


def test_the_table_has_the_accuracy_that_was_chosen_by_and_equal_variants():
    """Of three variants two are best on the select split; the first of the grid is taken."""
    names, accuracies = ["x", "y", "z"], [80.0, 90.0, 90.0]
    gains = {Trained("m", name, "all", "t"): {"a": [np.full(2, 5.0)]} for name in names}
    select = {
        Trained("m", name, "all", "t"): [np.full(2, value)]
        for name, value in zip(names, accuracies, strict=True)
    }
    choices = choices_of(gains, select, "target", {"ft": names}, {})
    line = selection_table(choices, "target", 0.95).iloc[0]
    assert (line["chosen"], line["tied_with"], line["select_accuracy"]) == ("y", "z", 90)
    line = selection_table(choices_of(gains, {}, "oracle", {"ft": names}, {}), "oracle", 0.95).iloc[
        0
    ]
    assert np.isnan(line["select_accuracy"]), "nothing was held out"


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2)])
def test_the_oracle_has_no_interval(seeds):
    """A choice by the very results that are scored has RI as an upper bound.

    It has no interval.
    """
    counts, weights = counts_of(drawn(0, seeds=seeds)), full_weights(0)
    choices = {
        Trained("m", method, "all", target): one
        for (method, target), one in chosen_by("oracle", counts, weights).items()
    }
    table = selection_table(choices, "oracle", 0.95)
    assert table["ri"].notna().all() and table[["ci_low", "ci_high"]].isna().all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize(
    "levels", [(0, 0, 0), (0,) * 8, (0, 0.3, 0.6)], ids=["3 equal", "8 equal", "3 apart"]
)
def test_why_the_oracle_has_no_interval(levels, seeds):
    """Percentile intervals of the chosen variant's accuracy, over 200 objects.

    The truth is that of the best variant. They hold it often enough only where the variants are far
    apart, which a user cannot know.
    """
    rng, simulated, objects = np.random.default_rng(0), 500, 200
    weights = object_weights(objects, 500, 0).astype(np.float32).T / objects
    true, covered = 100 * stats.norm.cdf(max(levels) / np.sqrt(2.25)), 0
    for _ in range(simulated):
        ability = rng.normal(size=objects) + 0.5 * rng.normal(size=(len(levels), 1, objects))
        noise = rng.normal(size=(len(levels), seeds, objects))
        right = 100.0 * (np.array(levels)[:, None, None] + ability + noise > 0)
        means = (right.astype(np.float32) @ weights).mean(axis=1)
        low, high = np.percentile(means.max(axis=0)[1:], [2.5, 97.5])
        covered += low <= true <= high
    print(f"{levels}, {seeds} seeds: {covered / simulated:.3f}")
    assert (covered / simulated > 0.91) == (len(set(levels)) == 3)


@pytest.mark.parametrize("rule", ["leave_one_out"])
def test_intervals_over_three_seeds_are_no_narrower_than_over_objects_alone(rule):
    """The choice is that of the mean over seeds.

    The variance of seeds is added to that of the replicates.
    """
    for number in range(5):
        counts, weights = counts_of(drawn(number, seeds=(0, 1, 2))), full_weights(number, 400)
        found = chosen_by(rule, counts, weights)
        choices = {
            Trained("m", method, "all", target): choice
            for (method, target), choice in found.items()
        }
        table = selection_table(choices, rule, 0.95).set_index(["method", "target"])
        for key, (_, ri, *_) in found.items():
            assert ri.shape == (3, len(weights)) and table.loc[key, "ri"] == pytest.approx(
                ri[:, 0].mean()
            )
            of_objects = ri[:, 1:].mean(axis=0).std()
            assert table.loc[key, "ci_high"] - table.loc[key, "ri"] >= 1.95 * of_objects
        means = [
            np.mean(
                [ri[:, 1:].mean(axis=0) for (own, _), (_, ri, *_) in found.items() if own == m],
                axis=0,
            )
            for m in VARIANTS
        ]
        reach = (table["ci_high"] - table["ri"]).xs("mean", level="target")
        assert (reach.to_numpy() >= 1.95 * np.std(means, axis=1)).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_is_never_below_a_variant_or_another_rule(seed):
    correct, weights = drawn(seed), full_weights(seed)
    counts = counts_of(correct)
    held_out = counts_of(
        drawn(seed, {n: DATASETS[n] for n in TARGETS}, ["none"]), {n: DATASETS[n] for n in TARGETS}
    )
    best = chosen_by("oracle", counts, weights)
    for key, (_, ri, *_) in chosen_by("target", counts, weights, (held_out, weights)).items():
        assert (best[key][1].mean(axis=0) >= ri.mean(axis=0) - 1e-9).all()
    for name in VARIANTS["ft"]:
        for key, (_, ri, *_) in chosen_by(
            "oracle", counts, weights, variants={"ft": [name]}
        ).items():
            assert (best[key][1].mean(axis=0) >= ri.mean(axis=0) - 1e-9).all()


def test_what_the_target_chooses_does_not_depend_on_the_other_datasets():
    held_out = counts_of(
        drawn(9, {n: DATASETS[n] for n in TARGETS}, ["none"]), {n: DATASETS[n] for n in TARGETS}
    )
    weights = full_weights(0)
    one, two = (
        chosen_by("target", counts_of(drawn(seed)), weights, (held_out, weights)) for seed in (1, 2)
    )
    assert all((one[key][0] == two[key][0]).all() for key in one)
    assert any((one[key][1] != two[key][1]).any() for key in one)


def test_leak_free_excludes_from_choice_and_ri_what_shares_sources_with_the_target():
    """Target d; b has three objects, of which 3 is one of d's.

    Without it the second variant is best on b.
    """
    correct = {PRETRAINED: {"b": [0, 0, 0], "d": [0] * 4}}
    for name, right in (("ft-lr1", [1, 1, 0]), ("ft-lr2", [0, 0, 1])):
        correct["m", name, "d", "all", 0, None] = {"b": right, "d": [1] * 4}
    counts = counts_of(correct, {"b": [1, 3, 4], "d": [0, 1, 3, 5]})
    how = {"weights": np.ones((1, 8)), "variants": {"ft": ["ft-lr1", "ft-lr2"]}}
    ((best, ri, *_),) = chosen_by("oracle", counts, **how).values()
    assert (best.item(), ri.item()) == (0, pytest.approx(200 / 3))
    ((best, ri, *_),) = chosen_by(
        "oracle", counts, **how, source_groups={"b": "g", "d": "g"}
    ).values()
    assert (best.item(), ri.item()) == (1, 100)


def test_methods_that_a_model_does_not_have_are_left_out():
    correct = {state: right for state, right in drawn(0).items() if not state[1].startswith("lora")}
    assert {method for method, _ in chosen_by("oracle", counts_of(correct), full_weights(0))} == {
        "ft"
    }


@pytest.mark.parametrize("rule", ["target", "leave_one_out", "oracle"])
def test_a_choice_is_among_the_variants_that_are_finished_if_there_are_two(rule):
    """As in a preview during a sweep.

    ft-lr1 is not evaluated, lora-rank2 not on the select split or not at all.
    """
    # given
    lacking = ["ft-lr1"] if rule == "target" else ["ft-lr1", "lora-rank2"]
    correct = {state: right for state, right in drawn(0).items() if state[1] not in lacking}
    held_out = drawn(50, {name: DATASETS[name] for name in TARGETS}, targets=["none"])
    scored = {state: right for state, right in held_out.items() if state[1] != "lora-rank2"}
    select = (counts_of(scored, {name: DATASETS[name] for name in TARGETS}), np.ones((5, 8)))
    # when
    found = chosen_by(
        rule, counts_of(correct), np.ones((5, 8)), select if rule == "target" else None
    )
    # then
    finished = {"ft": ["ft-lr2", "ft-lr3"]}
    whole = chosen_by(
        rule, counts_of(correct), np.ones((5, 8)), select if rule == "target" else None, finished
    )
    assert found.keys() == {("ft", "b"), ("ft", "d")}
    for key, choice in found.items():
        assert choice.variants == finished["ft"] and (choice.best == whole[key].best).all()
        assert (choice.ri == whole[key].ri).all()


def test_select_splits_are_counted_together_and_drawn_apart_from_test_images(tmp_path):
    """Targets a and b have the same four objects, and the same predictions on each."""
    paths = []
    index = pd.DataFrame({"object_id": list("wxyz"), "label": [0, 1, 2, 3]})
    for target, (name, right) in itertools.product(
        "ab", {"x-1": [0, 0, 3, 3], "x-2": [0, 3, 3, 3]}.items()
    ):
        run = {
            "model": "m",
            "method": name,
            "target": target,
            "size": "all",
            "seed": 0,
            "alpha": np.nan,
        }
        paths += write_rows(
            tmp_path, pd.DataFrame({**run, "dataset": target, "row": range(4), "rank": right})
        )
        (tmp_path / target / "32px").mkdir(parents=True, exist_ok=True)
        index.to_parquet(tmp_path / target / "32px/index.parquet")
    files = RowFiles(rows=paths, indexes=sorted(tmp_path.glob("*/*/index.parquet")))
    found = select_accuracies(files, 50, 3)
    observed = {key[1::2]: own[0] for key, (own,) in found.items()}
    assert observed == {("x-1", "a"): 50, ("x-2", "a"): 25, ("x-1", "b"): 50, ("x-2", "b"): 25}
    for name in ("x-1", "x-2"):
        one, two = (found["m", name, "all", target][0] for target in "ab")
        assert one.tolist() == two.tolist() and len(one) == 51
    assert (
        found["m", "x-1", "all", "a"][0] != 25 * object_weights(4, 50, 3)[:, :2].sum(axis=1)
    ).any()


FIT = pd.DataFrame(
    [
        (
            "m",
            name,
            target,
            "all",
            seed,
            90.0 if target == "b" else 100.0 - 10 * seed,
            "yes" if target == "b" else "no",
        )
        for name in NAMES
        for target in TARGETS
        for seed in (0, 1)
    ],
    columns=["model", "method", "target", "size", "seed", "fit", "unfinished"],
)


def test_the_table_has_each_models_choices_and_the_fit_of_what_was_chosen(tmp_path):
    counts = counts_of(drawn(0))
    states_of_n = [replace(state, run=replace(state.run, model="n")) for state in counts.states]
    twin = replace(counts, states=[*counts.states, *states_of_n])
    twin = replace(
        twin, correct={name: np.concatenate([right] * 2) for name, right in counts.correct.items()}
    )
    write_counts(twin, tmp_path / "counts.npz")
    fit = pd.concat([FIT, FIT.assign(model="n")])
    settings = VariantChoiceSettings(
        ri=RIStatistics(
            ood_datasets=list(DATASETS),
            source_groups=None,
            replicates=100,
            confidence=0.95,
            seed=0,
        ),
        choose_by="oracle",
        variants=VARIANTS,
        groups=GROUPS,
        conditions="c",
        code="",
    )
    written = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for path in written:
        write(
            select_variants,
            counts=tmp_path / "counts.npz",
            select_files=RowFiles(rows=[], indexes=[]),
            settings=settings,
            conditions=settings.conditions,
            table=path,
            fit_of_runs=fit,
        )
    assert written[0].read_bytes() == written[1].read_bytes()
    table = pd.read_csv(written[0])
    key = ["model", "method", "target"]
    assert table[key].to_numpy().tolist() == [
        [model, method, target]
        for model in "mn"
        for method in VARIANTS
        for target in ("b", "d", "mean")
    ]
    assert (
        set(table["rule"]) == {"oracle (upper bound)"}
        and table["variants"].tolist() == [3, 3, 3, 2, 2, 2] * 2
    )
    assert (
        table["fit"].fillna(0).tolist() == [90, 95, 0] * 4
        and table["unfinished"].tolist() == [2, 0, 0] * 4
    )
    ri = table["ri"].to_numpy().reshape(-1, 3)
    np.testing.assert_allclose(ri[:, 2], ri[:, :2].mean(axis=1), atol=1e-5)
    assert table.loc[table["target"] == "mean", ["chosen", "chosen_share"]].isna().all(axis=None)
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_the_page_has_labels_of_the_method_and_of_its_variants(tmp_path):
    line = {
        "model": "m",
        "rule": "oracle (upper bound)",
        "size": "all",
        "target": "b",
        "chosen": "ft-lr1",
    }
    line |= {
        "method": "ft",
        "select_accuracy": 91.0,
        "tied_with": None,
        "chosen_share": 87.5,
        "variants": 3,
        "ri": 1.0,
        "ci_low": 0.5,
        "ci_high": 2.0,
    }
    lines = [
        line,
        {**line, "target": "mean", "chosen": None, "select_accuracy": None, "chosen_share": None},
    ]
    pd.DataFrame(lines).assign(fit=90.0, unfinished=[1, 0]).to_csv(
        tmp_path / "selection.csv", index=False
    )
    about = {"methods": {"ft": {"label": "full"}, "ft-lr1": {"label": "full, lr 1"}}}
    about |= {
        "models": {},
        "datasets": {"b": {"label": "B"}},
        "config": {"seeds": [0, 1], "statistics": {"confidence": 0.95}},
        "sizes": ["all", "10"],
    }
    (shown,) = page_tables(
        {"selection": tmp_path / "selection.csv"},
        DESCRIPTIONS,
        description(about),
    )
    first, mean = ([text for text, _ in row] for row in shown.rows)
    assert first[:7] == ["m", "full †", "oracle (upper bound)", "all", "B", "full, lr 1", "91.0"]
    assert first[7:] == ["87.5", "3", "+1.0", "+0.5 to +2.0", "90.0"]
    assert mean[4:7] == ["mean", *["\N{EN DASH}"] * 2]


SWEEP = {"method_settings": {"lora": {"rank": [4, 8]}}, "methods": ["lora"]}


def test_variants_are_those_of_one_entry_by_setting_recipe_or_parent_and_no_curve():
    rates = {"ft": {"lr": [0.1, 0.2]}, "wise_ft": {"alpha": 0.5}}
    chosen = grid(
        select="oracle",
        methods=["ft", "linear_probe", "wise_ft", "wise_ft_curve"],
        method_settings=rates,
    )
    assert chosen.selection.variants == {
        "ft": ["ft-lr0.1", "ft-lr0.2"],
        "wise_ft": ["wise_ft-lr0.1", "wise_ft-lr0.2"],
    }
    by_recipe = grid(
        select="oracle", recipes=["adamw", "paper"], methods=["linear_probe"]
    ).selection.variants
    assert by_recipe == {"linear_probe": ["linear_probe", "linear_probe-paper"]}
    assert grid().selection is None and {method.base for method in chosen.methods.values()} >= {
        "ft",
        "wise_ft_curve",
    }


def test_datasets_that_share_source_images_have_one_group():
    chosen = grid(select="leave_one_out", **SWEEP)
    groups = chosen.selection.groups
    assert list(groups) == chosen.ood and groups["noto"] == "noto"
    assert groups["fluent_flat"] == groups["fluent_3d"] == chosen.source_groups()["fluent_3d"]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"select": "oracle", "methods": ["ft", "linear_probe"]},
            "config, select: no method .* several variants",
        ),
        (
            {"select": "oracle", "methods": ["wise_ft_curve"]},
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
        ({"select": "best"}, "config.yaml: 'select' is 'best'"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(choices, said):
    with pytest.raises(UserError, match=said):
        grid(**choices)
