"""What augmented images depend on, and who sees them."""

import copy
import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch

from rib.base.errors import UserError
from rib.methods import _distil
from rib.methods.ewc import ElasticWeightConsolidation
from rib.methods.ft import FullFineTuning
from rib.methods.linear_probe import LinearProbing
from rib.methods.lwf import LearningWithoutForgetting
from rib.models.augmentation import Augmentation, Shifts, drawn_transforms, recipe_transform
from rib.training.loop import train
from tiny.changed import replace
from tiny.models.training import (
    CPU,
    RUN,
    TRAINING,
    images_of_pixels,
    normalised,
    task_of,
    with_defaults,
)
from unit.conftest import published

ALL = ["flip", "crop", "randaugment"]
SIDE = 64  # of the pictures, in pixels
PICTURES = 20
# Of the target, in three batches an epoch.
TARGET_IMAGES = 10
STEPS_OF_EPOCH = 3
STEPS = STEPS_OF_EPOCH * TRAINING.epochs


@pytest.fixture(scope="module")
def pictures():
    """Smooth images, which few transforms leave as they are; no two rows or columns are alike."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    images = [np.stack([x, y, (x * y + number / 20) % 1], axis=-1) for number in range(PICTURES)]
    return (200 * np.stack(images) + 20).astype(np.uint8)


def inputs_of(images, names=ALL, seed=0, epoch=0, rows=None):
    """What a network sees of images in an epoch; None is not in training.

    Args:
        names: of the augmentations.
        rows: which of the images there are.
    """
    inputs = images_of_pixels(images, rows=rows)
    inputs.augmentation = Augmentation(recipe_transform(names, SIDE), seed)
    inputs.epoch = epoch
    return inputs


def all_inputs_of(images, names=ALL, seed=0, epoch=0):
    """`inputs_of` of all images, as one tensor."""
    return inputs_of(images, names, seed, epoch)[np.arange(len(images))]


def augmented_pixels(images, names):
    """Images (n, H, W, 3) uint8 as augmented."""
    augment = Augmentation(recipe_transform(names, SIDE), 0)
    batch = []
    for row, image in enumerate(images):
        augmented = augment(torch.from_numpy(image).permute(2, 0, 1), 0, row)
        assert augmented.dtype == torch.uint8
        assert augmented.shape == (3, SIDE, SIDE)
        batch.append(augmented)
    return torch.stack(batch).permute(0, 2, 3, 1).numpy()


def number_of_equal(images, other_images):
    """How many images are equal to those at the same place."""
    return sum(
        np.array_equal(image, other) for image, other in zip(images, other_images, strict=True)
    )


# Shifts


def moved(picture, down, right):
    """A picture that is moved as a whole; its edges are repeated."""
    lines = np.clip(np.arange(SIDE) + down, 0, SIDE - 1)
    columns = np.clip(np.arange(SIDE) + right, 0, SIDE - 1)
    return picture[lines][:, columns]


def test_a_shift_moves_an_image_as_a_whole_and_repeats_its_edge(pictures):
    """Each shifted image is one of the 7 x 7 shifts by up to 3 pixels, made by indexing."""
    rows = np.array([3, 0, 19, 7])
    shifted = Shifts(3, len(pictures), seed=5)(pictures[rows], 2, rows)
    moves = []
    for image, row in zip(shifted, rows, strict=True):
        for down, right in itertools.product(range(-3, 4), repeat=2):
            if (image == moved(pictures[row], down, right)).all():
                moves.append((down, right))
    assert len(moves) == len(rows)
    assert len(set(moves)) > 1


def test_shifts_of_an_epoch_are_of_all_sizes_and_depend_on_seed_epoch_and_row_alone():
    # given images with one bright pixel in their middle
    images = 500
    one_bright_pixel = np.zeros((images, 9, 9, 3), np.uint8)
    one_bright_pixel[:, 4, 4] = 255
    all_rows = np.arange(images)

    def positions(seed, epoch, rows=all_rows):
        """Line and column of the bright pixel in each shifted image."""
        shifted = Shifts(2, images, seed)(one_bright_pixel[rows], epoch, rows)
        bright_pixels = np.argwhere(shifted[..., 0])
        return bright_pixels[:, 1:]

    # when, then
    of_all_rows = positions(seed=0, epoch=0)
    assert of_all_rows.min() == 2
    assert of_all_rows.max() == 6
    distinct_positions, counts = np.unique(of_all_rows, axis=0, return_counts=True)
    assert len(distinct_positions) == 25
    assert counts.min() > 5, "each of the 25 shifts is as likely"

    some_rows = [7, 400, 3]
    of_some_rows = positions(seed=0, epoch=0, rows=all_rows[some_rows])
    assert (of_some_rows == of_all_rows[some_rows]).all()
    for other_positions in (positions(seed=1, epoch=0), positions(seed=0, epoch=1)):
        is_equal = (other_positions == of_all_rows).all(axis=1)
        assert is_equal.mean() < 0.2


# What an augmented image depends on


def test_an_image_depends_on_seed_epoch_and_row_alone(pictures):
    inputs = all_inputs_of(pictures)
    for rows in ([7], [3, 11, 0], [19, 3]):
        batch = inputs_of(pictures)[np.array(rows)]
        assert torch.equal(batch, inputs[rows]), "not on the rest of a batch or its order"
    assert torch.equal(inputs_of(pictures)[slice(4, 9)], inputs[4:9])

    of_three_images = inputs_of(pictures, rows=np.array([12, 2, 5]))
    assert torch.equal(of_three_images[np.array([2, 0])], inputs[[5, 12]])
    assert torch.equal(of_three_images[slice(None)], inputs[[12, 2, 5]])

    of_equal_pictures = all_inputs_of(np.repeat(pictures[:1], PICTURES, axis=0))
    distinct = {image.numpy().tobytes() for image in of_equal_pictures}
    assert len(distinct) > 15, "the same picture in another row"

    assert number_of_equal(all_inputs_of(pictures, seed=1), inputs) < 5
    assert number_of_equal(all_inputs_of(pictures, epoch=1), inputs) < 5


def test_the_seed_and_the_epoch_do_not_stand_for_each_other(pictures):
    """Another seed is not the same seed one epoch later; nor is the next row."""
    inputs = {}
    for seed, epoch in itertools.product((0, 1), (0, 1)):
        inputs[seed, epoch] = all_inputs_of(pictures, seed=seed, epoch=epoch)
    for first, second in itertools.combinations(inputs, 2):
        equal_images = number_of_equal(inputs[first], inputs[second])
        assert equal_images < 5, f"seed and epoch {first}, and {second}"


def test_a_batch_is_as_any_other(pictures):
    """Type, shape and order in memory."""
    rows = np.arange(5)
    not_in_training = inputs_of(pictures, epoch=None)[rows]
    assert not_in_training.is_contiguous(memory_format=torch.channels_last)
    for names in (["flip"], ["randaugment"], ALL):
        batch = inputs_of(pictures, names)[rows]
        assert batch.dtype == not_in_training.dtype
        assert batch.shape == not_in_training.shape
        assert batch.stride() == not_in_training.stride()


def seed_all(seed):
    """Seed the random numbers of torch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def test_no_random_numbers_but_its_own_are_drawn(pictures):
    # given
    seed_all(1)
    state_of_torch = torch.get_rng_state()
    state_of_numpy = np.random.get_state()[1].copy()
    state_of_python = random.getstate()
    # when
    inputs = all_inputs_of(pictures)
    # then
    assert torch.equal(torch.get_rng_state(), state_of_torch)
    assert (np.random.get_state()[1] == state_of_numpy).all()
    assert random.getstate() == state_of_python
    seed_all(2)
    assert torch.equal(all_inputs_of(pictures), inputs)


