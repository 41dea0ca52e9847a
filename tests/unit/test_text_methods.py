"""Methods that train with texts, and those from a zero-shot head.

They are compared with their papers' equations and open_clip's losses.
"""

import copy
import itertools
import math
from collections import Counter

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from test_resume import killed
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.config.run import ALL
from rib.methods import lwf
from rib.methods.carot import CalibratedRobustFineTuning, visual_projection
from rib.methods.flyp import FinetuneLikeYouPretrain
from rib.methods.ft import FullFineTuning
from rib.methods.ft_frozen_head import FrozenHead
from rib.methods.lipsum_ft import LipsumFineTuning
from rib.models.checkpoint import apply
from rib.models.network import head_parameters
from rib.models.text import text_tokens
from rib.training.finetune import train
from tiny.changed import replace
from tiny.texts import NAMES, SPACE, TEMPLATES, Letters, open_clip_model, photos, ready, taken_apart
from tiny.training import CPU, RUN, TRAINING, masked, normalised, trained

ADAMW = replace(TRAINING, optimizer="adamw", weight_decay=0.1, clip_norm=1.0, label_smoothing=0.1)
CAROT = {"lr": 0.001, "orthogonality": 0.2, "distillation": 1.5, "momentum": 0.9, "interval": 0.1}
LIPSUM = {"lr": 0.001, "weight": 1.0, "texts": 5, "length": 3}
METHODS = {
    "flyp": lambda: FinetuneLikeYouPretrain(lr=0.001),
    "carot": lambda: CalibratedRobustFineTuning(**CAROT),
    "lipsum_ft": lambda: LipsumFineTuning(**LIPSUM),
    "ft_frozen_head": lambda: FrozenHead(lr=0.001),
}
ROWS = np.array([4, 0, 9, 3])  # of classes 1, 0, 0, 0


@pytest.fixture(autouse=True)
def templates(monkeypatch):
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", TEMPLATES)


@pytest.fixture(scope="module")
def clip():
    return open_clip_model()


def together(algorithm):
    """The whole model that a method has trained, as open_clip's own."""
    model = copy.deepcopy(algorithm.task.text.tower)
    model.visual = algorithm.model.visual
    return model


def pixels_of(name="clip_vit"):
    return normalised(photos(name).images)


@pytest.mark.parametrize("name", ["clip_vit", "clip_resnet", "convnext_clip", "siglip_clip"])
def test_flyps_loss_and_gradient_are_those_of_pretraining(name):
    """On both towers, the scale and SigLIP's bias; the head, which is made of texts, has none."""
    model = open_clip_model(name)
    algorithm, _ = ready(FinetuneLikeYouPretrain(lr=0.1), model, name)
    algorithm.logits(ROWS)
    found = algorithm.error(ROWS, torch.tensor(7.0))
    found.backward()
    features = model.encode_image(pixels_of(name)[ROWS], normalize=True)
    texts = model.encode_text(algorithm.captions(ROWS).long(), normalize=True)
    scale, bias = model.logit_scale.exp(), model.logit_bias
    assert (bias is not None) == (name == "siglip_clip")
    loss = open_clip.ClipLoss() if bias is None else open_clip.loss.SigLipLoss()
    wanted = loss(features, texts, scale, *(() if bias is None else (bias,)))
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    trained_parts = dict(algorithm.trainable())
    assert len(trained_parts) == len(list(model.parameters()))
    for key, parameter in model.named_parameters():
        own = trained_parts[key if key.startswith("visual.") else f"text.{key}"].grad
        assert (own is not None and own.any()) or not parameter.grad.any(), key
        torch.testing.assert_close(own, parameter.grad, rtol=1e-3, atol=1e-5, msg=key)
    assert not any(parameter.grad is not None for _, parameter in head_parameters(algorithm.model))


