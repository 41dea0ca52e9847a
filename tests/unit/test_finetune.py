"""Training against a loop written out from the definitions, and what a job makes of it."""

import copy
import csv
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.run import Run
from rib.config.settings import LIBRARY
from rib.data.prepared import PreparedDataset
from rib.data.subsets import first_images, subset
from rib.data.view import DatasetFiles
from rib.methods.ft import FullFineTuning
from rib.methods.l2_sp import L2StartingPoint
from rib.methods.lwf import LearningWithoutForgetting
from rib.models import device as devices
from rib.models.augmentation import Augmentation
from rib.models.checkpoint import xor_compress, xor_decompress
from rib.models.network import build
from rib.training import finetune
from rib.training.finetune import (
    DivergenceError,
    FineTuningInputs,
    FineTuningOutput,
    epoch_batches,
    train,
)
from rib.training.settings import FineTuningSettings, learning_rates
from tiny.changed import replace
from tiny.training import (
    CODE,
    COMPUTE,
    CPU,
    MEAN,
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
)

# Everything that a setting could hide behind is on: weights decay, warm-up ends early, the last
# batch is short.
FULL = replace(TRAINING, epochs=3, weight_decay=0.02, warmup_fraction=0.25)


def expected(network, target, training, seed=0, lr=0.01, penalty=lambda *_: 0):
    model = copy.deepcopy(network)
    pixels = normalised(target.images)
    history = trained_by_hand(
        model, pixels, target.labels, target.space, lr, training, seed, penalty
    )
    return model, history


def agree(network, found, history, by_hand, history_by_hand):
    """The same weights, to a small part of what they moved, and the same history."""
    before = network.state_dict()
    for (name, value), wanted in zip(
        found.state_dict().items(), by_hand.state_dict().values(), strict=True
    ):
        moved = (wanted - before[name]).float().abs().max().item()
        torch.testing.assert_close(
            value, wanted, rtol=0, atol=0.01 * moved + 1e-7, msg=lambda text, n=name: n + text
        )
    assert [row.keys() for row in history] == [row.keys() for row in history_by_hand]
    for row, other in zip(history, history_by_hand, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"momentum": 0.5}, {"weight_decay": 0.0}, {"warmup_steps": 1}]
)
def test_training_is_sgd_with_momentum_and_weight_decay(network, target, changes):
    training = replace(FULL, **changes)
    found = trained(FullFineTuning(lr=0.01), network, target, training, seed=3)
    agree(network, *found, *expected(network, target, training, seed=3))


def test_batch_norm_that_trains_follows_the_batches(network, target):
    found = trained(FullFineTuning(lr=0.01, batch_norm="train"), network, target, FULL)
    model = copy.deepcopy(network).train()
    history = trained_by_hand(
        model, normalised(target.images), target.labels, target.space, 0.01, FULL, 0
    )
    agree(network, *found, model, history)


