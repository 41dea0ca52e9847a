"""LDIFS against its authors' form written out.

Where it has no weight, it is compared with full fine-tuning.
"""

import copy

import numpy as np
import pytest
import timm
import torch

from rib.methods import ldifs
from rib.methods.ft import FullFineTuning
from rib.methods.ldifs import FeatureDistance, with_unit_channels
from rib.models.augmentation import Augmentation
from rib.models.token_features import token_features
from tiny.architectures import ARCHITECTURES
from tiny.changed import replace
from tiny.methods import CATALOG
from tiny.tiers import first
from tiny.training import TRAINING, normalised, random_images, task_of, trained, trained_by_hand

DEFAULTS = {"lr": 0.01, "weight": 10.0}
EIGHT_EPOCHS = replace(TRAINING, epochs=8, batch_size=5)  # of ten images: 16 steps


def features_of_resnet(network, images):
    """Feature maps (N, C, h, w) of a test_resnet.

    They are what its first stage gets and the outputs of the four stages.
    """
    x = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    found = [x]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        found.append(x)
    return [feature_map.flatten(2).transpose(1, 2) for feature_map in found]


def features_of_vit(network, images):
    """Tokens (N, T, C), with that of the class, of a timm ViT of four blocks.

    They are taken before the first block and after each.
    """
    x = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images))))
    found = [x]
    for block in network.blocks:
        x = block(x)
        found.append(x)
    return found


def features_of_clip(network, images):
    """As `features_of_vit`, of open_clip's ViT: after its first norm and after each block."""
    tower = network.visual
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    class_token = tower.class_embedding.expand(len(images), 1, -1)
    x = tower.ln_pre(torch.cat([class_token, x], dim=1) + tower.positional_embedding)
    found = [x]
    for block in tower.transformer.resblocks:
        x = block(x)
        found.append(x)
    return found


def unit_channels(tokens, smallest):
    """Channels (C, T) of tokens (T, C) of an image, normalised.

    A channel gets norm 1, or is divided by a fraction of the mean norm if that is more.
    """
    channels = list(tokens.T)
    norms = [
        (channel**2).sum() ** 0.5 if channel.any() else torch.zeros(()) for channel in channels
    ]
    least = smallest * sum(norm.item() for norm in norms) / len(norms)
    scaled = [
        channel / (norm + 1e-10) if norm > least else channel / (least + 1e-10)
        for channel, norm in zip(channels, norms, strict=True)
    ]
    return torch.stack(scaled)


def distance_by_hand(features, smallest, network, start, images):
    """Mean over images and depths of the mean squared difference over channels and tokens."""
    of_images = []
    for row in range(len(images)):
        of_depths = []
        with torch.no_grad():
            fixed_tokens = features(start, images[[row]])
        for moved, fixed in zip(features(network, images[[row]]), fixed_tokens, strict=True):
            difference = unit_channels(moved[0], smallest) - unit_channels(fixed[0], smallest)
            of_depths.append((difference**2).mean())
        of_images.append(torch.stack(of_depths).mean())
    return torch.stack(of_images).mean()


@pytest.mark.thorough
def test_sixteen_steps_on_a_cnn_descend_the_authors_distance_of_feature_maps(network, target):
    weight = 10.0
    model, history = trained(FeatureDistance(lr=0.01, weight=weight), network, target, EIGHT_EPOCHS)
    by_hand, pixels = copy.deepcopy(network), normalised(target.images)

    def penalty(model, rows, logits, step):
        return weight * distance_by_hand(features_of_resnet, 0.1, model, network, pixels[rows])

    expected = trained_by_hand(
        by_hand, pixels, target.labels, target.space, 0.01, EIGHT_EPOCHS, 0, penalty
    )
    assert history[-1]["loss"] > history[-1]["cross_entropy"] + 1e-3, "the features moved"
    for row, wanted in zip(history, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "features"), first([("vit", features_of_vit), ("clip_vit", features_of_clip)])
)
def test_sixteen_steps_on_a_transformer_descend_the_authors_distance_of_all_tokens(name, features):
    network, target = ARCHITECTURES[name].build(), random_images(side=ARCHITECTURES[name].size)
    weight = 2000.0
    model, history = trained(FeatureDistance(lr=0.01, weight=weight), network, target, EIGHT_EPOCHS)
    by_hand, pixels = copy.deepcopy(network), normalised(target.images)

    def penalty(model, rows, logits, step):
        return weight * distance_by_hand(features, 0.0, model, network, pixels[rows])

    expected = trained_by_hand(
        by_hand, pixels, target.labels, target.space, 0.01, EIGHT_EPOCHS, 0, penalty
    )
    assert history[-1]["loss"] > history[-1]["cross_entropy"] + 1e-3, "the features moved"
    for row, wanted in zip(history, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-3, atol=1e-5)


def test_the_default_weight_is_the_authors():
    assert CATALOG.methods["ldifs"].settings["weight"] == 10.0


