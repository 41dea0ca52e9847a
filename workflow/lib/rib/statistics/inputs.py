"""Files and parameters of the job that makes the tables of an analysis. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rib.statistics.counts import RowFiles
from rib.statistics.fit import read_table


@dataclass(frozen=True)
class Inputs:
    """Files and parameters that the `describe` function of an analysis asked for.

    Attributes:
        files: a path, or several, by name, such as {"fit": "fit.csv", "rows": ["a.parquet"]}.
        params: JSON values by name.
    """

    files: Mapping[str, str | Sequence[str]]
    params: Mapping[str, Any]

    def path(self, name: str) -> Path:
        """The file of an input with a single file, such as "fit"."""
        file = self.files[name]
        assert isinstance(file, str), f"{name} has several files"
        return Path(file)

    def paths(self, name: str) -> list[Path]:
        """The files of an input with several, such as "rows", in the order of `describe`."""
        return [Path(file) for file in self.files[name]]

    def table(self, name: str) -> pd.DataFrame:
        """The CSV file of an input, read."""
        return read_table(self.path(name))

    def rows(self, methods: Sequence[str]) -> RowFiles:
        """Evaluation rows of these methods: the files of the inputs `rows` and `indexes`."""
        return RowFiles(rows=self.paths("rows"), indexes=self.paths("indexes"), methods=methods)
