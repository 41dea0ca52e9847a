"""What differs between the neutral forms of two commits, and what of it is explained."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from same_results import form

MOVED = "moved"
GONE = "gone"
NEW = "new"


@dataclass(frozen=True)
class Difference:
    """Something that two commits do not have alike.

    Attributes:
        kind: moved (in both, with other content), gone (only before) or new (only after).
        name: such as emoji/tables/mri/ci_low, tiny/rows/tiny_cnn/red/ft/all/0/green or
            tiny/networks/tiny_cnn/red/ft/all/0.
        extent: how much differs, in words.
    """

    kind: str
    name: str
    extent: str

    def __str__(self) -> str:
        return f"{self.kind:5}  {self.name}: {self.extent}"


@dataclass(frozen=True)
class Explanation:
    """A line of dropped.txt: the issue that moves or takes away what has such names.

    Attributes:
        kind: moved or gone.
        pattern: of names, such as `fashion/*` or `*/tables/splits/*`.
    """

    issue: str
    kind: str
    pattern: str

    def explains(self, difference: Difference) -> bool:
        """Whether the difference is of this kind and has such a name."""
        return self.kind == difference.kind and fnmatchcase(difference.name, self.pattern)


def read_explanations(text: str) -> list[Explanation]:
    """Explanations of a file with lines such as `26 gone */tables/splits/*`; # begins a comment.

    Raises:
        ValueError: a line has another form.
    """
    explanations = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or words[1] not in (MOVED, GONE):
            raise ValueError(
                f"tests/dropped.txt: {line!r} has another form than '26 gone */tables/splits/*'; "
                "write the issue, moved or gone, and a pattern of names."
            )
        explanations.append(Explanation(*words))
    return explanations


def unexplained(
    differences: Iterable[Difference], explanations: Iterable[Explanation]
) -> list[Difference]:
    """Differences that need an explanation and have none. New things need none."""
    known = list(explanations)
    return [
        difference
        for difference in differences
        if difference.kind != NEW
        and not any(explanation.explains(difference) for explanation in known)
    ]


def differences(before: Path, after: Path) -> Iterator[Difference]:
    """All differences between two folders in neutral form, grid by grid."""
    grids_before = _grids(before)
    grids_after = _grids(after)
    for grid in sorted(grids_before | grids_after):
        if grid not in grids_after:
            yield Difference(GONE, grid, "the whole grid")
        elif grid not in grids_before:
            yield Difference(NEW, grid, "the whole grid")
        else:
            yield from _differences_of_rows(grid, before / grid, after / grid)
            yield from _differences_of_networks(grid, before / grid, after / grid)
            yield from _differences_of_tables(grid, before / grid, after / grid)


def _grids(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def _differences_of_rows(grid: str, before: Path, after: Path) -> Iterator[Difference]:
    key = ["run", "dataset"]
    groups_before = dict(list(form.read_rows(before).groupby(key, sort=True)))
    groups_after = dict(list(form.read_rows(after).groupby(key, sort=True)))
    for run, dataset in sorted(groups_before.keys() | groups_after.keys()):
        name = f"{grid}/rows/{run}/{dataset}"
        rows_before = groups_before.get((run, dataset))
        rows_after = groups_after.get((run, dataset))
        if rows_after is None:
            yield Difference(GONE, name, f"{len(rows_before)} images")
        elif rows_before is None:
            yield Difference(NEW, name, f"{len(rows_after)} images")
        else:
            yield from _differences_of_images(name, rows_before, rows_after)


def _differences_of_images(
    name: str, before: pd.DataFrame, after: pd.DataFrame
) -> Iterator[Difference]:
    pairs = before.merge(
        after, on="image", how="outer", suffixes=("_before", "_after"), indicator=True
    )
    only_before = int((pairs["_merge"] == "left_only").sum())
    only_after = int((pairs["_merge"] == "right_only").sum())
    if only_before:
        yield Difference(GONE, name, f"{only_before} of {len(before)} images")
    if only_after:
        yield Difference(NEW, name, f"{only_after} of {len(after)} images")

    common = pairs[pairs["_merge"] == "both"]
    answers = int((common["answer_before"] != common["answer_after"]).sum())
    predictions = int((common["prediction_before"] != common["prediction_after"]).sum())
    confidence_before = common["confidence_before"].to_numpy(float)
    confidence_after = common["confidence_after"].to_numpy(float)
    same = (confidence_before == confidence_after) | (
        np.isnan(confidence_before) & np.isnan(confidence_after)
    )
    if answers or predictions or not same.all():
        largest = _largest(np.abs(confidence_before - confidence_after)[~same])
        yield Difference(
            MOVED,
            name,
            f"of {len(common)} images {answers} have another answer, {predictions} another "
            f"prediction, {int((~same).sum())} another confidence (by at most {largest:.3g})",
        )


def _differences_of_networks(grid: str, before: Path, after: Path) -> Iterator[Difference]:
    files_before = form.networks(before)
    files_after = form.networks(after)
    for run in sorted(files_before.keys() | files_after.keys()):
        name = f"{grid}/networks/{run}"
        if run not in files_after:
            yield Difference(GONE, name, "the network")
        elif run not in files_before:
            yield Difference(NEW, name, "the network")
        else:
            yield from _differences_of_tensors(name, files_before[run], files_after[run])


def _differences_of_tensors(name: str, before: Path, after: Path) -> Iterator[Difference]:
    tensors_before = safetensors.torch.load_file(before)
    tensors_after = safetensors.torch.load_file(after)
    common = sorted(tensors_before.keys() & tensors_after.keys())
    only_before = sorted(tensors_before.keys() - tensors_after.keys())
    only_after = sorted(tensors_after.keys() - tensors_before.keys())
    if only_before:
        yield Difference(GONE, name, f"{len(only_before)} tensors, such as {only_before[0]}")
    if only_after:
        yield Difference(NEW, name, f"{len(only_after)} tensors, such as {only_after[0]}")

    changes = []
    for tensor in common:
        if not _equal(tensors_before[tensor], tensors_after[tensor]):
            changes.append(_distance(tensors_before[tensor], tensors_after[tensor]))
    if changes:
        yield Difference(
            MOVED,
            name,
            f"{len(changes)} of {len(common)} tensors, by at most {max(changes):.3g}",
        )


def _equal(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether type, shape and numbers are the same, with NaN equal to NaN."""
    if before.dtype != after.dtype or before.shape != after.shape:
        return False
    return bool(torch.all((before == after) | (before.isnan() & after.isnan())))


