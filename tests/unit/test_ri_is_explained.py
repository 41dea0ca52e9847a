"""What RI is stands in the same words wherever it is explained."""

import re

import pytest

from rib.analyses import protocol, ri_matrix, robustness, tradeoff
from rib.statistics import ri
from tiny.projects.project import ROOT

RI_IS = (
    "RI is the mean change of accuracy over the out-of-distribution datasets "
    "other than the target; "
    "datasets in distribution do not count."
)
REPORT = "workflow/report"
PLACES = [
    "README.md",
    "docs/how-it-works.md",
    "docs/figures.md",
    f"{REPORT}/workflow.rst",
    "workflow/lib/rib/report/model_card.md.jinja",
    "workflow/lib/rib/project.py",
]
# How RI was explained when datasets in distribution seemed to count.
WRONG = ("all datasets except", "all other datasets *j*", "change of accuracy off the target")


def words(text):
    """A text with single spaces."""
    return " ".join(text.split())


@pytest.mark.parametrize("path", PLACES)
def test_every_page_says_it_in_these_words(path):
    assert RI_IS in words((ROOT / path).read_text())


@pytest.mark.parametrize("module", [protocol, ri_matrix, tradeoff])
def test_captions_say_it_in_these_words(module):
    assert RI_IS in words(module.CAPTION)


@pytest.mark.parametrize("table", [robustness.MRI, robustness.RI])
def test_notes_of_tables_say_it_in_these_words(table):
    assert RI_IS in words(table.note)


def test_the_module_that_computes_it_says_it_in_these_words():
    assert RI_IS in words(ri.__doc__)


def test_no_page_says_otherwise():
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("workflow/report/**/*.*")]
    pages += [
        *ROOT.glob("workflow/lib/rib/report/*"),
        *ROOT.glob("workflow/lib/rib/statistics/*.py"),
        *ROOT.glob("workflow/lib/rib/analyses/**/*.py"),
    ]
    for page in filter(lambda path: path.is_file(), pages):
        text = words(page.read_text())
        assert not [phrase for phrase in WRONG if phrase in text], page
        assert not re.search(r"RI is the mean[^.]*datasets except", text), page


def test_the_protocol_figure_says_what_grey_means():
    caption = words(protocol.CAPTION)
    (sentence,) = re.findall(r"Rows in grey are not in RI[^.]*\.", caption)
    assert all(
        reason in sentence for reason in ("target", "in distribution", "variants", "leak_free")
    )
