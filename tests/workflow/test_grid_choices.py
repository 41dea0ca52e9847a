"""What config can vary, end to end on the tiny family.

That is protocols, selection, sizes, seeds and sweeps.
"""

import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch

from rib.base.files import sha256
from rib.data.splits import read_split
from rib.models.checkpoint import xor_decompress
from tiny.projects import family
from tiny.projects.project import Project, copy_project, rows_of

pytestmark = pytest.mark.thorough

HELD_OUT = (
    "protocol=held_out",
    "targets=[red]",
    "models=[tiny_vit]",
    "methods=[wise_ft_selected,greedy_soup,wise_ft_curve,replay,ewc]",
)
HELD_OUT_RUNS = ("none/pretrained", "red/ft", "red/wise_ft_selected", "red/wise_ft_curve")


@pytest.fixture(scope="module")
def held_out_rows(tmp_path_factory):
    """A project with twelve images per class and rows under held_out.

    It has rows of a selection and a curve, too.
    """
    folder = copy_project(tmp_path_factory.mktemp("held_out") / "project")
    family.make(folder / "mine", images_per_class=12)
    project = Project(folder)
    rows_of_runs = [
        f"results/tiny/held_out/evaluate/tiny_vit/{run}/all/0/tiny.parquet" for run in HELD_OUT_RUNS
    ]
    project.snakemake(*rows_of_runs, config=HELD_OUT)
    return project


@pytest.fixture(scope="module")
def held_out(held_out_rows):
    """The same project with all methods that select or use the reference dataset.

    With its tables.
    """
    held_out_rows.snakemake("tables", "figures", config=HELD_OUT)
    return held_out_rows


def parts_of(project, dataset):
    return read_split(
        project.folder / f"results/tiny/held_out/split/{dataset}/160px-bicubic-crop1.parquet"
    )


def checkpoint(run, protocol="paper"):
    return f"results/tiny/{protocol}/finetune/{run}/checkpoint.safetensors"


def rows(project, run, protocol="held_out"):
    return rows_of(project.folder / f"results/tiny/{protocol}/evaluate/{run}/tiny.parquet")


def test_held_out_scores_images_that_no_dataset_of_their_source_trained_on(held_out_rows):
    scored = rows(held_out_rows, "tiny_vit/red/ft/all/0")
    red, copy, green = (parts_of(held_out_rows, name) for name in ("red", "copy", "green"))
    assert red == copy and not red.keys() & green.keys()
    for dataset, own in scored.groupby("dataset"):
        assert {parts_of(held_out_rows, dataset)[source] for source in own["source_id"]} == {"test"}
    shared = (
        scored[scored["dataset"].isin(["red", "copy"])].groupby("dataset")["source_id"].agg(set)
    )
    assert shared["red"] == shared["copy"] and "memory" not in set(scored["dataset"])
    before = rows(held_out_rows, "tiny_vit/none/pretrained/all/0")
    assert list(before["image_id"]) == list(scored["image_id"])
    manifest = json.loads(
        (
            held_out_rows.folder
            / "results/tiny/held_out/finetune/tiny_vit/red/ft/all/0/manifest.json"
        ).read_text()
    )
    assert manifest["images"] == 2 * sum(which == "train" for which in red.values())


def test_held_out_splits_every_class_alike_and_the_report_has_the_counts(held_out):
    """Of 12 images per class 7.2, 2.4 and 2.4, of the 60 of a dataset 36, 12 and 12."""
    table = pd.read_csv(held_out.folder / "reports/tiny_held_out/tables/data.csv")
    table = table.set_index("dataset").dropna(subset="train")
    assert table[["train", "select", "test"]].to_numpy().tolist() == [[36, 12, 12]] * 4
    scored = rows(held_out, "tiny_vit/red/ft/all/0")
    assert (scored.groupby("dataset").size() == table["test"]).all()
    for counts in scored.groupby(["dataset", "label"]).size().groupby("dataset").agg(set):
        assert counts <= {2, 3}


MERGES = "results/tiny/held_out/merge/tiny_vit/red"


def test_selection_keeps_the_score_of_every_candidate_and_takes_the_best(held_out_rows):
    selection_file = held_out_rows.folder / MERGES / "wise_ft_selected/all/0/selection.json"
    selection = json.loads(selection_file.read_text())
    candidates = selection["candidates"]
    assert len(candidates) == 11
    first_candidate, *_ = candidates
    assert first_candidate["images"] > 0
    best_accuracy = max(candidate["accuracy"] for candidate in candidates)
    coefficients = selection["coefficients"]
    chosen = next(
        candidate for candidate in candidates if candidate["coefficients"] == coefficients
    )
    assert chosen["accuracy"] == best_accuracy


