"""Methods that train with texts, and those from a zero-shot head.

They are compared with their papers' equations and open_clip's losses.
"""

import copy
import math
from collections import Counter

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from test_resume import interrupt_trainings
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.methods import _distil, flyp
from rib.methods.base import Task
from rib.methods.carot import CalibratedRobustFineTuning, visual_projection
from rib.methods.flyp import FinetuneLikeYouPretrain
from rib.methods.ft import FullFineTuning
from rib.methods.ft_frozen_head import FrozenHead
from rib.methods.lipsum_ft import LipsumFineTuning
from rib.models.checkpoint import apply
from rib.models.network import head_parameters
from rib.models.text import text_tokens
from rib.schema.run import ALL
from rib.training import training_state
from rib.training.gpu_memory import setting_of_training_memory
from rib.training.loop import train
from rib.training.step import take_step
from tiny.changed import replace
from tiny.models.texts import (
    NAMES,
    SPACE,
    TEMPLATES,
    Letters,
    open_clip_model,
    photos,
    taken_apart,
)
from tiny.models.training import (
    CPU,
    RUN,
    TRAINING,
    images_of,
    masked,
    normalised,
    trained,
    with_defaults,
)

ADAMW = replace(TRAINING, optimizer="adamw", weight_decay=0.1, clip_norm=1.0, label_smoothing=0.1)
CAROT = {"lr": 0.001, "orthogonality": 0.2, "distillation": 1.5, "momentum": 0.9, "interval": 0.1}
LIPSUM = {"lr": 0.001, "weight": 1.0, "texts": 5, "length": 3}


def new_algorithm(method):
    """The algorithm of a method, with the settings above."""
    if method == "flyp":
        return with_defaults(FinetuneLikeYouPretrain, lr=0.001)
    if method == "carot":
        return with_defaults(CalibratedRobustFineTuning, **CAROT)
    if method == "lipsum_ft":
        return with_defaults(LipsumFineTuning, **LIPSUM)
    return with_defaults(FrozenHead, lr=0.001)


ROWS = np.array([4, 0, 9, 3])  # of classes 1, 0, 0, 0


@pytest.fixture(autouse=True)
def templates(monkeypatch):
    """Zero-shot heads are made of the few templates of the tests."""
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", TEMPLATES)


@pytest.fixture(scope="module")
def clip():
    """A small CLIP; do not change it."""
    return open_clip_model()


def ready(algorithm, model, name="clip_vit", seed=0):
    """Set an algorithm up on a copy of a model, with its text tower.

    Gives the algorithm, and the pretrained state dict of the network.
    """
    network, tower = taken_apart(model, name)
    pretrained = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    algorithm.setup(Task(network, images_of(photos(name)), None, seed, tower))
    return algorithm, pretrained


def together(algorithm):
    """The whole model that a method has trained, as open_clip's own."""
    model = copy.deepcopy(algorithm.task.text.tower)
    model.visual = algorithm.model.visual
    return model


def pixels_of(name="clip_vit"):
    """The photos as inputs of a model."""
    return normalised(photos(name).images)


def prompts_of_class(label):
    """Tokens of each template with the name of each output of a class."""
    return {
        tuple(Letters()([template(NAMES[output])])[0].tolist())
        for output in SPACE.indices[label]
        for template in TEMPLATES
    }


@pytest.mark.parametrize("name", ["clip_vit", "clip_resnet", "siglip_clip"])
def test_flyps_loss_and_gradient_are_those_of_pretraining(name):
    """On both towers, the scale and SigLIP's bias; the head, which is made of texts, has none."""
    model = open_clip_model(name)
    algorithm, _ = ready(with_defaults(FinetuneLikeYouPretrain, lr=0.1), model, name)

    algorithm.logits(ROWS)
    loss = algorithm.error(ROWS, torch.tensor(7.0))
    loss.backward()

    image_features = model.encode_image(pixels_of(name)[ROWS], normalize=True)
    text_features = model.encode_text(algorithm.captions(ROWS).long(), normalize=True)
    scale = model.logit_scale.exp()
    if name == "siglip_clip":
        expected = open_clip.loss.SigLipLoss()(
            image_features, text_features, scale, model.logit_bias
        )
    else:
        assert model.logit_bias is None
        expected = open_clip.ClipLoss()(image_features, text_features, scale)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    trainable = dict(algorithm.trainable())
    assert len(trainable) == len(list(model.parameters()))
    for key, parameter in model.named_parameters():
        key_of_method = key if key.startswith("visual.") else f"text.{key}"
        gradient = trainable[key_of_method].grad
        if parameter.grad.any():
            assert gradient is not None, key
            assert gradient.any(), key
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5, msg=key)
    for key, parameter in head_parameters(algorithm.model):
        assert parameter.grad is None, key


