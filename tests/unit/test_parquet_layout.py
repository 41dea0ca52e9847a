"""The layout of Parquet files against files that pyarrow writes, and what it refuses."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.base.plugins import checked_settings
from rib.catalog.label_space import LabelSpace
from rib.data.images import DatasetSource
from rib.data.layouts import parquet
from rib.data.variables import ARCHIVE_RATIO, PHOTO_MEGABYTES
from tiny.data.parquet import PHOTO, write_photos
from tiny.data.photos import GEOMETRY, INDICES, WNIDS, index_of, jpeg, run_prepare, space_of
from tiny.docs import settings_of_example
from tiny.fuzz import fuzzed, mutated, outcome
from tiny.projects.project import ROOT

SPACE = LabelSpace(("cat", "dog", "owl"), ((0,), (1,), (2,)), ("tom cat", "dog", "owl"), 3)
NAMES = ["owl", "cat", "dog"]  # in another order than the classes'
DOMAINS = ["art", "art", "sketch", "sketch", "photo", "photo"]
LABELS = [0, 1, 2, 0, 1, 2]
KEYS = [NAMES[label] for label in LABELS]
PHOTOS = [jpeg(SPACE.keys.index(key)) for key in KEYS]


def items(*paths, space=SPACE, exclude=(), **settings):
    """The images that the layout finds in files."""
    dataset = DatasetSource("set", paths, space, GEOMETRY, exclude=exclude)
    return list(parquet.items(dataset, **settings))


def refused(*paths, **settings):
    """The sentence with which the layout refuses files."""
    with pytest.raises(UserError) as error:
        items(*paths, **settings)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.fixture
def file(tmp_path):
    """A function that writes six photos of three classes in three domains; gives the path."""

    def write(name="a.parquet", names=NAMES, drop=(), options=(), **columns):
        all_columns = {"image": PHOTOS, "label": LABELS, "domain": DOMAINS, **columns}
        return write_photos(
            tmp_path / name,
            {column: cells for column, cells in all_columns.items() if column not in drop},
            names and {"label": names},
            **{"row_group_size": 2, **dict(options)},
        )

    return write


def keys_of(images):
    """The class of each image, as its key."""
    return [SPACE.keys[image.label] for image in images]


def ids_of(images):
    """The id of each image."""
    return [image.image_id for image in images]


def bytes_of_photos(images):
    """The bytes of each image's photo."""
    return [image.picture.read() for image in images]


def test_numbers_have_the_names_that_the_file_itself_states(file):
    images = items(file())
    assert keys_of(images) == KEYS
    assert ids_of(images) == [f"a.parquet/{n}" for n in range(6)]
    assert [image.source_id for image in images] == [f"set/a.parquet/{n}" for n in range(6)]
    assert bytes_of_photos(images) == PHOTOS


def test_each_file_has_names_of_its_own_and_those_of_the_settings_come_first(file):
    names_of_second = ["dog", "owl", "cat"]
    first_file = file()
    second_file = file("b.parquet", names=names_of_second)
    images_of_second = items(first_file, second_file)[6:]
    assert keys_of(images_of_second) == [names_of_second[label] for label in LABELS]
    assert ids_of(images_of_second)[0] == "b.parquet/0"
    assert keys_of(items(second_file, names=NAMES)) == KEYS
    images_in_class_order = items(second_file, in_class_order=True)
    assert [image.label for image in images_in_class_order] == LABELS


