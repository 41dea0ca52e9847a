"""README.md and docs/ as they stand there.

The files that they show are used in a project, and the commands that they give are run.
"""

import csv
import io
import re
import runpy
import shlex
import shutil
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

from rib.base.files import read_json
from rib.models.checkpoint import xor_decompress
from rib.reporting import readme
from tiny import forked
from tiny.photos import INDICES, WNIDS, run_prepare
from tiny.plugins import needs
from tiny.project import ROOT, TABLE_LINE, Project, copy_project, rows_of

PAGES = {
    path.stem: path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
IMAGES = {"photos": 3, "sketches": 3, "toys": 3, "everyday": 12}  # of each class
RESULTS = "results/tools/paper/{stage}/efficientnet_lite0/{run}/all/0/"
RUN_FOR_REAL = {
    "your-own-family",
    "families",
    "adding",
    "sharing",
    "cluster",
}  # pages of which other tests run the commands
LOOKS = {"plan", "status"}
CLUSTER = "envs/requirements-cluster.txt"
INSTALL = f"pip install --require-hashes --no-deps -r {CLUSTER}"


class Example(NamedTuple):
    """A block of a page: the paragraph before it, its language, what it holds."""

    before: str
    language: str
    content: str

    @property
    def path(self):
        """The file that the block shows, None if it shows none."""
        paths = re.findall(r"`((?:own|workflow)/[\w/.]+|load\.py)`", self.before)
        return paths[-1] if paths and self.before.endswith(":") else None


def section(page, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGES[page], re.S | re.M)[1]


def examples(text):
    blocks = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M))
    return [
        Example(text[: block.start()].rstrip().rsplit("\n\n", 1)[-1], block[1], block[2])
        for block in blocks
    ]


def commands(text):
    """Command lines of a text's blocks and sentences, without their comments."""
    lines = [
        line
        for block in examples(text)
        if not block.language
        for line in block.content.splitlines()
    ]
    inline = re.findall(r"`((?:snakemake|dvc|make|sha256sum) [^`]+)`", text)
    found = (re.sub(r"\s+# .*", "", line) for line in [*lines, *inline])
    return list(
        dict.fromkeys(
            line for line in found if re.match(r"(snakemake|dvc|git|make|pip|sha256sum)\b", line)
        )
    )


def write(project, shown):
    """Write, or add to, the files that some examples show; their paths."""
    for example in shown:
        path = project.folder / example.path
        path.parent.mkdir(parents=True, exist_ok=True)
        adds = "Add to" in example.before
        assert path.exists() == adds, path
        path.write_text((path.read_text() + "\n" if adds else "") + example.content)
    return {example.path for example in shown}


def files_of(text):
    return [example for example in examples(text) if example.path]


def shell(project, command, **environment):
    """Run a command as users write it; what it printed."""
    weights = ROOT / "data/raw/efficientnet_lite0"  # the project's own download where it has one
    environment |= {"RIB_ARCHIVES": str(weights)} if weights.is_dir() else {}
    environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    program, *words = shlex.split(command)
    if program in forked.IMPORTED:
        return project.fork(program, *words, **environment)
    return project.run("bash", "-c", command, **environment)


