"""Datasets by name: hf-datasets:OWNER/NAME[@REVISION], a repository of the Hugging Face hub.

The first run that reads a repository asks the hub for its commit and its files of images, with
sizes and digests, and keeps the answer in a lock file that git tracks. Later runs need the network
only for missing files, and everybody gets the same bytes. No torch.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.hub import UNREACHED, hub_problem
from rib.base.locks import locked
from rib.base.progress import print_lines
from rib.base.settings import Settings, from_params, to_params
from rib.base.text import printable
from rib.config.entries import Dataset
from rib.config.messages import show
from rib.config.source_entries import CONVERSION, HF_DATASETS

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo

LOCK = Path("datasets.lock.json")
FORMAT_VERSION: Final = 2  # of the lock file
LOCK_OF_LOCK = Path("work/datasets.lock")  # locked by the process that resolves names
ENDINGS = (".parquet", ".tar", ".tar.gz", ".tgz", ".zip")  # of files of images
PARTIAL = "partial-"  # prefix of splits whose beginning alone the hub converts
SECONDS_TO_ANSWER = 60
UNKNOWN = "not stated"
LONGEST_LICENCE = 200  # characters
LISTED = 10  # splits, or kinds of paths, in a message
# End of the message that the hub can't be reached.
HOW_TO_RESOLVE = (
    "; where it can be, `make dataset-records` (CATALOG=FOLDER for a folder of yours) lists its "
    f"files in the {LOCK} of the catalogue, with which a dry-run needs no network"
)

# A path without `..`, hidden files and characters other than printable ASCII.
PathOnHub = Annotated[
    str,
    StringConstraints(
        max_length=150, pattern=r"^([A-Za-z0-9_][ -.0-\[\]-~]*/)*[A-Za-z0-9_][ -.0-\[\]-~]*$"
    ),
]
Commit = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
Digest = Annotated[str, StringConstraints(pattern="^(sha256:[0-9a-f]{64}|git:[0-9a-f]{40})$")]


class HubFile(Settings):
    """A file of a repository."""

    path: PathOnHub
    size: Annotated[int, Field(ge=0)]  # bytes
    digest: Digest  # SHA-256, or git's blob id for a small file


class HubRepository(Settings):
    """A repository at one commit, as the lock file records it."""

    commit: Commit
    licence: str  # as its uploader states it
    gated: bool  # whether its terms must be accepted before a download
    files: tuple[HubFile, ...]  # all with one of ENDINGS, sorted by path


class DatasetLock(Settings):
    """The lock file."""

    format_version: Literal[2]
    repositories: dict[str, HubRepository]  # by name, such as hf-datasets:OWNER/NAME


class HubRequest(Settings):
    """A repository that an entry names, for a look-up in a lock file or on the hub."""

    where: str  # file and entry, for messages
    repo: str  # OWNER/NAME
    revision: str | None

    @property
    def name(self) -> str:
        """Name of the repository in the lock file."""
        return name_of(self.repo, self.revision)


def name_of(repo: str, revision: str | None) -> str:
    """Name of a repository in entries and lock files, such as hf-datasets:OWNER/NAME@REVISION."""
    if revision is None:
        return f"{HF_DATASETS}:{repo}"
    return f"{HF_DATASETS}:{repo}@{revision}"


def request_of(source: Mapping[str, Any], where: str) -> HubRequest:
    """The repository of a source, at the revision to read.

    A source without `files` reads the hub's Parquet conversion.

    Args:
        source: of kind hf-datasets, such as {"kind": "hf-datasets", "repo": "OWNER/NAME"}.
        where: file and entry, for messages.
    """
    revision = source.get("revision")
    if revision is None and "files" not in source:
        revision = CONVERSION
    return HubRequest(where=where, repo=source["repo"], revision=revision)


# Files of a source


def sources_of(
    source: Mapping[str, Any], repository: HubRepository, where: str
) -> list[dict[str, Any]]:
    """Sources for the files that a source chooses, in the order of their paths.

    Args:
        source: of kind hf-datasets, such as {"kind": "hf-datasets", "repo": "OWNER/NAME", "files":
            ["data/train-*.parquet"]} or {..., "split": "train"}.
        where: file, entry and repository, for messages.

    Raises:
        UserError: The repository has no such files, or it has several splits and the source names
            none.
    """
    if "files" in source:
        files = _matching_files(source["files"], repository, where)
    else:
        files = _files_of_split(source.get("config"), source.get("split"), repository, where)
    return [
        {
            "kind": "hub",
            "repo": source["repo"],
            "repo_type": "dataset",
            "revision": repository.commit,
            "path": file.path,
            "file": file_name(file.path),
            "size": file.size,
            "digest": file.digest,
        }
        for file in files
    ]


def _matching_files(
    patterns: Sequence[str], repository: HubRepository, where: str
) -> list[HubFile]:
    """Files that a pattern matches; a UserError for a pattern such as `data/*.zip` without any."""
    for pattern in patterns:
        if not any(fnmatchcase(file.path, pattern) for file in repository.files):
            raise UserError(
                f"{where}: no file matches {show(pattern)}; there are "
                f"{_listed_paths(repository)}: correct files."
            )
    return [
        file
        for file in repository.files
        if any(fnmatchcase(file.path, pattern) for pattern in patterns)
    ]


def _files_of_split(
    config: str | None, split: str | None, repository: HubRepository, where: str
) -> list[HubFile]:
    """Files `<config>/<split>/*.parquet` of a conversion, the hub's Parquet copy of a repository.

    None for config or split chooses the only one there is; a UserError if there are several.
    """
    files_of_splits: dict[tuple[str, str], list[HubFile]] = {}
    for file in repository.files:
        folders = file.path.split("/")[:-1]
        if len(folders) == 2 and file.path.endswith(".parquet"):
            files_of_splits.setdefault((folders[0], folders[1]), []).append(file)
    if not files_of_splits:
        raise UserError(
            f"{where}: it has no files such as default/train/0.parquet, which the hub's "
            f"conversions have, but {_listed_paths(repository)}: name those that are read as "
            "files, or remove the revision, so that the conversion is read."
        )
    # Where the hub converted only a split's beginning, the user must name the split.
    chosen = [
        names
        for names in files_of_splits
        if config in (None, names[0])
        and split in (None, names[1])
        and (split is not None or not names[1].startswith(PARTIAL))
    ]
    if len(chosen) == 1:
        return files_of_splits[chosen[0]]
    splits = _listed("/".join(names) for names in chosen or files_of_splits)
    if chosen:
        raise UserError(
            f"{where}: it has the splits {splits}; say which is read, as config and split."
        )
    note = f" ({PARTIAL}: only its beginning)" if PARTIAL in splits else ""
    raise UserError(
        f"{where}: it has no split {config or '*'}/{split or '*'}; there are {splits}{note}: "
        "correct config and split."
    )


def _listed_paths(repository: HubRepository) -> str:
    """Paths for a message, with `*` for digits, such as `data/train-*-of-*.parquet`."""
    return _listed(re.sub(r"\d+", "*", file.path) for file in repository.files)


def _listed(texts: Iterable[str]) -> str:
    """`a, b`, or the first ten with `and 3 more`."""
    unique_texts = list(dict.fromkeys(texts))
    more = f" and {len(unique_texts) - LISTED} more" if len(unique_texts) > LISTED else ""
    return f"{', '.join(unique_texts[:LISTED]) or 'none'}{more}"


def file_name(path: str) -> str:
    """Local name of a repository's file: `data-train-0.tar` for `data/train-0.tar`."""
    return re.sub("[^A-Za-z0-9_.-]", "_", path.replace("/", "-")).lstrip("_.-")


