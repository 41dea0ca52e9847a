"""Averages of networks: of which, with which coefficients, chosen how."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.plugins import LIBRARY, load_module
from rib.data.view import DatasetFiles
from rib.evaluation.evaluation_settings import MergeSettings, NetworkSettings
from rib.evaluation.networks import merged_states, states_as_json, states_from_json
from rib.evaluation.select_coefficients import select_coefficients
from rib.schema.entries import MERGES
from tiny.models.training import (
    CODE,
    COMPUTE,
    MEAN,
    RUN,
    SPACE,
    STD,
    VIEW,
    masked,
    model_folder,
    normalised,
    prepared_folder,
    random_images,
    resnet,
    rows_of,
    split_file,
)

IMAGES = 40  # of the target
SELECT_IMAGES = 8  # of these, in the select split


def algorithm_file(algorithm):
    """The file of an algorithm of the library."""
    return LIBRARY / f"methods/{algorithm}.py"


def states_of(algorithm, parents, settings):
    """The networks of a merge.

    Args:
        algorithm: its file.
        parents: methods that are merged.
        settings: of each merge, by the name of its method.
    """
    module = load_module(algorithm)
    (form,) = [
        name
        for name, function in vars(module).items()
        if name in MERGES and function.__module__ == module.__name__
    ]
    merge = MergeSettings(form=form, algorithm=str(algorithm), settings=settings)
    return merged_states(RUN, parents, merge)


# Merges with given coefficients


def test_variants_that_are_evaluated_together_have_a_network_each_with_its_own_setting():
    settings = {"wise_ft-alpha0.25": {"alpha": 0.25}, "wise_ft-alpha0.5": {"alpha": 0.5}}
    assert states_of(algorithm_file("wise_ft"), ["ft"], settings) == [
        ("wise_ft-alpha0.25", None, {"pretrained": 0.75, "ft": 0.25}),
        ("wise_ft-alpha0.5", None, {"pretrained": 0.5, "ft": 0.5}),
    ]


def test_coefficients_are_in_the_order_in_which_a_manifest_has_them(tmp_path):
    """A network that is loaded later is the same to the last bit."""
    states = states_of(algorithm_file("soup"), ["lwf", "ewc", "ft"], {"soup": {"pretrained": True}})
    write_json(tmp_path / "manifest.json", states_as_json(states))
    (stored_state,) = states_from_json(read_json(tmp_path / "manifest.json"))
    (state,) = states
    assert list(state.mixture) == list(stored_state.mixture) == ["ewc", "ft", "lwf", "pretrained"]


def test_a_curve_has_a_network_per_alpha_in_order():
    assert states_of(algorithm_file("wise_ft_curve"), ["ft"], {"curve": {"steps": 2}}) == [
        ("curve", 0.0, {"pretrained": 1.0, "ft": 0.0}),
        ("curve", 0.5, {"pretrained": 0.5, "ft": 0.5}),
        ("curve", 1.0, {"pretrained": 0.0, "ft": 1.0}),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def coefficients(parents): raise ValueError('no such thing')",
            r"mine\.py: no such thing",
        ),
        ("def coefficients(parents): return {'ft': 0.5, 'lwf': 0.6}", r"mine\.py: .* 1\.1, "),
        ("def curve(parents): return {0: {'ft': 1}, 1: {'ft': 2}}", " 2, "),
    ],
)
def test_coefficients_that_do_not_add_up_to_one_are_refused(tmp_path, source, message):
    algorithm = tmp_path / "mine.py"
    algorithm.write_text(source + "\n")
    with pytest.raises(UserError, match=message):
        states_of(algorithm, ["ft", "lwf"], {"mine": {}})


# Merges whose coefficients are chosen on the select split


@dataclass(frozen=True)
class Parents:
    """Networks and their files, and the target on which coefficients are chosen."""

    networks: Mapping[str, torch.nn.Module]  # by method, `pretrained` among them
    checkpoints: Mapping[str, Path]  # by method
    model_folder: Path  # of the pretrained network
    target: DatasetFiles
    images: SimpleNamespace  # of the target


def moved_head(network, seed):
    """A copy of a network whose head is moved at random."""
    moved = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    moved.fc.weight.data += 0.3 * torch.randn(moved.fc.weight.shape, generator=generator)
    return moved


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """The pretrained network and two that lie around it.

    The two differ in what they get right.
    """
    folder = tmp_path_factory.mktemp("selection")
    pretrained = resnet()
    networks = {
        "pretrained": pretrained,
        "ft": moved_head(pretrained, seed=1),
        "lwf": moved_head(pretrained, seed=2),
    }
    checkpoints = {}
    for method in ("ft", "lwf"):
        checkpoints[method] = folder / f"{method}.safetensors"
        changed_tensors = {"fc.weight": networks[method].fc.weight.data}
        safetensors.torch.save_file(changed_tensors, checkpoints[method])
    images = random_images(IMAGES, 32, seed=1)
    target = DatasetFiles(
        "set",
        prepared_folder(folder / "target", images),
        split=split_file(folder / "split.parquet", IMAGES),
    )
    return Parents(
        networks, checkpoints, model_folder(folder / "model", pretrained), target, images
    )


def select(parents, methods, algorithm, folder, **settings):
    """What a merge chooses, as its job writes it.

    Args:
        methods: that are merged.
        algorithm: its file.
        settings: of the merge.
    """
    selection = folder / "selection.json"
    select_coefficients(
        method="chosen",
        model_folder=parents.model_folder,
        target=parents.target,
        checkpoints=parents.checkpoints,
        settings=NetworkSettings(
            merge=MergeSettings(
                form="select", algorithm=str(algorithm), settings={"chosen": settings}
            ),
            parents=methods,
            view=VIEW,
            evaluation_batch_size=7,
            compute=COMPUTE,
            code=CODE,
        ),
        selection=selection,
    )
    return read_json(selection)


def accuracy_of_average(parents, coefficients):
    """Accuracy, 0 to 1, on the select split of the coefficients' average, written out."""
    average = copy.deepcopy(parents.networks["pretrained"])
    average.fc.weight.data = sum(
        coefficient * parents.networks[method].fc.weight.data
        for method, coefficient in coefficients.items()
    )
    rows = rows_of("select", IMAGES)
    inputs = normalised(parents.images.images[rows], MEAN, STD)
    with torch.no_grad():
        class_logits = masked(average(inputs), SPACE)
    is_right = class_logits.argmax(dim=1).numpy() == parents.images.labels[rows]
    return float(is_right.mean())