def test_captions_are_prompts_of_the_class_drawn_anew_in_each_step(clip):
    algorithm, _ = ready(FinetuneLikeYouPretrain(lr=0.1), clip)
    seen, counts = [], {}
    for algorithm.step in range(60):
        tokens = algorithm.captions(ROWS)
        assert torch.equal(tokens, algorithm.captions(ROWS))
        seen.append(tuple(map(tuple, tokens.tolist())))
        for row, found in zip(ROWS, seen[-1], strict=True):
            counts.setdefault(int(row) % 3, set()).add(found)
    possible = {
        label: {
            tuple(Letters()([t(NAMES[i])])[0].tolist())
            for i in SPACE.indices[label]
            for t in TEMPLATES
        }
        for label in (0, 1)
    }
    assert counts == possible and len(set(seen)) > 50
    other, _ = ready(FinetuneLikeYouPretrain(lr=0.1), clip, seed=1)
    other.step = 59
    assert not torch.equal(other.captions(ROWS), tokens)


def test_the_outputs_of_a_class_and_their_prompts_are_drawn_equally_often(clip):
    """The classes have 2, 1 and 3 outputs.

    A table of them has to repeat some, which must not count twice.
    """
    # given
    algorithm, _ = ready(FinetuneLikeYouPretrain(lr=0.1), clip)
    rows = np.array([row for row in range(10) if row % 3 == 0] * 50)
    assert {algorithm.labels[row] for row in rows} == {0}
    # when
    captions = [
        tuple(tokens) for algorithm.step in range(3) for tokens in algorithm.captions(rows).tolist()
    ]
    # then: each of two outputs with three prompts has a sixth, within five standard deviations
    prompts = {
        tuple(Letters()([template(NAMES[i])])[0].tolist())
        for i in SPACE.indices[0]
        for template in TEMPLATES
    }
    share = 1 / len(prompts)
    spread = math.sqrt(share * (1 - share) / len(captions))
    counts = Counter(captions)
    assert counts.keys() == prompts
    for prompt in prompts:
        assert counts[prompt] / len(captions) == pytest.approx(share, abs=5 * spread)


@pytest.mark.parametrize(
    ("method", "name"), [("flyp", "clip_vit"), ("flyp", "siglip_clip"), ("carot", "clip_resnet")]
)
def test_the_checkpoint_is_the_zero_shot_classifier_of_the_trained_towers(method, name, tmp_path):
    """Made by open_clip's own builder with the tokenizer.

    Nothing but the image tower and the head is stored.
    """
    model = open_clip_model(name)
    algorithm, before = ready(METHODS[method](), model, name)
    network = copy.deepcopy(algorithm.model)
    _, changed = train(algorithm, before, ADAMW, RUN, CPU)
    assert changed.keys() <= before.keys() and "head.weight" in changed
    safetensors.torch.save_file(changed, tmp_path / "c.safetensors")
    restored = apply(network, {method: 1.0}, {method: tmp_path / "c.safetensors"}).eval()
    whole = together(algorithm).eval()
    assert not torch.equal(whole.logit_scale, model.logit_scale)
    with torch.no_grad():
        head = open_clip.build_zero_shot_classifier(whole, Letters(), NAMES, TEMPLATES)
        features = whole.encode_image(pixels_of(name), normalize=True)
        wanted = whole.logit_scale.exp() * features @ head + (whole.logit_bias or 0)
        torch.testing.assert_close(restored(pixels_of(name)), wanted, rtol=1e-4, atol=1e-4)


def test_the_history_has_the_contrastive_loss_and_the_cross_entropy_of_the_zero_shot_head(clip):
    """Where nothing moves: the loss of the captions of each step, and what ft starts from."""
    tiny = replace(TRAINING, epochs=1, label_smoothing=0.1)
    algorithm, before = ready(FinetuneLikeYouPretrain(lr=1e-12), clip)
    (row,), _ = train(algorithm, before, tiny, RUN, CPU)
    network, _ = taken_apart(clip)
    order, labels = np.random.default_rng([0, 0]).permutation(10), torch.arange(10) % 3
    with torch.no_grad():
        scores = masked(network(pixels_of()), SPACE)
        losses = []
        for algorithm.step, rows in enumerate((order[:4], order[4:8], order[8:])):
            texts = clip.encode_text(algorithm.captions(rows), normalize=True)
            features = clip.encode_image(pixels_of()[rows], normalize=True)
            losses.append(
                open_clip.ClipLoss()(features, texts, clip.logit_scale.exp()).item() * len(rows)
            )
    assert row["loss"] == pytest.approx(sum(losses) / 10, rel=1e-4)
    assert row["cross_entropy"] == pytest.approx(
        F.cross_entropy(scores, labels, label_smoothing=0.1).item(), rel=1e-4
    )
    assert row["accuracy"] == pytest.approx((scores.argmax(dim=1) == labels).float().mean().item())


