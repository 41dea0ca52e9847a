"""A training that is killed goes on to the same bytes, whatever the method and the moment."""

import copy
import errno
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from rib.catalog.catalog import Catalog
from rib.catalog.label_space import LabelSpace
from rib.jobs.job import job
from rib.methods.base import Task, load_algorithm
from rib.models import device as devices
from rib.models.augmentation import Augmentation, recipe_transform
from rib.training import loop, training_state
from rib.training.divergence import DivergenceError
from rib.training.training_state import Position, TrainingState
from tiny.changed import replace
from tiny.models import training
from tiny.models.training import CPU, RUN, images_of, settings_of
from tiny.projects.project import ROOT
from tiny.projects.waiting import wait_until
from tiny.tiers import first

SIDE = 160  # of the images, in pixels
IMAGES = 10  # of the target: three batches
STEPS_OF_EPOCH = 3
EPOCHS = 3
STEPS = EPOCHS * STEPS_OF_EPOCH
CATALOG = Catalog([ROOT / "workflow/catalog"])

OF_CARD = {"device": "cuda", "gpu": "card", "capability": "8.0", "precision": "bf16"}

SGD = replace(training.TRAINING, epochs=EPOCHS, warmup_fraction=0.3)
ADAMW = replace(
    SGD,
    optimizer="adamw",
    weight_decay=0.1,
    clip_norm=0.5,
    label_smoothing=0.1,
    augmentation=["crop", "flip"],
)
LION = replace(ADAMW, optimizer="lion", augmentation=["randaugment"])
RECIPES = {
    "paper": SGD,
    "adamw": ADAMW,
    "lion": LION,
    "by_layers": replace(ADAMW, layer_decay=0.8, decay_norm_and_bias=False),
    # ends in the third epoch, of which one step is left out
    "cut_short": replace(LION, epochs=None, steps=STEPS - 1),
}
# Methods with recipes.
CASES = [
    ("ft", "paper"),
    ("linear_probe", "paper"),
    ("visual_prompt", "paper"),
    ("lora", "paper"),
    ("ewc", "paper"),
    ("lwf", "paper"),
    ("replay", "paper"),
    ("linear_probe_released", "paper"),
    ("ft", "adamw"),
    ("ft", "lion"),
    ("lwf", "adamw"),
    ("linear_probe", "adamw"),
    ("spd", "adamw"),
    ("ftp", "paper"),
    ("ftp", "by_layers"),
    ("digrap", "paper"),
    ("ldifs", "paper"),
    ("self_distillation_ema", "paper"),
    ("self_distillation_wma", "adamw"),
    ("surgical_first", "paper"),
    ("surgical_last", "adamw"),
    ("ft", "by_layers"),
    ("ft", "cut_short"),
]


