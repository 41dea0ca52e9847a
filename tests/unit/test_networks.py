"""Every method on every type of network trains, and its checkpoint restores the network."""

import copy

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from open_clip.transformer import VisionTransformer

from rib.base.errors import UserError
from rib.models.checkpoint import apply
from rib.models.network import OpenClipClassifier, build
from tiny.models.methods import (
    CATALOG,
    check_restored,
    coloured_images,
    fine_tuned,
)
from tiny.models.training import resnet

SIDE = 64
TRAINED = [
    name for name, method in CATALOG.methods.items() if method.trains and method.text == "no"
]
ALL_ROWS = np.arange(10)


def vit():
    """A small vision transformer for images of SIDE pixels."""
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE)


def open_clip_tower():
    """The image tower of a small CLIP, with a head for as many classes as it has outputs."""
    tower = VisionTransformer(
        image_size=SIDE, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24
    )
    return OpenClipClassifier(tower, 24)


NETWORKS = {"vit": vit, "resnet": resnet, "open_clip": open_clip_tower}
TYPES = {"vit": "vit", "resnet": "cnn", "open_clip": "vit"}


@pytest.fixture(
    scope="module", params=["vit", "resnet", pytest.param("open_clip", marks=pytest.mark.thorough)]
)
def network(request):
    """A small network, whose type the catalogue's methods ask for."""
    torch.manual_seed(0)
    model = NETWORKS[request.param]().eval()
    model.type = TYPES[request.param]
    return model


@pytest.fixture(scope="module")
def images():
    """Images of five colours."""
    return coloured_images(SIDE)


def apply_checkpoint(network, weights, method, stored, folder):
    """A copy of the network with the weights of a merge.

    Args:
        weights: of the merge, by method.
        method: whose checkpoint is written.
        stored: its tensors.
        folder: for the checkpoint.
    """
    checkpoint = folder / "checkpoint.safetensors"
    safetensors.torch.save_file(stored, checkpoint)
    return apply(copy.deepcopy(network), weights, {method: checkpoint}).eval()


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_stored_restores_what_was_trained(name, network, images, tmp_path):
    if network.type not in CATALOG.methods[name].types:
        pytest.skip(f"{name} is not for {network.type}")
    algorithm, history, stored = fine_tuned(name, network, images)
    check_restored(name, network, algorithm, history, stored, tmp_path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("lora", {"lr": 0.5}), ("visual_prompt", {"lr": 5.0}), ("linear_probe", {})],
)
def test_a_start_from_another_method_is_stored_with_what_was_trained_after_it(
    name, settings, network, images, tmp_path
):
    # given
    start, _, _ = fine_tuned("ft", network, images, lr=0.01)
    # when
    algorithm, _, stored = fine_tuned(name, start.model, images, pretrained=network, **settings)
    # then
    restored = apply_checkpoint(network, {name: 1.0}, name, stored, tmp_path)
    algorithm.model.eval()
    with torch.inference_mode():
        logits_restored = restored(algorithm.images[ALL_ROWS])
        logits_trained = algorithm.logits(ALL_ROWS)
    torch.testing.assert_close(logits_restored, logits_trained, rtol=1e-4, atol=1e-4)


class BypassingAttention(torch.nn.Module):
    """Attention that uses the weight of its projection without calling it, as timm's BEiT would."""

    def __init__(self, attention):
        super().__init__()
        self.qkv = attention.qkv
        self.proj = attention.proj

    def forward(self, tokens, **_):
        """The projected values, as if each token attended to itself alone."""
        projected = torch.nn.functional.linear(tokens, self.qkv.weight)
        _, _, value = projected.chunk(3, dim=-1)
        return self.proj(value)


def test_lora_refuses_what_it_cannot_adapt(images):
    network = vit().eval()
    network.blocks[0].attn = BypassingAttention(network.blocks[0].attn)
    with pytest.raises(ValueError, match="bypass peft's adapters"):
        fine_tuned("lora", network, images)


def test_an_open_clip_tower_is_built_by_name_and_others_are_refused():
    # a name that open_clip knows
    tower = build("open_clip", "ViT-S-32-alt")
    image = torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        logits = tower(image)
    assert logits.shape == (1, 1000)
    # a name that it doesn't know
    with pytest.raises(UserError, match="open_clip .*'ViT-XXS'"):
        build("open_clip", "ViT-XXS")


@pytest.mark.parametrize("name", ["ft", "lwf", "ewc", "l2_sp", "ldifs", "self_distillation_ema"])
def test_a_batch_in_parts_trains_as_the_whole_does(name, network, images):
    # when
    _, history_of_whole, stored_of_whole = fine_tuned(name, network, images)
    _, history_of_parts, stored_of_parts = fine_tuned(name, network, images, micro_batch_size=2)
    # then
    assert stored_of_whole
    assert stored_of_parts.keys() == stored_of_whole.keys()
    for key, tensor in stored_of_whole.items():
        torch.testing.assert_close(stored_of_parts[key], tensor, rtol=1e-3, atol=1e-5)
    assert history_of_whole
    for epoch_of_whole, epoch_of_parts in zip(history_of_whole, history_of_parts, strict=True):
        assert epoch_of_whole["loss"] == pytest.approx(epoch_of_parts["loss"], rel=1e-4)
        assert epoch_of_whole["accuracy"] == pytest.approx(epoch_of_parts["accuracy"], rel=1e-4)
