"""Recipes of merges: which states, with which weights, chosen how."""

import copy
import logging

import numpy as np
import pytest
import safetensors.torch
import torch

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.settings import LIBRARY, algorithm_settings
from rib.data.view import DatasetFiles
from rib.evaluation.recipes import run_states, write_recipe
from rib.evaluation.select_weights import select_weights
from rib.evaluation.settings import MergeSettings, SelectionSettings
from tiny.training import (
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


@pytest.fixture
def manifests(tmp_path):
    """Of the checkpoints of ft and lwf."""
    paths = [tmp_path / f"{name}.json" for name in ("ft", "lwf")]
    for path in paths:
        write_json(
            path,
            {"files": {"checkpoint.safetensors": f"hash of {path.stem}", "history.csv": "other"}},
        )
    return paths


def recipe_of(tmp_path, algorithm, parents, manifests, **settings):
    path = tmp_path / "recipe.json"
    form, _ = algorithm_settings(algorithm)
    write_recipe(
        run=RUN,
        manifests=manifests,
        settings=MergeSettings(
            algorithm=str(algorithm), settings=settings, parents=parents, form=form, code=CODE
        ),
        recipe=path,
    )
    return path


def test_a_recipe_names_states_weights_and_the_checkpoints_they_are_made_from(tmp_path, manifests):
    path = recipe_of(tmp_path, LIBRARY / "methods/soup.py", ["ft", "lwf"], manifests)
    weights = dict.fromkeys(["pretrained", "ft", "lwf"], 1 / 3)
    assert read_json(path) == {
        "states": [{"alpha": None, "weights": weights}],
        "checkpoints": {"ft": "hash of ft", "lwf": "hash of lwf"},
        "candidates": [],
    }
    assert run_states("soup", path) == [(None, weights)]
    path = recipe_of(tmp_path, LIBRARY / "methods/wise_ft.py", ["ft"], manifests[:1], alpha=0.25)
    assert run_states("wise_ft", path) == [(None, {"pretrained": 0.75, "ft": 0.25})]


def test_a_curves_recipe_has_a_state_per_alpha_in_order(tmp_path, manifests):
    path = recipe_of(tmp_path, LIBRARY / "methods/wise_ft_curve.py", ["ft"], manifests[:1], steps=2)
    wanted = [(alpha, {"pretrained": 1 - alpha, "ft": alpha}) for alpha in (0.0, 0.5, 1.0)]
    assert run_states("curve", path) == wanted
    assert read_json(path)["checkpoints"] == {"ft": "hash of ft"}


def test_a_run_that_is_no_merge_has_its_own_state():
    assert run_states("lwf", None) == [(None, {"lwf": 1.0})]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def recipe(parents): raise ValueError('no such thing')", r"mine\.py: no such thing"),
        ("def recipe(parents): return {'ft': 0.5, 'lwf': 0.6}", r"mine\.py: .* 1\.1, "),
        ("def recipe(parents): return {'ft': 0.9}", r" 0\.9, "),
        ("def curve(parents): return {0: {'ft': 1}, 1: {'ft': 2}}", " 2, "),
    ],
)
def test_a_recipe_that_does_not_add_up_is_refused(tmp_path, manifests, source, message):
    (tmp_path / "mine.py").write_text(source + "\n")
    with pytest.raises(UserError, match=message):
        recipe_of(tmp_path, tmp_path / "mine.py", ["ft", "lwf"], manifests)
    assert not (tmp_path / "recipe.json").exists()


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """Folders, the pretrained network and two that lie around it.

    The two differ in what they get right.
    """
    top, network = tmp_path_factory.mktemp("selection"), resnet()
    networks, files = {"pretrained": network}, {}
    for seed, name in enumerate(("ft", "lwf"), start=1):
        model, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
        model.fc.weight.data += 0.3 * torch.randn(model.fc.weight.shape, generator=generator)
        files[name] = top / f"{name}.safetensors"
        safetensors.torch.save_file({"fc.weight": model.fc.weight.data}, files[name])
        networks[name] = model
    images = random_images(40, 32, seed=1)
    return {
        "model": model_folder(top / "model", network),
        "target": prepared_folder(top / "target", images),
        "images": images,
        "files": files,
        "networks": networks,
    }


