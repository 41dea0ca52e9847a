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

TARGETS = ["red", "green"]
METHODS = ["ft", "linear_probe", "lwf", "wise_ft"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    family.make(folder / "mine")
    return {"catalog": str(folder / "mine"), "cache": str(folder / "cache")}


@pytest.fixture(scope="module")
def network(settings):
    return rib.load_model("tiny_cnn", "tiny", **settings)


@pytest.fixture(scope="module")
def datasets(settings):
    return rib.list_datasets("tiny", catalog=settings["catalog"])


@pytest.fixture(scope="module")
def tuned(network):
    return {
        (target, method): rib.finetune(network, target, method)
        for target in TARGETS
        for method in METHODS
    }


@pytest.fixture(scope="module")
def rows(network, tuned, datasets):
    return {
        key: rib.evaluate(part, datasets)
        for key, part in {("none", "pretrained"): network, **tuned}.items()
    }


def only(pattern, settings):
    (found,) = Path(settings["cache"]).glob(pattern)
    return found


def test_models_and_datasets_are_those_of_the_workflow(finished, network, settings):
    results = finished[0].folder / "results/tiny"
    for name in ("weights.safetensors", "model.json"):
        assert (network.files["model_folder"] / name).read_bytes() == (
            results / "models/tiny_cnn" / name
        ).read_bytes()
    data = rib.load_dataset("red", network)
    (prepared,) = (results / "prepare/red").iterdir()
    for name in ("images.npy", "index.parquet", "classes.json"):
        assert (
            only(f"prepare/red/*/{name}", settings).read_bytes() == (prepared / name).read_bytes()
        )
    assert data.images.shape == (20, 160, 160, 3) and data.labels.shape == (20,)
    assert not network.training and network.preprocessing["input_size"] == 160


def test_checkpoints_are_those_of_the_workflow(finished, tuned):
    for (target, method), part in tuned.items():
        for name, path in part.files["checkpoints"].items():
            made = (
                finished[0].folder
                / f"results/tiny/paper/finetune/tiny_cnn/{target}/{name}/all/0"
                / "checkpoint.safetensors"
            )
            assert path.read_bytes() == made.read_bytes(), (target, method)


def finished_run(project, target, method, **settings):
    run = f"tiny/paper/tiny_cnn/{target}/{method}/all/0"
    return rib.load_run(project.folder, run, catalog=str(project.folder / "mine"), **settings)


def test_rows_and_networks_are_those_of_a_finished_run(finished, tuned, rows, network):
    """By `load_run`, whose rows are those of the files."""
    for (target, method), found in rows.items():
        loaded, own = finished_run(finished[0], target, method)
        (path,) = (
            finished[0].folder / f"results/tiny/paper/evaluate/tiny_cnn/{target}/{method}/all/0"
        ).glob("*.parquet")
        pd.testing.assert_frame_equal(own, pd.read_parquet(path))
        pd.testing.assert_frame_equal(found, own)
        state = {("none", "pretrained"): network, **tuned}[target, method].state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_a_loaded_run_is_evaluated_like_any_network(finished, settings):
    loaded, own = finished_run(finished[0], "red", "wise_ft", cache=settings["cache"])
    assert loaded.run.method == "wise_ft"
    found = rib.evaluate(loaded, ["green", "blue"])
    for name in ("green", "blue"):
        one, other = (part[part["dataset"] == name].reset_index(drop=True) for part in (found, own))
        pd.testing.assert_frame_equal(one, other, check_categorical=False)


def test_ri_and_mri_are_those_of_the_tables(finished, rows, network):
    found = rib.robustness_improvement(pd.concat(rows.values()), network)
    for table, name in zip(found, ("ri", "mri"), strict=True):
        own = pd.read_csv(finished[0].folder / f"reports/tiny/tables/{name}.csv")
        columns = [column for column in table.columns if column in own]
        assert len(table) == len(own) == (8, 4)[name == "mri"] and name in columns
        pd.testing.assert_frame_equal(
            table[columns], own[columns], atol=1e-5, check_dtype=False, check_index_type=False
        )


def test_each_image_size_has_its_own_images(settings):
    for size in (32, 48):
        network = rib.load_model("tiny_cnn", "tiny", image_size=size, **settings)
        assert (
            rib.load_dataset("red", network).images.shape[1:] == (size, size, 3)
            and network.preprocessing["input_size"] == size
        )


def test_a_network_of_ones_own_training_is_scored_as_it_is(settings, datasets, tuned, rows):
    """With the weights of a run, the rows are those of the run.

    Without names for what was done it is refused.
    """
    own = rib.load_model("tiny_cnn", "tiny", **settings)
    own.load_state_dict(tuned["red", "ft"].state_dict())
    found = rib.evaluate(own, datasets, "mine", "red")
    pd.testing.assert_frame_equal(
        found.drop(columns="method"), rows["red", "ft"].drop(columns="method")
    )
    assert set(found["method"]) == {"mine"}
    for call in (lambda: rib.evaluate(own, datasets), lambda: rib.finetune(own, "red")):
        with pytest.raises(rib.UserError, match="weights were changed since it was loaded"):
            call()
    with pytest.raises(rib.UserError, match="methods start from pretrained ones"):
        rib.finetune(tuned["red", "ft"], "green")


def set_attribute(module, name, value):
    """Until what is returned is called."""
    before = vars(module).get(name)
    setattr(module, name, value)
    return lambda: delattr(module, name) if before is None else setattr(module, name, before)


def set_module(network, name, module):
    before = network.get_submodule(name)
    network.set_submodule(name, module)
    return lambda: network.set_submodule(name, before)


def negated(module, images, logits):
    return -logits


def darkened(module, inputs):
    return (inputs[0] - 3,)


# How a network is changed in place; each returns what takes the change back.
CHANGES = {
    "a hook": lambda own: own.register_forward_hook(negated).remove,
    "a hook before": lambda own: own.register_forward_pre_hook(darkened).remove,
    "a hook of a convolution": lambda own: own.conv_stem.register_forward_hook(negated).remove,
    "a hook of a normalisation": lambda own: own.bn1.register_forward_hook(negated).remove,
    "a hook of all modules": lambda own: (
        torch.nn.modules.module.register_module_forward_hook(
            lambda module, inputs, output: -output if module is own else None
        ).remove
    ),
    "another activation": lambda own: set_module(own, "bn1.act", torch.nn.Hardtanh(-0.1, 0.1)),
    "another head": lambda own: set_module(own, "classifier", torch.nn.Linear(256, 1000)),
    "a module in between": lambda own: set_module(
        own, "bn2", torch.nn.Sequential(own.bn2, torch.nn.Softmax(dim=1))
    ),
    "another forward": lambda own: set_attribute(
        own, "forward", lambda images: -own.forward_head(own.forward_features(images))
    ),
    "another attribute": lambda own: set_attribute(own.conv_stem, "stride", (4, 4)),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "change", [pytest.param(change, id=name) for name, change in CHANGES.items()]
)
def test_a_network_is_scored_with_its_modules_hooks_and_attributes(settings, rows, change):
    """A network is changed without a change of its tensors.

    When it is taken back, it is the same again.
    """
    torch.manual_seed(0)
    own = rib.load_model("tiny_cnn", "tiny", **settings)
    of_loaded = rib.evaluate(own, ["red", "blue"])
    take_back = change(own)
    try:
        assert_scored_as_it_is(own, "blue")
        changed = rib.evaluate(own, ["red", "blue"], "mine", "red")
        with_names = of_loaded.drop(columns=["method", "target"])
        assert not changed.drop(columns=["method", "target"]).equals(with_names)
    finally:
        take_back()
    pd.testing.assert_frame_equal(rib.evaluate(own, ["red", "blue"]), of_loaded)


def assert_scored_as_it_is(own, dataset):
    """Predictions are those of the network as it is called by its user, in evaluation mode."""
    data = rib.load_dataset(dataset, own)
    mean, std = (torch.tensor(own.preprocessing[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = torch.from_numpy(data.images[:].copy()).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        logits = own((images - mean) / std)
    classes = torch.tensor(data.space.indices).flatten()
    scored = rib.evaluate(own, [dataset], "mine", "red")
    assert scored["prediction"].tolist() == logits[:, classes].argmax(dim=1).tolist()
    assert scored["energy"].to_numpy(float) == pytest.approx(
        logits[:, classes].logsumexp(dim=1), rel=2e-3, abs=1e-3
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "change", [pytest.param(change, id=name) for name, change in CHANGES.items()]
)
def test_a_changed_network_needs_a_name_and_is_not_fine_tuned(settings, change):
    own = rib.load_model("tiny_cnn", "tiny", **settings)
    take_back = change(own)
    try:
        for call in (lambda: rib.evaluate(own, ["red"]), lambda: rib.finetune(own, "red")):
            with pytest.raises(rib.UserError, match="changed since it was loaded"):
                call()
    finally:
        take_back()


def test_scoring_leaves_a_network_as_it_was(settings):
    """A changed network, which is scored itself.

    Its hooks are called, and its modes and tensors are those of before.
    """
    own = rib.load_model("tiny_cnn", "tiny", **settings)
    called = []
    own.register_forward_hook(
        lambda module, images, logits: called.append((module is own, module.training))
    )
    own.train()
    own.bn1.eval()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    first = rib.evaluate(own, ["red"], "mine", "red")
    assert set(called) == {(True, False)}
    assert own.training and own.bn2.training and not own.bn1.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    pd.testing.assert_frame_equal(rib.evaluate(own, ["red"], "mine", "red"), first)


@pytest.mark.thorough
def test_a_buffer_that_no_state_dict_has_is_a_change(settings, monkeypatch):
    def with_scale(folder, device, load=api.load):
        network, facts = load(folder, device)
        network.register_buffer("scale", torch.ones(1), persistent=False)
        return network, facts

    monkeypatch.setattr(api, "load", with_scale)
    own = rib.load_model("tiny_cnn", "tiny", **settings)
    rib.evaluate(own, ["red"])
    own.scale += 1
    with pytest.raises(rib.UserError, match="weights were changed .*'scale'"):
        rib.evaluate(own, ["red"])


def test_names_that_are_given_are_those_of_the_rows(network, tuned):
    named = rib.evaluate(tuned["green", "ft"], ["red"], "mine", "blue")
    assert set(named["method"]) == {"mine"} and set(named["target"]) == {"blue"}
    assert set(rib.evaluate(tuned["green", "ft"], ["red"])["method"]) == {"ft"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("head", "returned"),
    [
        (torch.nn.Linear(256, 10), r"\(20, 10\)"),
        (torch.nn.LSTM(256, 1000), "a tuple"),
        (torch.nn.Flatten(0), r"\(5120,\)"),
    ],
)
def test_a_network_that_returns_no_logits_is_refused(settings, head, returned):
    own = rib.load_model("tiny_cnn", "tiny", **settings)
    own.classifier = head
    with pytest.raises(rib.UserError, match=f"returns {returned}"):
        rib.evaluate(own, ["red"], "mine", "red")


@pytest.mark.thorough
def test_weights_of_another_type_are_refused(settings):
    own = rib.load_model("tiny_cnn", "tiny", **settings).half()
    with pytest.raises(rib.UserError, match=r"network\.float\(\)"):
        rib.evaluate(own, ["red"], "mine", "red")


@pytest.mark.thorough
@pytest.mark.parametrize("cache", [".", "0", "1", "cache.0"])
@pytest.mark.parametrize("by_variable", [False, True], ids=["cache", "RIB_CACHE"])
def test_other_settings_are_other_results_whatever_the_cache_is_called(
    tmp_path, monkeypatch, cache, by_variable
):
    """Settings that are the same text without the digits and points of the cache's name."""
    family.make(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    own = {"catalog": "mine"}
    if by_variable:
        monkeypatch.setenv("RIB_CACHE", cache)
    else:
        own["cache"] = cache
    for size in (32, 320, 132):
        network = rib.load_model("tiny_cnn", "tiny", image_size=size, **own)
        assert rib.load_dataset("red", network).images.shape[1] == size
    made = [
        rib.finetune(
            network,
            "red",
            "l2_sp",
            training={"epochs": 1},
            method_settings={"l2_sp": {"weight": weight}},
        )
        for weight in (1.05, 10.5)
    ]
    one, other = (tuned.files["checkpoints"]["l2_sp"].read_bytes() for tuned in made)
    assert one != other
    assert all(
        (tmp_path / cache).resolve() in path.parents
        for path in made[0].files["checkpoints"].values()
    )


@pytest.mark.thorough
def test_a_network_keeps_its_folders_when_the_working_folder_changes(tmp_path, monkeypatch):
    family.make(tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    network = rib.load_model("tiny_cnn", "tiny", catalog=Path("mine"), cache="~/cache")
    monkeypatch.chdir(tmp_path / "elsewhere")
    rib.evaluate(network, ["red"])
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "cache", "elsewhere"}


@pytest.mark.thorough
def test_a_moved_cache_is_used_where_it_is(tmp_path):
    family.make(tmp_path / "mine")
    own = {"catalog": tmp_path / "mine"}
    rib.load_dataset("red", rib.load_model("tiny_cnn", "tiny", cache=tmp_path / "before", **own))
    (tmp_path / "before").rename(tmp_path / "after")
    made = sorted(path for path in (tmp_path / "after").rglob("*") if path.suffix != ".lock")
    rib.load_dataset("red", rib.load_model("tiny_cnn", "tiny", cache=tmp_path / "after", **own))
    assert (
        sorted(path for path in (tmp_path / "after").rglob("*") if path.suffix != ".lock") == made
    )


@pytest.mark.thorough
def test_limits_of_photos_are_settings_of_a_dataset(settings):
    """A photo above them is refused, so what was prepared with others must not be served."""
    small = rib.load_model("tiny_cnn", "tiny", limits={"photo_megapixels": 2}, **settings)
    large = rib.load_model("tiny_cnn", "tiny", limits={"photo_megapixels": 100}, **settings)
    before = len(list(Path(settings["cache"]).glob("prepare/copy/*/index.parquet")))
    for network in (small, large):
        rib.load_dataset("copy", network)
    assert len(list(Path(settings["cache"]).glob("prepare/copy/*/index.parquet"))) >= before + 1
    folders = {
        rib.api._Stages(rib.api._settings(one), datasets=["copy"]).dataset("copy").folder
        for one in (small, large)
    }
    assert len(folders) == 2


def test_nothing_is_made_twice_and_nothing_outside_of_the_cache(tmp_path, monkeypatch):
    family.make(tmp_path / "mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RIB_CACHE", str(tmp_path / "cache"))
    first = rib.finetune(
        rib.load_model("tiny_cnn", "tiny", catalog="../mine"), "red", training={"epochs": 1}
    )
    made = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "cache").rglob("*")
        if path.suffix != ".lock"
    }
    shutil.rmtree(tmp_path / "mine/archives")
    again = rib.finetune(
        rib.load_model("tiny_cnn", "tiny", catalog="../mine"), "red", training={"epochs": 1}
    )
    assert all(
        torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items()
    )
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not list((tmp_path / "here").iterdir())


def test_the_cache_has_whole_results_only(tmp_path, monkeypatch):
    family.make(tmp_path / "mine")
    network = rib.load_model(
        "tiny_cnn", "tiny", catalog=str(tmp_path / "mine"), cache=str(tmp_path / "cache")
    )

    def killed(*, output, **_):
        output.images.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(api.prepare, "prepare", killed)
        rib.load_dataset("red", network)
    (part,) = (path for path in (tmp_path / "cache/prepare/red").iterdir() if path.is_dir())
    assert part.suffix == ".part" and (part / "images.npy").read_bytes() == b"half"
    assert len(rib.load_dataset("red", network).labels) == 20
    assert not part.exists()


def test_a_damaged_file_of_the_cache_is_refused(tmp_path):
    family.make(tmp_path / "mine")
    settings = {"catalog": str(tmp_path / "mine"), "cache": str(tmp_path / "cache")}
    weights = (
        rib.load_model("tiny_cnn", "tiny", **settings).files["model_folder"] / "weights.safetensors"
    )
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=f"{weights} is missing or was changed"):
        rib.load_model("tiny_cnn", "tiny", **settings)
    shutil.rmtree(weights.parent)
    rib.load_model("tiny_cnn", "tiny", **settings)


@pytest.mark.thorough
def test_other_settings_or_code_are_other_results(network, tuned, monkeypatch):
    path = tuned["red", "ft"].files["checkpoints"]["ft"]
    assert rib.finetune(network, "red").files["checkpoints"]["ft"] == path
    other = rib.finetune(network, "red", seed=1, training={"epochs": 1}).files["checkpoints"]["ft"]
    assert other.read_bytes() != path.read_bytes()
    monkeypatch.setattr(api, "digest", lambda *files: "changed")
    assert rib.finetune(network, "red").files["checkpoints"]["ft"] != path


@pytest.mark.thorough
def test_a_method_that_starts_from_another_and_one_with_a_reference(network, settings):
    assert set(
        rib.finetune(network, "red", "lp_ft", training={"epochs": 1}).files["checkpoints"]
    ) == {"lp_ft"}
    assert rib.finetune(network, "red", "replay", training={"epochs": 1}).run.method == "replay"
    # EWC's Fisher information is of the proxy, and made once for two targets
    for target in ("red", "green"):
        assert rib.finetune(network, target, "ewc", training={"epochs": 1}).run.method == "ewc"
    assert only("fisher/**/fisher.safetensors", settings).is_file()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda network, own: rib.load_model("tiny_cn", "tiny", **own),
            "unknown model 'tiny_cn' (did you mean 'tiny_cnn'?)",
        ),
        (
            lambda network, own: rib.load_model("tiny_cnn", "tinny", **own),
            "unknown family 'tinny' (did you mean 'tiny'?)",
        ),
        (
            lambda network, own: rib.load_model("tiny_cnn", "tiny", wrong=1, **own),
            "unknown key 'wrong'",
        ),
        (lambda network, own: rib.list_datasets("tinny", **own), "unknown family 'tinny'"),
        (lambda network, own: rib.list_models("tiny", catalgo="mine"), "unknown key 'catalgo'"),
        (
            lambda network, own: rib.load_model("tiny_cnn", "tiny", seeds=[1], **own),
            "'seeds' is an argument of functions",
        ),
        (
            lambda network, own: rib.finetune(network, "red", protocol="held_out"),
            "'protocol' is an argument",
        ),
        (
            lambda network, own: rib.load_dataset("noto", network),
            "(family tiny): unknown dataset 'noto'",
        ),
        (
            lambda network, own: rib.evaluate(network, ["gren"]),
            "unknown dataset 'gren' (did you mean 'green'?)",
        ),
        (
            lambda network, own: rib.evaluate(network, "gren"),
            "unknown dataset 'gren' (did you mean 'green'?)",
        ),
        (
            lambda network, own: rib.evaluate(torch.nn.Linear(1, 1), ["red"]),
            "a Linear was not loaded by rib",
        ),
        (
            lambda network, own: rib.finetune(network, "noto"),
            "(family tiny): unknown dataset 'noto'",
        ),
        (
            lambda network, own: rib.finetune(network, "red", "lwff"),
            "unknown method 'lwff' (did you mean 'lwf'?)",
        ),
        (
            lambda network, own: rib.finetune(network, "red", "replay", reference="none"),
            "it needs a reference dataset",
        ),
        (
            lambda network, own: rib.finetune(network, "red", "wise_ft_curve"),
            "is a curve of 11 networks",
        ),
        (
            lambda network, own: rib.finetune(
                network, "red", method_settings={"ft": {"lr": [0.1, 0.2]}}
            ),
            "unknown method with one value of each setting 'ft'",
        ),
        (
            lambda network, own: rib.load_run(ROOT, "tiny/paper/tiny_cnn"),
            "has no finished run tiny/paper/tiny_cnn",
        ),
        (
            lambda network, own: rib.load_model("tiny_cnn", "tiny", models=["tiny_vit"], **own),
            "'models' is an argument",
        ),
        (
            lambda network, own: rib.finetune(network, "red", family="emoji"),
            "'family' is an argument",
        ),
        (lambda network, own: rib.evaluate(network, ["red"], method="mine"), "'target' is None"),
        (lambda network, own: rib.evaluate(network, ["red"], target="red"), "'method' is None"),
        (
            lambda network, own: rib.evaluate(network, ["red"], "mine", "rd"),
            "unknown target 'rd' (did you mean 'red'?)",
        ),
        (
            lambda network, own: rib.evaluate(network, ["red"], "pretrained", "red"),
            "'method' is 'pretrained'",
        ),
        (lambda network, own: rib.evaluate(network, []), "'datasets' is empty"),
        (
            lambda network, own: rib.load_model("tiny_cnn", "tiny", **own, cache=__file__),
            "choose another folder as cache",
        ),
    ],
)
def test_a_mistake_is_one_sentence(network, settings, call, sentence):
    with pytest.raises(rib.UserError) as refused:
        call(network, {"catalog": settings["catalog"]})
    assert (
        sentence in str(refused.value)
        and str(refused.value).endswith(".")
        and "\n" not in str(refused.value)
    )


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
OPTIONAL = {("list_models", "family"), ("evaluate", "method"), ("evaluate", "target")}
USUAL_ARGUMENTS = {
    "list_models": {"family": "tiny"},
    "list_datasets": {"family": "tiny"},
    "list_methods": {},
    "load_model": {"name": "tiny_cnn", "family": "tiny"},
    "load_dataset": {"name": "red", "network": None},
    "finetune": {"network": None, "target": "red", "method": "ft", "seed": 0},
    "evaluate": {"network": None, "datasets": ["red"], "method": "mine", "target": "red"},
    "robustness_improvement": {"rows": None, "network": None},
    "load_run": {"project": ".", "run": "tiny/paper/tiny_cnn/red/ft/all/0"},
}
SETTINGS = ("cache", "catalog", "archives", "training", "image_size", "compute", "method_settings")
TAKEN = {  # what is no mistake, by argument
    "seed": (5,),
    "family": (),
    "cache": (None,),
    "catalog": ([],),
    "archives": ([], ["red", 5][:0]),
    "training": ({},),
    "compute": ({},),
    "method_settings": ({},),
}


