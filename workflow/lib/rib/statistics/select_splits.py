"""Right answers on the select splits of targets, for choices under protocol held_out. No torch."""

from collections.abc import Iterator
from dataclasses import replace

from rib.schema.run import NO_TARGET, Run
from rib.statistics.counts import Counts, RowArrays, RowFiles, count, read_objects, read_rows_of


def count_on_select_splits(files: RowFiles) -> Counts:
    """Count right answers on held-out images of the target (its select split).

    A user who must choose a setting has only such images. Each run was scored on its own target,
    but `Counts` needs runs that were scored on the same datasets. So the runs of a method on all
    targets count as one run without a target: ft on "noto" and ft on "twemoji" become ft, with
    "noto" and "twemoji" as its datasets.

    Args:
        files: rows of the select splits, and indexes of the targets.

    Raises:
        UserError: two runs were scored on different images of a target.
    """
    return count(_as_one_target(files), read_objects(files.indexes))


def _as_one_target(files: RowFiles) -> Iterator[tuple[Run, RowArrays]]:
    """Replaces each target by `NO_TARGET`: counts need all runs scored on the same datasets."""
    for run, rows_of_run in read_rows_of(files):
        yield replace(run, target=NO_TARGET), rows_of_run
