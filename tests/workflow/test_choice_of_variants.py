"""A variant chosen on held-out images, end to end on the tiny family."""

import pandas as pd
import pytest

from rib.data.splits import read_split
from tiny.projects import family
from tiny.projects.project import Project, copy_project, rows_of

pytestmark = pytest.mark.thorough

RANKS = (1, 2)
SWEEP = (
    "protocol=held_out",
    "models=[tiny_vit]",
    "targets=[red,green]",
    "methods=[lora]",
    "method_settings={lora: {rank: [1, 2], lr: 0.01}}",
)
TABLE = "reports/tiny_held_out/tables/selection.csv"


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """A project with twelve images per class, run under held_out with a sweep.

    The target chooses among the sweep's variants.
    """
    folder = copy_project(tmp_path_factory.mktemp("selection") / "project")
    family.make(folder / "mine", images_per_class=12)
    project = Project(folder)
    project.snakemake(TABLE, config=(*SWEEP, "select=target"))
    return project


def rows(project, stage, variant, target):
    path = f"results/tiny/held_out/{stage}/tiny_vit/{target}/{variant}/all/0/tiny.parquet"
    return rows_of(project.folder / path)


def test_the_choice_is_the_variant_that_is_best_on_the_targets_select_split(selected):
    table = pd.read_csv(selected.folder / TABLE).set_index("target")
    ri = pd.read_csv(selected.folder / "reports/tiny_held_out/tables/ri.csv")
    for target in ("red", "green"):
        split = read_split(
            selected.folder / f"results/tiny/held_out/split/{target}/160px-bicubic-crop1.parquet"
        )
        right = {}
        for rank in RANKS:
            scored = rows(selected, "select", f"lora-rank{rank}", target)
            assert set(scored["dataset"]) == {target} and {
                split[source] for source in scored["source_id"]
            } == {"select"}
            assert len(scored) == sum(part == "select" for part in split.values())
            right[f"lora-rank{rank}"] = (scored["rank"] == 0).sum()
        chosen = max(right, key=right.get)  # the first of equal ones
        (own,) = ri[(ri["target"] == target) & (ri["method"] == chosen)]["ri"]
        assert table.loc[target, "ri"] == pytest.approx(own, abs=1e-5)
        assert (table.loc[target, "chosen"], table.loc[target, "variants"]) == (chosen, 2)
        assert 0 < table.loc[target, "chosen_share"] <= 100
    assert table.loc["mean", "ri"] == pytest.approx(
        table.loc[["red", "green"], "ri"].mean(), abs=1e-5
    )
    assert set(table["method"]) == {"lora"} and set(table["rule"]) == {"target"}
    assert set(table["conditions"]) == {"protocol held_out"}


def test_another_rule_needs_no_new_evaluation(selected):
    for rule in ("oracle", "leave_one_out"):
        planned = selected.planned(TABLE, config=(*SWEEP, f"select={rule}"))
        assert planned == {"analyse_selection": 1}


def test_rows_of_the_select_split_are_an_evaluation_of_their_own(selected):
    """Those of the test split are as without a choice, and share no source image with them."""
    test, select = (rows(selected, stage, "lora-rank1", "red") for stage in ("evaluate", "select"))
    assert list(test.columns) == list(select.columns)
    assert not set(test.loc[test["dataset"] == "red", "source_id"]) & set(select["source_id"])
    assert (
        selected.planned("tables", config=SWEEP)
        .keys()
        .isdisjoint({"evaluate", "evaluate_select_split", "finetune"})
    )
