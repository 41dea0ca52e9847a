"""Names of models and datasets that are resolved once, and the lock file that keeps the answers.

`rib lock` looks names up (rib.models.lock) and writes `hub.lock.json`, which git tracks. Reading a
configuration only reads that file: a name that it lacks is an error. A catalogue folder may have
such a file, too.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.params import Settings, from_params, to_params
from rib.schema.messages import show
from rib.schema.source_entries import CONVERSION, HF_DATASETS

LOCK = Path("hub.lock.json")
FORMAT_VERSION: Final = 1  # of the lock file
COMMIT = "[0-9a-f]{40}"

# A path without `..`, hidden files and characters other than printable ASCII.
PathOnHub = Annotated[
    str,
    StringConstraints(
        max_length=150, pattern=r"^([A-Za-z0-9_][ -.0-\[\]-~]*/)*[A-Za-z0-9_][ -.0-\[\]-~]*$"
    ),
]
Digest = Annotated[str, StringConstraints(pattern="^(sha256:[0-9a-f]{64}|git:[0-9a-f]{40})$")]


class HubFile(Settings):
    """A file of a repository."""

    path: PathOnHub
    size: Annotated[int, Field(ge=0)]  # bytes
    digest: Digest  # SHA-256, or git's blob id for a small file


class HubRepository(Settings):
    """A dataset's repository at one commit."""

    commit: Annotated[str, StringConstraints(pattern=f"^{COMMIT}$")]
    licence: str  # as its uploader states it
    gated: bool  # whether its terms must be accepted before a download
    files: tuple[HubFile, ...]  # files of images, sorted by path


class HubLock(Settings):
    """A lock file.

    Attributes:
        models: keys of catalogue entries by a model's name, such as {"timm/resnet18": {"library":
            "timm", ...}}. rib.catalog.model_names.checked_model checks those that are used.
        datasets: repositories by name, such as {"hf-datasets:OWNER/NAME": HubRepository}.
    """

    format_version: Literal[1] = FORMAT_VERSION
    models: dict[str, dict[str, Any]]
    datasets: dict[str, HubRepository]

    def with_names_of(self, other: "HubLock") -> "HubLock":
        """Names of both locks; `other` wins."""
        return HubLock(
            models={**self.models, **other.models}, datasets={**self.datasets, **other.datasets}
        )


class HubRequest(Settings):
    """A dataset's repository that an entry names."""

    where: str  # file and entry, for messages
    repo: str  # OWNER/NAME
    revision: str | None

    @property
    def name(self) -> str:
        """Name of the repository in the lock file."""
        return name_of(self.repo, self.revision)


class UnresolvedError(UserError):
    """Names that no lock file has, for `rib lock` to resolve.

    Args:
        models: file and entry, or key of config, by the model's name: {"timm/resnet18": "config,
            models"}.
        datasets: repositories of datasets.
    """

    def __init__(self, models: Mapping[str, str], datasets: Iterable[HubRequest] = ()):
        self.models = list(models)
        self.datasets = list(datasets)
        places = dict(models)
        for request in self.datasets:
            places.setdefault(request.name, request.where)  # several entries may name it
        first, *others = places
        verb = f"and {len(others)} more are" if others else "is"
        super().__init__(
            f"{places[first]}: {show(first)} {verb} not in {LOCK}; run `rib lock` with the same "
            "--config or --configfile."
        )


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


def read_lock(path: Path) -> HubLock:
    """Read a lock file; an empty lock if there is no file.

    Raises:
        UserError: The file is damaged, has another format version, or has another commit of a name
            than the name itself states.
    """
    if not path.is_file():
        return HubLock(models={}, datasets={})
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise UserError(
            f"{path} has format version {show(version)}, and this checkout reads version "
            f"{FORMAT_VERSION}; use the code that wrote it, or delete the file and run `rib lock`."
        )
    try:
        lock = from_params(HubLock, content)
    except UserError as error:
        raise UserError(
            f"{path} is damaged ({str(error).rstrip('.')}); restore it with git, or delete it and "
            "run `rib lock`."
        ) from error
    for name, facts in lock.models.items():
        source = facts.get("source")
        if isinstance(source, dict):  # `checked_model` refuses anything else
            _refuse_other_commit(name, source.get("revision"), path)
    for name, repository in lock.datasets.items():
        _refuse_other_commit(name, repository.commit, path)
    return lock


def _refuse_other_commit(name: str, commit: object, path: Path) -> None:
    """Raise a UserError if a name such as hf-hub:OWNER/NAME@COMMIT is locked at another commit."""
    _, _, stated = name.rpartition("@")
    if re.fullmatch(COMMIT, stated) and commit != stated:
        raise UserError(
            f"{path}: {show(name)} is locked at commit {show(commit)}, which its name contradicts; "
            f"remove it from {path} and run `rib lock`."
        )


def write_lock(path: Path, lock: HubLock) -> None:
    """Write a lock file; equal contents give equal bytes."""
    write_json(path, to_params(lock))
