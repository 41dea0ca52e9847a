"""A hub on 127.0.0.1: repositories with files, a commit, a licence and perhaps a gate, as its real client asks for them."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = 10_000  # bytes up to which a file is part of the repository itself, without a digest in the listing
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
        listed = {
            path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in self.files.items()
        }
        listed |= {
            path: (size, hashlib.sha256(path.encode()).hexdigest())
            for path, size in self.sizes.items()
        }
        return {
            "id": name,
            "sha": self.commit,
            "gated": "auto" if self.gated else False,
            "cardData": {"license": self.licence} if self.licence else {},
            "siblings": [
                {"rfilename": path, "size": size, "blobId": digest[:40]}
                | (
                    {"lfs": {"size": size, "sha256": digest, "pointerSize": 134}}
                    if size > SMALL
                    else {}
                )
                for path, (size, digest) in sorted(listed.items())
            ],
        }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.reply(body=False)

    def do_GET(self):
        self.reply(body=True)

    def reply(self, body):
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(path)
        if listed := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.list_files(*listed.groups())
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        return self.give_file(*found.groups(), body) if found else self.refuse(404, "EntryNotFound")

    def list_files(self, name, revision):
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        if revision not in (None, "main", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        return self.send(
            json.dumps(repository.listing(name)).encode(), {"Content-Type": "application/json"}
        )

    def give_file(self, name, revision, path, body):
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
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, data, headers, body=True):
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
