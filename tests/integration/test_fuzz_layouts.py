"""Whatever an archive holds and however it is damaged, a layout reads it or refuses it.

It refuses it with a UserError, and writes nowhere but into its folder. A drawing takes a few
seconds at most.
"""

import contextlib
import io
import json
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.plugins import LIBRARY, checked_settings, load_function
from rib.catalog.label_space import LabelSpace
from rib.data import svg
from rib.data.archives import archive_members
from rib.data.images import decode, resize_and_crop
from rib.data.variables import PHOTO_MEGABYTES, PHOTO_MEGAPIXELS
from tiny.data.photos import (
    GEOMETRY,
    INDICES,
    WNIDS,
    devkit,
    encrypted,
    jpeg,
    prepare_into,
    space_of,
    tar,
)
from tiny.data.published import CATALOG
from tiny.fuzz import NAMES, SLOWEST, VALUES, fuzzed, mutated, outcome

# Pillow and SciPy warn of what they can read all the same.
pytestmark = [pytest.mark.filterwarnings("ignore")]

TWO_CLASSES = INDICES[:2]
OUTSIDE = "/tmp/rib_fuzz_outside"
BODY = "<path d='M2 2h12v9z' fill='currentColor'/>"
ICONS = {
    "prefix": "p",
    "icons": {"ant": {"body": BODY, "width": 24}, "bee": {"body": BODY}},
    "aliases": {"wasp": {"parent": "bee", "hFlip": True, "rotate": 1, "width": 12}},
    "height": 16,
}
CHARS = {"1f41c": "ant", "1f41d": "wasp"}


def space_of_keys(*keys):
    """A label space of classes with these keys, each with an output."""
    return LabelSpace(keys, tuple((i,) for i in range(len(keys))), keys, len(keys))


def photos(*names):
    """Photos of two classes by name.

    Args:
        names: what each class's are named, with {wnid} or {index} of the class.
    """
    files = {}
    for i in TWO_CLASSES:
        for name in names:
            files[name.format(wnid=WNIDS[i], index=i)] = jpeg(i)
    return files


@dataclass(frozen=True)
class ValidDataset:
    """What a layout reads."""

    archives: list[dict[str, bytes]]  # members of each, by name
    settings: Mapping[str, Any]  # of the layout
    space: LabelSpace


def webdataset_samples():
    """Members of a WebDataset: a photo of each class, and facts of it."""
    samples = {}
    for number, (i, label) in enumerate(zip(TWO_CLASSES, (0, WNIDS[TWO_CLASSES[1]]), strict=True)):
        samples[f"x/{number}.jpg"] = jpeg(i)
        facts = {"is": label, "from": "attic", "by": number}
        samples[f"x/{number}.json"] = json.dumps(facts).encode()
    return samples


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """A valid dataset by layout."""
    folder = tmp_path_factory.mktemp("valid")
    two_classes = space_of(TWO_CLASSES)
    characters = space_of_keys(*CHARS)
    tars_of_classes = {}
    for i in TWO_CLASSES:
        path = tar(folder / "inner.tar", {f"{WNIDS[i]}_1.JPEG": jpeg(i)})
        tars_of_classes[f"{WNIDS[i]}.tar"] = path.read_bytes()
    first, second = TWO_CLASSES
    validation_images = {
        "ILSVRC2012_val_00000001.JPEG": jpeg(first),
        "ILSVRC2012_val_00000002.JPEG": jpeg(second),
    }
    kit = devkit(folder / "kit.tar.gz", f"{1000 - first}\n{1000 - second}")
    members_of_kit = {name: read() for name, read in archive_members(kit)}
    icons = {
        "package/icons.json": json.dumps(ICONS).encode(),
        "package/chars.json": json.dumps(CHARS).encode(),
    }
    corrupt_photos = [photos("fog/1/{wnid}/a.jpg"), photos("c/fog/2/{wnid}/a.jpg")]
    settings_of_webdataset = {
        "label": "is",
        "slices": ["from"],
        "where": {"from": "attic"},
        "source": "by",
        "names": list(two_classes.keys),
    }
    settings_of_corruptions = {
        "photos": {"layout": "iconify", "settings": {"margin": 0.06}},
        "corruptions": ["contrast"],
        "severities": [1, 2],
    }
    drawings = {f"package/assets/{key}.webp": jpeg(7) for key in CHARS}
    return {
        "class_folders": ValidDataset(
            [photos("x/{wnid}/1.jpg", "x/{wnid}/2.PNG")], {}, two_classes
        ),
        "integer_folders": ValidDataset([photos("x/{index}/1.jpeg")], {}, two_classes),
        "class_tars": ValidDataset([tars_of_classes], {}, two_classes),
        "corruptions": ValidDataset(
            corrupt_photos, {"corruptions": ["fog"], "severities": [1, 2]}, two_classes
        ),
        "devkit_labels": ValidDataset([validation_images, members_of_kit], {}, two_classes),
        "objectnet": ValidDataset(
            [photos("o/images/{wnid}/a.png")],
            {"border": 2, "also": {"other": WNIDS[first]}},
            two_classes,
        ),
        "webdataset": ValidDataset([webdataset_samples()], settings_of_webdataset, two_classes),
        "iconify": ValidDataset([icons], {"margin": 0.06}, characters),
        "corruptions_of": ValidDataset([icons], settings_of_corruptions, characters),
        "codepoint_images": ValidDataset([drawings], {"margin": 0.06}, characters),
    }


