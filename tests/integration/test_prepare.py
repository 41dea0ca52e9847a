"""Preparation: both forms of storage, going on after a kill, and corrupt images.

What is the same whatever happened is tested, too.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import signal
import subprocess
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.data import prepare as preparation
from rib.data.folders import pack
from rib.data.images import CorruptImageError, decode
from rib.data.prepared import INDEX_COLUMNS, PreparedDataset
from rib.data.variables import PHOTO_MEGABYTES, PHOTO_MEGAPIXELS
from rib.data.view import DatasetFiles, load_proxy, load_whole
from tiny.changed import replace
from tiny.photos import (
    GEOMETRY,
    INDICES,
    WNIDS,
    index_of,
    jpeg,
    prepare_job,
    run_prepare,
    space_of,
    tar,
)
from tiny.training import VIEW

BROKEN = jpeg(0)[:100]
STORAGES = pytest.mark.parametrize("storage", ["array", "encoded"])


@pytest.fixture
def archive(tmp_path):
    """A tar of some photos of all sizes."""
    files = {
        f"x/{WNIDS[i]}/{n}.jpg": jpeg(i, (40 + n, 36 + 3 * n)) for i in INDICES for n in range(10)
    }
    return tar(tmp_path / "a.tar", files)


def folder(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


@contextlib.contextmanager
def killed_after(count):
    """Preparing stops with that many images written, as if it were killed."""
    added = preparation.Written.add

    def add(self, item, data):
        if self.count == count:
            self._file.flush()  # what a kill may leave behind: bytes of which no row tells
            raise KeyboardInterrupt
        added(self, item, data)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparation.Written, "add", add)
        yield


def digests(place):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(place.iterdir())
    }


def test_photos_kept_encoded_give_the_pixels_of_arrays(tmp_path, archive):
    arrays, encoded = folder(tmp_path, "arrays"), folder(tmp_path, "encoded")
    run_prepare(arrays, "class_folders", archive)
    index, data, _ = run_prepare(encoded, "class_folders", archive, storage="encoded")
    assert data.ndim == 1 and data.nbytes == index["length"].sum()
    one = PreparedDataset.open(arrays, "set")
    other = PreparedDataset.open(encoded, "set", GEOMETRY, decode_workers=3)
    assert (one.labels == other.labels).all() and len(other.images) == 40
    rows = np.array([3, 39, 0])
    assert (one.images[rows] == other.images[rows]).all() and (
        one.images[5:9] == other.images[5:9]
    ).all()
    assert index_of(other.images[np.array([0])][0]) == INDICES[0]


@STORAGES
def test_whole_photos_are_read_where_the_view_says_so_and_cropped_ones_elsewhere(tmp_path, storage):
    """Against PIL: of photos at the size of the input, those read whole are the photos."""
    photos = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8) for i in INDICES]
    files = {}
    for index, pixels in zip(INDICES, photos, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"{WNIDS[index]}/own.png"] = buffer.getvalue()
    cropping = dataclasses.replace(GEOMETRY, crop_pct=0.875)
    prepared = folder(tmp_path, "out")
    archive = tar(tmp_path / "a.tar", files)
    geometry = cropping.without_crop()  # as Grid.preparation has it
    run_prepare(prepared, "class_folders", archive, storage=storage, geometry=geometry)
    view = replace(VIEW, geometry=cropping, uncropped=("set",))
    whole = load_whole(DatasetFiles("set", prepared), view)
    assert (whole.images[:] == np.stack(photos)).all()
    if storage == "encoded":
        cropped = load_whole(DatasetFiles("other", prepared), view).images[:1][0]
        enlarged = Image.fromarray(photos[0]).resize((36, 36), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(enlarged)[2:34, 2:34].astype(int) - cropped).max() <= 2


def photo(seed, kind):
    """Encoded noise, the same pixels for the same seed."""
    pixels, buffer = (
        np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8),
        io.BytesIO(),
    )
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@STORAGES
def test_identical_photos_are_counted_and_have_one_source(tmp_path, caplog, storage, monkeypatch):
    """A PNG, its copy as BMP in its class and a copy in another class are one source image.

    Each photo is decoded once.
    """
    caplog.set_level("INFO")
    files = {f"{WNIDS[i]}/own.png": photo(i, "PNG") for i in INDICES}
    files |= {f"{WNIDS[2]}/b.png": photo(0, "PNG"), f"{WNIDS[2]}/c.bmp": photo(0, "BMP")}
    files |= {f"{WNIDS[10]}/a.png": photo(0, "PNG")}
    decoded = []
    monkeypatch.setattr(
        preparation, "decode", lambda data, *more: decoded.append(data) or decode(data, *more)
    )
    place, archive = folder(tmp_path, "out"), tar(tmp_path / "a.tar", files)
    index, *_ = run_prepare(place, "class_folders", archive, storage=storage, source_group=None)
    assert len(decoded) == len(files) == len(index)
    same = index[index["photo_sha256"].duplicated(keep=False)]
    assert set(same["image_id"]) == {f"{WNIDS[2]}/b.png", f"{WNIDS[2]}/c.bmp", f"{WNIDS[10]}/a.png"}
    manifest = read_json(place / "manifest.json")
    assert (manifest["identical"], manifest["identical_of_other_classes"]) == (3, 3)
    assert (
        "set: 3 of 7 images are identical" in caplog.text
        and "3 images are identical to one of another class" in caplog.text
    )
    dataset = PreparedDataset.open(place, "set", GEOMETRY)
    places, sources = dataset.sources
    assert len(sources) == 5 and len(set(places[same.index])) == 1
    assert dataset.joined_index["object_id"].to_pylist().count(sources[places[same.index[0]]]) == 3


def test_photos_of_which_only_the_resized_pixels_agree_are_not_identical(tmp_path):
    files = {
        f"{WNIDS[i]}/{side}.png": jpeg(i, (side, side), kind="PNG")
        for i in INDICES
        for side in (40, 41)
    }
    place = folder(tmp_path, "out")
    index, *_ = run_prepare(place, "class_folders", tar(tmp_path / "a.tar", files))
    assert index["sha256"].nunique() == 4 and index["photo_sha256"].nunique() == 8
    assert read_json(place / "manifest.json")["identical"] == 0


def test_drawings_are_compared_before_they_are_resized(tmp_path):
    """Given two pictures that agree at the geometry only, they are not identical."""
    small, large = (jpeg(2, (side, side), kind="PNG") for side in (64, 256))
    names = {"1f98a": small, "1f98b": large, "1f98c": small}
    archive = tar(
        tmp_path / "a.tar", {f"package/assets/{name}.png": data for name, data in names.items()}
    )
    space = replace(space_of([2, 10, 101]), keys=tuple(names))
    index, *_ = run_prepare(
        folder(tmp_path, "out"), "codepoint_images", archive, space=space, margin=0
    )
    assert index["sha256"].nunique() == 1
    first, second, third = index["photo_sha256"]
    assert first == third != second


def test_a_prepared_dataset_of_an_earlier_version_opens(tmp_path, archive, caplog):
    place = folder(tmp_path, "out")
    run_prepare(place, "class_folders", archive)
    before = PreparedDataset.open(place, "set").sources[1]
    table = pq.read_table(place / "index.parquet").drop_columns(["photo_sha256"])
    pq.write_table(table, place / "index.parquet")
    assert PreparedDataset.open(place, "set").sources[1] == before
    assert "snakemake --forcerun prepare" in caplog.text


@STORAGES
def test_the_number_of_workers_changes_no_byte(tmp_path, archive, storage):
    places = [folder(tmp_path, str(workers)) for workers in (1, 4)]
    for place, workers in zip(places, (1, 4), strict=True):
        run_prepare(place, "class_folders", archive, storage=storage, decode_workers=workers)
    assert digests(places[0]) == digests(places[1])


@STORAGES
@pytest.mark.parametrize("count", [3, 8, 17, 39])
def test_a_killed_job_goes_on_where_it_was_and_gives_the_same_bytes(
    tmp_path, archive, storage, count, monkeypatch
):
    monkeypatch.setattr(preparation, "SAVED_EVERY", 8)
    whole, place = folder(tmp_path, "whole"), folder(tmp_path, "place")
    run_prepare(whole, "class_folders", archive, storage=storage)
    with killed_after(count):
        run_prepare(place, "class_folders", archive, storage=storage)
    converted, own = [], preparation._convert_photo
    monkeypatch.setattr(
        preparation, "_convert_photo", lambda *args: converted.append(1) or own(*args)
    )
    run_prepare(place, "class_folders", archive, storage=storage)
    assert digests(whole) == digests(place)
    assert len(converted) == 40 - count // 8 * 8


def drawn(path, indices):
    """A package with a drawing of each of these classes, in the order of their numbers as text."""
    return tar(
        path,
        {
            f"package/assets/{WNIDS[i]}.png": jpeg(i, (40, 40), kind="PNG")
            for i in sorted(indices, key=str)
        },
    )


def test_with_classes_per_dataset_the_label_space_is_the_classes_with_images(tmp_path, monkeypatch):
    """The package has four of six classes; a killed job, at any image, gives the same bytes."""
    monkeypatch.setattr(preparation, "SAVED_EVERY", 2)
    archive, whole = drawn(tmp_path / "a.tar", INDICES), folder(tmp_path, "whole")
    space = replace(
        space_of([1, 2, 10, 500, 101, 999]), also=((1, 2), (3,), (1, 5), (), (2, 3), ())
    )
    options = {"space": space, "classes_per_dataset": True, "margin": 0}
    index, images, classes = run_prepare(whole, "codepoint_images", archive, **options)
    assert classes["keys"] == classes["names"] == [WNIDS[i] for i in INDICES]
    assert classes["indices"] == [[i] for i in INDICES] and classes["also"] == [[], [0, 3], [1], []]
    assert (
        index["label"].tolist() == [0, 1, 2, 3] and [index_of(image) for image in images] == INDICES
    )
    manifest = read_json(whole / "manifest.json")
    assert manifest["classes"] == 4 and manifest["label_space"] == classes["digest"] != space.digest
    for count in range(4):
        place = folder(tmp_path, f"killed after {count}")
        with killed_after(count):
            run_prepare(place, "codepoint_images", archive, **options)
        run_prepare(place, "codepoint_images", archive, **options)
        assert digests(whole) == digests(place)


def test_without_classes_per_dataset_the_label_space_keeps_the_classes_without_images(tmp_path):
    archive, space = drawn(tmp_path / "a.tar", INDICES), space_of([2, 5, 10, 101, 999])
    index, _, classes = run_prepare(
        folder(tmp_path, "out"), "codepoint_images", archive, space=space, margin=0
    )
    assert classes == space.to_json() and index["label"].tolist() == [0, 2, 3, 4]
    assert read_json(tmp_path / "out/manifest.json")["classes"] == 4


@STORAGES
def test_a_class_of_which_each_photo_is_corrupt_has_no_images(tmp_path, storage):
    files = {f"x/{WNIDS[i]}/1.jpg": jpeg(i) if i != 10 else BROKEN for i in INDICES}
    archive, options = (
        tar(tmp_path / "a.tar", files),
        {"corrupt_allowed": 1, "classes_per_dataset": True},
    )
    index, _, classes = run_prepare(
        folder(tmp_path, "out"), "class_folders", archive, storage=storage, **options
    )
    assert classes["keys"] == [WNIDS[i] for i in INDICES if i != 10]
    assert [classes["keys"][label] for label in index["label"]] == [
        name[:9] for name in index["image_id"]
    ]


def test_a_dataset_with_images_of_a_single_class_is_refused(tmp_path):
    archive, options = drawn(tmp_path / "a.tar", [2]), {"classes_per_dataset": True, "margin": 0}
    with pytest.raises(UserError, match=f"^set: '{WNIDS[2]}' is its only class with images; add"):
        run_prepare(folder(tmp_path, "out"), "codepoint_images", archive, **options)


SLICED = """
from rib.data.archives import archive_members
from rib.data.images import Photo, photo_item

