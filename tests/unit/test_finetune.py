"""Training against a loop written out from the definitions, and what a job makes of it."""

import copy
import csv
import itertools
import logging
import math
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from rib.base.errors import PermanentError, UserError
from rib.base.files import read_json
from rib.base.plugins import LIBRARY
from rib.catalog.catalog import Catalog
from rib.data.dataset import PreparedDataset
from rib.data.subsets import first_images, subset
from rib.data.view import DatasetFiles
from rib.jobs.messages import is_permanent
from rib.methods.ft import FullFineTuning
from rib.methods.lwf import LearningWithoutForgetting
from rib.models import device as devices
from rib.models.augmentation import Augmentation, recipe_transform
from rib.models.checkpoint import xor_compress, xor_decompress
from rib.models.network import build
from rib.schema.algorithm_settings import DEFAULTS_OF_TRAINING
from rib.schema.method_facts import MethodFacts
from rib.schema.run import Run
from rib.training import loop, training_state
from rib.training.divergence import DivergenceError
from rib.training.finetune import finetune
from rib.training.loop import train
from rib.training.training_settings import FineTuningSettings, learning_rates
from tiny.changed import replace
from tiny.models.training import (
    CODE,
    COMPUTE,
    CPU,
    MEAN,
    OF_CPU,
    RUN,
    SPACE,
    STD,
    TRAINING,
    VIEW,
    masked,
    model_folder,
    normalised,
    prepared_folder,
    random_images,
    rate,
    rows_of,
    split_file,
    task_of,
    trained,
    trained_by_hand,
    with_defaults,
)

# Everything that a setting could hide behind is on: weights decay, warm-up ends early, the last
# batch is short.
LR = 0.01
FULL = replace(TRAINING, epochs=3, weight_decay=0.02, warmup_fraction=0.25)


def expected_training(network, target, training, seed=0, **options):
    """A copy of the network that is trained by hand, and its history.

    Args:
        options: of `trained_by_hand`.
    """
    model = copy.deepcopy(network)
    history = trained_by_hand(
        model,
        normalised(target.images),
        target.labels,
        target.space,
        LR,
        training,
        seed,
        **options,
    )
    return model, history


def assert_equal_trainings(network, training, expected):
    """The same weights, to a small part of what they moved, and the same history.

    Args:
        network: what was trained.
        training, expected: the trained network and its history, of the project and by hand.
    """
    trained_model, history = training
    expected_model, expected_history = expected
    before = network.state_dict()
    expected_weights = expected_model.state_dict()
    weights = trained_model.state_dict()
    assert list(weights) == list(expected_weights)
    for name, weight in weights.items():
        moved = (expected_weights[name] - before[name]).float().abs().max().item()
        tolerance = 0.01 * moved + 1e-7
        torch.testing.assert_close(
            weight,
            expected_weights[name],
            rtol=0,
            atol=tolerance,
            msg=f"{name} is off by more than {tolerance}",
        )
    assert_equal_histories(history, expected_history)


def assert_equal_histories(history, expected_history):
    """The same columns in each epoch, and the same numbers but for rounding."""
    assert len(history) == len(expected_history)
    for row, expected_row in zip(history, expected_history, strict=True):
        assert row.keys() == expected_row.keys()
        assert row == pytest.approx(expected_row, rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.5}])
def test_training_is_sgd_with_momentum_and_weight_decay(network, target, changes):
    settings = replace(FULL, **changes)
    training = trained(with_defaults(FullFineTuning, lr=LR), network, target, settings, seed=3)
    expected = expected_training(network, target, settings, seed=3)
    assert_equal_trainings(network, training, expected)


def test_batch_norm_that_trains_follows_the_batches(network, target):
    training = trained(
        with_defaults(FullFineTuning, lr=LR, batch_norm="train"), network, target, FULL
    )
    network_in_training = copy.deepcopy(network).train()
    expected = expected_training(network_in_training, target, FULL)
    assert_equal_trainings(network, training, expected)


def test_a_network_is_compiled_where_that_was_chosen(network, target, monkeypatch):
    compiled = []

    def note_compiled(model):
        compiled.append(model)

    monkeypatch.setattr(torch.nn.Module, "compile", note_compiled)
    one_epoch = replace(FULL, epochs=1)
    trained(with_defaults(FullFineTuning, lr=LR), network, target, one_epoch)
    assert not compiled
    monkeypatch.setitem(devices._policy, "compile", True)
    model, _ = trained(with_defaults(FullFineTuning, lr=LR), network, target, one_epoch)
    (compiled_model,) = compiled
    assert compiled_model is model


def test_parts_of_a_batch_train_as_the_batch_does(network, target):
    """The last part is short: its images weigh as much as others."""
    # given
    settings = replace(FULL, batch_size=7, micro_batch_size=3)
    method = with_defaults(FullFineTuning, lr=LR)
    logits_of_rows = method.logits
    images_of_passes = []

    def logits_and_note(rows):
        images_of_passes.append(len(rows))
        return logits_of_rows(rows)

    method.logits = logits_and_note
    # when
    training = trained(method, network, target, settings)
    # then
    assert_equal_trainings(network, training, expected_training(network, target, settings))
    assert max(images_of_passes) == 3, "memory is that of a part"