def test_gpus_draw_on_where_they_were(pictures, monkeypatch):
    seeds_of_gpus = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds_of_gpus.append)
    all_inputs_of(pictures)
    assert seeds_of_gpus == []


# Kinds of augmentation


def test_a_flip_mirrors_about_half_of_the_images(pictures):
    flipped = augmented_pixels(pictures, ["flip"])
    mirrored_pictures = pictures[:, :, ::-1]
    mirrored = number_of_equal(flipped, mirrored_pictures)
    unchanged = number_of_equal(flipped, pictures)
    assert mirrored + unchanged == PICTURES
    assert 4 <= mirrored <= 16


def test_a_crop_keeps_nine_tenths_of_the_area_or_more(pictures):
    """Red rises to the right and green to the bottom by 200 in all."""
    cropped = augmented_pixels(pictures, ["crop"]).astype(int)
    red = cropped[..., 0]
    green = cropped[..., 1]
    width = np.ptp(red, axis=(1, 2)) / 200  # shares of the picture
    height = np.ptp(green, axis=(1, 2)) / 200
    for share in (width, height):
        assert (share > 0.86).all()
        assert (share < 1.02).all()
    assert (width * height > 0.84).all()
    assert (width * height).min() < 0.95
    assert number_of_equal(cropped, pictures) <= 2
    middle_line_of_red = red[:, SIDE // 2]
    assert (np.diff(middle_line_of_red, axis=1) >= 0).all(), "nothing else is done to it"


def test_randaugment_changes_most_images_in_several_ways(pictures):
    augmented = augmented_pixels(pictures, ["randaugment"])
    assert number_of_equal(augmented, pictures) <= 6
    highest_contrast = np.ptp(augmented, axis=(1, 2)).max()
    assert highest_contrast > 215 or augmented.min() < 5, "colours or borders"


def test_names_may_be_in_any_order_and_each_of_them_counts(pictures):
    in_reverse_order = augmented_pixels(pictures, ALL[::-1])
    assert np.array_equal(augmented_pixels(pictures, ALL), in_reverse_order)
    results = set()
    for names in (ALL, ["flip"], ["crop"], ["randaugment"], ["crop", "flip"]):
        results.add(augmented_pixels(pictures, names).tobytes())
    assert len(results) == 5


# Transforms of the catalogue

# Of the entry `broad`, and others.
TRANSFORMS_OF_BROAD = published("augmentations.yaml")["broad"]["transforms"]
BROAD = list(TRANSFORMS_OF_BROAD.items())
OTHERS = [
    ("RandomAffine", {"degrees": 0, "shear": 30, "interpolation": "nearest", "fill": 255}),
    ("ColorJitter", {"saturation": 0.9, "hue": 0.5}),
    ("RandomErasing", {**TRANSFORMS_OF_BROAD["RandomErasing"], "value": 255}),
    ("RandomVerticalFlip", {"p": 1.0}),
]


def drawn_inputs_of(images, transforms=BROAD, epoch=0):
    """Inputs whose images get none to two of the transforms, in an epoch of a training."""
    augmentation = Augmentation(drawn_transforms(2, transforms), 0)
    inputs = images_of_pixels(images)
    inputs.augmentation = augmentation
    inputs.epoch = epoch
    return inputs


@pytest.mark.parametrize(("name", "arguments"), [*BROAD, *OTHERS], ids=str)
def test_each_transform_changes_images_and_keeps_shape_and_type(pictures, name, arguments):
    augment = Augmentation(drawn_transforms(1, [(name, arguments)]), 0)
    changed = 0
    for row, picture in enumerate(pictures):
        image = torch.from_numpy(picture).permute(2, 0, 1)
        original = image.clone()
        augmented = augment(image, 0, row)
        assert augmented.dtype == torch.uint8
        assert augmented.shape == image.shape
        assert torch.equal(image, original), "the stored image stays as it is"
        changed += not torch.equal(augmented, image)
    assert 4 <= changed <= 16, "none or one transform, each as likely"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandomInversion", {}),
        ("InterpolationMode", {}),  # of torchvision, but no transform
        ("RandomAffine", {}),
        ("RandomAffine", {"degrees": 9, "interpolation": "linear"}),
        ("RandomInvert", {"probability": 1}),
        ("GaussianBlur", {"kernel_size": 4}),
        ("RandomPosterize", {"bits": "two", "p": 1.0}),
        ("RandomErasing", {"scale": [0.1, 1.1], "p": 1.0}),
        ("Resize", {"size": 9}),
        ("ToDtype", {"dtype": "float32"}),
    ],
)
def test_what_torchvision_does_not_take_is_refused_with_the_name_of_the_transform(name, arguments):
    with pytest.raises(UserError, match=rf"^augmentations\.yaml, transforms\.{name}\b") as refused:
        drawn_transforms(1, [(name, arguments)])
    assert "\n" not in str(refused.value)


