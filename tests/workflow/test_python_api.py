"""The Python API.

The bytes of the workflow, a cache that holds whole results only, one sentence for mistakes.
"""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import yaml
from test_size_analysis import HOW, MODEL, USUAL

import rib
from rib import api
from rib.base.errors import UserError
from rib.jobs.code_digest import closure
from tiny import family
from tiny.project import ROOT, Project, copy_project

pytestmark = pytest.mark.thorough

TARGETS = ["red", "green"]
METHODS = ["ft", "linear_probe", "lwf", "wise_ft"]
PRETRAINED = ("none", "pretrained")  # target and method of a run without training


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of calls: a catalogue with the tiny family, and a cache that tests share."""
    folder = tmp_path_factory.mktemp("api")
    family.make(folder / "mine")
    return {"catalog": str(folder / "mine"), "cache": str(folder / "cache")}


@pytest.fixture(scope="module")
def network(settings):
    """The pretrained network; do not change it."""
    return load_tiny_cnn(settings)


@pytest.fixture(scope="module")
def datasets(settings):
    """Names of all datasets of the tiny family."""
    return rib.list_datasets("tiny", catalog=settings["catalog"])


@pytest.fixture(scope="module")
def tuned(network):
    """Fine-tuned networks by target and method; do not change them."""
    networks = {}
    for target in TARGETS:
        for method in METHODS:
            networks[target, method] = rib.finetune(network, target, method)
    return networks


@pytest.fixture(scope="module")
def networks(network, tuned):
    """The pretrained network and the fine-tuned ones by target and method."""
    return {PRETRAINED: network, **tuned}


@pytest.fixture(scope="module")
def rows(networks, datasets):
    """Rows of all datasets, of each network, by target and method."""
    return {run: rib.evaluate(network, datasets) for run, network in networks.items()}


@pytest.fixture(scope="module")
def workflow(finished):
    """The project whose tiny run is finished; do not change it."""
    project, _ = finished
    return project


@pytest.fixture
def with_family(tmp_path):
    """A folder with a catalogue of the tiny family, mine."""
    family.make(tmp_path / "mine")
    return tmp_path


@pytest.fixture
def own_network(settings):
    """The pretrained network, loaded anew, which a test may change."""
    return load_tiny_cnn(settings)


def load_tiny_cnn(settings, **more_settings):
    """The pretrained network with these settings."""
    return rib.load_model("tiny_cnn", "tiny", **settings, **more_settings)


def checkpoint_of(network, name):
    """Path of one of a fine-tuned network's checkpoints, by its name."""
    return network.files["checkpoints"][name]


def only_file(pattern, settings):
    """The one file of the cache that suits a pattern."""
    (path,) = Path(settings["cache"]).glob(pattern)
    return path


def files_of_cache(cache):
    """All files and folders of a cache but its locks, in order."""
    return sorted(path for path in cache.rglob("*") if path.suffix != ".lock")


def assert_same_bytes(path, expected):
    """That two files have the same bytes."""
    assert path.read_bytes() == expected.read_bytes(), path


def assert_same_tensors(network, expected):
    """That two networks have the same tensors, by name."""
    state = network.state_dict()
    expected_state = expected.state_dict()
    assert state.keys() == expected_state.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected_state[name]), name


def assert_is_one_sentence(message):
    """That a message is one line that ends as a sentence does."""
    assert message.endswith(".")
    assert "\n" not in message


def test_models_and_datasets_are_those_of_the_workflow(workflow, network, settings):
    results = workflow.folder / "results/tiny"

    for name in ("weights.safetensors", "model.json"):
        path = network.files["model_folder"] / name
        assert_same_bytes(path, results / "models/tiny_cnn" / name)
    assert not network.training
    assert network.preprocessing["input_size"] == 160

    red = rib.load_dataset("red", network)
    (prepared,) = (results / "prepare/red").iterdir()
    for name in ("images.npy", "index.parquet", "classes.json"):
        assert_same_bytes(only_file(f"prepare/red/*/{name}", settings), prepared / name)
    assert red.images.shape == (20, 160, 160, 3)
    assert red.labels.shape == (20,)


def test_checkpoints_are_those_of_the_workflow(workflow, tuned):
    for (target, _), network in tuned.items():
        runs = workflow.folder / f"results/tiny/paper/finetune/tiny_cnn/{target}"
        checkpoints = network.files["checkpoints"]
        assert checkpoints
        for name, path in checkpoints.items():
            assert_same_bytes(path, runs / name / "all/0/checkpoint.safetensors")


def load_finished(project, target, method, **settings):
    """The network and the rows of a finished run of a project."""
    run = f"tiny/paper/tiny_cnn/{target}/{method}/all/0"
    return rib.load_run(project.folder, run, catalog=str(project.folder / "mine"), **settings)


def test_rows_and_networks_are_those_of_a_finished_run(workflow, rows, networks):
    """By `load_run`, whose rows are those of the files."""
    for (target, method), rows_of_network in rows.items():
        loaded, loaded_rows = load_finished(workflow, target, method)

        run = f"results/tiny/paper/evaluate/tiny_cnn/{target}/{method}/all/0"
        (file,) = (workflow.folder / run).glob("*.parquet")
        pd.testing.assert_frame_equal(loaded_rows, pd.read_parquet(file))
        pd.testing.assert_frame_equal(rows_of_network, loaded_rows)
        assert_same_tensors(loaded, networks[target, method])


