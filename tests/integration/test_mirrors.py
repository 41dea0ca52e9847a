"""One content from the first mirror that has it: servers on 127.0.0.1, and apt-get."""

import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data import http as fetching
from rib.data import mirrors as fetching_mirrors
from rib.data.download import download
from rib.data.variables import ARCHIVES
from tiny.debian import FOLDER, package
from tiny.hub import Repository, served
from tiny.hub import environment as environment_of

CONTENTS = {"a.idx": bytes(range(256)) * 400, "b.idx": b"labels" * 100}
DATA = CONTENTS["a.idx"]
PACKAGE = package({f"{name}.gz": gzip.compress(data) for name, data in CONTENTS.items()})
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
    """Answers as the path says; requests are noted."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.seen.append(path)
        if path == "/silent":
            self.server.over.wait(30)
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.is_set():
                self.wfile.write(bytes(1 << 20))
        elif path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere)
            self.end_headers()
        elif path in self.server.files:
            data = self.server.files[path]
            start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[start:])
        else:
            self.send_error(404)


class Server(http.server.ThreadingHTTPServer):
    """With files by path, and where `/elsewhere` leads to."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.over, self.elsewhere = [], threading.Event(), ""
        self.files = {"/set.deb": PACKAGE, "/other": DATA[::-1], "/page": b"<html>" * 99}
        for name, data in CONTENTS.items():
            self.files |= {f"/{name}": data, f"/{name}.gz": gzip.compress(data)}
        self.files["/other.gz"] = gzip.compress(DATA[::-1])

    def handle_error(self, *_):
        """Of clients that hang up nothing is printed."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "BACK_OFF", 0.01)
    monkeypatch.delenv(ARCHIVES, raising=False)
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def full_port():
    """A port whose queue of connections is full, so that a new one waits without an answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        clients = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
            clients.append(client)
        time.sleep(0.1)
        yield listening.getsockname()[1]
        for client in clients:
            client.close()


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
    """Mirrors of a server that have the content in each form."""
    address = f"http://127.0.0.1:{server.server_port}"
    return {
        "as it is": http_mirror(f"{address}/a.idx"),
        "in gzip": http_mirror(f"{address}/a.idx.gz", compression="gzip"),
        "in a package": http_mirror(
            f"{address}/set.deb", member=f"{FOLDER}/a.idx.gz", compression="gzip"
        ),
        "other bytes": http_mirror(f"{address}/other"),
        "other bytes in gzip": http_mirror(f"{address}/other.gz", compression="gzip"),
        "a page": http_mirror(f"{address}/page", compression="gzip"),
        "a page for a package": http_mirror(f"{address}/page", member=f"{FOLDER}/a.idx"),
        "missing": http_mirror(f"{address}/missing?X-Amz-Signature=secret", compression="gzip"),
        "silent": http_mirror(f"{address}/silent"),
        "elsewhere": http_mirror(f"{address}/elsewhere"),
        "endless": http_mirror(f"{address}/endless", compression="gzip"),
        "dead": http_mirror(DEAD, compression="gzip"),
    }


@pytest.mark.parametrize("form", ["as it is", "in gzip", "in a package"])
def test_the_second_mirror_is_used_if_the_first_one_is_dead(server, form):
    started = time.monotonic()
    mirrors = mirrors_on(server)
    get(mirrors["dead"], mirrors[form])
    assert time.monotonic() - started < 10, "nor is the dead one tried again"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "first", ["other bytes", "other bytes in gzip", "a page", "a page for a package", "missing"]
)
def test_the_second_mirror_is_used_if_the_first_one_has_other_bytes(server, first):
    mirrors = mirrors_on(server)
    get(mirrors[first], mirrors["in gzip"])
    assert len(server.seen) == 2


def test_each_mirror_is_named_with_what_it_gave(server, tmp_path, monkeypatch, caplog):
    mirrors = mirrors_on(server)
    message = refused(*(mirrors[name] for name in ("dead", "missing", "other bytes", "a page")))
    assert re.match(
        r"set: no mirror gave a\.idx \(http://127\.0\.0\.1:9/a\.idx\.gz: Failed to connect.*; "
        r".*missing\?\[redacted\] HTTP 404; .*other: a different file of 102400 bytes.*; "
        r".*page: what was received is no complete gzip file",
        message,
    )
    assert message.endswith(
        "put a.idx or a.idx.gz or missing or page into a folder listed under `archives` in "
        "config.yaml."
    )
    assert "secret" not in message + caplog.text
    (tmp_path / "work/mine").mkdir()
    monkeypatch.setenv(ARCHIVES, f"{tmp_path}/work/mine")
    assert f"into {tmp_path}/work/mine (`archives` in config.yaml)" in refused(mirrors["dead"])


