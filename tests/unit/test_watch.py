"""What a training shows of itself, by TensorBoard's own reader.

It trains as if nobody watched.
"""

import csv
import json
import logging
import re
import resource
import time
from timeit import timeit

import pytest
import safetensors.torch
import timm
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rib.data.split_dataset import split_dataset
from rib.data.splits import read_split
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.score import correct
from rib.methods.ft import FullFineTuning
from rib.models.inputs import Inputs
from rib.models.state import network_in_state
from rib.monitoring import watch as watching
from rib.monitoring.event_file import PREFIX
from rib.monitoring.watch import Watch
from rib.training import finetune, training_state
from rib.training.finetune import train, write_history
from tiny.changed import replace
from tiny.project import ROOT
from tiny.training import (
    CPU,
    MEAN,
    RUN,
    STD,
    TRAINING,
    VIEW,
    model_folder,
    prepared_folder,
    random_images,
    split_file,
    task_of,
)

EPOCHS = 3
LONG = replace(TRAINING, epochs=EPOCHS)
MEASURED = {"loss", "cross_entropy", "accuracy", "lr", "gradient_norm", "images_per_second"}


def dropping():
    """A network whose training draws random numbers."""
    torch.manual_seed(0)
    return timm.create_model(
        "test_resnet", num_classes=1000, zero_init_last=False, drop_rate=0.5
    ).eval()


@pytest.fixture
def place(tmp_path):
    """A job's private folder, a model and two datasets; one split."""
    (tmp_path / "work/digest").mkdir(parents=True)
    model_folder(tmp_path / "model", dropping())
    monitored = []
    for seed, name in enumerate(("other", "more")):
        (tmp_path / name).mkdir()
        prepared_folder(tmp_path / name / "32px", random_images(9, 32, seed))
        monitored.append(tmp_path / name / "32px/manifest.json")
    (tmp_path / "split/more").mkdir(parents=True)
    split_file(tmp_path / "split/more/32px.parquet", 9)
    return tmp_path, monitored


def watch_of(place, job="digest", **more):
    folder, monitored = place
    given = {"model_folder": folder / "model", "view": VIEW, "monitored": monitored}
    given |= {"monitored_splits": [folder / "split/more/32px.parquet"]}
    given |= {
        "log_file": str(folder / "logs/run/0.log"),
        "history": folder / "work" / job / "history.csv",
    }
    return Watch(**given | more)


def trained(watch=None, saved=None, training=LONG):
    """History, changed tensors, and the random numbers that come next."""
    network = dropping()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    method = FullFineTuning(lr=0.01, dropout=0.5)
    method.setup(task_of(network, random_images(10, 32)))
    rows, changed = train(method, before, training, RUN, CPU, saved, watch=watch)
    return rows, changed, torch.rand(3)


