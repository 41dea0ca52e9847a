"""Class spaces: which ImageNet indices count as which class of a dataset. No torch; the tensor function
that uses them is rib.models.class_logits."""

import csv
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rib.io import UserError, is_file

LARGEST_CLASS = 10
INDEX = re.compile(r"[0-9]{1,3}")  # of ImageNet-1K


@dataclass(frozen=True)
class ClassSpace:
    """A dataset's classes as sets of a network's outputs: ImageNet-1K's, or the classes of a family of its own.

    Attributes:
        keys: one name per class, unique; a layout finds a class's images by it.
        indices: for each class the outputs that count as it, ascending.
        names: what people call the classes; no part of the space's identity.
        outputs: how many there are: 1000 for ImageNet-1K.
    """

    keys: tuple[str, ...]
    indices: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    outputs: int = 1000

    @property
    def digest(self) -> str:
        """Identity of the space, part of every result that was scored in it."""
        return hashlib.sha256(json.dumps([self.keys, self.indices, self.outputs]).encode()).hexdigest()[:16]

    def to_json(self) -> dict:
        return {
            "keys": list(self.keys),
            "indices": [list(row) for row in self.indices],
            "names": list(self.names),
            "outputs": self.outputs,
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, value: dict) -> "ClassSpace":
        indices = tuple(tuple(row) for row in value["indices"])
        return cls(tuple(value["keys"]), indices, tuple(value["names"]), value["outputs"])


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids in the order of ImageNet-1K's class indices (lexicographic).

    Read from the list that timm ships, without importing timm: that would import torch too.
    """
    return tuple(_timm_file("imagenet_synsets.txt").split())


def _timm_file(name: str) -> str:
    """Text of a list that timm ships.

    Raises:
        UserError: timm is not installed, or has no such list.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None:
        raise UserError(
            "timm is not installed in this environment; run `make run` or pip install -r envs/requirements.txt."
        )
    path = Path(spec.submodule_search_locations[0]) / "data/_info" / name
    if not is_file(path):
        raise UserError(f"timm has no class list '{name}'; correct classes in the dataset's entry.")
    return path.read_text(encoding="utf-8")


@cache
def imagenet_names() -> dict[str, str]:
    """What people call each ImageNet class, by wnid: the first of its lemmas."""
    pairs = (line.split("\t", 1) for line in _timm_file("imagenet_synset_to_lemma.txt").splitlines())
    return {wnid: lemmas.split(",")[0].strip() for wnid, lemmas in pairs}


def read_timm_list(name: str) -> ClassSpace:
    """Class space with one class per wnid of a list that timm ships.

    Args:
        name: `imagenet` (all 1000), `imagenet_a` or `imagenet_r` (200 each).

    Raises:
        UserError: timm has no such list, or it has other classes than ImageNet-1K's.
    """
    index_of = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    wnids = tuple(sorted(_timm_file(f"{name}_synsets.txt").split()))
    if other := [wnid for wnid in wnids if wnid not in index_of]:
        raise UserError(
            f"timm's class list '{name}' has {other[0]}, which is no ImageNet-1K class; correct classes in the entry."
        )
    names = imagenet_names()
    return ClassSpace(wnids, tuple((index_of[wnid],) for wnid in wnids), tuple(names[wnid] for wnid in wnids))


