"""Methods of a run with resolved settings; each combination of recipe and swept values is a variant."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.choices import as_list
from rib.config.entries import MERGES, Family, Method
from rib.config.run import VARIANTS
from rib.config.schema import known_name
from rib.config.settings import LENGTH, RECIPE, check_settings

VARIANT = re.compile(r"[A-Za-z0-9_.-]{1,200}")
Shown = dict[str, object]  # values in a variant's name


def resolve_methods(names: Iterable[str], variants: "Variants") -> dict[str, Method]:
    """Methods by name, with the settings of entry, family and config; one per recipe and combination of swept values.

    A merge, or a method that starts from another one, has a variant for each variant of its parents that have the same
    recipe; a merge over variants has one for each recipe. The family's first recipe is not part of names. Raises a
    UserError if a name is unknown, a method has no learning rate, or a swept value cannot be part of a name.
    """
    resolved = {}
    for variant, _ in itertools.chain.from_iterable(map(variants.of, names)):
        if variant.name in resolved or not VARIANT.fullmatch(variant.name):
            raise UserError(
                f"the swept method '{variant.name[:200]}' does not have a unique name that is valid in paths; "
                "sweep over numbers or short words, and list each value once."
            )
        resolved[variant.name] = variant
    return resolved


class Variants:
    """Variants of each method, in the order of recipes and swept values."""

    def __init__(self, recipes: Sequence[str], config: Mapping, family: Family, catalog: Catalog):
        self.recipes, self.family, self.catalog = recipes, family, catalog
        where = f"families/{family.name}.yaml"
        self.can_fit = [
            known_name(name, catalog.methods, "method", f"{where}, can_fit")
            for name in family.can_fit
        ]
        self.of_family = self._checked(f"{where}, method_settings", family.method_settings)
        self.by_recipe = {
            known_name(recipe, catalog.recipes, RECIPE, f"{where}, recipes"): self._checked(
                f"{where}, recipes, {recipe}", own, without=[RECIPE]
            )
            for recipe, own in family.recipes.items()
        }
        self.of_config = self._checked("config, method_settings", config["method_settings"])
        self.by_default = config["recipes"] == "default"
        self.length = {
            key: config["training"][key] for key in LENGTH if config["training"][key] != "default"
        }
        self.of = cache(self._of)  # every variant of a merge needs those of its parents

    def _checked(
        self, where: str, methods: Mapping[str, dict], without: Collection[str] = ()
    ) -> dict[str, dict]:
        found = {}
        for name, own in methods.items():
            method = self.catalog.methods[known_name(name, self.catalog.methods, "method", where)]
            known = {
                key: kind
                for key, kind in self.catalog.settings_of(method).items()
                if key not in without
            }
            found[name] = check_settings(own, known, f"{where}, {name}", complete=False)
        return found

    def _of(self, name: str) -> list[tuple[Method, Shown]]:
        """Variants of a method, each with the recipe and the swept values in its name, own and those of its parents."""
        method = self.catalog.methods[name]
        recipes = self.recipes_of(method) if method.trains else [None]
        found = [variant for recipe in recipes for variant in self._trained_with(method, recipe)]
        if not found:
            raise UserError(
                f"config, recipes: no recipe is that of all parents of '{name}'; give them the same one."
            )
        return found

    def swept(self, name: str) -> bool:
        """Whether a method has several variants with one recipe."""
        return max(Counter(variant.recipe for variant, _ in self.of(name)).values()) > 1

    def recipes_of(self, method: Method) -> list[str]:
        """Recipes of a method that trains; `recipes` of config overrides what the family gives the method."""
        of_family = self.of_family.get(method.name, {}) if self.by_default else {}
        chosen = (method.settings | of_family | self.of_config.get(method.name, {})).get(
            RECIPE, self.recipes
        )
        return [
            known_name(name, self.catalog.recipes, RECIPE, f"method {method.name}")
            for name in as_list(chosen)
        ]

    def settings(self, method: Method, recipe: str | None) -> dict:
        """Settings of a method trained with a recipe; a layer that gives epochs or steps replaces both.

        Raises:
            UserError: There is no learning rate, or a layer gives both.
        """
        name, family = method.name, f"families/{self.family.name}.yaml"
        layers = {
            f"methods.yaml, {name}": method.settings,
            f"{family}, method_settings, {name}": self.of_family.get(name, {}),
            f"methods.yaml, {name}, recipes, {recipe}": method.recipes.get(recipe, {}),
            f"{family}, recipes, {recipe}, {name}": self.by_recipe.get(recipe, {}).get(name, {}),
            "config, training": self.length if recipe else {},
            f"config, method_settings, {name}": self.of_config.get(name, {}),
        }
        merged = {"epochs": self.family.defaults["epochs"]} if recipe else {}
        for where, layer in layers.items():
            given = [key for key in LENGTH if recipe and key in layer]
            if len(given) == len(LENGTH):
                raise UserError(
                    f"{where}: {' and '.join(LENGTH)} are both given; give one of them."
                )
            merged = {
                key: value for key, value in merged.items() if not given or key not in LENGTH
            } | layer
        if recipe and "lr" in self.catalog.settings_of(method) and "lr" not in merged:
            raise UserError(
                f"config, recipes: '{name}' has no learning rate for recipe '{recipe}' in family {self.family.name}; "
                "add lr to the recipes of the method's or the family's entry, or to method_settings."
            )
        return merged

    def _trained_with(self, method: Method, recipe: str | None) -> Iterable[tuple[Method, Shown]]:
        """Variants of a method with one recipe; None for a merge, which has that of its parents."""
        given = self.settings(method, recipe)
        settings = {
            key: given[key] for key in sorted(given, key="lr".__ne__) if key != RECIPE
        }  # lr first in names
        known = self.catalog.settings_of(method)
        swept = {key: values for key, values in settings.items() if known[key].is_sweep(values)}
        usual = method.settings.get(RECIPE, self.family.defaults["recipes"][0])
        named = {RECIPE: recipe} if recipe and recipe != usual else {}
        for values, of_parents in itertools.product(
            itertools.product(*swept.values()), self._parents(method)
        ):
            shared = {parent.recipe for parent, _ in of_parents if parent.recipe} | (
                {recipe} if recipe else set()
            )
            # Weights that were trained elsewhere have no recipe, but a merge has parents.
            if len(shared) <= 1 and (method.form not in MERGES or of_parents):
                own = dict(zip(swept, values, strict=True))
                inherited = [(parent.base, values) for parent, values in of_parents]
                shown = _shown(named | own, inherited)
                parents = tuple(parent.name for parent, _ in of_parents)
                yield (
                    self._variant(method, next(iter(shared), None), settings | own, shown, parents),
                    shown,
                )

    def _parents(self, method: Method) -> Iterable[Sequence[tuple[Method, Shown]]]:
        """Combinations of the parents' variants; of a merge over variants all with one recipe, if one of them is swept."""
        every = list(map(self.of, method.parents))
        if method.over != VARIANTS:
            yield from itertools.product(*every)
            return
        named = [
            [(v, {key: shown[key] for key in shown if key == RECIPE}) for v, shown in own]
            for own in every
        ]
        for recipe in dict.fromkeys(variant.recipe for own in every for variant, _ in own):
            found = [[pair for pair in own if pair[0].recipe in (recipe, None)] for own in named]
            if all(found) and max(map(len, found)) > 1:
                yield list(itertools.chain.from_iterable(found))

    def _variant(
        self, method: Method, recipe: str | None, settings: dict, shown: Shown, parents: tuple
    ) -> Method:
        length = {key: settings.pop(key) for key in LENGTH if method.trains and key in settings}
        for key, value in length.items():
            if value < 1:
                raise UserError(
                    f"method '{method.name}': {key} is {value}; give a whole number from 1."
                )
        labels = (
            self.catalog.recipes[v].label if key == RECIPE else f"{key} {v}"
            for key, v in shown.items()
        )
        return replace(
            method,
            name=method.name
            + "".join(f"-{'' if key == RECIPE else key}{in_path(v)}" for key, v in shown.items()),
            label=", ".join([method.label, *labels]),
            settings=settings,
            parents=parents,
            base=method.name,
            recipe=recipe,
            can_fit=method.can_fit or method.name in self.can_fit,
            length=length,
        )


def _shown(own: Shown, inherited: Sequence[tuple[str, Shown]]) -> Shown:
    """Values in a name: a method's own and its parents'; a parent's name is a prefix if several have the setting.

    A recipe is that of all of them, and is shown once.
    """
    keys = Counter([*own, *(key for _, values in inherited for key in values if key != RECIPE)])
    shown = dict(own)
    for parent, values in inherited:
        shown |= {
            key if keys[key] <= 1 else f"{parent}_{key}": value for key, value in values.items()
        }
    return shown


def in_path(value: object) -> str:
    """A value as written in paths; numbers have no exponent, which could contain a minus sign."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
