"""Batches are read while others are computed, and are the same as without."""

import gc
import io
import itertools
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from rib.data.dataset import EncodedImages
from rib.data.stored_array import ArrayReader
from rib.models import images as models_images
from rib.models.augmentation import Augmentation, recipe_transform
from rib.models.images import in_batches, memory_for_pixels, slices
from rib.schema.geometry import Geometry
from tiny.models.training import images_of_pixels, random_images
from tiny.projects.waiting import wait_until

BATCHES = [np.array([4, 0, 2]), np.array([1, 3]), np.array([5, 9, 8]), np.array([7, 6])]


@pytest.fixture
def stored(tmp_path):
    """Images in a file, as a prepare job leaves them, and as an array."""
    images = random_images(10, 8).images
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r"), images


@pytest.mark.parametrize("names", [[], ["flip", "crop"]])
def test_pixels_do_not_depend_on_what_was_expected(stored, names):
    """In any order, asked for once, several times or never; augmented too."""
    mapped, images = stored

    def inputs_of(array):
        inputs = images_of_pixels(array)
        if names:
            inputs.augmentation = Augmentation(recipe_transform(names, 8), seed=3)
            inputs.epoch = 1
        return inputs

    plain = inputs_of(images)
    wanted = [plain[rows] for rows in BATCHES]
    for asked in ([0, 1, 2, 3], [0, 0, 1, 3, 3], [3, 0, 2, 1], [2]):
        inputs = inputs_of(mapped)
        inputs.expect(BATCHES)
        for i in asked:
            assert torch.equal(inputs[BATCHES[i]], wanted[i])
            assert torch.equal(inputs[np.array([2, 7])], plain[np.array([2, 7])]), "not expected"


def test_random_numbers_of_training_are_not_drawn_by_another_thread(stored):
    mapped, _ = stored
    inputs = images_of_pixels(mapped)
    inputs.augmentation = Augmentation(recipe_transform(["crop"], 8), seed=3)
    inputs.epoch = 0
    inputs.expect(BATCHES)
    torch.manual_seed(1)
    drawn = []
    for rows in BATCHES:
        inputs[rows]
        drawn.append(torch.rand(1))
    torch.manual_seed(1)
    assert torch.equal(torch.cat(drawn), torch.rand(4))


class Recorded:
    """Images of which it is known which rows were read by which thread."""

    def __init__(self, images):
        self.images = images
        self.shape = images.shape
        self.reads = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.reads.append((rows.tolist(), threading.current_thread() is threading.main_thread()))
        return self.images[rows]


def test_each_batch_is_read_once_and_not_before_one_is_asked_for(stored):
    _, images = stored
    recorded = Recorded(images)
    inputs = images_of_pixels(recorded)
    inputs.expect(BATCHES)
    assert recorded.reads == []
    for rows in BATCHES:
        for _ in range(2):  # by a network and its teacher
            inputs[rows]
    assert sorted(rows for rows, _ in recorded.reads) == sorted(rows.tolist() for rows in BATCHES)
    assert not any(is_main for _, is_main in recorded.reads)


def test_few_batches_are_in_memory(stored, monkeypatch):
    monkeypatch.setattr(models_images, "LOOK_AHEAD", 1)
    _, images = stored
    recorded = Recorded(images)
    inputs = images_of_pixels(recorded)
    inputs.expect(BATCHES)
    first_batch, *_ = BATCHES
    inputs[first_batch]
    assert wait_until(lambda: len(recorded.reads) == 2, 60)
    time.sleep(0.05)  # in which a third one would be read
    assert len(recorded.reads) == 2


def test_an_error_of_a_read_is_told_where_the_batch_is_asked_for(stored):
    class Broken(Recorded):
        def __getitem__(self, rows):
            if 3 in rows:
                raise ValueError("photo 3 is broken")
            return super().__getitem__(rows)

    _, images = stored
    inputs = images_of_pixels(Broken(images))
    inputs.expect(BATCHES)
    first_batch, batch_with_photo_3, *_ = BATCHES
    inputs[first_batch]
    with pytest.raises(ValueError, match="photo 3 is broken"):
        inputs[batch_with_photo_3]


