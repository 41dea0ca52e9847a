"""What augmented images depend on, and who sees them."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch

from rib.methods import lwf
from rib.methods.ewc import ElasticWeightConsolidation
from rib.methods.ft import FullFineTuning
from rib.methods.linear_probe import LinearProbing
from rib.methods.lwf import LearningWithoutForgetting
from rib.models.augmentation import Augmentation, Shifts
from rib.models.inputs import Inputs
from rib.training.finetune import train
from tiny.changed import replace
from tiny.training import CPU, HALF, RUN, TRAINING, normalised, task_of

ALL = ["flip", "crop", "randaugment"]
SIDE = 64


@pytest.fixture(scope="module")
def pictures():
    """Smooth images, which few transforms leave as they are; no two rows or columns are alike."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    images = [np.stack([x, y, (x * y + i / 20) % 1], axis=-1) for i in range(20)]
    return (200 * np.stack(images) + 20).astype(np.uint8)


def inputs_of(images, names=ALL, seed=0, epoch=0, rows=None):
    inputs = Inputs(images, HALF, HALF, CPU, rows, Augmentation(names, SIDE, seed))
    inputs.epoch = epoch
    return inputs


def shown(images, names=ALL, **how):
    return inputs_of(images, names, **how)[np.arange(len(images))]


def test_a_shift_moves_an_image_as_a_whole_and_repeats_its_edge(pictures):
    """Each shifted image is one of the 7 x 7 shifts by up to 3 pixels, made by indexing."""
    rows = np.array([3, 0, 19, 7])
    shifted = Shifts(3, len(pictures), seed=5)(pictures[rows], 2, rows)
    moves = []
    for image, row in zip(shifted, rows, strict=True):
        for down, right in itertools.product(range(-3, 4), repeat=2):
            lines = np.clip(np.arange(SIDE) + down, 0, SIDE - 1)
            columns = np.clip(np.arange(SIDE) + right, 0, SIDE - 1)
            if (image == pictures[row][lines][:, columns]).all():
                moves.append((down, right))
    assert len(moves) == 4 and len(set(moves)) > 1


def test_shifts_of_an_epoch_are_of_all_sizes_and_depend_on_seed_epoch_and_row_alone():
    one_bright_pixel = np.zeros((500, 9, 9, 3), np.uint8)
    one_bright_pixel[:, 4, 4] = 255
    rows = np.arange(500)

    def places(seed, epoch, rows=rows):
        shifted = Shifts(2, 500, seed)(one_bright_pixel[rows], epoch, rows)
        return np.argwhere(shifted[..., 0])[:, 1:]

    at_start = places(0, 0)
    places_of_all, counts = np.unique(at_start, axis=0, return_counts=True)
    assert len(places_of_all) == 25 and at_start.min() == 2 and at_start.max() == 6
    assert counts.min() > 5, "each of the 25 shifts is as likely"
    assert (places(0, 0, rows[[7, 400, 3]]) == at_start[[7, 400, 3]]).all()
    for other in (places(1, 0), places(0, 1)):
        assert (other == at_start).all(axis=1).mean() < 0.2


def test_an_image_depends_on_seed_epoch_and_row_alone(pictures):
    whole = shown(pictures)
    for rows in ([7], [3, 11, 0], [19, 3]):
        assert torch.equal(inputs_of(pictures)[np.array(rows)], whole[rows]), (
            "not on the rest of a batch or its order"
        )
    assert torch.equal(inputs_of(pictures)[slice(4, 9)], whole[4:9])
    part = inputs_of(pictures, rows=np.array([12, 2, 5]))
    assert torch.equal(part[np.array([2, 0])], whole[[5, 12]]) and torch.equal(
        part[slice(None)], whole[[12, 2, 5]]
    )
    alike = shown(np.repeat(pictures[:1], 20, axis=0))
    assert len({image.numpy().tobytes() for image in alike}) > 15, "the same picture in another row"
    for changed in ({"seed": 1}, {"epoch": 1}):
        other = shown(pictures, **changed)
        assert sum(torch.equal(a, b) for a, b in zip(other, whole, strict=True)) < 5


