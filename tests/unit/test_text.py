"""Hostile text: labels and class names, escaping in Markdown, and the secrets of URLs."""

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rib.base.errors import UserError
from rib.base.text import markdown, redacted
from rib.catalog.catalog import Catalog
from rib.data.fetch.download import download
from rib.jobs.job import job
from rib.schema.augmentation_entries import AugmentationEntry
from rib.schema.checking import checked
from rib.schema.config import config_of
from rib.schema.entries import Dataset, Family, Method, Model, Recipe
from tiny.fuzz import fuzzed
from unit.conftest import COPIED, published

UNFIT = {
    "script": "<script>alert(1)</script>",
    "end of a comment": "-->",
    "named entity": "&lt;b",
    "line break": "one\ntwo",
    "terminal escape": "\x1b[31mred",
    "bidirectional override": "\u202egnp.exe",
    "text in tags": "a\U000e0062",
    "zero-width space": "a\u200bb",
    "line separator": "a\u2028b",
    "empty": "",
    "blank": " \t ",
    "joiner alone": "\u200d",
    "password": "see https://user:secret@example.org",
}
FIT = [
    "R&D",
    "AT&T; Bell",
    'Tom\'s "best"',
    "naïve 1",
    "👩\u200d🚀",
    "❤\ufe0f",
    "|*_`[x](javascript:alert(1))$\\",
    "日本語",
]
FILES = {
    Dataset: "datasets",
    Model: "models",
    Method: "methods",
    Recipe: "recipes",
    AugmentationEntry: "augmentations",
}
KINDS = {**dict.fromkeys(FILES, "label"), Family: "title"}
MARKDOWN = {
    "link": "[x](javascript:alert(1))",
    "image": "![x](javascript:alert(1))",
    "reference": "[x]: javascript:alert(1)",
    "autolink": "<javascript:alert(1)>",
    "html": "<b>x</b>",
    "two lines": "a\n\n# b",
    "formula": "$\\alpha$",
}


def entry(kind, key, text):
    """A text of an entry of the catalogue, after it was set to another one."""
    if kind is Family:
        content = published("families/emoji.yaml")
    else:
        content = published(f"{FILES[kind]}.yaml")[COPIED[FILES[kind]]]
    return getattr(checked(kind, {**content, key: text}, "own", "own"), key)


@pytest.mark.parametrize("why", UNFIT)
def test_labels_that_are_markup_hidden_or_blank_are_refused(why):
    with pytest.raises(UserError, match="label") as refused:
        entry(Dataset, "label", UNFIT[why])
    assert str(refused.value).isprintable() and "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Dataset])
def test_labels_of_all_kinds_are_checked(kind):
    with pytest.raises(UserError, match=KINDS[kind]):
        entry(kind, KINDS[kind], UNFIT["script"])


@pytest.mark.parametrize("text", FIT)
def test_other_labels_are_kept_as_they_are(text):
    assert entry(Dataset, "label", text) == text


PROSE = {
    Dataset: "origin",
    Model: "pretraining",
    Method: "source",
    Recipe: "source",
    AugmentationEntry: "source",
    Family: "limits",
}


@pytest.mark.parametrize("kind", PROSE)
def test_prose_has_lines_but_no_markup(kind):
    assert entry(kind, PROSE[kind], "One line.\nAnother.\n") == "One line.\nAnother.\n"
    with pytest.raises(UserError, match=PROSE[kind]):
        entry(kind, PROSE[kind], UNFIT["script"])


CLASS_FILES = {
    "own": "key,name\nx,{}\ny,z\n",
    "own key": "key,name\n{},a\ny,z\n",
    "index_map": "key,indices\n{},1\ny,2\n",
    "class_map": "emoji,codepoint,wnids,reason\n{},x,n01440764,r\ny,z,n01443537,r\n",
}


@pytest.fixture
def classes(tmp_path):
    """Makes a label space from a class file of a format."""

    def make(kind, name):
        (tmp_path / "classes").mkdir()
        quoted = '"' + name.replace('"', '""') + '"'
        (tmp_path / "classes/own.csv").write_text(CLASS_FILES[kind].format(quoted), newline="")
        form = {"file": "own.csv", "format": kind.split()[0]}
        family, dataset = published("families/emoji.yaml"), published("datasets.yaml")["noto"]
        (tmp_path / "families").mkdir()
        (tmp_path / "families/own.yaml").write_text(yaml.safe_dump({**family, "classes": form}))
        dataset = {
            key: value for key, value in dataset.items() if key not in ("classes", "exclude")
        }
        (tmp_path / "datasets.yaml").write_text(
            yaml.safe_dump({"own": {**dataset, "family": "own"}})
        )
        catalog = Catalog([tmp_path])
        return catalog.label_space(catalog.datasets["own"])

    return make


@pytest.mark.parametrize("kind", CLASS_FILES)
def test_class_names_that_are_markup_are_refused(classes, kind):
    with pytest.raises(UserError, match=r"class|own\.csv"):
        classes(kind, UNFIT["script"])


def test_other_class_names_are_kept(classes):
    name = "|*_`[x](javascript:alert(1))$\\"
    assert classes("own", name).names[0] == name


def shown(text):
    """What a Markdown renderer makes of a text in a table: the cells' text, without any markup."""
    (table,) = [
        t
        for t in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        if t.type == "inline"
    ][2:3]
    assert {part.type for part in table.children} <= {"text", "text_special"}
    return "".join(part.content for part in table.children)


