"""Datasets by name: hf-datasets:OWNER/NAME[@REVISION], a repository of the Hugging Face hub.

A name is resolved once, by asking the hub. The repository's commit, with path, size and digest of
each file that entries of datasets choose, is kept in a lock file that git tracks. Later runs need
the network only for files that are not here, and everybody gets the same bytes. No torch.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.locks import locked
from rib.base.plugins import LIBRARY
from rib.base.progress import print_lines
from rib.base.settings import Settings, from_params, to_params
from rib.config.entries import Dataset
from rib.config.messages import show
from rib.config.source_entries import HF_DATASETS

LOCK = Path("datasets.lock.json")
FORMAT_VERSION: Final = 1  # of the lock file
ANSWERS = Path("work/dataset_records")  # folder of the lock on the lock file
LONGEST_FILE_NAME = 150  # characters

# A path without `..`, hidden files and characters that are not printable ASCII.
PathOnHub = Annotated[
    str,
    StringConstraints(
        max_length=500, pattern=r"^([A-Za-z0-9_][ -.0-\[\]-~]*/)*[A-Za-z0-9_][ -.0-\[\]-~]*$"
    ),
]
Commit = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
Digest = Annotated[str, StringConstraints(pattern="^(sha256:[0-9a-f]{64}|git:[0-9a-f]{40})$")]


class HubFile(Settings):
    """A file of a repository."""

    path: PathOnHub
    size: Annotated[int, Field(ge=0)]  # bytes
    digest: Digest  # SHA-256 or, of a small file, git's id of its content


class HubSplit(Settings):
    """The files of a split of a repository, which an entry chooses by config and split."""

    config: str | None  # as the entry states it; None if it leaves that to the repository
    split: str | None  # likewise
    files: tuple[HubFile, ...]


class HubRepository(Settings):
    """What the lock file has of a repository."""

    commit: Commit
    licence: str  # as its uploader states it
    gated: bool  # whether its terms must be accepted before a download
    splits: tuple[HubSplit, ...]

    def files_of(self, config: str | None, split: str | None) -> tuple[HubFile, ...] | None:
        """Files of a config and split, as an entry states them; None if the lock has none."""
        for hub_split in self.splits:
            if (hub_split.config, hub_split.split) == (config, split):
                return hub_split.files
        return None


class DatasetLock(Settings):
    """The lock file."""

    format_version: Literal[1]
    repositories: dict[str, HubRepository]  # by name, such as hf-datasets:OWNER/NAME


class HubRequest(Settings):
    """A split that the lock file lacks."""

    where: str  # file and entry, for messages
    repo: str  # OWNER/NAME
    revision: str | None
    config: str | None
    split: str | None
    commit: Commit | None  # at which the lock file has other splits of the repository

    @property
    def name(self) -> str:
        """Name of the repository in the lock file."""
        return name_of(self.repo, self.revision)


def name_of(repo: str, revision: str | None) -> str:
    """Name of a repository in entries and lock files, such as hf-datasets:OWNER/NAME@REVISION."""
    if revision is None:
        return f"{HF_DATASETS}:{repo}"
    return f"{HF_DATASETS}:{repo}@{revision}"


def request_of(
    source: Mapping[str, Any], where: str, repositories: Mapping[str, HubRepository]
) -> HubRequest | None:
    """What must be asked of the hub about a source that names a repository.

    It is None if the lock files have the files of the source.

    Args:
        source: of kind hf-datasets, such as {"kind": "hf-datasets", "repo": "OWNER/NAME"}.
        where: file and entry, for messages.
        repositories: what the lock files have, by name.
    """
    request = HubRequest(
        where=where,
        repo=source["repo"],
        revision=source.get("revision"),
        config=source.get("config"),
        split=source.get("split"),
        commit=None,
    )
    repository = repositories.get(request.name)
    if repository is None:
        return request
    if repository.files_of(request.config, request.split) is not None:
        return None
    return HubRequest(**{**dict(request), "commit": repository.commit})


def sources_of(
    source: Mapping[str, Any], repositories: Mapping[str, HubRepository]
) -> list[dict[str, Any]]:
    """Sources of the files of a source that names a repository, in the order of their paths.

    Args:
        source: of kind hf-datasets, such as {"kind": "hf-datasets", "repo": "OWNER/NAME"}.
        repositories: what the lock files have, by name.
    """
    repository = repositories[name_of(source["repo"], source.get("revision"))]
    files = repository.files_of(source.get("config"), source.get("split"))
    assert files is not None  # it was resolved
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


def file_name(path: str) -> str:
    """What a file of a repository is called here: `data-train-0.tar` of `data/train-0.tar`."""
    return re.sub("[^A-Za-z0-9_.-]", "_", path.replace("/", "-")).lstrip("_")


def read_dataset_lock(path: Path) -> dict[str, HubRepository]:
    """What a lock file has of repositories, by name; empty without the file.

    Raises:
        UserError: It is damaged, or has another format version.
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
    """Write a lock file, such that equal contents give equal bytes."""
    lock = DatasetLock(format_version=FORMAT_VERSION, repositories=dict(repositories))
    write_json(path, to_params(lock))


