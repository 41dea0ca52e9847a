"""Datasets by name: what entries, lock files and the hub's answers come to, and what is refused."""

import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from rib.base.errors import UserError
from rib.base.files import git_blob_id, verify_digest, write_json
from rib.catalog.catalog import Catalog
from rib.catalog.hub_datasets import file_name
from rib.catalog.hub_names import (
    LOCK,
    HubFile,
    HubLock,
    HubRepository,
    UnresolvedError,
    read_lock,
    write_lock,
)
from rib.grid.grid import resolve_grid
from rib.models.lock import renew, resolve
from rib.schema.checking import checked
from rib.schema.config import config_of
from rib.schema.entries import Model
from rib.schema.source_entries import parsed_source
from tiny.projects.project import ROOT
from tiny.servers.hub import COMMIT, git_id
from unit.conftest import published

NAME = "hf-datasets:owner/set"
SOURCE = {"kind": "hf-datasets", "repo": "owner/set"}  # the same as a mapping
CONVERSION = f"{NAME}@refs/convert/parquet"  # which is read without files
TARS = {**SOURCE, "files": "test/*.tar"}
OTHER_COMMIT = COMMIT[::-1]
DIGEST = f"sha256:{'a' * 64}"
GIT_DIGEST = f"git:{'b' * 40}"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def repository_of(*paths, commit=COMMIT, gated=False, digest=DIGEST):
    files = tuple(HubFile(path=path, size=9, digest=digest) for path in paths)
    return HubRepository(commit=commit, licence="mit", gated=gated, files=files)


def write_dataset_lock(path, repositories):
    write_lock(path, HubLock(models={}, datasets=repositories))


def read_dataset_lock(path):
    return read_lock(path).datasets


def lock_datasets(catalog, *names):
    """Resolve what these datasets name, as `rib lock` does."""
    with pytest.raises(UnresolvedError) as error:
        catalog.with_hub_files(names)
    resolve(error.value)


def entry_of(**changes):
    return {
        "family": "emoji",
        "label": "Set",
        "source": TARS,
        "layout": "class_folders",
        "licence": "theirs",
        "origin": "the hub",
        "optional": True,
        **changes,
    }


def catalog_with(**entries):
    """A catalogue of the project's folder and one with these entries of datasets."""
    Path("own").mkdir(exist_ok=True)
    write_json(Path("own/datasets.yaml"), entries)  # JSON is YAML
    return Catalog([ROOT / "workflow/catalog", Path("own")])


def grid_of(catalog, datasets):
    config = {"family": "emoji", "datasets": datasets, "targets": ["noto"]}
    return resolve_grid(config_of(config, "config.yaml"), catalog)


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        (NAME, SOURCE),
        (
            f"{NAME}@refs/convert/parquet",
            {**SOURCE, "revision": "refs/convert/parquet"},
        ),
        ({"kind": "folder", "path": "x"}, {"kind": "folder", "path": "x"}),
    ],
)
def test_a_name_is_a_mapping_in_short(source, parsed):
    assert parsed_source(source) == parsed


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "hf-datasets:owner",
            "'photos.source' is 'hf-datasets:owner', .*expected: hf-datasets:OWNER/NAME",
        ),
        (f"{NAME}@a/../b", f"'photos.source' is '{NAME}@a/../b'"),
        ({"kind": "hf-datasets", "repo": "a/b", "where": {}}, "unknown key 'where'"),
        ({**TARS, "split": "test"}, "give files, or config and split, but not both in 'photos.sou"),
        ("owner/set", "'photos.source' is 'owner/set'"),
    ],
)
def test_a_source_that_is_no_name_is_a_sentence(source, sentence):
    with pytest.raises(UserError, match=sentence):
        _ = catalog_with(photos=entry_of(source=source)).datasets


def test_a_model_has_no_such_source():
    model = {**published("models.yaml")["efficientnet_lite0"], "source": SOURCE}
    with pytest.raises(UserError, match="'net.source.kind' is 'hf-datasets', .*expected: npm or"):
        checked(Model, model, "models.yaml", "net", ["net"])


