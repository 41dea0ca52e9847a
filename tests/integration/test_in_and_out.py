"""Models in by name and checkpoints out and in again, on the emoji family.

The rows are the same, image by image. Needs the package registries, from which the family's
drawings and weights come.
"""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import timm
import torch

from rib.base.files import read_json
from tiny.projects.project import Project, copy_project, rows_of

pytestmark = pytest.mark.slow
CHOICES = (
    *("models=[efficientnet_lite0, 'local-dir:networks/small']", "methods=[ft]", "targets=[noto]"),
    *("training={epochs: 3}", "datasets=[noto, openmoji, emojione]"),
)
RUN = "results/emoji/paper/{stage}/efficientnet_lite0/noto/{method}/all/0"
OPEN = """
import json, sys
import safetensors.numpy, timm, torch
torch.set_num_threads(1)
network = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
pixels = torch.from_numpy(safetensors.numpy.load_file(sys.argv[2])["pixels"])
images = pixels.permute(0, 3, 1, 2).float() / 255
config = timm.data.resolve_model_data_config(network)
mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
with torch.inference_mode():
    logits = network((images - mean) / std)
safetensors.numpy.save_file({"logits": logits.numpy()}, sys.argv[3])
print(json.dumps([config["input_size"], "rib" in sys.modules]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of Lite0 and a small network at random weights, its exports, and these scored again.

    Do not change it.
    """
    project = Project(copy_project(tmp_path_factory.mktemp("emoji") / "project"), family="emoji")
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=1000, img_size=96)
    timm.models.save_for_hf(network, project.folder / "networks/small", safe_serialization=True)
    project.snakemake("--cores", "2", config=CHOICES)
    project.snakemake("export", "--cores", "2", config=CHOICES)
    exported = RUN.format(stage="export", method="ft")
    exported_small = exported.replace("efficientnet_lite0", "small")
    (project.folder / "theirs.csv").write_text(
        "model,target,method,seed,file,label\n"
        f"efficientnet_lite0,noto,again,0,{exported},Again\n"
        f"small,noto,again,0,{exported_small},Again\n"
    )
    project.snakemake("--cores", "2", config=(*CHOICES, "external=[theirs.csv]"))
    return project


def rows(project, method, model="efficientnet_lite0"):
    folder = project.folder / RUN.format(stage="evaluate", method=method).replace(
        "efficientnet_lite0", model
    )
    return rows_of(next(folder.glob("*.parquet")))


@pytest.mark.parametrize("model", ["efficientnet_lite0", "small"])
def test_an_exported_checkpoint_scored_again_gives_the_same_rows(project, model):
    first, again = (
        rows(project, method, model).drop(columns="method") for method in ("ft", "again")
    )
    pd.testing.assert_frame_equal(first, again)
    ri = pd.read_csv(project.folder / "reports/emoji/tables/ri.csv").set_index(["model", "method"])
    numbers = ["ri", "ci_low", "ci_high", "fit"]
    assert ri.loc[(model, "ft"), numbers].equals(ri.loc[(model, "again"), numbers])


def test_a_network_by_its_folder_is_in_the_results_beside_lite0(project):
    accuracy = pd.read_csv(project.folder / "reports/emoji/tables/accuracy.csv")
    assert set(accuracy["model"]) == {"efficientnet_lite0", "small"}
    assert (
        read_json(project.folder / "models.lock.json")["local-dir:networks/small"]["type"] == "vit"
    )
    page = (project.folder / "reports/emoji/index.html").read_text()
    assert "small" in page and "Again" in page


def test_the_export_is_opened_by_timm_alone_in_another_process(project, tmp_path):
    """The predictions of the exported network are those of the run's rows.

    They are over the classes of the dataset.
    """
    prepared = next((project.folder / "results/emoji/prepare/noto").glob("*"))
    pixels = np.load(prepared / "images.npy")
    safetensors.numpy.save_file({"pixels": pixels}, tmp_path / "pixels.safetensors")
    folder = project.folder / RUN.format(stage="export", method="ft")
    words = [
        str(part)
        for part in (folder, tmp_path / "pixels.safetensors", tmp_path / "logits.safetensors")
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", OPEN, *words], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[3, 96, 96], False]
    logits = safetensors.numpy.load_file(tmp_path / "logits.safetensors")["logits"]
    space = read_json(prepared / "classes.json")
    class_logits = np.stack(
        [logits[:, indices].max(axis=1) for indices in space["indices"]], axis=1
    )
    own = rows(project, "ft")
    own = own[own["dataset"] == "noto"].sort_values("row")
    assert (class_logits.argmax(axis=1) == own["prediction"].to_numpy()).all()
