"""Jobs of a preview, each after those it needs.

Those that fail are named and end neither the others nor the page.
"""

import ast
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rib.reporting.preview import write_preview


class Files(dict):
    """Named files, as Snakemake gives them."""

    def __init__(self, fromdict=()):
        super().__init__(fromdict)

    def __iter__(self):
        return iter(self.values())

    def __getattr__(self, name):
        return self[name]


def job(name, needs=(), act="write"):
    files = {
        "input": Files({f"in{n}": str(path) for n, path in enumerate(needs)}),
        "output": [f"preview/{name}"],
    }
    return SimpleNamespace(name=name, act=act, log=[f"{name}.log"], **files)


def page():
    made = job("page")
    made.input = Files({"analyses": [], "captions": [], "mri": "preview/compute_metrics"})
    cfg = {"analyses": [], "more_files": {"All": ["x"]}}
    return SimpleNamespace(
        **{**vars(made), "params": SimpleNamespace(cfg=cfg), "output": SimpleNamespace(page="page")}
    )


def call(made):
    """A job's script."""
    if made.name == "page":
        Path("page").write_text(repr(sorted(made.params.cfg["partial"]["left_out"].items())))
        return
    if made.act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if made.act == "fail":
        Path(made.log[0]).write_text("12:00:00 ERROR it is broken\n")
        raise SystemExit(1)
    assert all(map(os.path.isfile, made.input)), "it ran before what it needs"
    time.sleep(0.1)
    Path("preview").mkdir(exist_ok=True)
    Path(f"preview/{made.name}").write_text("made")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def preview(*jobs):
    partial = {"finished": 1, "runs": 2, "left_out": {"slow": "it takes too long"}}
    write_preview(folder="preview", jobs=[*jobs, page()], partial=partial, call=call)
    return dict(ast.literal_eval(Path("page").read_text()))


def test_jobs_that_fail_or_are_killed_are_named_with_those_that_need_them():
    metrics = job("compute_metrics")
    jobs = [
        job("killed", ["preview/compute_metrics"], "kill"),
        job("failed", ["preview/compute_metrics"], "fail"),
    ]
    jobs += [
        job("needs", ["preview/killed"]),
        *(job(f"other{n}", ["preview/compute_metrics"]) for n in range(4)),
    ]
    said = preview(metrics, *jobs, job("last", ["preview/other3"]))
    assert said == {
        "slow": "it takes too long",
        "killed": "killed was killed, perhaps for lack of memory",
        "failed": "it is broken",
        "needs": "preview/killed is not made",
    }
    assert {path.name for path in Path("preview").iterdir()} == {
        "compute_metrics",
        "last",
        *(f"other{n}" for n in range(4)),
    }


@pytest.mark.parametrize(("act", "said"), [("fail", "1"), ("kill", "compute_metrics was killed")])
def test_without_metrics_there_is_no_page(act, said):
    Path("preview").mkdir()
    Path("preview/page").write_text("of an earlier preview")
    with pytest.raises(SystemExit, match=said):
        preview(job("compute_metrics", act=act), job("figure", ["preview/compute_metrics"]))
    assert not Path("page").exists() and not Path("preview").exists()