@pytest.fixture(scope="module")
def network():
    """A small vision transformer."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE).eval()


@pytest.fixture(scope="module")
def images():
    """A target of noise, of five classes."""
    rng = np.random.default_rng(0)
    keys = ("a", "b", "c", "d", "e")
    outputs = ((0,), (10,), (20,), (30,), (40,))
    return SimpleNamespace(
        rows=None,
        images=rng.integers(0, 255, (IMAGES, SIDE, SIDE, 3)).astype(np.uint8),
        labels=np.arange(IMAGES) % 5,
        space=LabelSpace(keys, outputs, keys),
    )


def train(name, network, images, saved=None, recipe=SGD, watch=None, **settings):
    """What a job does: everything from the start, then on from what was saved.

    Args:
        name: of the method.
        saved: file of the saved state; None to save nothing.
        watch: as of rib.training.loop.train.
        settings: of the method, in place of those of its entry.
    """
    entry = CATALOG.methods[name]
    torch.manual_seed(0)
    algorithm_file = CATALOG.algorithm_file(entry.algorithm)
    algorithm = load_algorithm(algorithm_file, {**settings_of(entry), **settings}, entry.name)
    target = images_of(images)
    reference = images_of(images)
    if recipe.augmentation:
        target.augmentation = Augmentation(recipe_transform(recipe.augmentation, SIDE), 0)
    algorithm.setup(Task(copy.deepcopy(network), target, reference, 0))
    return loop.train(algorithm, network.state_dict(), recipe, RUN, CPU, saved, watch=watch)


def assert_same_tensors(tensors, expected):
    """Two mappings have the same tensors."""
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


@pytest.fixture
def saves_every_step(monkeypatch):
    """A training is saved after every step."""
    monkeypatch.setattr(training_state, "SAVE_EVERY", 0)


# Trainings that are killed


@dataclass
class StepCounter:
    """Counts the steps of a training."""

    steps: int = 0


def interrupt_trainings(monkeypatch, last_steps):
    """Interrupt the next trainings, each at the end of a step; later ones come through.

    Args:
        last_steps: for each training, how many steps it does.

    Returns:
        What counts the steps since the last interruption.
    """
    take_step = loop.take_step
    remaining = list(last_steps)
    counter = StepCounter()

    def take_step_and_interrupt(*arguments):
        result = take_step(*arguments)
        counter.steps += 1
        if remaining and counter.steps == remaining[0]:
            remaining.pop(0)
            counter.steps = 0
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(loop, "take_step", take_step_and_interrupt)
    return counter


@pytest.mark.parametrize(("name", "recipe"), first(CASES, 2))
def test_a_training_killed_again_and_again_gives_the_same_bytes(
    network, images, name, recipe, tmp_path, monkeypatch, saves_every_step
):
    # given
    saved = tmp_path / "state.pt"
    arguments = {}
    if recipe != "paper":
        arguments = {"recipe": RECIPES[recipe], "lr": 0.001}
    undisturbed = train(name, network, images, **arguments)
    # when it is killed before anything is saved, within an epoch, at its end, and in the last step
    steps_to_the_end = 4 if recipe == "cut_short" else 5
    last_steps = [1, 2, 2, 3, steps_to_the_end]
    counter = interrupt_trainings(monkeypatch, last_steps)
    for _ in last_steps:
        with pytest.raises(KeyboardInterrupt):
            train(name, network, images, saved, **arguments)
    resumed = train(name, network, images, saved, **arguments)
    # then
    assert counter.steps < STEPS, "it did not begin again"
    assert resumed.history == undisturbed.history
    assert_same_tensors(resumed.changed, undisturbed.changed)


def stamp_of(path):
    """What tells one state of a file from the next; None if there is no file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def wait_for_a_save(saved, stamp_before):
    """Wait until a file is another than it was."""
    is_saved = wait_until(lambda: stamp_of(saved) != stamp_before, 60, every=0.001)
    assert is_saved, "it saves nothing"


def train_in_a_child(train_on):
    """Call a function in a forked process; gives the process's id."""
    process = os.fork()
    if process == 0:
        try:
            train_on()
        finally:
            os._exit(0)
    return process


@pytest.mark.thorough
def test_a_process_killed_at_random_moments_gives_the_same_bytes(
    network, images, tmp_path, monkeypatch, saves_every_step
):
    """SIGKILL, in the midst of a step or of a save that follows upon the first, again and again.

    Then a training comes through.
    """
    # given
    saved = tmp_path / "state.pt"
    ended = tmp_path / "ended"
    take_step = loop.take_step
    start = time.monotonic()
    undisturbed = train("ft", network, images)
    seconds_per_step = (time.monotonic() - start) / STEPS

    def train_on(most_steps):
        """Train on; after so many steps only wait, so that who kills it is never late."""
        steps = itertools.count(1)

        def take_step_or_wait(*arguments):
            if next(steps) > most_steps:
                time.sleep(600)
            return take_step(*arguments)

        monkeypatch.setattr(loop, "take_step", take_step_or_wait)
        trained = train("ft", network, images, saved)
        safetensors.torch.save_file(
            trained.changed, ended, {"history": json.dumps(trained.history)}
        )

    # when
    moments = random.Random(0)
    for _ in range(4):
        stamp_before = stamp_of(saved)
        process = train_in_a_child(lambda: train_on(most_steps=2))
        wait_for_a_save(saved, stamp_before)
        time.sleep(moments.uniform(0, 1.5) * seconds_per_step)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status)
    process = train_in_a_child(lambda: train_on(most_steps=STEPS))
    _, status = os.waitpid(process, 0)
    assert not os.WIFSIGNALED(status)
    # then
    with safetensors.safe_open(ended, "pt") as file:
        assert json.loads(file.metadata()["history"]) == undisturbed.history
        changed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert_same_tensors(changed, undisturbed.changed)


