"""SPD, FTP and DiGraP: what must hold of them in training.

Their steps are compared with their equations in plain loops.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rib.methods.base import Task
from rib.methods.digrap import DirectionalGradientProjection
from rib.methods.ft import FullFineTuning
from rib.methods.ftp import FastTrainableProjection
from rib.methods.spd import SelectiveProjectionDecay
from tiny.changed import replace
from tiny.models.training import TRAINING, trained, with_defaults
from tiny.tiers import examples

LR = 0.1
SHAPES = {
    "matrix": (3, 2),
    "vector": (4,),
    "kernel": (2, 2, 1, 2),
    "number": (),
    "unreached": (2, 2),
}
REACHED = [name for name in SHAPES if name != "unreached"]
# By tensor, the scale of the learning rate.
SCALES = {"matrix": 1.0, "vector": 0.5, "kernel": 2.0, "number": 1.0, "unreached": 1.0}
STEPS = 12


class TensorsOfAllShapes(nn.Module):
    """Tensors of several shapes; the loss does not reach one of them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))


def starting_weights():
    """The tensors before training, by name."""
    return TensorsOfAllShapes().state_dict()


def set_up(method):
    """Set a method up on `TensorsOfAllShapes`; gives its optimiser.

    The optimiser is plain gradient descent with a rate for each tensor.
    """
    model = TensorsOfAllShapes()
    method.setup(Task(model, SimpleNamespace(inputs=None), None, 0))
    groups = [
        {"params": [parameter], "lr": LR * SCALES[name]}
        for name, parameter in model.named_parameters()
    ]
    return torch.optim.SGD(groups, lr=LR)


def take_step(method, optimizer, gradients):
    """Copies of the tensors after a step with these gradients."""
    parameters = dict(method.model.named_parameters())
    for name in REACHED:
        parameters[name].grad = gradients[name].clone()
    parameters["unreached"].grad = None
    method.update(optimizer)
    method.step += 1
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def random_gradients(seed=1, steps=STEPS):
    """Gradients of each step that often turn round.

    By them, tensors go away from their start and come back.
    """
    generator = torch.Generator().manual_seed(seed)
    gradients_of_steps = []
    for _ in range(steps):
        gradients = {
            name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()
        }
        gradients_of_steps.append(gradients)
    return gradients_of_steps


def dot(a, b):
    """Scalar product of two lists of numbers."""
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def norm(a):
    """Euclidean norm of a list of numbers."""
    return math.sqrt(dot(a, a))


def added(a, b, factor=1.0):
    """a + factor b, for lists of numbers."""
    return [x + factor * y for x, y in zip(a, b, strict=True)]


def difference(a, b):
    """a - b, for lists of numbers."""
    return [x - y for x, y in zip(a, b, strict=True)]


class HyperAdam:
    """Kingma and Ba 2015, algorithm 1, on one number.

    The first of its steps is the second of training.
    """

    def __init__(self, start, rate):
        self.value = start
        self.rate = rate
        self.m = 0.0
        self.v = 0.0
        self.t = 1

    def step(self, gradient):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        mean = self.m / (1 - 0.9**self.t)
        variance = self.v / (1 - 0.999**self.t)
        self.value -= self.rate * mean / (math.sqrt(variance) + 1e-8)


def spd_by_hand(start, gradients, lr, rows, branches, weight):
    """Algorithm 2 on a list of numbers, around gradient descent; `rows` say nothing to it."""
    weights = list(start)
    for gradient in gradients:
        deviation = difference(weights, start)
        c = -dot(gradient, deviation)
        descended = added(weights, gradient, -lr)
        new_deviation = difference(descended, start)
        distance = norm(deviation)
        new_distance = norm(new_deviation)
        r = max(0.0, new_distance - distance) / new_distance
        if c < 0:
            branches.add("selected" if r > 0 else "shorter")
            weights = added(descended, new_deviation, -weight * r)
        else:
            branches.add("free")
            weights = descended
        yield weights


def cosine(a, b):
    """Cosine of the angle between two lists of numbers; 0 if the second is of zeros."""
    if not any(b):
        return 0.0
    return dot(a, b) / (norm(a) * norm(b))


