"""LDIFS against its authors' form written out.

Where it has no weight, it is compared with full fine-tuning.
"""

import copy
import itertools

import numpy as np
import pytest
import timm
import torch

from rib.methods import _distil
from rib.methods.ft import FullFineTuning
from rib.methods.ldifs import FeatureDistance, with_unit_channels
from rib.models.augmentation import Augmentation, recipe_transform
from rib.models.token_features import token_features
from tiny.changed import replace
from tiny.models.architectures import ARCHITECTURES
from tiny.models.training import (
    TRAINING,
    normalised,
    random_images,
    task_of,
    trained,
    trained_by_hand,
    with_defaults,
)
from tiny.tiers import first

LR = 0.01
WEIGHT = 10.0
EIGHT_EPOCHS = replace(TRAINING, epochs=8, batch_size=5)  # of ten images: 16 steps
DEPTHS = 5  # of which features are compared: before the first block and after each of four


def outputs_of_blocks(blocks, x):
    """What the first block gets, and what each block gives."""
    return list(itertools.accumulate(blocks, lambda features, block: block(features), initial=x))


def features_of_resnet(network, images):
    """Feature maps (N, C, h, w) of a test_resnet, as tokens (N, T, C).

    They are what its first stage gets and the outputs of the four stages.
    """
    x = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    feature_maps = outputs_of_blocks(stages, x)
    return [feature_map.flatten(2).transpose(1, 2) for feature_map in feature_maps]


def features_of_vit(network, images):
    """Tokens (N, T, C), with that of the class, of a timm ViT of four blocks.

    They are taken before the first block and after each.
    """
    embedded = network._pos_embed(network.patch_embed(images))
    return outputs_of_blocks(network.blocks, network.norm_pre(network.patch_drop(embedded)))


def features_of_clip(network, images):
    """As `features_of_vit`, of open_clip's ViT: after its first norm and after each block."""
    tower = network.visual
    patches = tower.conv1(images).flatten(2).transpose(1, 2)
    class_token = tower.class_embedding.expand(len(images), 1, -1)
    tokens = torch.cat([class_token, patches], dim=1) + tower.positional_embedding
    return outputs_of_blocks(tower.transformer.resblocks, tower.ln_pre(tokens))


def unit_channels(tokens, smallest):
    """Channels (C, T) of tokens (T, C) of an image, normalised.

    A channel gets norm 1, or is divided by a fraction of the mean norm if that is more.

    Args:
        smallest: this fraction.
    """
    channels = list(tokens.T)
    norms = []
    for channel in channels:
        # a square root has no gradient at zero
        norms.append((channel**2).sum() ** 0.5 if channel.any() else torch.zeros(()))
    mean_norm = sum(norm.item() for norm in norms) / len(norms)
    least = smallest * mean_norm
    scaled_channels = []
    for channel, norm in zip(channels, norms, strict=True):
        divisor = norm if norm > least else least
        scaled_channels.append(channel / (divisor + 1e-10))
    return torch.stack(scaled_channels)


def distance_by_hand(features, smallest, network, start, images):
    """Mean over images and depths of the mean squared difference over channels and tokens.

    Args:
        features: gives the features of all depths, of a network and images.
        smallest: see `unit_channels`.
        network, start: while it trains, and as it was pretrained.
        images: (N, 3, H, W).
    """
    distances = []
    for image in images.split(1):
        with torch.no_grad():
            features_at_start = features(start, image)
        distances_at_depths = []
        for (tokens,), (tokens_at_start,) in zip(
            features(network, image), features_at_start, strict=True
        ):
            channels = unit_channels(tokens, smallest)
            difference = channels - unit_channels(tokens_at_start, smallest)
            distances_at_depths.append((difference**2).mean())
        distances.append(torch.stack(distances_at_depths).mean())
    return torch.stack(distances).mean()


