"""Validation of YAML files with the schemas of workflow/schemas, one sentence per mistake."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from rib.base.errors import UserError
from rib.base.plugins import WORKFLOW
from rib.base.text import WHY, presentable
from rib.config.values import is_number, is_whole, nearest, show

SCHEMAS = WORKFLOW / "schemas"
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster
# Slow to convert, or refused by Python with a message of its own.
LONG_NUMBER = re.compile(r"[-+]?\d[\w.:]{1000}")
TEXT = '"<unicode string>"'  # what PyYAML calls a text that it parses
DEEPEST = 50  # levels of nesting in a YAML file
REPEATED = 20_000  # values that aliases in a YAML file repeat, times their level


def _check_pattern(
    validator: object, pattern: str, value: object, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    """Yield an error if a text does not match the pattern that its schema states.

    `$`, which the schemas use for nothing else, matches only at the end of the text; in Python it
    also matches before a last line break. The arguments are those of every check of jsonschema.
    """
    strict_pattern = pattern.replace("$", r"\Z")
    if isinstance(value, str) and not re.search(strict_pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _check_format(
    validator: object, text_format: str, value: object, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    """Yield an error if a text can't be shown, for example because of invisible characters.

    Args:
        text_format: `label`, or `prose`, which may have several lines; or `range`, for a list of
            two numbers of which the first may not be the larger one.
    """
    if text_format == "range":
        if _is_pair(value) and value[0] > value[1]:
            yield ValidationError("its first number is larger than its second")
        return
    if not isinstance(value, str):
        return
    shown_text = value if text_format == "label" else " ".join(value.split())
    if not presentable(shown_text):
        yield ValidationError(WHY)


def _is_pair(value: object) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _is_integer_of_schema(checker: object, value: object) -> bool:
    return is_whole(value)


def _is_number_of_schema(checker: object, value: object) -> bool:
    return is_number(value)


Validator = extend(
    Draft202012Validator,
    {"pattern": _check_pattern, "format": _check_format},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer_of_schema, "number": _is_number_of_schema}
    ),
)


@cache
def load_schema(name: str) -> dict[str, Any]:
    """A schema of workflow/schemas, including the shared definitions."""
    schema = read_yaml(SCHEMAS / f"{name}.schema.yaml")
    common = read_yaml(SCHEMAS / "common.schema.yaml")
    return {**schema, "$defs": common["$defs"]}


def validated(content: object, schema_name: str, where: str) -> dict[str, Any]:
    """Validate a parsed file, and return it with defaults filled in.

    Args:
        schema_name: a schema of workflow/schemas, for example `config`.
        where: the file, for messages.

    Raises:
        UserError: A key is unknown or missing, or a value has the wrong type or is out of bounds.
    """
    schema = load_schema(schema_name)
    filled: dict[str, Any] = _filled(content, schema)
    errors = sorted(Validator(schema).iter_errors(filled), key=_path_of_error)
    if errors:
        raise UserError(f"{where}: {_sentence(errors[0])}")
    return filled


def _path_of_error(error: ValidationError) -> list[str]:
    """Keys from the top of a file down to the value that is wrong."""
    return [str(key) for key in error.path]


def _filled(value: object, schema: dict[str, Any]) -> Any:
    """A value with the defaults of its schema filled in, and texts converted to what it wants.

    Texts become numbers or booleans where the schema wants these, since `--config seeds='[0,1]'`
    gives a list of texts. Lists and mappings are filled in with all that they contain.
    """
    if isinstance(value, str):
        return _converted_text(value, schema)
    if isinstance(value, list):
        schema_of_elements = schema.get("items", {})
        return [_filled(element, schema_of_elements) for element in value]
    if not isinstance(value, dict):
        return value
    schema_of_key = schema.get("properties", {})
    schema_of_unlisted_key = schema.get("additionalProperties") or {}
    completed = dict(value)
    for key, schema_of_value in schema_of_key.items():
        if key not in value and "default" in schema_of_value:
            completed[key] = schema_of_value["default"]
    return {
        key: _filled(entry, schema_of_key.get(key, schema_of_unlisted_key))
        for key, entry in completed.items()
    }


def _converted_text(text: str, schema: dict[str, Any]) -> object:
    """The number or boolean that a text states, if the schema allows that but not the text.

    `0.5` becomes 0.5 where a number is expected, and stays a text where texts are allowed.
    """
    booleans = {"true": True, "false": False}
    converted = booleans.get(text.lower(), number(text))
    if converted is None:
        return text
    text_is_right = _is_valid(text, schema)
    if text_is_right or not _is_valid(converted, schema):
        return text
    return converted


def number(text: str) -> int | float | None:
    """Convert a text to a number; None if it is not a number."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _is_valid(value: object, schema: dict[str, Any]) -> bool:
    """Whether a schema allows a value; one that refers to another schema is not followed."""
    return "$ref" in schema or Validator(schema).is_valid(value)


