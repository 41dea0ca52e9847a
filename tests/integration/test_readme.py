"""README.md, docs/ and reports/README.md as they stand there.

The files that they show are used in a project, and the commands that they give are run.
"""

import csv
import io
import re
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

import rib
from rib.base.files import read_json
from rib.models.checkpoint import xor_decompress
from rib.report import readme
from tiny.projects import forked
from tiny.projects.plugins import needs
from tiny.projects.project import ROOT, TABLE_LINE, Project, copy_project, rows_of

REPORTS = ROOT / "reports/README.md"
PATHS_OF_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), REPORTS]


def name_of(path):
    """Name of a page: README, adding, ..., reports."""
    return "reports" if path.parent.name == "reports" else path.stem


PAGES = {name_of(path): path.read_text() for path in PATHS_OF_PAGES}
CLASSES = ("hammer", "saw")  # of the family of docs/families.md
IMAGES = {"photos": 3, "sketches": 3, "toys": 3, "everyday": 12}  # of each class
MODEL = "efficientnet_lite0"
RESULTS = "results/tools/paper/{stage}/efficientnet_lite0/{run}/all/0/"
PRETRAINED_ROWS = RESULTS.format(stage="evaluate", run="none/pretrained") + "tools.parquet"
RUNS = 7  # pretrained, and three methods on two targets
# Pages of which other tests run the commands.
RUN_FOR_REAL = {"families", "adding", "sharing"}
PROGRAMS = ("snakemake", "rib", "dvc", "git", "make", "pip", "sha256sum")
# The command `rib` of the project, which the environment has for the clone where it was made.
COMMAND_RIB = 'rib() { PYTHONPATH=workflow/lib python -m rib.commands "$@"; }'
CLUSTER = "envs/requirements-cluster.txt"
INSTALL = f"pip install --require-hashes --no-deps -r {CLUSTER}"
# Its names must be looked up on a hub first, as tests/integration/test_named_models.py does.
DATACOMP = "workflow/configs/datacomp.yaml"


class Example(NamedTuple):
    """A block of a page: the paragraph before it, its language, what it holds."""

    before: str
    language: str
    content: str

    @property
    def path(self):
        """The file that the block shows, None if it shows none."""
        paths = re.findall(r"`((?:own|workflow)/[\w/.]+)`", self.before)
        if not paths or not self.before.endswith(":"):
            return None
        return paths[-1]


def section(page, title):
    """Text of a page's section."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGES[page], re.S | re.M)[1]


def examples(text):
    """The blocks of a text, in its order."""
    blocks = []
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M):
        language, content = block.groups()
        *_, before = text[: block.start()].rstrip().split("\n\n")
        blocks.append(Example(before, language, content))
    return blocks


def commands(text):
    """Command lines of a text's blocks and sentences, without their comments, each once."""
    lines = []
    for block in examples(text):
        if not block.language:
            lines.extend(block.content.splitlines())
    lines.extend(re.findall(r"`((?:snakemake|rib|dvc|make|sha256sum) [^`]+)`", text))
    without_comments = [re.sub(r"\s+# .*", "", line) for line in lines]
    calls = [line for line in without_comments if re.match(rf"({'|'.join(PROGRAMS)})\b", line)]
    return list(dict.fromkeys(calls))


def commands_of_blocks(text):
    """Command lines of a text's blocks alone."""
    blocks = [block.content for block in examples(text) if not block.language]
    return commands("\n\n".join(f"```\n{content}```" for content in blocks))


def commands_of(program, text):
    """Command lines of a text that call a program."""
    return [line for line in commands(text) if line.startswith(program)]


def files_of(text):
    """The blocks of a text that show a file."""
    return [example for example in examples(text) if example.path]


def write(project, shown_files):
    """Write, or add to, the files that some examples show; their paths."""
    for example in shown_files:
        path = project.folder / example.path
        path.parent.mkdir(parents=True, exist_ok=True)
        adds = "Add to" in example.before
        assert path.exists() == adds, path
        text_before = path.read_text() + "\n" if adds else ""
        path.write_text(text_before + example.content)
    return {example.path for example in shown_files}


def set_key(path, key, line):
    """Replace the line of a key in a YAML file, which must have it once."""
    text, replaced = re.subn(rf"^{key}:.*\n", line, path.read_text(), flags=re.MULTILINE)
    assert replaced == 1
    path.write_text(text)


