"""Training with each recipe against a bare loop.

How rates and weight decay are spread over a network is tested, too.
"""

import copy
import math

import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.methods.ft import FullFineTuning
from rib.methods.visual_prompt import VisualPrompting
from rib.models.augmentation import Augmentation
from rib.training import finetune
from rib.training.finetune import train
from tiny.changed import replace
from tiny.training import (
    CPU,
    HALF,
    RUN,
    TRAINING,
    images_of,
    masked,
    normalised,
    rate,
    task_of,
    trained,
)

# Three steps in an epoch, the last of two images; warm-up ends after the second.
ADAMW = replace(
    TRAINING, epochs=3, optimizer="adamw", weight_decay=0.1, clip_norm=1.0, warmup_fraction=0.25
)
LR, STEPS = 0.001, 9
MEMBERS = torch.tensor([(1, 5, 1), (7, 7, 7), (9, 20, 30)])  # of the classes of SPACE


def frozen_norms(network):
    model = copy.deepcopy(network).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def bare_loop(network, target, training, take_step, seed=0, steps=STEPS, augmentation=None):
    """The training loop with nothing of the library but its inputs.

    Args:
        take_step: of the parameters with gradients, the learning rate and the step's number.

    Returns:
        The network, and norms of the gradients.
    """
    model, norms = frozen_norms(network), []
    inputs, labels = images_of(target).inputs, torch.from_numpy(target.labels)
    n, size = len(labels), training.batch_size
    of_epoch = -(-n // size)
    parameters = list(model.parameters())
    for step in range(steps):
        epoch, place = divmod(step, of_epoch)
        rows = np.random.default_rng([seed, epoch]).permutation(n)[place * size :][:size]
        pixels = inputs[rows]
        if augmentation:
            images = torch.from_numpy(target.images[rows]).permute(0, 3, 1, 2)
            images = [
                augmentation(image, epoch, row)
                for image, row in zip(images, rows.tolist(), strict=True)
            ]
            pixels = normalised(torch.stack(images).permute(0, 2, 3, 1).numpy())
        model.zero_grad()
        F.cross_entropy(model(pixels)[:, MEMBERS].max(dim=2).values, labels[rows]).backward()
        if training.clip_norm:
            norms.append(nn.utils.clip_grad_norm_(parameters, training.clip_norm).item())
        warmup = int(steps * training.warmup_fraction)
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        take_step(parameters, LR * (step + 1) / warmup if step < warmup else LR * cosine, step)
    return model, norms


def of_torch(make):
    """Steps by an optimiser of torch."""
    made = []

    def take_step(parameters, lr, step):
        if not made:
            made.append(make(parameters))
        for group in made[0].param_groups:
            group["lr"] = lr
        made[0].step()

    return take_step


def test_adamw_is_torchs_own_with_clipped_gradients_to_the_last_bit(network, target):
    model, _ = trained(FullFineTuning(lr=LR), network, target, ADAMW, seed=3)

    def steps():
        return of_torch(lambda parameters: torch.optim.AdamW(parameters, lr=LR, weight_decay=0.1))

    by_hand, norms = bare_loop(network, target, ADAMW, steps(), seed=3)
    assert max(norms) > 1, "gradients are clipped"
    for (name, value), wanted in zip(
        model.state_dict().items(), by_hand.state_dict().values(), strict=True
    ):
        assert torch.equal(value, wanted), name
    other, _ = bare_loop(network, target, replace(ADAMW, clip_norm=None), steps(), seed=3)
    assert not torch.equal(other.fc.weight, model.fc.weight)


def test_adamw_follows_its_equations(network, target):
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, in double precision.

    All parameters decay.
    """
    first, second, weights = {}, {}, {}

    def take_step(parameters, lr, step):
        for place, parameter in enumerate(parameters):
            g = parameter.grad.double()
            m = first[place] = 0.9 * first.get(place, 0) + 0.1 * g
            v = second[place] = 0.999 * second.get(place, 0) + 0.001 * g**2
            w = weights.setdefault(place, parameter.detach().double())
            corrected = m / (1 - 0.9 ** (step + 1)), (v / (1 - 0.999 ** (step + 1))).sqrt()
            weights[place] = w - lr * (corrected[0] / (corrected[1] + 1e-8) + 0.1 * w)
            with torch.no_grad():
                parameter.copy_(weights[place])

    by_hand, _ = bare_loop(network, target, ADAMW, take_step)
    model, _ = trained(FullFineTuning(lr=LR), network, target, ADAMW)
    start = network.state_dict()
    for name, value in model.named_parameters():
        moved = (value - start[name]).abs().max().item()
        torch.testing.assert_close(
            value, by_hand.get_parameter(name), rtol=0, atol=0.01 * moved, msg=name
        )
        assert (value.detach() - by_hand.get_parameter(name)).abs().mean() < 1e-6
    assert moved > 10 * 1e-6


def test_lion_follows_its_equations(network, target):
    """Chen et al. 2023 (arXiv 2302.06675), algorithm 2."""
    training, momenta = replace(ADAMW, optimizer="lion"), {}

    @torch.no_grad()
    def take_step(parameters, lr, step):
        for place, parameter in enumerate(parameters):
            m, g = momenta.setdefault(place, torch.zeros_like(parameter)), parameter.grad
            update = torch.sign(m * 0.9 + g * (1 - 0.9))
            parameter.mul_(1 - lr * 0.1).sub_(update, alpha=lr)
            m.mul_(0.99).add_(g, alpha=1 - 0.99)

    by_hand, _ = bare_loop(network, target, training, take_step)
    model, history = trained(FullFineTuning(lr=LR), network, target, training)
    assert history[-1]["loss"] < history[0]["loss"]
    for name, value in model.named_parameters():
        # the sign of a gradient at zero is that of its rounding
        differ = (value - by_hand.get_parameter(name)).abs() > 1e-5
        assert differ.float().mean() < 0.01, name


def test_training_sees_the_images_as_they_are_augmented_in_each_epoch(network, target):
    training, names = (
        replace(ADAMW, optimizer="sgd", weight_decay=0.0, clip_norm=None),
        ["flip", "crop"],
    )
    augmentation = Augmentation(names, 64, seed=5)
    model, task = copy.deepcopy(network), task_of(copy.deepcopy(network), target)
    task.target.inputs.augmentation = augmentation
    method = FullFineTuning(lr=LR)
    method.setup(replace(task, model=model))
    train(method, network.state_dict(), training, RUN, CPU)
    make = of_torch(lambda parameters: torch.optim.SGD(parameters, lr=LR, momentum=0.9))
    by_hand, _ = bare_loop(network, target, training, make, augmentation=augmentation)
    make = of_torch(lambda parameters: torch.optim.SGD(parameters, lr=LR, momentum=0.9))
    plain, _ = bare_loop(network, target, training, make)
    for name, value in model.named_parameters():
        moved = (plain.get_parameter(name) - by_hand.get_parameter(name)).abs().max().item()
        torch.testing.assert_close(
            value, by_hand.get_parameter(name), rtol=0, atol=0.02 * moved + 1e-8, msg=name
        )
        assert moved > 0 or name not in ("conv1.0.weight", "fc.weight")


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_label_smoothing_mixes_labels_with_all_classes_alike(network, target, smoothing):
    """One step on all images, with smoothed labels.

    Cross-entropy with (1 - s) of the label and s / C of each of C classes, written out.
    """
    training = replace(
        TRAINING,
        epochs=1,
        batch_size=10,
        warmup_fraction=0.0,
        momentum=0.0,
        label_smoothing=smoothing,
    )
    model, history = trained(FullFineTuning(lr=0.1), network, target, training)
    by_hand = frozen_norms(network)
    logs = F.log_softmax(masked(by_hand(normalised(target.images)), target.space), dim=1)
    wanted = (1 - smoothing) * F.one_hot(torch.from_numpy(target.labels), 3) + smoothing / 3
    loss = -(wanted * logs).sum(dim=1).mean()
    assert history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, [by_hand.fc.weight])
    torch.testing.assert_close(
        model.fc.weight.data, network.fc.weight - 0.1 * gradient, rtol=0, atol=1e-6
    )


def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=64).eval()


def rates_of(model, target, training, monkeypatch):
    """The rate and the weight decay of each parameter in each step, by name."""
    names, found, step = (
        {id(p): name for name, p in model.named_parameters()},
        [],
        finetune._take_step,
    )

    def looks(method, optimizer, *arguments):
        groups = [
            (group["lr"], group["weight_decay"], p)
            for group in optimizer.param_groups
            for p in group["params"]
        ]
        found.append({names[id(p)]: (lr, decay) for lr, decay, p in groups})
        return step(method, optimizer, *arguments)

    monkeypatch.setattr(finetune, "_take_step", looks)
    method = FullFineTuning(lr=LR)
    method.setup(task_of(model, target))
    train(
        method,
        {name: value.clone() for name, value in model.state_dict().items()},
        training,
        RUN,
        CPU,
    )
    return found


def layer(name):
    """Layers of timm's test_vit from its input up.

    Patches and tokens, six blocks (the norm with the last), the head.
    """
    if name.startswith("blocks."):
        return 1 + int(name.split(".")[1])
    return {"norm": 6, "head": 7}.get(name.split(".")[0], 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_rate_falls_by_layer_from_the_head_down_in_every_step(target, monkeypatch, optimizer):
    training = replace(ADAMW, optimizer=optimizer, layer_decay=0.5)
    model = vit()
    found = rates_of(model, target, training, monkeypatch)
    assert len(found) == STEPS
    for step, rates in enumerate(found):
        assert rates.keys() == {name for name, _ in model.named_parameters()}
        for name, (lr, _) in rates.items():
            assert lr == pytest.approx(
                rate(step, STEPS, LR, training) * 0.5 ** (7 - layer(name)), rel=1e-12
            ), name
    groups = create_optimizer_v2(
        model, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5
    ).param_groups
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert found[-1][name][0] == pytest.approx(
            rate(8, STEPS, LR, training) * scales[id(parameter)]
        )


@pytest.mark.parametrize("layer_decay", [None, 0.9])
@pytest.mark.parametrize("decays", [True, False])
def test_biases_and_norms_decay_or_not(target, monkeypatch, layer_decay, decays):
    training = replace(ADAMW, epochs=1, decay_norm_and_bias=decays, layer_decay=layer_decay)
    model = vit()
    (rates, *_) = rates_of(model, target, training, monkeypatch)
    for name, parameter in model.named_parameters():
        if name not in (
            "pos_embed",
            "cls_token",
        ):  # timm's models exempt them from a decay by groups
            assert rates[name][1] == (0.1 if decays or parameter.ndim > 1 else 0), name


def test_what_no_gradient_reaches_changes_by_weight_decay_alone(network, target):
    """Outputs of no class: their weights shrink, and their biases unless they are exempt."""
    unused = [i for i in range(1000) if not any(i in row for row in target.space.indices)]
    shrunk = np.prod([1 - 0.1 * rate(step, STEPS, LR, ADAMW) for step in range(STEPS)])
    for exempt in (False, True):
        training = replace(ADAMW, decay_norm_and_bias=not exempt)
        model, _ = trained(FullFineTuning(lr=LR), network, target, training)
        torch.testing.assert_close(
            model.fc.weight[unused], network.fc.weight[unused] * shrunk, rtol=1e-5, atol=0
        )
        wanted = network.fc.bias[unused] * (1 if exempt else shrunk)
        torch.testing.assert_close(
            model.fc.bias[unused], wanted, rtol=1e-6 if exempt else 1e-5, atol=0
        )


@pytest.mark.parametrize("changes", [{"layer_decay": 0.9}, {"decay_norm_and_bias": False}])
def test_a_recipe_by_layers_is_refused_for_parameters_outside_the_network(network, target, changes):
    with pytest.raises(UserError, match="layer_decay, or decay_norm_and_bias"):
        trained(
            VisualPrompting(lr=1.0, padding=0.1, init_std=0.0),
            network,
            target,
            replace(ADAMW, **changes),
        )


def test_the_norm_that_is_clipped_is_that_of_what_is_trained(network, target):
    """A frozen part has no gradient; all parts of the whole count together."""
    norms, clip = [], nn.utils.clip_grad_norm_

    def watched(parameters, limit):
        parameters = list(parameters)
        norms.append(clip(parameters, limit).item())
        after = torch.stack([p.grad.norm() for p in parameters]).norm().item()
        assert after == pytest.approx(min(norms[-1], 0.5), rel=1e-3)
        return torch.tensor(norms[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune.nn.utils, "clip_grad_norm_", watched)
        trained(FullFineTuning(lr=LR), network, target, replace(ADAMW, clip_norm=0.5))
    assert len(norms) == STEPS and max(norms) > 0.5


def test_the_gradient_of_what_is_outside_the_network_is_clipped(network, target):
    """One step of plain gradient descent on a prompt.

    It is as long as the learning rate times the limit.
    """
    # given
    one_step = replace(
        TRAINING,
        epochs=1,
        batch_size=len(target.labels),
        momentum=0.0,
        warmup_steps=0,
        clip_norm=0.001,
    )
    method = VisualPrompting(lr=2.0, padding=0.1, init_std=0.0)
    # when
    trained(method, network, target, one_step)
    # then
    values = torch.cat([strip.detach().flatten() for _, strip in method.trainable()])
    assert values.norm().item() == pytest.approx(2.0 * 0.001, rel=1e-3)


def test_inputs_of_these_tests_are_the_images(target):
    pixels = images_of(target).inputs[np.arange(3)]
    torch.testing.assert_close(
        pixels, normalised(target.images[:3], HALF, HALF), rtol=1e-5, atol=1e-6
    )