def of_dataset(rows, name):
    """The rows of one dataset, numbered from 0."""
    return rows[rows["dataset"] == name].reset_index(drop=True)


def test_a_loaded_run_is_evaluated_like_any_network(workflow, settings):
    # given
    loaded, loaded_rows = load_finished(workflow, "red", "wise_ft", cache=settings["cache"])
    assert loaded.run.method == "wise_ft"
    # when
    rows = rib.evaluate(loaded, ["green", "blue"])
    # then
    assert set(rows["dataset"]) == {"green", "blue"}
    for name in ("green", "blue"):
        pd.testing.assert_frame_equal(
            of_dataset(rows, name), of_dataset(loaded_rows, name), check_categorical=False
        )


def test_ri_and_mri_are_those_of_the_tables(workflow, rows, network):
    ri, mri = rib.robustness_improvement(pd.concat(rows.values()), network)
    assert len(ri) == len(TARGETS) * len(METHODS)
    assert len(mri) == len(METHODS)
    for name, table in (("ri", ri), ("mri", mri)):
        of_workflow = pd.read_csv(workflow.folder / f"reports/tiny/tables/{name}.csv")
        columns = [column for column in table.columns if column in of_workflow]
        assert name in columns
        pd.testing.assert_frame_equal(
            table[columns],
            of_workflow[columns],
            atol=1e-5,
            check_dtype=False,
            check_index_type=False,
        )


def test_each_image_size_has_its_own_images(settings):
    for size in (32, 48):
        network = load_tiny_cnn(settings, image_size=size)
        red = rib.load_dataset("red", network)
        assert red.images.shape[1:] == (size, size, 3)
        assert network.preprocessing["input_size"] == size


def evaluate_without_names(network):
    """Evaluate a network without names for what was done to it."""
    return rib.evaluate(network, ["red"])


def evaluate_as_mine(network, datasets):
    """Evaluate a network under the name of a method and a target of one's own."""
    return rib.evaluate(network, datasets, method="mine", target="red")


def test_a_network_of_ones_own_training_is_scored_as_it_is(own_network, datasets, tuned, rows):
    """With the weights of a run, the rows are those of the run.

    Without names for what was done it is refused.
    """
    own_network.load_state_dict(tuned["red", "ft"].state_dict())

    own_rows = evaluate_as_mine(own_network, datasets)

    pd.testing.assert_frame_equal(
        own_rows.drop(columns="method"), rows["red", "ft"].drop(columns="method")
    )
    assert set(own_rows["method"]) == {"mine"}
    were_changed = "weights were changed since it was loaded"
    with pytest.raises(rib.UserError, match=were_changed):
        rib.evaluate(own_network, datasets)
    with pytest.raises(rib.UserError, match=were_changed):
        rib.finetune(own_network, "red")
    with pytest.raises(rib.UserError, match="methods start from pretrained ones"):
        rib.finetune(tuned["red", "ft"], "green")


# How a network is changed in place, by what is changed; each gives what takes the change back.
CHANGES = {}


def change(name):
    """Decorates a function that changes a network in place, without a change of its tensors.

    It gives a function that takes the change back.
    """

    def register(change_network):
        CHANGES[name] = change_network
        return change_network

    return register


def negated(module, images, logits):
    """A hook that turns the signs of what a module returns."""
    return -logits


def darkened(module, inputs):
    """A hook that darkens the images before a module gets them."""
    (images,) = inputs
    return (images - 3,)


def replace_module(network, name, module):
    """Put another module in the place of one of a network's; gives what takes it back."""
    before = network.get_submodule(name)
    network.set_submodule(name, module)
    return lambda: network.set_submodule(name, before)


@change("a hook")
def hook_after_the_network(network):
    return network.register_forward_hook(negated).remove


@change("a hook before")
def hook_before_the_network(network):
    return network.register_forward_pre_hook(darkened).remove


@change("a hook of a convolution")
def hook_of_a_convolution(network):
    return network.conv_stem.register_forward_hook(negated).remove


@change("a hook of a normalisation")
def hook_of_a_normalisation(network):
    return network.bn1.register_forward_hook(negated).remove


@change("a hook of all modules")
def hook_of_all_modules(network):
    def negated_for_network(module, inputs, output):
        return -output if module is network else None

    return torch.nn.modules.module.register_module_forward_hook(negated_for_network).remove


@change("another activation")
def another_activation(network):
    return replace_module(network, "bn1.act", torch.nn.Hardtanh(-0.1, 0.1))


@change("another head")
def another_head(network):
    return replace_module(network, "classifier", torch.nn.Linear(256, 1000))


@change("a module in between")
def module_in_between(network):
    with_softmax = torch.nn.Sequential(network.bn2, torch.nn.Softmax(dim=1))
    return replace_module(network, "bn2", with_softmax)


@change("another forward")
def another_forward(network):
    def negated_forward(images):
        return -network.forward_head(network.forward_features(images))

    network.forward = negated_forward
    return lambda: delattr(network, "forward")


@change("another attribute")
def another_attribute(network):
    stride = network.conv_stem.stride
    network.conv_stem.stride = (4, 4)
    return lambda: setattr(network.conv_stem, "stride", stride)


