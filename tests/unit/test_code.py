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