def accuracy_of_soup(parents, methods):
    """Accuracy of the plain average of some networks."""
    return accuracy_of_average(parents, equal_coefficients(methods))


def equal_coefficients(methods):
    """The coefficients of a plain average."""
    return dict.fromkeys(methods, 1 / len(methods))


def test_alpha_is_chosen_by_the_accuracy_on_the_select_split(parents, tmp_path, progress, caplog):
    # given
    caplog.set_level(logging.INFO, "rib")
    alphas = (0.0, 0.25, 0.5, 0.75, 1.0)
    coefficients_of_alphas = [{"pretrained": 1 - alpha, "ft": alpha} for alpha in alphas]
    accuracies = [
        accuracy_of_average(parents, coefficients) for coefficients in coefficients_of_alphas
    ]
    assert len(set(accuracies)) > 1
    # when
    algorithm = algorithm_file("wise_ft_selected")
    merge = select(parents, ["ft"], algorithm, tmp_path, steps=4)
    # then each alpha was scored
    expected_candidates = []
    for coefficients, accuracy in zip(coefficients_of_alphas, accuracies, strict=True):
        candidate = {
            "coefficients": coefficients,
            "accuracy": round(accuracy, 6),
            "images": SELECT_IMAGES,
        }
        expected_candidates.append(candidate)
    assert merge["candidates"] == expected_candidates
    progress_of_alpha = ("selecting on set", SELECT_IMAGES, SELECT_IMAGES, "image")
    assert progress() == [progress_of_alpha] * len(alphas)
    percent_of_half = 100 * accuracies[alphas.index(0.5)]
    assert f"{percent_of_half:.1f} % of {SELECT_IMAGES} select images" in caplog.text
    # and the first of the best was chosen
    best_coefficients = coefficients_of_alphas[int(np.argmax(accuracies))]
    assert merge["coefficients"] == best_coefficients


def test_a_greedy_soup_is_chosen_by_the_accuracy_on_the_select_split(parents, tmp_path):
    # when
    algorithm = algorithm_file("greedy_soup")
    merge = select(parents, ["ft", "lwf"], algorithm, tmp_path, pretrained=True)
    # then candidates have their accuracy
    assert merge["candidates"]
    for candidate in merge["candidates"]:
        accuracy = accuracy_of_average(parents, candidate["coefficients"])
        assert candidate["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    # and from the best on, each network is added that does no harm
    accuracy_alone = {
        method: accuracy_of_soup(parents, [method]) for method in ("pretrained", "ft", "lwf")
    }
    best, *others = sorted(accuracy_alone, key=accuracy_alone.get, reverse=True)
    soup = [best]
    for method in others:
        larger_soup = [*soup, method]
        if accuracy_of_soup(parents, larger_soup) >= accuracy_of_soup(parents, soup):
            soup = larger_soup
    assert merge["coefficients"] == equal_coefficients(soup)


def test_a_state_that_is_asked_for_again_is_scored_once(parents, tmp_path):
    algorithm = tmp_path / "mine.py"
    algorithm.write_text(
        "def select(parents, score):\n"
        "    first = score({'pretrained': 0.5, 'ft': 0.5})\n"
        "    assert score({'ft': 0.5, 'pretrained': 0.5}) == first\n"
        "    return {'ft': 1.0}\n"
    )
    merge = select(parents, ["ft"], algorithm, tmp_path)
    assert len(merge["candidates"]) == 1
    assert merge["coefficients"] == {"ft": 1.0}


def test_a_selection_of_what_is_not_merged_is_refused(parents, tmp_path):
    algorithm = tmp_path / "mine.py"
    algorithm.write_text("def select(parents, score):\n    return {'ft': 0.5, 'lwf': 0.5}\n")
    with pytest.raises(UserError, match="^mine.py weighs 'lwf', which is not merged"):
        select(parents, ["ft"], algorithm, tmp_path)
    assert not (tmp_path / "selection.json").exists()
