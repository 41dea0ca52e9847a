"""Variants of the methods of a run, with resolved settings.

A method has one variant for each recipe that it is trained with and each combination of swept
settings.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from rib.base.errors import UserError
from rib.catalog.catalog import Catalog
from rib.grid.choices import as_list
from rib.schema.algorithm_settings import (
    LENGTH,
    OTHER,
    RATE,
    RECIPE,
    check_settings,
    is_sweep,
    known_settings,
)
from rib.schema.entries import Family, Method
from rib.schema.forms import COEFFICIENTS, MERGES
from rib.schema.messages import known_name
from rib.schema.run import VARIANTS, in_path

VARIANT = re.compile(r"[A-Za-z0-9_.-]{1,200}")


@dataclass(frozen=True)
class Variant:
    """A method with one recipe and one value of each setting."""

    method: Method
    # Swept settings of the method and its parents, and the recipe if the name has it: {"lr": 0.1}
    # for `ft-lr0.1`.
    settings_in_name: dict[str, object]


def resolve_methods(names: Iterable[str], variants: "Variants") -> dict[str, Method]:
    """Variants of methods by name: {"ft-lr0.1": Method, "ft-lr0.01": Method}.

    Their settings are from entry, family and config. A merge, or a method that starts from another
    one, has a variant for each combination of its parents' variants with the same recipe. A merge
    over variants has one per recipe. Names omit the family's first recipe.

    Raises:
        UserError: A name is unknown, a method has no learning rate, or a swept value cannot be part
            of a name.
    """
    resolved = {}
    for name in names:
        for variant in variants.of(name):
            method = variant.method
            if method.name in resolved or not VARIANT.fullmatch(method.name):
                raise UserError(
                    f"the swept method '{method.name[:200]}' does not have a unique name that is "
                    "valid in paths; sweep over numbers or short words, and list each value once."
                )
            resolved[method.name] = method
    return resolved


class Variants:
    """Makes the variants of each method, in the order of recipes and swept values.

    `Variants(...).of("ft")` gives a Variant for each of `ft-lr0.1` and `ft-lr0.01`.

    Args:
        recipes: names of the recipes that config or family choose for all methods.

    Raises:
        UserError: A method doesn't have a setting that family or config state, a setting has the
            wrong type, or a learning rate is for an unknown model.
    """

    def __init__(
        self, recipes: Sequence[str], config: Mapping[str, Any], family: Family, catalog: Catalog
    ):
        """Check the settings that family and config state; `of` makes the variants."""
        self.recipes = recipes
        self.family = family
        self.catalog = catalog
        where = f"families/{family.name}.yaml"
        self.can_fit = [
            known_name(name, catalog.methods, "method", f"{where}, can_fit")
            for name in family.can_fit
        ]
        # By method, such as {"ft": {"lr": 1e-5}}.
        self.settings_of_family = self._checked_settings(
            f"{where}, method_settings", family.method_settings
        )
        # By recipe and method, such as {"adamw": {"ft": {"lr": 1e-5}}}.
        self.settings_of_recipe = self._settings_of_recipes(where)
        self.settings_of_config = self._checked_settings(
            "config, method_settings", config["method_settings"]
        )
        self.default_recipes = config["recipes"] == "default"
        self.all_recipes = config["recipes"] == "all"
        self.length = {}  # epochs or steps, if config states them for all methods
        for key in LENGTH:
            if config["training"][key] != "default":
                self.length[key] = config["training"][key]
        self.of = cache(self._variants_of)  # a merge asks for its parents' variants again

    def _settings_of_recipes(self, where: str) -> dict[str, dict[str, dict[str, Any]]]:
        """{"adamw": {"ft": {"lr": 1e-5}}}, settings of the family for single recipes."""
        settings_of_recipes = {}
        for recipe, settings_of_methods in self.family.recipes.items():
            known_name(recipe, self.catalog.recipes, "recipe", f"{where}, recipes")
            settings_of_recipes[recipe] = self._checked_settings(
                f"{where}, recipes, {recipe}", settings_of_methods, allow_recipe=False
            )
        return settings_of_recipes

    def _checked_settings(
        self,
        where: str,
        settings_of_methods: Mapping[str, dict[str, Any]],
        allow_recipe: bool = True,
    ) -> dict[str, dict[str, Any]]:
        """Settings by method: {"ft": {"lr": "1e-5"}} gives {"ft": {"lr": 1e-5}}.

        `where` names the key that states them, for messages.
        """
        checked = {}
        for name, settings in settings_of_methods.items():
            known_name(name, self.catalog.methods, "method", where)
            method = self.catalog.methods[name]
            known = known_settings(method.settings, method.trains)
            if not allow_recipe:
                known.pop(RECIPE, None)
            checked[name] = check_settings(settings, known, f"{where}, {name}")
        return checked

    def _variants_of(self, name: str) -> list[Variant]:
        """All variants of a method; a UserError if its parents have no recipe in common.

        A method that doesn't train, such as a merge, has no recipe itself.
        """
        method = self.catalog.methods[name]
        recipes = self.recipes_of(method) if method.trains else [None]
        variants: list[Variant] = []
        for recipe in recipes:
            variants.extend(self._variants_with_recipe(method, recipe))
        if not variants:
            raise UserError(
                f"config, recipes: no recipe is that of all parents of '{name}'; give them the "
                "same one."
            )
        return variants

    def is_swept(self, name: str) -> bool:
        """Whether a method has several variants with one recipe."""
        variants_of_recipe = Counter(variant.method.recipe for variant in self.of(name))
        return max(variants_of_recipe.values()) > 1

    def recipes_of(self, method: Method) -> list[str]:
        """Names of the recipes that a method is trained with; each gives separate variants.

        The method's setting `recipe`, in config, family or entry, comes before the recipes for all
        methods. `recipes` of config overrides the family's settings; `all` leaves out recipes that
        have no learning rate for the method.
        """
        settings = dict(method.settings)
        if self.default_recipes:
            settings |= self.settings_of_family.get(method.name, {})
        settings |= self.settings_of_config.get(method.name, {})
        if self.all_recipes and RECIPE not in settings:
            with_rate = [name for name in self.recipes if RATE in self._stated(method, name)]
            return with_rate or list(self.recipes)
        recipes = as_list(settings.get(RECIPE, self.recipes))
        for recipe in recipes:
            known_name(recipe, self.catalog.recipes, "recipe", f"method {method.name}")
        return recipes

    def settings(self, method: Method, recipe: str | None) -> dict[str, Any]:
        """Settings of a method with a recipe; the recipe is None for methods that don't train.

        Each place overrides the ones before it, and a place with epochs or steps replaces both:

        1. the family's `defaults.epochs`
        2. `settings` of the method's entry, with the defaults of training
        (rib.schema.algorithm_settings) 3. the family's `method_settings` 4. `recipes` of the
        method's entry 5. the family's `recipes` 6. `training` of config, which states epochs or
        steps for all methods 7. `method_settings` of config

        A learning rate may be a mapping by model or group, from which Grid.settings_on takes the
        model's rate. Lists of values are sweeps.

        Raises:
            UserError: There is no learning rate, one is for an unknown model or group, or a place
                states both epochs and steps.
        """
        settings = self._stated(method, recipe)
        if recipe and RATE not in settings:
            raise UserError(
                f"config, recipes: '{method.name}' has no learning rate for recipe '{recipe}' in "
                f"family {self.family.name}; add lr to the recipes of the method's or the family's "
                "entry, or to method_settings."
            )
        return settings

    def _stated(self, method: Method, recipe: str | None) -> dict[str, Any]:
        """`settings`, perhaps without a learning rate."""
        name = method.name
        family_file = f"families/{self.family.name}.yaml"
        recipe_of_method: dict[str, Any] = {}
        recipe_of_family: dict[str, Any] = {}
        if recipe is not None:
            recipe_of_method = method.recipes.get(recipe, {})
            recipe_of_family = self.settings_of_recipe.get(recipe, {}).get(name, {})
        places = {
            f"methods.yaml, {name}": method.settings,
            f"{family_file}, method_settings, {name}": self.settings_of_family.get(name, {}),
            f"methods.yaml, {name}, recipes, {recipe}": recipe_of_method,
            f"{family_file}, recipes, {recipe}, {name}": recipe_of_family,
            "config, training": self.length if recipe else {},
            f"config, method_settings, {name}": self.settings_of_config.get(name, {}),
        }
        settings: dict[str, Any] = {}
        if recipe:
            settings["epochs"] = self.family.defaults.epochs
        for where, stated in places.items():
            if recipe and _states_length(stated, where):
                for key in LENGTH:
                    settings.pop(key, None)
            if isinstance(stated.get(RATE), dict):
                self._check_models_of_rates(stated[RATE], where)
            settings |= stated
        return settings

    def _check_models_of_rates(self, rates: Mapping[str, float], where: str) -> None:
        """Raise a UserError unless the keys of rates are models, groups of models or `other`."""
        models = self.catalog.models
        groups = [model.group for model in models.values() if model.group is not None]
        names = {*models, *groups}
        if OTHER in rates and OTHER in names:
            raise UserError(
                f"{where}, {RATE}: '{OTHER}' holds for all models that are not named, but a model "
                "or group has this name; rename that."
            )
        for model_or_group in rates:
            known_name(model_or_group, {*names, OTHER}, "model or group", f"{where}, {RATE}")

    def _variants_with_recipe(self, method: Method, recipe: str | None) -> Iterator[Variant]:
        """Yield a variant for each combination of swept values and variants of parents.

        Combinations with parents that were trained with another recipe are left out. The recipe is
        None for a merge, which gets its parents' recipe.
        """
        settings = _with_learning_rate_first(self.settings(method, recipe))
        settings.pop(RECIPE, None)
        swept_settings = _swept_settings(settings, method)
        usual_recipe = method.settings.get(RECIPE, self.family.defaults.recipes[0])
        recipe_in_name = {}  # `ft` is trained with the usual recipe, `ft-adamw` with another
        if recipe and recipe != usual_recipe:
            recipe_in_name[RECIPE] = recipe
        combinations_of_values = itertools.product(*swept_settings.values())
        combinations_of_parents = self._combinations_of_parents(method)
        for swept_values, parents in itertools.product(
            combinations_of_values, combinations_of_parents
        ):
            recipes = {parent.method.recipe for parent in parents}
            recipes.add(recipe)
            recipes.discard(None)  # merges and weights trained elsewhere have no recipe
            differs_from_parents = len(recipes) > 1
            merges_nothing = method.form in MERGES and not parents
            if differs_from_parents or merges_nothing:
                continue
            # One value for each swept setting, such as {"lr": 1e-5, "alpha": 0.5}.
            value_of_setting = dict(zip(swept_settings, swept_values, strict=True))
            settings_in_name = _settings_in_name(recipe_in_name | value_of_setting, parents)
            unnamed = method.model_copy(
                update={
                    "settings": settings | value_of_setting,
                    "recipe": recipes.pop() if recipes else None,
                    "parents": tuple(parent.method.name for parent in parents),
                }
            )
            named = self._named(unnamed, settings_in_name)
            in_name_without_rate = dict(settings_in_name)
            if RATE in value_of_setting:  # a parent's rate stays in the name
                del in_name_without_rate[RATE]
            without_rate = self._named(unnamed, in_name_without_rate).name
            evaluation, evaluated = self._evaluation_of(named, unnamed, parents)
            yield Variant(
                named.model_copy(
                    update={
                        "without_rate": without_rate,
                        "evaluation": evaluation,
                        "evaluated": evaluated,
                    }
                ),
                settings_in_name,
            )

    def _evaluation_of(
        self, named: Method, unnamed: Method, parents: Sequence[Variant]
    ) -> tuple[str, dict[str, dict[str, Any]]]:
        """Name of the job that evaluates a variant, and settings of all variants in the job.

        wise_ft-alpha0.25 and wise_ft-alpha0.5 share the job `wise_ft-alpha`: ("wise_ft-alpha",
        {"wise_ft-alpha0.25": {"alpha": 0.25}, ...}). Other methods have a job for each variant.
        """
        alone = named.name, {named.name: named.settings}
        if unnamed.form != COEFFICIENTS:
            return alone
        # The job evaluates all coefficients that entry or family list, whichever of them config
        # names: then a change of config's list doesn't change the job.
        entry = self.catalog.methods[unnamed.name]
        stated = {**entry.settings, **self.settings_of_family.get(unnamed.name, {})}
        listed = _swept_settings(stated, entry)
        evaluated = {}
        for values in itertools.product(*listed.values()):
            value_of_setting = dict(zip(listed, values, strict=True))
            name = self._named(unnamed, _settings_in_name(value_of_setting, parents)).name
            evaluated[name] = stated | value_of_setting
        if evaluated.get(named.name) != named.settings:
            return alone
        settings_in_name = _settings_in_name(dict.fromkeys(listed, ""), parents)
        return self._named(unnamed, settings_in_name).name, evaluated

    def _combinations_of_parents(self, method: Method) -> Iterator[Sequence[Variant]]:
        """Yield the parents of each variant of a merge.

        Parents `ft` with two learning rates and `lwf` with three give six lists of two.
        """
        variants_of_each_parent = [self.of(parent) for parent in method.parents]
        if method.over != VARIANTS:
            yield from itertools.product(*variants_of_each_parent)
            return
        # A merge over variants has all variants with one recipe at once, here a list of five, if at
        # least one parent is swept. Its name has at most the recipe.
        for recipe in _recipes_in(variants_of_each_parent):
            with_recipe_of_each_parent = [
                _variants_trained_with(recipe, variants) for variants in variants_of_each_parent
            ]
            every_parent_has_one = all(with_recipe_of_each_parent)
            is_sweep = any(len(variants) > 1 for variants in with_recipe_of_each_parent)
            if every_parent_has_one and is_sweep:
                variants_of_all_parents = itertools.chain(*with_recipe_of_each_parent)
                yield [_with_only_recipe_in_name(variant) for variant in variants_of_all_parents]

    def _named(self, method: Method, settings_in_name: Mapping[str, object]) -> Method:
        """Variant with name and label, such as `ft-lr0.001` for {"lr": 0.001}."""
        # Epochs and steps aren't settings of the algorithm, so they leave its settings.
        settings = dict(method.settings)
        length = {}
        if method.trains:
            for key in LENGTH:
                if key in settings:
                    length[key] = settings.pop(key)
        name = method.name
        label = method.label
        for key, setting in settings_in_name.items():
            if key == RECIPE:
                assert isinstance(setting, str)  # a recipe's name
                name += f"-{in_path(setting)}"
                label += f", {self.catalog.recipes[setting].label}"
            else:
                name += f"-{key}{in_path(setting)}"
                label += f", {key} {setting}"
        # Not checked as entries are: variants' names have other characters.
        return method.model_copy(
            update={
                "name": name,
                "label": label,
                "settings": settings,
                "base": method.name,
                "can_fit": method.can_fit or method.name in self.can_fit,
                "length": length,
            }
        )


def _states_length(stated: Mapping[str, object], where: str) -> bool:
    """Whether a place states epochs or steps; a UserError if it states both."""
    stated_lengths = [key for key in LENGTH if key in stated]
    if len(stated_lengths) == len(LENGTH):
        raise UserError(f"{where}: {' and '.join(LENGTH)} are both given; give one of them.")
    return len(stated_lengths) > 0


def _with_learning_rate_first(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings with `lr` first, since names of variants begin with it."""
    ordered = {}
    if RATE in settings:
        ordered[RATE] = settings[RATE]
    ordered.update(settings)
    return ordered


