"""What an algorithm makes of the pretrained model and its parents when a run is loaded. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Merge:
    """A merge or an ensemble, computed on loading; iterating gives the parents, as for weights by method.

    Attributes:
        form: `merge` or `ensemble` (see rib.methods).
        algorithm: file of the algorithm.
        run: the run, as text, from which an algorithm that draws random numbers makes its seeds.
        fisher: by parent, the file of its Fisher information (rib.evaluation.fisher), if the algorithm takes it.
    """

    form: str
    algorithm: str | Path
    settings: Mapping
    parents: Sequence[str]
    run: str
    fisher: Mapping[str, Path] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parents)
