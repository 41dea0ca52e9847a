"""Preparation: both forms of storage, going on after a kill, and corrupt images.

What is the same whatever happened is tested, too.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.catalog.label_space import MOST_CLASSES, read_own_classes
from rib.data import prepare as preparation
from rib.data.dataset import PreparedDataset
from rib.data.folders import listing, listing_of, pack
from rib.data.images import CorruptImageError, decode
from rib.data.variables import PHOTO_MEGABYTES, PHOTO_MEGAPIXELS
from rib.data.view import DatasetFiles, load_proxy, load_whole
from rib.records import provenance
from tiny.changed import replace
from tiny.data.photos import (
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
from tiny.models.training import VIEW
from tiny.projects.records import FACTS

BROKEN = jpeg(0)[:100]
STORAGES = pytest.mark.parametrize("storage", ["array", "encoded"])


@pytest.fixture
def archive(tmp_path):
    """A tar of ten photos of each class, of all sizes."""
    photos = {}
    for i in INDICES:
        for n in range(10):
            photos[f"x/{WNIDS[i]}/{n}.jpg"] = jpeg(i, (40 + n, 36 + 3 * n))
    return tar(tmp_path / "a.tar", photos)


def new_folder(tmp_path, name):
    """A new folder of this name."""
    folder = tmp_path / name
    folder.mkdir()
    return folder


@contextlib.contextmanager
def killed_after(count):
    """Preparing stops with that many images written, as if it were killed."""
    add = preparation.PreparedImagesWriter.add

    def add_until_killed(self, item, data):
        if self.count == count:
            self._file.flush()  # what a kill may leave behind: bytes of which no row tells
            raise KeyboardInterrupt
        add(self, item, data)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparation.PreparedImagesWriter, "add", add_until_killed)
        yield


def calls_of(monkeypatch, name):
    """The first argument of each call of a function of `rib.data.prepare` from now on."""
    function = getattr(preparation, name)
    first_arguments = []

    def call_and_note(first_argument, *arguments):
        first_arguments.append(first_argument)
        return function(first_argument, *arguments)

    monkeypatch.setattr(preparation, name, call_and_note)
    return first_arguments


def digests(folder):
    """SHA-256 of each file in a folder, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_photos_kept_encoded_give_the_pixels_of_arrays(tmp_path, archive):
    # given
    folder_of_arrays = new_folder(tmp_path, "arrays")
    folder_of_encoded = new_folder(tmp_path, "encoded")
    # when
    run_prepare(folder_of_arrays, "class_folders", archive)
    index, stored_bytes, _ = run_prepare(
        folder_of_encoded, "class_folders", archive, storage="encoded"
    )
    # then
    assert stored_bytes.ndim == 1
    assert stored_bytes.nbytes == index["length"].sum()
    arrays = PreparedDataset.open(folder_of_arrays, "set")
    encoded = PreparedDataset.open(folder_of_encoded, "set", GEOMETRY, decode_workers=3)
    assert (arrays.labels == encoded.labels).all()
    assert len(encoded.images) == 40
    rows = np.array([3, 39, 0])
    assert (arrays.images[rows] == encoded.images[rows]).all()
    assert (arrays.images[5:9] == encoded.images[5:9]).all()
    (first_image,) = encoded.images[np.array([0])]
    assert index_of(first_image) == INDICES[0]


