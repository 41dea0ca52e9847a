"""Warm starts: the same bytes as cold ones, and no process outlives its job or its run."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from rib.base.files import is_private
from rib.jobs import fork_server as warm
from rib.jobs import parent_run as owner
from tiny.second_user import NOBODY, as_nobody, give_to_nobody, needs_root
from tiny.waiting import wait_until

pytestmark = pytest.mark.thorough

LIBRARY = Path(warm.__file__).parents[2]
SOCKETS = f"work/warm-here-{os.getpid()}"


def servers():
    """Servers that this process's jobs have started, and their workers."""
    mine = {f"{SOCKETS}/{libraries}.sock" for libraries in warm.PRELOADED}
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if mine.intersection(one.info["cmdline"] or [])
    ]


@pytest.mark.slow
def test_cold_starts_give_the_same_bytes(finished, project):
    finished_project, _ = finished
    after_warm_starts = finished_project.products()
    project.snakemake(config=("compute={warm_start: false}", "targets=[red]", "methods=[ft,lwf]"))
    after_cold_starts = project.products()
    # Tables and figures of this smaller grid have a folder of their own.
    of_both = after_cold_starts.keys() & after_warm_starts.keys()
    files_of_runs = [name for name in of_both if name.startswith("results/")]
    assert len(files_of_runs) > 20
    for name in files_of_runs:
        assert after_cold_starts[name] == after_warm_starts[name], name


SHOW_LIMIT = """
from snakemake import cli
from snakemake.scheduling.job_scheduler import JobScheduler as Scheduler
begin = Scheduler.__init__
def begin_and_tell(self, *arguments):
    begin(self, *arguments)
    print("limited:", self.job_rate_limiter is not None)
Scheduler.__init__ = begin_and_tell
cli.main({arguments!r})
"""


@pytest.mark.parametrize(
    ("given", "limited"), [([], False), (["--max-jobs-per-timespan", "90/1s"], True)]
)
def test_jobs_start_as_fast_as_they_can_unless_the_user_limits_them(finished_copy, given, limited):
    table = f"{finished_copy.of_grid()}/tables/training.csv"
    arguments = ["--force", table, *given, "--config", "family=tiny", "catalog=mine"]
    printed = finished_copy.run(sys.executable, "-c", SHOW_LIMIT.format(arguments=arguments))
    assert f"limited: {limited}" in printed


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script that delegates itself to a server that has torch or tables' libraries.

    It says who runs it, and does as its argument tells.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(owner.PARENT_RUN, str(os.getpid()))
    monkeypatch.setenv(warm.WARM, SOCKETS)
    monkeypatch.setenv("PYTHONPATH", str(LIBRARY))
    started = []

    def start(body, libraries="tables"):
        path = tmp_path / f"script_{len(started)}.py"  # not rewritten while another job reads it
        head = (
            "import sys\nfrom rib.jobs.fork_server import delegate\n"
            f"delegate({str(path)!r}, {libraries!r})\n"
        )
        path.write_text(head + textwrap.dedent(body))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([sys.executable, path], **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
    for process in servers():
        process.kill()


def test_a_worker_has_the_libraries_and_hands_back_output_and_status(script, monkeypatch):
    body = (
        "import os\nprint('torch' in sys.modules, os.environ.get('MINE'), flush=True)\n"
        "sys.exit(7)\n"
    )
    monkeypatch.setenv("MINE", "kept")
    for _ in range(2):  # the second time, the socket and the server are still there
        process = script(body, "networks")
        assert process.communicate(timeout=60)[0] == "True kept\n" and process.returncode == 7


def test_jobs_that_draw_have_a_server_without_torch(script):
    body = (
        "print([name in sys.modules for name in ('torch', 'pandas', 'matplotlib.pyplot')],"
        " flush=True)\n"
    )
    process = script(body)
    assert process.communicate(timeout=60)[0] == "[False, True, True]\n" and process.returncode == 0


def test_a_killed_job_takes_its_worker_along(script):
    process = script("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    worker = int(process.stdout.readline())
    assert worker != process.pid and psutil.pid_exists(worker)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: not psutil.pid_exists(worker))


def test_a_worker_whose_job_is_gone_before_it_starts_says_nothing(script, tmp_path):
    """Ctrl-C ended a job right after its request.

    Its worker neither complains nor runs the script.
    """
    assert script(WHO).communicate(timeout=60)[0] == "worker\n"
    request = {
        "script": str(tmp_path / "script_0.py"),
        "folder": str(tmp_path),
        "environment": dict(os.environ),
    }
    reading, writing = os.pipe()
    with open(reading) as printed, socket.socket(socket.AF_UNIX) as job:
        job.connect(f"{SOCKETS}/tables.sock")
        job.shutdown(socket.SHUT_RD)  # as if the job were gone, for the worker that answers
        socket.send_fds(job, [b" "], [writing, writing])
        job.sendall(f"{json.dumps(request)}\n".encode())
        os.close(writing)
        assert printed.read() == ""


@pytest.mark.parametrize("unread", [b"", warm.STARTED])
def test_a_worker_ends_whatever_its_killed_job_had_read(monkeypatch, unread):
    """A socket that is closed with unread data is reset, not ended."""
    ended = []
    monkeypatch.setattr(warm, "end_process", lambda: ended.append(True))
    worker, job = socket.socketpair()
    with worker:
        worker.sendall(unread)
        job.close()
        warm._end_with(worker)
    assert ended


def test_a_killed_worker_fails_its_job(script):
    process = script("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert "was killed" in process.communicate(timeout=60)[0] and process.returncode == 1


def test_the_server_ends_with_its_run(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path = tmp_path / "warm/w.sock"
    path.parent.mkdir()
    code = f"from rib.jobs.fork_server import serve; serve({str(path)!r}, '{owner.pid}', 'tables')"
    server = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(LIBRARY)}
    )
    assert wait_until(path.exists)
    owner.kill()
    owner.wait()
    server.wait(timeout=30)
    assert not path.parent.exists()


WHO = "import os\nprint('worker' if 'pandas' in sys.modules else 'own process', flush=True)\n"
PROMPT = 20  # seconds; PATIENCE with a server that does not listen is a minute


@contextlib.contextmanager
def listening(path):
    """A socket at a path that takes connections; yields what each has received within a second."""
    received = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.1)
        ended = threading.Event()

        def take():
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(1)
                    received.append(connection.recv(1 << 16))

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield received
        finally:
            ended.set()
            thread.join()


