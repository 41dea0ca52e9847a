"""Archives laid out as the ImageNet family's are published, quirks included.

Every label is checked, and hostile archives are refused.
"""

import io
import itertools
import os
import shutil
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace, read_index_map, read_timm_list
from rib.data import unzip
from rib.data.archives import archive_members
from tiny.data.photos import (
    INDICES,
    WNIDS,
    devkit,
    encrypted,
    index_of,
    jpeg,
    run_prepare,
    space_of,
    tar,
    zipped,
)

ONE = space_of([0])


@pytest.fixture
def prepared(tmp_path):
    """Prepare archives with a layout; returns the index, the images and the classes."""
    return partial(run_prepare, tmp_path)


def check(index, images, classes, count):
    assert len(index) == count == len(images)
    for label, pixels in zip(index["label"], images, strict=True):
        assert index_of(pixels) in classes["indices"][label]


def test_v2_has_integer_folders_in_a_plain_tar_named_gz(prepared, tmp_path):
    top = "imagenetv2-matched-frequency-format-val"
    files = {f"{top}/{i}/{n}.jpeg": jpeg(i) for i in INDICES for n in "ab"}
    path = tar(tmp_path / "imagenetv2-matched-frequency.tar.gz", files)
    check(*prepared("integer_folders", path, expected=8), 8)


@pytest.mark.parametrize("top", ["datasets/imagenet-cartoon/", ""])
def test_class_folders_are_found_below_any_top_folder(prepared, tmp_path, top):
    files = {f"{top}{WNIDS[i]}/{WNIDS[i]}_{n}.JPEG": jpeg(i) for i in INDICES for n in range(2)}
    files |= {f"{top}README.txt": b"read me", "__MACOSX/x": b""}
    kinds = (
        tar(tmp_path / "a.tar", files),
        zipped(tmp_path / "a.zip", files),
        tar(tmp_path / "a.tgz", files, "w:gz"),
    )
    for path in kinds:
        check(*prepared("class_folders", path), 8)


FORMATS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".TIFF": "TIFF",
    ".png": "PNG",
    ".webp": "WEBP",
    ".JPG": "JPEG",
}


def test_photos_of_all_formats_are_read(prepared, tmp_path):
    files = {
        f"{WNIDS[i]}/1{ending}": jpeg(i, kind=kind)
        for i in INDICES
        for ending, kind in FORMATS.items()
    }
    path = zipped(tmp_path / "a.zip", {f"x/{name}": data for name, data in files.items()})
    index, images, classes = prepared("class_folders", path)
    assert sorted(index["image_id"]) == sorted(files)
    exact = index["image_id"].str.endswith((".bmp", ".tif", ".TIFF", ".png"))
    check(index[exact], images[exact], classes, 4 * len(INDICES))


@pytest.mark.parametrize("layout", ["class_folders", "class_tars", "corruptions"])
def test_what_is_not_read_is_named_with_its_number(prepared, tmp_path, caplog, layout):
    """Files in class folders are no photos.

    The log says how many there are of each ending, most frequent first.
    """
    caplog.set_level("INFO")
    names = ["1.png", "a.txt", "b.txt", "c.TXT", "d.heic", "notes"]
    settings = {}
    if layout == "class_tars":
        inside = tar(
            tmp_path / "inside.tar", {name: jpeg(2, kind="PNG") for name in names}
        ).read_bytes()
        path = tar(tmp_path / "a.tar", {f"{WNIDS[2]}.tar": inside})
    elif layout == "corruptions":
        settings = {"corruptions": ["fog"], "severities": [1]}
        path = tar(
            tmp_path / "a.tar", {f"fog/1/{WNIDS[2]}/{name}": jpeg(2, kind="PNG") for name in names}
        )
    else:
        path = tar(
            tmp_path / "a.tar", {f"x/{WNIDS[2]}/{name}": jpeg(2, kind="PNG") for name in names}
        )
    index, *_ = prepared(layout, path, space=space_of([2]), **settings)
    assert len(index) == 1
    assert "set: not read: 3 .txt, 1 without an ending, 1 .heic" in caplog.text


