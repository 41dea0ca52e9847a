"""A training that is killed goes on to the same bytes, whatever the method and the moment."""

import copy
import errno
import json
import os
import random
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from rib.config.catalog import Catalog
from rib.config.label_space import LabelSpace
from rib.methods import load_algorithm
from rib.methods.base import Task
from rib.models.augmentation import Augmentation
from rib.training import finetune
from rib.training import training_state as resume
from tiny import training
from tiny.changed import replace
from tiny.project import ROOT
from tiny.tiers import first
from tiny.training import CPU, RUN, images_of, settings_of
from tiny.waiting import wait_until

SIDE = 160
TRAINING = replace(training.TRAINING, epochs=3, warmup_fraction=0.3)
STEPS = 3 * 3
CATALOG = Catalog([ROOT / "workflow/catalog"])
METHODS = [
    "ft",
    "linear_probe",
    "visual_prompt",
    "lora",
    "ewc",
    "lwf",
    "replay",
    "linear_probe_released",
]
MORE = {
    "weight_decay": 0.1,
    "clip_norm": 0.5,
    "label_smoothing": 0.1,
    "augmentation": ["crop", "flip"],
}
ADAMW = replace(TRAINING, optimizer="adamw", **MORE)
LION = replace(ADAMW, optimizer="lion", augmentation=["randaugment"])
RECIPES = {
    "paper": TRAINING,
    "adamw": ADAMW,
    "lion": LION,
    "by_layers": replace(ADAMW, layer_decay=0.8, decay_norm_and_bias=False),
    "cut_short": replace(
        LION, epochs=None, steps=8
    ),  # in the third epoch, of which one step is left out
}
CASES = [(name, "paper") for name in METHODS]
CASES += [(name, recipe) for name in ("ft", "lwf", "linear_probe") for recipe in ("adamw", "lion")]
CASES += [
    ("spd", "adamw"),
    ("ftp", "paper"),
    ("ftp", "by_layers"),
    ("digrap", "paper"),
    ("digrap", "lion"),
]
CASES += [("visual_prompt", "adamw"), ("lora", "adamw"), ("ft", "by_layers"), ("ft", "cut_short")]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE).eval()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    space = LabelSpace(tuple("abcde"), tuple((10 * i,) for i in range(5)), tuple("abcde"))
    pixels = rng.integers(0, 255, (10, SIDE, SIDE, 3)).astype(np.uint8)
    return SimpleNamespace(images=pixels, labels=np.arange(10) % 5, space=space)


def trained(name, network, images, saved=None, how=TRAINING, **settings):
    """What a job does: everything from the start, then on from what was saved."""
    entry = CATALOG.methods[name]
    torch.manual_seed(0)
    algorithm = load_algorithm(
        CATALOG.algorithm_file(entry.algorithm), {**settings_of(entry), **settings}
    )
    target, reference = images_of(images), images_of(images)
    if how.augmentation:
        target.inputs.augmentation = Augmentation(how.augmentation, SIDE, 0)
    algorithm.setup(Task(copy.deepcopy(network), target, reference, 0))
    return finetune.train(algorithm, network.state_dict(), how, RUN, CPU, saved)


def killed(monkeypatch, kills):
    """Interrupt training at the end of the given steps; gives the steps since the last time.

    Each number of steps is counted from the start before.
    """
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    step, done = finetune._take_step, []

    def breaks(*arguments):
        result = step(*arguments)
        done.append(1)
        if kills and len(done) == kills[0]:
            del kills[0], done[:]
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(finetune, "_take_step", breaks)
    return done