@pytest.mark.parametrize(
    "text", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_are_keys_or_names_of_classes(file, text):
    texts = pa.array(["owl", "tom cat", "dog", "owl", "cat", "dog"]).cast(text)
    assert keys_of(items(file(names=None, label=texts))) == KEYS


def test_wnids_of_other_classes_are_left_out_and_the_log_says_so(tmp_path, caplog):
    wnids = [WNIDS[index] for index in (*INDICES, 5, 6)]
    path = write_photos(tmp_path / "a.parquet", {"wnid": wnids, "image": PHOTOS})
    images = items(path, space=space_of(INDICES), label="wnid")
    assert [image.label for image in images] == [0, 1, 2, 3]
    message = f"2 images have a label that is none of the classes, the first is '{WNIDS[5]}'"
    assert message in caplog.text


@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary()])
def test_photos_are_bytes_or_structures_in_any_order_of_columns(tmp_path, binary):
    photos = [jpeg(n) for n in range(3)]
    structures = pa.array(
        [{"path": "x", "bytes": photo} for photo in photos],
        pa.struct([("path", pa.string()), ("bytes", binary)]),
    )
    unread = [[{"a": 1}]] * 3  # a list of structures, which is not read
    keys = list(SPACE.keys)
    nested_columns = {"objects": unread, "kind": keys, "picture": structures}
    plain_columns = {"picture": pa.array(photos, binary), "objects": unread, "kind": keys}
    nested = write_photos(tmp_path / "nested.parquet", nested_columns)
    plain = write_photos(tmp_path / "plain.parquet", plain_columns)
    for path in (nested, plain):
        images = items(path, image="picture", label="kind")
        assert bytes_of_photos(images) == photos
        assert keys_of(images) == keys


def test_rows_are_selected_by_a_value_or_several_and_keep_their_numbers(file):
    sketches = items(file(), where={"domain": "sketch"}, partial=True)
    assert ids_of(sketches) == ["a.parquet/2", "a.parquet/3"]
    two_domains = {"domain": ["photo", "art"], "label": "owl"}
    owls_of_two_domains = items(file(), where=two_domains, partial=True)
    assert ids_of(owls_of_two_domains) == ["a.parquet/0"]
    of_a_year = items(file(year=[1, 2, 3, 1, 2, 3]), where={"year": 2}, partial=True)
    assert ids_of(of_a_year) == ["a.parquet/1", "a.parquet/4"]
    assert bytes_of_photos(of_a_year) == [PHOTOS[1], PHOTOS[4]]


def test_the_photos_of_a_group_without_a_selected_row_are_not_read(file, monkeypatch):
    iter_batches = pq.ParquetFile.iter_batches
    reads = []

    def iter_batches_noted(parquet_file, *arguments, row_groups, columns, **options):
        reads.append((*row_groups, "image.bytes" in columns))
        return iter_batches(
            parquet_file, *arguments, row_groups=row_groups, columns=columns, **options
        )

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches_noted)
    items(file(), where={"domain": "sketch"}, partial=True)
    assert reads == [(0, False), (1, False), (1, True), (2, False)]


def test_columns_become_slices_sources_and_objects(file):
    path = file(
        year=pa.array([2000, 2001] * 3, pa.uint16()),
        camera=[0, 1, 1, 0, 1, 0],
        original=["x", "x", "y", "z", "z", "z"],
        drawn=[7, 7, 7, 8, 9, 9],
    )
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"huggingface"])
    facts["info"]["features"]["camera"] = {"names": ["phone", "film"], "_type": "ClassLabel"}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(facts)}), path)
    images = items(path, slices=["domain", "year", "camera"], source="original", objects="drawn")
    _first, second, *_ = images
    assert second.slices == {"domain": "art", "year": 2001, "camera": "film"}
    assert [image.source_id for image in images] == [f"set/{letter}" for letter in "xxyzzz"]
    assert [image.object_id for image in images] == [f"set/{n}" for n in (7, 7, 7, 8, 9, 9)]
    for image in items(path, source="original"):
        assert image.object_id == image.source_id, "without a column of objects"


def test_a_prepared_dataset_is_the_same_whatever_the_groups_and_the_compression(tmp_path, file):
    bytes_of_files = []
    options_of_writing = [
        {},
        {"row_group_size": 1},
        {"compression": "zstd", "data_page_version": "2.0"},
    ]
    for number, options in enumerate(options_of_writing):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = file(options=options)
        index, images, _ = run_prepare(folder, "parquet", path, space=SPACE, slices=["domain"])
        assert [index_of(image) for image in images] == [SPACE.keys.index(key) for key in KEYS]
        assert index["domain"].tolist() == DOMAINS
        bytes_of_files.append(
            [(folder / name).read_bytes() for name in ("images.npy", "index.parquet")]
        )
    by_default, with_small_groups, compressed = bytes_of_files
    assert by_default == with_small_groups
    assert by_default == compressed


