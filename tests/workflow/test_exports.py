"""`snakemake export`: what it makes and says, and that others' tools open it."""

import json
import re
import shutil
import subprocess
import sys

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
from tiny.project import Project, jobs_of_run

pytestmark = pytest.mark.thorough

EXPORTS = "results/tiny/paper/export"
FILES = {"README.md", "config.json", "manifest.json", "model.safetensors", "provenance.json"}
METHODS = ("ft", "linear_probe", "lwf", "wise_ft")
# What others do: timm alone on prepared images, with exported folders.
SCORE = """
import sys, timm, torch
from safetensors.torch import load_file, save_file
images, logits = load_file(sys.argv[1])["images"], {}
with torch.inference_mode():
    for folder in sys.argv[3:]:
        logits[folder] = timm.create_model("local-dir:" + folder, pretrained=True).eval()(images)
save_file(logits, sys.argv[2])
"""


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """A finished project with its exports, and what making them printed. Do not change it."""
    project = Project(tmp_path_factory.mktemp("exported") / "project")
    shutil.copytree(finished[0].folder, project.folder, symlinks=True)
    return project, project.snakemake("export", "--cores", "1")


def test_every_fine_tuned_run_is_exported_and_nothing_else_is_made(exported):
    project, printed = exported
    made = {
        path.relative_to(project.folder / EXPORTS)
        for path in (project.folder / EXPORTS).rglob("*.*")
    }
    runs = {
        f"tiny_cnn/{target}/{method}/all/0" for target in ("red", "green") for method in METHODS
    }
    assert set(map(str, made)) == {f"{run}/{file}" for run in runs for file in FILES}
    assert jobs_of_run(printed) == {"export_run": 8}
    assert (
        "exporting 8 runs" in printed
        and "Made: 8 exported runs in results/tiny/paper/export/" in printed
    )


def test_exports_are_not_part_of_a_run(finished, exported):
    assert not (finished[0].folder / EXPORTS).exists()
    assert exported[0].planned() == exported[0].planned("export") == {}


