"""Number of processors that this process may use, also under SLURM."""

import os

from rib.base.errors import UserError

# Set by SLURM to the processors of this job or step on this machine. Clusters that don't confine
# jobs leave more processors in the affinity.
SLURM_PROCESSORS = "SLURM_CPUS_ON_NODE"


def processors() -> int:
    """Number of processors that this process may use: its affinity, or SLURM's number if lower."""
    of_affinity = len(os.sched_getaffinity(0))
    return min(of_affinity, int(os.environ.get(SLURM_PROCESSORS, of_affinity)))


def refuse_fewer_processors(cores: int) -> None:
    """Raise a UserError if SLURM gave this step fewer processors than Snakemake will use.

    Args:
        cores: Snakemake's option `--cores`.
    """
    given = os.environ.get(SLURM_PROCESSORS)
    if given is not None and int(given) < cores:
        raise UserError(
            f"SLURM gave this step {given} processors, but Snakemake's jobs are to use {cores}; "
            f"start it with srun --cpus-per-task={cores}, or with --cores {given}."
        )
