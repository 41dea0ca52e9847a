"""Rule files share one namespace, so most names must stay in the file that defines them."""

import re
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"
RULES = {
    path.relative_to(WORKFLOW / "rules").as_posix(): path.read_text()
    for path in (WORKFLOW / "rules").rglob("*.smk")
}


@pytest.mark.parametrize("file", sorted(set(RULES) - {"common.smk"}))
def test_a_rule_file_is_read_without_the_others(file):
    """Its names are used in no other file; common.smk has the names that several files use."""
    definition = re.compile(r"^(?:def (\w+)|([A-Z]\w*) =)", re.MULTILINE)
    others = "".join(text for other, text in RULES.items() if other != file)
    code = re.sub(r"#.*", "", others)
    defined = [match[1] or match[2] for match in definition.finditer(RULES[file])]
    used = set(re.findall(r"(?<![.\w])\w+", code))
    defined_twice = {match[1] or match[2] for match in definition.finditer(others)}
    assert set(defined) & used - defined_twice == set()


@pytest.mark.parametrize("file", [*sorted(RULES), "../../Snakefile"])
def test_globals_are_capitals(file):
    """A loop variable that is a common noun overwrites what else has its name, in any file."""
    text = RULES.get(file) or (WORKFLOW.parent / "Snakefile").read_text()
    found = re.findall(r"^(?:for )?(\w+)(?:, \w+)* (?:=|in) ", text, re.MULTILINE)
    assert [name for name in found if name != name.upper()] == []
