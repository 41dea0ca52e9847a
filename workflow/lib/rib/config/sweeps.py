"""Methods of a run with resolved settings; each combination of swept values is a variant."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.entries import Family, Method
from rib.config.schema import known_name
from rib.config.settings import check_settings

VARIANT = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def resolve_methods(names: Iterable[str], config: Mapping, family: Family, catalog: Catalog) -> dict[str, Method]:
    """Methods by name, with the settings of entry, family and config; one per combination of swept values.

    A merge, or a method that starts from another one, has a variant for each variant of its parents.

    Raises:
        UserError: A method or setting is unknown, or a swept value cannot be part of a name.
    """
    overrides = _overrides(config, family, catalog)

    @cache
    def variants(name: str) -> list[tuple[Method, dict]]:
        """Variants of a method, each with the swept values in its name: its own and those of its parents."""
        method, found = catalog.methods[name], []
        settings = {**method.settings, **overrides.get(name, {})}
        known = catalog.settings_of(method)
        swept = {key: values for key, values in settings.items() if known[key].is_sweep(values)}
        combinations = itertools.product(*swept.values())
        for values, *of_parents in itertools.product(combinations, *map(variants, method.parents)):
            own = dict(zip(swept, values, strict=True))
            shown = _shown(own, dict(zip(method.parents, (inherited for _, inherited in of_parents), strict=True)))
            variant = replace(
                method,
                name=method.name + "".join(f"-{key}{in_path(value)}" for key, value in shown.items()),
                label=", ".join([method.label, *(f"{key} {value}" for key, value in shown.items())]),
                settings={**settings, **own},
                parents=tuple(parent.name for parent, _ in of_parents),
            )
            found.append((variant, shown))
        return found

    resolved: dict[str, Method] = {}
    for variant, _ in itertools.chain.from_iterable(map(variants, names)):
        if variant.name in resolved or not VARIANT.fullmatch(variant.name):
            raise UserError(
                f"the swept method '{variant.name[:200]}' does not have a unique name that is valid in paths; "
                "sweep over numbers or short words, and list each value once."
            )
        resolved[variant.name] = variant
    return resolved


def _overrides(config: Mapping, family: Family, catalog: Catalog) -> dict[str, dict]:
    """Settings by method with which the family, and then config, override the entries."""
    merged: dict[str, dict] = {}
    given = {
        f"families/{family.name}.yaml, method_settings": family.method_settings,
        "config, method_settings": config["method_settings"],
    }
    for where, methods in given.items():
        for name, settings in methods.items():
            known = catalog.settings_of(catalog.methods[known_name(name, catalog.methods, "method", where)])
            checked = check_settings(settings, known, f"{where}, {name}", complete=False)
            merged.setdefault(name, {}).update(checked)
    return merged


def _shown(own: Mapping, inherited: Mapping[str, Mapping]) -> dict[str, object]:
    """Swept settings of a method and its parents; a parent's name is added as a prefix if several have the setting."""
    keys = Counter([*own, *(key for values in inherited.values() for key in values)])
    shown = dict(own)
    for parent, values in inherited.items():
        shown |= {key if keys[key] == 1 else f"{parent}_{key}": value for key, value in values.items()}
    return shown


def in_path(value: object) -> str:
    """A value as written in paths; numbers have no exponent, which could contain a minus sign."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
