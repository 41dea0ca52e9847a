"""A preview: what it leaves out, and how Snakemake is started for it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from preview_files import KILLED, TOO_FEW, TOO_SLOW, PreviewFiles
from registry import RegisteredFigure, Registry

from rib.base.errors import UserError
from rib.report.preview import write_preview
from rib.report.settings import PreviewDescription, PreviewJobSettings, PreviewSettings
from tiny.project import ROOT

DESCRIPTION = PreviewDescription(
    finished=2, runs=9, outdated=0, counts=[], targets="Red, Green", left_out={}
)


def preview_of(**changes):
    fields = {"finished": [], "compared": [], "selectable": [], "too_slow": [], "expected": []}
    return PreviewSettings(**{**fields, "description": DESCRIPTION, **changes})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@dataclass
class Rule:
    """A rule without wildcards, with what is asked of Snakemake's rules."""

    name: str
    input: list[str]
    output: list[str]

    def is_producer(self, path: str) -> bool:
        return path in self.output

    def get_wildcards(self, path: str) -> Mapping:
        return {}

    def expand_input(self, wildcards):
        return self.input, {}

    def expand_log(self, wildcards):
        return [f"{self.name}.log"]


TABLES = Rule("compute_metrics", ["rows"], ["preview/tables/mri.csv"])
RANKING = Rule("compare_methods", TABLES.output, ["preview/tables/ranking.csv"])
SAMPLES = Rule("compare_samples", ["rows"], ["preview/tables/flips.csv"])
FEATURES = Rule("compute_cka", ["features"], ["preview/tables/cka.csv"])
OTHER = Rule("evaluate", [], ["rows"])
WORKFLOW = SimpleNamespace(rules=[TABLES, RANKING, SAMPLES, FEATURES, OTHER])


def registry():
    made = Registry(ROOT / "workflow", "all")
    inputs = {"ranking": "preview/tables/ranking.csv"}
    made.figures["ranking"] = RegisteredFigure(Path(), inputs, {}, Path(), "method")
    made.analysis(
        "comparison",
        tables={"ranking": "preview/tables/ranking.csv"},
        figures=["ranking"],
        files={"All": ["preview/tables/flips.csv", "preview/tables/mri.csv"]},
    )
    made.analysis(
        "cka", folder="representations", tables={"cka": "preview/tables/cka.csv"}, optional=True
    )
    return made


def test_what_lacks_inputs_or_is_slow_is_left_out_with_what_needs_it():
    Path("rows").write_text("")
    files = PreviewFiles(
        WORKFLOW,
        "preview",
        "logs",
        preview_of(too_slow=["compare_samples"], expected=["cka", "models"]),
    )
    shown = registry()
    files.keep_possible_files(shown)
    assert shown.chosen_tables() == {"ranking": "preview/tables/ranking.csv"}
    assert shown.chosen_files() == {"All": ["preview/tables/mri.csv"]}
    assert shown.chosen_figures() == ["ranking"]
    assert files.left_out == {
        "compare_samples": TOO_SLOW,
        "compute_cka": "features is not made",
        "models": TOO_FEW,
    }


def test_without_rows_nothing_is_shown():
    files = PreviewFiles(WORKFLOW, "preview", "logs", preview_of())
    shown = registry()
    files.keep_possible_files(shown)
    assert not shown.chosen_figures() and not shown.chosen_tables()
    assert files.left_out["ranking"] == "preview/tables/ranking.csv is not made"
    assert files.left_out["compare_methods"] == "preview/tables/mri.csv is not made"


@pytest.mark.parametrize(
    ("log", "reason"),
    [("12:00:00 ERROR it is broken\n", "it is broken"), ("12:00:00 INFO it begins\n", KILLED)],
)
def test_once_all_was_tried_what_is_not_made_has_failed(log, reason):
    Path("rows").write_text("")
    Path("features").write_text("")
    for path in (*TABLES.output, *SAMPLES.output, *FEATURES.output):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")
    Path("compare_methods.log").write_text(log)
    files = PreviewFiles(WORKFLOW, "preview", "logs", preview_of(all_were_tried=True))
    files.keep_possible_files(registry())
    assert files.left_out == {
        "compare_methods": reason,
        "ranking": "preview/tables/ranking.csv is not made",
    }