# The lock file


def read_dataset_lock(path: Path) -> dict[str, HubRepository]:
    """Repositories of a lock file by name; empty if there is no file.

    Raises:
        UserError: The file is damaged, or has another format version.
    """
    if not path.is_file():
        return {}
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise UserError(
            f"{path} has format version {show(version)}, and this checkout reads version "
            f"{FORMAT_VERSION}; use the code that wrote it, or delete the file to resolve all "
            "names again."
        )
    try:
        lock = from_params(DatasetLock, content)
    except UserError as error:
        raise UserError(
            f"{path} is damaged ({str(error).rstrip('.')}); restore it with git, or delete it to "
            "resolve all names again."
        ) from error
    return lock.repositories


def write_dataset_lock(path: Path, repositories: Mapping[str, HubRepository]) -> None:
    """Write a lock file; equal contents give equal bytes."""
    lock = DatasetLock(format_version=FORMAT_VERSION, repositories=dict(repositories))
    write_json(path, to_params(lock))


# Asking the hub


def resolve_requests(requests: Sequence[HubRequest]) -> dict[str, HubRepository]:
    """Ask the hub for repositories, and add them to the project's lock file.

    Returns:
        The repositories by name, such as "hf-datasets:OWNER/NAME".

    Raises:
        UserError: A repository or revision doesn't exist or can't be used, or the hub can't be
            asked; the lock file is then unchanged.
    """
    names = list(dict.fromkeys(request.name for request in requests))
    names_in_message = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    print_lines(f"Resolving {names_in_message} into {LOCK} (once)", file=sys.stderr)
    LOCK_OF_LOCK.parent.mkdir(exist_ok=True)
    with locked(LOCK_OF_LOCK):
        resolved = ask_hub(requests)
        write_dataset_lock(LOCK, {**read_dataset_lock(LOCK), **resolved})
    return resolved


