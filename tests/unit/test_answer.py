"""The numbers that a page begins with, from invented tables."""

import pandas as pd

from rib.report.answer import Answer, AnswerNames, AnswerTables, answer, main_method

MINUS = "\N{MINUS SIGN}"
NAMES = AnswerNames(
    models={"small": "Small", "large": "Large", "third": "Third", "fourth": "Fourth"},
    methods={
        "ft": "full fine-tuning",
        "lp": "linear probing",
        "half": "WiSE-FT, alpha 0.5",
        "most": "WiSE-FT, alpha 0.8",
        "own": "own",
    },
    averages={"half": "ft", "most": "ft"},
    coefficients={"half": 0.5, "most": 0.8},
)


def mri(*rows):
    """Rows of mRI: model, method and mRI."""
    table = pd.DataFrame(rows, columns=["model", "method", "mri"])
    return table.assign(ood_before=50.0, ood_after=50 + table["mri"], underfitted=0)


def changes_of(found):
    """Model and change of each network that is shown."""
    return [(numbers.model, numbers.change) for numbers in found.numbers]


def test_each_network_has_its_change_by_the_main_method():
    tables = AnswerTables(mri(("small", "ft", -3.0), ("small", "lp", 9), ("large", "ft", 0.5)))
    found = answer(tables, NAMES)
    assert found.method == "full fine-tuning" and found.models == 2 and not found.underfitted
    assert changes_of(found) == [("Small", f"{MINUS}3.0"), ("Large", "+0.5")]
    first = found.numbers[0]
    assert (first.before, first.after) == ("50.0", "47.0")
    assert first.change_in_distribution is first.gain_of_average is first.leak_free is None


def test_of_many_networks_the_extremes_are_shown():
    changes = {"small": 2.0, "large": -1.0, "third": 7.0, "fourth": 3.0}
    rows = [(model, "ft", change) for model, change in changes.items()]
    found = answer(AnswerTables(mri(*rows)), NAMES)
    assert found.models == 4
    assert changes_of(found) == [("Large", f"{MINUS}1.0"), ("Third", "+7.0")]


def test_the_answer_is_of_finished_runs_where_there_are_some():
    table = mri(("small", "ft", -3.0), ("small", "lp", 9.0))
    table.loc[0, "underfitted"] = 1
    found = answer(AnswerTables(table), NAMES)
    assert found.method == "linear probing" and not found.underfitted
    found = answer(AnswerTables(table.assign(underfitted=1)), NAMES)
    assert found.method == "full fine-tuning" and found.underfitted
    assert changes_of(found) == [("Small", f"{MINUS}3.0")]


def test_an_average_half_way_has_its_gain_over_the_method():
    rows = [("small", "ft", 1.0), ("small", "most", 4.0), ("small", "half", 2.5)]
    found = answer(AnswerTables(mri(*rows)), NAMES)
    assert found.average == "WiSE-FT, alpha 0.5"
    assert found.numbers[0].gain_of_average == "+1.5"
    without = answer(AnswerTables(mri(rows[0])), NAMES)
    assert without.average == "" and without.numbers[0].gain_of_average is None


def test_a_network_without_the_average_has_no_gain():
    rows = [("small", "ft", 1.0), ("small", "half", 2.5), ("large", "ft", 3.0)]
    small, large = answer(AnswerTables(mri(*rows)), NAMES).numbers
    assert small.gain_of_average == "+1.5" and large.gain_of_average is None


def test_change_in_distribution_is_that_of_the_method():
    rows = [("small", "ft", -9.0), ("small", "lp", 1.0)]
    table = pd.DataFrame(rows, columns=["model", "method", "change"])
    tables = AnswerTables(mri(("small", "ft", 1.0)), in_distribution=table)
    assert answer(tables, NAMES).numbers[0].change_in_distribution == f"{MINUS}9.0"


def test_what_remains_without_shared_source_images_is_shown_where_targets_share_some():
    row = {"model": "small", "method": "ft", "target": "mean", "targets": 4, "leak_free": -8.0}
    of_a_target = {**row, "target": "red", "targets": 1, "leak_free": 99.0, "sharing_targets": 1}
    table = pd.DataFrame([of_a_target, {**row, "sharing_targets": 2}])
    found = answer(AnswerTables(mri(("small", "ft", 1.0)), leak_free=table), NAMES)
    assert (found.sharing_targets, found.targets) == (2, 4)
    assert found.numbers[0].leak_free == f"{MINUS}8.0"
    nothing_shared = table.assign(sharing_targets=0)
    found = answer(AnswerTables(mri(("small", "ft", 1.0)), leak_free=nothing_shared), NAMES)
    assert found.sharing_targets == 0 and found.numbers[0].leak_free is None


def test_without_fine_tuned_runs_there_is_no_answer():
    assert answer(AnswerTables(mri()), NAMES) == Answer()


def test_the_main_method_is_the_reference_of_the_ranking():
    table = mri(("small", "lp", 1), ("small", "ft", 1), ("small", "own", 1))
    assert main_method(AnswerTables(table)) == "ft"
    ranking = pd.DataFrame({"reference": ["pretrained", "own"]})
    assert main_method(AnswerTables(table, ranking=ranking)) == "own"
    assert main_method(AnswerTables(table[table["method"] != "ft"])) == "lp"
