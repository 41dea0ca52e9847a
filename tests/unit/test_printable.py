"""Names that others chose, in messages, logs, tables and on the terminal.

They forge no line and command no terminal.
"""

import io
import logging
import os
import re
import subprocess
import sys
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.base.files import write_table
from rib.base.plugins import LIBRARY
from rib.base.progress import log, log_lines, print_lines
from rib.base.text import printable, printable_cell
from rib.data.archives import archive_members
from rib.jobs.job import job
from tiny.data.photos import jpeg, prepare_job, tar, zipped
from tiny.fuzz import fuzzed

FORGED = "all checks passed"
# By what they are: a name that somebody chose, and how it is shown.
HOSTILE = {
    "a line break": (f"a\n{FORGED}", rf"a\n{FORGED}"),
    "a carriage return": (f"a\r{FORGED}", rf"a\r{FORGED}"),
    "next line, a C1 control": (f"a\x85{FORGED}", rf"a\x85{FORGED}"),
    "line separator": (f"a\u2028{FORGED}", rf"a\u2028{FORGED}"),
    "erasing the screen": ("a\x1b[2J", r"a\x1b[2J"),
    "an operating system command": ("\x1b]0;owned\x07a", r"\x1b]0;owned\x07a"),
    "bidirectional override": ("a\u202egpj.exe", r"a\u202egpj.exe"),
    "text in tags, which nobody sees": ("a\U000e0062", r"a\U000e0062"),
    "bytes that are not UTF-8": (b"a\xff".decode("utf-8", "surrogateescape"), r"a\udcff"),
}
# Unicode's categories of controls, of what formats text unseen, of surrogates and of line breaks.
COMMANDS_AND_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# A pattern of those of them that are seen: what joins emoji, and signs of Arabic, Syriac and
# Kaithi.
SEEN = "[\u200c\u200d\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]"
ANY_CHARACTER = st.characters()
# Surrogates are among any characters; these are drawn more often than by chance.
COMMAND_OR_HIDDEN = st.characters(categories=["Cc", "Cf", "Zl", "Zp"])
ORDINARY = ["é", "日本語", "👩\u200d🚀", "❤\ufe0f", "עברית", r"C:\new", "a b", "\N{MINUS SIGN}1.5"]
# A title, an empty screen, and a line of its own; as it is, and as it is shown.
ATTACK = f"\x1b]0;owned\x07\x1b[2J\r\n{FORGED}"
ESCAPED = rf"\x1b]0;owned\x07\x1b[2J\r\n{FORGED}"


