"""How long each stage of a run takes on a machine, and which resource it waits for. No torch.

Besides passes through networks, jobs decode photos, start, and end epochs. The seconds that these
take were measured on one core of an Intel Xeon (docs/how-it-works.md says how), except where it
says estimate. What is read from disks is not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rib.base.rounding import rounded
from rib.jobs.decode_workers import number_of_decode_workers

HOUR = 3600
# Seconds of a core to decode a photo and bring it to 224 pixels: of each one, and of each byte.
# Together 0.9 ms of one of 224 x 224 pixels (13 kB), 3 ms of 500 x 375 (90 kB).
DECODING = 0.0005
DECODING_OF_BYTE = 3e-8
PHOTO = 100_000  # bytes of a photo, where no size is stated: an estimate
# Seconds until a job does its work: of one with a network, started by itself and forked from a
# process that has its libraries; and of one without, likewise.
START_WITH_NETWORK = 4.5
FORK_WITH_NETWORK = 0.6
START = 0.8
FORK = 0.2
READING_OF_BYTE = 2.2e-9  # to build a network and read its weights, by bytes of these
# Seconds at the end of an epoch, in which all weights are checked and copied: of each one, and of
# each byte of the weights on a CPU. A GPU's memory is about a hundred times as fast, an estimate.
EPOCH_END = 0.0015
EPOCH_END_OF_BYTE = 4.6e-10
SPEED_OF_GPU_MEMORY = 100

# Stages, in their order.
PREPARATION = "preparation"
TRAINING = "training"
EVALUATION = "evaluation"
SNAPSHOTS = "snapshots"  # trainings that are repeated, to keep weights in their course
FEATURES = "features"
STAGES = (PREPARATION, TRAINING, EVALUATION, SNAPSHOTS, FEATURES)
STAGES_WITH_NETWORKS = (TRAINING, EVALUATION, SNAPSHOTS, FEATURES)
# Resources that a stage may wait for.
GPUS = "GPU"
CORES = "cores"
STARTS = "job starts"
EPOCH_ENDS = "epochs' ends"
SHOWN_HOURS = 0.01  # fewer are not shown


@dataclass(frozen=True)
class Machine:
    """What the jobs of a run share.

    Attributes:
        cores: of the machine.
        gpus: number of GPUs; without any, networks compute on the cores.
        jobs_per_gpu: that share a GPU.
        threads_per_job: threads in which torch computes in a job.
        decode_workers: threads of a job that decode photos.
        forks_networks: whether jobs with networks are forked from a process that has its libraries.
        forks_others: whether jobs without networks are.
    """

    cores: int
    gpus: int
    jobs_per_gpu: int
    threads_per_job: int
    decode_workers: int
    forks_networks: bool
    forks_others: bool

    @property
    def networks_at_once(self) -> int:
        """Number of jobs with networks that run at the same time."""
        if self.gpus:
            return self.gpus * self.jobs_per_gpu
        return max(1, self.cores // self.threads_per_job)

    @property
    def devices(self) -> int:
        """Number of devices that compute at the same time, at the stated images per second each."""
        return self.gpus if self.gpus else self.networks_at_once

    @property
    def decoding_cores(self) -> int:
        """Cores that decode photos for networks at the same time."""
        return min(self.cores, self.decode_workers * self.networks_at_once)


@dataclass
class Work:
    """What the jobs of a stage do, in hours of one device or one core."""

    of_arrays: float = 0.0  # passes of images that are stored as arrays through networks
    of_photos: float = 0.0  # passes of photos, which are decoded at the same time
    photos: int = 0  # number of photos that are decoded
    decoding: float = 0.0  # their decoding, in hours of a core
    starts: float = 0.0  # starts of jobs, one after the other
    epochs: int = 0  # number of epochs that end
    epoch_ends: float = 0.0


@dataclass
class StageWork:
    """The work of all stages."""

    work: dict[str, Work] = field(default_factory=lambda: {stage: Work() for stage in STAGES})

    def add_decoding(self, stage: str, photos: int, bytes_of_photo: float) -> None:
        """Add photos that jobs of a stage decode, with the mean of their encoded bytes."""
        seconds = photos * (DECODING + DECODING_OF_BYTE * bytes_of_photo)
        self.work[stage].photos += photos
        self.work[stage].decoding += seconds / HOUR

    def add_epoch_ends(
        self, stage: str, epochs: int, bytes_of_weights: int, machine: Machine
    ) -> None:
        """Add ends of epochs of a training of a network, which is in a stage."""
        seconds_of_byte = EPOCH_END_OF_BYTE
        if machine.gpus:
            seconds_of_byte /= SPEED_OF_GPU_MEMORY
        seconds = epochs * (EPOCH_END + seconds_of_byte * bytes_of_weights)
        self.work[stage].epochs += epochs
        self.work[stage].epoch_ends += seconds / HOUR

    def add_starts(
        self, stage: str, jobs: float, bytes_of_weights: float, machine: Machine
    ) -> None:
        """Add the starts of the jobs of a stage.

        Args:
            jobs: their number.
            bytes_of_weights: of a network, on average.
        """
        if stage in STAGES_WITH_NETWORKS:
            seconds = FORK_WITH_NETWORK if machine.forks_networks else START_WITH_NETWORK
            seconds += READING_OF_BYTE * bytes_of_weights
        else:
            seconds = FORK if machine.forks_others else START
        self.work[stage].starts += jobs * seconds / HOUR


def machine_of(
    compute: Mapping[str, Any], cores: int | None, gpus: int | None, expects_gpu: bool
) -> Machine:
    """The machine that a plan is for.

    Args:
        compute: `compute` of config.
        cores: those that all jobs share (--cores); None if they run elsewhere.
        gpus: jobs that may use a GPU at the same time (--resources gpu=N); None if not stated,
            where a family that expects a GPU has one.
        expects_gpu: whether the family does.
    """
    jobs_per_gpu: int = compute["jobs_per_gpu"]
    if compute["device"] == "cpu":
        gpus = 0
    elif gpus is None:
        gpus = jobs_per_gpu if expects_gpu else 0
    workers = number_of_decode_workers(compute["decode_workers"], cores, gpus)
    if cores is None:
        cores = workers * max(1, gpus)
    warm_start: bool = compute["warm_start"]
    return Machine(
        cores=cores,
        gpus=math.ceil(gpus / jobs_per_gpu),
        jobs_per_gpu=jobs_per_gpu,
        threads_per_job=compute["threads_per_job"],
        decode_workers=workers,
        forks_networks=warm_start and gpus == 0,
        forks_others=warm_start,
    )


def hours_by_resource(work: Work, stage: str, machine: Machine) -> dict[str, float]:
    """For how many hours a stage waits for each resource; their sum is how long it takes.

    While a GPU computes, photos are decoded: the slower of both counts. Without GPUs, the cores do
    both, one after the other.
    """
    jobs_at_once = machine.cores
    decoding_cores = machine.cores
    if stage in STAGES_WITH_NETWORKS:
        jobs_at_once = machine.networks_at_once
        decoding_cores = machine.decoding_cores
    hours = {
        GPUS: 0.0,
        CORES: 0.0,
        STARTS: work.starts / jobs_at_once,
        EPOCH_ENDS: work.epoch_ends / jobs_at_once,
    }
    of_arrays = work.of_arrays / machine.devices
    of_photos = work.of_photos / machine.devices
    decoding = work.decoding / decoding_cores
    if not machine.gpus:
        hours[CORES] = of_arrays + of_photos + decoding
    elif decoding > of_photos:
        hours[GPUS] = of_arrays
        hours[CORES] = decoding
    else:
        hours[GPUS] = of_arrays + of_photos
    return hours


def stage_lines(works: Mapping[str, Work], machine: Machine, unknown: list[str]) -> list[str]:
    """Lines of a plan about what each stage waits for.

    Args:
        works: by stage.
        unknown: stages of which it is not known how long images take in networks.
    """
    gpus = "no GPU" if machine.gpus == 0 else _counted(machine.gpus, "GPU")
    text = [
        f"Stages     on {_counted(machine.cores, 'core')} and {gpus} (estimates; another machine: "
        "--cores N --gpus N)"
    ]
    for stage, work in works.items():
        hours = hours_by_resource(work, stage, machine)
        if stage in unknown:
            text.append(f"  {stage}: not known, since images per second on this machine are not")
            continue
        if sum(hours.values()) == 0:
            continue
        binding = max(hours, key=lambda resource: hours[resource])
        shown_resources = [
            f"{resource} {_hours(waiting)}"
            for resource, waiting in hours.items()
            if waiting >= SHOWN_HOURS
        ]
        line = f"  {stage}: {_hours(sum(hours.values()))} hours, bound by {binding}"
        if shown_resources:
            line += f" ({', '.join(shown_resources)})"
        text.append(f"{line}{_notes(work)}")
    return text


def _notes(work: Work) -> str:
    """What a line says about photos and epochs: `; decodes 5,000 photos in 0.1 core hours`."""
    notes = ""
    if work.photos:
        notes += f"; decodes {work.photos:,} photos in {_hours(work.decoding)} core hours"
    if work.epochs:
        notes += f"; {_counted(work.epochs, 'epoch')}"
    return notes


def _counted(number: int, thing: str) -> str:
    """A number of things: `1 core`, `16 cores`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _hours(hours: float) -> str:
    """Hours with one decimal, or with two below 1: `1,252.3`, `0.02`, `below 0.01`."""
    if hours < SHOWN_HOURS:
        return f"below {SHOWN_HOURS}"
    if hours < 1:
        return f"{rounded(hours, 2)}"
    return f"{rounded(hours):,}"
