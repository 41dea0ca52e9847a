"""Distances end to end on the tiny family.

One target makes them, of the pretrained model and of pixels.
"""

import pandas as pd
import pytest

from tiny.projects.project import jobs

pytestmark = pytest.mark.thorough

TABLES = "reports/tiny/distances/tables"


def test_distances_are_a_target_of_their_own_and_part_of_the_run_where_config_says_so(
    finished_copy,
):
    compressed = "distances={compressed_megabytes: 0.4}"
    finished_copy.snakemake("distances", "--cores", "1", config=(compressed,))
    table = pd.read_csv(finished_copy.folder / TABLES / "distances.csv")
    assert sorted({*table["first"], *table["second"]}) == ["blue", "copy", "green", "red"]
    assert len(table) == 4 * 6 and set(table["distance"]) == {"otdd", "mmd2", "frechet", "ncd"}
    assert set(table.query("distance != 'ncd'")["n"]) == {20} and set(table["conditions"]) == {
        "protocol paper"
    }
    values = table.set_index(["distance", "first", "second"])["value"]
    assert all(
        values[kind].idxmin() == ("copy", "red") for kind in ("otdd", "mmd2", "frechet", "ncd")
    )
    assert values["otdd"].min() < 1e-3 and values["frechet"].min() < 1e-3, (
        "copy has the pixels of red"
    )
    association = pd.read_csv(finished_copy.folder / TABLES / "association.csv")
    pairs = association.query("level == 'pairs'")
    assert set(pairs["n"]) == {6} and pairs["exact"].all()
    assert set(pairs["permutations"]) == {
        4
    }  # two targets and two other datasets, each among themselves
    assert association.query("level == 'targets'")["value"].isna().all()  # of two targets
    figures = finished_copy.folder / "reports/tiny/distances/figures"
    assert all((figures / f"{name}.png").is_file() for name in ("distance_drop", "distance_matrix"))
    config = (compressed, "analyses=[distances]")
    made = jobs(finished_copy.snakemake("--cores", "1", config=config))
    assert made == {"analyse_distances": 1, "draw_figures": 1, "write_page": 1}
    page = (finished_copy.folder / "reports/tiny/index.html").read_text()
    assert "distance_drop.png" in page
    assert "Nothing to be done" in finished_copy.snakemake("distances", config=config)


def test_what_stands_for_pretraining_is_among_the_datasets_where_the_run_reads_it(finished_copy):
    planned = finished_copy.planned("distances", config=("methods=[replay]",))
    assert (
        planned["compute_features"] == 5
        and planned["measure_distances"] == planned["compress_datasets"] == 1
    )


def test_images_of_the_proxy_are_left_out_where_their_dataset_is_compared_but_not_evaluated(
    project,
):
    """Four images of `green` are the proxy.

    It is compared, since it is the reference, though no run is scored on it.
    """
    project.edit(
        "mine/families/tiny.yaml",
        "reference: memory",
        "reference: {part_of: green, images_per_class: 2}",
    )
    project.edit("mine/datasets.yaml", "green:\n", "green:\n  role: in_distribution\n")
    config = ("datasets=[red,blue]", "targets=[red]", "methods=[replay]")
    table = "results/tiny/paper/distances/160px-bicubic-crop1/compression.csv"
    project.snakemake(table, "--cores", "1", config=config)
    made = pd.read_csv(project.folder / table).query("first == 'green' or second == 'green'")
    whole, proxy = 20, 2 * 5
    assert set(made["n"]) == {whole - proxy}
