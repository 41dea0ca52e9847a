"""How many threads of a job decode photos."""

import os

AUTO = "auto"
# Without GPUs, where jobs share the cores, and networks take much longer than decoding.
USUAL = 4
# More don't help: at 5 ms a photo, 32 threads decode 6,400 a second.
MOST = 32


def number_of_decode_workers(setting: str | int, cores: int | None, gpus: int | None) -> int:
    """Threads that decode photos in a job; no result depends on them.

    One core is left to start and feed jobs that use a GPU.

    Args:
        setting: config, compute.decode_workers: `auto` or their number.
        cores: those that all jobs share (--cores); None if they run elsewhere.
        gpus: jobs that may use a GPU at the same time (--resources gpu=N); None if not stated.
    """
    if setting != AUTO:
        return int(setting)
    if cores is None or not gpus:
        return USUAL
    return max(1, min(MOST, (cores - 1) // gpus))


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
