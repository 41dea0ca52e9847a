"""The README's examples as they stand there: the files that it shows, in a project, and the commands that it gives."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

from rib.io import read_json
from tiny.project import ROOT, Project, copy_project

TEXT = (ROOT / "README.md").read_text()
IMAGES = {"photos": 3, "sketches": 3, "toys": 3, "everyday": 12}  # of each class
RESULTS = "results/tools/paper/{stage}/efficientnet_lite0/{run}/all/0/"


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## )", TEXT, re.S | re.M)[1]


def shown(text):
    """Files that a text names and shows in full: content by path."""
    return dict(re.findall(r"`(own/[\w/.]+|load\.py)`[^`]*(?:`[^`]+`[^`]*)?:\n\n```\w+\n(.*?)```", text, re.S))


def write(project, files):
    for path, content in files.items():
        (project.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / path).write_text(content)


def command(text, containing):
    """The one command in a text that holds these words."""
    (found,) = {found for found in re.findall(r"`(snakemake [^`]+)`", text) if containing in found}
    return found


def shell(project, command):
    """Run a command as users do; what it printed."""
    weights = ROOT / "data/raw/efficientnet_lite0"  # the project's own download where it has one
    environment = {"RIB_ARCHIVES": str(weights)} if weights.is_dir() else {}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    printed = project.run("bash", "-c", command, PATH=path, **environment)
    project._wait_for_warm_server()
    return printed


def tool(rng, label):
    """A hammer or a saw, more or less."""
    pixels = rng.normal(190, 25, (60, 70, 3))
    parts = [(slice(10, 25), slice(10, 60)), (slice(25, 55), slice(30, 38))]
    for rows, columns in parts if label == 0 else [(slice(30, 40), slice(5, 65)), (slice(40, 46), slice(5, 65, 6))]:
        pixels[rows, columns] -= 120
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A project with the README's family, which has run."""
    text = section("A family of your own")
    project = Project(copy_project(tmp_path_factory.mktemp("readme") / "project"), family="tools")
    files = shown(text)
    assert set(files) == {f"own/{name}" for name in ("families/tools.yaml", "datasets.yaml", "classes/tools.csv")}
    write(project, files)
    rng = np.random.default_rng(0)
    for dataset, count in IMAGES.items():
        for label, name in enumerate(("hammer", "saw")):
            folder = project.folder / "own/images" / dataset / name
            folder.mkdir(parents=True)
            for number in range(count):
                tool(rng, label).save(folder / f"{number}.jpg")
    shell(project, command(text, "family=tools"))
    for line in re.findall(r"`((?:catalog|family): \w+)`", text):
        config = (project.folder / "config.yaml").read_text()
        config, found = re.subn(rf"^{line.split(':')[0]}:[^#\n]*", f"{line} ", config, flags=re.M)
        assert found == 1
        (project.folder / "config.yaml").write_text(config)
    return project


@pytest.fixture
def to_change(tools, tmp_path):
    shutil.copytree(tools.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy", family="tools")


def test_a_family_of_ones_own_runs_to_its_tables_and_page(tools):
    head = read_json(tools.folder / "results/tools/models/efficientnet_lite0/model.json")["head"]
    assert head["from"] == "fitted" and head["images"] == 2 * IMAGES["everyday"]
    ri, accuracy = (pd.read_csv(tools.folder / f"reports/tools/tables/{name}.csv") for name in ("ri", "accuracy"))
    assert set(ri["target"]) == {"photos", "sketches"} and set(ri["method"]) == {"ft", "linear_probe", "wise_ft"}
    assert set(ri["n"]) == {2 * 2 * 3} and set(accuracy["dataset"]) == {"photos", "sketches", "toys"}
    assert accuracy.query("method == 'pretrained'")["accuracy"].min() > 60, "the fitted head knows the classes"
    assert "</html>" in (tools.folder / "reports/tools/index.html").read_text()


def test_with_the_choices_in_config_a_plain_snakemake_has_nothing_to_do(tools):
    assert "Nothing to be done" in shell(tools, "snakemake --dry-run")


@pytest.mark.slow
def test_another_picture_makes_what_depends_on_it_anew(to_change):
    photo = to_change.folder / "own/images/toys/saw/0.jpg"
    photo.write_bytes((photo.parent / "1.jpg").read_bytes() + b"more")
    planned = shell(to_change, "snakemake --dry-run")
    jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", planned, re.M)}
    assert jobs["download"] == jobs["prepare"] == 1 and "finetune" not in jobs and jobs["evaluate_run"] == 7


def test_a_method_of_ones_own_is_added_to_what_is_there(to_change):
    text = section("Adding")
    files = shown(text)
    assert set(files) == {"own/methods.yaml", "own/methods/bitfit.py"}
    write(to_change, files)
    ft = to_change.folder / RESULTS.format(stage="finetune", run="photos/ft") / "checkpoint.safetensors"
    before = ft.stat().st_mtime_ns
    shell(to_change, command(text, "bitfit").replace("snakemake", "snakemake tables", 1))  # figures take their time
    ri = pd.read_csv(to_change.folder / "reports/tools/tables/ri.csv")
    assert set(ri["method"]) == {"ft", "bitfit"} and ft.stat().st_mtime_ns == before
    own = safetensors.torch.load_file(Path(str(ft).replace("/ft/", "/bitfit/")))
    assert own and all(name.removesuffix(".xor").endswith("bias") for name in own)


def test_a_checkpoint_is_loaded_as_shown(tools, monkeypatch, capsys):
    """And gives the predictions that evaluation stored."""
    code = shown(section("Choosing what to run"))["load.py"]
    for theirs, ours in (("emoji", "tools"), ("noto", "photos")):
        assert theirs in code
        code = code.replace(theirs, ours)
    (tools.folder / "load.py").write_text(code)
    monkeypatch.chdir(tools.folder)
    loaded = runpy.run_path("load.py")
    assert capsys.readouterr().out.startswith("tensor([")
    rows = pd.read_parquet(RESULTS.format(stage="evaluate", run="photos/ft") + "tools.parquet")
    (place,) = Path("results/tools/prepare/toys").iterdir()
    images = torch.from_numpy(np.load(place / "images.npy")).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        scores = loaded["model"]((images - loaded["mean"]) / loaded["std"]).softmax(dim=1)
    stored = rows[rows["dataset"] == "toys"]
    assert scores.argmax(dim=1).tolist() == stored["prediction"].tolist()
    np.testing.assert_allclose(scores.max(dim=1).values, stored["confidence"], atol=1e-3)


@pytest.mark.slow
def test_the_rest_of_the_reference_is_accuracy_in_distribution(to_change):
    changed = re.findall(r"In `(own/\S+)`\n\n```yaml\n(.*?)\n```|in `(own/\S+)`\n\n```yaml\n(.*?)\n```", TEXT, re.S)
    for found in changed:
        path, line = filter(None, found)
        text, n = re.subn(rf"^{line.split(':')[0]}:.*", line, (to_change.folder / path).read_text(), flags=re.M)
        assert n == 1
        (to_change.folder / path).write_text(text)
    assert len(changed) == 2
    rows = RESULTS.format(stage="evaluate", run="none/pretrained") + "tools.parquet"
    shell(to_change, f"snakemake {rows}")
    head = read_json(to_change.folder / "results/tools/models/efficientnet_lite0/model.json")["head"]
    assert head["images"] == 2 * 10
    counts = pd.read_parquet(to_change.folder / rows)["dataset"].value_counts()
    assert counts["everyday"] == 2 * (IMAGES["everyday"] - 10) and counts["photos"] == 2 * IMAGES["photos"]