def shown(place):
    """Epochs and values by tag, as TensorBoard shows them."""
    reader = EventAccumulator(str(place[0] / "logs/run/0")).Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def history_of(place, job="digest"):
    with open(place[0] / "work" / job / "history.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_a_watched_and_monitored_training_has_the_same_bytes_and_draws_the_same_numbers(place):
    rows, changed, drawn = trained()
    again, same, next_drawn = trained(watch_of(place))
    assert again == rows and torch.equal(drawn, next_drawn)
    assert same.keys() == changed.keys() and all(
        torch.equal(same[name], changed[name]) for name in changed
    )
    write_history(rows, place[0] / "whole.csv")
    assert (place[0] / "whole.csv").read_bytes() == (
        place[0] / "work/digest/history.csv"
    ).read_bytes()
    tags = shown(place)
    assert tags.keys() == {f"train/{name}" for name in MEASURED} | {"monitor/other", "monitor/more"}
    assert all([step for step, _ in values] == [1, 2, 3] for values in tags.values())
    assert [value for _, value in tags["train/loss"]] == pytest.approx(
        [row["loss"] for row in rows]
    )
    assert min(value for _, value in tags["train/gradient_norm"]) > 0


def test_monitored_accuracy_is_that_of_the_evaluated_checkpoint(place):
    """On all nine images, and on those of the select split where there are splits."""
    folder, _ = place
    _, changed, _ = trained(watch_of(place))
    safetensors.torch.save_file(changed, folder / "c.safetensors")
    for name, part in (("other", None), ("more", folder / "split/more/32px.parquet")):
        dataset = load_dataset(
            DatasetFiles(name, folder / name / "32px", split=part), VIEW, "select"
        )
        assert len(dataset.labels) == (9 if part is None else 2)
        inputs = Inputs.of(dataset, {"mean": MEAN, "std": STD}, CPU)
        network = network_in_state(
            folder / "model", {"x": 1.0}, {"x": folder / "c.safetensors"}, inputs
        )
        right = correct(network, inputs, dataset, 4, "").float().mean().item()
        assert shown(place)[f"monitor/{name}"][-1] == (EPOCHS, pytest.approx(right))


def test_a_monitored_dataset_that_holds_the_pretraining_proxy_is_shown_without_its_images(
    place, monkeypatch, caplog
):
    """Under protocol held_out its split has no source image of the proxy.

    These belong to no part.
    """
    # given: `more` holds the proxy, one image of each of three classes, and its split was made of
    # the other six
    folder, (_, more) = place
    view = replace(VIEW, images_per_class=1)
    files = DatasetFiles("more", more.parent, proxy=more.parent)
    split = folder / "split/more/32px.parquet"
    split_dataset(
        files=files, view=view, fractions={"train": 0.4, "select": 0.3}, earlier=(), table=split
    )
    in_split = set(read_split(split))
    assert len(in_split) == 6
    # when: it is monitored beside another dataset
    shown_sources = {}

    def score(state, model_folder, dataset, *more):
        shown_sources[dataset.name] = set(dataset.index["source_id"].to_pylist())
        return 0.5

    monkeypatch.setattr(watching, "accuracy_of", score)
    caplog.set_level(logging.WARNING, "rib")
    trained(
        watch_of(place, view=view, monitored_related=[more], monitored_proxy_folder=more.parent)
    )
    # then: both have a curve, and no image of the proxy is scored
    assert not caplog.records
    assert {"monitor/other", "monitor/more"} <= shown(place).keys()
    assert shown_sources["more"] == {
        source for source, part in read_split(split).items() if part == "select"
    }


def test_at_most_200_images_are_monitored(place, monkeypatch):
    monkeypatch.setattr(watching, "MONITORED_IMAGES", 4)
    seen = []
    monkeypatch.setattr(
        watching, "accuracy_of", lambda *given: seen.append(len(given[2].labels)) or 1.0
    )
    trained(watch_of(place), training=TRAINING)
    assert set(seen) == {4, 2} and watching.BATCH <= 200


def test_gradient_norm_is_that_before_clipping(place):
    norms = {}
    for clip in (None, 0.01):
        trained(
            watch_of(place, monitored=()),
            training=replace(LONG, epochs=1, batch_size=10, clip_norm=clip),
        )
        ((_, norms[clip]),) = shown(place)["train/gradient_norm"]
    assert norms[None] > 0.02 and norms[0.01] == pytest.approx(norms[None], rel=1e-5)


def interrupted(monkeypatch, at):
    """Raise in a step of a training, counted from 1."""
    step, done = finetune._take_step, []

    def breaks(*arguments):
        done.append(1)
        if len(done) == at:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(finetune, "_take_step", breaks)


@pytest.mark.parametrize("every", [0, 1e9])
def test_a_killed_training_shows_every_epoch_once(place, monkeypatch, every):
    """Whether it resumes after each step, or begins again; three steps are an epoch."""
    monkeypatch.setattr(training_state, "SAVE_EVERY", every)
    saved = place[0] / "state.pt"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, 8)
        trained(watch_of(place), saved)
    assert history_of(place) == [1, 2] and [step for step, _ in shown(place)["train/loss"]] == [
        1,
        2,
    ]
    rows, *_ = trained(watch_of(place), saved)
    assert rows == trained()[0] and history_of(place) == [1, 2, 3]
    assert all([step for step, _ in values] == [1, 2, 3] for values in shown(place).values())
    assert len(list((place[0] / "logs/run/0").glob(f"{PREFIX}*"))) == (2 if every == 0 else 1)


