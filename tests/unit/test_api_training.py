"""How the Python interface trains: the settings with which it calls the stage of training.

Nothing is downloaded or trained, so that large datasets can be targets.
"""

import pytest
from torch import nn

from rib import api
from rib.config.run import ALL, NO_TARGET, PRETRAINED, Run
from rib.data.view import DatasetFiles

MODEL = "resnet18.tv_in1k"
STEPS_OF_SKETCH = 10 * 796  # 10 epochs of 50,889 images, 64 in a step


@pytest.fixture
def training_of_call(tmp_path, monkeypatch):
    """Fine-tunes a network of the family imagenet; gives the schedule that its training gets."""
    network = nn.Identity()
    network.run = Run(MODEL, NO_TARGET, PRETRAINED, ALL, 0)
    network.settings = {"family": "imagenet", "models": [MODEL], "cache": str(tmp_path)}
    settings_of_stages = []

    def note_settings(stages, place, made_with, make):
        settings_of_stages.append(made_with["settings"])
        return tmp_path

    stand_ins = {
        "refuse_other_than_pretrained": lambda stages, network: None,
        "model": lambda stages: tmp_path,
        "dataset": lambda stages, name: DatasetFiles(name, tmp_path),
        "network": lambda stages, run, model_folder, states, checkpoints: network,
        "kept": note_settings,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(api._Stages, name, stand_in)

    def finetune(target, **settings):
        settings_of_stages.clear()
        api.finetune(network, target, "ft", **settings)
        (fine_tuning_settings,) = settings_of_stages
        return fine_tuning_settings.training

    return finetune


def length(training):
    """Epochs, steps and whether a part has as many of these as the whole."""
    return training.epochs, training.steps, training.subset_length


def test_a_part_of_a_larger_target_is_trained_for_the_steps_of_the_familys_ceiling(
    training_of_call,
):
    part_of_c = training_of_call("imagenet_c", train_subset=[1000])
    assert length(part_of_c) == (None, STEPS_OF_SKETCH, "steps")


def test_a_part_of_more_images_than_the_ceiling_is_trained_for_the_epochs_of_the_whole(
    training_of_call,
):
    part_of_c = training_of_call("imagenet_c", train_subset=[60_000])
    assert length(part_of_c) == (10, None, "epochs")


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("imagenet_c", {"train_subset": [ALL]}),
        ("imagenet_c", {"train_subset": [1000], "budget": {"max_images_per_dataset": 50_000}}),
        ("imagenet_r", {"train_subset": [1000]}),
    ],
)
def test_whole_targets_and_parts_of_smaller_ones_have_no_ceiling(
    training_of_call, target, settings
):
    training = training_of_call(target, **settings)
    assert length(training) == (10, None, "steps")