def test_a_dataset_has_the_files_of_its_lock_without_asking_the_hub(monkeypatch):
    monkeypatch.setattr(HfApi, "dataset_info", None)
    others = entry_of(archives_of="photos")
    del others["source"]
    catalog = catalog_with(photos=entry_of(source=TARS), others=others)
    repository = repository_of("test/0.tar", "test/1.tar", "train/0.tar", gated=True)
    write_dataset_lock(LOCK, {NAME: repository})
    assert catalog.datasets["photos"].archives == ()
    grid = grid_of(catalog, ["noto", "photos", "others"])
    for name in ("photos", "others"):
        dataset = grid.catalog.datasets[name]
        assert dataset == grid.datasets[name] and dataset.raw == "photos"
        assert [source["file"] for source in dataset.archives] == ["test-0.tar", "test-1.tar"]
        assert dataset.archives[0] == {
            "kind": "hub",
            "repo": "owner/set",
            "repo_type": "dataset",
            "revision": COMMIT,
            "path": "test/0.tar",
            "file": "test-0.tar",
            "size": 9,
            "digest": DIGEST,
        }
        assert dataset.licences_on_hub == ("mit",)
    gated = "'photos' is gated: accept the terms of owner/set on its page of the hub and log in"
    assert sum(gated in notice for notice in grid.notices) == 1
    digests = [source["digest"] for source in grid.datasets["photos"].archives]
    assert digests == [DIGEST, DIGEST]


def test_runs_without_such_datasets_need_no_lock(monkeypatch):
    monkeypatch.setattr(HfApi, "dataset_info", None)
    catalog = catalog_with(photos=entry_of())
    assert "photos" not in grid_of(catalog, "default").datasets
    assert catalog.sources["photos"].archives == ()


def test_the_projects_lock_comes_before_those_of_folders():
    catalog = catalog_with(photos=entry_of())
    write_dataset_lock(Path("own") / LOCK, {NAME: repository_of("test/folder.tar")})
    write_dataset_lock(LOCK, {NAME: repository_of("test/project.tar")})
    assert paths_of(catalog) == ["test/project.tar"]


def test_two_files_of_one_name_here_are_refused():
    catalog = catalog_with(photos=entry_of(source={**SOURCE, "files": ["a/*", "a-*"]}))
    write_dataset_lock(LOCK, {NAME: repository_of("a-b.tar", "a/b.tar")})
    with pytest.raises(UserError, match=r"photos: two of its sources have the file name a-b\.tar"):
        catalog.with_hub_files(["photos"])


# Files that an entry chooses


def paths_of(catalog, name="photos"):
    """Paths of a dataset's files in its repository."""
    archives = catalog.with_hub_files([name]).datasets[name].archives
    return [archive["path"] for archive in archives]


FILES = [
    "data/test-00000-of-00001.parquet",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "images.zip",
    "train/0.tar",
]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ("data/train-*.parquet", FILES[1:3]),
        (["train/*.tar", "data/test-*"], [FILES[0], FILES[4]]),
        ("images.zip", ["images.zip"]),
        ("*.parquet", FILES[:3]),
        (["data/*", "*.parquet"], FILES[:3]),
    ],
)
def test_files_are_chosen_by_patterns_of_paths(files, chosen):
    catalog = catalog_with(photos=entry_of(source={**SOURCE, "files": files}))
    write_dataset_lock(LOCK, {NAME: repository_of(*FILES)})
    assert paths_of(catalog) == chosen


def test_a_pattern_without_a_file_is_a_sentence_with_the_paths_there_are():
    source = {**SOURCE, "files": ["train/*.tar", "data/tset-*"]}
    catalog = catalog_with(photos=entry_of(source=source))
    write_dataset_lock(LOCK, {NAME: repository_of(*FILES)})
    named = r"'data/tset-\*'.* data/test-\*-of-\*\.parquet, .*, images\.zip, train/\*\.tar"
    with pytest.raises(UserError, match=f"^datasets.yaml, photos: {NAME}: .*{named}"):
        catalog.with_hub_files(["photos"])


CONVERTED = ["fog/test/0000.parquet", "fog/train/0000.parquet", "fog/train/0001.parquet"]


@pytest.mark.parametrize(
    ("paths", "choice", "chosen"),
    [
        (CONVERTED, {"split": "train"}, CONVERTED[1:]),
        ([*CONVERTED, "snow/test/0000.parquet"], {"config": "fog", "split": "test"}, CONVERTED[:1]),
        (CONVERTED[1:], {}, CONVERTED[1:]),
        (CONVERTED[1:], {"config": "fog"}, CONVERTED[1:]),
        (["fog/partial-train/0000.parquet"], {"split": "partial-train"}, None),
        ([*CONVERTED[:1], "fog/partial-train/0000.parquet"], {}, CONVERTED[:1]),
    ],
)
def test_a_split_of_the_conversion_is_a_folder(paths, choice, chosen):
    catalog = catalog_with(photos=entry_of(source={**SOURCE, **choice}))
    write_dataset_lock(LOCK, {CONVERSION: repository_of(*paths)})
    assert paths_of(catalog) == (chosen or paths)


