"""Training histories of all fine-tunings in one table. No torch."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rib.base.files import write_table
from rib.config.run import RUN_COLUMNS, run_of

COLUMNS = [*RUN_COLUMNS, "epoch", "lr", "loss", "cross_entropy", "accuracy"]


def write_training(*, histories: Iterable[str], conditions: str, table: Path) -> None:
    """Write one row per run and epoch, with the accuracy in percent.

    Args:
        histories: CSV files `.../<model>/<target>/<method>/<size>/<seed>/history.csv` (see rib.training.finetune).
        table: the CSV, with eight significant digits, since learning rates are small.
    """
    parts = [pd.DataFrame(columns=COLUMNS)]
    for path in histories:
        history = pd.read_csv(path)
        parts.append(history.assign(**vars(run_of(Path(path))), accuracy=100 * history["accuracy"])[COLUMNS])
    gathered = pd.concat(parts[1:] or parts, ignore_index=True).assign(conditions=conditions)
    write_table(table, gathered, "%.8g")