LAST_STEP_OF_SECOND_EPOCH = 2 * STEPS_OF_EPOCH - 1  # counted from 0


def let_second_epoch_diverge(monkeypatch, is_killed_before=False):
    """Let a loss be NaN in the last step of the second epoch.

    Args:
        is_killed_before: whether training is killed in the step before that.
    """
    take_step = loop.take_step

    def take_step_and_diverge(algorithm, *arguments):
        if is_killed_before and algorithm.step == LAST_STEP_OF_SECOND_EPOCH - 1:
            raise KeyboardInterrupt
        result = take_step(algorithm, *arguments)
        if algorithm.step == LAST_STEP_OF_SECOND_EPOCH:
            return result * float("nan")
        return result

    monkeypatch.setattr(loop, "take_step", take_step_and_diverge)


def test_a_training_that_diverges_after_a_kill_still_has_its_last_good_state(
    network, images, tmp_path, monkeypatch, saves_every_step
):
    saved = tmp_path / "state.pt"
    with monkeypatch.context() as patch:
        let_second_epoch_diverge(patch)
        with pytest.raises(DivergenceError) as undisturbed:
            train("ft", network, images)
    with monkeypatch.context() as patch:
        let_second_epoch_diverge(patch, is_killed_before=True)
        with pytest.raises(KeyboardInterrupt):
            train("ft", network, images, saved)
    with monkeypatch.context() as patch:
        let_second_epoch_diverge(patch)
        with pytest.raises(DivergenceError) as resumed:
            train("ft", network, images, saved)
    assert resumed.value.finite_epochs == undisturbed.value.finite_epochs == 1
    assert len(resumed.value.finite_changes) > 10
    assert_same_tensors(resumed.value.finite_changes, undisturbed.value.finite_changes)


def test_random_numbers_go_on_where_they_were(
    network, images, tmp_path, monkeypatch, saves_every_step
):
    """Dropout draws from torch's stream, of which the state is saved too."""
    # given
    saved = tmp_path / "state.pt"
    torch.manual_seed(0)
    with_dropout = timm.create_model(
        "test_vit", num_classes=1000, img_size=SIDE, drop_rate=0.5
    ).eval()
    undisturbed = train("ft", with_dropout, images)
    assert undisturbed.history != train("ft", network, images).history
    # when
    interrupt_trainings(monkeypatch, [5])
    with pytest.raises(KeyboardInterrupt):
        train("ft", with_dropout, images, saved)
    resumed = train("ft", with_dropout, images, saved)
    # then
    assert resumed.history == undisturbed.history
    assert_same_tensors(resumed.changed, undisturbed.changed)


# Trainings that are told to end


take_step = loop.take_step


class Signaller:
    """Sends a signal to this process in a step, or at the end of an epoch.

    Attributes:
        steps: how many steps were taken since the start of the job.
        images_seen: how many images were trained on, as the loop said last.
    """

    def __init__(self, number, step=None, epoch=None):
        """Steps and epochs are counted from 1; without both nothing is sent."""
        self.number = number
        self.step = step
        self.epoch = epoch
        self.steps = 0

    def take_step(self, *arguments):
        """In place of the loop's; a signal comes before the step is finished."""
        self.steps += 1
        if self.steps == self.step:
            os.kill(os.getpid(), self.number)
        return take_step(*arguments)

    def watch(self, history, images_seen, gradient_norm, *_):
        """Called by the loop at its start and after each epoch."""
        self.images_seen = images_seen
        if gradient_norm is not None and len(history) == self.epoch:
            os.kill(os.getpid(), self.number)


