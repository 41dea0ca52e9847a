import ast
import hashlib
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import grimp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.jobs import code_digest
from rib.jobs.code_digest import LIBRARY
from tiny.fuzz import fuzzed
from tiny.tiers import examples


@pytest.fixture
def fingerprint(tmp_path):
    """The fingerprint of some source."""

    def of(source):
        path = tmp_path / f"m{hashlib.md5(source.encode()).hexdigest()}.py"
        path.write_text(source, encoding="utf-8")
        return code_digest.fingerprint(path)

    return of


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        ("'''Doc.'''\nx = 1\n", "x = 1  # why\n"),
        ("class A:\n    '''Doc.'''\n    x = 1\n", "class A:\n    x = 1\n"),
        ("async def f():\n    '''Doc.'''\n    return 1\n", "async def f():\n    return 1\n"),
        ("def f():\n    'a' 'b'; return 1\n", "def f():\n    'Doc.'\n\n    return (1)\n"),
        ("x = [1,2]\n", "x = [\n\n    1,  # why\n    2,\n]\n"),
        ("x = 'a' 'b'\n", 'x = "ab"\n'),
        ("raise E('ü', 1) from e\n", "raise E('u') from e\n"),
        ("raise a.E(  # why\n    'a'\n    'b',\n    code=1,\n)\n", "raise a.E(f'{x}')\n"),
        ("if x:\n    log.info('a %s', x)\n    y = 1\n", "if x:\n    y = 1\n"),
    ],
)
def test_text_for_people_and_layout_change_no_fingerprint(fingerprint, source, edited):
    assert fingerprint(source) == fingerprint(edited)


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        ("def f():\n    1\n    'no docstring'\n", "def f():\n    1\n"),
        ("x = 1\n'no docstring'\n", "x = 1\n"),
        ("def f():\n    return 'text'\n", "def f():\n    return 'Text'\n"),
        ("x = '# a'\n", "x = '# b'\n"),
        ("x = '''a\n\nb'''\n", "x = '''a\nb'''\n"),
        ("x = f'{y}  '\n", "x = f'{y} '\n"),
        ("x = [1, '']\n", "x = [1]\n"),
        ("x = 1\n", "x = True\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("x = 'a'\n", "x = b'a'\n"),
        ("raise E('a')\n", "raise F('a')\n"),
        ("raise E('a')\n", "raise E('a') from e\n"),
        ("x = E('a')\n", "x = E('b')\n"),
        ("y = log.info('a')\n", "y = log.info('b')\n"),
        ("logs.info('a')\n", "logs.info('b')\n"),
        ("if x:\n    y = 1\nz = 1\n", "if x:\n    y = 1\n    z = 1\n"),
    ],
)
def test_code_changes_the_fingerprint(fingerprint, source, edited):
    assert fingerprint(source) != fingerprint(edited)


# Every form of literal, and whatever is not part of a fingerprint.
SAMPLE = '''"""A module's docstring."""
x = """a

  b  # c
"""  # why
y = f"""{x}

{x=} '"""
z = "a" \\
    "b" 'c'[0:1]
@x(  # why

    "é"

)
def f(a):
    """A docstring."""

    if a: log.info("a")
    else:
        log.info(
            """a

            b""", x)
    for a in y: z
    (a)
    raise E("""a

    b""", a) \\
        from a
class A: "docstring"
'''


def meaning(source):
    """Its tree without docstrings, arguments of raise and log calls; None if it is no Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # such as `1 is 1`
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        may_have_docstring = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if may_have_docstring and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [one for one in statements if not is_log_call(one)])
    return ast.dump(tree)


def is_log_call(statement):
    """Whether a statement is `log.info(...)`, or calls another method of `log`."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
    return False


PIECES = {
    "line breaks": "\n",
    "spaces": " ",
    "quotation marks": '"',
    "comments": "#",
    "log calls": " log.info()\n",
    "form feeds": "\x0c",
    "separators of lines": "\u2028",
}


