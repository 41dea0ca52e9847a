"""How messages quote users' values and refuse unknown names."""

import difflib
from collections.abc import Iterable

from rib.base.errors import UserError
from rib.base.text import redacted

SHOWN = 100  # longest quoted value, in characters
# Similarity of names, 0 to 1, from which one is suggested for the other.
SIMILAR = 0.6
VERY_SIMILAR = 0.8


def show(value: object) -> str:
    """An invalid value for a message: its repr, without passwords, at most 100 characters."""
    text = redacted(repr(value))
    if len(text) > SHOWN:
        return f"{text[:SHOWN]}..."
    return text


def nearest(name: object, known_names: Iterable[str]) -> str:
    """The clause " (did you mean 'NAME'?)" with the most similar name; empty if none is similar."""
    return suggestion(most_similar(name, known_names))


def most_similar(
    name: object, known_names: Iterable[str], similarity: float = SIMILAR
) -> str | None:
    """The most similar name; None if none is similar.

    Args:
        similarity: of names that count as similar, 0 to 1 (difflib's ratio).
    """
    text = str(name)[:SHOWN]
    similar_names = difflib.get_close_matches(text, list(known_names), n=1, cutoff=similarity)
    return similar_names[0] if similar_names else None


def suggestion(name: str | None) -> str:
    """The clause " (did you mean 'NAME'?)"; empty for None."""
    return "" if name is None else f" (did you mean '{name}'?)"


def known_name(
    name: object, known_names: Iterable[str], kind: str, where: str, listed_as: str = "known"
) -> str:
    """Return a name if it is known.

    Args:
        name: the name that a user wrote.
        kind: what the names denote, such as `method`, for the message.
        where: file and key of the name.
        listed_as: word before the list of names in the message.

    Raises:
        UserError: The name is unknown; the message lists the known ones.
    """
    known_names = list(known_names)
    if name not in known_names:
        listed_names = ", ".join(sorted(known_names)) or "none"
        raise UserError(
            f"{where}: unknown {kind} {show(name)}{nearest(name, known_names)}; "
            f"{listed_as} are {listed_names}."
        )
    return name