@pytest.mark.thorough
def test_an_address_that_can_not_be_reached_costs_at_most_ten_seconds(server, full_port):
    started = time.monotonic()
    get(http_mirror(f"http://127.0.0.1:{full_port}/a.idx"), mirrors_on(server)["as it is"])
    assert 5 < time.monotonic() - started < 11


@pytest.mark.thorough
def test_an_address_without_an_answer_is_given_up(server, full_port, monkeypatch):
    monkeypatch.setattr(fetching_mirrors, "SECONDS_TO_ANSWER", 0.2)
    address = f"http://127.0.0.1:{full_port}/a.idx"
    server.elsewhere = address
    mirrors = mirrors_on(server)
    without_answer = [http_mirror(address), mirrors["silent"], mirrors["elsewhere"]]
    message = refused(*without_answer)
    assert message.count("no answer within 0.2 s") == 3
    get(*without_answer, mirrors["as it is"])


def test_no_more_is_fetched_than_the_content_can_be(server):
    mirrors = mirrors_on(server)
    assert "more bytes were sent than the file has" in refused(mirrors["endless"])
    assert sum(path.stat().st_size for path in Path("work/partial").iterdir()) == 0


def test_a_transfer_that_was_interrupted_goes_on_in_gzip_too(server):
    mirror = mirrors_on(server)["in gzip"]
    refused({**mirror, "url": DEAD})
    partial = fetching_mirrors._hash_of_address(mirror)
    digest = fetching_mirrors._short_hash(source_of()["digest"])
    beginning = gzip.compress(DATA)[:100]
    Path(f"work/partial/{digest}-{partial}-a.idx.packed").write_bytes(beginning)
    get(mirror)
    assert not list(Path("work/partial").iterdir())


def test_contents_of_one_package_need_one_download(server):
    mirror = mirrors_on(server)["in a package"]
    get(mirror)
    get({**mirror, "member": f"{FOLDER}/b.idx.gz"}, name="b.idx")
    assert server.seen == ["/set.deb"]


def test_a_kept_package_that_is_another_one_is_fetched_again(server):
    mirror = mirrors_on(server)["in a package"]
    get(mirror)
    (kept,) = Path("work/partial").glob("*.deb")
    kept.write_bytes(PACKAGE[:-100])
    get(mirror)
    assert server.seen == ["/set.deb", "/set.deb"] and kept.read_bytes() == PACKAGE


APT = {"kind": "apt", "package": "set", "member": f"{FOLDER}/a.idx.gz", "compression": "gzip"}
FAILS = """echo 'E: Unable to locate package set' >&2; exit 100"""
GIVES = """
case "$*" in *download*) cp "$PACKAGE" set_1_all.deb;; esac
"""
HANGS = """sleep 60"""


@pytest.fixture
def apt(server, tmp_path, monkeypatch):
    """A function that puts another apt-get first in PATH; None puts none there, nor any program."""

    def put(script):
        (tmp_path / "bin").mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin")
        if script is None:
            (tmp_path / "bin/apt-get").unlink(missing_ok=True)
            return
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        (tmp_path / "bin/package").write_bytes(PACKAGE)
        monkeypatch.setenv("PACKAGE", f"{tmp_path}/bin/package")
        program = tmp_path / "bin/apt-get"
        program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/bin/pids\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return put


def test_debians_package_is_fetched_by_apt_once(server, apt):
    apt(GIVES)
    get(APT)
    get({**APT, "member": f"{FOLDER}/b.idx.gz"}, name="b.idx")
    assert len(Path("bin/pids").read_text().split()) == 2, "one update and one download"


def test_without_apt_the_next_mirror_is_used(server, apt):
    apt(FAILS)
    message = refused(APT)
    assert "Debian's package set: Unable to locate package set" in message
    assert "put a.idx or set_*.deb into" in message
    apt(None)
    assert "Debian's package set: apt-get is not installed" in refused(APT)
    apt(FAILS)
    get(APT, mirrors_on(server)["in gzip"])


@pytest.mark.thorough
def test_an_apt_without_an_answer_is_ended(server, apt, monkeypatch):
    monkeypatch.setattr(fetching_mirrors, "SECONDS_TO_ANSWER", 0.2)
    apt(HANGS)
    get(APT, mirrors_on(server)["in gzip"])
    (pid,) = Path("bin/pids").read_text().split()
    assert not Path(f"/proc/{pid}").exists()


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
        from rib.data.download import download
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
        fetching_mirrors.fetch_package("hello", folder / "hello.deb", 9, "hello")
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
