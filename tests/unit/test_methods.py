"""Each method against its equation written out, on a small network."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from rib.classes import ClassSpace
from rib.finetune import _train, epoch_batches, learning_rates
from rib.io import UserError
from rib.methods import load_mechanism
from rib.methods.wise_ft import recipe
from rib.models.inputs import Inputs
from rib.models.pretrained import build

CPU = torch.device("cpu")
TRAINING = {
    "epochs": 2,
    "batch_size": 4,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "warmup_steps": 196,
    "warmup_fraction": 0.1,
}
WHAT = {"model": "m", "target": "t", "method": "x"}
FOLDER = "workflow/lib/rib/methods"


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


def trained(mechanism, network, target, training=TRAINING):
    model = copy.deepcopy(network)
    mechanism.begin(model, Inputs(target.images, [0.5] * 3, [0.5] * 3, CPU))
    history = _train(mechanism, target, training, 0, CPU, WHAT)
    return model, history


def changed(network, model):
    before, after = network.state_dict(), model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_ft_moves_every_parameter_and_no_statistic(network, target, pytestconfig):
    model, history = trained(method("ft", pytestconfig, lr=0.01, batch_norm="frozen"), network, target)
    assert changed(network, model) == {name for name, _ in network.named_parameters()}
    assert history[-1]["loss"] < history[0]["loss"]


def test_ft_with_trained_batch_norm_moves_the_statistics(network, target, pytestconfig):
    model, _ = trained(method("ft", pytestconfig, lr=0.01, batch_norm="train"), network, target)
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
    mechanism = method("lwf", pytestconfig, lr=0.1, batch_norm="frozen", temperature=3.0, weight=0.7)
    mechanism.begin(copy.deepcopy(network), Inputs(target.images, [0.5] * 3, [0.5] * 3, CPU))
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
    settings = {"lr": 0.01, "batch_norm": "frozen", "temperature": 2.0}
    _, alone = trained(method("lwf", pytestconfig, **settings, weight=0.0), network, target)
    _, both = trained(method("lwf", pytestconfig, **settings, weight=1.0), network, target)
    assert all(row["loss"] == row["cross_entropy"] for row in alone)
    assert both[-1]["loss"] > both[-1]["cross_entropy"] > 0


def test_lwf_with_weight_zero_is_ft(network, target, pytestconfig):
    settings = {"lr": 0.01, "batch_norm": "frozen"}
    lwf = trained(method("lwf", pytestconfig, **settings, temperature=2.0, weight=0.0), network, target)
    ft = trained(method("ft", pytestconfig, **settings), network, target)
    assert not changed(lwf[0], ft[0])


def test_one_step_of_ft_is_the_gradient_of_the_masked_cross_entropy(network, target, pytestconfig):
    """Independent reference: indices picked with NumPy, cross-entropy and SGD by hand."""
    one = {**TRAINING, "epochs": 1, "batch_size": 10, "warmup_fraction": 0.0}
    model, history = trained(method("ft", pytestconfig, lr=0.01, batch_norm="frozen"), network, target, one)
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
        model = copy.deepcopy(network)
        mechanism = method("ft", pytestconfig, lr=0.01, batch_norm="frozen")
        mechanism.begin(model, Inputs(target.images, [0.5] * 3, [0.5] * 3, CPU))
        _train(mechanism, target, TRAINING, seed, CPU, WHAT)
        models.append(model)
    assert not changed(models[0], models[1]) and changed(models[0], models[2])


def test_a_loss_that_is_not_finite_stops_with_where_and_what_to_do(network, target, pytestconfig):
    mechanism = method("ft", pytestconfig, lr=1e12, batch_norm="frozen")
    message = r"model m, method x, target t: the loss at epoch \d, step \d is not finite .* 1e\+12; lower lr"
    with pytest.raises(UserError, match=message):
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
        method("ft", pytestconfig, lr=0.1, batch_norm="frosen")
