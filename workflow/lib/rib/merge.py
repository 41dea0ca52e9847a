"""Merges: recipes over checkpoints. Writing one needs no torch, and no weights are stored twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.io import UserError, read_json, write_json
from rib.plugins import load_module

# A state of a curve and its alpha, or the one state of a run and None.
State = tuple[float | None, Mapping[str, float]]


def write_recipe(
    *, mechanism: str, settings: Mapping, parents: Sequence[str], manifests: Sequence[Path], recipe: Path
) -> None:
    """Write which states are averaged with which weights.

    Args:
        mechanism: file of the method's mechanism.
        settings: its settings.
        parents: the fine-tuned methods that are merged.
        manifests: of their checkpoints, in the same order.
        recipe: written as JSON (see `store_recipe`).

    Raises:
        UserError: the entry doesn't suit the mechanism, or the weights don't add up to 1.
    """
    module = load_module(mechanism)
    try:
        if hasattr(module, "curve"):
            states = list(module.curve(parents, **settings).items())
        else:
            states = [(None, module.recipe(parents, **settings))]
    except ValueError as error:
        raise UserError(f"{Path(mechanism).name}: {error}; correct the method's entry.") from error
    for _, weights in states:
        if abs(sum(weights.values()) - 1) > 1e-9:
            raise UserError(
                f"{Path(mechanism).name}: the weights add up to {sum(weights.values())}, not 1; correct the recipe."
            )
    store_recipe(recipe, states, parents, manifests, [])


def store_recipe(
    path: Path,
    states: Sequence[State],
    parents: Sequence[str],
    manifests: Sequence[Path],
    candidates: Sequence[Mapping],
) -> None:
    """Write a recipe: `states` (alpha and weights by method), the parents' checkpoint hashes, candidates' scores."""
    hashes = {
        parent: read_json(manifest)["files"]["checkpoint.safetensors"]
        for parent, manifest in zip(parents, manifests, strict=True)
    }
    states = [{"alpha": alpha, "weights": dict(weights)} for alpha, weights in states]
    write_json(path, {"states": states, "checkpoints": hashes, "candidates": list(candidates)})


def run_states(method: str, recipe: Path | Sequence) -> list[State]:
    """The states that a run is scored in: alpha (None if it has but one) and the weight of each method in it.

    Args:
        method: the run's method.
        recipe: what a merge job wrote; empty for a method that isn't a merge.
    """
    if not recipe:
        return [(None, {method: 1.0})]
    return [(state["alpha"], state["weights"]) for state in read_json(recipe)["states"]]