def wrong_calls():
    for function, usual in USUAL_ARGUMENTS.items():
        takes_settings = "settings" in inspect.signature(getattr(rib, function)).parameters
        names = [*usual, *(SETTINGS if takes_settings else ())]
        for name in names:
            for value in WRONG:
                taken = any(
                    type(value) is type(other) and value == other for other in TAKEN.get(name, ())
                )
                if not taken and not (value is None and (function, name) in OPTIONAL):
                    marks = (
                        () if value is WRONG[0] else pytest.mark.thorough
                    )  # `make test` has one value
                    yield pytest.param(
                        function,
                        name,
                        value,
                        id=f"{function}, {name}, {str(value)[:20]!a}",
                        marks=marks,
                    )


@pytest.mark.parametrize(("function", "name", "value"), wrong_calls())
def test_a_wrong_type_of_any_argument_is_one_sentence(
    network, rows, settings, function, name, value
):
    given = dict(USUAL_ARGUMENTS[function])
    if "network" in given:
        given["network"] = network
    else:
        given["catalog"] = settings["catalog"]
    if "rows" in given:
        given["rows"] = pd.concat([rows["none", "pretrained"], rows["red", "ft"]])
    given[name] = value
    with pytest.raises(rib.UserError) as refused:
        getattr(rib, function)(**given)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


