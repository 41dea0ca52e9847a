"""Features are what the network computes.

The head on them gives the network's logits, for every kind of network.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.run import Run
from rib.data.view import DatasetFiles
from rib.evaluation.features import compute_epoch_features, compute_features, features_of, layers_of
from rib.evaluation.merge_files import NetworkState
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.models.network import OpenClipClassifier
from rib.models.padding_prompt import PaddingPrompt
from tiny.changed import replace
from tiny.training import (
    COMPUTE,
    CPU,
    FINE_TUNED,
    MEAN,
    STD,
    VIEW,
    model_folder,
    normalised,
    prepared_folder,
    random_images,
    resnet,
    rows_of,
    split_file,
)

SIDE = 64
LAYERS = ["stage1", "stage2", "stage3", "stage4", "pre_logits"]


def open_clip_tower():
    tower = VisionTransformer(
        image_size=SIDE, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24
    )
    return OpenClipClassifier(tower, 24)


def open_clip_resnet():
    """The tower of open_clip's RN50, made small."""
    tower = OpenClipClassifier(
        ModifiedResNet([1, 1, 1, 1], output_dim=24, heads=2, image_size=SIDE, width=8), 24
    )
    for name, parameter in tower.named_parameters():
        if name.endswith("bn3.weight"):  # which begins at zero, so that blocks would do nothing
            nn.init.ones_(parameter)
    return tower


def open_clip_trunk():
    """A tower that open_clip takes from timm, as its ConvNeXts."""
    return OpenClipClassifier(
        TimmModel("test_convnext", embed_dim=24, image_size=SIDE, pool="", proj="linear"), 24
    )


NETWORKS = {
    "vit": lambda: timm.create_model("test_vit", img_size=SIDE),
    "resnet": lambda: timm.create_model("test_resnet", zero_init_last=False),
    "efficientnet": lambda: timm.create_model("test_efficientnet"),
    "convnext": lambda: timm.create_model("test_convnext"),
    "open_clip": open_clip_tower,
    "open_clip_resnet": open_clip_resnet,
    "open_clip_trunk": open_clip_trunk,
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_the_head_on_pre_logits_gives_the_logits(network, images):
    found = layers_of(network, images)
    assert list(found) == LAYERS
    torch.testing.assert_close(network.get_classifier()(found["pre_logits"]), network(images))


# The modules whose outputs the stages are, named from the networks' definitions.
MODULES = {
    "vit": ["blocks.1", "blocks.2", "blocks.4", "blocks.5"],
    "resnet": ["layer1", "layer2", "layer3", "layer4"],
    "efficientnet": ["blocks.1", "blocks.2", "blocks.3", "blocks.4"],
    "convnext": ["stages.0", "stages.1", "stages.2", "stages.3"],
    "open_clip": [f"visual.transformer.resblocks.{block}" for block in (0, 0, 1, 1)],
    "open_clip_resnet": [f"visual.layer{number}" for number in (1, 2, 3, 4)],
    "open_clip_trunk": [f"visual.trunk.stages.{number}" for number in range(4)],
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_stages_are_the_outputs_of_each_quarter_averaged_over_positions(name, images):
    network = NETWORKS[name]().eval()
    seen = {}
    for module in set(MODULES[name]):
        network.get_submodule(module).register_forward_hook(
            lambda _, args, output, module=module: seen.__setitem__(module, output)
        )
    network(images)
    found = layers_of(network, images)
    for stage, module in zip(LAYERS, MODULES[name], strict=False):
        output = seen[module]
        tokens = output.dim() == 3  # of which the first is the class token
        expected = output[:, 1:].mean(dim=1) if tokens else output.mean(dim=(2, 3))
        torch.testing.assert_close(found[stage], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_padding_prompt_is_part_of_the_run(network, images):
    prompt = PaddingPrompt.of(SIDE, 4, CPU)
    for strip in prompt.parameters():
        strip.fill_(0.5)
    model = nn.Sequential()
    model.prompt, model.network = prompt, copy.deepcopy(network)
    prompted, plain = layers_of(model, images), layers_of(network, images)
    torch.testing.assert_close(
        prompted["pre_logits"], layers_of(network, prompt(images))["pre_logits"]
    )
    assert not torch.allclose(prompted["pre_logits"], plain["pre_logits"])


def test_batches_do_not_matter_and_rows_keep_their_order(network):
    pixels = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3)).astype(np.uint8)
    inputs = Inputs(pixels, [0.5] * 3, [0.5] * 3, CPU, np.array([6, 1, 2, 3, 4]))
    whole, parts = (features_of(network, inputs, size, "test") for size in (5, 2))
    for name in LAYERS:
        assert whole[name].dtype == torch.float32 and whole[name].shape[0] == 5
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-5)
    reordered = features_of(
        network, Inputs(pixels, [0.5] * 3, [0.5] * 3, CPU, np.array([1, 6])), 2, "test"
    )
    torch.testing.assert_close(
        reordered["pre_logits"], whole["pre_logits"][[1, 0]], rtol=1e-4, atol=1e-5
    )


