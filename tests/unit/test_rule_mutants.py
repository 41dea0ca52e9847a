"""The changes of rules that mutation testing tries.

Which there are, and that each is one change of one place.
"""

from mutation import rule_mutants

SOURCE = '''# A rule, and what it uses.
LIMITS = {"low": 1, "high": 2}
OTHER = {"not": "used"}


def more_inputs(w):
    """Inputs by name."""
    return {"index": f"{w.name}.index", "gone": []}


rule copy:
    input:
        unpack(more_inputs),
        images="images.npy",
        **{name: f"{name}.csv" for name in "ab"},
    output:
        "copy.npy",
    params:
        cfg={
            "limits": LIMITS,  # a comment
            "code": digest("copy", "more.py"),
        },
    script:
        "copy.py"
'''


def changes(tmp_path):
    """What stands in place of what, and the changed sources."""
    (tmp_path / "copy.smk").write_text(SOURCE)
    mutants = rule_mutants.all_mutants(tmp_path)
    lines = [mutant.shown(SOURCE).splitlines() for mutant in mutants]
    shown = {
        (before.removeprefix("  - "), after.removeprefix("  + ")) for _, before, after in lines
    }
    return shown, [mutant.apply(SOURCE) for mutant in mutants]


def test_inputs_are_emptied_and_settings_and_files_of_digests_are_left_out(tmp_path):
    shown, _ = changes(tmp_path)
    assert shown == {
        ("unpack(more_inputs)", "*[]"),
        ('"images.npy"', "[]"),
        ('**{name: f"{name}.csv" for name in "ab"}', "**{}"),
        ('f"{w.name}.index"', "[]"),
        ('"limits": LIMITS', "**{}"),
        ('"code": digest("copy", "more.py")', "**{}"),
        ('"more.py"', "*[]"),
        ('"low": 1', "**{}"),
        ('"high": 2', "**{}"),
    }


def test_all_else_stays_as_it_is(tmp_path):
    shown, sources = changes(tmp_path)
    assert len(set(sources)) == len(shown)
    for source in sources:
        lines = list(zip(source.splitlines(), SOURCE.splitlines(), strict=True))
        assert sum(after != before for after, before in lines) == 1


def test_every_file_of_rules_can_be_taken_apart(pytestconfig):
    mutants = rule_mutants.all_mutants(pytestconfig.rootpath / "workflow/rules")
    files = {mutant.file.name for mutant in mutants}
    assert {"finetune.smk", "split.smk", "prepare.smk", "metrics.smk", "sizes.smk"} <= files
    assert len(mutants) > 400