each_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.mark.thorough
@each_change
def test_a_network_is_scored_with_its_modules_hooks_and_attributes(own_network, change):
    """A network is changed without a change of its tensors.

    When it is taken back, it is the same again.
    """
    # given
    torch.manual_seed(0)
    names = ["method", "target"]
    rows_before = rib.evaluate(own_network, ["red", "blue"])
    # when it is changed
    take_back = change(own_network)
    try:
        # then
        assert_scored_as_it_is(own_network, "blue")
        rows_of_changed = evaluate_as_mine(own_network, ["red", "blue"])
        assert not rows_of_changed.drop(columns=names).equals(rows_before.drop(columns=names))
    finally:
        take_back()
    # when the change is taken back, then
    pd.testing.assert_frame_equal(rib.evaluate(own_network, ["red", "blue"]), rows_before)


def called_by_its_user(network, dataset):
    """Logits of a dataset's classes, (images, classes), of a network as its user calls it.

    The classes are outputs of their own.
    """
    mean = torch.tensor(network.preprocessing["mean"]).view(3, 1, 1)
    std = torch.tensor(network.preprocessing["std"]).view(3, 1, 1)
    pixels = torch.from_numpy(dataset.images[:].copy()).permute(0, 3, 1, 2) / 255
    outputs_of_classes = torch.tensor(dataset.space.indices).flatten()
    with torch.inference_mode():
        logits = network((pixels - mean) / std)
    return logits[:, outputs_of_classes]


def assert_scored_as_it_is(network, name):
    """Predictions are those of the network as it is called by its user, in evaluation mode."""
    logits = called_by_its_user(network, rib.load_dataset(name, network))
    rows = evaluate_as_mine(network, [name])
    assert rows["prediction"].tolist() == logits.argmax(dim=1).tolist()
    energy = logits.logsumexp(dim=1)
    assert rows["energy"].to_numpy(float) == pytest.approx(energy, rel=2e-3, abs=1e-3)


@pytest.mark.thorough
@each_change
def test_a_changed_network_needs_a_name_and_is_not_fine_tuned(own_network, change):
    was_changed = "changed since it was loaded"
    take_back = change(own_network)
    try:
        with pytest.raises(rib.UserError, match=was_changed):
            evaluate_without_names(own_network)
        with pytest.raises(rib.UserError, match=was_changed):
            rib.finetune(own_network, "red")
    finally:
        take_back()


def test_scoring_leaves_a_network_as_it_was(own_network):
    """A changed network, which is scored itself.

    Its hooks are called, and its modes and tensors are those of before.
    """
    # given a network in training mode but for one module, with a hook that notes its calls
    modules_called = []
    training_when_called = []

    def note_call(module, images, logits):
        modules_called.append(module)
        training_when_called.append(module.training)

    own_network.register_forward_hook(note_call)
    own_network.train()
    own_network.bn1.eval()
    state_before = {name: tensor.clone() for name, tensor in own_network.state_dict().items()}

    # when
    rows = evaluate_as_mine(own_network, ["red"])

    # then it was called itself, in evaluation mode
    assert modules_called
    assert all(module is own_network for module in modules_called)
    assert not any(training_when_called)
    # and is as before
    assert own_network.training
    assert own_network.bn2.training
    assert not own_network.bn1.training
    assert state_before
    for name, tensor in own_network.state_dict().items():
        assert torch.equal(tensor, state_before[name]), name
    pd.testing.assert_frame_equal(evaluate_as_mine(own_network, ["red"]), rows)


@pytest.mark.thorough
def test_a_buffer_that_no_state_dict_has_is_a_change(settings, monkeypatch):
    # given a network with such a buffer
    load = api.load

    def load_with_scale(folder, device):
        network, facts = load(folder, device)
        network.register_buffer("scale", torch.ones(1), persistent=False)
        return network, facts

    monkeypatch.setattr(api, "load", load_with_scale)
    network = load_tiny_cnn(settings)
    evaluate_without_names(network)
    # when
    network.scale += 1
    # then
    with pytest.raises(rib.UserError, match="weights were changed .*'scale'"):
        evaluate_without_names(network)


def test_names_that_are_given_are_those_of_the_rows(tuned):
    of_green = tuned["green", "ft"]
    rows_with_names = rib.evaluate(of_green, ["red"], "mine", "blue")
    assert set(rows_with_names["method"]) == {"mine"}
    assert set(rows_with_names["target"]) == {"blue"}
    rows_without_names = evaluate_without_names(of_green)
    assert set(rows_without_names["method"]) == {"ft"}
    assert set(rows_without_names["target"]) == {"green"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("head", "returned"),
    [
        (torch.nn.Linear(256, 10), r"\(20, 10\)"),
        (torch.nn.LSTM(256, 1000), "a tuple"),
        (torch.nn.Flatten(0), r"\(5120,\)"),
    ],
)
def test_a_network_that_returns_no_logits_is_refused(own_network, head, returned):
    own_network.classifier = head
    with pytest.raises(rib.UserError, match=f"returns {returned}"):
        evaluate_as_mine(own_network, ["red"])


@pytest.mark.thorough
def test_weights_of_another_type_are_refused(own_network):
    with pytest.raises(rib.UserError, match=r"network\.float\(\)"):
        evaluate_as_mine(own_network.half(), ["red"])