ODD = {odd}

def items(dataset):
    for place, (name, read) in enumerate(archive_members(dataset.archives[0])):
        slices = {{"camera": ["phone", "old", "scan"][place % 3], "year": 2000 + place}}
        slices = ODD if place == 7 and ODD is not None else slices
        yield photo_item(place % 4, name, "g", name, Photo(read, name), **slices)
"""


def layout_with_slices(tmp_path, odd=None):
    path = tmp_path / "sliced.py"
    path.write_text(SLICED.format(odd=odd))
    return str(path.with_suffix(""))


@STORAGES
@pytest.mark.parametrize("count", [0, 3, 17, 39])
def test_slices_of_a_layout_are_columns_of_the_index(
    tmp_path, archive, storage, count, monkeypatch
):
    """Those of a job that went on after a kill are the same.

    A prepared dataset is read without them.
    """
    monkeypatch.setattr(preparation, "SAVED_EVERY", 8)
    monkeypatch.setattr(preparation, "ROW_GROUP", 16)
    layout, whole, place = (
        layout_with_slices(tmp_path),
        folder(tmp_path, "whole"),
        folder(tmp_path, "place"),
    )
    index, *_ = run_prepare(whole, layout, archive, storage=storage)
    assert (
        index["camera"].tolist() == (["phone", "old", "scan"] * 14)[:40]
        and index["camera"].dtype == "category"
    )
    assert index["year"].tolist() == list(range(2000, 2040))
    with killed_after(count):
        run_prepare(place, layout, archive, storage=storage)
    run_prepare(place, layout, archive, storage=storage)
    assert digests(whole) == digests(place)
    read = PreparedDataset.open(place, "set", GEOMETRY).index
    assert read["label"].to_pylist() == index["label"].tolist() and not {"camera", "year"} & set(
        read.column_names
    )


ODD = [
    {},
    {"camera": "phone"},
    {"camera": 1, "year": 2},
    {"camera": "a", "year": 2.5},
    {"camera": "a", "year": True},
]


@pytest.mark.parametrize("odd", ODD)
def test_images_whose_slices_differ_are_refused(tmp_path, archive, odd):
    with pytest.raises(
        UserError, match=r"jpg has the slices .*, the first image .*2000.*; let the layout"
    ):
        run_prepare(folder(tmp_path, "out"), layout_with_slices(tmp_path, odd), archive)


@pytest.mark.parametrize("name", INDEX_COLUMNS)
def test_a_slice_named_like_a_column_of_the_index_is_refused_with_the_names_that_are_taken(
    tmp_path, archive, name
):
    odd = {"camera": "a", name: 1}
    with pytest.raises(UserError, match=rf"a slice '{name}', .*\(taken are row, .*, border\)\.$"):
        run_prepare(folder(tmp_path, "out"), layout_with_slices(tmp_path, odd), archive)


@STORAGES
def test_a_killed_job_that_left_corrupt_photos_out_stores_each_other_once(
    tmp_path, storage, monkeypatch
):
    """Among the corrupt are the first, one before and one after the last save, and the last."""
    monkeypatch.setattr(preparation, "SAVED_EVERY", 4)
    corrupt = [0, 3, 10, 19]
    files = {
        f"x/{WNIDS[2]}/{n}.jpg": BROKEN if n in corrupt else jpeg(2, (40 + n, 36))
        for n in range(20)
    }
    archive = tar(tmp_path / "a.tar", files)
    whole, place = folder(tmp_path, "whole"), folder(tmp_path, "place")
    options = {"storage": storage, "corrupt_allowed": 4, "space": space_of([2])}
    index, *_ = run_prepare(whole, "class_folders", archive, **options)
    assert index["image_id"].tolist() == [
        f"{WNIDS[2]}/{n}.jpg" for n in range(20) if n not in corrupt
    ]
    with killed_after(11):
        run_prepare(place, "class_folders", archive, **options)
    run_prepare(place, "class_folders", archive, **options)
    assert digests(whole) == digests(place)


@pytest.mark.thorough
def test_a_job_killed_for_real_goes_on(tmp_path):
    """SIGKILL in the midst of a real job.

    The next run takes up the folder that it left in work/.
    """
    files = {f"x/{WNIDS[i]}/{n}.jpg": jpeg(i, (400, 300)) for i in INDICES for n in range(1000)}
    tar(tmp_path / "a.tar", files)
    command = prepare_job("class_folders", "decode_workers=1")
    with subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        for _ in range(600):
            journals = list(tmp_path.glob("work/*/images.journal"))
            if journals and journals[0].stat().st_size:
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert journals and not (tmp_path / "out").exists()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert "resuming after" in (tmp_path / "log").read_text()
    assert read_json(tmp_path / "out/manifest.json")["n"] == 4000
    assert not list((tmp_path / "work").iterdir()), "nothing is left behind"


@STORAGES
def test_a_corrupt_photo_stops_the_job_and_is_named(tmp_path, storage):
    files = {
        f"x/{WNIDS[i]}/{n}.jpg": jpeg(i) if n != 1 else BROKEN for i in INDICES for n in range(2)
    }
    archive = tar(tmp_path / "a.tar", files)
    with pytest.raises(UserError, match=rf"set, x/{WNIDS[2]}/1\.jpg \(a\.tar\).*corrupt_images"):
        run_prepare(folder(tmp_path, "out"), "class_folders", archive, storage=storage)


@STORAGES
def test_so_many_corrupt_photos_may_be_left_out_and_are_listed(tmp_path, storage):
    files = {
        f"x/{WNIDS[i]}/{n}.jpg": jpeg(i) if (i, n) != (10, 1) else BROKEN
        for i in INDICES
        for n in range(2)
    }
    archive, place = tar(tmp_path / "a.tar", files), folder(tmp_path, "out")
    index, *_ = run_prepare(
        place, "class_folders", archive, storage=storage, corrupt_allowed=1, expected=8
    )
    manifest = read_json(place / "manifest.json")
    assert manifest["corrupt"] == [f"{WNIDS[10]}/1.jpg"] and manifest["n"] == 7 == len(index)
    assert index["row"].tolist() == list(range(7))


def test_an_index_of_many_row_groups_has_every_row(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(preparation, "ROW_GROUP", 7)
    index, *_ = run_prepare(folder(tmp_path, "out"), "class_folders", archive)
    assert index["row"].tolist() == list(range(40)) and index["image_id"].is_unique


def test_a_disk_that_is_too_full_is_refused_before_anything_is_written(
    tmp_path, archive, monkeypatch
):
    monkeypatch.setattr(
        "rib.base.files.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(UserError, match=r"set .*123kB.*1\.00kB"):
        run_prepare(folder(tmp_path, "out"), "class_folders", archive, expected=40)
    assert not list((tmp_path / "out").iterdir())


def test_what_is_written_already_needs_no_more_disk(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(preparation, "SAVED_EVERY", 8)
    place = folder(tmp_path, "out")
    with killed_after(32):
        run_prepare(place, "class_folders", archive, expected=40)
    monkeypatch.setattr(
        "rib.base.files.shutil.disk_usage",
        lambda path: type("Usage", (), {"free": 9 * 32 * 32 * 3}),
    )
    run_prepare(place, "class_folders", archive, expected=40)


def test_a_picture_that_is_all_border_is_corrupt():
    with pytest.raises(CorruptImageError, match="x .*border of 5 px"):
        decode(jpeg(2, (10, 30)), "x", 5)


@pytest.fixture
def above(tmp_path, monkeypatch):
    """A tar of photos of which one has too many bytes and one too many pixels, and their ids."""
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    files = {f"x/{WNIDS[i]}/{n}.jpg": jpeg(i) for i in INDICES for n in range(3)}
    files[f"x/{WNIDS[2]}/1.jpg"] += bytes(10**6)
    files[f"x/{WNIDS[10]}/2.jpg"] = jpeg(10, (1500, 1501))
    return tar(tmp_path / "a.tar", files), [f"{WNIDS[2]}/1.jpg", f"{WNIDS[10]}/2.jpg"]


@pytest.mark.attack("memory")
@STORAGES
def test_photos_above_a_limit_count_as_corrupt(tmp_path, above, storage):
    path, ids = above
    for allowed, (photo, setting) in enumerate(
        zip(ids, ("photo_megabytes", "photo_megapixels"), strict=True)
    ):
        with pytest.raises(UserError, match=rf"a\.tar.*{photo}.*{setting}|{photo} .*{setting}"):
            run_prepare(
                folder(tmp_path, str(allowed)),
                "class_folders",
                path,
                storage=storage,
                corrupt_allowed=allowed,
            )
    index, *_ = run_prepare(
        folder(tmp_path, "out"), "class_folders", path, storage=storage, corrupt_allowed=2
    )
    assert read_json(tmp_path / "out/manifest.json")["corrupt"] == ids and len(index) == 10


@pytest.mark.attack("memory")
def test_an_encoded_photo_above_the_limit_is_refused_when_it_is_used(tmp_path, monkeypatch, above):
    path, _ = above
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "3")
    run_prepare(
        folder(tmp_path, "out"), "class_folders", path, storage="encoded", corrupt_allowed=1
    )
    images = PreparedDataset.open(tmp_path / "out", "set", GEOMETRY).images
    assert len(images[:]) == 11
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    with pytest.raises(
        UserError, match=rf"set, {WNIDS[10]}/2\.jpg .*1500 x 1501 .*limits\.photo_megapixels"
    ):
        images[:]


TWICE = {
    "in two folders": {f"a/{WNIDS[2]}/5.jpg": jpeg(2), f"b/{WNIDS[2]}/5.jpg": jpeg(2, (50, 50))},
    "the same member twice": {f"x/{WNIDS[2]}/5.jpg": jpeg(2), f"./x/{WNIDS[2]}/5.jpg": jpeg(2)},
}


@pytest.mark.attack("data")
@STORAGES
@pytest.mark.parametrize("more", TWICE.values(), ids=TWICE)
def test_two_images_with_one_id_are_refused_after_a_kill_too(tmp_path, monkeypatch, storage, more):
    monkeypatch.setattr(preparation, "SAVED_EVERY", 2)
    files = {f"x/{WNIDS[i]}/{n}.jpg": jpeg(i) for i in INDICES for n in range(3)}
    (first, data), (second, other) = more.items()
    archive, place = (
        tar(tmp_path / "a.tar", {first: data, **files, second: other}),
        folder(tmp_path, "out"),
    )
    sentence = (
        rf"^set: two images have the id '{WNIDS[2]}/5.jpg' "
        rf"\(row 0, class '{WNIDS[2]}' and row 13, class '{WNIDS[2]}'\)"
    )
    with killed_after(9):
        run_prepare(place, "class_folders", archive, storage=storage)
    for _ in range(2):  # the journal stays, so that nothing is converted again
        with pytest.raises(UserError, match=sentence):
            run_prepare(place, "class_folders", archive, storage=storage)
        assert not (place / "manifest.json").exists() and (place / "images.journal").exists()


@pytest.mark.attack("data")
def test_two_images_with_one_id_in_two_classes_are_named_with_both(tmp_path, archive):
    layout = tmp_path / "same.py"
    layout.write_text(
        SLICED.format(odd=None).replace("(place % 4, name,", "(place % 4, str(place % 39),")
    )
    with pytest.raises(
        UserError, match=f"the id '0' .row 0, class '{WNIDS[2]}' and row 39, class '{WNIDS[999]}'"
    ):
        run_prepare(folder(tmp_path, "out"), str(layout.with_suffix("")), archive)


def test_ids_with_equal_hashes_are_compared_as_text(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(preparation, "hash", lambda name: 0, raising=False)
    index, *_ = run_prepare(folder(tmp_path, "out"), "class_folders", archive)
    assert len(index) == 40


LEFT_OUT = {
    "a link to a file outside": lambda place: (place / "hammer/a.jpg").symlink_to("/etc/hostname"),
    "a link to a folder outside": lambda place: (place / "hammer/a").symlink_to("/etc"),
    "a link to nothing": lambda place: (place / "hammer/a.jpg").symlink_to("nothing"),
    "a hidden file": lambda place: (place / "hammer/.a.jpg").write_bytes(b"x"),
}


@pytest.mark.attack("data")
@pytest.mark.parametrize("make", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out_of_a_folder_is_logged(tmp_path, caplog, make):
    place = tmp_path / "photos"
    (place / "hammer").mkdir(parents=True)
    (place / "hammer/1.jpg").write_bytes(b"x")
    pack(place, tmp_path / "one.tar", "photos")
    assert not caplog.records
    make(place)
    (place / ".hidden").mkdir()
    (place / ".hidden/b.jpg").write_bytes(b"x")
    pack(place, tmp_path / "two.tar", "photos")
    (record,) = caplog.records
    assert (
        "photos: left out: 2 " in record.getMessage()
        and str(place / ".hidden/b.jpg") in record.getMessage()
    )
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_the_pretraining_proxy_is_left_out_and_sets_that_name_its_images_otherwise_are_refused(
    tmp_path,
):
    def prepared(name, ending, first=0):
        """Five photos of each class; of another first seed, all are others."""
        files = {
            f"x/{WNIDS[i]}/{n}{ending}.png": photo(first + 10 * place + n, "PNG")
            for place, i in enumerate(INDICES)
            for n in range(5)
        }
        run_prepare(folder(tmp_path, name), "class_folders", tar(tmp_path / f"{name}.tar", files))
        return DatasetFiles(name, tmp_path / name, tmp_path / "val")

    val, cartoon, renamed = (
        prepared("val", ""),
        prepared("cartoon", "", 100),
        prepared("renamed", "_cartoon", 200),
    )
    view = replace(VIEW, images_per_class=2)
    proxy, rest = load_proxy(val, view), load_whole(cartoon, view)
    assert (
        np.bincount(proxy.labels).tolist() == [2] * 4
        and np.bincount(rest.labels).tolist() == [3] * 4
    )
    assert not set(proxy.sources[1]) & set(rest.sources[1])
    assert len(load_whole(replace(renamed, proxy=None), view).labels) == 20
    assert len(load_whole(cartoon, replace(view, budget=4)).labels) == 4
    with pytest.raises(UserError, match="renamed: none.*source_group"):
        load_whole(renamed, view)
    with pytest.raises(UserError, match=r"cartoon: all.*reference\.images_per_class"):
        load_whole(cartoon, replace(view, images_per_class=5))


def test_a_photo_of_the_pretraining_proxy_is_left_out_under_another_name_too(tmp_path):
    """A dataset has val's photos under their names and again under others.

    Both copies of the proxy's are left out.
    """
    files = {
        f"{WNIDS[i]}/{n}.png": photo(10 * place + n, "PNG")
        for place, i in enumerate(INDICES)
        for n in range(5)
    }
    copies = {name.replace(".png", "_copy.png"): data for name, data in files.items()}
    for name, own in (("val", files), ("both", files | copies)):
        run_prepare(folder(tmp_path, name), "class_folders", tar(tmp_path / f"{name}.tar", own))
    rest = load_whole(
        DatasetFiles("both", tmp_path / "both", tmp_path / "val"), replace(VIEW, images_per_class=2)
    )
    assert np.bincount(rest.labels).tolist() == [6] * 4