def test_timm_alone_gives_the_confidences_that_were_stored(exported, tmp_path):
    project = exported[0]
    results = project.folder / "results/tiny"
    prepared = results / "prepare/blue/160px-bicubic-crop1"
    images = (
        torch.from_numpy(np.load(prepared / "images.npy")).permute(0, 3, 1, 2).float() / 127.5 - 1
    )
    safetensors.torch.save_file({"images": images.contiguous()}, tmp_path / "images.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("images", "logits")]
    folders = {method: f"{EXPORTS}/tiny_cnn/red/{method}/all/0" for method in METHODS}
    command = [sys.executable, "-I", "-c", SCORE, *files, *folders.values()]
    subprocess.run(command, cwd=project.folder, env={}, check=True, timeout=60)
    logits = safetensors.torch.load_file(files[1])
    outputs = [row[0] for row in json.loads((prepared / "classes.json").read_text())["indices"]]
    for method, folder in folders.items():
        scores = logits[folder][:, outputs].softmax(dim=1).numpy()
        rows = pd.read_parquet(results / f"paper/evaluate/tiny_cnn/red/{method}/all/0/tiny.parquet")
        rows = rows.query("dataset == 'blue'")
        assert (rows["prediction"] == scores.argmax(axis=1)).all()
        np.testing.assert_allclose(rows["confidence"], scores.max(axis=1), atol=1e-3)


def run_card(folder):
    """Run the code of a model card in its folder; the shape of the logits."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    command = [sys.executable, "-I", "-c", code + "\nprint(tuple(logits.shape))"]
    done = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_code_of_the_card_runs(exported):
    assert run_card(exported[0].folder / f"{EXPORTS}/tiny_cnn/red/wise_ft/all/0") == "(1, 1000)"


def test_the_card_has_the_numbers_of_the_tables_and_the_hashes_of_what_was_exported(exported):
    project, _ = exported
    folder, reports = (
        project.folder / f"{EXPORTS}/tiny_cnn/red/wise_ft/all/0",
        project.folder / "reports/tiny/tables",
    )
    card = ModelCard((folder / "README.md").read_text())
    run = "method == 'wise_ft' and target == 'red'"
    accuracy, ri = (pd.read_csv(reports / f"{name}.csv").query(run) for name in ("accuracy", "ri"))
    found = {result.dataset_type: result.metric_value for result in card.data.eval_results}
    assert found == pytest.approx(
        dict(zip(accuracy["dataset"], accuracy["accuracy"] / 100, strict=True)), abs=1e-6
    )
    (row,) = ri.itertuples()
    assert f"**{points(row.ri)} percentage points**" in card.text
    assert f"{points(row.ci_low)} to {points(row.ci_high)}" in card.text
    assert f"{fit_percent(row.fit)} %" in card.text
    for file in (
        "models/tiny_cnn/weights.safetensors",
        "paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors",
    ):
        assert sha256(project.folder / "results/tiny" / file) in card.text
    assert str(project.folder) not in card.text and not re.search(r"\d\d:\d\d", card.text)


def test_a_second_export_has_the_same_bytes_in_another_folder(exported, tmp_path):
    project, run = Project(tmp_path / "copy"), f"{EXPORTS}/tiny_cnn/red/ft/all/0"
    shutil.copytree(exported[0].folder, project.folder, symlinks=True)
    shutil.rmtree(project.folder / run)
    project.snakemake(f"{run}/README.md", "--cores", "1")
    for file in FILES - {"provenance.json"}:
        assert (project.folder / run / file).read_bytes() == (
            exported[0].folder / run / file
        ).read_bytes()


def test_exports_are_verified_tracked_and_adopted(exported, tmp_path):
    project = Project(tmp_path / "copy")
    shutil.copytree(exported[0].folder, project.folder, symlinks=True)
    assert "all files match their records" in project.snakemake("verify")
    project.git("init", "-q", "-b", "main")
    project.commit("results")
    assert f"{EXPORTS}/tiny_cnn.dvc" in project.git("ls-files")
    shutil.rmtree(project.folder / ".snakemake")  # as for a colleague who pulled
    assert "Nothing to be done" in project.snakemake("export", "--cores", "1")
    weights = project.folder / f"{EXPORTS}/tiny_cnn/red/ft/all/0/model.safetensors"
    weights.unlink()
    weights.write_bytes(b"other")
    assert f"{EXPORTS}/tiny_cnn/red/ft/all/0/model.safetensors" in project.snakemake(
        "verify", check=False
    )


def test_an_open_clip_model_is_exported_whole_with_the_classifier_beside_it(project, tmp_path):
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 160,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 80,
        },
    }
    config["text_cfg"] = {
        "context_length": 8,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    }
    torch.manual_seed(0)
    whole = create("open_clip", "tiny", {"model_cfg": config})
    weights = project.folder / "mine/archives/tiny_clip.safetensors"
    safetensors.torch.save_file(whole.state_dict(), weights)
    models = project.folder / "mine/models.yaml"
    entry = yaml.safe_load(models.read_text())["tiny_vit"] | {
        "library": "open_clip",
        "architecture": "tiny",
        "head": "zero_shot",
    }
    source = {"kind": "file", "path": "archives/tiny_clip.safetensors", "file": "w.safetensors"}
    source["digest"] = f"sha256:{sha256(weights)}"
    entry |= {
        "label": "CLIP",
        "source": source,
        "weights": {"keys": "by_name"},
        "arguments": {"model_cfg": config},
    }
    models.write_text(json.dumps({"tiny_clip": entry}))
    printed = project.snakemake(
        "export", "--cores", "2", config=("models=[tiny_clip]", "methods=[ft]", "targets=[red]")
    )
    folder = project.folder / f"{EXPORTS}/tiny_clip/red/ft/all/0"
    assert {path.name for path in folder.iterdir()} == (
        FILES - {"config.json", "model.safetensors"}
    ) | {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "classification_head.safetensors",
    }
    exported = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
    changed = {
        name
        for name, tensor in whole.state_dict().items()
        if not torch.equal(tensor, exported[name])
    }
    assert changed and all(name.startswith("visual.") for name in changed)
    assert run_card(folder) == "(1, 1000)" and "exporting 1 runs" in printed


def test_what_cannot_be_exported_is_left_out_with_a_line_or_refused_by_name(finished_copy):
    more = ("methods=[ft,visual_prompt,wise_ft_curve]", "targets=[red]")
    printed = finished_copy.snakemake("-n", "export", config=more)
    assert "method 'visual_prompt' can't be exported: networks have no padding prompt" in printed
    assert "method 'wise_ft_curve' can't be exported: it has several states" in printed
    assert "exporting 1 runs" in printed
    printed = finished_copy.snakemake(
        "-n", "export", config=("methods=[visual_prompt]",), check=False
    )
    assert re.search(
        r"^method 'visual_prompt' can't be exported: .*; choose another method\.$", printed, re.M
    )
    for method in ("visual_prompt", "wise_ft_curve"):
        file = f"{EXPORTS}/tiny_cnn/red/{method}/all/0/README.md"
        printed = finished_copy.snakemake("-n", file, config=more, check=False)
        assert re.search(
            rf"^method '{method}' can't be exported: .*; choose another method\.$", printed, re.M
        )
        assert "Traceback" not in printed
