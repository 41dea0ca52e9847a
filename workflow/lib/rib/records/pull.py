"""Pulling shared results; `dvc pull` would write wherever the storage says (docs/dvc-report.md)."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import file_hash
from rib.base.progress import log
from rib.config.yaml_files import read_yaml
from rib.records import provenance
from rib.records.dvc_command import run_dvc
from rib.records.snakemake_metadata import SnakemakeMetadata

MD5 = re.compile("[0-9a-f]{32}")
FOLDER = ".dir"  # ends the MD5 of a folder, which is that of the listing of its files
# Names that no pulled path may have in it: they lead elsewhere, or to files of git and DVC.
FORBIDDEN_NAMES = {"", ".", "..", ".git", ".dvc"}
# Keys of what a .dvc file tracks, as `rib track` writes them.
KEYS = {"md5", "size", "nfiles", "isexec", "hash", "path"}
TEMPORARY = Path(".dvc/tmp")
LONG_AGO = 1.0  # seconds since 1970; Snakemake treats 0 as no time


def pull(wanted: Sequence[str]) -> int:
    """Fetch tracked files, and put them in place if all are sound and none was changed here.

    Args:
        wanted: folders and files in the project, such as `results/fashion`; everything that is
            tracked if empty.

    Returns:
        How many files are in place.

    Raises:
        UserError: A file is missing, damaged or hostile in the storage, or changed here; no file
            was changed.
    """
    requested = [Path(os.path.relpath(path)) for path in wanted] or [Path()]
    md5_of_tracked = {}  # file or folder: MD5
    targets_of_tracked = {}  # file or folder: what of it is requested
    for dvc_file in _dvc_files():
        tracked = dvc_file.with_suffix("")
        targets = _requested_part(tracked, requested)
        if targets:
            md5_of_tracked[tracked] = md5_in(dvc_file)
            targets_of_tracked[tracked] = targets
    nothing_tracked = UserError(
        f"no .dvc file tracks anything in {', '.join(map(str, requested))}; nothing was pulled."
    )
    if not md5_of_tracked:
        raise nothing_tracked
    cache = Path(run_dvc("cache", "dir").strip()) / "files/md5"
    files = _tracked_files(cache, md5_of_tracked)
    wanted_files = {}
    words = []  # by which DVC is told of them
    for tracked, targets in targets_of_tracked.items():
        for file, md5 in files[tracked].items():
            if any(map(file.is_relative_to, targets)):
                wanted_files[file] = md5
        words += [f"{path}.dvc" if path == tracked else str(path) for path in targets]
    if not wanted_files:
        raise nothing_tracked
    _fetch(cache, wanted_files, words)
    run_dvc("checkout", *words)
    return len(wanted_files)


def _dvc_files() -> list[Path]:
    """All .dvc files below the folders in which jobs write."""
    files: list[Path] = []
    for folder in map(Path, provenance.MADE):
        files.extend(folder.rglob("*.dvc"))
    return sorted(files)


def _requested_part(tracked: Path, requested: Iterable[Path]) -> list[Path]:
    """What was requested of a tracked folder or file: all of it, folders in it, or nothing.

    Of the tracked folder `results/emoji`, the request `results` is all, `results/emoji`; the
    request `results/emoji/models` is this folder.
    """
    parts = []
    for path in requested:
        if tracked.is_relative_to(path):
            return [tracked]
        if path.is_relative_to(tracked):
            parts.append(path)
    return parts


def md5_in(dvc_file: Path) -> str:
    """The MD5 that a .dvc file states of the file or folder beside it.

    Raises:
        UserError: The file is not as `rib track` writes it: it leads elsewhere, or has commands,
            dependencies or a storage of its own.
    """
    try:
        content = read_yaml(dvc_file)
        (out,) = content["outs"]
        md5: str = out["md5"]
        is_as_written = (
            content.keys() == {"outs"}
            and out.keys() <= KEYS
            and out["hash"] == "md5"
            and out["path"] == dvc_file.stem
            and MD5.fullmatch(md5.removesuffix(FOLDER))
            and _stays_inside(str(dvc_file.with_suffix("")))
        )
    except provenance.INVALID:
        is_as_written = False
    if not is_as_written:
        raise UserError(f"{dvc_file} is not as `rib track` writes it; restore it from git.")
    return md5


def _tracked_files(cache: Path, md5_of_tracked: Mapping[Path, str]) -> dict[Path, dict[Path, str]]:
    """MD5 of each tracked file, by the file or folder that a .dvc file tracks.

    The files of a folder are in a listing. Listings that the cache lacks are fetched, several at a
    time.

    Raises:
        UserError: A listing is missing, damaged or hostile.
    """
    listings = {
        tracked: _object(cache, md5)
        for tracked, md5 in md5_of_tracked.items()
        if md5.endswith(FOLDER)
    }
    missing = [
        tracked
        for tracked, listing in listings.items()
        if not (listing.is_file() and _has_md5(listing, md5_of_tracked[tracked]))
    ]
    storage = _default_storage() if missing else ""
    files = {tracked: {tracked: md5} for tracked, md5 in md5_of_tracked.items()}

    def read_listing(tracked: Path) -> None:
        """Add the files of a tracked folder."""
        listing = listings[tracked]
        md5 = md5_of_tracked[tracked]
        try:
            if tracked in missing:
                _fetch_listing(storage, listing, md5)
            files[tracked] = files_in_listing(listing, tracked)
        except (*provenance.INVALID, UserError) as error:
            listing.unlink(missing_ok=True)  # not to be left for a later `dvc checkout`
            raise UserError(
                f"{tracked}.dvc: nothing was pulled, because its listing {md5} is missing, damaged "
                f"or hostile, or a link leads out of {tracked} ({error}). Run it again, or ask who "
                "shared it."
            ) from None

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(read_listing, listings))  # raises the first error
    return files


def _default_storage() -> str:
    """DVC's address of the storage, `remote://<name>`."""
    name = run_dvc("config", "core.remote").strip()
    if not name:
        raise UserError(
            "nothing was pulled: no storage is set up; add it with `dvc remote add --default`."
        )
    return f"remote://{name}"


