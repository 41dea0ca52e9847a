import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from rib.io import UserError, sha256
from rib.job import commit, job, reason


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("in")
    outputs = {name: f"results/{name}.x" for name in ("data", "manifest", "provenance")}
    return lambda: job(
        stage="s",
        rule="r",
        name="n",
        cfg={"a": 1},
        inputs={"one": "in.txt", "many": ["in.txt"]},
        outputs=outputs,
        log_file="logs/n.log",
    )


def test_outputs_are_published_with_manifest_and_provenance(start, tmp_path):
    with start() as out:
        out["data"].write_text("made")
        out["manifest"].write_text('{"n": 1}')
    made = sha256(tmp_path / "results/data.x")
    assert json.loads((tmp_path / "results/manifest.x").read_text()) == {"n": 1, "files": {"data.x": made}}
    record = json.loads((tmp_path / "results/provenance.x").read_text())
    assert record["inputs"] == {"in.txt": sha256(tmp_path / "in.txt")}
    manifest = sha256(tmp_path / "results/manifest.x")
    assert record["outputs"] == {"results/data.x": made, "results/manifest.x": manifest}
    assert record["rule"] == "r" and record["log"] == "logs/n.log" and record["commit"] is None
    assert (
        record["cfg"] == {"a": 1} and record["versions"]["numpy"] and record["seconds"] >= record["cpu_seconds"] * 0.5
    )
    assert record["peak_memory"] > 10**7 and record["bytes"] > 0
    assert not any((tmp_path / "work").iterdir())


def test_the_manifest_gets_its_name_after_the_bytes_that_it_speaks_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named, rename = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (rename(old, new), named.append(Path(new))))
    outputs = {name: f"results/{name}.x" for name in ("manifest", "provenance", "data", "more")}
    with job(stage="s", rule="r", name="n", cfg={}, inputs={}, outputs=outputs, log_file="log") as out:
        for name in ("data", "more"):
            out[name].write_text(name)
    named = [path.stem for path in named if path.parent == Path("results")]
    assert sorted(named) == sorted(outputs) and named[-1] == "manifest"


def test_a_job_cleans_up_undisturbed_by_more_signals(start, tmp_path):
    if (pid := os.fork()) == 0:
        try:
            with start() as out:
                out["data"].write_text("half")
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    os.kill(os.getpid(), signal.SIGINT)
                    os.kill(os.getpid(), signal.SIGTERM)
                    (tmp_path / "cleaned").touch()
        except SystemExit as end:
            os._exit(end.code)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM
    assert (tmp_path / "cleaned").exists() and not any((tmp_path / "work").iterdir())


def test_why_a_job_failed_is_read_from_its_log(start, tmp_path):
    log = tmp_path / "logs/n.log"
    assert reason(log) is None
    with pytest.raises(SystemExit), start():
        raise UserError("the disk is a teapot.")
    assert reason(log) == "the disk is a teapot."
    with start() as out:
        out["data"].write_text("made")
    assert reason(log) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("the disk is a teapot."), "the disk is a teapot."),
        (KeyError("k"), "KeyError: 'k' (the full report is in"),
    ],
)
def test_a_failure_says_why_and_leaves_nothing(start, tmp_path, capfd, error, said):
    with pytest.raises(SystemExit), start() as out:
        out["data"].write_text("half")
        raise error
    assert f"s n: {said}" in capfd.readouterr().err and said in (tmp_path / "logs/n.log").read_text()
    assert not (tmp_path / "results").exists() and not any((tmp_path / "work").iterdir())


def test_a_forgotten_output_is_an_error(start, tmp_path, capfd):
    with pytest.raises(SystemExit), start():
        pass
    assert "did not write its output 'data'" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()


def test_what_a_killed_job_left_is_swept_away(start, tmp_path):
    if (pid := os.fork()) == 0:
        with start() as out:
            out["data"].write_text("half")
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert any((tmp_path / "work").iterdir()) and not (tmp_path / "results").exists()
    with start() as out:
        out["data"].write_text("whole")
    assert (tmp_path / "results/data.x").read_text() == "whole" and not any((tmp_path / "work").iterdir())


@pytest.mark.parametrize("stopped", [UserError("no."), KeyboardInterrupt()])
def test_a_job_that_resumes_keeps_what_it_had_until_it_is_done_or_is_another(tmp_path, monkeypatch, stopped):
    monkeypatch.chdir(tmp_path)

    def run(cfg):
        what = {
            "stage": "s",
            "rule": "r",
            "name": "n",
            "inputs": {},
            "outputs": {"data": "data.x"},
            "log_file": "logs/n.log",
        }
        return job(**what, cfg=cfg, resumes="data.x")

    with pytest.raises((SystemExit, KeyboardInterrupt)), run({"a": 1}) as out:
        out["data"].write_text("half")
        raise stopped
    with pytest.raises((SystemExit, KeyboardInterrupt)), run({"a": 1}) as out:
        assert out["data"].read_text() == "half"
        raise stopped
    with run({"a": 2}) as out:
        assert not out["data"].exists(), "of other settings"
        out["data"].write_text("whole")
    assert (tmp_path / "data.x").read_text() == "whole" and not any((tmp_path / "work").iterdir())


def test_settings_that_json_would_change_are_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(SystemExit),
        job(stage="s", rule="r", name="n", cfg={"a": (1, 2)}, inputs={}, outputs={}, log_file="log"),
    ):
        pass
    assert "cfg of rule r holds what JSON has no form for" in capfd.readouterr().err


def test_the_commit_is_the_projects_and_says_when_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    assert commit() is None
