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
from rib.config.catalog import Catalog
from rib.config.settings import LIBRARY
from rib.methods import greedy_soup, load_algorithm, lwf, soup, wise_ft_selected
from rib.methods.digrap import DirectionalGradientProjection
from rib.methods.ewc import ElasticWeightConsolidation
from rib.methods.ft import FullFineTuning
from rib.methods.ftp import FastTrainableProjection
from rib.methods.l2_sp import L2StartingPoint
from rib.methods.linear_probe import LinearProbing
from rib.methods.linear_probe_released import LinearProbingReleased
from rib.methods.lora import (
    FusedAttention,
    LowRankAdaptation,
    _train_only_q_and_v,
    adapted_layers,
    unfold_attention,
)
from rib.methods.lwf import LearningWithoutForgetting
from rib.methods.replay import Replay
from rib.methods.spd import SelectiveProjectionDecay
from rib.methods.visual_prompt import VisualPrompting
from rib.methods.wise_ft import recipe
from rib.methods.wise_ft_curve import curve
from rib.models import device as devices
from rib.models.checkpoint import add_low_rank_updates
from rib.models.class_logits import class_logits, class_members
from rib.models.network import OpenClipClassifier, build
from tiny.changed import replace
from tiny.training import (
    CPU,
    TRAINING,
    masked,
    normalised,
    random_images,
    resnet,
    settings_of,
    task_of,
    trained,
)


@pytest.fixture(scope="module")
def catalog(pytestconfig):
    return Catalog([pytestconfig.rootpath / "workflow/catalog"])


def changed(network, model):
    before, after = network.state_dict(), model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_linear_probe_on_stored_features_equals_training_through_the_network(network, target):
    fast = LinearProbing(lr=0.1)
    slow = LinearProbing(lr=0.1)
    slow.logits = lambda rows: slow.model(slow.inputs[rows])
    (a, history_a), (b, history_b) = (trained(probe, network, target) for probe in (fast, slow))
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=1e-5, atol=1e-6)
    assert [row["accuracy"] for row in history_a] == [row["accuracy"] for row in history_b]


