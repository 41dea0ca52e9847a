"""Neutral form of the results of a commit: by run, whatever the paths and formats of the commit.

A folder has a folder for each grid, and a grid:

    rows.parquet    one line for each image that a run has scored; columns in ROWS
    networks/       the tensors of each run's network: <run>.safetensors
    tables.parquet  one line for each cell of each table; columns in CELLS

A run is named model/target/method/size/seed, such as `tiny_cnn/red/wise_ft-alpha0.25/all/0`. If it
is scored at several alphas, as a curve is, each of them is a run with /alpha=0.25 at its end.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import safetensors.torch
from torch import Tensor

# image: identifier in its dataset; answer and prediction: keys of classes, such as `n01440764`;
# confidence: probability of the prediction, 0 to 1.
ROWS = ["run", "dataset", "image", "answer", "prediction", "confidence"]
# line: the identifying cells of a line, such as `model=tiny_cnn,method=ft`; value: text of a cell.
CELLS = ["table", "line", "column", "value"]
# Columns that identify the lines of a table, in this order; the others are results.
IDENTIFYING = [
    "model",
    "other_model",
    "group",
    "other_group",
    "method",
    "other",
    "target",
    "dataset",
    "class",
    "distance",
    "layer",
    "level",
    "statistic",
    "measure",
    "when",
    "size",
    "seed",
    "alpha",
    "epoch",
]


def run_name(
    *, model: str, target: str, method: str, size: str, seed: int, alpha: float | None = None
) -> str:
    """Name of a run, such as net/red/ft/all/0, or net/red/wise_ft_curve/all/0/alpha=0.1."""
    name = f"{model}/{target}/{method}/{size}/{seed}"
    if alpha is None:
        return name
    return f"{name}/alpha={alpha:g}"


def write_rows(folder: Path, rows: pd.DataFrame) -> None:
    """Write the rows of all runs of a grid, in an order of their own."""
    in_order = rows[ROWS].sort_values(["run", "dataset", "image"], kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    in_order.to_parquet(folder / "rows.parquet", index=False)


def read_rows(folder: Path) -> pd.DataFrame:
    """Rows of all runs of a grid, with the columns ROWS."""
    return pd.read_parquet(folder / "rows.parquet")


def write_network(folder: Path, run: str, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors of a run's network, by name."""
    path = folder / f"networks/{run}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, path)


def networks(folder: Path) -> dict[str, Path]:
    """Files of the tensors of each run's network, by run."""
    root = folder / "networks"
    return {
        str(path.relative_to(root).with_suffix("")): path
        for path in sorted(root.rglob("*.safetensors"))
    }


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the cells of the tables of a grid.

    Args:
        tables: by name, such as `mri`; all cells are texts, as they stand in the CSV file.
    """
    cells = [cell for name, table in tables.items() for cell in _cells(name, table)]
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(cells, columns=CELLS).to_parquet(folder / "tables.parquet", index=False)


def read_tables(folder: Path) -> pd.DataFrame:
    """Cells of all tables of a grid, with the columns CELLS."""
    return pd.read_parquet(folder / "tables.parquet")


def _cells(name: str, table: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    lines = list(_line_names(table))
    for column in table.columns:
        if column not in IDENTIFYING:
            for line, value in zip(lines, table[column], strict=True):
                yield name, line, column, value


def _line_names(table: pd.DataFrame) -> Iterator[str]:
    """Names of the lines of a table; a name that is there already gets #2, #3 and so on."""
    identifying = [column for column in IDENTIFYING if column in table.columns]
    seen: dict[str, int] = {}
    for cells in _tuples(table, identifying):
        name = ",".join(f"{column}={cell}" for column, cell in zip(identifying, cells, strict=True))
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def _tuples(table: pd.DataFrame, columns: list[str]) -> Iterable[tuple[str, ...]]:
    return table[columns].itertuples(index=False, name=None)