def test_two_batches_are_read_at_once(stored):
    """So that neither a slow file system nor the last photo of a batch lets decoders wait."""
    _, images = stored
    both_are_being_read = threading.Barrier(2, timeout=60)

    class Meeting(Recorded):
        def __getitem__(self, rows):
            if rows.tolist() in (BATCHES[0].tolist(), BATCHES[1].tolist()):
                both_are_being_read.wait()
            return super().__getitem__(rows)

    inputs = images_of_pixels(Meeting(images))
    inputs.expect(BATCHES)
    for rows in BATCHES:
        assert len(inputs[rows]) == len(rows)


@pytest.fixture
def encoded(tmp_path):
    """Twenty photos kept encoded, which are decoded by two threads."""
    files = []
    for image in random_images(20, 160).images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    np.save(tmp_path / "images.npy", np.frombuffer(b"".join(files), np.uint8))
    lengths = np.array([len(file) for file in files])
    index = pa.table(
        {
            "offset": np.cumsum(lengths) - lengths,
            "length": lengths,
            "border": np.zeros(20, int),
            "image_id": [f"{number}" for number in range(20)],
        }
    )
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    return EncodedImages(mapped, index, Geometry(128, 1.0, "bicubic"), 2, "set")


def test_photos_are_decoded_to_where_they_stay(encoded):
    """Without a second copy of the batch in memory."""
    rows = np.arange(19, -1, -1)
    batch = np.zeros((20, 128, 128, 3), np.uint8)
    encoded.read(rows[:2], batch[:2])  # what is imported then is not counted
    tracemalloc.start()
    try:
        encoded.read(rows, batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (batch == encoded[rows]).all()
    assert torch.equal(
        images_of_pixels(encoded, [0.0] * 3, [1 / 255] * 3)[rows],
        torch.from_numpy(batch).permute(0, 3, 1, 2).float(),
    )
    assert peak < batch.nbytes / 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_for_a_gpu_alone(monkeypatch, device):
    empty = torch.empty
    are_pinned = []

    def record(*arguments, pin_memory, **options):
        are_pinned.append(pin_memory)
        return empty(*arguments, **options)

    monkeypatch.setattr(torch, "empty", record)
    pixels = memory_for_pixels((2, 8, 8, 3), torch.device(device))
    assert pixels.shape == (2, 8, 8, 3)
    assert are_pinned == [device == "cuda"]


def test_loading_and_computing_overlap(stored):
    """Of five batches, each is computed only when the next one has begun to be read."""
    _, images = stored
    recorded = Recorded(images)
    numbers_of_batches = itertools.count(1)

    def computed(pixels):
        next_batch = min(next(numbers_of_batches) + 1, 5)
        assert wait_until(lambda: len(recorded.reads) >= next_batch, 60), "not read ahead"
        return mean_of_pixels(pixels)

    outputs = in_batches(computed, images_of_pixels(recorded), 2, "test")
    assert len(recorded.reads) == 5
    all_at_once = in_batches(mean_of_pixels, images_of_pixels(images), 10, "test")
    torch.testing.assert_close(outputs, all_at_once)


def mean_of_pixels(pixels):
    """Mean of each image, (N,)."""
    return pixels.mean(dim=(1, 2, 3))


def test_what_was_opened_to_read_ahead_is_closed_with_the_inputs(stored):
    """Without Python's collector of circles, which may come much later."""
    mapped, _ = stored
    inputs = images_of_pixels(mapped)
    inputs.expect(slices(len(inputs), 4))
    assert len(inputs[slice(0, 4)]) == 4
    no_longer_used = weakref.ref(inputs)
    gc.disable()
    try:
        del inputs
        assert no_longer_used() is None
    finally:
        gc.enable()


def test_rows_and_bytes_of_a_file_are_those_of_the_array(stored):
    mapped, images = stored
    reader = ArrayReader(mapped)
    rows = np.array([7, 0, 7, 3])
    read_rows = np.zeros((4, 8, 8, 3), np.uint8)
    reader.read(rows, read_rows)
    reader.read(np.array([], int), read_rows[:0])
    assert (read_rows == images[rows]).all()
    assert reader.bytes(5, 400).tobytes() == images.tobytes()[5:405]


def test_a_part_of_a_mapped_array_is_read_as_an_array(stored):
    mapped, images = stored
    rows = np.array([2, 0])
    last = images_of_pixels(mapped[3:])
    assert torch.equal(last[rows], images_of_pixels(images[3:])[rows])


def test_a_file_that_was_cut_is_an_error(stored):
    reader = ArrayReader(stored[0])
    with open(stored[0].filename, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(OSError, match="cut while it was read"):
        reader.read(np.array([9]), np.empty((1, 8, 8, 3), np.uint8))