def with_splits(repository: HubRepository, earlier: HubRepository | None) -> HubRepository:
    """A repository with the splits that it had before, if it is at the same commit.

    Splits are ordered by config and split.
    """
    splits = list(repository.splits)
    if earlier is not None and earlier.commit == repository.commit:
        for split in earlier.splits:
            if repository.files_of(split.config, split.split) is None:
                splits.append(split)
    splits.sort(key=lambda split: (split.config or "", split.split or ""))
    return HubRepository(**{**dict(repository), "splits": tuple(splits)})


def resolve_requests(
    requests: Sequence[HubRequest], repositories: Mapping[str, HubRepository]
) -> dict[str, HubRepository]:
    """Ask the hub for the splits that the lock file lacks, and add them to it.

    Args:
        requests: what the lock file lacks, possibly nothing.
        repositories: what the lock files have, by name. The project's gets all that it needs of a
            repository of which it gets a split.

    Returns:
        The repositories of the requests, by name.

    Raises:
        UserError: A repository, config or split doesn't exist or can't be used, or the hub can't
            be asked; the lock file is then unchanged.
    """
    if not requests:
        return {}
    names = list(dict.fromkeys(request.name for request in requests))
    names_in_message = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    print_lines(f"Resolving {names_in_message} into {LOCK} (once)", file=sys.stderr)
    ANSWERS.mkdir(parents=True, exist_ok=True)
    with locked(ANSWERS / "lock"):  # one process at a time
        answers = _answers_of_hub(requests)
        repositories_in_lock = read_dataset_lock(LOCK)
        resolved = {}
        for name, answer in answers.items():
            with_earlier = with_splits(answer, repositories.get(name))
            resolved[name] = with_splits(with_earlier, repositories_in_lock.get(name))
        write_dataset_lock(LOCK, {**repositories_in_lock, **resolved})
    return resolved


def _answers_of_hub(requests: Sequence[HubRequest]) -> dict[str, HubRepository]:
    """Repositories with the requested splits, by name.

    The hub is asked by another process, since its client belongs to a package above this one.

    Raises:
        UserError: The process failed; the message is the last line of its standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        requests_file = Path(folder) / "requests.json"
        answers_file = Path(folder) / "answers.json"
        write_json(requests_file, [to_params(request) for request in requests])
        process = subprocess.run(
            [sys.executable, "-m", "rib.data.hub_repositories", requests_file, answers_file],
            env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if process.returncode != 0:
            lines = process.stderr.strip().splitlines()
            message = lines[-1] if lines else f"exit status {process.returncode}"
            if message.startswith("datasets.yaml"):
                raise UserError(message)
            names = ", ".join(request.name for request in requests)
            raise UserError(f"datasets.yaml: {names} not resolved: {message}")
        answers = read_json(answers_file)
    return {name: from_params(HubRepository, answer) for name, answer in answers.items()}


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
