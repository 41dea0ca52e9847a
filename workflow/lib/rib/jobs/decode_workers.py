"""How many threads of a job decode photos."""

import os

AUTO = "auto"
# Without GPUs, where jobs share the cores, and networks take much longer than decoding.
USUAL = 4
# More don't help: at 5 ms a photo, 32 threads decode 6,400 a second.
MOST = 32
# Environment variables of SLURM.
STEP = "SLURM_STEP_ID"  # only in what `srun` starts
CPUS_OF_TASK = "SLURM_CPUS_PER_TASK"  # only if the user asked for a number
CPUS_ON_NODE = "SLURM_CPUS_ON_NODE"  # of the step, or outside of one of the allocation


def number_of_decode_workers(setting: str | int, cores: int | None, gpus: int | None) -> int:
    """Threads that decode photos in a job; no result depends on them.

    One core is left to start and feed jobs that use a GPU. Inside an allocation of SLURM `auto`
    counts no more cores than that has: a process may see all of the machine, as with --cores all,
    where SLURM does not confine it to its own.

    Args:
        setting: config, compute.decode_workers: `auto` or their number.
        cores: those that all jobs share (--cores); None if they run elsewhere.
        gpus: jobs that may use a GPU at the same time (--resources gpu=N); None if not stated.
    """
    if setting != AUTO:
        return int(setting)
    if cores is None or not gpus:
        return USUAL
    allocated_cores = cores_of_slurm()
    if allocated_cores is not None:
        cores = min(cores, allocated_cores)
    return max(1, min(MOST, (cores - 1) // gpus))


def cores_of_slurm() -> int | None:
    """Cores that SLURM gave this process; None outside of an allocation.

    A step may have several tasks on a machine, each with its share. Outside of a step, as in the
    script of a job, a process has all that the allocation has on this machine.
    """
    variables = [CPUS_ON_NODE]
    if STEP in os.environ:
        variables = [CPUS_OF_TASK, CPUS_ON_NODE]
    for variable in variables:
        stated_cores = os.environ.get(variable, "")
        if stated_cores.isdecimal() and int(stated_cores) > 0:
            return int(stated_cores)
    return None