@pytest.mark.parametrize(
    ("log", "kept", "reason"),
    [
        (None, False, None),  # the job waited for a table that failed
        ("12:00:00 ERROR could not draw 1 figure of 2\n", True, None),
        ("12:00:00 ERROR could not draw 1 figure of 2\n", False, "could not draw 1 figure of 2"),
        ("12:00:00 INFO it begins\n", False, KILLED),
    ],
)
def test_a_figure_is_left_out_if_it_failed_not_if_another_one_did(log, kept, reason):
    for path in (*TABLES.output, *RANKING.output):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")
    Path("logs/plot_figures").mkdir(parents=True)
    if log:
        Path("logs/plot_figures.log").write_text(log)
    if kept:
        Path("logs/plot_figures/ranking.png").write_text("")
    files = PreviewFiles(WORKFLOW, "preview", "logs", preview_of(all_were_tried=True))
    shown = registry()
    files.keep_possible_files(shown)
    assert files.left_out.get("ranking") == reason
    assert shown.chosen_figures() == ([] if reason else ["ranking"])


# In place of Snakemake: it notes that it was called, and makes files.
SNAKEMAKE = """
import json, os, pathlib, sys
tables, page = sys.argv[1].split(",")
settings = json.loads(pathlib.Path(os.environ["RIB_PREVIEW"]).read_text())
made = pathlib.Path("reports/tiny/preview")
(made / "tables").mkdir(parents=True, exist_ok=True)
if tables == "tables":
    (made / "tables/mri.csv").write_text(pathlib.Path("results/rows").read_text())
if page == "page" or (page == "later" and settings["all_were_tried"]):
    (made / "index.html").write_text("the page")
with open("results/calls", "a") as calls:
    print(settings["all_were_tried"], file=calls)
print("compare_methods: it is broken")
"""


def call(makes):
    Path("results").mkdir()
    Path("results/rows").write_text("rows")
    Path("snakemake.py").write_text(SNAKEMAKE)
    settings = PreviewJobSettings(
        preview=preview_of(),
        folder=Path("reports/tiny/preview"),
        logs=Path("logs/tiny/preview"),
        config={"family": "tiny"},
        linked=[Path("results"), Path("data")],
        command=[sys.executable, str(Path("snakemake.py").absolute()), makes],
    )
    write_preview(settings, "logs/tiny/preview.log")


def test_a_preview_takes_the_place_of_an_earlier_one(capsys):
    earlier = Path("reports/tiny/preview/tables/earlier.csv")
    earlier.parent.mkdir(parents=True)
    earlier.write_text("")
    call("tables,page")
    made = {str(path) for path in Path("reports").rglob("*") if path.is_file()}
    assert made == {"reports/tiny/preview/index.html", "reports/tiny/preview/tables/mri.csv"}
    assert Path("results/calls").read_text() == "False\n"
    assert Path("results/rows").exists() and not Path("work/preview").exists()
    expected = "Preview of 2 of 9 runs: reports/tiny/preview/index.html"
    assert capsys.readouterr().out.splitlines() == [expected]


def test_if_a_job_fails_the_page_is_made_without_it():
    call("tables,later")
    assert Path("reports/tiny/preview/index.html").is_file()
    assert Path("results/calls").read_text() == "False\nTrue\n"


@pytest.mark.parametrize(
    ("makes", "calls"), [("nothing,nothing", "False\n"), ("tables,nothing", "False\nTrue\nTrue\n")]
)
def test_without_tables_or_page_there_is_no_preview_and_no_earlier_one(makes, calls):
    Path("reports/tiny/preview").mkdir(parents=True)
    with pytest.raises(UserError, match=r"there is no page; logs/tiny/preview.log says why"):
        call(makes)
    assert Path("results/calls").read_text() == calls
    assert not Path("reports/tiny/preview").exists() and not Path("work/preview").exists()
