"""Bundles of a tiny run by `snakemake bundle`, compared by `snakemake compare`.

The crate beside the page is tested, too.
"""

import json
import shutil

import pandas as pd
import pytest

pytestmark = pytest.mark.thorough


def test_bundles_of_a_run_with_different_methods_are_compared(finished_copy, tmp_path):
    made = finished_copy.folder / "reports/tiny/tiny.rib.zip"
    for name, choice in (("ours", ()), ("theirs", ("methods=[ft]",))):
        finished_copy.snakemake("bundle", "--cores", "1", config=choice)
        shutil.copy(made, tmp_path / f"{name}.rib.zip")
    both = f"bundles=[{tmp_path}/ours.rib.zip,{tmp_path}/theirs.rib.zip]"
    finished_copy.snakemake("compare", "--cores", "1", config=(both,))
    folder = finished_copy.folder / "reports/compare"
    ranking, claims, settings = (
        pd.read_csv(folder / f"{name}.csv") for name in ("ranking", "claims", "settings")
    )
    assert ranking.groupby("bundle")["method"].count().to_dict() == {"ours": 4, "theirs": 1}
    ft = ranking[ranking["method"] == "ft"]
    assert ft["mri"].nunique() == 1 and set.intersection(*map(set, ft["letters"])), (
        "the same rows are not told apart"
    )
    assert (claims["largest difference"] < 1e-5).all() and "config.methods" in set(
        settings["setting"]
    )
    assert finished_copy.planned("bundle", config=("methods=[ft]", both)) == {}, (
        "comparing makes nothing again"
    )


def test_without_a_bundle_comparing_is_one_sentence(project):
    printed = project.snakemake("compare", "--cores", "1", check=False)
    assert "config, bundles: no bundles are given" in printed and "Traceback" not in printed


def test_every_job_of_a_run_is_an_action_of_the_crate(finished):
    entities = json.loads((finished[0].folder / "reports/tiny/ro-crate-metadata.json").read_text())[
        "@graph"
    ]
    by_id = {entity["@id"]: entity for entity in entities}
    rules = {
        by_id[e["instrument"]["@id"]]["name"] for e in entities if e["@type"] == "CreateAction"
    }
    stages = {
        "download",
        "prepare",
        "convert_model",
        "finetune",
        "merge_weights",
        "evaluate_run",
        "compute_metrics",
    }
    assert stages | {"plot_figure", "compare_methods"} <= rules
    assert all(
        (finished[0].folder / "reports/tiny" / part["@id"]).is_file()
        for part in by_id["./"]["hasPart"]
    )