@pytest.mark.parametrize("text", MARKDOWN.values(), ids=MARKDOWN)
def test_text_in_markdown_stays_text(text):
    escaped = markdown(text)
    assert shown(f"| a | b |\n|---|---|\n| {escaped} | x |\n") == " ".join(text.split())
    assert not re.search(r"(?<!\\)(\\\\)*\$", escaped), (
        "GitHub typesets what is between two dollars"
    )


# Characters that mean something in Markdown, and two that mean nothing.
MARKDOWN_TEXTS = st.text(st.sampled_from("\\`*_[]()<>&#|~$!-+=1.:;/'\"ab "), max_size=20)


@fuzzed(300)
@given(MARKDOWN_TEXTS)
def test_any_text_in_markdown_stays_text(text):
    escaped = markdown(f"x{text}x")
    table = f"| a | b |\n|---|---|\n| {escaped} | x |\n"
    assert shown(table) == " ".join(f"x{text}x".split())


URLS = {
    "user": ("https://user:secret@host/x", "https://[redacted]@host/x"),
    "user alone": ("ftp://secret@host/x", "ftp://[redacted]@host/x"),
    "at in password": ("https://a:secret@secret@host/", "https://[redacted]@host/"),
    "signature": ("https://h/x?X-Amz-Signature=secret&a=1", "https://h/x?[redacted]"),
    "both in a sentence": (
        "from https://a:secret@h/x?k=secret now",
        "from https://[redacted]@h/x?[redacted] now",
    ),
    "list": (
        "['http://h/a?secret', 'http://h/b?secret']",
        "['http://h/a?[redacted] 'http://h/b?[redacted]",
    ),
    "fragment": ("https://h/x?a#secret", "https://h/x?[redacted]"),
    "URL in a URL": (
        "https://h/https://a:secret@g/x?secret",
        "https://h/https://[redacted]@g/x?[redacted]",
    ),
    "none": ("https://h/@user/x: HTTP 404", "https://h/@user/x: HTTP 404"),
}


@pytest.mark.parametrize(("text", "expected"), URLS.values(), ids=URLS)
def test_urls_lose_their_secrets(text, expected):
    assert redacted(text) == expected


SECRETS = st.text(st.sampled_from("ab1-._~:=&%+,;$!"), min_size=1, max_size=12)
WORDS = st.text(st.sampled_from("abc 1.,()'"), max_size=12)


@fuzzed(300)
@given(WORDS, SECRETS, SECRETS, WORDS)
def test_any_url_in_a_sentence_loses_its_user_and_its_query(before, user, query, after):
    url = f"https://{user}@example.org/file?{query}"
    expected = f"{before}https://[redacted]@example.org/file?[redacted]"
    assert redacted(f"{before}{url} {after}") == f"{expected} {after}"


HTTP = {"kind": "http", "file": "a.zip", "digest": "md5:" + 32 * "0"}
MANUAL = {"kind": "manual", "file": "a.zip", "digest": "md5:" + 32 * "0", "terms": "None."}
WITH_USER = "https://user:secret@example.org/a.zip?x=secret"


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {**HTTP, "urls": [WITH_USER]}},
        {"source": {**MANUAL, "page": WITH_USER}},
        {"origin": f"from {WITH_USER}"},
    ],
    ids=["urls", "page", "origin"],
)
def test_urls_with_user_names_are_refused_without_repeating_them(with_entries, changes):
    with pytest.raises(UserError) as refused:
        _ = with_entries(datasets={"own": changes}).datasets
    assert "secret" not in str(refused.value) and "own" in str(refused.value)


@pytest.mark.parametrize("choices", [{"catalog": WITH_USER}, {"archives": [WITH_USER]}], ids=str)
def test_urls_in_config_are_refused_without_repeating_them(choices):
    with pytest.raises(UserError, match=next(iter(choices))) as refused:
        config_of(choices, "config.yaml")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/x?X-Amz-Signature=secret", "http://[secret/x?secret"],
    ids=["refused connection", "malformed"],
)
def test_logs_of_failed_downloads_have_no_signatures(tmp_path, monkeypatch, capsys, url):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rib.data.fetch.mirrors.PAUSES", (0.0,))
    again = url.replace("[secret", "[")
    with (
        pytest.raises(SystemExit),
        job(rule="r", name="n", cfg={}, inputs={}, outputs={"a": "a.x"}, log_file="a.log"),
    ):
        download({**HTTP, "urls": [again]}, tmp_path / "a.zip", "set")
    said = Path("a.log").read_text() + capsys.readouterr().err
    assert "set: no mirror gave" in said and "?[redacted]" in said and "secret" not in said


def test_tracebacks_in_logs_have_no_signatures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(SystemExit),
        job(rule="r", name="n", cfg={}, inputs={}, outputs={"a": "a.x"}, log_file="a.log"),
    ):
        raise KeyError("https://h/x?secret")
    assert "Traceback" in Path("a.log").read_text() and "secret" not in Path("a.log").read_text()


def test_long_texts_are_checked_in_linear_time():
    for text in ("a://b@" * 50_000, "&a" * 100_000, "http://" + "a" * 300_000, "x://?" * 50_000):
        begun = time.monotonic()
        redacted(text)
        markdown(text)
        with pytest.raises(UserError):
            checked(Dataset, {"label": text}, "datasets.yaml", "own")
        assert time.monotonic() - begun < 2
