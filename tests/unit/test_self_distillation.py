"""Self-distillation against its averages and its loss written out over the whole trajectory."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rib.methods.ft import FullFineTuning
from rib.methods.self_distillation import SelfDistillation
from tiny.training import TRAINING, normalised, task_of, trained, trained_by_hand

STEPS = 6  # two epochs of 10 images in batches of 4
DEFAULTS = {"lr": 0.02, "average": "ema", "temperature": 2.0, "weight": 1.0}
KINDS = [("ema", {"decay": 0.8}), ("wma", {"beta": 0.5}), ("wma", {"beta": 3.0})]
kinds = pytest.mark.parametrize(
    ("average", "setting"), KINDS, ids=["ema", "wma-beta0.5", "wma-beta3"]
)


def weights_by_hand(average, setting, step):
    """Weights of the states 0..step in the teacher after this many of STEPS steps."""
    if average == "ema":
        d = setting["decay"]
        return [d**step] + [(1 - d) * d ** (step - i) for i in range(1, step + 1)]
    b = torch.tensor(setting["beta"], dtype=torch.float64)
    times = [torch.tensor((i + 0.5) / (STEPS + 1), dtype=torch.float64) for i in range(step + 1)]
    density = [torch.distributions.Beta(b, b).log_prob(time).exp().item() for time in times]
    return [one / sum(density) for one in density]


def mean_by_hand(states, weights):
    return {
        name: sum(
            weight * state[name].double() for weight, state in zip(weights, states, strict=True)
        ).float()
        for name, value in states[0].items()
        if value.is_floating_point()
    }


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@kinds
def test_training_descends_the_divergence_from_the_mean_of_the_trajectory(
    network, target, average, setting
):
    algorithm = SelfDistillation(
        **{**DEFAULTS, "average": average, "temperature": 3.0, "weight": 5.0}, **setting
    )
    model, history = trained(algorithm, network, target)
    by_hand, teacher, states = copy.deepcopy(network), copy.deepcopy(network), []

    def penalty(model, rows, logits, step):
        states.append(snapshot(model))
        teacher.load_state_dict(
            mean_by_hand(states, weights_by_hand(average, setting, step)), strict=False
        )
        total = 0.0
        for student, image in zip(logits, normalised(target.images)[rows], strict=True):
            with torch.no_grad():
                p = torch.exp(teacher(image[None])[0].double() / 3)
            q = torch.exp(student.double() / 3)
            p, q = p / p.sum(), q / q.sum()
            total = total + (p * (p / q).log()).sum()
        return 5 * 9 * total / len(rows)

    pixels = normalised(target.images)
    expected = trained_by_hand(
        by_hand, pixels, target.labels, target.space, 0.02, TRAINING, 0, penalty
    )
    assert len(states) == STEPS and history[-1]["loss"] > history[-1]["cross_entropy"] + 1e-4, (
        "they differ"
    )
    for row, wanted in zip(history, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-3, atol=1e-5)


@kinds
def test_the_teacher_averages_weights_and_batch_norm_statistics_from_the_pretrained_ones_on(
    network, target, average, setting
):
    algorithm = SelfDistillation(**{**DEFAULTS, "average": average}, **setting)
    algorithm.setup(task_of(copy.deepcopy(network), target))
    algorithm.steps, states = STEPS, [snapshot(network)]
    generator = torch.Generator().manual_seed(0)

    def move():
        with torch.no_grad():
            for tensor in algorithm.model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.rand(tensor.shape, generator=generator))

    for step in range(STEPS):
        algorithm.step = step
        algorithm.update(SimpleNamespace(step=move))
        states.append(snapshot(algorithm.model))
        expected = mean_by_hand(states, weights_by_hand(average, setting, step + 1))
        found = {
            name: value
            for name, value in algorithm.teacher.state_dict().items()
            if name in expected
        }
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert algorithm.memory.keys() == expected.keys()
    assert not any(module.training for module in algorithm.teacher.modules())


def test_an_average_that_forgets_at_once_is_full_fine_tuning_to_the_bit(network, target):
    distilled, history = trained(SelfDistillation(**DEFAULTS, decay=0), network, target)
    plain, expected = trained(FullFineTuning(lr=0.02), network, target)
    assert history == expected
    assert all(
        torch.equal(value, plain.state_dict()[name])
        for name, value in distilled.state_dict().items()
    )


def test_equal_logits_have_a_gradient_of_exactly_zero(network, target):
    algorithm = SelfDistillation(**DEFAULTS)
    algorithm.setup(task_of(copy.deepcopy(network), target))
    rows = np.arange(5)
    for change in (0, 1e-3):
        logits = algorithm.logits(rows).detach()
        logits[0, 0] += change
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(algorithm.penalty(rows, logits), logits)
        assert gradient.any() == (change != 0)


@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e4])
def test_shares_are_finite_for_any_beta_and_of_a_long_training(beta):
    algorithm = SelfDistillation(**{**DEFAULTS, "average": "wma"}, beta=beta)
    algorithm.steps = 10_000
    for step in (1, 2, 5_000, 10_000):
        assert 0 <= algorithm.share(step) <= 1
        if beta == 1:
            assert algorithm.share(step) == pytest.approx(1 / (step + 1)), "all states alike"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("average", ["", "sma"]),
        ("decay", [-1e-9, 1]),
        ("beta", [0, -1]),
        ("temperature", [0]),
        ("weight", [-1e-9]),
    ],
    ids=["average", "decay", "beta", "temperature", "weight"],
)
def test_a_setting_out_of_range_is_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name}.*{value}.*set"):
            SelfDistillation(**{**DEFAULTS, name: value})
    least = SelfDistillation(**{**DEFAULTS, "temperature": 1e-9, "weight": 0}, decay=0, beta=1e-9)
    assert (least.decay, least.beta, least.weight) == (0, 1e-9, 0)
