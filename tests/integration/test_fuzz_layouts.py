"""Whatever an archive holds and however it is damaged, a layout reads it or refuses it.

It refuses it with a UserError, and writes nowhere but into its folder.
"""

import io
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from rib.base.files import read_json
from rib.config.label_space import LabelSpace
from rib.config.settings import LIBRARY, check_settings, signature_of
from rib.data.archives import archive_members
from rib.data.images import decode, resize_and_crop
from rib.data.variables import PHOTO_MEGABYTES, PHOTO_MEGAPIXELS
from tiny.fuzz import NAMES, VALUES, fuzzed, mutated, outcome
from tiny.photos import (
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
from tiny.published import CATALOG

# Pillow and SciPy warn of what they can read all the same.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.attack("fuzzing")]

SOME, OUTSIDE = INDICES[:2], "/tmp/rib_fuzz_outside"
BODY = "<path d='M2 2h12v9z' fill='currentColor'/>"
ICONS = {
    "prefix": "p",
    "icons": {"ant": {"body": BODY, "width": 24}, "bee": {"body": BODY}},
    "aliases": {"wasp": {"parent": "bee", "hFlip": True, "rotate": 1, "width": 12}},
    "height": 16,
}
CHARS = {"1f41c": "ant", "1f41d": "wasp"}


def own(*keys):
    return LabelSpace(keys, tuple((i,) for i in range(len(keys))), keys, len(keys))


def photos(*names):
    return {name.format(wnid=WNIDS[i], index=i): jpeg(i) for i in SOME for name in names}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """By layout: members of each archive, its settings and the label space."""
    place, space = tmp_path_factory.mktemp("valid"), space_of(SOME)
    inner = {
        f"{WNIDS[i]}.tar": tar(place / "inner.tar", {f"{WNIDS[i]}_1.JPEG": jpeg(i)}).read_bytes()
        for i in SOME
    }
    kit = devkit(place / "kit.tar.gz", "\n".join(str(1000 - i) for i in SOME))
    images = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(SOME[n - 1]) for n in (1, 2)}
    icons = {
        "package/icons.json": json.dumps(ICONS).encode(),
        "package/chars.json": json.dumps(CHARS).encode(),
    }
    samples = {}
    for number, i in enumerate(SOME):
        samples[f"x/{number}.jpg"] = jpeg(i)
        facts = {"is": [number, WNIDS[i]][number], "from": "attic", "by": number}
        samples[f"x/{number}.json"] = json.dumps(facts).encode()
    fogs = {"corruptions": ["fog"], "severities": [1, 2]}
    return {
        "class_folders": ([photos("x/{wnid}/1.jpg", "x/{wnid}/2.PNG")], {}, space),
        "integer_folders": ([photos("x/{index}/1.jpeg")], {}, space),
        "class_tars": ([inner], {}, space),
        "corruptions": (
            [photos("fog/1/{wnid}/a.jpg"), photos("c/fog/2/{wnid}/a.jpg")],
            fogs,
            space,
        ),
        "devkit_labels": (
            [images, {name: read() for name, read in archive_members(kit)}],
            {},
            space,
        ),
        "objectnet": (
            [photos("o/images/{wnid}/a.png")],
            {"border": 2, "also": {"other": WNIDS[SOME[0]]}},
            space,
        ),
        "webdataset": (
            [samples],
            {"label": "is", "slices": ["from"], "source": "by", "names": list(space.keys)},
            space,
        ),
        "iconify": ([icons], {"margin": 0.06}, own(*CHARS)),
        "corruptions_of": (
            [icons],
            {
                "photos": {"layout": "iconify", "settings": {"margin": 0.06}},
                "corruptions": ["contrast"],
                "severities": [1, 2],
            },
            own(*CHARS),
        ),
        "codepoint_images": (
            [{f"package/assets/{key}.webp": jpeg(7) for key in CHARS}],
            {"margin": 0.06},
            own(*CHARS),
        ),
    }


LAYOUTS = [
    "class_folders",
    "integer_folders",
    "class_tars",
    "corruptions",
    "devkit_labels",
    "objectnet",
    "webdataset",
]
LAYOUTS += ["iconify", "corruptions_of", "codepoint_images"]
HOSTILE = [
    f"..{OUTSIDE}",
    OUTSIDE,
    "x/../../../../y.jpg",
    "../out/images.npy",
    "/",
    "./",
    "x/" * 200 + "a.jpg",
]
HOSTILE += ["package/icons.json"]
KINDS = [
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.GNUTYPE_SPARSE,
]
KINDS += [b"?"]
FORMS = ["w", "w", "w:gz", "w:bz2", "w:xz"]
FORMS += [zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]


