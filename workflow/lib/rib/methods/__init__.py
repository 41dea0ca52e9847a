"""Fine-tuning methods, one mechanism per module. No torch here: recipes of merges are read without it.

A mechanism that trains is a subclass of `rib.methods._base.FineTuning` marked with `@mechanism`; its
constructor's keyword-only arguments are its settings, and with `**common` those of FineTuning too. A mechanism
that merges is one of the functions

    recipe(parents, *, <settings>) -> {method: weight}
    curve(parents, *, <settings>) -> {alpha: {method: weight}}
    select(parents, score, *, <settings>) -> {method: weight}

whose weights add up to 1; `score` gives the accuracy of such weights on the select split of the target, so that
`select` is for protocol `held_out` only. Settings come from the method's entry in the catalogue.
"""

from collections.abc import Mapping
from pathlib import Path

from rib.io import UserError
from rib.plugins import load_module

_marked: set[type] = set()


def mechanism(cls: type) -> type:
    """Mark a class as the mechanism of its module."""
    _marked.add(cls)
    return cls


def load_mechanism(path: str | Path, settings: Mapping):
    """The mechanism of a module, made with its settings.

    Raises:
        UserError: the module doesn't mark exactly one class, or a setting is out of range.
    """
    module = load_module(path)
    own = {found for found in vars(module).values() if isinstance(found, type) and found.__module__ == module.__name__}
    marked = list(own & _marked)
    if len(marked) != 1:
        names = ", ".join(sorted(cls.__name__ for cls in marked)) or "no class"
        raise UserError(f"{path} marks {names} with @mechanism; mark the one class that fine-tunes.")
    try:
        return marked[0](**settings)
    except ValueError as error:
        raise UserError(f"{Path(path).name}: {error}; correct the setting in the method's entry.") from error
