"""Learning rates chosen on the select splits of targets, end to end on the tiny family."""

import re
import statistics
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tiny.projects import family
from tiny.projects.project import Project, copy_project, rows_of

pytestmark = pytest.mark.thorough

RATES = (0.001, 0.01)
SWEEP = (
    "protocol=held_out",
    "models=[tiny_vit]",
    "targets=[red,green]",
    "methods=[ft,linear_probe]",
    "seeds=[100]",
    "method_settings={ft: {lr: [0.001, 0.01]}, linear_probe: {lr: [0.001, 0.01]}}",
)
TABLES = Path("reports/tiny_held_out/learning_rates/tables")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A project with twelve images per class in which rates were chosen, and what was printed."""
    folder = copy_project(tmp_path_factory.mktemp("rates") / "project")
    family.make(folder / "mine", images_per_class=12)
    project = Project(folder)
    printed = project.snakemake("learning_rates", "--cores", "2", config=SWEEP)
    return project, printed


def right_answers(project, method, rate, target):
    """Whether the network trained on a target is right, 0 or 1, on each image of its select split.

    By source image, in one order.
    """
    run = f"tiny_vit/{target}/{method}-lr{rate}/all/100/tiny.parquet"
    scored = rows_of(project.folder / f"results/tiny/held_out/select/{run}")
    assert set(scored["dataset"]) == {target}
    return [int(rank == 0) for rank in scored.sort_values("row")["rank"]]


def test_the_table_is_that_of_the_rows_of_the_select_splits(chosen):
    project, _ = chosen
    table = pd.read_csv(project.folder / TABLES / "learning_rates.csv")
    assert table["method"].tolist() == ["ft", "ft", "linear_probe", "linear_probe"]
    assert table["lr"].tolist() == [*RATES, *RATES]
    assert set(table["conditions"]) == {"protocol held_out"}
    for method, of_method in table.groupby("method"):
        # given: the answers at both rates
        right = {
            (rate, target): right_answers(project, method, rate, target)
            for rate in RATES
            for target in ("red", "green")
        }
        accuracy = {
            rate: 50 * sum(statistics.mean(right[rate, target]) for target in ("red", "green"))
            for rate in RATES
        }
        best = max(RATES, key=accuracy.get)  # the first of equal ones
        # then: each rate's accuracy, and its difference from the best with the paired error
        for row in of_method.to_dict("records"):
            assert row["accuracy"] == pytest.approx(accuracy[row["lr"]])
            assert row["difference"] == pytest.approx(accuracy[row["lr"]] - accuracy[best])
            variance = 0
            for target in ("red", "green"):
                pairs = zip(right[row["lr"], target], right[best, target], strict=True)
                differences = [answer - best_answer for answer, best_answer in pairs]
                variance += statistics.variance(differences) / len(differences)
            assert row["standard_error"] == pytest.approx(50 * variance**0.5, abs=1e-6)
            assert row["all_fit"] == "not required", "the family has no threshold"
        is_near = of_method["difference"] >= -of_method["standard_error"] - 1e-6
        (rate,) = of_method.loc[of_method["chosen"] == "yes", "lr"]
        assert rate == of_method.loc[is_near, "lr"].min()


def test_the_recipes_are_printed_and_written_as_the_familys_file_takes_them(chosen):
    project, printed = chosen
    table = pd.read_csv(project.folder / TABLES / "learning_rates.csv")
    rates = table[table["chosen"] == "yes"].set_index("method")["lr"]
    text = (project.folder / TABLES / "learning_rates.yaml").read_text()
    assert yaml.safe_load(text)["recipes"] == {
        "paper": {method: {"lr": {"tiny_vit": rates[method]}} for method in ("ft", "linear_probe")}
    }
    assert "families/tiny.yaml" in text and text in printed
    # Both rates are at an edge, so a further one is named for each method.
    assert re.search(r"ft .*tiny_vit: .*add 0\.", printed)


def test_nothing_but_the_select_splits_is_scored(chosen):
    project, _ = chosen
    folder = project.folder / "results/tiny/held_out"
    assert not (folder / "evaluate").exists()
    assert len(list(folder.glob("select/**/*.parquet"))) == 8
    assert project.planned("learning_rates", config=SWEEP) == {}


def test_a_method_that_does_not_fit_has_no_rate_and_is_named(chosen):
    """Two epochs fit nothing; linear probing need not."""
    project, _ = chosen
    project.edit("mine/families/tiny.yaml", "fit_threshold: none", "fit_threshold: 0.95")
    printed = project.snakemake("learning_rates", "--cores", "2", config=SWEEP)
    assert re.search("ft .*tiny_vit: no learning rate", printed)
    assert "Traceback (most" not in printed
    text = (project.folder / TABLES / "learning_rates.yaml").read_text()
    assert list(yaml.safe_load(text)["recipes"]["paper"]) == ["linear_probe"]
