"""Renew a catalogue folder's lock file of datasets from the repositories in its entries.

`make dataset-records` runs it as `python -m rib.config.dataset_records FOLDER`.
"""

import sys
from pathlib import Path

from rib.base.errors import UserError
from rib.base.progress import print_lines
from rib.config.catalog import Catalog
from rib.config.hub_datasets import LOCK, ask_hub, write_dataset_lock


def renew(folder: Path) -> None:
    """Resolve all repositories of a catalogue folder again, into its lock file.

    Raises:
        UserError: A repository can't be resolved; the lock file is then unchanged.
    """
    catalog = Catalog([folder])
    requests = [request for name in catalog.hub_sources for request in catalog.hub_requests(name)]
    if not requests:
        print_lines(f"No entry of {folder}/datasets.yaml names a repository of the hub.")
        return
    repositories = ask_hub(requests)
    write_dataset_lock(folder / LOCK, repositories)
    print_lines(f"Resolved {len(repositories)} repositories into {folder / LOCK}.")


if __name__ == "__main__":
    try:
        renew(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
