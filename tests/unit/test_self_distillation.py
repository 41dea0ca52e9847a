"""Self-distillation against its averages and its loss written out over the whole trajectory."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rib.methods.ft import FullFineTuning
from rib.methods.self_distillation import SelfDistillation
from tiny.models.methods import coloured_images, set_up
from tiny.models.training import (
    TRAINING,
    normalised,
    task_of,
    trained,
    trained_by_hand,
    with_defaults,
)

STEPS = 6  # two epochs of 10 images in batches of 4
DEFAULTS = {
    "lr": 0.02,
    "average": "ema",
    "temperature": 2.0,
    "weight": 1.0,
    "decay": 0.999,
    "beta": 0.5,
}
AVERAGES = [("ema", {"decay": 0.8}), ("wma", {"beta": 0.5}), ("wma", {"beta": 3.0})]
for_each_average = pytest.mark.parametrize(
    ("average", "setting"), AVERAGES, ids=["ema", "wma-beta0.5", "wma-beta3"]
)


def weights_by_hand(average, setting, step):
    """Weights of the states 0..step in the teacher after this many of STEPS steps.

    Args:
        average: `ema` or `wma`.
        setting: its decay or its beta.
        step: number of steps that were taken.
    """
    if average == "ema":
        decay = setting["decay"]
        weight_of_pretrained = decay**step
        weights_of_students = [(1 - decay) * decay ** (step - i) for i in range(1, step + 1)]
        return [weight_of_pretrained, *weights_of_students]
    beta = torch.tensor(setting["beta"], dtype=torch.float64)
    distribution = torch.distributions.Beta(beta, beta)
    densities = []
    for i in range(step + 1):
        position = torch.tensor((i + 0.5) / (STEPS + 1), dtype=torch.float64)
        densities.append(distribution.log_prob(position).exp().item())
    return [density / sum(densities) for density in densities]


def mean_by_hand(states, weights):
    """The weighted mean of the floating-point tensors of states."""
    mean = {}
    for name, first_tensor in states[0].items():
        if first_tensor.is_floating_point():
            weighted_tensors = [
                weight * state[name].double() for weight, state in zip(weights, states, strict=True)
            ]
            mean[name] = sum(weighted_tensors).float()
    return mean


def copy_state(model):
    """A copy of the tensors of a network as they are now."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def divergence_of_one_image(teacher_logits, student_logits, temperature):
    """KL(softmax(teacher / T) || softmax(student / T)) of the logits of one image."""
    teacher_exponentials = torch.exp(teacher_logits.double() / temperature)
    student_exponentials = torch.exp(student_logits.double() / temperature)
    teacher_probabilities = teacher_exponentials / teacher_exponentials.sum()
    student_probabilities = student_exponentials / student_exponentials.sum()
    log_ratios = (teacher_probabilities / student_probabilities).log()
    return (teacher_probabilities * log_ratios).sum()


@for_each_average
def test_training_descends_the_divergence_from_the_mean_of_the_trajectory(
    network, target, average, setting
):
    # given
    temperature = 3.0
    weight = 5.0
    settings = {**DEFAULTS, "average": average, "temperature": temperature, "weight": weight}
    algorithm = with_defaults(SelfDistillation, **{**settings, **setting})
    pixels = normalised(target.images)
    states = []
    teacher = copy.deepcopy(network)

    def penalty_by_hand(model, rows, logits, step):
        """The penalty of a batch, whose teacher is the mean of all states until this step."""
        states.append(copy_state(model))
        mean_of_states = mean_by_hand(states, weights_by_hand(average, setting, step))
        teacher.load_state_dict(mean_of_states, strict=False)
        sum_of_divergences = 0.0
        for image, student_logits in zip(pixels[rows], logits, strict=True):
            with torch.no_grad():
                (teacher_logits,) = teacher(image[None])
            sum_of_divergences += divergence_of_one_image(
                teacher_logits, student_logits, temperature
            )
        return weight * temperature**2 * sum_of_divergences / len(rows)

    # when
    model, history = trained(algorithm, network, target)
    model_by_hand = copy.deepcopy(network)
    history_by_hand = trained_by_hand(
        model=model_by_hand,
        pixels=pixels,
        labels=target.labels,
        space=target.space,
        peak=DEFAULTS["lr"],
        training=TRAINING,
        seed=0,
        penalty=penalty_by_hand,
    )
    # then the penalty counts
    assert len(states) == STEPS
    assert history[-1]["loss"] > history[-1]["cross_entropy"] + 1e-4
    # and training is that of the reference
    for epoch, epoch_by_hand in zip(history, history_by_hand, strict=True):
        assert epoch == pytest.approx(epoch_by_hand, rel=1e-3)
    torch.testing.assert_close(model.state_dict(), model_by_hand.state_dict(), rtol=1e-3, atol=1e-5)


