"""Files of datasets from a hub on 127.0.0.1, through its real client.

Names are resolved into the lock file; files are fetched at its commit, verified, taken from the
client's cache when offline, or refused in a sentence.
"""

import hashlib
import json
import os
import subprocess
import sys
import textwrap

import pytest

from rib.catalog.hub_names import LOCK, read_lock
from tiny.servers.hub import COMMIT, COMMIT_OF_CONVERSION, SMALL, TOKEN, Repository, served
from tiny.servers.hub import environment as environment_of

pytestmark = pytest.mark.thorough

NAME = "hf-datasets:owner/set"
REPOSITORY = "datasets/owner/set"
OTHER_COMMIT = COMMIT[::-1]
LARGE = bytes(range(256)) * 20_000  # its digest is SHA-256
LITTLE = b"labels" * 100  # its digest is git's
FILES = {"test/0.tar": LARGE, "test/1.tar": LITTLE, "new/0.tar": LARGE, "README.md": b"---"}
CONVERTED = {f"default/{split}/0000.parquet": LARGE for split in ("test", "train")}


@pytest.fixture
def hub():
    assert len(LITTLE) < SMALL < len(LARGE)
    repository = Repository(dict(FILES), converted=dict(CONVERTED))
    with served({REPOSITORY: repository}) as server:
        yield server


def source_of(**keys):
    """A source that names the repository, by default with the tars in one folder."""
    return {"kind": "hf-datasets", "repo": "owner/set", **(keys or {"files": "test/*.tar"})}


