"""Merges: recipes over checkpoints. Writing one needs no torch, and no weights are stored twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.io import UserError, read_json, write_json
from rib.plugins import load_module


def write_recipe(
    *, mechanism: str, settings: Mapping, parents: Sequence[str], manifests: Sequence[Path], recipe: Path
) -> None:
    """Write which states are averaged with which weights.

    Args:
        mechanism: file of the method's mechanism.
        settings: its settings.
        parents: the fine-tuned methods that are merged.
        manifests: of their checkpoints, in the same order.
        recipe: written as JSON: `weights` by method and the parents' checkpoint hashes.

    Raises:
        UserError: the entry doesn't suit the mechanism, or the weights don't add up to 1.
    """
    try:
        weights = load_module(mechanism).recipe(parents, **settings)
    except ValueError as error:
        raise UserError(f"{Path(mechanism).name}: {error}; correct the method's entry.") from error
    if abs(sum(weights.values()) - 1) > 1e-9:
        raise UserError(
            f"{Path(mechanism).name}: the weights add up to {sum(weights.values())}, not 1; correct the recipe."
        )
    hashes = {
        parent: read_json(manifest)["files"]["checkpoint.safetensors"]
        for parent, manifest in zip(parents, manifests, strict=True)
    }
    write_json(recipe, {"weights": weights, "checkpoints": hashes})


def run_weights(method: str, recipe: Path | Sequence) -> dict[str, float]:
    """Weight of each state that a run averages, by method.

    Args:
        method: the run's method.
        recipe: what a merge job wrote; empty for a method that isn't a merge.
    """
    return read_json(recipe)["weights"] if recipe else {method: 1.0}
