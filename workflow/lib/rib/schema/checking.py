"""Checks of YAML content against its class, with one sentence for the user about a mistake."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rib.base.errors import UserError
from rib.schema.fields import EMPTY, KEYS, OF_FILE, UNKNOWN_KEY, Described
from rib.schema.messages import show

KEY_OF_MAPPING = "[key]"  # pydantic's mark in a mistake's place: the key itself is wrong
# Types of pydantic's errors whose messages name Python's types.
NO_MAPPING = ("model_type", "model_attributes_type", "dict_type")
DescribedT = TypeVar("DescribedT", bound=Described)


def checked(
    kind: type[DescribedT],
    content: object,
    where: str,
    name: str | None = None,
    outer_keys: Sequence[str] = (),
) -> DescribedT:
    """A file, or one entry of a file, as an object of its class, with defaults.

    Args:
        kind: class of the file or entry.
        content: as YAML gives it.
        where: the file, for messages.
        name: name of an entry, which becomes its field `name`.
        outer_keys: keys of the file that lead to the content, such as ["resnet18"], for messages.

    Raises:
        UserError: A key is unknown or missing, or a value has the wrong type or is out of bounds.
    """
    if isinstance(content, dict):
        for key in content:
            if key in kind.DERIVED:
                unknown = _unknown_key(kind.unknown_key(key).context, _inside(outer_keys))
                raise UserError(f"{where}: {unknown}")
        if name is not None:
            content = {**content, "name": name}
    try:
        return kind.model_validate(content, context=OF_FILE)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        raise UserError(f"{where}: {_sentence(mistakes, kind, content, outer_keys)}") from None


def checked_entries(kind: type[DescribedT], content: object, where: str) -> dict[str, DescribedT]:
    """Entries of a file as objects of their class, by name.

    Raises:
        UserError: The file isn't a mapping, or `checked` refuses an entry.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: the file is {show(content)}; give entries by name.")
    return {name: checked(kind, entry, where, name, [name]) for name, entry in content.items()}


def _sentence(
    mistakes: Sequence[ErrorDetails],
    kind: type[Described],
    content: object,
    outer_keys: Sequence[str],
) -> str:
    """The first mistake, such as: 'lr' is 0, which is not valid (it should be greater than 0)."""
    # A value that may have several types has a mistake for each, such as ("reference", "str") and
    # ("reference", "ProxyPart", "images_per_class"). The deepest is nearest to what the user meant.
    keys_of_mistakes = [_keys_of(mistake, content) for mistake in mistakes]
    first_keys = keys_of_mistakes[0]
    alternatives = [keys for keys in keys_of_mistakes if keys[: len(first_keys)] == first_keys]
    keys = max(alternatives, key=len)
    mistake = mistakes[keys_of_mistakes.index(keys)]
    value = _value_at(keys, content)
    key_path = ".".join(map(str, [*outer_keys, *keys]))
    inside = _inside([*outer_keys, *keys])
    reason = _reason(mistake)
    description = _description(kind, keys, content)
    expected = f"; expected: {description}" if description else ""
    if mistake["type"] == "missing" and isinstance(mistake["loc"][-1], str):
        return f"the key '{mistake['loc'][-1]}' is missing{inside}; add it."
    if mistake["type"] == "union_tag_not_found":
        return f"the key 'kind' is missing{inside}; add it."
    if mistake["type"] == UNKNOWN_KEY:
        return _unknown_key(mistake["ctx"], inside)
    if mistake["type"] == KEYS:
        return f"{mistake['msg']}{inside}."
    if mistake["loc"][-1:] == (KEY_OF_MAPPING,):
        if isinstance(mistake["input"], bool):
            reason = "YAML reads on, off, yes and no as true or false; put it in quotes"
        return f"{show(mistake['input'])}{inside} is not a valid name ({reason}){expected}."
    if keys == ["name"] and "name" in kind.DERIVED:
        return f"{show(value)} is not a valid name ({reason}){expected}."
    subject = f"'{key_path}' is" if key_path else "the file is"
    because = f" ({reason})" if keys_of_mistakes.count(keys) == 1 else ""
    return f"{subject} {show(value)}, which is not valid{because}{expected}."