def test_a_soup_chooses_among_the_methods_that_it_names(held_out):
    soup = json.loads((held_out.folder / MERGES / "greedy_soup/all/0/selection.json").read_text())
    assert {"pretrained", "ft", "ewc", "lwf"} == {
        name for c in soup["candidates"] for name in c["coefficients"]
    }


def test_a_curve_is_one_run_with_a_state_per_alpha(held_out_rows):
    scored = rows(held_out_rows, "tiny_vit/red/wise_ft_curve/all/0")
    assert sorted(scored["alpha"].unique()) == pytest.approx(np.linspace(0, 1, 11))
    for alpha, run in ((0.0, "none/pretrained"), (1.0, "red/ft")):
        end = scored[scored["alpha"] == alpha].reset_index(drop=True)
        whole = rows(held_out_rows, f"tiny_vit/{run}/all/0")
        assert (end["prediction"] == whole["prediction"]).all()
        np.testing.assert_allclose(end["confidence"], whole["confidence"], atol=1e-3)


def test_a_curve_has_a_table_from_the_pretrained_network_to_the_fine_tuned_one(held_out):
    tables = held_out.folder / "reports/tiny_held_out/tables"
    curves, ri = (
        pd.read_csv(tables / "curves.csv"),
        pd.read_csv(tables / "ri.csv").set_index("method")["ri"],
    )
    assert len(curves) == 11 and curves["ri"].iloc[0] == 0 and "wise_ft_curve" not in ri.index
    assert curves["ri"].iloc[-1] == pytest.approx(ri["ft"], abs=1e-5)
    assert ((curves["ood_low"] <= curves["ood"]) & (curves["ood"] <= curves["ood_high"])).all()
    assert (held_out.folder / "reports/tiny_held_out/figures/tradeoff.png").stat().st_size > 100


def test_a_family_that_cannot_be_split_says_so_when_it_is_trained(project):
    config = ("protocol=held_out", "split={train: 0.02}", "methods=[ft]", "targets=[red]")
    run = checkpoint("tiny_cnn/red/ft/all/0", "held_out")
    printed = project.snakemake(run, config=config, check=False)
    assert re.search(r"protocol held_out: red: .* no image in the train split", printed), printed
    assert "Traceback (most" not in printed


@pytest.mark.slow
def test_sizes_seeds_and_sweeps_multiply_the_grid(project):
    config = ("train_subset=[all,10,0.25]", "seeds=[0,1]", "targets=[red]", "models=[tiny_vit]")
    project.snakemake(config=(*config, "methods=[lora]", "method_settings={lora: {rank: [1, 2]}}"))
    runs = project.folder / "results/tiny/paper/finetune/tiny_vit/red"
    assert sorted(path.name for path in runs.iterdir()) == ["lora-rank1", "lora-rank2"]
    facts = {
        size: json.loads((runs / f"lora-rank2/{size}/1/manifest.json").read_text())
        for size in ("all", "10", "0.25")
    }
    assert {size: fact["train_images"] for size, fact in facts.items()} == {
        "all": 20,
        "10": 10,
        "0.25": 5,
    }
    assert {fact["steps"] for fact in facts.values()} == {2 * 3}, (
        "a part of the images trains as long as all of them"
    )
    stored = {
        name: safetensors.torch.load_file(runs / f"{name}/checkpoint.safetensors")
        for name in ("lora-rank1/all/0", "lora-rank1/all/1", "lora-rank2/all/0")
    }
    shapes = {
        name: {tuple(t.shape) for key, t in tensors.items() if key.endswith("lora_A")}
        for name, tensors in stored.items()
    }
    assert shapes["lora-rank1/all/0"] == {(2, 64)} and shapes["lora-rank2/all/0"] == {(4, 64)}
    assert any(
        (stored["lora-rank1/all/0"][key] != stored["lora-rank1/all/1"][key]).any()
        for key in stored["lora-rank1/all/0"]
    )
    mri = pd.read_csv(project.folder / "reports/tiny/tables/mri.csv", dtype={"size": str})
    assert list(zip(mri["method"], mri["size"], strict=True)) == [
        (method, size) for method in ("lora-rank1", "lora-rank2") for size in ("0.25", "10", "all")
    ]