@pytest.mark.thorough
@pytest.mark.parametrize("cache", [".", "0", "1", "cache.0"])
@pytest.mark.parametrize("by_variable", [False, True], ids=["cache", "RIB_CACHE"])
def test_other_settings_are_other_results_whatever_the_cache_is_called(
    with_family, monkeypatch, cache, by_variable
):
    """Settings that are the same text without the digits and points of the cache's name."""
    # given
    monkeypatch.chdir(with_family)
    settings = {"catalog": "mine"}
    if by_variable:
        monkeypatch.setenv("RIB_CACHE", cache)
    else:
        settings["cache"] = cache

    # images of other sizes are other images
    for size in (32, 320, 132):
        network = load_tiny_cnn(settings, image_size=size)
        side = rib.load_dataset("red", network).images.shape[1]
        assert side == size

    # fine-tuning with another weight gives another checkpoint
    def finetune_with_weight(weight):
        return rib.finetune(
            network,
            "red",
            "l2_sp",
            training={"epochs": 1},
            method_settings={"l2_sp": {"weight": weight}},
        )

    tuned = finetune_with_weight(1.05)
    tuned_otherwise = finetune_with_weight(10.5)
    checkpoint = checkpoint_of(tuned, "l2_sp")
    other_checkpoint = checkpoint_of(tuned_otherwise, "l2_sp")
    assert checkpoint.read_bytes() != other_checkpoint.read_bytes()
    for path in tuned.files["checkpoints"].values():
        assert (with_family / cache).resolve() in path.parents


@pytest.mark.thorough
def test_a_network_keeps_its_folders_when_the_working_folder_changes(with_family, monkeypatch):
    # given
    elsewhere = with_family / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(with_family)
    monkeypatch.setenv("HOME", str(with_family))
    network = rib.load_model("tiny_cnn", "tiny", catalog=Path("mine"), cache="~/cache")
    # when
    monkeypatch.chdir(elsewhere)
    evaluate_without_names(network)
    # then
    assert not list(elsewhere.iterdir())
    assert {path.name for path in with_family.iterdir()} == {"mine", "cache", "elsewhere"}


@pytest.mark.thorough
def test_a_moved_cache_is_used_where_it_is(with_family):
    def load_red(cache):
        network = rib.load_model("tiny_cnn", "tiny", catalog=with_family / "mine", cache=cache)
        rib.load_dataset("red", network)

    # given
    before = with_family / "before"
    after = with_family / "after"
    load_red(before)
    before.rename(after)
    files = files_of_cache(after)
    assert files
    # when
    load_red(after)
    # then
    assert files_of_cache(after) == files


@pytest.mark.thorough
def test_limits_of_photos_are_settings_of_a_dataset(settings):
    """A photo above them is refused, so what was prepared with others must not be served."""

    def times_prepared():
        return len(list(Path(settings["cache"]).glob("prepare/copy/*/index.parquet")))

    def folder_of_copy(network):
        stages = api._Stages(api._settings(network), datasets=["copy"])
        return stages.dataset("copy").folder

    with_small_photos = load_tiny_cnn(settings, limits={"photo_megapixels": 2})
    with_large_photos = load_tiny_cnn(settings, limits={"photo_megapixels": 100})
    times_before = times_prepared()

    rib.load_dataset("copy", with_small_photos)
    rib.load_dataset("copy", with_large_photos)

    assert times_prepared() >= times_before + 1
    assert folder_of_copy(with_small_photos) != folder_of_copy(with_large_photos)


def test_nothing_is_made_twice_and_nothing_outside_of_the_cache(with_family, monkeypatch):
    # given
    here = with_family / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    cache = with_family / "cache"
    monkeypatch.setenv("RIB_CACHE", str(cache))

    def finetune():
        network = rib.load_model("tiny_cnn", "tiny", catalog="../mine")
        return rib.finetune(network, "red", training={"epochs": 1})

    # when it is done once, and again without archives
    first = finetune()
    times = {path: path.stat().st_mtime_ns for path in files_of_cache(cache)}
    shutil.rmtree(with_family / "mine/archives")
    second = finetune()

    # then
    assert_same_tensors(second, first)
    assert times
    for path, time in times.items():
        assert path.stat().st_mtime_ns == time, path
    assert not list(here.iterdir())


def test_the_cache_has_whole_results_only(with_family, monkeypatch):
    # given
    cache = with_family / "cache"
    network = load_tiny_cnn({"catalog": str(with_family / "mine"), "cache": str(cache)})

    def write_half_and_end(*, output, **_):
        output.images.write_bytes(b"half")
        raise KeyboardInterrupt

    # when preparing is killed
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(api.prepare, "prepare", write_half_and_end)
        rib.load_dataset("red", network)

    # then what it has made is called a part
    (unfinished,) = [path for path in (cache / "prepare/red").iterdir() if path.is_dir()]
    assert unfinished.suffix == ".part"
    assert (unfinished / "images.npy").read_bytes() == b"half"

    # when it is done again, then it is whole
    assert len(rib.load_dataset("red", network).labels) == 20
    assert not unfinished.exists()