def test_a_penalty_gets_the_rows_and_logits_of_its_batch(network, target):
    """LwF: T^2 KL(teacher || student), mean over the batch."""
    with torch.no_grad():
        teacher = F.log_softmax(network(normalised(target.images)) / 3, dim=1)

    def penalty(model, rows, logits, step):
        student = F.log_softmax(logits / 3, dim=1)
        divergences = teacher[rows].exp() * (teacher[rows] - student)
        return 0.7 * 9 * divergences.sum() / len(rows)

    method = with_defaults(
        LearningWithoutForgetting, lr=LR, temperature=3.0, weight=0.7, distil="all"
    )
    training = trained(method, network, target, FULL)
    expected = expected_training(network, target, FULL, penalty=penalty)
    assert_equal_trainings(network, training, expected)


@pytest.mark.parametrize(
    ("images", "changes"),
    [
        (95, {}),
        (96, {}),
        (95, {"warmup_steps": 2}),
        (95, {"warmup_fraction": 0.0}),
        (3, {"epochs": 1}),
    ],
)
def test_the_learning_rate_warms_up_then_follows_a_cosine_to_zero(images, changes):
    training = replace(TRAINING, **{"epochs": 7, "batch_size": 12, **changes})
    steps = math.ceil(images / 12) * training.epochs
    assert training.total_steps(images, images) == steps
    expected = [rate(step, steps, 0.3, training) for step in range(steps)]
    assert list(learning_rates(0.3, steps, training)) == pytest.approx(expected, rel=1e-12, abs=0)


def test_only_what_a_method_trains_has_gradients(network, target):
    """What is frozen costs no gradient, and weight decay doesn't reach it."""
    # given
    model = copy.deepcopy(network)
    head = {"fc.weight": model.fc.weight, "fc.bias": model.fc.bias}
    method = with_defaults(FullFineTuning, lr=LR)
    method.trainable = lambda: list(head.items())
    model.requires_grad_(False)
    method.setup(task_of(model, target))
    # when
    _, changes, _ = train(method, network.state_dict(), FULL, RUN, CPU)
    # then
    assert changes.keys() == head.keys()
    with_gradient = {name for name, p in model.named_parameters() if p.requires_grad}
    assert with_gradient == head.keys()


def test_a_loss_that_is_not_finite_stops_with_where_and_what_to_do(network, target):
    message = r"model m, method x, target t: the loss at epoch \d, step \d is not finite .* 1e\+12"
    with pytest.raises(DivergenceError, match=message):
        trained(
            with_defaults(FullFineTuning, lr=1e12), network, target, replace(TRAINING, epochs=4)
        )


def diverge_at(monkeypatch, diverging_step):
    """Let the loss of one step, counted from 1, be no number."""
    take_step = loop.take_step
    steps = itertools.count(1)

    def take_step_or_diverge(*arguments):
        loss = take_step(*arguments)
        if next(steps) == diverging_step:
            return loss * float("nan")
        return loss

    monkeypatch.setattr(loop, "take_step", take_step_or_diverge)


def set_up(network, target):
    """Full fine-tuning of a copy of the network, ready to train."""
    method = with_defaults(FullFineTuning, lr=LR)
    method.setup(task_of(copy.deepcopy(network), target))
    return method


@pytest.mark.parametrize(("at", "epoch"), [(1, 1), (3, 1), (4, 2)])
def test_a_divergence_names_its_epoch_and_step_and_keeps_what_was_good(
    network, target, monkeypatch, at, epoch
):
    method = set_up(network, target)
    training = replace(FULL, warmup_steps=1)
    diverge_at(monkeypatch, at)  # with three steps in an epoch
    message = f"the loss at epoch {epoch}, step {at} is not finite"
    with pytest.raises(DivergenceError, match=message) as caught:
        train(method, network.state_dict(), training, RUN, CPU)
    assert caught.value.finite_epochs == epoch - 1
    parameters_with_finite_changes = set()
    if epoch == 2:
        parameters_with_finite_changes = {name for name, _ in network.named_parameters()}
    assert caught.value.finite_changes.keys() == parameters_with_finite_changes


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (None, "the loss at epoch 2, step 5"),
        ("conv1.0.weight", "'conv1.0.weight' after step 6"),
        ("bn1.running_var", "'bn1.running_var' after step 6"),
    ],
    ids=["loss", "weight", "statistic"],
)
def test_a_divergence_goes_back_to_the_state_after_the_last_good_epoch(
    network, target, monkeypatch, broken, message
):
    """Bit for bit, with BatchNorm's statistics, whatever happened since.

    Args:
        broken: a tensor that is not finite after a step; None if the loss isn't.
    """
    one_epoch = replace(FULL, epochs=None, steps=3)
    two_epochs = replace(FULL, epochs=None, steps=6)
    rates = [0.01] * 6
    monkeypatch.setattr(loop, "learning_rates", lambda *settings: rates)
    method = with_defaults(FullFineTuning, lr=0.01, batch_norm="train")
    method.setup(task_of(copy.deepcopy(network), target))
    _, good, _ = train(method, network.state_dict(), one_epoch, RUN, CPU)

    method = with_defaults(FullFineTuning, lr=0.01, batch_norm="train")
    method.setup(task_of(copy.deepcopy(network), target))
    optimizer_step = method.update

    def update(optimizer):
        optimizer_step(optimizer)
        if broken is not None and method.step == 5:  # the last one, counted from 0
            method.model.state_dict()[broken].view(-1)[0] = math.nan

    method.update = update
    if broken is None:
        diverge_at(monkeypatch, 5)
    with pytest.raises(DivergenceError, match=message) as caught:
        train(method, network.state_dict(), two_epochs, RUN, CPU)
    assert caught.value.finite_epochs == 1
    changes = caught.value.finite_changes
    assert changes.keys() == good.keys()
    assert "bn1.running_var" in good
    assert all(torch.equal(changes[name], good[name]) for name in good)


