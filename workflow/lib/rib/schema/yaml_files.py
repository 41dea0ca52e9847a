"""Read YAML files that others wrote; invalid, ambiguous or hostile files are refused."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rib.base.errors import UserError

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster
# Python converts such numbers slowly, or refuses them with a message that users don't understand.
LONG_NUMBER = re.compile(r"[-+]?\d[\w.:]{1000}")
TEXT = '"<unicode string>"'  # PyYAML's name for a text that it parses
DEEPEST = 50  # levels of nesting in a YAML file
REPEATED = 20_000  # limit on values that aliases repeat, times their level


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: It is unreadable, not valid YAML, or hostile; the message has file and line.
    """
    try:
        text = read_source(path)
        _refuse_hostile(text)
        return yaml.load(text, SAFE_LOADER) or {}
    # PyYAML raises various errors, such as a KeyError for `!!bool maybe`.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:500]
        reason = reason.replace(f"in {TEXT}, ", "at ")  # our message names the file instead
        raise UserError(f"{path} is not valid YAML: {reason}; correct it.") from error


@dataclass
class _OpenCollection:
    """A mapping or sequence whose end has not been read yet."""

    start: yaml.CollectionStartEvent
    nodes_before: float  # events and values repeated by aliases, from the file's start
    # In a mapping, keys and values alternate.
    children: list[yaml.NodeEvent] = field(default_factory=list)


def _refuse_hostile(text: str) -> None:
    """Raise yaml.MarkedYAMLError for duplicate keys, huge numbers, and YAML bombs."""
    size_by_anchor: dict[str | None, float] = {}  # of each value with an anchor
    open_collections: list[_OpenCollection] = []  # around the current event
    repeated: float = 0  # values that aliases have repeated so far
    # A bomb repeats a large value (`&name`) by many aliases (`*name`). Parsing to events, the
    # beginnings and ends of values, is safe because it follows no alias.
    for n_events, event in enumerate(yaml.parse(text, SAFE_LOADER)):
        problem = None
        mark: Any = event.start_mark  # libyaml's type is missing in the stubs
        if open_collections and isinstance(event, yaml.NodeEvent):
            open_collections[-1].children.append(event)
        if isinstance(event, yaml.AliasEvent):
            # Multiplying by the level also limits nesting through aliases.
            repeated += len(open_collections) * size_by_anchor.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_collections.append(_OpenCollection(event, n_events + repeated))
            # An alias of a collection inside itself would never end.
            size_by_anchor[event.anchor] = float("inf")
        elif isinstance(event, yaml.CollectionEndEvent):
            collection = open_collections.pop()
            # Size: events in the collection plus values that aliases repeat in it.
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
    """The second `a` of {a: 1, a: 2}."""
    if not isinstance(collection.start, yaml.MappingStartEvent):
        return None
    texts = set()
    for key in collection.children[::2]:  # every second child is a key
        if not isinstance(key, yaml.ScalarEvent):
            continue
        if key.value in texts:
            return key
        texts.add(key.value)
    return None


def read_source(path: Path) -> str:
    """Text of a file that a user wrote.

    Raises:
        UserError: The system can't read it.
        UnicodeDecodeError: It isn't UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct or remove it."
        ) from error