def test_a_damaged_file_of_the_cache_is_refused(with_family):
    # given
    settings = {"catalog": str(with_family / "mine"), "cache": str(with_family / "cache")}
    model_folder = load_tiny_cnn(settings).files["model_folder"]
    # when
    weights = model_folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    # then
    with pytest.raises(UserError, match=f"{weights} is missing or was changed"):
        load_tiny_cnn(settings)
    # when it is deleted, then it is made again
    shutil.rmtree(model_folder)
    load_tiny_cnn(settings)
    assert weights.is_file()


@pytest.mark.thorough
def test_other_settings_or_code_are_other_results(network, tuned, monkeypatch):
    checkpoint = checkpoint_of(tuned["red", "ft"], "ft")
    # the same settings
    assert checkpoint_of(rib.finetune(network, "red"), "ft") == checkpoint
    # other settings
    with_other_settings = rib.finetune(network, "red", seed=1, training={"epochs": 1})
    assert checkpoint_of(with_other_settings, "ft").read_bytes() != checkpoint.read_bytes()
    # other code
    monkeypatch.setattr(api, "digest", lambda *files: "changed")
    assert checkpoint_of(rib.finetune(network, "red"), "ft") != checkpoint


@pytest.mark.thorough
def test_a_method_that_starts_from_another_and_one_with_a_reference(network, settings):
    one_epoch = {"epochs": 1}
    by_lp_ft = rib.finetune(network, "red", "lp_ft", training=one_epoch)
    assert set(by_lp_ft.files["checkpoints"]) == {"lp_ft"}

    by_replay = rib.finetune(network, "red", "replay", training=one_epoch)
    assert by_replay.run.method == "replay"

    # EWC's Fisher information is of the proxy, and made once for two targets
    for target in ("red", "green"):
        by_ewc = rib.finetune(network, target, "ewc", training=one_epoch)
        assert by_ewc.run.method == "ewc"
    assert only_file("fisher/**/fisher.safetensors", settings).is_file()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda network, mine: rib.load_model("tiny_cn", "tiny", **mine),
            "unknown model 'tiny_cn' (did you mean 'tiny_cnn'?)",
        ),
        (
            lambda network, mine: rib.load_model("tiny_cnn", "tinny", **mine),
            "unknown family 'tinny' (did you mean 'tiny'?)",
        ),
        (
            lambda network, mine: rib.load_model("tiny_cnn", "tiny", wrong=1, **mine),
            "unknown key 'wrong'",
        ),
        (lambda network, mine: rib.list_datasets("tinny", **mine), "unknown family 'tinny'"),
        (lambda network, mine: rib.list_models("tiny", catalgo="mine"), "unknown key 'catalgo'"),
        (
            lambda network, mine: rib.load_model("tiny_cnn", "tiny", seeds=[1], **mine),
            "'seeds' is an argument of functions",
        ),
        (
            lambda network, mine: rib.finetune(network, "red", protocol="held_out"),
            "'protocol' is an argument",
        ),
        (
            lambda network, mine: rib.load_dataset("noto", network),
            "(family tiny): unknown dataset 'noto'",
        ),
        (
            lambda network, mine: rib.evaluate(network, ["gren"]),
            "unknown dataset 'gren' (did you mean 'green'?)",
        ),
        (
            lambda network, mine: rib.evaluate(network, "gren"),
            "unknown dataset 'gren' (did you mean 'green'?)",
        ),
        (
            lambda network, mine: rib.evaluate(torch.nn.Linear(1, 1), ["red"]),
            "a Linear was not loaded by rib",
        ),
        (
            lambda network, mine: rib.finetune(network, "noto"),
            "(family tiny): unknown dataset 'noto'",
        ),
        (
            lambda network, mine: rib.finetune(network, "red", "lwff"),
            "unknown method 'lwff' (did you mean 'lwf'?)",
        ),
        (
            lambda network, mine: rib.finetune(network, "red", "replay", reference="none"),
            "it needs a reference dataset",
        ),
        (
            lambda network, mine: rib.finetune(network, "red", "wise_ft_curve"),
            "is a curve of 11 networks",
        ),
        (
            lambda network, mine: rib.finetune(
                network, "red", method_settings={"ft": {"lr": [0.1, 0.2]}}
            ),
            "unknown method with one value of each setting 'ft'",
        ),
        (
            lambda network, mine: rib.load_run(ROOT, "tiny/paper/tiny_cnn"),
            "has no finished run tiny/paper/tiny_cnn",
        ),
        (
            lambda network, mine: rib.load_model("tiny_cnn", "tiny", models=["tiny_vit"], **mine),
            "'models' is an argument",
        ),
        (
            lambda network, mine: rib.finetune(network, "red", family="emoji"),
            "'family' is an argument",
        ),
        (
            lambda network, mine: rib.evaluate(network, ["red"], method="mine"),
            "'target' is None",
        ),
        (lambda network, mine: rib.evaluate(network, ["red"], target="red"), "'method' is None"),
        (
            lambda network, mine: rib.evaluate(network, ["red"], "mine", "rd"),
            "unknown target 'rd' (did you mean 'red'?)",
        ),
        (
            lambda network, mine: rib.evaluate(network, ["red"], "pretrained", "red"),
            "'method' is 'pretrained'",
        ),
        (lambda network, mine: rib.evaluate(network, []), "'datasets' is empty"),
        (
            lambda network, mine: rib.load_model("tiny_cnn", "tiny", **mine, cache=__file__),
            "choose another folder as cache",
        ),
    ],
)
def test_a_mistake_is_one_sentence(network, settings, call, sentence):
    mine = {"catalog": settings["catalog"]}
    with pytest.raises(rib.UserError) as refused:
        call(network, mine)
    message = str(refused.value)
    assert sentence in message
    assert_is_one_sentence(message)


