"""Resolve names of models and datasets into a lock file (rib.catalog.hub_names), for `rib lock`."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rib.base.errors import UserError
from rib.base.locks import locked
from rib.base.progress import print_lines
from rib.catalog.catalog import Catalog
from rib.catalog.hub_names import (
    LOCK,
    HubLock,
    HubRequest,
    UnresolvedError,
    read_lock,
    write_lock,
)
from rib.catalog.model_names import checked_model, entry_of, parse_name
from rib.data.hub_repositories import ask_for_repositories
from rib.models.records import describe
from rib.schema.yaml_files import read_yaml

LOCK_OF_LOCK = Path("work/hub.lock")  # locked by the process that resolves names


def resolve(unresolved: UnresolvedError) -> None:
    """Look up names that the lock files lack, and add them to the project's.

    Raises:
        UserError: A name doesn't exist or can't be used, or the hub can't be asked; the lock file
            is then unchanged.
    """
    found = _look_up(unresolved.models, unresolved.datasets)
    LOCK_OF_LOCK.parent.mkdir(exist_ok=True)
    with locked(LOCK_OF_LOCK):
        write_lock(LOCK, read_lock(LOCK).with_names_of(found))
    _print_names(found, LOCK)


def renew(folder: Path, ask_hub: bool) -> None:
    """Look up all names in the entries of a catalogue folder again, for the folder's lock file.

    Args:
        ask_hub: False takes models from the installed libraries alone, without commits, and leaves
            datasets as they are.

    Raises:
        UserError: A name doesn't exist or can't be used, or the hub can't be asked; the lock file
            is then unchanged.
    """
    catalog = Catalog([folder])
    models = _records_in(folder)
    path = folder / LOCK
    if ask_hub:
        found = _look_up(models, _repositories_in(catalog))
    else:
        found = HubLock(models=describe(models, ask_hub=False), datasets=read_lock(path).datasets)
    write_lock(path, found)
    _print_names(found, path)


def _repositories_in(catalog: Catalog) -> list[HubRequest]:
    """Repositories that entries of datasets name."""
    return [request for name in catalog.hub_sources for request in catalog.hub_requests(name)]


def _records_in(folder: Path) -> list[str]:
    """Names of the models that entries of a catalogue folder are made from."""
    path = folder / "models.yaml"
    entries = read_yaml(path) if path.is_file() else {}
    if not isinstance(entries, dict):
        raise UserError(f"{path} does not map names to entries; correct it.")
    records = [
        str(entry["record"])
        for entry in entries.values()
        if isinstance(entry, dict) and "record" in entry
    ]
    return sorted(set(records))


def _look_up(models: Sequence[str], requests: Iterable[HubRequest]) -> HubLock:
    """Facts of the named models and repositories, from libraries, folders and the hub."""
    facts_by_name = describe(sorted(models))
    for name, facts in facts_by_name.items():  # unusable entries must not get into the file
        checked_model(parse_name(name).short, entry_of(name, facts), f"config, models, {name}")
    return HubLock(models=facts_by_name, datasets=ask_for_repositories(requests))


def _print_names(found: HubLock, path: Path) -> None:
    """Say which names were resolved."""
    names = [*found.models, *found.datasets]
    if not names:
        print_lines(f"No entry for {path} names a model or dataset of the hub.", file=sys.stderr)
        return
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    print_lines(f"Resolved {names[0]}{more} into {path}.", file=sys.stderr)
