"""Checks and measures a GPU with the project's own training and evaluation (`make gpu`).

    python tests/benchmarks/gpu.py [--device cpu] [--report FILE]

- Each method trains three small networks, while torch raises an error if the host waits for the GPU
  inside a step (torch.cuda.set_sync_debug_mode) or an operator has no deterministic algorithm.
- Each of these trainings is made twice, and must give the same bytes, also if it is stopped and
  resumed. The setup of a method, such as the logits of a teacher and Fisher information, must wait
  for the GPU less often than once for an image.
- Training, evaluation and evaluation of encoded photos with ViT-B/16: images per second, over the
  bare loop and the loader, and the share of the time in which the GPU computes.
- The peak of the GPU's memory against the estimate of `rib plan`, and what CUDA takes of the memory
  of the host.
- Images per second of each architecture of the catalogue, and its logits against those of the CPU.
- Two jobs at once on two GPUs, if there are two.

The last line says what fell short. The report is reports/gpu.md, and rates are in
reports/gpu_rates.csv, which `rib plan` reads; with `--report` they are beside the report. With
`--device cpu` a small network takes the place of ViT-B/16, what needs a GPU is not checked, and the
files are build/gpu_on_cpu.md and build/gpu_rates.csv. Images are synthetic and weights random,
which doesn't affect the speed.
"""

import argparse
import contextlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from timeit import timeit
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "workflow/lib"), str(ROOT / "tests")]

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from bench import prepared_photos, ratio
from gpu_locks import check_two_gpus
from gpu_rates import check_architectures, effort_on, write_rates
from gpu_report import FELL_SHORT, NOT_CHECKED, PASSED, Check, all_of, last_line, page
from synthetic import TRAINING, dataset
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.data.dataset import PreparedDataset
from rib.evaluation.evaluate import ENCODING, _rows
from rib.evaluation.score import score
from rib.grid.grid import resolve_grid
from rib.grid.memory import CUDA_ON_GPU, CUDA_ON_HOST, GIGA, MEGA, NetworkMemory
from rib.methods.base import Task, load_algorithm
from rib.models import device as devices
from rib.models.class_logits import class_logits
from rib.models.device import ComputeSettings
from rib.models.images import Images, slices
from rib.models.network import build
from rib.records.environment import processor
from rib.report.rates import GPU_RATES
from rib.schema.config import config_of
from rib.schema.geometry import Geometry
from rib.training import training_state
from rib.training.loop import train
from tiny.changed import replace
from tiny.models import census
from tiny.models.training import RUN, settings_of

REPORT = ROOT / "reports/gpu.md"
REPORT_ON_CPU = ROOT / "build/gpu_on_cpu.md"
MODEL = "vit_base_patch16_224.augreg_in1k"  # of the catalogue, with the architecture of ON_GPU
LARGEST_POOL = 32  # threads that decode
# Marks: the real path over the bare loop, the share of the time in which the GPU computes, the time
# of an evaluation of encoded photos over that of its slower part, and memory over the estimate.
OVER_BARE_LOOP = 0.95
BUSY = 0.9
OVER_SLOWER_PART = 1.15
LEAST_OF_ESTIMATE = 0.5
# Times that the setup of a method on ten small images may wait for the GPU.
MOST_WAITS_IN_SETUP = 9
UNITS_OF_MEASUREMENT = 12  # of the progress bar, for each of the measurements; a training is one


@dataclass(frozen=True)
class Workload:
    """What is measured, and on how much."""

    architecture: str  # of timm
    side: int  # of images, in pixels
    batch_size: int
    trained: int  # images of an epoch
    evaluated: int  # images
    photos: int  # images that are kept encoded
    rounds: int  # times that each measurement is repeated


ON_GPU = Workload("vit_base_patch16_224", 224, 64, 640, 2048, 3200, rounds=5)
ON_CPU = Workload("test_vit", 160, 4, 8, 16, 24, rounds=1)


# Steps of methods.


@contextlib.contextmanager
def refusing_to_wait() -> Iterator[None]:
    """While this is entered, torch raises an error if the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def counting_waits(waits: list[str]) -> Iterator[None]:
    """While this is entered, add to a list each time that the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits += [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]


