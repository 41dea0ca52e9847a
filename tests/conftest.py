"""Projects that tests of all kinds run: empty, finished once for all, and finished to change."""

import contextlib
import math
import os
import re
import resource
import shutil
import tracemalloc

import pyarrow as pa
import pytest
import torch
from filelock import FileLock

from tiny import family, fuzz
from tiny.project import SECRETS, Project, copy_project


def pytest_xdist_auto_num_workers(config):
    """More test processes than cores, half as many again.

    Some of their time they wait, for jobs of a workflow and for each other.
    """
    cores = len(os.sched_getaffinity(0))
    return math.ceil(1.5 * cores)


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
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def count_inputs(record_property):
    """Fuzz tests state how many inputs they tried."""
    tried_before = fuzz.tried
    yield
    if fuzz.tried > tried_before:
        record_property("inputs", fuzz.tried - tried_before)


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
def arrow_peak():
    """A function that gives the most bytes that Arrow has had allocated since the test began."""
    default_pool = pa.default_memory_pool()
    counting_pool = pa.proxy_memory_pool(default_pool)
    pa.set_memory_pool(counting_pool)
    yield counting_pool.max_memory
    pa.set_memory_pool(default_pool)


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
def finished(tmp_path_factory, worker_id):
    """A project that has run the tiny grid with one job at a time, and what that printed.

    Do not change it. Test processes share it: the first that needs it makes it, in the folder
    above their own.
    """
    folder_of_process = tmp_path_factory.getbasetemp()
    shared = folder_of_process if worker_id == "master" else folder_of_process.parent
    project = Project(shared / "finished/project")
    printed = shared / "finished/printed.txt"
    with FileLock(shared / "finished.lock"):
        if not printed.exists():
            family.make(copy_project(project.folder) / "mine")
            report = ("--report", "reports/tiny/report.html", "--report-after-run")
            printed.write_text(project.snakemake("--cores", "1", *report, **SECRETS))
    return project, printed.read_text()


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A finished project to change, times of files kept."""
    finished_project, _ = finished
    shutil.copytree(finished_project.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")