def tool(rng, label):
    """A hammer or a saw, more or less."""
    pixels = rng.normal(190, 25, (60, 70, 3))
    parts = [(slice(10, 25), slice(10, 60)), (slice(25, 55), slice(30, 38))]
    for rows, columns in (
        parts if label == 0 else [(slice(30, 40), slice(5, 65)), (slice(40, 46), slice(5, 65, 6))]
    ):
        pixels[rows, columns] -= 120
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A project with the family of docs/your-own-family.md, which has run."""
    page = PAGES["your-own-family"]
    project = Project(copy_project(tmp_path_factory.mktemp("docs") / "project"), family="tools")
    written = write(project, files_of(page))
    assert written == {
        f"own/{name}" for name in ("families/tools.yaml", "datasets.yaml", "classes/tools.csv")
    }
    rng = np.random.default_rng(0)
    for dataset, count in IMAGES.items():
        for label, name in enumerate(("hammer", "saw")):
            folder = project.folder / "own/images" / dataset / name
            folder.mkdir(parents=True)
            for number in range(count):
                tool(rng, label).save(folder / f"{number}.jpg")
    (command,) = commands(section("your-own-family", "Run it"))
    shell(project, command)
    for key, value in re.findall(
        r"`(catalog|family): (\w+)`", section("your-own-family", "Run it")
    ):
        config = (project.folder / "config.yaml").read_text()
        config, found = re.subn(rf"^{key}:[^#\n]*", f"{key}: {value} ", config, flags=re.M)
        assert found == 1
        (project.folder / "config.yaml").write_text(config)
    return project


@pytest.fixture
def to_change(tools, tmp_path):
    shutil.copytree(tools.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy", family="tools")


def test_generated_parts_are_fresh(bare, tmp_path, monkeypatch):
    pages = [
        tmp_path / "README.md",
        *(tmp_path / "docs" / f"{name}.md" for name in PAGES if name != "README"),
    ]
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    rules = shell(bare, "snakemake --rulegraph mermaid-js")
    monkeypatch.chdir(ROOT)
    readme.renew(pages, rules)
    assert {page.stem: page.read_text() for page in pages} == PAGES, "stale: run `make docs`"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A project in which nothing has run."""
    return Project(copy_project(tmp_path_factory.mktemp("bare") / "project"))


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """One with a small part of the paper's benchmark as its default."""
    project = Project(copy_project(tmp_path_factory.mktemp("paper") / "project"))
    project.edit("config.yaml", "models: default", "models: [vit_base_patch16_224.augreg_in1k]")
    project.edit("config.yaml", "targets: default", "targets: [imagenet_r]")
    return project


ALL = {page: commands(text) for page, text in PAGES.items()}
FOR_REAL = {line for page in RUN_FOR_REAL for line in ALL[page]}
PLANNED = sorted({line for page in ALL.keys() - RUN_FOR_REAL for line in ALL[page]} - FOR_REAL)


@pytest.mark.thorough
def test_commands_plan_a_run(bare, paper):
    planned = {line.removesuffix(" -n") for line in PLANNED if line.startswith("snakemake")}
    for command in planned - {"snakemake preview"}:  # tests/workflow/test_preview.py runs it
        dry = "" if LOOKS & set(shlex.split(command)) else " -n"
        shell(paper if "family=imagenet" in command else bare, command + dry)


def test_the_analyses_of_a_table_are_those_of_its_command():
    text = section("configuration", "Analyses on demand")
    assert [f"snakemake {' '.join(re.findall(r'^. `([a-z]+)` .', text, re.M))}"] == commands(text)


def test_make_has_the_targets_that_pages_name():
    contributing = commands((ROOT / "CONTRIBUTING.md").read_text())
    calls = {line.split(" && ")[0] for line in [*PLANNED, *contributing] if line.startswith("make")}
    assert {"make run", "make docs", "make example"} <= calls
    planned = {call: Project(ROOT).run("make", "-n", *shlex.split(call)[1:]) for call in calls}
    (ends_with,) = (
        block.content.strip()
        for block in examples(PAGES["README"])
        if block.before.endswith("ends with")
    )
    assert ends_with in planned["make run"] and all(planned.values())


def test_no_command_is_left_out():
    """Besides one that needs a network; what it installs is a file of the project."""
    assert all(line.startswith(("snakemake", "make")) for line in PLANNED)
    assert {line for lines in ALL.values() for line in lines if line.startswith("pip")} == {INSTALL}
    assert (ROOT / CLUSTER).is_file()


@pytest.mark.thorough
@needs("slurm")
@pytest.mark.parametrize(
    "command", [line for line in commands(PAGES["cluster"]) if line.startswith("snakemake")]
)
def test_a_command_plans_a_run_on_a_cluster(paper, bare, command):
    assert shell(paper if "family=imagenet" in command else bare, f"{command} -n --quiet rules")


