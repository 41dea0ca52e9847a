"""YAML that is made to exhaust memory, the stack or patience."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.schema.config import config_of
from rib.schema.yaml_files import read_yaml
from tiny.fuzz import NAMES, VALUES, fuzzed, outcome

SECONDS = 5  # a tenth is usual; a slow machine takes one, and an attack that works takes minutes


def powers(line):
    """Ten anchors, each of which has the one before nine times."""
    return "".join(
        f"a{n}: &a{n} {line.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 11)
    )


FILES = {
    "billion laughs in lists": "a0: &a0 [x]\n" + powers("[{}]"),
    "billion laughs by merging": "a0: &a0 {x: 1}\n" + powers("{{<<: [{}]}}"),
    "list in itself": "a: &a [*a]",
    "mapping merged into itself": "a: &a {<<: *a}",
    "chain of aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)),
    "chain of deep aliases": "a0: &a0 x\n"
    + "".join(f"a{n}: &a{n} {'[' * 45}*a{n - 1}{']' * 45}\n" for n in range(1, 40)),
    "open lists": "[" * 100_000,
    "nested block mappings": "\n".join(" " * n + "a:" for n in range(900)),
    "duplicate keys below": "red: {label: A, label: B}",
    "a number of 10,000 digits": f"a: {'9' * 10_000}",
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


def test_the_key_that_is_given_twice_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "config.yaml"
    message = refused(lambda: read_yaml(path), path, "a: 1\nb:\n  key: 1\n  key: 2\n")
    assert "'key'" in message and "line 4, column 3" in message


def test_a_list_that_does_not_end_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "config.yaml"
    message = refused(lambda: read_yaml(path), path, "a: [1\n")
    assert "line 1, column 4" in message


def test_a_large_catalogue_with_a_shared_part_in_each_entry_is_read(tmp_path):
    shared = "base: &base {" + ", ".join(f"k{n}: {n}" for n in range(10)) + "}\n"
    path = tmp_path / "a.yaml"
    path.write_text(shared + "".join(f"e{n}: {{<<: *base, own: [{n}]}}\n" for n in range(400)))
    read = read_yaml(path)
    assert len(read) == 401 and read["e399"] == {**read["base"], "own": [399]}


@st.composite
def yaml_with_aliases(draw):
    """YAML in which anchors refer to earlier ones: a few lines may mean any number of values."""
    references_per_line = draw(st.integers(1, 12))
    number_of_lines = draw(st.integers(1, 30))
    forms = st.sampled_from(
        [
            "a{n}: &a{n} [{i}]",
            "a{n}: &a{n} {{k: [{i}]}}",
            "a{n}: &a{n} {{<<: *m, k: [{i}]}}",
        ]
    )
    lines = ["m: &m {z: 1}", "a0: &a0 [x, x]"]
    for number in range(1, number_of_lines):
        references = ", ".join([f"*a{number - 1}"] * references_per_line)
        lines.append(draw(forms).format(n=number, i=references))
    alias_as_key = "\n? *a0\n"
    alias_of_itself = "\nb: &b [*b]\n"
    end = draw(st.sampled_from(["", alias_as_key, alias_of_itself]))
    return "\n".join(lines) + end


def repeat_opening(opening, depth):
    """Many openings of collections that are never closed."""
    return opening * depth


def write_twice(value):
    """A value as JSON, and once more."""
    return json.dumps(value, default=str) * 2


NESTED = st.builds(
    repeat_opening,
    st.sampled_from(["[", "{a: ", "- ", "? ", "!!x [", "&a ["]),
    st.integers(0, 9999),
)
DOUBLE = st.dictionaries(NAMES, VALUES, max_size=4).map(write_twice)


@fuzzed(200)
@given(yaml_with_aliases() | NESTED | DOUBLE | st.binary(max_size=40))
def test_any_aliases_and_nesting_are_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        # given
        file = Path(folder, "config.yaml")
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        file.write_bytes(content)
        # when
        result = outcome(lambda: [read_yaml(file)])  # a list, since a file may hold a text
    # then
    if isinstance(result, str):
        assert str(file) in result
    else:
        characters = len(json.dumps(result, default=repr, skipkeys=True))
        assert characters < 5_000_000
