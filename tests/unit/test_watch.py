"""What a training shows of itself, by TensorBoard's own reader.

It trains as if nobody watched.
"""

import contextlib
import csv
import itertools
import json
import logging
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from rib.models.images import Images
from rib.models.state import network_in_state
from rib.monitoring import watch as watching
from rib.monitoring.event_file import PREFIX
from rib.monitoring.watch import Watch, datasets_there
from rib.training import loop, training_state
from rib.training.history import write_history
from rib.training.loop import train
from tiny.changed import replace
from tiny.models.training import (
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
    with_defaults,
)

pytestmark = pytest.mark.thorough

EPOCHS = 3
LONG = replace(TRAINING, epochs=EPOCHS)
MEASURED = {"loss", "cross_entropy", "accuracy", "lr", "gradient_norm", "images_per_second"}
MEASURED_TAGS = {f"train/{name}" for name in MEASURED}
IMAGES = 9  # of each monitored dataset
SELECTED_IMAGES = 2  # of these, in the select split


def network_with_dropout():
    """A network whose training draws random numbers."""
    torch.manual_seed(0)
    return timm.create_model(
        "test_resnet", num_classes=1000, zero_init_last=False, drop_rate=0.5
    ).eval()


@dataclass(frozen=True)
class Project:
    """A folder with a model, two prepared datasets to be monitored, and a split of one of them."""

    folder: Path

    @property
    def log_folder(self) -> Path:
        """Where trackers write."""
        return self.folder / "logs/run/0"

    @property
    def split_of_more(self) -> Path:
        """The split of the dataset `more`."""
        return self.folder / "split/more/32px.parquet"

    def prepared(self, dataset: str) -> Path:
        """The folder of a prepared dataset: `other` or `more`."""
        return self.folder / dataset / "32px"

    def files(self, dataset: str, **changes) -> DatasetFiles:
        """Files of a prepared dataset, with the split that `more` has."""
        split = self.split_of_more if dataset == "more" else None
        return DatasetFiles(dataset, self.prepared(dataset), **{"split": split, **changes})

    def history(self, job: str = "digest") -> Path:
        """The history that a job writes in its private folder."""
        return self.folder / "work" / job / "history.csv"


@pytest.fixture
def project(tmp_path):
    """A project with the private folder of one job."""
    project = Project(tmp_path)
    project.history().parent.mkdir(parents=True)
    model_folder(tmp_path / "model", network_with_dropout())
    for seed, dataset in enumerate(("other", "more")):
        project.prepared(dataset).parent.mkdir()
        prepared_folder(project.prepared(dataset), random_images(IMAGES, 32, seed))
    project.split_of_more.parent.mkdir(parents=True)
    split_file(project.split_of_more, IMAGES)
    return project


def watch_of(project, job="digest", **changes):
    """What reports a training of a job that monitors both datasets.

    Args:
        changes: other fields of Watch.
    """
    fields = {
        "model_folder": project.folder / "model",
        "view": VIEW,
        "monitored": [project.files("other"), project.files("more")],
        "log_file": str(project.folder / "logs/run/0.log"),
        "history": project.history(job),
    }
    return Watch(**{**fields, **changes})


@dataclass(frozen=True)
class Trained:
    """What a training gives."""

    history: list[dict]
    changed: Mapping[str, torch.Tensor]  # tensors by name
    next_random_numbers: torch.Tensor


def train_network(watch=None, saved=None, training=LONG):
    """Train the network with dropout.

    Args:
        watch: of `watch_of`, or nobody watches.
        saved: file of the state from which a killed training resumes.
    """
    network = network_with_dropout()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    method = with_defaults(FullFineTuning, lr=0.01)
    method.setup(task_of(network, random_images(10, 32)))
    history, changed, _ = train(method, before, training, RUN, CPU, saved, watch=watch)
    return Trained(history, changed, torch.rand(3))


