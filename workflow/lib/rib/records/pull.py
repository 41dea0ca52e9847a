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


def pull(wanted: str | Sequence[str]) -> None:
    """Fetch tracked files, and check them out if all are sound and none overwrites a file that was changed here.

    `wanted` are folders and files in the project; everything that is tracked if empty. Raises a UserError, without
    changing a file, if one is missing, damaged or hostile in the storage, or changed here.
    """
    places = [
        Path(os.path.relpath(place)) for place in ([wanted] if isinstance(wanted, str) else wanted)
    ] or [Path()]
    files, parts = {}, set()
    with dvc_repository(remote_config={"verify": True}) as repo:
        repo.drop_data_index()  # it may contain listings that were not checked
        for out in repo.index.outs:
            path = Path(os.path.relpath(out.fs_path))
            # Of two paths, one in the other, the longer is the greater.
            here = {
                max(path, place)
                for place in places
                if path.is_relative_to(place) or place.is_relative_to(path)
            }
            found = _files(repo, out, path) if here else {}
            files |= {
                file: md5 for file, md5 in found.items() if any(map(file.is_relative_to, here))
            }
            parts.update(map(str, here))
        if not files:
            raise UserError(
                f"no .dvc file tracks anything in {', '.join(map(str, places))}; nothing was pulled."
            )
        cache, before = repo.cache.local, None  # an object that fails may stop the others
        while (
            lacking := [file for file, md5 in files.items() if not cache.exists(md5)]
        ) and lacking != before:
            log.info("fetching %d of %d files", len(lacking), len(files))
            before = lacking
            with suppress(Exception):  # they do not name files
                repo.fetch(sorted(parts))
        if lacking:
            raise UserError(
                f"nothing was pulled: the storage does not answer, or lacks {len(lacking)} files or has damaged ones "
                f"({lacking[0]}, {files[lacking[0]]})."
            )
        remove_leftovers(parts)
        done = repo.checkout(sorted(parts))
        log.info(
            "%d files are in place; new or changed: %s",
            len(files),
            " ".join(done["added"] + done["modified"]),
        )


def _files(repo: Repo, out: Output, path: Path) -> dict[Path, str]:
    """MD5 of the file that a .dvc file tracks, or of the files in its folder by the listing, which is fetched first."""
    digest, stage, cache = out.hash_info.value or "", out.stage, repo.cache.local
    plain = (
        out.is_in_repo
        and out.hash_name == "md5"
        and not (stage.cmd or stage.deps or out.files or out.remote)
    )
    if not (plain and MD5.fullmatch(digest.removesuffix(".dir")) and _stays_inside(str(path))):
        raise UserError(
            f"{stage.relpath} is not as `snakemake track` writes it (path {out}); restore it from git."
        )
    if not digest.endswith(".dir"):
        return {path: digest}
    try:
        storage = repo.cloud.get_remote_odb()
        cache.add(storage.oid_to_path(digest), storage.fs, digest)
        listing, files = Tree.load(cache, out.hash_info), {}
        listing.digest()
        if listing.oid != digest:  # also if an entry has other keys, or a path is listed twice
            raise ValueError(f"its hash is {listing.oid}")
        for parts, _, entry in listing:
            file = "/".join((*path.parts, *parts))
            folders = (parts[:depth] for depth in range(1, len(parts)))
            if (
                not MD5.fullmatch(entry.value)
                or not _stays_inside(file)
                or any(map(listing.get, folders))
            ):
                raise ValueError(f"{entry} {file!r}")
            files[Path(file)] = entry.value
        return files
    except Exception as error:
        Path(cache.oid_to_path(digest)).unlink(missing_ok=True)
        raise UserError(
            f"{stage.relpath}: nothing was pulled, because its listing {digest} is missing, damaged or hostile, or a link "
            f"leads out of {path} ({error}). Run it again, or ask who shared it."
        ) from None


def _stays_inside(path: str) -> bool:
    """Whether neither the names in a path nor links lead out of the project or to files of git and DVC."""
    real = os.path.relpath(Path(path).parent.resolve() / "file", Path.cwd())
    names = f"{path}/{real}".lower().split("/")
    return (
        {"", ".", "..", ".git", ".dvc"}.isdisjoint(names)
        and path.isprintable()
        and not re.search(r"\\|/.:", path)
    )