def ask_hub(requests: Iterable[HubRequest]) -> dict[str, HubRepository]:
    """Repositories by name, at the stated revision or else the newest commit.

    Raises:
        UserError: A repository or revision doesn't exist or can't be used, or the hub can't be
            asked.
    """
    repositories: dict[str, HubRepository] = {}
    for request in requests:
        if request.name not in repositories:
            repositories[request.name] = _ask_for_repository(request)
    return repositories


def _ask_for_repository(request: HubRequest) -> HubRepository:
    """The hub's answer: commit, licence, whether terms must be accepted, files of images."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    where = f"{request.where}: {request.name}"
    try:
        newest = HfApi().dataset_info(request.repo, timeout=SECONDS_TO_ANSWER)
        info = HfApi().dataset_info(
            request.repo,
            revision=request.revision or newest.sha,
            files_metadata=True,
            timeout=SECONDS_TO_ANSWER,
        )
    except Exception as error:  # several libraries raise their own errors
        if request.revision == CONVERSION and isinstance(error, RevisionNotFoundError):
            raise UserError(
                f"{where}: the hub has no Parquet conversion of this repository; say which of its "
                "own files are read, such as files: data/train-*.parquet or files: train/*.tar, or "
                "choose another repository."
            ) from error
        problem = hub_problem(error)
        if problem.startswith(UNREACHED):
            problem += HOW_TO_RESOLVE
        raise UserError(f"{where}: {problem}.") from error
    licence = _licence(info) or _licence(newest) or UNKNOWN  # a conversion has no README
    return HubRepository(
        commit=str(info.sha),
        licence=printable(licence)[:LONGEST_LICENCE],
        gated=bool(newest.gated),
        files=_files_of_images(info, where),
    )


def _licence(info: "DatasetInfo") -> str | None:
    """Licence in the head of a repository's README, such as `mit`; None if it states none."""
    card = info.card_data
    licence = (card.get("license_name") or card.get("license")) if card else None
    return str(licence) if licence else None


def _files_of_images(info: "DatasetInfo", where: str) -> tuple[HubFile, ...]:
    """Files that hold images, such as data/train-0.parquet, with the digests that pin them."""
    files = []
    for file in sorted(info.siblings or [], key=lambda sibling: sibling.rfilename):
        if not file.rfilename.endswith(ENDINGS):
            continue
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        facts = {"path": file.rfilename, "size": file.size, "digest": digest}
        try:
            files.append(from_params(HubFile, facts))
        except UserError as error:
            raise UserError(
                f"{where}: its file {show(file.rfilename)} can't be used "
                f"({str(error).rstrip('.')}); choose another repository or revision."
            ) from error
    if not files:
        raise UserError(
            f"{where}: it has no files in {', '.join(ENDINGS)}, which are the ones that are read; "
            "choose another repository or revision."
        )
    return tuple(files)


def dataset_terms(datasets: Iterable[Dataset]) -> list[str]:
    """Sentences on datasets in repositories whose terms must be accepted before a download."""
    sentences = []
    for dataset in datasets:
        for repo in dataset.gated_repositories:
            sentences.append(
                f"dataset '{dataset.name}' is gated: accept the terms of {repo} on its page of the "
                "hub and log in (HF_TOKEN)"
            )
    return sentences