def _object(folder: Path, md5: str) -> Path:
    """Where DVC keeps bytes of an MD5, in the cache or in the storage."""
    return folder / md5[:2] / md5[2:]


def _has_md5(path: Path, md5: str) -> bool:
    return file_hash(path, "md5").hex() == md5.removesuffix(FOLDER)


def _fetch_listing(storage: str, listing: Path, md5: str) -> None:
    """Fetch the listing of a folder into the cache, if its bytes have the MD5 that git states.

    DVC itself would read it from the storage without this comparison.

    Args:
        storage: DVC's address of the storage, `remote://<name>`.
        listing: where the cache keeps it.
        md5: of its bytes, and .dir.
    """
    fetched = TEMPORARY / md5
    try:
        run_dvc("get-url", "--force", f"{storage}/{_object(Path('files/md5'), md5)}", str(fetched))
        if not _has_md5(fetched, md5):
            raise ValueError(f"its MD5 is {file_hash(fetched, 'md5').hex()}")
        listing.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fetched, listing)
    finally:
        fetched.unlink(missing_ok=True)


def files_in_listing(listing: Path, folder: Path) -> dict[Path, str]:
    """MD5 of each file in a tracked folder, by its listing.

    Raises:
        One of provenance.INVALID: A file has no MD5, leads out of the project, is listed twice, or
            lies in what is another file.
    """
    entries = json.loads(listing.read_text(encoding="utf-8"))
    files: dict[Path, str] = {}
    for entry in entries:
        file = f"{folder}/{entry['relpath']}"
        is_as_written = (
            entry.keys() == {"md5", "relpath"}
            and isinstance(entry["relpath"], str)
            and MD5.fullmatch(entry["md5"])
            and _stays_inside(file)
            and Path(file) not in files
        )
        if not is_as_written:
            raise ValueError(f"{entry!r}")
        files[Path(file)] = entry["md5"]
    for path in files:
        if not files.keys().isdisjoint(path.parents):
            raise ValueError(f"{path} is in another file")
    return files