def test_captions_are_prompts_of_the_class_drawn_anew_in_each_step(clip):
    algorithm, _ = ready(with_defaults(FinetuneLikeYouPretrain, lr=0.1), clip)

    captions_of_steps = []
    captions_of_classes = {0: set(), 1: set()}
    for step in range(60):
        algorithm.step = step
        tokens = algorithm.captions(ROWS)
        assert torch.equal(tokens, algorithm.captions(ROWS))
        captions = tuple(tuple(caption) for caption in tokens.tolist())
        captions_of_steps.append(captions)
        for row, caption in zip(ROWS, captions, strict=True):
            captions_of_classes[int(row) % 3].add(caption)

    assert captions_of_classes == {0: prompts_of_class(0), 1: prompts_of_class(1)}
    assert len(set(captions_of_steps)) > 50
    with_other_seed, _ = ready(with_defaults(FinetuneLikeYouPretrain, lr=0.1), clip, seed=1)
    with_other_seed.step = 59
    assert not torch.equal(with_other_seed.captions(ROWS), tokens)


def test_the_outputs_of_a_class_and_their_prompts_are_drawn_equally_often(clip):
    """The classes have 2, 1 and 3 outputs.

    A table of them has to repeat some, which must not count twice.
    """
    # given
    algorithm, _ = ready(with_defaults(FinetuneLikeYouPretrain, lr=0.1), clip)
    rows = np.array([row for row in range(10) if row % 3 == 0] * 50)
    assert {algorithm.labels[row] for row in rows} == {0}
    # when
    captions = []
    for step in range(3):
        algorithm.step = step
        captions += [tuple(tokens) for tokens in algorithm.captions(rows).tolist()]
    # then: each of two outputs with three prompts has a sixth, within five standard deviations
    prompts = prompts_of_class(0)
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
    algorithm, before = ready(new_algorithm(method), model, name)
    network = copy.deepcopy(algorithm.model)

    _, changed, _ = train(algorithm, before, ADAMW, RUN, CPU)

    assert changed.keys() <= before.keys()
    assert "head.weight" in changed
    checkpoint = tmp_path / "c.safetensors"
    safetensors.torch.save_file(changed, checkpoint)
    restored = apply(network, {method: 1.0}, {method: checkpoint}).eval()
    trained_model = together(algorithm).eval()
    assert not torch.equal(trained_model.logit_scale, model.logit_scale)
    pixels = pixels_of(name)
    with torch.no_grad():
        head = open_clip.build_zero_shot_classifier(trained_model, Letters(), NAMES, TEMPLATES)
        features = trained_model.encode_image(pixels, normalize=True)
        logits = trained_model.logit_scale.exp() * features @ head
        if trained_model.logit_bias is not None:
            logits = logits + trained_model.logit_bias
        torch.testing.assert_close(restored(pixels), logits, rtol=1e-4, atol=1e-4)