def softmax(values):
    """Probabilities, written out."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def similarities(model, rows, tokens):
    """s <f(x_i), g(t_j)> as numbers."""
    with torch.no_grad():
        images = model.encode_image(pixels_of()[rows], normalize=True).double().tolist()
        texts = model.encode_text(tokens, normalize=True).double().tolist()
    scale = math.exp(model.logit_scale.item())
    return [[scale * sum(a * b for a, b in zip(x, t, strict=True)) for t in texts] for x in images]


def test_carots_loss_is_the_authors(clip):
    """Contrastive loss, distance of W^T W from the identity, and divergences from the teacher.

    The divergences are of both softmaxes.
    """
    algorithm, _ = ready(CalibratedRobustFineTuning(**CAROT), clip)
    torch.manual_seed(1)
    with torch.no_grad():
        for _, part in algorithm.trainable():
            part += 0.02 * torch.randn_like(part)
    algorithm.logits(ROWS)
    found = algorithm.error(ROWS, torch.tensor(7.0))
    tokens, n = algorithm.captions(ROWS), len(ROWS)
    student, teacher = (
        similarities(model, ROWS, tokens) for model in (together(algorithm).eval(), clip)
    )
    contrastive = divergence = 0.0
    for own, taught in (
        (student, teacher),
        (list(zip(*student, strict=True)), list(zip(*teacher, strict=True))),
    ):
        for i in range(n):
            q, p = softmax(own[i]), softmax(taught[i])
            contrastive -= math.log(q[i]) / (2 * n)
            divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / n
    w = algorithm.model.visual.proj.detach().double().tolist()
    width, embedding = len(w), len(w[0])
    constraint = math.sqrt(
        sum(
            (sum(w[k][i] * w[k][j] for k in range(width)) - (i == j)) ** 2
            for i, j in itertools.product(range(embedding), repeat=2)
        )
    )
    assert divergence > 0.01
    assert found.item() == pytest.approx(
        contrastive + 0.2 * constraint + 1.5 * divergence, rel=1e-4
    )
    found.backward()
    assert algorithm.model.visual.proj.grad.any() and not any(
        part.grad is not None for part in algorithm.memory.values()
    )


def test_carots_teacher_is_a_moving_average_with_a_rising_momentum(clip):
    """After each tenth of 20 steps; the first four are the warm-up, from 0.05 to 0.9."""
    algorithm, _ = ready(CalibratedRobustFineTuning(**CAROT), clip)
    algorithm.steps = 20
    parts = dict(algorithm.trainable())
    name, rng = "text.token_embedding.weight", torch.Generator().manual_seed(0)
    teacher = clip.token_embedding.weight.detach().double()
    optimizer = torch.optim.SGD([part.requires_grad_() for part in parts.values()], lr=0.0)
    for algorithm.step in range(8):
        with torch.no_grad():
            parts[name] += 0.1 * torch.randn(parts[name].shape, generator=rng)
        algorithm.update(optimizer)
        if algorithm.step % 2 == 1:
            alpha = 0.9 if algorithm.step >= 4 else 0.05 + 0.85 * algorithm.step / 4
            teacher = alpha * teacher + (1 - alpha) * parts[name].detach().double()
        torch.testing.assert_close(algorithm.memory[name].double(), teacher, rtol=1e-5, atol=1e-6)
    tower = algorithm.teacher_text.tower
    assert algorithm.memory[name].data_ptr() == tower.token_embedding.weight.data_ptr()
    assert algorithm.memory.keys() == parts.keys() and "text.logit_scale" in parts


def carot_by_hand(model, pixels, batches, captions, settings, lr):
    """Trains a whole model with CaRot from its definition and plain gradient descent.

    The captions are given.
    """
    teacher = copy.deepcopy(model)
    steps = len(batches)
    for step, (rows, tokens) in enumerate(zip(batches, captions, strict=True)):
        own = torch.arange(len(rows))
        logits = model.get_logits(pixels[rows], tokens)[0]
        with torch.no_grad():
            taught = teacher.get_logits(pixels[rows], tokens)[0]
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        for student_side, teacher_side in ((logits, taught), (logits.T, taught.T)):
            p, q = teacher_side.softmax(dim=1), student_side.softmax(dim=1)
            loss = loss + settings["distillation"] * (p * (p / q).log()).sum() / len(rows)
        w = model.visual.proj
        excess = w.T @ w - torch.eye(w.shape[1])
        loss = loss + settings["orthogonality"] * (excess**2).sum().sqrt()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        alpha = 0.9 if step >= 0.2 * steps else 0.05 + (0.9 - 0.05) * step / (0.2 * steps)
        with torch.no_grad():
            for part, gradient in zip(model.parameters(), gradients, strict=True):
                part -= lr * gradient
            if (step + 1) % round(settings["interval"] * steps) == 0:
                for kept, part in zip(teacher.parameters(), model.parameters(), strict=True):
                    kept.copy_(alpha * kept + (1 - alpha) * part)
    return model


def test_sixteen_steps_of_carot_are_those_of_its_definition(clip):
    # Given: a method and a whole model with the same weights, batches and captions
    settings = {**CAROT, "interval": 0.125}
    algorithm, _ = ready(CalibratedRobustFineTuning(**settings), clip)
    algorithm.steps = 16
    rng = np.random.default_rng(0)
    batches = [rng.permutation(10)[:4] for _ in range(16)]
    parts = [part.requires_grad_() for _, part in algorithm.trainable()]
    optimizer = torch.optim.SGD(parts, lr=0.003)
    captions = []
    # When: both are trained for 16 steps, in which the teacher is updated eight times
    for algorithm.step, rows in enumerate(batches):
        captions.append(algorithm.captions(rows))
        optimizer.zero_grad()
        algorithm.logits(rows)
        algorithm.error(rows, torch.tensor(7.0)).backward()
        algorithm.update(optimizer)
    wanted = carot_by_hand(copy.deepcopy(clip), pixels_of(), batches, captions, settings, 0.003)
    # Then: all weights of both towers agree, and have moved much farther than they differ
    found = together(algorithm)
    for key, value in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value, rtol=1e-3, atol=1e-5, msg=key)
    assert (wanted.visual.proj - clip.visual.proj).abs().max() > 1e-3


def test_carots_constraint_has_a_gradient_of_zero_at_an_orthonormal_projection(clip):
    algorithm, _ = ready(CalibratedRobustFineTuning(**{**CAROT, "orthogonality": 1e6}), clip)
    w = algorithm.model.visual.proj
    with torch.no_grad():
        w.zero_()
        w.fill_diagonal_(1.0)  # its columns are unit vectors
    algorithm.logits(ROWS)
    algorithm.error(ROWS, torch.tensor(7.0)).backward()
    assert w.grad.isfinite().all() and w.grad.abs().max() < 1e3


def test_carots_teacher_is_updated_in_a_run_of_any_length(clip):
    algorithm, _ = ready(CalibratedRobustFineTuning(**{**CAROT, "interval": 0.02}), clip)
    algorithm.steps = 5
    before = {name: part.clone() for name, part in algorithm.memory.items()}
    optimizer = torch.optim.SGD([part for _, part in algorithm.trainable()], lr=0.0)
    with torch.no_grad():
        algorithm.model.visual.proj += 1.0
    algorithm.update(optimizer)
    moved = [name for name in before if not torch.equal(before[name], algorithm.memory[name])]
    assert moved == ["visual.proj"]


@pytest.mark.parametrize("stored", [True, False])
def test_lipsum_ft_adds_half_the_mean_squared_gap_of_energies(clip, stored, monkeypatch):
    monkeypatch.setattr(lwf, "MOST_STORED", 10 if stored else 9)
    algorithm, _ = ready(LipsumFineTuning(**{**LIPSUM, "weight": 0.6}), clip)
    torch.manual_seed(1)
    with torch.no_grad():
        for part in algorithm.model.visual.parameters():
            part += 0.02 * torch.randn_like(part)
    found = {}
    for algorithm.step in (0, 3):
        logits = algorithm.logits(ROWS)
        assert torch.equal(logits, algorithm.model(algorithm.inputs[ROWS]))
        tokens = algorithm.task.text.random(5, 3, np.random.default_rng([0, algorithm.step, 3]))
        after, before = (
            similarities(model, ROWS, tokens) for model in (together(algorithm).eval(), clip)
        )
        pairs = [
            pair for rows in zip(after, before, strict=True) for pair in zip(*rows, strict=True)
        ]
        wanted = 0.6 * sum((a - b) ** 2 for a, b in pairs) / (2 * 5 * len(ROWS))
        found[algorithm.step] = algorithm.penalty(ROWS, logits)
        assert found[algorithm.step].item() == pytest.approx(wanted, rel=1e-3) and wanted > 1e-3
    assert found[0].item() != found[3].item()
    found[3].backward()
    assert algorithm.model.visual.proj.grad.any()
    assert all(part.grad is None for part in algorithm.task.text.tower.parameters())


def test_lipsum_ft_trains_the_network_alone_and_without_a_weight_it_is_ft(clip):
    results = []
    for algorithm in (LipsumFineTuning(**{**LIPSUM, "weight": 0.0}), FullFineTuning(lr=0.001)):
        algorithm, before = ready(algorithm, clip)
        results.append(train(algorithm, before, TRAINING, RUN, CPU)[1])
        for key, part in algorithm.task.text.tower.state_dict().items():
            assert torch.equal(part, clip.state_dict()[key]), key
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_lipsum_ft_in_micro_batches_is_the_whole_batch(clip):
    results = []
    for micro in (ALL, 2):
        algorithm, before = ready(LipsumFineTuning(**LIPSUM), clip)
        results.append(
            train(algorithm, before, replace(TRAINING, micro_batch_size=micro), RUN, CPU)
        )
    (whole, a), (parts, b) = results
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert [row["loss"] for row in whole] == pytest.approx([row["loss"] for row in parts], rel=1e-4)


def test_random_texts_have_the_frame_of_the_tokenizers_own(clip):
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    found = text_tokens(tokenizer, NAMES)
    assert found["prompts"].dtype == torch.int32 and found["prompts"].shape == (6, 3, 77)
    assert torch.equal(found["prompts"][2, 1].long(), tokenizer(["my cat"])[0])
    assert found["before"].tolist() == [49406] and found["after"].tolist() == [49407] + [0] * 75
    assert found["words"].tolist() == list(range(1, 49406))
    _, text = taken_apart(clip)
    texts = text.random(200, 3, np.random.default_rng(0))
    assert texts[:, 0].eq(62).all() and texts[:, 4].eq(63).all() and texts[:, 5:].eq(0).all()
    assert set(texts[:, 1:4].flatten().tolist()) == set(range(1, 62))
    last = replace(
        text, after=torch.tensor([9, 0, 0, 0, 5]), before=text.before[:0]
    )  # a class token at the end
    assert last.random(1, 2, np.random.default_rng(0))[0, 2:].tolist() == [9, 0, 5]


def test_with_a_frozen_head_the_rest_is_trained_as_in_ft(network, target):
    """On any network; with ft's own gradient."""
    model, _ = trained(FrozenHead(lr=0.01), network, target)
    whole, _ = trained(FullFineTuning(lr=0.01), network, target)
    head = {name for name, _ in head_parameters(network)}
    before, after, other = network.state_dict(), model.state_dict(), whole.state_dict()
    for name, _ in network.named_parameters():
        assert torch.equal(before[name], after[name]) == (name in head), name
        assert not torch.equal(before[name], other[name]), name
    once = replace(TRAINING, epochs=1, batch_size=10)
    model, whole = (
        trained(kind(lr=0.01), network, target, once)[0] for kind in (FrozenHead, FullFineTuning)
    )
    for (name, a), (_, b) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(a, b) != (name in head), name


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_goes_on_to_the_same_bytes(method, clip, tmp_path, monkeypatch):
    """Within an epoch, after it, and after the teacher has moved."""

    def run(saved=None):
        torch.manual_seed(0)
        algorithm, before = ready(METHODS[method](), clip)
        return train(algorithm, before, ADAMW, RUN, CPU, saved)

    history, whole = run()
    done = killed(monkeypatch, [1, 2, 3])
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "state.pt")
    again, resumed = run(tmp_path / "state.pt")
    assert sum(done) < 6, "it did not begin again"
    assert again == history and resumed.keys() == whole.keys() and "visual.proj" in whole
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"orthogonality": -1}, "orthogonality is -1; set a number of at least 0"),
        ({"distillation": -1}, "distillation is -1; set a number of at least 0"),
        ({"momentum": 1.1}, "momentum is 1.1; set a number from 0 to 1"),
        ({"momentum": -0.1}, "momentum is -0.1; set a number from 0 to 1"),
        ({"interval": 0}, "interval is 0; set a number above 0 and at most 1"),
        ({"lr": 0}, "lr is 0"),
    ],
)
def test_carots_settings_out_of_range_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        CalibratedRobustFineTuning(**{**CAROT, **settings})


