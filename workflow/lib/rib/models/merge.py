"""What an algorithm makes of the pretrained model and its parents when a run is loaded. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.errors import UserError
from rib.base.plugins import load_module


@dataclass(frozen=True)
class Merge:
    """A merge or an ensemble, computed on loading; iterating gives the parents, as for weights by method."""

    form: str  # `merge` or `ensemble` (see rib.methods)
    algorithm: str | Path  # its file
    settings: Mapping
    parents: Sequence[str]
    run: str
    fisher: Mapping[str, Path] = field(
        default_factory=dict
    )  # by parent, if it takes it (rib.evaluation.fisher)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parents)

    def call(self, function: str, *inputs):
        """Call the algorithm's function with its settings, through the last item of an iterator; its ValueError is the user's."""
        try:
            made = getattr(load_module(self.algorithm), function)(*inputs, **self.settings)
            return dict(made) if isinstance(made, Iterator) else made
        except (
            ValueError,
            LookupError,
        ) as error:  # LookupError: of a list of coefficients that is too short
            raise UserError(
                f"{Path(self.algorithm).name}: {error}; correct the method's entry."
            ) from error


Weights = (
    Mapping[str, float] | Merge
)  # of a state: of averaged methods, or what an algorithm makes of them
