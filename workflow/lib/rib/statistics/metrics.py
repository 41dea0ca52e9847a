"""Tables of accuracy, RI and mRI of a grid. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.base.files import write_json
from rib.data.view import DatasetFiles
from rib.statistics.counts import RowFiles
from rib.statistics.settings import GridTableSettings
from rib.statistics.tables import grid_tables, json_by_method
from rib.statistics.writing import write_tables


def write_metrics(
    *,
    files: RowFiles,
    manifests: Sequence[Path],
    datasets: Sequence[DatasetFiles],
    settings: GridTableSettings,
    outputs: Mapping[str, Path],
) -> None:
    """Compute the tables of a grid, and write them.

    Args:
        files: rows of all runs, and the indexes of the datasets.
        manifests: of the rows.
        datasets: evaluated datasets.
        outputs: file of each table by name, `counts` (npz) and `mri_json`.
    """
    tables = grid_tables(
        files=files,
        manifests=manifests,
        datasets=datasets,
        settings=settings,
        counts_file=outputs["counts"],
    )
    write_json(outputs["mri_json"], json_by_method(tables["mri"]))
    write_tables(tables, outputs, fit=tables["fit"], conditions=settings.conditions)
