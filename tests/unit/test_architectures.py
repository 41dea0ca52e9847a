"""Every architecture family at random weights.

They are trained and adapted with LoRA; features, heads and published weights are tested, too.
"""

import copy
import functools
import math
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.config.label_space import LabelSpace
from rib.data.prepared import PreparedDataset
from rib.evaluation.features import layers_of
from rib.methods.base import BATCH_NORM
from rib.methods.ft import FullFineTuning
from rib.models.heads import fit_head
from rib.models.network import (
    OpenClipClassifier,
    build,
    create,
    embedding_width,
    head_inputs,
    head_parameters,
)
from rib.models.text import prompt_tokens, set_zero_shot_weights
from rib.models.weights import with_weights
from rib.training import finetune
from rib.training.finetune import checkpoint_gradients
from rib.training.optimizer import make_optimizer
from tiny.architectures import ARCHITECTURES, cases
from tiny.census import Census
from tiny.methods import ALL_ROWS, check_frozen, check_restored, coloured_images, fine_tuned, set_up
from tiny.training import CPU, HALF, TRAINING, images_of, prepared_folder

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
        [
            "vit",
            "vit_rope",
            "vit_rope_mixed",
            "beit",
            "dinov2",
            "eva02",
            "eva02_separate",
            "eva02_clip",
        ],
        1,
    ),
    **dict.fromkeys(
        ["pe_core", "pe_spatial", "pe_clip", "mobileclip2_vit", "clip_vit", "vit_rope_registers"], 1
    ),
    **dict.fromkeys(["dinov2_registers", "dinov3", "dinov3_qkv_bias"], 5),
    "deit_distilled": 2,
}

each = pytest.mark.parametrize("name", cases(ARCHITECTURES))


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
    """The network that has the blocks: the model, its image tower, or the tower's timm network."""
    tower = getattr(network, "visual", network)
    return getattr(tower, "trunk", tower)


@pytest.mark.parametrize("method", METHODS)
@each
def test_a_method_trains_and_what_it_stores_restores_it(name, method, tmp_path):
    if method == "linear_probe" and name in TWO_HEADS:
        with pytest.raises(
            ValueError, match="head is a tuple, but linear probing trains one linear layer"
        ):
            trained(name, method)
        return
    algorithm, history, stored = trained(name, method)
    check_restored(method, network_of(name), algorithm, history, stored, tmp_path)
    if method != "ft":
        check_frozen(method, network_of(name), algorithm, stored)


def attention_seen(algorithm):
    """Query and key of the first self-attention on all images.

    With the value, where the fused kernel gets it.
    """
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


@pytest.mark.parametrize("name", cases(TRANSFORMERS + HYBRID))
def test_lora_moves_queries_and_values_by_their_rank_and_no_keys(name):
    network, images = network_of(name), coloured_images(ARCHITECTURES[name].size)
    algorithm, _, stored = fine_tuned("lora", network, images, epochs=1, lr=1.0, rank=2)
    if name != "swin":  # which multiplies the matrices itself
        before = attention_seen(set_up("lora", network, images, rank=2))
        q, k, *v = (
            not torch.equal(*pair) for pair in zip(before, attention_seen(algorithm), strict=True)
        )
        assert q and not k and all(v)
    moved = {
        key.removesuffix(".lora_A"): stored[key.replace("lora_A", "lora_B")] @ a
        for key, a in stored.items()
        if key.endswith("A")
    }
    separate = [key for key in moved if key.endswith((".q_proj.weight", ".v_proj.weight"))]
    assert len(moved) == ATTENTION.get(name, 4) * (2 if separate else 1) and separate in (
        [],
        list(moved),
    )
    for key, delta in moved.items():
        q, k, v = (delta, torch.zeros(1), delta) if separate else delta.chunk(3)
        assert not k.any() and [torch.linalg.matrix_rank(part) for part in (q, v)] == [2, 2], key