def test_the_history_has_the_contrastive_loss_and_the_cross_entropy_of_the_zero_shot_head(clip):
    """Where nothing moves: the loss of the captions of each step, and what ft starts from."""
    one_epoch = replace(TRAINING, epochs=1, label_smoothing=0.1)
    algorithm, before = ready(with_defaults(FinetuneLikeYouPretrain, lr=1e-12), clip)

    (epoch,), _, _ = train(algorithm, before, one_epoch, RUN, CPU)

    network, _ = taken_apart(clip)
    labels = torch.arange(10) % 3
    order = np.random.default_rng([0, 0]).permutation(10)
    sum_of_losses = 0.0
    with torch.no_grad():
        class_logits = masked(network(pixels_of()), SPACE)
        for step, rows in enumerate(np.split(order, [4, 8])):
            algorithm.step = step
            texts = clip.encode_text(algorithm.captions(rows), normalize=True)
            features = clip.encode_image(pixels_of()[rows], normalize=True)
            loss = open_clip.ClipLoss()(features, texts, clip.logit_scale.exp())
            sum_of_losses += loss.item() * len(rows)
    cross_entropy = F.cross_entropy(class_logits, labels, label_smoothing=0.1)
    is_right = class_logits.argmax(dim=1) == labels
    assert epoch["loss"] == pytest.approx(sum_of_losses / 10, rel=1e-4)
    assert epoch["cross_entropy"] == pytest.approx(cross_entropy.item(), rel=1e-4)
    assert epoch["accuracy"] == pytest.approx(is_right.float().mean().item())


@pytest.mark.parametrize("method", ["flyp", "carot"])
def test_the_head_is_made_of_texts_once_and_the_pretrained_one_is_that_of_the_history(
    method, monkeypatch, tmp_path
):
    """Snapshots need others, which change neither history nor checkpoint."""
    # given that heads that are made are counted
    name = "clip_resnet"
    set_zero_shot_weights = flyp.set_zero_shot_weights
    heads = []

    def set_and_count(head, *text):
        heads.append(head)
        set_zero_shot_weights(head, *text)

    monkeypatch.setattr(flyp, "set_zero_shot_weights", set_and_count)

    def train_with(snapshots):
        algorithm, before = ready(new_algorithm(method), open_clip_model(name), name)
        heads.clear()
        history, changed, _ = train(algorithm, before, ADAMW, RUN, CPU, snapshots=snapshots)
        assert len(heads) == 1 + len(snapshots)
        assert torch.equal(algorithm.model.head.weight, before["head.weight"])
        return history, changed

    # when it is trained without and with snapshots
    history, changed = train_with([])
    snapshots = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    history_with_snapshots, changed_with_snapshots = train_with(snapshots)

    # then the result is the same
    assert len(history) > 1
    assert history == history_with_snapshots
    assert changed
    assert changed.keys() == changed_with_snapshots.keys()
    for key, tensor in changed.items():
        assert torch.equal(tensor, changed_with_snapshots[key]), key


