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
from rib.catalog.label_space import LabelSpace
from rib.data.dataset import PreparedDataset
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
from rib.training import loop
from rib.training.gradient_checkpointing import checkpoint_gradients
from rib.training.loop import make_optimizer
from tiny.models.architectures import ARCHITECTURES, cases
from tiny.models.census import Census
from tiny.models.methods import (
    ALL_ROWS,
    check_restored,
    coloured_images,
    fine_tuned,
    set_up,
)
from tiny.models.training import CPU, HALF, TRAINING, images_of, prepared_folder, with_defaults

METHODS = ["ft", "linear_probe", "lora", "visual_prompt"]
TWO_HEADS = ["deit_distilled"]
HYBRID = ["fastvit", "mobileclip2", "mobileclip2_large"]  # attention in the last stages only
TRANSFORMERS = [name for name, entry in ARCHITECTURES.items() if entry.type == "vit"]
PLAIN = [name for name in TRANSFORMERS if not name.startswith("swin")]
WITHOUT_ATTENTION = sorted(ARCHITECTURES.keys() - {*TRANSFORMERS, *HYBRID})
OF_TIMM = [name for name, entry in ARCHITECTURES.items() if entry.library == "timm"]
OF_OPEN_CLIP = [name for name, entry in ARCHITECTURES.items() if entry.library == "open_clip"]

# Number of attention layers, where it is not the number of blocks of VIT.
USUAL_ATTENTION_LAYERS = 4
ATTENTION_LAYERS = {
    "mobileclip2_vit": 2,
    "swin": 5,
    "swinv2": 5,
    "swinv2_cr": 5,
    "fastvit": 1,
    "mobileclip2": 1,
    "mobileclip2_large": 2,
}

CHANNELS_LAST = ["swin", "swinv2"]  # features are (N, H, W, C)
PATCHES = 16  # of an image, in all plain networks here
# Tokens before those of the patches: class token, distillation token, registers.
TOKENS = {
    "vit": 1,
    "vit_rope": 1,
    "vit_rope_mixed": 1,
    "vit_rope_registers": 1,
    "beit": 1,
    "dinov2": 1,
    "dinov2_registers": 5,
    "dinov3": 5,
    "dinov3_qkv_bias": 5,
    "deit_distilled": 2,
    "eva02": 1,
    "eva02_separate": 1,
    "eva02_clip": 1,
    "pe_core": 1,
    "pe_spatial": 1,
    "pe_clip": 1,
    "mobileclip2_vit": 1,
    "clip_vit": 1,
}

each = pytest.mark.parametrize("name", cases(ARCHITECTURES))


@functools.cache
def network_of(name):
    """The small network of an architecture, which tests share and don't change."""
    return ARCHITECTURES[name].build()


def images_for(name):
    """Coloured images of the size that an architecture takes, of five classes."""
    return coloured_images(ARCHITECTURES[name].size)


@functools.cache
def trained(name, method):
    """What `fine_tuned` gives of one epoch: algorithm, history and stored tensors."""
    return fine_tuned(method, network_of(name), images_for(name), epochs=1)


def random_inputs(name, size=None, n=2):
    """Inputs of noise.

    Args:
        size: in pixels, if it is another than that of the architecture.
        n: number of images.
    """
    if size is None:
        size = ARCHITECTURES[name].size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def body_of(network):
    """The network that has the blocks: the model, its image tower, or the tower's timm network."""
    tower = getattr(network, "visual", network)
    return getattr(tower, "trunk", tower)


def assert_equal_tensors(state, expected):
    """Two state dicts have the same keys and the same values."""
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key


# Methods


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


def check_frozen(name, network, algorithm, stored):
    """Check that what a method doesn't train stays bit-identical and is not stored.

    This holds for tensors and buffers.
    """
    head = {key for key, _ in head_parameters(network)}
    original = network.state_dict()
    trained_state = {
        published_name(key, original): tensor
        for key, tensor in algorithm.model.state_dict().items()
    }
    for key, tensor in original.items():
        if name != "linear_probe" or key not in head:
            assert torch.equal(trained_state[key], tensor), key
    if name == "linear_probe":
        assert stored.keys() == head
    else:
        assert not stored.keys() & original.keys()