def test_a_divergence_is_noticed_within_an_epoch_each_time_that_the_state_is_saved(
    network, target, tmp_path, monkeypatch
):
    # given: it diverges in the first of three steps
    method = set_up(network, target)
    diverge_at(monkeypatch, 1)
    monkeypatch.setattr(training_state, "SAVE_EVERY", 0)
    saved = tmp_path / "state.pt"
    # when
    with pytest.raises(DivergenceError, match="epoch 1, step 1 "):
        train(method, network.state_dict(), FULL, RUN, CPU, saved)
    # then no more steps are taken, and the state is not one to go on from
    assert method.step == 1
    assert not saved.exists()


def test_weights_are_read_once_unless_somebody_asks(network, target, tmp_path):
    """They are copied to the host for that, which takes long on a GPU.

    Who asks are the snapshots, and who watches, if datasets are monitored.
    """

    def reads(watch=None, snapshots=()):
        method = with_defaults(FullFineTuning, lr=0.01)
        method.setup(task_of(copy.deepcopy(network), target))
        read_at = []
        read = method.changed_tensors
        method.changed_tensors = lambda pretrained: read_at.append(method.step) or read(pretrained)
        train(method, network.state_dict(), FULL, RUN, CPU, snapshots=snapshots, watch=watch)
        return read_at

    epochs = FULL.epochs
    assert reads() == [3 * epochs]
    assert reads(watch=lambda *told: None) == [3 * epochs]
    at_epochs = [3 * (i + 1) for i in range(epochs)]
    monitored = reads(watch=lambda rows, seen, norm, read, device: norm is not None and read())
    assert monitored == [*at_epochs, 3 * epochs]
    snapshots = [tmp_path / f"{i}.safetensors" for i in range(epochs)]
    assert reads(snapshots=snapshots) == [*at_epochs, 3 * epochs]


def test_a_training_that_goes_on_counts_what_was_done_before(
    network, target, tmp_path, monkeypatch, caplog, progress
):
    caplog.set_level(logging.INFO, "rib")
    monkeypatch.setattr("rib.training.training_state.SAVE_EVERY", 0)
    take_step = loop.take_step
    steps = itertools.count(1)

    def take_step_or_stop(*arguments):
        if next(steps) in (3, 6):
            raise KeyboardInterrupt
        return take_step(*arguments)

    def begin_or_go_on():
        method = set_up(network, target)
        return train(method, network.state_dict(), FULL, RUN, CPU, tmp_path / "s.pt")

    # when
    monkeypatch.setattr(loop, "take_step", take_step_or_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            begin_or_go_on()
    history, _, _ = begin_or_go_on()
    # then
    images_and_totals = [(images, total) for _, images, total, _ in progress()]
    assert images_and_totals == [(8, 30), (8 + 2 + 4, 30), (30, 30)]
    assert "epoch 0, step 2" in caplog.text
    assert "epoch 1, step 1" in caplog.text
    monkeypatch.setattr(loop, "take_step", take_step)
    _, history_without_stops = trained(with_defaults(FullFineTuning, lr=LR), network, target, FULL)
    assert history == history_without_stops


# What a job does: from folders to a checkpoint, a history and a manifest.


@pytest.fixture(scope="module")
def small():
    """A dataset of 18 images, five batches of which the last is short."""
    return random_images(18, 32, seed=1)


@pytest.fixture(scope="module")
def folders(network, small, tmp_path_factory):
    """Folders of a model, a target and a reference dataset, as earlier jobs write them."""
    top = tmp_path_factory.mktemp("folders")
    return {
        "model": model_folder(top / "model", network),
        "target": prepared_folder(top / "target", small),
        "memory": prepared_folder(top / "memory", random_images(6, 32, seed=2)),
    }


SEED_OF_JOB = 5
LR_OF_JOB = 0.02
RUN_OF_JOB = Run("net", "set", "ft", "all", SEED_OF_JOB)
CATALOG = LIBRARY.parents[1] / "catalog"
INPUTS = ("target", "reference", "start", "text_folder", "shared_fisher")
SETTINGS = ("training", "view", "compute", "facts")
OUTPUTS = ("rescue", "snapshots")


def job(folders, out, algorithm="ft", settings=None, run=RUN_OF_JOB, **fields):
    """Run `finetune`; the files that it writes, by name.

    Args:
        fields: of its inputs, settings and output.
    """
    assert fields.keys() <= {*INPUTS, *SETTINGS, *OUTPUTS}
    inputs = {"start": {}, "target": DatasetFiles("set", folders["target"])}
    inputs |= {name: fields[name] for name in INPUTS if name in fields}
    out.mkdir(exist_ok=True)
    paths = {
        "checkpoint": out / "checkpoint.safetensors",
        "history": out / "history.csv",
        "manifest": out / "manifest.json",
        "saved": out / "state.pt",
        "rescue": out / "logs/rescued.safetensors",
    }
    outputs = {**paths, **{name: fields[name] for name in OUTPUTS if name in fields}}
    finetune(
        run=run,
        model_folder=folders["model"],
        **inputs,
        settings=FineTuningSettings(
            algorithm=str(LIBRARY / f"methods/{algorithm}.py"),
            settings={**DEFAULTS_OF_TRAINING, **(settings or {"lr": LR_OF_JOB})},
            facts=fields.get("facts", MethodFacts()),
            parents=[],
            training=fields.get("training", FULL),
            view=fields.get("view", VIEW),
            compute=fields.get("compute", COMPUTE),
            code=CODE,
        ),
        **outputs,
    )
    return paths


def inputs_of(images):
    """Inputs of the network of a job, see `normalised`."""
    return normalised(images, MEAN, STD)


def trained_as_job(network, small, rows=slice(None)):
    """A copy of the network that is trained by hand on rows of a dataset, and its history."""
    model = copy.deepcopy(network)
    pixels = inputs_of(small.images[rows])
    labels = small.labels[rows]
    history = trained_by_hand(model, pixels, labels, SPACE, LR_OF_JOB, FULL, SEED_OF_JOB)
    return model, history


def predict(model, pixels):
    """The predicted classes of images, (n,) in NumPy."""
    with torch.inference_mode():
        return masked(model(pixels), SPACE).argmax(dim=1).numpy()


def stored(network, path):
    """The tensors of a checkpoint, by name."""
    return xor_decompress(safetensors.torch.load_file(path), network.state_dict())


def read_history(path):
    """The rows of a history, with numbers."""
    with open(path, newline="") as file:
        return [
            {column: float(number) for column, number in row.items()}
            for row in csv.DictReader(file)
        ]


def training_images(folders, size):
    """The rows of the images that a run of this size is trained on."""
    dataset = PreparedDataset.open(folders["target"], "set")
    subset_of_size = subset(dataset, size, seed=SEED_OF_JOB)
    if subset_of_size.rows is None:
        return slice(None)
    return subset_of_size.rows


def assert_same_changes(network, changes, model):
    """A checkpoint has the weights of a model, to a small part of what they moved.

    Args:
        network: what was trained.
        changes: tensors of the checkpoint.
    """
    expected = model.state_dict()
    before = network.state_dict()
    assert changes.keys() == {name for name, _ in network.named_parameters()}
    for name, weight in changes.items():
        moved = (expected[name] - before[name]).abs().max().item()
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0.02 * moved)


