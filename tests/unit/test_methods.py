"""Each method against its equation written out, on a small network."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.methods import _distil, greedy_soup, wise_ft, wise_ft_selected
from rib.methods.base import load_algorithm
from rib.methods.ewc import ElasticWeightConsolidation
from rib.methods.ft import FullFineTuning
from rib.methods.l2_sp import L2StartingPoint
from rib.methods.linear_probe import LinearProbing
from rib.methods.linear_probe_released import LinearProbingReleased
from rib.methods.lora import (
    FusedAttention,
    LowRankAdaptation,
    adapted_layers,
    unfold_attention,
)
from rib.methods.lwf import LearningWithoutForgetting
from rib.methods.replay import Replay
from rib.methods.visual_prompt import VisualPrompting
from rib.models import device as devices
from rib.models.checkpoint import add_low_rank_updates
from rib.models.network import OpenClipClassifier, build
from rib.schema.algorithm_settings import DEFAULTS_OF_TRAINING
from tiny.changed import replace
from tiny.models.training import (
    TRAINING,
    masked,
    normalised,
    random_images,
    resnet,
    settings_of,
    task_of,
    trained,
    with_defaults,
)

# Settings of algorithms.
DISTIL = {"lr": 0.1, "temperature": 2.0, "weight": 1.0, "distil": "all"}
FISHER = {"lr": 0.1, "weight": 1.0, "fisher": "sampled", "fisher_images": 1}
ADAPT = {"lr": 0.1, "rank": 1, "alpha": 1.0, "also": "none"}
PROMPT = {"lr": 0.1, "padding": 0.1, "init_std": 0.0}
ALL_ROWS = slice(None)


def vit():
    """A small vision transformer for images of 64 pixels."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=64).eval()


def set_up(algorithm, network, target, reference=None, seed=0):
    """Set up an algorithm with a copy of a network, which becomes its `model`; gives it."""
    algorithm.setup(task_of(copy.deepcopy(network), target, reference, seed))
    return algorithm


def names_of_changed(network, model):
    """Names of the tensors that differ between two networks."""
    before = network.state_dict()
    after = model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def column(history, name):
    """A value of all epochs of a history, of which there is at least one."""
    assert history
    return [epoch[name] for epoch in history]


def noise(*shape):
    """Normally distributed numbers, always the same for a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def divergence_by_hand(teacher, student, temperature):
    """KL(softmax(teacher / T) || softmax(student / T)) of logits, mean over a batch."""
    teacher_probabilities = torch.softmax(teacher.detach().double() / temperature, dim=1)
    student_probabilities = torch.softmax(student.detach().double() / temperature, dim=1)
    log_ratios = (teacher_probabilities / student_probabilities).log()
    divergences = (teacher_probabilities * log_ratios).sum(dim=1)
    return divergences.mean().item()


def cross_entropy_by_hand(logits, dataset, rows):
    """Cross-entropy, a scalar, of the class logits of some rows of a dataset.

    Args:
        logits: (N, 1000) of these rows.
    """
    labels = torch.from_numpy(dataset.labels)[rows]
    return F.cross_entropy(masked(logits.float(), dataset.space), labels)


def test_linear_probe_on_stored_features_equals_training_through_the_network(network, target):
    # given
    probe = with_defaults(LinearProbing, lr=0.1)
    probe_of_images = with_defaults(LinearProbing, lr=0.1)

    def logits_through_the_network(rows):
        return probe_of_images.model(probe_of_images.images[rows])

    probe_of_images.logits = logits_through_the_network
    # when
    model, history = trained(probe, network, target)
    model_of_images, history_of_images = trained(probe_of_images, network, target)
    # then
    torch.testing.assert_close(
        model.state_dict(), model_of_images.state_dict(), rtol=1e-5, atol=1e-6
    )
    assert column(history, "accuracy") == column(history_of_images, "accuracy")


def test_lwf_adds_the_divergence_from_the_pretrained_logits(network, target):
    # given
    weight = 0.7
    temperature = 3.0
    algorithm = with_defaults(
        LearningWithoutForgetting, lr=0.1, temperature=temperature, weight=weight, distil="all"
    )
    set_up(algorithm, network, target)
    rows = np.array([2, 0, 7])
    with torch.no_grad():
        teacher = network(algorithm.images[rows])
    student = (teacher + noise(*teacher.shape)).requires_grad_()
    # when
    penalty = algorithm.penalty(rows, student)
    penalty.backward()
    penalty_of_an_equal_student = algorithm.penalty(rows, teacher)
    # then
    divergence = divergence_by_hand(teacher, student, temperature)
    expected_penalty = weight * temperature**2 * divergence
    assert penalty.item() == pytest.approx(expected_penalty, rel=1e-4)
    # d/dz of T^2 KL(p || softmax(z / T)) is T (q - p); the mean over the batch divides by its size.
    p = torch.softmax(teacher.double() / temperature, dim=1)
    q = torch.softmax(student.detach().double() / temperature, dim=1)
    expected_gradient = weight * temperature * (q - p) / len(rows)
    torch.testing.assert_close(student.grad.double(), expected_gradient, rtol=1e-3, atol=1e-6)
    assert penalty_of_an_equal_student.item() == pytest.approx(0, abs=1e-5)


# Limits of the bytes of a teacher's outputs that a GPU and the host keep. Those of 10 images are
# 40,000 bytes, and half of that in fp16.
LIMITS = {"on a GPU": (40_000, 0), "on the host": (39_999, 20_000), "nowhere": (39_999, 19_999)}


@pytest.fixture(params=LIMITS)
def where_stored(request, monkeypatch):
    """Where the logits of LwF's teacher for 10 images are kept."""
    on_gpu, on_host = LIMITS[request.param]
    monkeypatch.setattr(_distil, "LARGEST_STORED", on_gpu)
    monkeypatch.setattr(_distil, "LARGEST_OF_TEACHER_ON_HOST", on_host)
    return request.param


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_lwf_is_taught_by_the_pretrained_network_wherever_its_logits_are_kept(
    network, target, where_stored, batch_norm
):
    """The student moves, and its BatchNorm with it; the teacher stays as it was."""
    # given
    algorithm = with_defaults(
        LearningWithoutForgetting, **{**DISTIL, "batch_norm": batch_norm, "lr": 0.02}
    )
    rows = np.array([3, 9, 4])
    student = noise(3, 1000)
    with torch.no_grad():
        teacher = network(normalised(target.images[rows]))
    # when
    model, history = trained(algorithm, network, target)
    penalty = algorithm.penalty(rows, student)
    # then
    *_, last_epoch = history
    assert names_of_changed(network, model)
    assert last_epoch["loss"] > last_epoch["cross_entropy"]
    expected_penalty = 2**2 * divergence_by_hand(teacher, student, temperature=2)
    assert penalty.item() == pytest.approx(expected_penalty, rel=1e-4)
    assert algorithm.teacher_logits(rows).dtype == torch.float32


