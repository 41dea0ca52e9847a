"""What an algorithm makes of the pretrained model and its parents on loading a run. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.plugins import load_function


@dataclass(frozen=True)
class Merge:
    """A merge or an ensemble, computed on loading.

    Iterating gives the parents, as it does for coefficients by checkpoint.
    """

    form: str  # `merge` or `ensemble` (see rib.methods)
    algorithm: str | Path  # its file
    settings: Mapping  # that fit its annotations
    parents: Sequence[str]
    run: str
    # By parent, files of Fisher information, if the algorithm takes it (rib.evaluation.fisher).
    fisher: Mapping[str, Path] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the parents."""
        return iter(self.parents)

    def call(self, function_name: str, *inputs: object) -> Any:
        """What a function of the algorithm returns for the inputs and the merge's settings.

        For example `call("coefficients", ["ft"])` calls `coefficients(["ft"], alpha=0.5)` of the
        module wise_ft.py, if the settings are {"alpha": 0.5}. An iterator of (name, tensor) is read
        to its end, and given as a dict. What is returned depends on the function (see rib.methods).

        Raises:
            UserError: The function raises a ValueError, or a LookupError, as for a list of
                coefficients that is too short.
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


# What a network is made of: the coefficients of averaged checkpoints, which add up to 1, such as
# {"pretrained": 0.5, "ft": 0.5}; or a merge.
Mixture = Mapping[str, float] | Merge