def noise(seed, size):
    """Pixels of noise, (height, width, 3), the same for the same seed."""
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encode(pixels, file_format):
    """Pixels as a file of this format."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def noise_photo(seed, file_format="PNG"):
    """A file of noise, of the same pixels for the same seed."""
    return encode(noise(seed, (40, 30)), file_format)


@STORAGES
def test_whole_photos_are_read_where_the_view_says_so_and_cropped_ones_elsewhere(tmp_path, storage):
    """Against PIL: of photos at the size of the input, those read whole are the photos."""
    # given
    photos = [noise(i, (32, 32)) for i in INDICES]
    files = {
        f"{WNIDS[i]}/own.png": encode(pixels, "PNG")
        for i, pixels in zip(INDICES, photos, strict=True)
    }
    cropping = dataclasses.replace(GEOMETRY, crop_pct=0.875)
    # when
    prepared = new_folder(tmp_path, "out")
    archive = tar(tmp_path / "a.tar", files)
    geometry = cropping.without_crop()  # as Grid.preparation has it
    run_prepare(prepared, "class_folders", archive, storage=storage, geometry=geometry)
    # then
    view = replace(VIEW, geometry=cropping, uncropped=("set",))
    uncropped = load_whole(DatasetFiles("set", prepared), view)
    assert (uncropped.images[:] == np.stack(photos)).all()
    if storage == "encoded":
        (cropped,) = load_whole(DatasetFiles("other", prepared), view).images[:1]
        enlarged = Image.fromarray(photos[0]).resize((36, 36), Image.Resampling.BICUBIC)
        centre = np.asarray(enlarged)[2:34, 2:34].astype(int)
        assert np.abs(centre - cropped).max() <= 2


@STORAGES
def test_identical_photos_are_counted_and_have_one_source(tmp_path, caplog, storage, monkeypatch):
    """A PNG, its copy as BMP in its class and a copy in another class are one source image.

    Each photo is decoded once.
    """
    # given
    caplog.set_level("INFO")
    files = {f"{WNIDS[i]}/own.png": noise_photo(i) for i in INDICES}
    identical_files = {
        f"{WNIDS[2]}/b.png": noise_photo(0),
        f"{WNIDS[2]}/c.bmp": noise_photo(0, "BMP"),
        f"{WNIDS[10]}/a.png": noise_photo(0),
    }
    archive = tar(tmp_path / "a.tar", {**files, **identical_files})
    decoded = calls_of(monkeypatch, "decode")
    folder = new_folder(tmp_path, "out")
    # when
    index, _, _ = run_prepare(folder, "class_folders", archive, storage=storage, source_group=None)
    # then
    assert len(decoded) == len(index) == 7
    identical = index[index["photo_sha256"].duplicated(keep=False)]
    assert set(identical["image_id"]) == set(identical_files)
    manifest = read_json(folder / "manifest.json")
    assert manifest["identical"] == 3
    assert manifest["identical_of_other_classes"] == 3
    assert "set: 3 of 7 images are identical" in caplog.text
    assert "3 images are identical to one of another class" in caplog.text
    dataset = PreparedDataset.open(folder, "set", GEOMETRY)
    source_of_image, source_ids = dataset.sources
    assert len(source_ids) == 5
    (common_source,) = set(source_of_image[identical.index])
    object_ids = dataset.joined_index["object_id"].to_pylist()
    assert object_ids.count(source_ids[common_source]) == 3


def test_photos_of_which_only_the_resized_pixels_agree_are_not_identical(tmp_path):
    files = {}
    for i in INDICES:
        for side in (40, 41):
            files[f"{WNIDS[i]}/{side}.png"] = jpeg(i, (side, side), kind="PNG")
    folder = new_folder(tmp_path, "out")
    index, _, _ = run_prepare(folder, "class_folders", tar(tmp_path / "a.tar", files))
    assert index["sha256"].nunique() == 4
    assert index["photo_sha256"].nunique() == 8
    assert read_json(folder / "manifest.json")["identical"] == 0


def test_drawings_are_compared_before_they_are_resized(tmp_path):
    """Given two pictures that agree at the geometry only, they are not identical."""
    small = jpeg(2, (64, 64), kind="PNG")
    large = jpeg(2, (256, 256), kind="PNG")
    drawings = {"1f98a": small, "1f98b": large, "1f98c": small}
    files = {f"package/assets/{name}.png": drawing for name, drawing in drawings.items()}
    archive = tar(tmp_path / "a.tar", files)
    space = replace(space_of([2, 10, 101]), keys=tuple(drawings))
    folder = new_folder(tmp_path, "out")
    index, _, _ = run_prepare(folder, "codepoint_images", archive, space=space, margin=0)
    assert index["sha256"].nunique() == 1
    first, second, third = index["photo_sha256"]
    assert first == third
    assert third != second


@STORAGES
def test_the_number_of_workers_changes_no_byte(tmp_path, archive, storage):
    digests_by_workers = {}
    for workers in (1, 4):
        folder = new_folder(tmp_path, str(workers))
        run_prepare(folder, "class_folders", archive, storage=storage, decode_workers=workers)
        digests_by_workers[workers] = digests(folder)
    assert digests_by_workers[1] == digests_by_workers[4]


@STORAGES
@pytest.mark.parametrize("count", [3, 8, 39])
def test_a_killed_job_goes_on_where_it_was_and_gives_the_same_bytes(
    tmp_path, archive, storage, count, monkeypatch
):
    # given
    monkeypatch.setattr(preparation, "SAVED_EVERY", 8)
    never_killed = new_folder(tmp_path, "never killed")
    killed = new_folder(tmp_path, "killed")
    run_prepare(never_killed, "class_folders", archive, storage=storage)
    with killed_after(count):
        run_prepare(killed, "class_folders", archive, storage=storage)
    # when
    converted = calls_of(monkeypatch, "_convert_photo")
    run_prepare(killed, "class_folders", archive, storage=storage)
    # then
    assert digests(never_killed) == digests(killed)
    saved_images = count // 8 * 8
    assert len(converted) == 40 - saved_images


def package_of_drawings(path, indices):
    """A package with a drawing of each of these classes, in the order of their numbers as text."""
    drawings = {
        f"package/assets/{WNIDS[i]}.png": jpeg(i, (40, 40), kind="PNG")
        for i in sorted(indices, key=str)
    }
    return tar(path, drawings)


def test_with_classes_per_dataset_the_label_space_is_the_classes_with_images(tmp_path, monkeypatch):
    """The package has four of six classes; a killed job, at any image, gives the same bytes."""
    # given
    monkeypatch.setattr(preparation, "SAVED_EVERY", 2)
    archive = package_of_drawings(tmp_path / "a.tar", INDICES)
    space = replace(
        space_of([1, 2, 10, 500, 101, 999]), also=((1, 2), (3,), (1, 5), (), (2, 3), ())
    )
    options = {"space": space, "classes_per_dataset": True, "margin": 0}
    never_killed = new_folder(tmp_path, "never killed")
    # when
    index, images, classes = run_prepare(never_killed, "codepoint_images", archive, **options)
    # then
    wnids = [WNIDS[i] for i in INDICES]
    assert classes["keys"] == wnids
    assert classes["names"] == wnids
    assert classes["indices"] == [[i] for i in INDICES]
    assert classes["also"] == [[], [0, 3], [1], []]
    assert index["label"].tolist() == [0, 1, 2, 3]
    assert [index_of(image) for image in images] == INDICES
    manifest = read_json(never_killed / "manifest.json")
    assert manifest["classes"] == 4
    assert manifest["label_space"] == classes["digest"]
    assert manifest["label_space"] != space.digest
    for count in range(4):
        killed = new_folder(tmp_path, f"killed after {count}")
        with killed_after(count):
            run_prepare(killed, "codepoint_images", archive, **options)
        run_prepare(killed, "codepoint_images", archive, **options)
        assert digests(never_killed) == digests(killed)


def test_without_classes_per_dataset_the_label_space_keeps_the_classes_without_images(tmp_path):
    archive = package_of_drawings(tmp_path / "a.tar", INDICES)
    space = space_of([2, 5, 10, 101, 999])
    folder = new_folder(tmp_path, "out")
    index, _, classes = run_prepare(folder, "codepoint_images", archive, space=space, margin=0)
    assert classes == space.to_json()
    assert index["label"].tolist() == [0, 2, 3, 4]
    assert read_json(folder / "manifest.json")["classes"] == 4


@pytest.mark.thorough
def test_an_index_holds_the_labels_of_as_many_classes_as_a_class_file_may_have(tmp_path):
    # given
    keys = [f"k{number}" for number in range(MOST_CLASSES)]
    class_file = tmp_path / "classes.csv"
    lines = ["key,name", *(f"{key},name" for key in keys)]
    class_file.write_text("\n".join(lines), encoding="utf-8")
    space = read_own_classes(class_file)
    drawings = {f"package/assets/{key}.png": jpeg(1, kind="PNG") for key in (keys[0], keys[-1])}
    archive = tar(tmp_path / "a.tar", drawings)
    folder = new_folder(tmp_path, "out")
    # when
    index, _, _ = run_prepare(folder, "codepoint_images", archive, space=space, margin=0)
    # then
    assert index["label"].tolist() == [0, 32_767]


@STORAGES
def test_a_class_of_which_each_photo_is_corrupt_has_no_images(tmp_path, storage):
    # given
    files = {f"x/{WNIDS[i]}/1.jpg": jpeg(i) for i in INDICES}
    files[f"x/{WNIDS[10]}/1.jpg"] = BROKEN
    archive = tar(tmp_path / "a.tar", files)
    folder = new_folder(tmp_path, "out")
    # when
    index, _, classes = run_prepare(
        folder,
        "class_folders",
        archive,
        storage=storage,
        corrupt_allowed=1,
        classes_per_dataset=True,
    )
    # then
    assert classes["keys"] == [WNIDS[i] for i in INDICES if i != 10]
    keys_of_images = [classes["keys"][label] for label in index["label"]]
    folders_of_images = [image_id.partition("/")[0] for image_id in index["image_id"]]
    assert keys_of_images == folders_of_images


def test_a_dataset_with_images_of_a_single_class_is_refused(tmp_path):
    archive = package_of_drawings(tmp_path / "a.tar", [2])
    folder = new_folder(tmp_path, "out")
    with pytest.raises(UserError, match=f"^set: '{WNIDS[2]}' is its only class with images; add"):
        run_prepare(folder, "codepoint_images", archive, classes_per_dataset=True, margin=0)


# A layout whose images have slices; those of the eighth image are ODD, unless that is None.
LAYOUT_WITH_SLICES = """
from rib.data.archives import archive_members
from rib.data.images import Photo, photo_item