def _swept_settings(settings: Mapping[str, Any], entry: Method) -> dict[str, list[Any]]:
    """{"lr": [0.1, 0.01], "alpha": 0.5} gives {"lr": [0.1, 0.01]}, the values of variants."""
    known = known_settings(entry.settings, entry.trains)
    return {key: setting for key, setting in settings.items() if is_sweep(setting, known[key])}


def _recipes_in(variants_of_each_parent: Sequence[Sequence[Variant]]) -> list[str | None]:
    """Recipes of the variants, such as ["paper", "adamw"]; None for variants that have none."""
    recipes: list[str | None] = []
    for variants in variants_of_each_parent:
        recipes.extend(variant.method.recipe for variant in variants)
    return list(dict.fromkeys(recipes))


def _variants_trained_with(recipe: str | None, variants: Sequence[Variant]) -> list[Variant]:
    """Variants with a recipe, and variants without any, which go with every recipe."""
    return [variant for variant in variants if variant.method.recipe in (recipe, None)]


def _with_only_recipe_in_name(variant: Variant) -> Variant:
    """The variant with only {"recipe": "adamw"}, or nothing, for its merge's name."""
    settings_in_name = {}
    if RECIPE in variant.settings_in_name:
        settings_in_name[RECIPE] = variant.settings_in_name[RECIPE]
    return replace(variant, settings_in_name=settings_in_name)


def _settings_in_name(
    in_name_of_method: Mapping[str, object], parents: Sequence[Variant]
) -> dict[str, object]:
    """Settings in a merge's name, its own and its parents': {"alpha": 0.5, "lr": 0.1}.

    If the parents `ft` and `lwf` both have a swept rate, they are called `ft_lr` and `lwf_lr`.
    """
    uses = Counter(in_name_of_method.keys())  # how many have each setting
    for parent in parents:
        uses.update(key for key in parent.settings_in_name if key != RECIPE)
    settings_in_name = dict(in_name_of_method)
    for parent in parents:
        for key, setting in parent.settings_in_name.items():
            if uses[key] > 1:
                settings_in_name[f"{parent.method.base}_{key}"] = setting
            else:
                settings_in_name[key] = setting
    return settings_in_name
