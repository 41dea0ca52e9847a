"""Two jobs at once on two GPUs, with the project's locks and through Snakemake, for `make gpu`."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from gpu_report import FELL_SHORT, NOT_CHECKED, Check

LIBRARY = Path(__file__).parents[2] / "workflow/lib"
SECONDS = 10  # that each job holds its GPU, in which the other must have begun
SNAKEFILE = """
rule all:
    input:
        expand("{number}.json", number=range(2)),


rule job:
    output:
        "{number}.json",
    resources:
        gpu=1,
    script:
        "job.py"
"""
# Says which GPU it was given, and when. `on_gpu` and `seconds` are written above it.
JOB = """
import json
import os
import time

from rib.jobs.gpu_lock import lock_gpu
from rib.models.device import start
from rib.models.model_settings import ComputeSettings

visible = None
if on_gpu:
    import torch

    device = start(ComputeSettings(device="cuda", threads_per_job=1))
    torch.ones(1, device=device).sum().item()
    visible = torch.cuda.device_count()
else:
    import torch

    torch.version.cuda = "a stand-in"  # a build of torch without CUDA locks nothing
    lock_gpu()
given = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "visible": visible, "begin": time.time()}
time.sleep(seconds)
with open(snakemake.output[0], "w") as file:
    json.dump({**given, "end": time.time()}, file)
"""


def number_of_gpus() -> int:
    """GPUs that this process could use, counted in another one, which no CUDA is left of."""
    count = "import torch; print(torch.cuda.device_count())"
    printed = subprocess.run(
        [sys.executable, "-c", count], capture_output=True, text=True, check=True
    )
    return int(printed.stdout)


def check_two_gpus(device: str) -> Check:
    """Whether two jobs of Snakemake run at once, each with a GPU of its own.

    Call this before this process has locked a GPU. On a CPU the GPUs are names, so that the command
    is tried.

    Args:
        device: `cuda` or `cpu`.
    """
    name = "two jobs of Snakemake at once, each with a GPU of its own"
    environment = dict(os.environ)
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = "0,1"
    elif number_of_gpus() < 2:
        return Check(name, NOT_CHECKED, measured="there are no two GPUs")
    with tempfile.TemporaryDirectory() as folder:
        if device == "cpu":
            environment["TMPDIR"] = folder  # the locks of jobs that compute are not touched
        error, jobs = _run(Path(folder), device, environment)
    if error is not None:
        return Check(name, FELL_SHORT, measured=error)
    problem = problem_of(jobs)
    if device == "cpu" and problem is None:
        return Check(name, NOT_CHECKED, measured="stand-ins for GPUs were locked as they should")
    return Check.on_gpu(name, problem is None, measured=problem or "")


def problem_of(jobs: list[dict]) -> str | None:
    """The problem of two jobs that held GPUs, such as "both had GPU 0"; None without a problem.

    Args:
        jobs: of each job its `gpu`, the number of GPUs `visible` to it, None if nobody asked, and
            the times `begin` and `end` in seconds.
    """
    first, second = sorted(jobs, key=lambda job: job["begin"])
    if first["gpu"] == second["gpu"]:
        return f"both had GPU {first['gpu']}"
    if any(job["visible"] not in (None, 1) for job in jobs):
        return "a job sees more than its own GPU"
    if second["begin"] > first["end"]:
        return "one waited for the other"
    return None


def _run(folder: Path, device: str, environment: dict[str, str]) -> tuple[str | None, list[dict]]:
    """Run two jobs in a folder: the last line of an error or None, and what the jobs wrote."""
    on_gpu = device == "cuda"
    header = f"""
        import sys

        sys.path.insert(0, {str(LIBRARY)!r})
        on_gpu = {on_gpu}
        seconds = {SECONDS}
    """
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "job.py").write_text(textwrap.dedent(header) + JOB)
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2"]
    done = subprocess.run(snakemake, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        *_, last_line = done.stderr.strip().splitlines()
        return last_line, []
    return None, [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]