def softmax(logits):
    """Probabilities, written out."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / sum(powers) for power in powers]


def similarities(model, rows, tokens):
    """s <f(x_i), g(t_j)> as numbers, a list for each image i."""
    with torch.no_grad():
        images = model.encode_image(pixels_of()[rows], normalize=True).double()
        texts = model.encode_text(tokens, normalize=True).double()
    scale = math.exp(model.logit_scale.item())
    return (scale * images @ texts.T).tolist()


def transposed(rows_of_numbers):
    """Columns of a matrix as lists."""
    return [list(column) for column in zip(*rows_of_numbers, strict=True)]


def distance_from_orthonormal(projection):
    """Frobenius norm of W^T W - I, written out, for W (width, embedding)."""
    columns = transposed(projection.tolist())
    squares = 0.0
    for i, column in enumerate(columns):
        for j, other_column in enumerate(columns):
            product = sum(a * b for a, b in zip(column, other_column, strict=True))
            squares += (product - (i == j)) ** 2
    return math.sqrt(squares)


def test_carots_loss_is_the_authors(clip):
    """Contrastive loss, distance of W^T W from the identity, and divergences from the teacher.

    The divergences are of both softmaxes.
    """
    algorithm, _ = ready(with_defaults(CalibratedRobustFineTuning, **CAROT), clip)
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in algorithm.trainable():
            parameter += 0.02 * torch.randn_like(parameter)

    algorithm.logits(ROWS)
    loss = algorithm.error(ROWS, torch.tensor(7.0))

    n = len(ROWS)
    tokens = algorithm.captions(ROWS)
    student = similarities(together(algorithm).eval(), ROWS, tokens)
    teacher = similarities(clip, ROWS, tokens)
    by_image = (student, teacher)
    by_text = (transposed(student), transposed(teacher))
    contrastive = 0.0
    divergence = 0.0
    for similarities_of_student, similarities_of_teacher in (by_image, by_text):
        for i in range(n):
            of_student = softmax(similarities_of_student[i])
            of_teacher = softmax(similarities_of_teacher[i])
            contrastive -= math.log(of_student[i]) / (2 * n)
            for p, q in zip(of_teacher, of_student, strict=True):
                divergence += p * math.log(p / q) / n
    constraint = distance_from_orthonormal(algorithm.model.visual.proj.detach().double())
    assert divergence > 0.01
    expected = contrastive + 0.2 * constraint + 1.5 * divergence
    assert loss.item() == pytest.approx(expected, rel=1e-4)

    loss.backward()
    assert algorithm.model.visual.proj.grad.any()
    assert algorithm.memory
    for name, tensor in algorithm.memory.items():
        assert tensor.grad is None, name


def test_carots_teacher_is_a_moving_average_with_a_rising_momentum(clip):
    """After each tenth of 20 steps; the first four are the warm-up, from 0.05 to 0.9."""
    algorithm, _ = ready(with_defaults(CalibratedRobustFineTuning, **CAROT), clip)
    algorithm.steps = 20
    trainable = dict(algorithm.trainable())
    optimizer = torch.optim.SGD(
        [parameter.requires_grad_() for parameter in trainable.values()], lr=0.0
    )
    name = "text.token_embedding.weight"
    student = trainable[name]
    teacher = clip.token_embedding.weight.detach().double()
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        algorithm.step = step
        with torch.no_grad():
            student += 0.1 * torch.randn(student.shape, generator=generator)

        algorithm.update(optimizer)

        if step % 2 == 1:
            momentum = 0.9 if step >= 4 else 0.05 + 0.85 * step / 4
            teacher = momentum * teacher + (1 - momentum) * student.detach().double()
        torch.testing.assert_close(algorithm.memory[name].double(), teacher, rtol=1e-5, atol=1e-6)
    tower = algorithm.teacher_text.tower
    assert algorithm.memory[name].data_ptr() == tower.token_embedding.weight.data_ptr()
    assert algorithm.memory.keys() == trainable.keys()
    assert "text.logit_scale" in trainable


def carot_loss(model, teacher, pixels, tokens, settings):
    """CaRot's loss of a batch from its definition."""
    pairs = torch.arange(len(pixels))
    logits, *_ = model.get_logits(pixels, tokens)
    with torch.no_grad():
        teacher_logits, *_ = teacher.get_logits(pixels, tokens)
    loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
    for student_side, teacher_side in ((logits, teacher_logits), (logits.T, teacher_logits.T)):
        p = teacher_side.softmax(dim=1)
        q = student_side.softmax(dim=1)
        loss = loss + settings["distillation"] * (p * (p / q).log()).sum() / len(pixels)
    projection = model.visual.proj
    excess = projection.T @ projection - torch.eye(projection.shape[1])
    return loss + settings["orthogonality"] * (excess**2).sum().sqrt()


def carot_by_hand(model, pixels, batches, captions, settings, lr):
    """Trains a whole model with CaRot from its definition and plain gradient descent.

    The captions are given.
    """
    teacher = copy.deepcopy(model)
    steps = len(batches)
    warmup_steps = 0.2 * steps
    for step, (rows, tokens) in enumerate(zip(batches, captions, strict=True)):
        loss = carot_loss(model, teacher, pixels[rows], tokens, settings)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        momentum = 0.9
        if step < warmup_steps:
            momentum = 0.05 + (0.9 - 0.05) * step / warmup_steps
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
            if (step + 1) % round(settings["interval"] * steps) == 0:
                for of_teacher, parameter in zip(
                    teacher.parameters(), model.parameters(), strict=True
                ):
                    of_teacher.copy_(momentum * of_teacher + (1 - momentum) * parameter)
    return model