WRONG = (
    object(),
    None,
    5,
    -1,
    0.5,
    True,
    b"red",
    "",
    " ",
    [],
    {},
    {"red": 1},
    ["red", 5],
    len,
    torch.zeros(2),
    "a\0b",
)
# What stands for an argument that a fixture makes.
FROM_FIXTURE = None
USUAL_ARGUMENTS = {
    "list_models": {"family": "tiny"},
    "list_datasets": {"family": "tiny"},
    "list_methods": {},
    "load_model": {"name": "tiny_cnn", "family": "tiny"},
    "load_dataset": {"name": "red", "network": FROM_FIXTURE},
    "finetune": {"network": FROM_FIXTURE, "target": "red", "method": "ft", "seed": 0},
    "evaluate": {"network": FROM_FIXTURE, "datasets": ["red"], "method": "mine", "target": "red"},
    "robustness_improvement": {"rows": FROM_FIXTURE, "network": FROM_FIXTURE},
    "load_run": {"project": ".", "run": "tiny/paper/tiny_cnn/red/ft/all/0"},
}
SETTINGS = ("cache", "catalog", "archives", "training", "image_size", "compute", "method_settings")
# Of functions and their arguments, those that may be None.
OPTIONAL = {("list_models", "family"), ("evaluate", "method"), ("evaluate", "target")}
# Values of WRONG that are no mistake, by argument.
TAKEN = {
    "seed": (5,),
    "cache": (None,),
    "catalog": ([],),
    "archives": ([],),
    "training": ({},),
    "compute": ({},),
    "method_settings": ({},),
}


def arguments_of(function):
    """Names of the arguments of a function of rib, the settings that it takes included."""
    names = list(USUAL_ARGUMENTS[function])
    if "settings" in inspect.signature(getattr(rib, function)).parameters:
        names.extend(SETTINGS)
    return names


def is_taken(function, name, value):
    """Whether a value of WRONG is none for this argument of a function."""
    if value is None and (function, name) in OPTIONAL:
        return True
    # Types are compared too, since True equals 1.
    same_type = [taken for taken in TAKEN.get(name, ()) if type(taken) is type(value)]
    return value in same_type


def wrong_calls():
    """Functions of rib, their arguments, and values that are wrong for these.

    `make test` has one value for each argument.
    """
    for function in USUAL_ARGUMENTS:
        for name in arguments_of(function):
            for value in WRONG:
                if is_taken(function, name, value):
                    continue
                marks = [] if value is WRONG[0] else [pytest.mark.thorough]
                call = f"{function}, {name}, {str(value)[:20]!a}"
                yield pytest.param(function, name, value, id=call, marks=marks)


@pytest.mark.parametrize(("function", "name", "value"), wrong_calls())
def test_a_wrong_type_of_any_argument_is_one_sentence(
    network, rows, settings, function, name, value
):
    # given
    arguments = dict(USUAL_ARGUMENTS[function])
    if "network" in arguments:
        arguments["network"] = network
    else:
        arguments["catalog"] = settings["catalog"]
    if "rows" in arguments:
        arguments["rows"] = pd.concat([rows[PRETRAINED], rows["red", "ft"]])
    # when
    arguments[name] = value
    with pytest.raises(rib.UserError) as refused:
        getattr(rib, function)(**arguments)
    # then
    assert_is_one_sentence(str(refused.value))


@pytest.mark.thorough
def test_a_run_of_a_model_by_name_is_loaded(project):
    """The lock file of the project tells which model its short name is."""
    # given
    timm.models.save_for_hf(
        timm.create_model("test_resnet", num_classes=1000),
        project.folder / "nets/mine",
        safe_serialization=True,
    )
    run = "tiny/paper/mine/none/pretrained/all/0"
    rows_file = "results/tiny/paper/evaluate/mine/none/pretrained/all/0/tiny.parquet"
    project.snakemake(rows_file, config=("models=['local-dir:nets/mine']",))
    # when
    network, rows = rib.load_run(project.folder, run, catalog=str(project.folder / "mine"))
    # then
    assert network.run.model == "mine"
    assert set(rows["model"]) == {"mine"}


RUN = "tiny/paper/tiny_cnn/red/ft/all/0"


