"""LDIFS against its equation written out, and against full fine-tuning where it has no weight."""

import copy

import numpy as np
import pytest
import timm
import torch

from rib.methods import ldifs
from rib.methods.ft import FullFineTuning
from rib.methods.ldifs import FeatureDistance
from rib.models.augmentation import Augmentation
from tiny.architectures import ARCHITECTURES
from tiny.training import TRAINING as TWO_EPOCHS
from tiny.training import normalised, random_images, task_of, trained, trained_by_hand

DEFAULTS = {"lr": 0.01, "weight": 0.7, "features": "unit"}


def features_by_hand(network, images):
    """Of a test_resnet: means over positions after each stage, and the pooled last stage."""
    x = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    found = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        found.append(x.flatten(2).sum(dim=2) / x.shape[2:].numel())
    return [*found, found[-1]]


def distance_by_hand(network, start, images, scale):
    total = 0.0
    for row in range(len(images)):
        pairs = zip(*(features_by_hand(model, images[[row]]) for model in (network, start)), strict=True)
        for moved, fixed in pairs:
            moved, fixed = (part[0] / part[0].square().sum().sqrt() if scale else part[0] for part in (moved, fixed))
            total = total + ((moved - fixed.detach()) ** 2).sum()
    return total / len(images)


@pytest.mark.parametrize(("features", "weight"), [("unit", 0.7), ("raw", 0.002)])
def test_training_descends_the_squared_distance_of_the_features_at_five_depths(network, target, features, weight):
    model, history = trained(FeatureDistance(lr=0.01, weight=weight, features=features), network, target)
    by_hand, pixels = copy.deepcopy(network), normalised(target.images)

    def penalty(model, rows, logits, step):
        return weight * distance_by_hand(model, network, pixels[rows], features == "unit")

    expected = trained_by_hand(by_hand, pixels, target.labels, target.space, 0.01, TWO_EPOCHS, 0, penalty)
    assert history[-1]["loss"] > history[-1]["cross_entropy"] + 1e-3, "the features moved"
    for row, wanted in zip(history, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "vit", "swin", "clip_vit", "clip_resnet", "siglip_clip"])
def test_without_a_weight_it_is_full_fine_tuning(name):
    network, target = ARCHITECTURES[name].build(), random_images(side=ARCHITECTURES[name].size)
    models = []
    for algorithm in (FullFineTuning(lr=0.01), FeatureDistance(**{**DEFAULTS, "weight": 0.0})):
        torch.manual_seed(0)
        models.append(trained(algorithm, network, target)[0].state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_stored_features_are_those_that_are_computed_in_each_step(network, target, monkeypatch, progress):
    rows = np.array([7, 0, 3])
    found = []
    for most in (10, 9):  # of 10 images
        monkeypatch.setattr(ldifs, "MOST_STORED", most)
        algorithm = FeatureDistance(**DEFAULTS)
        algorithm.setup(task_of(copy.deepcopy(network), target))
        with torch.no_grad():
            for parameter in algorithm.model.parameters():
                parameter.mul_(1.1)
        found.append(algorithm.start(rows))
    assert progress() == [("pretrained features", 1, 1, "batch")]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_augmented_images_are_compared_with_the_pretrained_features_of_the_same_images(network, target):
    algorithm, task = FeatureDistance(**DEFAULTS), task_of(copy.deepcopy(network), target)
    task.target.inputs.augmentation, task.target.inputs.epoch = Augmentation(["flip", "crop"], 64, 0), 1
    algorithm.setup(task)
    rows = np.arange(10)
    algorithm.logits(rows)
    assert algorithm.penalty(rows, None).item() == 0, "the network has not moved"
    task.target.inputs.epoch = 2
    assert algorithm.penalty(rows, None).item() > 1e-4, "the images are others"


def test_features_have_a_gradient_of_zero_where_the_network_has_not_moved(target):
    algorithm = FeatureDistance(**DEFAULTS)
    network = timm.create_model("test_resnet", zero_init_last=False).eval()
    algorithm.setup(task_of(network, target))
    rows = np.arange(4)
    logits = algorithm.logits(rows)
    penalty = algorithm.penalty(rows, logits)
    gradients = torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)
    assert penalty.item() < 1e-9 and max(part.abs().max() for part in gradients if part is not None) < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"weight": -1e-9}, "weight is -1e-09; set"), ({"features": "cosine"}, "features is 'cosine'; set 'raw'")],
    ids=["weight", "features"],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FeatureDistance(**{**DEFAULTS, **settings})
    assert FeatureDistance(lr=0.1, weight=0, features="raw").weight == 0


def test_dropout_is_refused_since_the_features_would_have_another_one_than_the_logits(network, target):
    with pytest.raises(ValueError, match="set dropout to 0"):
        FeatureDistance(**DEFAULTS, dropout=0.5).setup(task_of(network, target))