def test_a_network_whose_stages_are_unknown_is_refused():
    with pytest.raises(UserError, match="Linear has no stages"):
        layers_of(nn.Linear(3, 3), torch.zeros(1, 3, SIDE, SIDE))


# What a job writes.

INDEX = ["row", "image_id", "label", "source_id", "object_id"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network moved away from the pretrained one, twice, and images to pass through it."""
    top, network = tmp_path_factory.mktemp("run"), resnet()
    networks, files = [], []
    for seed in (1, 2):
        model, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
        weight = model.conv1[0].weight.data
        weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
        files.append(top / f"snapshot{seed}.safetensors")
        safetensors.torch.save_file({"conv1.0.weight": weight}, files[-1])
        networks.append(model)
    images = random_images(11, 64, seed=1)
    return SimpleNamespace(
        networks=networks,
        files=files,
        images=images,
        model=model_folder(top / "model", network),
        dataset=prepared_folder(top / "dataset", images),
    )


def job(
    run, out, function=compute_features, *, proxy=None, split=None, limit=99, more=None, **changes
):
    """What a job writes.

    `more` are arguments of the function, `changes` those of the run on the dataset.
    """
    out.mkdir()
    source = RunOnDataset(
        run=Run("net", "set", "ft", "all", 3),
        states=FINE_TUNED,
        checkpoints={"ft": run.files[0]},
        model_folder=run.model,
        dataset=DatasetFiles("others", run.dataset, proxy, split),
        view=replace(VIEW, images_per_class=2),
        evaluation_batch_size=4,
        compute=COMPUTE,
    )
    function(
        source=replace(source, **changes),
        limit=limit,
        features=out / "features.safetensors",
        index=out / "index.parquet",
        manifest=out / "manifest.json",
        **({"layers": "default"} if more is None else more),
    )
    features = safetensors.torch.load_file(out / "features.safetensors")
    return features, pq.read_table(out / "index.parquet"), read_json(out / "manifest.json")


def by_hand(run, network, rows):
    with torch.inference_mode():
        return layers_of(network, normalised(run.images.images[rows], MEAN, STD))


def test_a_job_keeps_every_layers_features_and_which_rows_they_are_of(run, tmp_path, progress):
    features, index, manifest = job(run, tmp_path / "out")
    assert progress() == [("features of net/set/ft/all/3 on others", 3, 3, "batch")]
    wanted = by_hand(run, run.networks[0], slice(None))
    assert features.keys() == set(LAYERS)
    for name, values in features.items():
        torch.testing.assert_close(values, wanted[name], rtol=1e-3, atol=1e-4)
    assert index.column_names == INDEX and index["row"].to_pylist() == list(range(11))
    assert index["label"].to_pylist() == run.images.labels.tolist()
    sizes = {name: values.shape[1] for name, values in wanted.items()}
    assert manifest == {"device": "cpu", "n": 11, "layers": sizes} and len(set(sizes.values())) > 1


def test_a_job_keeps_the_layers_that_are_asked_for_and_refuses_unknown_ones(run, tmp_path):
    features, _, manifest = job(run, tmp_path / "some", more={"layers": ["stage2", "pre_logits"]})
    assert features.keys() == manifest["layers"].keys() == {"stage2", "pre_logits"}
    with pytest.raises(UserError, match=r"net.*stage9.*stage1, stage2, stage3, stage4, pre_logits"):
        job(run, tmp_path / "none", more={"layers": ["stage1", "stage9"]})
    assert not list((tmp_path / "none").iterdir())


def test_a_job_takes_the_test_split_and_no_more_images_than_its_limit(run, tmp_path):
    rows = rows_of("test", 11)
    features, index, _ = job(
        run, tmp_path / "part", split=split_file(tmp_path / "split.parquet", 11)
    )
    assert index["row"].to_pylist() == rows
    wanted = by_hand(run, run.networks[0], rows)["pre_logits"]
    torch.testing.assert_close(features["pre_logits"], wanted, rtol=1e-3, atol=1e-4)
    _, limited, manifest = job(run, tmp_path / "limit", limit=6)
    assert manifest["n"] == 6 and sorted(limited["label"].to_pylist()) == [0, 0, 1, 1, 2, 2]
    _, without_proxy, _ = job(run, tmp_path / "proxy", proxy=run.dataset)
    assert without_proxy.num_rows == 11 - 2 * 3


def test_a_curve_has_no_features_of_its_own_and_what_is_not_finite_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="net/set/ft/all/3 on others.*curve"):
        job(
            run,
            tmp_path / "curve",
            states=[NetworkState(0.0, {"pretrained": 1.0}), NetworkState(1.0, {"ft": 1.0})],
        )
    broken = {
        "layer4.0.conv1.weight": torch.full_like(
            run.networks[0].layer4[0].conv1.weight, float("nan")
        )
    }
    safetensors.torch.save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match="net/set/ft/all/3 on others.*'stage4'"):
        job(run, tmp_path / "broken", checkpoints={"ft": tmp_path / "broken.safetensors"})


def test_a_job_keeps_what_the_head_reads_in_each_snapshot(run, tmp_path, progress):
    features, index, manifest = job(
        run, tmp_path / "out", compute_epoch_features, limit=6, more={"snapshots": run.files}
    )
    expected = [
        (f"features of net/set/ft/all/3 on others, snapshot{number}", 2, 2, "batch")
        for number in (1, 2)
    ]
    assert progress() == expected
    rows = index["row"].to_pylist()
    assert features.keys() == {"snapshot1", "snapshot2"} and rows == sorted(rows) and len(rows) == 6
    for name, network in zip(("snapshot1", "snapshot2"), run.networks, strict=True):
        wanted = by_hand(run, network, rows)["pre_logits"]
        torch.testing.assert_close(features[name], wanted, rtol=1e-3, atol=1e-4)
    assert manifest == {"device": "cpu", "n": 6, "layers": dict.fromkeys(features, wanted.shape[1])}


def test_a_plain_network_is_cut_after_each_quarter_of_its_blocks_rounded_up():
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=SIDE, depth=9).eval()
    seen, images = {}, torch.randn(2, 3, SIDE, SIDE)
    for number, block in enumerate(network.blocks, start=1):
        block.register_forward_hook(
            lambda _, args, output, number=number: seen.__setitem__(number, output)
        )
    with torch.inference_mode():
        found = layers_of(network, images)
    for stage, block in zip(LAYERS, (3, 5, 7, 9), strict=False):
        torch.testing.assert_close(
            found[stage], seen[block][:, 1:].mean(dim=1), rtol=1e-4, atol=1e-5
        )


def test_features_are_computed_in_the_precision_that_was_chosen(run, monkeypatch):
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    inputs = Inputs(run.images.images, MEAN, STD, CPU)
    found = features_of(run.networks[0], inputs, 11, "test")["pre_logits"]
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        wanted = layers_of(run.networks[0], inputs[slice(None)])["pre_logits"]
    assert found.dtype == torch.float32 and torch.equal(found, wanted.float())
    assert not torch.equal(found, by_hand(run, run.networks[0], slice(None))["pre_logits"])
