"""Features of the tiny family's runs, and what is compared by them."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch

from rib.models.checkpoint import xor_decompress
from tiny.projects.project import jobs, rows_of

pytestmark = pytest.mark.thorough

LAYERS = ["pre_logits", "stage1", "stage2", "stage3", "stage4"]


def features(run, dataset):
    return f"results/tiny/paper/features/{run}/{dataset}.safetensors"


def test_features_are_those_that_the_stored_rows_were_scored_with(finished_copy):
    """The head on pre_logits must give the predictions of the evaluation's rows."""
    runs = ["tiny_cnn/none/pretrained/all/0", "tiny_cnn/red/wise_ft/all/0"]
    folder = finished_copy.folder
    finished_copy.snakemake("--cores", "1", *(features(run, "blue") for run in runs))
    results = folder / "results/tiny"
    space = json.loads((results / "prepare/blue/160px-bicubic-crop1/classes.json").read_text())
    head = safetensors.torch.load_file(results / "models/tiny_cnn/weights.safetensors")
    stored = safetensors.torch.load_file(
        results / "paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
    )
    tuned = xor_decompress(stored, head)
    for run, share in zip(runs, (0.0, 0.5), strict=True):
        weight, bias = (
            ((1 - share) * head[name] + share * tuned.get(name, head[name])).numpy()
            for name in ("classifier.weight", "classifier.bias")
        )
        found = safetensors.numpy.load_file(folder / features(run, "blue"))
        assert sorted(found) == LAYERS and {part.dtype for part in found.values()} == {
            np.dtype("float32")
        }
        scores = (found["pre_logits"] @ weight.T + bias)[:, [row[0] for row in space["indices"]]]
        rows = rows_of(folder / f"results/tiny/paper/evaluate/{run}/tiny.parquet")
        rows = rows[rows["dataset"] == "blue"]
        assert (rows["prediction"] == scores.argmax(axis=1)).all()
        index = pq.read_table(
            (folder / features(run, "blue")).with_suffix(".index.parquet")
        ).to_pandas()
        assert list(index["image_id"]) == list(rows["image_id"]) and list(index["label"]) == list(
            rows["label"]
        )
        manifest = json.loads(
            (folder / features(run, "blue")).with_suffix(".manifest.json").read_text()
        )
        assert manifest["n"] == 20 and manifest["layers"]["pre_logits"] == 256
        assert set(manifest["files"]) == {"blue.safetensors", "blue.index.parquet"}
    made = [features(run, "blue") for run in runs]
    assert finished_copy.planned(*made) == {}
    code = "workflow/lib/rib/evaluation/features.py"
    finished_copy.edit(code, "if settings.layers != DEFAULT:", "if not settings.layers == DEFAULT:")
    assert finished_copy.planned(*made) == {"compute_features": 2}, (
        "an edit of what computes them, and of nothing else"
    )


def test_representations_compare_each_layer_with_the_pretrained_models(finished_copy):
    config = (
        "models=[tiny_vit]",
        "datasets=[red,blue]",
        "targets=[red]",
        "methods=[ft,linear_probe]",
    )
    made = jobs(finished_copy.snakemake("--cores", "1", "representations", config=config))
    assert made["compute_features"] == 3 * 2
    assert made["analyse_representations"] == made["draw_representations"] == 1
    reports = finished_copy.folder / "reports/tiny/representations"
    table = pd.read_csv(reports / "tables/cka.csv", dtype={"size": str})
    assert len(table) == 2 * 5 * 3 and set(table["dataset"]) == {"red", "blue", "others"}
    assert (table["ci_low"] <= table["cka"]).all() and (table["cka"] <= table["ci_high"]).all()
    assert (table.query("method == 'linear_probe'")["cka"] > 1 - 1e-6).all(), (
        "a probe leaves features alone"
    )
    assert table.query("method == 'ft' and layer == 'pre_logits'")["cka"].max() < 0.9999
    assert (reports / "figures/cka_layers.png").stat().st_size > 1000
    config = (*config, "representations={methods: [no]}")
    printed = finished_copy.snakemake("-n", "representations", config=config, check=False)
    assert re.search("config, representations: .*'no'", printed)


