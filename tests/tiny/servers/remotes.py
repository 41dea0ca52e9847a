"""Storage for DVC on 127.0.0.1: a real sshd, and a real WebDAV server, in folders of their own."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiny.projects.waiting import wait_until

# Daemons live where only root's PATH looks.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
SSHD = shutil.which("sshd", path=PATH)
PASSWORD = "not a secret"
SSHD_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
WEBDAV_CONFIG = """
host: 127.0.0.1
port: {port}
server: cheroot
provider_mapping: {{"/": "{store}"}}
http_authenticator: {{domain_controller: null, accept_basic: true, accept_digest: true}}
simple_dc: {{user_mapping: {{"*": {{tester: {{password: "{password}"}}}}}}}}
verbose: 1
"""


@dataclass(frozen=True)
class Remote:
    """Storage that DVC reaches.

    Attributes:
        url: its address.
        settings: what a user puts into .dvc/config.local besides.
        store: where its objects lie.
    """

    url: str
    settings: dict[str, str]
    store: Path

    def objects(self) -> list[Path]:
        """Paths of whole objects, sorted."""
        files = (path for path in (self.store / "files/md5").glob("??/*") if path.is_file())
        return sorted(path for path in files if len(path.name.removesuffix(".dir")) == 30)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the context ends; it listens when the body begins."""
    with open(log, "w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        assert (
            wait_until(lambda: server.poll() is not None or _listens(port), 10)
            and server.poll() is None
        ), log.read_text()
        yield
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    """Whether a server accepts connections at a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def ssh(folder: Path) -> Iterator[Remote]:
    """An sshd that lets this user in with a key made for it."""
    store = folder / "store"
    store.mkdir(parents=True)
    port = free_port()
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=folder))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates its privileges
    with serving([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], port, folder / "sshd.log"):
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{store}"
        yield Remote(url, {"keyfile": str(folder / "user_key")}, store)


@contextlib.contextmanager
def webdav(folder: Path) -> Iterator[Remote]:
    """A WebDAV server with a user and a password."""
    store = folder / "store"
    store.mkdir(parents=True)
    port = free_port()
    (folder / "webdav.yaml").write_text(
        WEBDAV_CONFIG.format(port=port, store=store, password=PASSWORD)
    )
    command = [
        str(Path(sys.executable).with_name("wsgidav")),
        "--config",
        str(folder / "webdav.yaml"),
    ]
    with serving(command, port, folder / "webdav.log"):
        yield Remote(f"webdav://127.0.0.1:{port}/", {"user": "tester", "password": PASSWORD}, store)
