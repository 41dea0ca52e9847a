"""Settings of methods: their names and kinds of values. No method's module is imported.

A method's entry in methods.yaml lists all settings of its algorithm with defaults. A value from
family or config must have the default's kind: a number, text, true or false, a list or a mapping.
The algorithm itself checks ranges and choices when its first job starts (see rib.methods).
"""

import json
from collections.abc import Mapping
from typing import Any

from rib.base.errors import UserError
from rib.schema.fields import is_number, is_whole, number
from rib.schema.messages import known_name, show

RECIPE = "recipe"
LENGTH = ("epochs", "steps")  # of training
RATE = "lr"  # the only setting that may map models or groups of models to numbers
OTHER = "other"  # key in this mapping for all models without another key
# Settings of methods that use Fisher information.
FISHER = "fisher"  # its kind, sampled or empirical
FISHER_IMAGES = "fisher_images"
COUNTS = (*LENGTH, FISHER_IMAGES)  # the workflow itself computes with them

# Further settings of every method that trains. TRAINING's other values are only examples of their
# kind: family, recipe or config state the real ones.
DEFAULTS_OF_TRAINING = {"batch_norm": "frozen", "drop_path": 0.0, "dropout": 0.0}
TRAINING = {RECIPE: "paper", "epochs": 10, "steps": 100, RATE: 0.001, **DEFAULTS_OF_TRAINING}


def settings_of_entry(settings: Mapping[str, Any], trains: bool, where: str) -> dict[str, Any]:
    """All settings of a method's entry, with the defaults of training if the method trains.

    A list among the entry's settings is one value, not a sweep: only the entry says what kind the
    setting has.

    Args:
        settings: of the entry, such as {"temperature": 2.0, "distil": "all"}.
        where: file and entry, for messages.

    Raises:
        UserError: A value is not valid (`check_settings`).
    """
    own = {name: _number_of_text(setting) for name, setting in settings.items()}
    checked = check_settings(own, known_settings(own, trains), where)
    if trains:
        for name, default in DEFAULTS_OF_TRAINING.items():
            checked.setdefault(name, default)
    return checked


def known_settings(of_entry: Mapping[str, Any], trains: bool) -> dict[str, Any]:
    """Settings that a method may be given, with a value of the kind: {"temperature": 2.0, ...}.

    Args:
        of_entry: settings of the method's entry, such as {"temperature": 2.0, "distil": "all"}.
    """
    return {**of_entry, **TRAINING} if trains else dict(of_entry)


def check_settings(
    settings: Mapping[str, Any], known: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Settings with texts as numbers, once names and kinds of values are checked.

    Integers and floats are one kind. Texts such as `1e-3`, which YAML 1.1 does not read as a
    number, become numbers where a number is expected. A list where one value is expected is a
    sweep.

    Args:
        settings: {"temperature": [1, "2e0"]} is returned as {"temperature": [1, 2.0]}.
        known: for each setting that the method has, a value of its kind; None for any kind.
        where: file and key, for messages.

    Raises:
        UserError: A setting is unknown, or a value has another kind.
    """
    checked: dict[str, Any] = {}
    for name, setting in settings.items():
        known_name(name, known, "setting", where, "allowed")
        subject = f"{where}: the setting '{name}'"
        if name == RATE and isinstance(setting, dict):
            checked[name] = _checked_rates(setting, subject)
            continue
        refuse_other_than_json(setting, subject)
        if is_sweep(setting, known[name]):
            checked[name] = [_checked(value, known[name], subject) for value in setting]
        else:
            checked[name] = _checked(setting, known[name], subject)
        if name in COUNTS:
            _refuse_other_than_counts(checked[name], subject)
    return checked


def _checked_rates(rates: Mapping[object, object], subject: str) -> dict[object, object]:
    """Learning rates by model or group, such as {"net": 0.1, "other": 0.3}, as numbers.

    `Variants` checks that models and groups exist.
    """
    if not rates:
        raise UserError(f"{subject} is an empty mapping; give a number for each model or group.")
    return {
        model: _checked(rate, TRAINING[RATE], f"{subject} of {show(model)}")
        for model, rate in rates.items()
    }


def is_sweep(setting: object, of_kind: object) -> bool:
    """Whether a setting is a list of values, each for a variant of the method.

    [0.1, 0.01] is one for a number. A setting that is itself a list is swept by a list of lists.

    Args:
        of_kind: a value of the setting's kind, such as its default.
    """
    if not isinstance(setting, list):
        return False
    return not isinstance(of_kind, list) or isinstance(setting[0], list)


def refuse_other_than_json(setting: object, subject: str) -> None:
    """Raise a UserError if a setting is an empty list or not a JSON value, such as a date.

    Args:
        subject: beginning of the message: file, entry and setting.
    """
    try:
        is_json = json.loads(json.dumps(setting, allow_nan=False)) == setting
    except (TypeError, ValueError):
        is_json = False
    if not is_json:
        raise UserError(
            f"{subject} is {show(setting)}; give text, a number, true, false, or lists and "
            "mappings of these."
        )
    if setting == []:
        raise UserError(f"{subject} is an empty list; give a value.")


def _refuse_other_than_counts(setting: object, subject: str) -> None:
    """Raise a UserError unless a setting, or each value of a sweep, is a whole number from 1."""
    for count in setting if isinstance(setting, list) else [setting]:
        if not is_whole(count) or count < 1:
            raise UserError(f"{subject} is {show(count)}; give a whole number from 1.")


def _checked(value: object, of_kind: object, subject: str) -> object:
    """A value of another value's kind; a text such as `1e-3` becomes a number."""
    kind = _kind(of_kind)
    converted = _number_of_text(value) if kind == "a number" else value
    if of_kind is not None and _kind(converted) != kind:
        raise UserError(f"{subject} is {show(value)}; give {kind}.")
    if isinstance(converted, list) and isinstance(of_kind, list) and of_kind:
        return [_checked(element, of_kind[0], subject) for element in converted]
    return converted


def _kind(value: object) -> str:
    """Words of a message that asks for such a value: "a number" for 0.1."""
    if isinstance(value, bool):
        return "true or false"
    if is_number(value):
        return "a number"
    if isinstance(value, str):
        return "text, if necessary in quotes"
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else "a value"


def _number_of_text(value: object) -> object:
    """0.001 for "1e-3"; anything but a number's text unchanged."""
    stated = number(value)
    return stated if is_number(stated) else value
