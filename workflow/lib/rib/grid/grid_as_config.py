"""A grid as choices of config: for records, and as a config.yaml that gives the grid again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from rib.schema.algorithm_settings import RECIPE
from rib.schema.entries import Method
from rib.schema.run import ALL

if TYPE_CHECKING:
    from rib.grid.grid import Grid

# Keys of config that don't affect results.
UNRECORDED = ("name", "catalog", "archives", "external", "monitor")
# Settings of the machine, on which results do not depend. With `deterministic: warn`, a training on
# CUDA may give different numbers each time, but no digest could express that.
OF_MACHINE = ("jobs_per_gpu", "gpu_memory_gb", "max_runtime", "decode_workers", "deterministic")
# Keys that concern a call, not the grid.
OF_CALL = ("archives", "monitor")


def as_config(grid: Grid) -> dict[str, Any]:
    """Keys of a config.yaml that gives this grid: {"models": ["net"], "targets": ["noto"], ...}.

    The page shows it, so that others can repeat the run. Every `default` and `all` is resolved. Not
    resolved are recipes and lengths of trainings, which depend on the method, and settings that a
    method's entry and the family state.
    """
    choices_of_grid = dict(grid.config)
    choices_of_grid["uncropped"] = grid.uncropped
    models = grid.config["models"]
    if models in ("default", "all"):
        models = list(grid.models)
    choices_of_grid["datasets"] = list(grid.datasets)
    choices_of_grid["reference"] = _reference_choice(grid)
    choices_of_grid["models"] = models
    choices_of_grid["methods"] = grid.entries_of_methods
    choices_of_grid["targets"] = grid.all_targets
    choices_of_grid["image_size"] = grid.choice("image_size")
    choices_of_grid["train_subset"] = [_size_in_config(size) for size in grid.sizes]
    choices_of_grid["training"] = grid.config["training"] | grid.shared_training()
    return {key: choices_of_grid[key] for key in choices_of_grid if key not in OF_CALL}


def _reference_choice(grid: Grid) -> str:
    """Config's `reference` with which this pretraining proxy is chosen again."""
    if grid.reference is None:
        return "none"
    is_part_of_dataset = grid.reference.images_per_class is not None
    if is_part_of_dataset:
        # Only a family's file can define a part, as the family's default.
        return "default"
    return grid.reference.dataset.name


def _size_in_config(size: str) -> str | int | float:
    """A number of images for "500", a fraction for "0.5"."""
    if size == ALL:
        return size
    return float(size) if "." in size else int(size)


def resolved(grid: Grid) -> dict[str, Any]:
    """The choices on which results depend, with every `default` and `all` resolved.

    Pages and model cards state them. Settings of the machine are left out. Unlike in `as_config`,
    methods are variants with all of their settings: {"methods": ["ft-lr0.1"], "method_settings":
    {"ft-lr0.1": {"lr": 0.1, ...}}, ...}.
    """
    recorded = {key: choice for key, choice in grid.config.items() if key not in UNRECORDED}
    compute = grid.config["compute"]
    reference = grid.reference.dataset.name if grid.reference else None
    method_settings = {}
    for name, method in grid.methods.items():
        method_settings[name] = _settings_in_config(method)
    recipes = [method.recipe for method in grid.methods.values() if method.recipe]
    del recorded["uncropped"]
    if grid.uncropped:  # left out if empty, as in records older than this key
        recorded["uncropped"] = grid.uncropped
    are_subsets_shorter = any(
        grid.shortened_trainings(target, size)
        for target, size in itertools.product(grid.all_targets, grid.sizes)
    )
    if are_subsets_shorter:  # for the same reason
        recorded["subset_ceiling"] = grid.images_of_ceiling
    return {
        **recorded,
        "budget": {
            "max_images_per_dataset": grid.budget.limits(
                [dataset.name for dataset in grid.datasets_read()]
            )
        },
        "compute": {key: compute[key] for key in compute if key not in OF_MACHINE},
        "datasets": list(grid.datasets),
        "reference": reference,
        "models": list(grid.models),
        "methods": list(grid.methods),
        "method_settings": method_settings,
        "recipes": list(dict.fromkeys(recipes)),
        "targets": grid.all_targets,
        "compare_to": grid.compare_to,
        "image_size": grid.choice("image_size"),
        "train_subset": grid.sizes,
        "training": grid.shared_training(),
    }


def _settings_in_config(method: Method) -> dict[str, Any]:
    """Settings as `method_settings` states them: {"lr": 0.1, "recipe": "paper", "epochs": 10}.

    Only a method that trains has recipe and length.
    """
    if not method.trains:
        return dict(method.settings)
    return {**method.settings, RECIPE: method.recipe, **method.length}
