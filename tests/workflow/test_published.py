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
    assert "0 of 3 published numbers within 0.2 points" in printed
    table = pd.read_csv(
        finished_copy.folder / "reports/tiny/published/tables/published.csv"
    ).set_index("dataset")
    assert table["verdict"].str.startswith("not comparable: 20 images").all()
    assert table.loc["green", "difference"] == pytest.approx(3, abs=1e-3) and set(
        table["images"]
    ) == {20}