def test_a_network_is_compiled_where_that_was_chosen(network, target, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    trained(FullFineTuning(lr=0.01), network, target, replace(FULL, epochs=1))
    assert not compiled
    monkeypatch.setitem(devices._policy, "compile", True)
    model, _ = trained(FullFineTuning(lr=0.01), network, target, replace(FULL, epochs=1))
    assert len(compiled) == 1 and compiled[0] is model


def test_parts_of_a_batch_train_as_the_batch_does(network, target):
    """The last part is short: its images weigh as much as others."""
    training = replace(FULL, batch_size=7, micro_batch_size=3)
    algorithm, sizes = FullFineTuning(lr=0.01), []
    forward = algorithm.logits
    algorithm.logits = lambda rows: sizes.append(len(rows)) or forward(rows)
    agree(
        network,
        *trained(algorithm, network, target, training),
        *expected(network, target, training),
    )
    assert max(sizes) == 3, "memory is that of a part"


def test_a_penalty_is_part_of_the_loss_and_of_the_gradient(network, target):
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    def penalty(model, rows, logits, step):
        return 0.15 * sum((p - start[name]).square().sum() for name, p in model.named_parameters())

    found = trained(L2StartingPoint(lr=0.01, weight=0.3), network, target, FULL)
    agree(network, *found, *expected(network, target, FULL, penalty=penalty))


def test_a_penalty_gets_the_rows_and_logits_of_its_batch(network, target):
    """LwF: T^2 KL(teacher || student), mean over the batch."""
    with torch.no_grad():
        teacher = F.log_softmax(network(normalised(target.images)) / 3, dim=1)

    def penalty(model, rows, logits, step):
        student = F.log_softmax(logits / 3, dim=1)
        return 0.7 * 9 * (teacher[rows].exp() * (teacher[rows] - student)).sum() / len(rows)

    method = LearningWithoutForgetting(lr=0.01, temperature=3.0, weight=0.7, distil="all")
    found = trained(method, network, target, FULL)
    agree(network, *found, *expected(network, target, FULL, penalty=penalty))


@pytest.mark.parametrize(
    ("images", "changes"),
    [
        (95, {}),
        (96, {}),
        (97, {}),
        (95, {"warmup_steps": 2}),
        (95, {"warmup_fraction": 0.0}),
        (3, {"epochs": 1}),
    ],
)
def test_the_learning_rate_warms_up_then_follows_a_cosine_to_zero(images, changes):
    training = replace(TRAINING, **{"epochs": 7, "batch_size": 12, **changes})
    steps = math.ceil(images / 12) * training.epochs
    assert training.total_steps(images, images) == steps
    wanted = [rate(step, steps, 0.3, training) for step in range(steps)]
    assert list(learning_rates(0.3, steps, training)) == pytest.approx(wanted, rel=1e-12, abs=0)


def test_batches_visit_each_image_once_in_an_order_of_seed_and_epoch():
    for epoch in (0, 1):
        batches = epoch_batches(10, 4, 0, epoch)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(np.concatenate(batches)) == list(range(10))
    orders = {tuple(np.concatenate(epoch_batches(10, 4, *key))) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len(orders) == 3


def test_the_same_seed_gives_the_same_weights_and_another_does_not(network, target):
    states = [
        trained(FullFineTuning(lr=0.01), network, target, seed=seed)[0].state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_only_what_a_method_trains_has_gradients(network, target):
    """What is frozen costs no gradient, and weight decay doesn't reach it."""
    method, model = FullFineTuning(lr=0.01), copy.deepcopy(network)
    method.trainable = lambda: [
        (name, p) for name, p in model.named_parameters() if name.startswith("fc.")
    ]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    method.setup(task_of(model, target))
    _, changes = train(method, network.state_dict(), FULL, RUN, CPU)
    assert changes.keys() == {"fc.weight", "fc.bias"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "fc.weight",
        "fc.bias",
    }


def test_a_loss_that_is_not_finite_stops_with_where_and_what_to_do(network, target):
    message = r"model m, method x, target t: the loss at epoch \d, step \d is not finite .* 1e\+12"
    with pytest.raises(DivergenceError, match=message):
        trained(FullFineTuning(lr=1e12), network, target, replace(TRAINING, epochs=4))


def diverging(monkeypatch, at):
    """Let the loss of one step, counted from 1, be no number."""
    step, done = finetune._take_step, []

    def breaks(*arguments):
        done.append(1)
        return step(*arguments) * (float("nan") if len(done) == at else 1)

    monkeypatch.setattr(finetune, "_take_step", breaks)


@pytest.mark.parametrize(("at", "epoch"), [(1, 1), (3, 1), (4, 2), (5, 2)])
def test_a_divergence_names_its_epoch_and_step_and_keeps_what_was_good(
    network, target, monkeypatch, at, epoch
):
    method = FullFineTuning(lr=0.01)
    method.setup(task_of(copy.deepcopy(network), target))
    diverging(monkeypatch, at)  # with three steps in an epoch
    with pytest.raises(
        DivergenceError, match=f"the loss at epoch {epoch}, step {at} is not finite"
    ) as caught:
        train(method, network.state_dict(), replace(FULL, warmup_steps=1), RUN, CPU)
    assert caught.value.finite_epochs == epoch - 1
    assert caught.value.finite_changes.keys() == (
        {name for name, _ in network.named_parameters()} if epoch == 2 else set()
    )


def test_a_weight_that_is_not_finite_after_a_finite_loss_is_a_divergence(network, target):
    method = FullFineTuning(lr=0.01)
    method.setup(task_of(copy.deepcopy(network), target))
    optimizer_step = method.update

    def update(optimizer):
        optimizer_step(optimizer)
        if method.step == 2:  # the last one of the first epoch
            method.model.conv1[0].weight.data[0, 0, 0, 0] = math.inf

    method.update = update
    with pytest.raises(DivergenceError, match="'conv1.0.weight' after step 3 is not finite"):
        train(method, network.state_dict(), FULL, RUN, CPU)


@pytest.mark.parametrize("broken", ["loss", "weight", "statistic"])
def test_a_divergence_goes_back_to_the_state_after_the_last_good_epoch(
    network, target, monkeypatch, broken
):
    """Bit for bit, with BatchNorm's statistics, whatever happened since."""
    one_epoch = replace(FULL, epochs=None, steps=3)
    two_epochs = replace(FULL, epochs=None, steps=6)
    rates = [0.01] * 6
    monkeypatch.setattr(finetune, "learning_rates", lambda *settings: rates)
    method = FullFineTuning(lr=0.01, batch_norm="train")
    method.setup(task_of(copy.deepcopy(network), target))
    _, good = train(method, network.state_dict(), one_epoch, RUN, CPU)

    method = FullFineTuning(lr=0.01, batch_norm="train")
    method.setup(task_of(copy.deepcopy(network), target))
    optimizer_step = method.update

    def update(optimizer):
        optimizer_step(optimizer)
        if method.step == 4 and broken != "loss":
            state = method.model.state_dict()
            name = {"weight": "conv1.0.weight", "statistic": "bn1.running_var"}[broken]
            state[name].view(-1)[0] = math.nan

    method.update = update
    if broken == "loss":
        diverging(monkeypatch, 5)
    with pytest.raises(DivergenceError) as caught:
        train(method, network.state_dict(), two_epochs, RUN, CPU)
    assert caught.value.finite_epochs == 1
    changes = caught.value.finite_changes
    assert changes.keys() == good.keys()
    assert "bn1.running_var" in good
    assert all(torch.equal(changes[name], good[name]) for name in good)


def test_weights_are_read_once_unless_somebody_asks(network, target, tmp_path):
    """They are copied to the host for that, which takes long on a GPU.

    Who asks are the snapshots, and who watches, if datasets are monitored.
    """

    def reads(watch=None, snapshots=()):
        method = FullFineTuning(lr=0.01)
        method.setup(task_of(copy.deepcopy(network), target))
        read_at = []
        read = method.state_delta
        method.state_delta = lambda pretrained: read_at.append(method.step) or read(pretrained)
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


def test_labels_are_on_the_device_before_the_forward_pass(network, target):
    """An index by an array of NumPy would wait for the GPU, so they are taken by a tensor first."""
    method = FullFineTuning(lr=0.01)
    method.setup(task_of(copy.deepcopy(network), target))
    events = []
    images = method.task.target
    logits_of = method.logits

    def labels_of(rows):
        events.append("labels")
        return images.labels_of(rows)

    def logits(rows):
        events.append("forward")
        return logits_of(rows)

    recorded_images = SimpleNamespace(members=images.members, labels_of=labels_of)
    method.task = SimpleNamespace(target=recorded_images)
    method.logits = logits
    rows = np.array([4, 0, 2])

    finetune._compute_loss(method, rows, FULL)

    assert events == ["labels", "forward"]
    assert torch.equal(images.labels_of(rows), images.labels[[4, 0, 2]])


def test_a_training_that_goes_on_counts_what_was_done_before(
    network, target, tmp_path, monkeypatch, caplog, progress
):
    caplog.set_level(logging.INFO, "rib")
    monkeypatch.setattr("rib.training.training_state.SAVE_EVERY", 0)
    step, done = finetune._take_step, []

    def breaks(*arguments):
        done.append(1)
        if len(done) in (3, 6):
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(finetune, "_take_step", breaks)

    def begin():
        method = FullFineTuning(lr=0.01)
        method.setup(task_of(copy.deepcopy(network), target))
        return train(method, network.state_dict(), FULL, RUN, CPU, tmp_path / "s.pt")

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            begin()
    history, _ = begin()
    assert [(n, total) for _, n, total, _ in progress()] == [(8, 30), (8 + 2 + 4, 30), (30, 30)]
    assert "epoch 0, step 2" in caplog.text and "epoch 1, step 1" in caplog.text
    monkeypatch.setattr(finetune, "_take_step", step)
    assert history == trained(FullFineTuning(lr=0.01), network, target, FULL)[1]


# What a job does: from folders to a checkpoint, a history and a manifest.


@pytest.fixture(scope="module")
def small():
    return random_images(18, 32, seed=1)


@pytest.fixture(scope="module")
def folders(network, small, tmp_path_factory):
    top = tmp_path_factory.mktemp("folders")
    return {
        "model": model_folder(top / "model", network),
        "target": prepared_folder(top / "target", small),
        "memory": prepared_folder(top / "memory", random_images(6, 32, seed=2)),
    }


RUN_OF_JOB = Run("net", "set", "ft", "all", 5)
INPUTS = ("target", "reference", "start", "text_folder", "shared_fisher")
SETTINGS = ("training", "view", "compute")
OUTPUTS = ("rescue", "snapshots")


def job(folders, out, algorithm="ft", settings=None, run=RUN_OF_JOB, **more):
    """Run `finetune`; the files that it writes, by name.

    Args:
        more: fields of its inputs, settings and output.
    """
    out.mkdir(exist_ok=True)
    files = {
        "checkpoint": "checkpoint.safetensors",
        "history": "history.csv",
        "manifest": "manifest.json",
    }
    files |= {"saved": "state.pt", "rescue": "logs/rescued.safetensors"}
    paths = {name: out / file for name, file in files.items()}
    assert more.keys() <= {*INPUTS, *SETTINGS, *OUTPUTS}
    finetune.finetune(
        run=run,
        inputs=FineTuningInputs(
            model_folder=folders["model"],
            **{
                "target": DatasetFiles("set", folders["target"]),
                **{name: more[name] for name in INPUTS if name in more},
            },
        ),
        settings=FineTuningSettings(
            algorithm=str(LIBRARY / f"methods/{algorithm}.py"),
            settings=settings or {"lr": 0.02},
            parents=[],
            training=more.get("training", FULL),
            view=more.get("view", VIEW),
            compute=more.get("compute", COMPUTE),
            code=CODE,
        ),
        output=FineTuningOutput(**paths | {name: more[name] for name in OUTPUTS if name in more}),
    )
    return paths


def by_hand(network, small, rows=slice(None), training=FULL):
    model, pixels = copy.deepcopy(network), normalised(small.images[rows], MEAN, STD)
    return model, trained_by_hand(model, pixels, small.labels[rows], SPACE, 0.02, training, 5)


def stored(network, path):
    return xor_decompress(safetensors.torch.load_file(path), network.state_dict())


def same_changes(network, found, model):
    wanted, before = model.state_dict(), network.state_dict()
    assert found.keys() == {name for name, _ in network.named_parameters()}
    for name, value in found.items():
        moved = (wanted[name] - before[name]).abs().max().item()
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=0.02 * moved)


def test_a_job_writes_what_changed_its_history_and_what_it_saw(
    network, small, folders, tmp_path, progress
):
    paths = job(folders, tmp_path / "a")
    run = "net/set/ft/all/5"
    assert progress() == [(f"training {run}", 54, 54, "image"), (f"fit of {run}", 18, 18, "image")]
    model, history = by_hand(network, small)
    same_changes(network, stored(network, paths["checkpoint"]), model)
    with open(paths["history"], newline="") as file:
        assert file.readline() == "epoch,lr,loss,cross_entropy,accuracy\n"
    with open(paths["history"]) as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    for row, other in zip(rows, history, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    with torch.inference_mode():
        right = (
            masked(model.eval()(normalised(small.images, MEAN, STD)), SPACE).argmax(dim=1).numpy()
            == small.labels
        )
    assert read_json(paths["manifest"]) == {
        **{"device": "cpu", "label_space": SPACE.digest},
        **{
            "train_images": 18,
            "steps": 5 * 3,
            "images": 18 * 3,
            "fit": pytest.approx(right.mean(), abs=1e-6),
        },
    }
    assert not paths["saved"].exists() and not paths["rescue"].parent.exists()


def test_a_job_trains_on_the_train_split_within_size_and_budget(network, small, folders, tmp_path):
    chosen = np.isin(np.arange(18), rows_of("train", 18))
    target = DatasetFiles(
        "set", folders["target"], split=split_file(tmp_path / "split.parquet", 18)
    )
    paths = job(folders, tmp_path / "split", target=target)
    same_changes(network, stored(network, paths["checkpoint"]), by_hand(network, small, chosen)[0])
    assert read_json(paths["manifest"])["images"] == chosen.sum() * 3
    by_epochs, six = replace(FULL, subset_length="epochs"), Run("net", "set", "ft", "6", 5)
    for name, changes, images in (
        ("size", {"run": six, "training": by_epochs}, 6),
        ("budget", {"view": replace(VIEW, budget=9)}, 9),
        ("both", {"run": six, "training": by_epochs, "view": replace(VIEW, budget=9)}, 6),
    ):
        facts = read_json(job(folders, tmp_path / name, **changes)["manifest"])
        assert (facts["train_images"], facts["steps"], facts["images"]) == (
            images,
            3 * -(-images // 4),
            images * 3,
        )


def test_a_job_keeps_the_state_after_each_epoch(network, small, folders, tmp_path):
    snapshots = [tmp_path / f"epoch{n}.safetensors" for n in (1, 2, 3)]
    paths = job(folders, tmp_path / "run", snapshots=snapshots)
    assert snapshots[2].read_bytes() == paths["checkpoint"].read_bytes()
    model = copy.deepcopy(network)
    # the first epoch alone: the same steps, with the rates of the whole training
    rates = [rate(step, 15, 0.02, FULL) for step in range(5)]
    pixels, labels = normalised(small.images, MEAN, STD), torch.from_numpy(small.labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.02)
    order = np.random.default_rng([5, 0]).permutation(18)
    for step, lr in enumerate(rates):
        rows = order[4 * step : 4 * step + 4]
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        F.cross_entropy(masked(model(pixels[rows]), SPACE), labels[rows]).backward()
        optimizer.step()
    same_changes(network, stored(network, snapshots[0]), model)


def by_steps(network, pixels, labels, training, steps, seed=5, lr=0.02):
    """SGD for a number of steps, written out.

    It gives the network after each step and the mean scores of each epoch.
    """
    model, states, scores = copy.deepcopy(network), [], []
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1.0, momentum=0.9, weight_decay=training.weight_decay
    )
    n, size, of_epoch = len(labels), training.batch_size, -(-len(labels) // training.batch_size)
    for step in range(steps):
        epoch, place = divmod(step, of_epoch)
        rows = np.random.default_rng([seed, epoch]).permutation(n)[place * size :][:size]
        optimizer.param_groups[0]["lr"] = rate(step, steps, lr, training)
        optimizer.zero_grad()
        logits, own = masked(model(pixels[rows]), SPACE), torch.from_numpy(labels)[rows]
        error = F.cross_entropy(logits, own)
        error.backward()
        optimizer.step()
        states.append(copy.deepcopy(model))
        scores += [[]] if place == 0 else []
        scores[-1].append((len(rows), error.item(), (logits.argmax(dim=1) == own).sum().item()))
    seen = [sum(count for count, _, _ in epoch) for epoch in scores]
    errors = [
        sum(count * error for count, error, _ in epoch) / n
        for epoch, n in zip(scores, seen, strict=True)
    ]
    right = [sum(right for _, _, right in epoch) / n for epoch, n in zip(scores, seen, strict=True)]
    return states, errors, right


@pytest.mark.parametrize(
    ("how", "size", "steps", "epochs", "images"),
    [
        ({"steps": 7, "epochs": None}, "all", 7, 2, 18 + 2 * 4),
        ({"steps": 3, "epochs": None}, "all", 3, 1, 12),
        ({"steps": 7, "epochs": None}, "6", 7, 4, 3 * 6 + 4),
        ({"steps": 7, "epochs": None, "subset_length": "epochs"}, "6", 7, 4, 3 * 6 + 4),
        ({"epochs": 2}, "all", 10, 2, 36),
        ({"epochs": 1}, "6", 5, 3, 2 * 6 + 4),
        ({"epochs": 3}, "4", 15, 15, 15 * 4),
        ({"epochs": 3, "subset_length": "epochs"}, "6", 6, 3, 18),
    ],
)
def test_a_job_trains_for_its_steps_or_epochs(
    network, small, folders, tmp_path, progress, how, size, steps, epochs, images
):
    """Five steps on all 18 images, two on 6; the last epoch may be cut short."""
    training, run = replace(FULL, **how), Run("net", "set", "ft", size, 5)
    paths = job(folders, tmp_path / "run", training=training, run=run)
    dataset = subset(PreparedDataset.open(folders["target"], "set"), size, seed=5)
    rows = slice(None) if dataset.rows is None else dataset.rows
    pixels, labels = normalised(small.images[rows], MEAN, STD), small.labels[rows]
    states, errors, right = by_steps(network, pixels, labels, training, steps)
    same_changes(network, stored(network, paths["checkpoint"]), states[-1])
    with open(paths["history"]) as file:
        history = [
            {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
        ]
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1)) and len(errors) == epochs
    assert [row["cross_entropy"] for row in history] == pytest.approx(errors, rel=1e-4)
    assert [row["accuracy"] for row in history] == pytest.approx(right, rel=1e-6)
    of_epoch = -(-len(labels) // 4)
    lasts = [min(of_epoch * epoch, steps) - 1 for epoch in range(1, epochs + 1)]
    assert [row["lr"] for row in history] == pytest.approx(
        [rate(step, steps, 0.02, training) for step in lasts]
    )
    facts = read_json(paths["manifest"])
    assert (facts["train_images"], facts["steps"], facts["images"]) == (len(labels), steps, images)
    assert progress()[0][1:3] == (images, images)


@pytest.mark.parametrize(
    ("steps", "number", "kept"),
    [
        (15, 10, [2, 3, 5, 6, 8, 9, 11, 12, 14, 15]),
        (4, 10, [1, 1, 2, 2, 2, 3, 3, 4, 4, 4]),
        (7, 3, [3, 5, 7]),
    ],
)
def test_snapshots_are_at_equal_distances_and_the_last_is_the_checkpoint(
    network, small, folders, tmp_path, steps, number, kept
):
    snapshots = [tmp_path / f"snapshot{n}.safetensors" for n in range(1, number + 1)]
    training = replace(FULL, epochs=None, steps=steps)
    paths = job(folders, tmp_path / "run", snapshots=snapshots, training=training)
    assert snapshots[-1].read_bytes() == paths["checkpoint"].read_bytes()
    states, _, _ = by_steps(
        network, normalised(small.images, MEAN, STD), small.labels, training, steps
    )
    for step, path in zip(kept, snapshots, strict=True):
        same_changes(network, stored(network, path), states[step - 1])


def test_a_divergence_in_an_epoch_that_is_cut_short_names_its_step(network, target, monkeypatch):
    method = FullFineTuning(lr=0.01)
    method.setup(task_of(copy.deepcopy(network), target))
    diverging(monkeypatch, 7)  # the first of the third epoch, which has no other
    with pytest.raises(DivergenceError, match="the loss at epoch 3, step 7 is not finite"):
        train(method, network.state_dict(), replace(FULL, epochs=None, steps=7), RUN, CPU)


TUNED = {
    "ft": {"lr": 0.02, "batch_norm": "train", "dropout": 0.5},
    "linear_probe": {"lr": 0.5},
    "lora": {"lr": 0.003, "rank": 2, "alpha": 2, "also": "none"},
    "visual_prompt": {"lr": 20.0, "padding": 0.1, "init_std": 0.0},
}


def restored(network, path, name, pixels):
    """The network of a checkpoint, and its inputs, put together from what each method stores."""
    model, tensors = copy.deepcopy(network), safetensors.torch.load_file(path)
    if name == "visual_prompt":
        pixels, strips = (
            pixels.clone(),
            {key.removeprefix("padding_prompt."): t for key, t in tensors.items()},
        )
        width = strips["top"].shape[1]
        pixels[:, :, :width] += strips["top"]
        pixels[:, :, -width:] += strips["bottom"]
        pixels[:, :, width:-width, :width] += strips["left"]
        pixels[:, :, width:-width, -width:] += strips["right"]
    elif name == "lora":
        state = model.state_dict()
        for key in [key for key in tensors if key.endswith(".lora_A")]:
            weight = key.removesuffix(".lora_A")
            state[weight] += (tensors[f"{weight}.lora_B"] @ tensors[key]).view(state[weight].shape)
    else:
        model.load_state_dict(
            {**network.state_dict(), **xor_decompress(tensors, network.state_dict())}
        )
    return model.eval(), pixels


@pytest.fixture(scope="module")
def telling(network, small, tmp_path_factory):
    """A network whose predictions differ from image to image, and its folder."""
    model, generator = copy.deepcopy(network), torch.Generator().manual_seed(0)
    with torch.no_grad():
        pixels = normalised(small.images, MEAN, STD)
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        model.fc.weight.copy_(
            torch.randn(model.fc.weight.shape, generator=generator)
            / features.std(dim=0).clamp(0.01)
        )
        model.fc.bias.copy_(-model.fc.weight @ features.mean(dim=0))
    return model, model_folder(tmp_path_factory.mktemp("telling") / "model", model)


@pytest.mark.parametrize(("name", "size"), [*((name, "all") for name in TUNED), ("ft", "10")])
def test_the_fit_is_the_accuracy_of_the_checkpoint_on_the_training_images(
    telling, small, folders, tmp_path, caplog, name, size
):
    """As they are, whatever training made of them, and by the network as it is evaluated."""
    caplog.set_level(logging.INFO, "rib")
    network, folder = telling
    how, run = replace(FULL, augmentation=["flip", "randaugment"]), Run("net", "set", name, size, 5)
    paths = job(
        {**folders, "model": folder}, tmp_path / "run", name, TUNED[name], training=how, run=run
    )
    dataset = subset(PreparedDataset.open(folders["target"], "set"), size, seed=5)
    rows = slice(None) if dataset.rows is None else dataset.rows
    pixels, labels = normalised(small.images[rows], MEAN, STD), small.labels[rows]
    before = masked(network(pixels), SPACE).argmax(dim=1)
    model, pixels = restored(network, paths["checkpoint"], name, pixels)
    with torch.inference_mode():
        found = masked(model(pixels), SPACE).argmax(dim=1)
    fit = (found.numpy() == labels).mean()
    assert read_json(paths["manifest"])["fit"] == pytest.approx(fit, abs=1e-6)
    assert not torch.equal(found, before), "training changed what is predicted"
    assert f"{100 * fit:.1f} % of {len(labels)} training images" in caplog.text


def test_the_fit_is_of_so_many_images_at_most(
    network, small, folders, tmp_path, monkeypatch, progress
):
    monkeypatch.setattr(finetune, "FIT_IMAGES", 7)
    monkeypatch.setattr(finetune, "FIT_BATCH", 3)
    paths = job(folders, tmp_path / "run")
    part = first_images(PreparedDataset.open(folders["target"], "set"), 7)
    model, pixels = restored(
        network, paths["checkpoint"], "ft", normalised(small.images[part.rows], MEAN, STD)
    )
    with torch.inference_mode():
        right = masked(model(pixels), SPACE).argmax(dim=1).numpy() == part.labels
    assert read_json(paths["manifest"])["fit"] == pytest.approx(right.mean(), abs=1e-6)
    assert progress()[-1] == ("fit of net/set/ft/all/5", 7, 7, "image")


def test_a_job_with_gradient_checkpointing_writes_the_same_bytes(folders, tmp_path, monkeypatch):
    """It is timm's, and in each step of training only: the fit is measured without it."""
    calls = []
    checkpoint = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint, "checkpoint", lambda *a, **k: calls.append(1) or checkpoint(*a, **k)
    )
    paths = job(folders, tmp_path / "all")
    assert not calls
    compute = replace(COMPUTE, gradient_checkpointing=True)
    again = job(folders, tmp_path / "part", compute=compute)
    assert calls and len(calls) % (FULL.epochs * math.ceil(18 / FULL.batch_size)) == 0
    for name in ("checkpoint", "history", "manifest"):
        assert again[name].read_bytes() == paths[name].read_bytes()
    with pytest.raises(
        UserError,
        match="^method ft on model net: BatchNorm statistics would be updated twice; set compute",
    ):
        job(
            folders,
            tmp_path / "moving",
            compute=compute,
            settings={"lr": 0.02, "batch_norm": "train"},
        )


def test_a_job_augments_by_the_seed_of_its_run(network, small, folders, tmp_path):
    how, made = replace(FULL, epochs=1, augmentation=["flip"]), []
    for seed in (5, 5, 6):
        paths = job(
            folders,
            tmp_path / f"{len(made)}",
            training=how,
            run=Run("net", "set", "ft", "all", seed),
        )
        made.append(paths["checkpoint"].read_bytes())
    assert made[0] == made[1] != made[2]
    plain = job(folders, tmp_path / "plain", training=replace(how, augmentation=[]))
    assert plain["checkpoint"].read_bytes() != made[0]
    flip = Augmentation(["flip"], 32, 5)
    images = torch.from_numpy(small.images).permute(0, 3, 1, 2)
    images = (
        torch.stack([flip(images[row], 0, row) for row in range(18)]).permute(0, 2, 3, 1).numpy()
    )
    states, _, _ = by_steps(network, normalised(images, MEAN, STD), small.labels, how, 5)
    same_changes(network, stored(network, tmp_path / "0/checkpoint.safetensors"), states[-1])
    assert not np.array_equal(images, small.images)


@pytest.mark.parametrize("changes", [{"layer_decay": 0.9}, {"decay_norm_and_bias": False}])
def test_a_recipe_that_a_method_cannot_be_trained_with_is_refused_with_its_name(
    folders, tmp_path, changes
):
    how, run = (
        replace(FULL, optimizer="adamw", **changes),
        Run("net", "set", "visual_prompt", "all", 5),
    )
    with pytest.raises(UserError, match="a recipe with layer_decay, or decay_norm_and_bias"):
        job(
            folders,
            tmp_path / "run",
            "visual_prompt",
            TUNED["visual_prompt"],
            training=how,
            run=run,
        )
    assert not list((tmp_path / "run").iterdir())


def test_a_job_drops_features_and_blocks_as_its_method_says(network, small, folders, tmp_path):
    """The same random numbers as a training by itself draws with these rates."""
    settings = {"lr": 0.02, "batch_norm": "train", "dropout": 0.4, "drop_path": 0.2}
    found = stored(network, job(folders, tmp_path / "run", settings=settings)["checkpoint"])
    torch.manual_seed(5)
    model = build("timm", "test_resnet", 1000, 0.4, 0.2)
    assert model.drop_rate == 0.4
    model.load_state_dict(network.state_dict())
    method = FullFineTuning(**settings)
    part = SimpleNamespace(images=small.images, labels=small.labels, space=SPACE)
    task = task_of(model.to(memory_format=torch.channels_last), part, seed=5)
    task.target.inputs.mean, task.target.inputs.std = (
        255 * torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD)
    )
    method.setup(task)
    _, changes = train(method, network.state_dict(), FULL, replace(RUN, seed=5), CPU)
    assert found.keys() == changes.keys() and all(
        torch.equal(found[name], changes[name]) for name in found
    )


def test_a_job_starts_from_another_methods_checkpoint_and_stores_all_that_differs(
    network, small, folders, tmp_path
):
    first = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        first.fc.weight += 0.05 * torch.randn(first.fc.weight.shape, generator=generator)
    changed = {"fc.weight": first.fc.weight.detach()}
    safetensors.torch.save_file(
        xor_compress(changed, network.state_dict()), tmp_path / "lp.safetensors"
    )
    paths = job(folders, tmp_path / "run", start={"linear_probe": tmp_path / "lp.safetensors"})
    model, _ = by_hand(first, small)
    same_changes(network, stored(network, paths["checkpoint"]), model)


def test_a_start_with_a_padding_prompt_is_refused(folders, tmp_path):
    strips = {"top": (3, 2, 32), "bottom": (3, 2, 32), "left": (3, 28, 2), "right": (3, 28, 2)}
    prompt = {f"padding_prompt.{name}": torch.zeros(shape) for name, shape in strips.items()}
    safetensors.torch.save_file(prompt, tmp_path / "vp.safetensors")
    with pytest.raises(UserError, match="method ft.*'visual_prompt'"):
        job(folders, tmp_path / "run", start={"visual_prompt": tmp_path / "vp.safetensors"})


def test_a_job_reads_the_reference_dataset_only_where_its_method_is_given_one(
    network, small, folders, tmp_path
):
    settings = {"lr": 0.02, "weight": 0.5}
    with pytest.raises(UserError, match="method ft on model net.*pretraining proxy"):
        job(folders, tmp_path / "without", "replay", settings)
    with_memory = job(
        folders,
        tmp_path / "with",
        "replay",
        settings,
        reference=DatasetFiles("memory", folders["memory"]),
    )
    memory = normalised(random_images(6, 32, seed=2).images, MEAN, STD)
    labels = torch.arange(6) % 3

    def penalty(model, rows, logits, step):
        chosen = np.random.default_rng([5, step, int(rows[0]), 1]).choice(
            6, size=len(rows), replace=False
        )
        return 0.5 * F.cross_entropy(masked(model(memory[chosen]), SPACE), labels[chosen])

    model = copy.deepcopy(network)
    trained_by_hand(
        model, normalised(small.images, MEAN, STD), small.labels, SPACE, 0.02, FULL, 5, penalty
    )
    same_changes(network, stored(network, with_memory["checkpoint"]), model)


def test_of_a_reference_dataset_with_a_split_only_the_train_part_is_replayed(folders, tmp_path):
    """Its other images are scored under protocol held_out."""
    # given: the reference dataset with a split, and one that has the images of its train part alone
    whole = random_images(20, 32, seed=2)
    train_part = np.array(rows_of("train", 20))
    alone = SimpleNamespace(
        images=whole.images[train_part], labels=whole.labels[train_part], space=whole.space
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
    (tmp_path / "good").mkdir()
    good = [tmp_path / "good" / f"{n}.safetensors" for n in range(3)]
    job(folders, tmp_path / "good", snapshots=good)
    diverging(monkeypatch, 12)  # of 5 in an epoch
    monkeypatch.setattr("rib.training.training_state.SAVE_EVERY", 0)
    logs = tmp_path / "run" / "logs" / "of" / "it"
    with pytest.raises(
        UserError, match=r"method ft, target set: the loss at epoch 3, step 12 .*epoch 2"
    ) as e:
        job(folders, tmp_path / "run", rescue=logs / "rescued.safetensors")
    assert str(logs / "rescued.safetensors") in str(e.value) and "0.02" in str(e.value)
    kept = safetensors.torch.load_file(logs / "rescued.safetensors")
    wanted = stored(network, good[1])
    assert kept.keys() == wanted.keys() and all(
        torch.equal(kept[name], wanted[name]) for name in kept
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["logs"]


def test_a_job_whose_weights_are_finite_but_give_infinite_logits_has_diverged(folders, tmp_path):
    """The only step starts from the pretrained weights, so that its loss is finite."""
    one_step = replace(FULL, epochs=None, steps=1, warmup_fraction=0.0, warmup_steps=0)
    message = (
        r"model net, method ft, target set: a logit of a training image is not finite with the "
        r"peak learning rate 1e\+25; the state after epoch 1 is kept in .*; lower lr in"
    )
    with pytest.raises(UserError, match=message):
        job(folders, tmp_path / "run", settings={"lr": 1e25}, training=one_step)
    kept = safetensors.torch.load_file(tmp_path / "run/logs/rescued.safetensors")
    assert kept and all(tensor.isfinite().all() for tensor in kept.values())
    assert not (tmp_path / "run/manifest.json").exists()


def test_a_job_that_diverges_in_its_first_epoch_keeps_nothing(folders, tmp_path, monkeypatch):
    diverging(monkeypatch, 1)
    with pytest.raises(UserError, match="epoch 1, step 1 "):
        job(folders, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
