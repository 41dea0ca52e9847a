"""Projects that tests of all kinds run: empty, finished once for all, and finished to change."""

import contextlib
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
    """More test processes than cores: some of their time they wait, for jobs of a workflow and for each other."""
    return -(-3 * len(os.sched_getaffinity(0)) // 2)


def pytest_ignore_collect(collection_path, config):
    """A file of which all tests are in a tier that is not asked for is not imported, which would take seconds."""
    left_out = re.findall(r"not (\w+)", config.option.markexpr)
    if collection_path.suffix != ".py" or not left_out:
        return None
    tier = re.search(
        r"^pytestmark = pytest\.mark\.(\w+)$", collection_path.read_text(), re.MULTILINE
    )
    return True if tier and tier[1] in left_out else None


@pytest.hookimpl(trylast=True)  # when the tests of other tiers are gone
def pytest_collection_modifyitems(items):
    """One process makes the shared project while the others have files that don't need it, which come before those."""
    sharing = {item.path for item in items if "finished" in item.fixturenames}
    items.sort(
        key=lambda item: (
            item.path.name != "test_tiny_run.py",
            item.path in sharing,
            "unit" in item.path.parts,
        )
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from threads, and results must not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def count_inputs(record_property):
    """Fuzz tests state how many inputs they tried."""
    before = fuzz.tried
    yield
    if fuzz.tried > before:
        record_property("inputs", fuzz.tried - before)


@pytest.fixture
def peak():
    """Peak of the bytes that Python allocates; the next call starts again."""
    tracemalloc.start()

    def taken():
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return found

    yield taken
    tracemalloc.stop()


@pytest.fixture
def arrow_peak():
    """Most bytes that Arrow has had allocated since the test began."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    yield pool.max_memory
    pa.set_memory_pool(before)


@pytest.fixture
def limited_files():
    """A context in which files of this process and its children have at most that many bytes, as after `ulimit -f`."""

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def project(tmp_path):
    """A project that has run nothing, with the tiny family."""
    family.make(copy_project(tmp_path / "project") / "mine")
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """A project that has run the tiny grid with one job at a time, and what that printed. Do not change it.

    Test processes share it: the first that needs it makes it, in the folder above their own.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    project, said = Project(shared / "finished/project"), shared / "finished/printed.txt"
    with FileLock(shared / "finished.lock"):
        if not said.exists():
            family.make(copy_project(project.folder) / "mine")
            said.write_text(
                project.snakemake(
                    "--cores",
                    "1",
                    "--report",
                    "reports/tiny/report.html",
                    "--report-after-run",
                    **SECRETS,
                )
            )
    return project, said.read_text()


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A finished project to change, times of files kept."""
    shutil.copytree(finished[0].folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")