def progress(*epochs, norm: float | None = 1.0):
    rows = [
        {"epoch": n, "lr": 0.1, "loss": 2.0, "cross_entropy": 1.0, "accuracy": 0.5} for n in epochs
    ]
    return rows, 10 * len(rows), norm, dict, CPU


def test_an_epoch_that_was_trained_again_replaces_what_was_shown(place):
    """The state that is resumed is older than what was written.

    What other settings wrote goes, too.
    """
    first = watch_of(place, monitored=())
    for done in (progress(norm=None), progress(1), progress(1, 2), progress(1, 2, 3)):
        first(*done)
    again = watch_of(place, monitored=())
    again(*progress(1, norm=None))
    assert history_of(place) == [1], "the saved state has the last word"
    again(*progress(1, 2))
    assert [step for step, _ in shown(place)["train/loss"]] == [1, 2] == history_of(place)
    (place[0] / "work/another").mkdir()
    other = watch_of(place, "another", monitored=())
    other(*progress(1, norm=None))
    other(*progress(1, 2))
    assert [step for step, _ in shown(place)["train/loss"]] == [2]


def test_a_full_disk_is_one_warning_and_leaves_whole_records(place, caplog):
    watch = watch_of(place, monitored=())
    caplog.set_level(logging.WARNING, "rib")
    watch(*progress(norm=None))
    watch(*progress(1))
    (file,) = (place[0] / "logs/run/0").iterdir()
    whole, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (len(whole) + 20, limits[1])
    )  # the next record is written in part
    try:
        for n in (2, 3):
            watch(*progress(*range(1, n + 1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == whole and len(caplog.records) == 1 and caplog.text.count("\n") == 1
    watch(*progress(1, 2, 3, 4))
    assert [step for step, _ in shown(place)["train/loss"]] == [1, 4] and history_of(place) == [
        1,
        2,
        3,
        4,
    ]


def test_what_fails_in_monitoring_does_not_end_a_training(place, caplog):
    (place[0] / "other/32px/images.npy").write_bytes(b"damaged")
    caplog.set_level(logging.WARNING, "rib")
    rows, *_ = trained(watch_of(place))
    assert rows == trained()[0] and len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert "other/32px/images.npy is damaged" in said and "allow_pickle" not in said
    for tag in ("train/loss", "monitor/more"):
        assert [step for step, _ in shown(place)[tag]] == [1, 2, 3], "what can be shown is shown"


def test_another_tracker_is_added_as_docs_say(place, monkeypatch):
    page = (ROOT / "docs/watching.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(code, made := {})
    monkeypatch.setattr(watching, "TRACKERS", (*watching.TRACKERS, made["JsonLines"]))
    trained(watch_of(place))
    lines = [
        json.loads(line) for line in (place[0] / "logs/run/0/digest.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in lines] == [1, 1, 2, 2, 3, 3]
    assert lines[0].keys() == {"epoch"} | {f"train/{name}" for name in MEASURED}
    assert set(shown(place)) == {name for line in lines for name in line} - {"epoch"}


@pytest.mark.slow
def test_watching_costs_at_most_a_hundredth_of_a_step(place):
    """Processor time of gradient norms, history and event file.

    The network is EfficientNet-Lite0, with epochs of four steps.
    """
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=1000).to(
        memory_format=torch.channels_last
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    method, watch, spent = FullFineTuning(lr=0.01), watch_of(place, monitored=()), []
    method.setup(task_of(network, random_images(128, 96)))

    def timed(work, number=1):
        return timeit(work, timer=time.process_time, number=number)

    def watched(*progress):
        spent.append(timed(lambda: watch(*progress)))

    whole = timed(
        lambda: train(method, before, replace(LONG, batch_size=32), RUN, CPU, watch=watched)
    )
    gradients = [parameter.grad for parameter in network.parameters()]
    norm = timed(lambda: torch.nn.utils.get_total_norm(gradients), 50) / 50
    share = (sum(spent) + 4 * EPOCHS * norm) / whole
    print(
        f"{share:.4f} of a step: {1e3 * norm:.2f} ms of {1e3 * whole / 4 / EPOCHS:.0f} ms, "
        f"and {1e3 * max(spent):.2f} ms per epoch"
    )
    assert share < 0.01
