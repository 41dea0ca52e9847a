"""Projects that tests of all kinds run: empty, finished once for all, and finished to change."""

import contextlib
import os
import re
import resource
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from filelock import FileLock

from tiny.projects import family, forked
from tiny.projects.project import SECRETS, Project, copy_project


def pytest_xdist_auto_num_workers(config):
    """As many test processes as cores that this process may use.

    More would cost more time, since each imports all tests, than they save where others wait.
    """
    return len(os.sched_getaffinity(0))


def pytest_configure(config):
    """Let test processes share servers of tiny.projects.forked.

    For a run of all tests, that of Snakemake starts while test processes import and collect them.
    """
    hands_out_tests = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if hands_out_tests:
        folder = Path(tempfile.mkdtemp())
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        forked.share(folder, os.getpid())
        if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            forked.start("snakemake")


def pytest_ignore_collect(collection_path, config):
    """Ignore a file of which all tests are in a tier that is not asked for.

    To import it would take seconds.
    """
    tiers_left_out = re.findall(r"not (\w+)", config.option.markexpr)
    if collection_path.suffix != ".py" or not tiers_left_out:
        return None
    mark_of_file = re.search(
        r"^pytestmark = pytest\.mark\.(\w+)$", collection_path.read_text(), re.MULTILINE
    )
    if mark_of_file and mark_of_file[1] in tiers_left_out:
        return True
    return None  # other plugins decide


@pytest.hookimpl(trylast=True)  # when the tests of other tiers are gone
def pytest_collection_modifyitems(items):
    """Sort tests, so that one process makes the shared project and no other waits for it.

    Meanwhile the others have files that don't need it, which come before those that do.
    """
    sharing_files = {item.path for item in items if "finished" in item.fixturenames}

    def position(item):
        makes_the_project = item.path.name == "test_tiny_run.py"
        shares_it = item.path in sharing_files
        is_unit_test = "unit" in item.path.parts
        return (not makes_the_project, shares_it, is_unit_test)

    items.sort(key=position)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """One thread for torch.

    Small tensors gain nothing from threads, and results must not depend on the machine's cores.
    """
    import torch  # not in the process that only hands out tests, which starts before all others

    torch.set_num_threads(1)


@pytest.fixture
def peak():
    """A function that gives the peak of the bytes that Python allocates; each call starts again."""
    tracemalloc.start()

    def peak_since_last_call():
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return peak_bytes

    yield peak_since_last_call
    tracemalloc.stop()


@pytest.fixture
def limited_files():
    """A context in which files have at most so many bytes, as after `ulimit -f`.

    It holds for files that this process and its children write.
    """

    @contextlib.contextmanager
    def limited(size):
        soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard_limit))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))

    return limited


@pytest.fixture
def project(tmp_path):
    """A project that has run nothing, with the tiny family."""
    family.make(copy_project(tmp_path / "project") / "mine")
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """A folder that all test processes share, above their own."""
    folder_of_process = tmp_path_factory.getbasetemp()
    return folder_of_process if worker_id == "master" else folder_of_process.parent


@pytest.fixture(scope="session")
def finished(shared_folder):
    """A project in which the tiny grid has run, and what its run printed, with one job at a time.

    Do not change it. Test processes share it: the first that needs it makes it.
    """
    project = Project(shared_folder / "finished/project")
    file = shared_folder / "finished/printed.txt"
    with FileLock(shared_folder / "finished.lock"):
        if not file.exists():
            family.make(copy_project(project.folder) / "mine")
            file.write_text(project.snakemake("--cores", "1", **SECRETS))
    return project, file.read_text()


@pytest.fixture(scope="session")
def reported(finished, tmp_path_factory):
    """A copy of the finished project that has Snakemake's report, as after `make run`.

    Do not change it.
    """
    finished_project, _ = finished
    copy = Project(tmp_path_factory.mktemp("reported") / "project")
    shutil.copytree(finished_project.folder, copy.folder, symlinks=True)
    report = ("--report", "reports/tiny/report.html", "--report-after-run")
    copy.snakemake("--cores", "1", *report, **SECRETS)
    return copy


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A finished project to change, times of files kept."""
    finished_project, _ = finished
    shutil.copytree(finished_project.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")