ODD = {odd}

def items(dataset):
    for i, (name, read) in enumerate(archive_members(dataset.archives[0])):
        slices = {{"camera": ["phone", "old", "scan"][i % 3], "year": 2000 + i}}
        if i == 7 and ODD is not None:
            slices = ODD
        image_id = {image_id}
        yield photo_item(i % 4, image_id, "g", name, Photo(read, name), **slices)
"""


def layout_with_slices(tmp_path, odd=None, image_id="name"):
    """A layout that a user wrote, as a preparation names it.

    Args:
        odd: slices of the eighth image.
        image_id: Python code that gives the id of an image from its `name` and number `i`.
    """
    path = tmp_path / "sliced.py"
    path.write_text(LAYOUT_WITH_SLICES.format(odd=odd, image_id=image_id))
    return str(path.with_suffix(""))


@STORAGES
@pytest.mark.parametrize("count", [0, 17])
def test_slices_of_a_layout_are_columns_of_the_index(
    tmp_path, archive, storage, count, monkeypatch
):
    """Those of a job that went on after a kill are the same.

    A prepared dataset is read without them.
    """
    # given
    monkeypatch.setattr(preparation, "SAVED_EVERY", 8)
    monkeypatch.setattr(preparation, "ROW_GROUP", 16)
    layout = layout_with_slices(tmp_path)
    never_killed = new_folder(tmp_path, "never killed")
    killed = new_folder(tmp_path, "killed")
    # when
    index, _, _ = run_prepare(never_killed, layout, archive, storage=storage)
    with killed_after(count):
        run_prepare(killed, layout, archive, storage=storage)
    run_prepare(killed, layout, archive, storage=storage)
    # then
    cameras = ["phone", "old", "scan"] * 14
    assert index["camera"].tolist() == cameras[:40]
    assert index["camera"].dtype == "category"
    assert index["year"].tolist() == list(range(2000, 2040))
    assert digests(never_killed) == digests(killed)
    index_of_dataset = PreparedDataset.open(killed, "set", GEOMETRY).index
    assert index_of_dataset["label"].to_pylist() == index["label"].tolist()
    assert not {"camera", "year"} & set(index_of_dataset.column_names)


@pytest.mark.parametrize("odd", [{"camera": "phone"}, {"camera": "a", "year": 2.5}])
def test_images_whose_slices_differ_are_refused(tmp_path, archive, odd):
    layout = layout_with_slices(tmp_path, odd)
    with pytest.raises(UserError, match=r"jpg has the slices .*, the first image .*2000"):
        run_prepare(new_folder(tmp_path, "out"), layout, archive)


def test_a_slice_named_like_a_column_of_the_index_is_refused_with_the_names_that_are_taken(
    tmp_path, archive
):
    layout = layout_with_slices(tmp_path, {"camera": "a", "label": 1})
    with pytest.raises(UserError, match=r"a slice 'label', .*row, .*, border"):
        run_prepare(new_folder(tmp_path, "out"), layout, archive)


@STORAGES
def test_a_killed_job_that_left_corrupt_photos_out_stores_each_other_once(
    tmp_path, storage, monkeypatch
):
    """Among the corrupt are the first, one before and one after the last save, and the last."""
    # given
    monkeypatch.setattr(preparation, "SAVED_EVERY", 4)
    corrupt = [0, 3, 10, 19]
    intact = [n for n in range(20) if n not in corrupt]
    files = {f"x/{WNIDS[2]}/{n}.jpg": jpeg(2, (40 + n, 36)) for n in range(20)}
    for n in corrupt:
        files[f"x/{WNIDS[2]}/{n}.jpg"] = BROKEN
    archive = tar(tmp_path / "a.tar", files)
    never_killed = new_folder(tmp_path, "never killed")
    killed = new_folder(tmp_path, "killed")
    options = {"storage": storage, "corrupt_allowed": 4, "space": space_of([2])}
    # when
    index, _, _ = run_prepare(never_killed, "class_folders", archive, **options)
    with killed_after(11):
        run_prepare(killed, "class_folders", archive, **options)
    run_prepare(killed, "class_folders", archive, **options)
    # then
    assert index["image_id"].tolist() == [f"{WNIDS[2]}/{n}.jpg" for n in intact]
    assert digests(never_killed) == digests(killed)


def wait_for_a_save(folder):
    """The journals of a preparation below a folder, as soon as one has a save, or after 30 s."""
    for _ in range(600):
        journals = list(folder.glob("work/*/images.journal"))
        if any(journal.stat().st_size for journal in journals):
            break
        time.sleep(0.05)
    return journals


@pytest.mark.thorough
def test_a_job_killed_for_real_goes_on(tmp_path):
    """SIGKILL in the midst of a real job.

    The next run takes up the folder that it left in work/.
    """
    # given
    photos = {}
    for i in INDICES:
        for n in range(1000):
            photos[f"x/{WNIDS[i]}/{n}.jpg"] = jpeg(i, (400, 300))
    tar(tmp_path / "a.tar", photos)
    command = prepare_job("class_folders", "decode_workers=1")
    with subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        journals = wait_for_a_save(tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
    assert journals
    assert not (tmp_path / "out").exists()
    # when
    subprocess.run(command, cwd=tmp_path, check=True)
    # then
    assert "resuming after" in (tmp_path / "log").read_text()
    assert read_json(tmp_path / "out/manifest.json")["n"] == 4000
    assert not list((tmp_path / "work").iterdir()), "nothing is left behind"


def two_photos_of_each_class():
    """Files of two photos of each class, by path in their archive."""
    photos = {}
    for i in INDICES:
        for n in range(2):
            photos[f"x/{WNIDS[i]}/{n}.jpg"] = jpeg(i)
    return photos


@STORAGES
def test_a_corrupt_photo_stops_the_job_and_is_named(tmp_path, storage):
    files = two_photos_of_each_class()
    for i in INDICES:
        files[f"x/{WNIDS[i]}/1.jpg"] = BROKEN
    archive = tar(tmp_path / "a.tar", files)
    message = rf"set, x/{WNIDS[2]}/1\.jpg \(a\.tar\).*corrupt_images"
    with pytest.raises(UserError, match=message):
        run_prepare(new_folder(tmp_path, "out"), "class_folders", archive, storage=storage)


def test_a_corrupt_photo_of_a_users_folder_is_to_be_replaced_in_the_folder(tmp_path):
    files = two_photos_of_each_class()
    files[f"x/{WNIDS[2]}/1.jpg"] = BROKEN
    archive = tar(tmp_path / "a.tar", files)
    with pytest.raises(UserError, match=r"replace it in own/images/photos, or raise") as error:
        run_prepare(
            new_folder(tmp_path, "out"), "class_folders", archive, folders=("own/images/photos",)
        )
    assert "fetch" not in str(error.value)


@STORAGES
def test_so_many_corrupt_photos_may_be_left_out_and_are_listed(tmp_path, storage):
    files = two_photos_of_each_class()
    files[f"x/{WNIDS[10]}/1.jpg"] = BROKEN
    archive = tar(tmp_path / "a.tar", files)
    folder = new_folder(tmp_path, "out")
    index, _, _ = run_prepare(
        folder, "class_folders", archive, storage=storage, corrupt_allowed=1, expected=8
    )
    manifest = read_json(folder / "manifest.json")
    assert manifest["corrupt"] == [f"{WNIDS[10]}/1.jpg"]
    assert manifest["n"] == 7
    assert index["row"].tolist() == list(range(7))


def test_an_index_of_many_row_groups_has_every_row(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(preparation, "ROW_GROUP", 7)
    index, _, _ = run_prepare(new_folder(tmp_path, "out"), "class_folders", archive)
    assert index["row"].tolist() == list(range(40))
    assert index["image_id"].is_unique


def set_free_disk(monkeypatch, free_bytes):
    """Let disks have so many free bytes."""

    def disk_usage(path):
        return SimpleNamespace(free=free_bytes)

    monkeypatch.setattr("rib.base.files.shutil.disk_usage", disk_usage)


def test_a_disk_that_is_too_full_is_refused_before_anything_is_written(
    tmp_path, archive, monkeypatch
):
    set_free_disk(monkeypatch, 1000)
    folder = new_folder(tmp_path, "out")
    with pytest.raises(UserError, match=r"set .*123kB.*1\.00kB"):
        run_prepare(folder, "class_folders", archive, expected=40)
    assert not list(folder.iterdir())


def test_what_is_written_already_needs_no_more_disk(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(preparation, "SAVED_EVERY", 8)
    folder = new_folder(tmp_path, "out")
    with killed_after(32):
        run_prepare(folder, "class_folders", archive, expected=40)
    set_free_disk(monkeypatch, 9 * 32 * 32 * 3)
    run_prepare(folder, "class_folders", archive, expected=40)


def test_a_picture_that_is_all_border_is_corrupt():
    with pytest.raises(CorruptImageError, match="x .*border of 5 px"):
        decode(jpeg(2, (10, 30)), "x", 5)


HEAVY_PHOTO = f"{WNIDS[2]}/1.jpg"  # with too many bytes
LARGE_PHOTO = f"{WNIDS[10]}/2.jpg"  # with too many pixels


def three_photos_of_each_class():
    """Files of three photos of each class, by path in their archive."""
    photos = {}
    for i in INDICES:
        for n in range(3):
            photos[f"x/{WNIDS[i]}/{n}.jpg"] = jpeg(i)
    return photos


@pytest.fixture
def archive_above_limits(tmp_path, monkeypatch):
    """A tar of photos, of which HEAVY_PHOTO and LARGE_PHOTO are above a limit."""
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    files = three_photos_of_each_class()
    files[f"x/{HEAVY_PHOTO}"] += bytes(10**6)
    files[f"x/{LARGE_PHOTO}"] = jpeg(10, (1500, 1501))
    return tar(tmp_path / "a.tar", files)


@STORAGES
def test_photos_above_a_limit_count_as_corrupt(tmp_path, archive_above_limits, storage):
    def prepare_without(corrupt_allowed):
        folder = new_folder(tmp_path, f"{corrupt_allowed} allowed")
        index, _, _ = run_prepare(
            folder,
            "class_folders",
            archive_above_limits,
            storage=storage,
            corrupt_allowed=corrupt_allowed,
        )
        return index, read_json(folder / "manifest.json")

    refusals = [(HEAVY_PHOTO, "photo_megabytes"), (LARGE_PHOTO, "photo_megapixels")]
    for corrupt_allowed, (photo, setting) in enumerate(refusals):
        message = rf"a\.tar.*{photo}.*{setting}|{photo} .*{setting}"
        with pytest.raises(UserError, match=message):
            prepare_without(corrupt_allowed)
    index, manifest = prepare_without(corrupt_allowed=2)
    assert manifest["corrupt"] == [HEAVY_PHOTO, LARGE_PHOTO]
    assert len(index) == 10


def test_an_encoded_photo_above_the_limit_is_refused_when_it_is_used(
    tmp_path, monkeypatch, archive_above_limits
):
    # given
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "3")
    folder = new_folder(tmp_path, "out")
    run_prepare(folder, "class_folders", archive_above_limits, storage="encoded", corrupt_allowed=1)
    images = PreparedDataset.open(folder, "set", GEOMETRY).images
    assert len(images[:]) == 11
    # when, then
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    message = rf"set, {re.escape(LARGE_PHOTO)} .*1500 x 1501 .*limits\.photo_megapixels"
    with pytest.raises(UserError, match=message):
        images[:]


# Two photos with one id by path, of which the first begins an archive and the second ends it.
SAME_ID = {
    "in two folders": {f"a/{WNIDS[2]}/5.jpg": jpeg(2), f"b/{WNIDS[2]}/5.jpg": jpeg(2, (50, 50))},
    "the same member twice": {f"x/{WNIDS[2]}/5.jpg": jpeg(2), f"./x/{WNIDS[2]}/5.jpg": jpeg(2)},
}


@STORAGES
@pytest.mark.parametrize("photos", SAME_ID.values(), ids=SAME_ID)
def test_two_images_with_one_id_are_refused_after_a_kill_too(
    tmp_path, monkeypatch, storage, photos
):
    # given
    monkeypatch.setattr(preparation, "SAVED_EVERY", 2)
    first_path, last_path = photos
    files = {
        first_path: photos[first_path],
        **three_photos_of_each_class(),
        last_path: photos[last_path],
    }
    archive = tar(tmp_path / "a.tar", files)
    folder = new_folder(tmp_path, "out")
    with killed_after(9):
        run_prepare(folder, "class_folders", archive, storage=storage)
    # when, then
    message = (
        rf"^set: two images have the id '{WNIDS[2]}/5.jpg' "
        rf"\(row 0, class '{WNIDS[2]}' and row 13, class '{WNIDS[2]}'\)"
    )
    for _ in range(2):  # the journal stays, so that nothing is converted again
        with pytest.raises(UserError, match=message):
            run_prepare(folder, "class_folders", archive, storage=storage)
        assert not (folder / "manifest.json").exists()
        assert (folder / "images.journal").exists()


def test_two_images_with_one_id_in_two_classes_are_named_with_both(tmp_path, archive):
    layout = layout_with_slices(tmp_path, image_id="str(i % 39)")
    message = f"the id '0' .row 0, class '{WNIDS[2]}' and row 39, class '{WNIDS[999]}'"
    with pytest.raises(UserError, match=message):
        run_prepare(new_folder(tmp_path, "out"), layout, archive)


def test_ids_with_equal_hashes_are_compared_as_text(tmp_path, archive, monkeypatch):
    def constant_hash(image_id):
        return 0

    monkeypatch.setattr(preparation, "hash", constant_hash, raising=False)
    index, _, _ = run_prepare(new_folder(tmp_path, "out"), "class_folders", archive)
    assert len(index) == 40


def link_to_a_file_outside(folder):
    """Make a link to a file outside."""
    (folder / "hammer/a.jpg").symlink_to("/etc/hostname")


def hidden_file(folder):
    """Make a hidden file."""
    (folder / "hammer/.a.jpg").write_bytes(b"x")


LEFT_OUT = {
    "a link to a file outside": link_to_a_file_outside,
    "a hidden file": hidden_file,
}


@pytest.mark.parametrize("make", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out_of_a_folder_is_logged(tmp_path, caplog, make):
    # given
    folder = tmp_path / "photos"
    (folder / "hammer").mkdir(parents=True)
    (folder / "hammer/1.jpg").write_bytes(b"x")
    pack(folder, tmp_path / "one.tar", "photos")
    assert not caplog.records
    # when
    make(folder)
    hidden_photo = folder / ".hidden/b.jpg"
    hidden_photo.parent.mkdir()
    hidden_photo.write_bytes(b"x")
    pack(folder, tmp_path / "two.tar", "photos")
    # then
    (record,) = caplog.records
    assert "photos: left out: 2 " in record.getMessage()
    assert str(hidden_photo) in record.getMessage()
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_of_a_folder_that_is_not_here_the_listing_is_that_of_its_archive(tmp_path):
    """As in a clone, whose images are in the pulled archive alone."""
    # given
    folder = tmp_path / "own/images/photos"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"x")
    source = {"kind": "folder", "path": str(folder)}
    archive = tmp_path / "photos.tar"
    listing_of_images = listing(folder)
    # when it is here, its own counts, whatever a record says
    record = tmp_path / "photos.tar.provenance.json"
    cfg = {"source": {**source, "listing": "of before"}}
    files = {"log": "x.log", "inputs": {}, "outputs": {}, "sizes": {}}
    provenance.write(record, {**FACTS, **files, "cfg": cfg})
    assert listing_of(source, archive) == listing_of_images
    # and when it is not
    shutil.rmtree(folder)
    assert listing_of(source, archive) == "of before"
    # without any, it is named
    record.unlink()
    with pytest.raises(UserError, match="own/images/photos does not exist"):
        listing_of(source, archive)


def five_photos_of_each_class(ending="", first_seed=0):
    """Files of five photos of each class, by path; those of another first seed are all others."""
    photos = {}
    for class_number, i in enumerate(INDICES):
        for n in range(5):
            photo = noise_photo(first_seed + 10 * class_number + n)
            photos[f"x/{WNIDS[i]}/{n}{ending}.png"] = photo
    return photos


def prepared_beside_val(tmp_path, name, photos):
    """A prepared dataset of photos, of which the pretraining proxy in the folder val is no part."""
    archive = tar(tmp_path / f"{name}.tar", photos)
    run_prepare(new_folder(tmp_path, name), "class_folders", archive)
    return DatasetFiles(name, tmp_path / name, tmp_path / "val")


def test_the_pretraining_proxy_is_left_out_and_sets_that_name_its_images_otherwise_are_refused(
    tmp_path,
):
    # given
    cartoon_photos = five_photos_of_each_class(first_seed=100)
    renamed_photos = five_photos_of_each_class(ending="_cartoon", first_seed=200)
    val = prepared_beside_val(tmp_path, "val", five_photos_of_each_class())
    cartoon = prepared_beside_val(tmp_path, "cartoon", cartoon_photos)
    renamed = prepared_beside_val(tmp_path, "renamed", renamed_photos)
    view = replace(VIEW, images_per_class=2)
    # when
    proxy = load_proxy(val, view)
    cartoon_without_proxy = load_whole(cartoon, view)
    # then
    assert np.bincount(proxy.labels).tolist() == [2] * 4
    assert np.bincount(cartoon_without_proxy.labels).tolist() == [3] * 4
    _, sources_of_proxy = proxy.sources
    _, sources_of_cartoon = cartoon_without_proxy.sources
    assert not set(sources_of_proxy) & set(sources_of_cartoon)
    assert len(load_whole(replace(renamed, proxy=None), view).labels) == 20
    assert len(load_whole(cartoon, replace(view, budget=4)).labels) == 4
    with pytest.raises(UserError, match="renamed: none.*source_group"):
        load_whole(renamed, view)
    # and a dataset of the proxy's images alone is refused
    photos_of_proxy = {
        name: photo
        for name, photo in cartoon_photos.items()
        if any(name.endswith(f"{source.partition('/')[2]}.png") for source in sources_of_proxy)
    }
    of_proxy = prepared_beside_val(tmp_path, "of_proxy", photos_of_proxy)
    with pytest.raises(UserError, match=r"of_proxy: all.*reference\.images_per_class"):
        load_whole(of_proxy, view)


@pytest.mark.parametrize("load", [load_proxy, load_whole])
def test_a_pretraining_proxy_of_all_images_is_refused_wherever_it_is_read(tmp_path, load):
    """Where the head is fitted on it, before anything is trained, and where it is left out."""
    val = prepared_beside_val(tmp_path, "val", five_photos_of_each_class())
    message = r"reference\.images_per_class is 50.* more than 5 images.*lower it"
    with pytest.raises(UserError, match=message):
        load(val, replace(VIEW, images_per_class=50))


def test_a_photo_of_the_pretraining_proxy_is_left_out_under_another_name_too(tmp_path):
    """A dataset has val's photos under their names and again under others.

    Both copies of the proxy's are left out.
    """
    photos = five_photos_of_each_class()
    copies = five_photos_of_each_class(ending="_copy")
    prepared_beside_val(tmp_path, "val", photos)
    with_copies = prepared_beside_val(tmp_path, "both", {**photos, **copies})
    without_proxy = load_whole(with_copies, replace(VIEW, images_per_class=2))
    assert np.bincount(without_proxy.labels).tolist() == [6] * 4