def test_stored_logits_teach_as_those_computed_in_each_step(network, target, monkeypatch, progress):
    # given
    settings = {**DISTIL, "lr": 0.02}
    # when
    monkeypatch.setattr(_distil, "LARGEST_STORED", 39_999)
    monkeypatch.setattr(_distil, "LARGEST_OF_TEACHER_ON_HOST", 19_999)
    model, history = trained(with_defaults(LearningWithoutForgetting, **settings), network, target)
    titles_without_storing = [title for title, _, _, _ in progress()]
    monkeypatch.setattr(_distil, "LARGEST_STORED", 40_000)
    model_of_stored, history_of_stored = trained(
        with_defaults(LearningWithoutForgetting, **settings), network, target
    )
    # then
    assert "teacher logits" not in titles_without_storing, "more than may be stored"
    assert ("teacher logits", 1, 1, "batch") in progress()
    torch.testing.assert_close(
        model_of_stored.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5
    )
    losses = column(history, "loss")
    assert column(history_of_stored, "loss") == pytest.approx(losses, rel=1e-5)


def test_the_history_tells_the_cross_entropy_from_the_penalty_and_without_a_weight_lwf_is_ft(
    network, target
):
    # given
    settings = {"lr": 0.01, "temperature": 2.0, "distil": "all"}
    without_weight = with_defaults(LearningWithoutForgetting, **settings, weight=0.0)
    with_weight = with_defaults(LearningWithoutForgetting, **settings, weight=1.0)
    # when
    model_without_weight, history_without_weight = trained(without_weight, network, target)
    _, history_with_weight = trained(with_weight, network, target)
    model_of_ft, _ = trained(with_defaults(FullFineTuning, lr=0.01), network, target)
    # then
    assert not names_of_changed(model_without_weight, model_of_ft)
    cross_entropies = column(history_without_weight, "cross_entropy")
    assert column(history_without_weight, "loss") == cross_entropies
    *_, last_epoch = history_with_weight
    assert last_epoch["loss"] > last_epoch["cross_entropy"] > 0


def test_wise_ft_has_one_parent():
    with pytest.raises(ValueError, match="names 0"):
        wise_ft.coefficients([], alpha=0.5)
    with pytest.raises(ValueError, match="names 2"):
        wise_ft.coefficients(["ft", "lwf"], alpha=0.5)


def test_an_unknown_architecture_is_named():
    with pytest.raises(UserError, match="'resnet_of_mine'"):
        build("timm", "resnet_of_mine")


