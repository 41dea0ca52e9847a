"""Fetch a Debian package with apt-get, without root, and read a file in it.

Nothing is installed.
"""

import contextlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rib.base.errors import UserError

SECONDS_TO_ANSWER = 10  # timeout of a Debian mirror
MOST_COMPLAINTS = 3  # error lines of apt-get in a message
# Disable commands that the machine's apt configuration runs around an update; they need root.
WITHOUT_HOOKS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def fetch_package(package: str, target: Path) -> None:
    """Fetch a package's .deb from the machine's Debian mirrors; apt-get verifies it.

    Package lists are fetched too, into a private folder: neither root nor up-to-date lists are
    needed.

    Args:
        package: such as dataset-fashion-mnist.
        target: output file in an existing folder.

    Raises:
        UserError: apt-get is missing, or could not fetch the package.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary).resolve()
        options = _options_of_apt(folder)
        updated = _run_apt([*options, "update"], folder)
        # A failed update may leave enough, for example if one of several mirrors is dead.
        downloaded = _run_apt([*options, "download", "--", package], folder)
        files = sorted(folder.glob("*.deb"))
        if downloaded.returncode != 0 or len(files) != 1:
            problems = _complaints(updated.stdout) + _complaints(downloaded.stdout)
            raise UserError("; ".join(problems) or f"apt-get ended with {downloaded.returncode}")
        os.replace(files[0], target)


def _options_of_apt(folder: Path) -> list[str]:
    """Options such as ["-o", "Dir::Cache=..."]: apt-get then needs no folders of root."""
    for name in ("lists", "cache"):
        (folder / name).mkdir()
    without_hooks = folder / "apt.conf"
    without_hooks.write_text(WITHOUT_HOOKS)
    settings = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": 1,  # of the machine's folders
        "Acquire::Languages": "none",
        "Acquire::Retries": 0,
        "Acquire::http::Timeout": SECONDS_TO_ANSWER,
        "Acquire::https::Timeout": SECONDS_TO_ANSWER,
    }
    options = ["-c", str(without_hooks)]
    for key, setting in settings.items():
        options += ["-o", f"{key}={setting}"]
    return options


def _run_apt(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run apt-get in a folder; `stdout` of the result has its errors, too."""
    try:
        return subprocess.run(
            ["apt-get", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise UserError("apt-get is not installed") from error


def _complaints(output: str) -> list[str]:
    """First error lines for a message: `E: Unable to locate package x` loses its `E: `."""
    complaints = []
    for line in output.splitlines():
        if line.startswith(("E: ", "W: Failed")):
            complaints.append(line[len("E: ") :].strip())
    return complaints[:MOST_COMPLAINTS]


@contextlib.contextmanager
def opened_member(package: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a file in a Debian package; dpkg-deb unpacks up to there.

    Args:
        package: the .deb.
        member: path in the package, such as usr/share/prices/prices.csv.gz.

    Raises:
        UserError: dpkg-deb is missing, the package is damaged or none, or lacks the file.
    """
    try:
        process = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise UserError("dpkg-deb is not installed, but is needed to read the package") from error
    assert process.stdout is not None and process.stderr is not None  # pipes
    with process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for header in tar:
                    if header.isfile() and header.name.removeprefix("./") == member:
                        file = tar.extractfile(header)
                        assert file is not None  # regular files have one
                        yield file
                        return
        except tarfile.TarError as error:
            process.kill()
            problem = " ".join(process.stderr.read().decode(errors="replace").split())
            raise UserError(f"{package.name} can't be read ({problem or error})") from error
        finally:
            process.kill()
    raise UserError(f"{package.name} has no file '{member}'")
