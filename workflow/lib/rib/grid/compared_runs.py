"""Runs whose representations are compared. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rib.schema.messages import known_name
from rib.schema.run import ENSEMBLE, Run

if TYPE_CHECKING:
    from rib.grid.grid import Grid

# Names of the weights that a training keeps: ten, at equal distances, whatever its length.
SNAPSHOTS = [f"snapshot{number}" for number in range(1, 11)]


def example_target(grid: Grid) -> str | None:
    """The target in examples: the family's, else the first; None without targets."""
    if grid.family.example_target in grid.targets:
        return grid.family.example_target
    return next(iter(grid.targets), None)


def compared_runs(grid: Grid) -> list[Run]:
    """Fine-tuned runs whose representations are compared with the pretrained model's.

    Config, representations, chooses their targets and methods.

    Raises:
        UserError: Config names an unknown target or method, a merge over targets, or a curve or
            ensemble, which have several networks.
    """
    choices = grid.config["representations"]
    targets = _compared_targets(choices["targets"], grid)
    methods = _compared_methods(choices["methods"], grid)
    return [run for run in grid.runs() if run.target in targets and run.method in methods]


def _compared_targets(choice: str | Sequence[str], grid: Grid) -> Sequence[str]:
    """Names of the targets that config's `representations` chooses."""
    example = example_target(grid)
    if choice == "default" and example:
        return [example]
    if choice in ("default", "all"):
        return grid.targets
    for name in choice:
        known_name(name, grid.targets, "target of this run", "config, representations")
    return choice


def _compared_methods(choice: str | Sequence[str], grid: Grid) -> Sequence[str]:
    """Names of the methods that config's `representations` chooses, with one network per run."""
    methods_with_one_network = [
        name
        for name, method in grid.methods.items()
        if method.form not in ("curve", ENSEMBLE) and name not in grid.over_targets
    ]
    if choice in ("default", "all"):
        return methods_with_one_network
    what = "method of this run with one state"
    for name in choice:
        known_name(name, methods_with_one_network, what, "config, representations")
    return choice


def megabytes_of_kernels(images: int) -> int:
    """Memory of a job that compares features of so many images of a dataset.

    CKA, the similarity of features, needs kernels (images x images) of all layers and one more, and
    their sums over objects.
    """
    # 2000 MB for libraries, and 20 matrices of numbers of 8 bytes.
    return 2000 + images**2 * 8 * 20 // 2**20
