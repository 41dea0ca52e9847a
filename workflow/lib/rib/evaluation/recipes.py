"""Merges, stored as recipes over checkpoints instead of copies of the weights. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.plugins import load_module


class State(NamedTuple):
    """State of a network with which a run is scored.

    Attributes:
        alpha: alpha of a curve's state; None if the run has one state.
        weights: weight of each averaged method; they add up to 1.
    """

    alpha: float | None
    weights: Mapping[str, float]


def write_recipe(
    *, algorithm: str, settings: Mapping, parents: Sequence[str], manifests: Sequence[Path], recipe: Path
) -> None:
    """Write the recipe of a merge.

    Args:
        algorithm: file of the method's algorithm.
        settings: its settings.
        parents: the fine-tuned methods to merge.
        manifests: manifests of their checkpoints, in the same order.
        recipe: written as JSON (see `store_recipe`).

    Raises:
        UserError: the entry doesn't fit the algorithm, or the weights don't add up to 1.
    """
    module = load_module(algorithm)
    try:
        if hasattr(module, "curve"):
            states = [State(*point) for point in module.curve(parents, **settings).items()]
        else:
            states = [State(None, module.recipe(parents, **settings))]
    except ValueError as error:
        raise UserError(f"{Path(algorithm).name}: {error}; correct the method's entry.") from error
    for state in states:
        if abs(sum(state.weights.values()) - 1) > 1e-9:
            raise UserError(
                f"{Path(algorithm).name}: the weights add up to {sum(state.weights.values())}, not 1; correct it."
            )
    store_recipe(recipe, states, parents, manifests, [])


def store_recipe(
    path: Path,
    states: Sequence[State],
    parents: Sequence[str],
    manifests: Sequence[Path],
    candidates: Sequence[Mapping],
) -> None:
    """Write a recipe: states (alpha and weights by method), checkpoint hashes of the parents, scores of candidates."""
    hashes = {
        parent: read_json(manifest)["files"]["checkpoint.safetensors"]
        for parent, manifest in zip(parents, manifests, strict=True)
    }
    stored = [{"alpha": state.alpha, "weights": dict(state.weights)} for state in states]
    write_json(path, {"states": stored, "checkpoints": hashes, "candidates": list(candidates)})


def run_states(method: str, recipe: Path | None) -> list[State]:
    """The states with which a run is scored.

    Args:
        method: the run's method.
        recipe: output of the merge job; None if the method is not a merge.
    """
    if recipe is None:
        return [State(None, {method: 1.0})]
    return [State(**state) for state in read_json(recipe)["states"]]
