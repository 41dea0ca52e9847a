"""Training with each recipe against a bare loop.

How rates and weight decay are spread over a network is tested, too.
"""

import copy
import math
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F

from rib.methods.ft import FullFineTuning
from rib.methods.visual_prompt import VisualPrompting
from rib.training import loop
from rib.training.loop import train
from tiny.changed import replace
from tiny.models.training import (
    CPU,
    RUN,
    TRAINING,
    images_of,
    masked,
    normalised,
    rate,
    task_of,
    trained,
    with_defaults,
)

# Three steps in an epoch, the last of two images; warm-up ends after the second.
ADAMW = replace(
    TRAINING, epochs=3, optimizer="adamw", weight_decay=0.1, clip_norm=1.0, warmup_fraction=0.25
)
LR = 0.001
STEPS = 9
OUTPUTS_OF_CLASSES = torch.tensor([(1, 5, 1), (7, 7, 7), (9, 20, 30)])  # of SPACE
LAYERS_OF_VIT = 8
# Parameters that timm's models exempt from a decay by groups.
ALWAYS_EXEMPT = {"pos_embed", "cls_token"}


def with_frozen_norms(network):
    """A copy of a network that trains while the statistics of its BatchNorm stay."""
    model = copy.deepcopy(network).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def rate_by_hand(step, steps, training):
    """The learning rate of a step, counted from 0: a linear warm-up and half a cosine."""
    warmup = int(steps * training.warmup_fraction)
    if step < warmup:
        return LR * (step + 1) / warmup
    share_of_rest = (step - warmup) / (steps - warmup)
    return LR * 0.5 * (1 + math.cos(math.pi * share_of_rest))


def bare_loop(network, target, training, take_step, seed=0):
    """The training loop with nothing of the library but its inputs.

    Args:
        take_step: of the parameters with gradients, the learning rate and the step's number.

    Returns:
        The network, and norms of the gradients before they are clipped, if they are.
    """
    model = with_frozen_norms(network)
    parameters = list(model.parameters())
    inputs = images_of(target)
    labels = torch.from_numpy(target.labels)
    n = len(labels)
    batch_size = training.batch_size
    steps_per_epoch = math.ceil(n / batch_size)
    norms = []
    for step in range(STEPS):
        epoch, step_of_epoch = divmod(step, steps_per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(n)
        start = step_of_epoch * batch_size
        rows = order[start : start + batch_size]
        model.zero_grad()
        class_logits = model(inputs[rows])[:, OUTPUTS_OF_CLASSES].max(dim=2).values
        F.cross_entropy(class_logits, labels[rows]).backward()
        if training.clip_norm:
            norm = nn.utils.clip_grad_norm_(parameters, training.clip_norm)
            norms.append(norm.item())
        take_step(parameters, rate_by_hand(step, STEPS, training), step)
    return model, norms


def steps_of_torch(optimizer_class, **settings):
    """A function that takes the steps of `bare_loop` by an optimiser of torch."""
    optimizers = []

    def take_step(parameters, lr, step):
        if not optimizers:
            optimizers.append(optimizer_class(parameters, lr=lr, **settings))
        (optimizer,) = optimizers
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()

    return take_step


def test_adamw_is_torchs_own_with_clipped_gradients_to_the_last_bit(network, target):
    # given
    without_clipping = replace(ADAMW, clip_norm=None)
    adamw = steps_of_torch(torch.optim.AdamW, weight_decay=0.1)
    adamw_without_clipping = steps_of_torch(torch.optim.AdamW, weight_decay=0.1)
    # when
    model, _ = trained(with_defaults(FullFineTuning, lr=LR), network, target, ADAMW, seed=3)
    by_hand, norms = bare_loop(network, target, ADAMW, adamw, seed=3)
    unclipped, _ = bare_loop(network, target, without_clipping, adamw_without_clipping, seed=3)
    # then
    tensors_by_hand = by_hand.state_dict()
    assert max(norms) > 1, "gradients are clipped"
    assert model.state_dict().keys() == tensors_by_hand.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors_by_hand[name]), name
    assert not torch.equal(unclipped.fc.weight, model.fc.weight)


