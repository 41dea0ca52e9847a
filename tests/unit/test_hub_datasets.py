"""Datasets by name: what entries, lock files and the hub's answers come to, and what is refused."""

import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from rib.base.errors import UserError
from rib.base.files import git_blob_id, verify_digest, write_json
from rib.config import hub_datasets
from rib.config.catalog import Catalog
from rib.config.checking import checked
from rib.config.config import config_of
from rib.config.entries import Model
from rib.config.grid import resolve_grid
from rib.config.hub_datasets import (
    LOCK,
    HubFile,
    HubRepository,
    HubRequest,
    HubSplit,
    file_name,
    read_dataset_lock,
    with_splits,
    write_dataset_lock,
)
from rib.config.source_entries import parsed_source
from rib.data import hub_repositories
from tiny.hub import COMMIT, git_id
from tiny.project import ROOT
from unit.conftest import published

NAME = "hf-datasets:owner/set"
SOURCE = {"kind": "hf-datasets", "repo": "owner/set"}  # the same as a mapping
OTHER_COMMIT = COMMIT[::-1]
DIGEST = f"sha256:{'a' * 64}"
GIT_DIGEST = f"git:{'b' * 40}"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def split_of(*paths, config=None, split=None, digest=DIGEST):
    files = tuple(HubFile(path=path, size=9, digest=digest) for path in paths)
    return HubSplit(config=config, split=split, files=files)


def repository_of(*splits, commit=COMMIT, gated=False):
    return HubRepository(commit=commit, licence="mit", gated=gated, splits=splits)


