import hashlib
import textwrap

import pytest

from rib import code
from rib.code import LIBRARY


def essence(tmp_path, source):
    path = tmp_path / f"m{abs(hash(source))}.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return code.essence(path)


BASE = '''
    def f(x):
        """One."""
        return x + 1  # why
'''


@pytest.mark.parametrize(
    "harmless",
    [
        'def f(x):\n    """Two, longer.\n\n    With «ümlauts» before the quotes."""\n    return x + 1\n',
        '"""Module."""\n# comment\n\n\ndef f(x):\n    """."""\n\n    return x + 1\n',
    ],
)
def test_comments_and_docstrings_do_not_count(tmp_path, harmless):
    assert essence(tmp_path, BASE) == essence(tmp_path, harmless)


@pytest.mark.parametrize(
    "change", ["def f(x):\n    return x + 2\n", "def f(y):\n    return y + 1\n", 'def f(x):\n    return x + "# 1"\n']
)
def test_statements_count(tmp_path, change):
    assert essence(tmp_path, BASE) != essence(tmp_path, change)


def test_strings_that_look_like_comments_are_kept(tmp_path):
    assert '"# kept"' in essence(tmp_path, 'x = "# kept"  # cut\n')


def test_multibyte_text_before_a_docstring_does_not_shift_the_cut(tmp_path):
    assert essence(tmp_path, 'x = "ü"; y = 1\ndef f(): "döc"; return 1\n') == 'x = "ü"; y = 1\ndef f(): ; return 1'


def test_a_form_feed_does_not_shift_the_cut(tmp_path):
    assert essence(tmp_path, 'x = 1\n\x0c\ndef f():\n    """Doc."""\n    return 1\n').endswith("return 1")
    assert "Doc" not in essence(tmp_path, 'x = "\x0c"  # why\ndef f():\n    """Doc."""\n    return 1\n')


def test_a_job_depends_on_what_it_imports_and_on_no_other_method():
    lwf = LIBRARY / "methods/lwf.py"
    names = {path.relative_to(LIBRARY).as_posix() for path in code.closure(LIBRARY / "finetune.py", lwf)}
    assert {"finetune.py", "methods/lwf.py", "methods/_base.py", "models/class_logits.py", "io.py"} <= names
    assert not names & {"methods/ft.py", "methods/linear_probe.py", "methods/wise_ft.py", "metrics.py", "catalog.py"}


def test_the_digest_is_that_of_the_text_not_of_the_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "script.py").write_text("import json\n")
    assert code.digest(tmp_path / "a/script.py") == code.digest(tmp_path / "b/script.py")