def shell(project, command, **environment):
    """Run a command as users write it; what it printed."""
    weights = ROOT / f"data/raw/{MODEL}"  # the project's own download where it has one
    if weights.is_dir():
        environment["RIB_ARCHIVES"] = str(weights)
    environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    program, *words = shlex.split(command)
    if program in forked.IMPORTED:
        return project.fork(program, *words, **environment)
    return project.run("bash", "-c", f"{COMMAND_RIB}\n{command}", **environment)


def only_until(rule, command):
    """A Snakemake command that ends with a rule, since what follows takes its time."""
    return command.replace("snakemake", f"snakemake --until {rule}", 1)


def planned(project):
    """Number of jobs of each rule that a plain `snakemake` would run."""
    printed = shell(project, "snakemake -n")
    return {rule: int(number) for rule, number in re.findall(TABLE_LINE, printed, re.MULTILINE)}


HAMMER = [(slice(10, 25), slice(10, 60)), (slice(25, 55), slice(30, 38))]  # its head and handle
SAW = [(slice(30, 40), slice(5, 65)), (slice(40, 46), slice(5, 65, 6))]  # its blade and teeth


def tool(rng, class_name):
    """A picture of a hammer or a saw, more or less."""
    pixels = rng.normal(190, 25, (60, 70, 3))
    dark_areas = HAMMER if class_name == "hammer" else SAW
    for rows, columns in dark_areas:
        pixels[rows, columns] -= 120
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_pictures(folder):
    """Write the pictures of the family of docs/families.md."""
    rng = np.random.default_rng(0)
    for dataset, images_of_class in IMAGES.items():
        for class_name in CLASSES:
            pictures = folder / dataset / class_name
            pictures.mkdir(parents=True)
            for number in range(images_of_class):
                tool(rng, class_name).save(pictures / f"{number}.jpg")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A project with the family of docs/families.md, which has run.

    Its config.yaml chooses the family, as the page says.
    """
    project = Project(copy_project(tmp_path_factory.mktemp("docs") / "project"), family="tools")
    assert write(project, files_of(PAGES["families"])) == {
        "own/families/tools.yaml",
        "own/datasets.yaml",
        "own/classes/tools.csv",
    }
    make_pictures(project.folder / "own/images")
    text = section("families", "Your own images")
    (command,) = commands(text)
    shell(project, command)
    choices = re.findall(r"`(catalog|family): (\w+)`", text)
    assert {key for key, _ in choices} == {"catalog", "family"}
    for key, value in choices:
        set_key(project.folder / "config.yaml", key, f"{key}: {value}\n")
    return project


@pytest.fixture
def to_change(tools, tmp_path):
    """A copy of that project which a test may change."""
    shutil.copytree(tools.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy", family="tools")


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


def test_generated_parts_are_fresh(bare, tmp_path, monkeypatch):
    # given
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "reports").mkdir()
    shutil.copy(REPORTS, tmp_path / "reports")
    copies = [tmp_path / path.relative_to(ROOT) for path in PATHS_OF_PAGES]
    rules = shell(bare, "snakemake --rulegraph mermaid-js")
    monkeypatch.chdir(ROOT)
    # when
    readme.renew(copies, rules)
    # then
    renewed = {name_of(path): path.read_text() for path in copies}
    assert renewed == PAGES, "stale: run `make docs`"


COMMANDS_OF_PAGES = {page: commands(text) for page, text in PAGES.items()}
ON_SLURM = [line for line in COMMANDS_OF_PAGES["cluster"] if "--workflow-profile" in line]


def planned_commands():
    """Command lines that are planned only, since no other test runs them."""
    run_for_real = {*commands(section("README", "Add a method")), *ON_SLURM, INSTALL}
    others = set()
    for page, lines in COMMANDS_OF_PAGES.items():
        if page in RUN_FOR_REAL:
            run_for_real.update(lines)
        else:
            others.update(line for line in lines if DATACOMP not in line)
    return sorted(others - run_for_real)


PLANNED = planned_commands()


@pytest.mark.thorough
def test_commands_plan_a_run(bare, paper):
    snakemake_commands = set()
    for line in PLANNED:
        if line.startswith("snakemake"):
            snakemake_commands.add(line.removesuffix(" -n"))
    assert snakemake_commands
    for command in snakemake_commands:
        project = paper if "family=imagenet" in command else bare
        shell(project, f"{command} -n")
    for command in PLANNED:
        # They only look. A preview needs a finished run: tests/workflow/test_preview.py.
        if command.startswith("rib") and not command.startswith("rib preview"):
            shell(paper if "family=imagenet" in command else bare, command)


def test_the_analyses_of_a_table_are_those_of_its_command():
    text = section("configuration", "Analyses on demand")
    analyses = re.findall(r"^. `([a-z]+)` .", text, re.MULTILINE)
    assert analyses
    assert commands(text) == [f"snakemake {' '.join(analyses)}"]


def test_make_has_the_targets_that_pages_name():
    # given
    contributing = commands((ROOT / "CONTRIBUTING.md").read_text())
    calls = set()
    for line in [*PLANNED, *contributing]:
        if line.startswith("make"):
            first_command, *_ = line.split(" && ")
            calls.add(first_command)
    assert {"make run", "make docs", "make example"} <= calls
    # when
    printed = {}
    for call in calls:
        program, *words = shlex.split(call)
        printed[call] = Project(ROOT).run(program, "-n", *words)
    # then
    assert all(printed.values())
    (last_line,) = [
        block.content.strip()
        for block in examples(PAGES["README"])
        if block.before.endswith("ends with")
    ]
    assert last_line in printed["make run"]


def test_no_command_is_left_out():
    """Besides one that needs a network; what it installs is a file of the project."""
    assert PLANNED
    for line in PLANNED:
        assert line.startswith(("snakemake", "make", "rib")), line
    installing = set()
    for lines in COMMANDS_OF_PAGES.values():
        installing.update(line for line in lines if line.startswith("pip"))
    assert installing == {INSTALL}
    assert (ROOT / CLUSTER).is_file()


@pytest.mark.thorough
@needs("slurm")
@pytest.mark.parametrize("command", ON_SLURM)
def test_a_command_plans_a_run_on_a_cluster(paper, bare, command):
    project = paper if "family=imagenet" in command else bare
    assert shell(project, f"{command} -n --quiet rules")


def head_of_model(project):
    """Facts about the classifier of the project's model."""
    return read_json(project.folder / f"results/tools/models/{MODEL}/model.json")["head"]