def train_as_a_job(network, images, monkeypatch, signaller, recipe):
    """The bytes of the checkpoint that a job writes with what it trains in the current folder."""
    monkeypatch.setattr(loop, "take_step", signaller.take_step)
    with job(
        rule="finetune",
        name="n",
        cfg={},
        inputs={},
        outputs={"checkpoint": "checkpoint.safetensors"},
        log_file="n.log",
        resumes="state.pt",
    ) as output:
        saved = output["checkpoint"].with_name("state.pt")
        trained = train("ft", network, images, saved, recipe, watch=signaller.watch)
        changed = {**trained.changed, "losses": torch.tensor([r["loss"] for r in trained.history])}
        safetensors.torch.save_file(changed, output["checkpoint"])
    return Path("checkpoint.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("moment", "steps_before", "recipe"),
    [
        ({"step": 1}, 1, "paper"),
        ({"step": 5}, 5, "paper"),
        ({"epoch": 1}, 3, "adamw"),
        ({"step": STEPS - 1}, STEPS - 1, "cut_short"),
        ({"epoch": EPOCHS}, STEPS - 1, "cut_short"),
    ],
    ids=str,
)
def test_a_training_that_is_told_to_end_goes_on_to_the_same_bytes(
    network, images, tmp_path, monkeypatch, number, moment, steps_before, recipe
):
    """The state is saved after the step in which the signal comes, though none is due."""
    # given
    monkeypatch.chdir(tmp_path)
    handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    recipe = RECIPES[recipe]
    steps = STEPS if recipe.steps is None else recipe.steps
    undisturbed = Signaller(number)
    expected = train_as_a_job(network, images, monkeypatch, undisturbed, recipe)
    assert undisturbed.steps == steps
    Path("checkpoint.safetensors").unlink()
    # when
    stopped = Signaller(number, **moment)
    with pytest.raises(SystemExit) as end:
        train_as_a_job(network, images, monkeypatch, stopped, recipe)
    # then
    assert end.value.code == 128 + number
    assert stopped.steps == steps_before
    assert not Path("checkpoint.safetensors").exists()
    assert "told to end" in Path("n.log").read_text()
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == handlers
    # and it goes on
    resumed = Signaller(number)
    assert train_as_a_job(network, images, monkeypatch, resumed, recipe) == expected
    assert resumed.steps == steps - steps_before
    assert resumed.images_seen == undisturbed.images_seen


def test_a_training_does_not_go_on_in_another_precision(
    network, images, tmp_path, monkeypatch, saves_every_step, caplog
):
    """As where a job with `precision: auto` is submitted again to another kind of GPU."""
    # given
    saved = tmp_path / "state.pt"
    counter = interrupt_trainings(monkeypatch, [5])
    with pytest.raises(KeyboardInterrupt):
        train("ft", network, images, saved)
    assert saved.exists()
    # when
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    with caplog.at_level("WARNING", "rib"):
        restarted = train("ft", network, images, saved)
    # then
    assert counter.steps == STEPS
    assert "fp32" in caplog.text and "bf16" in caplog.text
    undisturbed = train("ft", network, images)
    assert restarted.history == undisturbed.history
    assert_same_tensors(restarted.changed, undisturbed.changed)


def test_a_training_goes_on_on_another_card_of_the_same_precision_and_names_both(
    network, images, tmp_path, monkeypatch, saves_every_step
):
    # given: it is stopped on one card, then on another
    saved = tmp_path / "state.pt"
    counter = interrupt_trainings(monkeypatch, [2, 2])
    cards = [{**OF_CARD, "gpu": f"card {number}"} for number in range(3)]
    for card in cards[:2]:
        monkeypatch.setattr(training_state, "facts_of", lambda device, card=card: card)
        with pytest.raises(KeyboardInterrupt):
            train("ft", network, images, saved)
    # when
    monkeypatch.setattr(training_state, "facts_of", lambda device: cards[2])
    resumed = train("ft", network, images, saved)
    # then
    assert counter.steps == STEPS - 2
    assert resumed.earlier_devices == cards[:2]
    undisturbed = train("ft", network, images)
    assert undisturbed.earlier_devices == []
    assert resumed.history == undisturbed.history
    assert_same_tensors(resumed.changed, undisturbed.changed)


# What is saved


@dataclass(frozen=True)
class SmallTraining:
    """A network of two modules of which one trains, and what is saved with it.

    A prompt outside of it, their optimizer, and a tensor each of the method and of the last good
    state.
    """

    model: torch.nn.Module
    trainable: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    state: TrainingState

    @classmethod
    def saved_in(cls, path: Path | None) -> "SmallTraining":
        """At its start; None saves nothing."""
        torch.manual_seed(0)
        linear = torch.nn.Linear(3, 2)
        model = torch.nn.Sequential(linear, torch.nn.BatchNorm1d(2))
        prompt = torch.nn.Parameter(torch.ones(3))
        trainable = {"0.weight": linear.weight, "prompt.top": prompt, "0.bias": linear.bias}
        optimizer = torch.optim.SGD(trainable.values(), lr=0.1, momentum=0.9)
        memory = {"omega": torch.zeros(2)}
        good = {"odd": torch.zeros(1)}
        state = TrainingState(path, model, optimizer, trainable, memory, good)
        return cls(model, trainable, optimizer, state)

    def take_step(self):
        """One step on random inputs, in which no gradient reaches the bias."""
        inputs = torch.randn(4, 3) * self.trainable["prompt.top"]
        outputs = self.model(inputs) * torch.rand(4, 2)
        outputs.sum().backward()
        self.trainable["0.bias"].grad = None  # so that it has no momentum
        self.optimizer.step()
        self.optimizer.zero_grad()

    def momentum(self, name):
        """The momentum of a trained parameter; None if it has none."""
        return self.optimizer.state[self.trainable[name]].get("momentum_buffer")


