"""What scripts of several stages build from inputs of their rules.

It is imported after `_run`, which says where the library is.
"""

from collections.abc import Iterable
from pathlib import Path

from rib.config.run import Run


def run_of(wildcards) -> Run:
    """The run that the wildcards of a job name."""
    return Run(
        model=wildcards.model,
        target=wildcards.target,
        method=wildcards.method,
        size=wildcards.size,
        seed=int(wildcards.seed),
    )


def paths(files: Iterable[str]) -> list[Path]:
    """Paths of an input that is a list."""
    return [Path(file) for file in files]


def folder_of(file: str) -> Path:
    """The folder of an input, such as that of a prepared dataset, whose manifest is the input."""
    return Path(file).parent


def dataset_of_manifest(manifest: str) -> str:
    """The name of a prepared dataset, from .../prepare/<dataset>/<geometry>/manifest.json."""
    return Path(manifest).parts[-3]


def optional_path(file: str | list) -> Path | None:
    """The path of an input; None if the input is an empty list, since it doesn't apply."""
    if not file:
        return None
    return Path(file)


def optional_folder(file: str | list) -> Path | None:
    """The folder of an input; None if the input is an empty list, since it doesn't apply."""
    if not file:
        return None
    return Path(file).parent


def checkpoints_of(parents: Iterable[str], files: Iterable[str]) -> dict[str, Path]:
    """Checkpoint of each parent of a run: {"ft": Path("results/.../checkpoint.safetensors")}.

    Args:
        parents: such as `ft` or `ft, seed 1`.
        files: checkpoint of each, in the same order.
    """
    return dict(zip(parents, paths(files), strict=True))