def test_a_has_200_classes_and_leaves_out_what_is_none_of_them(prepared, tmp_path):
    space = read_timm_list("imagenet_a")
    path = tar(
        tmp_path / "a.tar", {f"imagenet-a/{wnid}/1.jpg": jpeg(i) for i, wnid in enumerate(WNIDS)}
    )
    index, images, classes = prepared("class_folders", path, space=space)
    check(index, images, classes, 200)
    assert sorted(index["label"]) == list(range(200)) and classes["indices"] == [
        list(row) for row in space.indices
    ]


def test_a_class_without_a_folder_is_named(prepared, tmp_path):
    path = tar(tmp_path / "a.tar", {f"x/{WNIDS[i]}/1.jpg": jpeg(i) for i in INDICES[:-1]})
    with pytest.raises(UserError, match=rf"'{WNIDS[999]}' \(1 of 4 "):
        prepared("class_folders", path)


def test_a_partial_dataset_is_labelled_among_all_classes_and_needs_no_image_of_each(
    prepared, tmp_path
):
    space = space_of(range(1000))
    path = tar(tmp_path / "a.tar", {f"imagenet-a/{WNIDS[i]}/1.jpg": jpeg(i) for i in INDICES})
    index, images, classes = prepared("class_folders", path, space=space, partial=True)
    check(index, images, classes, 4)
    assert index["label"].tolist() == INDICES and len(classes["indices"]) == 1000
    with pytest.raises(UserError, match=r"\(996 of 1000 "):
        prepared("class_folders", path, space=space)


TOOLS = LabelSpace(("hammer", "saw"), ((0,), (1,)), ("hammer", "hand saw"), 2)


def test_a_folder_that_is_no_class_of_ones_own_is_named_with_the_class_that_may_be_meant(
    prepared, tmp_path
):
    folders = ("hammer", "hamer", "saw")
    path = tar(tmp_path / "a.tar", {f"{folder}/1.jpg": jpeg(0) for folder in folders})
    with pytest.raises(UserError, match=r"set/hamer .*'hammer'"):
        prepared("class_folders", path, space=TOOLS)
    index, *_ = prepared("class_folders", path, space=TOOLS, exclude=["hamer/1.jpg"])
    assert len(index) == 2, "what is excluded is no mistake"


def test_pictures_in_no_folder_and_in_a_folder_below_that_of_their_class_are_named(
    prepared, tmp_path
):
    files = {f"{folder}/1.jpg": jpeg(0) for folder in TOOLS.keys}
    with pytest.raises(UserError, match="set, outside any folder"):
        prepared("class_folders", tar(tmp_path / "a.tar", {**files, "x.jpg": jpeg(0)}), space=TOOLS)
    with pytest.raises(UserError, match="set/saw/old "):
        prepared(
            "class_folders",
            tar(tmp_path / "a.tar", {**files, "saw/old/x.jpg": jpeg(0)}),
            space=TOOLS,
        )


def test_a_folder_below_that_of_the_class_is_an_object(prepared, tmp_path):
    names = ("hammer/mine/1.jpg", "hammer/mine/2.jpg", "hammer/theirs/1.jpg", "saw/mine/1.jpg")
    path = tar(tmp_path / "a.tar", {name: jpeg(number) for number, name in enumerate(names)})
    index, *_ = prepared("class_folders", path, space=TOOLS, objects="subfolders")
    assert list(index["image_id"]) == list(names) and list(index["label"]) == [0, 0, 0, 1]
    same = index["object_id"].tolist()
    assert same[0] == same[1] and len(set(same)) == 3, "an object is of one class"
    assert index["source_id"].is_unique


