"""Corruptions of photos in whole numbers: severities, seeds, sizes and their own properties."""

import numpy as np
import pytest
from PIL import Image

from rib.base.errors import UserError
from rib.data import corrupt as corruptions
from rib.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from rib.data.images import DatasetSource
from rib.data.integer_images import blur, to_picture
from rib.data.layouts import corruptions_of
from tiny.data.idx import SPACE, garments, write_collection
from tiny.data.photos import GEOMETRY, INDICES, WNIDS, index_of, jpeg, run_prepare, tar

GARMENTS = np.pad(garments(10), ((0, 0), (2, 2), (2, 2)))


def test_a_corruption_keeps_shape_and_type_and_depends_on_the_seed_alone():
    for picture in (GARMENTS[0], np.repeat(GARMENTS[1][..., np.newaxis], 3, axis=2)):
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                made = corrupt(picture, name, severity, "seed")
                assert made.shape == picture.shape and made.dtype == np.uint8
                assert (made == corrupt(picture.copy(), name, severity, "seed")).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [32, 96])
def test_a_higher_severity_is_further_from_the_photo(name, side):
    away = np.zeros(len(SEVERITIES))
    for number, garment in enumerate(GARMENTS):
        # Real photos are smoother than these: what is finer than a pixel's block would decide.
        smooth = to_picture(blur(garment, 256))
        photo = np.asarray(Image.fromarray(smooth).resize((side, side)))
        for severity in SEVERITIES:
            made = corrupt(photo, name, severity, str(number)).astype(float)
            away[severity - 1] += np.abs(made - photo).mean() / len(GARMENTS)
    assert away[0] > 0.5 and (np.diff(away) > 0).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "fog", "occlusion"])
def test_another_seed_is_another_corruption(name):
    first, second = (corrupt(GARMENTS[0], name, 3, seed) for seed in ("a", "b"))
    assert (first != second).any()


def test_lengths_are_fractions_of_the_side():
    """An enlarged photo that is blurred looks like the blurred photo enlarged."""
    small = GARMENTS[0]
    large = np.asarray(Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC))
    for name in ("gaussian_blur", "pixelate", "occlusion"):
        reduced = Image.fromarray(corrupt(large, name, 5, "x")).resize(
            (32, 32), Image.Resampling.BOX
        )
        apart = np.abs(np.asarray(reduced).astype(float) - corrupt(small, name, 5, "x")).mean()
        assert apart < 12, (name, apart)


def test_noise_has_the_stated_strength():
    grey = np.full((200, 200), 128, np.int64)
    noise = corruptions.gaussian_noise(grey, 20, "a") - grey
    assert abs(noise.mean()) < 0.5 and abs(noise.std() - 20) < 0.5
    speckles = corruptions.speckle_noise(grey, 64, "a") - grey
    assert abs(speckles.std() - 128 * 64 / 256) < 0.5
    assert (corruptions.speckle_noise(grey * 0, 64, "a") == 0).all()
    hit = corruptions.impulse_noise(grey, 64, "a")
    assert abs((hit != 128).mean() - 64 / 256) < 0.01 and set(np.unique(hit)) == {0, 128, 255}
    assert abs((hit == 255).sum() / (hit != 128).sum() - 0.5) < 0.02


def test_brightness_contrast_and_fog_are_what_they_say():
    picture = np.array([[0, 100], [200, 100]], np.int64)
    assert corruptions.brightness(picture, 30, "").tolist() == [[30, 130], [230, 130]]
    assert corruptions.contrast(picture, 128, "").tolist() == [[50, 100], [150, 100]]
    assert (corruptions.contrast(picture, 256, "") == picture).all()
    assert (corruptions.fog(picture, 0, "") == picture).all()
    assert (corruptions.fog(picture, 256, "") >= 128).all()


def test_pixels_become_the_mean_of_their_block():
    picture = np.random.default_rng(0).integers(0, 256, (13, 11, 3)).astype(np.int64)
    made = corruptions.pixelate(picture, 4, "")
    rows, columns = np.arange(13) * 4 // 13, np.arange(11) * 4 // 11
    for block_row in range(4):
        for block_column in range(4):
            block = np.ix_(rows == block_row, columns == block_column)
            means = np.floor(picture[block].mean(axis=(0, 1)) + 0.5)
            assert (made[block] == means).all()
    assert (corruptions.pixelate(picture, 40, "") == picture).all()