def assert_sixteen_steps_descend_the_distance(network, target, weight, features, smallest):
    """Assert that a network trains as it does by hand, with a weighted distance of features.

    Args:
        weight: of the distance in the loss.
        features, smallest: see `distance_by_hand`.
    """
    # given
    by_hand = copy.deepcopy(network)
    pixels = normalised(target.images)

    def penalty(model, rows, logits, step):
        return weight * distance_by_hand(features, smallest, model, network, pixels[rows])

    # when
    method = with_defaults(FeatureDistance, lr=LR, weight=weight)
    model, history = trained(method, network, target, EIGHT_EPOCHS)
    history_by_hand = trained_by_hand(
        by_hand, pixels, target.labels, target.space, LR, EIGHT_EPOCHS, 0, penalty
    )
    # then
    last_epoch = history[-1]
    assert last_epoch["loss"] > last_epoch["cross_entropy"] + 1e-3, "the features moved"
    assert len(history) == EIGHT_EPOCHS.epochs
    for epoch, epoch_by_hand in zip(history, history_by_hand, strict=True):
        assert epoch == pytest.approx(epoch_by_hand, rel=1e-3)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.thorough
def test_sixteen_steps_on_a_cnn_descend_the_authors_distance_of_feature_maps(network, target):
    assert_sixteen_steps_descend_the_distance(
        network, target, weight=WEIGHT, features=features_of_resnet, smallest=0.1
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "features"), first([("vit", features_of_vit), ("clip_vit", features_of_clip)])
)
def test_sixteen_steps_on_a_transformer_descend_the_authors_distance_of_all_tokens(name, features):
    architecture = ARCHITECTURES[name]
    target = random_images(side=architecture.size)
    assert_sixteen_steps_descend_the_distance(
        architecture.build(), target, weight=2000.0, features=features, smallest=0.0
    )


def network_and_two_images(name):
    """The network of an architecture, and two images for it (2, 3, H, W)."""
    architecture = ARCHITECTURES[name]
    images = random_images(n=2, side=architecture.size).images
    return architecture.build(), normalised(images)


CLASS_TOKENS = {
    "vit": 1,
    "deit_distilled": 2,
    "dinov2_registers": 5,
    "siglip": 0,
    "clip_vit": 1,
    "eva02_clip": 1,
}


@pytest.mark.parametrize("name", CLASS_TOKENS)
def test_all_tokens_of_a_transformer_count(name):
    # given
    network, images = network_and_two_images(name)
    # when
    with torch.no_grad():
        depths, output = token_features(network, images)
        expected_output = network.forward_features(images)
    # then
    number_of_tokens = 16 + CLASS_TOKENS[name]
    assert torch.equal(output, expected_output)
    assert [tokens.shape[:2] for tokens in depths] == [(2, number_of_tokens)] * DEPTHS


@pytest.mark.parametrize(
    "name",
    ["swin", "swinv2_cr", "convnext_clip", "clip_resnet", "efficientnet", "mobileclip2_large"],
)
def test_positions_of_feature_maps_are_tokens_with_the_channels_last(name):
    # given
    network, images = network_and_two_images(name)
    # when
    with torch.no_grad():
        depths, _ = token_features(network, images)
    # then
    tokens = [depth.shape[1] for depth in depths]
    channels = [depth.shape[2] for depth in depths]
    sides = [round(number**0.5) for number in tokens]
    assert len(depths) > 1
    assert tokens == sorted(tokens, reverse=True)
    assert channels == sorted(channels)
    assert tokens == [side**2 for side in sides]


@pytest.mark.parametrize("name", ["resnet", "vit", "clip_vit"])
def test_without_a_weight_it_is_full_fine_tuning(name):
    # given
    architecture = ARCHITECTURES[name]
    network = architecture.build()
    target = random_images(side=architecture.size)
    # when
    torch.manual_seed(0)
    fine_tuned, _ = trained(with_defaults(FullFineTuning, lr=LR), network, target)
    torch.manual_seed(0)
    without_weight, _ = trained(with_defaults(FeatureDistance, lr=LR, weight=0.0), network, target)
    # then
    tensors = without_weight.state_dict()
    assert fine_tuned.state_dict().keys() == tensors.keys()
    for key, tensor in fine_tuned.state_dict().items():
        assert torch.equal(tensor, tensors[key]), key