def test_a_csv_file_names_the_object_of_each_image(prepared, tmp_path):
    photos = {
        name: jpeg(number)
        for number, name in enumerate(("hammer/1.jpg", "hammer/2.jpg", "saw/1.jpg"))
    }
    lines = ["image,object", "hammer/1.jpg,mine", "hammer/2.jpg,mine", "saw/1.jpg,yours"]
    path = tar(tmp_path / "a.tar", {"objects.csv": "\n".join(lines).encode(), **photos})
    index, *_ = prepared("class_folders", path, space=TOOLS, objects="objects.csv")
    same = index["object_id"].tolist()
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "no file objects.csv"),
        ("picture,object\n", "objects.csv.*columns image and object"),
        ("image,object\nhammer/1.jpg,mine\n", "no object of the image saw/1.jpg"),
    ],
)
def test_a_table_of_objects_that_is_missing_or_incomplete_is_one_sentence(
    prepared, tmp_path, table, said
):
    files = {} if table is None else {"objects.csv": table.encode()}
    photos = {f"{key}/1.jpg": jpeg(number) for number, key in enumerate(TOOLS.keys)}
    path = tar(tmp_path / "a.tar", {**files, **photos})
    with pytest.raises(UserError, match=said) as error:
        prepared("class_folders", path, space=TOOLS, objects="objects.csv")
    assert "\n" not in str(error.value)


def test_a_dataset_with_some_of_a_familys_own_classes_leaves_out_the_others_and_says_so(
    prepared, tmp_path, caplog
):
    some = LabelSpace(("saw",), ((1,),), ("hand saw",), 2)
    path = tar(tmp_path / "a.tar", {f"{folder}/1.jpg": jpeg(0) for folder in ("hammer", "saw")})
    index, *_ = prepared("class_folders", path, space=some)
    assert index["image_id"].tolist() == ["saw/1.jpg"] and "set/hammer" in caplog.text
    with pytest.raises(UserError, match=r"set: .*'saw' \(1 of 1 "):
        prepared("class_folders", tar(tmp_path / "a.tar", {"hammer/1.jpg": jpeg(0)}), space=some)


@pytest.mark.parametrize(
    ("layout", "name", "excluded"),
    [
        ("class_folders", "x/{wnid}/{n}.jpg", "{wnid}/1.jpg"),
        ("integer_folders", "x/{index}/{n}.jpg", "{index}/1.jpg"),
        ("corruptions", "fog/1/{wnid}/{n}.jpg", "fog/1/{wnid}/1.jpg"),
    ],
)
def test_an_excluded_image_of_a_folder_is_left_out(prepared, tmp_path, layout, name, excluded):
    def written(text, index, n=None):
        return text.format(wnid=WNIDS[index], index=index, n=n)

    path = tar(
        tmp_path / "a.tar", {written(name, i, n): jpeg(i) for i in INDICES for n in range(2)}
    )
    settings = {"corruptions": ["fog"], "severities": [1]} if layout == "corruptions" else {}
    index, images, classes = prepared(layout, path, exclude=[written(excluded, 10)], **settings)
    check(index, images, classes, 7)
    assert written(excluded, 10) not in index["image_id"].tolist() and len(set(index["label"])) == 4


def test_training_images_lie_in_a_tar_of_tars(prepared, tmp_path):
    inner = {}
    for i in INDICES:
        files = {f"{WNIDS[i]}_{n}.JPEG": jpeg(i) for n in range(2)}
        inner[f"{WNIDS[i]}.tar"] = tar(tmp_path / "inner.tar", files).read_bytes()
    index, images, classes = prepared("class_tars", tar(tmp_path / "train.tar", inner))
    check(index, images, classes, 8)
    first = f"{WNIDS[2]}/{WNIDS[2]}_0.JPEG"
    assert index["image_id"][0] == first
    without, *_ = prepared("class_tars", tmp_path / "train.tar", exclude=[first])
    assert without["image_id"].tolist() == index["image_id"].tolist()[1:]
    inner[f"{WNIDS[10]}.tar"] = inner[f"{WNIDS[10]}.tar"][:700]
    with pytest.raises(UserError, match=rf"train.tar/{WNIDS[10]}.tar "):
        prepared("class_tars", tar(tmp_path / "train.tar", inner))