@pytest.mark.parametrize(
    "name", ["vit", "deit_distilled", "dinov2_registers", "siglip", "clip_vit", "eva02_clip"]
)
def test_all_tokens_of_a_transformer_count(name):
    network = ARCHITECTURES[name].build()
    images = normalised(random_images(n=2, side=ARCHITECTURES[name].size).images)
    with torch.no_grad():
        depths, output = token_features(network, images)
        assert torch.equal(output, network.forward_features(images))
    positions = 16
    class_tokens = {
        "vit": 1,
        "deit_distilled": 2,
        "dinov2_registers": 5,
        "siglip": 0,
        "clip_vit": 1,
        "eva02_clip": 1,
    }
    assert [tokens.shape[:2] for tokens in depths] == [(2, positions + class_tokens[name])] * 5


@pytest.mark.parametrize(
    "name",
    ["swin", "swinv2_cr", "convnext_clip", "clip_resnet", "efficientnet", "mobileclip2_large"],
)
def test_positions_of_feature_maps_are_tokens_with_the_channels_last(name):
    network = ARCHITECTURES[name].build()
    images = normalised(random_images(n=2, side=ARCHITECTURES[name].size).images)
    with torch.no_grad():
        depths, _ = token_features(network, images)
    tokens = [depth.shape[1] for depth in depths]
    channels = [depth.shape[2] for depth in depths]
    assert tokens == sorted(tokens, reverse=True) and channels == sorted(channels)
    assert all(round(number**0.5) ** 2 == number for number in tokens)


@pytest.mark.parametrize(
    "name", ["resnet", "vit", "swin", "clip_vit", "clip_resnet", "siglip_clip"]
)
def test_without_a_weight_it_is_full_fine_tuning(name):
    network, target = ARCHITECTURES[name].build(), random_images(side=ARCHITECTURES[name].size)
    models = []
    for algorithm in (FullFineTuning(lr=0.01), FeatureDistance(**{**DEFAULTS, "weight": 0.0})):
        torch.manual_seed(0)
        models.append(trained(algorithm, network, target)[0].state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_stored_features_are_those_that_are_computed_in_each_step(
    network, target, monkeypatch, progress
):
    rows = np.array([7, 0, 3])
    found = []
    for enough in (True, False):
        monkeypatch.setattr(ldifs, "LARGEST_STORED", 2**30 if enough else 1)
        algorithm = FeatureDistance(**DEFAULTS)
        algorithm.setup(task_of(copy.deepcopy(network), target))
        with torch.no_grad():
            for parameter in algorithm.model.parameters():
                parameter.mul_(1.1)
        found.append(algorithm.start(rows))
    assert progress() == [("pretrained features", 1, 1, "batch")]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_augmented_images_are_compared_with_the_pretrained_features_of_the_same_images(
    network, target
):
    algorithm, task = FeatureDistance(**DEFAULTS), task_of(copy.deepcopy(network), target)
    task.target.inputs.augmentation, task.target.inputs.epoch = (
        Augmentation(["flip", "crop"], 64, 0),
        1,
    )
    algorithm.setup(task)
    rows = np.arange(10)
    algorithm.logits(rows)
    assert algorithm.penalty(rows, None).item() == 0, "the network has not moved"
    task.target.inputs.epoch = 2
    assert algorithm.penalty(rows, None).item() > 1e-3, "the images are others"


def test_features_have_a_gradient_of_zero_where_the_network_has_not_moved(target):
    algorithm = FeatureDistance(**DEFAULTS)
    network = timm.create_model("test_resnet", zero_init_last=False).eval()
    algorithm.setup(task_of(network, target))
    rows = np.arange(4)
    logits = algorithm.logits(rows)
    penalty = algorithm.penalty(rows, logits)
    gradients = torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)
    assert (
        penalty.item() < 1e-9
        and max(part.abs().max() for part in gradients if part is not None) < 1e-3
    )


@pytest.mark.parametrize("rest", [0.0, 1e-12])
def test_a_channel_that_is_nearly_zero_at_all_positions_has_a_moderate_gradient(rest):
    tokens = torch.ones(1, 4, 3)
    tokens[:, :, 1] = rest
    tokens.requires_grad_()
    wanted = torch.full((1, 4, 3), 0.5)  # of norm 1 over four tokens
    ((with_unit_channels(tokens, 0.1) - wanted) ** 2).sum().backward()
    assert tokens.grad.isfinite().all() and tokens.grad.abs().max() < 20
    assert with_unit_channels(torch.zeros(1, 4, 3), 0.1).eq(0).all()


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(ValueError, match="weight is -1e-09; set"):
        FeatureDistance(lr=0.1, weight=-1e-9)
    assert FeatureDistance(lr=0.1, weight=0).weight == 0


def test_gradient_checkpointing_changes_nothing(target):
    network = ARCHITECTURES["vit"].build()
    images = random_images(side=64)
    gradients = []
    for checkpointing in (False, True):
        algorithm, model = FeatureDistance(lr=0.1, weight=1.0), copy.deepcopy(network)
        algorithm.setup(task_of(model, images))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        model.set_grad_checkpointing(checkpointing)
        model.train()
        rows = np.arange(4)
        algorithm.penalty(rows, algorithm.logits(rows)).backward()
        gradients.append([part.grad for part in model.parameters() if part.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
