"""Pretraining here.

Nested parts, the same bytes after a kill, what is reported, and what is refused.
"""

import csv
import logging
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from rib.base.errors import UserError
from rib.base.files import read_json, sha256
from rib.config.run import ALL
from rib.data.prepared import PreparedDataset
from rib.data.view import DatasetFiles
from rib.models.inputs import Inputs
from rib.models.network import build, load
from rib.training import finetune
from rib.training import pretrain as pretraining
from rib.training import training_state as resume
from rib.training.pretrain import PretrainingOutput, pretrain
from rib.training.settings import PretrainingSettings, TrainingSettings
from tiny.changed import replace
from tiny.photos import GEOMETRY, INDICES, WNIDS, jpeg, prepare_into, tar
from tiny.training import CODE, COMPUTE, CPU, HALF, VIEW, trained_by_hand

ENTRY = {
    "name": "net",
    "library": "timm",
    "arguments": {},
    "architecture": "test_resnet",
    "pretraining": "photos",
    "licence": "none",
    "preprocessing": {
        "input_size": 32,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": HALF,
        "std": HALF,
    },
}
HOW = {
    "dataset": "photos",
    "size": "all",
    "test": "others",
    "epochs": 6,
    "batch_size": 8,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "warmup_fraction": 0.1,
    "seed": 0,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Photos of four classes by colour, and others of the same classes."""
    top, found = tmp_path_factory.mktemp("photos"), {}
    for group, numbers in {"photos": range(6), "others": range(6, 9)}.items():
        files = {f"x/{WNIDS[i]}/{n}.jpg": jpeg(i, (40 + n, 36)) for i in INDICES for n in numbers}
        (top / group).mkdir()
        archive = tar(top / f"{group}.tar", files)
        prepare_into(top / group, "class_folders", archive, source_group=group)
        found[group] = top / group
    return found


def trained(folders, out, test="others", training=None, **how):
    """What a job does; returns model.json.

    `training` has settings of a recipe, in place of SGD's.
    """
    out.mkdir(exist_ok=True)
    how = {**HOW, **how}
    schedule = {key: how[key] for key in ("momentum", "weight_decay", "warmup_fraction")}
    schedule = {**schedule, "warmup_steps": 10**9, **(training or {})}
    pretrain(
        dataset=DatasetFiles(HOW["dataset"], folders["photos"]),
        test=DatasetFiles(HOW["test"], folders[test]),
        settings=PretrainingSettings(
            entry={**ENTRY, "pretrain": how},
            num_classes=1000,
            training=TrainingSettings(
                epochs=None if "steps" in how else how["epochs"],
                steps=how.get("steps"),
                batch_size=how["batch_size"],
                micro_batch_size=ALL,
                **schedule,
            ),
            view=replace(VIEW, geometry=GEOMETRY),
            compute=COMPUTE,
            code=CODE,
        ),
        output=PretrainingOutput(
            weights=out / "weights.safetensors",
            description=out / "model.json",
            history=out / "history.csv",
            saved=out / "state.pt",
            rescue=out / "rescued.safetensors",
        ),
    )
    return read_json(out / "model.json")


def test_a_pretrained_network_is_loaded_as_a_published_one_and_has_the_accuracy_it_states(
    folders, tmp_path
):
    facts = trained(folders, tmp_path / "all")
    assert facts["trained"]["images"] == 24 and facts["trained"]["test"]["images"] == 12
    network, _ = load(tmp_path / "all", CPU)
    others = PreparedDataset.open(folders["others"], "others")
    pixels = torch.from_numpy(np.array(others.images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        scores = network(pixels)[:, INDICES]
    right = (scores.argmax(dim=1).numpy() == others.labels).mean()
    assert facts["trained"]["test"] == {
        "dataset": "others",
        "images": 12,
        "accuracy": pytest.approx(100 * right),
    }
    assert right > 0.5, "colours are learned"
    with open(tmp_path / "all/history.csv") as file:
        history = list(csv.DictReader(file))
    assert len(history) == 6 and float(history[-1]["cross_entropy"]) < float(
        history[0]["cross_entropy"]
    )


def test_pretraining_is_the_training_loop_of_fine_tuning_from_random_weights(
    folders, tmp_path, progress, caplog
):
    """Reference: the loop written out, with BatchNorm in training mode.

    Warm-up is bounded by its share of all steps alone.
    """
    how = {
        "epochs": 2,
        "weight_decay": 0.05,
        "momentum": 0.8,
        "warmup_fraction": 0.5,
        "seed": 4,
        "lr": 0.05,
    }
    caplog.set_level(logging.INFO, "rib")
    facts = trained(folders, tmp_path / "net", **how)
    run = "net/photos/pretraining/all/4"
    assert progress() == [(f"training {run}", 48, 48, "image"), ("testing net", 12, 12, "image")]
    right = round(0.12 * facts["trained"]["test"]["accuracy"])
    assert f"net: {right} of 12 images of others" in caplog.text
    torch.manual_seed(4)
    network = build("timm", "test_resnet", 1000)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    photos = PreparedDataset.open(folders["photos"], "photos")
    pixels = torch.from_numpy(np.array(photos.images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    training = SimpleNamespace(**{**HOW, **how}, warmup_steps=math.inf)
    history = trained_by_hand(
        network.train(), pixels, photos.labels, photos.space, 0.05, training, 4
    )
    stored = safetensors.torch.load_file(tmp_path / "net/weights.safetensors")
    assert stored.keys() == start.keys() and stored["bn1.num_batches_tracked"] == 2 * 3
    for name, wanted in network.state_dict().items():
        moved = (wanted - start[name]).float().abs().max().item()
        torch.testing.assert_close(
            stored[name], wanted, rtol=0, atol=0.05 * moved + 1e-6, msg=lambda m, n=name: n + m
        )
    with open(tmp_path / "net/history.csv") as file:
        for row, wanted in zip(csv.DictReader(file), history, strict=True):
            assert {name: float(value) for name, value in row.items()} == pytest.approx(
                wanted, rel=1e-3
            )
    del facts["trained"]
    entry = {key: value for key, value in ENTRY.items() if key != "pretrain"}
    source = {"pretrain": {**HOW, **how}}
    assert facts == {**entry, "source": source, "num_classes": 1000, "head": {"from": "pretrained"}}


def test_a_recipe_trains_and_shifts_are_seen_in_training_alone(
    folders, tmp_path, progress, monkeypatch
):
    """AdamW with clipping for seven steps of 8 of 24 images; the test sees images as they are."""
    adamw = {"optimizer": "adamw", "clip_norm": 1.0, "warmup_steps": 2, "momentum": 0.9}
    # The photos have one colour each, which no shift changes: noise takes their place.
    noise = np.random.default_rng(0)
    noisy = {}
    for name, folder in folders.items():
        noisy[name] = shutil.copytree(folder, tmp_path / f"noisy {name}")
        shape = np.load(folder / "images.npy").shape
        np.save(noisy[name] / "images.npy", noise.integers(0, 256, shape, dtype=np.uint8))
    seen = []
    read = Inputs.__getitem__

    def noted(inputs, rows):
        batch = read(inputs, rows)
        as_stored = Inputs(inputs.images, HALF, HALF, CPU, inputs.rows)
        seen.append((inputs.epoch, torch.equal(batch, read(as_stored, rows))))
        return batch

    monkeypatch.setattr(Inputs, "__getitem__", noted)
    facts = trained(noisy, tmp_path / "net", training=adamw, steps=7, shift=4, lr=1e-3)
    assert progress()[0] == ("training net/photos/pretraining/all/0", 56, 56, "image")
    in_training = [unchanged for epoch, unchanged in seen if epoch is not None]
    assert len(in_training) == 7 and not any(in_training)
    assert all(unchanged for epoch, unchanged in seen if epoch is None)
    assert facts["source"]["pretrain"]["shift"] == 4
    digests = {}
    for name, how in {"again": {}, "less": {"shift": 1}, "sgd": {"training": {}}}.items():
        settings = {"training": adamw, "steps": 7, "shift": 4, "lr": 1e-3, **how}
        trained(noisy, tmp_path / name, **settings)
        digests[name] = sha256(tmp_path / name / "weights.safetensors")
    assert digests["again"] == sha256(tmp_path / "net/weights.safetensors")
    assert len(set(digests.values())) == 3


def test_seed_and_size_decide_and_nothing_else(folders, tmp_path):
    made = {
        name: (
            trained(folders, tmp_path / name, **how),
            sha256(tmp_path / name / "weights.safetensors"),
        )[1]
        for name, how in {
            "a": {},
            "b": {},
            "seed": {"seed": 1},
            "size": {"size": 8},
            "share": {"size": 0.5},
        }.items()
    }
    assert made["a"] == made["b"] and len(set(made.values())) == 4
    images = [
        read_json(tmp_path / name / "model.json")["trained"]["images"]
        for name in ("seed", "size", "share")
    ]
    assert images == [24, 8, 12]


def test_the_seed_of_pretraining_draws_the_augmentation(folders, tmp_path, monkeypatch):
    seeds_of_augmentation = []
    make_augmentation = pretraining.Augmentation

    def noted(names, side, seed):
        seeds_of_augmentation.append(seed)
        return make_augmentation(names, side, seed)

    monkeypatch.setattr(pretraining, "Augmentation", noted)

    for name in ("first", "again"):
        trained(folders, tmp_path / name, training={"augmentation": ["flip"]}, seed=5)

    assert seeds_of_augmentation == [5, 5]
    weights_of_each = {
        sha256(tmp_path / name / "weights.safetensors") for name in ("first", "again")
    }
    assert len(weights_of_each) == 1


def test_a_pretraining_killed_again_and_again_gives_the_same_bytes(folders, tmp_path, monkeypatch):
    trained(folders, tmp_path / "whole", shift=2)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    step, done = finetune._take_step, []

    def breaks(*arguments):
        done.append(1)
        if len(done) in (1, 4, 9, 15):
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(finetune, "_take_step", breaks)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            trained(folders, tmp_path / "killed", shift=2)
    trained(folders, tmp_path / "killed", shift=2)
    assert len(done) == 6 * 3 + 4, "no step was taken twice"
    for name in ("weights.safetensors", "model.json", "history.csv"):
        assert sha256(tmp_path / "killed" / name) == sha256(tmp_path / "whole" / name)


def test_a_divergence_is_refused_and_the_state_before_it_is_kept(folders, tmp_path, monkeypatch):
    step, done = finetune._take_step, []

    def breaks(*arguments):
        done.append(1)
        return step(*arguments) * (float("nan") if len(done) > 7 else 1)

    monkeypatch.setattr(finetune, "_take_step", breaks)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    with pytest.raises(
        UserError, match="model net, .*photos: the loss at epoch 3.*rescued.safetensors.*lr"
    ):
        trained(folders, tmp_path / "net")
    assert not (tmp_path / "net/state.pt").exists(), "it leads nowhere"
    kept = safetensors.torch.load_file(tmp_path / "net/rescued.safetensors")
    assert kept.keys() <= build("timm", "test_resnet").state_dict().keys()
    assert not (tmp_path / "net/weights.safetensors").exists()


def test_testing_on_what_was_trained_on_and_a_size_beyond_the_dataset_are_refused(
    folders, tmp_path
):
    with pytest.raises(UserError, match="others .*24 .*photos"):
        trained(folders, tmp_path / "net", test="photos")
    with pytest.raises(UserError, match=r"pretrain\.size 25: photos has 24 images"):
        trained(folders, tmp_path / "net", size=25)
