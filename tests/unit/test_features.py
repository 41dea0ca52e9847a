"""Features are what the network computes, and what a job writes of them.

Features of every kind of network are in test_architectures.py.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.data.view import DatasetFiles
from rib.evaluation.evaluation_settings import FeatureSettings
from rib.evaluation.features import compute_epoch_features, compute_features, features_of, layers_of
from rib.evaluation.networks import NetworkState, RunNetworks
from rib.models import device as devices
from rib.models.padding_prompt import PaddingPrompt
from rib.schema.run import Run
from tiny.changed import replace
from tiny.models.training import (
    CODE,
    COMPUTE,
    CPU,
    FINE_TUNED,
    MEAN,
    OF_CPU,
    STD,
    VIEW,
    images_of,
    images_of_pixels,
    model_folder,
    normalised,
    prepared_folder,
    random_images,
    resnet,
    rows_of,
    split_file,
)

SIDE = 64  # of images, in pixels
STAGES = ["stage1", "stage2", "stage3", "stage4"]
LAYERS = [*STAGES, "pre_logits"]
ALL_ROWS = slice(None)


@pytest.fixture
def network():
    """A small network."""
    return resnet()


@pytest.fixture
def images():
    """Three images of noise, as a network takes them."""
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_a_padding_prompt_is_part_of_the_run(network, images):
    # given
    prompt = PaddingPrompt.of(SIDE, 4, CPU)
    for strip in prompt.parameters():
        strip.fill_(0.5)
    model = nn.Sequential()
    model.prompt = prompt
    model.network = copy.deepcopy(network)
    # when
    features = layers_of(model, images)["pre_logits"]
    # then
    features_of_prompted_images = layers_of(network, prompt(images))["pre_logits"]
    features_of_plain_images = layers_of(network, images)["pre_logits"]
    torch.testing.assert_close(features, features_of_prompted_images)
    assert not torch.allclose(features, features_of_plain_images)


def test_batches_do_not_matter_and_rows_keep_their_order(network):
    # given
    pixels = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3)).astype(np.uint8)
    five_images = images_of_pixels(pixels, rows=np.array([6, 1, 2, 3, 4]))
    two_of_them = images_of_pixels(pixels, rows=np.array([1, 6]))
    # when
    features = features_of(network, five_images, evaluation_batch_size=5, label="test")
    features_in_batches = features_of(network, five_images, evaluation_batch_size=2, label="test")
    features_of_two = features_of(network, two_of_them, evaluation_batch_size=2, label="test")
    # then
    assert list(features) == LAYERS
    for layer in LAYERS:
        assert features[layer].dtype == torch.float32
        assert len(features[layer]) == 5
        torch.testing.assert_close(
            features[layer], features_in_batches[layer], rtol=1e-4, atol=1e-5
        )
    places_among_the_five = [1, 0]
    expected = features["pre_logits"][places_among_the_five]
    torch.testing.assert_close(features_of_two["pre_logits"], expected, rtol=1e-4, atol=1e-5)


def test_a_network_whose_stages_are_unknown_is_refused():
    with pytest.raises(UserError, match="Linear has no stages"):
        layers_of(nn.Linear(3, 3), torch.zeros(1, 3, SIDE, SIDE))


# What a job writes.

IMAGES = 11  # of the dataset
INDEX_COLUMNS = ["row", "image_id", "label", "source_id", "object_id"]


@dataclass(frozen=True)
class TrainedRun:
    """Two snapshots of a run, and images to pass through them."""

    networks: Sequence[nn.Module]  # of the snapshots
    checkpoints: Sequence[Path]  # of the snapshots
    model_folder: Path  # of the pretrained network
    dataset_folder: Path
    images: SimpleNamespace  # of the dataset

    @property
    def network(self):
        """The network of the run, which is that of its first snapshot."""
        return self.networks[0]

    @property
    def checkpoint(self):
        """The checkpoint of the run."""
        return self.checkpoints[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Snapshots in which the first layer is moved away from the pretrained one, at random."""
    folder = tmp_path_factory.mktemp("run")
    pretrained = resnet()
    networks = []
    checkpoints = []
    for seed in (1, 2):
        network = copy.deepcopy(pretrained)
        generator = torch.Generator().manual_seed(seed)
        weight = network.conv1[0].weight.data
        noise = torch.randn(weight.shape, generator=generator)
        weight += 0.3 * weight.std() * noise
        networks.append(network)
        checkpoint = folder / f"snapshot{seed}.safetensors"
        safetensors.torch.save_file({"conv1.0.weight": weight}, checkpoint)
        checkpoints.append(checkpoint)
    images = random_images(IMAGES, 64, seed=1)
    return TrainedRun(
        networks=networks,
        checkpoints=checkpoints,
        model_folder=model_folder(folder / "model", pretrained),
        dataset_folder=prepared_folder(folder / "dataset", images),
        images=images,
    )


