"""Cases of a test by tier: `make test` tries examples, `make test-all` tries all."""

from collections.abc import Collection, Iterable, Mapping

import pytest


def examples(cases: Mapping[str, object], chosen: Collection[str]) -> list:
    """Parameters of a test from cases by name, of which `make test` tries the chosen ones.

    A case that is a tuple gives several parameters.

    Raises:
        KeyError: a chosen case does not exist.
    """
    for name in chosen:
        _ = cases[name]
    return [_parameters(case, name, name in chosen) for name, case in cases.items()]


def first(cases: Iterable, number: int = 1) -> list:
    """Parameters of a test, of which `make test` tries the first ones.

    A case that is a tuple gives several parameters.
    """
    return [_parameters(case, None, position < number) for position, case in enumerate(cases)]


def _parameters(case: object, name: str | None, is_example: bool):
    """Parameters of one case; `make test` tries it if it is an example.

    Args:
        name: id of the case; pytest makes one if it is None.
    """
    arguments = case if isinstance(case, tuple) else (case,)
    return pytest.param(*arguments, id=name, marks=() if is_example else pytest.mark.thorough)