def test_lwf_adds_the_divergence_from_the_pretrained_logits(network, target):
    algorithm = LearningWithoutForgetting(lr=0.1, temperature=3.0, weight=0.7, distil="all")
    algorithm.setup(task_of(copy.deepcopy(network), target))
    rows = np.array([2, 0, 7])
    with torch.no_grad():
        teacher = network(algorithm.inputs[rows])
    student = (
        teacher + torch.randn(teacher.shape, generator=torch.Generator().manual_seed(1))
    ).requires_grad_()
    loss = algorithm.penalty(rows, student)
    p, q = (torch.softmax(logits.detach().double() / 3, dim=1) for logits in (teacher, student))
    assert loss.item() == pytest.approx(
        0.7 * 9 * (p * (p / q).log()).sum(dim=1).mean().item(), rel=1e-4
    )
    loss.backward()
    # d/dz of T^2 KL(p || softmax(z / T)) is T (q - p); the mean over the batch divides by its size.
    torch.testing.assert_close(
        student.grad.double(), 0.7 * 3 * (q - p) / len(rows), rtol=1e-3, atol=1e-6
    )
    assert algorithm.penalty(rows, teacher).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_lwf_is_taught_by_the_pretrained_network_where_its_logits_are_too_many_to_store(
    network, target, monkeypatch, batch_norm
):
    """The student moves, and its BatchNorm with it; the teacher stays as it was."""
    monkeypatch.setattr(lwf, "MOST_STORED", 9)  # of 10 images
    algorithm = LearningWithoutForgetting(**{**DISTIL, "batch_norm": batch_norm, "lr": 0.02})
    model, history = trained(algorithm, network, target)
    assert changed(network, model) and history[-1]["loss"] > history[-1]["cross_entropy"]
    rows = np.array([3, 9, 4])
    student = torch.randn(3, 1000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        p, q = (
            torch.softmax(x / 2, dim=1) for x in (network(normalised(target.images[rows])), student)
        )
    expected = 4 * (p * (p / q).log()).sum(dim=1).mean().item()
    assert algorithm.penalty(rows, student).item() == pytest.approx(expected, rel=1e-4)


def test_stored_logits_teach_as_those_computed_in_each_step(network, target, monkeypatch, progress):
    settings = {**DISTIL, "lr": 0.02}
    monkeypatch.setattr(lwf, "MOST_STORED", 9)
    computed, other = trained(LearningWithoutForgetting(**settings), network, target)
    assert "teacher logits" not in {what for what, *_ in progress()}, "more than may be stored"
    monkeypatch.setattr(lwf, "MOST_STORED", 10)
    stored, history = trained(LearningWithoutForgetting(**settings), network, target)
    assert ("teacher logits", 1, 1, "batch") in progress()
    torch.testing.assert_close(stored.state_dict(), computed.state_dict(), rtol=1e-4, atol=1e-5)
    assert [row["loss"] for row in history] == pytest.approx(
        [row["loss"] for row in other], rel=1e-5
    )


def test_the_history_tells_the_cross_entropy_from_the_penalty_and_without_a_weight_lwf_is_ft(
    network, target
):
    settings = {"lr": 0.01, "temperature": 2.0, "distil": "all"}
    model, alone = trained(LearningWithoutForgetting(**settings, weight=0.0), network, target)
    _, both = trained(LearningWithoutForgetting(**settings, weight=1.0), network, target)
    assert not changed(model, trained(FullFineTuning(lr=0.01), network, target)[0])
    assert all(row["loss"] == row["cross_entropy"] for row in alone)
    assert both[-1]["loss"] > both[-1]["cross_entropy"] > 0


def test_wise_ft_weighs_pretrained_and_parent():
    assert recipe(["ft"], alpha=0.3) == {"pretrained": 0.7, "ft": 0.3}
    for alpha in (0, 1):
        assert recipe(["ft"], alpha=alpha) == {"pretrained": 1 - alpha, "ft": alpha}
    for parents in ([], ["ft", "lwf"]):
        with pytest.raises(ValueError, match=f"names {len(parents)}"):
            recipe(parents, alpha=0.5)


def test_a_curve_goes_from_pretrained_to_fine_tuned_in_equal_steps():
    assert curve(["ft"], steps=1) == {
        0.0: {"pretrained": 1, "ft": 0},
        1.0: {"pretrained": 0, "ft": 1},
    }
    assert curve(["ft"], steps=4) == {
        i / 4: {"pretrained": 1 - i / 4, "ft": i / 4} for i in range(5)
    }


def test_an_unknown_architecture_and_a_setting_out_of_range_are_named():
    with pytest.raises(UserError, match="'resnet_of_mine'"):
        build("timm", "resnet_of_mine")
    with pytest.raises(UserError, match=r"ft\.py: batch_norm is 'frosen'"):
        load_algorithm(LIBRARY / "methods/ft.py", {"lr": 0.1, "batch_norm": "frosen"})


DISTIL = {"lr": 0.1, "temperature": 2.0, "weight": 1.0, "distil": "all"}
FISHER = {"lr": 0.1, "weight": 1.0, "fisher": "sampled", "fisher_images": 1}
ADAPT = {"lr": 0.1, "rank": 1, "alpha": 1.0, "also": "none"}
PROMPT = {"lr": 0.1, "padding": 0.1, "init_std": 0.0}
WEIGHED = {"lr": 0.1, "weight": 0.0}
PROJECT = {"lr": 0.1, "rate": 0.1}
ANNEALED = {**PROJECT, "annealing": 0.5}


@pytest.mark.parametrize(
    ("algorithm", "settings", "fit", "unfit"),
    [
        (FullFineTuning, {"lr": 0.1}, {"lr": [1e-9, 2.0]}, {"lr": [0, -1]}),
        (FullFineTuning, {"lr": 0.1}, {"dropout": [0.0, 0.99]}, {"dropout": [-0.01, 1.0]}),
        (FullFineTuning, {"lr": 0.1}, {"drop_path": [0.0, 0.99]}, {"drop_path": [-0.01, 1.0]}),
        (
            FullFineTuning,
            {"lr": 0.1},
            {"batch_norm": ["frozen", "train"]},
            {"batch_norm": ["", "eval"]},
        ),
        (LinearProbingReleased, {"lr": 0.1}, {"batch_norm": ["train"]}, {"batch_norm": ["eval"]}),
        (LinearProbing, {"lr": 0.1}, {"lr": [1e-9]}, {"lr": [0]}),
        (L2StartingPoint, WEIGHED, {"weight": [0, 1e-9]}, {"weight": [-1e-9]}),
        (Replay, WEIGHED, {"weight": [0, 1e-9]}, {"weight": [-1e-9]}),
        (SelectiveProjectionDecay, WEIGHED, {"weight": [0, 2.0]}, {"weight": [-1e-9]}),
        (DirectionalGradientProjection, PROJECT, {"rate": [0, 1.0]}, {"rate": [-1e-9]}),
        (FastTrainableProjection, ANNEALED, {"rate": [0, 1.0]}, {"rate": [-1e-9]}),
        (FastTrainableProjection, ANNEALED, {"annealing": [0, 1]}, {"annealing": [-0.01, 1.01]}),
        (LearningWithoutForgetting, DISTIL, {"temperature": [1e-9]}, {"temperature": [0, -1]}),
        (
            LearningWithoutForgetting,
            DISTIL,
            {"weight": [0, 0.5], "distil": ["all", "class"]},
            {"weight": [-1e-9]},
        ),
        (LearningWithoutForgetting, DISTIL, {}, {"distil": ["", "classes"]}),
        (
            ElasticWeightConsolidation,
            FISHER,
            {"weight": [0], "fisher_images": [1]},
            {"weight": [-1e-9]},
        ),
        (
            ElasticWeightConsolidation,
            FISHER,
            {"fisher": ["sampled", "empirical"]},
            {"fisher": ["", "all"]},
        ),
        (ElasticWeightConsolidation, FISHER, {}, {"fisher_images": [0]}),
        (LowRankAdaptation, ADAPT, {"rank": [1], "alpha": [1e-9]}, {"rank": [0], "alpha": [0, -1]}),
        (LowRankAdaptation, ADAPT, {"also": ["none", "tokens_and_norms"]}, {"also": ["", "all"]}),
        (
            VisualPrompting,
            PROMPT,
            {"padding": [1e-9, 0.49], "init_std": [0]},
            {"padding": [0, 0.5, 0.6]},
        ),
        (VisualPrompting, PROMPT, {"lr": [1e-9]}, {"init_std": [-1e-9], "lr": [0]}),
    ],
)
def test_settings_are_taken_to_the_bounds_of_their_range_and_refused_beyond(
    algorithm, settings, fit, unfit
):
    for name, values in fit.items():
        for value in values:
            assert getattr(algorithm(**{**settings, name: value}), name) == value
    for name, values in unfit.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name}.*set"):
                algorithm(**{**settings, name: value})


