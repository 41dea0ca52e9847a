"""Wrong config and entries are refused with one sentence: file, key, value, what is expected."""

import math

import pytest

from rib.base.errors import UserError
from rib.schema import augmentation_entries, config, entries, source_entries
from rib.schema.checking import checked
from rib.schema.config import config_of
from rib.schema.entries import Dataset, Method, Recipe
from rib.schema.fields import Described
from unit.conftest import published

MODELS = {
    name: kind
    for module in (config, entries, augmentation_entries, source_entries)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Described) and kind is not Described
}


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_every_key_that_a_file_may_state_has_a_description(kind):
    for name, field in kind.model_fields.items():
        if name == "name" or name not in kind.DERIVED:
            assert field.description, name


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"seeds": ["0", "1.5"]}, "'seeds.1' is '1.5'.* valid integer.*expected: a whole number"),
        ({"seeds": [True]}, "'seeds.0' is True.* valid integer"),
        ({"seeds": [0, 0]}, r"'seeds' is \[0, 0\].*it has 0 2 times"),
        ({"seeds": []}, r"'seeds' is \[\].*at least 1 item"),
        ({"seeds": 0}, "'seeds' is 0.*expected: list of training seeds"),
        ({"seed": [1]}, r"unknown key 'seed' \(did you mean 'seeds'\?\); allowed are accept_terms"),
        ({"epoch": 3}, "unknown key 'epoch'.*training: .epochs"),
        ({"batch_size": 3}, "unknown key 'batch_size'.*training: .batch_size"),
        ({"stir": {"seeds": 1}}, "unknown key 'seeds' in 'stir'.*'seed'"),
        ({"split": {"train": math.nan}}, "'split.train' is nan.*not a finite number"),
        ({"stir": {"lr": 10**400}}, "'stir.lr' is 1000.*not a finite number"),
        ({"stir": {"lr": 0}}, "'stir.lr' is 0.*should be greater than 0.*expected: initial"),
        ({"split": None}, "'split' is None.*it is empty"),
        ({"compute": {"device": "gpu"}}, "'compute.device' is 'gpu'.*'auto', 'cpu' or 'cuda'"),
        ({"image_size": 5000}, "'image_size' is 5000.*expected: side of the square input"),
        ({"method_settings": {1: {}}}, "1 in 'method_settings' is not a valid name"),
        ({"train_subset": ["all", 2.0]}, "'train_subset.1' is 2.0.*expected: 'default'"),
        ({"method_settings": {True: {}}}, "True in 'method_settings'.*put it in quotes"),
        ({"name": "a/b"}, "'name' is 'a/b'.*does not match"),
        ([], r"the file is \[\].*it should be a mapping"),
    ],
    ids=str,
)
def test_a_wrong_value_is_a_sentence_with_file_and_key(choices, sentence):
    with pytest.raises(UserError, match=f"^config.yaml: {sentence}") as refused:
        config_of(choices, "config.yaml")
    assert str(refused.value).endswith(".")


def test_texts_of_the_command_line_are_numbers_and_booleans_where_these_are_wanted():
    choices = {
        "seeds": ["0", "1"],
        "image_size": "33",
        "train_subset": ["all", "5", "0.1"],
        "stir": {"lr": "1e-3"},
        "compute": {"compile": "True", "gpu_memory_gb": "8"},
        "family": "5",
    }
    checked_config = config_of(choices, "config.yaml")
    assert checked_config["seeds"] == [0, 1]
    assert checked_config["image_size"] == 33
    assert checked_config["train_subset"] == ["all", 5, 0.1]
    assert checked_config["stir"]["lr"] == 0.001
    assert checked_config["compute"]["compile"] is True
    assert checked_config["compute"]["gpu_memory_gb"] == 8
    assert checked_config["family"] == "5"


def test_an_integer_stays_one_where_fractions_are_allowed():
    assert repr(config_of({"stir": {"lr": 1}}, "config.yaml")["stir"]["lr"]) == "1"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "other"}, "unknown key 'name' in 'own'"),
        ({"images": None}, "'own.images' is None.*it is empty.*expected: exact number"),
        ({"source": {"kind": "ftp"}}, "'own.source.kind' is 'ftp'.*expected: npm or pypi"),
        ({"source": {"path": "a"}}, "the key 'kind' is missing in 'own.source'"),
        ({"source": {"kind": "folder", "path": 1}}, "'own.source.path' is 1.*file or folder"),
        ({"source": {"kind": "file", "path": "a", "file": "/"}}, "'own.source.file' is '/'"),
        ({"archives_of": "noto"}, "give exactly one of the keys source, .*archives_of in 'own'"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_a_sentence_with_file_and_key(changes, sentence):
    entry = {**published("datasets.yaml")["noto"], **changes}
    with pytest.raises(UserError, match=f"^datasets.yaml: {sentence}"):
        checked(Dataset, entry, "datasets.yaml", "own", ["own"])


def test_what_the_code_sets_is_no_key_of_a_method():
    entry = {**published("methods.yaml")["ft"], "evaluated": "paper"}
    with pytest.raises(UserError, match="methods.yaml: unknown key 'evaluated' in 'own'"):
        checked(Method, entry, "methods.yaml", "own", ["own"])


def test_only_keys_that_may_be_null_are():
    paper = published("recipes.yaml")["paper"]
    recipe = checked(Recipe, {**paper, "clip_norm": None}, "recipes.yaml", "own", ["own"])
    assert recipe.clip_norm is None
    with pytest.raises(UserError, match="'own.momentum' is None"):
        checked(Recipe, {**paper, "momentum": None}, "recipes.yaml", "own", ["own"])
