"""Settings of stages: typed, frozen objects that rules build and scripts read back.

A rule builds the settings of its stage and gives them to Snakemake as values of JSON, `to_params`.
The stage's script reads them back, `from_params`. Both check every field, so that a mistake is
found when the workflow is read.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, Strict, ValidationError

from rib.base.errors import UserError


class Settings(BaseModel):
    """Base of the settings of all stages.

    A field has exactly its type: "yes" is no bool and 1.5 no int.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


# Several texts; a rule may give a list of them.
Texts = Annotated[tuple[str, ...], Strict(False)]
# Settings of an algorithm or a layout, which checks them itself (rib.base.plugins).
FreeSettings = dict[str, JsonValue]

SettingsT = TypeVar("SettingsT", bound=Settings)


def to_params(settings: Settings) -> dict[str, Any]:
    """The settings as values of JSON, for `params` of a rule."""
    return settings.model_dump(mode="json")


def from_params(kind: type[SettingsT], params: Mapping[str, Any]) -> SettingsT:
    """The settings of a kind, from what `to_params` gave.

    Raises:
        UserError: a key is unknown or missing, or a value of another type; the message names it.
    """
    try:
        return kind.model_validate_json(json.dumps(params))
    except ValidationError as error:
        raise UserError(f"{kind.__name__}: {_first_mistake(error)}.") from error


def replaced(settings: SettingsT, /, **changes: Any) -> SettingsT:
    """A copy of the settings with some fields changed.

    Args:
        settings: of any stage; they stay as they are.
        changes: new values by name of the field. They are checked: pydantic's ValidationError if
            one has another type, or is for no field.
    """
    fields = dict(settings)
    fields.update(changes)
    return type(settings)(**fields)


def _first_mistake(error: ValidationError) -> str:
    """Key and reason of the first thing that pydantic found.

    For example: view.budget: Input should be a valid integer.
    """
    mistake = error.errors(include_url=False)[0]
    key = ".".join(map(str, mistake["loc"]))
    return f"{key}: {mistake['msg']}"