def test_a_job_writes_what_changed_its_history_and_what_it_saw(
    network, small, folders, tmp_path, progress
):
    # when
    paths = job(folders, tmp_path / "a")
    # then
    run = "net/set/ft/all/5"
    assert progress() == [(f"training {run}", 54, 54, "image"), (f"fit of {run}", 18, 18, "image")]
    model, history = trained_as_job(network, small)
    assert_same_changes(network, stored(network, paths["checkpoint"]), model)
    with open(paths["history"], newline="") as file:
        assert file.readline() == "epoch,lr,loss,cross_entropy,accuracy\n"
    assert_equal_histories(read_history(paths["history"]), history)
    is_right = predict(model.eval(), inputs_of(small.images)) == small.labels
    assert read_json(paths["manifest"]) == {
        **OF_CPU,
        "label_space": SPACE.digest,
        "train_images": 18,
        "steps": 5 * 3,
        "images": 18 * 3,
        "fit": pytest.approx(is_right.mean(), abs=1e-6),
    }
    assert not paths["saved"].exists()
    assert not paths["rescue"].parent.exists()


def test_a_job_trains_on_the_train_split_within_size_and_budget(network, small, folders, tmp_path):
    # of the train split
    split = split_file(tmp_path / "split.parquet", 18)
    target = DatasetFiles("set", folders["target"], split=split)
    paths = job(folders, tmp_path / "split", target=target)
    train_rows = rows_of("train", 18)
    model, _ = trained_as_job(network, small, train_rows)
    assert_same_changes(network, stored(network, paths["checkpoint"]), model)
    assert read_json(paths["manifest"])["images"] == len(train_rows) * 3
    # of a size, of a budget, and of both
    size = {
        "run": Run("net", "set", "ft", "6", SEED_OF_JOB),
        "training": replace(FULL, subset_length="epochs"),
    }
    budget = {"view": replace(VIEW, budget=9)}
    cases = [("size", size, 6), ("budget", budget, 9), ("both", {**size, **budget}, 6)]
    for case, fields, images in cases:
        paths = job(folders, tmp_path / case, **fields)
        manifest = read_json(paths["manifest"])
        assert manifest["train_images"] == images
        assert manifest["steps"] == 3 * math.ceil(images / 4)
        assert manifest["images"] == 3 * images


@dataclass(frozen=True)
class StepsByHand:
    """A training for a number of steps, written out."""

    models: list[torch.nn.Module]  # the network after each step
    cross_entropies: list[float]  # mean of each epoch
    accuracies: list[float]  # share of each epoch


def train_steps_by_hand(network, pixels, labels, training, steps):
    """Train a copy of the network as a job for a number of steps."""
    optimised = copy.deepcopy(network)
    optimizer = torch.optim.SGD(
        optimised.parameters(), lr=1.0, momentum=0.9, weight_decay=training.weight_decay
    )
    n = len(labels)
    batch_size = training.batch_size
    steps_of_epoch = math.ceil(n / batch_size)
    models = []
    images_of_epochs = Counter()
    error_sums = Counter()
    correct_of_epochs = Counter()
    for step in range(steps):
        epoch, step_of_epoch = divmod(step, steps_of_epoch)
        order = np.random.default_rng([SEED_OF_JOB, epoch]).permutation(n)
        start = step_of_epoch * batch_size
        rows = order[start : start + batch_size]
        optimizer.param_groups[0]["lr"] = rate(step, steps, LR_OF_JOB, training)
        optimizer.zero_grad()
        logits = masked(optimised(pixels[rows]), SPACE)
        labels_of_batch = torch.from_numpy(labels)[rows]
        error = F.cross_entropy(logits, labels_of_batch)
        error.backward()
        optimizer.step()
        models.append(copy.deepcopy(optimised))
        images_of_epochs[epoch] += len(rows)
        error_sums[epoch] += len(rows) * error.item()
        correct_of_epochs[epoch] += (logits.argmax(dim=1) == labels_of_batch).sum().item()
    epochs = sorted(images_of_epochs)
    return StepsByHand(
        models=models,
        cross_entropies=[error_sums[epoch] / images_of_epochs[epoch] for epoch in epochs],
        accuracies=[correct_of_epochs[epoch] / images_of_epochs[epoch] for epoch in epochs],
    )


