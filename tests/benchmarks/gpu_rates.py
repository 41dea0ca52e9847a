"""Rates and logits of the catalogue's architectures on a GPU, for `make gpu`.

Rates are images per second in a forward pass and in training, in the precision of the project.
They are written to reports/gpu_rates.csv; `rib plan` estimates hours with them. Logits of random
weights are compared with those of the CPU, both in full precision.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from timeit import timeit

import torch
from gpu_report import FELL_SHORT, Check
from memory import architectures
from torch import Tensor, nn
from torch.nn import functional as F

from rib.models import device as devices
from rib.models.network import build
from rib.report.rates import GPU_RATE_COLUMNS

# Of the difference of logits, over their standard deviation: chosen, not measured.
LARGEST_DIFFERENCE = 1e-3
IMAGES_COMPARED = 4
BATCH_SIZES = (64, 16)  # the second where the first takes too much memory
CLASSES = 1000


@dataclass(frozen=True)
class Effort:
    """How much is measured: architectures as rib.models.network.build takes them, and passes."""

    architectures: Sequence[tuple[str, str, Mapping, int]]  # library, name, arguments, side
    batch_sizes: Sequence[int]
    passes: int


def effort_on(device: torch.device) -> Effort:
    """All of the catalogue on a GPU; on a CPU the smallest network, to try the command."""
    if device.type == "cuda":
        return Effort(list(architectures()), BATCH_SIZES, passes=10)
    return Effort([("timm", "test_vit", {}, 160)], (4,), passes=1)


def name_of_card(device: torch.device) -> str:
    """The GPU's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def check_architectures(
    device: torch.device, advance: Callable[[str], None]
) -> tuple[list[Check], list[dict[str, object]]]:
    """Checks of all architectures, and the rows of those whose rates could be measured.

    Args:
        advance: called with the name of each architecture before it is measured.
    """
    effort = effort_on(device)
    checks = []
    rows = []
    for library, architecture, arguments, side in effort.architectures:
        advance(architecture)
        torch.manual_seed(0)
        try:
            network = build(library, architecture, CLASSES, arguments=arguments)
            checks.append(check_logits(network, architecture, side, device))
            network.to(device, memory_format=torch.channels_last)
            rates = rates_of(network, side, effort, device)
        except Exception as error:  # the report says what failed, and others are measured
            first_line = str(error).partition("\n")[0]
            measured = f"{type(error).__name__}: {first_line}"
            checks.append(Check(f"{architecture}, rates and logits", FELL_SHORT, "", measured))
            continue
        with devices.autocast(device):
            in_bf16 = torch.is_autocast_enabled(device.type)
        rows.append(
            {
                "card": name_of_card(device),
                "architecture": architecture,
                "side": side,
                "precision": "bf16" if in_bf16 else "fp32",
                **{kind: round(rate, 1) for kind, rate in rates.items()},
                "torch": torch.__version__,
                "date": date.today().isoformat(),
            }
        )
    return checks, rows


@torch.inference_mode()
def check_logits(network: nn.Module, architecture: str, side: int, device: torch.device) -> Check:
    """Logits on a device against those on the CPU, in full precision."""
    images = torch.rand(IMAGES_COMPARED, 3, side, side)
    on_cpu = network(images)
    on_device = network.to(device)(images.to(device)).cpu()
    difference = float((on_device - on_cpu).abs().max() / on_cpu.std())
    return Check.on_gpu(
        f"{architecture}, logits against those of the CPU",
        difference <= LARGEST_DIFFERENCE if device.type == "cuda" else None,
        f"at most {LARGEST_DIFFERENCE} of their standard deviation",
        f"{difference:.1e}",
    )


def rates_of(
    network: nn.Module, side: int, effort: Effort, device: torch.device
) -> dict[str, float]:
    """Images per second by kind of pass: {"evaluate": 4100.0, "train": 1210.0}.

    Raises:
        OutOfMemoryError: the GPU is too small for the smallest batch.
    """
    *larger, smallest = effort.batch_sizes
    for batch_size in larger:
        try:
            return _rates_of_batches(network, side, batch_size, effort.passes, device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return _rates_of_batches(network, side, smallest, effort.passes, device)


def _rates_of_batches(
    network: nn.Module, side: int, batch_size: int, passes: int, device: torch.device
) -> dict[str, float]:
    """As `rates_of`, with batches of one size."""
    images = torch.rand(batch_size, 3, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % CLASSES
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1e-4, momentum=0.9, fused=device.type == "cuda"
    )

    @torch.inference_mode()
    def evaluate() -> None:
        with devices.autocast(device):
            network(images)

    def train() -> None:
        optimizer.zero_grad()
        with devices.autocast(device):
            logits: Tensor = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    rates = {}
    for kind, work in {"evaluate": evaluate, "train": train}.items():
        network.train(kind == "train")

        def work_and_wait(work: Callable[[], None] = work) -> None:
            for _ in range(passes):
                work()
            if device.type == "cuda":
                torch.cuda.synchronize()

        work_and_wait()  # the first passes prepare what others have already
        rates[kind] = passes * batch_size / timeit(work_and_wait, number=1)
    return rates


def write_rates(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of a card at the end of a file, in place of those that it had of this card."""
    cards = {row["card"] for row in rows}
    others = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            others = [row for row in csv.DictReader(file) if row["card"] not in cards]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, GPU_RATE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *rows])