@pytest.mark.parametrize("name", cases(sorted(ARCHITECTURES.keys() - {*TRANSFORMERS, *HYBRID})))
def test_lora_moves_pointwise_convolutions_where_there_is_no_attention(name):
    _, _, stored = trained(name, "lora")
    names = {key.rpartition(".weight.lora_")[0] for key in stored}
    layers = [network_of(name).get_submodule(key) for key in names]
    assert all(
        layer.weight.shape[2:].numel() == 1 and getattr(layer, "groups", 1) == 1 for layer in layers
    )
    linear = {key for key, layer in zip(names, layers, strict=True) if isinstance(layer, nn.Linear)}
    assert all(".blocks." in key and ".mlp.fc" in key for key in linear), (
        "the layers of ConvNeXt's blocks"
    )
    assert ("convnext" in name) == bool(linear) and not any(
        "se." in key or "pool" in key for key in names
    )


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
    return [
        body.get_submodule(key)
        for key in STAGES.get(name, [f"stages.{number}" for number in range(4)])
    ]


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
        with pytest.raises(
            UserError, match="head is a tuple, but only a linear head can be fitted"
        ):
            fit_head(network, reference, preprocessing, CPU)
        return
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fit_head(network, reference, preprocessing, CPU)
    changed = {
        key for key, value in network.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {key for key, _ in head_parameters(network)} and len(changed) == 2
    images = images_of(dataset)
    with torch.no_grad():
        features, logits = (
            head_inputs(network, images.inputs[ALL_ROWS]),
            network(images.inputs[ALL_ROWS]),
        )
        weight, bias = network.get_classifier().weight.flatten(1), network.get_classifier().bias
    torch.testing.assert_close(features @ weight.T + bias, logits, rtol=1e-4, atol=1e-5)
    assert F.cross_entropy(logits, images.labels) < math.log(5), "better than chance"


def letters(texts):
    """A tokenizer of the last eight letters."""
    return torch.tensor([[1 + ord(letter) % 63 for letter in text[-8:]] for text in texts])


@pytest.mark.parametrize(
    "name", cases(name for name, known in ARCHITECTURES.items() if known.library == "open_clip")
)
def test_a_zero_shot_head_gives_the_logits_of_the_whole_model_with_its_bias(name, monkeypatch):
    known, names = ARCHITECTURES[name], ["ant", "bee", "cat"]
    monkeypatch.setattr(
        open_clip, "OPENAI_IMAGENET_TEMPLATES", (lambda name: f"a photo of a {name}",)
    )
    torch.manual_seed(0)
    model = create(known.library, known.architecture, known.arguments).eval()
    assert (model.logit_bias is not None) == ("siglip" in name)
    network = OpenClipClassifier(
        model.visual, embedding_width(known.architecture, known.arguments), len(names)
    )
    set_zero_shot_weights(network.head, model, prompt_tokens(letters, names))
    images = random_inputs(name)
    with torch.inference_mode():
        wanted, _ = model.get_logits(images, letters([f"a photo of a {name}" for name in names]))
        torch.testing.assert_close(network(images), wanted, rtol=1e-4, atol=1e-4)


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
    """A network or open_clip model with its own head, and a state dict with other values."""
    torch.manual_seed(1)
    model = create(known.library, known.architecture, {**known.arguments, **more})
    return {
        key: value + 0.1 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }


def assert_loaded(state, known, name):
    """A network with these published weights has just them."""
    model = with_weights(state, known.library, known.architecture, known.arguments, "by_name", name)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys() and all(
        torch.equal(loaded[key], state[key]) for key in state
    )


@each
def test_a_published_state_dict_is_loaded_and_what_it_lacks_is_named(name):
    known = ARCHITECTURES[name]
    state = whole(known)
    assert_loaded(state, known, name)
    gone = next(key for key, value in state.items() if key.endswith(".weight") and value.ndim > 1)
    with pytest.raises(
        UserError, match=f"^{name}: .* don't fit {known.library}'s {known.architecture} .*{gone}"
    ):
        others = {key: value for key, value in state.items() if key != gone}
        with_weights(others, known.library, known.architecture, known.arguments, "by_name", name)


@pytest.mark.parametrize("classes", [7, 0])
@pytest.mark.parametrize(
    "name", cases(name for name, known in ARCHITECTURES.items() if known.library == "timm")
)
def test_a_published_state_dict_is_loaded_with_its_own_head_or_without_one(name, classes):
    known = ARCHITECTURES[name]
    assert_loaded(whole(known, num_classes=classes), known, name)


def at_another_size(known):
    """Arguments of create_model for inputs twice as large; None if the network takes any size."""
    if known.library == "open_clip":
        return {**known.arguments, "force_image_size": 2 * known.size}
    return (
        {**known.arguments, "img_size": 2 * known.size} if "img_size" in known.arguments else None
    )


@pytest.mark.filterwarnings("ignore:.*(searchsorted|non-tuple sequence)")  # within timm
@each
def test_a_published_state_dict_is_resized_to_another_input(name):
    """Resized tables of positions: one that holds a constant, which any interpolation keeps."""
    known = ARCHITECTURES[name]
    arguments = at_another_size(known) or known.arguments
    larger = create(known.library, known.architecture, arguments).state_dict()
    state = whole(known)
    tables = [key for key in state if key in larger and state[key].shape != larger[key].shape]
    for key in tables:
        state[key].fill_(0.5)
    if name == "clip_resnet":
        with pytest.raises(
            UserError, match="size mismatch for visual.attnpool.positional_embedding"
        ):
            with_weights(state, known.library, known.architecture, arguments, "by_name", name)
        return
    model = with_weights(state, known.library, known.architecture, arguments, "by_name", name)
    for key, value in model.state_dict().items():
        if key in tables:
            torch.testing.assert_close(value, torch.full_like(larger[key], 0.5))
        elif key in state:
            assert torch.equal(value, state[key]), key
    images = random_inputs(name, 2 * known.size)
    with torch.inference_mode():
        assert (
            (model(images) if known.library == "timm" else model.encode_image(images))
            .isfinite()
            .all()
        )
    built = build(known.library, known.architecture, arguments=arguments).state_dict()
    found = {key: value.shape for key, value in model.state_dict().items()}
    assert all(
        found[key] == value.shape for key, value in built.items() if not key.startswith("head.")
    )


@each
def test_gradient_checkpointing_gives_the_same_checkpoint_and_keeps_less(name):
    network, algorithm = copy.deepcopy(network_of(name)), FullFineTuning(lr=0.01)
    if name == "clip_resnet":
        with pytest.raises(
            ValueError,
            match="no gradient checkpointing; set compute.gradient_checkpointing to false",
        ):
            checkpoint_gradients(network, algorithm)
        return
    checkpoint_gradients(network, algorithm)
    _, _, stored = fine_tuned("ft", network, coloured_images(ARCHITECTURES[name].size), epochs=1)
    _, _, expected = trained(name, "ft")
    assert stored.keys() == expected.keys() and all(
        torch.equal(stored[key], expected[key]) for key in stored
    )
    assert saved_bytes(network, name) < 0.8 * saved_bytes(network_of(name), name)


def saved_bytes(network, name):
    """Memory of the tensors that a forward pass keeps for the backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(random_inputs(name))
    assert logits.requires_grad
    return sum(size for place, size in kept.items() if place not in weights)


def test_a_narrow_pointwise_convolution_with_stride_has_the_right_gradient():
    """In FastViT's stem, channels last, oneDNN's own gradient is wrong or crashes the process."""
    known = ARCHITECTURES["fastvit"]
    network, images = known.build(), random_inputs("fastvit", n=5)
    plain = timm.create_model(known.architecture, num_classes=1000, **known.arguments).eval()
    plain.load_state_dict(network.state_dict())
    gradients = []
    for model, given in (
        (network.to(memory_format=torch.channels_last), images),
        (plain.double(), images.double()),
    ):
        logits = model(
            given.contiguous(memory_format=torch.channels_last) if model is network else given
        )
        gradients.append(
            (
                logits,
                *torch.autograd.grad(logits.square().sum(), model.stem[0].conv_scale.conv.weight),
            )
        )
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(
            found.double(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item()
        )


# What GPUs ask of architectures.


@each
def test_a_step_asks_a_gpu_for_nothing_that_it_can_not_do_at_once(name):
    """Of one image and of two: no operator waits or raises, and fused optimisers take the step."""
    network = ARCHITECTURES[name].build().eval().to(memory_format=torch.channels_last)
    algorithm = set_up("ft", network, coloured_images(ARCHITECTURES[name].size))
    algorithm.train_mode()
    strides_differ = set()

    def note_strides(optimizer):
        for key, parameter in algorithm.trainable():
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                strides_differ.add(key)

    algorithm.update = note_strides
    optimizer = make_optimizer(algorithm, TRAINING, CPU)
    census = Census()
    with census.of_steps():
        for number_of_images in (1, 2):
            finetune._take_step(algorithm, optimizer, np.arange(number_of_images), TRAINING)
    assert census.operators > 0 and not census.faults
    assert not strides_differ