def chosen(parents, names, manifests, algorithm, tmp_path, **settings):
    select_weights(
        model_folder=parents["model"],
        target=DatasetFiles(
            "set", parents["target"], split=split_file(tmp_path / "split.parquet", 40)
        ),
        checkpoints=parents["files"],
        manifests=manifests[: len(names)],
        settings=SelectionSettings(
            algorithm=str(algorithm),
            settings=settings,
            parents=names,
            view=VIEW,
            evaluation_batch_size=7,
            compute=COMPUTE,
            code=CODE,
        ),
        recipe=tmp_path / "recipe.json",
    )
    return read_json(tmp_path / "recipe.json")


def accuracy(parents, weights):
    """On the select split, of the weights' average, written out."""
    images, model = parents["images"], copy.deepcopy(parents["networks"]["pretrained"])
    model.fc.weight.data = sum(
        weight * parents["networks"][name].fc.weight.data for name, weight in weights.items()
    )
    rows = rows_of("select", 40)
    with torch.no_grad():
        scores = masked(model(normalised(images.images[rows], MEAN, STD)), SPACE)
    return float((scores.argmax(dim=1).numpy() == images.labels[rows]).mean()), len(rows)


def test_alpha_is_chosen_by_the_accuracy_on_the_select_split(
    parents, manifests, tmp_path, progress, caplog
):
    caplog.set_level(logging.INFO, "rib")
    found = chosen(
        parents, ["ft"], manifests, LIBRARY / "methods/wise_ft_selected.py", tmp_path, steps=4
    )
    states = [{"pretrained": 1 - alpha, "ft": alpha} for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)]
    right = [accuracy(parents, weights) for weights in states]
    assert right[0][1] == 8 and len(set(right)) > 1
    assert found["candidates"] == [
        {"weights": weights, "accuracy": round(share, 6), "images": n}
        for weights, (share, n) in zip(states, right, strict=True)
    ]
    assert progress() == [("selecting on set", n, n, "image") for _, n in right]
    assert f"{100 * right[2][0]:.1f} % of {right[2][1]} select images" in caplog.text
    best = states[int(np.argmax([share for share, _ in right]))]
    assert found["states"] == [{"alpha": None, "weights": best}]
    assert found["checkpoints"] == {"ft": "hash of ft"}


def test_a_greedy_soup_is_chosen_by_the_accuracy_on_the_select_split(parents, manifests, tmp_path):
    found = chosen(parents, ["ft", "lwf"], manifests, LIBRARY / "methods/greedy_soup.py", tmp_path)
    for candidate in found["candidates"]:
        assert candidate["accuracy"] == pytest.approx(
            accuracy(parents, candidate["weights"])[0], abs=1e-6
        )
    alone = {name: accuracy(parents, {name: 1.0})[0] for name in ("pretrained", "ft", "lwf")}
    ranked = sorted(alone, key=alone.get, reverse=True)
    soup = ranked[:1]
    for name in ranked[1:]:
        before, after = (
            accuracy(parents, dict.fromkeys(s, 1 / len(s)))[0] for s in (soup, [*soup, name])
        )
        if after >= before:
            soup.append(name)
    assert found["states"][0]["weights"] == dict.fromkeys(soup, 1 / len(soup))


def test_a_state_that_is_asked_for_again_is_scored_once(parents, manifests, tmp_path):
    source = (
        "def select(parents, score):\n"
        "    first = score({'pretrained': 0.5, 'ft': 0.5})\n"
        "    assert score({'ft': 0.5, 'pretrained': 0.5}) == first\n"
        "    return {'ft': 1.0}\n"
    )
    (tmp_path / "mine.py").write_text(source)
    found = chosen(parents, ["ft"], manifests, tmp_path / "mine.py", tmp_path)
    assert len(found["candidates"]) == 1 and found["states"] == [
        {"alpha": None, "weights": {"ft": 1.0}}
    ]
