"""SPD, FTP and DiGraP: what must hold of them in training.

Their steps are compared with their equations in plain loops.
"""

import math
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
from tiny.tiers import examples
from tiny.training import TRAINING, trained

LR = 0.1
SHAPES = {
    "matrix": (3, 2),
    "vector": (4,),
    "kernel": (2, 2, 1, 2),
    "number": (),
    "unreached": (2, 2),
}
SCALES = {
    "matrix": 1.0,
    "vector": 0.5,
    "kernel": 2.0,
    "number": 1.0,
    "unreached": 1.0,
}  # of the learning rate
STEPS = 12


class Parts(nn.Module):
    """Tensors of several shapes; the loss does not reach one of them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))


def made(method):
    """A method that is set up on Parts, and its optimiser.

    The optimiser is plain gradient descent with a rate for each tensor.
    """
    model = Parts()
    method.setup(Task(model, SimpleNamespace(inputs=None), None, 0))
    groups = [
        {"params": [part], "lr": LR * SCALES[name]} for name, part in model.named_parameters()
    ]
    return method, torch.optim.SGD(groups, lr=LR)


def take_step(method, optimizer, gradients):
    """Copies of the tensors after a step with these gradients."""
    for name, part in method.model.named_parameters():
        part.grad = gradients[name].clone() if name != "unreached" else None
    method.update(optimizer)
    method.step += 1
    return {name: part.detach().clone() for name, part in method.model.named_parameters()}


def random_gradients(seed=1, steps=STEPS):
    """Gradients of each step that often turn round.

    By them, tensors go away from their start and come back.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for _ in range(steps)
    ]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def norm(a):
    return math.sqrt(dot(a, a))


class HyperAdam:
    """Kingma and Ba 2015, algorithm 1, on one number.

    The first of its steps is the second of training.
    """

    def __init__(self, start, rate):
        self.value, self.rate, self.m, self.v, self.t = start, rate, 0.0, 0.0, 1

    def step(self, gradient):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.value -= self.rate * m / (math.sqrt(v) + 1e-8)


def spd_by_hand(start, gradients, lr, weight, seen):
    """Algorithm 2 on a list of numbers, around gradient descent."""
    x = list(start)
    for g in gradients:
        c = -dot(g, [a - s for a, s in zip(x, start, strict=True)])
        step = [a - lr * b for a, b in zip(x, g, strict=True)]
        near, far = (norm([a - s for a, s in zip(y, start, strict=True)]) for y in (x, step))
        r = max(0.0, far - near) / far
        seen.add("selected" if c < 0 < r else "shorter" if c < 0 else "free")
        x = [a - weight * r * (a - s) for a, s in zip(step, start, strict=True)] if c < 0 else step
        yield x


def digrap_by_hand(start, gradients, lr, rate, seen):
    """Algorithm 1 on a list of numbers, around gradient descent."""
    x, omega, last = list(start), HyperAdam(0.0, rate), None
    for g in gradients:
        d = [a - s for a, s in zip(x, start, strict=True)]
        if last is not None:
            omega.step(dot(g, last) / (norm(g) * norm(last)) if any(last) else 0.0)
            omega.value = max(0.0, min(1.0, omega.value))
        along = dot(g, d) / dot(d, d) if any(d) else 0.0
        last = [along * a for a in d]
        strength = omega.value if dot(g, d) < 0 else 0.0
        seen.add("free" if not strength else "whole" if strength == 1 else "part")
        x = [a - lr * (b - strength * p) for a, b, p in zip(x, g, last, strict=True)]
        yield x