@st.composite
def damaged(draw, data):
    """Bytes cut off, changed in some places, or others altogether."""
    how = draw(st.sampled_from(["cut", "change", "change", "change", "other"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how == "other":
        return draw(st.binary(max_size=40) | st.text(max_size=9).map(lambda text: text.encode()))
    changed = bytearray(data)
    for place in draw(st.lists(st.integers(0, max(0, len(data) - 1)), min_size=1, max_size=4)):
        changed[place : place + 1] = draw(st.binary(min_size=1, max_size=2))
    return bytes(changed)


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
        return draw(
            st.sampled_from(
                [b"", b"998", b"998\n-1", b"998\n2000", b"998 x", b"998\n" + b"9" * 5000, b"\xff"]
            )
        )
    return draw(damaged(data))


@st.composite
def kits(draw):
    """What may stand in the development kit's table."""
    cell = st.sampled_from([1, 998, -1, 0.5, float("nan"), "n01443537", "", [], [1, 2], {"a": 1}])
    fields = draw(
        st.lists(
            st.sampled_from(["ILSVRC2012_ID", "WNID", "num_children", "x"]), unique=True, min_size=1
        )
    )
    rows = [tuple(draw(cell) for _ in fields) for _ in range(draw(st.integers(0, 2)))]
    table = np.empty(len(rows), dtype=[(field, object) for field in fields])
    for place, row in enumerate(rows):
        table[place] = row
    buffer = io.BytesIO()
    savemat(
        buffer,
        {draw(st.sampled_from(["synsets", "synsets", "other"])): draw(st.just(table) | st.just(3))},
    )
    return buffer.getvalue()


def is_json(value):
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


JSON = VALUES.filter(is_json) | st.sampled_from(
    ["<a", "<image href='/etc/passwd'/>", "ant", "wasp"]
)


@st.composite
def members(draw, parts):
    """Members of an archive: (name, content, kind of tar's), some of them not as they should be."""
    found = [(name, data, tarfile.REGTYPE) for name, data in parts.items()]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(found) - 1))
        name, data, kind = found[place]
        what = draw(
            st.sampled_from(["content", "content", "content", "name", "kind", "twice", "gone"])
        )
        if what == "content":
            found[place] = (name, draw(of_its_own_kind(name, data)), kind)
        elif what == "name":
            found[place] = (draw(NAMES | st.sampled_from(HOSTILE)), data, kind)
        elif what == "kind":
            found[place] = (name, data, draw(st.sampled_from(KINDS)))
        elif what == "twice":
            found.append(found[place])
        elif len(found) > 1:
            del found[place]
    return found


def packed(found, form):
    """An archive's bytes."""
    buffer = io.BytesIO()
    if isinstance(form, int):
        with zipfile.ZipFile(buffer, "w", form) as archive:
            for name, data, kind in found:
                info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "x")
                info.compress_type, info.external_attr = (
                    form,
                    (0o120777 << 16 if kind == tarfile.SYMTYPE else 0),
                )
                archive.writestr(info, data)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode=form) as archive:
        for name, data, kind in found:
            info = tarfile.TarInfo(
                name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
            )
            info.size, info.type, info.linkname = len(data), kind, "../../../etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


HEADER = {
    "size": (124, 12),
    "name": (0, 100),
    "kind": (156, 1),
    "magic": (257, 8),
    "prefix": (345, 155),
}