def _stays_inside(path: str) -> bool:
    """Whether a path stays in the project and out of files of git and DVC.

    Neither the names in the path nor links may lead elsewhere.
    """
    try:
        real_path = os.path.relpath(Path(path).parent.resolve() / "file", Path.cwd())
    except (OSError, RuntimeError):  # links that lead to one another
        return False
    names = f"{path}/{real_path}".lower().split("/")
    has_windows_form = re.search(r"\\|/.:", path) is not None  # backslashes and drives
    return FORBIDDEN_NAMES.isdisjoint(names) and path.isprintable() and not has_windows_form


def _fetch(cache: Path, files: Mapping[Path, str], targets: Sequence[str]) -> None:
    """Fetch files from the storage into DVC's cache, and remove those that have another MD5.

    Args:
        files: MD5 by path.
        targets: how DVC is told of them.

    Raises:
        UserError: The storage does not answer, or lacks one of the files.
    """
    missing_before = None
    reason = "no answer"
    missing = [file for file, md5 in files.items() if not _object(cache, md5).is_file()]
    # An object that fails may stop the others, so it is tried again as long as some arrive.
    while missing and missing != missing_before:
        log.info("fetching %d of %d files", len(missing), len(files))
        try:
            run_dvc("fetch", *targets)
        except UserError as error:
            reason = str(error)
        missing_before = missing
        missing = [file for file in missing if not _has_arrived(cache, files[file])]
    if missing:
        first = missing[0]
        raise UserError(
            f"nothing was pulled: the storage does not answer, or lacks {len(missing)} files or "
            f"has damaged ones ({first}, {files[first]}; DVC: {reason})."
        )


def _has_arrived(cache: Path, md5: str) -> bool:
    """Whether bytes of an MD5 are in the cache; others of this name are removed."""
    path = _object(cache, md5)
    if not path.is_file():
        return False
    if _has_md5(path, md5):
        return True
    path.unlink()
    return False


def restore_metadata() -> int:
    """Give Snakemake the metadata of all outputs that are here and that it doesn't know.

    They are of jobs in provenance.jsonl. Their files get the time at which the job ended.

    Returns:
        The number of jobs.

    Raises:
        UserError: A file does not match its record; nothing is marked as done.
    """
    shared = provenance.load()
    metadata = SnakemakeMetadata()
    accepted_of_output = {}
    for lines in shared.values():
        for line in lines:
            if "accepted" in line:
                accepted_of_output.update(dict.fromkeys(line["outputs"], line["accepted"]))

    def is_known(path: str) -> bool:
        """Whether Snakemake knows this version of a file, and what was accepted of it."""
        stored = metadata.read(path)
        if stored is None or not metadata.is_of_this_version(path, stored):
            return False
        accepted = accepted_of_output.get(path)
        if accepted is None:
            return True
        was_touched_later = stored.ended > provenance.accepted_at(accepted)
        return stored.settings == repr(accepted["cfg"]) or was_touched_later

    jobs = provenance.match(shared, is_known, metadata.is_unfinished)
    made_from_others = provenance.made_from_others(shared)
    for path, record in jobs.items():
        added = provenance.added_by_track(record, shared[path])
        accepted = added.get("accepted")
        ended = provenance.ended_at(record)
        if path in made_from_others:
            # Accepted ones are newer than the other inputs; of the rest, which are older than
            # everything, Snakemake compares the inputs' checksums.
            ended = LONG_AGO if accepted is None else provenance.accepted_at(accepted)
        for output in [*record["outputs"], path]:
            metadata.write(
                output,
                rule=record["rule"],
                settings=record["cfg"] if accepted is None else accepted["cfg"],
                inputs=added.get("listed_inputs", sorted(record["inputs"])),
                checksums=record["inputs"],
                log_file=record["log"],
                started=ended - record["seconds"],
                ended=ended,
            )
    return len(jobs)