@pytest.mark.thorough
def test_a_family_of_ones_own_runs_to_its_tables_and_page(tools):
    head = read_json(tools.folder / "results/tools/models/efficientnet_lite0/model.json")["head"]
    assert head["from"] == "fitted" and head["images"] == 2 * IMAGES["everyday"]
    ri, accuracy = (
        pd.read_csv(tools.folder / f"reports/tools/tables/{name}.csv")
        for name in ("ri", "accuracy")
    )
    assert set(ri["target"]) == {"photos", "sketches"} and set(ri["method"]) == {
        "ft",
        "linear_probe",
        "wise_ft",
    }
    assert set(ri["n"]) == {2 * 2 * 3} and set(accuracy["dataset"]) == {
        "photos",
        "sketches",
        "toys",
    }
    assert accuracy.query("method == 'pretrained'")["accuracy"].min() > 60, (
        "the fitted head knows the classes"
    )
    assert "</html>" in (tools.folder / "reports/tools/index.html").read_text()


@pytest.mark.thorough
def test_with_the_choices_in_config_a_plain_snakemake_has_nothing_to_do(tools):
    printed = shell(tools, "snakemake -n")
    assert "Nothing to be done" in printed, printed


@pytest.mark.slow
def test_another_picture_makes_what_depends_on_it_again(to_change):
    photo = to_change.folder / "own/images/toys/saw/0.jpg"
    photo.write_bytes((photo.parent / "1.jpg").read_bytes() + b"more")
    jobs = planned(to_change)
    assert (
        jobs["download"] == jobs["prepare"] == 1
        and "finetune" not in jobs
        and jobs["evaluate_run"] == 7
    )


def planned(project):
    return {
        rule: int(n) for rule, n in re.findall(TABLE_LINE, shell(project, "snakemake -n"), re.M)
    }


@pytest.mark.slow
def test_the_rest_of_the_reference_is_accuracy_in_distribution(to_change):
    for example in examples(section("your-own-family", "Accuracy in distribution")):
        (path,) = re.findall(r"`(own/\S+)`", example.before)
        key, text = example.content.split(":")[0], (to_change.folder / path).read_text()
        text, n = re.subn(rf"^{key}:.*\n", example.content, text, flags=re.M)
        assert n == 1
        (to_change.folder / path).write_text(text)
    rows = RESULTS.format(stage="evaluate", run="none/pretrained") + "tools.parquet"
    shell(to_change, f"snakemake {rows}")
    head = read_json(to_change.folder / "results/tools/models/efficientnet_lite0/model.json")[
        "head"
    ]
    assert head["images"] == 2 * 10
    counts = pd.read_parquet(to_change.folder / rows)["dataset"].value_counts()
    assert (
        counts["everyday"] == 2 * (IMAGES["everyday"] - 10)
        and counts["photos"] == 2 * IMAGES["photos"]
    )


def newest_grid(project) -> Path:
    """Folder of what is made of the grid of which tables were made last."""
    grids = (project.folder / "results/tools/paper/metrics").glob("*/tables/ri.csv")
    return max(grids, key=lambda table: table.stat().st_mtime_ns).parents[1]


@pytest.mark.thorough
def test_a_method_is_added_to_what_is_there(to_change):
    text = section("adding", "A method")
    assert write(to_change, files_of(text)) == {"own/methods.yaml", "own/methods/bitfit.py"}
    ft = (
        to_change.folder
        / RESULTS.format(stage="finetune", run="photos/ft")
        / "checkpoint.safetensors"
    )
    before = ft.stat().st_mtime_ns
    (command,) = commands(text)
    shell(
        to_change, command.replace("snakemake", "snakemake --until compute_metrics", 1)
    )  # the rest takes its time
    ri = pd.read_csv(newest_grid(to_change) / "tables/ri.csv")
    assert set(ri["method"]) == {"ft", "bitfit"} and ft.stat().st_mtime_ns == before
    own = safetensors.torch.load_file(Path(str(ft).replace("/ft/", "/bitfit/")))
    assert own and all(name.removesuffix(".xor").endswith("bias") for name in own)