def test_the_seed_and_the_epoch_do_not_stand_for_each_other(pictures):
    """Another seed is not the same seed one epoch later; nor is the next row."""
    whole = {
        (seed, epoch): shown(pictures, seed=seed, epoch=epoch)
        for seed in range(2)
        for epoch in range(2)
    }
    for one, other in itertools.combinations(whole, 2):
        equal = sum(torch.equal(a, b) for a, b in zip(whole[one], whole[other], strict=True))
        assert equal < 5, f"seed and epoch {one}, and {other}"


def test_a_batch_is_as_any_other(pictures):
    """Type, shape and order in memory."""
    plain = inputs_of(pictures, epoch=None)[np.arange(5)]
    for names in (["flip"], ["randaugment"], ALL):
        batch = inputs_of(pictures, names)[np.arange(5)]
        assert (batch.dtype, batch.shape, batch.stride()) == (
            plain.dtype,
            plain.shape,
            plain.stride(),
        )
    assert plain.is_contiguous(memory_format=torch.channels_last)


def test_no_random_numbers_but_its_own_are_drawn(pictures, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    seeded.clear()
    first, states = (
        shown(pictures),
        (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
    )
    torch.manual_seed(2), np.random.seed(2), random.seed(2)
    assert torch.equal(shown(pictures), first)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    assert (
        torch.equal(torch.get_rng_state(), states[0])
        and (np.random.get_state()[1] == states[1]).all()
    )
    assert random.getstate() == states[2]
    seeded.clear()
    shown(pictures)
    assert not seeded, "GPUs draw on where they were"


def pixels(images, names, **how):
    """Images (n, H, W, 3) uint8 as augmented."""
    augment = Augmentation(names, SIDE, 0)
    batch = [
        augment(torch.from_numpy(image).permute(2, 0, 1), 0, row)
        for row, image in enumerate(images)
    ]
    for image in batch:
        assert image.dtype == torch.uint8 and image.shape == (3, SIDE, SIDE)
    return torch.stack(batch).permute(0, 2, 3, 1).numpy()


def test_a_flip_mirrors_about_half_of_the_images(pictures):
    found = pixels(pictures, ["flip"])
    mirrored = [
        np.array_equal(image, picture[:, ::-1])
        for image, picture in zip(found, pictures, strict=True)
    ]
    same = [np.array_equal(image, picture) for image, picture in zip(found, pictures, strict=True)]
    assert sum(mirrored) + sum(same) == 20 and 4 <= sum(mirrored) <= 16


def test_a_crop_keeps_nine_tenths_of_the_area_or_more(pictures):
    """Red rises to the right and green to the bottom by 200 in all."""
    found = pixels(pictures, ["crop"]).astype(int)
    wide, high = np.ptp(found[..., 0], axis=(1, 2)) / 200, np.ptp(found[..., 1], axis=(1, 2)) / 200
    assert ((wide > 0.86) & (wide < 1.02) & (high > 0.86) & (high < 1.02)).all()
    assert (wide * high > 0.84).all() and (wide * high).min() < 0.95
    changed = [
        not np.array_equal(image, picture) for image, picture in zip(found, pictures, strict=True)
    ]
    assert sum(changed) >= 18
    assert (np.diff(found[:, SIDE // 2, :, 0], axis=1) >= 0).all(), "nothing else is done to it"


def test_randaugment_changes_most_images_in_several_ways(pictures):
    found = pixels(pictures, ["randaugment"])
    changed = [
        not np.array_equal(image, picture) for image, picture in zip(found, pictures, strict=True)
    ]
    assert sum(changed) >= 14
    assert any(np.ptp(image, axis=(0, 1)).max() > 215 or image.min() < 5 for image in found), (
        "colours or borders"
    )


def test_names_may_be_in_any_order_and_each_of_them_counts(pictures):
    assert np.array_equal(pixels(pictures, ALL), pixels(pictures, ALL[::-1]))
    made = [
        pixels(pictures, names).tobytes()
        for names in (ALL, ["flip"], ["crop"], ["randaugment"], ["crop", "flip"])
    ]
    assert len(set(made)) == 5


def augmented_task(network, target, names=ALL):
    task = task_of(copy.deepcopy(network), target, target)
    task.target.inputs.augmentation = Augmentation(names, SIDE, 0) if names else None
    return task


def test_images_are_augmented_in_training_alone(network, target):
    task = augmented_task(network, target)
    seen, epochs = [], []
    method = FullFineTuning(lr=0.01)
    method.setup(task)
    forward = method.logits
    method.logits = lambda rows: (
        seen.append((rows, method.inputs[rows]))
        or epochs.append(method.inputs.epoch)
        or forward(rows)
    )
    train(method, network.state_dict(), TRAINING, RUN, CPU)
    assert epochs == [0, 0, 0, 1, 1, 1] and task.target.inputs.epoch is None
    clean = normalised(target.images)
    assert not any(torch.allclose(batch, clean[rows], atol=1e-5) for rows, batch in seen)
    torch.testing.assert_close(task.target.inputs[np.arange(10)], clean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(task.reference.inputs[np.arange(10)], clean, rtol=1e-5, atol=1e-6)


def test_what_is_measured_before_training_is_of_the_images_themselves(network, target):
    """EWC's Fisher information."""
    found = []
    for names in (ALL, []):
        method = ElasticWeightConsolidation(
            lr=0.1, weight=1.0, fisher="empirical", fisher_images=10
        )
        method.setup(replace(augmented_task(network, target, names), reference=None))
        found.append(method.importance)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("most", [0, 100])
def test_lwfs_teacher_sees_the_very_images_of_its_student(network, target, monkeypatch, most):
    monkeypatch.setattr(lwf, "MOST_STORED", most)
    task, seen = augmented_task(network, target), []
    # a copy of the network calls it too
    task.model.register_forward_pre_hook(
        lambda module, given: seen.append((module, given[0].clone()))
    )
    method = LearningWithoutForgetting(lr=0.01, temperature=2.0, weight=1.0, distil="all")
    method.setup(task)
    seen.clear()
    train(method, network.state_dict(), TRAINING, RUN, CPU)
    assert len(seen) == 2 * 6
    for (student, own), (teacher, taught) in zip(seen[::2], seen[1::2], strict=True):
        assert student is task.model and teacher is not student and torch.equal(own, taught)
    assert len({images.numpy().tobytes() for _, images in seen[::2]}) == 6
    for name, value in seen[1][0].state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), (
            "the teacher is the pretrained network"
        )


def test_the_probes_features_are_those_of_the_augmented_image(network, target):
    task, rows = augmented_task(network, target), np.array([2, 7, 3])
    method = LinearProbing(lr=0.01)
    method.setup(task)
    for epoch in (0, 1, None):
        task.target.inputs.epoch = epoch
        with torch.no_grad():
            wanted = network.forward_head(
                network.forward_features(task.target.inputs[rows]), pre_logits=True
            )
        found = method.features(rows)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert not found.requires_grad


def test_a_probe_of_augmented_images_equals_training_through_the_network(network, target):
    made = []
    for through in (False, True):
        method = LinearProbing(lr=0.1)
        method.setup(augmented_task(network, target))
        if through:
            method.logits = lambda rows, method=method: method.model(method.inputs[rows])
        train(method, network.state_dict(), TRAINING, RUN, CPU)
        made.append(method.model.state_dict())
    torch.testing.assert_close(made[0], made[1], rtol=1e-5, atol=1e-6)
    plain = LinearProbing(lr=0.1)
    plain.setup(augmented_task(network, target, []))
    train(plain, network.state_dict(), TRAINING, RUN, CPU)
    assert (plain.model.fc.weight - made[0]["fc.weight"]).abs().max() > 1e-4
