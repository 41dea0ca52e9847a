"""The answer of a run, from invented tables: a sentence is there only where its table has it."""

import dataclasses

import pandas as pd
import pytest

from rib.reporting import answer as sentences
from rib.reporting.answer import AnswerNames, AnswerTables

MINUS = "\N{MINUS SIGN}"
NAMES = AnswerNames(
    models={"small": "Small", "large": "Large", "third": "Third", "fourth": "Fourth"},
    methods={"ft": "full fine-tuning", "lp": "linear probing", "half": "WiSE-FT", "own": "own"},
    averages={"half": "ft"},
    target_was_trained_on=False,
)


def mri(*rows):
    """Rows of mRI: model, method and mRI, with intervals of 1 to both sides."""
    table = pd.DataFrame(rows, columns=["model", "method", "mri"])
    return table.assign(
        ci_low=table["mri"] - 1,
        ci_high=table["mri"] + 1,
        ood_before=50.0,
        ood_after=50 + table["mri"],
        unfinished=0,
    )


def with_targets(table):
    """Rows of mRI with accuracy on the target."""
    return table.assign(
        on_target_before=40.0, on_target=90.0, on_target_low=88.0, on_target_high=91.0
    )


def test_the_headline_is_the_change_by_the_main_method_of_each_network():
    tables = AnswerTables(mri(("small", "ft", -3.0), ("small", "lp", 9), ("large", "ft", 0.5)))
    assert sentences.headline(tables, NAMES, "ft") == (
        "Full fine-tuning changed mean accuracy on the out-of-distribution datasets other than the "
        f"target by {MINUS}3.0 (Small) and +0.5 (Large) percentage points."
    )


def test_a_single_network_has_no_label_and_many_are_a_range():
    single = AnswerTables(mri(("small", "ft", -3.0)))
    assert "Small" not in sentences.headline(single, NAMES, "ft")
    models = ("small", "large", "third", "fourth")
    changes = (2.0, -1.0, 7.0, 3.0)
    rows = [(model, "ft", change) for model, change in zip(models, changes, strict=True)]
    headline = sentences.headline(AnswerTables(mri(*rows)), NAMES, "ft")
    assert f"by {MINUS}1.0 (Large) to +7.0 (Third)" in headline
    assert "Small" not in headline


def test_the_headline_is_of_finished_runs_where_there_are_some():
    table = mri(("small", "ft", -3.0), ("small", "lp", 9.0))
    table.loc[0, "unfinished"] = 1
    headline = sentences.headline(AnswerTables(table), NAMES, "ft")
    assert headline.startswith("Linear probing changed") and "+9.0" in headline
    none_finished = AnswerTables(table.assign(unfinished=1))
    headline = sentences.headline(none_finished, NAMES, "ft")
    assert f"{MINUS}3.0" in headline and headline.endswith("; its training is unfinished.")


def with_leak_free(table, sharing_targets, shift=-10.0):
    """Tables of mRI over four targets, some of which share source images with other datasets.

    Args:
        table: of mRI.
        shift: of the leak-free change from the change.
    """
    means = table.assign(
        target="mean",
        targets=4,
        sharing_targets=sharing_targets,
        leak_free=table["mri"] + shift,
        leak_free_low=table["ci_low"] + shift,
        leak_free_high=table["ci_high"] + shift,
    )
    of_a_target = means.assign(target="a", targets=1, leak_free=99.0)
    return AnswerTables(table, leak_free=pd.concat([of_a_target, means]))


def test_the_headline_says_what_remains_without_shared_source_images():
    single = with_leak_free(mri(("small", "ft", 18.9), ("small", "lp", 1.0)), 2)
    headline = sentences.headline(single, NAMES, "ft")
    assert headline.endswith(
        "by +18.9 percentage points. 2 of 4 targets share source images with others; leak-free: "
        "+8.9."
    )
    of_two_networks = with_leak_free(mri(("small", "ft", 1.0), ("large", "ft", 2.0)), 1)
    headline = sentences.headline(of_two_networks, NAMES, "ft")
    assert headline.endswith(
        "1 of 4 targets shares source images with others; leak-free: "
        f"{MINUS}9.0 (Small) and {MINUS}8.0 (Large)."
    )


