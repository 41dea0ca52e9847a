"""A method on a small network: training, and what must hold afterwards."""

import copy
from types import SimpleNamespace

import numpy as np
import safetensors.torch
import torch

from rib.catalog.catalog import Catalog
from rib.catalog.label_space import LabelSpace
from rib.methods.base import Task, load_algorithm
from rib.models.checkpoint import apply
from rib.training.loop import train
from tiny.changed import replace
from tiny.models import training
from tiny.models.training import CPU, RUN, images_of, settings_of
from tiny.projects.project import ROOT

TRAINING = replace(training.TRAINING, batch_size=5)
CATALOG = Catalog([ROOT / "workflow/catalog"])
ALL_ROWS = np.arange(10)


def coloured_images(side: int) -> SimpleNamespace:
    """Ten images of five colours, which a few steps can tell apart."""
    rng = np.random.default_rng(0)
    space = LabelSpace(tuple("abcde"), tuple((10 * i,) for i in range(5)), tuple("abcde"))
    labels = np.arange(10) % 5
    pixels = rng.normal(128, 20, (10, side, side, 3)) + 25 * (labels - 2)[:, None, None, None]
    images = pixels.clip(0, 255).astype(np.uint8)
    return SimpleNamespace(images=images, rows=None, labels=labels, space=space)


def set_up(name, network, images, **settings):
    """An algorithm that is ready to train a copy of the network.

    Args:
        name: of the method in the project's catalogue.
        images: the target and the reference dataset.
        settings: instead of those of the method's entry.
    """
    entry = CATALOG.methods[name]
    algorithm = load_algorithm(
        CATALOG.algorithm_file(entry.algorithm), {**settings_of(entry), **settings}, name
    )
    torch.manual_seed(0)
    target = images_of(images)
    algorithm.setup(Task(copy.deepcopy(network).eval(), target, target, 0))
    return algorithm


def fine_tuned(
    name, network, images, *, pretrained=None, epochs=2, micro_batch_size="all", **settings
):
    """An algorithm that has trained a copy of the network, its history and what it stores.

    It stores what differs from the pretrained network, which is `network` if none is given.
    """
    algorithm = set_up(name, network, images, **settings)
    length_and_recipe = replace(TRAINING, epochs=epochs, micro_batch_size=micro_batch_size)
    history, stored, _ = train(
        algorithm, (pretrained or network).state_dict(), length_and_recipe, RUN, CPU
    )
    return algorithm, history, stored


def check_restored(name, network, algorithm, history, stored, folder):
    """Check that what is stored restores what was trained.

    The logits must be finite and others than before. `folder` is for the checkpoint.
    """
    checkpoint = folder / "c.safetensors"
    safetensors.torch.save_file(stored, checkpoint)
    loaded = safetensors.torch.load_file(checkpoint)
    assert loaded.keys() == stored.keys() and all(
        torch.equal(loaded[key], stored[key]) for key in stored
    )
    restored = apply(copy.deepcopy(network), {name: 1.0}, {name: checkpoint}).eval()
    if not name.startswith(("lora", "visual_prompt")):
        torch.testing.assert_close(
            restored.state_dict(), algorithm.model.state_dict(), rtol=0, atol=0
        )
    algorithm.model.eval()
    with torch.inference_mode():
        logits_before = network(algorithm.images[ALL_ROWS])
        logits_trained = algorithm.logits(ALL_ROWS)
        logits_restored = restored(algorithm.images[ALL_ROWS])
    torch.testing.assert_close(logits_restored, logits_trained, rtol=1e-4, atol=1e-4)
    assert logits_restored.isfinite().all() and not torch.equal(logits_trained, logits_before)
    assert all(np.isfinite(row["loss"]) for row in history)