def values_shown(project):
    """By tag, the values that TensorBoard shows, by epoch.

    Each epoch has one value.
    """
    reader = EventAccumulator(str(project.log_folder)).Reload()
    values_of_tags = {}
    for tag in reader.Tags()["scalars"]:
        events = reader.Scalars(tag)
        values_of_tags[tag] = {event.step: event.value for event in events}
        assert len(values_of_tags[tag]) == len(events)
    return values_of_tags


def epochs_shown(project, tag="train/loss"):
    """The epochs of which TensorBoard shows a value, in its order."""
    return list(values_shown(project)[tag])


def epochs_in_history(project, job="digest"):
    """The epochs in a job's history."""
    with project.history(job).open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


# Trainings


def test_a_watched_and_monitored_training_has_the_same_bytes_and_draws_the_same_numbers(project):
    # when
    unwatched = train_network()
    watched = train_network(watch_of(project))
    # then
    assert watched.history == unwatched.history
    assert torch.equal(watched.next_random_numbers, unwatched.next_random_numbers)
    assert watched.changed.keys() == unwatched.changed.keys()
    for name, tensor in unwatched.changed.items():
        assert torch.equal(watched.changed[name], tensor), name
    # and its history and values are shown
    whole_history = project.folder / "whole.csv"
    write_history(unwatched.history, whole_history)
    assert project.history().read_bytes() == whole_history.read_bytes()
    values_of_tags = values_shown(project)
    assert values_of_tags.keys() == MEASURED_TAGS | {"monitor/other", "monitor/more"}
    for values in values_of_tags.values():
        assert list(values) == [1, 2, 3]
    losses = [row["loss"] for row in unwatched.history]
    assert list(values_of_tags["train/loss"].values()) == pytest.approx(losses)
    assert min(values_of_tags["train/gradient_norm"].values()) > 0


def accuracy_of_checkpoint(project, checkpoint, files):
    """Accuracy of a checkpoint on the images of a dataset that are monitored, and their number."""
    dataset = load_dataset(files, VIEW, "select")
    inputs = Images(dataset, {"mean": MEAN, "std": STD}, CPU)
    network = network_in_state(project.folder / "model", {"x": 1.0}, {"x": checkpoint}, inputs)
    is_right = correct(network, inputs, dataset, 4, "")
    return is_right.float().mean().item(), len(dataset.labels)


def test_monitored_accuracy_is_that_of_the_evaluated_checkpoint(project):
    """On all nine images, and on those of the select split where there are splits."""
    # when
    trained = train_network(watch_of(project))
    # then
    checkpoint = project.folder / "checkpoint.safetensors"
    safetensors.torch.save_file(trained.changed, checkpoint)
    values_of_tags = values_shown(project)

    without_split = DatasetFiles("other", project.prepared("other"))
    accuracy, images = accuracy_of_checkpoint(project, checkpoint, without_split)
    assert images == IMAGES
    assert values_of_tags["monitor/other"][EPOCHS] == pytest.approx(accuracy)

    with_split = DatasetFiles("more", project.prepared("more"), split=project.split_of_more)
    accuracy, images = accuracy_of_checkpoint(project, checkpoint, with_split)
    assert images == SELECTED_IMAGES
    assert values_of_tags["monitor/more"][EPOCHS] == pytest.approx(accuracy)


def test_a_monitored_dataset_that_holds_the_pretraining_proxy_is_shown_without_its_images(
    project, monkeypatch, caplog
):
    """Under protocol held_out its split has no source image of the proxy.

    These belong to no part.
    """
    # given: `more` holds the proxy, one image of each of three classes, and its split was made of
    # the other six
    view = replace(VIEW, images_per_class=1)
    proxy = project.prepared("more")
    split_dataset(
        files=DatasetFiles("more", project.prepared("more"), proxy=proxy),
        view=view,
        fractions={"train": 0.4, "select": 0.3},
        earlier=(),
        table=project.split_of_more,
    )
    part_of_source = read_split(project.split_of_more)
    assert len(part_of_source) == 6
    # when: it is monitored beside another dataset
    scored_sources = {}

    def note_sources(state, model_folder, dataset, *settings):
        scored_sources[dataset.name] = set(dataset.index["source_id"].to_pylist())
        return 0.5

    monkeypatch.setattr(watching, "accuracy_of", note_sources)
    caplog.set_level(logging.WARNING, "rib")
    monitored = [project.files("other"), project.files("more", proxy=proxy)]
    watch = watch_of(project, view=view, monitored=monitored)
    train_network(watch)
    # then: both have a curve, and no image of the proxy is scored
    assert not caplog.records
    assert {"monitor/other", "monitor/more"} <= values_shown(project).keys()
    selected_sources = {source for source, part in part_of_source.items() if part == "select"}
    assert scored_sources["more"] == selected_sources