def test_a_saved_state_is_all_that_the_next_step_depends_on(tmp_path, saves_every_step):
    # given a training that is saved between two steps
    first = SmallTraining.saved_in(tmp_path / "state.pt")
    assert first.state.restore() == (0, 0, [], [])
    first.take_step()
    first.state.tensors["memory"]["omega"] += torch.tensor([0.25, 0.5])
    first.state.tensors["good"]["odd"] += 7
    history = [{"epoch": 1, "lr": 0.1, "loss": 1 / 3}]
    sums = [torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([4.0, 5.0, 6.0]).double()]
    first.state.save(Position(3, 2, history, sums))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    first.take_step()
    # when a training that differs in all of this is restored
    second = SmallTraining.saved_in(tmp_path / "state.pt")
    with torch.no_grad():
        for parameter in second.trainable.values():
            parameter.fill_(5)
    torch.manual_seed(9)
    position = second.state.restore()
    # then all of it is as it was saved
    assert position.epoch == 3
    assert position.step == 2
    assert position.history == history
    assert len(position.sums) == len(sums)
    for restored_sums, saved_sums in zip(position.sums, sums, strict=True):
        assert torch.equal(restored_sums, saved_sums)
    assert second.state.tensors["memory"]["omega"].tolist() == [0.25, 0.5]
    assert second.state.tensors["good"]["odd"].tolist() == [7]
    assert second.momentum("0.weight").any()
    assert second.momentum("0.bias") is None
    # and the next step is the same
    second.take_step()
    assert_same_tensors(second.trainable, first.trainable)
    assert_same_tensors(second.model.state_dict(), first.model.state_dict())


def save(small_training):
    """Save a state at the end of a step, if it is due."""
    if small_training.state.is_due():
        small_training.state.save(Position(0, 1, [], [torch.zeros(3)]))


@pytest.mark.parametrize("limit", [100, 5000], ids=["what is buffered", "what torch writes"])
def test_a_state_larger_than_a_limit_of_files_names_its_path(
    tmp_path, limited_files, limit, saves_every_step
):
    """With a limit of some bytes, the error is the system's, and the last state stays.

    A job makes a sentence of the error.
    """
    path = tmp_path / "state.pt"
    path.write_bytes(b"the last one")
    small_training = SmallTraining.saved_in(path)
    small_training.state.tensors["memory"]["omega"] = torch.zeros(10_000)
    with pytest.raises(OSError, match="state.tmp") as failure, limited_files(limit):
        save(small_training)
    assert failure.value.errno == errno.EFBIG
    assert path.read_bytes() == b"the last one"


class Clock:
    """In place of `time`, a clock that a test sets, in seconds."""

    now = 1000.0

    def monotonic(self):
        """The time."""
        return self.now


def test_a_state_is_saved_every_five_minutes(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(training_state.time, "monotonic", clock.monotonic)
    path = tmp_path / "state.pt"
    small_training = SmallTraining.saved_in(path)
    saved_at = []
    for moment in (1000.0, 1299.0, 1300.0, 1301.0, 1599.0, 1600.5, 1700.0):
        clock.now = moment
        path.unlink(missing_ok=True)
        save(small_training)
        if path.exists():
            saved_at.append(moment)
    assert saved_at == [1300.0, 1600.5]


def test_without_a_file_nothing_is_saved(tmp_path, monkeypatch, saves_every_step):
    monkeypatch.chdir(tmp_path)
    small_training = SmallTraining.saved_in(None)
    save(small_training)
    assert small_training.state.restore() == (0, 0, [], [])
    assert not list(tmp_path.iterdir())