@pytest.mark.parametrize(
    ("how", "size", "steps", "epochs", "images"),
    [
        ({"steps": 7, "epochs": None}, "all", 7, 2, 18 + 2 * 4),
        ({"steps": 7, "epochs": None}, "6", 7, 4, 3 * 6 + 4),
        ({"steps": 7, "epochs": None, "subset_length": "epochs"}, "6", 7, 4, 3 * 6 + 4),
        ({"epochs": 1}, "6", 5, 3, 2 * 6 + 4),
        ({"epochs": 3, "subset_length": "epochs"}, "6", 6, 3, 18),
    ],
)
def test_a_job_trains_for_its_steps_or_epochs(
    network, small, folders, tmp_path, progress, how, size, steps, epochs, images
):
    """Five steps on all 18 images, two on 6; the last epoch may be cut short."""
    # when
    training = replace(FULL, **how)
    run = Run("net", "set", "ft", size, SEED_OF_JOB)
    paths = job(folders, tmp_path / "run", training=training, run=run)
    # then
    rows = training_images(folders, size)
    labels = small.labels[rows]
    expected = train_steps_by_hand(network, inputs_of(small.images[rows]), labels, training, steps)
    assert_same_changes(network, stored(network, paths["checkpoint"]), expected.models[-1])
    history = pd.read_csv(paths["history"])
    assert list(history["epoch"]) == list(range(1, epochs + 1))
    assert list(history["cross_entropy"]) == pytest.approx(expected.cross_entropies, rel=1e-4)
    assert list(history["accuracy"]) == pytest.approx(expected.accuracies, rel=1e-6)
    steps_of_epoch = math.ceil(len(labels) / 4)
    last_steps = [min(steps_of_epoch * epoch, steps) - 1 for epoch in range(1, epochs + 1)]
    rates = [rate(step, steps, LR_OF_JOB, training) for step in last_steps]
    assert list(history["lr"]) == pytest.approx(rates)
    manifest = read_json(paths["manifest"])
    assert manifest["train_images"] == len(labels)
    assert manifest["steps"] == steps
    assert manifest["images"] == images
    progress_of_training, *_ = progress()
    _description, images_done, images_in_total, _unit = progress_of_training
    assert images_done == images
    assert images_in_total == images


@pytest.mark.parametrize(
    ("steps", "number", "kept"),
    [
        (15, 10, [2, 3, 5, 6, 8, 9, 11, 12, 14, 15]),
        (4, 10, [1, 1, 2, 2, 2, 3, 3, 4, 4, 4]),
    ],
)
def test_snapshots_are_at_equal_distances_and_the_last_is_the_checkpoint(
    network, small, folders, tmp_path, steps, number, kept
):
    snapshots = [tmp_path / f"snapshot{n}.safetensors" for n in range(1, number + 1)]
    training = replace(FULL, epochs=None, steps=steps)
    paths = job(folders, tmp_path / "run", snapshots=snapshots, training=training)
    assert snapshots[-1].read_bytes() == paths["checkpoint"].read_bytes()
    expected = train_steps_by_hand(network, inputs_of(small.images), small.labels, training, steps)
    for step, path in zip(kept, snapshots, strict=True):
        assert_same_changes(network, stored(network, path), expected.models[step - 1])


SETTINGS_OF_METHODS = {
    "ft": {"lr": 0.02, "batch_norm": "train", "dropout": 0.5},
    "linear_probe": {"lr": 0.5},
    "lora": {"lr": 0.003, "rank": 2, "alpha": 2, "also": "none"},
    "visual_prompt": {"lr": 20.0, "padding": 0.1, "init_std": 0.0},
}


def with_prompt(pixels, prompt):
    """Inputs with the strips of a padding prompt added at their four sides."""
    prompted = pixels.clone()
    width = prompt["padding_prompt.top"].shape[1]
    prompted[:, :, :width] += prompt["padding_prompt.top"]
    prompted[:, :, -width:] += prompt["padding_prompt.bottom"]
    prompted[:, :, width:-width, :width] += prompt["padding_prompt.left"]
    prompted[:, :, width:-width, -width:] += prompt["padding_prompt.right"]
    return prompted


def predictions_of_checkpoint(network, path, method, pixels):
    """What a network predicts that is put together from what a method stores."""
    tensors = safetensors.torch.load_file(path)
    model = copy.deepcopy(network).eval()
    if method == "visual_prompt":
        return predict(model, with_prompt(pixels, tensors))
    if method == "lora":
        weights = model.state_dict()
        adapted = [key.removesuffix(".lora_A") for key in tensors if key.endswith(".lora_A")]
        for name in adapted:
            update = tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"]
            weights[name] += update.view(weights[name].shape)
        return predict(model, pixels)
    model.load_state_dict({**network.state_dict(), **stored(network, path)})
    return predict(model, pixels)