def test_a_dataset_that_is_not_prepared_yet_is_left_out_and_named(project, caplog):
    caplog.set_level(logging.INFO, "rib")
    entries = []
    for name in ("other", "more"):
        manifest = project.prepared(name) / "manifest.json"
        entries.append({"name": name, "manifest": str(manifest), "proxy": [], "split": []})
    entries[0]["split"] = "split/other.parquet"
    (project.prepared("more") / "manifest.json").touch()
    (project.prepared("other") / "manifest.json").touch()
    assert datasets_there(entries, decode_workers=2) == [
        project.files("more", split=None, decode_workers=2)
    ]
    assert caplog.messages == ["other is not monitored, since split/other.parquet is not made yet"]


def test_only_so_many_images_are_monitored(project, monkeypatch):
    # given a limit of four, and one dataset of nine images and one of two
    monkeypatch.setattr(watching, "MONITORED_IMAGES", 4)
    numbers_of_images = set()

    def note_number(state, model_folder, dataset, *settings):
        numbers_of_images.add(len(dataset.labels))
        return 1.0

    monkeypatch.setattr(watching, "accuracy_of", note_number)
    # when
    train_network(watch_of(project), training=TRAINING)
    # then
    assert numbers_of_images == {4, SELECTED_IMAGES}


def gradient_norm_of_one_step(project, clip_norm):
    """The norm that is shown of a training of one step."""
    training = replace(LONG, epochs=1, batch_size=10, clip_norm=clip_norm)
    train_network(watch_of(project, monitored=()), training=training)
    (norm,) = values_shown(project)["train/gradient_norm"].values()
    return norm


def test_gradient_norm_is_that_before_clipping(project):
    clip_norm = 0.01
    without_clipping = gradient_norm_of_one_step(project, clip_norm=None)
    with_clipping = gradient_norm_of_one_step(project, clip_norm)
    assert without_clipping > 2 * clip_norm
    assert with_clipping == pytest.approx(without_clipping, rel=1e-5)


def interrupt_at_step(monkeypatch, interrupted_step):
    """Raise KeyboardInterrupt in a step of a training, counted from 1."""
    take_step = loop.take_step
    steps = itertools.count(1)

    def take_step_or_raise(*arguments):
        if next(steps) == interrupted_step:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", take_step_or_raise)


@pytest.mark.parametrize("every", [0, 1e9])
def test_a_killed_training_shows_every_epoch_once(project, monkeypatch, every):
    """Whether it resumes after each step, or begins again; three steps are an epoch."""
    # given a training that was killed in its third epoch
    monkeypatch.setattr(training_state, "SAVE_EVERY", every)
    saved = project.folder / "state.pt"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at_step(patch, 8)
        train_network(watch_of(project), saved)
    assert epochs_in_history(project) == [1, 2]
    assert epochs_shown(project) == [1, 2]
    # when
    trained = train_network(watch_of(project), saved)
    # then
    assert trained.history == train_network().history
    assert epochs_in_history(project) == [1, 2, 3]
    for values in values_shown(project).values():
        assert list(values) == [1, 2, 3]
    is_resumed = every == 0
    event_files = list(project.log_folder.glob(f"{PREFIX}*"))
    assert len(event_files) == (2 if is_resumed else 1)


