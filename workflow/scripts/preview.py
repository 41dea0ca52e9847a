"""Run the scripts of a preview's jobs in processes of this one."""

import os
import runpy
from pathlib import Path

import _run
from rib.jobs.fork_server import WARM
from rib.reporting.preview import write_preview

os.environ[WARM] = ""  # no job goes on in another process
SCRIPTS = Path(_run.__file__).parent


def call(job):
    """Run a job's script."""
    runpy.run_path(SCRIPTS / job.script, {"snakemake": job})


preview = snakemake.params.preview
write_preview(folder=preview["folder"], jobs=preview["jobs"], partial=preview["partial"], call=call)