def test_making_transforms_draws_no_random_number():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    drawn_transforms(2, BROAD)
    assert torch.equal(torch.rand(1), expected)


def test_drawn_transforms_are_others_in_each_epoch(pictures):
    inputs = drawn_inputs_of(pictures)[slice(None)]
    assert number_of_equal(drawn_inputs_of(pictures, epoch=1)[slice(None)], inputs) < 8


def test_an_image_gets_none_to_most_of_the_transforms_each_number_and_order_as_likely():
    """Three transforms of an image of one grey, 101, of which each leaves a trace of its own."""
    # given
    grey = torch.full((3, 16, 16), 101, dtype=torch.uint8)
    transforms = [
        ("RandomPosterize", {"bits": 6, "p": 1.0}),  # 101 becomes 100
        ("RandomInvert", {"p": 1.0}),  # 101 becomes 154
        ("RandomErasing", {"scale": [0.1, 0.2], "ratio": [1, 1], "value": 7, "p": 1.0}),
    ]
    expected_by_greys = {
        (101,): 300,  # none
        (154,): 100,  # one
        (100,): 100,
        (7, 101): 100,
        (152,): 50,  # inverted, then posterised
        (155,): 50,  # and the other way round
        (154, 248): 50,  # erased, then inverted
        (7, 154): 50,
        (4, 100): 50,  # erased, then posterised
        (7, 100): 50,
    }
    # when
    augment = Augmentation(drawn_transforms(2, transforms), 0)
    images = sum(expected_by_greys.values())
    counts = Counter(tuple(augment(grey, 0, row).unique().tolist()) for row in range(images))
    # then
    assert counts.keys() == expected_by_greys.keys()
    for greys, expected in expected_by_greys.items():
        assert abs(counts[greys] - expected) < 4 * expected**0.5, greys