@pytest.mark.parametrize(
    ("key", "value", "range_"),
    [
        ("weight", -1, "number of at least 0"),
        ("texts", 0, "whole number from 1"),
        ("length", 0, "whole number from 1"),
    ],
)
def test_lipsum_fts_settings_out_of_range_are_named(key, value, range_):
    with pytest.raises(ValueError, match=f"{key} is {value}; set a {range_}"):
        LipsumFineTuning(**{**LIPSUM, key: value})


def test_what_a_model_lacks_is_a_sentence(clip):
    for method in ("flyp", "carot", "lipsum_ft"):
        with pytest.raises(ValueError, match="needs the model's text tower"):
            ready(METHODS[method](), clip, text=False)
    with pytest.raises(ValueError, match="room for 6 tokens, not for 7"):
        ready(LipsumFineTuning(**{**LIPSUM, "length": 7}), clip)
    with pytest.raises(ValueError, match="pretrained with a sigmoid loss"):
        ready(METHODS["carot"](), open_clip_model("siglip_clip"), "siglip_clip")
    with pytest.raises(ValueError, match="no linear projection"):
        ready(METHODS["carot"](), open_clip_model("convnext_clip_mlp"), "convnext_clip_mlp")


@pytest.mark.parametrize(
    "name", ["clip_vit", "clip_resnet", "convnext_clip", "pe_clip", "eva02_clip", "mobileclip2"]
)
def test_the_constrained_projection_is_the_last_of_the_image_tower(name):
    """Features are linear in it, up to a bias."""
    visual, found = open_clip_model(name).visual, []
    with torch.no_grad():
        projection = visual_projection(visual)
        for factor in (1.0, 2.0, 0.0):
            projection *= factor
            found.append(visual(pixels_of(name)))
    torch.testing.assert_close(found[1] - found[0], found[0] - found[2], rtol=1e-3, atol=1e-4)
    assert projection.shape[1] == found[0].shape[1] and not torch.equal(found[0], found[2])


def test_contrastive_losses_are_refused_in_micro_batches(clip):
    algorithm, before = ready(METHODS["flyp"](), clip)
    with pytest.raises(
        UserError, match=r"compares all images of a batch; set training.micro_batch_size to all\."
    ):
        train(algorithm, before, replace(TRAINING, micro_batch_size=3), RUN, CPU)
    train(algorithm, before, replace(TRAINING, micro_batch_size=4, epochs=1), RUN, CPU)
