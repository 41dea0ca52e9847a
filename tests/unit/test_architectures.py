"""Every architecture family through training, LoRA, features, heads and published weights, at random weights."""

import functools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.config.label_space import LabelSpace
from rib.data.prepared import PreparedDataset
from rib.evaluation.features import layers_of
from rib.methods.base import BATCH_NORM
from rib.models.heads import fit_head
from rib.models.network import create, head_inputs, head_parameters
from rib.models.weights import with_weights
from rib.training.finetune import checkpoint_gradients
from tiny.architectures import ARCHITECTURES
from tiny.methods import ALL_ROWS, check_frozen, check_restored, coloured_images, fine_tuned, set_up
from tiny.training import CPU, HALF, images_of, prepared_folder

METHODS = ["ft", "linear_probe", "lora", "visual_prompt"]
TWO_HEADS = ["deit_distilled"]
HYBRID = ["fastvit", "mobileclip2", "mobileclip2_large"]  # attention in the last stages only
TRANSFORMERS = [name for name, known in ARCHITECTURES.items() if known.type == "vit"]
PLAIN = [name for name in TRANSFORMERS if not name.startswith("swin")]
ATTENTION = {
    "mobileclip2_vit": 2,
    "swin": 5,
    "swinv2": 5,
    "swinv2_cr": 5,
    "fastvit": 1,
    "mobileclip2": 1,
    "mobileclip2_large": 2,
}
PATCHES = 16  # of an image, in all plain networks here

CHANNELS_LAST = ["swin", "swinv2"]  # (N, H, W, C)
TOKENS = {  # before those of the patches: class token, distillation token, registers
    **dict.fromkeys(
        ["vit", "vit_rope", "vit_rope_mixed", "beit", "dinov2", "eva02", "eva02_separate", "eva02_clip"], 1
    ),
    **dict.fromkeys(["pe_core", "pe_spatial", "pe_clip", "mobileclip2_vit", "clip_vit", "vit_rope_registers"], 1),
    **dict.fromkeys(["dinov2_registers", "dinov3", "dinov3_qkv_bias"], 5),
    "deit_distilled": 2,
}

each = pytest.mark.parametrize("name", ARCHITECTURES)


@functools.cache
def network_of(name):
    return ARCHITECTURES[name].build()


@functools.cache
def trained(name, method):
    return fine_tuned(method, network_of(name), coloured_images(ARCHITECTURES[name].size), epochs=1)


def random_inputs(name, size=None, n=2):
    size = size or ARCHITECTURES[name].size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def body_of(network):
    """The network itself, or the image tower of an open_clip model; for a timm tower, timm's network."""
    tower = getattr(network, "visual", network)
    return getattr(tower, "trunk", tower)


@pytest.mark.parametrize("method", METHODS)
@each
def test_a_method_trains_and_what_it_stores_restores_it(name, method, tmp_path):
    if method == "linear_probe" and name in TWO_HEADS:
        with pytest.raises(ValueError, match="head is a tuple, but linear probing trains one linear layer"):
            trained(name, method)
        return
    algorithm, history, stored = trained(name, method)
    check_restored(method, network_of(name), algorithm, history, stored, tmp_path)
    if method != "ft":
        check_frozen(method, network_of(name), algorithm, stored)


def attention_seen(algorithm):
    """Query and key, and the value where the fused kernel gets it, of the first self-attention on all images."""
    seen = []

    def fused(q, k, v, **more):
        seen.append((q, k, v))
        return kernel(q, k, v, **more)

    def cosine(part, **more):
        seen.append((part,))
        return normalize(part, **more)

    kernel, normalize = F.scaled_dot_product_attention, F.normalize
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(F, "scaled_dot_product_attention", fused)
        patch.setattr(F, "normalize", cosine)  # attention of Swin V2: the cosine of query and key
        algorithm.logits(ALL_ROWS[:2])
    return seen[0] if len(seen[0]) == 3 else seen[0] + seen[1]


@pytest.mark.parametrize("name", TRANSFORMERS + HYBRID)
def test_lora_moves_queries_and_values_by_their_rank_and_no_keys(name):
    network, images = network_of(name), coloured_images(ARCHITECTURES[name].size)
    algorithm, _, stored = fine_tuned("lora", network, images, epochs=1, lr=1.0, rank=2)
    if name != "swin":  # which multiplies the matrices itself
        before = attention_seen(set_up("lora", network, images, rank=2))
        q, k, *v = (not torch.equal(*pair) for pair in zip(before, attention_seen(algorithm), strict=True))
        assert q and not k and all(v)
    moved = {
        key.removesuffix(".lora_A"): stored[key.replace("lora_A", "lora_B")] @ a
        for key, a in stored.items()
        if key.endswith("A")
    }
    separate = [key for key in moved if key.endswith((".q_proj.weight", ".v_proj.weight"))]
    assert len(moved) == ATTENTION.get(name, 4) * (2 if separate else 1) and separate in ([], list(moved))
    for key, delta in moved.items():
        q, k, v = (delta, torch.zeros(1), delta) if separate else delta.chunk(3)
        assert not k.any() and [torch.linalg.matrix_rank(part) for part in (q, v)] == [2, 2], key


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - {*TRANSFORMERS, *HYBRID}))
def test_lora_moves_pointwise_convolutions_where_there_is_no_attention(name):
    _, _, stored = trained(name, "lora")
    names = {key.rpartition(".weight.lora_")[0] for key in stored}
    layers = [network_of(name).get_submodule(key) for key in names]
    assert all(layer.weight.shape[2:].numel() == 1 and getattr(layer, "groups", 1) == 1 for layer in layers)
    linear = {key for key, layer in zip(names, layers, strict=True) if isinstance(layer, nn.Linear)}
    assert all(".blocks." in key and ".mlp.fc" in key for key in linear), "the layers of ConvNeXt's blocks"
    assert ("convnext" in name) == bool(linear) and not any("se." in key or "pool" in key for key in names)