def digrap_by_hand(start, gradients, lr, rows, branches, rate):
    """Algorithm 1 on a list of numbers, around gradient descent; `rows` say nothing to it."""
    weights = list(start)
    omega = HyperAdam(0.0, rate)
    last_projection = None
    for gradient in gradients:
        deviation = difference(weights, start)
        if last_projection is not None:
            omega.step(cosine(gradient, last_projection))
            omega.value = max(0.0, min(1.0, omega.value))
        along_deviation = 0.0
        if any(deviation):
            along_deviation = dot(gradient, deviation) / dot(deviation, deviation)
        projection = [along_deviation * x for x in deviation]
        strength = 0.0
        if dot(gradient, deviation) < 0:
            strength = omega.value
        if strength == 0:
            branches.add("free")
        elif strength == 1:
            branches.add("whole")
        else:
            branches.add("part")
        weights = added(weights, added(gradient, projection, -strength), -lr)
        last_projection = projection
        yield weights


def ftp_by_hand(start, gradients, lr, rows, branches, rate, annealing):
    """Each row is scaled to the radius in the norm |.|_1 if it is outside.

    `rows` are the indices of each.
    """
    weights = list(start)
    radius = HyperAdam(1e-8, rate)
    last_directions = None
    for gradient in gradients:
        descended = added(weights, gradient, -lr)
        deviation = difference(descended, start)
        lengths = [math.fsum(abs(deviation[i]) for i in row) for row in rows]
        if last_directions is not None:
            slope = dot(gradient, last_directions)
            if slope < 0:
                branches.add("wider")
            else:
                branches.add("tighter")
            radius.step(annealing * slope if slope > 0 else slope)
            radius.value = max(1e-8, min(radius.value, max(lengths)))
        directions = [0.0] * len(weights)
        weights = list(descended)
        for row, length in zip(rows, lengths, strict=True):
            is_outside = length > radius.value
            branches.add("outside" if is_outside else "inside")
            for i in row:
                if length >= radius.value:
                    directions[i] = deviation[i] / length
                if is_outside:
                    weights[i] = start[i] + radius.value / length * deviation[i]
        last_directions = directions
        yield weights