LAYOUTS = [
    "class_folders",
    "integer_folders",
    "class_tars",
    "corruptions",
    "devkit_labels",
    "objectnet",
    "webdataset",
    "iconify",
    "corruptions_of",
    "codepoint_images",
]
HOSTILE_NAMES = [
    f"..{OUTSIDE}",
    OUTSIDE,
    "x/../../../../y.jpg",
    "../out/images.npy",
    "/",
    "./",
    "x/" * 200 + "a.jpg",
    "package/icons.json",
]
# Kinds of a tar's members that are no plain files, one of which does not exist.
HOSTILE_KINDS = [
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.GNUTYPE_SPARSE,
    b"?",
]
# Modes of tars and compressions of zips; those that are written fastest are drawn more often.
TAR_MODES = ["w", "w", "w:gz", "w:bz2", "w:xz"]
ZIP_COMPRESSIONS = [
    zipfile.ZIP_STORED,
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_LZMA,
]
FORMS = [*TAR_MODES, *ZIP_COMPRESSIONS]


class Member(NamedTuple):
    """A member of an archive."""

    name: str
    content: bytes
    kind: bytes = tarfile.REGTYPE  # of a tar's member


def members_of(files):
    """The members of an archive with these files."""
    return [Member(name, content) for name, content in files.items()]


@st.composite
def damaged(draw, data):
    """Bytes cut off, changed in some places, or others altogether."""
    damage = draw(st.sampled_from(["cut", "change", "change", "change", "other"]))
    if damage == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if damage == "other":
        encoded_text = st.text(max_size=9).map(str.encode)
        return draw(st.binary(max_size=40) | encoded_text)
    changed = bytearray(data)
    position = st.integers(0, max(0, len(data) - 1))
    for start in draw(st.lists(position, min_size=1, max_size=4)):
        changed[start : start + 1] = draw(st.binary(min_size=1, max_size=2))
    return bytes(changed)


GROUND_TRUTHS = [b"", b"998", b"998\n-1", b"998\n2000", b"998 x", b"998\n" + b"9" * 5000, b"\xff"]


