"""Settings of stages: what a rule builds is what a script reads.

A mistake is refused with its key.
"""

from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.params import Settings, from_params, to_params


class View(Settings):
    """Part of the settings of a made-up stage."""

    size: int
    names: tuple[str, ...]


class Stage(Settings):
    """Settings of a made-up stage."""

    view: View
    file: Path
    rate: float = 0.1


SETTINGS = Stage(view=View(size=3, names=("a", "b")), file=Path("results/a.json"), rate=1)
PARAMS = {"view": {"size": 3, "names": ["a", "b"]}, "file": "results/a.json", "rate": 1.0}


def test_what_a_script_reads_is_what_the_rule_built():
    assert to_params(SETTINGS) == PARAMS
    assert from_params(Stage, PARAMS) == SETTINGS


@pytest.mark.parametrize(
    ("params", "key"),
    [
        (PARAMS | {"rates": 0.2}, "rates"),
        ({"view": PARAMS["view"]}, "file"),
        (PARAMS | {"view": {"size": "3", "names": []}}, "view.size"),
        (PARAMS | {"rate": True}, "rate"),
    ],
)
def test_an_unknown_a_missing_and_a_mistyped_key_are_named(params, key):
    with pytest.raises(UserError, match=rf"^Stage: {key}: "):
        from_params(Stage, params)