def link_to_a_private_folder(place):
    (place.parent / "elsewhere").mkdir(mode=0o700)
    place.symlink_to("elsewhere")


def folder_open_to_all(place):
    place.mkdir()
    place.chmod(0o777)


def folder_open_to_the_group(place):
    place.mkdir()
    place.chmod(0o750)


@pytest.mark.parametrize(
    "plant",
    [
        link_to_a_private_folder,
        folder_open_to_all,
        folder_open_to_the_group,
        pytest.param(give_to_nobody, id="folder_of_another_user", marks=needs_root),
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_socket_in_a_planted_folder_is_told_nothing(script, monkeypatch, plant, tmp_path):
    place = tmp_path / SOCKETS
    place.parent.mkdir()
    plant(place)
    monkeypatch.chdir(place)  # the socket's path is short
    with listening("tables.sock") as received:
        monkeypatch.chdir(tmp_path)
        process = script(WHO)
        printed = process.communicate(timeout=PROMPT)[0]
    assert printed.endswith("own process\n") and SOCKETS in printed and process.returncode == 0
    assert received == []


@pytest.mark.parametrize("target", [None, "nowhere"], ids=["file", "dangling_link"])
def test_a_job_whose_folder_is_no_folder_runs_by_itself(script, target, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / SOCKETS).symlink_to(target) if target else (tmp_path / SOCKETS).touch()
    assert script(WHO).communicate(timeout=PROMPT)[0].endswith("own process\n")
    assert not (tmp_path / "work/nowhere").exists()


SERVER_OF_ANOTHER_USER = f"""
import os, signal, socket
signal.alarm(60)
listener = socket.socket(socket.AF_UNIX)
listener.bind("{SOCKETS}/tables.sock")
os.seteuid({NOBODY})  # the kernel notes the user who listens
listener.listen()
print("listening", flush=True)
print(listener.accept()[0].recv(1 << 16), flush=True)
"""


@needs_root
def test_a_server_of_another_user_is_told_nothing(script, tmp_path):
    (tmp_path / SOCKETS).mkdir(mode=0o700, parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER_OF_ANOTHER_USER], stdout=subprocess.PIPE, text=True
    ) as theirs:
        assert theirs.stdout.readline() == "listening\n"
        printed = script(WHO).communicate(timeout=PROMPT)[0]
        assert printed.endswith("own process\n") and "another user" in printed
        assert theirs.communicate(timeout=PROMPT)[0] == "b''\n"


@needs_root
@pytest.mark.parametrize(
    "opened", [False, True], ids=["closed_folder", "folder_and_socket_without_modes"]
)
def test_a_server_runs_nothing_for_another_user(script, tmp_path, opened):
    """Where a file system has no modes, the check of the peer alone must do."""
    assert script(WHO).communicate(timeout=60)[0] == "worker\n"
    if opened:
        (tmp_path / SOCKETS).chmod(0o777)
        (tmp_path / SOCKETS / "tables.sock").chmod(0o666)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    request = {"script": str(tmp_path / "theirs.py"), "folder": str(tmp_path), "environment": {}}
    body = f"""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect("{Path(SOCKETS).name}/tables.sock")
        except PermissionError:
            raise SystemExit("refused")
        try:
            socket.send_fds(connection, [b" "], [1, 2])
            connection.sendall({json.dumps(request)!r}.encode() + b"\\n")
            print("answered" if connection.recv(1) else "hung up")
        except ConnectionError:
            print("hung up")
    """
    assert (
        as_nobody(body, tmp_path / "work").communicate(timeout=PROMPT)[0]
        == f"{'hung up' if opened else 'refused'}\n"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077], ids=lambda mask: f"umask_{mask:03o}")
