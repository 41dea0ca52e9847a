"""The datasets that one job evaluates together, listed in one file."""

from collections.abc import Mapping
from pathlib import Path

from rib.io import read_json, sha256, write_json


def write_suite(manifests: Mapping[str, str], path: Path) -> None:
    """List prepared datasets.

    Args:
        manifests: path of each dataset's manifest.
        path: written as JSON: by dataset its manifest's path and hash.
    """
    listed = {
        name: {"manifest": str(manifest), "sha256": sha256(Path(manifest))} for name, manifest in manifests.items()
    }
    write_json(path, {"datasets": listed, "order": list(listed)})


def read_suite(path: Path) -> dict[str, Path]:
    """Folders of a suite's prepared datasets, in its order."""
    suite = read_json(path)
    return {name: Path(suite["datasets"][name]["manifest"]).parent for name in suite["order"]}
