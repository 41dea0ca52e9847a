"""Fine-tuning methods, one algorithm per module. No torch here: recipes of merges don't need it.

An algorithm that trains is a subclass of `rib.methods.base.FineTuning` marked with `@algorithm`. The keyword-only
arguments of its constructor are its settings; `**common` adds those of FineTuning. Settings with a default are optional
in the entry. An algorithm that merges is one of the functions

    recipe(parents, *, <settings>) -> {parent: weight}
    curve(parents, *, <settings>) -> {alpha: {parent: weight}}
    select(parents, score, *, <settings>) -> {parent: weight}

whose weights add up to 1. A parent is named by its method and, in a merge over seeds or targets, by what it differs in, such as
`ft, seed 1`. `score` returns the accuracy of such weights on the select split of the target, so `select`
needs protocol `held_out`. Settings come from the method's entry in the catalogue.
"""

from collections.abc import Mapping
from pathlib import Path

from rib.base.errors import UserError
from rib.base.plugins import load_module

_marked: set[type] = set()


def algorithm(cls: type) -> type:
    """Mark a class as the algorithm of its module."""
    _marked.add(cls)
    return cls


def load_algorithm(path: str | Path, settings: Mapping):
    """The algorithm of a module, with its settings; a UserError unless one class is marked and they are in range."""
    module = load_module(path)
    own = {found for found in vars(module).values() if isinstance(found, type) and found.__module__ == module.__name__}
    marked = list(own & _marked)
    if len(marked) != 1:
        names = ", ".join(sorted(cls.__name__ for cls in marked)) or "no class"
        raise UserError(f"{path} marks {names} with @algorithm; mark exactly one class.")
    try:
        return marked[0](**settings)
    except ValueError as error:
        raise UserError(f"{Path(path).name}: {error}; correct the setting in the method's entry.") from error