def test_only_this_user_can_connect_whatever_the_umask(script, tmp_path, mask):
    before = os.umask(mask)
    try:
        process = script("import os\nprint(f'{os.umask(0):03o}', flush=True)\n")
    finally:
        os.umask(before)
    assert process.communicate(timeout=60)[0] == f"{mask:03o}\n", "jobs keep theirs"
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (tmp_path / SOCKETS, *(tmp_path / SOCKETS).glob("*.sock"))
    }
    assert modes == {Path(SOCKETS).name: 0o700, "tables.sock": 0o600}


def test_the_socket_of_a_killed_server_is_replaced(script, tmp_path):
    assert script(WHO).communicate(timeout=60)[0] == "worker\n"
    for server in servers():
        server.kill()
        server.wait(10)
    stale = (tmp_path / SOCKETS / "tables.sock").stat().st_mtime_ns
    begun = time.monotonic()
    assert (
        script(WHO).communicate(timeout=60)[0] == "worker\n" and time.monotonic() - begun < PROMPT
    )
    assert len(servers()) == 1 and (tmp_path / SOCKETS / "tables.sock").stat().st_mtime_ns > stale


def test_jobs_that_start_together_share_one_server(script, tmp_path):
    (tmp_path / SOCKETS).mkdir(mode=0o700, parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{SOCKETS}/tables.sock")
    jobs = [script(WHO) for _ in range(6)]
    assert [job.communicate(timeout=60)[0] for job in jobs] == 6 * ["worker\n"]
    assert wait_until(lambda: len(servers()) == 1)  # workers end a moment after their jobs


def test_a_project_may_lie_deep(script, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    monkeypatch.chdir(deep)
    assert script(WHO).communicate(timeout=60)[0] == "worker\n"


def test_without_sockets_a_job_runs_by_itself_at_once(script, monkeypatch):
    monkeypatch.setenv(
        warm.WARM, f"work/{'w' * 120}"
    )  # refused as by a file system without sockets
    assert script(WHO).communicate(timeout=PROMPT)[0].endswith("own process\n")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server without libraries that waits half a second for what a job sends.

    It prints what its workers say.
    """
    monkeypatch.chdir(tmp_path)
    Path("warm").mkdir(mode=0o700)
    code = f"""
from rib.jobs import fork_server
fork_server.PRELOADED["tables"] = ()
fork_server.PATIENCE = 0.5
fork_server.serve("warm/tables.sock", "{os.getpid()}", "tables")
"""
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL
    )
    assert wait_until(Path("warm/tables.sock").exists)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def connected():
    """A connection to the server of the current folder."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("warm/tables.sock")
    connection.settimeout(PROMPT)
    return connection


def answer_to(request, descriptors=(1, 2)):
    """What a worker of the server answers to a request, a byte at a time."""
    with connected() as connection:
        socket.send_fds(connection, [b" "], descriptors)
        connection.sendall(request)
        answers = [connection.recv(1)]
        while answers[-1]:
            answers.append(connection.recv(1))
    return answers[:-1]


def request_for(body):
    """A job's request to run this code."""
    Path("job.py").write_text(body)
    job = {
        "script": str(Path("job.py").resolve()),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
    }
    return f"{json.dumps(job)}\n".encode()


FAILED, SUCCEEDED = [b"\1"], [warm.STARTED, b"\0"]
GARBAGE = {
    "no_JSON": b"\xff\x00garbage\n",
    "nothing": b"\n",
    "number": b"3\n",
    "deep": b"[" * 200_000 + b"\n",
    "nothing_of_it": b"{}\n",
    "folder_that_is_none": b'{"script": "job.py", "folder": "/nowhere", "environment": {}}\n',
    "environment_of_numbers": b'{"script": "job.py", "folder": ".", "environment": {"A": 3}}\n',
    "NUL_in_the_environment": (
        b'{"script": "job.py", "folder": ".", "environment": {"A": "\\u0000"}}\n'
    ),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_request_that_is_none_runs_nothing_and_the_next_is_served(server, garbage):
    good = request_for("open('ran', 'a').write('once ')")
    assert answer_to(GARBAGE[garbage]) == FAILED and not Path("ran").exists()
    assert answer_to(good) == SUCCEEDED and Path("ran").read_text() == "once "


@pytest.mark.parametrize(
    "sent", [b"", b" ", b' {"script": "'], ids=["nothing", "a_byte", "half_a_request"]
)
def test_a_worker_does_not_wait_forever_for_a_request(server, sent):
    with connected() as connection:
        connection.sendall(sent)
        assert connection.recv(1) in (b"", *FAILED)  # while the connection stays open
        assert wait_until(lambda: not server.children(), PROMPT)


def test_an_endless_request_is_read_up_to_a_limit(server, monkeypatch):
    with connected() as connection, pytest.raises(ConnectionError):
        connection.sendall(b" ")
        for _ in range(2 * warm.LONGEST_REQUEST >> 20):
            connection.sendall(bytes(1 << 20))


def test_many_silent_connections_keep_no_job_from_its_worker(server):
    with contextlib.ExitStack() as stack:
        for _ in range(200):  # more than wait in the queue of a socket
            stack.enter_context(connected())
        assert answer_to(request_for("open('ran', 'w')")) == SUCCEEDED and Path("ran").exists()
    assert wait_until(lambda: not server.children(), PROMPT)


@pytest.mark.parametrize("number", [0, 1, 3, 250])
def test_a_worker_takes_two_streams_and_no_more_descriptors(server, number):
    descriptors = number * [1]
    body = "import os; open('count', 'w').write(str(len(os.listdir('/proc/self/fd'))))"
    request = request_for(body)
    assert answer_to(request) == SUCCEEDED
    usual = int(Path("count").read_text())
    if descriptors:
        assert answer_to(request, descriptors) == SUCCEEDED
    else:
        with connected() as connection:
            connection.sendall(b" " + request)
            assert connection.recv(1) + connection.recv(1) == b"".join(SUCCEEDED)
    assert int(Path("count").read_text()) == usual


@pytest.mark.parametrize("queue", ["open", "full"])
def test_a_server_that_never_answers_does_not_keep_a_job(tmp_path, monkeypatch, caplog, queue):
    """As one that was stopped (SIGSTOP): the kernel takes connections for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(warm.WARM, "warm")
    monkeypatch.setattr(warm, "NVIDIA", tmp_path / "none")
    monkeypatch.setattr(warm, "parent_run", psutil.Process)
    monkeypatch.setattr(warm, "ANSWER", 1.0)
    monkeypatch.setattr(warm, "PATIENCE", 1.0)
    Path("warm").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind("warm/tables.sock")
        listener.listen(0)
        if queue == "full":
            stack.enter_context(connected())
        begun = time.monotonic()
        warm.delegate("job.py", "tables")  # returns: the job goes on by itself
    assert time.monotonic() - begun < PROMPT
    assert [record.message for record in caplog.records if "no warm start" in record.message]


@needs_root
def test_a_folder_that_is_exchanged_after_its_check_is_told_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(SOCKETS).mkdir(mode=0o700, parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER_OF_ANOTHER_USER], stdout=subprocess.PIPE, text=True
    ) as theirs:
        assert theirs.stdout.readline() == "listening\n"
        Path(SOCKETS).rename("work/theirs")
        Path(SOCKETS).mkdir(mode=0o700)

        def exchange_after_check(folder):
            private = is_private(folder)
            folder.rename("work/mine")
            Path("work/theirs").rename(folder)
            return private

        monkeypatch.setattr(warm, "is_private", exchange_after_check)
        with pytest.raises(PermissionError, match="another user's"):
            warm._connect(Path(SOCKETS, "tables.sock"), os.getpid(), "tables")
        assert theirs.communicate(timeout=PROMPT)[0] == "b''\n"


def test_nothing_is_left_after_a_run(finished_copy):
    """Neither of this run, nor of one that was killed with its servers."""
    work, table = finished_copy.folder / "work", f"{finished_copy.of_grid()}/tables/training.csv"
    (work / "warm-here-1").mkdir(mode=0o700, parents=True)
    with (
        contextlib.chdir(work),
        socket.socket(socket.AF_UNIX) as dead,
    ):  # an address has 107 bytes at most
        dead.bind("warm-here-1/networks.sock")
    seen = set()
    words = (
        sys.executable,
        "-m",
        "snakemake",
        "--force",
        table,
        "--config",
        "family=tiny",
        "catalog=mine",
    )
    run = finished_copy.start(*words)
    while run.poll() is None:
        seen.update(path.parent.name for path in work.glob("warm-*/tables.sock"))
        time.sleep(0.02)
    assert run.returncode == 0 and seen == {f"warm-{os.uname().nodename}-{run.pid}"}, (
        finished_copy.printed()
    )
    assert wait_until(lambda: not finished_copy.processes()) and list(work.glob("warm-*")) == []