@st.composite
def of_its_own_kind(draw, name, data):
    """Another content of a member that a layout understands, as to form at least."""
    if name.endswith("icons.json"):
        return json.dumps(draw(mutated(ICONS, JSON))).encode()
    if name.endswith("chars.json"):
        return json.dumps(draw(mutated(CHARS, JSON))).encode()
    if name.endswith(".json"):
        return json.dumps(draw(mutated(json.loads(data), JSON))).encode()
    if name.endswith(".mat"):
        return draw(kits())
    if name.endswith("ground_truth.txt"):
        return draw(st.sampled_from(GROUND_TRUTHS))
    return draw(damaged(data))


@st.composite
def kits(draw):
    """What may stand in the development kit's table."""
    cell = st.sampled_from([1, 998, -1, 0.5, float("nan"), "n01443537", "", [], [1, 2], {"a": 1}])
    field = st.sampled_from(["ILSVRC2012_ID", "WNID", "num_children", "x"])
    fields = draw(st.lists(field, unique=True, min_size=1))
    n = draw(st.integers(0, 2))
    table = np.empty(n, dtype=[(field, object) for field in fields])
    for row in range(n):
        table[row] = tuple(draw(cell) for _ in fields)
    name = draw(st.sampled_from(["synsets", "synsets", "other"]))
    content = draw(st.just(table) | st.just(3))
    buffer = io.BytesIO()
    savemat(buffer, {name: content})
    return buffer.getvalue()


def is_json(value):
    """Whether JSON can express a value."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


JSON = VALUES.filter(is_json) | st.sampled_from(
    ["<a", "<image href='/etc/passwd'/>", "ant", "wasp"]
)


CHANGES = ["content", "content", "content", "name", "kind", "twice", "gone"]


@st.composite
def members(draw, files):
    """Members of an archive with these files, some of them not as they should be."""
    drawn = members_of(files)
    for _ in range(draw(st.integers(0, 3))):
        i = draw(st.integers(0, len(drawn) - 1))
        member = drawn[i]
        change = draw(st.sampled_from(CHANGES))
        if change == "content":
            content = draw(of_its_own_kind(member.name, member.content))
            drawn[i] = member._replace(content=content)
        elif change == "name":
            drawn[i] = member._replace(name=draw(NAMES | st.sampled_from(HOSTILE_NAMES)))
        elif change == "kind":
            drawn[i] = member._replace(kind=draw(st.sampled_from(HOSTILE_KINDS)))
        elif change == "twice":
            drawn.append(member)
        elif len(drawn) > 1:
            del drawn[i]
    return drawn


def packed(archive_members, form):
    """An archive's bytes: a zip if its form is a compression, a tar if it is a mode."""
    if form in ZIP_COMPRESSIONS:
        return packed_zip(archive_members, form)
    return packed_tar(archive_members, form)


def packed_zip(archive_members, compression):
    """A zip's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member in archive_members:
            name = member.name.encode("utf-8", "replace").decode() or "x"
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            info.external_attr = 0
            if member.kind == tarfile.SYMTYPE:
                info.external_attr = 0o120777 << 16
            archive.writestr(info, member.content)
    return buffer.getvalue()


def packed_tar(archive_members, mode):
    """A tar's bytes, of which links lead outside."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in archive_members:
            name = member.name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
            info = tarfile.TarInfo(name)
            info.size = len(member.content)
            info.type = member.kind
            info.linkname = "../../../etc/passwd"
            archive.addfile(info, io.BytesIO(member.content))
    return buffer.getvalue()


# By field of a tar's header, its offset and length in bytes.
HEADER = {
    "size": (124, 12),
    "name": (0, 100),
    "kind": (156, 1),
    "magic": (257, 8),
    "prefix": (345, 155),
}
BLOCK = 512  # bytes of a header


def binary_number(number):
    """A number in the form that tars have for large and negative ones."""
    sign = b"\x80" if number >= 0 else b"\xff"
    return sign + number.to_bytes(11, "big", signed=True)


