"""Label space: which network outputs belong to which class of a dataset (see rib.models.class_logits). No torch."""

import csv
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from rib.base.errors import UserError

LARGEST_CLASS = 10
INDEX = re.compile(r"[0-9]{1,3}")  # of ImageNet-1K


@dataclass(frozen=True)
class LabelSpace:
    """Classes of a dataset as sets of network outputs: ImageNet-1K's, or those of a family with its own classes."""

    keys: tuple[str, ...]  # unique key of each class, by which a layout finds its images
    indices: tuple[tuple[int, ...], ...]  # network outputs of each class, ascending
    names: tuple[str, ...]  # names of the classes for display; not part of the digest
    num_classes: int = 1000  # number of network outputs; 1000 for ImageNet-1K
    # other classes of the space that are right answers for each class too, ascending; empty if there are none. A
    # prediction is right if it is the label or in `also[label]`; training uses the label alone
    also: tuple[tuple[int, ...], ...] = ()

    @property
    def digest(self) -> str:
        """Identifier of the space, part of every result that was scored in it."""
        parts = [self.keys, self.indices, self.num_classes, *([self.also] if self.also else [])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def to_json(self) -> dict:
        """Attributes and digest, with lists in place of tuples, which JSON does not have; `also` only if not empty."""
        value = {**json.loads(json.dumps(asdict(self))), "digest": self.digest}
        return value if self.also else {key: part for key, part in value.items() if key != "also"}

    @classmethod
    def from_json(cls, value: dict) -> "LabelSpace":
        indices, also = (
            tuple(map(tuple, rows)) for rows in (value["indices"], value.get("also", ()))
        )
        return cls(tuple(value["keys"]), indices, tuple(value["names"]), value["num_classes"], also)

    def restricted(self, labels: Collection[int]) -> "LabelSpace":
        """The space of only the classes with the given labels, in the same order."""
        kept = sorted(labels)
        place = {label: number for number, label in enumerate(kept)}
        keys, indices, names = (
            tuple(part[label] for label in kept) for part in (self.keys, self.indices, self.names)
        )
        also = tuple(
            tuple(place[other] for other in self.also[label] if other in place)
            for label in kept
            if self.also
        )
        return replace(
            self, keys=keys, indices=indices, names=names, also=also if any(also) else ()
        )


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids in the order of ImageNet-1K's class indices (lexicographic)."""
    return tuple(_timm_file("imagenet_synsets.txt").split())


def _timm_file(name: str) -> str:
    """A file of timm, which is not imported, since it would import torch."""
    spec = importlib.util.find_spec("timm")
    if spec is None:
        raise UserError("timm is not installed in this environment; run `make environment`.")
    path = Path(spec.submodule_search_locations[0]) / "data/_info" / name
    if not path.is_file():
        raise UserError(f"timm has no class list '{name}'; correct classes in the dataset's entry.")
    return path.read_text(encoding="utf-8")


def read_real_labels() -> list[list[int]]:
    """ReaL labels (Beyer et al. 2020, arXiv 2006.07159) of ILSVRC2012's 50,000 validation images: 0 to 9 indices of each."""
    return json.loads(_timm_file("imagenet_real_labels.json"))


def read_timm_list(name: str) -> LabelSpace:
    """Label space of a list in timm, one class per wnid: `imagenet` (all 1000), `imagenet_a` or `imagenet_r` (200 each).

    Raises:
        UserError: timm has no such list, or the list has other classes than ImageNet-1K's.
    """
    index_of = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    wnids = tuple(sorted(_timm_file(f"{name}_synsets.txt").split()))
    if other := [wnid for wnid in wnids if wnid not in index_of]:
        raise UserError(
            f"timm's class list '{name}' contains {other[0]}, which is not an ImageNet-1K class; correct the entry."
        )
    lemmas = dict(
        line.split("\t", 1) for line in _timm_file("imagenet_synset_to_lemma.txt").splitlines()
    )
    names = tuple(lemmas[wnid].split(",")[0].strip() for wnid in wnids)
    return LabelSpace(wnids, tuple((index_of[wnid],) for wnid in wnids), names)


def read_index_map(path: Path) -> LabelSpace:
    """Label space from a CSV file with the columns key and indices (ImageNet indices, separated by blanks).

    Raises:
        UserError: An index is not in 0 to 999 or belongs to two classes, or a key occurs twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    owners: dict[str, str] = {}
    for where, row in _classes(path, "key", ("key", "indices")):
        key, indices = row["key"], row["indices"].split()
        if key in found:
            raise UserError(f"{where}: {key} is listed twice; remove one.")
        if not indices or not all(map(INDEX.fullmatch, indices)):
            raise UserError(f"{where}: {key} has the indices '{row['indices']}'; use 0 to 999.")
        found[key] = tuple(sorted(map(int, indices)))
        for index in found[key]:
            _claim(owners, f"index {index}", key, where)
    return LabelSpace(
        tuple(found), tuple(found.values()), tuple(key.replace("_", " ") for key in found)
    )


def read_class_map(path: Path) -> LabelSpace:
    """Label space from a class map: CSV file with the columns emoji, codepoint, wnids, reason and optionally also.

    `also` names the emoji of other rows that are right answers too, separated by blanks. Raises a UserError if a column
    is missing, a wnid is unknown, a wnid or codepoint occurs twice, a class has no wnids or more than ten, a row has no
    reason, or `also` names no other row; the message names file and line.
    """
    index_of = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    rows = _classes(path, "codepoint", ("emoji", "codepoint", "wnids", "reason"))
    owners: dict[str, str] = {}
    for where, row in rows:
        wnids, emoji = row["wnids"].split(), row["emoji"]
        if not 1 <= len(wnids) <= LARGEST_CLASS:
            raise UserError(f"{where}: {emoji} has {len(wnids)} wnids; list 1 to {LARGEST_CLASS}.")
        if not row["reason"].strip():
            raise UserError(
                f"{where}: {emoji} has no reason; state why its wnids match the drawing."
            )
        if other := [wnid for wnid in wnids if wnid not in index_of]:
            raise UserError(
                f"{where}: {emoji} lists {other[0]}, which is not an ImageNet-1K class; correct it."
            )
        for key in (*wnids, row["codepoint"]):
            _claim(owners, key, emoji, where)
    indices = tuple(
        tuple(sorted(index_of[wnid] for wnid in row["wnids"].split())) for _, row in rows
    )
    names = tuple(row["emoji"] for _, row in rows)
    also = tuple(_also(row, names, where) for where, row in rows)
    return LabelSpace(
        tuple(row["codepoint"] for _, row in rows), indices, names, also=also if any(also) else ()
    )


def _also(row: dict[str, str], names: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Labels of the classes that a row of a class map names in `also`."""
    others = row.get("also", "").split()
    for name in others:
        if name == row["emoji"] or names.count(name) != 1:
            raise UserError(
                f"{where}: {row['emoji']} lists {name} in also; name the emoji of exactly one other row."
            )
    return tuple(sorted({names.index(name) for name in others}))


def read_wnid_list(path: Path) -> LabelSpace:
    """Label space from a CSV file with the column wnid; raise a UserError if a wnid is unknown or repeated."""
    index_of = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    found: set[str] = set()
    for where, row in _classes(path, "wnid", ("wnid",)):
        wnid = row["wnid"]
        if wnid not in index_of:
            raise UserError(f"{where}: {wnid} is not an ImageNet-1K class; correct it.")
        if wnid in found:
            raise UserError(f"{where}: {wnid} is listed twice; remove one.")
        found.add(wnid)
    wnids = tuple(sorted(found))
    return LabelSpace(wnids, tuple((index_of[wnid],) for wnid in wnids), wnids)


def read_own_classes(path: Path, family: LabelSpace | None = None) -> LabelSpace:
    """Label space that is not ImageNet's: CSV file with the columns key (folder name) and name, one line per output.

    A dataset with some of its family's classes keeps the outputs of the family's label space. Raises a UserError if a
    key occurs twice, or the family does not have it.
    """
    rows = _classes(path, "key", ("key", "name"))
    keys = [row["key"] for _, row in rows]
    for (where, _), key in zip(rows, keys, strict=True):
        if keys.count(key) > 1:
            raise UserError(f"{where}: {key} is listed twice; remove one.")
        if family and key not in family.keys:
            raise UserError(f"{where}: {key} is not a class of the family; correct it.")
    names = tuple(row["name"] for _, row in rows)
    outputs = [family.keys.index(key) for key in keys] if family else range(len(keys))
    return LabelSpace(
        tuple(keys),
        tuple((i,) for i in outputs),
        names,
        family.num_classes if family else len(keys),
    )


# Readers of class files by the format that an entry names.
READERS = {
    "class_map": read_class_map,
    "wnids": read_wnid_list,
    "index_map": read_index_map,
    "own": read_own_classes,
}


def _claim(owners: dict[str, str], key: str, owner: str, where: str) -> None:
    if key in owners:
        raise UserError(
            f"{where}: {key} belongs to both {owners[key]} and {owner}; remove it from one of them."
        )
    owners[key] = owner


def _classes(path: Path, key: str, columns: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """Rows of a table with one class per line, each with a key."""
    rows = list(read_table(path, columns))
    if not rows:
        raise UserError(f"{path} lists no classes; add one line for each.")
    for where, row in rows:
        if not row[key].strip():
            raise UserError(f"{where}: the class has no {key}; add it.")
    return rows


def read_table(path: Path, columns: Iterable[str]) -> Iterable[tuple[str, dict[str, str]]]:
    """Yield place (path and line) and values of each row of a CSV file that must have the given columns.

    Raises:
        UserError: The file does not exist, is not CSV in UTF-8, or lacks a column or a value.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct its name where it is given.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if missing := [column for column in columns if column not in (reader.fieldnames or [])]:
            raise UserError(f"{path} lacks the column {missing[0]}; it needs {', '.join(columns)}.")
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if None in row.values() or None in row:
                raise UserError(
                    f"{where}: expected {len(reader.fieldnames)} values; correct the row."
                )
            yield where, row
    except csv.Error as error:
        raise UserError(
            f"{path} is not valid CSV after line {reader.line_num} ({error}); correct it."
        ) from error