class LionByHand:
    """Steps of Chen et al. 2023 (arXiv 2302.06675), algorithm 2, with a weight decay of 0.1."""

    def __init__(self):
        self.momenta = {}  # by position of the parameter

    @torch.no_grad()
    def __call__(self, parameters, lr, step):
        for position, parameter in enumerate(parameters):
            gradient = parameter.grad
            momentum = self.momenta.setdefault(position, torch.zeros_like(parameter))
            direction = torch.sign(0.9 * momentum + (1 - 0.9) * gradient)
            parameter.mul_(1 - lr * 0.1).sub_(direction, alpha=lr)
            momentum.mul_(0.99).add_(gradient, alpha=1 - 0.99)


def test_lion_follows_its_equations(network, target):
    # given
    lion = replace(ADAMW, optimizer="lion")
    # when
    by_hand, _ = bare_loop(network, target, lion, LionByHand())
    model, history = trained(with_defaults(FullFineTuning, lr=LR), network, target, lion)
    # then
    assert history[-1]["loss"] < history[0]["loss"]
    for name, parameter in model.named_parameters():
        # the sign of a gradient at zero is that of its rounding
        differs = (parameter - by_hand.get_parameter(name)).abs() > 1e-5
        assert differs.float().mean() < 0.01, name


def test_label_smoothing_mixes_labels_with_all_classes_alike(network, target):
    """One step on all images, with smoothed labels.

    Cross-entropy with (1 - s) of the label and s / C of each of C classes, written out.
    """
    # given
    smoothing = 0.3
    one_step = replace(
        TRAINING,
        epochs=1,
        batch_size=10,
        warmup_fraction=0.0,
        momentum=0.0,
        label_smoothing=smoothing,
    )
    # when
    model, (epoch,) = trained(with_defaults(FullFineTuning, lr=0.1), network, target, one_step)
    # then
    by_hand = with_frozen_norms(network)
    class_logits = masked(by_hand(normalised(target.images)), target.space)
    log_probabilities = F.log_softmax(class_logits, dim=1)
    labels = F.one_hot(torch.from_numpy(target.labels), 3)
    smoothed_labels = (1 - smoothing) * labels + smoothing / 3
    loss = -(smoothed_labels * log_probabilities).sum(dim=1).mean()
    (gradient,) = torch.autograd.grad(loss, [by_hand.fc.weight])
    after_one_step = network.fc.weight - 0.1 * gradient
    assert epoch["loss"] == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(model.fc.weight.data, after_one_step, rtol=0, atol=1e-6)


