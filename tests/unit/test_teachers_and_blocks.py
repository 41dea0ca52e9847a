"""What holds for LDIFS, self-distillation and surgical fine-tuning alike.

Their settings are those of their entries.
"""

import itertools

import numpy as np
import pytest
import timm
import torch

from rib.training import loop, training_state
from tiny.models.methods import TRAINING, check_restored, coloured_images, fine_tuned, set_up
from tiny.models.training import CPU, RUN

SELF_DISTILLATIONS = ["self_distillation_ema", "self_distillation_wma"]
METHODS = ["ldifs", *SELF_DISTILLATIONS, "surgical_first", "surgical_last"]
SIDE = 64  # of the images, in pixels
each = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def vit():
    """A small vision transformer."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE).eval()


@pytest.fixture(scope="module")
def images():
    """Coloured images of five classes."""
    return coloured_images(SIDE)


def interrupt_second_steps(monkeypatch):
    """Interrupt each training before its second step."""
    take_step = loop.take_step
    steps = itertools.count(1)

    def take_every_other_step(*arguments):
        is_second = next(steps) % 2 == 0
        if is_second:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", take_every_other_step)


@each
def test_a_training_killed_at_any_step_gives_the_same_bytes(
    name, vit, images, tmp_path, monkeypatch
):
    # given
    monkeypatch.setattr(training_state, "SAVE_EVERY", 0)

    def train(saved):
        """History and changed tensors of a training that is saved after each step."""
        algorithm = set_up(name, vit, images)
        return loop.train(algorithm, vit.state_dict(), TRAINING, RUN, CPU, saved)

    history, changed = train(tmp_path / "undisturbed")
    # when each call comes one step further
    interrupt_second_steps(monkeypatch)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "resumed")
    resumed_history, resumed_changed = train(tmp_path / "resumed")
    # then
    assert resumed_history == history
    assert resumed_changed.keys() == changed.keys()
    for key, tensor in changed.items():
        assert torch.equal(resumed_changed[key], tensor), key


@each
def test_a_batch_in_parts_trains_as_the_whole_does(name, vit, images):
    """Batches of five images are divided into parts of at most two."""
    _, history, changed = fine_tuned(name, vit, images, lr=0.01)
    _, history_of_parts, changed_by_parts = fine_tuned(
        name, vit, images, micro_batch_size=2, lr=0.01
    )
    assert changed_by_parts.keys() == changed.keys()
    for key, tensor in changed.items():
        torch.testing.assert_close(changed_by_parts[key], tensor, rtol=1e-3, atol=1e-5)
    for epoch, epoch_of_parts in zip(history, history_of_parts, strict=True):
        assert epoch_of_parts["loss"] == pytest.approx(epoch["loss"], rel=1e-4)
        assert epoch_of_parts["accuracy"] == pytest.approx(epoch["accuracy"], rel=1e-4)


@each
def test_what_is_stored_restores_what_was_trained(name, vit, images, tmp_path):
    algorithm, history, stored = fine_tuned(name, vit, images, lr=0.01)
    check_restored(name, vit, algorithm, history, stored, tmp_path)


def test_both_self_distillations_have_the_loss_of_lwf_while_the_student_has_not_moved_its_teacher(
    vit, images
):
    rows = np.arange(4)
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))

    def penalty_of(method):
        """What a method adds to the error of these logits of the student."""
        return set_up(method, vit, images).penalty(rows, logits).item()

    by_ema, by_wma = (penalty_of(method) for method in SELF_DISTILLATIONS)
    assert by_ema == by_wma
    assert by_ema > 0
    assert by_ema == pytest.approx(penalty_of("lwf"), rel=1e-5)
