"""Each method against its equation written out, on a small network."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from rib.catalog import Catalog
from rib.classes import ClassSpace
from rib.finetune import DivergenceError, epoch_batches, learning_rates, train
from rib.io import UserError
from rib.methods import greedy_soup, load_mechanism, soup, wise_ft_selected
from rib.methods._base import Images, Task
from rib.methods.wise_ft import recipe
from rib.methods.wise_ft_curve import curve
from rib.models.checkpoint import average
from rib.models.class_logits import class_logits, class_members
from rib.models.inputs import Inputs
from rib.models.pretrained import build

CPU = torch.device("cpu")
TRAINING = {
    "epochs": 2,
    "batch_size": 4,
    "micro_batch_size": "all",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "warmup_steps": 196,
    "warmup_fraction": 0.1,
}
WHAT = {"model": "m", "target": "t", "method": "x"}
FOLDER = "workflow/lib/rib/methods"
COMMON = {"batch_norm": "frozen", "dropout": 0.0, "drop_path": 0.0}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=1000, zero_init_last=False).eval()


@pytest.fixture(scope="module")
def target():
    rng = np.random.default_rng(0)
    space = ClassSpace(("a", "b", "c"), ((1, 5), (7,), (9, 20, 30)), ("a", "b", "c"))
    images = rng.integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    return SimpleNamespace(images=images, labels=np.arange(10) % 3, space=space)


def method(name, pytestconfig, **settings):
    return load_mechanism(pytestconfig.rootpath / FOLDER / f"{name}.py", settings)


def task(model, target, reference=None, seed=0, batch_size=4):
    def images(part):
        inputs = Inputs(part.images, [0.5] * 3, [0.5] * 3, CPU)
        return Images(inputs, torch.from_numpy(part.labels), class_members(part.space, CPU))

    return Task(model, images(target), None if reference is None else images(reference), seed, batch_size)


def trained(mechanism, network, target, training=TRAINING, seed=0):
    model = copy.deepcopy(network)
    mechanism.begin(task(model, target, seed=seed))
    history, _ = train(mechanism, network.state_dict(), training, seed, CPU, WHAT)
    return model, history


def changed(network, model):
    before, after = network.state_dict(), model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_ft_moves_every_parameter_and_no_statistic(network, target, pytestconfig):
    model, history = trained(method("ft", pytestconfig, lr=0.01, **COMMON), network, target)
    assert changed(network, model) == {name for name, _ in network.named_parameters()}
    assert history[-1]["loss"] < history[0]["loss"]


def test_ft_with_trained_batch_norm_moves_the_statistics(network, target, pytestconfig):
    model, _ = trained(method("ft", pytestconfig, lr=0.01, **{**COMMON, "batch_norm": "train"}), network, target)
    assert any("running_mean" in name for name in changed(network, model))


def test_linear_probe_moves_the_head_only(network, target, pytestconfig):
    model, history = trained(method("linear_probe", pytestconfig, lr=0.1), network, target)
    assert changed(network, model) == {"fc.weight", "fc.bias"}
    assert history[-1]["loss"] < history[0]["loss"]


def test_linear_probe_on_stored_features_equals_training_through_the_network(network, target, pytestconfig):
    fast = method("linear_probe", pytestconfig, lr=0.1)
    slow = method("linear_probe", pytestconfig, lr=0.1)
    slow.logits = lambda rows: slow.model(slow.inputs[rows])
    (a, history_a), (b, history_b) = (trained(probe, network, target) for probe in (fast, slow))
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=1e-5, atol=1e-6)
    assert [row["accuracy"] for row in history_a] == [row["accuracy"] for row in history_b]


def test_lwf_adds_the_divergence_from_the_pretrained_logits(network, target, pytestconfig):
    mechanism = method("lwf", pytestconfig, lr=0.1, **COMMON, temperature=3.0, weight=0.7, distil="all")
    mechanism.begin(task(copy.deepcopy(network), target))
    rows = np.array([2, 0, 7])
    with torch.no_grad():
        teacher = network(mechanism.inputs[rows])
    student = (teacher + torch.randn(teacher.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    loss = mechanism.penalty(rows, student)
    p, q = (torch.softmax(logits.detach().double() / 3, dim=1) for logits in (teacher, student))
    assert loss.item() == pytest.approx(0.7 * 9 * (p * (p / q).log()).sum(dim=1).mean().item(), rel=1e-4)
    loss.backward()
    # d/dz of T^2 KL(p || softmax(z / T)) is T (q - p); the mean over the batch divides by its size.
    torch.testing.assert_close(student.grad.double(), 0.7 * 3 * (q - p) / len(rows), rtol=1e-3, atol=1e-6)
    assert mechanism.penalty(rows, teacher).item() == pytest.approx(0, abs=1e-5)


def test_the_history_tells_the_cross_entropy_from_the_penalty(network, target, pytestconfig):
    settings = {"lr": 0.01, **COMMON, "temperature": 2.0, "distil": "all"}
    _, alone = trained(method("lwf", pytestconfig, **settings, weight=0.0), network, target)
    _, both = trained(method("lwf", pytestconfig, **settings, weight=1.0), network, target)
    assert all(row["loss"] == row["cross_entropy"] for row in alone)
    assert both[-1]["loss"] > both[-1]["cross_entropy"] > 0


def test_lwf_with_weight_zero_is_ft(network, target, pytestconfig):
    settings = {"lr": 0.01, **COMMON}
    lwf = trained(method("lwf", pytestconfig, **settings, temperature=2.0, weight=0.0, distil="all"), network, target)
    ft = trained(method("ft", pytestconfig, **settings), network, target)
    assert not changed(lwf[0], ft[0])


def test_one_step_of_ft_is_the_gradient_of_the_masked_cross_entropy(network, target, pytestconfig):
    """Independent reference: indices picked with NumPy, cross-entropy and SGD by hand."""
    one = {**TRAINING, "epochs": 1, "batch_size": 10, "warmup_fraction": 0.0}
    model, history = trained(method("ft", pytestconfig, lr=0.01, **COMMON), network, target, one)
    reference = copy.deepcopy(network)
    order = epoch_batches(10, 10, 0, 0)[0]
    images = torch.from_numpy(target.images[order]).permute(0, 3, 1, 2).float() / 127.5 - 1
    logits = reference(images)
    scores = torch.stack([logits[:, list(row)].amax(dim=1) for row in target.space.indices], dim=1)
    labels = torch.from_numpy(target.labels[order])
    loss = -F.log_softmax(scores, dim=1)[torch.arange(10), labels].mean()
    loss.backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter -= 0.01 * parameter.grad
    assert history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(network, target, pytestconfig):
    models = []
    for seed in (0, 0, 1):
        models.append(trained(method("ft", pytestconfig, lr=0.01, **COMMON), network, target, seed=seed)[0])
    assert not changed(models[0], models[1]) and changed(models[0], models[2])


def test_a_loss_that_is_not_finite_stops_with_where_and_what_to_do(network, target, pytestconfig):
    mechanism = method("ft", pytestconfig, lr=1e12, **COMMON)
    message = r"model m, method x, target t: the loss at epoch \d, step \d is not finite .* 1e\+12"
    with pytest.raises(DivergenceError, match=message):
        trained(mechanism, network, target, {**TRAINING, "epochs": 4})


def test_wise_ft_weighs_pretrained_and_parent():
    assert recipe(["ft"], alpha=0.3) == {"pretrained": 0.7, "ft": 0.3}
    with pytest.raises(ValueError, match="alpha"):
        recipe(["ft"], alpha=1.5)


def test_the_learning_rate_warms_up_then_follows_a_cosine_to_zero():
    training = {**TRAINING, "epochs": 10, "batch_size": 10}
    rates = list(learning_rates(0.1, 95, training))
    assert len(rates) == 100
    assert rates[:10] == pytest.approx(np.linspace(0.01, 0.1, 10))
    assert rates[10] == 0.1 and rates[55] == pytest.approx(0.05) and 0 < rates[-1] < 1e-4
    assert list(learning_rates(0.1, 95, {**training, "warmup_steps": 2}))[:3] == pytest.approx([0.05, 0.1, 0.1])


def test_batches_visit_each_image_once_in_an_order_of_seed_and_epoch():
    for epoch in (0, 1):
        batches = epoch_batches(10, 4, 0, epoch)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(np.concatenate(batches)) == list(range(10))
    orders = {tuple(np.concatenate(epoch_batches(10, 4, *key))) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len(orders) == 3


def test_an_unknown_architecture_is_named():
    with pytest.raises(UserError, match=r"has no architecture 'resnet_of_mine'; correct it in models\.yaml"):
        build("timm", "resnet_of_mine")


def test_settings_out_of_range_are_one_sentence(pytestconfig):
    with pytest.raises(
        UserError, match=r"ft\.py: batch_norm is 'frosen'; give 'frozen' or 'train'; correct the setting"
    ):
        method("ft", pytestconfig, lr=0.1, **{**COMMON, "batch_norm": "frosen"})


def step_of(mechanism, network, target, rows):
    """A mechanism that has begun, on a network moved away from its start."""
    model = copy.deepcopy(network)
    mechanism.begin(task(model, target))
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, start, mechanism.penalty(rows, model(mechanism.inputs[rows]))


def test_l2_sp_is_half_the_weighted_squared_distance(network, target, pytestconfig):
    mechanism = method("l2_sp", pytestconfig, lr=0.1, **COMMON, weight=0.3)
    model, start, penalty = step_of(mechanism, network, target, np.arange(3))
    by_hand = 0.15 * sum(((p - start[name]) ** 2).sum().item() for name, p in model.named_parameters())
    assert penalty.item() == pytest.approx(by_hand, rel=1e-5)
    penalty.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 0.3 * (parameter.detach() - start[name]))


def test_the_released_ewc_is_the_squared_distance_without_one_half(network, target, pytestconfig):
    settings = Catalog([pytestconfig.rootpath / "workflow/catalog"]).methods["ewc_released"].settings
    mechanism = method("l2_sp", pytestconfig, **settings)
    model, start, penalty = step_of(mechanism, network, target, np.arange(3))
    assert penalty.item() == pytest.approx(
        sum(((p - start[name]) ** 2).sum().item() for name, p in model.named_parameters()), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_ewcs_fisher_is_the_mean_of_squared_gradients_of_single_images(network, target, pytestconfig, kind):
    """Independent reference: torch.func's per-sample gradients, log-probabilities written out."""
    mechanism = method("ewc", pytestconfig, lr=0.1, **COMMON, weight=2.0, fisher=kind, fisher_images=10)
    model, start, penalty = step_of(mechanism, network, target, np.arange(3))
    images = torch.from_numpy(target.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        probabilities = network(images).softmax(dim=1)
    if kind == "sampled":
        generator = torch.Generator().manual_seed(0)
        labels = torch.cat([torch.multinomial(row, 1, generator=generator) for row in probabilities])
    else:
        labels = torch.from_numpy(target.labels)

    def log_probability(parameters, image, label):
        logits = torch.func.functional_call(network, (parameters, dict(network.named_buffers())), (image[None],))[0]
        if kind == "empirical":
            logits = torch.stack([logits[list(row)].max() for row in target.space.indices])
        return torch.log(logits.softmax(dim=0))[label]

    per_image = [torch.func.grad(log_probability)(start, *pair) for pair in zip(images, labels, strict=True)]
    fisher = {name: torch.stack([one[name] ** 2 for one in per_image]).mean(dim=0) for name in start}
    for found, (name, expected) in zip(mechanism.information, fisher.items(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7, msg=name)
    by_hand = sum((fisher[name] * (p - start[name]) ** 2).sum().item() for name, p in model.named_parameters())
    assert penalty.item() == pytest.approx(by_hand, rel=1e-3)


def test_ewc_looks_at_the_reference_dataset_where_there_is_one(network, target, pytestconfig):
    reference = SimpleNamespace(images=target.images[::-1].copy()[:4], labels=target.labels[:4], space=target.space)
    found = []
    for other in (None, reference):
        mechanism = method("ewc", pytestconfig, lr=0.1, **COMMON, weight=1.0, fisher="empirical", fisher_images=10)
        mechanism.begin(task(copy.deepcopy(network), target, other))
        found.append(mechanism.information)
    assert not torch.equal(found[0][0], found[1][0])


def test_replay_adds_the_cross_entropy_of_the_reference(network, target, pytestconfig):
    reference = SimpleNamespace(images=target.images[:3], labels=target.labels[:3], space=target.space)
    mechanism = method("replay", pytestconfig, lr=0.1, **COMMON, weight=0.5)
    mechanism.begin(task(copy.deepcopy(network), target, reference))
    rows = np.arange(5)
    images = torch.from_numpy(reference.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    scores = class_logits(network(images), class_members(target.space, CPU))
    expected = 0.5 * F.cross_entropy(scores, torch.from_numpy(reference.labels))
    assert mechanism.penalty(rows, None).item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ValueError, match="reference dataset"):
        method("replay", pytestconfig, lr=0.1, **COMMON, weight=0.5).begin(task(network, target))


def test_the_released_lwf_distils_class_logits_without_the_square(network, target, pytestconfig):
    settings = Catalog([pytestconfig.rootpath / "workflow/catalog"]).methods["lwf_released"].settings
    mechanism = method("lwf", pytestconfig, **settings)
    mechanism.begin(task(copy.deepcopy(network), target))
    rows = np.array([1, 4])
    student = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        teacher = network(mechanism.inputs[rows])
    p, q = (class_logits(x, class_members(target.space, CPU)).div(2).softmax(dim=1) for x in (teacher, student))
    expected = (p * (p.log() - q.log())).sum(dim=1).mean().item()
    assert mechanism.penalty(rows, student).item() == pytest.approx(expected, rel=1e-4)


def test_the_prompt_leaves_inner_pixels_untouched(network, target, pytestconfig):
    mechanism = method("visual_prompt", pytestconfig, lr=1.0, frame=0.125, init_std=1.0)
    mechanism.begin(task(copy.deepcopy(network), target))
    images = mechanism.inputs[np.arange(3)]
    framed = mechanism.frame(images)
    assert torch.equal(framed[:, :, 8:-8, 8:-8], images[:, :, 8:-8, 8:-8])
    border = torch.ones(64, 64, dtype=bool)
    border[8:-8, 8:-8] = False
    assert (framed != images)[:, :, border].all()
    assert sum(strip.numel() for strip in mechanism.frame.parameters()) == 3 * border.sum()


def test_wise_ft_ends_are_its_parents_and_a_soup_of_equals_is_that_model():
    generator = torch.Generator().manual_seed(0)
    start, tuned = ({"w": torch.randn(5, generator=generator)} for _ in range(2))
    states = {"pretrained": {}, "ft": tuned, "twin": tuned}

    def mix(weights):
        return average(start, [(weight, states[name]) for name, weight in weights.items()]).get("w", start["w"])

    assert torch.equal(mix(recipe(["ft"], alpha=0)), start["w"]) and torch.equal(
        mix(recipe(["ft"], alpha=1)), tuned["w"]
    )
    points = curve(["ft"], steps=10)
    assert list(points) == pytest.approx(np.linspace(0, 1, 11)) and points[1.0]["ft"] == 1
    assert torch.equal(mix({"ft": 0.5, "twin": 0.5}), tuned["w"])
    torch.testing.assert_close(mix(soup.recipe(["ft", "twin"])), (start["w"] + 2 * tuned["w"]) / 3)


def test_selection_takes_the_best_and_of_equals_the_one_nearest_to_pretrained():
    scores = {0.0: 1, 0.5: 3, 1.0: 3}
    chosen = wise_ft_selected.select(["ft"], lambda weights: scores[weights["ft"]], steps=2)
    assert chosen == {"pretrained": 0.5, "ft": 0.5}


def test_a_greedy_soup_adds_the_best_first_and_leaves_out_what_hurts():
    value = {"pretrained": 1.0, "a": 3.0, "b": 2.0, "c": -9.0}
    tried = []

    def score(weights):
        tried.append(tuple(weights))
        if len(weights) == 1:
            return value[next(iter(weights))]
        return 4.0 if set(weights) <= {"a", "b", "pretrained"} else 0.0

    assert greedy_soup.select(["c", "b", "a"], score) == {"a": 1 / 3, "b": 1 / 3, "pretrained": 1 / 3}
    assert ("a", "b") in tried
