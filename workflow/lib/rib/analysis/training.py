"""Training histories of all fine-tunings in one table. No torch."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rib.config.run import RUN_COLUMNS, run_of

COLUMNS = [*RUN_COLUMNS, "epoch", "lr", "loss", "cross_entropy", "accuracy"]


def training_table(*, histories: Iterable[str]) -> pd.DataFrame:
    """One row per run and epoch, with the accuracy in percent.

    `histories` are CSV files `.../<model>/<target>/<method>/<size>/<seed>/history.csv` (see rib.training.finetune).
    """
    parts = [pd.read_csv(path).assign(**vars(run_of(Path(path)))) for path in histories]
    gathered = pd.concat(parts)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)
    return gathered.assign(accuracy=100 * gathered["accuracy"])