@pytest.mark.parametrize("piece", examples(PIECES, ["line breaks"]))
def test_sources_with_the_same_fingerprint_have_the_same_meaning(fingerprint, piece):
    """Of a module that has whatever a fingerprint leaves out, with a piece anywhere."""
    meaning_of_fingerprint = {fingerprint(SAMPLE): meaning(SAMPLE)}
    for i in range(len(SAMPLE)):
        source = SAMPLE[:i] + piece + SAMPLE[i:]
        found = meaning(source)
        if found is not None:
            expected = meaning_of_fingerprint.setdefault(fingerprint(source), found)
            assert found == expected, f"{source!r} has the fingerprint of another meaning"
    assert len(set(meaning_of_fingerprint.values())) > 9


@pytest.mark.thorough
@fuzzed(examples=200)
@given(
    file=st.sampled_from(sorted(LIBRARY.rglob("*.py"))),
    place=st.floats(0, 1),
    piece=st.sampled_from(sorted(PIECES.values())),
    left_out=st.integers(0, 1),
)
def test_an_edit_that_changes_the_meaning_of_a_file_changes_its_fingerprint(
    fingerprint, file, place, piece, left_out
):
    source = file.read_text(encoding="utf-8")
    start = int(place * len(source))
    edited = source[:start] + piece + source[start + left_out :]
    if meaning(edited) not in (None, meaning(source)):
        assert fingerprint(edited) != fingerprint(source)