def test_sixteen_steps_of_carot_are_those_of_its_definition(clip):
    # Given: a method and a whole model with the same weights, batches and captions
    settings = {**CAROT, "interval": 0.125}
    algorithm, _ = ready(with_defaults(CalibratedRobustFineTuning, **settings), clip)
    algorithm.steps = 16
    rng = np.random.default_rng(0)
    batches = [rng.permutation(10)[:4] for _ in range(16)]
    parameters = [parameter.requires_grad_() for _, parameter in algorithm.trainable()]
    optimizer = torch.optim.SGD(parameters, lr=0.003)
    captions = []
    # When: both are trained for 16 steps, in which the teacher is updated eight times
    for step, rows in enumerate(batches):
        algorithm.step = step
        captions.append(algorithm.captions(rows))
        optimizer.zero_grad()
        algorithm.logits(rows)
        algorithm.error(rows, torch.tensor(7.0)).backward()
        algorithm.update(optimizer)
    expected = carot_by_hand(copy.deepcopy(clip), pixels_of(), batches, captions, settings, 0.003)
    # Then: all weights of both towers agree, and have moved much farther than they differ
    state = together(algorithm).state_dict()
    for key, tensor in expected.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-3, atol=1e-5, msg=key)
    assert (expected.visual.proj - clip.visual.proj).abs().max() > 1e-3


def test_carots_constraint_has_a_gradient_of_zero_at_an_orthonormal_projection(clip):
    algorithm, _ = ready(
        with_defaults(CalibratedRobustFineTuning, **{**CAROT, "orthogonality": 1e6}), clip
    )
    projection = algorithm.model.visual.proj
    with torch.no_grad():
        projection.zero_()
        projection.fill_diagonal_(1.0)  # its columns are unit vectors
    algorithm.logits(ROWS)
    algorithm.error(ROWS, torch.tensor(7.0)).backward()
    assert projection.grad.isfinite().all()
    assert projection.grad.abs().max() < 1e3


def test_carots_teacher_is_updated_in_a_run_of_any_length(clip):
    algorithm, _ = ready(
        with_defaults(CalibratedRobustFineTuning, **{**CAROT, "interval": 0.02}), clip
    )
    algorithm.steps = 5
    before = {name: tensor.clone() for name, tensor in algorithm.memory.items()}
    optimizer = torch.optim.SGD([parameter for _, parameter in algorithm.trainable()], lr=0.0)
    with torch.no_grad():
        algorithm.model.visual.proj += 1.0
    algorithm.update(optimizer)
    moved = [name for name in before if not torch.equal(before[name], algorithm.memory[name])]
    assert moved == ["visual.proj"]


@pytest.mark.parametrize("limits", [(2**31, 0), (0, 2**31), (0, 0)])
def test_lipsum_ft_adds_half_the_mean_squared_gap_of_energies(clip, limits, monkeypatch):
    on_gpu, on_host = limits
    monkeypatch.setattr(_distil, "LARGEST_STORED", on_gpu)
    monkeypatch.setattr(_distil, "LARGEST_OF_TEACHER_ON_HOST", on_host)
    algorithm, _ = ready(with_defaults(LipsumFineTuning, **{**LIPSUM, "weight": 0.6}), clip)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in algorithm.model.visual.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    penalties = {}
    for step in (0, 3):
        algorithm.step = step
        logits = algorithm.logits(ROWS)
        assert torch.equal(logits, algorithm.model(algorithm.images[ROWS]))

        penalties[step] = algorithm.penalty(ROWS, logits)

        tokens = algorithm.task.text.random(5, 3, np.random.default_rng([0, step, 3]))
        after = np.array(similarities(together(algorithm).eval(), ROWS, tokens))
        before = np.array(similarities(clip, ROWS, tokens))
        assert after.shape == (len(ROWS), 5)
        expected = 0.6 * ((after - before) ** 2).mean() / 2
        assert expected > 1e-3
        assert penalties[step].item() == pytest.approx(expected, rel=1e-3)
    first_penalty, last_penalty = penalties.values()
    assert first_penalty.item() != last_penalty.item()
    last_penalty.backward()
    assert algorithm.model.visual.proj.grad.any()
    for parameter in algorithm.task.text.tower.parameters():
        assert parameter.grad is None


def test_lipsum_ft_trains_the_network_alone_and_without_a_weight_it_is_ft(clip):
    def train_images(untrained):
        """What an algorithm changes; it leaves the text tower alone."""
        algorithm, before = ready(untrained, clip)
        _, changed, _ = train(algorithm, before, TRAINING, RUN, CPU)
        for key, tensor in algorithm.task.text.tower.state_dict().items():
            assert torch.equal(tensor, clip.state_dict()[key]), key
        return changed

    by_lipsum_ft = train_images(with_defaults(LipsumFineTuning, **{**LIPSUM, "weight": 0.0}))
    by_ft = train_images(with_defaults(FullFineTuning, lr=0.001))
    torch.testing.assert_close(by_lipsum_ft, by_ft, rtol=0, atol=0)


