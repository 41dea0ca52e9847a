"""Every method on every type of network.

It trains, what it stores restores it, and frozen parts stay as they were.
"""

import copy

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from open_clip.transformer import VisionTransformer
from peft.tuners.lora import LoraLayer

from rib.base.errors import UserError
from rib.methods.lora import adapted_layers
from rib.models.checkpoint import add_low_rank_updates, apply
from rib.models.network import OpenClipClassifier, build
from tiny.models.methods import (
    CATALOG,
    check_frozen,
    check_restored,
    coloured_images,
    fine_tuned,
    published,
)
from tiny.models.training import resnet
from tiny.tiers import examples

SIDE = 64
FROZEN = {"linear_probe", "lora", "visual_prompt"}
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


def state_of(network):
    """The tensors of a network by name, in the processor's memory."""
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}


def size_of(tensors):
    """Bytes of tensors given by name."""
    return sum(tensor.nbytes for tensor in tensors.values())


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


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_frozen_tensors_and_buffers_stay_bit_identical_and_are_not_stored(name, network, images):
    algorithm, _, stored = fine_tuned(name, network, images)
    check_frozen(name, network, algorithm, stored)
    assert size_of(stored) < size_of(network.state_dict()) / 2


def test_lora_merged_equals_lora_applied_and_pefts_own_merge(network, images):
    # given
    algorithm, _, stored = fine_tuned("lora", network, images, lr=0.5)
    pretrained = state_of(network)
    # when
    merged = add_low_rank_updates(pretrained, stored)
    # then each adapted layer is another than before
    assert algorithm.layers
    assert len(merged) == len(algorithm.layers)
    for key, weight in merged.items():
        assert not torch.equal(weight, pretrained[key]), key
    # and it is what peft makes of it
    for name, layer in algorithm.layers.items():
        assert isinstance(layer, LoraLayer)
        key = published(f"{name}.weight", pretrained)
        update = layer.get_delta_weight("default").view(pretrained[key].shape)
        expected_weight = pretrained[key] + update
        torch.testing.assert_close(merged[key], expected_weight, rtol=1e-5, atol=1e-6)


def test_lora_moves_query_and_value_and_not_key(network, images):
    if network.type != "vit":
        pytest.skip("no attention")
    # given
    rank = 2
    _, _, stored = fine_tuned("lora", network, images, lr=0.5, rank=rank)
    pretrained = state_of(network)
    # when
    merged = add_low_rank_updates(pretrained, stored)
    # then
    assert merged
    for key, weight in merged.items():
        query, key_of_attention, value = (weight - pretrained[key]).chunk(3)
        assert not key_of_attention.any()
        assert query.any()
        assert value.any()
        assert torch.linalg.matrix_rank(query) <= rank
        assert torch.linalg.matrix_rank(value) <= rank


# Share of ft's fall in cross-entropy that each method must reach here, with its entry's settings;
# the frozen network's random features bound what a prompt or a low-rank update can do.
SHARES = {
    "visual_prompt": 0.05,
    "lora": 0.05,
    "lora_released": 0.02,
    "linear_probe_released": 0.3,
    "surgical_last": 0.1,
}


# lp_ft is ft with another start, see tests/workflow/test_grid_choices.py.
OTHERS = {name: name for name in TRAINED if name not in ("ft", "lp_ft")}


def fall_of_cross_entropy(method, network, images):
    """How much less the cross-entropy is in the last of 12 epochs than in the first."""
    _, history, _ = fine_tuned(method, network, images, epochs=12)
    return history[0]["cross_entropy"] - history[-1]["cross_entropy"]


@pytest.mark.parametrize("name", examples(OTHERS, {"ewc", "lora", "lwf", "visual_prompt"}))
def test_each_method_learns_its_share_of_what_ft_learns(name, images):
    # given
    torch.manual_seed(0)
    network = vit().eval()
    # when
    fall_with_ft = fall_of_cross_entropy("ft", network, images)
    fall_with_method = fall_of_cross_entropy(name, network, images)
    # then
    share = SHARES.get(name, 0.5)
    assert fall_with_ft > 0.3
    assert fall_with_method > share * fall_with_ft


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


def test_states_whose_statistics_moved_are_averaged(images, tmp_path):
    # given
    torch.manual_seed(0)
    network = resnet().eval()
    algorithm, _, stored = fine_tuned("ft_released", network, images, lr=0.01)
    # when
    halves = {"pretrained": 0.5, "ft": 0.5}
    average = apply_checkpoint(network, halves, "ft", stored, tmp_path).state_dict()
    # then
    before = network.state_dict()
    after = algorithm.model.state_dict()
    counts = {name for name in average if name.endswith("num_batches_tracked")}
    assert counts
    for name in counts:
        assert average[name] == after[name]
        assert after[name] > before[name]
    for name in average.keys() - counts:
        expected_tensor = (before[name] + after[name]) / 2
        torch.testing.assert_close(average[name], expected_tensor, msg=name)


def big_transfer():
    """A small BiT, a ResNet whose head is a convolution."""
    torch.manual_seed(0)
    shape = {"layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64), "stem_chs": 8}
    return timm.create_model("resnetv2_50", num_classes=1000, **shape).eval()


def test_linear_probing_fits_a_head_that_is_a_convolution(images):
    # given
    algorithm, _, _ = fine_tuned("linear_probe", big_transfer(), images)
    # when
    rows = np.arange(4)
    with torch.inference_mode():
        logits_of_features = algorithm.logits(rows)
        logits_of_network = algorithm.model(algorithm.images[rows])
    # then
    torch.testing.assert_close(logits_of_features, logits_of_network, rtol=1e-4, atol=1e-4)


def test_lora_leaves_a_convolutional_head_alone_and_adapts_convnext(images):
    # a convolutional head
    fused_layers, single_layers = adapted_layers(big_transfer())
    adapted = [*fused_layers, *single_layers]
    assert adapted
    assert [name for name in adapted if name.startswith("head")] == []
    # ConvNeXt, whose blocks have a multilayer perceptron of two layers
    convnext = timm.create_model(
        "convnext_atto", num_classes=1000, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)
    )
    _, _, stored = fine_tuned("lora", convnext.eval(), images)
    adapted_in_perceptrons = set()
    for name in stored:
        _, separator, below_perceptron = name.rpartition(".mlp.")
        if separator:
            adapted_in_perceptrons.add(below_perceptron.split(".")[0])
    assert adapted_in_perceptrons == {"fc1", "fc2"}


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
    # a name that it doesn't know, and an argument that it doesn't take
    with pytest.raises(UserError, match="open_clip .*'ViT-XXS'"):
        build("open_clip", "ViT-XXS")
    with pytest.raises(UserError, match="ViT-S-32-alt.*dropout"):
        build("open_clip", "ViT-S-32-alt", dropout=0.1)


@pytest.mark.parametrize("name", ["ft", "lwf", "ewc", "l2_sp"])
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