def table_of(project, name):
    """A table of the project's reports."""
    return pd.read_csv(project.folder / f"reports/tools/tables/{name}.csv")


def page_of(project):
    """HTML of the page of the project's run."""
    return (project.folder / "reports/tools/index.html").read_text()


@pytest.mark.thorough
def test_a_family_of_ones_own_runs_to_its_tables_and_page(tools):
    # the head is fitted on the reference
    head = head_of_model(tools)
    assert head["from"] == "fitted"
    assert head["images"] == len(CLASSES) * IMAGES["everyday"]

    # RI is of all runs, on the images of the other two datasets
    ri = table_of(tools, "ri")
    assert set(ri["target"]) == {"photos", "sketches"}
    assert set(ri["method"]) == {"ft", "linear_probe", "wise_ft"}
    other_datasets = 2
    assert set(ri["n"]) == {other_datasets * len(CLASSES) * IMAGES["toys"]}

    # the fitted head knows the classes
    accuracy = table_of(tools, "accuracy")
    assert set(accuracy["dataset"]) == {"photos", "sketches", "toys"}
    of_pretrained = accuracy.query("method == 'pretrained'")
    assert len(of_pretrained) > 0
    assert of_pretrained["accuracy"].min() > 60

    assert "</html>" in page_of(tools)


@pytest.mark.thorough
def test_with_the_choices_in_config_a_plain_snakemake_has_nothing_to_do(tools):
    printed = shell(tools, "snakemake -n")
    assert "Nothing to be done" in printed, printed


@pytest.mark.slow
def test_another_picture_makes_what_depends_on_it_again(to_change):
    picture = to_change.folder / "own/images/toys/saw/0.jpg"
    other_picture = picture.with_name("1.jpg")
    picture.write_bytes(other_picture.read_bytes() + b"more")
    jobs = planned(to_change)
    assert jobs["download"] == 1
    assert jobs["prepare"] == 1
    assert jobs["evaluate"] == RUNS
    assert "finetune" not in jobs


@pytest.mark.slow
def test_the_rest_of_the_reference_is_accuracy_in_distribution(to_change):
    # given
    changes = examples(section("families", "Accuracy in distribution"))
    assert changes
    for example in changes:
        (path,) = re.findall(r"`(own/\S+)`", example.before)
        key, *_ = example.content.split(":")
        set_key(to_change.folder / path, key, example.content)
    # when
    shell(to_change, f"snakemake {PRETRAINED_ROWS}")
    # then ten images of each class are the reference, and the others are evaluated
    of_reference = 10
    assert head_of_model(to_change)["images"] == len(CLASSES) * of_reference
    images = pd.read_parquet(to_change.folder / PRETRAINED_ROWS)["dataset"].value_counts()
    assert images["everyday"] == len(CLASSES) * (IMAGES["everyday"] - of_reference)
    assert images["photos"] == len(CLASSES) * IMAGES["photos"]