def test_val_is_flat_and_labelled_by_the_devkits_own_numbers(prepared, tmp_path):
    # in the archive's order, which is not that of the names
    images = tar(
        tmp_path / "val.tar",
        {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(INDICES[n - 1]) for n in (3, 1, 4, 2)},
    )
    numbers = "\n".join(str(1000 - i) for i in INDICES)
    index, pixels, classes = prepared(
        "devkit_labels", images, devkit(tmp_path / "kit.tar.gz", numbers)
    )
    check(index, pixels, classes, 4)
    assert index["source_id"][1] == f"val/{WNIDS[2]}/ILSVRC2012_val_00000001"
    without, *_ = prepared(
        "devkit_labels", images, tmp_path / "kit.tar.gz", exclude=[index["image_id"][0]]
    )
    assert without["image_id"].tolist() == index["image_id"].tolist()[1:]
    with pytest.raises(UserError, match="kit.tar.gz .*meta.mat"):
        prepared(
            "devkit_labels", images, devkit(tmp_path / "kit.tar.gz", numbers, missing="meta.mat")
        )
    with pytest.raises(UserError, match=" 1 images.* val.tar .*ILSVRC2012_val_00000003"):
        prepared("devkit_labels", images, devkit(tmp_path / "kit.tar.gz", "5"))


def test_val_by_index_has_the_images_of_each_index_of_a_class(prepared, tmp_path):
    # given two classes of two and one of the indices, and an image of each index
    names = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(INDICES[n - 1]) for n in (1, 2, 3, 4)}
    images = tar(tmp_path / "val.tar", names)
    numbers = "\n".join(str(1000 - i) for i in INDICES)
    first, second, third, _ = INDICES
    space = LabelSpace(("pair", "one"), ((first, third), (second,)), ("pair", "one"))
    # when
    index, *_ = prepared(
        "devkit_labels",
        images,
        devkit(tmp_path / "kit.tar.gz", numbers),
        space=space,
        by_index=True,
    )
    # then
    assert index["label"].tolist() == [0, 1, 0]


def test_cartoon_and_val_share_source_ids(prepared, tmp_path):
    val = tar(tmp_path / "val.tar", {"ILSVRC2012_val_00000001.JPEG": jpeg(2)})
    cartoon = tar(
        tmp_path / "c.tar.gz",
        {f"imagenet-cartoon/{WNIDS[2]}/ILSVRC2012_val_00000001.JPEG": jpeg(2)},
        "w:gz",
    )
    one = prepared("devkit_labels", val, devkit(tmp_path / "kit.tar.gz", "998"))[0]["source_id"]
    other = prepared("class_folders", cartoon, space=space_of([2]))[0]["source_id"]
    assert one.tolist() == other.tolist()


def test_c_is_one_dataset_of_all_its_subsets(prepared, tmp_path):
    def subset(*corruptions):
        return {
            f"{c}/{s}/{WNIDS[i]}/ILSVRC2012_val_{i:08d}.JPEG": jpeg(i)
            for c in corruptions
            for s in (1, 2)
            for i in INDICES
        }

    noise, extra = (
        tar(tmp_path / "noise.tar", subset("fog", "snow")),
        tar(tmp_path / "extra.tar", subset("spatter")),
    )
    chosen = {"corruptions": ["fog", "snow"], "severities": [1, 2]}
    index, images, classes = prepared("corruptions", noise, extra, **chosen)
    check(index, images, classes, 2 * 2 * 4)
    assert index["image_id"].is_unique and index["source_id"].nunique() == 4
    assert index["image_id"][0] == f"fog/1/{WNIDS[2]}/ILSVRC2012_val_00000002.JPEG"
    slices = index["corruption"].astype(str) + "/" + index["severity"].astype(str)
    assert slices.tolist() == [name.rsplit("/", 2)[0] for name in index["image_id"]]
    with pytest.raises(UserError, match=r"set: .*frost/1 \(2 of 6 "):
        prepared(
            "corruptions", noise, extra, corruptions=["fog", "snow", "frost"], severities=[1, 2]
        )


def bordered(index):
    """A picture with ObjectNet's red border of two pixels."""
    image = Image.new("RGB", (44, 40), (255, 0, 0))
    image.paste(Image.open(io.BytesIO(jpeg(index))), (2, 2))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def objectnet_space(pytestconfig, file="objectnet.csv"):
    return read_index_map(pytestconfig.rootpath / "workflow/catalog/classes" / file)