def rows_of(shape):
    """Indices of each row among the numbers of a tensor."""
    size = math.prod(shape)
    if len(shape) < 2:
        return [range(size)]
    n, *_ = shape
    return [range(i * size // n, (i + 1) * size // n) for i in range(n)]


@dataclass(frozen=True)
class StepsByHand:
    """A method, and its steps from the paper's equations."""

    method: type
    settings: Mapping[str, float]
    by_hand: Callable  # the numbers of a tensor after each step
    branches: set[str]  # of the equations


CASES = {
    "spd": StepsByHand(
        method=SelectiveProjectionDecay,
        settings={"weight": 0.7},
        by_hand=spd_by_hand,
        branches={"selected", "shorter", "free"},
    ),
    "digrap": StepsByHand(
        method=DirectionalGradientProjection,
        settings={"rate": 0.4},
        by_hand=digrap_by_hand,
        branches={"free", "part", "whole"},
    ),
    "ftp": StepsByHand(
        method=FastTrainableProjection,
        settings={"rate": 0.2, "annealing": 0.3},
        by_hand=ftp_by_hand,
        branches={"wider", "tighter", "outside", "inside"},
    ),
}


def numbers_of(tensor):
    """The numbers of a tensor in double precision, in a list."""
    return tensor.double().flatten().tolist()


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_the_papers_equations(case):
    # given
    equations = CASES[case]
    method = with_defaults(equations.method, lr=LR, **equations.settings)
    optimizer = set_up(method)
    start = starting_weights()
    gradients_of_steps = random_gradients()
    # when
    weights_after_steps = [take_step(method, optimizer, step) for step in gradients_of_steps]
    # then
    for weights in weights_after_steps:
        assert torch.equal(weights["unreached"], start["unreached"])
    branches = set()
    for name in REACHED:
        expected_after_steps = equations.by_hand(
            numbers_of(start[name]),
            [numbers_of(gradients[name]) for gradients in gradients_of_steps],
            LR * SCALES[name],
            rows_of(SHAPES[name]),
            branches,
            **equations.settings,
        )
        steps = zip(weights_after_steps, expected_after_steps, strict=True)
        for number, (weights, expected_numbers) in enumerate(steps, start=1):
            expected = torch.tensor(expected_numbers, dtype=torch.float32).view(SHAPES[name])
            torch.testing.assert_close(
                weights[name], expected, rtol=1e-3, atol=1e-5, msg=f"{name}, step {number}"
            )
    assert branches == equations.branches, "every branch of the equations"


AWAY, NOISE = random_gradients(seed=5, steps=2)
GOAL = {
    name: weights + 2 * AWAY[name] + 0.3 * NOISE[name]
    for name, weights in starting_weights().items()
}


def gradients_to_goal(method):
    """Gradients of the loss |theta - goal|^2 / 2."""
    return {name: weights - GOAL[name] for name, weights in method.model.state_dict().items()}


def step_towards_goal(method, key, number):
    """Set a method up half-way to the goal, and take a step; gives the optimiser.

    Args:
        key: what the method has learned to restrict tensors with, of its memory.
        number: what that is before the step.
    """
    optimizer = set_up(method)
    with torch.no_grad():
        for parameter, away in zip(method.parameters, AWAY.values(), strict=True):
            parameter += 0.5 * away
    method.memory[key].fill_(number)
    take_step(method, optimizer, gradients_to_goal(method))
    return optimizer


def loss_of(method, name):
    """The loss |theta - goal|^2 / 2 of a tensor."""
    deviation = method.model.state_dict()[name] - GOAL[name]
    return deviation.double().square().sum().item() / 2


def slope_by_differences(new_method, key, number, name, step):
    """The derivative of a tensor's loss after a step by the number that restricted it.

    Args:
        new_method: gives a method that is not set up.
        key, number: see `step_towards_goal`.
    """
    below = new_method()
    step_towards_goal(below, key, number - step)
    above = new_method()
    step_towards_goal(above, key, number + step)
    return (loss_of(above, name) - loss_of(below, name)) / (2 * step)


def slope_of(method, optimizer, key, name):
    """The gradient that Adam gets for the number of a tensor.

    It follows from its first moment after a step that begins at zero.
    """
    method.memory[f"{key}_mean"].zero_()
    take_step(method, optimizer, gradients_to_goal(method))
    means = dict(zip(SHAPES, method.memory[f"{key}_mean"].tolist(), strict=True))
    return 10 * means[name]


def test_the_radius_is_learned_from_the_derivative_of_the_loss():
    """By finite differences, with rows on both sides of the radius."""

    def new_method():
        return with_defaults(FastTrainableProjection, lr=LR, rate=0.0, annealing=1.0)

    method = new_method()
    optimizer = step_towards_goal(method, "radius", 1.0)
    directions_of_matrix, *_ = method.directions
    is_row_outside = [row.any().item() for row in directions_of_matrix]
    assert len(is_row_outside) == 3
    assert set(is_row_outside) == {False, True}
    slope = slope_of(method, optimizer, "radius", "matrix")
    expected = slope_by_differences(new_method, "radius", 1.0, "matrix", step=1e-3)
    assert slope == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("name", ["matrix", "vector", "kernel"])
def test_omega_is_learned_from_the_derivative_of_the_loss_but_for_its_scale(name):
    """By finite differences, after a step that was a conflict."""

    def new_method():
        return with_defaults(DirectionalGradientProjection, lr=LR, rate=0.0)

    method = new_method()
    optimizer = step_towards_goal(method, "omega", 0.5)
    projection = method.memory[f"projection.{name}"].clone()
    gradient = gradients_to_goal(method)[name]
    scale = LR * SCALES[name] * (gradient.norm() * projection.norm()).item()
    slope = slope_of(method, optimizer, "omega", name)
    expected = slope_by_differences(new_method, "omega", 0.5, name, step=1e-2)
    assert slope > 0
    assert slope * scale == pytest.approx(expected, rel=1e-2)


def test_with_weight_1_spd_keeps_a_selected_tensor_no_farther_away_than_it_was():
    method = with_defaults(SelectiveProjectionDecay, lr=LR, weight=1.0)
    optimizer = set_up(method)
    start = starting_weights()
    before = start
    held = 0
    for gradients in random_gradients(steps=40):
        after = take_step(method, optimizer, gradients)
        for name in REACHED:
            deviation_before = before[name] - start[name]
            distance_before = deviation_before.norm()
            distance_after = (after[name] - start[name]).norm()
            is_selected = (gradients[name] * deviation_before).sum() > 0
            if is_selected:
                assert distance_after <= distance_before * (1 + 1e-5)
                held += math.isclose(distance_after, distance_before, rel_tol=1e-5)
        before = after
    assert held > 3, "some were held at the distance they had"


def test_with_omega_1_digraps_steps_against_the_start_are_orthogonal_to_the_deviation():
    method = with_defaults(DirectionalGradientProjection, lr=LR, rate=0.0)
    optimizer = set_up(method)
    method.memory["omega"].fill_(1.0)
    start = starting_weights()
    before = start
    conflicts = 0
    for gradients in random_gradients():
        after = take_step(method, optimizer, gradients)
        for name in REACHED:
            deviation = before[name] - start[name]
            if (gradients[name] * deviation).sum() < 0:
                conflicts += 1
                change = after[name] - before[name]
                assert (change * deviation).sum().abs() < 1e-5
        before = after
    assert conflicts > 10


class Unbound(FastTrainableProjection):
    """FTP whose radius is infinite before every step."""

    def update(self, optimizer):
        self.memory["radius"].fill_(math.inf)
        super().update(optimizer)


TOGETHER = {"weight_decay": 0.1, "clip_norm": 0.5}
BY_LAYERS = {**TOGETHER, "layer_decay": 0.8, "decay_norm_and_bias": False, "micro_batch_size": 3}
NEUTRAL = {
    "spd": with_defaults(SelectiveProjectionDecay, lr=0.001, weight=0.0),
    "digrap": with_defaults(DirectionalGradientProjection, lr=0.001, rate=0.0),
    "ftp": with_defaults(Unbound, lr=0.001, rate=0.01, annealing=1.0),
}
ACTIVE = {
    "spd": with_defaults(SelectiveProjectionDecay, lr=0.001, weight=1.0),
    "digrap": with_defaults(DirectionalGradientProjection, lr=0.001, rate=0.3),
    "ftp": with_defaults(FastTrainableProjection, lr=0.001, rate=0.01, annealing=1.0),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("optimizer", "how"),
    examples(
        {
            "sgd": ("sgd", TOGETHER),
            "adamw": ("adamw", TOGETHER),
            "lion": ("lion", TOGETHER),
            "by_layers": ("adamw", BY_LAYERS),
        },
        {"sgd", "by_layers"},
    ),
)
def test_what_constrains_nothing_is_the_recipes_optimiser_to_the_last_bit(
    network, target, optimizer, how
):
    """SPD's is without weight decay, whose place it takes."""
    # given
    training = replace(TRAINING, optimizer=optimizer, **how)

    def fine_tuned(weight_decay):
        settings = replace(training, weight_decay=weight_decay)
        return trained_weights(with_defaults(FullFineTuning, lr=0.001), network, target, settings)

    with_decay = fine_tuned(0.1)
    without_decay = fine_tuned(0.0)
    assert not have_equal_weights(with_decay, without_decay)
    expected = {"spd": without_decay, "digrap": with_decay, "ftp": with_decay}
    # when, then
    for case, method in NEUTRAL.items():
        weights = trained_weights(method, network, target, training)
        assert have_equal_weights(weights, expected[case]), case
    for case, method in ACTIVE.items():
        weights = trained_weights(method, network, target, training)
        assert not have_equal_weights(weights, expected[case]), case


def trained_weights(method, network, target, training):
    """The tensors of a copy of the network that a method has trained, by name."""
    model, _ = trained(method, network, target, training)
    return model.state_dict()


def have_equal_weights(weights, expected):
    """Whether all tensors are the same to the last bit."""
    return all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_batch_in_parts_is_constrained_as_the_whole_is(network, target):
    training = replace(TRAINING, clip_norm=0.5)
    in_parts_of_two = replace(training, micro_batch_size=2)
    for case, method in ACTIVE.items():
        weights = trained_weights(method, network, target, training)
        weights_in_parts = trained_weights(method, network, target, in_parts_of_two)
        for name in weights:
            torch.testing.assert_close(
                weights_in_parts[name],
                weights[name],
                rtol=1e-3,
                atol=1e-5,
                msg=f"{case}: {name}",
            )