@pytest.mark.thorough
def test_a_run_of_a_model_by_name_is_loaded(project, settings):
    """The lock file of the project tells which model its short name is."""
    timm.models.save_for_hf(
        timm.create_model("test_resnet", num_classes=1000),
        project.folder / "nets/mine",
        safe_serialization=True,
    )
    run, chosen = "tiny/paper/mine/none/pretrained/all/0", "models=['local-dir:nets/mine']"
    project.snakemake(
        f"results/{run.replace('paper/', 'paper/evaluate/')}/tiny.parquet", config=(chosen,)
    )
    network, rows = rib.load_run(project.folder, run, catalog=str(project.folder / "mine"))
    assert network.run.model == "mine" and set(rows["model"]) == {"mine"}


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
def test_a_run_is_named_exactly(finished, run):
    with pytest.raises(UserError) as refused:
        rib.load_run(finished[0].folder, run, catalog=finished[0].folder / "mine")
    sentence = str(refused.value)
    assert f"has no finished run {run}" in sentence and sentence.endswith(".")


@pytest.mark.thorough
def test_a_project_is_found_by_any_path(finished, tmp_path, monkeypatch):
    """Relative, by a link and below `~`; rows and files are the same."""
    (tmp_path / "link").symlink_to(finished[0].folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(finished[0].folder)
    for project in (".", tmp_path / "link", "~/link", f"{tmp_path}/other/../link"):
        network, rows = rib.load_run(project, RUN, catalog="mine")
        assert len(rows) == 80 and rows["method"].unique().tolist() == ["ft"]
        assert (
            network.files["model_folder"]
            == finished[0].folder.resolve() / "results/tiny/models/tiny_cnn"
        )
        monkeypatch.chdir("/")
        assert len(rib.evaluate(network, ["red"])) == 20
        monkeypatch.chdir(finished[0].folder)


def changed_rows(rows, column, value):
    together = pd.concat([rows["none", "pretrained"], rows["red", "ft"]], ignore_index=True)
    values = together[column].astype(object).to_numpy().copy()
    values[100:110] = value
    return together.assign(**{column: pd.Series(values).infer_objects()})


@pytest.mark.thorough
@pytest.mark.parametrize("column", ["rank", "prediction"])
@pytest.mark.parametrize("value", [None, float("nan"), -1, "first", 5, 1.5], ids=str)
def test_ten_wrong_ranks_or_predictions_are_no_ri(network, rows, column, value):
    with pytest.raises(UserError) as refused:
        rib.robustness_improvement(changed_rows(rows, column, value), network)
    sentence = str(refused.value)
    assert f"'{column}'" in sentence and "row 100 " in sentence and sentence.endswith(".")


def test_rows_of_images_that_do_not_exist_are_no_ri(network, rows):
    parts = [rows["none", "pretrained"], rows["red", "ft"]]
    with pytest.raises(UserError, match="'row'"):
        rib.robustness_improvement(
            pd.concat([part.assign(row=part["row"] + 15) for part in parts]), network
        )
    with pytest.raises(UserError, match="'row' has other images of blue"):
        rib.robustness_improvement(pd.concat([parts[0], parts[1][1:]]), network)


def test_rows_of_the_pretrained_network_are_needed(network, rows):
    with pytest.raises(UserError, match="the rows of the pretrained tiny_cnn are missing"):
        rib.robustness_improvement(rows["red", "ft"], network)


def test_a_changed_file_of_a_finished_run_is_refused(finished_copy):
    (path,) = finished_copy.folder.glob(
        "results/tiny/paper/evaluate/tiny_cnn/red/ft/all/0/*.parquet"
    )
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="is missing or was changed"):
        finished_run(finished_copy, "red", "ft")
    (path,) = finished_copy.folder.glob(
        "results/tiny/paper/finetune/tiny_cnn/green/ft/all/0/manifest.json"
    )
    path.unlink()
    with pytest.raises(UserError, match=f"{path} is missing"):
        finished_run(finished_copy, "green", "ft")