def module_with(tmp_path, *classes):
    lines = ["from rib.methods import algorithm", "from rib.methods.base import FineTuning"]
    lines += [f"@algorithm\nclass {name}(FineTuning):\n    pass" for name in classes]
    (tmp_path / "mine.py").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine.py"


def test_an_algorithm_is_the_one_marked_class_of_its_module(tmp_path):
    for _ in range(2):  # a module is read again, so that its class is marked twice
        found = load_algorithm(module_with(tmp_path, "Mine"), {"lr": 0.5})
        assert type(found).__name__ == "Mine" and found.lr == 0.5
    with pytest.raises(UserError, match=r"mine\.py.*no class"):
        load_algorithm(module_with(tmp_path), {})
    with pytest.raises(UserError, match="First, Second"):
        load_algorithm(module_with(tmp_path, "First", "Second"), {})


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_network_trains_with_its_batch_norm_frozen_or_not(network, target, batch_norm):
    model = nn.Sequential(copy.deepcopy(network), nn.Dropout(0.5), nn.BatchNorm1d(1000)).eval()
    algorithm = FullFineTuning(lr=0.01, batch_norm=batch_norm)
    algorithm.setup(task_of(model, target))
    algorithm.train_mode()
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    for module in model.modules():
        assert module.training == (batch_norm == "train" or not isinstance(module, norms)), module


@pytest.mark.parametrize("algorithm", [LinearProbing(lr=0.1), VisualPrompting(**PROMPT)])
def test_a_frozen_network_stays_in_evaluation_mode(network, target, algorithm):
    algorithm.setup(task_of(copy.deepcopy(network), target))
    algorithm.model.train()
    algorithm.train_mode()
    assert not any(module.training for module in algorithm.model.modules())
    assert (algorithm.batch_norm, algorithm.dropout, algorithm.drop_path) == ("frozen", 0.0, 0.0)


