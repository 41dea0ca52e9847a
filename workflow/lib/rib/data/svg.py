"""Rendering of drawings (SVG) that others made: each is checked, then drawn by a process with limits.

The renderer itself would read files that a drawing refers to, and some drawings crash it or take any time and memory.
"""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import resvg_py

from rib.base.limited_process import (
    Ask,
    Limits,
    ProcessFailedError,
    TooSlowError,
    answer_requests,
    limited_process,
)

LARGEST = 4 << 20  # characters; parsing takes 30 times the memory
DEEPEST = 64  # nested elements; at about 250, the renderer's stack overflows
MOST_OCTAVES = 10  # of feTurbulence; each has half the amplitude of the one before, so more don't change 8 bits
SECONDS = 10  # processor time for one drawing
PATIENCE = 60  # seconds to wait for one drawing
MEMORY = 1 << 30  # bytes of address space besides those of the renderer itself
INSIDE = r"(#|data:image/(png|jpe?g|gif|webp)[;,])"  # an SVG within a data URL would not be checked
OUTSIDE_CSS = re.compile(rf"""@import|url\((?!\s*["']?{INSIDE})""", re.IGNORECASE)
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
# How an answer of the renderer begins; a PNG or the reason follows.
DRAWN, REFUSED = b"D", b"R"
Draw = Callable[[str, str, int], bytes]  # see `renderer`


def check(svg: str) -> None:
    """Raise a ValueError if a drawing is too large, malformed, nested too deeply, or refers to files or addresses."""
    if len(svg) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MB")
    depth = 0
    try:
        for event, element in ElementTree.iterparse(io.StringIO(svg), events=("start", "end")):
            depth += 1 if event == "start" else -1
            if depth > DEEPEST:
                raise ValueError(f"its elements are nested more than {DEEPEST} deep")
            if event == "end":
                _check_element(element)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not well-formed: {error}") from error


def _check_element(element: ElementTree.Element) -> None:
    style = "".join(element.itertext()) if element.tag.endswith("style") else ""
    for name, value in [*element.items(), ("", style)]:  # a name may begin with a namespace
        found = OUTSIDE_CSS.search(value)
        if found or (name.endswith("href") and not re.match(INSIDE, value)):
            raise ValueError(f"it refers to {value[found.start() if found else 0 :][:60]!r}")
        if name.endswith("numOctaves") and not float(value) <= MOST_OCTAVES:
            raise ValueError(f"its numOctaves is {value[:60]!r}, above {MOST_OCTAVES}")


@contextlib.contextmanager
def renderer() -> Iterator[Draw]:
    """A function that renders drawings in a process of its own, which ends with this one.

    The function takes the content of an SVG's root element, its view box and the side in pixels, and returns a PNG on
    white. It raises ValueError if `check` or the renderer refuses it. It does so, too, if the renderer fails or exceeds a
    limit, and then can't be used again. What the renderer prints when it fails is for its authors, and is not shown.
    """
    limits = Limits(seconds=SECONDS, patience=PATIENCE, memory=MEMORY)
    with limited_process(__name__, limits) as ask:
        yield lambda body, view, size: _draw(ask, body, view, size)


def _draw(ask: Ask, body: str, view: str, size: int) -> bytes:
    svg = f'<svg {NAMESPACES} viewBox="{view}" width="{size}" height="{size}">{body}</svg>'
    check(svg)  # a DOCTYPE after the root's start is not well-formed
    try:
        answer = ask(f"{size}\n{svg}".encode())
    except TooSlowError:
        raise ValueError(f"it takes more than {SECONDS} s") from None
    except ProcessFailedError as error:
        raise ValueError(f"the renderer failed: {error}") from None
    if answer.startswith(REFUSED):
        reason = answer.removeprefix(REFUSED).decode()
        raise ValueError(f"the renderer refuses it: {reason}")
    return answer.removeprefix(DRAWN)


def _render(request: bytes) -> bytes:
    """The PNG of a request, which is the side in pixels and, in the next lines, the drawing; or why there is none."""
    side, _, svg = request.decode().partition("\n")
    options = {
        "width": int(side),
        "height": int(side),
        "background": "#ffffff",
        "skip_system_fonts": True,
    }
    try:
        return DRAWN + bytes(resvg_py.svg_to_bytes(svg_string=svg, **options))
    except ValueError as error:
        return REFUSED + str(error).encode("utf-8", "backslashreplace")


if __name__ == "__main__":
    answer_requests(_render)