@pytest.mark.parametrize(
    ("paths", "choice", "sentence"),
    [
        (CONVERTED, {}, "fog/test, fog/train; say which"),
        (CONVERTED, {"split": "tset"}, r"\*/tset; .*fog/test, fog/train"),
        (CONVERTED, {"config": "rain"}, r"rain/\*; .*fog/test, fog/train"),
        (["fog/partial-train/0000.parquet"], {}, "fog/partial-train .*only its beginning"),
        (FILES, {}, r"data/test-\*-of-\*.parquet"),
    ],
)
def test_a_split_that_the_conversion_lacks_is_a_sentence_with_those_it_has(paths, choice, sentence):
    catalog = catalog_with(photos=entry_of(source={**SOURCE, **choice}))
    write_dataset_lock(LOCK, {CONVERSION: repository_of(*paths)})
    with pytest.raises(UserError, match=f"^datasets.yaml, photos: {CONVERSION}: .*{sentence}"):
        catalog.with_hub_files(["photos"])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/a-0.tar", "data-a-0.tar"),
        ("_x/y z(1).tar", "x-y_z_1_.tar"),
        ("_/x.tar", "x.tar"),
        ("0.tar", "0.tar"),
    ],
)
def test_what_a_file_is_called_here(path, name):
    assert file_name(path) == name


# The lock file


def test_equal_locks_have_equal_bytes():
    repository = repository_of("a.tar", "b.tar")
    write_dataset_lock(Path("first.json"), {"hf-datasets:a/b": repository, NAME: repository})
    write_dataset_lock(Path("second.json"), {NAME: repository, "hf-datasets:a/b": repository})
    assert Path("first.json").read_bytes() == Path("second.json").read_bytes()
    assert read_dataset_lock(Path("first.json"))[NAME] == repository


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", r"hub\.lock\.json has format version None"),
        ('{"format_version": true}', "has format version True"),
        ('{"format_version": 2}', "has format version 2"),
        ('{"format_version": 1, "models": {}}', r"is damaged \(.*datasets: Field.*\); restore it"),
        ('{"format_version": 1', "is not valid JSON"),
    ],
)
def test_a_lock_of_another_version_is_a_sentence(text, sentence):
    LOCK.write_text(text)
    with pytest.raises(UserError, match=sentence) as raised:
        read_dataset_lock(LOCK)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../evil.tar"},
        {"path": "/etc/passwd"},
        {"digest": "md5:" + "0" * 32},
        {"size": -1},
    ],
)
def test_a_hostile_lock_is_refused(changes):
    write_dataset_lock(LOCK, {NAME: repository_of("a.tar")})
    lock = json.loads(LOCK.read_text())
    lock["datasets"][NAME]["files"][0].update(changes)
    write_json(LOCK, lock)
    with pytest.raises(UserError, match=r"hub\.lock\.json is damaged \(.*files"):
        read_dataset_lock(LOCK)


@pytest.mark.parametrize("commit", ["main", "", COMMIT[:7]])
def test_a_lock_names_whole_commits(commit):
    write_dataset_lock(LOCK, {NAME: repository_of("a.tar")})
    LOCK.write_text(LOCK.read_text().replace(COMMIT, commit))
    with pytest.raises(UserError, match="is damaged .*commit"):
        read_dataset_lock(LOCK)


def test_a_lock_with_another_commit_than_the_name_states_is_refused():
    name = f"{NAME}@{OTHER_COMMIT}"
    write_dataset_lock(LOCK, {name: repository_of("a.tar")})
    with pytest.raises(UserError, match=rf"^hub\.lock\.json: '{name}' .*{COMMIT}.*`rib lock`"):
        read_dataset_lock(LOCK)


def test_reading_a_grid_with_an_unresolved_dataset_asks_and_writes_nothing(monkeypatch):
    monkeypatch.setattr(HfApi, "dataset_info", None)
    catalog = catalog_with(photos=entry_of(), more=entry_of(source="hf-datasets:owner/none"))
    before = sorted(Path().rglob("*"))
    with pytest.raises(UnresolvedError, match="^datasets.yaml, .*and 1 more .*`rib lock`"):
        grid_of(catalog, ["noto", "photos", "more"])
    assert sorted(Path().rglob("*")) == before


# Resolving


def file_on_hub(path, size=9, sha256=None):
    lfs = SimpleNamespace(sha256=sha256) if sha256 else None
    return SimpleNamespace(rfilename=path, size=size, blob_id="b" * 40, lfs=lfs)