def checkpoint_of(project, run) -> Path:
    """The checkpoint of a fine-tuning, "<target>/<method>"."""
    return project.folder / RESULTS.format(stage="finetune", run=run) / "checkpoint.safetensors"


@pytest.mark.thorough
def test_a_method_is_added_to_what_is_there(to_change):
    # given
    text = section("adding", "A method")
    assert write(to_change, files_of(text)) == {"own/methods.yaml", "own/methods/bitfit.py"}
    checkpoint_of_ft = checkpoint_of(to_change, "photos/ft")
    time_before = checkpoint_of_ft.stat().st_mtime_ns
    # when
    (command,) = commands(text)
    shell(to_change, only_until("compute_metrics", command))
    # then it is beside what was there, which stays
    ri = table_of(to_change, "ri")
    assert set(ri["method"]) == {"ft", "bitfit"}
    assert checkpoint_of_ft.stat().st_mtime_ns == time_before
    # and it has changed biases only
    changed = safetensors.torch.load_file(checkpoint_of(to_change, "photos/bitfit"))
    assert changed
    for name in changed:
        assert name.removesuffix(".xor").endswith("bias"), name


@pytest.mark.thorough
def test_the_method_of_the_readme_trains(to_change):
    # given
    text = section("README", "Add a method")
    assert write(to_change, files_of(text)) == {"own/methods.yaml", "own/methods/biases.py"}
    # when
    (command,) = commands(text)
    shell(to_change, only_until("compute_metrics", command))
    # then
    assert set(table_of(to_change, "ri")["method"]) == {"ft", "biases"}


def save_as(file, state):
    """Write a state dict in the format that the file's ending tells."""
    if file.suffix == ".pth":
        torch.save(state, file)
    else:
        safetensors.torch.save_file(state, file)


@pytest.mark.thorough
def test_weights_that_were_trained_elsewhere_are_scored(to_change):
    """Those of the runs that are there, so that what is made of them must be the same."""
    # given
    text = section("adding", "Weights that were trained elsewhere")
    (runs_file,) = [example for example in files_of(text) if example.language == "csv"]
    write(to_change, [runs_file])
    pretrained = safetensors.torch.load_file(
        to_change.folder / f"results/tools/models/{MODEL}/weights.safetensors"
    )
    (to_change.folder / "own/weights").mkdir()
    lines = list(csv.DictReader(io.StringIO(runs_file.content)))
    assert lines
    for line in lines:
        stored = safetensors.torch.load_file(checkpoint_of(to_change, f"{line['target']}/ft"))
        finetuned = {**pretrained, **xor_decompress(stored, pretrained)}
        save_as(to_change.folder / "own" / line["file"], finetuned)
    # when
    (command,) = [line for line in commands(text) if "external" in line]
    shell(to_change, only_until("analyse_summary", command))
    # then
    ri = table_of(to_change, "ri").set_index(["method", "target"])["ri"]
    ri_of_ft = ri["ft"].to_dict()
    assert set(ri_of_ft) == {"photos", "sketches"}
    assert ri["theirs"].to_dict() == ri_of_ft
    assert len(ri) == 2 * len(ri_of_ft)
    summary = to_change.folder / "reports/tools/tables/summary.md"
    assert "Their method" in summary.read_text()


@pytest.mark.thorough
def test_a_dataset_with_a_layout_of_its_own_is_added(to_change):
    # given the archive that the page tells of
    text = section("adding", "A dataset with a new archive layout")
    (table,) = [example.content for example in examples(text) if example.language == "csv"]
    (to_change.folder / "own/archives").mkdir()
    with zipfile.ZipFile(to_change.folder / "own/archives/shop.zip", "w") as archive:
        archive.writestr("labels.csv", table)
        for number, line in enumerate(csv.DictReader(io.StringIO(table))):
            image = io.BytesIO()
            tool(np.random.default_rng(number), line["class"]).save(image, "JPEG")
            archive.writestr(line["file"], image.getvalue())
    # and the files that it shows, with the digest that the command gives
    assert write(to_change, files_of(text)) == {
        "own/layouts/labelled_files.py",
        "own/datasets.yaml",
    }
    (command,) = commands_of("sha256sum", text)
    digest, *_ = shell(to_change, command).split()
    to_change.edit("own/datasets.yaml", "sha256:...", f"sha256:{digest}")
    # then every run is evaluated on it, and none is trained again
    jobs = planned(to_change)
    assert jobs["prepare"] == 1
    assert jobs["evaluate"] == RUNS
    assert "finetune" not in jobs
    # when
    shell(to_change, f"snakemake {PRETRAINED_ROWS}")
    # then
    shop = rows_of(to_change.folder / PRETRAINED_ROWS).query("dataset == 'shop'")
    assert shop["image_id"].tolist() == ["images/001.jpg", "images/002.jpg"]
    labels = [CLASSES.index("hammer"), CLASSES.index("saw")]
    assert shop["label"].tolist() == labels


