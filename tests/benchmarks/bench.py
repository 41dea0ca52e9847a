"""Speed of the pipeline relative to its limits (`make bench`).

Numbers are medians of alternating measurements in one process.

    python tests/benchmarks/bench.py [B1 B2 ...] [--write]

Images are synthetic and weights random, which doesn't affect the speed. There is one torch thread,
the default of jobs. Docstrings of benchmarks are a column of reports/benchmarks.md.
"""

import argparse
import io
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache, partial
from pathlib import Path
from timeit import timeit
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "workflow/lib"), str(ROOT / "tests")]

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from synthetic import SIDE, TRAINING, dataset, in_memory, network
from torch.nn import functional as F

from rib.base.files import read_json, write_json, write_text
from rib.base.progress import Progress
from rib.data.dataset import PreparedDataset
from rib.evaluation.evaluate import ENCODING, _rows
from rib.evaluation.score import score
from rib.methods.base import load_algorithm
from rib.models import device as devices
from rib.models.checkpoint import xor_compress
from rib.models.class_logits import class_logits, class_members
from rib.models.device import ComputeSettings
from rib.models.fuse_batch_norm import fuse_batch_norm
from rib.models.images import Images, slices
from rib.monitoring.watch import Watch
from rib.records.environment import processor
from rib.schema.geometry import Geometry
from rib.training.loop import train
from tiny.changed import replace
from tiny.models.training import CPU, RUN, images_of, images_of_pixels, settings_of, task_of


@cache
def catalog():
    """The project's catalogue.

    It is imported lazily, since jobs don't read it and the child processes measure jobs.
    """
    from rib.catalog.catalog import Catalog

    return Catalog([ROOT / "workflow/catalog"])


def algorithm_of(name: str, model: torch.nn.Module, *data: PreparedDataset):
    """A method's algorithm, set up for training a model on data."""
    method = catalog().methods[name]
    algorithm = load_algorithm(
        catalog().algorithm_file(method.algorithm), settings_of(method), method.name
    )
    algorithm.setup(task_of(model, *data))
    return algorithm


class Comparison(NamedTuple):
    """How long the real path and its limit take: medians over rounds."""

    real: float  # seconds
    limit: float  # seconds
    ratio: float  # of the limit to the real path, in the same round


def seconds_of(work: Callable[[], None]) -> float:
    """Seconds that work takes, once.

    With garbage collection, which timeit switches off and jobs do not.
    """
    return timeit(work, "gc.enable()", number=1)


def ratio(real: Callable[[], None], limit: Callable[[], None], rounds: int) -> Comparison:
    """Compare the real path with its limit; they are run alternately."""
    seconds_real = []
    seconds_limit = []
    ratios = []
    for _ in range(rounds):
        seconds_real.append(seconds_of(real))
        seconds_limit.append(seconds_of(limit))
        ratios.append(seconds_limit[-1] / seconds_real[-1])
    return Comparison(
        real=statistics.median(seconds_real),
        limit=statistics.median(seconds_limit),
        ratio=statistics.median(ratios),
    )


def images_per_second(images: int, speed: Comparison) -> str:
    """Speeds of the real path and of its limit."""
    return f"{images / speed.real:.0f} of {images / speed.limit:.0f} images/s"


