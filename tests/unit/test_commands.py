"""The command line `rib`: how it reads config, when it refuses, and what it is about."""

import errno
import shutil
from pathlib import Path

import pytest

from rib import commands
from rib.base.locks import acquire
from rib.base.progress import log
from rib.catalog.hub_names import LOCK

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with config.yaml as the current one; handlers of the log are as before after it."""
    handlers_before = list(log.handlers)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    yield tmp_path
    for handler in set(log.handlers) - set(handlers_before):
        handler.close()
    log.handlers[:] = handlers_before


def grid_of(*words):
    """The grid that `rib plan` with some words is about."""
    return commands.read_grid(commands.parser().parse_args(["plan", *words]))


def refusal(capsys, *words) -> str:
    """The sentence with which a command ends."""
    with pytest.raises(SystemExit) as error:
        commands.main(words)
    assert error.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_the_command_line_wins_over_files_and_later_files_over_earlier_ones():
    Path("one.yaml").write_text("seeds: [1]\ntraining: {epochs: 3, batch_size: 8}\n")
    Path("two.yaml").write_text("methods: [ft]\ntraining: {batch_size: 16}\n")
    words = ("--configfile", "one.yaml", "two.yaml")
    grid = grid_of(*words, "--config", "training={batch_size: 32}", "seeds=[2]")
    assert (list(grid.methods), grid.seeds) == (["ft"], [2])
    training = grid.config["training"]
    assert (training["epochs"], training["batch_size"]) == (3, 32)


def test_choices_are_read_as_snakemake_reads_them():
    grid = grid_of("--config", "seeds=[0,1]", "methods=ft", "limits={photo_megabytes: 9}")
    assert (grid.seeds, list(grid.methods)) == ([0, 1], ["ft"])
    limits = grid.config["limits"]
    assert limits["photo_megabytes"] == 9 and len(limits) > 1, "the others stay"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--config", "family=fashionn"), "'fashionn'"),
        (("--config", "famly=fashion"), "famly"),
        (("--config", "fashion"), "name=value"),
        (("--configfile", "nowhere.yaml"), "nowhere.yaml"),
        (("--configfile", "wrong.yaml"), "wrong.yaml"),
        (("--config", "catalog=nowhere"), "nowhere"),
    ],
    ids=str,
)
def test_a_mistake_is_a_sentence(capsys, words, named):
    Path("wrong.yaml").write_text("seeds: none\n")
    assert named in refusal(capsys, "plan", *words)


def test_a_grid_without_new_names_needs_no_lock_and_no_hub(capsys):
    commands.main(["lock", "--config", "family=fashion"])
    assert not LOCK.exists() and str(LOCK) in capsys.readouterr().out


def test_names_of_libraries_alone_are_for_a_folder(capsys):
    assert "--folder" in refusal(capsys, "lock", "--without-hub")
    assert "nowhere" in refusal(capsys, "lock", "--without-hub", "--folder", "nowhere")


def test_a_file_that_may_not_be_written_is_a_sentence(capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "logs/verify.log")

    monkeypatch.setattr(commands, "verify", refuse)
    assert "logs/verify.log" in refusal(capsys, "verify")


@pytest.mark.parametrize("command", ["track", "pull"])
def test_what_changes_files_refuses_beside_snakemake_and_beside_itself(capsys, command):
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.output.lock").write_text("results/a")
    assert "Snakemake is at work in this folder" in refusal(capsys, command)
    Path(".snakemake/locks/0.output.lock").unlink()
    lock = acquire(commands.OWN_LOCK)
    assert "another `rib track` or `rib pull` is at work" in refusal(capsys, command)
    lock.release()
    assert "at work" not in refusal(capsys, command), "nothing is here to share"


def test_results_are_of_a_family_and_protocol_and_of_the_report_of_the_grid():
    grid = grid_of("--config", "family=fashion")
    assert {
        "data/raw/*",
        "results/fashion/prepare/*",
        "results/fashion/paper/finetune/*",
        "reports/fashion/tables",
        "reports/fashion/distances",
    } <= set(commands.patterns_of_results(grid))
    held_out = grid_of("--config", "family=fashion", "protocol=held_out")
    assert {
        "results/fashion/held_out/finetune/*",
        "reports/fashion_held_out/tables",
    } <= set(commands.patterns_of_results(held_out))
    named = grid_of("--config", "family=fashion", "name=mine")
    assert "reports/mine/tables" in commands.patterns_of_results(named)


def test_verify_of_a_grid_that_was_never_run_finds_nothing(capsys):
    commands.main(["verify"])
    assert "verified 0 jobs, 0 files" in capsys.readouterr().out
    assert commands.VERIFY_LOG.exists()


def test_plan_counts_from_the_grid(capsys):
    commands.main(["plan", "--config", "methods=[ft]", "targets=[fashion_edges]"])
    printed = capsys.readouterr().out
    assert "Jobs       18 (9 preparation, 3 training, 6 evaluation)" in printed
