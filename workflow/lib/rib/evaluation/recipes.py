"""Merges, stored as recipes over checkpoints instead of copies of the weights. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.entries import CURVE
from rib.config.run import LOADED, PRETRAINED, Run
from rib.models.merge import Merge, Weights


class State(NamedTuple):
    """State of a network with which a run is scored."""

    alpha: float | None  # None unless the run is a curve; of a snapshot, the share of training
    weights: Weights  # of averaged methods, which add up to 1; or what an algorithm makes of them


def write_recipe(
    *,
    algorithm: str,
    settings: Mapping,
    parents: Sequence[str],
    manifests: Sequence[Path],
    recipe: Path,
    form: str,
    run: Run | None = None,
) -> None:
    """Write a merge's recipe (see `store_recipe`); a UserError if its entry is wrong or weights don't add up to 1.

    What is computed on loading (`merge`, `ensemble`) needs torch, and is not loaded here.
    """
    made = Merge(form, algorithm, settings, parents, str(run))
    if form in LOADED:
        found = {None: replace(made, algorithm=Path(algorithm).stem)}
    else:
        weights = made.call(form, parents)
        found = weights if form == CURVE else {None: weights}
        for total in (sum(own.values()) for own in found.values()):
            if abs(total - 1) > 1e-9:
                raise UserError(
                    f"{Path(algorithm).name}: the weights add up to {total}, not 1; correct it."
                )
    store_recipe(recipe, list(starmap(State, found.items())), parents, manifests, [])


def store_recipe(
    path: Path,
    states: list[State],
    parents: Sequence[str],
    manifests: Sequence[Path],
    candidates: list[Mapping],
) -> None:
    """Write a recipe as JSON: states, hashes of the parents' checkpoints, candidates.

    A state has alpha and either weights by parent or, as `merge`, what to run on loading: the name of an algorithm, not its
    file, since recipes may come from others. The manifests are those of the checkpoints, in the order of the parents; the
    candidates have their scores. A UserError if a state weighs something else than the parents and the pretrained model.
    """
    if unknown := {name for state in states for name in state.weights} - {PRETRAINED, *parents}:
        named = ", ".join((*parents, PRETRAINED))
        raise UserError(
            f"the recipe weighs {min(map(repr, unknown))}, which is not merged; name only {named}."
        )
    hashes = [read_json(manifest)["files"]["checkpoint.safetensors"] for manifest in manifests]
    checkpoints = dict(zip(parents, hashes, strict=True))
    stored = [{"alpha": state.alpha, **_stored(state.weights)} for state in states]
    write_json(path, {"states": stored, "checkpoints": checkpoints, "candidates": candidates})


def _stored(weights: Weights) -> dict:
    if not isinstance(weights, Merge):
        return {"weights": dict(weights)}
    return {"merge": {name: value for name, value in vars(weights).items() if name != "fisher"}}


def run_states(
    method: str,
    recipe: Path | None,
    algorithm: str | Path | None = None,
    fisher: Sequence[Path] = (),
) -> list[State]:
    """The states with which a run is scored.

    Args:
        algorithm, fisher: for a merge that is computed on loading, its algorithm's file (by default only the name is known),
            and those of the parents' Fisher information, in their order, if it takes them.
    """
    if recipe is None:
        return [State(None, {method: 1.0})]
    states = read_json(recipe)["states"]
    if "merge" not in states[0]:
        return [State(**state) for state in states]
    made = states[0]["merge"]
    made |= {"algorithm": algorithm or made["algorithm"]}
    return [
        State(
            None,
            Merge(**made, fisher=dict(zip(made["parents"], fisher, strict=True)) if fisher else {}),
        )
    ]