def step_of(algorithm, network, target, rows, seed=0):
    """An algorithm that was set up, on a network that moved away from its start."""
    model = copy.deepcopy(network)
    algorithm.setup(task_of(model, target, seed=seed))
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, start, algorithm.penalty(rows, model(algorithm.inputs[rows]))


@pytest.mark.parametrize(("released", "factor"), [(False, 0.15), (True, 1.0)])
def test_l2_sp_is_half_the_weighted_squared_distance_and_the_released_ewc_all_of_it(
    network, target, catalog, released, factor
):
    settings = (
        settings_of(catalog.methods["ewc_released"]) if released else {"lr": 0.1, "weight": 0.3}
    )
    model, start, penalty = step_of(L2StartingPoint(**settings), network, target, np.arange(3))
    by_hand = factor * sum(
        ((p - start[name]) ** 2).sum().item() for name, p in model.named_parameters()
    )
    assert penalty.item() == pytest.approx(by_hand, rel=1e-5)
    penalty.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * factor * (parameter.detach() - start[name]))


@pytest.mark.parametrize(
    ("kind", "most", "rows"),
    [
        ("sampled", 10, range(10)),
        ("empirical", 99, range(10)),
        ("sampled", 4, [0, 3, 6, 9]),
        ("empirical", 3, [0, 4, 9]),
        ("empirical", 1, [0]),
    ],
)
def test_ewcs_fisher_is_the_mean_of_squared_gradients_of_single_images(
    network, target, kind, most, rows, progress
):
    """Independent reference: torch.func's per-sample gradients, log-probabilities written out."""
    algorithm = ElasticWeightConsolidation(lr=0.1, weight=3.0, fisher=kind, fisher_images=most)
    model, start, penalty = step_of(algorithm, network, target, np.arange(3), seed=7)
    assert progress() == [("Fisher information", len(rows), len(rows), "image")]
    images = normalised(target.images)[list(rows)]
    with torch.no_grad():
        probabilities = network(images).softmax(dim=1)
    if kind == "sampled":
        generator = torch.Generator().manual_seed(7)
        labels = torch.cat(
            [torch.multinomial(row, 1, generator=generator) for row in probabilities]
        )
    else:
        labels = torch.from_numpy(target.labels)[list(rows)]

    def log_probability(parameters, image, label):
        logits = torch.func.functional_call(
            network, (parameters, dict(network.named_buffers())), (image[None],)
        )[0]
        if kind == "empirical":
            logits = torch.stack([logits[list(row)].max() for row in target.space.indices])
        return torch.log(logits.softmax(dim=0))[label]

    per_image = [
        torch.func.grad(log_probability)(start, *pair) for pair in zip(images, labels, strict=True)
    ]
    fisher = {
        name: torch.stack([one[name] ** 2 for one in per_image]).mean(dim=0) for name in start
    }
    for found, (name, expected) in zip(algorithm.importance, fisher.items(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7, msg=name)
    by_hand = 1.5 * sum(
        (fisher[name] * (p - start[name]) ** 2).sum().item() for name, p in model.named_parameters()
    )
    assert penalty.item() == pytest.approx(by_hand, rel=1e-3)


def test_ewcs_fisher_is_of_the_reference_dataset_where_there_is_one(network, target):
    reference = SimpleNamespace(
        images=target.images[::-1].copy()[:4], labels=target.labels[:4], space=target.space
    )
    found = []
    for data in ((target, None), (target, reference), (reference, None)):
        algorithm = ElasticWeightConsolidation(
            lr=0.1, weight=1.0, fisher="empirical", fisher_images=10
        )
        algorithm.setup(task_of(copy.deepcopy(network), *data))
        found.append(algorithm.importance)
    assert not torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], found[2], strict=True))