@pytest.fixture(scope="module")
def telling(network, small, tmp_path_factory):
    """The folders of a network whose predictions differ from image to image, and the network."""
    model = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        feature_maps = model.forward_features(inputs_of(small.images))
        features = model.forward_head(feature_maps, pre_logits=True)
        spread = features.std(dim=0).clamp(0.01)
        random_weights = torch.randn(model.fc.weight.shape, generator=generator)
        model.fc.weight.copy_(random_weights / spread)
        model.fc.bias.copy_(-model.fc.weight @ features.mean(dim=0))
    return model, model_folder(tmp_path_factory.mktemp("telling") / "model", model)


@pytest.mark.parametrize(
    ("name", "size"), [*((name, "all") for name in SETTINGS_OF_METHODS), ("ft", "10")]
)
def test_the_fit_is_the_accuracy_of_the_checkpoint_on_the_training_images(
    telling, small, folders, tmp_path, caplog, name, size
):
    """As they are, whatever training made of them, and by the network as it is evaluated."""
    # given
    caplog.set_level(logging.INFO, "rib")
    network, folder = telling
    # when
    paths = job(
        {**folders, "model": folder},
        tmp_path / "run",
        name,
        SETTINGS_OF_METHODS[name],
        training=replace(FULL, augmentation=["flip", "randaugment"]),
        run=Run("net", "set", name, size, SEED_OF_JOB),
        facts=Catalog([CATALOG]).methods[name].facts,
    )
    # then
    rows = training_images(folders, size)
    pixels = inputs_of(small.images[rows])
    labels = small.labels[rows]
    predictions = predictions_of_checkpoint(network, paths["checkpoint"], name, pixels)
    fit = (predictions == labels).mean()
    assert read_json(paths["manifest"])["fit"] == pytest.approx(fit, abs=1e-6)
    assert not np.array_equal(predictions, predict(network, pixels)), (
        "training changed what is predicted"
    )
    assert f"{100 * fit:.1f} % of {len(labels)} training images" in caplog.text


def test_the_fit_is_of_so_many_images_at_most(
    network, small, folders, tmp_path, monkeypatch, progress
):
    monkeypatch.setattr("rib.training.fit.FIT_IMAGES", 7)
    monkeypatch.setattr("rib.training.fit.FIT_BATCH", 3)
    paths = job(folders, tmp_path / "run")
    scored = first_images(PreparedDataset.open(folders["target"], "set"), 7)
    pixels = inputs_of(small.images[scored.rows])
    is_right = (
        predictions_of_checkpoint(network, paths["checkpoint"], "ft", pixels) == scored.labels
    )
    assert read_json(paths["manifest"])["fit"] == pytest.approx(is_right.mean(), abs=1e-6)
    assert progress()[-1] == ("fit of net/set/ft/all/5", 7, 7, "image")


def test_a_job_with_gradient_checkpointing_writes_the_same_bytes(folders, tmp_path, monkeypatch):
    """It is timm's, and in each step of training only: the fit is measured without it."""
    # given
    calls = []
    checkpoint = torch.utils.checkpoint.checkpoint

    def checkpoint_and_note(*arguments, **options):
        calls.append(arguments)
        return checkpoint(*arguments, **options)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", checkpoint_and_note)
    checkpointing = replace(COMPUTE, gradient_checkpointing=True)
    # when
    paths = job(folders, tmp_path / "all")
    assert not calls
    paths_with_checkpointing = job(folders, tmp_path / "part", compute=checkpointing)
    # then
    steps = FULL.epochs * math.ceil(18 / FULL.batch_size)
    assert calls
    assert len(calls) % steps == 0
    for name in ("checkpoint", "history", "manifest"):
        assert paths_with_checkpointing[name].read_bytes() == paths[name].read_bytes()
    training_batch_norm = {"lr": 0.02, "batch_norm": "train"}
    message = "^method ft on model net: BatchNorm statistics would be updated twice; set compute"
    with pytest.raises(UserError, match=message):
        job(folders, tmp_path / "moving", compute=checkpointing, settings=training_batch_norm)


def test_a_job_augments_by_the_seed_of_its_run(network, small, folders, tmp_path):
    # given
    flipping = replace(FULL, epochs=1, augmentation=["flip"])

    def checkpoint_of(name, training, seed):
        run = Run("net", "set", "ft", "all", seed)
        return job(folders, tmp_path / name, training=training, run=run)["checkpoint"]

    # when
    flipped = checkpoint_of("flipped", flipping, SEED_OF_JOB)
    flipped_again = checkpoint_of("flipped again", flipping, SEED_OF_JOB)
    of_another_seed = checkpoint_of("of another seed", flipping, 6)
    unflipped = checkpoint_of("unflipped", replace(flipping, augmentation=[]), SEED_OF_JOB)
    # then
    assert flipped.read_bytes() == flipped_again.read_bytes()
    assert flipped.read_bytes() != of_another_seed.read_bytes()
    assert flipped.read_bytes() != unflipped.read_bytes()
    flip = Augmentation(recipe_transform(["flip"], 32), SEED_OF_JOB)
    channels_first = torch.from_numpy(small.images).permute(0, 3, 1, 2)
    flipped_images = torch.stack([flip(channels_first[row], 0, row) for row in range(18)])
    images = flipped_images.permute(0, 2, 3, 1).numpy()
    assert not np.array_equal(images, small.images)
    expected = train_steps_by_hand(network, inputs_of(images), small.labels, flipping, 5)
    assert_same_changes(network, stored(network, flipped), expected.models[-1])