def b1(folder: Path) -> str:
    """fine-tune: real path over the bare loop, images/s"""
    images = 200
    batch_size = 32
    rounds = 5
    data = dataset(folder, images)
    batches = in_memory(data, batch_size)
    members = class_members(data.space, CPU)
    labels_of_batches = torch.from_numpy(data.labels).split(batch_size)
    before = network().state_dict()
    models = [network() for _ in range(2 * rounds)]

    def real() -> None:
        train(algorithm_of("ft", models.pop(), data), before, TRAINING, RUN, CPU)

    def bare() -> None:
        model = models.pop().train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        for pixels, labels in zip(batches, labels_of_batches, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(class_logits(model(pixels), members), labels).backward()
            optimizer.step()

    speed = ratio(real, bare, rounds)
    return f"{speed.ratio:.3f} ({images_per_second(images, speed)})"


def b2(folder: Path) -> str:
    """evaluate: real path, rows written, over bare forward passes, images/s"""
    import pyarrow.parquet as pq

    images = 1000
    batch_size = 64
    data = dataset(folder, images)
    inputs = images_of(data)
    batches = in_memory(data, batch_size)
    first_batch, *_ = batches
    model = fuse_batch_norm(network(), first_batch[:4])

    def real() -> None:
        progress = Progress(desc="b2", total=len(inputs), unit="image")
        (scores,) = score([model], inputs, data, batch_size, progress)
        pq.write_table(_rows(data, scores, RUN, None), folder / "rows.parquet", **ENCODING)

    @torch.inference_mode()
    def bare() -> None:
        for pixels in batches:
            model(pixels)

    speed = ratio(real, bare, 7)
    return f"{speed.ratio:.3f} ({images_per_second(images, speed)})"


def prepared_photos(folder: Path, n: int = 400) -> dict[str, bytes]:
    """Prepare n photos of 400 x 500 px, kept encoded, in a folder; their bytes by name."""
    from tiny.data.photos import INDICES, WNIDS, prepare_into, tar

    rng = np.random.default_rng(0)
    photos = {}
    for number in range(n):
        noise = rng.integers(0, 255, (50, 40, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((400, 500)).save(buffer, "JPEG", quality=90)
        wnid = WNIDS[INDICES[number % len(INDICES)]]
        photos[f"x/{wnid}/{number}.jpg"] = buffer.getvalue()
    prepare_into(folder, "class_folders", tar(folder / "photos.tar", photos), storage="encoded")
    return photos


def b3(folder: Path) -> str:
    """photos kept encoded, decoded by one and two workers of a job:
    over a bare loop of Pillow, images/s"""
    photos = prepared_photos(folder)
    geometry = Geometry(224, 0.875, "bicubic")

    def bare() -> None:
        for data in photos.values():
            photo = Image.open(io.BytesIO(data)).convert("RGB")
            resized = photo.resize((256, 320), Image.Resampling.BICUBIC)
            np.asarray(resized.crop((16, 48, 240, 272)))

    def decode_all(images) -> None:
        for start in range(0, len(photos), 64):
            images[np.arange(start, min(start + 64, len(photos)))]

    by_workers = []
    for workers in (1, 2):
        images = PreparedDataset.open(folder, "b3", geometry, workers).images
        speed = ratio(partial(decode_all, images), bare, 3)
        by_workers.append(
            f"{workers} worker(s) {speed.ratio:.2f} ({images_per_second(len(photos), speed)})"
        )
    return "; ".join(by_workers)


def b4(folder: Path) -> str:
    """linear probing, 10 epochs, at 224 px (the network's own) and 96 px:
    against training the head through the network"""
    by_side = []
    for side in (224, SIDE):
        speed = linear_probing(folder, side)
        by_side.append(
            f"{speed.ratio:.1f} times as fast ({speed.real:.2f} against {speed.limit:.2f} s)"
        )
    return "; ".join(by_side)


def linear_probing(folder: Path, side: int) -> Comparison:
    """Linear probing at an image size, in pixels, against training the head through the network."""
    images = 200
    batch_size = 32
    epochs = 10
    data = dataset(folder, images, side)
    before = network().state_dict()
    members = class_members(data.space, CPU)
    inputs = images_of(data)
    batches = [slice(start, start + batch_size) for start in range(0, images, batch_size)]
    labels_of_batches = torch.from_numpy(data.labels).split(batch_size)

    def real() -> None:
        algorithm = algorithm_of("linear_probe", network(), data)
        train(algorithm, before, replace(TRAINING, epochs=epochs), RUN, CPU)

    def through() -> None:
        model = network().requires_grad_(False)
        head = model.get_classifier().requires_grad_()
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
        for _ in range(epochs):
            for batch, labels in zip(batches, labels_of_batches, strict=True):
                optimizer.zero_grad()
                logits = class_logits(model(inputs[batch]), members)
                F.cross_entropy(logits, labels).backward()
                optimizer.step()

    return ratio(real, through, 3)


def b5(folder: Path) -> str:
    """checkpoint bytes of all methods:
    over every state dict, with the optimiser's of what trained"""
    data = dataset(folder, 64)
    before = network().state_dict()
    methods = []
    for method in catalog().methods.values():
        if "cnn" in method.types and method.text != "required":
            methods.append(method)
    all_bytes = len(methods) * bytes_of(before)
    stored_bytes = 0
    for method in methods:
        if method.trains:
            algorithm = algorithm_of(method.name, network(), data, data)
            _, changed, _ = train(algorithm, before, TRAINING, RUN, CPU)
            all_bytes += bytes_of(dict(algorithm.trainable()))
            stored_bytes += bytes_of(xor_compress(changed, before))
    megabytes = f"{stored_bytes / 1e6:.0f} of {all_bytes / 1e6:.0f} MB"
    return f"{stored_bytes / all_bytes:.3f} ({megabytes}, {len(methods)} methods)"


def bytes_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.nbytes for tensor in tensors.values())


def b6(folder: Path) -> str:
    """peak memory of its own of prepare and evaluate
    at 1, 4 and 16 times as many images (of 2000), MB"""
    by_stage = []
    for kind in ("prepare", "evaluate"):
        peaks = [_peak(kind, 2000 * times, folder / f"{kind}{times}") for times in (1, 4, 16)]
        peak_of_fewest, *_, peak_of_most = peaks
        megabytes = ", ".join(f"{peak / 1e6:.0f}" for peak in peaks)
        by_stage.append(f"{kind} {megabytes} ({peak_of_most / peak_of_fewest:.2f})")
    return "; ".join(by_stage)


def _peak(kind: str, n: int, folder: Path) -> int:
    """Peak memory of a child process in bytes.

    Its input is created here, so that only the work itself is measured.

    Args:
        kind: what it does, as in `child`.
        n: number of images.
        folder: of its input.
    """
    folder.mkdir(exist_ok=True)
    if kind == "tables":
        from large_grid import write_rows

        write_rows(folder)
    elif kind == "prepare":
        from tiny.data.photos import INDICES, WNIDS, jpeg, tar

        photo = jpeg(2, (64, 48))
        photos = {}
        for number in range(n):
            wnid = WNIDS[INDICES[number % len(INDICES)]]
            photos[f"x/{wnid}/{number}.jpg"] = photo
        tar(folder / "a.tar", photos)
    else:
        dataset(folder, n)
    command = [sys.executable, __file__, "--child", kind, str(n), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, peak = done.stdout.split()
    return int(peak)


def anonymous_memory() -> int:
    """Anonymous memory of this process in bytes; pages of mapped files don't count."""
    status = Path("/proc/self/status").read_text()
    _, _, from_number_on = status.partition("RssAnon:")
    kibibytes, *_ = from_number_on.split()
    return 1024 * int(kibibytes)


def child(kind: str, n: int, folder: Path) -> None:
    """Run one task at one size and print its peak anonymous memory in bytes.

    Args:
        kind: tables, prepare or evaluate; first_finetune and first_evaluate end at their first
            batch and print nothing.
        n: number of images.
        folder: of its input.
    """
    if kind.startswith("first"):
        first_batch(kind, n, folder)
        return
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    if kind == "tables":
        from large_grid import write_tables

        write_tables(folder)
    elif kind == "prepare":
        from tiny.data.photos import prepare_into

        prepare_into(folder, "class_folders", folder / "a.tar")
    else:
        data = PreparedDataset.open(folder / str(SIDE), "bench")
        model = timm.create_model("test_efficientnet", num_classes=1000).eval()
        inputs = images_of(data)
        score([model], inputs, data, 64, Progress(desc="b6", total=n, unit="image"))
    ended.set()
    watcher.join()
    print(peak)


def first_batch(kind: str, n: int, folder: Path) -> None:
    """Exit when the first batch of images is loaded, as in a job.

    Args:
        kind: first_finetune or first_evaluate.
        n: number of images.
        folder: of data, weights and the algorithm.
    """
    model = network()
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
    data = PreparedDataset.open(folder / str(SIDE), "bench")
    inputs = images_of(data)
    if kind == "first_finetune":
        algorithm = load_algorithm(**read_json(folder / "algorithm.json"))
        algorithm.setup(task_of(model, data))
        algorithm.logits = lambda rows: sys.exit(inputs[rows] is None)
        train(algorithm, model.state_dict(), TRAINING, RUN, CPU)
    else:
        fuse_batch_norm(model, inputs[slice(4)])
        progress = Progress(desc="b8", total=n, unit="image")
        score([lambda images: sys.exit(images is None)], inputs, data, 64, progress)


# An intermediate process, since a child's peak memory starts at its parent's.
RUN_AND_PRINT_PEAK = """
import resource, subprocess, sys

subprocess.run([sys.executable, "-m", *sys.argv[1:]], check=True)
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def b7(folder: Path) -> str:
    """dry-run of a grid of more than 12,000 jobs: ms per job, and memory"""
    command = [
        "snakemake",
        "-n",
        "--quiet",
        "rules",
        "--config",
        "family=imagenet",
        "models=all",
        "seeds=[0,1]",
    ]
    begun = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", RUN_AND_PRINT_PEAK, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    taken = time.perf_counter() - begun
    assert run.returncode == 0, run.stdout
    *_, kibibytes = run.stdout.split()
    peak = int(kibibytes) / 1024
    jobs = int(re.search(r"^total +(\d+)", run.stdout, re.MULTILINE)[1])
    return f"{1000 * taken / jobs:.2f} ms per job ({jobs:,} jobs in {taken:.1f} s, {peak:.0f} MB)"


def b8(folder: Path) -> str:
    """time to the first batch of a fine-tuning and an evaluation started by itself:
    over importing torch and timm"""
    dataset(folder, 32)
    safetensors.torch.save_model(network(), folder / "weights.safetensors")
    algorithm = {
        "path": str(catalog().algorithm_file("ft")),
        "settings": settings_of(catalog().methods["ft"]),
        "method": "ft",
    }
    write_json(folder / "algorithm.json", algorithm)
    imports = [sys.executable, "-c", "import torch, timm"]
    start = partial(
        subprocess.run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    by_stage = []
    for kind in ("finetune", "evaluate"):
        command = [sys.executable, __file__, "--child", f"first_{kind}", "32", str(folder)]
        times = ratio(partial(start, command), partial(start, imports), 5)
        by_stage.append(
            f"{kind} {1 / times.ratio:.2f} ({times.real:.1f} against {times.limit:.1f} s)"
        )
    return "; ".join(by_stage)


def b10(folder: Path) -> str:
    """metrics, and comparisons of methods, models and images,
    of 4,046 runs on 8 datasets of 1000 images"""
    peak = _peak("tables", 0, folder)
    return f"{(folder / 'seconds').read_text()} s, {peak / 1e9:.1f} GB"


def b11(folder: Path) -> str:
    """what is shown of a training
    (norms of gradients, history and event file of an epoch of 200 images): over its steps"""
    images = 200
    training = replace(TRAINING, epochs=4)
    data = dataset(folder, images)
    model = network()
    algorithm = algorithm_of("ft", model, data)
    watch = Watch(
        model_folder=folder,
        view=None,
        log_file=str(folder / "job.log"),
        history=folder / "history.csv",
    )
    seconds_of_calls = []

    def timed(*progress) -> None:
        seconds_of_calls.append(timeit(lambda: watch(*progress), number=1))

    def train_and_watch() -> None:
        train(algorithm, model.state_dict(), training, RUN, CPU, watch=timed)

    seconds_of_training = timeit(train_and_watch, number=1)

    assert not watch.warned
    # The first call of a process imports TensorBoard's records.
    _, *seconds_of_epochs = seconds_of_calls
    assert len(seconds_of_epochs) == training.epochs
    seconds_of_epoch = statistics.median(seconds_of_epochs)

    # Tensors of the gradients' sizes; some parameters have no gradient.
    gradients = []
    for parameter in model.parameters():
        gradients.append(parameter if parameter.grad is None else parameter.grad)
    seconds_of_norm = timeit(lambda: torch.nn.utils.get_total_norm(gradients), number=50) / 50
    steps = training.epochs * len(slices(images, training.batch_size))

    seconds_of_watching = steps * seconds_of_norm + training.epochs * seconds_of_epoch
    of_step = f"{1000 * seconds_of_norm:.2f} ms a step"
    of_epoch = f"{1000 * seconds_of_epoch:.1f} ms an epoch"
    return f"{seconds_of_watching / seconds_of_training:.4f} ({of_step}, {of_epoch})"


def b12(folder: Path) -> str:
    """evaluation of photos kept encoded, by a forward pass of hundreds of small operators that
    takes as long as a batch is decoded: over the larger of decoding alone and evaluating decoded
    images"""
    prepared_photos(folder)
    batch_size = 16
    geometry = Geometry(224, 0.875, "bicubic")
    dataset = PreparedDataset.open(folder, "b12", geometry, decode_workers=1)
    encoded_inputs = images_of(dataset)
    batches = slices(len(encoded_inputs), batch_size)

    def decode_all() -> None:
        for batch in batches:
            dataset.images[batch]

    decode_all()  # so that the file is in memory
    seconds_of_pass = timeit(decode_all, number=1) / len(batches)
    decoded_inputs = images_of_pixels(dataset.images[:])

    matrix = torch.rand(128, 128)
    seconds_of_operator = timeit(lambda: matrix @ matrix, number=1000) / 1000
    number_of_operators = round(seconds_of_pass / seconds_of_operator)

    def computing_in_steps(pixels: torch.Tensor) -> torch.Tensor:
        # Each operator gives the interpreter's lock back and takes it again, from threads that
        # decode, as those do that a network starts on a GPU.
        for _ in range(number_of_operators):
            matrix @ matrix
        return torch.zeros(len(pixels), 1000)

    def evaluate(inputs: Images) -> None:
        progress = Progress(desc="b12", total=len(inputs), unit="image")
        score([computing_in_steps], inputs, dataset, batch_size, progress)

    seconds_decoding = []
    seconds_computing = []
    seconds_together = []
    for _ in range(3):  # by turns, since the load of the machine changes
        seconds_decoding.append(timeit(decode_all, number=1))
        seconds_computing.append(timeit(lambda: evaluate(decoded_inputs), number=1))
        seconds_together.append(timeit(lambda: evaluate(encoded_inputs), number=1))
    decoding = statistics.median(seconds_decoding)
    computing = statistics.median(seconds_computing)
    together = statistics.median(seconds_together)
    return (
        f"{together / max(decoding, computing):.2f} ({together:.1f} s for {decoding:.1f} s of "
        f"decoding and {computing:.1f} s of computing, {number_of_operators} operators a batch)"
    )


# Each with its mark.
BENCHMARKS = {
    "B1": (b1, "at least 0.95"),
    "B2": (b2, "at least 0.95"),
    "B3": (b3, "at least 0.9; two workers 1.6"),
    "B4": (b4, "at least 10"),
    "B5": (b5, "at most 0.2"),
    "B6": (b6, "flat within 10 %"),
    "B7": (b7, "at most 3.0 ms, and 2 s"),
    "B8": (b8, "at most 1.15"),
    "B10": (b10, "at most 180 s and 4 GB"),
    "B11": (b11, "at most 0.01"),
    "B12": (b12, "at most 1.15"),
}


def main() -> None:
    """Run the benchmarks that are named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="benchmarks to run, all by default")
    parser.add_argument(
        "--write", action="store_true", help="update these rows of reports/benchmarks.md"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    devices.start(ComputeSettings(device="cpu", threads_per_job=1))
    if chosen.child:
        kind, images, folder = chosen.child
        child(kind, int(images), Path(folder))
        return
    rows = {}
    for name in chosen.names or BENCHMARKS:
        measure, mark = BENCHMARKS[name]
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(Path(folder))
        load_of_a_minute, _, _ = os.getloadavg()
        when = f"{date.today()}, {load_of_a_minute:.1f}"
        subject = " ".join(measure.__doc__.split())
        rows[name] = f"| {name} | {subject} | {mark} | {measured} | {when} |"
        print(f"{name}  {subject}: {measured}; mark: {mark}", flush=True)
    if chosen.write:
        path = ROOT / "reports/benchmarks.md"
        rows_before = rows_of_page(path.read_text(encoding="utf-8"))
        write_text(path, page({**rows_before, **rows}))


def rows_of_page(text: str) -> dict[str, str]:
    """Rows of the table that `page` wrote, by the name of the benchmark."""
    rows = {}
    for line in text.splitlines():
        if line.startswith("| B"):
            name, *_ = line.removeprefix("| ").split(" | ")
            rows[name] = line
    return rows


def page(rows: Mapping[str, str]) -> str:
    """The table as Markdown, with machine, versions and date."""
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    )
    measured = "\n".join(rows[name] for name in BENCHMARKS if name in rows)
    return f"""# Benchmarks

Made by `make bench`: {processor()}, {versions}.

| | what | mark | measured | when, load of the machine after it |
|---|---|---|---|---|
{measured}
| B9 | ViT-B/16 on a GPU, over the bare loop and the loader's ceiling | \
| not measured here; `make gpu` does | |

What was decided by these numbers, and why a mark is missed: \
[tests/benchmarks/README.md](../tests/benchmarks/README.md).
"""


if __name__ == "__main__":
    main()
