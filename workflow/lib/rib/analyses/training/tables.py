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
            rib.training.finetune), a row per epoch: epoch, lr, loss, cross_entropy, accuracy (0 to
            1).
    """
    tables = []
    for path in histories:
        run_columns = vars(run_of(path))  # model, target, method, size, seed
        tables.append(pd.read_csv(path).assign(**run_columns))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    epochs = pd.concat(tables)[COLUMNS]
    return epochs.assign(accuracy=100 * epochs["accuracy"])
