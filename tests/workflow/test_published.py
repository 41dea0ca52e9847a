"""Pretrained accuracies beside published ones, on a stand-in for the real data."""

import pandas as pd
import pytest

pytestmark = pytest.mark.thorough


@pytest.fixture
def accuracy(finished):
    table = pd.read_csv(finished[0].folder / "reports/tiny/tables/accuracy.csv")
    return table.query("method == 'pretrained'").set_index("dataset")["accuracy"]


def test_each_published_number_has_a_difference_and_a_verdict(finished_copy, accuracy):
    stated = {
        "red": accuracy["red"] + 0.1,
        "green": accuracy["green"] - 3,
        "blue": accuracy["blue"],
    }
    lines = [f"tiny_cnn,{dataset},{value:.3f},tests" for dataset, value in stated.items()]
    (finished_copy.folder / "mine/published.csv").write_text(
        "\n".join(["model,dataset,accuracy,source", *lines]) + "\n"
    )
    finished_copy.edit("mine/datasets.yaml", "blue:\n", "blue:\n  images: 20\n")
    printed = finished_copy.snakemake("published", "--cores", "1")
    assert "2 of 3 published numbers within 0.2 points" in printed
    table = pd.read_csv(
        finished_copy.folder / "reports/tiny/published/tables/published.csv"
    ).set_index("dataset")
    assert table["verdict"].to_dict() == {"red": "within", "green": "outside", "blue": "within"}
    assert table.loc["green", "difference"] == pytest.approx(3, abs=1e-3) and set(
        table["images"]
    ) == {20}
    finished_copy.snakemake(
        "published", "--cores", "1", config=("budget={max_images_per_dataset: {blue: 10}}",)
    )
    table = pd.read_csv(
        finished_copy.folder / "reports/tiny/published/tables/published.csv"
    ).set_index("dataset")
    assert table["verdict"].to_dict() == {
        "red": "within",
        "green": "outside",
        "blue": "not comparable: the budget leaves images of blue out",
    }


def test_without_published_numbers_it_says_so(finished_copy):
    printed = finished_copy.snakemake("published", "--cores", "1", check=False)
    assert (
        "the catalogue's published.csv has no accuracy of these models on these datasets" in printed
    )


def test_plan_uses_what_was_measured_here(finished_copy):
    printed = finished_copy.rib("plan")
    assert "tiny_cnn: train " in printed and "(measured here)" in printed
    # ft, lwf and the probe pass all 20 images in 2 epochs, on two targets
    assert "Training   240 images" in printed
    # pretrained, four methods on two targets: each on four datasets of 20
    assert f"Evaluation {9 * 4 * 20} images" in printed
