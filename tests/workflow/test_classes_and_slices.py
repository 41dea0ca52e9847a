"""RI over the classes that were trained on and over the others.

Accuracy by slices that a layout gives is tested, too.
"""

import re

import pandas as pd
import pytest

from tiny.projects.project import rows_of

pytestmark = pytest.mark.thorough

SLICED = """
from dataclasses import replace

from rib.data.layouts import class_folders

def items(dataset):
    for number, item in enumerate(class_folders.items(dataset)):
        yield replace(item, slices={"severity": number % 5 + 1, "corruption": "fog"})
"""


def test_where_a_part_of_the_classes_is_trained_on_ri_is_split_by_class(finished_copy):
    whole = pd.read_csv(finished_copy.folder / "reports/tiny/tables/ri.csv")
    assert whole["ri_seen"].tolist() == whole["ri"].tolist() and set(whole["n_seen"]) == {60}
    assert whole[["ri_unseen", "unseen_low", "unseen_high", "n_unseen"]].isna().all(axis=None)
    config = ("train_subset=[3]", "targets=[red]", "methods=[ft]")
    table = "reports/tiny/tables/ri.csv"
    finished_copy.snakemake(table, "--cores", "2", config=config)
    (line,) = pd.read_csv(finished_copy.folder / table).to_dict("records")
    assert (line["n_seen"], line["n_unseen"]) == (3 * 3 * 4, 3 * 2 * 4)
    assert line["ri"] == pytest.approx(0.6 * line["ri_seen"] + 0.4 * line["ri_unseen"], abs=1e-5)
    assert line["seen_low"] <= line["ri_seen"] <= line["seen_high"]


def test_slices_of_a_layout_split_accuracies(finished_copy):
    folder, config = finished_copy.folder, ("targets=[red]", "methods=[ft]")
    (folder / "mine/layouts").mkdir(exist_ok=True)
    (folder / "mine/layouts/sliced.py").write_text(SLICED)
    entry = folder / "mine/datasets.yaml"
    (folder / "mine/fog_errors.csv").write_text("corruption,error,source\nfog,80,made up\n")
    key = "relative_errors: fog_errors.csv"
    entry.write_text(
        re.sub(
            r"(?s)(\ngreen:.*?)layout: class_folders",
            rf"\1layout: sliced\n  {key}",
            entry.read_text(),
        )
    )
    finished_copy.snakemake("slices", "--cores", "2", config=(*config, "slices=[severity]"))
    table = pd.read_csv(folder / "reports/tiny/slices/tables/accuracy_by_slice.csv")
    assert table[["dataset", "slice", "value", "n"]].to_numpy().tolist() == [
        ["green", "severity", k, 4] for k in (1, 2, 3, 4, 5)
    ]
    (mce,) = pd.read_csv(folder / "reports/tiny/slices/tables/mce.csv").to_dict("records")
    for run, column in (("none/pretrained", "before"), ("red/ft", "after")):
        rows = rows_of(folder / f"results/tiny/paper/evaluate/tiny_cnn/{run}/all/0/tiny.parquet")
        right = (rows["rank"] == 0)[rows["dataset"] == "green"]
        expected = 100 * right.groupby(rows["severity"]).mean()
        assert table[column].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert mce[column] == pytest.approx(100 * (100 - expected.mean()) / 80, abs=1e-5)
    by_corruption = pd.read_csv(folder / "reports/tiny/slices/tables/corruptions.csv")
    assert by_corruption[["severity", "n", "after"]].equals(
        table.rename(columns={"value": "severity"})[["severity", "n", "after"]]
    )
    printed = finished_copy.snakemake(
        "slices", "--cores", "1", config=(*config, "slices=[colour]"), check=False
    )
    assert re.search("'colour'.* corruption, severity", printed)
    assert "Traceback (most" not in printed