def some_of(space, keys):
    """A label space with some of another's classes."""
    places = [space.keys.index(key) for key in keys]
    return LabelSpace(
        *(tuple(part[i] for i in places) for part in (space.keys, space.indices, space.names))
    )


@pytest.mark.parametrize("top", ["objectnet-1.0", "objectnet-1.0/objectnet-1.0"])
def test_objectnet_has_no_border_and_its_classes_are_sets_of_indices(
    prepared, tmp_path, pytestconfig, top
):
    space = some_of(objectnet_space(pytestconfig), ["chair", "wok"])
    files = {f"{top}/images/chair/a.png": bordered(559), f"{top}/images/wok/b.png": bordered(909)}
    files |= {
        f"{top}/images/egg/c.png": bordered(0),
        f"{top}/mappings/folder_to_objectnet_label.json": b"{}",
    }
    index, images, classes = prepared(
        "objectnet", zipped(tmp_path / "o.zip", files), space=space, border=2, also={}
    )
    check(index, images, classes, 2)
    assert classes["indices"][classes["keys"].index("chair")] == [423, 559, 765]
    assert not (images[..., 0] == 255).all(axis=-1).any(), "no red is left"


def test_folders_that_count_as_another_of_objectnet_get_its_label(prepared, tmp_path, pytestconfig):
    space = some_of(
        objectnet_space(pytestconfig, "objectnet_released.csv"), ["keyboard", "bucket", "wok"]
    )
    of_folder = {
        "keyboard": 508,
        "bucket": 463,
        "wok": 909,
        "chair": 508,
        "swimming_trunks": 909,
        "egg": 0,
    }
    files = {
        f"o/images/{folder}/{n}.png": bordered(index)
        for folder, index in of_folder.items()
        for n in "ab"
    }
    settings = {"border": 2, "also": {"chair": "keyboard", "swimming_trunks": "wok"}}
    exclude = ["chair/a.png"]
    index, images, classes = prepared(
        "objectnet", zipped(tmp_path / "o.zip", files), space=space, exclude=exclude, **settings
    )
    check(index, images, classes, 9)
    assert not set(exclude) & set(index["image_id"]) and "chair/b.png" in set(index["image_id"])


needs_unzip = pytest.mark.skipif(shutil.which("unzip") is None, reason="needs Info-ZIP's unzip")


@needs_unzip
def test_objectnets_password_comes_from_the_environment(
    prepared, tmp_path, pytestconfig, monkeypatch
):
    space = some_of(objectnet_space(pytestconfig), ["wok"])
    path = encrypted(
        tmp_path / "o.zip", {"objectnet-1.0/images/wok/b.png": bordered(909)}, "open sesame"
    )
    monkeypatch.delenv("OBJECTNET_PASSWORD", raising=False)
    with pytest.raises(UserError, match=r"o\.zip is encrypted.* OBJECTNET_PASSWORD"):
        prepared("objectnet", path, space=space, border=2, also={})
    monkeypatch.setenv("OBJECTNET_PASSWORD", "wrong")
    with pytest.raises(UserError, match="OBJECTNET_PASSWORD doesn't open"):
        prepared("objectnet", path, space=space, border=2, also={})
    monkeypatch.setenv("OBJECTNET_PASSWORD", "open sesame")
    check(*prepared("objectnet", path, space=space, border=2, also={}), 1)


PASSWORD = 'open "ses\\a me'


@pytest.fixture
def many(tmp_path, monkeypatch):
    """An encrypted zip with names that mean something to unzip.

    Files that aren't asked for lie between them.
    """
    monkeypatch.setenv("OBJECTNET_PASSWORD", PASSWORD)
    names = ["b.png", "a.png", "[ab].png", "-p.png", "*.png", "e?.png", "a\\b.png", "z.png"]
    files = {f"objectnet-1.0/images/wok/{name}": bordered(909 + n) for n, name in enumerate(names)}
    return encrypted(
        tmp_path / "o.zip", {"x/other.txt": b"no", **files, "y/more.txt": b"no"}, PASSWORD
    ), files


