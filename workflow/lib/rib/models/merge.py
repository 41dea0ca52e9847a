"""Merges and ensembles, which are computed when a run is loaded. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.plugins import load_function


@dataclass(frozen=True)
class Merge:
    """How to compute a run's network from its parents (fine-tuned models) when it is loaded.

    It is for methods that are no average. The form `merge` gives tensors of one network, as TIES;
    `ensemble` gives a network that calls several. Iterating gives the names of the parents, as
    iterating over coefficients gives their keys.
    """

    form: str  # `merge` or `ensemble`; others only while their coefficients are computed
    algorithm: str | Path  # file of the module
    settings: Mapping  # checked against the function's annotations
    parents: Sequence[str]  # fine-tuned models, such as ["ft", "lwf"]
    run: str  # such as `tiny_cnn/green/dare/all/0`, for seeds
    # File of each parent's Fisher information, if the algorithm takes it.
    fisher: Mapping[str, Path] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parents)

    def call(self, function_name: str, *inputs: object) -> Any:
        """Call a function of the algorithm with the inputs and the merge's settings.

        With the settings {"alpha": 0.5}, `call("coefficients", ["ft"])` calls
        `coefficients(["ft"], alpha=0.5)` of wise_ft.py and returns {"pretrained": 0.5, "ft": 0.5}.
        An iterator of pairs (name, tensor) is returned as a dict.

        Raises:
            UserError: the function raises a ValueError or a LookupError, for example for too short
                a list in the settings.
        """
        function = load_function(self.algorithm, function_name)
        try:
            output = function(*inputs, **self.settings)
            if isinstance(output, Iterator):
                return dict(output)
            return output
        except (ValueError, LookupError) as error:
            raise UserError(
                f"{Path(self.algorithm).name}: {error}; correct the method's entry."
            ) from error


# A run's network is not stored, but mixed from stored checkpoints when it is loaded. A mixture says
# how: coefficients of an average, which add up to 1, such as {"pretrained": 0.5, "ft": 0.5}, where
# {"ft": 1.0} is one checkpoint; or a merge, for methods that are no average.
Mixture = Mapping[str, float] | Merge