def ftp_by_hand(start, gradients, lr, rate, annealing, rows, seen):
    """Each row is scaled to the radius in the norm |.|_1 if it is outside.

    `rows` are the places of each.
    """
    x, radius, last = list(start), HyperAdam(1e-8, rate), None
    for g in gradients:
        step = [a - lr * b for a, b in zip(x, g, strict=True)]
        d = [a - s for a, s in zip(step, start, strict=True)]
        lengths = [math.fsum(abs(d[i]) for i in row) for row in rows]
        if last is not None:
            slope = dot(g, last)
            seen.add("wider" if slope < 0 else "tighter")
            radius.step(annealing * slope if slope > 0 else slope)
            radius.value = max(1e-8, min(radius.value, max(lengths)))
        last, x = [0.0] * len(x), list(step)
        for row, length in zip(rows, lengths, strict=True):
            seen.add("outside" if length > radius.value else "inside")
            for i in row:
                if length >= radius.value:
                    last[i] = d[i] / length
                if length > radius.value:
                    x[i] = start[i] + radius.value / length * d[i]
        yield x


def rows_of(shape):
    """Places of each row among the numbers of a tensor."""
    size = math.prod(shape)
    if len(shape) < 2:
        return [range(size)]
    return [range(i * size // shape[0], (i + 1) * size // shape[0]) for i in range(shape[0])]


CASES = {
    "spd": (
        SelectiveProjectionDecay,
        {"weight": 0.7},
        spd_by_hand,
        {"selected", "shorter", "free"},
    ),
    "digrap": (
        DirectionalGradientProjection,
        {"rate": 0.4},
        digrap_by_hand,
        {"free", "part", "whole"},
    ),
    "ftp": (
        FastTrainableProjection,
        {"rate": 0.2, "annealing": 0.3},
        ftp_by_hand,
        {"wider", "tighter", "outside", "inside"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_the_papers_equations(case):
    make, settings, by_hand, wanted = CASES[case]
    method, optimizer = made(make(lr=LR, **settings))
    start, gradients, seen = Parts().state_dict(), random_gradients(), set()
    found = [take_step(method, optimizer, of_step) for of_step in gradients]
    for name, shape in SHAPES.items():
        if name == "unreached":
            assert all(torch.equal(after[name], start[name]) for after in found)
            continue
        more = {"rows": rows_of(shape)} if case == "ftp" else {}
        lists = [of_step[name].double().flatten().tolist() for of_step in gradients]
        steps = by_hand(
            start[name].double().flatten().tolist(),
            lists,
            LR * SCALES[name],
            **settings,
            **more,
            seen=seen,
        )
        for number, (after, expected) in enumerate(zip(found, steps, strict=True), start=1):
            expected = torch.tensor(expected, dtype=torch.float32).view(shape)
            torch.testing.assert_close(
                after[name], expected, rtol=1e-3, atol=1e-5, msg=f"{name}, step {number}"
            )
    assert seen == wanted, "every branch of the equations"


AWAY, NOISE = random_gradients(seed=5, steps=2)
GOAL = {
    name: part + 2 * AWAY[name] + 0.3 * NOISE[name] for name, part in Parts().state_dict().items()
}


def loss_after_step(method, key, value, name="matrix"):
    """Loss |theta - goal|^2 / 2 of a tensor after the step with a given number; and the method.

    The tensor is on its way to the goal.
    """
    method, optimizer = made(method)
    with torch.no_grad():
        for part, away in zip(method.parameters, AWAY.values(), strict=True):
            part += 0.5 * away
    method.memory[key].fill_(value)
    after = take_step(
        method,
        optimizer,
        {name: part - GOAL[name] for name, part in method.model.state_dict().items()},
    )
    return (after[name] - GOAL[name]).double().square().sum().item() / 2, method, optimizer


def slope_of(method, optimizer, key, name="matrix"):
    """The gradient that Adam gets for a number.

    It follows from its first moment after a step that begins at zero.
    """
    method.memory[f"{key}_mean"].zero_()
    take_step(
        method,
        optimizer,
        {name: part - GOAL[name] for name, part in method.model.state_dict().items()},
    )
    return 10 * method.memory[f"{key}_mean"][list(SHAPES).index(name)].item()


def test_the_radius_is_learned_from_the_derivative_of_the_loss():
    """By finite differences, with rows on both sides of the radius."""
    settings, step = {"lr": LR, "rate": 0.0, "annealing": 1.0}, 1e-3
    _, method, optimizer = loss_after_step(FastTrainableProjection(**settings), "radius", 1.0)
    assert sorted(row.any().item() for row in method.directions[0])[::2] == [False, True]
    losses = [
        loss_after_step(FastTrainableProjection(**settings), "radius", 1.0 + x)[0]
        for x in (-step, step)
    ]
    slope = slope_of(method, optimizer, "radius")
    assert slope == pytest.approx((losses[1] - losses[0]) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("name", ["matrix", "vector", "kernel"])
def test_omega_is_learned_from_the_derivative_of_the_loss_but_for_its_scale(name):
    """By finite differences, after a step that was a conflict."""
    step = 1e-2
    _, method, optimizer = loss_after_step(
        DirectionalGradientProjection(lr=LR, rate=0.0), "omega", 0.5, name
    )
    projection = method.memory[f"projection.{name}"].clone()
    after = method.model.state_dict()[name] - GOAL[name]
    scale = LR * SCALES[name] * (after.norm() * projection.norm()).item()
    cosine = slope_of(method, optimizer, "omega", name)
    losses = [
        loss_after_step(DirectionalGradientProjection(lr=LR, rate=0.0), "omega", 0.5 + x, name)[0]
        for x in (-step, step)
    ]
    assert (
        cosine * scale == pytest.approx((losses[1] - losses[0]) / (2 * step), rel=1e-2)
        and cosine > 0
    )


def test_spd_leaves_tensors_that_only_go_away_to_the_optimiser():
    """The same gradient again and again: no step is selected, however large the weight."""
    (gradients,) = random_gradients(steps=1)
    (method, optimizer), (plain, of_plain) = (
        made(SelectiveProjectionDecay(lr=LR, weight=1e6)),
        made(FullFineTuning(lr=LR)),
    )
    for _ in range(5):
        found, wanted = (
            take_step(method, optimizer, gradients),
            take_step(plain, of_plain, gradients),
        )
        assert all(torch.equal(found[name], wanted[name]) for name in SHAPES)


def test_with_weight_1_spd_keeps_a_selected_tensor_no_farther_away_than_it_was():
    method, optimizer = made(SelectiveProjectionDecay(lr=LR, weight=1.0))
    start, before, held = Parts().state_dict(), Parts().state_dict(), 0
    for gradients in random_gradients(steps=40):
        after = take_step(method, optimizer, gradients)
        for name in SHAPES:
            away, near = after[name] - start[name], before[name] - start[name]
            if (gradients[name] * near).sum() > 0 and name != "unreached":
                assert away.norm() <= near.norm() * (1 + 1e-5)
                held += math.isclose(away.norm(), near.norm(), rel_tol=1e-5)
        before = after
    assert held > 3, "some were held at the distance they had"


def test_ftp_starts_at_the_start_and_keeps_every_row_within_the_radius():
    method, optimizer = made(FastTrainableProjection(lr=LR, rate=0.05, annealing=1.0))
    start = Parts().state_dict()
    for number, gradients in enumerate(random_gradients()):
        after = take_step(method, optimizer, gradients)
        for name, radius in zip(SHAPES, method.memory["radius"].tolist(), strict=True):
            away = (after[name] - start[name]).flatten()
            most = max(away[row].abs().sum().item() for row in rows_of(SHAPES[name]))
            assert most <= radius + 1e-6 and (number or most < 1e-6)


def test_with_omega_1_digraps_steps_against_the_start_are_orthogonal_to_the_deviation():
    method, optimizer = made(DirectionalGradientProjection(lr=LR, rate=0.0))
    method.memory["omega"].fill_(1.0)
    start, before, conflicts = Parts().state_dict(), Parts().state_dict(), 0
    for gradients in random_gradients():
        after = take_step(method, optimizer, gradients)
        for name in set(SHAPES) - {"unreached"}:
            away = before[name] - start[name]
            if (gradients[name] * away).sum() < 0:
                conflicts += 1
                assert ((after[name] - before[name]) * away).sum().abs() < 1e-5
        before = after
    assert conflicts > 10


def test_omega_stays_from_0_to_1_and_turns_back_at_once():
    # given: steps so large that every omega comes to both ends
    method, optimizer = made(DirectionalGradientProjection(lr=LR, rate=0.4))
    history = []
    # when
    for gradients in random_gradients(steps=60):
        take_step(method, optimizer, gradients)
        history.append(method.memory["omega"].clone())
    # then: the number that is kept, and not the one that is used alone, is never outside
    omega = torch.stack(history)
    assert ((omega >= 0) & (omega <= 1)).all()
    was_at_the_end, came_back = omega[:-1] == 1, omega[1:] < 1
    assert (was_at_the_end & came_back).any(), "of what was at the upper end"
    assert (omega[10:] == 0).any(), "of what was above the lower end before"


class Unbound(FastTrainableProjection):
    """FTP whose radius is infinite before every step."""

    def update(self, optimizer):
        self.memory["radius"].fill_(math.inf)
        super().update(optimizer)


WHOLE = {"weight_decay": 0.1, "clip_norm": 0.5}
BY_LAYERS = {**WHOLE, "layer_decay": 0.8, "decay_norm_and_bias": False, "micro_batch_size": 3}
NEUTRAL = {
    "spd": SelectiveProjectionDecay(lr=0.001, weight=0.0),
    "digrap": DirectionalGradientProjection(lr=0.001, rate=0.0),
    "ftp": Unbound(lr=0.001, rate=0.01, annealing=1.0),
}
ACTIVE = {
    "spd": SelectiveProjectionDecay(lr=0.001, weight=1.0),
    "digrap": DirectionalGradientProjection(lr=0.001, rate=0.3),
    "ftp": FastTrainableProjection(lr=0.001, rate=0.01, annealing=1.0),
}


@pytest.mark.parametrize(
    ("optimizer", "how"),
    examples(
        {
            "sgd": ("sgd", WHOLE),
            "adamw": ("adamw", WHOLE),
            "lion": ("lion", WHOLE),
            "by_layers": ("adamw", BY_LAYERS),
        },
        {"sgd", "by_layers"},
    ),
)
def test_what_constrains_nothing_is_the_recipes_optimiser_to_the_last_bit(
    network, target, optimizer, how
):
    """SPD's is without weight decay, whose place it takes."""
    training = replace(TRAINING, optimizer=optimizer, **how)
    wanted, none = (
        trained(FullFineTuning(lr=0.001), network, target, replace(training, weight_decay=decay))[
            0
        ].state_dict()
        for decay in (0.1, 0.0)
    )
    assert any(not torch.equal(wanted[name], none[name]) for name in wanted)
    for case, method in NEUTRAL.items():
        found, expected = (
            trained(method, network, target, training)[0].state_dict(),
            none if case == "spd" else wanted,
        )
        assert all(torch.equal(found[name], expected[name]) for name in expected), case
    for case, method in ACTIVE.items():
        found, expected = (
            trained(method, network, target, training)[0].state_dict(),
            none if case == "spd" else wanted,
        )
        assert any(not torch.equal(found[name], expected[name]) for name in expected), case


def test_a_batch_in_parts_is_constrained_as_the_whole_is(network, target):
    training = replace(TRAINING, clip_norm=0.5)
    for case in ACTIVE:
        whole, parts = (
            trained(ACTIVE[case], network, target, replace(training, micro_batch_size=size))[
                0
            ].state_dict()
            for size in ("all", 2)
        )
        for name in whole:
            torch.testing.assert_close(
                parts[name], whole[name], rtol=1e-3, atol=1e-5, msg=f"{case}: {name}"
            )
