"""Ratios of the real paths to their limits, each measured in one process, alternating, as medians (`make bench`).

    python benchmarks/bench.py [B1 B2 ...] [--write]

Synthetic images and random weights: speed doesn't depend on either. One torch thread, as jobs have by default.
"""

import argparse
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow/lib"), str(ROOT / "tests")]

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from torch.nn import functional as F

from rib.classes import ClassSpace
from rib.data.prepared import PreparedDataset
from rib.evaluate import _rows, score
from rib.finetune import train
from rib.geometry import Geometry
from rib.io import Progress, read_json, write_json, write_text
from rib.job import processor
from rib.methods import load_mechanism
from rib.methods._base import Images, Task
from rib.models import device as devices
from rib.models.checkpoint import packed
from rib.models.class_logits import class_logits, class_members
from rib.models.fold import fold_batch_norm
from rib.models.inputs import Inputs

ARCHITECTURE, SIDE, CLASSES = "tf_efficientnet_lite0", 96, 200
HALF = [0.5, 0.5, 0.5]
CPU = torch.device("cpu")
TRAINING = {
    "epochs": 1,
    "batch_size": 32,
    "micro_batch_size": "all",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "warmup_steps": 196,
    "warmup_fraction": 0.1,
}
WHAT = {"model": "bench", "method": "bench", "target": "bench"}


@cache
def catalog():
    """The project's catalogue; jobs get what they need of it and don't read it, so what measures one doesn't either."""
    from rib.catalog import Catalog

    return Catalog([ROOT / "workflow/catalog"])


def ratio(real: Callable[[], None], limit: Callable[[], None], rounds: int) -> tuple[float, float, float]:
    """Medians of the seconds of both, run in turn, and of the limit's over the real one's."""
    taken = []
    for _ in range(rounds):
        pair = []
        for work in (real, limit):
            begun = time.perf_counter()
            work()
            pair.append(time.perf_counter() - begun)
        taken.append(pair)
    one, other = (statistics.median(column) for column in zip(*taken, strict=True))
    return one, other, statistics.median(b / a for a, b in taken)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=1000).eval().to(memory_format=torch.channels_last)


