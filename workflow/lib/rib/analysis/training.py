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
    parts = [pd.read_csv(path).assign(**vars(run_of(Path(path)))) for path in histories]
    gathered = pd.concat(parts)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)
    write_table(table, gathered.assign(accuracy=100 * gathered["accuracy"], conditions=conditions), "%.8g")
