"""What the terminal says about a run as a whole (workflow/rules/run_texts.py, run_progress.py)."""

from types import SimpleNamespace

from run_progress import RunProgress
from run_texts import closing_line, dry_run_table
from snakemake.jobs import Reason
from snakemake_internals.jobs import REASONS, Job, reason_to_run

RUN = "results/tiny/paper/finetune/net/red"
RECORD = "reports/tiny/tables/provenance.json"


def test_files_of_a_small_call_are_named():
    outputs = [
        f"reports/tiny/figures/radar.{ending}" for ending in ("png", "csv", "provenance.json")
    ]
    assert closing_line(outputs) == (
        "Made: reports/tiny/figures/radar.csv, reports/tiny/figures/radar.png."
    )


def test_many_files_are_counted_by_their_folder_in_the_order_of_the_stages():
    tables = [f"reports/tiny/tables/{name}.csv" for name in "abcd"]
    checkpoints = [f"{RUN}/{method}/checkpoint.safetensors" for method in "abcde"]
    outputs = [RECORD, *tables, "reports/tiny/index.html", *checkpoints, "data/raw/red/red.zip"]
    assert closing_line(outputs) == (
        f"Made: data/raw/red/red.zip, 5 files in {RUN}/, reports/tiny/index.html, "
        f"4 files in reports/tiny/tables/."
    )


def test_a_record_is_named_where_nothing_else_was_made():
    assert RECORD in closing_line([RECORD])


def test_the_table_of_a_dry_run_has_a_line_per_rule_with_its_reasons():
    counts = {"finetune": 5, "write_page": 1, "all": 1, "total": 7}
    reasons = {
        "finetune": {"not made yet": 3, "forced": 2},
        "write_page": {"an input is made again": 1},
    }
    lines = dry_run_table(counts, reasons).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["finetune", "5", "3", "not", "made", "yet,", "2", "forced"],
        ["write_page", "1", "an", "input", "is", "made", "again"],
        ["all", "1"],
        ["total", "7"],
    ]


def test_every_reason_of_snakemake_to_make_a_file_has_words():
    """Its names of reasons are no interface: an update may change them."""
    reason = Reason()
    reason.forced = reason.params_changed = reason.input_changed = reason.code_changed = True
    for files in (
        reason.missing_output,
        reason.incomplete_output,
        reason.updated_input,
        reason.updated_input_run,
    ):
        files.add("a")
    assert set(reason.get_names()) == REASONS.keys()
    assert reason_to_run(reason.get_names()) == "forced"
    assert reason_to_run(["neither input nor output"]) is None


def fine_tuning(number, method):
    """A job of the graph that fine-tunes with a method."""
    return Job(
        number=number,
        rule="finetune",
        wildcards={"model": "net", "target": f"t{number}", "method": method},
        outputs=(),
        log_file=None,
        only_names_targets=False,
    )


def test_jobs_of_a_kind_that_has_none_finished_are_said_to_be_missing_in_the_time_left(monkeypatch):
    # given two trainings with each of two methods, one after the other, on a clock of our own
    seconds = iter([0.0, 5.0, 5.0, 12.0])
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("run_progress.time", clock)
    methods = ["linear_probe", "ft", "linear_probe", "ft"]
    progress = RunProgress([fine_tuning(number, method) for number, method in enumerate(methods)])
    assert progress.state() == "0 running, time left unknown"
    # when a linear probe has taken 5 seconds
    progress.start(0)
    progress.finish(0)
    # then it says nothing about full fine-tuning
    assert progress.state() == "0 running, at least 5.0 s left without 2 jobs of new kinds"
    # when full fine-tuning has taken 7 seconds
    progress.start(1)
    progress.finish(1)
    # then
    assert progress.state() == "0 running, about 12.0 s left"
