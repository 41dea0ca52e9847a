"""The family of docs/families.md that is one repository of the hub, from name to page.

The hub is on 127.0.0.1. The run is repeated without it, and in a second clone with the lock file.
"""

import io
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from rib.base.files import sha256
from rib.catalog.hub_datasets import file_name
from rib.catalog.hub_names import LOCK, read_lock
from tiny.data.parquet import write_photos
from tiny.projects import family as tiny_family
from tiny.projects.project import ROOT, Project, copy_project, jobs
from tiny.servers.hub import COMMIT_OF_CONVERSION, TOKEN, Repository, environment, served

pytestmark = pytest.mark.thorough

CLASSES = ["hammer", "saw"]
DOMAINS = {"photo": 20, "sketch": 4, "toy": 4}  # and images of each class
SHARDS = 2
NAME = "hf-datasets:somebody/tools@refs/convert/parquet"
REPOSITORY = "datasets/somebody/tools"
CHOICES = ("catalog=[mine,hub]", "family=tools", "models=[tiny_cnn]", "targets=[sketches]")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def photo(rng, label, domain):
    """An encoded image whose class is a colour."""
    pixels = rng.normal(100 + 20 * domain, 20, (40, 48, 3))
    pixels[..., label] += 80
    encoded = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def shard(folder, number):
    """A Parquet file with a part of the images of each domain and class."""
    rng = np.random.default_rng(number)
    columns = {"domain": [], "image": [], "label": []}
    for domain, (name, count) in enumerate(DOMAINS.items()):
        for label in range(len(CLASSES)):
            for _ in range(count // SHARDS):
                columns["domain"].append(name)
                columns["image"].append(photo(rng, label, domain))
                columns["label"].append(label)
    path = folder / f"shard{number}.parquet"
    return write_photos(path, columns, {"label": CLASSES}).read_bytes()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    files = {
        f"default/train/{number:04}.parquet": shard(folder, number) for number in range(SHARDS)
    }
    repository = Repository({"README.md": b"---", "photos.zip": b"PK"}, converted=files)
    with served({REPOSITORY: repository}) as server:
        yield server


def write_family(project):
    """Write the files of the page; its classes are those of the page's first family."""
    page = (ROOT / "docs/families.md").read_text()
    (classes,) = re.findall(r"^```csv\n(.*?)^```$", page, re.S | re.M)
    text = re.search(r"^## From a repository of the hub\n(.*?)^## ", page, re.S | re.M)[1]
    datasets, family = re.findall(r"^```yaml\n(.*?)^```$", text, re.S | re.M)
    assert len(datasets.splitlines()) < 10
    for path, content in {
        "hub/datasets.yaml": datasets,
        "hub/families/tools.yaml": family,
        "hub/classes/tools.csv": classes,
    }.items():
        file = project.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    words = "--config catalog=hub family=tools"
    assert re.findall("^(?:rib|snakemake) .*$", text, re.M) == [
        f"rib lock {words}",
        f"snakemake {words}",
    ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A project with the family's entries, in which nothing has run."""
    folder = copy_project(tmp_path_factory.mktemp("first") / "project")
    tiny_family.make(folder / "mine")  # for its network
    project = Project(folder, family="tools")
    write_family(project)
    return project


@pytest.fixture(scope="module")
def finished(clone, hub, tmp_path_factory):
    """The project after a run with the hub, and the cache of the hub's client."""
    cache = tmp_path_factory.mktemp("cache")
    variables = {**environment(hub, cache), "HF_TOKEN": TOKEN}
    clone.rib("lock", config=CHOICES, **variables)
    plan = clone.rib("plan", config=CHOICES, **OFFLINE)
    repository = read_lock(clone.folder / LOCK).datasets[NAME]
    archives = [f"data/raw/photos/{file_name(file.path)}" for file in repository.files]
    snakemake(clone, *archives, "--cores", "2", **variables)
    printed = clone.snakemake("--cores", "2", config=CHOICES, **variables)
    return clone, cache, plan, printed


def snakemake(project, *arguments, check=True, **variables):
    """Run Snakemake in a new process: the hub's client reads its environment when imported."""
    words = (sys.executable, "-m", "snakemake", *arguments, "--config", *CHOICES)
    return project.run(*words, check=check, **variables)


def clone_of(project, folder):
    """A second project with what git keeps of the first: the family's entries and its lock."""
    clone = Project(copy_project(folder), family="tools")
    shutil.copytree(project.folder / "mine", clone.folder / "mine")
    write_family(clone)
    shutil.copy(project.folder / LOCK, clone.folder)
    return clone


def prepared(project):
    """Hashes of the prepared images, by path."""
    results = project.folder / "results/tools/prepare"
    return {str(path.relative_to(results)): sha256(path) for path in results.rglob("images.npy")}


def test_three_domains_of_a_repository_become_a_page(finished):
    project, _, plan, _ = finished
    assert re.search(r"^  photos: [\d.]+kB, theirs, on the hub: mit$", plan, re.M)
    page = (project.folder / "reports/tools/index.html").read_text()
    assert all(label in page for label in ("Photos", "Sketches", "Toys"))
    index = project.folder / "results/tools/prepare"
    assert {path.name for path in index.iterdir()} >= {"photos", "sketches", "toys"}
    assert read_lock(project.folder / LOCK).datasets[NAME].commit == COMMIT_OF_CONVERSION
    assert [path.name for path in (project.folder / "data/raw").glob("*/*.parquet")]
    assert not list((project.folder / "data/raw").glob("sketches/*")), "they share the files"
    for path in project.folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".log", ".jsonl", ".html", ".yaml"):
            assert TOKEN not in path.read_text(errors="ignore"), path


def test_without_the_hub_there_is_nothing_to_do_and_the_bytes_are_the_same(finished, hub):
    project, cache, _, _ = finished
    hub.asked.clear()
    printed = snakemake(project, "-n", **OFFLINE)
    assert "Nothing to be done" in printed
    before = prepared(project)
    shutil.rmtree(project.folder / "data/raw/photos")
    shutil.rmtree(project.folder / "results/tools/prepare/photos")
    files = [f"results/tools/prepare/{name}" for name in before]
    snakemake(project, *files, "--cores", "2", HF_HOME=str(cache), **OFFLINE)
    assert prepared(project) == before and not hub.asked


def test_a_second_clone_gets_the_same_bytes_from_a_hub_that_has_moved_on(finished, hub, tmp_path):
    first, _, _, _ = finished
    second = clone_of(first, tmp_path / "second")
    repository = hub.repositories[REPOSITORY]
    repository.earlier[COMMIT_OF_CONVERSION] = repository.converted
    repository.commit_of_conversion = COMMIT_OF_CONVERSION[::-1]
    repository.converted = {"default/train/0000.parquet": b"others"}
    files = [f"results/tools/prepare/{name}" for name in prepared(first)]
    variables = environment(hub, tmp_path / "cache")
    snakemake(second, *files, "--cores", "2", **variables)
    assert prepared(second) == prepared(first)
    assert (second.folder / LOCK).read_bytes() == (first.folder / LOCK).read_bytes()


def test_a_dry_run_of_the_lock_plans_each_file_once(finished, tmp_path):
    first, _, _, _ = finished
    project = clone_of(first, tmp_path / "other")
    planned = jobs(snakemake(project, "-n", **OFFLINE))
    assert planned["download"] == SHARDS + 1  # and the model's weights
    assert planned["prepare"] == len(DOMAINS)