@pytest.mark.parametrize("changes", [{"batch_norm": "train"}, {"dropout": 0.1}, {"drop_path": 0.1}])
def test_a_setting_of_training_without_effect_on_a_frozen_network_is_refused(changes):
    file = LIBRARY / "methods/linear_probe.py"
    settings = {"lr": 0.1, **DEFAULTS_OF_TRAINING}
    load_algorithm(file, settings, "linear_probe")
    message = r"^linear_probe\.py: the network stays in evaluation mode, .* methods\.yaml, linear_"
    with pytest.raises(UserError, match=message):
        load_algorithm(file, {**settings, **changes}, "linear_probe")


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("ft", "lr", 0),
        ("ft", "dropout", 1.0),
        ("ft", "drop_path", 1.0),
        ("ewc", "fisher_images", 0),
        ("lora", "rank", 0),
        ("visual_prompt", "padding", 0.5),
        ("ftp", "annealing", 1.01),
        ("self_distillation_ema", "decay", 1),
        ("self_distillation_wma", "beta", 0),
        ("carot", "momentum", 1.1),
        ("carot", "interval", 0),
        ("lipsum_ft", "texts", 0),
    ],
)
def test_a_number_beyond_the_range_of_a_setting_is_refused(catalog, name, setting, value):
    with pytest.raises(UserError, match=f"'{setting}' is {value}, but"):
        load_entry(catalog, name, {setting: value})


def load_entry(catalog, name, changes):
    """The algorithm of a method of the catalogue, of whose settings some are others."""
    entry = catalog.methods[name]
    settings = {**DEFAULTS_OF_TRAINING, **settings_of(entry), **changes}
    return load_algorithm(catalog.algorithm_file(entry.algorithm), settings, name)


def test_no_number_of_a_methods_settings_may_be_negative(catalog):
    for name, entry in catalog.methods.items():
        if not entry.trains:
            continue
        for setting, value in {**DEFAULTS_OF_TRAINING, **settings_of(entry)}.items():
            if isinstance(value, int | float):
                with pytest.raises(UserError, match=f"'{setting}' is -1"):
                    load_entry(catalog, name, {setting: -1})


def module_with(folder, *class_names):
    """Write a module with classes that inherit from FineTuning; gives its file."""
    lines = ["from rib.methods.base import FineTuning", "from rib.methods.ft import FullFineTuning"]
    for name in class_names:
        lines += [f"class {name}(FineTuning):", "    pass"]
    file = folder / "mine.py"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_an_algorithm_is_the_one_class_that_its_module_defines(tmp_path):
    # given
    settings = {"lr": 0.5, **DEFAULTS_OF_TRAINING}
    file = module_with(tmp_path, "Mine")
    # when it is read, and read again
    for _ in range(2):
        algorithm = load_algorithm(file, settings, "mine")
        # then
        assert type(algorithm).__name__ == "Mine"
        assert algorithm.lr == 0.5


def test_a_module_with_no_class_or_with_two_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"mine\.py defines no class"):
        load_algorithm(module_with(tmp_path), {}, "mine")
    with pytest.raises(UserError, match="defines First, Second; define exactly one"):
        load_algorithm(module_with(tmp_path, "First", "Second"), {}, "mine")


def penalty_after_a_move(algorithm, network, target, rows, seed=0):
    """Set up an algorithm, and move its network away from the start.

    Returns:
        The penalty on some rows of the target, the network, and the parameters of the start.
    """
    set_up(algorithm, network, target, seed=seed)
    model = algorithm.model
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    penalty = algorithm.penalty(rows, model(algorithm.images[rows]))
    return penalty, model, start


def squared_distance(model, start, importance=None):
    """Sum over a network's parameters of their squared differences from the start.

    Args:
        importance: of each parameter, by which its squares are multiplied.
    """
    distance = 0.0
    for name, parameter in model.named_parameters():
        squares = (parameter.detach() - start[name]) ** 2
        if importance is not None:
            squares = importance[name] * squares
        distance += squares.sum().item()
    assert distance > 0
    return distance


@pytest.mark.parametrize(("released", "factor"), [(False, 0.15), (True, 1.0)])
def test_l2_sp_is_half_the_weighted_squared_distance_and_the_released_ewc_all_of_it(
    network, target, catalog, released, factor
):
    # given
    settings = {"lr": 0.1, "weight": 0.3}
    if released:
        settings = settings_of(catalog.methods["ewc_released"])
    algorithm = with_defaults(L2StartingPoint, **settings)
    # when
    penalty, model, start = penalty_after_a_move(algorithm, network, target, np.arange(3))
    penalty.backward()
    # then
    assert penalty.item() == pytest.approx(factor * squared_distance(model, start), rel=1e-5)
    for name, parameter in model.named_parameters():
        expected_gradient = 2 * factor * (parameter.detach() - start[name])
        torch.testing.assert_close(parameter.grad, expected_gradient)


