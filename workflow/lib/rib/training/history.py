"""History of a training: one row per epoch."""

import csv
import io
from pathlib import Path

from rib.base.files import write_text

HISTORY = ("epoch", "lr", "loss", "cross_entropy", "accuracy")


def history_row(
    epoch: int, rate: float, loss: float, cross_entropy: float, accuracy: float
) -> dict:
    """Row of an epoch in history.csv, such as {"epoch": 1, "lr": 0.01, "loss": 0.9, ...}.

    Loss, cross-entropy and accuracy (0 to 1) are means over the epoch's images.

    Args:
        epoch: counted from 0; in the file from 1.
        rate: learning rate of the epoch's last step.
    """
    return {
        "epoch": epoch + 1,
        "lr": rate,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "accuracy": accuracy,
    }


def write_history(history: list[dict], path: Path) -> None:
    """Write a CSV file with the rows of `history_row`, all or none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())