def test_lipsum_ft_in_micro_batches_is_the_whole_batch(clip):
    def train_in(micro_batch_size):
        """Losses of the epochs, and what is changed."""
        algorithm, before = ready(with_defaults(LipsumFineTuning, **LIPSUM), clip)
        training = replace(TRAINING, micro_batch_size=micro_batch_size)
        history, changed, _ = train(algorithm, before, training, RUN, CPU)
        return [epoch["loss"] for epoch in history], changed

    losses, changed = train_in(ALL)
    losses_in_twos, changed_in_twos = train_in(2)
    torch.testing.assert_close(changed, changed_in_twos, rtol=1e-3, atol=1e-5)
    assert losses == pytest.approx(losses_in_twos, rel=1e-4)


def test_random_texts_have_the_frame_of_the_tokenizers_own(clip):
    # tokens of the tokenizer of open_clip
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tokens = text_tokens(tokenizer, NAMES)
    assert tokens["prompts"].dtype == torch.int32
    assert tokens["prompts"].shape == (6, 3, 77)
    assert torch.equal(tokens["prompts"][2, 1].long(), tokenizer(["my cat"])[0])
    assert tokens["before"].tolist() == [49406]
    assert tokens["after"].tolist() == [49407] + [0] * 75
    assert tokens["words"].tolist() == list(range(1, 49406))

    # texts of three words that are drawn: a start, the words, an end and padding
    _, text = taken_apart(clip)
    texts = text.random(200, 3, np.random.default_rng(0))
    start, first_word, second_word, third_word, end, *padding = texts.T.tolist()
    assert set(start) == {62}
    assert {*first_word, *second_word, *third_word} == set(range(1, 62))
    assert set(end) == {63}
    for position in padding:
        assert set(position) == {0}

    # where a class token comes last, padding makes room for words
    end_padding_and_class_token = torch.tensor([9, 0, 0, 0, 5])
    no_start = text.before[:0]
    with_class_token_last = replace(text, before=no_start, after=end_padding_and_class_token)
    (random_text,) = with_class_token_last.random(1, 2, np.random.default_rng(0))
    _, _, *after_words = random_text.tolist()
    assert after_words == [9, 0, 5]


def test_with_a_frozen_head_the_rest_is_trained_as_in_ft(network, target):
    """On any network; with ft's own gradient."""
    with_frozen_head, _ = trained(with_defaults(FrozenHead, lr=0.01), network, target)
    by_ft, _ = trained(with_defaults(FullFineTuning, lr=0.01), network, target)
    head = {name for name, _ in head_parameters(network)}
    before = network.state_dict()
    after = with_frozen_head.state_dict()
    after_ft = by_ft.state_dict()
    for name, _ in network.named_parameters():
        is_in_head = name in head
        assert torch.equal(before[name], after[name]) == is_in_head, name
        assert not torch.equal(before[name], after_ft[name]), name

    one_step = replace(TRAINING, epochs=1, batch_size=10)
    with_frozen_head, _ = trained(with_defaults(FrozenHead, lr=0.01), network, target, one_step)
    by_ft, _ = trained(with_defaults(FullFineTuning, lr=0.01), network, target, one_step)
    parameters_of_ft = dict(by_ft.named_parameters())
    for name, parameter in with_frozen_head.named_parameters():
        is_in_head = name in head
        assert torch.equal(parameter, parameters_of_ft[name]) != is_in_head, name