# Prints the digest of each file; digests do not need pydantic, which other Pythons here may lack.
PRINT_DIGESTS = """
import sys
from pathlib import Path
from types import SimpleNamespace

nothing = dict.fromkeys(("ConfigDict", "ValidationError", "create_model"))
sys.modules["pydantic"] = SimpleNamespace(**nothing)
from rib.jobs.code_digest import digest

for file in sys.argv[1:]:
    print(digest(Path(file)))
"""
# Forms of text whose syntax trees differ between versions of Python.
FORMATTED = """x = f"{a:>{width}}" + f"{a!r:{width}.{places}f}%" + f"{a = }{{}}" u"b" + "🫨"
def f(a, *, b=1): return lambda: [a for a in b if f"" "c"]
"""


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_digests_are_the_same_in_every_version_of_python(tmp_path, name):
    """Who shares results may have another version; of all files of the workflow."""
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE + FORMATTED, encoding="utf-8")
    files = [sample, *sorted(LIBRARY.parents[1].rglob("*.py"))]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(LIBRARY.parent)}
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [name, "-c", PRINT_DIGESTS, *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == 127:  # a command of pyenv without its version
        pytest.skip(f"{name} is not installed")
    assert done.stdout.splitlines() == [code_digest.digest(file) for file in files], done.stderr


MODULES = {
    "rib/__init__.py": '"""The package."""\n',
    "rib/a.py": (
        "import json\nimport os.path as p\n\n\n"
        "def f():\n    if p:\n        from rib.pack import b\n    return b\n"
    ),
    "rib/pack/__init__.py": "import rib.c as other\n",
    "rib/pack/b.py": (
        "from typing import TYPE_CHECKING\n\nimport rib.pack.deep.e\n\n"
        "if TYPE_CHECKING:\n    from rib.types_alone import x\n"
    ),
    "rib/pack/deep/__init__.py": "deep = 1\n",
    "rib/pack/deep/e.py": "from rib.pack.deep import deep\nfrom rib.a import f\n",
    "rib/pack/unused.py": "x = 1\n",
    "rib/c.py": (
        "from . import unused\nimport ribs.unused, rib\n"
        "from rib.nothing import x\nimport rib.records.environment\n"
    ),
    "rib/unused.py": "x = 1\n",
    "rib/types_alone.py": "x = 1\n",
    "rib/jobs/__init__.py": "",
    "rib/jobs/script.py": "import rib.unused\n",
    "rib/records/__init__.py": "",
    "rib/records/environment.py": "import rib.unused\n",
    "rib/records/provenance.py": "x = 1\n",
    "rib/report/page.py": "def f():\n    import rib.records.provenance\n",
    "ribs/unused.py": "x = 1\n",
    "scripts/_run.py": "from rib.jobs.script import run\nfrom rib.pack.unused import x\n",
    "scripts/s.py": "from _run import run\nfrom rib import a\nfrom rib.report.page import x\n",
    "scripts/_inputs.py": "from rib.unused import x\n\n\ndef paths():\n    return x\n",
    "scripts/u.py": "from _inputs import paths\n",
    "page.jinja": "{# comment #} text\nimport rib.unused\n",
}
USED = {
    *("rib/__init__.py", "rib/a.py", "rib/c.py", "rib/pack/__init__.py", "rib/pack/b.py"),
    *("rib/pack/deep/__init__.py", "rib/pack/deep/e.py", "rib/pack/unused.py"),
    *("rib/jobs/__init__.py", "rib/records/__init__.py", "rib/records/provenance.py"),
    *("rib/report/page.py", "scripts/_run.py", "scripts/s.py"),
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Writes a small library with some modules changed; gives the folder."""

    def write(name, **changed):
        root = tmp_path / name
        for file, text in MODULES.items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changed.get(file, text), encoding="utf-8")
        monkeypatch.setattr(code_digest, "LIBRARY", (root / "rib").resolve())
        return root.resolve()

    return write


def test_a_closure_follows_imports_and_stops_at_modules_outside(library):
    """Also imports in functions and packages, but not those for type checkers alone."""
    root = library("a")
    found = code_digest.closure(root / "scripts/s.py")
    assert found == sorted(root / file for file in USED)
    with_page = code_digest.closure(root / "scripts/s.py", root / "page.jinja")
    assert with_page == sorted([*found, root / "page.jinja"])
    assert code_digest.closure(root / "rib/pack/unused.py") == [root / "rib/pack/unused.py"]
    assert code_digest.imports(root / "page.jinja") == frozenset()


@pytest.mark.parametrize("file", [file for file in MODULES if file.endswith(".py")])
def test_the_digest_changes_with_every_module_that_is_used_and_with_no_other(library, file):
    before = code_digest.digest(library("a") / "scripts/s.py")
    same = code_digest.digest(
        library("same", **{file: "# why\n" + MODULES[file] + "\n# more\n"}) / "scripts/s.py"
    )
    assert same == before
    changed = code_digest.digest(
        library("changed", **{file: MODULES[file] + "changed = 1\n"}) / "scripts/s.py"
    )
    assert (changed != before) == (file in USED)


def test_a_module_beside_a_script_counts_with_what_it_imports_where_it_is_imported(library):
    root = library("a")
    files = code_digest.closure(root / "scripts/u.py")
    assert {root / "scripts/_inputs.py", root / "rib/unused.py"} <= set(files)
    assert root / "scripts/_inputs.py" not in code_digest.closure(root / "scripts/s.py")


NETWORK = {
    "models/checkpoint.py",
    "models/images.py",
    "models/network.py",
    "models/device.py",
    "data/dataset.py",
}
SCORING = NETWORK | {"evaluation/score.py", "models/class_logits.py"}
TRAINING = SCORING | {
    "training/loop.py",
    "training/step.py",
    "training/training_state.py",
    "methods/base.py",
    "data/splits.py",
}
EVALUATION = SCORING | {
    "evaluation/evaluate.py",
    "evaluation/networks.py",
    "models/fuse_batch_norm.py",
    "models/state.py",
}
FEATURES = NETWORK | {
    "models/layers.py",
    "models/state.py",
    "models/fuse_batch_norm.py",
    "evaluation/networks.py",
}
COUNTED = ["statistics/counts", "statistics/objects", "statistics/bootstrap"]
CONTRASTS = ["statistics/ri", "statistics/contrast", "statistics/tests"]
ROWS = {"statistics/counts.py", "statistics/ri.py", "schema/run.py", "base/files.py"}
# What decides a stage's numbers: a rule, which of its jobs, and what must be in their digests. That
# the files which settings name are in it is asserted in test_wiring.
STAGES = [
    ("prepare", {}, {"data/prepare.py", "data/images.py", "catalog/label_space.py"}),
    (
        "convert_model",
        {},
        {"models/convert.py", "models/heads.py", "models/network.py", "data/subsets.py"},
    ),
    ("pretrain_model", {}, TRAINING | {"training/pretrain.py"}),
    ("split_dataset", {}, {"data/split_dataset.py", "data/splits.py", "data/subsets.py"}),
    (
        "finetune",
        {"method": "lwf"},
        TRAINING
        | {
            "training/finetune.py",
            "methods/lwf.py",
            "methods/_distil.py",
            "models/padding_prompt.py",
        },
    ),
    (
        "select_coefficients",
        {"method": "greedy_soup_sweep"},
        SCORING | {"evaluation/select_coefficients.py", "methods/greedy_soup.py"},
    ),
    ("evaluate", {"entry": "pretrained"}, EVALUATION | {"models/padding_prompt.py"}),
    ("evaluate", {"entry": "fisher"}, EVALUATION | {"methods/fisher.py"}),
    (
        "evaluate",
        {"entry": "wise_ft_curve"},
        EVALUATION | {"methods/wise_ft_curve.py", "methods/wise_ft.py", "base/plugins.py"},
    ),
    (
        "compute_features",
        {"method": "ft"},
        FEATURES | {"evaluation/features.py", "models/padding_prompt.py", "data/splits.py"},
    ),
    (
        "compute_features",
        {"method": "fisher"},
        FEATURES | {"evaluation/features.py", "methods/fisher.py"},
    ),
    (
        "compute_fisher",
        {},
        NETWORK | {"evaluation/compute_fisher.py", "models/fisher_information.py"},
    ),
    (
        "invert_representation",
        {"method": "ft"},
        NETWORK | {"evaluation/inversion.py", "models/layers.py"},
    ),
    (
        "compute_metrics",
        {},
        ROWS | {f"statistics/{name}.py" for name in ("bootstrap", "fit", "tables")},
    ),
    *(
        (
            f"analyse_{name}",
            {},
            {f"analyses/{name}/tables.py", *(f"{file}.py" for file in files)},
        )
        for name, files in {
            "summary": ["statistics/fit"],
            "comparison": [*COUNTED, *CONTRASTS],
            "samples": [*COUNTED, "analyses/samples/resampled_means"],
            "effective_robustness": [],
            "published": [],
            "train_subsets": ["statistics/sizes"],
            "networks": [*COUNTED, *CONTRASTS],
            "distances": ["analyses/distances/association"],
            "representations": ["statistics/cka"],
            "stir": ["statistics/cka"],
            "learning_rates": [
                "analyses/learning_rates/held_out",
                "statistics/counts",
                "statistics/select_splits",
            ],
            "selection": [*COUNTED, "statistics/ri"],
            "training": [],
        }.items()
    ),
    (
        "analyse_cost",
        {},
        {
            "analyses/cost/tables.py",
            *("records/provenance.py", "records/hashing.py"),
        },
    ),
    (
        "measure_distances",
        {},
        {"analyses/distances/measure.py", "data/stored_features.py"},
    ),
    ("compress_datasets", {}, {"analyses/distances/compression.py", "data/dataset.py"}),
    (
        "draw_figures",
        {},
        {
            *("analyses/radar/figure.py", "analyses/representations/figure.py"),
            *("figures/__init__.py", "figures/_panels.py", "figures/_cka.py"),
        },
    ),
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rule", "wildcards", "wanted"),
    STAGES,
    ids=["-".join([rule, *which.values()]) for rule, which, _ in STAGES],
)
def test_a_stages_digest_holds_the_modules_that_decide_its_numbers_and_no_others(
    wiring, rule, wildcards, wanted
):
    # given: the files of which the rule makes the digest of such a job
    jobs = [job for jobs_of_grid in wiring.values() for job in jobs_of_grid if job.rule == rule]
    job = next(job for job in jobs if wildcards.items() <= job.wildcards.items())
    script = LIBRARY.parents[1] / job.code[0]
    modules = [name for name in job.code[1:] if name.endswith(".py")]
    # when: what they import is counted, too
    files = code_digest.closure(script, *(LIBRARY / name for name in modules))
    found = {path.relative_to(LIBRARY).as_posix() for path in files if path.is_relative_to(LIBRARY)}
    # then
    assert script in files and script.with_name("_run.py") in files
    assert wanted <= found, f"{sorted(wanted - found)} may change and {rule} would not notice"
    empty = {"jobs/__init__.py", "monitoring/__init__.py", "records/__init__.py"}
    beside_results = ("jobs/", "monitoring/", "records/", "report/")
    assert {name for name in found if name.startswith(beside_results)} <= wanted | empty
    assert not found & {
        "catalog/catalog.py",
        "schema/config.py",
        "schema/entries.py",
        "grid/grid.py",
    }
    assert ("evaluation/evaluate.py" in found) == (rule == "evaluate"), (
        "a change of the rows would train again"
    )
    if not rule.startswith("analyse_"):  # the file of an analysis draws its figures, too
        assert {name for name in found if name.startswith("figures/")} <= {*modules, *wanted}
    algorithms = {
        name for name in found if name.startswith("methods/") and name != "methods/__init__.py"
    }
    assert algorithms <= wanted, "another method's edit would make this again"
    assert "methods/base.py" in wanted or "training/loop.py" not in found


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (b"def items(\n", " line 1 is not valid Python .*correct it"),
        (b"x = 1\ndef f(:\n", " line 2 is not valid Python"),
        (b"\xff", " can't be read as Python"),
    ],
)
def test_a_module_of_a_user_that_is_no_python_is_named(tmp_path, source, sentence):
    path = tmp_path / "mine.py"
    path.write_bytes(source)
    with pytest.raises(UserError, match=f"^{path}{sentence}"):
        code_digest.closure(path)


SCRIPTS = LIBRARY.parents[1] / "scripts"


def test_all_that_a_digest_imports_is_in_it_or_is_named_as_outside():
    """Grimp, which import-linter is built on, finds the imports in its own way."""
    graph = grimp.build_graph("rib", exclude_type_checking_imports=True, cache_dir=None)
    used = set()
    for script in SCRIPTS.glob("*.py"):
        found = {
            file.relative_to(LIBRARY.parent)
            for file in code_digest.closure(script)
            if file.is_relative_to(LIBRARY)
        }
        modules = {module_of(file) for file in found}
        imported = imports_of_script(script)
        for module in modules:
            imported |= graph.find_modules_directly_imported_by(module)
        left_out = imported - modules
        assert left_out <= OUTSIDE, script.name
        used |= left_out
    assert used == OUTSIDE, "no job needs these"


def module_of(file):
    """rib/data/__init__.py is rib.data, rib/data/view.py is rib.data.view."""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


OUTSIDE = {module_of(Path("rib", file)) for file in code_digest.OUTSIDE}


def imports_of_script(script):
    """Modules of the project that a script imports, wherever."""
    return set(re.findall(r"^ *from (rib\.[\w.]+) import", script.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("code", "edited", "old", "new"),
    [
        (
            ("scripts/analyse.py", "lib/rib/analyses/cost/tables.py"),
            "lib/rib/records/provenance.py",
            "records[path] = own_record",
            "records[path] = {**own_record}",
        ),
        (
            ("scripts/compute_metrics.py",),
            "lib/rib/base/devices.py",
            " in {precision}",
            " with {precision}",
        ),
        (("scripts/write_page.py",), "lib/rib/report/views.py", "import ", "import os, "),
    ],
)
def test_an_edit_of_what_a_value_comes_from_changes_the_digest(
    tmp_path, monkeypatch, code, edited, old, new
):
    """Durations in cost.csv come from records, for example."""
    digests = []
    for name in ("before", "after"):
        workflow = tmp_path.resolve() / name
        for folder in ("scripts", "lib"):
            shutil.copytree(LIBRARY.parents[1] / folder, workflow / folder)
        if name == "after":
            text = (workflow / edited).read_text()
            assert old in text
            (workflow / edited).write_text(text.replace(old, new, 1))
        monkeypatch.setattr(code_digest, "LIBRARY", workflow / "lib/rib")
        digests.append(code_digest.digest(*(workflow / file for file in code)))
    before, after = digests
    assert before != after
