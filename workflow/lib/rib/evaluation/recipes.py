"""Merges, stored as recipes over checkpoints instead of copies of the weights. No torch."""

from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.plugins import load_module
from rib.config.run import PRETRAINED


class State(NamedTuple):
    """State of a network with which a run is scored."""

    alpha: float | None  # None unless the run is a curve; of a snapshot, the share of training
    weights: Mapping[str, float]  # of the averaged methods; they add up to 1


def write_recipe(
    *, algorithm: str, settings: Mapping, parents: Sequence[str], manifests: Sequence[Path], recipe: Path
) -> None:
    """Write a merge's recipe (see `store_recipe`); a UserError if its entry is wrong or weights don't add up to 1."""
    module = load_module(algorithm)
    curved = hasattr(module, "curve")
    try:
        found = module.curve(parents, **settings) if curved else {None: module.recipe(parents, **settings)}
    except (ValueError, LookupError) as error:  # LookupError: of a list of coefficients that is too short
        raise UserError(f"{Path(algorithm).name}: {error}; correct the method's entry.") from error
    for total in (sum(weights.values()) for weights in found.values()):
        if abs(total - 1) > 1e-9:
            raise UserError(f"{Path(algorithm).name}: the weights add up to {total}, not 1; correct it.")
    store_recipe(recipe, list(starmap(State, found.items())), parents, manifests, [])


def store_recipe(
    path: Path, states: list[State], parents: Sequence[str], manifests: Sequence[Path], candidates: list[Mapping]
) -> None:
    """Write a recipe as JSON: states (alpha and weights by parent), hashes of the parents' checkpoints, candidates.

    The manifests are those of the checkpoints, in the order of the parents; the candidates have their scores.

    Raises:
        UserError: a state weighs something else than the parents and the pretrained model.
    """
    if unknown := {name for state in states for name in state.weights} - {PRETRAINED, *parents}:
        named = ", ".join((*parents, PRETRAINED))
        raise UserError(f"the recipe weighs {min(map(repr, unknown))}, which is not merged; name only {named}.")
    hashes = [read_json(manifest)["files"]["checkpoint.safetensors"] for manifest in manifests]
    checkpoints = dict(zip(parents, hashes, strict=True))
    stored = [{"alpha": state.alpha, "weights": dict(state.weights)} for state in states]
    write_json(path, {"states": stored, "checkpoints": checkpoints, "candidates": candidates})


def run_states(method: str, recipe: Path | None) -> list[State]:
    """The states with which a run is scored."""
    if recipe is None:
        return [State(None, {method: 1.0})]
    return [State(**state) for state in read_json(recipe)["states"]]