def _unknown_key(context: dict[str, Any] | None, inside: str) -> str:
    """Such as: unknown key lable in 'net' (did you mean 'label'?); allowed are label, licence."""
    assert context is not None
    return (
        f"unknown key {context['key']}{inside}{context['nearest']}; "
        f"allowed are {context['allowed']}."
    )


def _inside(keys: Sequence[object]) -> str:
    """` in 'net.pretrain'` for ["net", "pretrain"]; empty without keys."""
    return f" in '{'.'.join(map(str, keys))}'" if keys else ""


def _keys_of(mistake: ErrorDetails, content: object) -> list[Any]:
    """Pydantic's place ("seeds", "list[int]", 0) gives ["seeds", 0], without the type's name."""
    keys = []
    value: Any = content
    may_be_kind = True
    place = mistake["loc"]
    if mistake["type"] == "missing":
        place = place[:-1]
    if place[-1:] == (KEY_OF_MAPPING,):
        place = place[:-2]
    for part in place:
        # In ("source", "file", "digest") the first `file` is the source's kind, not a key.
        is_kind = may_be_kind and isinstance(value, dict) and part == value.get("kind")
        if not is_kind and _holds(value, part):
            keys.append(part)
            value = value[part]
        may_be_kind = not is_kind
    if mistake["type"] == "union_tag_invalid":
        keys.append("kind")
    if mistake["type"] == EMPTY:
        keys.append(mistake["ctx"]["key"])
    return keys


def _holds(value: object, key: int | str) -> bool:
    """Whether value[key] exists, of a list or mapping."""
    if isinstance(value, list):
        return isinstance(key, int) and key < len(value)
    return isinstance(value, dict) and key in value


def _value_at(keys: Sequence[Any], content: Any) -> Any:
    """content["a"][0] for the keys ["a", 0]."""
    for key in keys:
        content = content[key]
    return content


def _reason(mistake: ErrorDetails) -> str:
    """Pydantic's message with "it" for the value, such as "it should be greater than 0"."""
    if mistake["type"] in NO_MAPPING:
        return "it should be a mapping, keys with values"
    if mistake["type"] == "missing":
        return "it has too few values"
    words = mistake["msg"].removeprefix("Value error, ")
    return re.sub(r"^(Input|String|Value|List|Tuple|Dictionary) should", "it should", words)


def _description(kind: type[BaseModel], keys: Sequence[Any], content: Any) -> str | None:
    """Description of the innermost field on the way to the value; None if no field has one.

    For the keys ["training", "epochs"] of config.yaml it is `Training.epochs`'s.
    """
    description = None
    classes = [kind]
    annotation: Any = None  # of the last field
    value = content
    for key in keys:
        if isinstance(value, dict) and "kind" in value:
            classes = [cls for cls in classes if _is_of_kind(cls, value["kind"])] or classes
        fields = [cls.model_fields[key] for cls in classes if key in cls.model_fields]
        if not fields:  # a key of a mapping, or a position in a list
            description = next(_descriptions_in(annotation), description)
        else:
            annotation = fields[0].annotation
            description = fields[0].description or description
            classes = [cls for field in fields for cls in _classes_in(field.annotation)]
        value = value[key]
    return description


def _is_of_kind(cls: type[BaseModel], kind: object) -> bool:
    """Whether a class is for sources of a kind, such as http; one without key `kind` is for all."""
    field = cls.model_fields.get("kind")
    return field is None or kind in get_args(field.annotation)


def _descriptions_in(annotation: Any) -> Iterator[str]:
    """Descriptions that an annotation gives the values of a mapping or list."""
    for argument in get_args(annotation):
        if isinstance(argument, FieldInfo):
            if argument.description:
                yield argument.description
        else:
            yield from _descriptions_in(argument)


def _classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Classes of keys in an annotation, such as Part in list[Part] | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes_in(argument)
