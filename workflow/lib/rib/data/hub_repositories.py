"""Repositories of datasets on the Hugging Face hub, asked for the files of configs and splits.

A process of its own, in which alone the hub's client runs while the workflow is read:

    python -m rib.data.hub_repositories REQUESTS ANSWERS

reads requests (rib.config.hub_datasets.HubRequest) from one JSON file, and writes the repositories
by name to another. To renew the lock file of a catalogue folder, from its entries:

    python -m rib.data.hub_repositories --renew FOLDER
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import print_lines
from rib.base.settings import from_params, to_params
from rib.config.catalog import Catalog
from rib.config.hub_datasets import (
    LOCK,
    LONGEST_FILE_NAME,
    HubFile,
    HubRepository,
    HubRequest,
    HubSplit,
    file_name,
    with_splits,
    write_dataset_lock,
)
from rib.config.source_entries import HF_DATASETS
from rib.data.hub import UNREACHED, hub_problem
from rib.data.hub_splits import ChosenNames, files_of_split

SECONDS_TO_ANSWER = 60
UNKNOWN = "not stated"
LONGEST_LICENCE = 200  # characters
# The end of the message that the hub can't be reached.
HOW_TO_RESOLVE = (
    "; where it can be, `make dataset-records` (CATALOG=FOLDER for a folder of yours) lists its "
    f"files in the {LOCK} of the catalogue, with which a dry-run needs no network"
)


@dataclass(frozen=True)
class RepositoryInfo:
    """A repository at one commit, as the hub describes it."""

    commit: str
    licence: str
    gated: bool
    files: Mapping[str, dict[str, Any]]  # path, size and digest, by path
    stated_configs: object  # `configs` in its README's header; None if there are none


def answer(requests: Sequence[HubRequest]) -> dict[str, HubRepository]:
    """Repositories with the requested splits, by name.

    Raises:
        UserError: One doesn't exist or can't be used, or the hub can't be asked.
    """
    info_of_name: dict[str, RepositoryInfo] = {}
    repositories: dict[str, HubRepository] = {}
    for request in requests:
        where = f"{request.where}: {request.name}"
        if request.name not in info_of_name:
            info_of_name[request.name] = _ask(request, where)
        info = info_of_name[request.name]
        repository = HubRepository(
            commit=info.commit,
            licence=info.licence,
            gated=info.gated,
            splits=(_split_of_request(request, info, where),),
        )
        repositories[request.name] = with_splits(repository, repositories.get(request.name))
    return repositories


def _ask(request: HubRequest, where: str) -> RepositoryInfo:
    """What the hub says of a repository: at the lock file's commit, else at the stated revision.

    Raises:
        UserError: The hub has no such repository or revision, or can't be asked.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(
            request.repo,
            revision=request.commit or request.revision,
            files_metadata=True,
            timeout=SECONDS_TO_ANSWER,
        )
    except Exception as error:  # of several libraries
        problem = hub_problem(error)
        if problem.startswith(UNREACHED):
            problem += HOW_TO_RESOLVE
        raise UserError(f"{where}: {problem}.") from error
    files = {}
    for file in info.siblings or []:
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        files[file.rfilename] = {"path": file.rfilename, "size": file.size, "digest": digest}
    licence = None
    stated_configs = None
    if info.card_data:
        licence = info.card_data.get("license_name") or info.card_data.get("license")
        stated_configs = info.card_data.get("configs")
    return RepositoryInfo(
        commit=str(info.sha),
        licence=str(licence or UNKNOWN)[:LONGEST_LICENCE],
        gated=bool(info.gated),
        files=files,
        stated_configs=stated_configs,
    )


def _split_of_request(request: HubRequest, info: RepositoryInfo, where: str) -> HubSplit:
    """The requested split of a repository.

    Raises:
        UserError: There is no such split, a program makes its files, or a file can't be used.
    """
    _, _, short_name = request.repo.rpartition("/")
    script = f"{short_name}.py"
    if script in info.files:
        raise UserError(
            f"{where}: its data are made by a program, {script}, which is not run; choose a "
            "repository of files, or its revision refs/convert/parquet."
        )
    chosen = ChosenNames(request.config, request.split)
    paths = files_of_split(info.files, info.stated_configs, chosen, where)
    _refuse_unusable_names(paths, where)
    files = []
    for path in paths:
        try:
            files.append(from_params(HubFile, info.files[path]))
        except UserError as error:
            raise UserError(f"{where}: its file {path} can't be used ({error})") from error
    return HubSplit(config=request.config, split=request.split, files=tuple(files))


def _refuse_unusable_names(paths: Sequence[str], where: str) -> None:
    """Raise a UserError if two files would have one name here, or one a name that is too long."""
    paths_of_name = Counter(file_name(path) for path in paths)
    for path in paths:
        name = file_name(path)
        if not name[0].isalnum() or len(name) > LONGEST_FILE_NAME or paths_of_name[name] > 1:
            raise UserError(
                f"{where}: its file {path} would be called {name} here, which is too long, or "
                "another file's name; choose another repository, config or split."
            )


def renew(folder: Path) -> None:
    """Resolve all repositories that a catalogue folder names again, into its lock file.

    Raises:
        UserError: One can't be resolved; the lock file is then unchanged.
    """
    requests = []
    for name, sources in Catalog([folder]).hub_sources.items():
        for source in sources:
            if source["kind"] == HF_DATASETS:
                requests.append(
                    HubRequest(
                        where=f"datasets.yaml, {name}",
                        repo=source["repo"],
                        revision=source.get("revision"),
                        config=source.get("config"),
                        split=source.get("split"),
                        commit=None,
                    )
                )
    if not requests:
        print_lines(f"No entry of {folder}/datasets.yaml names a repository of the hub.")
        return
    write_dataset_lock(folder / LOCK, answer(requests))
    print_lines(f"Resolved {len(requests)} sources into {folder / LOCK}.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask the hub for the files of datasets.")
    parser.add_argument("--renew", type=Path, metavar="FOLDER", help="renew its lock file")
    parser.add_argument("requests", type=Path, nargs="?")
    parser.add_argument("answers", type=Path, nargs="?")
    arguments = parser.parse_args()
    try:
        if arguments.renew is not None:
            renew(arguments.renew)
            return
        requests = [
            from_params(HubRequest, request)
            for request in json.loads(arguments.requests.read_text())
        ]
        repositories = answer(requests)
        write_json(
            arguments.answers,
            {name: to_params(repository) for name, repository in repositories.items()},
        )
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