@pytest.mark.slow
def test_epochs_train_again_to_the_same_weights_and_compare_ten_times(finished_copy):
    """The run that is looked at must be the run whose results are reported."""
    config = (
        "datasets=[red,blue]",
        "targets=[red]",
        "methods=[ft,linear_probe]",
        "models=[tiny_vit]",
    )
    tables = "reports/tiny/tables"
    finished_copy.snakemake(
        "--cores", "1", "epochs", "representations", f"{tables}/mri.csv", config=config
    )
    results = finished_copy.folder / "results/tiny/paper"
    for method in ("ft", "linear_probe"):
        run = f"tiny_vit/red/{method}/all/0"
        last = results / f"snapshots/{run}/snapshot10.safetensors"
        assert (
            last.read_bytes() == (results / f"finetune/{run}/checkpoint.safetensors").read_bytes()
        )
        assert last.read_bytes() != last.with_name("snapshot1.safetensors").read_bytes()
    table = pd.read_csv(finished_copy.folder / "reports/tiny/epochs/tables/cka_epochs.csv")
    assert len(table) == 2 * 10 * 3 and set(table["trained"]) == set(range(10, 101, 10))
    own = table.query("dataset == 'red'").set_index(["method", "trained"])["cka"]
    assert own["linear_probe"].min() > 1 - 1e-6 and own["ft", 100] < own["ft", 50] < 0.99999
    whole = pd.read_csv(finished_copy.folder / "reports/tiny/representations/tables/cka.csv").query(
        "layer == 'pre_logits'"
    )
    last = table.query("trained == 100").set_index(["method", "dataset"])["cka"]
    assert last.to_dict() == pytest.approx(
        whole.set_index(["method", "dataset"])["cka"].to_dict(), abs=1e-6
    )
    path = pd.read_csv(finished_copy.folder / "reports/tiny/epochs/tables/tradeoff_epochs.csv")
    ends = pd.read_csv(finished_copy.folder / f"{tables}/mri.csv")
    assert len(path) == 2 * 11 and set(path["trained"]) == set(range(0, 101, 10))
    for trained, numbers in ((0, ["on_target_before"]), (100, ["on_target", "mri"])):
        found = path[path["trained"] == trained].set_index("method")
        for name in numbers:
            expected = ends.set_index("method")[name].to_dict()
            assert found[name.removesuffix("_before")].to_dict() == pytest.approx(
                expected, abs=2e-6
            )
    assert (path.query("trained == 0")["mri"] == 0).all()
    assert path.query("method == 'ft'")["on_target"].nunique() > 2
    assert (
        finished_copy.folder / "reports/tiny/epochs/figures/tradeoff_epochs.png"
    ).stat().st_size > 1000


def test_stir_inverts_each_network_once_and_reports_both_directions(finished_copy):
    config = (
        "models=[tiny_cnn]",
        "targets=[red]",
        "methods=[lwf,wise_ft]",
        "stir={images: 8, steps: 4}",
    )
    planned = finished_copy.planned(
        "stir", config=(*config, "representations={methods: [lwf, wise_ft]}")
    )
    assert (
        planned["invert_representation"] == 3
        and planned["cross_inversions"] == 2
        and "finetune" not in planned
    )
    finished_copy.snakemake(
        "--cores", "1", "stir", config=(*config, "representations={methods: [wise_ft]}")
    )
    table = pd.read_csv(finished_copy.folder / "reports/tiny/stir/tables/stir.csv")
    assert list(table["reference"]) == ["pretrained", "fine-tuned"] and set(table["passes"]) == {32}
    assert (
        table[["stir", "cka", "fidelity"]].abs().to_numpy().max() <= 1
        and (table["residual"] > 0).all()
    )
    path = (
        finished_copy.folder
        / "results/tiny/paper/inversions/tiny_cnn/none/pretrained/all/0/red.safetensors"
    )
    images = safetensors.numpy.load_file(path)["inverted"]
    assert images.shape == (8, 3, 160, 160) and images.min() >= 0 and images.max() <= 1
    assert (finished_copy.folder / "reports/tiny/stir/figures/stir.png").stat().st_size > 1000
