"""Fetching by curl from a server on 127.0.0.1 that behaves as badly as real ones."""

import errno
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data.fetch import curl, mirrors
from rib.data.fetch.download import download
from rib.data.variables import ARCHIVES

DATA = bytes(range(256)) * 400
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


class Quirky(http.server.BaseHTTPRequestHandler):
    """What a path starts with says how it behaves; requests and their ranges are noted."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        quirk = self.path.strip("/").split("/")[0]
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.server.seen.append((quirk, start))
        getattr(self, quirk)(start)

    def good(self, start, data=DATA, cut=None):
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:cut])

    def resets(self, start):
        """Breaks off after half of it, the first time."""
        if len(self.server.seen) > 1:
            return self.good(start)
        self.good(start, cut=len(DATA) // 2)
        self.wfile.flush()
        time.sleep(0.2)
        self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def no_ranges(self, start):
        """Doesn't know ranges: sends the whole file whatever was asked for."""
        self.good(0)

    def out_of_range(self, start):
        """Refuses ranges, as a server does whose file is shorter than what is there already."""
        self.send_error(416) if start else self.good(start)

    def ends_early(self, start):
        """Says that half of the file is the file."""
        self.good(0, DATA[: len(DATA) // 2])

    def endless(self, start):
        self.send_response(200)
        self.end_headers()
        while not self.server.over.is_set():
            self.wfile.write(bytes(1 << 20))

    def missing(self, start):
        self.send_error(404)

    def broken(self, start):
        """500 twice, then good."""
        self.send_error(500) if len(self.server.seen) < 3 else self.good(start)

    def always_broken(self, start):
        self.send_error(503)

    def stalls(self, start):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[: len(DATA) // 2])
        self.wfile.flush()
        self.server.over.wait(20)

    def web_page(self, start):
        self.good(0, b"<!doctype html><title>Please confirm</title>")

    def other(self, start):
        self.good(start, b"x" * len(DATA))

    def moved(self, start):
        self.send_response(302)
        self.send_header("Location", self.server.elsewhere)
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    """With the requests that it has seen, and where `/moved` leads to."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Quirky)
        self.seen, self.over, self.elsewhere = [], threading.Event(), "/good/file"

    def handle_error(self, *_):
        """Of clients that hang up nothing is printed."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(mirrors, "PAUSES", (0.0, 0.01, 0.01))
    monkeypatch.setattr(curl, "PAUSE", 0.01)
    with Server() as quirky:
        thread = threading.Thread(target=quirky.serve_forever, args=[0.05])
        thread.start()
        yield quirky
        quirky.over.set()
        quirky.shutdown()
        thread.join()


def source_of(urls, **content):
    content = {"file": "a.tar", "size": len(DATA), "digest": DIGEST, **content}
    return {"kind": "http", "urls": urls, **content}


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch from addresses of the server named by their quirk; returns what was fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ARCHIVES, raising=False)

    def fetch(*quirks, **content):
        urls = [f"http://127.0.0.1:{server.server_port}/{quirk}/file" for quirk in quirks]
        download(source_of(urls, **content), Path("a.tar"), "set")
        assert not list(Path("work/partial").iterdir()), "what was partial is gone once it is whole"
        return Path("a.tar").read_bytes()

    return fetch


PARTIAL = Path("work/partial/set-a.tar")


def begin(data):
    """Leave what an earlier run has fetched."""
    PARTIAL.parent.mkdir(parents=True, exist_ok=True)
    PARTIAL.write_bytes(data)


def test_a_file_arrives_from_where_its_address_leads(get):
    assert get("moved") == DATA


def test_a_transfer_that_breaks_off_goes_on_where_it_was(get, server):
    assert get("resets") == DATA
    assert server.seen == [("resets", 0), ("resets", len(DATA) // 2)]


@pytest.fixture
def job(server, tmp_path, monkeypatch):
    """A function that starts a process which fetches what stalls in the middle."""
    monkeypatch.chdir(tmp_path)
    url = f"http://127.0.0.1:{server.server_port}/stalls/file"
    script = """
import json, sys
from pathlib import Path
from rib.data.fetch.download import download
download(json.loads(sys.argv[1]), Path("a.tar"), "set")
"""

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(source_of([url]))],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        while not PARTIAL.exists() or PARTIAL.stat().st_size < 10_000:
            assert process.poll() is None
            time.sleep(0.05)
        return process

    return start


def test_another_run_goes_on_where_a_killed_one_was(job, get, server):
    process = job()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    size = PARTIAL.stat().st_size
    assert get("good") == DATA and server.seen == [("stalls", 0), ("good", size)]


@pytest.mark.thorough
def test_a_run_waits_for_the_curl_of_a_killed_one(job, get, server):
    process = job()
    process.kill()
    process.wait()
    assert not Path("a.tar").exists()
    threading.Timer(1, server.over.set).start()
    started = time.monotonic()
    assert get("good") == DATA and time.monotonic() - started > 0.9


def test_no_list_of_processes_shows_the_address(get, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/curl"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nexec {shutil.which("curl")} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    assert get('good/"[a-b]\\?signature=secret') == DATA
    arguments = (tmp_path / "arguments").read_text()
    assert "secret" not in arguments and "127.0.0.1" not in arguments


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_file_that_was_whole_when_the_run_was_killed_is_not_fetched_again(get, server, size):
    begin(DATA)
    assert get("out_of_range", **({} if size else {"size": 1 << 20})) == DATA
    assert server.seen == ([] if size else [("out_of_range", len(DATA))])


def test_a_server_without_ranges_is_asked_for_the_whole_file(get, server):
    begin(DATA[:1000])
    assert get("no_ranges") == DATA
    assert server.seen == [("no_ranges", 1000), ("no_ranges", 0)]


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1000, len(DATA), len(DATA) + 1])
def test_a_beginning_of_another_file_is_thrown_away(get, size):
    begin(b"y" * size)
    assert get("good") == DATA


def test_mirrors_are_tried_in_turn(get, server):
    """One that is in trouble is tried again only after the others; others are not."""
    assert get("missing", "always_broken", "web_page", "other", "good") == DATA
    quirks = [quirk for quirk, _ in server.seen]
    assert quirks == ["missing", "always_broken", "web_page", "other", "good"]


def test_a_server_in_trouble_is_tried_again(get, server):
    assert get("missing", "broken") == DATA
    assert [quirk for quirk, _ in server.seen] == ["missing", "broken", "broken"]


@pytest.mark.parametrize(
    ("quirk", "reason"),
    [
        ("always_broken", "HTTP 503"),
        ("ends_early", f"{len(DATA) // 2} bytes"),
        ("endless", "more bytes"),
        ("web_page", "a web page"),
        ("other", f"{len(DATA)} bytes"),
    ],
)
def test_other_bytes_are_one_sentence_and_not_kept(get, quirk, reason):
    with pytest.raises(UserError, match=rf"^set: .*a\.tar .*/{quirk}/file: .*{reason}"):
        get(quirk)
    assert not Path("a.tar").exists() and not any(
        path.stat().st_size for path in Path("work/partial").iterdir()
    )


@pytest.mark.thorough
def test_a_stalled_transfer_is_given_up_and_kept(get, monkeypatch):
    monkeypatch.setattr(mirrors, "PAUSES", (0.0,))
    monkeypatch.setattr(curl, "STALL", 1)
    with pytest.raises(UserError, match=r"stalls/file: .*(slow|timed out)"):
        get("stalls")
    assert PARTIAL.read_bytes() == DATA[: len(DATA) // 2]


def test_other_protocols_are_not_followed(get, server, tmp_path):
    (tmp_path / "secret").write_bytes(DATA)
    server.elsewhere = f"file://{tmp_path}/secret"
    with pytest.raises(UserError, match=r"no mirror gave a\.tar .*[Pp]rotocol"):
        get("moved")


def test_a_machine_without_curl_is_told_so(get, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="curl is not installed"):
        get("good")


@pytest.mark.thorough
def test_a_file_that_is_there_already_is_linked_after_the_same_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, data in (("wrong", b"other"), ("right", DATA)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tar").write_bytes(data)
    page = {"page": "https://example.org", "terms": "Accept them."}
    source = {"kind": "manual", "file": "a.tar", "digest": DIGEST, **page}
    monkeypatch.setenv(ARCHIVES, f"{tmp_path}/none:{tmp_path}/right")
    download(source, Path("a.tar"), "set")
    assert Path("a.tar").is_symlink() and Path("a.tar").read_bytes() == DATA
    monkeypatch.setenv(ARCHIVES, f"{tmp_path}/none")
    with pytest.raises(UserError, match=rf"archives: the folder {tmp_path}/none does not exist"):
        download(source, Path("b.tar"), "set")
    monkeypatch.setenv(ARCHIVES, f"{tmp_path}/wrong")
    with pytest.raises(UserError, match=r"^set: a\.tar .* has sha256 "):
        download(source, Path("b.tar"), "set")
    monkeypatch.setenv(ARCHIVES, "")
    with pytest.raises(UserError, match=r"^set: a\.tar .*Accept them\. .*https://example\.org"):
        download(source, Path("b.tar"), "set")


@pytest.mark.thorough
def test_a_file_larger_than_a_limit_is_the_systems_error(get, limited_files):
    """With `ulimit -f`, curl is killed.

    A job makes a sentence of the error (rib.jobs.messages).
    """
    with pytest.raises(OSError) as failed, limited_files(len(DATA) // 2):
        get("good")
    assert failed.value.errno == errno.EFBIG
