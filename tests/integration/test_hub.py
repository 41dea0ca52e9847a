"""Weights from a hub on 127.0.0.1, through the real client.

They are fetched, taken from its cache when offline, or refused in a sentence.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tiny.servers.hub import COMMIT, TOKEN, Repository, served
from tiny.servers.hub import environment as environment_of

pytestmark = pytest.mark.thorough

WEIGHTS = b"weights" * 1000


@pytest.fixture
def hub():
    with served({"owner/net": Repository({"model.safetensors": WEIGHTS})}) as server:
        yield server


def fetch(folder, hub, repo="owner/net", path="model.safetensors", source=(), **more):
    """Download in a process of its own, since the client reads its environment once."""
    source = {"kind": "hub", "repo": repo, "path": path, "file": "net.safetensors", **dict(source)}
    script = f"""
        import json, sys
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from rib.data.fetch.download import download
        from rib.base.errors import UserError
        try:
            download(json.loads({json.dumps(json.dumps(source))}), Path("net.safetensors"), "net")
        except UserError as error:
            print(error)
    """
    settings = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env={**settings, **environment_of(hub, folder / "cache"), **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout


def test_weights_come_from_the_hub_and_then_from_its_cache(hub, tmp_path):
    assert fetch(tmp_path, hub) == "" and (tmp_path / "net.safetensors").read_bytes() == WEIGHTS
    (tmp_path / "net.safetensors").unlink()
    hub.asked.clear()
    assert fetch(tmp_path, hub, HF_HUB_OFFLINE="1") == ""
    assert (tmp_path / "net.safetensors").read_bytes() == WEIGHTS and not hub.asked


def test_offline_without_a_cache_is_a_sentence(hub, tmp_path):
    said = fetch(tmp_path, hub, HF_HUB_OFFLINE="1")
    assert "net: owner/net, model.safetensors can't be fetched" in said
    assert "net.safetensors into a folder" in said
    assert not (tmp_path / "net.safetensors").exists()


def test_a_file_that_lies_in_archives_is_taken_instead(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/net.safetensors").write_bytes(b"own")
    assert fetch(tmp_path, hub, RIB_ARCHIVES=str(tmp_path / "mine")) == "" and not hub.asked
    assert (tmp_path / "net.safetensors").read_bytes() == b"own"


def test_a_gated_file_needs_a_token(hub, tmp_path):
    hub.repositories["owner/net"].gated = True
    said = fetch(tmp_path, hub)
    assert "HF_TOKEN" in said and not list(tmp_path.glob("*.*"))
    assert (
        fetch(tmp_path, hub, HF_TOKEN=TOKEN) == ""
        and (tmp_path / "net.safetensors").read_bytes() == WEIGHTS
    )


def test_another_file_than_the_pinned_one_is_refused(hub, tmp_path):
    said = fetch(tmp_path, hub, source={"revision": COMMIT, "digest": "sha256:" + "0" * 64})
    assert (
        "has sha256" in said and "pins 000" in said and not (tmp_path / "net.safetensors").exists()
    )
