"""How many processors this process may use, in an allocation of SLURM too."""

import os

from rib.base.errors import UserError

# Environment variable: processors of this machine that SLURM gave this job or step. Clusters that
# confine no job to them leave more in its affinity.
SLURM_PROCESSORS = "SLURM_CPUS_ON_NODE"


def processors() -> int:
    """Processors that this process may run on, no more than SLURM gave it."""
    of_affinity = len(os.sched_getaffinity(0))
    return min(of_affinity, int(os.environ.get(SLURM_PROCESSORS, of_affinity)))


def refuse_fewer_processors(cores: int) -> None:
    """Raise a UserError if SLURM gave this step fewer processors than Snakemake is to use.

    Args:
        cores: that Snakemake's jobs may use at once, its option `--cores`.
    """
    given = os.environ.get(SLURM_PROCESSORS)
    if given is not None and int(given) < cores:
        raise UserError(
            f"SLURM gave this step {given} processors, but Snakemake's jobs are to use {cores}; "
            f"start it with srun --cpus-per-task={cores}, or with --cores {given}."
        )
