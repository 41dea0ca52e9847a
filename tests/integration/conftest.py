"""Registries on 127.0.0.1 that serve what a test gives them, through the real package clients."""

import contextlib
import functools
import http.server
import json
import threading
from pathlib import Path

import pytest


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a line per request."""

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(folder: Path):
    """Serve a folder; yields its address."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def registry(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with serve(folder) as address:
        yield folder, address


def npm_package(
    folder: Path, address: str, name: str, version: str, archive: bytes, integrity: str
) -> None:
    """Publish an npm package in a served folder: its document and its archive.

    Args:
        folder, address: as the fixture `registry` gives them.
        integrity: the digest that the document states of the archive.
    """
    (folder / "archive.tgz").write_bytes(archive)
    dist = {"tarball": f"{address}/archive.tgz", "integrity": integrity}
    document = {
        "name": name,
        "dist-tags": {"latest": version},
        "versions": {version: {"name": name, "version": version, "dist": dist}},
    }
    (folder / name).write_text(json.dumps(document))