@pytest.mark.parametrize("changes", [{"layer_decay": 0.9}, {"decay_norm_and_bias": False}])
def test_a_recipe_that_a_method_cannot_be_trained_with_is_refused_with_its_name(
    folders, tmp_path, changes
):
    run = Run("net", "set", "visual_prompt", "all", SEED_OF_JOB)
    training = replace(FULL, optimizer="adamw", **changes)
    settings = SETTINGS_OF_METHODS["visual_prompt"]
    with pytest.raises(UserError, match="a recipe with layer_decay, or decay_norm_and_bias"):
        job(
            folders,
            tmp_path / "run",
            "visual_prompt",
            settings,
            training=training,
            run=run,
            facts=MethodFacts(padding_prompt=True),
        )
    assert not list((tmp_path / "run").iterdir())


def test_a_job_drops_features_and_blocks_as_its_method_says(network, small, folders, tmp_path):
    """The same random numbers as a training by itself draws with these rates."""
    settings = {"lr": 0.02, "batch_norm": "train", "dropout": 0.4, "drop_path": 0.2}
    paths = job(folders, tmp_path / "run", settings=settings)
    torch.manual_seed(SEED_OF_JOB)
    model = build("timm", "test_resnet", 1000, 0.4, 0.2)
    assert model.drop_rate == 0.4
    model.load_state_dict(network.state_dict())
    task = task_of(model.to(memory_format=torch.channels_last), small, seed=SEED_OF_JOB)
    task.target.mean = 255 * torch.tensor(MEAN).view(1, 3, 1, 1)
    task.target.std = 255 * torch.tensor(STD).view(1, 3, 1, 1)
    method = with_defaults(FullFineTuning, **settings)
    method.setup(task)
    _, expected, _ = train(method, network.state_dict(), FULL, replace(RUN, seed=SEED_OF_JOB), CPU)
    assert_equal_tensors(stored(network, paths["checkpoint"]), expected)


def assert_equal_tensors(tensors, expected):
    """The same tensors by name, to the last bit."""
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name


def test_a_job_starts_from_another_methods_checkpoint_and_stores_all_that_differs(
    network, small, folders, tmp_path
):
    # given
    probed = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        probed.fc.weight += 0.05 * torch.randn(probed.fc.weight.shape, generator=generator)
    changes = {"fc.weight": probed.fc.weight.detach()}
    start = tmp_path / "lp.safetensors"
    safetensors.torch.save_file(xor_compress(changes, network.state_dict()), start)
    # when
    paths = job(folders, tmp_path / "run", start={"linear_probe": start})
    # then
    model, _ = trained_as_job(probed, small)
    assert_same_changes(network, stored(network, paths["checkpoint"]), model)


def test_a_start_with_a_padding_prompt_is_refused(folders, tmp_path):
    strips = {"top": (3, 2, 32), "bottom": (3, 2, 32), "left": (3, 28, 2), "right": (3, 28, 2)}
    prompt = {f"padding_prompt.{name}": torch.zeros(shape) for name, shape in strips.items()}
    safetensors.torch.save_file(prompt, tmp_path / "vp.safetensors")
    with pytest.raises(UserError, match="method ft.*'visual_prompt'"):
        job(folders, tmp_path / "run", start={"visual_prompt": tmp_path / "vp.safetensors"})


@pytest.mark.parametrize(
    ("algorithm", "facts", "key"),
    [
        ("lwf", MethodFacts(stored_outputs=True), "pretrained_teacher: true"),
        ("ft", MethodFacts(padding_prompt=True), "padding_prompt: true"),
        ("flyp", MethodFacts(), "text: required"),
    ],
)
def test_a_class_that_says_otherwise_than_its_entry_is_refused_before_anything_is_read(
    folders, tmp_path, algorithm, facts, key
):
    settings = {"lr": 0.1}
    if algorithm == "lwf":
        settings |= {"temperature": 2.0, "weight": 1.0, "distil": "all"}
    no_files = dict.fromkeys(folders, tmp_path / "missing")
    run = replace(RUN_OF_JOB, method=f"{algorithm}-lr0.1")
    with pytest.raises(UserError, match=rf"^methods\.yaml, {algorithm}: .*'{key}'") as refused:
        job(no_files, tmp_path / "run", algorithm, settings, facts=facts, run=run)
    assert "\n" not in str(refused.value)


def test_a_job_reads_the_reference_dataset_only_where_its_method_is_given_one(
    network, small, folders, tmp_path
):
    settings = {"lr": LR_OF_JOB, "weight": 0.5}
    with pytest.raises(UserError, match="method ft on model net.*pretraining proxy"):
        job(folders, tmp_path / "without", "replay", settings)
    reference = DatasetFiles("memory", folders["memory"])
    paths = job(folders, tmp_path / "with", "replay", settings, reference=reference)
    memory = inputs_of(random_images(6, 32, seed=2).images)
    labels = torch.arange(6) % 3

    def penalty(model, rows, logits, step):
        rng = np.random.default_rng([SEED_OF_JOB, step, int(rows[0]), 1])
        replayed = rng.choice(6, size=len(rows), replace=False)
        return 0.5 * F.cross_entropy(masked(model(memory[replayed]), SPACE), labels[replayed])

    model = copy.deepcopy(network)
    trained_by_hand(
        model,
        inputs_of(small.images),
        small.labels,
        SPACE,
        LR_OF_JOB,
        FULL,
        SEED_OF_JOB,
        penalty,
    )
    assert_same_changes(network, stored(network, paths["checkpoint"]), model)


