"""Render untrusted drawings (SVG).

Each drawing is checked, then rendered in a process with limits: the renderer would read files that
a drawing refers to, and some drawings crash it or take any time and memory.
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
DEEPEST = 64  # nested elements; the renderer's stack overflows at about 250
# feTurbulence: each octave has half the amplitude, so more octaves don't change 8 bits.
MOST_OCTAVES = 10
SECONDS = 10  # processor time of one drawing
PATIENCE = 60  # seconds to wait for one drawing
MEMORY = 1 << 30  # bytes of address space on top of the renderer's
SHOWN = 60  # characters of an attribute in a message
INSIDE = r"(#|data:image/(png|jpe?g|gif|webp)[;,])"  # an SVG in a data URL would not be checked
OUTSIDE_CSS = re.compile(rf"""@import|url\((?!\s*["']?{INSIDE})""", re.IGNORECASE)
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
# First byte of the renderer's answer; a PNG or the reason follows.
DRAWN = b"D"
REFUSED = b"R"
Draw = Callable[[str, str, int], bytes]  # from SVG body, view box and side to a PNG


def check(svg: str) -> None:
    """Check a drawing before it is rendered.

    Raises:
        ValueError: it is too large, malformed, nested too deeply, or refers to files or addresses.
    """
    if len(svg) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MB")
    depth = 0
    try:
        for event, element in ElementTree.iterparse(io.StringIO(svg), events=("start", "end")):
            if event == "start":
                depth += 1
                if depth > DEEPEST:
                    raise ValueError(f"its elements are nested more than {DEEPEST} deep")
            else:
                depth -= 1
                _check_element(element)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not well-formed: {error}") from error


def _check_element(element: ElementTree.Element) -> None:
    """A ValueError for references to files or addresses, in CSS or `href`, and for many octaves."""
    if element.tag.endswith("style"):
        _refuse_outside_css("".join(element.itertext()))
    for attribute, text in element.items():  # attribute names may begin with a namespace
        _refuse_outside_css(text)
        if attribute.endswith("href") and not re.match(INSIDE, text):
            raise ValueError(f"it refers to {text[:SHOWN]!r}")
        if attribute.endswith("numOctaves") and not float(text) <= MOST_OCTAVES:
            raise ValueError(f"its numOctaves is {text[:SHOWN]!r}, above {MOST_OCTAVES}")


def _refuse_outside_css(text: str) -> None:
    """A ValueError for `@import` and `url(...)`, except ids (`#a`) and inline pictures."""
    reference = OUTSIDE_CSS.search(text)
    if reference:
        raise ValueError(f"it refers to {text[reference.start() :][:SHOWN]!r}")


@contextlib.contextmanager
def renderer() -> Iterator[Draw]:
    """Yield a function that renders drawings in a separate process, which ends with this one.

    The function takes the content of an SVG's root element, its view box (`0 0 16 16`: left, top,
    width, height) and the side in pixels; it returns a PNG on white. It raises ValueError for a
    refused drawing. It also does so if the renderer crashes or exceeds a limit, and then can't be
    used again.
    """
    limits = Limits(seconds=SECONDS, patience=PATIENCE, memory=MEMORY)
    with limited_process(__name__, limits) as ask:

        def draw(body: str, view: str, size: int) -> bytes:
            return _draw(ask, body, view, size)

        yield draw


def _draw(ask: Ask, body: str, view: str, size: int) -> bytes:
    """A PNG of an SVG's body from the renderer's process; a ValueError if it is refused."""
    svg = f'<svg {NAMESPACES} viewBox="{view}" width="{size}" height="{size}">{body}</svg>'
    check(svg)  # a DOCTYPE inside the root element is malformed
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
    """Runs in the renderer's process; gives `D` and a PNG, or `R` and the reason of a refusal."""
    # A request is the side in pixels, a line break and the SVG.
    first_line, _, svg = request.decode().partition("\n")
    side = int(first_line)
    try:
        encoded = resvg_py.svg_to_bytes(
            svg_string=svg,
            width=side,
            height=side,
            background="#ffffff",
            skip_system_fonts=True,
        )
        png = bytes(encoded)
    except ValueError as error:
        return REFUSED + str(error).encode("utf-8", "backslashreplace")
    return DRAWN + png


if __name__ == "__main__":
    answer_requests(_render)
