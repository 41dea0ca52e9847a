"""Which files of a repository of the hub a config and a split are: by its README, or by names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.data.hub_splits import ChosenNames, files_of_split, matches, split_of_path

WHERE = "datasets.yaml, photos: hf-datasets:owner/set"
README = ["README.md", ".gitattributes"]
CORRUPTIONS = [
    {
        "config_name": name,
        "data_files": [
            {"split": "mild", "path": f"{name}/1-*.parquet"},
            {"split": "strong", "path": [f"{name}/4.parquet", f"{name}/5.parquet"]},
        ],
    }
    for name in ("fog", "snow")
]
FILES_OF_CORRUPTIONS = [
    f"{name}/{file}.parquet"
    for name in ("snow", "fog")
    for file in ("5", "4", "1-b", "1-a", "unlisted")
]


def chosen_files(paths, configs=None, config=None, split=None):
    return files_of_split(paths, configs, ChosenNames(config, split), WHERE)


@pytest.mark.parametrize(
    ("path", "config", "split"),
    [
        ("data/train-00000-of-00002.parquet", "default", "train"),
        ("train-00000-of-00002.parquet", "default", "train"),
        ("fog/test-00000-of-00001.parquet", "fog", "test"),
        ("data/fog/test_b-00000-of-00001.parquet", "fog", "test_b"),
        ("fog/test/0000.parquet", "fog", "test"),
        ("data/test/0.tar", "default", "test"),
        ("test/0.tar", "default", "test"),
        ("a/b/test/0.tar", "a/b", "test"),
        ("train.parquet", "default", "train"),
        ("data/train-0.tar", "default", "train"),
        ("photos-train-0000.tar", "default", "train"),
        ("data/photos_validation_0.tar", "default", "validation"),
        ("photos-0000.tar", "default", "photos"),
        ("latest_0.tar", "default", "latest_0"),
    ],
)
def test_folders_and_names_tell_config_and_split(path, config, split):
    assert split_of_path(path) == (config, split)


def test_without_a_list_files_are_chosen_by_their_names():
    paths = [*README, "data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"]
    assert chosen_files(paths) == sorted(paths[2:])
    paths.append("data/test-00000-of-00001.parquet")
    assert chosen_files(paths, split="test") == paths[-1:]
    assert chosen_files([*README, "test/1.tar", "test/0.tar", "test/nshards.txt"]) == [
        "test/0.tar",
        "test/1.tar",
    ]


def test_training_and_validation_images_are_not_taken_together():
    paths = ["photos-train-0.tar", "photos-train-1.tar", "photos-validation-0.tar"]
    with pytest.raises(UserError, match="it has the splits train, validation; name one"):
        chosen_files(paths)
    assert chosen_files(paths, split="validation") == paths[2:]


def test_the_list_in_the_readme_comes_before_names():
    assert chosen_files(FILES_OF_CORRUPTIONS, CORRUPTIONS, "snow", "mild") == [
        "snow/1-a.parquet",
        "snow/1-b.parquet",
    ]
    assert chosen_files(FILES_OF_CORRUPTIONS, CORRUPTIONS, "fog", "strong") == [
        "fog/4.parquet",
        "fog/5.parquet",
    ]


def test_the_default_config_need_not_be_named():
    configs = [CORRUPTIONS[0], {**CORRUPTIONS[1], "default": True}]
    assert chosen_files(FILES_OF_CORRUPTIONS, configs, split="mild")[0].startswith("snow/")
    named_default = [CORRUPTIONS[1], {**CORRUPTIONS[0], "config_name": "default"}]
    assert chosen_files(FILES_OF_CORRUPTIONS, named_default, split="mild")[0].startswith("fog/")


@pytest.mark.parametrize(
    "data_files",
    ["x/*.tar", ["x/a.tar", "x/b.tar"], {"train": "x/*"}, [{"path": "**/*.tar"}], "./x/**"],
)
def test_a_readme_may_list_files_in_several_ways(data_files):
    configs = [{"config_name": "one", "data_files": data_files}]
    assert chosen_files(["x/a.tar", "x/b.tar", *README], configs) == ["x/a.tar", "x/b.tar"]


def test_a_config_may_be_a_folder():
    configs = [{"config_name": name, "data_dir": f"./{name}"} for name in ("a", "b")]
    paths = [f"{name}/{split}-00000-of-00001.parquet" for name in "ab" for split in ("x", "y")]
    assert chosen_files(paths, configs, "b", "y") == ["b/y-00000-of-00001.parquet"]


def test_of_a_split_in_two_forms_the_parquet_files_count():
    assert chosen_files(["test/0.tar", "test/0.parquet", "test/1.parquet"]) == [
        "test/0.parquet",
        "test/1.parquet",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((README,), "no files in .parquet or .tar.*refs/convert/parquet"),
        ((["a/x.tar"], None, "b"), r"unknown config 'b'.*known are default\."),
        ((["test/0.tar"], None, None, "tset"), r"unknown split 'tset' \(did you mean 'test'\?\)"),
        ((["a/x/0.tar", "b/x/0.tar"],), "the configs a, b; name one of them as config"),
        ((["x/0.tar", "y/0.tar"],), "the splits x, y; name one of them as split"),
        ((FILES_OF_CORRUPTIONS, CORRUPTIONS, "rain"), "unknown config 'rain'.*fog, snow"),
        ((FILES_OF_CORRUPTIONS, CORRUPTIONS, "fog", "m"), "unknown split 'm'.*mild, strong"),
        (
            (["a.tar"], [{"config_name": "c", "data_files": "b*"}]),
            "its split 'train' has no files in",
        ),
    ],
)
def test_what_is_not_there_is_a_sentence(arguments, sentence):
    with pytest.raises(UserError, match=f"^{WHERE}: .*{sentence}") as raised:
        chosen_files(*arguments)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "configs",
    [
        [],
        {},
        "x",
        [[]],
        [{}],
        [{"config_name": 1}],
        [{"config_name": "c", "data_dir": 1}],
        [{"config_name": "c", "data_files": 1}],
        [{"config_name": "c", "data_files": [{"split": [], "path": "x"}]}],
        [{"config_name": "c", "data_files": [{"split": "x"}]}],
        [{"config_name": "c", "data_files": [{"split": "x", "path": "x"}, "x"]}],
        [{"config_name": "c", "data_files": "*" * 501}],
        [{"config_name": "c", "data_files": "[*" * 200 + "*/**/**/**"}],
    ],
)
def test_a_hostile_readme_is_a_sentence(configs):
    with pytest.raises(UserError, match=f"^{WHERE}: "):
        chosen_files(["train.tar"], configs)


PARTS = st.text("ab-", min_size=1, max_size=3)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "*", "**", "a*", "?", "[ab]-"]), min_size=1, max_size=4
)


def regular_expression(pattern):
    """A pattern of a README as a regular expression."""
    *folders, name = pattern.split("/")
    if name == "**":
        folders.append(name)
        name = "*"
    of_part = {"*": "[^/]+", "**": "(?:[^/]+/)*", "a*": "a[^/]*", "?": "[^/]"}
    expression = ""
    for folder in folders:
        expression += of_part.get(folder, folder)
        if folder != "**":
            expression += "/"
    return expression + of_part.get(name, name)


@given(path=PATHS, pattern=PATTERNS.map("/".join))
def test_patterns_match_as_those_of_folders_do(path, pattern):
    is_match = re.fullmatch(regular_expression(pattern), path) is not None
    assert matches(path, pattern) == is_match
