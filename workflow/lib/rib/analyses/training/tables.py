"""The tables of this analysis."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rib.schema.layout import Layout
from rib.schema.run import RUN_COLUMNS
from rib.statistics.inputs import Inputs

COLUMNS = [*RUN_COLUMNS, "epoch", "lr", "loss", "cross_entropy", "accuracy"]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table training to write: a row per run and epoch."""
    return {"training": training_table(inputs.paths("histories"))}


def training_table(histories: Iterable[Path]) -> pd.DataFrame:
    """How all trainings went: one row per run and epoch, with the accuracy in percent.

    Args:
        histories: CSV files `.../<model>/<target>/<method>/<size>/<seed>/history.csv`, a row per
            epoch: epoch, lr, loss, cross_entropy, accuracy (0 to 1).
    """
    tables_of_runs = []
    for path in histories:
        run_columns = vars(Layout.run_of(path))  # model, target, method, size, seed
        tables_of_runs.append(pd.read_csv(path).assign(**run_columns))
    if not tables_of_runs:
        return pd.DataFrame(columns=COLUMNS)
    epochs = pd.concat(tables_of_runs)[COLUMNS]
    return epochs.assign(accuracy=100 * epochs["accuracy"])