def check_method(name: str, network: str, device: torch.device) -> list[Check]:
    """Train a small network four times, the last two after one another from a saved state.

    Do steps or the setup wait for the GPU, and are the bytes the same?
    """
    subject = subject_of(name, network)
    is_gpu = device.type == "cuda"
    waits = Check(f"{subject}, no step waits or raises", NOT_CHECKED)
    states = []
    try:
        with census.each_step_within(refusing_to_wait if is_gpu else contextlib.nullcontext):
            states.append(census.trained(name, network, device))
        if is_gpu:
            waits = replace(waits, verdict=PASSED)
    except Exception as error:  # the report says what failed, and the other checks are made
        waits = replace(waits, verdict=FELL_SHORT, measured=first_line(error))
    same = Check(f"{subject}, the same bytes twice", PASSED)
    try:
        while len(states) < 2:
            states.append(census.trained(name, network, device))
        if not are_same(*states):
            same = replace(same, verdict=FELL_SHORT, measured="they differ")
    except Exception as error:
        same = replace(same, verdict=FELL_SHORT, measured=first_line(error))
    resumed = Check(f"{subject}, the same bytes after resuming", PASSED)
    setup = Check(f"{subject}, setup waits for the GPU", NOT_CHECKED)
    waits_in_setup: list[str] = []
    try:
        counting = partial(counting_waits, waits_in_setup)
        state = trained_in_two_parts(name, network, device, counting if is_gpu else None)
        if not are_same(state, states[0]):
            resumed = replace(resumed, verdict=FELL_SHORT, measured="they differ")
        if is_gpu:
            passed = len(waits_in_setup) <= MOST_WAITS_IN_SETUP
            measured = f"{len(waits_in_setup)} times"
            setup = Check(setup.subject, PASSED if passed else FELL_SHORT, measured=measured)
    except Exception as error:
        resumed = replace(resumed, verdict=FELL_SHORT, measured=first_line(error))
    return [waits, same, resumed, setup]


class StoppedError(Exception):
    """A training was stopped on purpose."""


def trained_in_two_parts(
    name: str,
    network: str,
    device: torch.device,
    setup_within: Callable[[], AbstractContextManager] | None,
) -> Mapping[str, Tensor]:
    """What a training gives that is stopped after its second step, and then resumed.

    Args:
        setup_within: gives a context for the setup of the first part; None for none.
    """
    steps = 0

    @contextlib.contextmanager
    def stopping() -> Iterator[None]:
        nonlocal steps
        if steps == 2:
            raise StoppedError
        steps += 1
        yield

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(training_state, "SAVE_EVERY", 0.0),
    ):
        saved = Path(folder, "state.pt")
        with contextlib.suppress(StoppedError), census.each_step_within(stopping):
            census.trained(name, network, device, setup_within or contextlib.nullcontext, saved)
        if not saved.is_file():
            raise RuntimeError("no state was saved")
        return census.trained(name, network, device, saved=saved)


def subject_of(name: str, network: str) -> str:
    """What a method is called in the report: `ft on a small resnet`."""
    return f"{name} on a small {network}"