def entry_of(**changes):
    return {
        "family": "emoji",
        "label": "Set",
        "source": NAME,
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
        ("hf-hub:owner/set", "hf-hub:owner/set"),
        ({"kind": "folder", "path": "x"}, {"kind": "folder", "path": "x"}),
        (None, None),
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
        ("hf-datasets:a/../b", "'photos.source' is 'hf-datasets:a/../b'"),
        (f"{NAME}@", f"'photos.source' is '{NAME}@'"),
        (f"{NAME}@a/../b", f"'photos.source' is '{NAME}@a/../b'"),
        ({"kind": "hf-datasets", "repo": "a/b", "where": {}}, "unknown key 'where'"),
        ({"kind": "hf-datasets", "repo": "a/b", "split": 1}, "'photos.source.split' is 1"),
        ({"kind": "hf-datasets", "repo": "a/b", "config": ""}, "'photos.source.config' is ''"),
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
    monkeypatch.setattr(subprocess, "run", None)
    source = {**SOURCE, "config": "fog", "split": "test"}
    others = entry_of(archives_of="photos")
    del others["source"]
    catalog = catalog_with(photos=entry_of(source=source), others=others)
    split = split_of("fog/test-1.tar", "fog/test-0.tar", config="fog", split="test")
    small = split_of("a.tar", digest=GIT_DIGEST)
    write_dataset_lock(LOCK, {NAME: repository_of(split, small, gated=True)})
    assert catalog.datasets["photos"].archives == ()
    grid = grid_of(catalog, ["noto", "photos", "others"])
    for name in ("photos", "others"):
        dataset = grid.catalog.datasets[name]
        assert dataset == grid.datasets[name] and dataset.raw == "photos"
        assert [source["file"] for source in dataset.archives] == [
            "fog-test-1.tar",
            "fog-test-0.tar",
        ]
        assert dataset.archives[0] == {
            "kind": "hub",
            "repo": "owner/set",
            "repo_type": "dataset",
            "revision": COMMIT,
            "path": "fog/test-1.tar",
            "file": "fog-test-1.tar",
            "size": 9,
            "digest": DIGEST,
        }
        assert dataset.licences_on_hub == ("mit",)
    gated = "'photos' is gated: accept the terms of owner/set on its page of the hub and log in"
    assert sum(gated in notice for notice in grid.notices) == 1
    digests = [source["digest"] for source in grid.datasets["photos"].archives]
    assert digests == [DIGEST, DIGEST]


def test_lock_and_hub_are_left_alone_by_runs_without_such_datasets(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr("rib.config.catalog.read_dataset_lock", None)
    catalog = catalog_with(photos=entry_of())
    assert "photos" not in grid_of(catalog, "default").datasets
    assert catalog.sources["photos"].archives == ()


def test_the_projects_lock_comes_before_those_of_folders():
    catalog = catalog_with(photos=entry_of())
    write_dataset_lock(Path("own") / LOCK, {NAME: repository_of(split_of("folder.tar"))})
    write_dataset_lock(LOCK, {NAME: repository_of(split_of("project.tar"))})
    catalog = catalog.with_hub_files(["photos"])
    assert catalog.datasets["photos"].archives[0]["path"] == "project.tar"


def test_two_files_of_one_name_here_are_refused():
    entry = entry_of(sources=[SOURCE, {**SOURCE, "split": "b"}])
    del entry["source"]
    catalog = catalog_with(photos=entry)
    splits = (split_of("a/b.tar"), split_of("a-b.tar", split="b"))
    write_dataset_lock(LOCK, {NAME: repository_of(*splits)})
    with pytest.raises(UserError, match=r"photos: two of its sources have the file name a-b\.tar"):
        catalog.with_hub_files(["photos"])


@pytest.mark.parametrize(
    ("path", "name"),
    [("data/a-0.tar", "data-a-0.tar"), ("_x/y z(1).tar", "x-y_z_1_.tar"), ("0.tar", "0.tar")],
)
def test_what_a_file_is_called_here(path, name):
    assert file_name(path) == name


# The lock file


def test_equal_locks_have_equal_bytes():
    splits = [split_of("a.tar"), split_of("b.tar", split="x"), split_of("c.tar", config="c")]
    repository = with_splits(repository_of(), repository_of(*splits))
    write_dataset_lock(Path("first.json"), {"hf-datasets:a/b": repository, NAME: repository})
    repository = with_splits(repository_of(splits[2]), repository_of(splits[1], splits[0]))
    write_dataset_lock(Path("second.json"), {NAME: repository, "hf-datasets:a/b": repository})
    assert Path("first.json").read_bytes() == Path("second.json").read_bytes()
    assert read_dataset_lock(Path("first.json"))[NAME] == repository


def test_splits_of_another_commit_are_not_kept():
    earlier = repository_of(split_of("a.tar", split="a"), commit=OTHER_COMMIT)
    assert with_splits(repository_of(split_of("b.tar")), earlier).splits == (split_of("b.tar"),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", r"datasets\.lock\.json has format version None, and this checkout reads version 1"),
        ('{"format_version": 2}', "has format version 2, .*use the code that wrote it, or delete"),
        ('{"format_version": true}', "has format version True"),
        ('{"format_version": 1}', r"is damaged \(.*repositories: Field required\); restore it"),
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
        {"path": "a/../../evil.tar"},
        {"path": "/etc/passwd"},
        {"path": "a\\b"},
        {"path": "a\nb"},
        {"path": ".hidden"},
        {"digest": "sha256:0"},
        {"digest": "md5:" + "0" * 32},
        {"size": -1},
        {"size": "9"},
        {"more": 1},
    ],
)
def test_a_hostile_lock_is_refused(changes):
    write_dataset_lock(LOCK, {NAME: repository_of(split_of("a.tar"))})
    lock = json.loads(LOCK.read_text())
    lock["repositories"][NAME]["splits"][0]["files"][0].update(changes)
    write_json(LOCK, lock)
    with pytest.raises(UserError, match=r"datasets\.lock\.json is damaged \(.*splits"):
        read_dataset_lock(LOCK)


@pytest.mark.parametrize("commit", ["main", "", COMMIT[:7]])
def test_a_lock_names_whole_commits(commit):
    write_dataset_lock(LOCK, {NAME: repository_of(split_of("a.tar"))})
    LOCK.write_text(LOCK.read_text().replace(COMMIT, commit))
    with pytest.raises(UserError, match="is damaged .*commit"):
        read_dataset_lock(LOCK)


# Resolving


def test_what_the_lock_lacks_is_resolved_at_its_commit_and_kept_with_the_rest(monkeypatch):
    requests_to_hub = []

    def answers_of_hub(requests):
        requests_to_hub.extend(requests)
        return {NAME: repository_of(split_of("b.tar", split="b"))}

    monkeypatch.setattr(hub_datasets, "_answers_of_hub", answers_of_hub)
    source = {**SOURCE, "split": "b"}
    catalog = catalog_with(photos=entry_of(source=source))
    write_dataset_lock(Path("own") / LOCK, {NAME: repository_of(split_of("a.tar", split="a"))})
    other = repository_of(split_of("c.tar"), commit=OTHER_COMMIT)
    write_dataset_lock(LOCK, {"hf-datasets:a/other": other})
    catalog = catalog.with_hub_files(["photos"])
    (request,) = requests_to_hub
    assert request.commit == COMMIT and request.split == "b"
    assert request.where == "datasets.yaml, photos"
    lock = read_dataset_lock(LOCK)
    assert [split.split for split in lock[NAME].splits] == ["a", "b"]
    assert lock["hf-datasets:a/other"] == other
    catalog.with_hub_files(["photos"])
    assert len(requests_to_hub) == 1


def test_nothing_is_written_if_one_of_several_can_not_be_resolved(monkeypatch):
    def answers_of_hub(requests):
        raise UserError("datasets.yaml, photos: no")

    monkeypatch.setattr(hub_datasets, "_answers_of_hub", answers_of_hub)
    with pytest.raises(UserError, match="no"):
        catalog_with(photos=entry_of()).with_hub_files(["photos"])
    assert not LOCK.exists()


def file_on_hub(path, size=9, sha256=None):
    lfs = SimpleNamespace(sha256=sha256) if sha256 else None
    return SimpleNamespace(rfilename=path, size=size, blob_id="b" * 40, lfs=lfs)


def on_hub(monkeypatch, *files, gated=False, **card):
    """Let the hub's client answer about one repository; gives what it is asked for."""
    asked = []

    def dataset_info(self, repo, revision=None, **_):
        asked.append((repo, revision))
        return SimpleNamespace(sha=COMMIT, siblings=list(files), card_data=card, gated=gated)

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    return asked


def request_for(**changes):
    return HubRequest(
        **{
            "where": "datasets.yaml, photos",
            "repo": "owner/set",
            "revision": None,
            "config": None,
            "split": None,
            "commit": None,
            **changes,
        }
    )


def test_the_hubs_answer_has_commit_licence_gate_and_pins(monkeypatch):
    files = [file_on_hub("test/0.tar", 99999, "a" * 64), file_on_hub("test/1.tar", 9)]
    asked = on_hub(monkeypatch, *files, file_on_hub("README.md"), gated="auto", license="mit")
    (repository,) = hub_repositories.answer([request_for()]).values()
    assert repository == HubRepository(
        commit=COMMIT,
        licence="mit",
        gated=True,
        splits=(
            HubSplit(
                config=None,
                split=None,
                files=(
                    HubFile(path="test/0.tar", size=99999, digest=DIGEST),
                    HubFile(path="test/1.tar", size=9, digest=GIT_DIGEST),
                ),
            ),
        ),
    )
    assert asked == [("owner/set", None)]


def test_two_splits_of_a_repository_are_one_question_to_the_hub(monkeypatch):
    files = [file_on_hub(f"{split}/0.tar") for split in ("a", "b")]
    asked = on_hub(monkeypatch, *files)
    requests = [request_for(split="b", commit=COMMIT), request_for(split="a", commit=COMMIT)]
    (repository,) = hub_repositories.answer(requests).values()
    assert [split.split for split in repository.splits] == ["a", "b"]
    assert asked == [("owner/set", COMMIT)] and repository.licence == "not stated"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["set.py", "test/0.tar"], r"made by a program, set\.py, which is not run"),
        (["test/\x1b[2J.tar"], "can't be used"),
        (["test/../../evil.tar"], "can't be used"),
        (["test/" + "x" * 150 + ".tar"], "which is too long"),
        (["test/a b.tar", "test/a_b.tar"], "or another file's name"),
        (["test/\u00e9.tar"], "can't be used"),
    ],
)
def test_a_repository_that_can_not_be_used_is_a_sentence(monkeypatch, files, sentence):
    on_hub(monkeypatch, *map(file_on_hub, files))
    with pytest.raises(UserError, match=f"^datasets.yaml, photos: {NAME}: .*{sentence}") as raised:
        hub_repositories.answer([request_for()])
    assert str(raised.value).isprintable()


def test_a_maintainer_renews_the_lock_of_a_folder(monkeypatch, capsys):
    catalog_with(photos=entry_of(), more=entry_of(source=f"{NAME}@v1"))
    on_hub(monkeypatch, file_on_hub("test/0.tar"))
    write_dataset_lock(Path("own") / LOCK, {NAME: repository_of(commit=OTHER_COMMIT)})
    hub_repositories.renew(Path("own"))
    lock = read_dataset_lock(Path("own") / LOCK)
    assert list(lock) == [NAME, f"{NAME}@v1"]
    assert {repository.commit for repository in lock.values()} == {COMMIT}
    assert "Resolved 2 sources into own/datasets.lock.json" in capsys.readouterr().out


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