@for_each_average
def test_the_teacher_averages_weights_and_batch_norm_statistics_from_the_pretrained_ones_on(
    network, target, average, setting
):
    # given
    algorithm = with_defaults(SelfDistillation, **{**DEFAULTS, "average": average, **setting})
    algorithm.setup(task_of(copy.deepcopy(network), target))
    algorithm.steps = STEPS
    generator = torch.Generator().manual_seed(0)

    def move_student():
        with torch.no_grad():
            for tensor in algorithm.model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.rand(tensor.shape, generator=generator))

    optimizer = SimpleNamespace(step=move_student)
    states = [copy_state(network)]
    for step in range(STEPS):
        # when
        algorithm.step = step
        algorithm.update(optimizer)
        states.append(copy_state(algorithm.model))
        # then
        expected_mean = mean_by_hand(states, weights_by_hand(average, setting, step + 1))
        teacher = algorithm.teacher.state_dict()
        averaged_tensors = {name: teacher[name] for name in expected_mean}
        torch.testing.assert_close(averaged_tensors, expected_mean, rtol=1e-5, atol=1e-5)
        assert algorithm.memory.keys() == expected_mean.keys()
    assert not any(module.training for module in algorithm.teacher.modules())


def test_an_average_that_forgets_at_once_is_full_fine_tuning_to_the_bit(network, target):
    # when
    distilled, history = trained(
        with_defaults(SelfDistillation, **{**DEFAULTS, "decay": 0}), network, target
    )
    fine_tuned, history_of_fine_tuning = trained(
        with_defaults(FullFineTuning, lr=DEFAULTS["lr"]), network, target
    )
    # then
    assert history == history_of_fine_tuning
    tensors_of_fine_tuned = fine_tuned.state_dict()
    assert distilled.state_dict().keys() == tensors_of_fine_tuned.keys()
    for name, tensor in distilled.state_dict().items():
        assert torch.equal(tensor, tensors_of_fine_tuned[name]), name


def test_equal_logits_have_a_gradient_of_exactly_zero(network, target):
    # given
    algorithm = with_defaults(SelfDistillation, **DEFAULTS)
    algorithm.setup(task_of(copy.deepcopy(network), target))
    rows = np.arange(5)

    def gradient_after(change):
        """The penalty's gradient for the teacher's own logits, of which one is changed."""
        logits = algorithm.logits(rows).detach()
        logits[0, 0] += change
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(algorithm.penalty(rows, logits), logits)
        return gradient

    # then
    assert not gradient_after(0).any()
    assert gradient_after(1e-3).any()


@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e4])
def test_shares_are_finite_for_any_beta_and_of_a_long_training(beta):
    algorithm = with_defaults(SelfDistillation, **{**DEFAULTS, "average": "wma", "beta": beta})
    algorithm.steps = 10_000
    for step in (1, 2, 5_000, 10_000):
        share = algorithm.share(step)
        assert 0 <= share <= 1
        if beta == 1:
            share_of_equal_states = 1 / (step + 1)
            assert share == pytest.approx(share_of_equal_states)


def test_both_averages_have_the_loss_of_lwf_while_the_student_has_not_moved_its_teacher(network):
    images = coloured_images(64)
    rows = np.arange(4)
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))

    def penalty_of(method):
        """What a method of the catalogue adds to the error of these logits of the student."""
        return set_up(method, network, images).penalty(rows, logits).item()

    by_ema = penalty_of("self_distillation_ema")
    by_wma = penalty_of("self_distillation_wma")
    assert by_ema == by_wma
    assert by_ema > 0
    assert by_ema == pytest.approx(penalty_of("lwf"), rel=1e-5)
