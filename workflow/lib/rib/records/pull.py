"""Pull shared results safely: check hashes and paths before anything is written.

`dvc pull` alone would write wherever the storage says (docs/sharing.md). A .dvc file in git
states one MD5, either of a file or of a folder's *listing*: a JSON list of the files in the folder
with their MD5s.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import file_hash
from rib.base.progress import log
from rib.records import provenance
from rib.records.dvc_command import DVCError, run_dvc
from rib.records.snakemake_metadata import SnakemakeMetadata
from rib.schema.yaml_files import read_yaml

MD5 = re.compile("[0-9a-f]{32}")
FOLDER = ".dir"  # suffix of a folder's MD5, which is the MD5 of its listing
# Names forbidden in pulled paths: they lead elsewhere, or to files of git and DVC.
FORBIDDEN_NAMES = {"", ".", "..", ".git", ".dvc"}
# Keys of an output in a .dvc file that `rib track` wrote.
KEYS = {"md5", "size", "nfiles", "isexec", "hash", "path"}
TEMPORARY = Path(".dvc/tmp")
LONG_AGO = 1.0  # seconds since 1970; Snakemake reads 0 as "no time"


def pull(wanted: Sequence[str]) -> int:
    """Fetch tracked files, and put them in place if all are sound.

    Args:
        wanted: folders and files in the project, such as `results/fashion`; empty means everything
            that is tracked.

    Returns:
        Number of files in place.

    Raises:
        UserError: a file is missing, damaged or hostile in the storage, or was changed here. In
            this case no file was changed.
    """
    requested = [Path(os.path.relpath(path)) for path in wanted] or [Path()]
    md5_of_tracked = {}  # by tracked file or folder
    targets_of_tracked = {}  # the requested parts of each tracked file or folder
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
    files = _files_of_tracked(cache, md5_of_tracked)
    wanted_files = {}
    words = []  # arguments of DVC's commands
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
    """All .dvc files in the folders where jobs write, sorted."""
    files: list[Path] = []
    for folder in map(Path, provenance.MADE):
        files.extend(folder.rglob("*.dvc"))
    return sorted(files)


def _requested_part(tracked: Path, requested: Iterable[Path]) -> list[Path]:
    """The requested paths in a tracked folder, or [the folder] if all of it is requested.

    For results/emoji: [results/emoji/a, data] gives [results/emoji/a].
    """
    parts = []
    for path in requested:
        if tracked.is_relative_to(path):
            return [tracked]
        if path.is_relative_to(tracked):
            parts.append(path)
    return parts


def md5_in(dvc_file: Path) -> str:
    """MD5 of the file or folder beside a .dvc file; a folder's MD5 ends in `.dir`.

    Raises:
        UserError: `rib track` did not write the file: it leads elsewhere, or has commands,
            dependencies or another storage.
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


def _files_of_tracked(
    cache: Path, md5_of_tracked: Mapping[Path, str]
) -> dict[Path, dict[Path, str]]:
    """Files of each tracked path with MD5: `{results/red: {results/red/a.png: "9e10..."}}`.

    Listings that are not in the cache are fetched.
    """
    listings = {
        tracked: _path_of_object(cache, md5)
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
        listing = listings[tracked]
        md5 = md5_of_tracked[tracked]
        if tracked in missing:
            _fetch_listing(storage, listing, md5, tracked)
        try:
            files[tracked] = files_in_listing(listing, tracked)
        except provenance.INVALID as error:
            listing.unlink(missing_ok=True)  # or a later `dvc checkout` would use it
            raise UserError(
                f"{tracked}.dvc: nothing was pulled, because {_reason_against(tracked, md5)} "
                f"({error})."
            ) from None

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(read_listing, listings))  # the list makes the pool raise the first error
    return files


def _reason_against(tracked: Path, md5: str) -> str:
    """Why a listing cannot be used, and what to do: its entries are wrong, or a link is."""
    if not _stays_inside(f"{tracked}/file"):
        return f"a link leads out of {tracked}; remove the link"
    return (
        f"its listing {md5} is not as `rib track` writes it, or a link leads out of {tracked}; "
        "remove the link, or ask who shared it"
    )


def _default_storage() -> str:
    """DVC's name of the storage, such as `shared`."""
    name = run_dvc("config", "core.remote").strip()
    if not name:
        raise UserError(
            "nothing was pulled: no storage is set up; add it with `dvc remote add --default`."
        )
    return name


def _refuse_absent_storage() -> None:
    """Raise a UserError if the storage is a folder that does not exist."""
    name = _default_storage()
    address = run_dvc("config", f"remote.{name}.url").strip()
    is_folder = "://" not in address
    if is_folder and not Path(address).is_dir():
        raise UserError(
            f"nothing was pulled: the storage {address} does not exist; connect its disk, or "
            f"correct it with `dvc remote modify --local {name} url`."
        )


def _path_of_object(folder: Path, md5: str) -> Path:
    """Where DVC has the bytes with an MD5, in its cache or the storage: `<folder>/9e/107d...`."""
    return folder / md5[:2] / md5[2:]


def _has_md5(path: Path, md5: str) -> bool:
    """Whether a file's bytes have this MD5, which may have the suffix `.dir`."""
    return file_hash(path, "md5").hex() == md5.removesuffix(FOLDER)