def test_a_square_of_the_stated_side_is_grey():
    white = np.full((64, 64), 255, np.int64)
    for seed in "abcdefgh":
        rows, columns = np.nonzero(corruptions.occlusion(white, 8, seed) == 128)
        assert len(rows) == 16 * 16 and np.ptp(rows) == np.ptp(columns) == 15


def test_motion_is_along_one_of_four_lines():
    point = np.zeros((31, 31), np.int64)
    point[15, 15] = 255
    lines = set()
    for seed in range(40):
        rows, columns = np.nonzero(corruptions.motion_blur(point, 7, str(seed)))
        slopes = {
            (int(np.sign(y - 15)), int(np.sign(x - 15))) for y, x in zip(rows, columns, strict=True)
        }
        lines.add(frozenset(slopes - {(0, 0)}))
    assert len(lines) == 4


PHOTOS = {"collection": "c", "part": "train", "first": 0, "last": 4, "border": 2}
TWO = {"corruptions": ["fog", "contrast"], "severities": [2, 4]}


def test_each_photo_once_has_each_choice_equally_often_in_every_class(tmp_path):
    paths = write_collection(tmp_path)
    photos = {"layout": "idx", "settings": PHOTOS}
    plain, clean, _ = run_prepare(tmp_path, "idx", *paths, space=SPACE, **PHOTOS)
    index, images, _ = run_prepare(
        tmp_path, "corruptions_of", *paths, space=SPACE, photos=photos, once=True, **TWO
    )
    assert index["source_id"].tolist() == plain["source_id"].tolist()
    counts = index.groupby(["label", "corruption", "severity"], observed=True).size()
    assert len(counts) == 10 * 4 and set(counts) == {1}
    for row in index.itertuples():
        expected = corrupt(clean[row.row], row.corruption, row.severity, row.source_id)
        assert (images[row.row] == expected).all()
        assert row.image_id == f"{row.corruption}/{row.severity}/{plain['image_id'][row.row]}"


def test_photos_of_any_layout_are_corrupted_after_they_are_resized(tmp_path):
    path = tar(tmp_path / "a.tar", {f"{WNIDS[i]}/1.jpg": jpeg(i) for i in INDICES})
    photos = {"layout": "class_folders", "settings": {}}
    index, images, classes = run_prepare(
        tmp_path, "corruptions_of", path, photos=photos, corruptions=["pixelate"], severities=[1]
    )
    assert len(index) == len(INDICES) and images.shape[1] == GEOMETRY.size
    for label, image in zip(index["label"], images, strict=True):
        assert index_of(image) in classes["indices"][label]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"corruptions": ["frost"], "severities": [1]}, "set: .*corruption 'frost'; choose .*fog"),
        ({"corruptions": ["fog"], "severities": [1, 6]}, "set: .*severity '6'; choose from 1, 2"),
        ({"corruptions": ["fog", "fog"], "severities": [1]}, "set: .*'fog' is stated twice"),
    ],
)
def test_an_unknown_corruption_or_severity_is_named(choices, message):
    items = corruptions_of.items(DatasetSource("set", [], None, None), photos={}, **choices)
    with pytest.raises(UserError, match=message):
        next(items)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ({"settings": {}}, "give the layout"),
        ("idx", "give the layout|photos"),
        ({"layout": "no_such", "settings": {}}, "no_such"),
        ({"layout": "class_folders", "more": 1}, "more"),
    ],
)
def test_photos_of_an_unknown_layout_or_without_settings_are_refused(with_entries, photos, message):
    settings = {"photos": photos, "corruptions": ["fog"], "severities": [1]}
    catalog = with_entries(datasets={"mine": {"layout": "corruptions_of", "settings": settings}})
    with pytest.raises(UserError, match=f"datasets.yaml, mine.*{message}|{message}"):
        catalog.datasets  # noqa: B018


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ({"layout": "class_folders", "settings": {"margin": 1}}, "there is no setting 'margin'"),
        ({"layout": "corruptions_of"}, "the setting '.*' is missing"),
    ],
    ids=["an unknown one", "corruptions of corruptions"],
)
def test_settings_of_the_layout_of_photos_are_checked_when_photos_are_prepared(
    tmp_path, photos, message
):
    path = tar(tmp_path / "a.tar", {f"{WNIDS[0]}/1.jpg": jpeg(0)})
    settings = {"photos": photos, "corruptions": ["fog"], "severities": [1]}
    with pytest.raises(UserError, match=f"^{photos['layout']}.py: {message}.* photos.$"):
        run_prepare(tmp_path, "corruptions_of", path, **settings)