def _distance(before: torch.Tensor, after: torch.Tensor) -> float:
    if before.shape != after.shape:
        return math.inf
    return float((before.double() - after.double()).abs().nan_to_num(math.inf).max())


def _differences_of_tables(grid: str, before: Path, after: Path) -> Iterator[Difference]:
    key = ["table", "column"]
    columns_before = dict(list(form.read_tables(before).groupby(key, sort=True)))
    columns_after = dict(list(form.read_tables(after).groupby(key, sort=True)))
    for table, column in sorted(columns_before.keys() | columns_after.keys()):
        name = f"{grid}/tables/{table}/{column}"
        cells_before = columns_before.get((table, column))
        cells_after = columns_after.get((table, column))
        if cells_after is None:
            yield Difference(GONE, name, f"{len(cells_before)} values")
        elif cells_before is None:
            yield Difference(NEW, name, f"{len(cells_after)} values")
        else:
            yield from _differences_of_cells(name, _values(cells_before), _values(cells_after))


def _values(cells: pd.DataFrame) -> dict[str, str]:
    return dict(zip(cells["line"], cells["value"], strict=True))


def _differences_of_cells(
    name: str, before: dict[str, str], after: dict[str, str]
) -> Iterator[Difference]:
    only_before = sorted(before.keys() - after.keys())
    only_after = sorted(after.keys() - before.keys())
    if only_before:
        yield Difference(GONE, name, f"{len(only_before)} values, such as of {only_before[0]}")
    if only_after:
        yield Difference(NEW, name, f"{len(only_after)} values, such as of {only_after[0]}")

    common = sorted(before.keys() & after.keys())
    moved = [line for line in common if before[line] != after[line]]
    if moved:
        first = moved[0]
        yield Difference(
            MOVED,
            name,
            f"{len(moved)} of {len(common)} values{_by_at_most(before, after, moved)}, such as "
            f"{before[first]!r} to {after[first]!r} of {first}",
        )


def _by_at_most(before: dict[str, str], after: dict[str, str], lines: list[str]) -> str:
    """The largest change in words; empty if no value is a number in both."""
    changes = []
    for line in lines:
        try:
            changes.append(abs(float(after[line]) - float(before[line])))
        except ValueError:
            continue
    if not changes:
        return ""
    return f", by at most {_largest(np.array(changes)):.3g}"


def _largest(changes: np.ndarray) -> float:
    """The largest change; infinite if one is not a number, 0 if there is none."""
    return float(np.nan_to_num(changes, nan=math.inf).max(initial=0.0))