@pytest.mark.parametrize(("name", "recipe"), first(CASES, 2))
def test_a_training_killed_again_and_again_gives_the_same_bytes(
    network, images, name, recipe, tmp_path, monkeypatch
):
    how = {"how": RECIPES[recipe], "lr": 0.001} if recipe != "paper" else {}
    history, whole = trained(name, network, images, **how)
    # before anything is saved, within an epoch, at its end, and in the last step
    done = killed(monkeypatch, [1, 2, 2, 3, 4 if recipe == "cut_short" else 5])
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            trained(name, network, images, tmp_path / "state.pt", **how)
    again, resumed = trained(name, network, images, tmp_path / "state.pt", **how)
    assert sum(done) < STEPS, "it did not begin again"
    assert again == history and resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.thorough
def test_a_process_killed_at_random_moments_gives_the_same_bytes(
    network, images, tmp_path, monkeypatch
):
    """SIGKILL, in the midst of a step or of a save that follows upon the first, again and again.

    Then a training comes through.
    """
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    saved, ended, step = tmp_path / "state.pt", tmp_path / "ended", finetune._take_step
    begun = time.monotonic()
    history, whole = trained("ft", network, images)
    length = time.monotonic() - begun

    def child(most):
        """Train on; after so many steps only wait, so that who kills it is never late."""
        done = []
        monkeypatch.setattr(
            finetune,
            "_take_step",
            lambda *a: (done.append(1), time.sleep(600 * (len(done) > most)), step(*a))[-1],
        )
        again, resumed = trained("ft", network, images, saved)
        safetensors.torch.save_file(resumed, ended, {"history": json.dumps(again)})

    moments = random.Random(0)
    for most in (2, 2, 2, 2, STEPS):
        before = stamp(saved)
        if (pid := os.fork()) == 0:
            try:
                child(most)
            finally:
                os._exit(0)
        if most < STEPS:
            waited = wait_until(lambda: stamp(saved) != before, 60, every=0.001)  # noqa: B023
            assert waited, "it saves nothing"
            time.sleep(moments.uniform(0, 1.5) * length / STEPS)
            os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]) == (most < STEPS)
    with safetensors.safe_open(ended, "pt") as file:
        assert json.loads(file.metadata()["history"]) == history
        assert all(torch.equal(file.get_tensor(key), whole[key]) for key in whole)


def stamp(path):
    """What tells one state of a file from the next."""
    try:
        return path.stat().st_ino, path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_a_training_that_diverges_after_a_kill_still_has_its_last_good_state(
    network, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    step = finetune._take_step

    def breaks(algorithm, *arguments):
        """Nothing finite in the last step of the second epoch.

        Where `kills` says so, training is killed in the step before that.
        """
        if algorithm.step == 4 and kills:
            raise kills.pop()
        return step(algorithm, *arguments) * (float("nan") if algorithm.step == 5 else 1)

    monkeypatch.setattr(finetune, "_take_step", breaks)
    kills = []
    with pytest.raises(finetune.DivergenceError) as whole:
        trained("ft", network, images)
    kills = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        trained("ft", network, images, tmp_path / "state.pt")
    with pytest.raises(finetune.DivergenceError) as resumed:
        trained("ft", network, images, tmp_path / "state.pt")
    good = resumed.value.finite_changes
    assert resumed.value.finite_epochs == whole.value.finite_epochs == 1 and len(good) > 10
    assert good.keys() == whole.value.finite_changes.keys()
    assert all(torch.equal(good[key], whole.value.finite_changes[key]) for key in good)


def test_random_numbers_go_on_where_they_were(images, tmp_path, monkeypatch):
    """Dropout draws from torch's stream, of which the state is saved too."""
    torch.manual_seed(0)
    dropping = timm.create_model("test_vit", num_classes=1000, img_size=SIDE, drop_rate=0.5).eval()
    history, whole = trained("ft", dropping, images, dropout=0.5)
    killed(monkeypatch, [5])
    with pytest.raises(KeyboardInterrupt):
        trained("ft", dropping, images, tmp_path / "s.pt", dropout=0.5)
    again, resumed = trained("ft", dropping, images, tmp_path / "s.pt", dropout=0.5)
    assert again == history and all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert trained("ft", dropping, images, dropout=0.0)[0] == trained("ft", dropping, images)[0]


def small_training(path):
    """A network of two parts of which one trains, and what is saved with it.

    A prompt outside of it, their optimizer, and a tensor of the method.
    """
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    prompt = torch.nn.Parameter(torch.ones(3))
    trainable = {"0.weight": model[0].weight, "prompt.top": prompt, "0.bias": model[0].bias}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1, momentum=0.9)
    state = resume.TrainingState(
        path, model, optimizer, trainable, {"omega": torch.zeros(2)}, {"odd": torch.zeros(1)}
    )
    return model, trainable, optimizer, state