STAGES = {
    "resnet": ["layer1", "layer2", "layer3", "layer4"],
    "clip_resnet": ["layer1", "layer2", "layer3", "layer4"],
    "efficientnet": ["blocks.1", "blocks.2", "blocks.4", "blocks.6"],
    "swin": ["layers.0", "layers.1", "layers.2", "layers.3"],
    "swinv2": ["layers.0", "layers.1", "layers.2", "layers.3"],
    "mobileclip2_large": ["stages.1", "stages.2", "stages.3", "stages.4"],
}


def stages_of(name, body):
    """Modules after each quarter of the depth."""
    if name in PLAIN:
        blocks = body.transformer.resblocks if hasattr(body, "transformer") else body.blocks
        return [blocks[math.ceil(quarter * len(blocks) / 4) - 1] for quarter in (1, 2, 3, 4)]
    return [body.get_submodule(key) for key in STAGES.get(name, [f"stages.{number}" for number in range(4)])]


@each
def test_stages_are_means_over_patches_and_the_last_layer_is_the_heads_input(name):
    network, images, seen = network_of(name), random_inputs(name), {}
    modules = stages_of(name, body_of(network))
    for module in modules:
        module.register_forward_hook(lambda module, _, output: seen.update({module: output}))
    with torch.inference_mode():
        read_by_head = head_inputs(network, images)
        found = layers_of(network, images)
    assert list(found) == ["stage1", "stage2", "stage3", "stage4", "pre_logits"]
    for layer, module in zip(found, modules, strict=False):
        output = seen[module]
        if name in PLAIN:
            assert output.shape[1] - PATCHES == TOKENS.get(name, 0)
            mean = output[:, -PATCHES:].mean(dim=1)
        else:
            mean = output.mean(dim=(1, 2) if name in CHANNELS_LAST else (2, 3))
        torch.testing.assert_close(found[layer], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["pre_logits"], read_by_head, rtol=1e-4, atol=1e-5)
    assert all(features.isfinite().all() and features.std() > 0 for features in found.values())


@each
def test_the_head_is_one_linear_layer_that_can_be_fitted(name, tmp_path):
    known, dataset = ARCHITECTURES[name], coloured_images(ARCHITECTURES[name].size)
    network, preprocessing = known.build(num_classes=5), {"mean": HALF, "std": HALF}
    space = LabelSpace(tuple("abcde"), tuple((i,) for i in range(5)), tuple("abcde"), 5)
    dataset = SimpleNamespace(images=dataset.images, labels=dataset.labels, space=space)
    reference = PreparedDataset.open(prepared_folder(tmp_path / "reference", dataset), "reference")
    if name in TWO_HEADS:
        assert len(head_parameters(network)) == 4
        with pytest.raises(UserError, match="head is a tuple, but only a linear head can be fitted"):
            fit_head(network, reference, preprocessing, CPU)
        return
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fit_head(network, reference, preprocessing, CPU)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key, _ in head_parameters(network)} and len(changed) == 2
    images = images_of(dataset)
    with torch.no_grad():
        features, logits = head_inputs(network, images.inputs[ALL_ROWS]), network(images.inputs[ALL_ROWS])
        weight, bias = network.get_classifier().weight.flatten(1), network.get_classifier().bias
    torch.testing.assert_close(features @ weight.T + bias, logits, rtol=1e-4, atol=1e-5)
    assert F.cross_entropy(logits, images.labels) < math.log(5), "better than chance"


@each
def test_dropout_is_used_or_refused_in_a_sentence(name):
    known = ARCHITECTURES[name]
    if known.library == "open_clip":
        with pytest.raises(UserError, match="have no dropout or drop_path; set both to 0"):
            known.build(dropout=0.1)
        return
    images = random_inputs(name)
    for rates in ({"dropout": 0.5}, {"drop_path": 0.5}):
        network = known.build(**rates).train()
        for module in network.modules():
            if isinstance(module, BATCH_NORM):
                module.eval()
        with torch.no_grad():
            assert not torch.equal(network(images), network(images)), rates


def whole(known, **more):
    """A network or open_clip model with its own head, and a copy of its state dict with other values."""
    torch.manual_seed(1)
    model = create(known.library, known.architecture, {**known.arguments, **more})
    return {
        key: value + 0.1 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("classes", [1000, 7, 0], ids=["own", "another head", "no head"])
@each
def test_a_published_state_dict_is_loaded_with_its_own_head(name, classes):
    known = ARCHITECTURES[name]
    if known.library == "open_clip" and classes != 1000:
        pytest.skip("open_clip's models have no classes")
    state = whole(known, **({"num_classes": classes} if known.library == "timm" else {}))
    model = with_weights(state, known.library, known.architecture, known.arguments, "by_name", name)
    found = model.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    with pytest.raises(UserError, match=f"^{name}: the weights .* don't fit {known.library}'s {known.architecture}"):
        missing = {key: value for key, value in state.items() if key != list(state)[-4]}
        with_weights(missing, known.library, known.architecture, known.arguments, "by_name", name)
