"""Sources of archives and weights, as the catalogue states them.

A source identifies a content by its digest; mirrors are places that have the content.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from rib.schema.fields import (
    KEYS,
    REPOSITORY,
    REVISION,
    Count,
    Described,
    Label,
    LocalPath,
    Prose,
    Url,
    matching,
)

HF_DATASETS: Final = "hf-datasets"  # kind of a source that names a repository of the hub
CONVERSION: Final = "refs/convert/parquet"  # revision in which the hub has a repository as Parquet
NAME_ON_HUB = re.compile(r"hf-datasets:([^@]*)(?:@(.*))?", re.DOTALL)
KIND = (
    "npm or pypi (downloaded by that package client), http (by curl), hub (by huggingface_hub), "
    "mirrors (from the first of several places that has it), manual (downloaded by the user after "
    "accepting terms), file or folder (a path)"
)
KIND_OF_PLACE = (
    "http (a URL, by curl), apt (a Debian package, by apt-get, without root and without installing "
    "it), hub (a file of a repository, by huggingface_hub)"
)
WITHOUT_RECORD = r"(?!.*[.](manifest|provenance)[.]json\Z)"
WHEEL = r"[^-]+-[^-]+(-[^-]+)?-[^-]{3,}-none-any[.]whl"
PATH_ON_HUB = r"([A-Za-z0-9_][ -.0-\[\]-~]*/)*[A-Za-z0-9_][ -.0-\[\]-~]*"

Repository = Annotated[str, matching(REPOSITORY)]
Revision = Annotated[str, matching(REVISION)]
ShortLabel = Annotated[Label, matching(".*", 200)]
ArchiveName = Annotated[str, matching(rf"{WITHOUT_RECORD}[A-Za-z0-9][A-Za-z0-9_.-]*", 150)]
Package = Annotated[str, matching(r"(@[A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*")]
Version = Annotated[str, matching("[A-Za-z0-9.+-]+")]
Digest = Annotated[str, matching(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|sha(256|512)-.+)")]
Member = Annotated[str, matching(r"([A-Za-z0-9_][A-Za-z0-9_.+~-]*/)*[A-Za-z0-9_][A-Za-z0-9_.+~-]*")]
OF_DIGEST = "pinned digest: sha256:<hex>, md5:<hex> or sha512-<base64>; optional for hub and folder"
OF_FILE = "file name of the archive in data/raw; for a folder <dataset>.tar by default"
OF_PATH = (
    "kind file or folder: its path, relative to the catalogue folder; kind hub: the file in the "
    "repository"
)
OF_TERMS = "terms that the user accepts by downloading it, as a sentence"
OF_REPO = "kind hub: owner/name"
OF_REVISION = "kind hub: commit or branch, main by default"
OF_PACKAGE = "name of the package"
OF_VERSION = "exact version of the package"


def _as_list(value: object) -> object:
    """["data/*.parquet"] for one text; anything else unchanged."""
    return [value] if isinstance(value, str) else value


class Place(Described):
    """A place that has the content of a source."""

    compression: Literal["gzip"] | None = Field(
        None,
        description="how the content is compressed there, or the member of the Debian package; by "
        "default it is not",
    )


class HttpPlace(Place):
    kind: Literal["http"] = Field(description=KIND_OF_PLACE)
    url: Url = Field(description="kind http: its URL, without a user name")


class AptPlace(Place):
    kind: Literal["apt"] = Field(description=KIND_OF_PLACE)
    package: Annotated[str, matching("[a-z0-9][a-z0-9+.-]+")] = Field(
        description="kind apt: name of the Debian package"
    )
    member: Member = Field(
        description="the file in the Debian package that is the content, for example usr/share/x"
    )


class HubPlace(Place):
    """A mirror's file in a repository of the hub."""

    kind: Literal["hub"] = Field(description=KIND_OF_PLACE)
    repo: Repository = Field(description=OF_REPO)
    repo_type: Literal["model", "dataset"] | None = Field(
        None, description="kind hub: model by default"
    )
    revision: Revision | None = Field(None, description=OF_REVISION)
    path: Annotated[str, matching(PATH_ON_HUB)] = Field(
        description="kind hub: the file in the repository"
    )


Mirror = Annotated[HttpPlace | AptPlace | HubPlace, Field(discriminator="kind")]


class SourceOfArchive(Described):
    """The archive or weights file as published."""

    size: Count | None = Field(None, description="size in bytes")
    digest_from: Prose | None = Field(
        None,
        description="publisher of the digest; 'one source: ...' if no second publisher confirms it",
    )
    terms: Prose | None = Field(None, description=OF_TERMS)


class PinnedSource(SourceOfArchive):
    file: ArchiveName = Field(description=OF_FILE)
    digest: Digest = Field(description=OF_DIGEST)


class NpmSource(PinnedSource):
    kind: Literal["npm"] = Field(description=KIND)
    package: Package = Field(description=OF_PACKAGE)
    version: Version = Field(description=OF_VERSION)


