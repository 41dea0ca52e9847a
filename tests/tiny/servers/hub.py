"""A hub on 127.0.0.1 that answers the hub's real client.

Its repositories have files, a commit, a licence and perhaps a gate. Those whose names begin with
`datasets/` are of datasets.
"""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMIT_OF_CONVERSION = "c0" * 20
CONVERSION = "refs/convert/parquet"
# Bytes up to which a file is part of the repository itself, without a digest in the listing.
SMALL = 10_000
TOKEN = "hf_TokenOfTheHub"


@dataclass
class Repository:
    """One repository.

    Attributes:
        files: bytes by path.
        sizes: sizes of files that are listed but never fetched, by path.
        gated: whether files are only for users who are logged in.
        commit: the newest commit.
        converted: files of the hub's Parquet conversion, by path; empty if there is none.
        commit_of_conversion: the newest commit of the conversion.
        earlier: files by path, by commits before the newest one.
        sent: bytes that are sent in place of those that are listed, by path.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    licence: str | None = "mit"
    gated: bool = False
    commit: str = COMMIT
    converted: dict[str, bytes] = field(default_factory=dict)
    commit_of_conversion: str = COMMIT_OF_CONVERSION
    earlier: dict[str, dict[str, bytes]] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)

    def commit_of(self, revision: str | None) -> str | None:
        """The commit of a revision; None if there is no such revision."""
        if revision in (None, "main"):
            return self.commit
        if self.converted and revision in (CONVERSION, self.commit_of_conversion):
            return self.commit_of_conversion
        if revision == self.commit or revision in self.earlier:
            return revision
        return None

    def files_at(self, commit: str) -> dict[str, bytes]:
        """Bytes by path at a commit."""
        if self.converted and commit == self.commit_of_conversion:
            return self.converted
        return self.earlier.get(commit, self.files)

    def listing(self, name: str, commit: str) -> dict:
        """The hub's answer about this repository, under a name `owner/name`."""
        siblings = [_file_listing(path, data) for path, data in self.files_at(commit).items()]
        for path, size in self.sizes.items():
            digest = hashlib.sha256(path.encode()).hexdigest()
            siblings.append(_large_file_listing(path, size, digest))
        listing = {
            "id": name,
            "sha": commit,
            "gated": "auto" if self.gated else False,
            "siblings": sorted(siblings, key=lambda sibling: sibling["rfilename"]),
        }
        if self.licence and self.files_at(commit) is not self.converted:  # it has no README
            listing["cardData"] = {"license": self.licence}
        return listing


def git_id(data: bytes) -> str:
    """Git's id of a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _file_listing(path: str, data: bytes) -> dict:
    """What the hub tells of one file of a repository."""
    if len(data) > SMALL:
        return _large_file_listing(path, len(data), hashlib.sha256(data).hexdigest())
    return {"rfilename": path, "size": len(data), "blobId": git_id(data)}


def _large_file_listing(path: str, size: int, digest: str) -> dict:
    """What the hub tells of a file of which git has only the digest."""
    lfs = {"size": size, "sha256": digest, "pointerSize": 134}
    return {"rfilename": path, "size": size, "blobId": digest[:40], "lfs": lfs}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers of the hub: listings of repositories, and their files."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        """Answer with headers alone."""
        self.reply(body=False)

    def do_GET(self):
        """Answer with headers and data."""
        self.reply(body=True)

    def reply(self, body):
        """Answer a request, with the file itself only if `body`."""
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(path)
        listing_address = re.fullmatch(
            r"/api/(models/|datasets/)([^/]+/[^/]+)(?:/revision/(.+))?", path
        )
        if listing_address:
            kind, name, revision = listing_address.groups()
            return self.list_files(kind.removeprefix("models/") + name, revision)
        file_address = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file_address:
            return self.give_file(*file_address.groups(), body)
        return self.refuse(404, "EntryNotFound")

    def find(self, name, revision):
        """The repository and the commit of a revision; without one the request is refused."""
        repository = self.server.repositories.get(name)
        if repository is None:
            self.refuse(401, "RepoNotFound")
            return None, None
        commit = repository.commit_of(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound")
        return repository, commit

    def list_files(self, name, revision):
        """Answer with the listing of a repository at a revision, or refuse."""
        repository, commit = self.find(name, revision)
        if commit is None:
            return None
        listing = repository.listing(name.removeprefix("datasets/"), commit)
        return self.send(json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def give_file(self, name, revision, path, body):
        """Answer with a file of a repository at a revision, or refuse."""
        repository, commit = self.find(name, revision)
        if commit is None:
            return None
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(403, "GatedRepo")
        files = repository.files_at(commit)
        if path not in files:
            return self.refuse(404, "EntryNotFound")
        data = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if not body:
            return self.send(data, headers, body=False)
        return self.send(repository.sent.get(path, data), headers)

    def refuse(self, status, code):
        """Answer with an error, whose code the hub's client reads."""
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, data, headers, body=True):
        """Answer with headers and, if `body`, with data."""
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        """Print no line per request."""


@contextlib.contextmanager
def served(repositories: dict[str, Repository]):
    """A running hub, whose `asked` lists the paths of all requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.repositories = repositories
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def environment(server, folder) -> dict[str, str]:
    """Variables with which the client asks this hub, with a cache of its own."""
    address = f"http://127.0.0.1:{server.server_port}"
    return {
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