def changes_on_other_datasets(accuracy, run):
    """Changes of accuracy from the pretrained model, of a run, on datasets out of distribution.

    Args:
        accuracy: the table of accuracies.
        run: with its model, method and target, by these names.
    """
    accuracies_before = accuracy[accuracy["method"] == "pretrained"]
    before = accuracies_before.set_index(["model", "dataset"])["accuracy"]
    of_run = accuracy.query(
        "model == @run['model'] and method == @run['method'] and target == @run['target']"
    )
    out_of_distribution = of_run.query("role == 'ood' and dataset != @run['target']")
    changes = []
    for line in out_of_distribution.to_dict("records"):
        changes.append(line["accuracy"] - before[line["model"], line["dataset"]])
    return changes


LARGEST_DROP = "workflow/lib/rib/analyses/largest_drop"


@pytest.mark.thorough
def test_an_analysis_is_added(to_change):
    text = section("adding", "A table or a figure")
    assert write(to_change, files_of(text)) == {
        f"{LARGEST_DROP}/{file}.py" for file in ("describe", "tables", "figure")
    }
    # when it is run, as all analyses are, then nothing else is made again
    jobs = planned(to_change)
    assert set(jobs) - {"all", "total"} == {"analyse_largest_drop", "draw_figures", "write_page"}
    for command in commands_of_blocks(text):
        shell(to_change, command.replace("reports/fashion", "reports/tools"))
    # then it has a line for each run, a figure of them, and a place on the page
    drops = table_of(to_change, "largest_drop")
    assert len(drops) == 2 * 3  # targets and methods
    accuracy = table_of(to_change, "accuracy")
    for run in drops.to_dict("records"):
        largest_drop = min(changes_on_other_datasets(accuracy, run))
        assert run["change"] == pytest.approx(largest_drop, abs=1e-5)
    figure = to_change.folder / "reports/tools/figures/largest_drop"
    assert figure.with_suffix(".png").is_file()
    assert len(pd.read_csv(figure.with_suffix(".csv"))) == len(drops)
    page = page_of(to_change)
    assert "Largest drop" in page
    assert "Points far to the left" in page  # the caption


@pytest.mark.thorough
def test_a_loaded_network_gives_the_stored_predictions(tools, monkeypatch):
    monkeypatch.chdir(tools.folder)
    # given images of the toys
    (prepared,) = Path("results/tools/prepare/toys").iterdir()
    images = torch.from_numpy(np.load(prepared / "images.npy")).permute(0, 3, 1, 2) / 255
    # when
    network = rib.load_network(".", f"tools/paper/{MODEL}/photos/ft/all/0")
    mean, std = [torch.tensor(network.preprocessing[key]).view(3, 1, 1) for key in ("mean", "std")]
    with torch.inference_mode():
        logits = network((images - mean) / std)
    # then
    confidence, prediction = logits.softmax(dim=1).max(dim=1)
    rows = pd.read_parquet(RESULTS.format(stage="evaluate", run="photos/ft") + "tools.parquet")
    rows_of_toys = rows[rows["dataset"] == "toys"]
    assert rows_of_toys["prediction"].tolist() == prediction.tolist()
    np.testing.assert_allclose(confidence, rows_of_toys["confidence"], atol=1e-3)


# Variables by which git knows who commits.
AUTHOR = dict.fromkeys(
    ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    "tester@localhost",
)


def test_git_takes_the_entries_of_a_family_of_ones_own_and_not_its_images(tmp_path):
    # given a new project with the files and pictures of the page
    project = Project(copy_project(tmp_path / "project"), family="tools")
    entries = write(project, files_of(PAGES["families"]))
    make_pictures(project.folder / "own/images")
    project.git("init", "-q")
    # when all is added, as docs/sharing.md says
    (command,) = [
        line for line in commands(section("sharing", "Publish")) if line.startswith("git add")
    ]
    add, *_ = command.split(" && ")
    shell(project, add)
    # then
    assert set(project.git("ls-files", "own").split()) == entries


