"""Download files from the Hugging Face hub through its client."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rib.base.errors import UserError

UNREACHED = "the hub can't be reached (HF_HUB_OFFLINE, or no network); connect"
# Meaning of an error by the name of its class or of a base class; the first match counts.
HUB_ERRORS = {
    "GatedRepoError": (
        "it is gated; accept its terms on its page of the hub, then log in (HF_TOKEN)"
    ),
    "RepositoryNotFoundError": (
        "the hub has no such repository that you may see; correct the name or log in (HF_TOKEN)"
    ),
    "RevisionNotFoundError": (
        "the hub has no such commit; correct it, or remove the name from hub.lock.json and run "
        "`rib lock`"
    ),
    "LocalEntryNotFoundError": UNREACHED,
    "EntryNotFoundError": "the repository has no such file; correct the path in its entry",
    "HTTPError": UNREACHED,
    "ConnectionError": UNREACHED,
}
# Part of the client's message when a file has another size than the hub states.
OTHER_SIZE = "Consistency check failed"
LONGEST_HUB_MESSAGE = 200  # characters


def fetch_from_hub(source: Mapping[str, Any]) -> Path:
    """Path of a file in the client's cache, downloaded and verified by the client if missing.

    HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN have their usual effect.

    Args:
        source: such as `{"repo": "timm/vit", "path": "model.safetensors", "revision": "main"}`.
            Optional are `revision` and `repo_type` ("dataset"; models need none).

    Raises:
        UserError: the file could not be fetched; the message says why.
    """
    from huggingface_hub import hf_hub_download

    try:
        cached = hf_hub_download(
            source["repo"],
            source["path"],
            revision=source.get("revision", "main"),
            repo_type=source.get("repo_type"),
        )
    except Exception as error:  # the client raises errors of several libraries
        raise UserError(hub_problem(error)) from error
    return Path(cached)


def hub_problem(error: Exception) -> str:
    """Explanation of an error of the hub's client, a remedy and the client's own message.

    For example: the hub has no such commit; correct it, or ... (RevisionNotFoundError: 404 ...).
    """
    types = [error_type.__name__ for error_type in type(error).__mro__]
    meaning = "it can't be used; correct it or choose another one"
    for type_name, meaning_of_type in HUB_ERRORS.items():
        if type_name in types:
            meaning = meaning_of_type
            break
    if OTHER_SIZE in str(error):
        meaning = "the hub sent fewer or more bytes than the file has; run again"
    message = " ".join(str(error).split())[:LONGEST_HUB_MESSAGE]
    return f"{meaning} ({type(error).__name__}: {message})"