@st.composite
def false_header(draw, data):
    """A tar of which a header says something else, under a checksum that holds."""
    blocks = [
        start for start in range(0, len(data), 512) if data[start + 257 : start + 262] == b"ustar"
    ]
    if not blocks:
        return data
    changed, start = bytearray(data), draw(st.sampled_from(blocks))
    place, length = HEADER[draw(st.sampled_from(sorted(HEADER)))]
    number = st.integers(-(1 << 80), 1 << 80).map(
        lambda n: (b"\x80" if n >= 0 else b"\xff") + n.to_bytes(11, "big", signed=True)
    )
    new = draw(
        st.binary(min_size=length, max_size=length)
        | number
        | st.sampled_from([b"x", b"g", b"L", b"K", b"S", b"-7"])
    )
    changed[start + place : start + place + length] = new[:length].ljust(length, b"\0")
    changed[start + 148 : start + 156] = b" " * 8
    total = sum(changed[start : start + 512])
    changed[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(changed)


@st.composite
def archives(draw, parts):
    """An archive's bytes, damaged or not."""
    data = packed(draw(members(parts)), draw(st.sampled_from(FORMS)))
    for change in draw(
        st.sampled_from([[], [], [], [damaged], [false_header], [false_header, false_header]])
    ):
        data = draw(change(data))
    return data


def is_read_or_refused(layout, settings, space, contents, **more):
    """Prepare archives in a folder where nothing else may come to lie."""
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        place = Path(top, "a/b")
        (place / "out").mkdir(parents=True)
        patch.chdir(place)
        paths = [place / f"{number}.zip" for number in range(len(contents))]
        for path, data in zip(paths, contents, strict=True):
            path.write_bytes(data)
        found = outcome(
            lambda: prepare_into(
                place / "out", layout, *paths, space=space, decode_workers=1, **settings, **more
            )
        )
        made = {path.name for path in (place / "out").iterdir()}
        if found is None:
            assert made == {"images.npy", "index.parquet", "classes.json", "manifest.json"}
            assert read_json(place / "out/manifest.json")["n"] > 0
        assert made <= {
            "images.npy",
            "images.journal",
            "index.parquet",
            "classes.json",
            "manifest.json",
        }
        left = {
            path.relative_to(place).as_posix() for path in Path(top).rglob("*") if path.is_file()
        }
        assert {path for path in left if not path.startswith("out/")} == {
            path.name for path in paths
        }
        assert not Path(OUTSIDE).exists()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Limits that a damaged size exceeds before it takes memory."""
    monkeypatch.setenv(PHOTO_MEGABYTES, "4")
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    for kind in (
        "iconify.JSON",
        "devkit_labels.TABLE",
        "class_tars.TAR",
    ):
        monkeypatch.setattr(f"rib.data.layouts.{kind}", 1 << 22)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_valid_archive_is_read(layouts, layout):
    parts, settings, space = layouts[layout]
    for form in dict.fromkeys(FORMS):
        is_read_or_refused(
            layout,
            settings,
            space,
            [packed([(*part, b"0") for part in p.items()], form) for p in parts],
        )


@pytest.mark.thorough
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_archive_is_read_or_refused(layouts, layout):
    parts, settings, space = layouts[layout]

    @fuzzed(80)
    @given(
        st.tuples(*map(archives, parts)),
        st.sampled_from(["array", "array", "encoded"]),
        st.integers(0, 2),
    )
    def check(contents, storage, allowed):
        is_read_or_refused(
            layout, settings, space, contents, storage=storage, corrupt_allowed=allowed
        )

    check()


def checked(settings, known):
    """Settings of a layout, checked as the catalogue checks them."""
    where = "datasets.yaml, set"
    found = check_settings(settings, known, where, sweeps=False)
    if "photos" in known:
        found["photos"] = CATALOG.settings_of_photos(found["photos"], where)
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_entry_is_followed_or_refused(layouts, layout):
    """Settings and classes that the catalogue takes, though no archive has them.

    With another number of archives, too.
    """
    parts, settings, space = layouts[layout]
    valid = [packed([(*part, tarfile.REGTYPE) for part in found.items()], "w") for found in parts]
    _, known = signature_of(LIBRARY / f"data/layouts/{layout}.py", "items")

    @fuzzed(30)
    @given(
        mutated(settings) if settings else st.just({}),
        st.sampled_from(
            [
                space,
                *(other for _, _, other in layouts.values()),
                own("01", "x/y", ".."),
                own("", "7"),
            ]
        ),
        st.lists(st.sampled_from(valid), max_size=3) | st.just(valid),
        st.lists(NAMES, max_size=2),
    )
    def check(changed, classes, contents, exclude):
        found = outcome(lambda: checked(changed, known))
        if isinstance(found, dict):
            is_read_or_refused(layout, found, classes, contents, exclude=exclude)

    check()


PICTURES = [
    ("RGB", "JPEG"),
    ("CMYK", "JPEG"),
    ("P", "PNG"),
    ("I;16", "PNG"),
    ("LA", "PNG"),
    ("RGBA", "WEBP"),
]
PICTURES += [
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
def test_any_picture_is_decoded_or_refused(kind, size, border, data):
    mode, form = kind
    buffer = io.BytesIO()
    Image.new("L", size, 99).convert(mode).save(buffer, form)
    picture = data.draw(st.just(buffer.getvalue()) | damaged(buffer.getvalue()))
    found = outcome(lambda: resize_and_crop(decode(picture, "set, a.jpg", border), GEOMETRY))
    assert "the image set, a.jpg" in found if isinstance(found, str) else found.shape == (32, 32, 3)


@pytest.mark.thorough
@fuzzed(100)
@given(st.data(), st.sampled_from(["open sesame", "", "\udcff", "é"]))
def test_any_encrypted_archive_is_read_or_refused(layouts, data, password):
    (photos,), settings, space = layouts["objectnet"]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        valid = encrypted(Path(folder, "o.zip"), photos, "open sesame").read_bytes()
        patch.setenv("OBJECTNET_PASSWORD", password)
        is_read_or_refused(
            "objectnet", settings, space, [data.draw(st.just(valid) | damaged(valid))]
        )