def method_on(network, images, weight=WEIGHT):
    """The method, set up with a copy of a network and with images as its target."""
    method = with_defaults(FeatureDistance, lr=LR, weight=weight)
    method.setup(task_of(copy.deepcopy(network), images))
    return method


def move(network):
    """Change every parameter of a network by a tenth."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)


def test_stored_features_are_those_that_are_computed_in_each_step(
    network, target, monkeypatch, progress
):
    # given
    rows = np.array([7, 0, 3])
    monkeypatch.setattr(_distil, "LARGEST_STORED", 2**30)
    method_that_stores = method_on(network, target)
    monkeypatch.setattr(_distil, "LARGEST_STORED", 1)
    method_that_computes = method_on(network, target)
    move(method_that_stores.model)
    move(method_that_computes.model)
    # when
    stored = method_that_stores.pretrained_features(rows)
    computed = method_that_computes.pretrained_features(rows)
    # then
    assert progress() == [("pretrained features", 1, 1, "batch")], "one of both stores them"
    torch.testing.assert_close(stored, computed, rtol=1e-4, atol=1e-6)


def test_augmented_images_are_compared_with_the_pretrained_features_of_the_same_images(
    network, target
):
    # given
    method = with_defaults(FeatureDistance, lr=LR, weight=WEIGHT)
    task = task_of(copy.deepcopy(network), target)
    inputs = task.target
    inputs.augmentation = Augmentation(recipe_transform(["flip", "crop"], 64), 0)
    inputs.epoch = 1
    method.setup(task)
    rows = np.arange(10)
    # when
    method.logits(rows)
    penalty = method.penalty(rows, None).item()
    inputs.epoch = 2
    penalty_of_other_images = method.penalty(rows, None).item()
    # then
    assert penalty == 0, "the network has not moved"
    assert penalty_of_other_images > 1e-3


def test_features_have_a_gradient_of_zero_where_the_network_has_not_moved(target):
    # given
    network = timm.create_model("test_resnet", zero_init_last=False).eval()
    method = method_on(network, target)
    rows = np.arange(4)
    # when
    penalty = method.penalty(rows, method.logits(rows))
    parameters = list(method.model.parameters())
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    # then
    largest_gradients = [
        gradient.abs().max().item() for gradient in gradients if gradient is not None
    ]
    assert penalty.item() < 1e-9
    assert len(largest_gradients) > 10
    assert max(largest_gradients) < 1e-3


@pytest.mark.parametrize("rest", [0.0, 1e-12])
def test_a_channel_that_is_nearly_zero_at_all_positions_has_a_moderate_gradient(rest):
    # given
    tokens = torch.ones(1, 4, 3)
    tokens[:, :, 1] = rest
    tokens.requires_grad_()
    of_norm_one = torch.full((1, 4, 3), 0.5)  # over four tokens
    # when
    squared_differences = (with_unit_channels(tokens, 0.1) - of_norm_one) ** 2
    squared_differences.sum().backward()
    # then
    assert tokens.grad.isfinite().all()
    assert tokens.grad.abs().max() < 20


def gradients_of_penalty(network, images, checkpointing):
    """Gradients of the penalty by the parameters of a network that has moved.

    Args:
        checkpointing: whether activations are computed again in place of being kept.
    """
    method = method_on(network, images, weight=1.0)
    move(method.model)
    method.model.set_grad_checkpointing(checkpointing)
    method.model.train()
    rows = np.arange(4)
    method.penalty(rows, method.logits(rows)).backward()
    return {
        name: parameter.grad
        for name, parameter in method.model.named_parameters()
        if parameter.grad is not None
    }


def test_gradient_checkpointing_changes_nothing():
    # given
    network = ARCHITECTURES["vit"].build()
    images = random_images(side=64)
    # when
    gradients = gradients_of_penalty(network, images, checkpointing=False)
    gradients_of_checkpointing = gradients_of_penalty(network, images, checkpointing=True)
    # then
    assert len(gradients) > 10
    torch.testing.assert_close(gradients, gradients_of_checkpointing, rtol=1e-4, atol=1e-6)