@pytest.mark.parametrize("method", ["flyp", "carot", "lipsum_ft", "ft_frozen_head"])
def test_a_killed_training_goes_on_to_the_same_bytes(method, clip, tmp_path, monkeypatch):
    """Within an epoch, after it, and after the teacher has moved."""

    def train_anew(saved=None):
        torch.manual_seed(0)
        algorithm, before = ready(new_algorithm(method), clip)
        return train(algorithm, before, ADAMW, RUN, CPU, saved)

    # given
    history, changed, _ = train_anew()
    assert "visual.proj" in changed
    # when it is killed three times
    state = tmp_path / "state.pt"
    monkeypatch.setattr(training_state, "SAVE_EVERY", 0)
    counter = interrupt_trainings(monkeypatch, [1, 2, 3])
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_anew(state)
    history_after_kills, changed_after_kills, _ = train_anew(state)
    # then it did not begin again, and comes to the same end
    assert counter.steps < 6
    assert history_after_kills == history
    assert changed_after_kills.keys() == changed.keys()
    for key, tensor in changed.items():
        assert torch.equal(changed_after_kills[key], tensor), key


def test_what_a_model_lacks_is_a_sentence(clip):
    with pytest.raises(ValueError, match="room for 6 tokens, not for 7"):
        ready(with_defaults(LipsumFineTuning, **{**LIPSUM, "length": 7}), clip)
    with pytest.raises(ValueError, match="pretrained with a sigmoid loss"):
        ready(new_algorithm("carot"), open_clip_model("siglip_clip"), "siglip_clip")
    with pytest.raises(ValueError, match="no linear projection"):
        ready(new_algorithm("carot"), open_clip_model("convnext_clip_mlp"), "convnext_clip_mlp")


@pytest.mark.parametrize(
    "name", ["clip_vit", "clip_resnet", "convnext_clip", "pe_clip", "eva02_clip", "mobileclip2"]
)
def test_the_constrained_projection_is_the_last_of_the_image_tower(name):
    """Features are linear in it, up to a bias."""
    visual = open_clip_model(name).visual
    pixels = pixels_of(name)
    with torch.no_grad():
        projection = visual_projection(visual)
        features = visual(pixels)
        projection *= 2.0
        features_of_double = visual(pixels)
        projection *= 0.0
        features_of_zero = visual(pixels)
    assert projection.shape[1] == features.shape[1]
    assert not torch.equal(features, features_of_zero)
    torch.testing.assert_close(
        features_of_double - features, features - features_of_zero, rtol=1e-3, atol=1e-4
    )


def with_dropout(algorithm):
    """Dropout in the image tower, in training mode, before its projection."""
    visual = algorithm.model.visual
    visual.ln_post = torch.nn.Sequential(visual.ln_post, torch.nn.Dropout(0.3))
    algorithm.train_mode()
    return visual


def step_in(algorithm, rows, size):
    """Loss, cross-entropy, accuracy and norm of a step, and gradients by name; nothing changes."""
    algorithm.steps = 100  # of which this is the first, after which CaRot's teacher stays
    parameters = dict(algorithm.trainable())
    optimizer = torch.optim.SGD(parameters.values(), lr=0.0)
    training = replace(TRAINING, batch_size=len(rows), micro_batch_size=size)
    means = take_step(algorithm, optimizer, rows, training)
    return means, {name: parameter.grad.clone() for name, parameter in parameters.items()}


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("flyp", "clip_vit"),
        ("flyp", "clip_resnet"),
        ("flyp", "siglip_clip"),
        ("carot", "clip_vit"),
        ("carot", "clip_resnet"),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_contrastive_losses_in_micro_batches_are_those_of_the_whole_batch(method, name, size):
    """With every gradient: of both towers, the scale, SigLIP's bias and CaRot's constraint."""
    algorithm, _ = ready(new_algorithm(method), open_clip_model(name), name)
    rows = np.array([4, 0, 9, 3, 7, 1, 2])
    if method == "carot":  # a teacher that differs from the student
        with torch.no_grad():
            for parameter in algorithm.memory.values():
                parameter += 0.05 * torch.randn_like(parameter)
    means, gradients = step_in(algorithm, rows, ALL)
    means_of_parts, gradients_of_parts = step_in(algorithm, rows, size)
    torch.testing.assert_close(means_of_parts, means, rtol=1e-4, atol=1e-6)
    for key, gradient in gradients.items():
        tolerance = 1e-4 * gradient.abs().max().item() + 1e-7
        found = gradients_of_parts[key]
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=tolerance, msg=key)