def published_name(key, original):
    """Name of a tensor before peft wrapped its layer, or attention was unfolded to an nn.Linear."""
    key = key.replace("base_layer.", "")
    return key if key in original else key.replace(".qkv.", ".in_proj_")


def inputs_of_first_attention(algorithm):
    """Query and key of the first self-attention on two images.

    With the value, where the fused kernel gets it.
    """
    inputs_of_calls = []
    fused_kernel = F.scaled_dot_product_attention
    normalize = F.normalize

    def note_attention(query, key, value, **settings):
        inputs_of_calls.append([query, key, value])
        return fused_kernel(query, key, value, **settings)

    def note_normalised(vectors, **settings):
        """Swin V2's attention is the cosine of query and key: it normalises one, then the other."""
        inputs_of_calls.append([vectors])
        return normalize(vectors, **settings)

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(F, "scaled_dot_product_attention", note_attention)
        patch.setattr(F, "normalize", note_normalised)
        algorithm.logits(ALL_ROWS[:2])
    first_call = inputs_of_calls[0]
    if len(first_call) == 3:
        return first_call
    second_call = inputs_of_calls[1]
    return first_call + second_call


def changes_by_lora(stored):
    """By weight, the product of the two matrices that LoRA stores of it."""
    changes = {}
    for key, matrix_a in stored.items():
        if key.endswith(".lora_A"):
            weight = key.removesuffix(".lora_A")
            changes[weight] = stored[f"{weight}.lora_B"] @ matrix_a
    return changes


@pytest.mark.parametrize("name", cases(TRANSFORMERS + HYBRID))
def test_lora_moves_queries_and_values_by_their_rank_and_no_keys(name):
    # given
    network = network_of(name)
    images = images_for(name)
    rank = 2
    # when
    algorithm, _, stored = fine_tuned("lora", network, images, epochs=1, lr=1.0, rank=rank)
    # then attention gets other queries and values and the same keys
    if name != "swin":  # which multiplies the matrices itself
        before = inputs_of_first_attention(set_up("lora", network, images, rank=rank))
        after = inputs_of_first_attention(algorithm)
        query_moved, key_moved, *value_moved = (
            not torch.equal(*pair) for pair in zip(before, after, strict=True)
        )
        assert query_moved
        assert not key_moved
        assert all(value_moved)
    # and each layer's weight of queries and values has a change of this rank
    changes = changes_by_lora(stored)
    layers = ATTENTION_LAYERS.get(name, USUAL_ATTENTION_LAYERS)
    is_separate = [key.endswith((".q_proj.weight", ".v_proj.weight")) for key in changes]
    if any(is_separate):
        assert all(is_separate)
        assert len(changes) == 2 * layers
        for key, change in changes.items():
            assert torch.linalg.matrix_rank(change) == rank, key
    else:
        assert len(changes) == layers
        for key, change in changes.items():
            change_of_query, change_of_key, change_of_value = change.chunk(3)
            assert torch.linalg.matrix_rank(change_of_query) == rank, key
            assert not change_of_key.any(), key
            assert torch.linalg.matrix_rank(change_of_value) == rank, key


@pytest.mark.parametrize("name", cases(WITHOUT_ATTENTION))
def test_lora_moves_pointwise_convolutions_where_there_is_no_attention(name):
    _, _, stored = trained(name, "lora")
    layer_names = {key.rpartition(".weight.lora_")[0] for key in stored}
    has_linear_layer = False
    for layer_name in layer_names:
        layer = network_of(name).get_submodule(layer_name)
        kernel_shape = layer.weight.shape[2:]
        assert kernel_shape.numel() == 1, layer_name
        assert getattr(layer, "groups", 1) == 1, layer_name
        assert "se." not in layer_name
        assert "pool" not in layer_name
        if isinstance(layer, nn.Linear):
            has_linear_layer = True
            assert ".blocks." in layer_name, "a layer of ConvNeXt's blocks"
            assert ".mlp.fc" in layer_name, "a layer of ConvNeXt's blocks"
    assert has_linear_layer == ("convnext" in name)


