"""What holds for LDIFS, self-distillation and surgical fine-tuning alike.

Their settings are those of their entries.
"""

import numpy as np
import pytest
import timm
import torch

from rib.training import finetune, training_state
from tiny.methods import TRAINING, check_restored, coloured_images, fine_tuned, set_up
from tiny.training import CPU, RUN

METHODS = [
    "ldifs",
    "self_distillation_ema",
    "self_distillation_wma",
    "surgical_first",
    "surgical_last",
]
SIDE = 64
each = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE).eval()


@pytest.fixture(scope="module")
def images():
    return coloured_images(SIDE)


@each
def test_a_training_killed_at_any_step_gives_the_same_bytes(
    name, vit, images, tmp_path, monkeypatch
):
    def train():
        return finetune.train(
            set_up(name, vit, images), vit.state_dict(), TRAINING, RUN, CPU, tmp_path / "state"
        )

    monkeypatch.setattr(training_state, "SAVE_EVERY", 0)
    history, whole = train()
    step, done = finetune._take_step, []

    def breaks(*arguments):
        if len(done) == 1:
            done.clear()
            raise KeyboardInterrupt
        done.append(1)
        return step(*arguments)

    (tmp_path / "state").unlink()
    monkeypatch.setattr(finetune, "_take_step", breaks)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train()
    again, resumed = train()
    assert again == history and resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@each
def test_a_batch_in_parts_trains_as_the_whole_does(name, vit, images):
    _, history, whole = fine_tuned(name, vit, images, lr=0.01)
    _, parts_history, parts = fine_tuned(name, vit, images, micro_batch_size=2, lr=0.01)  # of 5
    assert parts.keys() == whole.keys()
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-3, atol=1e-5)
    for row, other in zip(history, parts_history, strict=True):
        assert (row["loss"], row["accuracy"]) == pytest.approx(
            (other["loss"], other["accuracy"]), rel=1e-4
        )


@each
def test_what_is_stored_restores_what_was_trained(name, vit, images, tmp_path):
    check_restored(name, vit, *fine_tuned(name, vit, images, lr=0.01), tmp_path)


def test_both_self_distillations_have_the_loss_of_lwf_while_the_student_has_not_moved_its_teacher(
    vit, images
):
    rows, student = np.arange(4), torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    found = [
        set_up(name, vit, images).penalty(rows, student).item() for name in ("lwf", *METHODS[1:3])
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[1] == found[2] > 0
