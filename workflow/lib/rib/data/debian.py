"""Debian packages: fetching one with apt-get, without root, and reading a file in one.

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

SECONDS_TO_ANSWER = 10  # of a Debian mirror
MOST_COMPLAINTS = 3  # lines of apt-get that are repeated
# Commands of the machine's configuration that apt-get would call around an update; they need root.
WITHOUT_HOOKS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def fetch_package(package: str, target: Path) -> None:
    """Fetch the .deb of a package from the machine's Debian mirrors, which apt-get verifies.

    The lists of packages are fetched too, into a private folder beside `target`, so that neither
    root nor up-to-date lists are needed.

    Args:
        package: name of the package, such as dataset-fashion-mnist.
        target: file to write; its folder exists.

    Raises:
        UserError: apt-get is missing, or has no such package; the message says why.
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
    """Make folders for apt-get in a folder, and return options by which it uses no others."""
    for name in ("lists", "cache"):
        (folder / name).mkdir()
    without_hooks = folder / "apt.conf"
    without_hooks.write_text(WITHOUT_HOOKS)
    settings = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": 1,  # of the machine's own folders
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
    """Run apt-get in a folder, into which it downloads."""
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
    """The first lines `E: ...` and `W: Failed ...` of apt-get, without the letter in front."""
    complaints = []
    for line in output.splitlines():
        if line.startswith(("E: ", "W: Failed")):
            complaints.append(line[len("E: ") :].strip())
    return complaints[:MOST_COMPLAINTS]


@contextlib.contextmanager
def opened_member(package: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a file in a Debian package, which dpkg-deb unpacks up to there.

    Args:
        package: the .deb.
        member: path of the file in the package, such as usr/share/prices/prices.csv.gz.

    Raises:
        UserError: dpkg-deb is missing; this is no Debian package, or damaged; or it does not have
            such a regular file.
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
                        assert file is not None  # of a regular file
                        yield file
                        return
        except tarfile.TarError as error:
            process.kill()
            problem = " ".join(process.stderr.read().decode(errors="replace").split())
            raise UserError(f"{package.name} can't be read ({problem or error})") from error
        finally:
            process.kill()
    raise UserError(f"{package.name} has no file '{member}'")
