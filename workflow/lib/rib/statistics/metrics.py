"""Tables of accuracy, RI and mRI of a grid. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import write_json
from rib.data.view import evaluated_datasets
from rib.statistics.counts import RowFiles
from rib.statistics.statistics_settings import GridTableSettings
from rib.statistics.tables import grid_tables, json_by_method
from rib.statistics.writing import write_tables


def write_metrics(
    *,
    rows: Sequence[Path],
    manifests: Sequence[Path],
    indexes: Sequence[Path],
    proxy: Path | None,
    splits: Sequence[Path],
    settings: GridTableSettings,
    outputs: Mapping[str, Path],
) -> None:
    """Compute and write the tables of a grid: accuracy, RI, mRI and others.

    Args:
        rows: files of evaluation rows of all runs.
        manifests: JSON files of the evaluations, with the fit of each run.
        indexes: of the evaluated datasets, .../prepare/<dataset>/<geometry>/index.parquet.
        proxy: folder of the prepared dataset with the pretraining proxy (images that stand for the
            pretraining data), if a dataset excludes it.
        splits: files of the datasets' splits, under protocol held_out; else none.
        outputs: file by name of the table, `counts` (.npz) and `mri_json`.
    """
    datasets = evaluated_datasets(
        indexes=indexes,
        proxy=proxy,
        splits=splits,
        excludes_proxy=settings.excludes_proxy,
        split=settings.split,
    )
    tables = grid_tables(
        files=RowFiles(rows=rows, indexes=indexes, methods=settings.methods),
        manifests=manifests,
        datasets=datasets,
        settings=settings,
        counts_file=outputs["counts"],
    )
    write_json(outputs["mri_json"], json_by_method(tables["mri"]))
    fit = tables["fit"]
    if settings.id_targets:
        # Only RI has runs on these targets; marks of means are of the other runs.
        fits = [table for table in (fit, tables["id_targets_fit"]) if not table.empty]
        ri = {"ri": tables.pop("ri")}
        write_tables(ri, outputs, fit=pd.concat(fits), conditions=settings.conditions)
    write_tables(tables, outputs, fit=fit, conditions=settings.conditions)