def test_replay_adds_the_cross_entropy_of_the_reference(network, target):
    reference = SimpleNamespace(
        images=target.images[:3], labels=target.labels[:3], space=target.space
    )
    algorithm = Replay(lr=0.1, weight=0.5)
    algorithm.setup(task_of(copy.deepcopy(network), target, reference))
    rows = np.arange(5)
    images = torch.from_numpy(reference.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    scores = class_logits(network(images), class_members(target.space, CPU))
    expected = 0.5 * F.cross_entropy(scores, torch.from_numpy(reference.labels))
    assert algorithm.penalty(rows, None).item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ValueError, match="pretraining proxy"):
        Replay(lr=0.1, weight=0.5).setup(task_of(network, target))


def test_replay_draws_again_for_each_seed_step_and_part_of_a_batch(network, target):
    reference, pixels = random_images(30, seed=4), normalised(random_images(30, seed=4).images)

    def drawn(seed, step, first):
        algorithm = Replay(lr=0.1, weight=2.0)
        algorithm.setup(task_of(copy.deepcopy(network), target, reference, seed))
        algorithm.step = step
        rows = np.array([first, 8])
        chosen = np.random.default_rng([seed, step, first, 1]).choice(30, size=2, replace=False)
        error = F.cross_entropy(
            masked(network(pixels[chosen]), target.space), torch.from_numpy(chosen % 3)
        )
        assert algorithm.penalty(rows, None).item() == pytest.approx(2 * error.item(), rel=1e-4)
        return tuple(chosen)

    assert len({drawn(*key) for key in [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]}) == 4


def test_the_released_lwf_distils_class_logits_without_the_square(network, target, catalog):
    algorithm = LearningWithoutForgetting(**settings_of(catalog.methods["lwf_released"]))
    algorithm.setup(task_of(copy.deepcopy(network), target))
    rows = np.array([1, 4])
    student = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        teacher = network(algorithm.inputs[rows])
    p, q = (
        class_logits(x, class_members(target.space, CPU)).div(2).softmax(dim=1)
        for x in (teacher, student)
    )
    expected = (p * (p.log() - q.log())).sum(dim=1).mean().item()
    assert algorithm.penalty(rows, student).item() == pytest.approx(expected, rel=1e-4)


def test_the_prompt_starts_from_noise_of_its_seed(network, target):
    def started(seed=0, **settings):
        algorithm = VisualPrompting(**{**PROMPT, "padding": 0.125, **settings})
        algorithm.setup(task_of(copy.deepcopy(network), target, seed=seed))
        return algorithm

    noise = torch.cat(
        [strip.flatten() for strip in started(init_std=0.3).prompt.parameters()]
    ).detach()
    again, other = (started(seed, init_std=0.3).prompt.top for seed in (0, 1))
    assert torch.equal(again.flatten(), noise[: again.numel()]) and not torch.allclose(again, other)
    assert abs(noise.mean()) < 0.02 and noise.std() == pytest.approx(0.3, rel=0.05)
    assert not any(strip.any() for strip in started(init_std=0.0).prompt.parameters())
    generator = torch.Generator().manual_seed(1)
    wanted = [
        0.3 * torch.randn(shape, generator=generator)
        for shape in [(3, 8, 64)] * 2 + [(3, 48, 8)] * 2
    ]
    for strip, values in zip(started(1, init_std=0.3).prompt.parameters(), wanted, strict=True):
        assert torch.equal(strip, values)
    for padding, width in ((0.001, 1), (0.24, 15), (0.245, 16)):
        assert started(padding=padding).prompt.top.shape == (3, width, 64)


def test_the_prompt_trains_by_the_gradient_through_the_network(network, target):
    """One step on all images, written out on a border of the input."""
    algorithm = VisualPrompting(lr=5.0, padding=0.125, init_std=0.0)
    training = replace(TRAINING, epochs=1, batch_size=10, warmup_fraction=0.0)
    model, history = trained(algorithm, network, target, training)
    border = torch.zeros(3, 64, 64, requires_grad=True)
    scores = masked(network(normalised(target.images) + border), target.space)
    loss = F.cross_entropy(scores, torch.from_numpy(target.labels))
    (gradient,) = torch.autograd.grad(loss, border)
    wanted = -5.0 * gradient
    stored = algorithm.state_delta(network.state_dict())
    inner = wanted[:, 8:-8]
    strips = {
        "top": wanted[:, :8],
        "bottom": wanted[:, -8:],
        "left": inner[..., :8],
        "right": inner[..., -8:],
    }
    assert stored.keys() == {f"padding_prompt.{name}" for name in strips} and not changed(
        network, model
    )
    for name, values in strips.items():
        torch.testing.assert_close(stored[f"padding_prompt.{name}"], values, rtol=1e-3, atol=1e-5)
    assert history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=64).eval()


