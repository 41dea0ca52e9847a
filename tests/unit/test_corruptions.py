"""Corruptions of the digits against the calls that they stand for, and their severities."""

import numpy as np
import pytest
from skimage import exposure, filters, transform, util

from rib.data.layouts import digits
from rib.data.layouts._corruptions import STRENGTHS, corrupt

SEVERITIES = range(1, 6)


def rng():
    return np.random.default_rng(5)


@pytest.fixture(params=[(64, 64), (48, 48, 3)], ids=["grey", "colour"])
def picture(request):
    """A dark disc on white, of several tones."""
    height, width, *_ = request.param
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (height / 4) ** 2
    tones = np.random.default_rng(0).integers(0, 120, request.param, np.uint8)
    return np.where(
        inside.reshape(height, width, *[1] * (len(request.param) - 2)), tones, np.uint8(255)
    )


def test_a_corruption_keeps_shape_and_type_and_depends_on_the_generator_alone(picture):
    for name in STRENGTHS:
        for severity in SEVERITIES:
            made = corrupt(picture, name, severity, rng())
            assert made.shape == picture.shape and made.dtype == np.uint8
            assert (made == corrupt(picture, name, severity, rng())).all()


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_higher_severity_is_further_from_the_picture(picture, name):
    away = [
        np.abs(corrupt(picture, name, severity, rng()) - picture.astype(float)).mean()
        for severity in SEVERITIES
    ]
    assert away[0] > 0 and (np.diff(away) > 0).all()


def test_the_digits_have_the_corruptions_that_they_always_had():
    """Their bytes depend on these strengths and on the order of the five."""
    ink = np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8)
    image = util.img_as_float64(ink)
    expected = [
        util.random_noise(image, "gaussian", rng=rng(), var=0.15),
        util.random_noise(image, "s&p", rng=rng(), amount=0.3),
        filters.gaussian(image, sigma=6),
        exposure.rescale_intensity(image, in_range=(0, 1), out_range=(0.35, 0.6)),
        transform.rotate(image, float(rng().choice([-35, 35])), cval=1),
    ]
    for rank in range(10):
        made = digits.VARIANTS["corrupted"](ink, rng(), rank)
        assert (made == util.img_as_ubyte(np.clip(expected[rank % 5], 0, 1))).all(), rank