def run(folder, hub, script, **environment):
    """Run a script in a process of its own, since the client reads its environment once.

    Returns:
        All it printed, without the client's own lines.
    """
    settings = {key: text for key, text in os.environ.items() if not key.startswith("HF_")}
    completed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env={
            **settings,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **environment_of(hub, folder / "cache"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in completed.stderr, completed.stderr
    assert TOKEN not in completed.stdout + completed.stderr
    return completed.stdout


def resolve(folder, hub, source=None, **environment):
    """Resolve a source into the folder's lock file; gives the message if that fails."""
    entry = {
        "family": "emoji",
        "label": "Set",
        "source": source or source_of(),
        "layout": "class_folders",
        "licence": "theirs",
        "origin": "the hub",
    }
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own/datasets.yaml").write_text(json.dumps({"photos": entry}))
    script = """
        from pathlib import Path
        from rib.base.errors import UserError
        from rib.catalog.catalog import Catalog
        from rib.catalog.hub_names import UnresolvedError
        from rib.models.lock import resolve
        try:
            try:
                Catalog([Path("own")]).with_hub_files(["photos"])
            except UnresolvedError as error:
                resolve(error)
        except UserError as error:
            print(error)
    """
    return run(folder, hub, script, **environment)


def locked(folder):
    """Repositories in the folder's lock file, by name."""
    return read_lock(folder / LOCK).datasets


def fetch(folder, hub, **environment):
    """Fetch all files of the lock file; gives the first message if that fails."""
    script = """
        from pathlib import Path
        from rib.base.errors import UserError
        from rib.catalog.catalog import Catalog
        from rib.data.fetch.download import download
        catalog = Catalog([Path("own")]).with_hub_files(["photos"])
        try:
            for source in catalog.datasets["photos"].archives:
                download(source, Path(source["file"]), "photos")
        except UserError as error:
            print(error)
    """
    return run(folder, hub, script, **environment)


def fetched(folder):
    """Bytes of the files that were fetched, by name."""
    paths = [*folder.glob("*.tar"), *folder.glob("*.parquet")]
    return {path.name: path.read_bytes() for path in paths}


FETCHED = {"test-0.tar": LARGE, "test-1.tar": LITTLE}


def test_a_name_is_resolved_once_and_its_files_are_fetched_and_then_taken_from_the_cache(
    hub, tmp_path
):
    assert resolve(tmp_path, hub) == ""
    repository = locked(tmp_path)[NAME]
    digests = [file.digest for file in repository.files if file.path.startswith("test/")]
    git_id = hashlib.sha1(b"blob %d\0" % len(LITTLE) + LITTLE).hexdigest()
    assert digests == [f"sha256:{hashlib.sha256(LARGE).hexdigest()}", f"git:{git_id}"]
    assert repository.commit == COMMIT and repository.licence == "mit" and not repository.gated
    assert fetch(tmp_path, hub) == "" and fetched(tmp_path) == FETCHED
    for name in FETCHED:
        (tmp_path / name).unlink()
    hub.asked.clear()
    lock = (tmp_path / LOCK).read_bytes()
    assert resolve(tmp_path, hub, HF_HUB_OFFLINE="1") == ""
    assert fetch(tmp_path, hub, HF_HUB_OFFLINE="1") == "" and fetched(tmp_path) == FETCHED
    assert not hub.asked and (tmp_path / LOCK).read_bytes() == lock


def test_a_repository_that_has_moved_on_gives_the_files_of_the_lock(hub, tmp_path):
    assert resolve(tmp_path, hub) == ""
    repository = hub.repositories[REPOSITORY]
    repository.earlier[COMMIT] = repository.files
    repository.commit = OTHER_COMMIT
    repository.files = {"test/0.tar": LARGE[::-1], "new/0.tar": LARGE}
    assert fetch(tmp_path, hub) == "" and fetched(tmp_path) == FETCHED
    # Other files are those of the same commit, without the hub.
    offline = {"HF_HUB_OFFLINE": "1"}
    assert resolve(tmp_path, hub, source_of(files="new/*.tar"), **offline) == ""
    message = resolve(tmp_path, hub, source_of(files="newer/*.tar"), **offline)
    assert "no file matches 'newer/*.tar'; there are new/*.tar, test/*.tar" in message


def test_a_conversion_is_resolved_to_a_commit_and_its_split_fetched(hub, tmp_path):
    assert resolve(tmp_path, hub, source_of(split="train")) == ""
    repository = locked(tmp_path)[f"{NAME}@refs/convert/parquet"]
    assert repository.commit == COMMIT_OF_CONVERSION and repository.licence == "mit"
    assert fetch(tmp_path, hub) == "" and fetched(tmp_path) == {"default-train-0000.parquet": LARGE}


def test_a_commit_that_is_gone_is_a_sentence(hub, tmp_path):
    assert resolve(tmp_path, hub) == ""
    hub.repositories[REPOSITORY].commit = OTHER_COMMIT
    message = fetch(tmp_path, hub)
    assert "photos: owner/set, test/0.tar can't be fetched: the hub has no such commit" in message
    assert "hub.lock.json" in message and not fetched(tmp_path)


def test_a_file_with_another_digest_is_refused_and_named(hub, tmp_path):
    assert resolve(tmp_path, hub) == ""
    hub.repositories[REPOSITORY].sent["test/0.tar"] = LARGE[::-1]
    message = fetch(tmp_path, hub)
    assert "photos: " in message and "has sha256 " in message and not fetched(tmp_path)
    (kept,) = (tmp_path / "cache").glob("hub/*/blobs/*")
    assert f"Delete {kept} and run again" in message
    kept.unlink()
    hub.repositories[REPOSITORY].sent.clear()
    assert fetch(tmp_path, hub) == "" and fetched(tmp_path) == FETCHED


def test_another_small_file_is_refused(hub, tmp_path):
    assert resolve(tmp_path, hub) == ""
    hub.repositories[REPOSITORY].sent["test/1.tar"] = LITTLE[::-1]
    message = fetch(tmp_path, hub)
    assert "has git " in message and list(fetched(tmp_path)) == ["test-0.tar"]


def test_a_gated_repository_needs_a_token(hub, tmp_path):
    hub.repositories[REPOSITORY].gated = True
    assert resolve(tmp_path, hub) == ""
    assert locked(tmp_path)[NAME].gated
    message = fetch(tmp_path, hub)
    assert "it is gated; accept its terms" in message and "HF_TOKEN" in message
    assert not fetched(tmp_path)
    assert fetch(tmp_path, hub, HF_TOKEN=TOKEN) == "" and fetched(tmp_path) == FETCHED


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("hf-datasets:nobody/none", "no such repository"),
        (f"{NAME}@v2", "no such commit"),
        ("hf-datasets:owner/notes", "no Parquet conversion"),
    ],
)
def test_what_the_hub_does_not_have_is_a_sentence_and_leaves_no_lock(
    hub, tmp_path, source, sentence
):
    hub.repositories["datasets/owner/notes"] = Repository({"README.md": b"---"})
    message = resolve(tmp_path, hub, source)
    assert message.startswith("datasets.yaml, photos: hf-datasets:") and sentence in message
    assert len(message.strip().splitlines()) == 1 and not (tmp_path / LOCK).exists()


def test_a_name_without_lock_and_hub_is_a_sentence(hub, tmp_path):
    message = resolve(tmp_path, hub, HF_HUB_OFFLINE="1")
    assert f"datasets.yaml, photos: {NAME}: the hub can't be reached" in message
    assert not (tmp_path / LOCK).exists()


def test_a_dead_hub_is_not_missed_with_lock_and_cache_and_named_without_the_cache(hub, tmp_path):
    assert resolve(tmp_path, hub) == "" and fetch(tmp_path, hub) == ""
    dead = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for name in FETCHED:
        (tmp_path / name).unlink()
    assert resolve(tmp_path, hub, **dead) == ""
    assert fetch(tmp_path, hub, **dead) == "" and fetched(tmp_path) == FETCHED
    for name in FETCHED:
        (tmp_path / name).unlink()
    message = fetch(tmp_path, hub, **dead, HF_HOME=str(tmp_path / "empty"))
    assert "photos: owner/set, test/0.tar can't be fetched: the hub can't be reached" in message
