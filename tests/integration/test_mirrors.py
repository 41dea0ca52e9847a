"""One content from the first mirror that has it: servers on 127.0.0.1, and apt-get."""

import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data.fetch import mirrors as fetching
from rib.data.fetch.debian import fetch_package
from rib.data.fetch.download import download
from rib.data.variables import ARCHIVES
from tiny.servers.hub import Repository, served
from tiny.servers.hub import environment as environment_of

CONTENTS = {"a.idx": bytes(range(256)) * 400, "b.idx": b"labels" * 100}
DATA = CONTENTS["a.idx"]
FOLDER = "usr/share/set"  # of the files in a package
CONTROL = """\
Package: set
Version: 1
Architecture: all
Maintainer: n <n@example.org>
Description: d
"""
FASHION = {  # file: bytes and SHA-256 of the decompressed idx file
    "t10k-images-idx3-ubyte": (
        7840016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        10008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the server's files; requests are noted."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.seen.append(path)
        if path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[path]
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:])


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "PAUSES", (0.0, 0.01))
    monkeypatch.delenv(ARCHIVES, raising=False)
    monkeypatch.chdir(tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        server.files = {"/other": DATA[::-1], "/page": b"<html>" * 99}
        server.files["/other.gz"] = gzip.compress(DATA[::-1])
        for name, data in CONTENTS.items():
            server.files |= {f"/{name}": data, f"/{name}.gz": gzip.compress(data)}
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


DEAD = "http://127.0.0.1:9/a.idx.gz"


def http_mirror(url, **packing):
    return {"kind": "http", "url": url, **packing}


def source_of(*mirrors, name="a.idx"):
    data = CONTENTS[name]
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    content = {"file": name, "size": len(data), "digest": digest}
    return {"kind": "mirrors", **content, "mirrors": list(mirrors)}


def get(*mirrors, name="a.idx"):
    """Fetch a content from mirrors; it alone is written."""
    download(source_of(*mirrors, name=name), Path(name), "set")
    assert Path(name).read_bytes() == CONTENTS[name] and not Path(name).is_symlink()
    assert {path.name for path in Path().iterdir()} <= {*CONTENTS, "work", "apt", "bin"}


def refused(*mirrors):
    """The message if no mirror has the content, of which nothing is written."""
    with pytest.raises(UserError) as raised:
        get(*mirrors)
    assert {path.name for path in Path().iterdir()} <= {"work", "apt", "bin"}
    return str(raised.value)


def mirrors_on(server):
    """Mirrors of a server, by what they have."""
    address = f"http://127.0.0.1:{server.server_port}"
    return {
        "as it is": http_mirror(f"{address}/a.idx"),
        "in gzip": http_mirror(f"{address}/a.idx.gz", compression="gzip"),
        "other bytes": http_mirror(f"{address}/other"),
        "other bytes in gzip": http_mirror(f"{address}/other.gz", compression="gzip"),
        "a page": http_mirror(f"{address}/page", compression="gzip"),
        "missing": http_mirror(f"{address}/missing?X-Amz-Signature=secret", compression="gzip"),
        "dead": http_mirror(DEAD, compression="gzip"),
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [("dead", "as it is"), ("other bytes", "in gzip"), ("other bytes in gzip", "as it is")],
)
def test_the_second_mirror_is_used_if_the_first_one_is_dead_or_has_other_bytes(
    server, first, second
):
    mirrors = mirrors_on(server)
    get(mirrors[first], mirrors[second])
    assert len(server.seen) == 1 + (first != "dead")


def test_each_mirror_is_named_with_what_it_gave(server, caplog):
    mirrors = mirrors_on(server)
    message = refused(*(mirrors[name] for name in ("dead", "missing", "other bytes", "a page")))
    assert re.match(
        r"set: .*127\.0\.0\.1:9/a\.idx\.gz: .*missing\?\[redacted\]: HTTP 404; .*other: .*102400 "
        r"bytes.*page: .*gzip",
        message,
    )
    assert "secret" not in message + caplog.text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(bytes(1 << 26)), f"more than {len(DATA)} bytes"),
        (gzip.compress(DATA)[:-9], "no complete gzip file"),
        (gzip.compress(DATA[1:]), "different file of 102399 bytes"),
    ],
    ids=["bomb", "truncated", "a byte less"],
)
def test_what_does_not_unpack_to_the_content_is_refused(server, data, words):
    mirror = mirrors_on(server)["in gzip"]
    server.files["/a.idx.gz"] = data
    assert re.search(words, refused(mirror))
    assert not any(path.stat().st_size for path in Path("work/partial").iterdir())