def test_a_row_is_left_out_by_its_id(file):
    images = items(file(), exclude=["a.parquet/1"])
    assert ids_of(images) == [f"a.parquet/{n}" for n in (0, 2, 3, 4, 5)]


FLOATS = [0.5] * 6
SETTINGS = {
    "numbers without names": ({"names": None}, {}, "a.parquet/0 is the number 0, and nothing says"),
    "a number above the names": (
        {"label": [0, 1, 7, 0, 1, 2]},
        {},
        "a.parquet/2 is the number 7.*0 to 2",
    ),
    "an empty label": (
        {"label": [0, None, 1, 0, 1, 2]},
        {},
        "a.parquet/1 is None, which is neither",
    ),
    "a misspelt class": ({"names": ["owl", "cat", "dgo"]}, {}, "2 images.*'dgo'.*mean 'dog'"),
    "a class without images": ({"label": [0, 1, 1, 0, 1, 0]}, {}, r"'dog' \(1 of 3 classes"),
    "no photo column": ({}, {"image": "img"}, "no column 'img'.*'image', 'label', 'domain'"),
    "no label column": ({}, {"label": "labels"}, "no column 'labels'.*did you mean 'label'"),
    "no column to select by": ({}, {"where": {"x": 1}}, "no column 'x'"),
    "no row selected": (
        {},
        {"where": {"domain": "skech"}},
        "selects no image .'domain' has 'art', 'sketch', 'photo'",
    ),
    "no photo": (
        {"image": pa.array([{"bytes": None, "path": "x.jpg"}] * 6, PHOTO)},
        {},
        "a.parquet/0 has no bytes",
    ),
    "an empty structure": ({"image": pa.array([None] * 6, PHOTO)}, {}, "a.parquet/0 has no bytes"),
    "photos as lists": (
        {"image": pa.array([[PHOTOS[0]]] * 6)},
        {},
        "'image' has neither bytes nor",
    ),
    "labels as fractions": ({"label": FLOATS}, {}, "'label' has neither texts nor whole"),
    "labels as lists": ({"label": [["cat"]] * 6}, {}, "'label' is a list or structure"),
    "a slice of yes and no": (
        {"domain": [True] * 6},
        {"slices": ["domain"]},
        "'domain' has neither",
    ),
    "an empty slice": (
        {"domain": [None, *"abcde"]},
        {"slices": ["domain"]},
        "'domain' of a.parquet/0 is None",
    ),
    "a long slice": (
        {"domain": ["x" * 2000] * 6},
        {"slices": ["domain"]},
        "'domain' of a.parquet/0 is 'xxx",
    ),
    "a large slice": (
        {"domain": pa.array([1 << 63] * 6, pa.uint64())},
        {"slices": ["domain"]},
        "is 92233",
    ),
    "two lists of names": ({}, {"names": NAMES, "in_class_order": True}, "names as well as"),
    "a name twice": ({}, {"names": ["cat", "cat", "owl"]}, "contain one twice"),
    "a selection by nothing": ({}, {"where": {"domain": []}}, "where in its settings has"),
}


@pytest.mark.parametrize(("columns", "settings", "message"), SETTINGS.values(), ids=SETTINGS)
def test_what_does_not_suit_is_one_sentence(file, columns, settings, message):
    assert re.search(message, refused(file(**columns), **settings))


def test_the_values_that_exist_are_shown_printably_and_ten_of_them_at_most(tmp_path):
    domains = [f"\x1b[31m{number}\n" for number in range(20)]
    columns = {"image": [PHOTOS[0]] * 20, "label": ["cat"] * 20, "domain": domains}
    message = refused(write_photos(tmp_path / "a.parquet", columns), where={"domain": "x"})
    assert "\x1b" not in message
    assert message.count("[31m") == 10
    assert ", ...)" in message