@pytest.mark.thorough
def test_weights_that_were_trained_elsewhere_are_scored(to_change):
    """Those of the runs that are there, so that what is made of them must be the same."""
    text = section("adding", "Weights that were trained elsewhere")
    shown = next(example for example in examples(text) if example.language == "csv")
    write(to_change, [shown])
    start = safetensors.torch.load_file(
        to_change.folder / "results/tools/models/efficientnet_lite0/weights.safetensors"
    )
    (to_change.folder / "own/weights").mkdir()
    for row in csv.DictReader(io.StringIO(shown.content)):
        run = RESULTS.format(stage="finetune", run=f"{row['target']}/ft")
        stored = safetensors.torch.load_file(to_change.folder / run / "checkpoint.safetensors")
        file, state = (
            to_change.folder / "own" / row["file"],
            {**start, **xor_decompress(stored, start)},
        )
        (torch.save if file.suffix == ".pth" else safetensors.torch.save_file)(state, file)
    (command,) = (line for line in commands(text) if "external" in line)
    shell(to_change, command.replace("snakemake", "snakemake --until write_summary", 1))
    tables = newest_grid(to_change) / "tables"
    ri = pd.read_csv(tables / "ri.csv").set_index(["method", "target"])
    assert ri.loc["ft", "ri"].to_dict() == ri.loc["theirs", "ri"].to_dict() and len(ri) == 4
    assert "Their method" in (tables / "summary.md").read_text()


@pytest.mark.thorough
def test_a_dataset_with_a_layout_of_its_own_is_added(to_change):
    text = section("adding", "A dataset with a new archive layout")
    (table,) = (example.content for example in examples(text) if example.language == "csv")
    (to_change.folder / "own/archives").mkdir()
    with zipfile.ZipFile(to_change.folder / "own/archives/shop.zip", "w") as archive:
        archive.writestr("labels.csv", table)
        for number, row in enumerate(csv.DictReader(io.StringIO(table))):
            image = io.BytesIO()
            tool(np.random.default_rng(number), ["hammer", "saw"].index(row["class"])).save(
                image, "JPEG"
            )
            archive.writestr(row["file"], image.getvalue())
    assert write(to_change, files_of(text)) == {
        "own/layouts/labelled_files.py",
        "own/layouts/sheets.py",
        "own/datasets.yaml",
    }
    (command,) = (line for line in commands(text) if line.startswith("sha256sum"))
    to_change.edit(
        "own/datasets.yaml", "sha256:...", f"sha256:{shell(to_change, command).split()[0]}"
    )
    jobs = planned(to_change)
    assert jobs["prepare"] == 1 and jobs["evaluate_run"] == 7 and "finetune" not in jobs
    rows = RESULTS.format(stage="evaluate", run="none/pretrained") + "tools.parquet"
    shell(to_change, f"snakemake {rows}")
    shop = rows_of(to_change.folder / rows).query("dataset == 'shop'")
    assert list(shop["image_id"]) == ["images/001.jpg", "images/002.jpg"] and list(
        shop["label"]
    ) == [0, 1]


def test_a_layout_that_cuts_makes_an_image_of_each_view(tmp_path):
    text = section("adding", "A dataset with a new archive layout")
    (shown,) = (example for example in files_of(text) if example.path == "own/layouts/sheets.py")
    layout = tmp_path / "sheets.py"
    layout.write_text(shown.content)
    sheet = np.zeros((40, 80, 3), np.uint8)
    sheet[:, 40:] = 255
    encoded = io.BytesIO()
    Image.fromarray(sheet).save(encoded, "PNG")
    archive = tmp_path / "sheets.zip"
    wnids = [WNIDS[i] for i in INDICES[:2]]
    with zipfile.ZipFile(archive, "w") as zipped:
        for wnid in wnids:
            zipped.writestr(f"{wnid}/1.png", encoded.getvalue())
    (tmp_path / "out").mkdir()
    index, images, _ = run_prepare(
        tmp_path / "out", str(layout.with_suffix("")), archive, classes_per_dataset=True
    )
    assert index["image_id"].tolist() == [
        f"{wnid}/1.png/{view}" for wnid in wnids for view in ("left", "right")
    ]
    assert index["label"].tolist() == [0, 0, 1, 1] and index["object_id"].nunique() == 2
    assert images.mean(axis=(1, 2, 3)).tolist() == [0, 255, 0, 255]


