"""Files of datasets that are repositories of the Hugging Face hub: hf-datasets:OWNER/NAME.

The lock file lists a repository's files at one commit, so everybody gets the same bytes. No torch.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rib.base.errors import UserError
from rib.catalog.hub_names import HubFile, HubRepository
from rib.schema.entries import Dataset
from rib.schema.messages import show

PARTIAL = "partial-"  # prefix of splits whose beginning alone the hub converts
LISTED = 10  # splits, or kinds of paths, in a message


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
