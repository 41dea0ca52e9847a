"""Features are what the network computes: the head on them gives its logits, for every kind of network."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from rib.features import features_of, first_images, layers_of
from rib.io import UserError
from rib.models.frame import Frame
from rib.models.inputs import Inputs
from rib.models.pretrained import OpenClipClassifier

SIDE = 64
LAYERS = ["stage1", "stage2", "stage3", "stage4", "pre_logits"]


def open_clip_tower():
    tower = VisionTransformer(image_size=SIDE, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24)
    return OpenClipClassifier(tower, 24)


NETWORKS = {
    "vit": lambda: timm.create_model("test_vit", img_size=SIDE),
    "resnet": lambda: timm.create_model("test_resnet", zero_init_last=False),
    "efficientnet": lambda: timm.create_model("test_efficientnet"),
    "convnext": lambda: timm.create_model("test_convnext"),
    "open_clip": open_clip_tower,
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
def test_a_frame_around_the_input_is_part_of_the_run(network, images):
    frame = Frame.of(SIDE, 4, torch.device("cpu"))
    for strip in frame.parameters():
        strip.fill_(0.5)
    model = nn.Sequential()
    model.frame, model.network = frame, copy.deepcopy(network)
    framed, plain = layers_of(model, images), layers_of(network, images)
    torch.testing.assert_close(framed["pre_logits"], layers_of(network, frame(images))["pre_logits"])
    assert not torch.allclose(framed["pre_logits"], plain["pre_logits"])


def test_batches_do_not_matter_and_rows_keep_their_order(network):
    pixels = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3)).astype(np.uint8)
    inputs = Inputs(pixels, [0.5] * 3, [0.5] * 3, torch.device("cpu"), np.array([6, 1, 2, 3, 4]))
    whole, parts = (features_of(network, inputs, size, "test") for size in (5, 2))
    for name in LAYERS:
        assert whole[name].dtype == torch.float32 and whole[name].shape[0] == 5
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-5)
    reordered = features_of(
        network, Inputs(pixels, [0.5] * 3, [0.5] * 3, torch.device("cpu"), np.array([1, 6])), 2, "test"
    )
    torch.testing.assert_close(reordered["pre_logits"], whole["pre_logits"][[1, 0]], rtol=1e-4, atol=1e-5)


def test_a_network_whose_stages_are_unknown_says_so():
    with pytest.raises(UserError, match="Linear has no stages"):
        layers_of(nn.Linear(3, 3), torch.zeros(1, 3, SIDE, SIDE))


def test_a_limit_above_the_number_of_images_takes_all():
    dataset = SimpleNamespace(labels=np.zeros(5))
    assert first_images(dataset, 5) is dataset