def on_hub(monkeypatch, *files, gated=False, **card):
    """Let the hub's client answer about any repository; gives what it is asked for."""
    asked = []

    def dataset_info(self, repo, revision=None, **_):
        asked.append((repo, revision))
        return SimpleNamespace(sha=COMMIT, siblings=list(files), card_data=card, gated=gated)

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    return asked


def test_the_hubs_answer_has_commit_licence_gate_and_pins(monkeypatch):
    files = [file_on_hub("test/1.tar", 9), file_on_hub("test/0.tar", 99999, "a" * 64)]
    on_hub(monkeypatch, *files, file_on_hub("README.md"), gated="auto", license="mit\n")
    lock_datasets(catalog_with(photos=entry_of()), "photos")
    assert read_dataset_lock(LOCK) == {
        NAME: HubRepository(
            commit=COMMIT,
            licence="mit\\n",
            gated=True,
            files=(
                HubFile(path="test/0.tar", size=99999, digest=DIGEST),
                HubFile(path="test/1.tar", size=9, digest=GIT_DIGEST),
            ),
        )
    }


def test_a_repository_is_asked_for_once_and_kept_with_the_rest(monkeypatch):
    asked = on_hub(monkeypatch, file_on_hub("test/0.tar"), file_on_hub("train/0.tar"))
    catalog = catalog_with(
        photos=entry_of(), more=entry_of(source={**SOURCE, "files": ["train/0.tar"]})
    )
    other = repository_of("c.tar", commit=OTHER_COMMIT)
    write_dataset_lock(LOCK, {"hf-datasets:a/other": other})
    lock_datasets(catalog, "photos", "more")
    assert asked == [("owner/set", None), ("owner/set", COMMIT)]
    lock = read_dataset_lock(LOCK)
    assert set(lock) == {NAME, "hf-datasets:a/other"} and lock["hf-datasets:a/other"] == other
    assert lock[NAME].licence == "not stated"


def test_nothing_is_written_if_one_of_several_can_not_be_resolved(monkeypatch):
    on_hub(monkeypatch, file_on_hub("test/0.tar"))
    answer = HfApi.dataset_info

    def dataset_info(self, repo, **options):
        if repo == "owner/none":
            raise OfflineModeIsEnabled("offline")
        return answer(self, repo, **options)

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    catalog = catalog_with(photos=entry_of(), more=entry_of(source="hf-datasets:owner/none"))
    with pytest.raises(UserError, match="more: hf-datasets:owner/none@refs.*can't be reached"):
        lock_datasets(catalog, "photos", "more")
    assert not LOCK.exists()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["README.md", "set.py"], r"it has no files in \.parquet, \.tar, .*choose another"),
        (["test/\x1b[2J.tar"], "can't be used"),
        (["test/../../evil.tar"], "can't be used"),
    ],
)
def test_a_repository_that_can_not_be_used_is_a_sentence(monkeypatch, files, sentence):
    on_hub(monkeypatch, *map(file_on_hub, files))
    with pytest.raises(UserError, match=f"^datasets.yaml, photos: {NAME}: .*{sentence}") as raised:
        lock_datasets(catalog_with(photos=entry_of()), "photos")
    assert str(raised.value).isprintable() and not LOCK.exists()


def test_a_maintainer_renews_the_lock_of_a_folder(monkeypatch, capsys):
    catalog_with(photos=entry_of(), more=entry_of(source={**TARS, "revision": "v1"}))
    on_hub(monkeypatch, file_on_hub("test/0.tar"))
    write_dataset_lock(Path("own") / LOCK, {NAME: repository_of(commit=OTHER_COMMIT)})
    renew(Path("own"), ask_hub=True)
    lock = read_dataset_lock(Path("own") / LOCK)
    assert list(lock) == [NAME, f"{NAME}@v1"]
    assert {repository.commit for repository in lock.values()} == {COMMIT}
    assert "own/hub.lock.json" in capsys.readouterr().err


# Digests


@pytest.mark.parametrize("content", [b"", b"labels", b"\0" * 3_000_000])
def test_a_small_file_has_the_id_that_git_gives_it(content):
    Path("file").write_bytes(content)
    known = subprocess.run(
        ["git", "hash-object", "--no-filters", "file"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert git_blob_id(Path("file")) == git_id(content) == known
    verify_digest(Path("file"), f"git:{known}", "photos")


def test_another_content_has_another_id():
    Path("file").write_bytes(b"labels")
    sha1 = hashlib.sha1(b"labels").hexdigest()
    with pytest.raises(
        UserError, match=f"photos: file .* has git .*, but the catalogue pins {sha1}"
    ):
        verify_digest(Path("file"), f"git:{sha1}", "photos")
