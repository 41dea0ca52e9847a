"""Which trainings start first."""

from itertools import pairwise

from rib.training.priority import images_to_train, priority_of_training
from tiny.changed import replace
from tiny.training import TRAINING


def test_the_images_of_a_training_are_those_of_its_steps():
    three_epochs = replace(TRAINING, epochs=3, batch_size=64, subset_length="epochs")
    assert images_to_train(three_epochs, "all", 1000) == 3000
    assert images_to_train(three_epochs, "100", 1000) == 300
    assert images_to_train(three_epochs, "0.5", 1000) == 1500
    # As many steps as of the whole target, 3 * 16: 24 passes over two batches.
    as_many_steps = replace(three_epochs, subset_length="steps")
    assert images_to_train(as_many_steps, "128", 1000) == 24 * 128
    assert images_to_train(as_many_steps, "100", 1000) == 24 * 100
    assert images_to_train(three_epochs, "all", None) == 0, "not known before it is prepared"


def test_a_longer_training_comes_first_and_evaluations_before_all():
    images = [0, 300, 3000, 3_000_000]
    priorities = [priority_of_training(number, images[-1]) for number in images]
    assert all(shorter < longer for shorter, longer in pairwise(priorities))
    assert priorities[0] == 0
    assert priorities[-1] < 1
    assert priority_of_training(0, 0) == 0