class Written(NamedTuple):
    """What a job has written."""

    features: dict[str, torch.Tensor]  # by layer or snapshot
    index: pa.Table
    manifest: dict


def run_job(
    run, folder, *, proxy=None, split=None, limit=99, layers="default", states=FINE_TUNED, **files
):
    """Compute the features of the run on its dataset into a new folder; gives what was written.

    Args:
        proxy: folder of the dataset with the pretraining proxy, whose images are left out.
        split: file of the dataset's split.
        limit: of the number of images.
        states: of the run.
        files: `checkpoint`, or `snapshots`, of which each has features of its own.
    """
    folder.mkdir()
    arguments = {
        "run": Run("net", "set", "ft", "all", 3),
        "dataset": DatasetFiles("others", run.dataset_folder, proxy, split),
        "settings": FeatureSettings(
            view=replace(VIEW, images_per_class=2),
            evaluation_batch_size=4,
            compute=COMPUTE,
            code=CODE,
            layers=layers,
            limit=limit,
        ),
        "features": folder / "features.safetensors",
        "index": folder / "index.parquet",
        "manifest": folder / "manifest.json",
    }
    if "snapshots" in files:
        compute_epoch_features(model_folder=run.model_folder, **files, **arguments)
    else:
        checkpoints = {"ft": files.get("checkpoint", run.checkpoint)}
        compute_features(networks=RunNetworks(run.model_folder, states, checkpoints), **arguments)
    return Written(
        safetensors.torch.load_file(arguments["features"]),
        pq.read_table(arguments["index"]),
        read_json(arguments["manifest"]),
    )


def features_by_hand(run, network, rows):
    """Features of some images of the run's dataset by layer, all images in one batch."""
    pixels = normalised(run.images.images[rows], MEAN, STD)
    with torch.inference_mode():
        return layers_of(network, pixels)


def test_a_job_keeps_every_layers_features_and_which_rows_they_are_of(run, tmp_path, progress):
    # when
    written = run_job(run, tmp_path / "out")
    # then
    batches = 3
    progress_of_job = ("features of net/set/ft/all/3 on others", batches, batches, "batch")
    assert progress() == [progress_of_job]
    expected_features = features_by_hand(run, run.network, ALL_ROWS)
    assert written.features.keys() == set(LAYERS)
    for layer, features in written.features.items():
        torch.testing.assert_close(features, expected_features[layer], rtol=1e-3, atol=1e-4)
    assert written.index.column_names == INDEX_COLUMNS
    assert written.index["row"].to_pylist() == list(range(IMAGES))
    assert written.index["label"].to_pylist() == run.images.labels.tolist()
    size_of_layer = {layer: features.shape[1] for layer, features in expected_features.items()}
    assert written.manifest == {
        **OF_CPU,
        "evaluation_batch_size": 4,
        "n": IMAGES,
        "layers": size_of_layer,
    }
    assert len(set(size_of_layer.values())) > 1, "layers differ in their sizes"


def test_a_job_keeps_the_layers_that_are_asked_for_and_refuses_unknown_ones(run, tmp_path):
    # given
    folder_of_unknown = tmp_path / "unknown"
    # when
    written = run_job(run, tmp_path / "some", layers=["stage2", "pre_logits"])
    # then
    assert written.features.keys() == {"stage2", "pre_logits"}
    assert written.manifest["layers"].keys() == {"stage2", "pre_logits"}
    message = "net.*stage9.*stage1, stage2, stage3, stage4, pre_logits"
    with pytest.raises(UserError, match=message):
        run_job(run, folder_of_unknown, layers=["stage1", "stage9"])
    assert list(folder_of_unknown.iterdir()) == []