def put_under_git(owner, origin, run):
    """Give a project a first commit and an empty origin; `run` runs a line in a project."""
    run(owner, "git init -q -b main")
    run(owner, f"git init -q --bare -b main {origin}")
    run(owner, f"git remote add origin {origin}")
    run(owner, "git add --all")
    run(owner, "git commit -qm start")
    run(owner, "git push -qu origin main")


@pytest.mark.slow
def test_a_run_is_handed_over_as_shown(to_change, tmp_path, monkeypatch):
    text = section("sharing", "Hand over a run")
    all_lines = commands_of_blocks(text)
    *lines_of_owner, _pull = all_lines  # `rib verify` of whoever reviews is the owner's, too
    (verify,) = [line for line in all_lines if line.startswith("rib verify")]

    def run(project, line):
        line_of_tools = line.replace("s3://bucket/rib", str(tmp_path / "storage"))
        line_of_tools = line_of_tools.replace("imagenet", "tools")
        return shell(project, line_of_tools, **AUTHOR)

    # given an owner with choices in a file, as the page shows
    owner = to_change
    put_under_git(owner, tmp_path / "origin.git", run)
    (choices,) = files_of(text)
    write(owner, [choices])
    path = owner.folder / choices.path
    for key, chosen in (("family", "tools"), ("models", f"[{MODEL}]"), ("targets", "[photos]")):
        set_key(path, key, f"{key}: {chosen}\n")
    set_key(path, "methods", "methods: [ft]\ncatalog: own\n")
    set_key(path, "seeds", "seeds: [0]\n")

    # when everything is done that the page says
    (readme_of_run,) = [block for block in examples(text) if block.language == "markdown"]
    for line in lines_of_owner:
        if line == "make docs":  # it makes all pages; here the part about runs is made
            (owner.folder / "reports/my_run/README.md").write_text(readme_of_run.content)
            monkeypatch.setattr(readme, "REPORTS", owner.folder / "reports")
            (row,) = readme.kept_runs().splitlines()[2:]
        else:
            run(owner, line)

    # then the run has a row with all facts
    assert row.startswith("| [my_run](my_run/README.md) |")
    assert readme.NOT_RECORDED not in row

    # and whoever reviews it can check it, with rows and tables and without images
    reviewer = Project(tmp_path / "reviewer", family="tools")
    owner.git("clone", "-q", "-b", "my_run", str(tmp_path / "origin.git"), str(reviewer.folder))
    for line in all_lines:
        if line.startswith(("dvc remote", "rib pull")):
            run(reviewer, line)
    assert (reviewer.folder / "reports/my_run/tables/ri.csv").is_file()
    assert list((reviewer.folder / "results/tools/paper/evaluate").rglob("*.parquet"))
    printed = run(reviewer, verify)
    assert "all files match" in printed
    assert "verified 0 jobs" not in printed


@pytest.mark.slow
def test_results_are_shared_as_shown(to_change, tmp_path):
    storage = tmp_path / "storage"

    def run(project, line):
        line_of_tools = line.replace("s3://bucket/rib", str(storage)).replace("fashion", "tools")
        return shell(project, line_of_tools, **AUTHOR)

    # given an owner with a project under git
    owner = to_change
    origin = tmp_path / "origin.git"
    put_under_git(owner, origin, run)

    # when the owner publishes the results
    add_remote, *publish = commands(section("sharing", "Publish"))
    for line in (add_remote, *publish):
        run(owner, line)

    # and a colleague gets them
    colleague = Project(tmp_path / "colleague", family="tools")
    owner.git("clone", "-q", str(origin), str(colleague.folder))
    run(colleague, add_remote)
    lines_of_colleague = []
    for title in ("Get", "Merge", "Verify"):
        lines_of_colleague.extend(commands(section("sharing", title)))
    printed = {line: run(colleague, line) for line in dict.fromkeys(lines_of_colleague)}

    # then they have the same results, which Snakemake knows, and no image in git
    assert not list(colleague.folder.glob("own/images"))
    assert "Nothing to be done" in printed["snakemake -n"]
    assert "all files match" in printed["rib verify"]
    assert owner.products()
    assert owner.products() == colleague.products()
    for line in commands(section("sharing", "After an edit")):
        run(colleague, line)