def test_the_headline_is_silent_on_source_images_where_none_are_shared():
    table = mri(("small", "ft", 1.0))
    without_table = sentences.headline(AnswerTables(table), NAMES, "ft")
    assert "source images" not in without_table
    # not even by the targets that a preview has so far
    assert sentences.headline(with_leak_free(table, 0), NAMES, "ft") == without_table


def test_the_headline_says_where_no_other_image_is_left():
    all_leaks = with_leak_free(mri(("small", "ft", 1.0)), 4, shift=float("nan"))
    headline = sentences.headline(all_leaks, NAMES, "ft")
    assert headline.endswith(
        "4 of 4 targets share source images with others, and not every target leaves other images "
        "to test on."
    )


def test_without_fine_tuned_runs_there_is_no_answer():
    assert sentences.answer(AnswerTables(mri()), NAMES) == sentences.Answer("", [])


def test_the_main_method_is_the_reference_of_the_ranking():
    table = mri(("small", "lp", 1), ("small", "ft", 1), ("small", "own", 1))
    assert sentences.main_method(AnswerTables(table)) == "ft"
    ranking = pd.DataFrame({"reference": ["pretrained", "own"]})
    assert sentences.main_method(AnswerTables(table, ranking=ranking)) == "own"
    assert sentences.main_method(AnswerTables(table[table["method"] != "ft"])) == "lp"


def test_accuracy_on_the_target_is_stated_where_it_is_known():
    table = mri(("small", "ft", -3.0))
    assert sentences.on_the_target(AnswerTables(table), NAMES, "ft") == ""
    tables = AnswerTables(with_targets(table))
    text = sentences.on_the_target(tables, NAMES, "ft")
    assert text == "Full fine-tuning took mean accuracy from 40.0 to 90.0 % [88.0, 91.0]."
    trained_on = dataclasses.replace(NAMES, target_was_trained_on=True)
    assert "those trained on" in sentences.on_the_target(tables, trained_on, "ft")


def test_accuracy_in_distribution_is_stated_where_there_is_such_a_dataset():
    table = mri(("small", "ft", -3.0))
    assert sentences.in_distribution(AnswerTables(table), NAMES, "ft") == ""
    row = {"model": "small", "change": -9.0, "ci_low": -10, "ci_high": -8, "before": 95.5}
    inside = pd.DataFrame([{**row, "method": "ft", "after": 86.5}])
    tables = AnswerTables(table, in_distribution=inside)
    assert sentences.in_distribution(tables, NAMES, "ft") == (
        f"Full fine-tuning took mean accuracy from 95.5 to 86.5 %, by {MINUS}9.0 "
        f"[{MINUS}10.0, {MINUS}8.0] points."
    )
    assert sentences.in_distribution(tables, NAMES, "lp") == ""


AVERAGED = mri(("small", "ft", -8.0), ("small", "half", -2.0), ("small", "lp", 1.0))
RANKED = pd.DataFrame(
    [("small", "half", "ft", 6.0, 4.0, 8.0)],
    columns=["model", "method", "reference", "difference", "diff_low", "diff_high"],
)
PAIR = pd.DataFrame(
    [("small", "ft", "half", -6.0, -7.5, -4.5)],
    columns=["model", "method", "other", "difference", "ci_low", "ci_high"],
)


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        ({"ranking": RANKED, "comparisons": PAIR}, "+6.0 [+4.0, +8.0] points"),
        ({"ranking": RANKED.assign(reference="lp"), "comparisons": PAIR}, "+6.0 [+4.5, +7.5]"),
        ({"comparisons": PAIR}, "+6.0 [+4.5, +7.5] points"),
        ({}, "by +6.0 points"),
    ],
    ids=["of the ranking", "the ranking has another reference", "of the pair", "no interval"],
)
def test_what_averaging_saved_has_the_interval_that_a_table_has(more, difference):
    text = sentences.averaging(AnswerTables(AVERAGED, **more), NAMES, "ft")
    assert difference in text and "Compared with full fine-tuning" in text
    assert sentences.TIE not in text


def test_a_tie_is_not_equality():
    tied = RANKED.assign(diff_low=-1.0)
    text = sentences.averaging(AnswerTables(AVERAGED, ranking=tied), NAMES, "ft")
    assert text.endswith(sentences.TIE)