def test_texts_of_a_file_are_stored_printably(tmp_path):
    columns = {
        "image": PHOTOS[:3],
        "label": list(SPACE.keys),
        "domain": ["\x1b[31m", "a\nb", "\u202e"],
    }
    path = write_photos(tmp_path / "a.parquet", columns)
    images = items(path, slices=["domain"], source="domain")
    printable = ["\\x1b[31m", "a\\nb", "\\u202e"]
    assert [image.slices["domain"] for image in images] == printable
    _first, second, _third = images
    assert second.source_id == "set/a\\nb"


def test_columns_of_one_name_or_of_a_name_with_a_point_are_refused(tmp_path):
    names = ["image", "label", "label"]
    arrays = [pa.array(PHOTOS[:3]), pa.array(SPACE.keys), pa.array(SPACE.keys)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, names), path)
    assert "one of several of this name" in refused(path)
    columns = {"image": PHOTOS[:3], "image.bytes": ["x"] * 3, "label": list(SPACE.keys)}
    assert "one of several of this name" in refused(write_photos(path, columns))


def test_a_file_without_rows_gives_no_photo(tmp_path):
    columns = {"image": pa.array([], PHOTO), "label": pa.array([], pa.string())}
    assert "there is no image with the label 'cat'" in refused(
        write_photos(tmp_path / "a.parquet", columns)
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1" + b"\xff\xff\xff\x7fPAR1",
        b"PAR1" + bytes(100) + b"\x10\0\0\0PAR1",
    ],
)
def test_another_file_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert "can't be read as a Parquet file" in refused(path)


@pytest.mark.parametrize(
    "metadata",
    [
        "[" * 100_000,
        json.dumps({"info": {"features": {"label": {"names": "abc"}}}}),
    ],
)
def test_names_of_another_form_are_refused(tmp_path, metadata):
    columns = {"image": PHOTOS, "label": LABELS}
    path = write_photos(tmp_path / "a.parquet", columns)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    assert "can't be read as a Parquet file" in refused(path)


def test_metadata_without_names_are_no_names(tmp_path):
    path = write_photos(tmp_path / "a.parquet", {"image": PHOTOS, "label": LABELS})
    for metadata in ("[]", '{"info": {"features": {"label": {}}}}'):
        table = pq.read_table(path).replace_schema_metadata({"huggingface": metadata})
        pq.write_table(table, path)
        assert "nothing says which class" in refused(path)


def test_a_photo_that_is_stored_once_counts_as_often_as_it_is_shown(tmp_path, monkeypatch):
    """100 rows of a photo of 1 MB, in a dictionary."""
    monkeypatch.setenv(ARCHIVE_RATIO, "1")
    noise = np.random.default_rng(0).bytes(1 << 20)
    path = tmp_path / "a.parquet"
    columns = {"image": [noise] * 100, "label": ["cat"] * 100}
    write_photos(path, columns, dictionary_pagesize_limit=4 << 20)
    assert path.stat().st_size < 2 << 20
    assert "unpacks to more than" in refused(path, partial=True)


def test_a_photo_that_is_too_large_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    photos = [jpeg(0), jpeg(1) + bytes(1_100_000), jpeg(1), jpeg(2)]
    columns = {"image": photos, "label": ["cat", "dog", "dog", "owl"]}
    path = write_photos(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError, match="contains 'a.parquet/1' of more than"):
        run_prepare(tmp_path, "parquet", path, space=SPACE)
    index, _, _ = run_prepare(tmp_path, "parquet", path, space=SPACE, corrupt_allowed=1)
    assert index["image_id"].tolist() == [f"a.parquet/{n}" for n in (0, 2, 3)]


