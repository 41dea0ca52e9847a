"""Right answers on the select splits of targets, for choices under protocol held_out. No torch."""

from collections.abc import Iterator
from dataclasses import replace

from rib.config.run import NO_TARGET, Run
from rib.statistics.counts import Counts, RowArrays, RowFiles, count, read_objects, read_rows_of


def count_on_select_splits(files: RowFiles) -> Counts:
    """Count right answers of runs on the select split (for choices) of their own target.

    The runs of a method on all targets become one state with the target `NO_TARGET`, scored on all
    targets, which are the datasets of the counts.

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
