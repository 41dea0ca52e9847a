"""A run shows how far it is and a line per finished job.

A mistake is one sentence, and it is always shown.
"""

import base64
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from tiny.project import NOISE, Project, jobs, methods
from tiny.waiting import wait_until

pytestmark = pytest.mark.thorough

PAGES = ("Job stats", "input:", "output:", "jobid:", "Finished jobid", "SNAKEMAKE", "Building DAG")


def figures(project, *names):
    return [f"{project.of_grid()}/figures/{name}.png" for name in names or ("radar", "examples")]


def test_each_finished_job_is_one_line_with_what_is_left(finished_copy):
    printed = finished_copy.snakemake(*figures(finished_copy), "--force", "--cores", "1")
    assert re.findall(r"^\[(\d)/2\] plot_\w+: \d+ s; 0 running", printed, re.M) == ["1", "2"]
    assert "2 jobs: 1 plot_" in printed and not [word for word in PAGES if word in printed]
    assert (
        "rule plot_figures:"
        in max((finished_copy.folder / ".snakemake/log").glob("*.log")).read_text()
    )


def last_words(printed):
    """The line of a run that says what was made."""
    return re.findall(r"^Made: .*$", printed, re.M)


def test_the_last_line_names_what_this_call_made(finished_copy):
    """Not what other calls make: there was no page in any of these."""
    (radar,) = figures(finished_copy, "radar")
    (line,) = last_words(finished_copy.snakemake(radar, "--force", "--cores", "1"))
    assert radar in line and "index.html" not in line and "reports/" not in line
    (finished_copy.folder / "reports/tiny/tables/ranking.csv").unlink()
    (line,) = last_words(finished_copy.snakemake("tables", "--cores", "1"))
    assert "reports/tiny/tables/" in line and "reports/tiny/index.html" in line
    assert last_words(finished_copy.snakemake("figures", "-n")) == []
    assert last_words(finished_copy.snakemake("--touch", "--cores", "1")) == []


def test_the_last_line_names_the_page_where_it_was_made(finished):
    (line,) = last_words(finished[1])
    assert (
        "reports/tiny/index.html" in line
        and "results/tiny/" in line
        and "reports/tiny/figures/" in line
    )


def test_a_terminal_shows_one_bar_above_which_the_lines_stay(finished_copy):
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # lines and columns
    command = [
        sys.executable,
        "-m",
        "snakemake",
        *figures(finished_copy),
        "--force",
        "--cores",
        "1",
    ]
    with subprocess.Popen(
        [*command, "--config", "family=tiny", "catalog=mine"],
        cwd=finished_copy.folder,
        stdout=end,
        stderr=end,
    ) as run:
        os.close(end)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
    text = shown.decode()
    assert run.returncode == 0, text
    assert (
        re.search(r"1/2 jobs \|.*\| \d\d:\d\d, 1 running", text)
        and "running" not in re.findall(r"\[2/2\].*", text)[0]
    )
    assert len(re.findall(r"\[\d/2\] plot_\w+: \d+ s", text)) == 2


def _read(terminal):
    """What a terminal shows next; nothing at its end, which Linux tells as an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_a_dry_run_is_a_table_of_rules_and_with_verbose_a_list_of_jobs(finished_copy):
    printed = finished_copy.snakemake("-n", config=("seeds=[0,1]",))
    assert jobs(printed)["finetune"] == 6 and re.search(
        r"^finetune +6  not made yet$", printed, re.M
    )
    assert len(printed.splitlines()) < 30 and "output:" not in printed and "--verbose" in printed
    every_job = finished_copy.listed(config=("seeds=[0,1]",))
    assert methods(every_job, "finetune") == {"ft", "linear_probe", "lwf"} and jobs(
        every_job
    ) == jobs(printed)
    assert "Nothing to be done" in finished_copy.snakemake("-n")


@pytest.mark.parametrize("verbose", [(), ("--verbose",)])
def test_after_a_change_nothing_advises_to_wipe_metadata(finished_copy, verbose):
    """Without metadata a result would be kept that nobody compared."""
    finished_copy.edit("workflow/lib/rib/methods/lwf.py", "self.weight * ", "1.0 * self.weight * ")
    printed = finished_copy.snakemake("-n", *verbose)
    assert "finetune" in printed and "cleanup-metadata" not in printed


def test_unfinished_files_are_named_without_the_advice_to_wipe_metadata(finished_copy):
    """As without the profile, which says --rerun-incomplete."""
    marker = finished_copy.folder / ".snakemake/incomplete"
    marker.mkdir(exist_ok=True)
    (radar,) = figures(finished_copy, "radar")
    (marker / base64.urlsafe_b64encode(radar.encode()).decode()).write_text(
        '{"external_jobid": null}'
    )
    printed = finished_copy.snakemake(radar, "-n", "--workflow-profile", "none", check=False)
    assert (
        f"{radar}." in printed
        and "--rerun-incomplete" in printed
        and "cleanup-metadata" not in printed
    )
    assert not [word for word in NOISE if word in printed]


def test_results_can_be_touched(finished_copy):
    """Snakemake's executor for --touch has no pool of processes."""
    finished_copy.snakemake("--touch")
    assert "Nothing to be done" in finished_copy.snakemake("-n")