@pytest.mark.thorough
def test_the_documented_examples_run(settings, capsys):
    """On the tiny family, by other names; the second needs the names of the first."""
    own = f"catalog={settings['catalog']!r}, cache={settings['cache']!r}"
    names = {
        '"efficientnet_lite0"': '"tiny_cnn"',
        '"emoji",': f'"tiny", {own},',
        '"emoji")': f'"tiny", {own})',
        '"noto"': '"red"',
        '"openmoji"': '"green"',
    }
    known = {}
    printed = []
    for code in examples():
        assert all(old in code for old in names if not old.startswith('"emoji"'))
        for old, new in names.items():
            code = code.replace(old, new)
        exec(code, known)
        printed.append(capsys.readouterr().out)
    loop, own_network = printed
    assert re.search(r"^0 +ft +-?[\d.]+", loop, re.M)
    assert re.search(r"^0 +tiny_cnn +mine +red ", own_network, re.M)
    assert not known["before"]["rank"].equals(known["after"]["rank"])


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
    mine = project.folder / "mine"
    entries = yaml.safe_load((mine / "models.yaml").read_text())
    entries["net_10"] = {**MODEL, "label": "net_10", "pretrain": {**HOW, "size": 10}}
    (mine / "models.yaml").write_text(yaml.safe_dump(entries))
    datasets = yaml.safe_load((mine / "datasets.yaml").read_text())
    (mine / "datasets.yaml").write_text(yaml.safe_dump(datasets | {"usual": USUAL}))
    chosen = yaml.safe_load((mine / "families/tiny.yaml").read_text())
    chosen |= {"reference": reference, "classes": {"file": "own.csv", "format": "own"}}
    (mine / "families/tiny.yaml").write_text(yaml.safe_dump(chosen))
    (mine / "classes/own.csv").write_text(
        "".join(f"{row}\n" for row in ("key,name", *(f"{w},{w}" for w in family.WNIDS)))
    )
    run = f"{model}/copy/replay/all/0"
    rate = {"replay": {"lr": 0.00001}}
    config = (f"models={model}", "targets=copy", "methods=replay", f"method_settings={rate}")
    project.snakemake(
        "--cores", "1", f"results/tiny/paper/evaluate/{run}/tiny.parquet", config=config
    )
    own = {"catalog": str(mine), "cache": str(tmp_path / "cache"), "method_settings": rate}
    tuned = rib.finetune(rib.load_model(model, "tiny", **own), "copy", "replay")
    loaded, rows = rib.load_run(project.folder, f"tiny/paper/{run}", **own)
    for one, other in zip(
        tuned.files["checkpoints"].values(), loaded.files["checkpoints"].values(), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()
    pd.testing.assert_frame_equal(rib.evaluate(tuned, sorted(rows["dataset"].unique())), rows)
    assert (rows["dataset"] == "copy").sum() == (20 if reference == "memory" else 10)


@pytest.mark.slow
def test_the_documented_examples_run_as_they_stand(tmp_path):
    """Fetches three packages of pip and seven of npm.

    Or takes them from the folders in RIB_ARCHIVES.
    """
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow/lib')!r})\n" + "\n".join(
        examples()
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert re.search(r"^0 +ft +-?[\d.]+", done.stdout, re.M), done.stderr


@pytest.mark.slow
def test_the_emoji_family_has_the_bytes_of_the_workflow(tmp_path):
    """Fetches packages, as the test above."""
    project = Project(copy_project(tmp_path / "project"), "emoji")
    choices = (
        "models=efficientnet_lite0",
        "targets=emojione",
        "methods=ft",
        "datasets=[emojione,fxemoji]",
    )
    project.snakemake("--cores", "1", "tables", config=(*choices, "training={epochs: 1}"))
    network = rib.load_model(
        "efficientnet_lite0", "emoji", cache=str(tmp_path / "cache"), training={"epochs": 1}
    )
    tuned = rib.finetune(network, "emojione")
    loaded, rows = rib.load_run(project.folder, "emoji/paper/efficientnet_lite0/emojione/ft/all/0")
    assert (
        tuned.files["checkpoints"]["ft"].read_bytes()
        == loaded.files["checkpoints"]["ft"].read_bytes()
    )
    pd.testing.assert_frame_equal(rib.evaluate(tuned, ["emojione", "fxemoji"]), rows)


def examples():
    """Python code of docs/python.md, in its order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.M | re.S)


def test_importing_is_light_and_no_digest_of_code_depends_on_the_api():
    code = (
        "import rib, sys; print({name.split('.')[0] for name in sys.modules}"
        " & {'torch', 'pandas', 'numpy', 'yaml'})"
    )
    environment = {"PYTHONPATH": str(ROOT / "workflow/lib")}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        ).stdout
        == "set()\n"
    )
    for script in (ROOT / "workflow/scripts").glob("*.py"):
        assert ROOT / "workflow/lib/rib/api.py" not in closure(script)


def test_every_name_is_typed_and_explained():
    assert sorted(api.__all__) == dir(rib) and all(
        getattr(rib, name) is getattr(api, name) for name in api.__all__
    )
    for name in set(api.__all__) - {"UserError"}:
        function = getattr(rib, name)
        signature = inspect.signature(function)
        annotations = [
            part.annotation for key, part in signature.parameters.items() if key != "settings"
        ]
        assert inspect.Parameter.empty not in {*annotations, signature.return_annotation}
        assert re.search(rf"`rib\.{name}\(.*\)`", function.__doc__), name
    with pytest.raises(AttributeError):
        rib.nothing  # noqa: B018
