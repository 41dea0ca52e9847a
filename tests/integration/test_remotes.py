"""DVC's remotes for real: ssh and WebDAV.

Pushes and pulls that are cut off, and two people at once.
"""

import os
import signal
import sys

import pytest

from tiny.projects.project import Project, methods
from tiny.projects.waiting import wait_until
from tiny.servers import remotes

pytestmark = pytest.mark.slow  # servers

needs_sshd = pytest.mark.skipif(remotes.SSHD is None, reason="sshd is not installed")
KINDS = [pytest.param("ssh", marks=needs_sshd), "webdav"]
# As docs/sharing.md says them.
DRIVERS = {"dvc": "dvc git-hook merge-driver --ancestor %O --our %A --their %B", "ours": "true"}


@pytest.fixture(params=KINDS)
def remote(request, tmp_path):
    with getattr(remotes, request.param)(tmp_path / "server") as storage:
        yield storage


def use(project, remote):
    """What each clone is told once: where the storage is, and how git merges .dvc files."""
    project.dvc("remote", "add", "--local", "--default", "storage", remote.url)
    for key, value in remote.settings.items():
        project.dvc("remote", "modify", "--local", "storage", key, value)
    for name, driver in DRIVERS.items():
        project.git("config", f"merge.{name}.driver", driver)


def clone(project, folder, remote):
    project.git("clone", "-q", ".", str(folder))
    other = Project(folder)
    use(other, remote)
    return other


@pytest.fixture
def owner(finished_copy, remote):
    """The project of who ran the grid, tracked and committed, not pushed."""
    finished_copy.git("init", "-q", "-b", "main")
    use(finished_copy, remote)
    finished_copy.commit("results")
    return finished_copy


def cut_off(project, words, done):
    """Kill a command of DVC's in the midst of its work; how much of it had been done."""
    running = project.start(sys.executable, "-m", "dvc", *words, "--jobs", "1")
    wait_until(lambda: done() or running.poll() is not None, 60, every=0.005)
    so_far = done()
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return so_far


def test_results_travel_and_a_cut_off_push_and_pull_go_on(owner, remote, tmp_path):
    assert cut_off(owner, ["push"], lambda: len(remote.objects()))
    partly = len(remote.objects())
    owner.dvc("push")
    assert 0 < partly < len(remote.objects())
    colleague = clone(owner, tmp_path / "colleague", remote)
    cache = colleague.folder / ".dvc/cache/files/md5"
    assert cut_off(colleague, ["pull"], lambda: len(list(cache.glob("??/*"))))
    printed = colleague.rib("pull")
    assert "files are in place" in printed and remotes.PASSWORD not in printed
    assert owner.products() == colleague.products()
    assert "Nothing to be done" in colleague.snakemake("-n")


@needs_sshd
def test_two_people_add_a_method_each_to_one_model(finished_copy, tmp_path):
    with remotes.ssh(tmp_path / "server") as remote:
        first = finished_copy
        first.git("init", "-q", "-b", "main")
        use(first, remote)
        first.commit("results")
        first.dvc("push")
        second = clone(first, tmp_path / "second", remote)
        second.rib("pull")
        assert "Nothing to be done" in second.snakemake("-n")

        mine, yours = (
            f"methods=[ft,linear_probe,lwf,wise_ft,{name}]" for name in ("l2_sp", "ewc_released")
        )
        assert methods(second.listed(config=(yours,)), "finetune") == {"ewc_released"}
        for project, choice in ((second, yours), (first, mine)):
            project.snakemake(config=(choice,))
            project.commit(choice)
            project.dvc("push")

        # DVC merges the lists of both sides, so it needs the other's too (docs/sharing.md).
        first.git("fetch", "-q", str(second.folder), "main:theirs")
        first.git("switch", "-q", "theirs")
        first.rib("pull")
        first.git("switch", "-q", "-")
        first.git("merge", "-q", "--no-edit", "theirs")
        first.rib("pull")
        assert "Nothing to be done" in first.snakemake("-n", config=(mine,))
        # What both made together is all there; only what shows it together is still to be made.
        both = ("methods=[ft,linear_probe,lwf,wise_ft,l2_sp,ewc_released]",)
        planned = first.planned(config=both)
        runs = {"finetune", "evaluate", "convert_model", "prepare"}
        assert planned and not runs & planned.keys()
        first.snakemake(config=both)
        first.commit("both")
