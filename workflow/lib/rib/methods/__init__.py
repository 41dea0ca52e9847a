"""Fine-tuning methods, one algorithm per module. No torch here: weights of merges don't need it.

An algorithm that trains is a subclass of `rib.methods.base.FineTuning` marked with `@algorithm`.
Its settings are its annotated fields, in addition to those of FineTuning, or the keyword-only
arguments of its constructor, where `**common` adds those of FineTuning. Settings with a default are
optional in the entry. An algorithm that merges is one of the functions

    weights(parents, *, <settings>) -> {parent: weight}
    curve(parents, *, <settings>) -> {alpha: {parent: weight}}
    select(parents, score, *, <settings>) -> {parent: weight}

whose weights add up to 1. A parent is named by its method and, in a merge over seeds or targets, by
what it differs in, such as `ft, seed 1`. `score` returns the accuracy of such weights on the select
split of the target, so `select` needs protocol `held_out`. One that needs more than weights is one
of

    merge(states, *, <settings>) -> iterator of (name, tensor)
    ensemble(networks, *, <settings>) -> network

and runs whenever the merged run is loaded; only its name and settings are stored. `merge` yields
the merged parameters one by one, in the network's order, from `states`
(rib.models.checkpoint.StatesToMerge), which reads the parents' tensors by name when they are asked
for. Buffers are averaged and counters kept without it. If `merge` has a second argument `fisher`,
the diagonal Fisher information of each parent is computed first, on the parent's training images,
at most as many as the setting `fisher_images`, which it must have: {parent: {name: tensor}}.
`ensemble` makes one network of those of the pretrained model and the parents, by name.
FEWEST_PARENTS in the module is the smallest number of parents, 1 by default; MOST_IMAGES is the
largest number of images of an evaluated dataset, without limit by default.

An algorithm that trains with the Fisher information of its start has the settings `fisher`,
`sampled` or `empirical` (see rib.models.fisher), and `fisher_images`. If there is a pretraining
proxy and it starts from the pretrained model, the workflow computes it once for all targets, and
the task has it (rib.methods.base.Task).

Settings come from the method's entry in the catalogue. They are checked against their annotations,
among them `Literal` with texts to choose from and those below, which state a range (see
rib.config.ranges).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from rib.base.errors import UserError
from rib.base.plugins import load_module

# To Python and the type checker they are numbers. The name is what rib.config.ranges calls a range.
Share = Annotated[float, "Share"]  # above 0 and at most 1
Positive = Annotated[float, "Positive"]  # above 0
NonNegative = Annotated[float, "NonNegative"]  # at least 0
BelowOne = Annotated[float, "BelowOne"]  # at least 0 and below 1
UpToOne = Annotated[float, "UpToOne"]  # 0 to 1
Count = Annotated[int, "Count"]  # at least 1

_marked_classes: set[type] = set()


def algorithm(cls: type) -> type:
    """Mark a class as the algorithm of its module.

    It gets a constructor with its fields as arguments, unless it has one.
    """
    _marked_classes.add(cls)
    return dataclass(kw_only=True, eq=False, repr=False)(cls)


def load_algorithm(path: str | Path, settings: Mapping) -> Any:
    """The algorithm of a module, with its settings: an object of the class marked `@algorithm`.

    It is a rib.methods.base.FineTuning, which needs torch and so is not named in the type.

    Args:
        path: file of the module, such as `workflow/lib/rib/methods/lwf.py`.
        settings: arguments of the class, such as {"lr": 0.001, "temperature": 2.0}.

    Raises:
        UserError: Not exactly one class of the module is marked, or a setting is out of its range.
    """
    algorithm_class = _marked_class_of(load_module(path), path)
    try:
        return algorithm_class(**settings)
    except ValueError as error:
        raise UserError(
            f"{Path(path).name}: {error}; correct the setting in the method's entry."
        ) from error


def _classes_named_in(module: ModuleType) -> set[type]:
    """The classes that a module defines or imports."""
    return {attribute for attribute in vars(module).values() if isinstance(attribute, type)}


def _marked_class_of(module: ModuleType, path: str | Path) -> type:
    """The class that a module defines and marks with `@algorithm`.

    Raises:
        UserError: It marks none, or several.
    """
    marked_in_module = set()
    for marked_class in _marked_classes & _classes_named_in(module):
        # A class that the module only imports is the algorithm of another one.
        if marked_class.__module__ == module.__name__:
            marked_in_module.add(marked_class)
    if len(marked_in_module) == 1:
        (marked_class,) = marked_in_module
        return marked_class
    names = "no class"
    if marked_in_module:
        names = ", ".join(sorted(cls.__name__ for cls in marked_in_module))
    raise UserError(f"{path} marks {names} with @algorithm; mark exactly one class.")