@st.composite
def false_header(draw, data):
    """A tar of which a header says something else, under a checksum that holds."""
    headers = [
        start for start in range(0, len(data), BLOCK) if data[start + 257 : start + 262] == b"ustar"
    ]
    if not headers:
        return data
    start = draw(st.sampled_from(headers))
    offset, length = HEADER[draw(st.sampled_from(sorted(HEADER)))]
    any_bytes = st.binary(min_size=length, max_size=length)
    any_number = st.integers(-(1 << 80), 1 << 80).map(binary_number)
    kinds_and_numbers = st.sampled_from([b"x", b"g", b"L", b"K", b"S", b"-7"])
    content = draw(any_bytes | any_number | kinds_and_numbers)
    header = bytearray(data[start : start + BLOCK])
    header[offset : offset + length] = content[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8  # what the checksum is of
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:start] + bytes(header) + data[start + BLOCK :]


NO_CHANGE = []
CHANGES_OF_ARCHIVES = [
    NO_CHANGE,
    NO_CHANGE,
    NO_CHANGE,
    [damaged],
    [false_header],
    [false_header, false_header],
]


@st.composite
def archives(draw, files):
    """An archive's bytes, damaged or not."""
    archive_members = draw(members(files))
    data = packed(archive_members, draw(st.sampled_from(FORMS)))
    for change in draw(st.sampled_from(CHANGES_OF_ARCHIVES)):
        data = draw(change(data))
    return data


PREPARED_FILES = {"images.npy", "index.parquet", "classes.json", "manifest.json"}


def is_read_or_refused(layout, settings, space, contents, **arguments):
    """Prepare archives in a folder where nothing else may come to lie.

    Args:
        contents: bytes of each archive.
        arguments: more of `prepare_into`.
    """
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        folder = Path(top, "a/b")
        out = folder / "out"
        out.mkdir(parents=True)
        patch.chdir(folder)
        paths = []
        for number, content in enumerate(contents):
            path = folder / f"{number}.zip"
            path.write_bytes(content)
            paths.append(path)
        refusal = outcome(
            lambda: prepare_into(
                out, layout, *paths, space=space, decode_workers=1, **settings, **arguments
            )
        )
        prepared_files = {path.name for path in out.iterdir()}
        if refusal is None:
            assert prepared_files == PREPARED_FILES
            assert read_json(out / "manifest.json")["n"] > 0
        assert prepared_files <= {*PREPARED_FILES, "images.journal"}
        files_elsewhere = {
            path for path in Path(top).rglob("*") if path.is_file() and out not in path.parents
        }
        assert files_elsewhere == set(paths)
        assert not Path(OUTSIDE).exists()


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """Limits that a damaged size exceeds before it takes memory."""
    monkeypatch.setenv(PHOTO_MEGABYTES, "4")
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    for limit in ("iconify.JSON", "devkit_labels.TABLE", "class_tars.TAR"):
        monkeypatch.setattr(f"rib.data.layouts.{limit}", 1 << 22)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_valid_archive_is_read(layouts, layout):
    valid = layouts[layout]
    for form in dict.fromkeys(FORMS):
        contents = [packed(members_of(files), form) for files in valid.archives]
        is_read_or_refused(layout, valid.settings, valid.space, contents)


@pytest.mark.thorough
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_archive_is_read_or_refused(layouts, layout):
    valid = layouts[layout]

    @fuzzed(80)
    @given(
        st.tuples(*map(archives, valid.archives)),
        st.sampled_from(["array", "array", "encoded"]),
        st.integers(0, 2),
    )
    def check(contents, storage, allowed):
        is_read_or_refused(
            layout,
            valid.settings,
            valid.space,
            contents,
            storage=storage,
            corrupt_allowed=allowed,
        )

    check()


def checked(settings, layout):
    """Settings of a layout, checked as the catalogue and the preparation check them."""
    CATALOG.check_layout_settings(settings, "datasets.yaml, set")
    file = LIBRARY / f"data/layouts/{layout}.py"
    return checked_settings(load_function(file, "items"), settings, file, "datasets.yaml, set")


