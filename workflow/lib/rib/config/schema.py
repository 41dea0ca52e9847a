"""Validation of YAML files with the schemas of workflow/schemas, with one clear sentence per mistake."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from rib.base.errors import UserError
from rib.base.plugins import shipped
from rib.base.text import WHY, presentable
from rib.config.values import is_number, is_whole, nearest, show

SCHEMAS = shipped("schemas")
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster
LONG_NUMBER = re.compile(
    r"[-+]?\d[\w.:]{1000}"
)  # slow to convert, or refused by Python with a message of its own
DEEPEST, REPEATED = (
    50,
    20_000,
)  # of a YAML file: levels of nesting, and values that aliases repeat, times their level


def _matches(validator, pattern: str, value: object, schema: dict):
    """Match `$` only at the end of the text; in Python it also matches before a final line break."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _format(validator, kind: str, value: object, schema: dict):
    """Check a text that is shown: a `label`, or `prose` of several lines."""
    if isinstance(value, str) and not presentable(
        value if kind == "label" else " ".join(value.split())
    ):
        yield ValidationError(WHY)


TYPES = {"integer": lambda _, value: is_whole(value), "number": lambda _, value: is_number(value)}
KEYWORDS = {"pattern": _matches, "format": _format}
Validator = extend(
    Draft202012Validator,
    KEYWORDS,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(TYPES),
)


@cache
def load_schema(name: str) -> dict:
    """A schema of workflow/schemas, including the shared definitions."""
    own, shared = (read_yaml(SCHEMAS / f"{part}.schema.yaml") for part in (name, "common"))
    return {**own, "$defs": shared["$defs"]}


def validated(value: object, schema_name: str, where: str) -> dict:
    """Validate a parsed file with a schema of workflow/schemas, for example `config`, and return it with defaults filled in.

    Raises:
        UserError: A key is unknown or missing, or a value has the wrong type or is out of bounds.
    """
    schema = load_schema(schema_name)
    filled = _filled(value, schema)
    if errors := sorted(
        Validator(schema).iter_errors(filled), key=lambda error: list(map(str, error.path))
    ):
        raise UserError(f"{where}: {_sentence(errors[0])}")
    return filled


def _filled(value: object, schema: dict) -> object:
    """Fill in defaults, and convert texts to numbers and booleans: `--config seeds='[0,1]'` gives a list of strings."""
    if isinstance(value, str):
        meant = {"true": True, "false": False}.get(value.lower(), number(value))
        return (
            meant
            if meant is not None and not _valid(value, schema) and _valid(meant, schema)
            else value
        )
    if isinstance(value, list):
        return [_filled(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    other = schema.get("additionalProperties") or {}
    defaults = {
        key: part["default"]
        for key, part in known.items()
        if key not in value and "default" in part
    }
    return {key: _filled(item, known.get(key, other)) for key, item in (value | defaults).items()}


def number(text: str) -> int | float | None:
    """Convert a text to a number; None if it is not a number."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return None


def _valid(value: object, schema: dict) -> bool:
    return "$ref" in schema or Validator(schema).is_valid(value)


def _sentence(error: ValidationError) -> str:
    place = ".".join(map(str, error.absolute_path))
    inside = f" in '{place}'" if place else ""
    shown = show(error.instance)
    why = error.message.replace(repr(error.instance), "it", 1)
    meaning = f"; expected: {error.schema['description']}" if "description" in error.schema else ""
    if "propertyNames" in error.schema_path:
        return f"{shown}{inside} is not a valid name ({why}){meaning}."
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        key = next(key for key in error.instance if key not in allowed)
        return f"unknown key {show(key)}{inside}{nearest(key, allowed)}; allowed are {', '.join(sorted(allowed))}."
    if error.validator == "required":
        key = next(key for key in error.validator_value if key not in error.instance)
        return f"the key '{key}' is missing{inside}; add it."
    if error.validator == "oneOf":
        keys = ", ".join(key for part in error.schema["oneOf"] for key in part["required"])
        return f"give exactly one of the keys {keys}{inside}."
    subject = f"'{place}' is" if place else "the file is"
    return f"{subject} {shown}, which is not valid ({why}){meaning}."


def known_name(
    name: object, known: Iterable[str], kind: str, where: str, listed_as: str = "known"
) -> str:
    """Return the name if it is known; otherwise raise a UserError that lists the known names."""
    known = list(known)
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(
            f"{where}: unknown {kind} {show(name)}{nearest(name, known)}; {listed_as} are {names}."
        )
    return name


def read_yaml(path: Path) -> object:
    """Parse YAML; raise a UserError with file and line if it is unreadable, not valid YAML, or hostile."""
    try:
        _refuse_hostile(text := read_source(path))
        return yaml.load(text, SAFE_LOADER) or {}
    # PyYAML raises various errors, for example a KeyError for `!!bool maybe`.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not valid YAML: {' '.join(str(error).split())[:500]}; correct it."
        ) from error


def _refuse_hostile(text: str) -> None:
    """Refuse duplicate keys, and levels and aliases that would exhaust stack or memory; parsing alone is safe."""
    sizes, begun, repeated = (
        {},
        [],
        0,
    )  # sizes by anchor; starts, places and parts of unfinished collections
    for place, event in enumerate(yaml.parse(text, SAFE_LOADER)):
        problem = None
        if begun and isinstance(event, yaml.NodeEvent):
            begun[-1][2].append(getattr(event, "value", event))
        if isinstance(event, yaml.AliasEvent):
            repeated += len(begun) * sizes.get(
                event.anchor, 1
            )  # by level, which also limits levels made by aliases
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event, place + repeated, []))
            sizes[event.anchor] = float("inf")  # an alias inside of it would never end
        elif isinstance(event, yaml.CollectionEndEvent):
            event, before, parts = begun.pop()
            sizes[event.anchor] = place + repeated - before
            keys = parts[::2] if isinstance(event, yaml.MappingStartEvent) else []
            problem = next(
                (f"the key '{key}' is given twice" for key, n in Counter(keys).items() if n > 1),
                None,
            )
        elif isinstance(event, yaml.ScalarEvent) and LONG_NUMBER.match(event.value):
            problem = "a number of more than 1000 digits"
        if len(begun) > DEEPEST or repeated > REPEATED:
            problem = f"more than {DEEPEST} levels, or aliases that repeat too much"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def read_source(path: Path) -> str:
    """Text of a file that a user wrote; raise a UserError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct or remove it."
        ) from error