def _fetch_listing(storage: str, listing: Path, md5: str, tracked: Path) -> None:
    """Fetch a listing from the storage into the cache, if it has the MD5 that git states."""
    fetched = TEMPORARY / md5
    path_in_storage = _path_of_object(Path("files/md5"), md5)
    try:
        run_dvc("get-url", "--force", f"remote://{storage}/{path_in_storage}", str(fetched))
        if not _has_md5(fetched, md5):  # DVC would use it unchecked
            raise UserError(
                f"{tracked}.dvc: nothing was pulled, because its listing {md5} is damaged in the "
                f"storage (its MD5 there is {file_hash(fetched, 'md5').hex()}); ask who shared it."
            )
        listing.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fetched, listing)
    except DVCError as error:
        _refuse_absent_storage()
        raise UserError(
            f"{tracked}.dvc: nothing was pulled, because the storage lacks its listing {md5} or "
            f"does not answer ({error}); run it again, or ask who shared it."
        ) from None
    finally:
        fetched.unlink(missing_ok=True)


def files_in_listing(listing: Path, folder: Path) -> dict[Path, str]:
    """MD5 of each file in a tracked folder, from its listing: `{Path("red/a.png"): "9e10..."}`.

    Args:
        listing: JSON, such as `[{"md5": "9e10...", "relpath": "a.png"}]`.
        folder: the tracked folder.

    Raises:
        ValueError, or another of provenance.INVALID: a file has no MD5, leads out of the project,
            is listed twice, or is inside another file.
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
    """Whether neither the path nor links in it leave the project or reach files of git and DVC."""
    try:
        real_path = os.path.relpath(Path(path).parent.resolve() / "file", Path.cwd())
    except (OSError, RuntimeError):  # links in a circle
        return False
    names = f"{path}/{real_path}".lower().split("/")
    has_windows_form = re.search(r"\\|/.:", path) is not None  # backslashes and drives
    return FORBIDDEN_NAMES.isdisjoint(names) and path.isprintable() and not has_windows_form


def _fetch(cache: Path, files: Mapping[Path, str], targets: Sequence[str]) -> None:
    """Fetch missing files into the cache; a UserError if some stay missing, which says why.

    `targets` are the arguments of `dvc fetch`, such as results/red.dvc.
    """
    missing_before = None
    answer = ""
    damaged: list[Path] = []
    missing = [file for file, md5 in files.items() if not _path_of_object(cache, md5).is_file()]
    # One failing file may stop the others, so retry as long as some arrive.
    while missing and missing != missing_before:
        log.info("fetching %d of %d files", len(missing), len(files))
        try:
            run_dvc("fetch", *targets)
        except DVCError as error:
            answer = f"; DVC: {error}"
        damaged = _without_damaged(cache, {file: files[file] for file in missing})
        missing_before = missing
        missing = [file for file in missing if not _path_of_object(cache, files[file]).is_file()]
    if missing:
        _refuse_absent_storage()
        problem = f"the storage lacks {len(missing)} files or does not answer"
        first = missing[0]
        if damaged:
            problem = f"{len(damaged)} files are damaged in the storage"
            first = damaged[0]
        raise UserError(
            f"nothing was pulled: {problem} ({first}, {files[first]}{answer}); run it again, or "
            "ask who shared it."
        )


def _without_damaged(cache: Path, files: Mapping[Path, str]) -> list[Path]:
    """Remove files from the cache whose bytes have another MD5; the removed files."""
    damaged = []
    for file, md5 in files.items():
        path = _path_of_object(cache, md5)
        if path.is_file() and not _has_md5(path, md5):
            path.unlink()
            damaged.append(file)
    return damaged


def restore_metadata() -> int:
    """Give Snakemake the metadata of pulled outputs, so that it does not run their jobs again.

    The jobs are found in provenance.jsonl. Each output gets the time at which its job ended.

    Returns:
        Number of jobs.

    Raises:
        UserError: a file does not match its record; no metadata was written.
    """
    shared = provenance.load()
    metadata = SnakemakeMetadata()
    accepted_of_output = {}
    for lines in shared.values():
        for line in lines:
            if "accepted" in line:
                accepted_of_output.update(dict.fromkeys(line["outputs"], line["accepted"]))

    def is_known(path: str) -> bool:
        """Whether Snakemake has the output's metadata, with the accepted settings if any."""
        stored = metadata.read(path)
        if stored is None or not metadata.is_of_this_version(path, stored):
            return False
        accepted = accepted_of_output.get(path)
        if accepted is None:
            return True
        # This user may have accepted other settings since.
        was_touched_later = stored.ended > provenance.accepted_at(accepted)
        return stored.settings == repr(accepted["cfg"]) or was_touched_later

    jobs = provenance.match(shared, is_known, metadata.is_unfinished)
    made_from_others = provenance.made_from_others(shared)
    for path, record in jobs.items():
        added = provenance.added_by_track(record, shared[path])
        accepted = added.get("accepted")
        ended = provenance.ended_at(record)
        if path in made_from_others:
            # Accepted outputs must be newer than their inputs. All others become older than
            # everything: Snakemake then compares checksums of their inputs.
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
