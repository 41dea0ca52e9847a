"""Pulling shared results; `dvc pull` would write wherever the storage says (docs/dvc-report.md)."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dvc.output import Output
from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree

from rib.base.errors import UserError
from rib.base.progress import log
from rib.records.track import dvc_repository, remove_leftovers

MD5 = re.compile("[0-9a-f]{32}")
# Names that no pulled path may have in it: they lead elsewhere, or to files of git and DVC.
FORBIDDEN_NAMES = {"", ".", "..", ".git", ".dvc"}


def pull(wanted: str | Sequence[str]) -> None:
    """Fetch tracked files, and check them out if all are sound and none was changed here.

    Args:
        wanted: folders and files in the project; everything that is tracked if empty.

    Raises:
        UserError: A file is missing, damaged or hostile in the storage, or changed here; no file
            was changed.
    """
    requested = [wanted] if isinstance(wanted, str) else wanted
    requested_paths = [Path(os.path.relpath(path)) for path in requested] or [Path()]
    with dvc_repository(remote_config={"verify": True}) as repo:
        repo.drop_data_index()  # it may contain listings that were not checked
        files, targets = _files_to_pull(repo, requested_paths)
        if not files:
            raise UserError(
                f"no .dvc file tracks anything in {', '.join(map(str, requested_paths))}; nothing "
                "was pulled."
            )
        _fetch(repo, files, targets)
        remove_leftovers(targets)
        changes = repo.checkout(targets)
        log.info(
            "%d files are in place; new or changed: %s",
            len(files),
            " ".join(changes["added"] + changes["modified"]),
        )


def _files_to_pull(
    repo: Repo, requested_paths: Sequence[Path]
) -> tuple[dict[Path, str], list[str]]:
    """Tracked files that were requested.

    Args:
        repo: the project's DVC repository.
        requested_paths: folders and files in the project.

    Returns:
        The MD5 of each file, and the sorted paths with which DVC is told of them.
    """
    files = {}
    targets: set[str] = set()
    for out in repo.index.outs:
        path = Path(os.path.relpath(out.fs_path))
        targets_of_out = _requested_part(path, requested_paths)
        if not targets_of_out:
            continue
        for file, md5 in _tracked_files(repo, out, path).items():
            if any(map(file.is_relative_to, targets_of_out)):
                files[file] = md5
        targets.update(map(str, targets_of_out))
    return files, sorted(targets)


def _requested_part(tracked: Path, requested_paths: Sequence[Path]) -> set[Path]:
    """What was requested of a tracked folder or file: all of it, folders in it, or nothing.

    Of the tracked folder `results/emoji`, the request `results` is all, `results/emoji`; the
    request `results/emoji/models` is this folder.
    """
    requested_part = set()
    for requested in requested_paths:
        if tracked.is_relative_to(requested):
            requested_part.add(tracked)
        elif requested.is_relative_to(tracked):
            requested_part.add(requested)
    return requested_part


def _fetch(repo: Repo, files: dict[Path, str], targets: list[str]) -> None:
    """Fetch files from the storage into DVC's cache, which checks their MD5.

    Raises:
        UserError: The storage does not answer, or lacks one of the files.
    """
    cache = repo.cache.local
    missing_before = None
    missing = [file for file, md5 in files.items() if not cache.exists(md5)]
    # An object that fails may stop the others, so it is tried again as long as some arrive.
    while missing and missing != missing_before:
        log.info("fetching %d of %d files", len(missing), len(files))
        with suppress(Exception):  # they do not name files
            repo.fetch(targets)
        missing_before = missing
        missing = [file for file, md5 in files.items() if not cache.exists(md5)]
    if missing:
        first = missing[0]
        raise UserError(
            f"nothing was pulled: the storage does not answer, or lacks {len(missing)} files or "
            f"has damaged ones ({first}, {files[first]})."
        )


def _tracked_files(repo: Repo, out: Output, path: Path) -> dict[Path, str]:
    """MD5 of the file that a .dvc file tracks, or of each file in the folder that it tracks.

    The files of a folder are in a listing, which is fetched first.

    Raises:
        UserError: The .dvc file is not as `snakemake track` writes it, or the listing is missing,
            damaged or hostile.
    """
    digest = out.hash_info.value or ""
    if not _is_as_track_writes(out, digest, path):
        raise UserError(
            f"{out.stage.relpath} is not as `snakemake track` writes it (path {out}); restore it "
            "from git."
        )
    if not digest.endswith(".dir"):
        return {path: digest}
    try:
        return _files_in_listing(repo, out, path)
    except Exception as error:
        cached_listing = repo.cache.local.oid_to_path(digest)
        Path(cached_listing).unlink(missing_ok=True)
        raise UserError(
            f"{out.stage.relpath}: nothing was pulled, because its listing {digest} is missing, "
            f"damaged or hostile, or a link leads out of {path} ({error}). Run it again, or ask "
            "who shared it."
        ) from None


def _is_as_track_writes(out: Output, digest: str, path: Path) -> bool:
    """Whether an output of a .dvc file is a path in the project with an MD5, and nothing else."""
    stage = out.stage
    has_other_features = stage.cmd or stage.deps or out.files or out.remote
    return bool(
        out.is_in_repo
        and out.hash_name == "md5"
        and not has_other_features
        and MD5.fullmatch(digest.removesuffix(".dir"))
        and _stays_inside(str(path))
    )


def _files_in_listing(repo: Repo, out: Output, folder: Path) -> dict[Path, str]:
    """MD5 of each file in a tracked folder, by its listing, which is fetched and checked.

    Raises:
        ValueError: The listing has another hash than the .dvc file states, or a file in it has no
            MD5, leads out of the project, or lies in what is another file.
        Exception: The listing cannot be fetched; each kind of storage has its own errors.
    """
    digest = out.hash_info.value
    cache = repo.cache.local
    storage = repo.cloud.get_remote_odb()
    cache.add(storage.oid_to_path(digest), storage.fs, digest)
    listing = Tree.load(cache, out.hash_info)
    listing.digest()
    if listing.oid != digest:  # also if an entry has other keys, or a path is listed twice
        raise ValueError(f"its hash is {listing.oid}")
    files = {}
    for names, _, entry in listing:
        file = "/".join((*folder.parts, *names))
        # Names of the folders that contain the file, from the outermost.
        parents = [names[:depth] for depth in range(1, len(names))]
        is_in_other_file = any(map(listing.get, parents))
        if not MD5.fullmatch(entry.value) or not _stays_inside(file) or is_in_other_file:
            raise ValueError(f"{entry} {file!r}")
        files[Path(file)] = entry.value
    return files


def _stays_inside(path: str) -> bool:
    """Whether a path stays in the project and out of files of git and DVC.

    Neither the names in the path nor links may lead elsewhere.
    """
    real_path = os.path.relpath(Path(path).parent.resolve() / "file", Path.cwd())
    names = f"{path}/{real_path}".lower().split("/")
    has_windows_form = re.search(r"\\|/.:", path) is not None  # backslashes and drives
    return FORBIDDEN_NAMES.isdisjoint(names) and path.isprintable() and not has_windows_form
