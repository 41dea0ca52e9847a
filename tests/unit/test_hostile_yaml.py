"""YAML that is made to exhaust memory, the stack or patience."""

import time
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.config import config_of
from rib.config.yaml_files import read_yaml
from unit.conftest import CATALOG

SECONDS = 5  # a tenth is usual; a slow machine takes one, and an attack that works takes minutes


def powers(line):
    """Ten anchors, each of which has the one before nine times."""
    return "".join(
        f"a{n}: &a{n} {line.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 11)
    )


FILES = {
    "billion laughs in lists": "a0: &a0 [x]\n" + powers("[{}]"),
    "billion laughs in mappings": "a0: &a0 {x: 1}\n" + powers("{{k: [{}]}}"),
    "billion laughs by merging": "a0: &a0 {x: 1}\n" + powers("{{<<: [{}]}}"),
    "many aliases of a long list": f"a: &a [{'x, ' * 1000}]\nb: [{'*a, ' * 1000}]",
    "list in itself": "a: &a [*a]",
    "mapping in itself": "a: &a {b: *a}",
    "mapping merged into itself": "a: &a {<<: *a}",
    "chain of aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)),
    "chain of deep aliases": "a0: &a0 x\n"
    + "".join(f"a{n}: &a{n} {'[' * 45}*a{n - 1}{']' * 45}\n" for n in range(1, 40)),
    "open lists": "[" * 100_000,
    "nested lists": "[" * 900 + "]" * 900,
    "nested mappings": "{a: " * 900 + "1" + "}" * 900,
    "open mappings": "{a: " * 100_000,
    "nested block lists": "- " * 100_000 + "x",
    "nested block mappings": "\n".join(" " * n + "a:" for n in range(900)),
    "nested keys": "? " * 100_000,
    "duplicate keys": "family: emoji\nfamily: imagenet",
    "duplicate keys below": "red: {label: A, label: B}",
    "duplicate quoted keys": 'red: {label: A, "label": B}',
    "a number of 10,000 digits": f"a: {'9' * 10_000}",
    "a hexadecimal number of 10,000 digits": f"image_size: 0x{'f' * 10_000}",
    "a number in base 60": "a: 1" + ":1" * 100_000,
    "duplicates among many keys": "".join(f"k{n}: 1\n" for n in range(10_000)) + "k7: 1",
    "duplicate merges": "a: &a {x: 1}\nb: {<<: *a, <<: *a}",
}


def refused(read, path, text):
    """Refusal of a file within seconds of processor time, as one line that names it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(UserError, match=path.name) as error:
        read()
    assert (
        time.process_time() - begun < SECONDS
        and len(str(error.value)) < 500
        and "\n" not in str(error.value)
    )
    return str(error.value)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_config_is_refused_within_seconds(tmp_path, text):
    path = tmp_path / "config.yaml"
    refused(lambda: config_of(read_yaml(path), str(path)), path, text)


@pytest.mark.parametrize(
    "file", ["datasets", "models", "methods", "recipes", "augmentations", "families"]
)
@pytest.mark.parametrize(
    "kind", ["billion laughs by merging", "mapping in itself", "open lists", "nested mappings"]
)
def test_catalogues_are_refused_within_a_second(tmp_path, file, kind):
    path = tmp_path / ("families/own.yaml" if file == "families" else f"{file}.yaml")
    refused(lambda: getattr(Catalog([CATALOG, tmp_path]), file), path, FILES[kind])


@pytest.mark.parametrize("key", ["family", "label"])
def test_the_key_that_is_given_twice_is_named_with_file_and_line(tmp_path, key):
    path = tmp_path / "config.yaml"
    message = refused(lambda: read_yaml(path), path, f"a: 1\nb:\n  {key}: 1\n  {key}: 2\n")
    place = f"the key '{key}' is given twice, the second time at line 4, column 3"
    assert message == f"{path} is not valid YAML: {place}; correct it."


def test_a_list_that_does_not_end_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "config.yaml"
    message = refused(lambda: read_yaml(path), path, "a: [1\n")
    assert message.startswith(f"{path} is not valid YAML")
    assert "at line 1, column 4" in message
    assert "unicode string" not in message


def test_a_large_catalogue_with_a_shared_part_in_each_entry_is_read(tmp_path):
    shared = "base: &base {" + ", ".join(f"k{n}: {n}" for n in range(10)) + "}\n"
    path = tmp_path / "a.yaml"
    path.write_text(shared + "".join(f"e{n}: {{<<: *base, own: [{n}]}}\n" for n in range(400)))
    read = read_yaml(path)
    assert len(read) == 401 and read["e399"] == {**read["base"], "own": [399]}


def test_the_projects_own_files_are_read():
    for path in Path(CATALOG).rglob("*.yaml"):
        assert read_yaml(path)