def test_jobs_that_fail_beside_others_are_told_at_the_end(finished_copy):
    for name in ("ood", "comparisons_ri"):
        table = finished_copy.folder / f"{finished_copy.of_grid()}/tables/{name}.csv"
        table.write_text(table.read_text().replace("tiny_cnn", "better_cnn"))
    wanted = [*figures(finished_copy, "radar"), f"{finished_copy.of_grid()}/tables/summary.md"]
    printed = finished_copy.snakemake(*wanted, "--keep-going", "--cores", "1", check=False)
    last = sorted(printed.strip().splitlines()[-2:])
    assert last[0].startswith("plot_figures") and "tables/ood.csv: " in last[0], printed
    assert last[1].startswith("write_summary") and "tables/comparisons_ri.csv: " in last[1]
    assert not [word for word in NOISE if word in printed]


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["streams", "locale"],
)
@pytest.mark.parametrize(
    "words", [["-n", "--verbose"], ["data/raw/red/red.zip"]], ids=["dry-run", "run"]
)
def test_where_the_terminal_knows_ascii_only_paths_are_escaped(project, environment, words):
    """A folder and a catalogue have other characters in their paths.

    All is shown, and there is no complaint about logging.
    """
    folder = project.folder.with_name("é日")
    project.folder.rename(folder)
    (folder / "mine").rename(folder / "mès")
    command = (sys.executable, "-m", "snakemake", *words, "--config", "family=tiny", "catalog=mès")
    printed = Project(folder).run(*command, "--cores", "1", **environment)
    assert "Logging error" not in printed and "Traceback" not in printed, printed
    assert printed.isascii() and re.search(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4})", printed), printed
    written = "".join(path.read_text() for path in (folder / ".snakemake/log").glob("*.log"))
    assert not written or "red.zip" in written


def test_ctrl_c_again_and_again_is_as_quiet_as_once(project):
    """With jobs at work, each Ctrl-C reaches all processes of the terminal.

    The run says that it stopped, and no more.
    """
    network = "results/tiny/models/tiny_cnn/manifest.json"
    command = (
        sys.executable,
        "-m",
        "snakemake",
        network,
        "--config",
        "family=tiny",
        "catalog=mine",
    )
    run = project.start(*command, "--cores", "2")
    assert wait_until(lambda: list((project.folder / "work").glob("*/job")), 60), project.printed()
    while run.poll() is None:
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.02)
    printed = project.printed()
    assert not [word for word in ("Traceback", "Interrupt", "BrokenPipe") if word in printed], (
        printed
    )
    assert "Stopped. Finished results are kept" in printed
    assert wait_until(lambda: not project.processes())


@pytest.mark.parametrize(
    ("words", "config", "named"),
    [
        (["-n", "--quiet", "all"], ("family=tinyy",), "'tinyy'"),
        (["--quiet", "all"], ("catalog=nowhere",), "nowhere"),
        (["-n"], ("catalog=nowhere",), "nowhere"),
        (["statsu", "--quiet", "all"], (), "statsu"),
    ],
)
def test_a_mistake_is_told_whatever_is_quiet(finished_copy, words, config, named):
    printed = finished_copy.snakemake(*words, config=config, check=False)
    assert named in printed and "Traceback" not in printed and "InputFunction" not in printed


@pytest.mark.parametrize("words", [["-n"], ["--quiet", "all"]])
def test_a_folder_of_images_that_does_not_exist_is_a_sentence(finished_copy, words):
    finished_copy.edit("mine/datasets.yaml", "kind: file", "kind: folder")
    finished_copy.edit("mine/datasets.yaml", "path: archives/blue.zip", "path: images/nowhere")
    printed = finished_copy.snakemake(*words, check=False)
    assert "images/nowhere" in printed.strip().splitlines()[-1]
    assert not [word for word in NOISE if word in printed]