@each
def test_gradient_checkpointing_gives_the_same_checkpoint_and_keeps_less(name):
    network = copy.deepcopy(network_of(name))
    algorithm = with_defaults(FullFineTuning, lr=0.01)
    if name == "clip_resnet":
        with pytest.raises(
            ValueError,
            match="no gradient checkpointing; set compute.gradient_checkpointing to false",
        ):
            checkpoint_gradients(network, algorithm)
        return
    checkpoint_gradients(network, algorithm)
    _, _, stored = fine_tuned("ft", network, images_for(name), epochs=1)
    _, _, expected = trained(name, "ft")
    assert_equal_tensors(stored, expected)
    assert saved_bytes(network, name) < 0.8 * saved_bytes(network_of(name), name)


def saved_bytes(network, name):
    """Memory of the tensors that a forward pass keeps for the backward pass, without weights."""
    bytes_of_storage = {}

    def note_storage(tensor):
        storage = tensor.untyped_storage()
        bytes_of_storage[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unchanged(tensor):
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note_storage, unchanged):
        logits = network(random_inputs(name))
    assert logits.requires_grad
    for parameter in network.parameters():
        bytes_of_storage.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(bytes_of_storage.values())


@each
def test_dropout_is_used_or_refused_in_a_sentence(name):
    architecture = ARCHITECTURES[name]
    if architecture.library == "open_clip":
        with pytest.raises(UserError, match="have no dropout or drop_path; set both to 0"):
            architecture.build(dropout=0.1)
        return
    images = random_inputs(name)
    for rates in ({"dropout": 0.5}, {"drop_path": 0.5}):
        network = architecture.build(**rates).train()
        for module in network.modules():
            if isinstance(module, BATCH_NORM):
                module.eval()
        with torch.no_grad():
            assert not torch.equal(network(images), network(images)), rates


# Features and heads


STAGES = {
    "resnet": ["layer1", "layer2", "layer3", "layer4"],
    "clip_resnet": ["layer1", "layer2", "layer3", "layer4"],
    "efficientnet": ["blocks.1", "blocks.2", "blocks.4", "blocks.6"],
    "swin": ["layers.0", "layers.1", "layers.2", "layers.3"],
    "swinv2": ["layers.0", "layers.1", "layers.2", "layers.3"],
    "mobileclip2_large": ["stages.1", "stages.2", "stages.3", "stages.4"],
}
USUAL_STAGES = ["stages.0", "stages.1", "stages.2", "stages.3"]


def stages_of(name, body):
    """Modules after each quarter of the depth."""
    if name in PLAIN:
        blocks = body.transformer.resblocks if hasattr(body, "transformer") else body.blocks
        last_blocks = [math.ceil(quarter * len(blocks) / 4) - 1 for quarter in (1, 2, 3, 4)]
        return [blocks[number] for number in last_blocks]
    return [body.get_submodule(key) for key in STAGES.get(name, USUAL_STAGES)]


def mean_over_patches(name, output):
    """Mean of a stage's output over the patches of an image, without other tokens."""
    if name in PLAIN:
        tokens = output.shape[1] - PATCHES
        assert tokens == TOKENS.get(name, 0)
        return output[:, tokens:].mean(dim=1)
    if name in CHANNELS_LAST:
        return output.mean(dim=(1, 2))
    return output.mean(dim=(2, 3))


@each
def test_stages_are_means_over_patches_and_the_last_layer_is_the_heads_input(name):
    # given
    network = network_of(name)
    images = random_inputs(name)
    output_of_module = {}

    def note_output(module, _, output):
        output_of_module[module] = output

    modules = stages_of(name, body_of(network))
    hooks = [module.register_forward_hook(note_output) for module in modules]
    # when
    with torch.inference_mode():
        read_by_head = head_inputs(network, images)
        features = layers_of(network, images)
    for hook in hooks:
        hook.remove()
    # then
    assert list(features) == ["stage1", "stage2", "stage3", "stage4", "pre_logits"]
    stages = ["stage1", "stage2", "stage3", "stage4"]
    for stage, module in zip(stages, modules, strict=True):
        expected = mean_over_patches(name, output_of_module[module])
        torch.testing.assert_close(features[stage], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features["pre_logits"], read_by_head, rtol=1e-4, atol=1e-5)
    for features_of_layer in features.values():
        assert features_of_layer.isfinite().all()
        assert features_of_layer.std() > 0