def read_index_map(path: Path) -> ClassSpace:
    """Class space of a table: CSV with the columns key and indices (ImageNet indices, separated by blanks).

    Raises:
        UserError: an index that is none of 0 to 999, or that two classes claim, or a key given twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    claimed: dict[int, str] = {}
    for line, row in _classes(path, "key", ("key", "indices")):
        if row["key"] in found:
            raise UserError(f"{path} line {line}: {row['key']} is listed twice; remove one.")
        indices = row["indices"].split()
        if not indices or not all(map(INDEX.fullmatch, indices)):
            raise UserError(f"{path} line {line}: {row['key']} has the indices '{row['indices']}'; give 0 to 999.")
        for index in map(int, indices):
            if index in claimed:
                raise UserError(
                    f"{path} line {line}: index {index} is claimed by both {claimed[index]} and {row['key']}; "
                    "it may belong to one class only."
                )
            claimed[index] = row["key"]
        found[row["key"]] = tuple(sorted(map(int, indices)))
    return ClassSpace(tuple(found), tuple(found.values()), tuple(key.replace("_", " ") for key in found))


def read_class_map(path: Path) -> ClassSpace:
    """Class space of a reviewed class map: CSV with the columns emoji, codepoint, wnids, reason.

    Raises:
        UserError: a missing column, an unknown wnid, a wnid or codepoint claimed twice, a class without
            wnids or with more than ten, or a row without a reason; the sentence names file and line.
    """
    index_of = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    rows = _classes(path, "codepoint", ("emoji", "codepoint", "wnids", "reason"))
    claimed: dict[str, str] = {}
    for line, row in rows:
        wnids = row["wnids"].split()
        if not 1 <= len(wnids) <= LARGEST_CLASS:
            raise UserError(f"{path} line {line}: {row['emoji']} has {len(wnids)} wnids; give 1 to {LARGEST_CLASS}.")
        if not row["reason"].strip():
            raise UserError(f"{path} line {line}: {row['emoji']} gives no reason; say why its wnids fit the drawing.")
        for wnid in wnids:
            if wnid not in index_of:
                raise UserError(
                    f"{path} line {line}: {row['emoji']} names {wnid}, which is no ImageNet-1K class; correct it."
                )
        for key in (*wnids, row["codepoint"]):
            if key in claimed:
                raise UserError(
                    f"{path} line {line}: {key} is claimed by both {claimed[key]} and {row['emoji']}; "
                    "it may belong to one class only, so remove it from one of them."
                )
            claimed[key] = row["emoji"]
    indices = tuple(tuple(sorted(index_of[wnid] for wnid in row["wnids"].split())) for _, row in rows)
    return ClassSpace(tuple(row["codepoint"] for _, row in rows), indices, tuple(row["emoji"] for _, row in rows))


def read_wnid_list(path: Path) -> ClassSpace:
    """Class space with one class per ImageNet wnid: CSV with the column wnid.

    Raises:
        UserError: an unknown or repeated wnid; the sentence names file and line.
    """
    index_of = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    found: dict[int, str] = {}
    for line, row in _classes(path, "wnid", ("wnid",)):
        wnid = row["wnid"]
        if wnid not in index_of:
            raise UserError(f"{path} line {line}: {wnid} is no ImageNet-1K class; correct it.")
        if index_of[wnid] in found:
            raise UserError(f"{path} line {line}: {wnid} is listed twice; remove one.")
        found[index_of[wnid]] = wnid
    ordered = sorted(found)
    wnids = tuple(found[index] for index in ordered)
    return ClassSpace(wnids, tuple((index,) for index in ordered), wnids)


def read_own_classes(path: Path, family: ClassSpace | None = None) -> ClassSpace:
    """Class space of a family of its own: CSV with the columns key (a folder's name) and name, a line per output.

    Args:
        path: the table.
        family: for a dataset that has some of its family's classes: the family's space.

    Raises:
        UserError: a key given twice, or one that the family lacks.
    """
    rows = _classes(path, "key", ("key", "name"))
    keys = [row["key"] for _, row in rows]
    for line, row in rows:
        if keys.count(row["key"]) > 1:
            raise UserError(f"{path} line {line}: {row['key']} is listed twice; remove one.")
        if family and row["key"] not in family.keys:
            raise UserError(f"{path} line {line}: {row['key']} is no class of the family; correct it.")
    names = tuple(row["name"] for _, row in rows)
    outputs = [family.keys.index(key) for key in keys] if family else range(len(keys))
    return ClassSpace(tuple(keys), tuple((i,) for i in outputs), names, family.outputs if family else len(keys))


def _classes(path: Path, key: str, columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a table with a class on each line, told by one of its columns.

    Raises:
        UserError: there is none, or one without its key.
    """
    rows = list(read_table(path, columns))
    if not rows:
        raise UserError(f"{path} lists no class; add a line for each.")
    for line, row in rows:
        if not row[key].strip():
            raise UserError(f"{path} line {line}: the class has no {key}; give it one.")
    return rows


def read_table(path: Path, columns: Iterable[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file that must have the given columns.

    Raises:
        UserError: the file is missing, no CSV in UTF-8, or lacks a column or a value.
    """
    if not is_file(path):
        raise UserError(f"{path} does not exist; the catalogue names it as a class file.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); correct it.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{path} lacks the column {missing[0]}; it needs {', '.join(columns)}.")
        for row in reader:
            if None in row.values() or None in row:
                raise UserError(
                    f"{path} line {reader.line_num}: expected {len(reader.fieldnames)} values; correct the row."
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path} after line {reader.line_num} it is no CSV ({error}); correct it.") from error