@pytest.mark.thorough
@pytest.mark.parametrize(
    "run",
    [
        "tiny/paper/tiny_cnn/*/ft/all/0",
        "tiny/paper/tiny_cnn/red/*/all/0",
        "tiny/paper/tiny_cnn/re?/ft/all/0",
        "tiny/paper/tiny_cnn/[r]ed/ft/all/0",
        "tiny/*/tiny_cnn/red/ft/all/0",
        "tiny/paper/**/red/ft/all/0",
        "*/paper/tiny_cnn/red/ft/all/0",
        "tiny/paper/tiny_cnn/red/ft/all/*",
        "tiny/paper/tiny_cnn/red/ft/all/one",
        "tiny/paper/tiny_cnn/red/../red/ft",
        "tiny/paper/tiny_cnn/red/ft/all/1",
        "/tiny/paper/tiny_cnn/red/ft/all/0",
        "tiny/paper/tiny_cnn/red/ft/all/0/tiny.parquet",
        "tiny/paper/tiny_cnn/red/ft/all",
        f"tiny/paper/tiny_cnn/red/{'f' * 300}/all/0",
        ".",
        "/",
    ],
)
def test_a_run_is_named_exactly(workflow, run):
    with pytest.raises(UserError) as refused:
        rib.load_run(workflow.folder, run, catalog=workflow.folder / "mine")
    sentence = str(refused.value)
    assert f"has no finished run {run}" in sentence
    assert sentence.endswith(".")