def take_step(model, trainable, optimizer):
    (model(torch.randn(4, 3) * trainable["prompt.top"]) * torch.rand(4, 2)).sum().backward()
    trainable["0.bias"].grad = None  # no gradient reaches it, so that it has no momentum
    optimizer.step()
    optimizer.zero_grad()


def test_a_saved_state_is_all_that_the_next_step_depends_on(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    model, trainable, optimizer, state = small_training(tmp_path / "s.pt")
    assert state.restore() == (0, 0, [], [])
    take_step(model, trainable, optimizer)
    state.tensors["memory"]["omega"] += torch.tensor([0.25, 0.5])
    rows = [{"epoch": 1, "lr": 0.1, "loss": 1 / 3}]
    sums = [torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([4.0, 5.0, 6.0]).double()]
    state.tensors["good"]["odd"] += 7
    state.save_if_due(3, 2, rows, sums)
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]
    take_step(model, trainable, optimizer)

    other, others, of_other, again = small_training(tmp_path / "s.pt")
    with torch.no_grad():
        for part in others.values():
            part.fill_(5)
    torch.manual_seed(9)
    epoch, step, history, summed = again.restore()
    assert (epoch, step, history) == (3, 2, rows)
    assert len(summed) == 2 and all(torch.equal(a, b) for a, b in zip(summed, sums, strict=True))
    assert again.tensors["good"]["odd"].tolist() == [7]
    assert again.tensors["memory"]["omega"].tolist() == [0.25, 0.5]
    assert of_other.state[others["0.weight"]]["momentum_buffer"].any()
    assert "momentum_buffer" not in of_other.state[others["0.bias"]]
    take_step(other, others, of_other)
    for name in trainable:
        assert torch.equal(others[name], trainable[name]), name
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@pytest.mark.parametrize("limit", [100, 5000], ids=["what is buffered", "what torch writes"])
def test_a_state_larger_than_a_limit_of_files_names_its_path(
    tmp_path, monkeypatch, limited_files, limit
):
    """With a limit of some bytes, the error is the system's, and the last state stays.

    A job makes a sentence of the error.
    """
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    *_, state = small_training(tmp_path / "s.pt")
    state.tensors["memory"]["omega"] = torch.zeros(10_000)
    (tmp_path / "s.pt").write_bytes(b"the last one")
    with pytest.raises(OSError, match="s.tmp") as failed, limited_files(limit):
        state.save_if_due(0, 1, [], [torch.zeros(3)])
    assert failed.value.errno == errno.EFBIG and (tmp_path / "s.pt").read_bytes() == b"the last one"


def test_a_state_is_saved_every_five_minutes(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    path = tmp_path / "s.pt"
    *_, state = small_training(path)
    saved = []
    for moment in (1000.0, 1299.0, 1300.0, 1301.0, 1599.0, 1600.5, 1700.0):
        now[0] = moment
        path.unlink(missing_ok=True)
        state.save_if_due(0, 1, [], [torch.zeros(3)])
        saved += [moment] * path.exists()
    assert saved == [1300.0, 1600.5]
    *_, nowhere = small_training(None)
    now[0] += 1e6
    nowhere.save_if_due(0, 1, [], [torch.zeros(3)])
    assert nowhere.restore() == (0, 0, [], []) and not path.exists()
