"""Fetching over HTTP from a server on 127.0.0.1 that behaves as badly as real ones."""

import errno
import hashlib
import http.server
import re
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data import http as fetching
from rib.data.download import download
from rib.data.variables import ARCHIVES

pytestmark = pytest.mark.thorough

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
        self.wfile.write(DATA[:10])
        self.wfile.flush()
        self.server.over.wait(20)

    def web_page(self, start):
        self.good(0, b"<!doctype html><title>Please confirm</title>")

    def other(self, start):
        self.good(start, b"x" * len(DATA))

    def moved(self, start):
        self.send_response(302)
        self.send_header("Location", "/good/file")
        self.end_headers()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "BACK_OFF", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quirky) as quirky:
        quirky.seen, quirky.over = [], threading.Event()
        thread = threading.Thread(target=quirky.serve_forever)
        thread.start()
        yield quirky
        quirky.over.set()
        quirky.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch from addresses of the server named by their quirk; returns what was fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ARCHIVES, raising=False)

    def fetch(*quirks, digest=DIGEST):
        urls = [f"http://127.0.0.1:{server.server_port}/{quirk}/file" for quirk in quirks]
        source = {
            "kind": "http",
            "urls": urls,
            "file": "a.tar",
            "size": len(DATA),
            "digest": digest,
        }
        download(source, Path("a.tar"), "set")
        assert not list(Path("work/partial").iterdir()), "what was partial is gone once it is whole"
        return Path("a.tar").read_bytes()

    return fetch


def partial():
    return list(Path("work/partial").glob("*a.tar"))


def begin(data):
    """Leave what an earlier run has fetched."""
    Path("work/partial").mkdir(parents=True, exist_ok=True)
    Path("work/partial", f"{hashlib.sha256(DIGEST.encode()).hexdigest()[:16]}-a.tar").write_bytes(
        data
    )


@pytest.mark.parametrize("quirk", ["good", "moved"])
def test_a_file_arrives(get, quirk):
    assert get(quirk) == DATA


def test_a_transfer_that_breaks_off_goes_on_where_it_was(get, server):
    assert get("resets") == DATA
    assert server.seen == [("resets", 0), ("resets", len(DATA) // 2)]


def test_another_run_goes_on_where_the_last_one_was(get, server, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"set: no mirror gave a\.tar .*run again to resume"):
        get("resets")
    assert [path.stat().st_size for path in partial()] == [len(DATA) // 2]
    assert get("good") == DATA and server.seen[-1] == ("good", len(DATA) // 2)


def test_a_file_that_was_whole_when_the_run_was_killed_is_not_fetched_again(get):
    begin(DATA)
    assert get("missing") == DATA


def test_a_server_without_ranges_is_asked_for_the_whole_file(get):
    begin(DATA[:1000])
    assert get("no_ranges") == DATA


def test_a_beginning_of_another_file_is_thrown_away(get):
    begin(b"y" * 1000)
    assert get("good") == DATA


@pytest.mark.parametrize("says", [0, fetching.HTTP_ERROR])
@pytest.mark.parametrize("size", [1000, len(DATA) + 1])
def test_a_server_that_has_no_such_range_is_asked_for_the_whole_file(
    get, server, size, says, monkeypatch
):
    """Some curls take 416 for a file that is whole already and end with 0.

    Others call it an error.
    """
    real = fetching._curl

    def curl(*args):
        ended = real(*args)
        return replace(ended, code=says) if ended.http_status == "416" else ended

    monkeypatch.setattr(fetching, "_curl", curl)
    begin(b"y" * size)
    assert get("out_of_range") == DATA
    # A file that is too large already is fetched as a whole at once.
    assert server.seen == [("out_of_range", size), ("out_of_range", 0)][size > len(DATA) :]


def test_a_server_in_trouble_is_tried_again(get, server):
    assert get("broken") == DATA and len(server.seen) == 3


def test_mirrors_are_tried_in_order(get, server):
    assert get("missing", "always_broken", "web_page", "other", "good") == DATA
    quirks = [quirk for quirk, _ in server.seen]
    assert quirks == ["missing", *["always_broken"] * 5, "web_page", "other", "good"]


def test_each_address_that_failed_is_named_with_its_reason(get):
    with pytest.raises(UserError) as raised:
        get("missing", "web_page", "other")
    said = str(raised.value)
    assert re.search(
        r"missing/file: HTTP 404; .*web_page/file: a web page .*; "
        r".*other/file: a different file of 102400 bytes",
        said,
    )
    assert "archives" in said and not partial() and not Path("a.tar").exists()


def test_a_stalled_transfer_is_given_up(get, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    monkeypatch.setattr(fetching, "STALL", 1)
    with pytest.raises(UserError, match=r"stalls/file: .*(slow|timed out)"):
        get("stalls")


def refused(url, words):
    source = {"kind": "http", "urls": [url], "file": "a.tar", "digest": DIGEST}
    with pytest.raises(UserError, match=words):
        download(source, Path("a.tar"), "set")


def test_a_dead_address_is_a_sentence(get, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 2)
    refused("http://127.0.0.1:9/a.tar", r"http://127\.0\.0\.1:9/a\.tar: Failed to connect")


def test_other_protocols_are_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(DATA)
    refused(f"file://{tmp_path}/secret", "no mirror gave a.tar")


def test_a_machine_without_curl_is_told_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    refused("http://127.0.0.1:9/a.tar", "curl is not installed")


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
    with pytest.raises(
        UserError, match=r"set: a\.tar \(5 bytes\) has sha256 .* but the catalogue pins"
    ):
        download(source, Path("b.tar"), "set")
    monkeypatch.setenv(ARCHIVES, "")
    with pytest.raises(
        UserError,
        match=r"set: a\.tar must be .*: Accept them\. Its page: https://example\.org\. Put",
    ):
        download(source, Path("b.tar"), "set")


def test_a_file_larger_than_a_limit_is_the_systems_error(get, limited_files):
    """With `ulimit -f`, curl is killed.

    A job makes a sentence of the error (rib.jobs.messages).
    """
    with pytest.raises(OSError) as failed, limited_files(len(DATA) // 2):
        get("good")
    assert failed.value.errno == errno.EFBIG
