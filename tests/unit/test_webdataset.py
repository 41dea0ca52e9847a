"""The layout of webdataset's tars against tars that tarfile writes, and what it refuses."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace
from rib.data.images import DatasetSource
from rib.data.layouts import webdataset
from rib.data.variables import PHOTO_MEGABYTES
from tiny.data.photos import GEOMETRY, INDICES, WNIDS, index_of, jpeg, run_prepare, space_of, tar

SPACE = LabelSpace(("cat", "dog", "owl"), ((0,), (1,), (2,)), ("tom cat", "dog", "owl"), 3)
NAMES = ["owl", "cat", "dog"]  # in another order than the classes'
FACTS = [
    {"label": "owl", "domain": "art", "year": 2000, "original": "x", "drawn": 7},
    {"label": "cat", "domain": "sketch", "year": 2001, "original": "x", "drawn": 7},
    {"label": "dog", "domain": "sketch", "year": 2001, "original": "y", "drawn": 8},
]


def items(*paths, space=SPACE, exclude=(), **settings):
    """Items of a dataset, set, that the layout makes of shards.

    Args:
        settings: of the layout.
    """
    dataset = DatasetSource("set", paths, space, GEOMETRY, exclude=exclude)
    return list(webdataset.items(dataset, **settings))


def refused(*paths, **settings):
    """What is said where `items` refuses shards or settings."""
    with pytest.raises(UserError) as error:
        items(*paths, **settings)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 3000
    return message


def labels_of(items_of_set):
    """The labels of items, in their order."""
    return [item.label for item in items_of_set]


def samples(labels=(0, 1, 2), ending="jpg", top="x/"):
    """Files of samples whose classes stand in files of their own, as bytes by name.

    Args:
        labels: what these files hold.
        ending: of the photos.
        top: folder of the samples.
    """
    files = {}
    for number, label in enumerate(labels):
        key = f"{top}{number:04d}"
        files[f"{key}.{ending}"] = jpeg(number)
        files[f"{key}.cls"] = str(label).encode()
    return files


def described(facts=FACTS):
    """Files of samples with a JSON file each, which comes first, as bytes by name.

    Args:
        facts: what the JSON files hold.
    """
    files = {}
    for number, fields in enumerate(facts):
        files[f"{number}.json"] = json.dumps(fields).encode()
        files[f"{number}.jpg"] = jpeg(number)
    return files


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_numbers_have_the_names_of_the_settings(tmp_path, mode):
    path = tar(tmp_path / "a.tar", samples(), mode)

    named_items = items(path, names=NAMES)

    assert [SPACE.keys[item.label] for item in named_items] == NAMES
    ids = ["a.tar/x/0000", "a.tar/x/0001", "a.tar/x/0002"]
    assert [item.image_id for item in named_items] == ids
    assert [item.source_id for item in named_items] == [f"set/{image_id}" for image_id in ids]
    assert [item.picture.read() for item in named_items] == [jpeg(0), jpeg(1), jpeg(2)]
    assert labels_of(items(path, in_class_order=True)) == [0, 1, 2]


def test_texts_are_keys_or_names_of_classes(tmp_path):
    path = tar(tmp_path / "a.tar", samples([" owl\n", "tom cat", "dog"]))
    assert labels_of(items(path)) == [2, 0, 1]


def test_wnids_of_other_classes_are_left_out_and_the_log_says_so(tmp_path, caplog):
    wnids = [WNIDS[index] for index in INDICES]
    other_wnid = WNIDS[5]
    path = tar(tmp_path / "a.tar", samples([*wnids, other_wnid]))
    assert labels_of(items(path, space=space_of(INDICES))) == [0, 1, 2, 3]
    left_out = "1 images have a label that is none of the classes, the first is "
    assert f"{left_out}'{other_wnid}'" in caplog.text


@pytest.mark.parametrize("ending", ["JPEG", "webp"])
def test_shards_follow_each_other_and_a_label_may_come_first(tmp_path, ending):
    first = samples(ending=ending)
    second = dict(reversed(samples(ending=ending).items()))
    paths = [tar(tmp_path / "a.tar", first), tar(tmp_path / "b.tar", second)]
    items_of_shards = items(*paths, in_class_order=True)
    assert labels_of(items_of_shards) == [0, 1, 2, 2, 1, 0]
    _, _, _, first_of_second, *_ = items_of_shards
    assert first_of_second.image_id == "b.tar/x/0002"
    assert first_of_second.picture.read() == jpeg(2)


def test_fields_of_json_files_become_labels_slices_sources_and_objects(tmp_path):
    described_items = items(
        tar(tmp_path / "a.tar", described()),
        label="label",
        slices=["domain", "year"],
        source="original",
        objects="drawn",
    )
    assert labels_of(described_items) == [2, 0, 1]
    _, cat, _ = described_items
    assert cat.slices == {"domain": "sketch", "year": 2001}
    assert [item.source_id for item in described_items] == ["set/x", "set/x", "set/y"]
    assert [item.object_id for item in described_items] == ["set/7", "set/7", "set/8"]


def test_samples_are_selected_by_a_value_of_a_field_or_several(tmp_path):
    path = tar(tmp_path / "a.tar", described())
    sketches = items(path, label="label", where={"domain": "sketch"}, partial=True)
    assert [item.image_id for item in sketches] == ["a.tar/1", "a.tar/2"]
    assert [item.picture.read() for item in sketches] == [jpeg(1), jpeg(2)]
    old_ones = {"domain": ["art", "sketch"], "year": 2000}
    (owl,) = items(path, label="label", where=old_ones, partial=True)
    assert owl.image_id == "a.tar/0" and owl.slices == {}


def test_samples_of_class_files_are_selected_by_their_json_files(tmp_path):
    files = samples()
    for number, domain in enumerate(["art", "sketch", "art"]):
        files[f"x/{number:04d}.json"] = json.dumps({"domain": domain}).encode()
    path = tar(tmp_path / "a.tar", dict(sorted(files.items())))
    found = items(path, in_class_order=True, where={"domain": "art"}, partial=True)
    assert [item.label for item in found] == [0, 2]


def test_of_samples_of_other_domains_nothing_else_must_be_right(tmp_path):
    others = {
        "a.jpg": jpeg(0),
        "a.json": b'{"domain": "art", "label": []}',
        "b.json": b'{"domain": null}',
    }
    path = tar(tmp_path / "a.tar", {**others, **described()})
    sketches = items(path, label="label", where={"domain": "sketch"}, partial=True)
    assert [item.image_id for item in sketches] == ["a.tar/1", "a.tar/2"]


def test_a_sample_without_the_field_by_which_is_selected_may_be_excluded(tmp_path):
    path = tar(tmp_path / "a.tar", {"a.jpg": jpeg(0), "a.json": b"{}", **described()})
    settings = {"label": "label", "where": {"domain": "sketch"}, "partial": True}
    assert len(items(path, exclude=["a.tar/a"], **settings)) == 2
    assert "'a.tar/a' has no field 'domain'" in refused(path, **settings)


def test_a_json_file_may_stand_beside_a_class_file(tmp_path):
    files = {}
    for number, fields in enumerate(FACTS):
        files[f"{number}.cls"] = str(number).encode()
        files[f"{number}.json"] = json.dumps(fields).encode()
        files[f"{number}.jpg"] = jpeg(number)
    path = tar(tmp_path / "a.tar", files)
    by_class_file = items(path, in_class_order=True, slices=["domain"])
    assert labels_of(by_class_file) == [0, 1, 2]
    assert [item.slices["domain"] for item in by_class_file] == ["art", "sketch", "sketch"]
    by_json_file = items(path, label="label")
    assert labels_of(by_json_file) == [2, 0, 1]


def test_files_that_are_not_read_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    files = {
        "dataset.txt": b"x",
        **samples(),
        "x/0002.txt": b"x",
        "x/0002.seg.png": jpeg(0),
        "x/._0002.jpg": b"x",
        "x/0002.json": b"{",
    }
    assert len(items(tar(tmp_path / "a.tar", files), in_class_order=True)) == 3
    assert "not read: 2 .txt, 1 ._0002.jpg, 1 .json, 1 .seg.png" in caplog.text


def test_a_sample_is_left_out_by_its_id_and_prepared_bytes_are_the_same_each_time(tmp_path):
    # given
    path = tar(tmp_path / "a.tar", samples([0, 1, 2, 0]))
    once = tmp_path / "once"
    again = tmp_path / "again"
    for folder in (once, again):
        # when
        folder.mkdir()
        index, images, _ = run_prepare(
            folder, "webdataset", path, space=SPACE, in_class_order=True, exclude=["a.tar/x/0003"]
        )
        # then
        assert index["label"].tolist() == [0, 1, 2]
        assert [index_of(image) for image in images] == [0, 1, 2]
    for name in ("images.npy", "index.parquet"):
        assert (once / name).read_bytes() == (again / name).read_bytes()


WITHOUT_LABEL = {**samples(), "x/9.jpg": jpeg(0)}
WITHOUT_PHOTO = {**samples(), "x/9.cls": b"0"}
APART = {"a.jpg": jpeg(0), "b.jpg": jpeg(0), "a.cls": b"0", "b.cls": b"0"}
BY_FIELD = {"label": "label"}
WITH_DOMAIN = {"label": "label", "slices": ["domain"]}


@dataclass(frozen=True)
class Fault:
    """Files of a shard that are refused."""

    files: Mapping[str, bytes]
    message: str  # a pattern of what is said
    settings: Mapping = field(default_factory=dict)  # of the layout, besides in_class_order


FAULTS = {
    # labels in files of their own
    "numbers without names": Fault(
        samples(), "x/0000 is the number 0, and", {"in_class_order": False}
    ),
    "a number above the names": Fault(
        samples([0, 1, 3]), "x/0002 is the number 3, but only 0 to 2"
    ),
    "a misspelt class": Fault(samples(["owl", "cat", "dgo"]), "'dgo' .did you mean 'dog'"),
    "a class without images": Fault(samples([0, 1]), r"'owl' \(1 of 3 classes"),
    # files that don't make a sample
    "a sample without label": Fault(WITHOUT_LABEL, "'a.tar/x/9' has no label in a file"),
    "a sample without photo": Fault(WITHOUT_PHOTO, "'a.tar/x/9' has no image"),
    "files of a sample apart": Fault(APART, "'a.tar/a' has no label in a file"),
    "two photos": Fault({"a.jpg": b"", "a.png": b"", "a.cls": b"0"}, "'a' has two .* 'a.png'"),
    # labels that can't be read
    "an empty label": Fault(samples([""]), "'x/0000.cls' can't be read .it is empty"),
    "a label of bytes": Fault({"a.cls": b"\xff"}, "'a.cls' can't be read"),
    "a long label": Fault({"a.cls": b"a" * 5000}, "'a.cls' of more than"),
    # JSON files
    "no JSON file": Fault(samples(), "'a.tar/x/0000' has no field 'label'", BY_FIELD),
    "no field": Fault(described(), "'a.tar/0' has no field 'lable'", {"label": "lable"}),
    "no JSON": Fault({"a.json": b"{", "a.jpg": b""}, "'a.json' can't be read", BY_FIELD),
    "a list": Fault({"a.json": b"[]", "a.jpg": b""}, "is not a JSON object", BY_FIELD),
    "a label that is a list": Fault(described([{"label": ["owl"]}]), "neither text", BY_FIELD),
    "a slice that is a list": Fault(
        described([{"label": "owl", "domain": []}]), "'domain' of a.tar/0 is ", WITH_DOMAIN
    ),
    # selections of samples
    "no field to select by": Fault(
        samples(), "'a.tar/x/0000' has no field 'x'", {"where": {"x": 1}}
    ),
    "no sample selected": Fault(
        described(),
        "selects no image .'domain' has 'art', 'sketch'",
        {"label": "label", "where": {"domain": "skech"}},
    ),
    "a slice that is too large": Fault(
        described([{"label": "owl", "domain": 1 << 63}]),
        "'domain' of a.tar/0 is 92233",
        WITH_DOMAIN,
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_does_not_suit_is_one_sentence(tmp_path, fault):
    path = tar(tmp_path / "a.tar", fault.files)
    settings = {"in_class_order": True, **fault.settings}
    assert re.search(fault.message, refused(path, **settings))


def test_two_samples_of_one_key_are_refused(tmp_path):
    files = samples([0, 1, 2])
    again = {"x/./0000.jpg": jpeg(0), "x/./0000.cls": b"0"}  # other names of the same path
    path = tar(tmp_path / "a.tar", {**files, **again})
    with pytest.raises(UserError, match="two images have the id 'a.tar/x/0000'"):
        run_prepare(tmp_path, "webdataset", path, space=SPACE, in_class_order=True)


def test_names_and_texts_of_a_tar_are_stored_and_shown_printably(tmp_path):
    # given
    files = {}
    for number, key in enumerate(SPACE.keys):
        sample = f"\x1b[31m{number}\n"
        facts = {"is": key, "from": "\ud800\u202e"}
        files[f"{sample}.json"] = json.dumps(facts).encode()
        files[f"{sample}.png"] = jpeg(number, kind="PNG")
    path = tar(tmp_path / "a.tar", files)
    # when
    index, *_ = run_prepare(
        tmp_path, "webdataset", path, space=SPACE, label="is", slices=["from"], source="from"
    )
    # then
    assert index["image_id"].tolist() == [rf"a.tar/\x1b[31m{number}\n" for number in range(3)]
    assert set(index["from"]) == {r"\ud800\u202e"}
    assert set(index["source_id"]) == {r"val/\ud800\u202e"}
    message = refused(path, label="\x1b")
    assert "no field" in message
    assert "\x1b" not in message


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"label": ' + b"9" * 5000 + b"}"])
def test_json_files_that_take_more_than_they_should_are_refused(tmp_path, content):
    path = tar(tmp_path / "a.tar", {"a.jpg": jpeg(0), "a.json": content})
    assert "'a.json' can't be read" in refused(path, label="label")


def test_a_long_json_file_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed"))
    content = b"[" + b"0," * (1 << 20) + b"0]"
    path = tar(tmp_path / "a.tar", {"a.jpg": jpeg(0), "a.json": content})
    assert "'a.json' of more than" in refused(path, label="label")


TOO_LARGE = "x/0001.jpg"


def tar_of_large_photos(path):
    """Thirty samples with photos of 1.5 MB, of which one, TOO_LARGE, has 3 MB."""
    files = samples([0, 1, 2] * 10)
    for name in files:
        if name.endswith(".jpg"):
            files[name] += bytes(1_500_000)
    files[TOO_LARGE] += bytes(1_500_000)
    return tar(path, files)


def test_a_photo_that_is_too_large_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv(PHOTO_MEGABYTES, "2")
    path = tar_of_large_photos(tmp_path / "a.tar")
    with pytest.raises(UserError, match=f"contains '{TOO_LARGE}' of more than"):
        run_prepare(tmp_path, "webdataset", path, space=SPACE, in_class_order=True)


def test_a_photo_that_is_too_large_may_be_left_out_and_one_sample_is_in_memory(
    tmp_path, monkeypatch, peak
):
    monkeypatch.setenv(PHOTO_MEGABYTES, "2")
    path = tar_of_large_photos(tmp_path / "a.tar")
    dataset = DatasetSource("set", [path], SPACE, GEOMETRY)
    peak()
    photos_read = 0
    for item in webdataset.items(dataset, in_class_order=True):
        if item.image_id != "a.tar/x/0001":
            assert len(item.picture.read()) > 1_500_000
            photos_read += 1
    assert photos_read == 29
    assert peak() < 12e6
