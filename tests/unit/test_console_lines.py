"""What the terminal says about a run as a whole (workflow/rules/console.py)."""

import pytest

from rib.base.plugins import load_module
from tiny.project import ROOT

RUN = "results/tiny/paper/finetune/net/red"
RECORD = "reports/tiny/tables/provenance.json"


@pytest.fixture(scope="module")
def console():
    return load_module(ROOT / "workflow/rules/console.py")


def test_files_of_a_small_call_are_named(console):
    outputs = [f"reports/tiny/figures/radar.{ending}" for ending in ("png", "csv", "provenance.json")]
    made = console.closing_line(outputs)
    assert made == "Made: reports/tiny/figures/radar.csv, reports/tiny/figures/radar.png."


def test_many_files_are_counted_by_their_folder_in_the_order_of_the_stages(console):
    tables = [f"reports/tiny/tables/{name}.csv" for name in "abcd"]
    checkpoints = [f"{RUN}/{method}/checkpoint.safetensors" for method in "abcde"]
    made = console.closing_line([RECORD, *tables, "reports/tiny/index.html", *checkpoints, "data/raw/red/red.zip"])
    assert made == (
        f"Made: data/raw/red/red.zip, 5 files in {RUN}/, reports/tiny/index.html, 4 files in reports/tiny/tables/."
    )


def test_a_record_is_named_where_nothing_else_was_made(console):
    assert RECORD in console.closing_line([RECORD])
