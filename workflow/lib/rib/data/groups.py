"""Evaluation groups: the datasets that one job evaluates together."""

from collections.abc import Sequence
from pathlib import Path

from rib.base.files import read_json, sha256, write_json


def write_group(*, datasets: Sequence[str], manifests: Sequence[Path], manifest: Path) -> None:
    """Write path and hash of each dataset's manifest, and the order of the datasets, as JSON.

    Args:
        datasets: names.
        manifests: those of the prepared datasets, in the same order.
        manifest: the file that is written.
    """
    listed = {}
    for name, path in zip(datasets, manifests, strict=True):
        listed[name] = {"manifest": str(path), "sha256": sha256(path)}
    write_json(manifest, {"datasets": listed, "order": list(listed)})


def read_group(path: Path) -> dict[str, Path]:
    """Folders of a group's prepared datasets, in order."""
    group = read_json(path)
    return {name: Path(group["datasets"][name]["manifest"]).parent for name in group["order"]}