def test_both_passes_of_a_contrastive_loss_draw_the_same_random_numbers(clip):
    """The reference keeps the graphs of all micro-batches, with open_clip's own loss."""
    # given
    rows = np.array([4, 0, 9, 3, 7, 1, 2])
    algorithm, _ = ready(new_algorithm("flyp"), clip)
    visual = with_dropout(algorithm)
    reference = copy.deepcopy(algorithm.task.text.tower)
    reference.visual = copy.deepcopy(visual)
    # when
    torch.manual_seed(5)
    means, gradients = step_in(algorithm, rows, 3)
    drawn_after = torch.rand(3)
    # then
    torch.manual_seed(5)
    pixels = pixels_of()
    parts = [reference.encode_image(pixels[rows[i : i + 3]], normalize=True) for i in (0, 3, 6)]
    drawn_after_reference = torch.rand(3)
    captions = reference.encode_text(algorithm.captions(rows).long(), normalize=True)
    loss = open_clip.ClipLoss()(torch.cat(parts), captions, reference.logit_scale.exp())
    loss.backward()
    assert means[0].item() == pytest.approx(loss.item(), rel=1e-5)
    for key, parameter in reference.named_parameters():
        found = gradients[key if key.startswith("visual.") else f"text.{key}"]
        tolerance = 1e-4 * parameter.grad.abs().max().item() + 1e-7
        torch.testing.assert_close(found, parameter.grad, rtol=1e-3, atol=tolerance, msg=key)
    assert torch.equal(drawn_after, drawn_after_reference), "the next step draws new numbers"
    # and dropout matters
    torch.manual_seed(6)
    other_means, _ = step_in(algorithm, rows, 3)
    assert other_means[0].item() != pytest.approx(means[0].item(), rel=1e-4)


@pytest.mark.parametrize("method", ["flyp", "carot"])
def test_a_training_with_a_contrastive_loss_in_micro_batches_is_the_whole_batchs(method, clip):
    def train_in(micro_batch_size):
        algorithm, before = ready(new_algorithm(method), clip)
        training = replace(TRAINING, micro_batch_size=micro_batch_size)
        history, changed, _ = train(algorithm, before, training, RUN, CPU)
        return [epoch["loss"] for epoch in history], changed

    losses, changed = train_in(ALL)
    losses_in_threes, changed_in_threes = train_in(3)
    torch.testing.assert_close(changed, changed_in_threes, rtol=1e-3, atol=1e-5)
    assert losses == pytest.approx(losses_in_threes, rel=1e-4)


def test_contrastive_losses_are_refused_on_fewer_images_than_a_batch_has():
    def train_with(batch_size):
        algorithm = with_defaults(FinetuneLikeYouPretrain, lr=0.001)
        algorithm, before = ready(algorithm, open_clip_model("clip_vit"))
        training = replace(TRAINING, batch_size=batch_size, epochs=1)
        return train(algorithm, before, training, RUN, CPU)

    images = len(photos("clip_vit").labels)
    refused = rf"method {RUN.method} .*{RUN.target}.* {images} .*training\.batch_size"
    with pytest.raises(UserError, match=refused):
        train_with(images + 1)
    history, _, _ = train_with(images)
    assert len(history) == 1


def test_contrastive_losses_are_refused_in_micro_batches_where_batch_norm_follows_them():
    def train_in(micro_batch_size, name="clip_resnet", batch_norm="train"):
        algorithm = with_defaults(FinetuneLikeYouPretrain, lr=0.001, batch_norm=batch_norm)
        algorithm, before = ready(algorithm, open_clip_model(name), name)
        training = replace(TRAINING, micro_batch_size=micro_batch_size, epochs=1)
        train(algorithm, before, training, RUN, CPU)
        return algorithm

    refused = rf"method {RUN.method} .*model {RUN.model} .*training\.micro_batch_size to all"
    with pytest.raises(UserError, match=refused):
        train_in(3)
    # a batch that neither fits nor may be split must be smaller; others can be split
    assert "training.batch_size" in setting_of_training_memory(train_in(4))
    split = "training.micro_batch_size"
    assert split in setting_of_training_memory(train_in(3, batch_norm="frozen"))
    assert split in setting_of_training_memory(train_in(3, name="clip_vit"))
