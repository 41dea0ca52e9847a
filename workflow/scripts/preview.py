"""Run the scripts of a preview's jobs in processes of this one."""

import os
import runpy
from pathlib import Path

import _run
from rib.jobs.fork_server import WARM
from rib.reporting.preview import write_preview

os.environ[WARM] = ""  # no job goes on in another process
scripts = Path(_run.__file__).parent


def call(job):
    """Run a job's script."""
    runpy.run_path(scripts / job.script, {"snakemake": job})


write_preview(**snakemake.params.preview, call=call)