@pytest.mark.parametrize(("name", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_commands_a_terminal_is_escaped_once(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown


@fuzzed(300)
@given(st.text(ANY_CHARACTER | COMMAND_OR_HIDDEN, max_size=20))
def test_any_text_is_one_printable_line_and_is_escaped_once(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    without_seen = re.sub(SEEN, "", shown)
    categories = {unicodedata.category(character) for character in without_seen}
    assert not categories & COMMANDS_AND_HIDDEN
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text):
    assert printable(text) == text
    assert printable_cell(text) == text


def test_an_error_quotes_a_name_in_one_printable_line():
    """Whoever shows the error: a job, the console, or Python in a session of a user."""
    assert str(UserError(f"'{ATTACK}' is wrong.")) == f"'{ESCAPED}' is wrong."


def test_a_log_record_is_one_printable_line_for_every_handler():
    """Whether the name is an argument of the record or was put into its text before."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    log.addHandler(handler)
    try:
        log.warning("left out: %s", ATTACK)
        log.warning(f"left out: {ATTACK}")
    finally:
        log.removeHandler(handler)
    assert written.getvalue() == f"left out: {ESCAPED}\n" * 2


def test_lines_for_those_who_look_for_a_fault_are_records_of_their_own(caplog):
    caplog.set_level("DEBUG", "rib")
    log_lines(f"Traceback:\n  here\n{FORGED}")
    assert caplog.messages == ["Traceback:", "  here", FORGED]


def test_what_is_printed_is_as_many_lines_as_were_given():
    written = io.StringIO()
    print_lines(ATTACK, "second", file=written)
    assert written.getvalue() == f"{ESCAPED}\nsecond\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", rb"caf\xe9 \u65e5"), ("utf-8", "café 日".encode())],
    ids=["ascii", "utf-8"],
)
def test_what_an_encoding_lacks_is_escaped(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    print_lines("café 日", file=stream)
    assert stream.buffer.getvalue() == shown + b"\n"


WAIT_AND_PRINT = """
import sys
from rib.base.progress import print_lines

sys.stdin.read()
print_lines("a", "b")
print_lines("c")
"""


def test_where_nobody_reads_any_more_nothing_is_said_about_it():
    """As after `snakemake plan | head -1`, or where Ctrl-C has ended what reads."""
    # given a process that waits before it prints
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", WAIT_AND_PRINT],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        # when nobody reads any more, and it goes on
        process.stdout.close()
        process.stdin.close()
        # then
        assert process.stderr.read() == b""
    assert process.returncode == 0


def written_table(folder, columns):
    """Write a table of these columns, to table.csv in the folder; gives its text."""
    path = folder / "table.csv"
    write_table(path, pd.DataFrame(columns))
    return path.read_bytes().decode()


def test_a_table_has_printable_cells_and_columns(tmp_path):
    columns = {
        ATTACK: [ATTACK, "x"],
        "n": [1.5, -2.0],
        "group": pd.Categorical([ATTACK, "x"]),
    }
    written = written_table(tmp_path, columns)
    assert written.split("\n") == [
        f"{ESCAPED},n,group",
        f"{ESCAPED},1.500000,{ESCAPED}",
        "x,-2.000000,x",
        "",
    ]


FORMULAS = ["=1+1", "+SUM(A1)", "-2+3+cmd|'/c calc'!A0", "@SUM(A1)", "-", "+1 2"]
NUMBERS = ["-1", "+.5", "-1e-05", "-inf"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(tmp_path, text):
    written_table(tmp_path, {text: [text]})
    table = pd.read_csv(tmp_path / "table.csv", dtype=str)
    quoted = f"'{text}"
    assert table.columns.tolist() == [quoted]
    assert table[quoted].tolist() == [quoted]


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_stay_whatever_their_sign(tmp_path, text):
    """Also as text: tables are read as text and written again, to mark underfitted runs."""
    assert written_table(tmp_path, {"n": [text]}) == f"n\n{text}\n"


def test_a_table_that_is_read_and_written_again_stays(tmp_path):
    # given
    once = tmp_path / "once.csv"
    write_table(once, pd.DataFrame({"name": [*FORMULAS, ATTACK, None, 1.25]}))
    # when
    twice = tmp_path / "twice.csv"
    write_table(twice, pd.read_csv(once, dtype=str, keep_default_na=False))
    # then
    assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("pack", [zipped, tar])
def test_a_member_that_is_refused_is_named_printably(tmp_path, pack):
    path = pack(tmp_path / "archive", {f"../{ATTACK}": b""})
    with pytest.raises(UserError) as refused:
        list(archive_members(path))
    assert f"'../{ESCAPED}'" in str(refused.value)


# Code of a setting of `prepare_job`: one class, a.
SPACE_OF_A = 'space=LabelSpace(("a",), ((0,),), ("a",), 1)'


def test_a_job_that_meets_a_hostile_member_tells_of_it_in_one_line(tmp_path):
    """An archive has a folder and an ending of such names.

    Its job's terminal and log have no line of theirs.
    """
    # given
    tar(tmp_path / "a.tar", {f"{ATTACK}/1.jpg": jpeg(2), f"a/1.{ATTACK}": b"no photo"})
    command = prepare_job("class_folders", f"{SPACE_OF_A}, partial=True")
    # when
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    # then
    terminal = (done.stdout + done.stderr).decode()
    log_of_job = (tmp_path / "log").read_bytes().decode()
    for text in (terminal, log_of_job):
        assert ESCAPED in text
        assert not re.search(rf"^{FORGED}", text, re.MULTILINE), text
        assert not re.search(r"[^\n -~]", text), text
    assert len(terminal.splitlines()) == 1


def test_a_log_has_ordinary_names_whatever_the_locale(tmp_path):
    """In a locale of ASCII, the terminal has escapes, and the log has the name itself."""
    tar(tmp_path / "a.tar", {"日本/1.jpg": jpeg(2), "a/1.jpg": jpeg(2)})
    command = prepare_job("class_folders", SPACE_OF_A)
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, **ascii_locale}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert rb"\u65e5\u672c" in done.stderr
    assert "日本" in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_job_that_fails_with_a_hostile_text_has_one_line_of_error(tmp_path, monkeypatch, capfd):
    """An error of a library quotes a name.

    Its traceback in the log can't pass for other lines of the log.
    """
    monkeypatch.chdir(tmp_path)
    message = f"a\n12:00:00 ERROR {FORGED}"
    with (
        pytest.raises(SystemExit),
        job(rule="r", name="n", cfg={}, inputs={}, outputs={}, log_file="log"),
    ):
        raise ValueError(message)
    terminal = capfd.readouterr().err
    log_of_job = (tmp_path / "log").read_text()
    for text in (terminal, log_of_job):
        assert not re.search(rf"^\S* ?(ERROR )?{FORGED}", text, re.MULTILINE), text
        assert rf"a\n12:00:00 ERROR {FORGED}" in text
