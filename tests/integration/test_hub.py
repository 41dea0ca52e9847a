"""Weights from a hub on 127.0.0.1, through the real client: fetched, from its cache when offline, or refused in a sentence."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest

WEIGHTS = b"weights" * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """What the client asks of a hub about one file of one repository."""

    def do_HEAD(self):
        self.reply(body=False)

    def do_GET(self):
        self.reply(body=True)

    def reply(self, body):
        self.server.asked.append(self.path)
        good = self.path == "/owner/net/resolve/main/model.safetensors"
        self.send_response(200 if good else 404)
        if good:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(WEIGHTS).hexdigest()}"')
            self.send_header("Content-Length", str(len(WEIGHTS)))
        else:
            self.send_header("X-Error-Code", "RepoNotFound" if "/owner/" not in self.path else "EntryNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        if good and body:
            self.wfile.write(WEIGHTS)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def fetch(folder, hub, repo="owner/net", path="model.safetensors", **environment):
    """Download in a process of its own, since the client reads its environment once."""
    source = {"kind": "hub", "repo": repo, "path": path, "file": "net.safetensors"}
    script = f"""
        import json, sys
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from rib.data.download import download
        from rib.base.errors import UserError
        try:
            download(json.loads({json.dumps(json.dumps(source))}), Path("net.safetensors"), "net")
        except UserError as error:
            print(error)
    """
    address = f"http://127.0.0.1:{hub.server_port}"
    own = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    settings = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env={**settings, **own, **environment},
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
    assert "net: owner/net, model.safetensors is not in the cache and the hub can't be reached" in said
    assert "put the file as net.safetensors into a folder listed under `archives`" in said
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize(("repo", "path"), [("owner/net", "pytorch_model.bin"), ("nobody/none", "model.safetensors")])
def test_what_the_hub_does_not_have_is_a_sentence(hub, tmp_path, repo, path):
    said = fetch(tmp_path, hub, repo, path)
    assert f"net: {repo}, {path} can't be fetched from the hub" in said and "correct repo and path in its entry" in said


def test_a_file_that_lies_in_archives_is_taken_instead(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/net.safetensors").write_bytes(b"own")
    assert fetch(tmp_path, hub, RIB_ARCHIVES=str(tmp_path / "mine")) == "" and not hub.asked
    assert (tmp_path / "net.safetensors").read_bytes() == b"own"