@pytest.mark.parametrize("make", [vit, resnet])
def test_lora_adds_alpha_over_r_times_the_product_of_its_factors(make, target):
    """Equation 3 of the paper; in a ViT an update of rank r for q and one for v, and none for k."""
    network = make()
    algorithm = LowRankAdaptation(**{**ADAPT, "rank": 2, "alpha": 6.0, "lr": 0.1})
    model, _ = trained(algorithm, network, target)
    parts, before = dict(model.named_parameters()), network.state_dict()
    updated = add_low_rank_updates(before, algorithm.state_delta(before))
    assert updated
    for name, value in updated.items():
        layer = name.removesuffix(".weight")
        a, b = (parts[f"{layer}.lora_{x}.default.weight"].detach().flatten(1) for x in "AB")
        if "qkv" in name:
            width = len(b) // 3
            (q, _, v), (a_q, a_v) = b.split(width), a.split(2)
            update = torch.cat([q[:, :2] @ a_q, torch.zeros(width, width), v[:, 2:] @ a_v])
        else:
            assert a.shape[0] == 2
            update = b @ a
        assert update.any()
        wanted = before[name] + 6.0 / 2 * update.view(value.shape)
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [vit, resnet])
def test_lora_starts_as_the_network_and_trains_its_factors_alone(make, target):
    network = make()
    algorithm = LowRankAdaptation(**ADAPT)
    algorithm.setup(task_of(copy.deepcopy(network), target))
    rows = np.arange(3)
    torch.testing.assert_close(
        algorithm.logits(rows), network(algorithm.inputs[rows]), rtol=1e-5, atol=1e-5
    )
    names = [name for name, _ in algorithm.trainable()]
    assert len(names) == 2 * len(algorithm.layers) > 0 and all(".lora_" in name for name in names)


def test_lora_adapts_every_fused_attention_of_a_vit_and_every_pointwise_convolution_of_a_cnn(
    target,
):
    for network, wanted in (
        (vit(), lambda name, part: name.endswith("attn.qkv")),
        (resnet(), lambda name, part: isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)),
    ):
        expected = {name for name, part in network.named_modules() if wanted(name, part)}
        algorithm = LowRankAdaptation(**ADAPT)
        algorithm.setup(task_of(network, target))
        assert algorithm.layers.keys() == expected != set()


def test_the_released_lora_trains_tokens_and_norms_outside_the_blocks(target, catalog):
    algorithm = LowRankAdaptation(**settings_of(catalog.methods["lora_released"]))
    algorithm.setup(task_of(vit(), target))
    names = {name for name, _ in algorithm.trainable() if ".lora_" not in name}
    assert names == {"cls_token", "pos_embed", "norm.weight", "norm.bias"}


def clip_tower():
    tower = VisionTransformer(
        image_size=64, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24
    )
    return OpenClipClassifier(tower, 24)


def test_the_released_linear_probe_freezes_a_vits_patches_and_blocks(target, catalog):
    norms = {
        f"visual.{norm}.{part}" for norm in ("ln_pre", "ln_post") for part in ("weight", "bias")
    }
    clip = {
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "head.weight",
        "head.bias",
    }
    for network, wanted in (
        (clip_tower(), norms | clip),
        (vit(), {"cls_token", "pos_embed", "norm.weight", "norm.bias", "head.weight", "head.bias"}),
        (resnet(), {"fc.weight", "fc.bias"}),
    ):
        algorithm = LinearProbingReleased(**settings_of(catalog.methods["linear_probe_released"]))
        algorithm.setup(task_of(network, target))
        assert {
            name for name, _ in algorithm.trainable()
        } == wanted and algorithm.batch_norm == "train"