@pytest.mark.parametrize(
    ("kind", "most", "rows"),
    [
        ("sampled", 99, range(10)),
        ("empirical", 3, [0, 4, 9]),
        ("empirical", 1, [0]),
    ],
)
def test_ewcs_fisher_is_the_mean_of_squared_gradients_of_single_images(
    network, target, kind, most, rows, progress
):
    """Independent reference: torch.func's per-sample gradients, log-probabilities written out.

    Args:
        kind: of Fisher information.
        most: largest number of images that it is computed on.
        rows: of these images.
    """
    # given
    weight = 3.0
    algorithm = with_defaults(
        ElasticWeightConsolidation, lr=0.1, weight=weight, fisher=kind, fisher_images=most
    )
    images = normalised(target.images)[list(rows)]
    if kind == "sampled":
        labels = sampled_labels(network, images, seed=7)
    else:
        labels = torch.from_numpy(target.labels)[list(rows)]

    def log_probability(parameters, image, label):
        """Log-probability of an image's label under a network with these parameters."""
        tensors = (parameters, dict(network.named_buffers()))
        (logits,) = torch.func.functional_call(network, tensors, (image[None],))
        if kind == "empirical":
            class_logits = [logits[list(outputs)].max() for outputs in target.space.indices]
            logits = torch.stack(class_logits)
        return torch.log(logits.softmax(dim=0))[label]

    # when
    penalty, model, start = penalty_after_a_move(algorithm, network, target, np.arange(3), seed=7)
    # then
    assert progress() == [("Fisher information", len(rows), len(rows), "image")]
    expected_fisher = {name: torch.zeros_like(parameter) for name, parameter in start.items()}
    for image, label in zip(images, labels, strict=True):
        gradients = torch.func.grad(log_probability)(start, image, label)
        for name, gradient in gradients.items():
            expected_fisher[name] += gradient**2 / len(rows)
    for importance, (name, expected) in zip(
        algorithm.importance, expected_fisher.items(), strict=True
    ):
        torch.testing.assert_close(importance, expected, rtol=1e-3, atol=1e-7, msg=name)
    weighted_distance = squared_distance(model, start, expected_fisher)
    assert penalty.item() == pytest.approx(weight / 2 * weighted_distance, rel=1e-3)


def sampled_labels(network, images, seed):
    """A label of each image, drawn from the network's own probabilities of its 1000 outputs."""
    with torch.no_grad():
        probabilities = network(images).softmax(dim=1)
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.multinomial(row, 1, generator=generator) for row in probabilities]
    return torch.cat(labels)


def test_ewcs_fisher_is_of_the_reference_dataset_where_there_is_one(network, target):
    # given
    reference = SimpleNamespace(
        rows=None,
        images=target.images[::-1].copy()[:4],
        labels=target.labels[:4],
        space=target.space,
    )
    settings = {**FISHER, "fisher": "empirical", "fisher_images": 10}

    def importance(trained_on, reference=None):
        algorithm = with_defaults(ElasticWeightConsolidation, **settings)
        return set_up(algorithm, network, trained_on, reference).importance

    # when
    on_target = importance(target)
    on_reference_beside_target = importance(target, reference)
    on_reference = importance(reference)
    # then
    for of_target, of_reference in zip(on_target, on_reference_beside_target, strict=True):
        assert not torch.equal(of_target, of_reference)
    for beside_target, alone in zip(on_reference_beside_target, on_reference, strict=True):
        assert torch.equal(beside_target, alone)


def test_replay_adds_the_cross_entropy_of_the_reference(network, target):
    # given
    reference = SimpleNamespace(
        rows=None, images=target.images[:3], labels=target.labels[:3], space=target.space
    )
    replay = set_up(with_defaults(Replay, lr=0.1, weight=0.5), network, target, reference)
    # when
    penalty = replay.penalty(np.arange(5), None)
    # then
    logits = network(normalised(reference.images))
    expected_penalty = 0.5 * cross_entropy_by_hand(logits, reference, ALL_ROWS)
    assert penalty.item() == pytest.approx(expected_penalty.item(), rel=1e-4)
    without_reference = with_defaults(Replay, lr=0.1, weight=0.5)
    with pytest.raises(ValueError, match="pretraining proxy"):
        without_reference.setup(task_of(network, target))


def test_replay_draws_again_for_each_seed_step_and_part_of_a_batch(network, target):
    # given
    reference = random_images(30, seed=4)
    pixels = normalised(reference.images)

    def penalty_of(seed, step, first_row):
        replay = set_up(with_defaults(Replay, lr=0.1, weight=2.0), network, target, reference, seed)
        replay.step = step
        return replay.penalty(np.array([first_row, 8]), None).item()

    # when
    drawn_rows = set()
    for seed, step, first_row in [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]:
        penalty = penalty_of(seed, step, first_row)
        # then
        draws = np.random.default_rng([seed, step, first_row, 1])
        rows = draws.choice(30, size=2, replace=False)
        cross_entropy = cross_entropy_by_hand(network(pixels[rows]), reference, rows)
        assert penalty == pytest.approx(2 * cross_entropy.item(), rel=1e-4)
        drawn_rows.add(tuple(rows))
    assert len(drawn_rows) == 4