def test_of_a_reference_dataset_with_a_split_only_the_train_part_is_replayed(folders, tmp_path):
    """Its other images are scored under protocol held_out."""
    # given: the reference dataset with a split, and one that has the images of its train part alone
    whole = random_images(20, 32, seed=2)
    train_part = np.array(rows_of("train", 20))
    alone = SimpleNamespace(
        rows=None,
        images=whole.images[train_part],
        labels=whole.labels[train_part],
        space=whole.space,
    )
    folder = prepared_folder(tmp_path / "whole", whole)
    split = split_file(tmp_path / "split.parquet", 20)
    references = {
        "split": DatasetFiles("memory", folder, split=split),
        "alone": DatasetFiles("memory", prepared_folder(tmp_path / "alone", alone)),
        "without a split": DatasetFiles("memory", folder),
    }
    one_epoch = replace(FULL, epochs=1)
    settings = {"lr": 0.02, "weight": 0.5}
    # when
    stored_bytes = {}
    for name, reference in references.items():
        folder = tmp_path / f"job {name}"
        paths = job(folders, folder, "replay", settings, reference=reference, training=one_epoch)
        stored_bytes[name] = paths["checkpoint"].read_bytes()
    # then
    assert stored_bytes["split"] == stored_bytes["alone"]
    assert stored_bytes["split"] != stored_bytes["without a split"]


def test_a_job_that_diverges_keeps_the_last_good_state_and_leaves_nothing_to_resume(
    network, small, folders, tmp_path, monkeypatch
):
    # given
    (tmp_path / "good").mkdir()
    snapshots = [tmp_path / "good" / f"{epoch}.safetensors" for epoch in (1, 2, 3)]
    job(folders, tmp_path / "good", snapshots=snapshots)
    _after_first, after_second, _after_third = snapshots
    diverge_at(monkeypatch, 12)  # of 5 in an epoch
    monkeypatch.setattr("rib.training.training_state.SAVE_EVERY", 0)
    rescue = tmp_path / "run" / "logs" / "of" / "it" / "rescued.safetensors"
    # when
    message = r"method ft, target set: the loss at epoch 3, step 12 .*epoch 2"
    with pytest.raises(PermanentError, match=message) as caught:
        job(folders, tmp_path / "run", rescue=rescue)
    # then
    assert str(rescue) in str(caught.value)
    assert "0.02" in str(caught.value)
    assert_equal_tensors(safetensors.torch.load_file(rescue), stored(network, after_second))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["logs"]


def test_a_job_whose_weights_are_finite_but_give_infinite_logits_has_diverged(folders, tmp_path):
    """The only step starts from the pretrained weights, so that its loss is finite."""
    one_step = replace(FULL, epochs=None, steps=1, warmup_fraction=0.0, warmup_steps=0)
    with pytest.raises(PermanentError, match=r"method ft, target set: a logit .* 1e\+25"):
        job(folders, tmp_path / "run", settings={"lr": 1e25}, training=one_step)
    rescued = safetensors.torch.load_file(tmp_path / "run/logs/rescued.safetensors")
    assert rescued
    assert all(tensor.isfinite().all() for tensor in rescued.values())
    assert not (tmp_path / "run/manifest.json").exists()


def test_a_job_that_diverges_in_its_first_epoch_keeps_nothing(folders, tmp_path, monkeypatch):
    diverge_at(monkeypatch, 1)
    with pytest.raises(UserError, match="epoch 1, step 1 "):
        job(folders, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_setting_out_of_range_ends_a_job_before_anything_is_read(tmp_path):
    no_files = {"model": tmp_path / "none", "target": tmp_path / "none"}
    with pytest.raises(UserError, match=r"^ft\.py: the setting 'lr' is -1.* methods\.yaml, ft"):
        job(no_files, tmp_path / "run", settings={"lr": -1})


def run_out_of_memory(*arguments, **keywords):
    """What torch does if a GPU has too little memory."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
PINNED = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
LACKS_OF_MEMORY = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuBLAS": RuntimeError(CUBLAS),
    "pinned": RuntimeError(PINNED),
}


@pytest.mark.parametrize("lack", LACKS_OF_MEMORY)
@pytest.mark.parametrize("others", [0, 20_000_000_000], ids=["alone", "beside others"])
def test_lack_of_gpu_memory_is_permanent_unless_other_processes_hold_it(
    folders, tmp_path, monkeypatch, lack, others
):
    def run_out(*arguments):
        raise LACKS_OF_MEMORY[lack]

    own = 60_000_000_000
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, own + others))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: own)
    monkeypatch.setattr("rib.training.loop.take_step", run_out)
    with pytest.raises(UserError, match="micro_batch_size") as error:
        job(folders, tmp_path / "run")
    assert isinstance(error.value, PermanentError) is (others == 0)
    assert ("20.0 GB" in str(error.value)) is (others > 0)
    # and so it is in jobs that train nothing
    assert is_permanent(LACKS_OF_MEMORY[lack]) is (others == 0)


@pytest.mark.parametrize(
    ("place", "phase", "setting"),
    [
        ("rib.methods.base.FineTuning.setup", "setting up", None),
        ("rib.training.loop.take_step", "training", "training.micro_batch_size"),
        ("rib.training.finetune.measure_fit", "measuring the fit of", None),
    ],
)
def test_lack_of_gpu_memory_names_the_phase_and_only_a_setting_that_helps_in_it(
    folders, tmp_path, monkeypatch, place, phase, setting
):
    monkeypatch.setattr(place, run_out_of_memory)
    with pytest.raises(PermanentError, match=f"^out of GPU memory while {phase} net/set") as error:
        job(folders, tmp_path / "run")
    message = str(error.value)
    assert ("batch_size" in message) is (setting is not None)
    assert (setting or "jobs_per_gpu") in message