def dataset(folder: Path, n: int, side: int = SIDE) -> PreparedDataset:
    """A memory-mapped set of random images."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 255, (n, side, side, 3), np.uint8))
    return labelled(np.load(folder / "images.npy", mmap_mode="r"), n)


def labelled(images: np.ndarray, n: int) -> PreparedDataset:
    """Images as a dataset of CLASSES classes."""
    import pyarrow as pa

    ids = [f"i{number}" for number in range(n)]
    labels = np.arange(n) % CLASSES
    columns = {"row": pa.array(range(n), pa.int32()), "image_id": ids, "label": pa.array(labels, pa.int16())}
    index = pa.table({**columns, "source_id": ids, "object_id": ids})
    keys = tuple(map(str, range(CLASSES)))
    space = ClassSpace(keys, tuple((5 * i,) for i in range(CLASSES)), keys)
    return PreparedDataset("bench", images, labels, None, index, space)


def task(data: PreparedDataset, model: torch.nn.Module) -> Task:
    inputs = Inputs(data.images, HALF, HALF, CPU)
    part = Images(inputs, torch.from_numpy(data.labels), class_members(data.space, CPU))
    return Task(model, part, None, 0, TRAINING["batch_size"])


def in_memory(data: PreparedDataset, size: int) -> list[torch.Tensor]:
    inputs = Inputs(data.images, HALF, HALF, CPU)
    return [inputs[slice(start, start + size)].clone() for start in range(0, len(inputs), size)]


def b1(folder: Path) -> str:
    """fine-tune: real path over the bare loop, images/s"""
    data = dataset(folder, 200)
    batches, members = in_memory(data, 32), class_members(data.space, CPU)
    labels = torch.from_numpy(data.labels).split(32)
    settings = catalog().methods["ft"].settings
    before = network().state_dict()

    def real() -> None:
        mechanism = load_mechanism(catalog().mechanism_file("ft"), settings)
        mechanism.begin(task(data, models.pop()))
        train(mechanism, before, TRAINING, 0, CPU, WHAT)

    def bare() -> None:
        model = models.pop().train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        for images, own in zip(batches, labels, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(class_logits(model(images), members), own).backward()
            optimizer.step()

    models = [network() for _ in range(10)]
    one, other, share = ratio(real, bare, 5)
    return f"{share:.3f} ({200 / one:.0f} of {200 / other:.0f} images/s)"


def b2(folder: Path) -> str:
    """evaluate: real path, rows written, over bare forward passes, images/s"""
    import pyarrow.parquet as pq

    data = dataset(folder, 1000)
    inputs, batches = Inputs(data.images, HALF, HALF, CPU), in_memory(data, 64)
    model = fold_batch_norm(network(), batches[0][:4])
    run = {"model": "m", "target": "t", "method": "ft", "size": "all", "seed": 0}

    def real() -> None:
        progress = Progress(desc="b2", total=len(inputs), unit="image")
        (scores,) = score([model], inputs, data, 64, progress)
        pq.write_table(_rows(data, scores, run, None), folder / "rows.parquet", compression="zstd")

    @torch.inference_mode()
    def bare() -> None:
        for images in batches:
            model(images)

    one, other, share = ratio(real, bare, 7)
    return f"{share:.3f} ({1000 / one:.0f} of {1000 / other:.0f} images/s)"


def b3(folder: Path) -> str:
    """8 checkpoints scored, fp32 and bf16: against building each model, decoding every image again and scoring in fp32"""
    from rib.data.prepare import prepare
    from tiny.photos import tar

    rng = np.random.default_rng(0)
    files = {}
    for number in range(300):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (50, 40, 3), np.uint8)).resize((400, 500)).save(buffer, "JPEG", quality=90)
        files[f"x/{number % CLASSES}/{number}.jpg"] = buffer.getvalue()
    archive = tar(folder / "photos.tar", files)
    geometry = Geometry(SIDE, 1.0, "bicubic")
    for number in range(8):
        state = {name: tensor.contiguous() for name, tensor in network().state_dict().items()}
        safetensors.torch.save_file(state, folder / f"{number}.safetensors")
    keys = tuple(map(str, range(CLASSES)))
    space = ClassSpace(keys, tuple((5 * i,) for i in range(CLASSES)), keys)

    def real() -> None:
        names = {
            "images": "images.npy",
            "index": "index.parquet",
            "classes": "classes.json",
            "manifest": "manifest.json",
        }
        layout = {"layout": str(catalog().layout_file("class_folders")), "storage": "array", "geometry": geometry}
        counts = {"expected": None, "about": None, "corrupt_allowed": 0, "workers": 1}
        arguments = {"source_group": None, "icons": {}, "exclude": []}
        outputs = {key: folder / name for key, name in names.items()}
        prepare(
            archives=[archive],
            digests=[None],
            dataset="b3",
            arguments=arguments,
            space=space,
            **layout,
            **counts,
            **outputs,
        )
        data = PreparedDataset.open(folder, "b3")
        inputs = Inputs(data.images, HALF, HALF, CPU)
        for number in range(8):
            model = network()
            model.load_state_dict(safetensors.torch.load_file(folder / f"{number}.safetensors"))
            model = fold_batch_norm(model, inputs[slice(4)])
            score([model], inputs, data, 64, Progress(desc="b3", total=300, unit="image"))

    class Photos(torch.utils.data.Dataset):
        def __init__(self):
            self.data = list(files.values())
            options = {"input_size": SIDE, "interpolation": "bicubic", "crop_pct": 1.0, "mean": HALF, "std": HALF}
            self.transform = timm.data.create_transform(**options)

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, place: int) -> torch.Tensor:
            return self.transform(Image.open(io.BytesIO(self.data[place])).convert("RGB"))

    @torch.inference_mode()
    def usual() -> None:
        for number in range(8):
            model = timm.create_model(ARCHITECTURE, num_classes=1000).eval()
            model.load_state_dict(safetensors.torch.load_file(folder / f"{number}.safetensors"))
            for images in torch.utils.data.DataLoader(Photos(), batch_size=64):
                model(images).argmax(dim=1)

    one, other, gain = ratio(real, usual, 3)
    devices.start("cpu", 1, "bf16")
    half, _, gain_half = ratio(real, usual, 3)
    devices.start("cpu", 1)
    return f"{gain:.2f} times as fast ({one:.1f} against {other:.1f} s); bf16 {gain_half:.2f} ({half:.1f} s)"


def b4(folder: Path) -> str:
    """linear probing, 10 epochs, at 224 px (the network's own) and 96 px: against training the head through the network"""
    found = [linear_probing(folder, side) for side in (224, SIDE)]
    return "; ".join(f"{gain:.1f} times as fast ({one:.2f} against {other:.2f} s)" for one, other, gain in found)


def linear_probing(folder: Path, side: int) -> tuple[float, float, float]:
    data = dataset(folder, 200, side)
    before = network().state_dict()
    members, inputs = class_members(data.space, CPU), Inputs(data.images, HALF, HALF, CPU)
    labels = torch.from_numpy(data.labels).split(32)

    def real() -> None:
        mechanism = load_mechanism(catalog().mechanism_file("linear_probe"), catalog().methods["linear_probe"].settings)
        mechanism.begin(task(data, network()))
        train(mechanism, before, {**TRAINING, "epochs": 10}, 0, CPU, WHAT)

    def through() -> None:
        model = network()
        model.requires_grad_(False)
        head = model.get_classifier().requires_grad_()
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
        for _ in range(10):
            for start, own in zip(range(0, 200, 32), labels, strict=True):
                optimizer.zero_grad()
                F.cross_entropy(class_logits(model(inputs[slice(start, start + 32)]), members), own).backward()
                optimizer.step()

    return ratio(real, through, 3)


def b5(folder: Path) -> str:
    """checkpoint bytes of all methods: over every state dict, with the optimiser's of what trained"""
    data = dataset(folder, 64)
    before = network().state_dict()
    whole, stored, methods = 0, 0, 0
    for method in catalog().methods.values():
        if "cnn" not in method.types:
            continue
        methods += 1
        whole += size(before.values())
        if method.trains:
            mechanism = load_mechanism(catalog().mechanism_file(method.mechanism), method.settings)
            chosen = task(data, network())
            mechanism.begin(Task(chosen.model, chosen.target, chosen.target, 0, 32))
            changed = train(mechanism, before, TRAINING, 0, CPU, WHAT)[1]
            whole += size(part for _, part in mechanism.trainable())
            stored += size(packed(changed, before).values())
    return f"{stored / whole:.3f} ({stored / 1e6:.0f} of {whole / 1e6:.0f} MB, {methods} methods)"


def size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def b6(folder: Path) -> str:
    """peak memory of its own of prepare and evaluate at 1, 4 and 16 times as many images (of 2000), MB"""
    found = []
    for kind in ("prepare", "evaluate"):
        peaks = []
        for times in (1, 4, 16):
            (folder / f"{kind}{times}").mkdir()
            peaks.append(_peak(kind, 2000 * times, folder / f"{kind}{times}"))
        found.append(f"{kind} {', '.join(f'{peak / 1e6:.0f}' for peak in peaks)} ({peaks[-1] / peaks[0]:.2f})")
    return "; ".join(found)


def _peak(kind: str, n: int, folder: Path) -> int:
    """What it works on is made here, so that the child's memory is that of the work alone."""
    if kind == "prepare":
        from tiny.photos import INDICES, WNIDS, jpeg, tar

        photo = jpeg(2, (64, 48))
        tar(folder / "a.tar", {f"x/{WNIDS[INDICES[i % 4]]}/{i}.jpg": photo for i in range(n)})
    else:
        dataset(folder, n)
    command = [sys.executable, __file__, "--child", kind, str(n), str(folder)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def child(kind: str, n: int, folder: Path) -> None:
    """Do one thing at one size and print the most memory that it had for itself (pages of mapped files aside)."""
    if kind.startswith("first"):
        first_batch(kind, n, folder)
        return
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            status = Path("/proc/self/status").read_text()
            most[0] = max(most[0], 1024 * int(status.partition("RssAnon:")[2].split()[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    if kind == "prepare":
        from tiny.photos import prepare_into

        prepare_into(folder, "class_folders", folder / "a.tar")
    else:
        images = np.load(folder / "images.npy", mmap_mode="r")
        data = labelled(images, n)
        model = timm.create_model("test_efficientnet", num_classes=1000).eval()
        score([model], Inputs(images, HALF, HALF, CPU), data, 64, Progress(desc="b6", total=n, unit="image"))
    ended.set()
    watcher.join()
    print(most[0])


def first_batch(kind: str, n: int, folder: Path) -> None:
    """End with the first batch of images in hand, as a job would have it."""
    model = network()
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
    data = labelled(np.load(folder / "images.npy", mmap_mode="r"), n)
    inputs = Inputs(data.images, HALF, HALF, CPU)
    if kind == "first_finetune":
        mechanism = load_mechanism(**read_json(folder / "mechanism.json"))
        mechanism.begin(task(data, model))
        mechanism.logits = lambda rows: sys.exit(inputs[rows] is None)
        train(mechanism, model.state_dict(), TRAINING, 0, CPU, WHAT)
    else:
        fold_batch_norm(model, inputs[slice(4)])
        score([lambda images: sys.exit(images is None)], inputs, data, 64, Progress(desc="b8", total=n, unit="image"))


def b7(folder: Path) -> str:
    """dry-run of a grid of more than 12,000 jobs: ms per job, and memory"""
    command = ["snakemake", "-n", "--quiet", "rules", "--config", "family=imagenet", "models=all", "seeds=[0,1]"]
    # A process between, since a child's peak begins with its parent's.
    between = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', *sys.argv[1:]], check=True); "
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    begun = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", between, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    taken = time.perf_counter() - begun
    assert run.returncode == 0, run.stdout
    peak = int(run.stdout.split()[-1]) / 1024
    jobs = int(next(line.split()[1] for line in run.stdout.splitlines() if line.startswith("total")))
    return f"{1000 * taken / jobs:.2f} ms per job ({jobs:,} jobs in {taken:.1f} s, {peak:.0f} MB)"


def b8(folder: Path) -> str:
    """time to the first batch of a fine-tuning and an evaluation started by itself: over importing torch and timm"""
    dataset(folder, 32)
    state = {name: tensor.contiguous() for name, tensor in network().state_dict().items()}
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    mechanism = {"path": str(catalog().mechanism_file("ft")), "settings": catalog().methods["ft"].settings}
    write_json(folder / "mechanism.json", mechanism)
    imports = [sys.executable, "-c", "import torch, timm"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    found = []
    for kind in ("finetune", "evaluate"):
        child = [sys.executable, __file__, "--child", f"first_{kind}", "32", str(folder)]
        one, other, share = ratio(
            lambda c=child: subprocess.run(c, **quiet), lambda: subprocess.run(imports, **quiet), 5
        )
        found.append(f"{kind} {1 / share:.2f} ({one:.1f} against {other:.1f} s)")
    return "; ".join(found)


BENCHMARKS = {"B1": b1, "B2": b2, "B3": b3, "B4": b4, "B5": b5, "B6": b6, "B7": b7, "B8": b8}
MARKS = {
    "B1": "at least 0.95",
    "B2": "at least 0.95",
    "B3": "at least 1.6; bf16 3",
    "B4": "at least 10",
    "B5": "at most 0.2",
    "B6": "flat within 10 %",
    "B7": "at most 2 ms",
    "B8": "at most 1.15",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which, all by default")
    parser.add_argument("--write", action="store_true", help="write reports/benchmarks.md, where rows of others stay")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    devices.start("cpu", 1)
    if chosen.child:
        child(chosen.child[0], int(chosen.child[1]), Path(chosen.child[2]))
        return
    rows = {}
    for name in chosen.names or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            found = BENCHMARKS[name](Path(folder))
        load = f"{os.getloadavg()[0]:.1f}"
        rows[name] = f"| {name} | {BENCHMARKS[name].__doc__} | {MARKS[name]} | {found} | {date.today()}, {load} |"
        print(f"{name}  {BENCHMARKS[name].__doc__}: {found}; mark: {MARKS[name]}", flush=True)
    if chosen.write:
        written = (ROOT / "reports/benchmarks.md").read_text(encoding="utf-8").splitlines()
        stay = {line.split(" | ")[0].removeprefix("| "): line for line in written if line.startswith("| B")}
        write_text(ROOT / "reports/benchmarks.md", page({**stay, **rows}))


def page(rows: Mapping[str, str]) -> str:
    """The table as Markdown, with machine, versions and date."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    lines = ["# Benchmarks", "", f"Made by `make bench`: {processor()}, {versions}.", ""]
    lines += ["| | what | mark | measured | when, load of the machine after it |", "|---|---|---|---|---|"]
    lines += [rows[name] for name in BENCHMARKS if name in rows]
    lines.append(
        "| B9 | ViT-B/16 on a GPU, over the bare loop and the loader's ceiling | | not measured: no GPU here | |"
    )
    lines += [
        "",
        "What was decided by these numbers, and why a mark is missed: [benchmarks/README.md](../benchmarks/README.md).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
