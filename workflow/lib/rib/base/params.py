"""Settings of stages: typed, frozen objects, built by rules and read back by scripts.

Snakemake passes JSON values (`to_params`) from a rule to its script (`from_params`). Both sides
check every field: mistakes are found when the workflow is read.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, Strict, ValidationError

from rib.base.errors import UserError


class Settings(BaseModel):
    """Base of the settings of all stages.

    Types are strict: "yes" is no bool and 1.5 no int.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


# Strings; a rule may give a list in place of a tuple.
Texts = Annotated[tuple[str, ...], Strict(False)]
# Settings of an algorithm or layout, which rib.base.plugins checks.
FreeSettings = dict[str, JsonValue]

SettingsT = TypeVar("SettingsT", bound=Settings)


def to_params(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values, for `params` of a rule.

    `DatasetPart(column="corruption", levels=("fog",))` gives `{"column": "corruption", "levels":
    ["fog"]}`.
    """
    return settings.model_dump(mode="json")


def from_params(kind: type[SettingsT], params: Mapping[str, Any]) -> SettingsT:
    """Read settings of a class (`kind`) from the JSON values that `to_params` gave.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type.
    """
    try:
        return kind.model_validate_json(json.dumps(params))
    except ValidationError as error:
        raise UserError(f"{kind.__name__}: {_first_mistake(error)}.") from error


def replaced(settings: SettingsT, /, **changes: Any) -> SettingsT:
    """A copy with some fields changed, such as `replaced(view, budget=100)`.

    Changes are validated; pydantic's `model_copy` would not do so.

    Raises:
        pydantic.ValidationError: a new value has the wrong type, or the field does not exist.
    """
    fields = dict(settings)
    fields.update(changes)
    return type(settings)(**fields)


def _first_mistake(error: ValidationError) -> str:
    """Key and problem for a message: `view.budget: Input should be a valid integer`."""
    mistake = error.errors(include_url=False)[0]
    key = ".".join(map(str, mistake["loc"]))
    return f"{key}: {mistake['msg']}"