@pytest.mark.thorough
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_entry_is_followed_or_refused(layouts, layout):
    """Settings and classes that the catalogue takes, though no archive has them.

    With another number of archives, too.
    """
    valid = layouts[layout]
    valid_contents = [packed(members_of(files), "w") for files in valid.archives]
    any_settings = mutated(valid.settings) if valid.settings else st.just({})
    spaces = [
        valid.space,
        *(dataset.space for dataset in layouts.values()),
        space_of_keys("01", "x/y", ".."),
        space_of_keys("", "7"),
    ]
    any_number_of_archives = st.lists(st.sampled_from(valid_contents), max_size=3)

    @fuzzed(30)
    @given(
        any_settings,
        st.sampled_from(spaces),
        any_number_of_archives | st.just(valid_contents),
        st.lists(NAMES, max_size=2),
    )
    def check(changed_settings, space, contents, exclude):
        settings = outcome(lambda: checked(changed_settings, layout))
        if isinstance(settings, dict):
            is_read_or_refused(layout, settings, space, contents, exclude=exclude)

    check()


# Mode and format of pictures.
PICTURES = [
    ("RGB", "JPEG"),
    ("CMYK", "JPEG"),
    ("P", "PNG"),
    ("I;16", "PNG"),
    ("LA", "PNG"),
    ("RGBA", "WEBP"),
    ("P", "GIF"),
    ("1", "TIFF"),
    ("L", "BMP"),
    ("RGB", "TIFF"),
    ("L", "EPS"),
    ("L", "PPM"),
    ("RGB", "ICNS"),
]


@pytest.mark.thorough
@fuzzed(300)
@given(
    st.sampled_from(PICTURES),
    st.sampled_from([(40, 36), (1, 2000), (7, 1)]),
    st.integers(0, 30),
    st.data(),
)
def test_any_picture_is_decoded_or_refused(mode_and_format, size, border, data):
    # given
    mode, file_format = mode_and_format
    buffer = io.BytesIO()
    Image.new("L", size, 99).convert(mode).save(buffer, file_format)
    picture = data.draw(st.just(buffer.getvalue()) | damaged(buffer.getvalue()))
    # when
    pixels_or_refusal = outcome(
        lambda: resize_and_crop(decode(picture, "set, a.jpg", border), GEOMETRY)
    )
    # then
    if isinstance(pixels_or_refusal, str):
        assert "the image set, a.jpg" in pixels_or_refusal
    else:
        assert pixels_or_refusal.shape == (32, 32, 3)


@pytest.mark.thorough
@fuzzed(100)
@given(st.data(), st.sampled_from(["open sesame", "", "\udcff", "é"]))
def test_any_encrypted_archive_is_read_or_refused(layouts, data, password):
    valid = layouts["objectnet"]
    (files,) = valid.archives
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        archive = encrypted(Path(folder, "o.zip"), files, "open sesame").read_bytes()
        patch.setenv("OBJECTNET_PASSWORD", password)
        content = data.draw(st.just(archive) | damaged(archive))
        is_read_or_refused("objectnet", valid.settings, valid.space, [content])


# Drawings

ELEMENTS = [
    *("g", "path", "rect", "circle", "use", "image", "text", "style", "filter", "feTurbulence"),
    *("feImage", "defs", "feGaussianBlur", "feTile", "mask", "clipPath", "pattern"),
    *("linearGradient", "stop", "svg", "symbol", "a", "marker", "switch", "foreignObject"),
    *("script", "animate", "feDisplacementMap", "feMorphology", "x:y", "é"),
]
ATTRIBUTES = [
    *("id", "href", "xlink:href", "style", "fill", "filter", "mask", "clip-path", "d", "x", "y"),
    *("width", "r", "height", "transform", "viewBox", "numOctaves", "baseFrequency"),
    *("stdDeviation", "radius", "points", "stroke-width", "stroke-dasharray", "font-size"),
    *("marker-start", "patternUnits", "xmlns", "x:y"),
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