def test_a_job_takes_the_test_split_and_no_more_images_than_its_limit(run, tmp_path):
    # given
    split = split_file(tmp_path / "split.parquet", IMAGES)
    classes = 3
    images_per_class = 2  # of the pretraining proxy, which are left out
    # when
    written = run_job(run, tmp_path / "split", split=split)
    written_with_limit = run_job(run, tmp_path / "limit", limit=6)
    written_without_proxy = run_job(run, tmp_path / "proxy", proxy=run.dataset_folder)
    # then
    rows_of_test_split = rows_of("test", IMAGES)
    expected_features = features_by_hand(run, run.network, rows_of_test_split)
    assert written.index["row"].to_pylist() == rows_of_test_split
    torch.testing.assert_close(
        written.features["pre_logits"], expected_features["pre_logits"], rtol=1e-3, atol=1e-4
    )
    assert written_with_limit.manifest["n"] == 6
    assert sorted(written_with_limit.index["label"].to_pylist()) == [0, 0, 1, 1, 2, 2]
    assert written_without_proxy.index.num_rows == IMAGES - classes * images_per_class


def test_a_curve_has_no_features_of_its_own_and_what_is_not_finite_is_refused(run, tmp_path):
    # given
    curve = [NetworkState("ft", 0.0, {"pretrained": 1.0}), NetworkState("ft", 1.0, {"ft": 1.0})]
    weight = run.network.layer4[0].conv1.weight
    broken_checkpoint = tmp_path / "broken.safetensors"
    safetensors.torch.save_file(
        {"layer4.0.conv1.weight": torch.full_like(weight, float("nan"))}, broken_checkpoint
    )
    # then
    with pytest.raises(UserError, match=r"net/set/ft/all/3: a curve"):
        run_job(run, tmp_path / "curve", states=curve)
    with pytest.raises(UserError, match=r"net/set/ft/all/3 on others.*'stage4'"):
        run_job(run, tmp_path / "broken", checkpoint=broken_checkpoint)


def test_a_job_keeps_what_the_head_reads_in_each_snapshot(run, tmp_path, progress):
    # when
    written = run_job(
        run, tmp_path / "out", limit=6, layers=["pre_logits"], snapshots=run.checkpoints
    )
    # then
    label = "features of net/set/ft/all/3 on others"
    assert progress() == [
        (f"{label}, snapshot1", 2, 2, "batch"),
        (f"{label}, snapshot2", 2, 2, "batch"),
    ]
    rows = written.index["row"].to_pylist()
    assert len(rows) == 6
    assert rows == sorted(rows)
    assert list(written.features) == ["snapshot1", "snapshot2"]
    size_of_snapshot = {}
    for name, network in zip(("snapshot1", "snapshot2"), run.networks, strict=True):
        expected = features_by_hand(run, network, rows)["pre_logits"]
        torch.testing.assert_close(written.features[name], expected, rtol=1e-3, atol=1e-4)
        size_of_snapshot[name] = expected.shape[1]
    assert written.manifest == {
        **OF_CPU,
        "evaluation_batch_size": 4,
        "n": 6,
        "layers": size_of_snapshot,
    }


def test_features_are_computed_in_the_precision_that_was_chosen(run, monkeypatch):
    # given
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    inputs = images_of(run.images, MEAN, STD)
    # when
    features = features_of(run.network, inputs, evaluation_batch_size=IMAGES, label="test")
    # then
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        expected_features = layers_of(run.network, inputs[ALL_ROWS])
    features_in_single_precision = features_by_hand(run, run.network, ALL_ROWS)
    assert features["pre_logits"].dtype == torch.float32
    assert torch.equal(features["pre_logits"], expected_features["pre_logits"].float())
    assert not torch.equal(features["pre_logits"], features_in_single_precision["pre_logits"])