MODULES = {
    "rib/__init__.py": '"""The package."""\n',
    "rib/a.py": "import json\nimport os.path as p\n\n\ndef f():\n    if p:\n        from rib.pack import b\n    return b\n",
    "rib/pack/__init__.py": "import rib.c as other\n",
    "rib/pack/b.py": "import rib.pack.deep.e\n",
    "rib/pack/deep/__init__.py": "deep = 1\n",
    "rib/pack/deep/e.py": "from rib.pack.deep import deep\nfrom rib.a import f\n",
    "rib/pack/unused.py": "x = 1\n",
    "rib/c.py": "from . import unused\nimport ribs.unused, rib\nfrom rib.nothing import x\n",
    "rib/unused.py": "x = 1\n",
    "rib/job.py": "import rib.unused\n",
    "ribs/unused.py": "x = 1\n",
    "scripts/s.py": "from rib import a\nfrom rib.job import run\n",
    "page.jinja": "{# comment #} text\nimport rib.unused\n",
}
USED = {
    *("rib/__init__.py", "rib/a.py", "rib/c.py", "rib/pack/__init__.py", "rib/pack/b.py"),
    *("rib/pack/deep/__init__.py", "rib/pack/deep/e.py", "scripts/s.py"),
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Lays a small library, with some modules changed, and gives the folder; job.py is plumbing, as in the real one."""

    def lay(name, **changed):
        root = tmp_path / name
        for file, text in MODULES.items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changed.get(file, text), encoding="utf-8")
        monkeypatch.setattr(code, "LIBRARY", (root / "rib").resolve())
        monkeypatch.setattr(code, "PLUMBING", frozenset({(root / "rib/job.py").resolve()}))
        return root.resolve()

    return lay


def test_a_closure_follows_imports_in_functions_and_packages_and_stops_at_plumbing(library):
    root = library("a")
    found = code.closure(root / "scripts/s.py")
    assert found == sorted(root / file for file in USED)
    assert code.closure(root / "scripts/s.py", root / "page.jinja") == sorted([*found, root / "page.jinja"])
    assert code.closure(root / "rib/pack/unused.py") == [root / "rib/pack/unused.py"]
    assert code.imports(root / "page.jinja") == frozenset()


@pytest.mark.parametrize("file", [file for file in MODULES if file.endswith(".py")])
def test_the_digest_changes_with_every_module_that_is_used_and_with_no_other(library, file):
    before = code.digest(library("a") / "scripts/s.py")
    same = code.digest(library("same", **{file: "# why\n" + MODULES[file] + "\n# more\n"}) / "scripts/s.py")
    assert same == before
    changed = code.digest(library("changed", **{file: MODULES[file] + "changed = 1\n"}) / "scripts/s.py")
    assert (changed != before) == (file in USED)


def test_the_digest_is_a_hash_of_names_and_essences(library):
    root = library("a")
    names = {root / file: file.removeprefix("rib/") for file in USED} | {root / "scripts/s.py": "s.py"}
    texts = [f"{names[path]}\0{code.essence(path)}\0" for path in sorted(names)]
    expected = hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
    assert code.digest(root / "scripts/s.py") == expected
    assert code.digest(root / "scripts/s.py", root / "page.jinja") != expected


def test_what_is_no_python_counts_as_it_is(library):
    root = library("a")
    assert code.essence(root / "page.jinja") == MODULES["page.jinja"]
    before = code.digest(root / "page.jinja")
    root = library("b", **{"page.jinja": MODULES["page.jinja"].replace("comment", "other")})
    assert code.digest(root / "page.jinja") != before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class A:\n    '''Doc.'''\n    x = 1\n", "class A:\n    x = 1"),
        ("async def f():\n    '''Doc.'''\n    return 1\n", "async def f():\n    return 1"),
        ("def f():\n    1\n    'no docstring'\n", "def f():\n    1\n    'no docstring'"),
        ("x = 1\n'no docstring'\n", "x = 1\n'no docstring'"),
        ("def f():\n    b'bytes'\n", "def f():\n    b'bytes'"),
        ("def f():\n    g()\n", "def f():\n    g()"),
        ("def f():\n    return 'text'\n", "def f():\n    return 'text'"),
        ("def f():\n    'a' 'b'; return 1\n", "def f():\n    ; return 1"),
        ("x = 1   # why\n\n   \ny = 2  \n", "x = 1\ny = 2"),
        ("'''Two\nlines.'''; x = '''a\n\n # b'''\n", "; x = '''a\n # b'''"),
        ("def f(): 'Döc'; x = 1  # ü\n", "def f(): ; x = 1"),
    ],
)
def test_the_essence_is_the_source_without_comments_and_docstrings(tmp_path, source, expected):
    assert essence(tmp_path, source) == expected


SCRIPTS = LIBRARY.parents[1] / "scripts"
TRAINING = {"finetune.py", "resume.py", "methods/_base.py", "methods/__init__.py", "models/class_logits.py"}
TRAINING |= {"models/checkpoint.py", "models/inputs.py", "models/pretrained.py", "models/device.py", "data/splits.py"}
SCORING = {"evaluate.py", "models/class_logits.py", "models/checkpoint.py", "models/fold.py", "models/state.py"}
SCORING |= {"models/inputs.py", "models/pretrained.py", "models/device.py", "data/splits.py", "data/prepared.py"}
FEATURES = {"features.py", "models/state.py", "models/checkpoint.py", "models/fold.py", "models/inputs.py"}
ROWS = {"metrics.py", "runs.py", "io.py"}
# What decides a stage's numbers: its script, the modules that a rule adds, and what must be among what they import.
STAGES = {
    "prepare": (["data/layouts/class_folders.py"], {"data/prepare.py", "data/images.py", "geometry.py", "classes.py"}),
    "models": (
        [],
        {"models/pretrained.py", "models/heads.py", "models/device.py", "models/inputs.py", "data/splits.py"},
    ),
    "pretrain": ([], TRAINING | {"pretrain.py", "evaluate.py", "data/prepared.py", "classes.py"}),
    "finetune": (
        ["methods/lwf.py"],
        TRAINING | {"methods/lwf.py", "data/prepared.py", "models/frame.py", "classes.py"},
    ),
    "snapshots": (["methods/ewc.py"], TRAINING | {"methods/ewc.py", "data/prepared.py"}),
    "merge": (
        ["methods/wise_ft_curve.py"],
        {"merge.py", "methods/wise_ft_curve.py", "methods/wise_ft.py", "plugins.py"},
    ),
    "selection": (
        ["methods/greedy_soup.py"],
        {"selection.py", "methods/greedy_soup.py", "evaluate.py", "merge.py", "models/checkpoint.py", "data/splits.py"},
    ),
    "evaluate": ([], SCORING | {"merge.py", "passes.py", "models/frame.py", "data/suites.py", "classes.py"}),
    "features": ([], FEATURES | {"merge.py", "models/frame.py", "data/splits.py"}),
    "epochs": ([], FEATURES),
    "metrics": ([], ROWS),
    "summary": ([], {"analysis/summary.py"}),
    "comparison": ([], ROWS | {"analysis/comparison.py"}),
    "samples": ([], ROWS | {"analysis/samples.py"}),
    "sizes": ([], {"analysis/sizes.py"}),
    "effective_robustness": ([], ROWS | {"analysis/effective_robustness.py"}),
    "association": ([], {"analysis/association.py"}),
    "cka": ([], {"analysis/cka.py"}),
    "distances": ([], {"analysis/distances.py", "data/stored_features.py"}),
    "compression_distances": ([], {"analysis/compression.py", "data/prepared.py"}),
    "inversions": ([], {"stir.py", "models/state.py", "models/inputs.py"}),
    "stir": ([], {"stir.py"}),
    "cost": ([], {"analysis/cost.py", "provenance.py"}),
    "training": ([], {"analysis/training.py", "runs.py"}),
    "figures": (["figures/radar.py"], {"figures/radar.py", "figures/__init__.py"}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_digest_holds_the_modules_that_decide_its_numbers(stage):
    modules, wanted = STAGES[stage]
    files = code.closure(SCRIPTS / f"{stage}.py", *(LIBRARY / name for name in modules))
    found = {path.relative_to(LIBRARY).as_posix() for path in files if path.is_relative_to(LIBRARY)}
    assert SCRIPTS / f"{stage}.py" in files and SCRIPTS / "_run.py" not in files
    assert wanted <= found, f"{sorted(wanted - found)} may change and {stage} would not notice"
    assert not found & {"job.py", "warm.py", "integrity.py"}
    methods = {name for name in found if name.startswith("methods/")}
    if stage in ("evaluate", "features", "metrics"):
        assert "methods/lwf.py" not in methods and "finetune.py" not in found
    if stage == "merge":
        assert "methods/_base.py" not in methods