@pytest.mark.thorough
@fuzzed(200)
@given(st.booleans(), st.integers(0, 10**6), st.binary(min_size=1, max_size=6))
def test_any_damage_is_read_or_refused(tmp_path_factory, at_end, position, noise):
    path = tmp_path_factory.mktemp("damaged") / "a.parquet"
    write_photos(path, {"image": PHOTOS, "label": LABELS, "domain": DOMAINS}, {"label": NAMES})
    damaged = bytearray(path.read_bytes())
    start = len(damaged) - position % 3000 if at_end else position % len(damaged)
    damaged[start : start + len(noise)] = noise
    path.write_bytes(damaged)
    settings = {"slices": ["domain"], "where": {"domain": ["art", "sketch"]}}
    outcome(lambda: bytes_of_photos(items(path, **settings)))


@fuzzed(100)
@given(
    mutated(
        {
            "image": "image",
            "label": "label",
            "slices": ["domain"],
            "where": {"domain": ["art", "photo"]},
            "names": NAMES,
            "source": "domain",
        }
    )
)
def test_any_entry_is_followed_or_refused(tmp_path_factory, changed):
    checked = outcome(lambda: checked_settings(parquet.items, changed, "parquet.py", "the entry"))
    if isinstance(checked, dict):
        path = tmp_path_factory.mktemp("entry") / "a.parquet"
        write_photos(path, {"image": PHOTOS, "label": LABELS, "domain": DOMAINS}, {"label": NAMES})
        outcome(lambda: items(path, **checked))


def test_a_setting_that_does_not_fit_is_refused_before_the_files_are_read(tmp_path):
    with pytest.raises(UserError, match=r"^parquet\.py: .*'imgae'.* datasets\.yaml, set"):
        run_prepare(tmp_path, "parquet", space=SPACE, imgae="photo")


def test_the_example_of_the_docs_is_read(tmp_path, with_entries):
    settings = settings_of_example("parquet", with_entries)
    columns = {"image": PHOTOS, "label": LABELS, "domain": DOMAINS, "camera": ["phone"] * 6}
    path = write_photos(tmp_path / "train-0.parquet", columns, {"label": NAMES})
    images = items(path, **{**settings, "partial": True})
    assert ids_of(images) == ["train-0.parquet/2", "train-0.parquet/3"]
    first, _second = images
    assert first.slices == {"camera": "phone"}


MEASURE = """
import re, sys
from pathlib import Path
from rib.catalog.label_space import LabelSpace
from rib.data.images import DatasetSource
from rib.data.layouts import parquet

def peak():
    # getrusage would include the peak of the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def read(path):
    dataset = DatasetSource("set", [Path(path)], LabelSpace(("a",), ((0,),), ("a",), 1), None)
    return sum(len(item.picture.read()) for item in parquet.items(dataset, slices=["domain"]))

read(sys.argv[1])
before = peak()
print(read(sys.argv[2]), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows_in_group", "rows_in_page"),
    [(100, 100), (4000, 16)],
    ids=["groups of 100 rows, as `datasets` writes them", "one group of many pages"],
)
def test_memory_stays_flat_over_400_mb(tmp_path, rows_in_group, rows_in_page):
    """What a process takes for 400 MB, after it has read a small file: some pages."""
    schema = pa.schema({"image": PHOTO, "label": pa.string(), "domain": pa.string()})
    paths = []
    for name, rows in (("small", 100), ("large", 4000)):
        random = np.random.default_rng(0)
        path = tmp_path / f"{name}.parquet"
        with pq.ParquetWriter(path, schema, write_batch_size=rows_in_page) as writer:
            for first in range(0, rows, rows_in_group):
                rows_of_group = min(rows_in_group, rows - first)
                photos = [
                    {"bytes": random.bytes(100_000), "path": "x"} for _ in range(rows_of_group)
                ]
                columns = {
                    "image": photos,
                    "label": ["a"] * rows_of_group,
                    "domain": ["b"] * rows_of_group,
                }
                writer.write_table(pa.table(columns, schema))
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ROOT / "workflow/lib"},
    )
    size, growth = map(int, done.stdout.split())
    assert size == 400_000_000
    print(f"{growth / 1e6:.0f} MB more")
    assert growth < 64e6