# Who sees augmented images


def augmented_task(network, target, names=ALL):
    """The task of fine-tuning a network on a target that is augmented, and that is its proxy."""
    task = task_of(copy.deepcopy(network), target, target)
    if names:
        task.target.augmentation = Augmentation(recipe_transform(names, SIDE), 0)
    else:
        task.target.augmentation = None
    return task


def test_images_are_augmented_in_training_alone(network, target):
    # given a method that notes what it sees
    task = augmented_task(network, target)
    method = with_defaults(FullFineTuning, lr=0.01)
    method.setup(task)
    rows_and_batches = []
    epochs = []
    logits_of = method.logits

    def note_and_compute(rows):
        rows_and_batches.append((rows, method.images[rows]))
        epochs.append(method.images.epoch)
        return logits_of(rows)

    method.logits = note_and_compute
    # when
    train(method, network.state_dict(), TRAINING, RUN, CPU)
    # then
    assert epochs == [0] * STEPS_OF_EPOCH + [1] * STEPS_OF_EPOCH
    not_augmented = normalised(target.images)
    for rows, batch in rows_and_batches:
        assert not torch.allclose(batch, not_augmented[rows], atol=1e-5)
    # and after training, images are themselves again, as those of the proxy always are
    assert task.target.epoch is None
    all_rows = np.arange(TARGET_IMAGES)
    for inputs in (task.target, task.reference):
        torch.testing.assert_close(inputs[all_rows], not_augmented, rtol=1e-5, atol=1e-6)


def fisher_information(network, target, names):
    """EWC's Fisher information by parameter, with these augmentations of the target."""
    method = with_defaults(
        ElasticWeightConsolidation, lr=0.1, weight=1.0, fisher="empirical", fisher_images=10
    )
    method.setup(replace(augmented_task(network, target, names), reference=None))
    return method.importance


def test_what_is_measured_before_training_is_of_the_images_themselves(network, target):
    """EWC's Fisher information."""
    augmented = fisher_information(network, target, ALL)
    not_augmented = fisher_information(network, target, [])
    assert not_augmented
    for of_parameter, expected in zip(augmented, not_augmented, strict=True):
        assert torch.equal(of_parameter, expected)


@pytest.mark.parametrize("most", [0, 2**31])
def test_lwfs_teacher_sees_the_very_images_of_its_student(network, target, monkeypatch, most):
    # given
    monkeypatch.setattr(_distil, "LARGEST_STORED", most)
    task = augmented_task(network, target)
    calls = []

    def note_call(module, arguments):
        """The hook of the student; the teacher, a copy of it, has it too."""
        (images,) = arguments
        calls.append((module, images.clone()))

    task.model.register_forward_pre_hook(note_call)
    method = with_defaults(
        LearningWithoutForgetting, lr=0.01, temperature=2.0, weight=1.0, distil="all"
    )
    method.setup(task)
    calls.clear()
    # when
    train(method, network.state_dict(), TRAINING, RUN, CPU)
    # then the student and the teacher are called in turn, on the same images
    calls_of_student = calls[::2]
    calls_of_teacher = calls[1::2]
    assert len(calls_of_student) == len(calls_of_teacher) == STEPS
    distinct_batches = set()
    for (student, images), (teacher, images_of_teacher) in zip(
        calls_of_student, calls_of_teacher, strict=True
    ):
        assert student is task.model
        assert teacher is not student
        assert torch.equal(images, images_of_teacher)
        distinct_batches.add(images.numpy().tobytes())
    assert len(distinct_batches) == STEPS
    pretrained = network.state_dict()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, pretrained[name]), "the teacher is the pretrained network"


def trained_probe(network, target, names, through_network=False):
    """The state dict after linear probing with these augmentations.

    Args:
        through_network: whether logits are those of the whole network, in place of the head's on
            features.
    """
    method = with_defaults(LinearProbing, lr=0.1)
    method.setup(augmented_task(network, target, names))
    if through_network:
        method.logits = lambda rows: method.model(method.images[rows])
    train(method, network.state_dict(), TRAINING, RUN, CPU)
    return method.model.state_dict()


def test_a_probe_of_augmented_images_equals_training_through_the_network(network, target):
    probe = trained_probe(network, target, ALL)
    through_network = trained_probe(network, target, ALL, through_network=True)
    torch.testing.assert_close(probe, through_network, rtol=1e-5, atol=1e-6)

    not_augmented = trained_probe(network, target, [])
    assert (not_augmented["fc.weight"] - probe["fc.weight"]).abs().max() > 1e-4