def _sentence(error: ValidationError) -> str:
    """The sentence about an error: the key, its value, what is wrong, what is allowed.

    `error.instance` is the wrong value, `error.schema` what it should be, and `error.validator` the
    keyword of the schema that is violated. For example: 'budget' is -1, which is not valid (it is
    less than the minimum of 1); expected: a number of images.
    """
    key_path = ".".join(map(str, error.absolute_path))
    inside = f" in '{key_path}'" if key_path else ""
    shown = show(error.instance)
    reason = error.message.replace(repr(error.instance), "it", 1)
    entry: Any = error.instance  # what it can be depends on the keyword
    meaning = ""
    schema: Any = error.schema  # a mapping, since no schema here is just `true` or `false`
    if "description" in schema:
        meaning = f"; expected: {schema['description']}"
    if "propertyNames" in error.schema_path:
        return f"{shown}{inside} is not a valid name ({reason}){meaning}."
    if error.validator == "additionalProperties":
        allowed = list(schema.get("properties", {}))
        unknown_keys = [key for key in entry if key not in allowed]
        first_key = unknown_keys[0]
        return (
            f"unknown key {show(first_key)}{inside}{nearest(first_key, allowed)}; "
            f"allowed are {', '.join(sorted(allowed)) or 'none'}."
        )
    if error.validator == "required":
        required_keys: Any = error.validator_value
        missing_keys = [key for key in required_keys if key not in entry]
        return f"the key '{missing_keys[0]}' is missing{inside}; add it."
    if error.validator == "oneOf":
        keys = [key for choice in schema["oneOf"] for key in choice["required"]]
        return f"give exactly one of the keys {', '.join(keys)}{inside}."
    if error.validator == "anyOf" and all("required" in choice for choice in schema["anyOf"]):
        keys = [key for choice in schema["anyOf"] for key in choice["required"]]
        return f"give at least one of the keys {', '.join(keys)}{inside}."
    subject = f"'{key_path}' is" if key_path else "the file is"
    return f"{subject} {shown}, which is not valid ({reason}){meaning}."


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: It is unreadable, not valid YAML, or hostile; the message has file and line.
    """
    try:
        text = read_source(path)
        _refuse_hostile(text)
        return yaml.load(text, SAFE_LOADER) or {}
    # PyYAML raises various errors, for example a KeyError for `!!bool maybe`.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:500]
        reason = reason.replace(f"in {TEXT}, ", "at ")  # the message names the file instead
        raise UserError(f"{path} is not valid YAML: {reason}; correct it.") from error


@dataclass
class _OpenCollection:
    """A mapping or sequence of a YAML file whose end has not been read."""

    start: yaml.CollectionStartEvent
    nodes_before: float  # events, and values that aliases repeat, from the file's start to its own
    # In a mapping keys and values take turns.
    children: list[yaml.NodeEvent] = field(default_factory=list)


def _refuse_hostile(text: str) -> None:
    """Refuse YAML with duplicate keys, long numbers, or what would exhaust stack or memory.

    What would exhaust these are many levels, and aliases (`*name`) that repeat a large value
    (`&name`) often. The text is parsed to events, the beginnings and ends of its values, which is
    safe since no alias is followed.

    Raises:
        yaml.MarkedYAMLError: The text has one of these.
    """
    size_by_anchor: dict[str | None, float] = {}  # of each value with a name
    open_collections: list[_OpenCollection] = []  # the lists and mappings around an event
    repeated: float = 0  # values that aliases have repeated so far
    for n_events, event in enumerate(yaml.parse(text, SAFE_LOADER)):
        problem = None
        mark: Any = event.start_mark  # libyaml's, which the stubs of errors do not have
        if open_collections and isinstance(event, yaml.NodeEvent):
            open_collections[-1].children.append(event)
        if isinstance(event, yaml.AliasEvent):
            # Times the level, which also limits levels that are made by aliases.
            repeated += len(open_collections) * size_by_anchor.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_collections.append(_OpenCollection(event, n_events + repeated))
            # An alias of a collection inside of itself would never end.
            size_by_anchor[event.anchor] = float("inf")
        elif isinstance(event, yaml.CollectionEndEvent):
            collection = open_collections.pop()
            # Its size is the number of events in it, and of values that aliases repeat in it.
            nodes_so_far = n_events + repeated
            size_by_anchor[collection.start.anchor] = nodes_so_far - collection.nodes_before
            repeated_key = _repeated_key(collection)
            if repeated_key is not None:
                problem = f"the key '{repeated_key.value}' is given twice, the second time"
                mark = repeated_key.start_mark
        elif isinstance(event, yaml.ScalarEvent) and LONG_NUMBER.match(event.value):
            problem = "a number of more than 1000 digits"
        if len(open_collections) > DEEPEST or repeated > REPEATED:
            problem = f"more than {DEEPEST} levels, or aliases that repeat too much"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _repeated_key(collection: _OpenCollection) -> yaml.ScalarEvent | None:
    """The first key that a mapping has already, such as the second `a` of {a: 1, a: 2}."""
    if not isinstance(collection.start, yaml.MappingStartEvent):
        return None
    texts = set()
    for key in collection.children[::2]:  # a key, its value, the next key, its value and so on
        if not isinstance(key, yaml.ScalarEvent):
            continue
        if key.value in texts:
            return key
        texts.add(key.value)
    return None


def read_source(path: Path) -> str:
    """Text of a file that a user wrote.

    Raises:
        UserError: the system can't read it.
        UnicodeDecodeError: it isn't UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct or remove it."
        ) from error