def test_the_released_lwf_distils_class_logits_without_the_square(network, target, catalog):
    # given
    algorithm = with_defaults(
        LearningWithoutForgetting, **settings_of(catalog.methods["lwf_released"])
    )
    set_up(algorithm, network, target)
    rows = np.array([1, 4])
    student = noise(2, 1000)
    with torch.no_grad():
        teacher = network(algorithm.images[rows])
    # when
    penalty = algorithm.penalty(rows, student)
    # then
    expected_penalty = divergence_by_hand(
        masked(teacher, target.space), masked(student, target.space), temperature=2
    )
    assert penalty.item() == pytest.approx(expected_penalty, rel=1e-4)


def test_the_prompt_starts_from_noise_of_its_seed(network, target):
    # given
    def prompt(seed=0, **settings):
        algorithm = with_defaults(VisualPrompting, **{**PROMPT, "padding": 0.125, **settings})
        return set_up(algorithm, network, target, seed=seed).prompt

    # when
    prompt_of_seed_0 = prompt(seed=0, init_std=0.3)
    prompt_of_seed_1 = prompt(seed=1, init_std=0.3)
    prompt_without_noise = prompt(init_std=0.0)
    # then
    assert not torch.allclose(prompt_of_seed_0.top, prompt_of_seed_1.top)
    assert not any(strip.any() for strip in prompt_without_noise.parameters())
    generator = torch.Generator().manual_seed(1)
    expected_top = 0.3 * torch.randn(3, 8, 64, generator=generator)
    expected_bottom = 0.3 * torch.randn(3, 8, 64, generator=generator)
    expected_left = 0.3 * torch.randn(3, 48, 8, generator=generator)
    expected_right = 0.3 * torch.randn(3, 48, 8, generator=generator)
    assert torch.equal(prompt_of_seed_1.top, expected_top)
    assert torch.equal(prompt_of_seed_1.bottom, expected_bottom)
    assert torch.equal(prompt_of_seed_1.left, expected_left)
    assert torch.equal(prompt_of_seed_1.right, expected_right)
    assert prompt(padding=0.001).top.shape == (3, 1, 64)
    assert prompt(padding=0.24).top.shape == (3, 15, 64)
    assert prompt(padding=0.245).top.shape == (3, 16, 64)


def test_the_prompt_trains_by_the_gradient_through_the_network(network, target):
    """One step on all images, written out on a border of the input."""
    # given
    lr = 5.0
    algorithm = with_defaults(VisualPrompting, lr=lr, padding=0.125, init_std=0.0)
    one_step = replace(TRAINING, epochs=1, batch_size=10, warmup_fraction=0.0)
    # when
    model, history = trained(algorithm, network, target, one_step)
    stored = algorithm.changed_tensors(network.state_dict())
    # then
    border = torch.zeros(3, 64, 64, requires_grad=True)
    logits = network(normalised(target.images) + border)
    loss = cross_entropy_by_hand(logits, target, ALL_ROWS)
    (gradient,) = torch.autograd.grad(loss, border)
    expected_border = -lr * gradient
    between_top_and_bottom = expected_border[:, 8:-8]
    expected_strips = {
        "padding_prompt.top": expected_border[:, :8],
        "padding_prompt.bottom": expected_border[:, -8:],
        "padding_prompt.left": between_top_and_bottom[..., :8],
        "padding_prompt.right": between_top_and_bottom[..., -8:],
    }
    assert stored.keys() == expected_strips.keys()
    for name, expected_strip in expected_strips.items():
        torch.testing.assert_close(stored[name], expected_strip, rtol=1e-3, atol=1e-5)
    assert not names_of_changed(network, model)
    assert column(history, "loss") == pytest.approx([loss.item()], rel=1e-5)


def factors_of(model, layer):
    """LoRA's factors A (r, in) and B (out, r) of a layer of an adapted network."""
    parameters = dict(model.named_parameters())
    a = parameters[f"{layer}.lora_A.default.weight"].detach()
    b = parameters[f"{layer}.lora_B.default.weight"].detach()
    return a.flatten(1), b.flatten(1)


def update_of_fused_attention(a, b, rank):
    """The update of a weight of fused q, k and v: of this rank for q and v each, none for k."""
    a_of_query, a_of_value = a.split(rank)
    width = len(b) // 3
    b_of_query, _, b_of_value = b.split(width)
    update_of_query = b_of_query[:, :rank] @ a_of_query
    update_of_key = torch.zeros(width, width)
    update_of_value = b_of_value[:, rank:] @ a_of_value
    return torch.cat([update_of_query, update_of_key, update_of_value])