@each
def test_the_head_is_one_linear_layer_that_can_be_fitted(name, tmp_path):
    # given a network of five classes, and a reference with as many
    network = ARCHITECTURES[name].build(num_classes=5)
    preprocessing = {"mean": HALF, "std": HALF}
    images = images_for(name)
    keys = ("a", "b", "c", "d", "e")
    space = LabelSpace(keys, outputs_of_five_classes(), keys, 5)
    dataset = SimpleNamespace(images=images.images, rows=None, labels=images.labels, space=space)
    reference = PreparedDataset.open(prepared_folder(tmp_path / "reference", dataset), "reference")
    if name in TWO_HEADS:
        assert len(head_parameters(network)) == 4
        with pytest.raises(
            UserError, match="head is a tuple, but only a linear head can be fitted"
        ):
            fit_head(network, reference, preprocessing, CPU)
        return
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    # when
    fit_head(network, reference, preprocessing, CPU)
    # then only weight and bias of the head changed
    after = network.state_dict()
    changed = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key, _ in head_parameters(network)}
    assert len(changed) == 2
    # and the head, a linear layer on its input, is better than chance
    inputs = images_of(dataset)[ALL_ROWS]
    head = network.get_classifier()
    with torch.no_grad():
        features = head_inputs(network, inputs)
        logits = network(inputs)
        logits_of_linear_layer = features @ head.weight.flatten(1).T + head.bias
    torch.testing.assert_close(logits_of_linear_layer, logits, rtol=1e-4, atol=1e-5)
    assert F.cross_entropy(logits, images_of(dataset).labels) < math.log(5)


def outputs_of_five_classes():
    """Each class has one output, that of its number."""
    return tuple((number,) for number in range(5))


def token_of_letter(letter):
    """A token, 1 to 63."""
    return 1 + ord(letter) % 63


def tokens_of_letters(texts):
    """A tokenizer of the last eight letters."""
    tokens_of_texts = []
    for text in texts:
        tokens_of_texts.append([token_of_letter(letter) for letter in text[-8:]])
    return torch.tensor(tokens_of_texts)


@pytest.mark.parametrize("name", cases(OF_OPEN_CLIP))
def test_a_zero_shot_head_gives_the_logits_of_the_whole_model_with_its_bias(name, monkeypatch):
    # given a model with one prompt for each class
    monkeypatch.setattr(
        open_clip, "OPENAI_IMAGENET_TEMPLATES", (lambda class_name: f"a photo of a {class_name}",)
    )
    classes = ["ant", "bee", "cat"]
    prompts = ["a photo of a ant", "a photo of a bee", "a photo of a cat"]
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = create_with_own_head(architecture, architecture.arguments).eval()
    assert (model.logit_bias is not None) == ("siglip" in name)
    # when
    width = embedding_width(architecture.architecture, architecture.arguments)
    network = OpenClipClassifier(model.visual, width, len(classes))
    set_zero_shot_weights(network.head, model, prompt_tokens(tokens_of_letters, classes))
    # then
    images = random_inputs(name)
    with torch.inference_mode():
        expected, _ = model.get_logits(images, tokens_of_letters(prompts))
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


# Published weights


def create_with_own_head(architecture, arguments):
    """A network or open_clip model as its library makes it."""
    return create(architecture.library, architecture.architecture, arguments)


def published_weights(architecture, **changes):
    """A state dict of random values.

    Args:
        changes: of the arguments of the architecture.
    """
    torch.manual_seed(1)
    model = create_with_own_head(architecture, {**architecture.arguments, **changes})
    state = {}
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            state[key] = tensor + 0.1 * torch.randn_like(tensor)
        else:
            state[key] = tensor
    return state


def load_published(state, name, arguments=None):
    """The network or model of an architecture with these published weights.

    Args:
        arguments: of create_model, if they are others than those of the architecture.
    """
    architecture = ARCHITECTURES[name]
    if arguments is None:
        arguments = architecture.arguments
    return with_weights(
        state, architecture.library, architecture.architecture, arguments, "by_name", name
    )


@each
def test_a_published_state_dict_is_loaded_and_what_it_lacks_is_named(name):
    architecture = ARCHITECTURES[name]
    state = published_weights(architecture)
    assert_equal_tensors(load_published(state, name).state_dict(), state)

    matrices = [key for key, tensor in state.items() if key.endswith(".weight") and tensor.ndim > 1]
    first_matrix = matrices[0]
    without_matrix = {key: tensor for key, tensor in state.items() if key != first_matrix}
    does_not_fit = f"don't fit {architecture.library}'s {architecture.architecture}"
    with pytest.raises(UserError, match=f"^{name}: .* {does_not_fit} .*{first_matrix}"):
        load_published(without_matrix, name)


