"""Evaluation groups: the datasets that one job evaluates together."""

from collections.abc import Sequence
from pathlib import Path

from rib.base.files import read_json, sha256, write_json


def write_group(*, datasets: Sequence[str], manifests: Sequence[Path], manifest: Path) -> None:
    """Write path and hash of each dataset's manifest, and the order of the datasets, as JSON."""
    listed = {
        name: {"manifest": str(it), "sha256": sha256(it)}
        for name, it in zip(datasets, manifests, strict=True)
    }
    write_json(manifest, {"datasets": listed, "order": list(listed)})


def read_group(path: Path) -> dict[str, Path]:
    """Folders of a group's prepared datasets, in order."""
    group = read_json(path)
    return {name: Path(group["datasets"][name]["manifest"]).parent for name in group["order"]}
