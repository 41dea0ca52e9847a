"""Methods of a run with resolved settings; each combination of swept values is a variant."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.entries import Family, Method
from rib.config.schema import known_name
from rib.config.settings import Setting, check_settings

VARIANT = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def resolve_methods(names: Iterable[str], config: Mapping, family: Family, catalog: Catalog) -> dict[str, Method]:
    """Methods by name, with the settings of entry, family and config; one per combination of swept values.

    A merge, or a method that starts from another one, has a variant for each variant of its parents.

    Raises:
        UserError: A method or setting is unknown, or a swept value cannot be part of a name.
    """
    overrides = _overrides(config, family, catalog)
    sweeps = {
        name: _combinations(
            {**catalog.methods[name].settings, **overrides.get(name, {})}, catalog.settings_of(catalog.methods[name])
        )
        for name in names
    }
    found: dict[str, Method] = {}
    for name, own in sweeps.items():
        method = catalog.methods[name]
        for (settings, swept), *of_parents in itertools.product(own, *(sweeps[parent] for parent in method.parents)):
            inherited = dict(zip(method.parents, (values for _, values in of_parents), strict=True))
            variant = _variant(method, settings, swept, inherited)
            if variant.name in found or not VARIANT.fullmatch(variant.name):
                raise UserError(
                    f"the swept method '{variant.name[:200]}' does not have a unique name that is valid in paths; "
                    "sweep over numbers or short words, and list each value once."
                )
            found[variant.name] = variant
    return found


def _overrides(config: Mapping, family: Family, catalog: Catalog) -> dict[str, dict]:
    """Settings by method with which the family, and then config, override the entries."""
    merged: dict[str, dict] = {}
    given = {
        f"families/{family.name}.yaml, method_settings": family.method_settings,
        "config, method_settings": config["method_settings"],
    }
    for where, methods in given.items():
        for name, settings in methods.items():
            known_name(name, catalog.methods, "method", where)
            known = catalog.settings_of(catalog.methods[name])
            checked = check_settings(settings, known, f"{where}, {name}", complete=False)
            merged[name] = {**merged.get(name, {}), **checked}
    return merged


def _combinations(settings: Mapping, known: Mapping[str, Setting]) -> list[tuple[dict, dict]]:
    """All settings and the swept ones, for each combination of swept values.

    A setting that is itself a list is swept by a list of lists.
    """
    swept = [
        key
        for key, value in settings.items()
        if isinstance(value, list) and (not known[key].annotation.startswith("list") or isinstance(value[0], list))
    ]
    return [
        ({**settings, **dict(zip(swept, values, strict=True))}, dict(zip(swept, values, strict=True)))
        for values in itertools.product(*(settings[key] for key in swept))
    ]


def _variant(method: Method, settings: dict, swept: Mapping, inherited: Mapping[str, Mapping]) -> Method:
    shown = _named(swept, inherited)
    return replace(
        method,
        name=method.name + _suffix(shown),
        label=", ".join([method.label, *(f"{key} {value}" for key, value in shown.items())]),
        settings=settings,
        parents=tuple(parent + _suffix(values) for parent, values in inherited.items()),
    )


def _named(own: Mapping, inherited: Mapping[str, Mapping]) -> dict[str, object]:
    """Swept settings of a method and its parents; a parent's name is added as a prefix if several have the setting."""
    keys = Counter([*own, *(key for values in inherited.values() for key in values)])
    shown = dict(own)
    for parent, values in inherited.items():
        shown |= {key if keys[key] == 1 else f"{parent}_{key}": value for key, value in values.items()}
    return shown


def _suffix(swept: Mapping) -> str:
    """Suffix of a variant's name, for example `-rank4`."""
    return "".join(f"-{key}{in_path(value)}" for key, value in swept.items())


def in_path(value: object) -> str:
    """A value as written in paths; numbers have no exponent, which could contain a minus sign."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
