"""A hub on 127.0.0.1 that answers the hub's real client.

Its repositories have files, a commit, a licence and perhaps a gate.
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
    """

    files: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    licence: str | None = "mit"
    gated: bool = False
    commit: str = COMMIT

    def listing(self, name: str) -> dict:
        """The hub's answer about this repository, under a name `owner/name`."""
        size_and_digest = {
            path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in self.files.items()
        }
        for path, size in self.sizes.items():
            size_and_digest[path] = (size, hashlib.sha256(path.encode()).hexdigest())
        return {
            "id": name,
            "sha": self.commit,
            "gated": "auto" if self.gated else False,
            "cardData": {"license": self.licence} if self.licence else {},
            "siblings": [
                _file_listing(path, size, digest)
                for path, (size, digest) in sorted(size_and_digest.items())
            ],
        }


def _file_listing(path: str, size: int, digest: str) -> dict:
    """What the hub tells of one file of a repository."""
    listing = {"rfilename": path, "size": size, "blobId": digest[:40]}
    if size > SMALL:
        listing["lfs"] = {"size": size, "sha256": digest, "pointerSize": 134}
    return listing


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers of the hub: listings of repositories, and their files."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.reply(body=False)

    def do_GET(self):
        self.reply(body=True)

    def reply(self, body):
        """Answer a request, with the file itself only if `body`."""
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(path)
        listing_address = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if listing_address:
            return self.list_files(*listing_address.groups())
        file_address = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file_address:
            return self.give_file(*file_address.groups(), body)
        return self.refuse(404, "EntryNotFound")

    def list_files(self, name, revision):
        """Answer with the listing of a repository at a revision, or refuse."""
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        if revision not in (None, "main", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        return self.send(
            json.dumps(repository.listing(name)).encode(), {"Content-Type": "application/json"}
        )

    def give_file(self, name, revision, path, body):
        """Answer with a file of a repository at a revision, or refuse."""
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        if revision not in ("main", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(403, "GatedRepo")
        if path not in repository.files:
            return self.refuse(404, "EntryNotFound")
        data = repository.files[path]
        return self.send(
            data,
            {"X-Repo-Commit": repository.commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'},
            body,
        )

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
        pass


@contextlib.contextmanager
def served(repositories: dict[str, Repository]):
    """A running hub; `asked` lists the paths of all requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.repositories, server.asked = repositories, []
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
