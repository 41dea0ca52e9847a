"""Training histories of all fine-tunings in one table. No torch."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rib.config.run import RUN_COLUMNS, run_of

COLUMNS = [*RUN_COLUMNS, "epoch", "lr", "loss", "cross_entropy", "accuracy"]


def training_table(histories: Iterable[Path]) -> pd.DataFrame:
    """One row per run and epoch, with the accuracy in percent.

    Args:
        histories: CSV files `.../<model>/<target>/<method>/<size>/<seed>/history.csv` (see
            rib.training.finetune).
    """
    tables = []
    for path in histories:
        tables.append(pd.read_csv(path).assign(**vars(run_of(path))))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    epochs = pd.concat(tables)[COLUMNS]
    return epochs.assign(accuracy=100 * epochs["accuracy"])