def are_same(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two states have the same tensors to the last bit."""
    if state.keys() != other.keys():
        return False
    return all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def first_line(error: Exception) -> str:
    """An error as one line."""
    message = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {message}"


# Speed.


class Subject:
    """A network on the device, with images of which a training or an evaluation is measured.

    Args:
        folder: for prepared datasets.
    """

    def __init__(self, workload: Workload, device: torch.device, folder: Path):
        """Arguments are those of the class."""
        self.workload = workload
        self.device = device
        self.folder = folder
        torch.manual_seed(0)
        network = build("timm", workload.architecture, 1000)
        self.network = network.to(device, memory_format=torch.channels_last)

    def images(self, n: int) -> tuple[PreparedDataset, Images]:
        """A prepared dataset of n random images, and what a method sees of it."""
        folder = self.folder / f"{n}"
        folder.mkdir()
        data = dataset(folder, n, self.workload.side)
        return data, census.on_device(data, self.device)

    def batches(self, images: Images) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of all batches, on the device."""
        size = self.workload.batch_size
        labels = images.labels.split(size)
        inputs = [images[batch].clone() for batch in slices(len(images.labels), size)]
        return list(zip(inputs, labels, strict=True))

    def train(self, images: Images) -> None:
        """Fine-tune the network for an epoch, as a job does."""
        method = census.CATALOG.methods["ft"]
        algorithm_file = census.CATALOG.algorithm_file(method.algorithm)
        algorithm = load_algorithm(algorithm_file, settings_of(method), method.name)
        state = self.network.state_dict().items()
        pretrained = {name: tensor.clone() for name, tensor in state}
        algorithm.setup(Task(self.network.eval(), images, None, seed=0))
        settings = replace(TRAINING, batch_size=self.workload.batch_size)
        train(algorithm, pretrained, settings, RUN, self.device)

    def train_barely(self, batches: Iterable[tuple[Tensor, Tensor]], members: Tensor) -> None:
        """The loop that a training comes down to, on inputs that are on the device."""
        self.network.train()
        optimizer = torch.optim.SGD(
            self.network.parameters(), lr=1e-3, momentum=0.9, fused=self.device.type == "cuda"
        )
        for inputs, labels in batches:
            optimizer.zero_grad()
            with devices.autocast(self.device):
                logits = self.network(inputs)
            F.cross_entropy(class_logits(logits.float(), members), labels).backward()
            optimizer.step()

    def evaluate(self, data: PreparedDataset, images: Images) -> None:
        """Score the network and write its rows, as a job does."""
        progress = Progress(desc="evaluating", total=len(images), unit="image")
        network: nn.Module = self.network.eval()
        (scores,) = score([network], images, data, self.workload.batch_size, progress)
        pq.write_table(_rows(data, scores, RUN, None), self.folder / "rows.parquet", **ENCODING)

    @torch.inference_mode()
    def evaluate_barely(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """The forward passes alone."""
        network = self.network.eval()
        with devices.autocast(self.device):
            for inputs, _ in batches:
                network(inputs)

    def finished(self, work: Callable[[], None]) -> Callable[[], None]:
        """A function that does work and waits until the device has done it, too."""

        def work_and_wait() -> None:
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return work_and_wait


def check_speed(
    subject: Subject, what: str, n: int, real: Callable[[], None], bare: Callable[[], None]
) -> list[Check]:
    """Images per second over those of the bare loop, and how busy the device is meanwhile.

    Args:
        what: `training` or `evaluation`.
        n: images in a call of either function.
    """
    real = subject.finished(real)
    bare = subject.finished(bare)
    real()  # the first call prepares what others have already
    bare()
    seconds, seconds_of_bare, share = ratio(real, bare, subject.workload.rounds)
    speeds = f"{n / seconds:.0f} of {n / seconds_of_bare:.0f} images/s"
    is_gpu = subject.device.type == "cuda"
    over_bare_loop = Check.on_gpu(
        f"{what}, over the bare loop",
        share >= OVER_BARE_LOOP if is_gpu else None,
        f"at least {OVER_BARE_LOOP}",
        f"{share:.3f} ({speeds})",
    )
    return [over_bare_loop, check_busy(subject, what, real)]


def check_busy(subject: Subject, what: str, work: Callable[[], None]) -> Check:
    """The share of the time in which the GPU computes or copies."""
    name = f"{what}, share of the time in which the GPU is busy"
    mark = f"at least {BUSY}"
    if subject.device.type != "cuda":
        return Check(name, NOT_CHECKED, mark)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        seconds = timeit(work, number=1)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == DeviceType.CUDA
    ]
    share = covered(spans) / 1e6 / seconds  # the profiler's times are microseconds
    return Check.on_gpu(name, share >= BUSY, mark, f"{share:.3f}")


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans, each a start and an end."""
    total = 0.0
    covered_until = float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, covered_until))
        covered_until = max(covered_until, end)
    return total


def check_training(subject: Subject) -> list[Check]:
    """Speed of training."""
    n = subject.workload.trained
    _, images = subject.images(n)
    batches = subject.batches(images)
    real = partial(subject.train, images)
    bare = partial(subject.train_barely, batches, images.members)
    return check_speed(subject, "training", n, real, bare)


def check_evaluation(subject: Subject) -> list[Check]:
    """Speed of evaluation of images that are stored decoded."""
    n = subject.workload.evaluated
    data, images = subject.images(n)
    batches = subject.batches(images)
    real = partial(subject.evaluate, data, images)
    bare = partial(subject.evaluate_barely, batches)
    return check_speed(subject, "evaluation", n, real, bare)


def check_photos(subject: Subject) -> list[Check]:
    """Speed of evaluation of photos that are stored encoded, over the slower of its two parts."""
    n = subject.workload.photos
    folder = subject.folder / "photos"
    folder.mkdir()
    prepared_photos(folder, n)
    geometry = Geometry(subject.workload.side, 0.875, "bicubic")
    workers = min(LARGEST_POOL, len(os.sched_getaffinity(0)))
    data = PreparedDataset.open(folder, "photos", geometry, workers)
    encoded_images = census.on_device(data, subject.device)
    batches = slices(n, subject.workload.batch_size)
    pixels = np.concatenate([data.images[batch] for batch in batches])
    decoded = SimpleNamespace(images=pixels, rows=None, labels=data.labels, space=data.space)
    decoded_images = census.on_device(decoded, subject.device)

    def decode() -> None:
        for batch in batches:
            data.images[batch]

    evaluate = subject.finished(partial(subject.evaluate, data, encoded_images))
    compute = subject.finished(partial(subject.evaluate, data, decoded_images))
    evaluate()
    seconds = {work: [] for work in (decode, compute, evaluate)}
    for _ in range(subject.workload.rounds):  # by turns, since the load of the machine changes
        for work, times in seconds.items():
            times.append(timeit(work, number=1))
    decoding, computing, evaluating = (float(np.median(times)) for times in seconds.values())
    share = evaluating / max(decoding, computing)
    is_gpu = subject.device.type == "cuda"
    return [
        Check.on_gpu(
            "evaluation of encoded photos, over the slower of decoding and computing",
            share <= OVER_SLOWER_PART if is_gpu else None,
            f"at most {OVER_SLOWER_PART}",
            f"{share:.2f} ({n / evaluating:.0f} images/s; decoding alone, {workers} threads: "
            f"{n / decoding:.0f}; computing alone: {n / computing:.0f})",
        ),
        check_busy(subject, "evaluation of encoded photos", evaluate),
    ]


# Memory.


def check_memory(subject: Subject) -> list[Check]:
    """Peak memory of training and evaluation against the estimates."""
    size = subject.workload.batch_size
    data, images = subject.images(2 * size)
    works = {
        "training": partial(subject.train, images),
        "evaluation": partial(subject.evaluate, data, images),
    }
    estimates = estimated_bytes(size, subject.device)
    checks = [
        check_peak(subject, what, work, estimates[what] - CUDA_ON_GPU * MEGA)
        for what, work in works.items()
    ]
    return [
        *checks,
        check_memory_of_cuda(subject.device),
        check_memory_of_host(subject.device),
    ]


def estimated_bytes(batch_size: int, device: torch.device) -> dict[str, float]:
    """What `rib plan` says of the memory of a GPU for MODEL, by kind of work."""
    precision = "bf16" if devices._in_bf16(device) else "fp32"
    config = {
        "family": "imagenet",
        "models": [MODEL],
        "methods": ["ft"],
        "recipes": ["paper"],
        "compute": {"precision": precision, "evaluation_batch_size": batch_size},
    }
    memory = NetworkMemory(resolve_grid(config_of(config, "make gpu"), census.CATALOG))
    training = memory.training_on_gpu(MODEL, batch_size, checkpointing=False)
    evaluation = memory.evaluation_on_gpu(MODEL)
    assert training is not None and evaluation is not None  # the catalogue knows the architecture
    return {"training": training, "evaluation": evaluation}


def check_peak(subject: Subject, what: str, work: Callable[[], None], estimate: float) -> Check:
    """The most memory that torch takes for work, against an estimate, both in bytes."""
    name = f"{what}, peak memory over the estimate of {estimate / GIGA:.2f} GB"
    mark = f"{LEAST_OF_ESTIMATE} to 1"
    if subject.device.type != "cuda":
        work()
        return Check(name, NOT_CHECKED, mark)
    subject.network.zero_grad()  # gradients of before don't count
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    subject.finished(work)()
    peak = torch.cuda.max_memory_reserved()
    share = peak / estimate
    passed = LEAST_OF_ESTIMATE <= share <= 1
    return Check.on_gpu(name, passed, mark, f"{share:.2f} ({peak / GIGA:.2f} GB)")


def check_memory_of_cuda(device: torch.device) -> Check:
    """What CUDA takes of the GPU besides torch's tensors, against its part of the estimates."""
    name = "CUDA's own memory, and that of other processes on this GPU"
    mark = f"at most {CUDA_ON_GPU * MEGA / GIGA:.1f} GB"
    if device.type != "cuda":
        return Check(name, NOT_CHECKED, mark)
    free, total = torch.cuda.mem_get_info()
    of_cuda = total - free - torch.cuda.memory_reserved()
    return Check.on_gpu(name, of_cuda <= CUDA_ON_GPU * MEGA, mark, f"{of_cuda / GIGA:.2f} GB")


# What a process takes more of the host's memory once it has computed on a device, in bytes.
MEMORY_OF_HOST = """
import sys
import psutil
import torch

process = psutil.Process()
before = process.memory_info().rss
device = torch.device(sys.argv[1])
images = torch.ones(8, 3, 64, 64, device=device)
layer = torch.nn.Conv2d(3, 8, 3).to(device)
outputs = layer(images).flatten(1)
(outputs @ outputs.T).sum().backward()
if device.type == "cuda":
    torch.cuda.synchronize()
print(process.memory_info().rss - before)
"""


def check_memory_of_host(device: torch.device) -> Check:
    """What CUDA's libraries take of the host, in a process of its own, against their estimate."""
    command = [sys.executable, "-c", MEMORY_OF_HOST, device.type]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken = int(printed)
    return Check.on_gpu(
        "the host's memory after a first computation on the device",
        taken <= CUDA_ON_HOST * MEGA if device.type == "cuda" else None,
        f"at most {CUDA_ON_HOST * MEGA / GIGA:.1f} GB",
        f"{taken / GIGA:.2f} GB",
    )


# The command.


MEASUREMENTS = {
    "training": check_training,
    "evaluation": check_evaluation,
    "evaluation of encoded photos": check_photos,
    "memory": check_memory,
}


def check_methods(device: torch.device, bar: tqdm) -> dict[str, list[Check]]:
    """The checks of all methods on all small networks, by `subject_of`."""
    checks = {}
    for network in census.NETWORKS:
        for name in census.methods_on(network):
            subject = subject_of(name, network)
            bar.set_description(subject, refresh=False)
            checks[subject] = check_method(name, network, device)
            bar.update()
    return checks


def measure(device: torch.device, bar: tqdm) -> list[Check]:
    """All measurements; one that fails is a row that says so."""
    workload = ON_GPU if device.type == "cuda" else ON_CPU
    checks = []
    for what, function in MEASUREMENTS.items():
        bar.set_description(what, refresh=False)
        try:
            with tempfile.TemporaryDirectory() as folder:
                checks += function(Subject(workload, device, Path(folder)))
        except Exception as error:
            checks.append(Check(what, FELL_SHORT, measured=first_line(error)))
        bar.update(UNITS_OF_MEASUREMENT)
    return checks


def facts(device: torch.device) -> str:
    """Device, versions and date, as a sentence."""
    description = f"a CPU ({processor()})"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = f"{properties.total_memory / GIGA:.0f} GB"
        description = f"{properties.name} ({memory}, CUDA {torch.version.cuda}), {processor()}"
    precision = "bf16" if devices._in_bf16(device) else "fp32"
    return (
        f"Made by `make gpu` on {date.today()}: {description}, {len(os.sched_getaffinity(0))} "
        f"cores with a load of {os.getloadavg()[0]:.1f}, {precision}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}."
    )


def started(device: str) -> torch.device:
    """The device on which this process computes from now on; exits if there is none."""
    try:
        return devices.start(ComputeSettings(device=device, threads_per_job=1))
    except UserError as error:
        reason = str(error)
        # Asked only now: with the question, torch would choose a GPU before the project's lock.
        if not torch.cuda.is_available():
            reason = (
                f"{devices.why_cuda_fails()}; without a GPU, `make gpu DEVICE=cpu` tries the "
                "command itself."
            )
        sys.exit(f"make gpu: {reason}")


def main() -> None:
    """Do what the docstring of the module says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--report", type=Path, help="file to write; see above")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip warns of each network without published weights
    two_gpus = check_two_gpus(chosen.device)  # before this process locks a GPU
    device = started(chosen.device)
    trainings = sum(len(census.methods_on(network)) for network in census.NETWORKS)
    architectures = len(effort_on(device).architectures)
    units = trainings + UNITS_OF_MEASUREMENT * (len(MEASUREMENTS) + architectures)
    bar_format = "{desc}{percentage:.0f} % in {elapsed}, {remaining} left"
    with tqdm(total=units, bar_format=bar_format, mininterval=5, delay=1) as bar:
        methods = check_methods(device, bar)
        measurements = measure(device, bar)

        def advance(architecture: str) -> None:
            bar.set_description(architecture, refresh=False)
            bar.update(UNITS_OF_MEASUREMENT)

        checks_of_architectures, rates = check_architectures(device, advance)
    measurements += [*checks_of_architectures, two_gpus]
    report = chosen.report or (REPORT if device.type == "cuda" else REPORT_ON_CPU)
    report.parent.mkdir(parents=True, exist_ok=True)
    is_gpu = device.type == "cuda"
    text = page(is_gpu, facts(device), methods, measurements)
    report.write_text(text, encoding="utf-8")
    rates_file = ROOT / GPU_RATES
    if chosen.report or not is_gpu:
        rates_file = report.with_name(GPU_RATES.name)
    write_rates(rates_file, rates)
    print(f"Written: {report} and {rates_file}")
    print(last_line([*all_of(methods), *measurements]))


if __name__ == "__main__":
    main()
