"""Images per second of networks: measured in jobs, on a GPU by `make gpu`, or published.

No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.catalog.label_space import read_csv_rows
from rib.grid.grid import Grid
from rib.records import provenance
from rib.schema.fields import is_number, number

# Measurements of `make gpu` (tests/benchmarks/gpu.py), one row per architecture on a card:
GPU_RATES = Path("reports/gpu_rates.csv")
GPU_RATE_COLUMNS = (
    "card",  # such as NVIDIA H100 80GB HBM3
    "architecture",  # of timm or open_clip
    "side",  # of images, in pixels
    "precision",  # bf16 or fp32
    "evaluate",  # images/s in a forward pass
    "train",  # images/s in training steps
    "torch",  # its version
    "date",  # of the measurement: 2026-12-02
)
PUBLISHED = "throughput.csv"  # timm's benchmark, in catalogue folders
PUBLISHED_CARD = "RTX 3090"
PUBLISHED_SIDE = 224  # pixels
PASSES_OF_TRAINING = 3.5  # evaluations in the time of training on an image, from throughput.csv
# Kinds of passes; both files have a column for each.
TRAIN = "train"
EVALUATE = "evaluate"
# Stages whose jobs measure the rates.
MEASURED = {TRAIN: "finetune", EVALUATE: "evaluate"}


@dataclass(frozen=True)
class Rate:
    """Images per second of one device, and a phrase that tells the origin."""

    images: float
    origin: str


Rates = Mapping[str, Mapping[str, Rate]]  # by model and kind of pass; unknown rates are missing


def card_of_rates() -> str | None:
    """The card that `make gpu` measured last; None if it has measured none.

    Raises:
        UserError: The file of rates is damaged.
    """
    return _last_card(_rows_of_gpu_rates())


def throughput(grid: Grid, results: Path) -> Rates:
    """Images per second of each model: measured in jobs, else on a card, else guessed.

    For example {"net": {"train": Rate(100, "stated"), "evaluate": Rate(420, "measured here")}}.

    Args:
        results: folder of the family, such as results/emoji.
    """
    rates = {}
    for name, rates_of_card in throughput_of_card(grid).items():
        known = dict(rates_of_card)
        for kind, stage in MEASURED.items():
            measured_rate = _measured(results, stage, name)
            if measured_rate:
                known[kind] = Rate(measured_rate, "measured here")
        if known.keys() == {EVALUATE}:
            guess = known[EVALUATE].images / PASSES_OF_TRAINING
            known[TRAIN] = Rate(guess, "a guess from evaluation")
        elif known.keys() == {TRAIN}:
            guess = known[TRAIN].images * PASSES_OF_TRAINING
            known[EVALUATE] = Rate(guess, "a guess from training")
        rates[name] = known
    return rates


def throughput_of_card(grid: Grid) -> Rates:
    """Images per second of each model on the card that `make gpu` measured, else as published.

    A rate is scaled by the number of pixels. Models with an unknown architecture have no rates.

    Raises:
        UserError: A file of rates is damaged.
    """
    kinds = (EVALUATE, TRAIN)
    published = grid.catalog.table(PUBLISHED, ("architecture", *kinds), kinds)
    side_and_row = {row["architecture"]: (PUBLISHED_SIDE, row) for row in published}
    origins = dict.fromkeys(side_and_row, "stated")
    rows_of_cards = _rows_of_gpu_rates()
    for row in rows_of_cards:
        if row["card"] == _last_card(rows_of_cards):
            side_and_row[row["architecture"]] = (int(row["side"]), row)
            origins[row["architecture"]] = f"measured on {row['card']}"
    rates: dict[str, dict[str, Rate]] = {}
    for name, model in grid.models.items():
        rates[name] = {}
        if model.architecture in side_and_row:
            side, row = side_and_row[model.architecture]
            scale = (side / grid.geometry(name).size) ** 2
            for kind in MEASURED:
                images_per_second = float(row[kind]) * scale
                rates[name][kind] = Rate(images_per_second, origins[model.architecture])
    return rates


def _last_card(rows: list[dict[str, str]]) -> str | None:
    """The card in the last row, which was measured last: plans are for it."""
    return rows[-1]["card"] if rows else None


def _rows_of_gpu_rates() -> list[dict[str, str]]:
    """Rows of reports/gpu_rates.csv, with GPU_RATE_COLUMNS; none if there is no file.

    Raises:
        UserError: A rate or size is not a number above 0.
    """
    if not GPU_RATES.is_file():
        return []
    rows = []
    for where, row in read_csv_rows(GPU_RATES, GPU_RATE_COLUMNS):
        for column in ("side", EVALUATE, TRAIN):
            value = number(row[column])
            if not is_number(value) or value <= 0:
                raise UserError(
                    f"{where}: {column} is '{row[column]}'; correct it, or delete the file."
                )
        rows.append(row)
    return rows


def _measured(results: Path, stage: str, model: str) -> float | None:
    """Images/s of a model's finished jobs of a stage, such as `finetune`; None without jobs."""
    images = 0
    seconds = 0.0
    for path in results.glob(f"*/{stage}/{model}/**/*provenance.json"):
        manifest = path.with_name(path.name.replace("provenance.json", "manifest.json"))
        record = provenance.read(path) if manifest.is_file() else None
        if record is None:
            continue
        facts = read_json(manifest)
        if stage == MEASURED[TRAIN]:
            images_of_job = facts["images"]
        else:
            scored_images = sum(dataset["n"] for dataset in facts["datasets"].values())
            images_of_job = len(facts["networks"]) * scored_images
        if images_of_job:  # 0 for imported weights
            images += images_of_job
            seconds += record["seconds"]
    return images / seconds if seconds else None