@needs_unzip
def test_an_encrypted_zip_gives_its_files(many):
    path, files = many
    assert {name: read() for name, read in decrypted(path)} == files
    # a job that goes on after a kill skips those that are there
    assert [read() for _, read in itertools.islice(decrypted(path), 4, None)] == list(
        files.values()
    )[4:]
    assert [read() for _, read in itertools.islice(decrypted(path), 0, None, 2)] == list(
        files.values()
    )[::2]


def decrypted(path):
    return unzip.decrypted_members(path, lambda name: name.endswith(".png"), "OBJECTNET_PASSWORD")


@needs_unzip
def test_a_damaged_file_of_an_encrypted_zip_is_named_and_not_passed_on(many):
    path, _ = many
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("objectnet-1.0/images/wok/-p.png").header_offset
    data[place + 100] ^= 1
    path.write_bytes(data)
    members = decrypted(path)
    for _ in range(3):
        next(members)[1]()
    with pytest.raises(UserError, match=r"o\.zip.*wok/-p\.png"):
        next(members)[1]()


@needs_unzip
def test_unzip_is_given_the_password_where_no_list_of_processes_shows_it(
    many, tmp_path, monkeypatch
):
    """And, as other loaders do, told not to refuse ObjectNet's overlapping entries."""
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin/unzip"
    wrapper.write_text(
        f'#!/bin/sh\nenv > {tmp_path}/env; printf "%s\\n" "$@" > {tmp_path}/arguments; '
        f'exec {shutil.which("unzip")} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    path, files = many
    assert {name: read() for name, read in decrypted(path)} == files
    said = (tmp_path / "arguments").read_text()
    assert "o.zip" in said and "ses" not in said and "-P" not in said
    assert "UNZIP_DISABLE_ZIPBOMB_DETECTION=TRUE" in (tmp_path / "env").read_text()


def test_a_machine_without_unzip_is_told_so(many, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"o\.zip is encrypted, but .*unzip.* not installed"):
        next(decrypted(many[0]))[1]()


@needs_unzip
def test_a_member_that_points_outside_is_refused_before_unzip_sees_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OBJECTNET_PASSWORD", PASSWORD)
    path = encrypted(tmp_path / "o.zip", {"a.png": b"1", "../b.png": b"2"}, PASSWORD)
    with pytest.raises(UserError, match=r"'\.\./b\.png'"):
        [read() for _, read in decrypted(path)]


def test_a_wrong_count_is_refused(prepared, tmp_path):
    path = tar(tmp_path / "a.tar", {f"x/{WNIDS[0]}/1.jpg": jpeg(0)})
    with pytest.raises(UserError, match="set: a.tar gave 1 .*7500"):
        prepared("class_folders", path, space=ONE, expected=7500)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("CMYK", "JPEG"), ("P", "PNG"), ("I;16", "PNG")],
)
def test_other_colour_modes_become_rgb(prepared, tmp_path, mode, kind):
    buffer = io.BytesIO()
    grey = np.full((40, 40), 128, np.uint8)
    image = (
        Image.fromarray(grey.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(grey).convert(mode)
    )
    image.save(buffer, kind)
    path = tar(tmp_path / "a.tar", {f"x/{WNIDS[0]}/1.png": buffer.getvalue()})
    _, images, _ = prepared("class_folders", path, space=ONE)
    assert images.shape == (1, 32, 32, 3) and abs(int(images.mean()) - 128) <= 2


def test_an_exif_rotation_is_not_applied_as_in_the_usual_loaders(prepared, tmp_path):
    buffer = io.BytesIO()
    image = Image.new("RGB", (40, 40), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(buffer, "JPEG", exif=exif)
    path = tar(tmp_path / "a.tar", {f"x/{WNIDS[0]}/1.jpg": buffer.getvalue()})
    _, images, _ = prepared("class_folders", path, space=ONE)
    assert images[0, 4, 16, 2] > 150 > images[0, 28, 16, 2]


ICONS = {
    "package/icons.json": b'{"icons": {"ant": {"body": "<path/>", "width": "wide"}}}',
    "package/chars.json": b'{"a": "ant"}',
}
DRAWN = {
    "package/icons.json": b"""{"icons": {
        "ant": {"body": "<rect x='2' y='2' width='9' height='12' fill='#803010'/>"},
        "bee": {"body": "<circle cx='8' cy='8' r='6' fill='#206090'/>"}}}""",
    "package/chars.json": b'{"a": "ant", "b": "bee"}',
}


@pytest.mark.parametrize(
    ("layout", "files", "settings", "message"),
    [
        ("class_tars", None, {}, r"set: .*1 .*archive\(s\).* 2"),
        ("devkit_labels", {}, {}, r"set: .*2 .*archive\(s\).* 1"),
        ("integer_folders", {}, {}, "set: .*class a "),
        ("objectnet", {}, {"border": -1, "also": {}}, "set: border is -1;"),
        ("objectnet", {}, {"border": 2, "also": {"x": "y"}}, "set: also names y"),
        ("iconify", ICONS, {"margin": 0.5}, "set: margin is 0.5;"),
        ("codepoint_images", {}, {"margin": -9.0}, "set: margin is -9.0;"),
        ("iconify", ICONS, {"margin": 0.1}, "the icon 'ant'"),
        (
            "iconify",
            {**ICONS, "package/icons.json": b"{"},
            {"margin": 0.1},
            "package/icons.json is not valid JSON",
        ),
        ("iconify", {**ICONS, "package/chars.json": b"[1]"}, {"margin": 0.1}, "package/chars.json"),
    ],
)
def test_what_does_not_suit_a_layout_is_refused(
    prepared, tmp_path, layout, files, settings, message
):
    space = LabelSpace(("a",), ((0,),), ("a",), 1)
    paths = [tar(tmp_path / "a.tar", files or {})] * (1 if files is not None else 2)
    with pytest.raises(UserError, match=message):
        prepared(layout, *paths, space=space, **settings)


def test_each_icon_is_corrupted_in_every_way_and_keeps_its_source_and_object(prepared, tmp_path):
    space = LabelSpace(("b", "c", "a"), ((0,), (1,), (2,)), ("bee", "cat", "ant"), 3)
    path = tar(tmp_path / "a.tgz", DRAWN, "w:gz")
    plain, clean, _ = prepared("iconify", path, space=space, source_group="maker", margin=0.1)
    ways = {"corruptions": ["contrast", "impulse_noise"], "severities": [1, 5]}
    photos = {"layout": "iconify", "settings": {"margin": 0.1}}
    index, images, _ = prepared(
        "corruptions_of", path, space=space, source_group="maker", photos=photos, **ways
    )
    kinds = [
        f"{corruption}/{severity}"
        for corruption in ways["corruptions"]
        for severity in ways["severities"]
    ]
    assert index["image_id"].tolist() == [
        f"{kind}/{icon}" for icon in ("bee", "ant") for kind in kinds
    ]
    assert (
        index["corruption"].astype(str) + "/" + index["severity"].astype(str)
    ).tolist() == kinds * 2
    for column in ("label", "source_id", "object_id"):
        assert index[column].tolist() == [value for value in plain[column] for _ in kinds]
    assert index["source_id"][0] == "maker/b" and index["object_id"][0] == "b"
    away = np.abs(images.astype(int).reshape(2, 4, -1) - clean.astype(int).reshape(2, 1, -1)).mean(
        axis=2
    )
    assert (away[:, 0] < away[:, 1]).all() and (away[:, 2] < away[:, 3]).all() and (away > 0).all()


@pytest.mark.parametrize(("numbers", "cut"), [("998 2000", None), ("998", 300)])
def test_a_kit_with_other_tables_is_refused(prepared, tmp_path, numbers, cut):
    images = tar(tmp_path / "val.tar", {"ILSVRC2012_val_00000001.JPEG": jpeg(2)})
    kit = devkit(tmp_path / "kit.tar.gz", numbers)
    parts = {name: read()[:cut] for name, read in archive_members(kit)}
    with pytest.raises(UserError, match=r"set: .*kit\.tar\.gz"):
        prepared("devkit_labels", images, tar(kit, parts))