class Parts(nn.Module):
    """Layers under the names by which LoRA finds those to adapt.

    The head is a pointwise convolution.
    """

    def __init__(self):
        super().__init__()
        self.plain, self.wide = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 3)
        self.grouped, self.tall = nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, (1, 3))
        self.block = nn.ModuleDict(
            {"se": nn.ModuleDict({"reduce": nn.Conv2d(4, 2, 1)}), "other": nn.Linear(4, 4)}
        )
        self.block["mlp"] = nn.ModuleDict(
            {"fc1": nn.Linear(4, 8), "fc2": nn.Linear(8, 4), "fc3": nn.Linear(4, 4)}
        )
        self.fc1, self.qkv = nn.Linear(4, 4), nn.Linear(4, 12)
        self.head = nn.Conv2d(4, 1000, 1)

    def get_classifier(self):
        return self.head


def test_lora_tells_pointwise_layers_and_fused_attention_from_others():
    model = Parts()
    model.attn = nn.ModuleDict({"qkv": nn.Linear(4, 12)})
    found = adapted_layers(model)
    assert found == (["attn.qkv"], ["plain", "block.mlp.fc1", "block.mlp.fc2"])
    for name, value in (("qkv", nn.Linear(4, 8)), ("head_first", True)):
        model.attn = nn.ModuleDict({"qkv": nn.Linear(4, 12)})
        setattr(model.attn, name, value)
        with pytest.raises(ValueError, match=r"'attn\.qkv'"):
            adapted_layers(model)


