"""Whatever a record, a drawing or a YAML file holds is taken or refused.

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
from rib.config.schema import read_yaml
from rib.data import svg
from rib.records import provenance
from tiny.fuzz import NAMES, SLOWEST, VALUES, fuzzed, mutated, outcome
from tiny.records import make, output, record

pytestmark = pytest.mark.attack("fuzzing")

DIGITS = st.text("0123456789abcdef", min_size=1, max_size=64)
PLACES = st.sampled_from(
    [
        "results",
        "results/",
        "results/..",
        "results/a/../../x",
        "/etc/passwd",
        "/dev/zero",
        "data/raw/a",
        "reports//x",
    ]
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished job, whose record is gathered."""
    monkeypatch.chdir(tmp_path)
    make("a")
    provenance.gather([Path("results")])
    return tmp_path


def read_back():
    """The gathered records, and those of them that would be adopted."""
    gathered = provenance.load()
    return gathered, provenance.match(gathered, lambda path: False, lambda path: False)


@fuzzed(200, in_security=10_000)
@given(data=st.data())
def test_any_gathered_record_is_adopted_or_refused(folder, data):
    make("a")
    own = provenance.read(Path(record("a")))
    line = data.draw(mutated({"path": record("a"), **own}, VALUES | PLACES | DIGITS))
    with contextlib.suppress(TypeError, ValueError):  # values that JSON does not have
        provenance.FILE.write_text(provenance._with_digest(line, ""))
        result = outcome(read_back)
        if isinstance(result, str):
            assert "line 1" in result or output("a") in result or record("a") in result, result
        else:
            assert result[1] in ({record("a"): own}, {})
            made = [
                file for lines in result[0].values() for line in lines for file in line["outputs"]
            ]
            assert all(
                file.startswith(provenance.MADE) and ".." not in file.split("/") for file in made
            )


@fuzzed(200, in_security=10_000)
@given(
    cuts=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=5)), max_size=3
    ),
    own=st.booleans(),
)
def test_any_bytes_of_a_record_are_taken_or_refused(folder, cuts, own):
    make("a")
    provenance.FILE.unlink(missing_ok=True)
    provenance.gather([Path("results")])
    path = Path(record("a")) if own else provenance.FILE
    data = before = path.read_bytes()
    for place, length, new in cuts:
        start = int(place * len(data))
        data = data[:start] + new + data[start + length :]
    path.write_bytes(data)
    result = outcome(read_back)
    if not isinstance(result, str):  # an empty file has no records
        assert data == before or not result[0]


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
]
ELEMENTS += [
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
]
ELEMENTS += [
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
]
ATTRIBUTES += [
    "height",
    "transform",
    "viewBox",
    "numOctaves",
    "baseFrequency",
    "stdDeviation",
    "radius",
    "points",
]
ATTRIBUTES += [
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
]
WORDS += [
    "data:image/svg+xml,<svg/>",
    "url(/dev/zero)",
    "@import 'x'",
    "M0 0h9v9z",
    "M0 0" + "h1v1" * 500,
    "1e9",
    "-1",
]
WORDS += [
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


def escaped(text):
    return "".join(
        {"<": "&lt;", "&": "&amp;", '"': "&quot;"}.get(letter, letter) for letter in text
    )


def tag(name, given, inner):
    attributes = "".join(f' {key}="{escaped(value)}"' for key, value in given.items())
    return f"<{name}{attributes}>{''.join(inner)}</{name}>"


def element(children):
    parts = st.dictionaries(st.sampled_from(ATTRIBUTES), TEXT, max_size=4)
    return st.builds(tag, st.sampled_from(ELEMENTS), parts, st.lists(children, max_size=4))


DRAWINGS = st.recursive(
    TEXT.map(escaped) | st.sampled_from(["<g>", "</svg>", "<!--", "<![CDATA[", "&x;"]), element
)


class Renderers:
    """A renderer, and a new one after each that failed."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.draw = None

    def __call__(self, body):
        if self.draw is None:
            self.draw = self.stack.enter_context(svg.renderer())
        try:
            return self.draw(body, "0 0 16 16", 16)
        except ValueError as error:
            if str(error).startswith(("the renderer failed", "it takes more")):
                self.stack.close()
                self.draw = None
            raise UserError(f"the drawing of a test is refused ({error}).") from error


@pytest.fixture(scope="module")
def renderers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "SECONDS", 1)
        made = Renderers()
        yield made
        made.stack.close()


@fuzzed(150, in_security=10_000)
@given(st.lists(DRAWINGS, max_size=4).map("".join))
def test_any_drawing_is_drawn_or_refused(renderers, body):
    started = time.monotonic()
    result = outcome(lambda: renderers(body))
    assert isinstance(result, str) or result.startswith(b"\x89PNG")
    assert (
        time.monotonic() - started < 3 * SLOWEST
    )  # the limit is of processor time, and other tests run beside this


@st.composite
def aliased(draw):
    """YAML in which anchors refer to earlier ones: a few lines may mean any number of values."""
    width, lines = draw(st.integers(1, 12)), ["a0: &a0 [x, x]"]
    for number in range(1, draw(st.integers(1, 30))):
        inner = ", ".join([f"*a{number - 1}"] * width)
        form = draw(
            st.sampled_from(
                [
                    "a{n}: &a{n} [{i}]",
                    "a{n}: &a{n} {{k: [{i}]}}",
                    "a{n}: &a{n} {{<<: *m, k: [{i}]}}",
                ]
            )
        )
        lines.append(form.format(n=number, i=inner))
    return (
        "m: &m {z: 1}\n"
        + "\n".join(lines)
        + draw(st.sampled_from(["", "\n? *a0\n", "\nb: &b [*b]\n"]))
    )


NESTED = st.builds(
    lambda opening, depth: opening * depth,
    st.sampled_from(["[", "{a: ", "- ", "? ", "!!x [", "&a ["]),
    st.integers(0, 9999),
)
DOUBLE = st.dictionaries(NAMES, VALUES, max_size=4).map(
    lambda value: json.dumps(value, default=str) * 2
)


@fuzzed(200, in_security=10_000)
@given(aliased() | NESTED | DOUBLE | st.binary(max_size=40))
def test_any_aliases_and_nesting_are_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        result = outcome(lambda: [read_yaml(path)])  # a list, since a file may hold a text
        if isinstance(result, str):
            assert str(path) in result
        else:
            assert len(json.dumps(result, default=repr, skipkeys=True)) < 5_000_000