@pytest.mark.thorough
def test_a_project_is_found_by_any_path(workflow, tmp_path, monkeypatch):
    """Relative, by a link and below `~`; rows and files are the same."""
    # given
    (tmp_path / "link").symlink_to(workflow.folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    model_folder = workflow.folder.resolve() / "results/tiny/models/tiny_cnn"
    for project in (".", tmp_path / "link", "~/link", f"{tmp_path}/other/../link"):
        # when
        monkeypatch.chdir(workflow.folder)
        network, rows = rib.load_run(project, RUN, catalog="mine")
        # then
        assert len(rows) == 80
        assert set(rows["method"]) == {"ft"}
        assert network.files["model_folder"] == model_folder
        # and it is so from anywhere
        monkeypatch.chdir("/")
        assert len(evaluate_without_names(network)) == 20


def with_ten_values(rows, column, value):
    """Rows of two networks, with a value in ten rows of a column from row 100 on."""
    together = pd.concat([rows[PRETRAINED], rows["red", "ft"]], ignore_index=True)
    values = together[column].astype(object).to_numpy().copy()
    values[100:110] = value
    return together.assign(**{column: pd.Series(values).infer_objects()})


@pytest.mark.thorough
@pytest.mark.parametrize("column", ["rank", "prediction"])
@pytest.mark.parametrize("value", [None, float("nan"), -1, "first", 5, 1.5], ids=str)
def test_ten_wrong_ranks_or_predictions_are_no_ri(network, rows, column, value):
    wrong_rows = with_ten_values(rows, column, value)
    with pytest.raises(UserError) as refused:
        rib.robustness_improvement(wrong_rows, network)
    sentence = str(refused.value)
    assert f"'{column}'" in sentence
    assert "row 100 " in sentence
    assert sentence.endswith(".")


def test_rows_of_images_that_do_not_exist_are_no_ri(network, rows):
    pretrained_rows = rows[PRETRAINED]
    tuned_rows = rows["red", "ft"]
    rows_of_both = pd.concat([pretrained_rows, tuned_rows])
    beyond_the_last = rows_of_both.assign(row=rows_of_both["row"] + 15)
    with pytest.raises(UserError, match="'row'"):
        rib.robustness_improvement(beyond_the_last, network)

    without_an_image = pd.concat([pretrained_rows, tuned_rows[1:]])
    with pytest.raises(UserError, match="'row' has other images of blue"):
        rib.robustness_improvement(without_an_image, network)


def test_rows_of_the_pretrained_network_are_needed(network, rows):
    with pytest.raises(UserError, match="the rows of the pretrained tiny_cnn are missing"):
        rib.robustness_improvement(rows["red", "ft"], network)


def test_a_changed_file_of_a_finished_run_is_refused(finished_copy):
    results = finished_copy.folder / "results/tiny/paper"

    (rows_file,) = (results / "evaluate/tiny_cnn/red/ft/all/0").glob("*.parquet")
    rows_file.write_bytes(rows_file.read_bytes() + b" ")
    with pytest.raises(UserError, match="is missing or was changed"):
        load_finished(finished_copy, "red", "ft")

    manifest = results / "finetune/tiny_cnn/green/ft/all/0/manifest.json"
    manifest.unlink()
    with pytest.raises(UserError, match=f"{manifest} is missing"):
        load_finished(finished_copy, "green", "ft")


def examples():
    """Python code of docs/python.md, in its order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.M | re.S)


@pytest.mark.thorough
def test_the_documented_examples_run(settings, capsys):
    """On the tiny family, by other names; the second needs the names of the first."""
    # given
    folders = f"catalog={settings['catalog']!r}, cache={settings['cache']!r}"
    needed_names = {
        '"efficientnet_lite0"': '"tiny_cnn"',
        '"noto"': '"red"',
        '"openmoji"': '"green"',
    }
    # The family is the last argument or not.
    names_of_family = {'"emoji",': f'"tiny", {folders},', '"emoji")': f'"tiny", {folders})'}
    variables = {}
    printed_by_examples = []
    # when
    for code in examples():
        for name in needed_names:
            assert name in code
        for name, tiny_name in {**needed_names, **names_of_family}.items():
            code = code.replace(name, tiny_name)
        exec(code, variables)
        printed_by_examples.append(capsys.readouterr().out)
    # then
    of_loop, of_own_network = printed_by_examples
    assert re.search(r"^0 +ft +-?[\d.]+", of_loop, re.MULTILINE)
    assert re.search(r"^0 +tiny_cnn +mine +red ", of_own_network, re.MULTILINE)
    assert not variables["before"]["rank"].equals(variables["after"]["rank"])


def change_yaml(path, changes):
    """Set some keys of a YAML file with a mapping."""
    entries = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**entries, **changes}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "reference"),
    [
        ("net_10", "memory"),
        ("tiny_cnn", "memory"),
        ("tiny_cnn", {"part_of": "red", "images_per_class": 2}),
    ],
    ids=["trained here", "fitted head", "proxy in the target"],
)
def test_models_that_need_a_reference_have_the_bytes_of_the_workflow(
    project, tmp_path, model, reference
):
    # given a family with classes of its own, so that heads are fitted, and a reference
    mine = project.folder / "mine"
    pretrained_here = {**MODEL, "label": "net_10", "pretrain": {**HOW, "size": 10}}
    change_yaml(mine / "models.yaml", {"net_10": pretrained_here})
    change_yaml(mine / "datasets.yaml", {"usual": USUAL})
    classes = {"file": "own.csv", "format": "own"}
    change_yaml(mine / "families/tiny.yaml", {"reference": reference, "classes": classes})
    lines = ["key,name", *(f"{wnid},{wnid}" for wnid in family.WNIDS)]
    (mine / "classes/own.csv").write_text("\n".join(lines) + "\n")

    # when the workflow and the Python API fine-tune a model
    run = f"{model}/copy/replay/all/0"
    rate = {"replay": {"lr": 0.00001}}
    config = (f"models={model}", "targets=copy", "methods=replay", f"method_settings={rate}")
    rows_file = f"results/tiny/paper/evaluate/{run}/tiny.parquet"
    project.snakemake("--cores", "1", rows_file, config=config)
    settings = {"catalog": str(mine), "cache": str(tmp_path / "cache"), "method_settings": rate}
    tuned = rib.finetune(rib.load_model(model, "tiny", **settings), "copy", "replay")

    # then checkpoints and rows are the same
    loaded, rows = rib.load_run(project.folder, f"tiny/paper/{run}", **settings)
    checkpoints = tuned.files["checkpoints"].values()
    checkpoints_of_workflow = loaded.files["checkpoints"].values()
    assert checkpoints
    for checkpoint, of_workflow in zip(checkpoints, checkpoints_of_workflow, strict=True):
        assert_same_bytes(checkpoint, of_workflow)
    datasets = sorted(rows["dataset"].unique())
    pd.testing.assert_frame_equal(rib.evaluate(tuned, datasets), rows)
    # and a proxy within the target takes images from it
    images_of_target = 20 if reference == "memory" else 10
    assert (rows["dataset"] == "copy").sum() == images_of_target


@pytest.mark.slow
def test_the_documented_examples_run_as_they_stand(tmp_path):
    """Fetches three packages of pip and seven of npm.

    Or takes them from the folders in RIB_ARCHIVES.
    """
    find_rib = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow/lib')!r})"
    code = "\n".join([find_rib, *examples()])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert re.search(r"^0 +ft +-?[\d.]+", done.stdout, re.MULTILINE), done.stderr


@pytest.mark.slow
def test_the_emoji_family_has_the_bytes_of_the_workflow(tmp_path):
    """Fetches packages, as the test above."""
    # given
    project = Project(copy_project(tmp_path / "project"), "emoji")
    choices = (
        "models=efficientnet_lite0",
        "targets=emojione",
        "methods=ft",
        "datasets=[emojione,fxemoji]",
        "training={epochs: 1}",
    )
    project.snakemake("--cores", "1", "tables", config=choices)
    # when
    network = rib.load_model(
        "efficientnet_lite0", "emoji", cache=str(tmp_path / "cache"), training={"epochs": 1}
    )
    tuned = rib.finetune(network, "emojione")
    # then
    run = "emoji/paper/efficientnet_lite0/emojione/ft/all/0"
    loaded, rows = rib.load_run(project.folder, run)
    assert_same_bytes(checkpoint_of(tuned, "ft"), checkpoint_of(loaded, "ft"))
    pd.testing.assert_frame_equal(rib.evaluate(tuned, ["emojione", "fxemoji"]), rows)


PRINT_HEAVY_MODULES = """
import rib, sys

packages = {name.split(".")[0] for name in sys.modules}
print(packages & {"torch", "pandas", "numpy", "yaml"})
"""


def test_importing_is_light_and_no_digest_of_code_depends_on_the_api():
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HEAVY_MODULES],
        env={"PYTHONPATH": str(ROOT / "workflow/lib")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n"

    scripts = list((ROOT / "workflow/scripts").glob("*.py"))
    assert scripts
    for script in scripts:
        assert ROOT / "workflow/lib/rib/api.py" not in closure(script)


def test_every_name_is_typed_and_explained():
    assert dir(rib) == sorted(api.__all__)
    for name in api.__all__:
        assert getattr(rib, name) is getattr(api, name)

    functions = set(api.__all__) - {"UserError"}
    assert functions
    for name in functions:
        function = getattr(rib, name)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, name
        for parameter in signature.parameters.values():
            if parameter.name != "settings":
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
        assert re.search(rf"`rib\.{name}\(.*\)`", function.__doc__), name

    with pytest.raises(AttributeError):
        rib.nothing  # noqa: B018