@pytest.mark.thorough
def test_a_figure_is_added(to_change):
    text = section("adding", "A figure")
    assert len(write(to_change, files_of(text))) == 3
    (command,) = commands(text)
    shell(to_change, command)
    shown = pd.read_csv(to_change.folder / "reports/tools/figures/trade_off.csv")
    assert len(shown) == 2 * 3 and shown[["gain", "ri"]].notna().all(axis=None)
    assert "trade_off" in (to_change.folder / "reports/tools/index.html").read_text(), (
        "it is part of every run"
    )


@pytest.mark.thorough
def test_an_analysis_is_added(to_change):
    text = section("adding", "An analysis")
    assert len(write(to_change, files_of(text))) == 5
    (command,) = commands(text)
    shell(to_change, command)
    drops = pd.read_csv(to_change.folder / "reports/tools/tables/largest_drop.csv")
    accuracy = pd.read_csv(to_change.folder / "reports/tools/tables/accuracy.csv")
    before = accuracy[accuracy["method"] == "pretrained"].set_index(["model", "dataset"])
    for row in drops.to_dict("records"):
        runs = accuracy.query("method == @row['method'] and target == @row['target']")
        others = runs[runs["dataset"] != row["target"]]
        changes = [
            line["accuracy"] - before.loc[(line["model"], line["dataset"]), "accuracy"]
            for line in others.to_dict("records")
            if line["model"] == row["model"] and line["role"] == "ood"
        ]
        assert row["change"] == pytest.approx(min(changes), abs=1e-5)
    assert len(drops) == 2 * 3
    assert "Largest drop" in (to_change.folder / "reports/tools/index.html").read_text()


@pytest.mark.thorough
def test_a_checkpoint_is_loaded_as_shown(tools, monkeypatch, capsys):
    """And gives the predictions that evaluation stored."""
    (shown,) = files_of(section("how-it-works", "Checkpoints"))
    code = shown.content
    names = {
        "fashion_cnn_50k": "efficientnet_lite0",
        "fashion_edges": "photos",
        "results/fashion": "results/tools",
    }
    for theirs, ours in names.items():
        assert theirs in code
        code = code.replace(theirs, ours)
    (tools.folder / shown.path).write_text(code)
    monkeypatch.chdir(tools.folder)
    loaded = runpy.run_path(shown.path)
    assert capsys.readouterr().out.startswith("tensor([")
    rows = pd.read_parquet(RESULTS.format(stage="evaluate", run="photos/ft") + "tools.parquet")
    (place,) = Path("results/tools/prepare/toys").iterdir()
    images = torch.from_numpy(np.load(place / "images.npy")).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        scores = loaded["model"]((images - loaded["mean"]) / loaded["std"]).softmax(dim=1)
    stored = rows[rows["dataset"] == "toys"]
    assert scores.argmax(dim=1).tolist() == stored["prediction"].tolist()
    np.testing.assert_allclose(scores.max(dim=1).values, stored["confidence"], atol=1e-3)


WHO = {
    f"GIT_{who}_{what}": "tester@localhost"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


@pytest.mark.slow
def test_results_are_shared_as_shown(to_change, tmp_path):
    owner, colleague, origin = (
        to_change,
        Project(tmp_path / "colleague", family="tools"),
        tmp_path / "origin.git",
    )

    def run(project, line):
        return shell(
            project,
            line.replace("s3://bucket/rib", f"{tmp_path}/storage").replace("fashion", "tools"),
            **WHO,
        )

    remote, *publish = commands(section("sharing", "Publish"))
    run(
        owner,
        f"git init -q -b main && git init -q --bare -b main {origin} "
        f"&& git remote add origin {origin}",
    )
    run(owner, "git add --all && git commit -qm start && git push -qu origin main")
    for line in (remote, *publish):
        run(owner, line)
    owner.git("clone", "-q", str(origin), str(colleague.folder))
    run(colleague, remote)
    others = [
        line for title in ("Get", "Merge", "Verify") for line in commands(section("sharing", title))
    ]
    printed = {line: run(colleague, line) for line in dict.fromkeys(others)}
    assert (
        "Nothing to be done" in printed["snakemake -n"]
        and "all files match" in printed["snakemake verify"]
    )
    assert owner.products() == colleague.products()
    for line in commands(section("sharing", "After a change of code")):
        run(colleague, line)
