"""Evaluation groups: the datasets that one job evaluates together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rib.base.files import read_json, sha256, write_json


def write_group(*, datasets: Sequence[str], manifests: Sequence[Path], manifest: Path) -> None:
    """Write an evaluation group as JSON, see `group_of`, in the file `manifest`."""
    write_json(manifest, group_of(datasets, manifests))


def group_of(datasets: Sequence[str], manifests: Sequence[Path]) -> dict[str, Any]:
    """Path and hash of each dataset's manifest, and the order of the datasets.

    Args:
        datasets: names.
        manifests: those of the prepared datasets, in the same order.
    """
    entries = {}
    for dataset, dataset_manifest in zip(datasets, manifests, strict=True):
        entries[dataset] = {
            "manifest": str(dataset_manifest),
            "sha256": sha256(dataset_manifest),
        }
    return {"datasets": entries, "order": list(entries)}


def read_group(path: Path) -> dict[str, Path]:
    """Folders of a group's prepared datasets by name, in the order of the group."""
    group = read_json(path)
    folders = {}
    for dataset in group["order"]:
        manifest = Path(group["datasets"][dataset]["manifest"])
        folders[dataset] = manifest.parent
    return folders