def test_a_network_without_attention_and_pointwise_layers_is_refused_by_lora(target):
    with pytest.raises(ValueError, match="neither attention nor pointwise"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(1000))
        model.get_classifier = lambda: model[2]
        LowRankAdaptation(**ADAPT).setup(task_of(model, target))


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_that_was_unfolded_computes_the_same(batch_first):
    torch.manual_seed(0)
    attention, tokens = (
        nn.MultiheadAttention(12, 3, batch_first=batch_first).eval(),
        torch.randn(4, 5, 12),
    )
    with torch.no_grad():
        attention.in_proj_bias.normal_(), attention.out_proj.bias.normal_()
        wanted, _ = attention(tokens, tokens, tokens, need_weights=False)
        model = nn.Sequential(nn.ModuleDict({"attn": attention}))
        unfold_attention(model)
        found, _ = model[0]["attn"](tokens, tokens, tokens)
    assert isinstance(model[0]["attn"], FusedAttention)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_attention_that_was_unfolded_respects_a_mask():
    """A text tower's tokens see only those before them."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    tokens = torch.randn(4, 5, 12)
    later_tokens = torch.ones(5, 5, dtype=torch.bool).triu(1)
    causal_mask = torch.zeros(5, 5).masked_fill(later_tokens, float("-inf"))
    with torch.no_grad():
        expected, _ = attention(tokens, tokens, tokens, need_weights=False, attn_mask=causal_mask)

        unfolded = FusedAttention(attention)
        outputs, _ = unfolded(tokens, tokens, tokens, attn_mask=causal_mask)

    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)


def test_separate_projections_of_query_and_value_are_adapted_and_that_of_the_key_is_not():
    model = Parts()
    names = ["q_proj", "k_proj", "v_proj", "out_proj"]
    model.attn = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})

    fused, single = adapted_layers(model)

    assert fused == []
    assert single == ["attn.q_proj", "attn.v_proj"]


def test_only_the_updates_of_query_and_value_get_gradients_and_get_them_whole():
    """The factor B (3 d, 2 r) of a fused layer, with d 2 and r 1."""
    b = nn.Parameter(torch.zeros(6, 2))
    _train_only_q_and_v(b, rank=1)

    b.sum().backward()

    of_query = [[1, 0], [1, 0]]
    of_key = [[0, 0], [0, 0]]
    of_value = [[0, 1], [0, 1]]
    assert b.grad.tolist() == of_query + of_key + of_value


@pytest.fixture
def in_bf16(monkeypatch):
    """Networks compute in bf16."""
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("most", [9, 10])
def test_lwfs_teacher_computes_in_the_students_precision(
    network, target, monkeypatch, in_bf16, most
):
    """So that a student that has not moved agrees with its teacher."""
    monkeypatch.setattr(lwf, "MOST_STORED", most)
    algorithm, rows = LearningWithoutForgetting(**DISTIL), np.arange(10)
    algorithm.setup(task_of(copy.deepcopy(network), target))
    with torch.no_grad(), in_bf16:
        same = network(algorithm.inputs[rows]).float()
    with torch.no_grad():
        other = network(algorithm.inputs[rows])
    assert abs(algorithm.penalty(rows, same)) < 0.1 * algorithm.penalty(rows, other)


def test_replay_and_the_probes_features_compute_in_the_precision_that_was_chosen(
    network, target, in_bf16
):
    replay = Replay(lr=0.1, weight=1.0)
    replay.setup(task_of(copy.deepcopy(network), target, target))
    chosen = np.random.default_rng([0, 0, 0, 1]).choice(10, size=10, replace=False)
    with in_bf16:
        logits = network(replay.inputs[chosen])
    error = F.cross_entropy(
        masked(logits.float(), target.space), torch.from_numpy(target.labels)[chosen]
    )
    assert replay.penalty(np.arange(10), None).item() == pytest.approx(error.item(), rel=1e-6)
    probe = LinearProbing(lr=0.1)
    probe.setup(task_of(copy.deepcopy(network), target))
    single = network.forward_head(
        network.forward_features(probe.inputs[slice(None)]), pre_logits=True
    )
    difference = (probe.features(np.arange(10)).float() - single).abs().max() / single.abs().max()
    assert 1e-4 < difference < 0.05


def test_training_computes_in_the_precision_that_was_chosen_with_losses_in_single(
    network, target, in_bf16
):
    algorithm, one = FullFineTuning(lr=0.01), replace(TRAINING, epochs=1, batch_size=10)
    _, history = trained(algorithm, network, target, one)
    rows = np.random.default_rng([0, 0]).permutation(10)
    with in_bf16:
        logits = network(
            normalised(target.images)[rows].contiguous(memory_format=torch.channels_last)
        )
    error = F.cross_entropy(
        masked(logits.float(), target.space), torch.from_numpy(target.labels)[rows]
    )
    single = F.cross_entropy(
        masked(network(normalised(target.images)), target.space), torch.from_numpy(target.labels)
    )
    assert abs(history[0]["loss"] - error.item()) < 0.1 * abs(error.item() - single.item())


def test_a_network_with_several_heads_has_no_probe(network, target):
    model = copy.deepcopy(network)
    model.get_classifier = lambda: (model.fc, model.fc)
    with pytest.raises(
        ValueError, match="head is a tuple, but linear probing trains one linear layer"
    ):
        LinearProbing(lr=0.1).setup(task_of(model, target))


def test_selection_takes_the_best_and_of_equals_the_one_nearest_to_pretrained():
    scores = {0.0: 1, 0.5: 3, 1.0: 3}
    chosen = wise_ft_selected.select(["ft"], lambda weights: scores[weights["ft"]], steps=2)
    assert chosen == {"pretrained": 0.5, "ft": 0.5}


def test_a_soup_weighs_the_pretrained_model_and_each_parent_alike():
    assert soup.recipe(["ft", "ewc", "lwf"]) == dict.fromkeys(
        ["pretrained", "ft", "ewc", "lwf"], 0.25
    )


def test_an_ingredient_that_changes_nothing_joins_a_greedy_soup_and_a_costly_one_does_not():
    """Even one that costs little does not."""

    def score(weights):
        return {("a",): 0.5, ("b",): 0.5, ("a", "b"): 0.5}.get(tuple(weights), 0.4)

    # of equals the first of the entry is the first of the soup; the pretrained model is last here,
    # and lowers it
    assert greedy_soup.select(["a", "b"], score) == {"a": 0.5, "b": 0.5}
    assert greedy_soup.select(["a"], lambda weights: -len(weights)) == {"pretrained": 1.0}
    assert greedy_soup.select(["a"], lambda weights: len(weights)) == {"pretrained": 0.5, "a": 0.5}


def test_a_greedy_soup_compares_with_the_soup_so_far():
    """b joins a though it is worse than a by itself was before.

    c is compared with the soup of both.
    """
    scores = {
        ("a",): 0.5,
        ("b",): 0.4,
        ("c",): 0.3,
        ("pretrained",): 0.1,
        ("a", "b"): 0.7,
        ("a", "b", "c"): 0.6,
    }

    def score(weights):
        assert sum(weights.values()) == pytest.approx(1) and len(set(weights.values())) == 1
        return scores.get(tuple(weights), 0.65)

    assert greedy_soup.select(["c", "b", "a"], score) == {"a": 0.5, "b": 0.5}
