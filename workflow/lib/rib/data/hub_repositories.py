"""Ask the Hugging Face hub for the repositories of datasets: commit, licence, files of images."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rib.base.errors import UserError
from rib.base.hub import hub_problem
from rib.base.params import from_params
from rib.base.text import printable
from rib.catalog.hub_names import HubFile, HubRepository, HubRequest
from rib.schema.messages import show
from rib.schema.source_entries import CONVERSION

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo

ENDINGS = (".parquet", ".tar", ".tar.gz", ".tgz", ".zip")  # of files of images
SECONDS_TO_ANSWER = 60
UNKNOWN = "not stated"
LONGEST_LICENCE = 200  # characters


def ask_for_repositories(requests: Iterable[HubRequest]) -> dict[str, HubRepository]:
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
        raise UserError(f"{where}: {hub_problem(error)}.") from error
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
