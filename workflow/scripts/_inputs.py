"""Conversions of a rule's inputs for scripts of several stages.

Scripts import it after `_run`, which puts the library on the path.
"""

from collections.abc import Iterable
from pathlib import Path

from rib.schema.layout import Layout


def paths(files: Iterable[str]) -> list[Path]:
    return [Path(file) for file in files]


def folder_of(file: str) -> Path:
    """Folder of an input, such as a prepared dataset's folder from its manifest."""
    return Path(file).parent


def dataset_of_manifest(manifest: str) -> str:
    """Name of a prepared dataset, from .../prepare/<dataset>/<geometry>/manifest.json."""
    return Layout.dataset_of(Path(manifest))


def optional_path(file: str | list) -> Path | None:
    """Path of an input; None for an empty list, which stands for a missing input."""
    if not file:
        return None
    return Path(file)


def optional_folder(file: str | list) -> Path | None:
    """Folder of an input; None for an empty list, which stands for a missing input."""
    if not file:
        return None
    return Path(file).parent


def checkpoints_of(parents: Iterable[str], files: Iterable[str]) -> dict[str, Path]:
    """Checkpoint of each parent of a run: {"ft": Path("results/.../checkpoint.safetensors")}.

    Args:
        parents: such as `ft` or `ft, seed 1`.
        files: the parents' checkpoints, in the same order.
    """
    return dict(zip(parents, paths(files), strict=True))
