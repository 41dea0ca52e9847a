"""`snakemake export`: what it makes and says, and that others' tools open it."""

import json
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from huggingface_hub import ModelCard

from rib.base.files import sha256
from rib.base.rounding import fit_percent, points
from rib.models.network import create
from tiny.projects.project import Project, jobs

pytestmark = pytest.mark.thorough

EXPORTS = "results/tiny/paper/export"
FILES = {"README.md", "config.json", "manifest.json", "model.safetensors", "provenance.json"}
TARGETS = ("red", "green")
METHODS = ("ft", "linear_probe", "lwf", "wise_ft")
# What others do: timm alone on prepared images, with exported folders. Arguments are a file of
# images, a file for the logits by folder, and the folders.
SCORE = """
import sys, timm, torch
from safetensors.torch import load_file, save_file

images_file, logits_file, *folders = sys.argv[1:]
images = load_file(images_file)["images"]
logits = {}
with torch.inference_mode():
    for folder in folders:
        network = timm.create_model("local-dir:" + folder, pretrained=True).eval()
        logits[folder] = network(images)
save_file(logits, logits_file)
"""


class Exported(NamedTuple):
    """A finished project with its exports."""

    project: Project
    printed: str  # while they were made


def copy_of(project, folder):
    """A copy of a project with its results."""
    shutil.copytree(project.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """A finished project with its exports; do not change it."""
    finished_project, _ = finished
    project = copy_of(finished_project, tmp_path_factory.mktemp("exported") / "project")
    printed = project.snakemake("export", "--cores", "1")
    return Exported(project, printed)


def export_of(method, target="red", model="tiny_cnn"):
    """The folder of the export of a run, relative to the project's."""
    return f"{EXPORTS}/{model}/{target}/{method}/all/0"


def test_every_fine_tuned_run_is_exported_and_nothing_else_is_made(exported):
    files = set()
    for path in (exported.project.folder / EXPORTS).rglob("*.*"):
        files.add(str(path.relative_to(exported.project.folder)))
    expected = set()
    for target in TARGETS:
        for method in METHODS:
            expected.update(f"{export_of(method, target)}/{file}" for file in FILES)
    assert files == expected
    assert jobs(exported.printed) == {"export_run": 8, "export": 1}
    assert "exporting 8 runs" in exported.printed


def test_exports_are_not_part_of_a_run(finished, exported):
    finished_project, _ = finished
    assert not (finished_project.folder / EXPORTS).exists()
    assert exported.project.planned() == {}
    assert exported.project.planned("export") == {}


def preprocessed_images(prepared):
    """The images of a prepared dataset as inputs of the tiny networks, (n, 3, side, side)."""
    pixels = torch.from_numpy(np.load(prepared / "images.npy"))
    inputs = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    return inputs.contiguous()


def test_timm_alone_gives_the_confidences_that_were_stored(exported, tmp_path):
    # given
    project = exported.project
    results = project.folder / "results/tiny"
    prepared = results / "prepare/blue/160px-bicubic-crop1"
    images_file = tmp_path / "images.safetensors"
    logits_file = tmp_path / "logits.safetensors"
    safetensors.torch.save_file({"images": preprocessed_images(prepared)}, images_file)
    folders = {method: export_of(method) for method in METHODS}

    # when
    command = [sys.executable, "-I", "-c", SCORE, images_file, logits_file, *folders.values()]
    subprocess.run(command, cwd=project.folder, env={}, check=True, timeout=60)

    # then
    logits = safetensors.torch.load_file(logits_file)
    classes = json.loads((prepared / "classes.json").read_text())
    outputs_of_classes = [output for (output,) in classes["indices"]]
    for method, folder in folders.items():
        scores = logits[folder][:, outputs_of_classes].softmax(dim=1).numpy()
        run = f"paper/evaluate/tiny_cnn/red/{method}/all/0"
        rows = pd.read_parquet(results / run / "tiny.parquet").query("dataset == 'blue'")
        assert len(rows) == len(scores)
        assert (rows["prediction"] == scores.argmax(axis=1)).all()
        np.testing.assert_allclose(rows["confidence"], scores.max(axis=1), atol=1e-3)


def run_card(folder):
    """Run the code of a model card in its folder; the shape of the logits as text."""
    card = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    command = [sys.executable, "-I", "-c", f"{code}\nprint(tuple(logits.shape))"]
    done = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_code_of_the_card_runs(exported):
    assert run_card(exported.project.folder / export_of("wise_ft")) == "(1, 1000)"


def rows_of_run(project, table):
    """The rows of a table of the reports that are of the run of WiSE-FT on red."""
    rows = pd.read_csv(project.folder / f"reports/tiny/tables/{table}.csv")
    return rows.query("method == 'wise_ft' and target == 'red'")


def test_the_card_has_the_numbers_of_the_tables_and_the_hashes_of_what_was_exported(exported):
    project = exported.project
    card = ModelCard((project.folder / export_of("wise_ft") / "README.md").read_text())

    # accuracies are those of the table
    accuracy = rows_of_run(project, "accuracy").set_index("dataset")["accuracy"]
    assert len(accuracy) > 1
    shown = {result.dataset_type: result.metric_value for result in card.data.eval_results}
    assert shown == pytest.approx((accuracy / 100).to_dict(), abs=1e-6)

    # and so are RI, its interval and the fit
    (row,) = rows_of_run(project, "ri").itertuples()
    assert f"**{points(row.ri)} percentage points**" in card.text
    assert f"{points(row.ci_low)} to {points(row.ci_high)}" in card.text
    assert f"{fit_percent(row.fit)} %" in card.text

    # hashes are of the files that the weights are made of
    results = project.folder / "results/tiny"
    pretrained = results / "models/tiny_cnn/weights.safetensors"
    finetuned = results / "paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
    assert sha256(pretrained) in card.text
    assert sha256(finetuned) in card.text

    # nothing tells of this machine or of a time
    assert str(project.folder) not in card.text
    assert not re.search(r"\d\d:\d\d", card.text)


OPEN_CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 160,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 80,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}


