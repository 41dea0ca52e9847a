"""Pulling shared results; `dvc pull` would write wherever the storage says (docs/dvc-report.md)."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dvc.exceptions import DownloadError
from dvc.output import Output
from dvc.repo import Repo

from rib.base.errors import UserError
from rib.base.files import file_hash
from rib.base.progress import log
from rib.records.track import dvc_repository, remove_leftovers

MD5 = re.compile("[0-9a-f]{32}")


def pull(wanted: str | Sequence[str]) -> None:
    """Fetch tracked files, and check them out if all are sound and none overwrites a file that was changed here.

    Args:
        wanted: folders and files in the project; everything that is tracked if empty.

    Raises:
        UserError: The storage does not answer, lacks a file, or has a damaged or hostile one, or a file was changed
            here; the files of the project are as before.
    """
    places = [Path(place) for place in ([wanted] if isinstance(wanted, str) else wanted)] or [Path()]
    files, parts = {}, set()
    with dvc_repository(remote_config={"verify": True}) as repo:
        repo.drop_data_index()  # it may contain listings that were not checked
        for out in repo.index.outs:
            path = _checked_path(out)
            # Of two paths, one in the other, the longer is the greater.
            here = {max(path, place) for place in places if path.is_relative_to(place) or place.is_relative_to(path)}
            found = _files(repo, out, path) if here else {}
            files |= {file: md5 for file, md5 in found.items() if any(map(file.is_relative_to, here))}
            parts |= here
        if not files:
            raise UserError(f"no .dvc file tracks anything in {', '.join(map(str, places))}; nothing was pulled.")
        log.info("fetching those of %d files that are not in DVC's cache", len(files))
        targets = sorted(map(str, parts))
        with suppress(DownloadError):  # which does not name the files
            repo.fetch(targets)
        present = set(repo.cache.local.oids_exist([*files.values()]))
        if lacking := [f"{file} ({md5})" for file, md5 in files.items() if md5 not in present]:
            raise UserError(
                f"{lacking[0]}, of {len(lacking)} files: missing or damaged in the storage, or it does not answer; nothing "
                "was pulled. Run it again, or ask who shared the file (docs/sharing.md)."
            )
        remove_leftovers(parts)
        done = repo.checkout(targets)
        log.info("%d files are in place; new or changed: %s", len(files), " ".join(done["added"] + done["modified"]))


def _checked_path(out: Output) -> Path:
    path, stage = os.path.relpath(out.fs_path), out.stage
    plain = out.is_in_repo and out.hash_name == "md5" and not (stage.cmd or stage.deps or out.files or out.remote)
    if not (plain and MD5.fullmatch((out.hash_info.value or "").removesuffix(".dir")) and _stays_inside(path)):
        raise UserError(f"{stage.relpath} is not as `snakemake track` writes it (path {out}); restore it from git.")
    return Path(path)


def _files(repo: Repo, out: Output, path: Path) -> dict[Path, str]:
    """MD5 of a tracked file, or of the files in a tracked folder by its listing, which is fetched and checked."""
    digest, cache = out.hash_info.value, repo.cache.local
    if not digest.endswith(".dir"):
        return {path: digest}
    listing = Path(cache.oid_to_path(digest))
    try:
        if not listing.is_file() or file_hash(listing, "md5").hex() != digest[:32]:
            listing.unlink(missing_ok=True)
            storage = repo.cloud.get_remote_odb()
            cache.add(storage.oid_to_path(digest), storage.fs, digest, verify=True)  # deletes it if the hash differs
        return {path / name: md5 for name, md5 in _parsed(listing.read_text(encoding="utf-8"), path).items()}
    except Exception as error:
        listing.unlink(missing_ok=True)
        raise UserError(
            f"{out.stage.relpath}: nothing was pulled, because its listing {digest} is missing or damaged in the storage, "
            f"or would write or link out of {path}; ask who shared it. ({error})"
        ) from None


def _parsed(listing: str, folder: Path) -> dict[str, str]:
    """MD5 by relative path; any exception if an entry could make DVC read or write elsewhere."""
    entries = json.loads(listing)
    files = {entry["relpath"]: entry["md5"] for entry in entries}
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    for entry in entries:
        sound = entry.keys() == {"relpath", "md5"} and MD5.fullmatch(entry["md5"]) and entry["relpath"] not in folders
        if not sound or not _stays_inside(f"{folder}/{entry['relpath']}"):
            raise ValueError(entry)
    if len(files) < len(entries):
        raise ValueError("a path is listed twice")
    return files


def _stays_inside(path: str) -> bool:
    """Whether neither the names in a path nor links lead out of the project or to files of git and DVC."""
    real = os.path.relpath(Path(path).parent.resolve() / "file", Path.cwd())
    names = f"{path}/{real}".lower().split("/")
    return {"", ".", "..", ".git", ".dvc"}.isdisjoint(names) and path.isprintable() and not re.search(r"\\|/.:", path)