@pytest.fixture
def vit():
    """A small transformer."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=64).eval()


class StepOfParameter(NamedTuple):
    """How an optimiser is told to change a parameter."""

    lr: float
    weight_decay: float


def steps_of_parameters(model, target, training, monkeypatch):
    """Train a network; gives a mapping of names of parameters to `StepOfParameter` for each step.

    Each parameter must be in one group of the optimiser only.
    """
    name_of_parameter = {id(parameter): name for name, parameter in model.named_parameters()}
    steps = []
    take_step = loop.take_step

    def note_and_take_step(method, optimizer, *arguments):
        step_of_name = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = name_of_parameter[id(parameter)]
                assert name not in step_of_name
                step_of_name[name] = StepOfParameter(group["lr"], group["weight_decay"])
        steps.append(step_of_name)
        return take_step(method, optimizer, *arguments)

    monkeypatch.setattr(loop, "take_step", note_and_take_step)
    method = with_defaults(FullFineTuning, lr=LR)
    method.setup(task_of(model, target))
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(method, pretrained, training, RUN, CPU)
    return steps


def layer_of(name):
    """The layer of a parameter of timm's test_vit, counted from its input up.

    Patches and tokens, six blocks (the norm with the last), the head.
    """
    module, *names_inside = name.split(".")
    if module == "blocks":
        return 1 + int(names_inside[0])
    return {"norm": 6, "head": 7}.get(module, 0)


def test_the_rate_falls_by_layer_from_the_head_down_in_every_step(vit, target, monkeypatch):
    # given
    training = replace(ADAMW, layer_decay=0.5)
    names = {name for name, _ in vit.named_parameters()}
    # when
    steps = steps_of_parameters(vit, target, training, monkeypatch)
    # then
    assert {layer_of(name) for name in names} == set(range(LAYERS_OF_VIT))
    assert len(steps) == STEPS
    for number, step_of_name in enumerate(steps):
        assert step_of_name.keys() == names
        rate_of_head = rate(number, STEPS, LR, training)
        for name, step in step_of_name.items():
            layers_above = LAYERS_OF_VIT - 1 - layer_of(name)
            assert step.lr == pytest.approx(rate_of_head * 0.5**layers_above, rel=1e-12), name
    last_step = steps[-1]
    last_rate = rate(STEPS - 1, STEPS, LR, training)
    timms = create_optimizer_v2(vit, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scale_of_parameter = {
        id(parameter): group["lr_scale"]
        for group in timms.param_groups
        for parameter in group["params"]
    }
    for name, parameter in vit.named_parameters():
        assert last_step[name].lr == pytest.approx(last_rate * scale_of_parameter[id(parameter)])


@pytest.mark.parametrize("layer_decay", [None, 0.9])
@pytest.mark.parametrize("decays", [True, False])
def test_biases_and_norms_decay_or_not(vit, target, monkeypatch, layer_decay, decays):
    # given
    training = replace(ADAMW, epochs=1, decay_norm_and_bias=decays, layer_decay=layer_decay)
    # when
    first_step, *_ = steps_of_parameters(vit, target, training, monkeypatch)
    # then
    decay_of_matrices = set()
    decay_of_norms_and_biases = set()
    for name, parameter in vit.named_parameters():
        if name in ALWAYS_EXEMPT:
            continue
        if parameter.ndim > 1:
            decay_of_matrices.add(first_step[name].weight_decay)
        else:
            decay_of_norms_and_biases.add(first_step[name].weight_decay)
    assert decay_of_matrices == {0.1}
    assert decay_of_norms_and_biases == {0.1 if decays else 0}


def outputs_of_no_class(space):
    """Outputs of a network of 1000 that stand for no class of a label space."""
    used_outputs = {output for outputs in space.indices for output in outputs}
    return [output for output in range(1000) if output not in used_outputs]


def test_what_no_gradient_reaches_changes_by_weight_decay_alone(network, target):
    """Outputs of no class: their weights shrink, and their biases unless they are exempt."""
    # given
    unused = outputs_of_no_class(target.space)
    share_left = np.prod([1 - 0.1 * rate(step, STEPS, LR, ADAMW) for step in range(STEPS)])
    exempting = replace(ADAMW, decay_norm_and_bias=False)
    weights = network.fc.weight[unused]
    biases = network.fc.bias[unused]
    # when
    model, _ = trained(with_defaults(FullFineTuning, lr=LR), network, target, ADAMW)
    model_of_exempt, _ = trained(with_defaults(FullFineTuning, lr=LR), network, target, exempting)
    # then
    shrunk_weights = weights * share_left
    shrunk_biases = biases * share_left

    def assert_close(tensor, expected, rtol):
        torch.testing.assert_close(tensor[unused], expected, rtol=rtol, atol=0)

    assert share_left < 1 - 1e-4
    assert_close(model.fc.weight, shrunk_weights, rtol=1e-5)
    assert_close(model.fc.bias, shrunk_biases, rtol=1e-5)
    assert_close(model_of_exempt.fc.weight, shrunk_weights, rtol=1e-5)
    assert_close(model_of_exempt.fc.bias, biases, rtol=1e-6)


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
    method = with_defaults(VisualPrompting, lr=2.0, padding=0.1, init_std=0.0)
    # when
    trained(method, network, target, one_step)
    # then
    prompt = torch.cat([strip.detach().flatten() for _, strip in method.trainable()])
    assert prompt.norm().item() == pytest.approx(2.0 * 0.001, rel=1e-3)
