"""History of a training: one row per epoch."""

import csv
import io
from pathlib import Path

from rib.base.files import write_text

HISTORY = ("epoch", "lr", "loss", "cross_entropy", "accuracy")


def history_row(
    epoch: int, rate: float, loss: float, cross_entropy: float, accuracy: float
) -> dict:
    """The row of an epoch in the history; its keys are HISTORY.

    Args:
        epoch: counted from 0.
        rate: learning rate of its last step.
        loss, cross_entropy, accuracy: means over its images.
    """
    return {
        "epoch": epoch + 1,
        "lr": rate,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "accuracy": accuracy,
    }


def write_history(history: list[dict], path: Path) -> None:
    """Write one row per epoch, all or none.

    The columns are epoch, lr (of the last step), and mean loss, cross-entropy and accuracy.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())
