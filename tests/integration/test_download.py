"""Fetching through the real npm and pip, from registries on 127.0.0.1."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data.fetch.download import download
from tiny.servers.files import serve

pytestmark = pytest.mark.thorough

NAME, VERSION = "icons-of-mine", "1.0.0"


@pytest.fixture
def registry(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with serve(folder) as address:
        yield folder, address


def integrity(data):
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def publish(folder, address, archive):
    """Publish an npm package in a served folder: its document and its archive."""
    (folder / "archive.tgz").write_bytes(archive)
    dist = {"tarball": f"{address}/archive.tgz", "integrity": integrity(archive)}
    document = {
        "name": NAME,
        "dist-tags": {"latest": VERSION},
        "versions": {VERSION: {"name": NAME, "version": VERSION, "dist": dist}},
    }
    (folder / NAME).write_text(json.dumps(document))


@pytest.fixture
def package():
    """An npm package's archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in {
            "package.json": json.dumps({"name": NAME, "version": VERSION}),
            "icons.json": "{}",
        }.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def npm(registry, tmp_path, monkeypatch):
    """The registry as npm's own, with an empty cache."""
    monkeypatch.setenv("npm_config_registry", registry[1])
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    return registry


def npm_source(digest):
    return {
        "kind": "npm",
        "package": NAME,
        "version": VERSION,
        "file": f"{NAME}-{VERSION}.tgz",
        "digest": digest,
    }


def test_npm_fetches_the_pinned_archive(npm, package, tmp_path, monkeypatch):
    publish(*npm, package)
    monkeypatch.chdir(tmp_path)  # jobs give relative paths
    download(npm_source(integrity(package)), Path("icons.tgz"), "set")
    assert (tmp_path / "icons.tgz").read_bytes() == package


def test_a_package_with_another_hash_than_the_pinned_one_is_refused(npm, package, tmp_path):
    publish(*npm, package)
    with pytest.raises(
        UserError, match=r"set: icons-of-mine-1\.0\.0\.tgz .* has sha512 .* pins other"
    ):
        download(npm_source("sha512-other"), tmp_path / "icons.tgz", "set")
    assert not list(tmp_path.glob("*.tgz")) and not list(tmp_path.glob("tmp*"))


def test_a_machine_without_npm_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="npm is not installed.*requirements-npm"):
        download(npm_source("sha512-x"), tmp_path / "icons.tgz", "set")


def wheel():
    buffer = io.BytesIO()
    info = "weights_of_mine-1.0.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights_of_mine/weights.pth", b"0")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: weights-of-mine\nVersion: 1.0.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


@pytest.mark.parametrize("damaged", [False, True])
def test_pip_fetches_the_pinned_wheel_only(registry, tmp_path, monkeypatch, damaged):
    folder, address = registry
    file = "weights_of_mine-1.0.0-py3-none-any.whl"
    data = wheel()
    (folder / "simple/weights-of-mine").mkdir(parents=True)
    (folder / "simple/weights-of-mine/index.html").write_text(
        f'<a href="{address}/{file}">{file}</a>'
    )
    (folder / file).write_bytes(data + b"more" if damaged else data)
    for name in ("PIP_CONSTRAINT", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    source = {
        "kind": "pypi",
        "package": "weights-of-mine",
        "version": "1.0.0",
        "file": file,
        "digest": digest,
    }
    if damaged:
        with pytest.raises(UserError, match="weights: weights_of_mine.* but the catalogue pins"):
            download(source, tmp_path / file, "weights")
        assert not list(tmp_path.glob("*.whl"))
    else:
        download(source, tmp_path / file, "weights")
        assert (tmp_path / file).read_bytes() == data
