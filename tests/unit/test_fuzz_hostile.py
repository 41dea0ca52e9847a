"""Whatever a drawing or a YAML file holds is taken or refused.

It is refused with one sentence, and either takes two seconds at most.
"""

import contextlib
import json
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.config.yaml_files import read_yaml
from rib.data import svg
from tiny.fuzz import NAMES, SLOWEST, VALUES, fuzzed, outcome

# Drawings

ELEMENTS = [
    "g",
    "path",
    "rect",
    "circle",
    "use",
    "image",
    "text",
    "style",
    "filter",
    "feTurbulence",
    "feImage",
    "defs",
    "feGaussianBlur",
    "feTile",
    "mask",
    "clipPath",
    "pattern",
    "linearGradient",
    "stop",
    "svg",
    "symbol",
    "a",
    "marker",
    "switch",
    "foreignObject",
    "script",
    "animate",
    "feDisplacementMap",
    "feMorphology",
    "x:y",
    "é",
]
ATTRIBUTES = [
    "id",
    "href",
    "xlink:href",
    "style",
    "fill",
    "filter",
    "mask",
    "clip-path",
    "d",
    "x",
    "y",
    "width",
    "r",
    "height",
    "transform",
    "viewBox",
    "numOctaves",
    "baseFrequency",
    "stdDeviation",
    "radius",
    "points",
    "stroke-width",
    "stroke-dasharray",
    "font-size",
    "marker-start",
    "patternUnits",
    "xmlns",
    "x:y",
]
WORDS = [
    "#a",
    "#b",
    "url(#a)",
    "url(#b)",
    "a",
    "b",
    "/etc/passwd",
    "file:///dev/zero",
    "data:image/png;base64,AAAA",
    "data:image/svg+xml,<svg/>",
    "url(/dev/zero)",
    "@import 'x'",
    "M0 0h9v9z",
    "M0 0" + "h1v1" * 500,
    "1e9",
    "-1",
    "nan",
    "1e-30",
    "0 0 1e9 1e9",
    "matrix(1e9 0 0 1e9 0 0)",
    "rotate(45)",
    "100%",
    "1 1e-9",
    "red",
    "none",
]
TEXT = st.sampled_from(WORDS) | st.integers(-3, 10**6).map(str) | st.text(max_size=4)


def escape(text):
    """Text as it may stand in XML, in an attribute or an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def write_element(name, attributes, inner_parts):
    """An element of XML.

    Args:
        attributes: values by name.
        inner_parts: texts and elements in it.
    """
    written_attributes = [f' {key}="{escape(value)}"' for key, value in attributes.items()]
    return f"<{name}{''.join(written_attributes)}>{''.join(inner_parts)}</{name}>"


def elements_around(children):
    """A strategy of elements that have some of these children."""
    attributes = st.dictionaries(st.sampled_from(ATTRIBUTES), TEXT, max_size=4)
    inner_parts = st.lists(children, max_size=4)
    return st.builds(write_element, st.sampled_from(ELEMENTS), attributes, inner_parts)


BROKEN_PARTS = st.sampled_from(["<g>", "</svg>", "<!--", "<![CDATA[", "&x;"])
DRAWINGS = st.recursive(TEXT.map(escape) | BROKEN_PARTS, elements_around)


class Renderers:
    """A renderer, and a new one after each that failed."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.draw = None

    def __call__(self, body):
        """Draw the inner part of an SVG on 16 x 16 pixels; gives the PNG."""
        if self.draw is None:
            self.draw = self.stack.enter_context(svg.renderer())
        try:
            return self.draw(body, "0 0 16 16", 16)
        except ValueError as error:
            renderer_is_lost = str(error).startswith(("the renderer failed", "it takes more"))
            if renderer_is_lost:
                self.stack.close()
                self.draw = None
            raise UserError(f"the drawing of a test is refused ({error}).") from error


@pytest.fixture(scope="module")
def renderers():
    """Renderers that take one second of processor time at most for a drawing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "SECONDS", 1)
        shared_renderers = Renderers()
        yield shared_renderers
        shared_renderers.stack.close()


@pytest.mark.thorough
@fuzzed(150)
@given(st.lists(DRAWINGS, max_size=4).map("".join))
def test_any_drawing_is_drawn_or_refused(renderers, body):
    """The limit is of processor time, and other tests run beside this: it may take longer."""
    # when
    started = time.monotonic()
    result = outcome(lambda: renderers(body))
    seconds = time.monotonic() - started
    # then
    is_refused = isinstance(result, str)
    assert is_refused or result.startswith(b"\x89PNG")
    assert seconds < 3 * SLOWEST


# YAML


@st.composite
def yaml_with_aliases(draw):
    """YAML in which anchors refer to earlier ones: a few lines may mean any number of values."""
    references_per_line = draw(st.integers(1, 12))
    number_of_lines = draw(st.integers(1, 30))
    forms = st.sampled_from(
        [
            "a{n}: &a{n} [{i}]",
            "a{n}: &a{n} {{k: [{i}]}}",
            "a{n}: &a{n} {{<<: *m, k: [{i}]}}",
        ]
    )
    lines = ["m: &m {z: 1}", "a0: &a0 [x, x]"]
    for number in range(1, number_of_lines):
        references = ", ".join([f"*a{number - 1}"] * references_per_line)
        lines.append(draw(forms).format(n=number, i=references))
    alias_as_key = "\n? *a0\n"
    alias_of_itself = "\nb: &b [*b]\n"
    end = draw(st.sampled_from(["", alias_as_key, alias_of_itself]))
    return "\n".join(lines) + end


def repeat_opening(opening, depth):
    """Many openings of collections that are never closed."""
    return opening * depth


def write_twice(value):
    """A value as JSON, and once more."""
    return json.dumps(value, default=str) * 2


NESTED = st.builds(
    repeat_opening,
    st.sampled_from(["[", "{a: ", "- ", "? ", "!!x [", "&a ["]),
    st.integers(0, 9999),
)
DOUBLE = st.dictionaries(NAMES, VALUES, max_size=4).map(write_twice)


@fuzzed(200)
@given(yaml_with_aliases() | NESTED | DOUBLE | st.binary(max_size=40))
def test_any_aliases_and_nesting_are_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        # given
        file = Path(folder, "config.yaml")
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        file.write_bytes(content)
        # when
        result = outcome(lambda: [read_yaml(file)])  # a list, since a file may hold a text
    # then
    if isinstance(result, str):
        assert str(file) in result
    else:
        characters = len(json.dumps(result, default=repr, skipkeys=True))
        assert characters < 5_000_000