class PypiSource(PinnedSource):
    kind: Literal["pypi"] = Field(description=KIND)
    package: Package = Field(description=OF_PACKAGE)
    version: Version = Field(description=OF_VERSION)
    file: Annotated[ArchiveName, matching(WHEEL)] = Field(
        description="kind pypi: a wheel for any platform, named "
        "<package>-<version>-<python>-none-any.whl"
    )


class HttpSource(PinnedSource):
    kind: Literal["http"] = Field(description=KIND)
    urls: list[Url] = Field(
        min_length=1,
        description="kind http: URLs of the same file, tried in this order, without user names",
    )


class MirrorsSource(PinnedSource):
    kind: Literal["mirrors"] = Field(description=KIND)
    mirrors: list[Mirror] = Field(
        min_length=1,
        description="kind mirrors: places of different kinds that have the same content, tried in "
        "this order",
    )

    @model_validator(mode="after")
    def _state_size_of_packed_content(self) -> "MirrorsSource":
        """Refuse a source without size if a mirror has the content in gzip or a package."""
        is_packed = any(place.compression or place.kind == "apt" for place in self.mirrors)
        if self.size is None and is_packed:
            raise PydanticCustomError(
                KEYS, "the key 'size' is missing, since a mirror has the content packed,"
            )
        return self


class HubSource(SourceOfArchive):
    """A file of weights, or of a tokenizer, in a repository of the hub."""

    kind: Literal["hub"] = Field(description=KIND)
    repo: Repository = Field(description=OF_REPO)
    revision: Revision | None = Field(None, description=OF_REVISION)
    path: Annotated[str, matching(rf"{PATH_ON_HUB}[.](safetensors|bin|pth|json)")] = Field(
        description="a file in the repository: .safetensors, .bin or .pth (loaded with "
        "weights_only), or .json of a tokenizer"
    )
    file: ArchiveName = Field(description=OF_FILE)
    digest: Digest | None = Field(None, description=OF_DIGEST)


class ManualSource(PinnedSource):
    kind: Literal["manual"] = Field(description=KIND)
    page: Url = Field(
        description="kind manual: page where the user downloads it; messages show it without its "
        "query string"
    )
    terms: Prose = Field(description=OF_TERMS)


class FileSource(PinnedSource):
    kind: Literal["file"] = Field(description=KIND)
    path: LocalPath = Field(description=OF_PATH)


class FolderSource(SourceOfArchive):
    """A user's folder of images, packed into an archive here."""

    kind: Literal["folder"] = Field(description=KIND)
    path: LocalPath = Field(description=OF_PATH)
    file: ArchiveName | None = Field(None, description=OF_FILE)
    digest: Digest | None = Field(None, description=OF_DIGEST)


class HubDataset(Described):
    """Files of a dataset of the Hugging Face hub, which hub.lock.json lists."""

    kind: Literal["hf-datasets"] = Field(description="hf-datasets: a dataset of the hub")
    repo: Annotated[str, matching(REPOSITORY, 200)] = Field(
        description="owner/name of the repository"
    )
    revision: Annotated[str, matching(REVISION, 200)] | None = Field(
        None,
        description="commit, tag or branch; by default main for files, and otherwise "
        f"{CONVERSION}, the hub's own Parquet conversion",
    )
    files: Annotated[list[ShortLabel], BeforeValidator(_as_list), Field(min_length=1)] | None = (
        Field(
            None,
            description="files of the repository that are read: a path or a list of paths, in "
            "which * stands for any characters, such as data/train-*.parquet or test/*.tar",
        )
    )
    config: ShortLabel | None = Field(
        None, description="config (subset) of the conversion; by default its only one"
    )
    split: ShortLabel | None = Field(
        None, description="split of the conversion, such as test; by default its only one"
    )

    @model_validator(mode="after")
    def _names_files_or_a_split(self) -> "HubDataset":
        if self.files is not None and (self.config, self.split) != (None, None):
            raise PydanticCustomError(KEYS, "give files, or config and split, but not both")
        return self


def parsed_source(source: object) -> object:
    """A source of a dataset, with a mapping in place of the name of a hub repository.

    `hf-datasets:OWNER/NAME@REVISION` becomes {"kind": "hf-datasets", "repo": "OWNER/NAME",
    "revision": "REVISION"}. Anything else is unchanged.
    """
    if not isinstance(source, str):
        return source
    match = NAME_ON_HUB.fullmatch(source)
    if match is None:
        return source
    repo, revision = match.groups()
    if revision is None:
        return {"kind": HF_DATASETS, "repo": repo}
    return {"kind": HF_DATASETS, "repo": repo, "revision": revision}


AnySource = (
    NpmSource
    | PypiSource
    | HttpSource
    | MirrorsSource
    | HubSource
    | ManualSource
    | FileSource
    | FolderSource
)
Source = Annotated[AnySource, Field(discriminator="kind")]
DatasetSource = Annotated[
    AnySource | HubDataset, Field(discriminator="kind"), BeforeValidator(parsed_source)
]