@pytest.mark.parametrize("make_network", [vit, resnet])
def test_lora_adds_alpha_over_r_times_the_product_of_its_factors(make_network, target):
    """Equation 3 of the paper; in a ViT an update of rank r for q and one for v, and none for k."""
    # given
    rank = 2
    alpha = 6.0
    network = make_network()
    start = network.state_dict()
    algorithm = with_defaults(
        LowRankAdaptation, **{**ADAPT, "rank": rank, "alpha": alpha, "lr": 0.1}
    )
    # when
    model, _ = trained(algorithm, network, target)
    updated_tensors = add_low_rank_updates(start, algorithm.changed_tensors(start))
    # then
    assert updated_tensors
    for name, tensor in updated_tensors.items():
        a, b = factors_of(model, name.removesuffix(".weight"))
        if "qkv" in name:
            update = update_of_fused_attention(a, b, rank)
        else:
            assert len(a) == rank
            update = b @ a
        assert update.any()
        expected_tensor = start[name] + alpha / rank * update.view(tensor.shape)
        torch.testing.assert_close(tensor, expected_tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make_network", [vit, resnet])
def test_lora_starts_as_the_network_and_trains_its_factors_alone(make_network, target):
    # given
    network = make_network()
    rows = np.arange(3)
    # when
    algorithm = set_up(with_defaults(LowRankAdaptation, **ADAPT), network, target)
    # then
    expected_logits = network(algorithm.images[rows])
    torch.testing.assert_close(algorithm.logits(rows), expected_logits, rtol=1e-5, atol=1e-5)
    trained_names = [name for name, _ in algorithm.trainable()]
    assert len(algorithm.layers) > 0
    assert len(trained_names) == 2 * len(algorithm.layers)
    assert all(".lora_" in name for name in trained_names)


def test_the_released_lora_trains_tokens_and_norms_outside_the_blocks(target, catalog):
    settings = settings_of(catalog.methods["lora_released"])
    algorithm = set_up(with_defaults(LowRankAdaptation, **settings), vit(), target)
    names = {name for name, _ in algorithm.trainable() if ".lora_" not in name}
    assert names == {"cls_token", "pos_embed", "norm.weight", "norm.bias"}


def clip_tower():
    """A network of a small image tower of open_clip, with 24 features."""
    tower = VisionTransformer(
        image_size=64, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24
    )
    return OpenClipClassifier(tower, 24)


def test_the_released_linear_probe_freezes_a_vits_patches_and_blocks(target, catalog):
    # given
    settings = settings_of(catalog.methods["linear_probe_released"])
    # when
    of_clip_tower = set_up(with_defaults(LinearProbingReleased, **settings), clip_tower(), target)
    of_vit = set_up(with_defaults(LinearProbingReleased, **settings), vit(), target)
    of_cnn = set_up(with_defaults(LinearProbingReleased, **settings), resnet(), target)
    # then
    assert {name for name, _ in of_clip_tower.trainable()} == {
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.ln_pre.weight",
        "visual.ln_pre.bias",
        "visual.ln_post.weight",
        "visual.ln_post.bias",
        "visual.proj",
        "head.weight",
        "head.bias",
    }
    assert {name for name, _ in of_vit.trainable()} == {
        "cls_token",
        "pos_embed",
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    }
    assert {name for name, _ in of_cnn.trainable()} == {"fc.weight", "fc.bias"}
    assert of_clip_tower.batch_norm == "train"
    assert of_vit.batch_norm == "train"
    assert of_cnn.batch_norm == "train"


class LayersOfAllKinds(nn.Module):
    """Layers under the names by which LoRA finds those to adapt.

    The head is a pointwise convolution.
    """

    def __init__(self):
        super().__init__()
        self.plain = nn.Conv2d(8, 4, 1)
        self.wide = nn.Conv2d(4, 4, 3)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.tall = nn.Conv2d(4, 4, (1, 3))
        squeeze_and_excitation = nn.ModuleDict({"reduce": nn.Conv2d(4, 2, 1)})
        mlp = nn.ModuleDict(
            {"fc1": nn.Linear(4, 8), "fc2": nn.Linear(8, 4), "fc3": nn.Linear(4, 4)}
        )
        self.block = nn.ModuleDict(
            {"se": squeeze_and_excitation, "other": nn.Linear(4, 4), "mlp": mlp}
        )
        self.fc1 = nn.Linear(4, 4)
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Conv2d(4, 1000, 1)

    def get_classifier(self):
        """The head, as of timm's networks."""
        return self.head


def network_with_attention(**layers):
    """Layers of all kinds, and an attention `attn` with these layers of 4 features each."""
    model = LayersOfAllKinds()
    model.attn = nn.ModuleDict(layers)
    return model


def test_lora_tells_pointwise_layers_and_fused_attention_from_others():
    # given
    model = network_with_attention(qkv=nn.Linear(4, 12))
    model_with_two_projections = network_with_attention(qkv=nn.Linear(4, 8))
    model_with_heads_first = network_with_attention(qkv=nn.Linear(4, 12))
    model_with_heads_first.attn.head_first = True
    # when
    fused_layers, single_layers = adapted_layers(model)
    # then
    assert fused_layers == ["attn.qkv"]
    assert single_layers == ["plain", "block.mlp.fc1", "block.mlp.fc2"]
    with pytest.raises(ValueError, match=r"'attn\.qkv'"):
        adapted_layers(model_with_two_projections)
    with pytest.raises(ValueError, match=r"'attn\.qkv'"):
        adapted_layers(model_with_heads_first)


def test_a_network_without_attention_and_pointwise_layers_is_refused_by_lora(target):
    # given
    head = nn.LazyLinear(1000)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), head)

    def get_classifier():
        return head

    model.get_classifier = get_classifier
    # then
    with pytest.raises(ValueError, match="neither attention nor pointwise"):
        with_defaults(LowRankAdaptation, **ADAPT).setup(task_of(model, target))


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_that_was_unfolded_computes_the_same(batch_first):
    # given
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    tokens = torch.randn(4, 5, 12)
    with torch.no_grad():
        attention.in_proj_bias.normal_()
        attention.out_proj.bias.normal_()
        expected_outputs, _ = attention(tokens, tokens, tokens, need_weights=False)
    model = nn.ModuleDict({"block": nn.ModuleDict({"attn": attention})})
    # when
    unfold_attention(model)
    # then
    unfolded = model.get_submodule("block.attn")
    with torch.no_grad():
        outputs, _ = unfolded(tokens, tokens, tokens)
    assert isinstance(unfolded, FusedAttention)
    torch.testing.assert_close(outputs, expected_outputs, rtol=1e-5, atol=1e-6)


