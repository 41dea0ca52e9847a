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

_registered: dict[str, type] = {}


def mechanism(cls: type) -> type:
    """Mark a class as the mechanism of its module.

    Raises:
        ValueError: the module has marked another one already.
    """
    if cls.__module__ in _registered:
        raise ValueError(
            f"{cls.__module__} marks two mechanisms, {_registered[cls.__module__].__name__} and {cls.__name__}"
        )
    _registered[cls.__module__] = cls
    return cls


def load_mechanism(path: str | Path, settings: Mapping):
    """The mechanism of a module, made with its settings.

    Raises:
        UserError: the module marks none, or a setting is out of range.
    """
    _registered.pop(f"rib_plugin_{Path(path).stem}", None)
    module = load_module(path)
    if module.__name__ not in _registered:
        raise UserError(f"{path} marks no class with @mechanism; mark the one that fine-tunes.")
    try:
        return _registered[module.__name__](**settings)
    except ValueError as error:
        raise UserError(f"{Path(path).name}: {error}; correct the setting in the method's entry.") from error