def test_figures_show_the_largest_size_in_whatever_order_sizes_are_given(finished_copy):
    """What the rule hands on; one more fine-tuning."""
    config = ("train_subset=[5,all]", "targets=[red]", "methods=[linear_probe]")
    finished_copy.snakemake("reports/tiny/figures/before_after.png", "--cores", "1", config=config)
    figure = finished_copy.folder / "reports/tiny/figures/before_after"
    assert set(pd.read_csv(figure.with_suffix(".csv"))["size"]) == {"all"}
    record = json.loads(figure.with_name("figures.provenance.json").read_text())
    settings = record["cfg"]["figures"]["before_after"]
    assert (settings["size"], settings["sizes"]) == ("all", ["5", "all"])
    ood = pd.read_csv(finished_copy.folder / "reports/tiny/tables/ood.csv", dtype={"size": str})
    assert set(ood["size"]) == {"5", "all"}


def test_the_tables_of_a_leak_free_run_agree(finished_copy):
    """Jobs of four rules leave out the same images.

    These are those of `copy`, which shares its sources with the target `red`.
    """
    before = pd.read_csv(finished_copy.folder / "reports/tiny/tables/mri.csv").set_index("method")[
        "mri"
    ]
    names = ("mri", "ranking", "summary", "flips")
    files = {name: f"reports/tiny/tables/{name}.csv" for name in names}
    finished_copy.snakemake(*files.values(), "--cores", "1", config=("leak_free=true",))
    made = {
        name: pd.read_csv(finished_copy.folder / file).set_index("method")
        for name, file in files.items()
    }
    mri = made["mri"]["mri"]
    assert (mri - before).abs().max() > 0.1 and all(
        "leak-free" in text for text in made["mri"]["conditions"]
    )
    flipped = made["flips"]["wrong_to_right"] - made["flips"]["right_to_wrong"]
    for found in (made["ranking"]["mri"], made["summary"]["mri"], flipped):
        assert found[mri.index].tolist() == pytest.approx(mri.tolist(), abs=0.006)


def test_lp_ft_starts_from_the_probe_of_its_target_and_seed(project):
    config = (
        "methods=[lp_ft]",
        "targets=[red]",
        "models=[tiny_vit]",
        "seeds=[3]",
        "training={batch_size: 20}",
    )
    printed = project.snakemake(checkpoint("tiny_vit/red/lp_ft/all/3"), config=config)
    assert re.search("'linear_probe' is added .*'lp_ft'", printed)
    results = project.folder / "results/tiny"
    history = pd.read_csv(results / "paper/finetune/tiny_vit/red/lp_ft/all/3/history.csv")
    model = timm.create_model("test_vit", num_classes=1000).eval()
    state = safetensors.torch.load_file(results / "models/tiny_vit/weights.safetensors")
    probe = safetensors.torch.load_file(
        results / "paper/finetune/tiny_vit/red/linear_probe/all/3/checkpoint.safetensors"
    )
    model.load_state_dict({**state, **xor_decompress(probe, state)})
    images = torch.from_numpy(
        np.load(results / "prepare/red/160px-bicubic-crop1/images.npy")
    ).permute(0, 3, 1, 2)
    space = json.loads((results / "prepare/red/160px-bicubic-crop1/classes.json").read_text())
    index = pq.read_table(results / "prepare/red/160px-bicubic-crop1/index.parquet")
    with torch.inference_mode():
        scores = model(images.float() / 127.5 - 1)[:, [row[0] for row in space["indices"]]]
    expected = torch.nn.functional.cross_entropy(
        scores, torch.from_numpy(index["label"].to_numpy().astype(int))
    )
    # all 20 images in one batch: the loss of the first step is that of the probe
    assert history["cross_entropy"].iloc[0] == pytest.approx(expected.item(), rel=1e-4)


def test_a_dataset_does_not_replace_the_archive_of_another_familys_dataset(project):
    # given: a prepared dataset, and another catalogue folder, whose family has one of its name
    prepared = "results/{}/prepare/red/160px-bicubic-crop1/manifest.json"
    project.snakemake(prepared.format("tiny"), "--cores", "1")
    folder = project.folder / "other"
    family.make(folder)
    (folder / "families/tiny.yaml").rename(folder / "families/other.yaml")
    for name in ("datasets.yaml", "models.yaml"):
        entries = (folder / name).read_text()
        (folder / name).write_text(re.sub(r"\btiny$", "other", entries, flags=re.MULTILINE))
    other = Project(project.folder, family="other")
    call = {"config": ("catalog=other",)}
    # when both have the same archive
    planned = other.planned(prepared.format("other"), **call)
    # then
    assert planned == {"prepare": 1}
    # when it is another one
    digest = sha256(folder / "archives/red.zip")
    project.edit("other/datasets.yaml", digest, "0" * len(digest))
    printed = other.snakemake("-n", prepared.format("other"), **call, check=False)
    # then
    (sentence,) = [line for line in printed.splitlines() if "data/raw/red/red.zip is " in line]
    assert "datasets.yaml, red: " in sentence and "of family tiny" in sentence