def test_attention_that_was_unfolded_respects_a_mask():
    """A text tower's tokens see only those before them."""
    # given
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    tokens = torch.randn(4, 5, 12)
    later_tokens = torch.ones(5, 5, dtype=torch.bool).triu(1)
    causal_mask = torch.zeros(5, 5).masked_fill(later_tokens, float("-inf"))
    with torch.no_grad():
        expected, _ = attention(tokens, tokens, tokens, need_weights=False, attn_mask=causal_mask)
        # when
        unfolded = FusedAttention(attention)
        outputs, _ = unfolded(tokens, tokens, tokens, attn_mask=causal_mask)
    # then
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)


def test_separate_projections_of_query_and_value_are_adapted_and_that_of_the_key_is_not():
    # given
    model = network_with_attention(
        q_proj=nn.Linear(4, 4),
        k_proj=nn.Linear(4, 4),
        v_proj=nn.Linear(4, 4),
        out_proj=nn.Linear(4, 4),
    )
    # when
    fused_layers, single_layers = adapted_layers(model)
    # then
    assert fused_layers == []
    assert single_layers == ["attn.q_proj", "attn.v_proj"]


@pytest.fixture
def in_bf16(monkeypatch):
    """Networks compute in bf16, as they do in the context that this gives."""
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    return torch.autocast("cpu", torch.bfloat16)


def test_logits_beyond_the_range_of_fp16_stay_finite_on_the_host(network, target, monkeypatch):
    # given
    monkeypatch.setattr(_distil, "LARGEST_STORED", 0)
    network_with_large_logits = copy.deepcopy(network)
    with torch.no_grad():
        network_with_large_logits.fc.bias[:2] = torch.tensor([1e5, -1e5])
    # when
    algorithm = set_up(
        with_defaults(LearningWithoutForgetting, **DISTIL), network_with_large_logits, target
    )
    # then
    logits = algorithm.teacher_logits(np.arange(10))
    assert logits[:, :2].tolist() == [[65504, -65504]] * 10


def test_lwfs_teacher_computes_in_the_students_precision(network, target, in_bf16, where_stored):
    """So that a student that has not moved agrees with its teacher."""
    # given
    algorithm = set_up(with_defaults(LearningWithoutForgetting, **DISTIL), network, target)
    rows = np.arange(10)
    with torch.no_grad():
        student_in_single_precision = network(algorithm.images[rows])
        with in_bf16:
            student = network(algorithm.images[rows]).float()
    # when
    penalty = algorithm.penalty(rows, student)
    penalty_in_single_precision = algorithm.penalty(rows, student_in_single_precision)
    # then
    assert abs(penalty) < 0.1 * penalty_in_single_precision