# Reports without a training


def report(watch, *epochs, norm=1.0):
    """Tell what watches of a training that has done these epochs.

    Args:
        norm: of the gradients in the last epoch; None at the start of a training.
    """
    measured = {"lr": 0.1, "loss": 2.0, "cross_entropy": 1.0, "accuracy": 0.5}
    history = [{"epoch": epoch, **measured} for epoch in epochs]
    watch(history, images=10 * len(history), norm=norm, read_changes=dict, device=CPU)


def report_start(watch, *epochs):
    """Tell what watches that a training starts, or resumes after these epochs."""
    report(watch, *epochs, norm=None)


def test_an_epoch_that_was_trained_again_replaces_what_was_shown(project):
    """The state that is resumed is older than what was written.

    What other settings wrote goes, too.
    """
    # given a training that was watched for three epochs
    first = watch_of(project, monitored=())
    report_start(first)
    report(first, 1)
    report(first, 1, 2)
    report(first, 1, 2, 3)
    # when it resumes after the first of them
    second = watch_of(project, monitored=())
    report_start(second, 1)
    # then
    assert epochs_in_history(project) == [1], "the saved state has the last word"
    report(second, 1, 2)
    assert epochs_in_history(project) == [1, 2]
    assert epochs_shown(project) == [1, 2]
    # when a job of other settings follows, then
    project.history("another").parent.mkdir()
    of_other_settings = watch_of(project, "another", monitored=())
    report_start(of_other_settings, 1)
    report(of_other_settings, 1, 2)
    assert epochs_shown(project) == [2]


@contextlib.contextmanager
def files_of_at_most(size):
    """No file can be made larger than this, in bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    _, hard_limit = limits
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard_limit))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_warning_and_leaves_whole_records(project, caplog):
    # given
    caplog.set_level(logging.WARNING, "rib")
    watch = watch_of(project, monitored=())
    report_start(watch)
    report(watch, 1)
    (event_file,) = project.log_folder.iterdir()
    whole_records = event_file.read_bytes()
    # when the next record can be written in part only
    with files_of_at_most(len(whole_records) + 20):
        report(watch, 1, 2)
        report(watch, 1, 2, 3)
    # then
    assert event_file.read_bytes() == whole_records
    assert len(caplog.records) == 1
    assert caplog.text.count("\n") == 1
    # and when there is room again, then
    report(watch, 1, 2, 3, 4)
    assert epochs_shown(project) == [1, 4]
    assert epochs_in_history(project) == [1, 2, 3, 4]


def test_what_fails_in_monitoring_does_not_end_a_training(project, caplog):
    # given
    (project.prepared("other") / "images.npy").write_bytes(b"damaged")
    caplog.set_level(logging.WARNING, "rib")
    # when
    trained = train_network(watch_of(project))
    # then
    assert trained.history == train_network().history
    (record,) = caplog.records
    message = record.getMessage()
    assert "other/32px/images.npy is damaged" in message
    assert "allow_pickle" not in message
    for tag in ("train/loss", "monitor/more"):
        assert epochs_shown(project, tag) == [1, 2, 3], "what can be shown is shown"


class JsonLines:
    """Another tracker: a line of JSON per call."""

    def __init__(self, folder, job):
        self.path = folder / f"{job}.jsonl"

    def start(self, resumed):
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, epoch, values):
        with open(self.path, "a") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")


def test_another_tracker_is_added(project, monkeypatch):
    # given
    monkeypatch.setattr(watching, "TRACKERS", (*watching.TRACKERS, JsonLines))
    # when
    train_network(watch_of(project))
    # then it has two lines for each epoch, of the training and of the monitored datasets
    written = (project.log_folder / "digest.jsonl").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line.pop("epoch") for line in lines] == [1, 1, 2, 2, 3, 3]
    assert lines[0].keys() == MEASURED_TAGS
    tags = set()
    for line in lines:
        tags |= line.keys()
    assert tags == values_shown(project).keys()
