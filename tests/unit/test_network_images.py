"""From stored pixels to a network's input, and a prompt around it."""

import numpy as np
import pytest
import torch

from rib.models.images import in_batches
from tiny.models.training import MEAN, STD, images_of_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)


def wanted(rows):
    return (IMAGES[rows].transpose(0, 3, 1, 2) / 255.0 - np.array(MEAN)[:, None, None]) / np.array(
        STD
    )[:, None, None]


@pytest.mark.parametrize(
    "batch", [slice(2, 5), slice(None), slice(5, 99), np.array([3, 0, 3]), [6]]
)
def test_inputs_are_pixels_less_the_mean_over_the_deviation_of_each_channel(batch):
    found = images_of_pixels(IMAGES, MEAN, STD)[batch]
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy(), wanted(batch), rtol=1e-4, atol=1e-5)


def test_only_the_rows_that_count_are_there_in_their_order():
    inputs = images_of_pixels(IMAGES, MEAN, STD, np.array([5, 1, 4]))
    assert len(inputs) == 3 and len(images_of_pixels(IMAGES, MEAN, STD)) == 7
    np.testing.assert_allclose(inputs[slice(1, 3)].numpy(), wanted([1, 4]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        inputs[np.array([2, 0])].numpy(), wanted([4, 5]), rtol=1e-4, atol=1e-5
    )


def test_normalising_leaves_the_stored_pixels_alone():
    before = IMAGES.copy()
    images_of_pixels(IMAGES, MEAN, STD)[slice(None)].mul_(0)
    assert (before == IMAGES).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_a_function_over_all_images_is_joined_in_order_without_gradients(batch_size, progress):
    inputs, weight = images_of_pixels(IMAGES, MEAN, STD), torch.ones(1, requires_grad=True)
    sizes = []

    def function(images):
        sizes.append(len(images))
        return (images.sum(dim=(2, 3)) * weight).double()

    found = in_batches(function, inputs, batch_size, "test")
    batches = -(-7 // batch_size)
    assert progress() == [("test", batches, batches, "batch")]
    assert found.shape == (7, 3) and found.dtype == torch.float64 and not found.requires_grad
    np.testing.assert_allclose(
        found.numpy(), wanted(slice(None)).sum(axis=(2, 3)), rtol=1e-4, atol=1e-3
    )
    assert sum(sizes) == 7 and max(sizes) == min(batch_size, 7)