def test_replay_and_the_probes_features_compute_in_the_precision_that_was_chosen(
    network, target, in_bf16
):
    # given
    rows = np.arange(10)
    replay = set_up(with_defaults(Replay, lr=0.1, weight=1.0), network, target, reference=target)
    probe = set_up(with_defaults(LinearProbing, lr=0.1), network, target)
    # when
    penalty = replay.penalty(rows, None)
    features = probe.features(rows).float()
    # then
    seed = 0
    step = 0
    first_row = 0
    draws = np.random.default_rng([seed, step, first_row, 1])
    replayed_rows = draws.choice(10, size=10, replace=False)
    with in_bf16:
        logits = network(replay.images[replayed_rows])
    cross_entropy = cross_entropy_by_hand(logits, target, replayed_rows)
    assert penalty.item() == pytest.approx(cross_entropy.item(), rel=1e-6)
    feature_map = network.forward_features(probe.images[ALL_ROWS])
    in_single_precision = network.forward_head(feature_map, pre_logits=True)
    largest_difference = (features - in_single_precision).abs().max()
    relative_difference = largest_difference / in_single_precision.abs().max()
    assert 1e-4 < relative_difference < 0.05


def test_training_computes_in_the_precision_that_was_chosen_with_losses_in_single(
    network, target, in_bf16
):
    # given
    algorithm = with_defaults(FullFineTuning, lr=0.01)
    one_step = replace(TRAINING, epochs=1, batch_size=10)
    # when
    _, history = trained(algorithm, network, target, one_step)
    # then
    seed = 0
    epoch = 0
    rows = np.random.default_rng([seed, epoch]).permutation(10)
    pixels = normalised(target.images)
    batch = pixels[rows].contiguous(memory_format=torch.channels_last)
    with in_bf16:
        logits = network(batch)
    expected_loss = cross_entropy_by_hand(logits, target, rows).item()
    loss_in_single_precision = cross_entropy_by_hand(network(pixels), target, ALL_ROWS).item()
    (loss,) = column(history, "loss")
    effect_of_precision = abs(expected_loss - loss_in_single_precision)
    assert abs(loss - expected_loss) < 0.1 * effect_of_precision


def test_selection_takes_the_best_and_of_equals_the_one_nearest_to_pretrained():
    # given
    accuracy_by_alpha = {0.0: 1, 0.5: 3, 1.0: 3}

    def accuracy(coefficients):
        return accuracy_by_alpha[coefficients["ft"]]

    # when
    coefficients = wise_ft_selected.select(["ft"], accuracy, steps=2)
    # then
    assert coefficients == {"pretrained": 0.5, "ft": 0.5}


def test_an_ingredient_that_changes_nothing_joins_a_greedy_soup_and_a_costly_one_does_not():
    """Even one that costs little does not."""

    # given
    accuracy_by_soup = {("a",): 0.5, ("b",): 0.5, ("a", "b"): 0.5}

    def accuracy_of_equals(coefficients):
        """0.4 of other soups: of those with the pretrained model, and of one of b and then a.

        For of equals the first of the entry is the first of the soup.
        """
        return accuracy_by_soup.get(tuple(coefficients), 0.4)

    def accuracy_that_falls(coefficients):
        return -len(coefficients)

    def accuracy_that_rises(coefficients):
        return len(coefficients)

    # when
    soup_of_equals = greedy_soup.select(["a", "b"], accuracy_of_equals, pretrained=True)
    soup_that_would_fall = greedy_soup.select(["a"], accuracy_that_falls, pretrained=True)
    soup_that_rises = greedy_soup.select(["a"], accuracy_that_rises, pretrained=True)
    # then
    assert soup_of_equals == {"a": 0.5, "b": 0.5}
    assert soup_that_would_fall == {"pretrained": 1.0}
    assert soup_that_rises == {"pretrained": 0.5, "a": 0.5}


def test_a_greedy_soup_is_recipe_1_of_the_paper():
    """Ingredients by accuracy, best first; one that makes the soup so far worse is left out.

    d would make a soup of b alone better, but not a soup of b and c.
    """
    # given
    accuracy_by_soup = {
        "a": 0.5,
        "b": 0.9,
        "c": 0.7,
        "d": 0.6,
        "pretrained": 0.95,
        "b c": 0.93,
        "b c d": 0.92,
        "a b c": 0.93,
    }

    def accuracy(coefficients):
        """Of a soup, whose coefficients are equal and add up to 1."""
        equal_coefficient = 1 / len(coefficients)
        assert list(coefficients.values()) == pytest.approx([equal_coefficient] * len(coefficients))
        return accuracy_by_soup[" ".join(sorted(coefficients))]

    # when
    coefficients = greedy_soup.select(["a", "b", "c", "d"], accuracy, pretrained=False)
    # then
    assert coefficients == {"b": 1 / 3, "c": 1 / 3, "a": 1 / 3}