@pytest.mark.parametrize("classes", [7, 0])
@pytest.mark.parametrize("name", cases(OF_TIMM))
def test_a_published_state_dict_is_loaded_with_its_own_head_or_without_one(name, classes):
    state = published_weights(ARCHITECTURES[name], num_classes=classes)
    assert_equal_tensors(load_published(state, name).state_dict(), state)


def arguments_at_twice_the_size(architecture):
    """Arguments of create_model for larger inputs; the same if the network takes any size."""
    size = 2 * architecture.size
    if architecture.library == "open_clip":
        return {**architecture.arguments, "force_image_size": size}
    if "img_size" in architecture.arguments:
        return {**architecture.arguments, "img_size": size}
    return architecture.arguments


def tensors_of_other_shape(state, larger_state):
    """Keys of the tensors that both have and that are larger in one."""
    shared = [key for key in state if key in larger_state]
    return [key for key in shared if state[key].shape != larger_state[key].shape]


@pytest.mark.filterwarnings("ignore:.*(searchsorted|non-tuple sequence)")  # within timm
@each
def test_a_published_state_dict_is_resized_to_another_input(name):
    """Resized tables of positions: one that holds a constant, which any interpolation keeps."""
    # given
    architecture = ARCHITECTURES[name]
    arguments = arguments_at_twice_the_size(architecture)
    state = published_weights(architecture)
    larger_state = create_with_own_head(architecture, arguments).state_dict()
    tables = tensors_of_other_shape(state, larger_state)
    for key in tables:
        state[key].fill_(0.5)
    if name == "clip_resnet":
        with pytest.raises(
            UserError, match="size mismatch for visual.attnpool.positional_embedding"
        ):
            load_published(state, name, arguments)
        return
    # when
    model = load_published(state, name, arguments)
    # then
    loaded = model.state_dict()
    for key, tensor in loaded.items():
        if key in tables:
            torch.testing.assert_close(tensor, torch.full_like(larger_state[key], 0.5))
        elif key in state:
            assert torch.equal(tensor, state[key]), key
    # and larger images can be read
    images = random_inputs(name, 2 * architecture.size)
    with torch.inference_mode():
        outputs = model(images) if architecture.library == "timm" else model.encode_image(images)
    assert outputs.isfinite().all()
    # and shapes are those of the network that is trained
    network = build(architecture.library, architecture.architecture, arguments=arguments)
    for key, tensor in network.state_dict().items():
        if not key.startswith("head."):
            assert loaded[key].shape == tensor.shape, key


# Gradients


def logits_and_stem_gradient(model, images):
    """Logits, and the gradient of the sum of their squares at FastViT's first convolution."""
    logits = model(images)
    weight = model.stem[0].conv_scale.conv.weight
    (gradient,) = torch.autograd.grad(logits.square().sum(), weight)
    return logits, gradient


def test_a_narrow_pointwise_convolution_with_stride_has_the_right_gradient():
    """In FastViT's stem, channels last, oneDNN's own gradient is wrong or crashes the process."""
    # given our network with channels last, and timm's in double precision
    architecture = ARCHITECTURES["fastvit"]
    network = architecture.build()
    plain = timm.create_model(
        architecture.architecture, num_classes=1000, **architecture.arguments
    ).eval()
    plain.load_state_dict(network.state_dict())
    images = random_inputs("fastvit", n=5)
    # when
    logits, gradient = logits_and_stem_gradient(
        network.to(memory_format=torch.channels_last),
        images.contiguous(memory_format=torch.channels_last),
    )
    expected_logits, expected_gradient = logits_and_stem_gradient(plain.double(), images.double())
    # then
    assert_close_to_scale(logits, expected_logits)
    assert_close_to_scale(gradient, expected_gradient)


def assert_close_to_scale(values, expected):
    """Tensors agree to a thousandth of the largest expected value."""
    largest = expected.abs().max().item()
    torch.testing.assert_close(values.double(), expected, rtol=1e-3, atol=1e-3 * largest)


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
            loop.take_step(algorithm, optimizer, np.arange(number_of_images), TRAINING)
    assert census.operators > 0 and not census.faults
    assert not strides_differ
