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
from tiny.methods import (
    CATALOG,
    check_frozen,
    check_restored,
    coloured_images,
    fine_tuned,
    published,
)
from tiny.tiers import examples
from tiny.training import resnet

SIDE = 64
FROZEN = {"linear_probe", "lora", "visual_prompt"}
TRAINED = [
    name for name, method in CATALOG.methods.items() if method.trains and method.text == "no"
]


def vit():
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE)


def open_clip_tower():
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
    torch.manual_seed(0)
    model = NETWORKS[request.param]().eval()
    model.type = TYPES[request.param]
    return model


@pytest.fixture(scope="module")
def images():
    return coloured_images(SIDE)


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_stored_restores_what_was_trained(name, network, images, tmp_path):
    if network.type not in CATALOG.methods[name].types:
        pytest.skip(f"{name} is not for {network.type}")
    check_restored(name, network, *fine_tuned(name, network, images), tmp_path)


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_frozen_tensors_and_buffers_stay_bit_identical_and_are_not_stored(name, network, images):
    algorithm, _, stored = fine_tuned(name, network, images)
    check_frozen(name, network, algorithm, stored)
    whole = sum(tensor.nbytes for tensor in network.state_dict().values())
    assert sum(tensor.nbytes for tensor in stored.values()) < whole / 2


def test_lora_merged_equals_lora_applied_and_pefts_own_merge(network, images):
    algorithm, _, stored = fine_tuned("lora", network, images, lr=0.5)
    state = {key: value.cpu() for key, value in network.state_dict().items()}
    ours = add_low_rank_updates(state, stored)
    assert len(ours) == len(algorithm.layers) and not {
        key for key in ours if torch.equal(ours[key], state[key])
    }
    for name, layer in algorithm.layers.items():
        assert isinstance(layer, LoraLayer)
        key = published(f"{name}.weight", state)
        update = layer.get_delta_weight("default").view(state[key].shape)
        torch.testing.assert_close(ours[key], state[key] + update, rtol=1e-5, atol=1e-6)


def test_lora_moves_query_and_value_and_not_key(network, images):
    if network.type != "vit":
        pytest.skip("no attention")
    _, _, stored = fine_tuned("lora", network, images, lr=0.5, rank=2)
    start = {key: value.cpu() for key, value in network.state_dict().items()}
    for key, value in add_low_rank_updates(start, stored).items():
        q, k, v = (value - start[key]).chunk(3)
        assert not k.any() and q.any() and v.any()
        assert torch.linalg.matrix_rank(q) <= 2 and torch.linalg.matrix_rank(v) <= 2


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


@pytest.mark.parametrize("name", examples(OTHERS, {"ewc", "lora", "lwf", "visual_prompt"}))
def test_each_method_learns_its_share_of_what_ft_learns(name, images):
    torch.manual_seed(0)
    network = vit().eval()
    falls = []
    for which in ("ft", name):
        _, history, _ = fine_tuned(which, network, images, epochs=12)
        falls.append(history[0]["cross_entropy"] - history[-1]["cross_entropy"])
    assert falls[0] > 0.3
    assert falls[1] > SHARES.get(name, 0.5) * falls[0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("lora", {"lr": 0.5}), ("visual_prompt", {"lr": 5.0}), ("linear_probe", {})],
)
def test_a_start_from_another_method_is_stored_with_what_was_trained_after_it(
    name, settings, network, images, tmp_path
):
    start, _, _ = fine_tuned("ft", network, images, lr=0.01)
    algorithm, _, stored = fine_tuned(name, start.model, images, pretrained=network, **settings)
    safetensors.torch.save_file(stored, tmp_path / "c.safetensors")
    restored = apply(copy.deepcopy(network), {name: 1.0}, {name: tmp_path / "c.safetensors"}).eval()
    algorithm.model.eval()
    rows = np.arange(10)
    with torch.inference_mode():
        torch.testing.assert_close(
            restored(algorithm.inputs[rows]), algorithm.logits(rows), rtol=1e-4, atol=1e-4
        )


def test_states_whose_statistics_moved_are_averaged(images, tmp_path):
    torch.manual_seed(0)
    network = resnet().eval()
    algorithm, _, stored = fine_tuned("ft_released", network, images, lr=0.01)
    safetensors.torch.save_file(stored, tmp_path / "ft.safetensors")
    half = apply(
        copy.deepcopy(network), {"pretrained": 0.5, "ft": 0.5}, {"ft": tmp_path / "ft.safetensors"}
    )
    state, before, after = half.state_dict(), network.state_dict(), algorithm.model.state_dict()
    for key in state:
        if key.endswith("num_batches_tracked"):
            assert state[key] == after[key] > before[key]
        else:
            torch.testing.assert_close(state[key], (before[key] + after[key]) / 2)


def bit():
    torch.manual_seed(0)
    shape = {"layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64), "stem_chs": 8}
    return timm.create_model("resnetv2_50", num_classes=1000, **shape).eval()


def test_linear_probing_fits_a_head_that_is_a_convolution(images):
    algorithm, _, _ = fine_tuned("linear_probe", bit(), images)
    rows = np.arange(4)
    with torch.inference_mode():
        found, expected = algorithm.logits(rows), algorithm.model(algorithm.inputs[rows])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_lora_leaves_a_convolutional_head_alone_and_adapts_convnext(images):
    assert not [name for name in adapted_layers(bit())[1] if name.startswith("head")]
    convnext = timm.create_model(
        "convnext_atto", num_classes=1000, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)
    )
    _, _, stored = fine_tuned("lora", convnext.eval(), images)
    assert {key.rpartition(".mlp.")[2].split(".")[0] for key in stored if ".mlp." in key} == {
        "fc1",
        "fc2",
    }


class Bypassing(torch.nn.Module):
    """Attention that uses the weight of its projection without calling it, as timm's BEiT would."""

    def __init__(self, attention):
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj

    def forward(self, tokens, **_):
        return self.proj(torch.nn.functional.linear(tokens, self.qkv.weight).chunk(3, dim=-1)[2])


def test_lora_refuses_what_it_cannot_adapt(images):
    network = vit().eval()
    network.blocks[0].attn = Bypassing(network.blocks[0].attn)
    with pytest.raises(ValueError, match="bypass peft's adapters"):
        fine_tuned("lora", network, images)


def test_an_open_clip_tower_is_built_by_name_and_others_are_refused():
    tower = build("open_clip", "ViT-S-32-alt")
    with torch.inference_mode():
        assert tower(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    with pytest.raises(UserError, match="open_clip .*'ViT-XXS'"):
        build("open_clip", "ViT-XXS")
    with pytest.raises(UserError, match="ViT-S-32-alt.*dropout"):
        build("open_clip", "ViT-S-32-alt", dropout=0.1)


@pytest.mark.parametrize("name", ["ft", "lwf", "ewc", "l2_sp"])
def test_a_batch_in_parts_trains_as_the_whole_does(name, network, images):
    _, history, whole = fine_tuned(name, network, images)
    _, parts_history, parts = fine_tuned(name, network, images, micro_batch_size=2)  # of 5
    assert parts.keys() == whole.keys()
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-3, atol=1e-5)
    for row, other in zip(history, parts_history, strict=True):
        assert (row["loss"], row["accuracy"]) == pytest.approx(
            (other["loss"], other["accuracy"]), rel=1e-4
        )
