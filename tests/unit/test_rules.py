"""The rule files: one word per stage, and no common noun as a global."""

import re
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"
RULES = {
    path.relative_to(WORKFLOW / "rules").as_posix(): path.read_text()
    for path in (WORKFLOW / "rules").rglob("*.smk")
}
# Several rules have these scripts, which are named after what all of them do, not after the
# rule.
SHARED = {
    "import_checkpoint": "finetune",
}
# Rules that are made in a loop have it.
IN_A_LOOP = {"analyse", "draw_figures"}
BLOCKS = re.compile(r"^( *)rule (\w+):\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


def stages():
    """Name and text of every rule that runs a script."""
    blocks = (match for text in RULES.values() for match in BLOCKS.finditer(text))
    return {match[2]: match[3] for match in blocks if "script:" in match[3]}


def test_every_script_belongs_to_a_rule():
    scripts = {path.stem for path in (WORKFLOW / "scripts").glob("[a-z]*.py")}
    assert scripts - IN_A_LOOP == {SHARED.get(rule, rule) for rule in stages()}


@pytest.mark.parametrize("rule", sorted(stages()))
def test_a_stage_has_one_name(rule):
    """Rule, script and digest; settings that a function makes name the stage that they are for."""
    block, script = stages()[rule], SHARED.get(rule, rule)
    assert re.search(r"scripts/(\w+)\.py\"", block)[1] == script
    named = re.findall(r"digest\(\s*\"(\w+)\"", block)
    assert set(named) <= {script}, named
    # Their bytes are pinned, they make nothing that is kept, or trainings would be hidden behind
    # them (see LabelCheckSettings).
    without_digest = {"download", "check_labels"}
    assert rule in without_digest or re.search(rf"\w\(\s*\"{script}\"", "".join(RULES.values())), (
        "no code digest"
    )


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