def replace_models_by_tiny_clip(project, state):
    """Let a model of open_clip, tiny_clip, be the only one of the project's own catalogue.

    Args:
        state: its weights, of both towers.
    """
    weights = project.folder / "mine/archives/tiny_clip.safetensors"
    safetensors.torch.save_file(state, weights)
    source = {
        "kind": "file",
        "path": "archives/tiny_clip.safetensors",
        "file": "w.safetensors",
        "digest": f"sha256:{sha256(weights)}",
    }
    models = project.folder / "mine/models.yaml"
    entry = {
        **yaml.safe_load(models.read_text())["tiny_vit"],
        "library": "open_clip",
        "architecture": "tiny",
        "arguments": {"model_cfg": OPEN_CLIP_CONFIG},
        "head": "zero_shot",
        "label": "CLIP",
        "source": source,
        "weights": {"keys": "by_name"},
    }
    models.write_text(json.dumps({"tiny_clip": entry}))


def test_an_open_clip_model_is_exported_whole_with_the_classifier_beside_it(project):
    # given
    torch.manual_seed(0)
    model = create("open_clip", "tiny", {"model_cfg": OPEN_CLIP_CONFIG})
    pretrained = model.state_dict()
    replace_models_by_tiny_clip(project, pretrained)

    # when
    choices = ("models=[tiny_clip]", "methods=[ft]", "targets=[red]", "datasets=[red,green]")
    printed = project.snakemake("export", "--cores", "2", config=choices)

    # then
    assert "exporting 1 runs" in printed
    folder = project.folder / export_of("ft", model="tiny_clip")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "manifest.json",
        "provenance.json",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "classification_head.safetensors",
    }
    exported = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
    changed = set()
    for name, tensor in pretrained.items():
        if not torch.equal(tensor, exported[name]):
            changed.add(name)
    assert changed
    assert all(name.startswith("visual.") for name in changed)
    assert run_card(folder) == "(1, 1000)"


def test_a_padding_prompt_of_a_users_own_method_is_neither_exported_nor_merged(finished_copy):
    # given a method and a merge of it
    entry = {"source": "tests", "style": {"colour": "#010203", "marker": "o"}}
    prompt = {
        **entry,
        "label": "my prompt",
        "algorithm": "my_prompt",
        "padding_prompt": True,
        "recipes": {"paper": {"lr": 0.1}},
    }
    merge = {**entry, "label": "mean", "algorithm": "soup", "form": "coefficients"}
    merge |= {"parents": ["my_prompt"], "settings": {"pretrained": True}}
    (finished_copy.folder / "mine/methods").mkdir()
    (finished_copy.folder / "mine/methods/my_prompt.py").touch()
    entries = yaml.safe_dump({"my_prompt": prompt, "my_mean": merge})
    (finished_copy.folder / "mine/methods.yaml").write_text(entries)

    choices = ("methods=[ft,my_prompt]", "targets=[red]")
    printed = finished_copy.snakemake("-n", "export", config=choices)
    assert "method 'my_prompt' can't be exported" in printed
    assert "exporting 1 runs" in printed

    choices = ("methods=[ft,my_mean]", "targets=[red]")
    printed = finished_copy.snakemake("-n", config=choices, check=False)
    assert "'my_mean': its parent 'my_prompt'" in printed


def test_what_cannot_be_exported_is_left_out_with_a_line_or_refused_by_name(finished_copy):
    choices = ("methods=[ft,visual_prompt,wise_ft_curve]", "targets=[red]")

    # beside a method that can be exported, others are left out
    printed = finished_copy.snakemake("-n", "export", config=choices)
    for method in ("visual_prompt", "wise_ft_curve"):
        assert f"method '{method}' can't be exported" in printed
    assert "exporting 1 runs" in printed

    # where its file is asked for, one is refused
    card = f"{export_of('visual_prompt')}/README.md"
    printed = finished_copy.snakemake("-n", card, config=choices, check=False)
    assert "method 'visual_prompt' can't be exported" in printed
    assert "Traceback (most" not in printed
