"""Files of merges, which say how weights are made of checkpoints, in place of copies. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.entries import CURVE
from rib.config.run import LOADED, PRETRAINED, Run
from rib.evaluation.settings import MergeSettings
from rib.models.merge import Merge, Weights

LARGEST_ROUNDING_ERROR = 1e-9  # of the sum of weights


class NetworkState(NamedTuple):
    """State of a network with which a run is scored."""

    alpha: float | None  # None unless the run is a curve; of a snapshot, the share of training
    weights: Weights  # of averaged methods, which add up to 1; or what an algorithm makes of them


@dataclass(frozen=True)
class RunNetworks:
    """What the networks of a run, one for each of its states, are made of."""

    model_folder: Path  # of the pretrained model
    states: Sequence[NetworkState]
    checkpoints: Mapping[str, Path]  # by the names that the states weigh


def write_merge(
    *, run: Run, manifests: Sequence[Path], settings: MergeSettings, merge_file: Path
) -> None:
    """Write the file of a merge (see `store_merge`).

    What is computed on loading (`merge`, `ensemble`) needs torch, and is not loaded here.

    Args:
        manifests: those of the checkpoints, in the order of the parents.

    Raises:
        UserError: the method's entry is wrong, or its weights don't add up to 1.
    """
    parents = list(settings.parents)
    merge = Merge(settings.form, settings.algorithm, settings.settings, parents, str(run))
    algorithm_file = Path(settings.algorithm)
    if settings.form in LOADED:
        states = [NetworkState(None, replace(merge, algorithm=algorithm_file.stem))]
    elif settings.form == CURVE:
        states = []
        for alpha, weights in merge.call(settings.form, parents).items():
            _refuse_other_sum_than_one(weights, algorithm_file)
            states.append(NetworkState(alpha, weights))
    else:
        weights = merge.call(settings.form, parents)
        _refuse_other_sum_than_one(weights, algorithm_file)
        states = [NetworkState(None, weights)]
    store_merge(merge_file, states, parents, manifests, [])


def _refuse_other_sum_than_one(weights: Mapping[str, float], algorithm_file: Path) -> None:
    """Raise a UserError unless the weights of an average, such as {"ft": 1.0}, add up to 1."""
    total = sum(weights.values())
    if abs(total - 1) > LARGEST_ROUNDING_ERROR:
        raise UserError(f"{algorithm_file.name}: the weights add up to {total}, not 1; correct it.")


def store_merge(
    path: Path,
    states: Sequence[NetworkState],
    parents: Sequence[str],
    manifests: Sequence[Path],
    candidates: Sequence[Mapping],
) -> None:
    """Write the file of a merge as JSON: states, hashes of the parents' checkpoints, candidates.

    A state has alpha and either weights by parent or, as `merge`, what to run on loading: the name
    of an algorithm, not its file, since files may come from others.

    Args:
        manifests: those of the checkpoints, in the order of the parents.
        candidates: the weights among which these were selected, with their scores.

    Raises:
        UserError: a state weighs something else than the parents and the pretrained model.
    """
    _refuse_unknown_names(states, parents)
    hash_of_parent = {}
    for parent, manifest in zip(parents, manifests, strict=True):
        hash_of_parent[parent] = read_json(manifest)["files"]["checkpoint.safetensors"]
    merge = {
        "states": [{"alpha": state.alpha, **_stored(state.weights)} for state in states],
        "checkpoints": hash_of_parent,
        "candidates": list(candidates),
    }
    write_json(path, merge)


def _refuse_unknown_names(states: Sequence[NetworkState], parents: Sequence[str]) -> None:
    """Raise a UserError if a state weighs something else than the parents and the pretrained model.

    It names the first of them.
    """
    weighed_names: set[str] = set()
    for state in states:
        weighed_names.update(state.weights)
    unknown_names = weighed_names - {PRETRAINED, *parents}
    if unknown_names:
        allowed_names = ", ".join((*parents, PRETRAINED))
        first_unknown = min(repr(name) for name in unknown_names)
        raise UserError(
            f"the merge weighs {first_unknown}, which is not merged; name only {allowed_names}."
        )


def _stored(weights: Weights) -> dict:
    """Weights as a file has them: {"weights": {"ft": 1.0}}, or {"merge": ...} with its fields.

    The files of Fisher information are not stored; they are given when a run is loaded.
    """
    if not isinstance(weights, Merge):
        return {"weights": dict(weights)}
    fields_of_merge = dict(vars(weights))
    del fields_of_merge["fisher"]
    return {"merge": fields_of_merge}


def run_states(
    method: str,
    merge_file: Path | None,
    algorithm: str | Path | None = None,
    fisher: Sequence[Path] = (),
) -> list[NetworkState]:
    """The states with which a run is scored: several of a curve, otherwise one.

    Args:
        method: of the run, such as `ft`.
        merge_file: that of a merge; None for a method that has a checkpoint, or the pretrained
            model.
        algorithm: for a merge that is computed on loading, its algorithm's file; by default only
            the name is known.
        fisher: files of the parents' Fisher information, in their order, if the algorithm takes it.
    """
    if merge_file is None:
        return [NetworkState(None, {method: 1.0})]
    states = read_json(merge_file)["states"]
    if "merge" not in states[0]:
        return [NetworkState(state["alpha"], state["weights"]) for state in states]
    stored_merge = states[0]["merge"]
    merge = Merge(
        form=stored_merge["form"],
        algorithm=algorithm or stored_merge["algorithm"],
        settings=stored_merge["settings"],
        parents=stored_merge["parents"],
        run=stored_merge["run"],
    )
    if fisher:
        merge = replace(merge, fisher=dict(zip(merge.parents, fisher, strict=True)))
    return [NetworkState(None, merge)]
