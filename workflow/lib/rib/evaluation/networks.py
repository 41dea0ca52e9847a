"""Mixtures of checkpoints that give the networks of runs. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.plugins import checked_settings, load_function
from rib.evaluation.evaluation_settings import MergeSettings, NetworkSettings
from rib.methods import stated_in
from rib.models.merge import Merge, Mixture
from rib.schema.forms import CURVE
from rib.schema.run import ENSEMBLE, LOADED, PRETRAINED, Run

LARGEST_ROUNDING_ERROR = 1e-9  # of the sum of coefficients


class NetworkState(NamedTuple):
    """One network as a mixture of checkpoints: an average, or a merge computed on loading."""

    method: str  # method of its run, such as `wise_ft-alpha0.5`
    # A curve has a network for each alpha, such as the share (0 to 1) of the fine-tuned model. A
    # snapshot has the share of training. Else None: a method's only alpha is in its name.
    alpha: float | None
    mixture: Mixture  # such as {"pretrained": 0.5, "ft": 0.5}


@dataclass(frozen=True)
class RunNetworks:
    """The networks of a job, with their files."""

    model_folder: Path  # the pretrained model
    states: Sequence[NetworkState]
    checkpoints: Mapping[str, Path]  # such as {"ft": Path("checkpoint.safetensors")}

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """The model's preprocessing of images, such as `mean` and `std` of each channel."""
        facts = read_json(self.model_folder / "model.json")
        preprocessing: Mapping[str, Any] = facts["preprocessing"]
        return preprocessing


def network_states(
    run: Run, settings: NetworkSettings, selection: Path | None, fisher: Sequence[Path]
) -> list[NetworkState]:
    """The networks of a job as mixtures of checkpoints.

    A training has one: [NetworkState("ft", None, {"ft": 1.0})]. A merge has one for each variant
    (the method with other settings, such as `wise_ft-alpha0.25`) or alpha of a curve. A selection
    has the chosen average, and a training with snapshots a network for each.

    Args:
        run: its method names a network that is not merged here.
        selection: file written by `select_coefficients`; None for other networks.
        fisher: files of the parents' Fisher information, in their order, if the algorithm takes it.
    """
    if settings.snapshots:
        number_of_snapshots = len(settings.parents)
        return [
            NetworkState(run.method, number / number_of_snapshots, {name: 1.0})
            for number, name in enumerate(settings.parents, start=1)
        ]
    if settings.merge is not None:
        return merged_states(run, settings.parents, settings.merge, fisher)
    if selection is not None:
        return [NetworkState(run.method, None, read_json(selection)["coefficients"])]
    return [NetworkState(run.method, None, {run.method: 1.0})]


def mixture_of_run(run: Run, states: Sequence[NetworkState]) -> Mixture:
    """The mixture of a run's only network, such as {"pretrained": 0.5, "ft": 0.5}.

    Raises:
        UserError: the run is a curve or an ensemble, which has several networks.
    """
    if len(states) > 1:
        raise UserError(
            f"{run}: a curve has several networks; choose one of its end points instead."
        )
    mixture = states[0].mixture
    if isinstance(mixture, Merge) and mixture.form == ENSEMBLE:
        raise UserError(f"{run}: an ensemble has several networks; choose a method with one.")
    return mixture


def merged_states(
    run: Run, parents: Sequence[str], merge: MergeSettings, fisher: Sequence[Path] = ()
) -> list[NetworkState]:
    """Merged networks: one for each method in `merge.settings`, and for each alpha of a curve.

    WiSE-FT with alpha 0.5 gives [NetworkState("wise_ft-alpha0.5", None, {"pretrained": 0.5, "ft":
    0.5})]. An algorithm that needs tensors gives a `Merge`, which is computed on loading.

    Args:
        run: its method is not used.
        parents: keys of the merged checkpoints, such as ["ft"].
        fisher: files of the parents' Fisher information, in their order, if the algorithm takes it.

    Raises:
        UserError: a setting doesn't fit, or the coefficients of an average don't add up to 1.
    """
    states = []
    file_name = Path(merge.algorithm).name
    function = load_function(merge.algorithm, merge.form)
    for method, unchecked_settings in merge.settings.items():
        settings = checked_settings(
            function, unchecked_settings, merge.algorithm, stated_in(method)
        )
        run_of_method = str(replace(run, method=method))
        # Only for the forms in LOADED it is kept; for others its function is called here.
        algorithm = Merge(merge.form, merge.algorithm, settings, list(parents), run_of_method)
        if merge.form in LOADED:
            if fisher:
                algorithm = replace(algorithm, fisher=dict(zip(parents, fisher, strict=True)))
            states.append(NetworkState(method, None, algorithm))
        elif merge.form == CURVE:
            for alpha, coefficients in algorithm.call(merge.form, list(parents)).items():
                check_coefficients(coefficients, parents, file_name)
                states.append(NetworkState(method, alpha, _sorted(coefficients)))
        else:
            coefficients = algorithm.call(merge.form, list(parents))
            check_coefficients(coefficients, parents, file_name)
            states.append(NetworkState(method, None, _sorted(coefficients)))
    return states


def _sorted(coefficients: Mapping[str, float]) -> dict[str, float]:
    """Sorted by name, as the manifest: sums in the same order are equal to the last bit."""
    return dict(sorted(coefficients.items()))


def check_coefficients(
    coefficients: Mapping[str, float], parents: Sequence[str], algorithm: str
) -> None:
    """Raise a UserError unless coefficients add up to 1 and belong to parents or `pretrained`.

    Args:
        coefficients: such as {"pretrained": 0.5, "ft": 0.5}.
        parents: keys of the averaged checkpoints, such as ["ft"] or ["ft, seed 0", "ft, seed 1"].
        algorithm: name of the algorithm's file, for the message.
    """
    unknown_names = coefficients.keys() - {PRETRAINED, *parents}
    if unknown_names:
        allowed_names = ", ".join((*parents, PRETRAINED))
        raise UserError(
            f"{algorithm} weighs '{min(unknown_names)}', which is not merged; "
            f"name only {allowed_names}."
        )
    total = sum(coefficients.values())
    if abs(total - 1) > LARGEST_ROUNDING_ERROR:
        raise UserError(f"{algorithm}: the coefficients add up to {total}, not 1; correct it.")


def states_as_json(states: Sequence[NetworkState]) -> list[dict[str, Any]]:
    """Networks as entries of a manifest.

    For example [{"method": "wise_ft-alpha0.5", "alpha": None, "coefficients": {"pretrained": 0.5,
    "ft": 0.5}}]. A `Merge` gives `merge` in place of `coefficients`, with the algorithm's name but
    not its path, since a manifest may come from others.
    """
    entries = []
    for state in states:
        entry: dict[str, Any] = {"method": state.method, "alpha": state.alpha}
        if isinstance(state.mixture, Merge):
            fields_of_merge = dict(vars(state.mixture))
            del fields_of_merge["fisher"]
            fields_of_merge["algorithm"] = Path(state.mixture.algorithm).stem
            entry["merge"] = fields_of_merge
        else:
            entry["coefficients"] = dict(state.mixture)
        entries.append(entry)
    return entries


def states_from_json(entries: Sequence[Mapping[str, Any]]) -> list[NetworkState]:
    """Undo `states_as_json`, except that a `Merge` has its algorithm's name, not its path."""
    states = []
    for entry in entries:
        mixture: Mixture = Merge(**entry["merge"]) if "merge" in entry else entry["coefficients"]
        states.append(NetworkState(entry["method"], entry["alpha"], mixture))
    return states