def test_a_transfer_that_was_interrupted_goes_on_in_gzip_too(server):
    mirror = mirrors_on(server)["in gzip"]
    refused({**mirror, "url": DEAD})
    Path("work/partial/set-a.idx.gz").write_bytes(gzip.compress(DATA)[:100])
    get(mirror)
    assert not list(Path("work/partial").iterdir())


@pytest.fixture
def package(tmp_path_factory):
    """A function that packs files into a Debian package in FOLDER and gives its bytes."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")

    def packed(files, compression="xz", links=None):
        folder = tmp_path_factory.mktemp("package")
        (folder / "tree" / FOLDER).mkdir(parents=True)
        for name, data in files.items():
            (folder / "tree" / FOLDER / name).write_bytes(data)
        for name, target in (links or {}).items():
            (folder / "tree" / FOLDER / name).symlink_to(target)
        (folder / "tree/DEBIAN").mkdir()
        (folder / "tree/DEBIAN/control").write_text(CONTROL)
        command = ["dpkg-deb", f"-Z{compression}", "--build", "tree", "set.deb"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return (folder / "set.deb").read_bytes()

    return packed


APT = {"kind": "apt", "package": "set", "member": f"{FOLDER}/a.idx.gz", "compression": "gzip"}
FAILS = """echo 'E: Unable to locate package set' >&2; exit 100"""
GIVES = """
case "$*" in *download*) cp "$PACKAGE" set_1_all.deb;; esac
"""


@pytest.fixture
def apt(server, tmp_path, monkeypatch):
    """A function that puts another apt-get first in PATH, which gives a package."""

    def put(script, package=b""):
        (tmp_path / "bin").mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        (tmp_path / "bin/package").write_bytes(package)
        monkeypatch.setenv("PACKAGE", f"{tmp_path}/bin/package")
        program = tmp_path / "bin/apt-get"
        program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/bin/pids\n{script}\n")
        program.chmod(0o755)

    return put


def test_debians_package_is_fetched_by_apt_once(apt, package):
    apt(GIVES, package({f"{name}.gz": gzip.compress(data) for name, data in CONTENTS.items()}))
    get(APT)
    get({**APT, "member": f"{FOLDER}/b.idx.gz"}, name="b.idx")
    assert len(Path("bin/pids").read_text().split()) == 2, "one update and one download"


@pytest.mark.thorough
@pytest.mark.parametrize("compression", ["xz", "gzip", "zstd", "none"])
def test_a_file_of_a_package_is_taken(apt, package, compression):
    apt(GIVES, package({"0": b"x", "a.idx": DATA, "z": b"y"}, compression))
    get({"kind": "apt", "package": "set", "member": f"{FOLDER}/a.idx"})


def test_a_package_without_the_content_is_refused_and_fetched_again_by_the_next_run(apt, package):
    whole = package({"a.idx.gz": gzip.compress(DATA)})
    wrong = {
        whole[:-200]: "set.deb can't be read",
        package({"b.idx": DATA}): "set.deb has no file",
        package({"b": DATA}, links={"a.idx.gz": "b"}): "set.deb has no file",
        package({"a.idx.gz": gzip.compress(DATA[1:])}): "a different file",
        package({"a.idx.gz": gzip.compress(bytes(1 << 26))}): ".* more than 102400 bytes",
    }
    for data, words in wrong.items():
        apt(GIVES, data)
        assert re.search(f"Debian's package set: {words}", refused(APT))
    apt(GIVES, whole)
    get(APT)


def test_without_apt_the_next_mirror_is_used(server, apt, monkeypatch, tmp_path):
    apt(FAILS)
    message = refused(APT)
    assert "Debian's package set: Unable to locate package set" in message
    get(APT, mirrors_on(server)["in gzip"])
    Path("a.idx").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Debian's package set: apt-get is not installed" in refused(APT)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Two archive folders of the user's; the second one, which is returned, has what is wanted."""
    for name in ("none", "mine"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(ARCHIVES, os.pathsep.join([f"{tmp_path}/none", f"{tmp_path}/mine"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


IN_ARCHIVES = source_of(http_mirror("https://example.org/x/a.gz?x=1", compression="gzip"), APT)


@pytest.mark.parametrize("name", ["a.idx", "a.gz", "set_1~2.3-4_all.deb"])
def test_archives_take_each_form_in_which_a_mirror_has_the_content(mine, package, name):
    data = {"a.idx": DATA, "a.gz": gzip.compress(DATA)}.get(name)
    (mine / name).write_bytes(data or package({"a.idx.gz": gzip.compress(DATA)}))
    download(IN_ARCHIVES, Path("out.idx"), "set")
    assert Path("out.idx").read_bytes() == DATA
    assert Path("out.idx").is_symlink() == (name == "a.idx")


def test_another_file_of_that_name_in_archives_is_refused(mine):
    (mine / "a.gz").write_bytes(gzip.compress(DATA[::-1]))
    with pytest.raises(UserError, match=rf"set: a\.idx can't be taken from {mine}/a\.gz: .*Remove"):
        download(IN_ARCHIVES, Path("out.idx"), "set")
    assert not Path("out.idx").exists()


@pytest.mark.thorough
def test_a_hub_is_a_mirror_too(server, tmp_path):
    """In a process of its own, since the client reads its environment once."""
    mirror = {"kind": "hub", "repo": "owner/set", "path": "d/a.idx.gz", "compression": "gzip"}
    source = source_of(http_mirror(DEAD), mirror)
    script = f"""
        import json, sys
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from rib.base.errors import UserError
        from rib.data.fetch.download import download
        try:
            download(json.loads({json.dumps(json.dumps(source))}), Path("a.idx"), "set")
        except UserError as error:
            print(error)
    """
    with served({"owner/set": Repository({"d/a.idx.gz": gzip.compress(DATA)})}) as hub:
        settings = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**settings, **environment_of(hub, tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert result.stdout == "" and Path("a.idx").read_bytes() == DATA


def can_reach_debian(folder):
    """Whether apt-get is here and downloads a small package."""
    if shutil.which("apt-get") is None:
        return False
    try:
        fetch_package("hello", folder / "hello.deb")
    except UserError:
        return False
    return True


@pytest.mark.slow
def test_fashion_mnist_is_in_debians_package(server, tmp_path, tmp_path_factory):
    if not can_reach_debian(tmp_path_factory.mktemp("hello")):
        pytest.skip("needs apt-get and a Debian mirror")
    for name, (size, digest) in FASHION.items():
        mirror = {
            "kind": "apt",
            "package": "dataset-fashion-mnist",
            "member": f"usr/share/datasets/fashion-mnist/{name}.gz",
            "compression": "gzip",
        }
        source = {
            "kind": "mirrors",
            "file": name,
            "size": size,
            "digest": f"sha256:{digest}",
            "mirrors": [http_mirror(DEAD, compression="gzip"), mirror],
        }
        download(source, Path(name), "fashion")
        assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == digest
    assert [path.name for path in Path("work/partial").glob("*.deb")] == [
        "dataset-fashion-mnist.deb"
    ]
