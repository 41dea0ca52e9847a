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
from rib.data.dataset import PreparedDataset
from rib.data.view import DatasetFiles
from rib.models.images import Images
from rib.models.network import build, load
from rib.schema.run import ALL
from rib.training import loop
from rib.training import training_state as resume
from rib.training.pretrain import pretrain
from rib.training.training_settings import PretrainingSettings, TrainingSettings
from tiny.changed import replace
from tiny.data.photos import GEOMETRY, INDICES, WNIDS, jpeg, prepare_into, tar
from tiny.models.training import CODE, COMPUTE, CPU, HALF, VIEW, images_of_pixels, trained_by_hand

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


# An entry of augmentations.yaml.
AUGMENTATION = {
    "most": 2,
    "transforms": [["RandomInvert", {"p": 1.0}], ["GaussianNoise", {"sigma": 0.2}]],
}

PHOTOS = 24  # of the dataset that is trained on
OTHERS = 12  # of the dataset that is tested on
STEPS_PER_EPOCH = 3  # batches of 8 photos


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of photos of four classes by colour, and of others of the same classes, by name."""
    top = tmp_path_factory.mktemp("photos")
    folder_of = {}
    for dataset, numbers in {"photos": range(6), "others": range(6, 9)}.items():
        files = {}
        for index in INDICES:
            for number in numbers:
                files[f"x/{WNIDS[index]}/{number}.jpg"] = jpeg(index, (40 + number, 36))
        archive = tar(top / f"{dataset}.tar", files)
        folder_of[dataset] = top / dataset
        folder_of[dataset].mkdir()
        prepare_into(folder_of[dataset], "class_folders", archive, source_group=dataset)
    return folder_of


def pretrain_into(folder, folders, test="others", training=None, **how):
    """Pretrain as a job does, into a folder; gives the content of model.json.

    Args:
        folders: of datasets by name.
        test: name of the dataset that is tested on.
        training: settings of a recipe, in place of SGD's.
        how: of an entry's `pretrain`, in place of those of HOW.
    """
    folder.mkdir(exist_ok=True)
    how = {**HOW, **how}
    epochs = None if "steps" in how else how["epochs"]
    recipe = {
        "momentum": how["momentum"],
        "weight_decay": how["weight_decay"],
        "warmup_fraction": how["warmup_fraction"],
        "warmup_steps": 10**9,
        **(training or {}),
    }
    pretrain(
        dataset=DatasetFiles(HOW["dataset"], folders["photos"]),
        test=DatasetFiles(HOW["test"], folders[test]),
        settings=PretrainingSettings(
            entry={**ENTRY, "pretrain": how},
            num_classes=1000,
            training=TrainingSettings(
                epochs=epochs,
                steps=how.get("steps"),
                batch_size=how["batch_size"],
                micro_batch_size=ALL,
                **recipe,
            ),
            view=replace(VIEW, geometry=GEOMETRY),
            compute=COMPUTE,
            code=CODE,
        ),
        weights=folder / "weights.safetensors",
        description=folder / "model.json",
        history=folder / "history.csv",
        saved=folder / "state.pt",
        rescue=folder / "rescued.safetensors",
    )
    return read_json(folder / "model.json")


def digest_of_weights(folder):
    """Digest of the weights that a pretraining wrote into a folder."""
    return sha256(folder / "weights.safetensors")


def read_history(folder):
    """Rows of the history that a pretraining wrote into a folder, of numbers by column."""
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    return [{column: float(number) for column, number in row.items()} for row in rows]


def pixels_of(dataset):
    """Network inputs (n, 3, H, W) of a dataset, -1 to 1, written out."""
    images = torch.from_numpy(np.array(dataset.images))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def test_a_pretrained_network_is_loaded_as_a_published_one_and_has_the_accuracy_it_states(
    folders, tmp_path
):
    # when
    facts = pretrain_into(tmp_path / "net", folders)
    # then the network has the accuracy that it states
    network, _ = load(tmp_path / "net", CPU)
    others = PreparedDataset.open(folders["others"], "others")
    with torch.inference_mode():
        class_logits = network(pixels_of(others))[:, INDICES]
    predictions = class_logits.argmax(dim=1).numpy()
    accuracy = (predictions == others.labels).mean()
    assert facts["trained"]["images"] == PHOTOS
    assert facts["trained"]["test"] == {
        "dataset": "others",
        "images": OTHERS,
        "accuracy": pytest.approx(100 * accuracy),
    }
    assert accuracy > 0.5, "colours are learned"
    # and the cross-entropy has fallen
    history = read_history(tmp_path / "net")
    assert len(history) == HOW["epochs"]
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]


def test_pretraining_is_the_training_loop_of_fine_tuning_from_random_weights(
    folders, tmp_path, progress, caplog
):
    """Reference: the loop written out, with BatchNorm in training mode.

    Warm-up is bounded by its share of all steps alone.
    """
    # given
    epochs = 2
    seed = 4
    lr = 0.05
    how = {
        **HOW,
        "epochs": epochs,
        "weight_decay": 0.05,
        "momentum": 0.8,
        "warmup_fraction": 0.5,
        "seed": seed,
        "lr": lr,
    }
    caplog.set_level(logging.INFO, "rib")
    # when
    facts = pretrain_into(tmp_path / "net", folders, **how)
    # then it tells of its progress
    images_in_training = epochs * PHOTOS
    progress_of_training = (
        f"training net/photos/pretraining/all/{seed}",
        images_in_training,
        images_in_training,
        "image",
    )
    progress_of_test = ("testing net", OTHERS, OTHERS, "image")
    assert progress() == [progress_of_training, progress_of_test]
    right_answers = round(OTHERS * facts["trained"]["test"]["accuracy"] / 100)
    assert f"net: {right_answers} of {OTHERS} images of others" in caplog.text
    # and weights and history are those of the loop
    torch.manual_seed(seed)
    network = build("timm", "test_resnet", 1000)
    random_weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    photos = PreparedDataset.open(folders["photos"], "photos")
    expected_history = trained_by_hand(
        model=network.train(),
        pixels=pixels_of(photos),
        labels=photos.labels,
        space=photos.space,
        peak=lr,
        training=SimpleNamespace(**how, warmup_steps=math.inf),
        seed=seed,
    )
    stored = safetensors.torch.load_file(tmp_path / "net/weights.safetensors")
    assert stored.keys() == random_weights.keys()
    assert stored["bn1.num_batches_tracked"] == epochs * STEPS_PER_EPOCH
    for name, expected_tensor in network.state_dict().items():
        change = (expected_tensor - random_weights[name]).float().abs().max().item()
        assert torch.allclose(
            stored[name].float(), expected_tensor.float(), rtol=0, atol=0.05 * change + 1e-6
        ), name
    history = read_history(tmp_path / "net")
    for epoch, expected_epoch in zip(history, expected_history, strict=True):
        assert epoch == pytest.approx(expected_epoch, rel=1e-3)
    # and the other facts are those of the entry
    del facts["trained"]
    assert facts == {
        **ENTRY,
        "source": {"pretrain": how},
        "num_classes": 1000,
        "head": {"from": "pretrained"},
    }


def noisy_copies(folders, top):
    """Copies of the prepared datasets in which noise takes the place of each image.

    The photos have one colour each, which no shift changes.
    """
    noise = np.random.default_rng(0)
    folder_of = {}
    for dataset, folder in folders.items():
        folder_of[dataset] = shutil.copytree(folder, top / f"noisy {dataset}")
        shape = np.load(folder / "images.npy").shape
        images = noise.integers(0, 256, shape, dtype=np.uint8)
        np.save(folder_of[dataset] / "images.npy", images)
    return folder_of


def test_a_recipe_trains_and_shifts_are_seen_in_training_alone(
    folders, tmp_path, progress, monkeypatch
):
    """AdamW with clipping for seven steps of 8 of 24 images; the test sees images as they are."""
    # given
    adamw = {"optimizer": "adamw", "clip_norm": 1.0, "warmup_steps": 2, "momentum": 0.9}
    steps = 7
    shift = 4
    usual = {"training": adamw, "steps": steps, "shift": shift, "lr": 1e-3}
    noisy = noisy_copies(folders, tmp_path)
    is_changed_in_training = []
    is_changed_in_test = []
    read_batch = Images.__getitem__

    def read_and_compare(inputs, rows):
        batch = read_batch(inputs, rows)
        inputs_as_stored = images_of_pixels(inputs.pixels, rows=inputs.rows)
        is_changed = not torch.equal(batch, read_batch(inputs_as_stored, rows))
        if inputs.epoch is None:
            is_changed_in_test.append(is_changed)
        else:
            is_changed_in_training.append(is_changed)
        return batch

    monkeypatch.setattr(Images, "__getitem__", read_and_compare)
    # when
    facts = pretrain_into(tmp_path / "net", noisy, **usual)
    # then images are shifted in training alone
    progress_of_training, *_ = progress()
    images_in_training = steps * HOW["batch_size"]
    assert progress_of_training == (
        "training net/photos/pretraining/all/0",
        images_in_training,
        images_in_training,
        "image",
    )
    assert is_changed_in_training == [True] * steps
    assert is_changed_in_test
    assert not any(is_changed_in_test)
    assert facts["source"]["pretrain"]["shift"] == shift
    # and weights depend on the shift and the recipe, and on nothing else
    pretrain_into(tmp_path / "again", noisy, **usual)
    pretrain_into(tmp_path / "smaller shift", noisy, **{**usual, "shift": 1})
    pretrain_into(tmp_path / "sgd", noisy, **{**usual, "training": {}})
    pretrain_into(tmp_path / "augmented", noisy, **usual, augmentation=AUGMENTATION)
    digest = digest_of_weights(tmp_path / "net")
    digest_of_smaller_shift = digest_of_weights(tmp_path / "smaller shift")
    digest_of_sgd = digest_of_weights(tmp_path / "sgd")
    assert digest_of_weights(tmp_path / "again") == digest
    digest_of_augmented = digest_of_weights(tmp_path / "augmented")
    assert len({digest, digest_of_smaller_shift, digest_of_sgd, digest_of_augmented}) == 4


def test_seed_and_size_decide_and_nothing_else(folders, tmp_path):
    # when
    changes = {
        "first": {},
        "again": {},
        "other seed": {"seed": 1},
        "eight images": {"size": 8},
        "half of the images": {"size": 0.5},
    }
    images = {}
    digests = {}
    for name, change in changes.items():
        facts = pretrain_into(tmp_path / name, folders, **change)
        images[name] = facts["trained"]["images"]
        digests[name] = digest_of_weights(tmp_path / name)
    # then
    assert digests.pop("again") == digests["first"]
    assert len(set(digests.values())) == len(digests)
    assert images == {
        "first": PHOTOS,
        "again": PHOTOS,
        "other seed": PHOTOS,
        "eight images": 8,
        "half of the images": PHOTOS // 2,
    }


@pytest.mark.thorough
def test_a_pretraining_killed_again_and_again_gives_the_same_bytes(folders, tmp_path, monkeypatch):
    # given
    how = {"shift": 2, "augmentation": AUGMENTATION}
    pretrain_into(tmp_path / "whole", folders, **how)
    steps_to_be_killed_in = (1, 4, 9, 15)
    steps_begun = 0
    take_step = loop.take_step

    def take_step_or_be_killed(*arguments):
        nonlocal steps_begun
        steps_begun += 1
        if steps_begun in steps_to_be_killed_in:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", take_step_or_be_killed)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    # when
    for _ in steps_to_be_killed_in:
        with pytest.raises(KeyboardInterrupt):
            pretrain_into(tmp_path / "killed", folders, **how)
    pretrain_into(tmp_path / "killed", folders, **how)
    # then
    steps_of_training = HOW["epochs"] * STEPS_PER_EPOCH
    steps_not_finished = len(steps_to_be_killed_in)
    assert steps_begun == steps_of_training + steps_not_finished, "no step was taken twice"
    for name in ("weights.safetensors", "model.json", "history.csv"):
        assert sha256(tmp_path / "killed" / name) == sha256(tmp_path / "whole" / name), name


def test_a_divergence_is_refused_and_the_state_before_it_is_kept(folders, tmp_path, monkeypatch):
    # given
    good_steps = 2 * STEPS_PER_EPOCH + 1
    steps_begun = 0
    take_step = loop.take_step

    def take_step_or_diverge(*arguments):
        nonlocal steps_begun
        steps_begun += 1
        loss = take_step(*arguments)
        return loss if steps_begun <= good_steps else loss * float("nan")

    monkeypatch.setattr(loop, "take_step", take_step_or_diverge)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    # when
    message = "model net, .*photos: the loss at epoch 3.*rescued.safetensors.*lr"
    with pytest.raises(UserError, match=message):
        pretrain_into(tmp_path / "net", folders)
    # then
    assert not (tmp_path / "net/state.pt").exists(), "it leads nowhere"
    rescued = safetensors.torch.load_file(tmp_path / "net/rescued.safetensors")
    assert rescued
    assert rescued.keys() <= build("timm", "test_resnet").state_dict().keys()
    assert not (tmp_path / "net/weights.safetensors").exists()


def test_testing_on_what_was_trained_on_and_a_size_beyond_the_dataset_are_refused(
    folders, tmp_path
):
    with pytest.raises(UserError, match="others .*24 .*photos"):
        pretrain_into(tmp_path / "net", folders, test="photos")
    with pytest.raises(UserError, match=r"pretrain\.size 25: photos has 24 images"):
        pretrain_into(tmp_path / "net", folders, size=25)