def test_averages_are_compared_with_their_parent_if_both_finished():
    assert sentences.averaging(AnswerTables(AVERAGED), NAMES, "lp") == ""
    unfinished = AVERAGED.assign(unfinished=[1, 1, 0])
    assert sentences.averaging(AnswerTables(unfinished), NAMES, "ft") == ""
    without = dataclasses.replace(NAMES, averages={})
    assert sentences.averaging(AnswerTables(AVERAGED), without, "ft") == ""


def test_averaging_says_what_it_costs_on_the_target():
    text = sentences.averaging(AnswerTables(with_targets(AVERAGED)), NAMES, "ft")
    assert "on the target averages have 90.0 %, not 90.0 %" in text
    assert "on the target" not in sentences.averaging(AnswerTables(AVERAGED), NAMES, "ft")


def sizes(*images):
    """The table of pretraining sizes, with a network for each number of images."""
    rows = [
        {"model": model, "method": "ft", "pretraining_images": n, "before": n / 10, "after": n / 20}
        for model, n in zip(NAMES.models, images, strict=False)
    ]
    return pd.DataFrame(rows)


def test_two_networks_of_different_sizes_are_compared_without_a_p_value():
    tables = AnswerTables(AVERAGED, pretraining_sizes=sizes(900, 100))
    text = sentences.size_of_pretraining(tables, NAMES, "ft")
    assert text.startswith(
        "Between these two networks: full fine-tuning took mean accuracy on the other datasets "
        "from 10.0 to 5.0 % (Large, 100 images) and from 90.0 to 45.0 % (Small, 900 images)."
    )
    assert "p =" not in text and "significant" not in text
    three = AnswerTables(AVERAGED, pretraining_sizes=sizes(900, 100, 400))
    text = sentences.size_of_pretraining(three, NAMES, "ft")
    assert text.startswith("Of these 3 networks") and "400" not in text


@pytest.mark.parametrize("table", [None, sizes(100, 100), sizes(100)])
def test_one_size_of_pretraining_is_not_compared(table):
    tables = AnswerTables(AVERAGED, pretraining_sizes=table)
    assert sentences.size_of_pretraining(tables, NAMES, "ft") == ""


def test_all_methods_are_counted_by_the_sign_of_their_interval():
    tables = AnswerTables(mri(("small", "ft", -3.0), ("small", "lp", 0.5), ("small", "own", 5.0)))
    assert sentences.all_methods(tables, NAMES).startswith(
        "Of 3 finished pairs of model and method 1 have an interval above 0 and 1 below: "
    )
    assert sentences.all_methods(AnswerTables(mri(("small", "ft", 1.0))), NAMES) == ""


def test_an_interval_without_width_is_explained():
    table = mri(("small", "ft", 0.0))
    assert sentences.no_spread(AnswerTables(table), NAMES) == ""
    flat = table.assign(ci_low=0.0, ci_high=0.0)
    text = sentences.no_spread(AnswerTables(flat), NAMES)
    assert "+0.0 [+0.0, +0.0] has no width" in text and "50.0 % before and 50.0 % after" in text
    assert "too easy" not in text
    at_ceiling = AnswerTables(flat.assign(ood_before=100.0, ood_after=100.0))
    assert "too easy to show a gain" in sentences.no_spread(at_ceiling, NAMES)


def test_changes_in_distribution_are_ranges_over_models():
    table = pd.DataFrame({"method": "ft", "before": [90.0, 70.0], "after": [81.0, 81.0]})
    changes = sentences.changes_in_distribution(table, NAMES.methods)
    assert changes == ["full fine-tuning: 70.0 to 90.0 % before, 81.0 % after"]


def test_the_statements_are_those_that_the_tables_have():
    few = sentences.answer(AnswerTables(AVERAGED), NAMES)
    assert [statement.subject for statement in few.statements] == ["Averaging", "All methods"]
    tables = AnswerTables(with_targets(AVERAGED), pretraining_sizes=sizes(100, 900))
    subjects = [statement.subject for statement in sentences.answer(tables, NAMES).statements]
    assert subjects == ["On the target", "Averaging", "Size of pretraining", "All methods"]
