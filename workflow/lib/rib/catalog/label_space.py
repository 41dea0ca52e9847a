"""Label spaces: which network outputs belong to which class of a dataset. No torch.

rib.models.class_logits turns logits of outputs into logits of classes.
"""

import csv
import hashlib
import importlib.util
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from rib.base.errors import UserError

LARGEST_CLASS = 10  # wnids
MOST_CLASSES = 32768  # indexes and rows store labels, predictions and ranks in 16 bits
INDEX = re.compile(r"[0-9]{1,3}")  # of ImageNet-1K


@dataclass(frozen=True)
class LabelSpace:
    """Classes of a dataset as sets of network outputs.

    The outputs are ImageNet-1K's, or a family's with own classes. The class `bear` may have the
    outputs 294 to 297; a prediction of any is right.
    """

    keys: tuple[str, ...]  # unique key of each class, with which a layout finds the class's images
    indices: tuple[tuple[int, ...], ...]  # network outputs of each class, ascending
    names: tuple[str, ...]  # for display; not part of the digest
    num_classes: int = 1000  # number of network outputs
    # Labels of other classes that are right answers too, ascending, for each class; empty if no
    # class has any. A prediction is right if it is the label or in `also[label]`; training uses
    # only the label.
    also: tuple[tuple[int, ...], ...] = ()

    @property
    def digest(self) -> str:
        """Identifier of the label space, part of every result that was scored in it.

        A hash of all attributes except names, which are only for display.
        """
        facts = [self.keys, self.indices, self.num_classes]
        if self.also:
            facts.append(self.also)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Attributes and digest: {"keys": ["bear"], "indices": [[294, 295]], ..., "digest": "1a"}.

        Tuples become lists, and an empty `also` is left out.
        """
        attributes = json.loads(json.dumps(asdict(self)))
        if not self.also:
            del attributes["also"]
        return {**attributes, "digest": self.digest}

    @classmethod
    def from_json(cls, attributes: dict[str, Any]) -> "LabelSpace":
        """The label space from attributes that `to_json` gave."""
        return cls(
            keys=tuple(attributes["keys"]),
            indices=tuple(map(tuple, attributes["indices"])),
            names=tuple(attributes["names"]),
            num_classes=attributes["num_classes"],
            also=tuple(map(tuple, attributes.get("also", ()))),
        )

    def restricted(self, labels: Collection[int]) -> "LabelSpace":
        """The label space with only some labels, renumbered in order: 3 and 5 become 0 and 1."""
        kept_labels = sorted(labels)
        new_label = {label: number for number, label in enumerate(kept_labels)}
        also = []  # right answers of each class besides its own label
        if self.also:
            for label in kept_labels:
                kept_answers = [answer for answer in self.also[label] if answer in new_label]
                also.append(tuple(new_label[answer] for answer in kept_answers))
        return replace(
            self,
            keys=tuple(self.keys[label] for label in kept_labels),
            indices=tuple(self.indices[label] for label in kept_labels),
            names=tuple(self.names[label] for label in kept_labels),
            also=_also_unless_empty(also),
        )


def _also_unless_empty(also: list[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The field `also`: the tuples of further right answers, or () if no class has any."""
    if not any(also):
        return ()
    return tuple(also)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids in the order of ImageNet-1K's class indices (lexicographic)."""
    return tuple(_timm_file("imagenet_synsets.txt").split())


def _imagenet_index_by_wnid() -> dict[str, int]:
    """{"n01440764": 0, "n01443537": 1, ...}: output of each WordNet id."""
    return {wnid: index for index, wnid in enumerate(imagenet_wnids())}


def _timm_file(name: str) -> str:
    """Text of one of timm's ImageNet files; timm itself isn't imported, since it imports torch."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.submodule_search_locations is None:
        raise UserError("timm is not installed in this environment; run `make environment`.")
    path = Path(spec.submodule_search_locations[0]) / "data/_info" / name
    if not path.is_file():
        raise UserError(
            f"timm has no class list '{name}'; correct `classes` in the dataset's entry."
        )
    return path.read_text(encoding="utf-8")


def read_real_labels() -> list[list[int]]:
    """ReaL labels of ILSVRC2012's 50,000 validation images, in their order: [[], [970, 795], ...].

    People assigned each image the indices of all classes that it shows, 0 to 9.

    Source: Beyer et al. 2020, arXiv 2006.07159.
    """
    labels: list[list[int]] = json.loads(_timm_file("imagenet_real_labels.json"))
    return labels


def read_timm_list(name: str) -> LabelSpace:
    """Label space of one of timm's lists, with one class per WordNet id.

    Args:
        name: `imagenet` (all 1000), `imagenet_a` or `imagenet_r` (200 each).

    Raises:
        UserError: timm has no such list, or the list has classes that ImageNet-1K lacks.
    """
    index_by_wnid = _imagenet_index_by_wnid()
    wnids = tuple(sorted(_timm_file(f"{name}_synsets.txt").split()))
    for wnid in wnids:
        if wnid not in index_by_wnid:
            raise UserError(
                f"timm's class list '{name}' contains {wnid}, which is not an ImageNet-1K class; "
                "correct the entry."
            )
    name_by_wnid = {}
    for line in _timm_file("imagenet_synset_to_lemma.txt").splitlines():
        wnid, names = line.split("\t", 1)
        first_name = names.split(",")[0].strip()
        name_by_wnid[wnid] = first_name
    return LabelSpace(
        keys=wnids,
        indices=tuple((index_by_wnid[wnid],) for wnid in wnids),
        names=tuple(name_by_wnid[wnid] for wnid in wnids),
    )


def read_index_map(path: Path) -> LabelSpace:
    """Label space from a CSV file with the columns key and indices, one class per line.

    The indices are ImageNet-1K's, separated by blanks, such as `151 152 153`.

    Raises:
        UserError: An index is not in 0 to 999 or belongs to two classes, or a key occurs twice.
    """
    indices_by_key: dict[str, tuple[int, ...]] = {}
    key_of_index: dict[str, str] = {}
    for where, row in _read_classes(path, "key", ("key", "indices")):
        key = row["key"]
        index_texts = row["indices"].split()
        if key in indices_by_key:
            raise UserError(f"{where}: {key} is listed twice; remove one.")
        are_indices = all(INDEX.fullmatch(text) for text in index_texts)
        if not index_texts or not are_indices:
            raise UserError(f"{where}: {key} has the indices '{row['indices']}'; use 0 to 999.")
        indices = sorted(int(text) for text in index_texts)
        indices_by_key[key] = tuple(indices)
        for index in indices:
            _claim(key_of_index, f"index {index}", key, where)
    return LabelSpace(
        keys=tuple(indices_by_key),
        indices=tuple(indices_by_key.values()),
        names=tuple(key.replace("_", " ") for key in indices_by_key),
    )


def read_class_map(path: Path) -> LabelSpace:
    """Label space from a class map, a CSV file with one class per line.

    Columns are emoji, codepoint, wnids, reason and optionally also: emoji of other rows that are
    right answers too, separated by blanks.

    Raises:
        UserError: A column is missing, a wnid is unknown, a wnid or codepoint occurs twice, a class
            has no wnids or more than ten, a row has no reason, or `also` names no other row.
    """
    index_by_wnid = _imagenet_index_by_wnid()
    rows = _read_classes(path, "codepoint", ("emoji", "codepoint", "wnids", "reason"))
    _check_class_map(rows, index_by_wnid)
    indices = []  # ImageNet indices of each class
    for _, row in rows:
        indices_of_class = [index_by_wnid[wnid] for wnid in row["wnids"].split()]
        indices.append(tuple(sorted(indices_of_class)))
    names = tuple(row["emoji"] for _, row in rows)
    also = [_labels_in_also(row, names, where) for where, row in rows]
    return LabelSpace(
        keys=tuple(row["codepoint"] for _, row in rows),
        indices=tuple(indices),
        names=names,
        also=_also_unless_empty(also),
    )


def _check_class_map(rows: list[tuple[str, dict[str, str]]], index_by_wnid: dict[str, int]) -> None:
    """Raise a UserError if a wnid is unknown or of two emoji, or a row gives no reason."""
    emoji_by_key: dict[str, str] = {}  # by wnid or codepoint
    for where, row in rows:
        emoji = row["emoji"]
        wnids = row["wnids"].split()
        if not 1 <= len(wnids) <= LARGEST_CLASS:
            raise UserError(f"{where}: {emoji} has {len(wnids)} wnids; list 1 to {LARGEST_CLASS}.")
        if not row["reason"].strip():
            raise UserError(
                f"{where}: {emoji} has no reason; state why its wnids match the drawing."
            )
        for wnid in wnids:
            if wnid not in index_by_wnid:
                raise UserError(
                    f"{where}: {emoji} lists {wnid}, which is not an ImageNet-1K class; correct it."
                )
        for key in (*wnids, row["codepoint"]):
            _claim(emoji_by_key, key, emoji, where)


def _labels_in_also(row: dict[str, str], names: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Labels of the rows whose emoji `also` lists: (3, 7). A row's position is its label."""
    labels = set()
    for name in row.get("also", "").split():
        if name == row["emoji"] or names.count(name) != 1:
            raise UserError(
                f"{where}: {row['emoji']} lists {name} in also; name the emoji of exactly one "
                "other row."
            )
        labels.add(names.index(name))
    return tuple(sorted(labels))


def read_wnid_list(path: Path) -> LabelSpace:
    """Label space from a CSV file with the column wnid, one class per wnid.

    Raises:
        UserError: A wnid is unknown or repeated.
    """
    index_by_wnid = _imagenet_index_by_wnid()
    listed_wnids: set[str] = set()
    for where, row in _read_classes(path, "wnid", ("wnid",)):
        wnid = row["wnid"]
        if wnid not in index_by_wnid:
            raise UserError(f"{where}: {wnid} is not an ImageNet-1K class; correct it.")
        if wnid in listed_wnids:
            raise UserError(f"{where}: {wnid} is listed twice; remove one.")
        listed_wnids.add(wnid)
    wnids = tuple(sorted(listed_wnids))
    indices = tuple((index_by_wnid[wnid],) for wnid in wnids)
    return LabelSpace(keys=wnids, indices=indices, names=wnids)


def read_own_classes(path: Path, family: LabelSpace | None = None) -> LabelSpace:
    """Label space with classes that are not ImageNet's, from a CSV file with columns key and name.

    Each line is one network output, and the key is the name of the class's folder. A dataset with
    only some of its family's classes keeps the outputs of the family's label space.

    Raises:
        UserError: A key occurs twice, or the family does not have it.
    """
    rows = _read_classes(path, "key", ("key", "name"))
    keys = [row["key"] for _, row in rows]
    times_listed = Counter(keys)
    output_of_key = {}
    if family:
        output_of_key = {key: output for output, key in enumerate(family.keys)}
    for where, row in rows:
        key = row["key"]
        if times_listed[key] > 1:
            raise UserError(f"{where}: {key} is listed twice; remove one.")
        if family and key not in output_of_key:
            raise UserError(f"{where}: {key} is not a class of the family; correct it.")
    if family:
        outputs = [output_of_key[key] for key in keys]
        num_classes = family.num_classes
    else:
        outputs = list(range(len(keys)))
        num_classes = len(keys)
    return LabelSpace(
        keys=tuple(keys),
        indices=tuple((output,) for output in outputs),
        names=tuple(row["name"] for _, row in rows),
        num_classes=num_classes,
    )


# Readers of class files by the format in the entry.
READERS = {
    "class_map": read_class_map,
    "wnids": read_wnid_list,
    "index_map": read_index_map,
    "own": read_own_classes,
}


def _claim(class_of_key: dict[str, str], key: str, class_name: str, where: str) -> None:
    """Note a key (a wnid, index or codepoint) of a class; a UserError if another class has it."""
    if key in class_of_key:
        raise UserError(
            f"{where}: {key} belongs to both {class_of_key[key]} and {class_name}; remove it from "
            "one of them."
        )
    class_of_key[key] = class_name


def _read_classes(
    path: Path, key_column: str, columns: Iterable[str]
) -> list[tuple[str, dict[str, str]]]:
    """Place and cells of each class: [("classes.csv line 2", {"key": "cat", "name": "Cat"})].

    Raises:
        UserError: The file has no rows or too many, or a class has no key.
    """
    rows = list(read_csv_rows(path, columns))
    if not rows:
        raise UserError(f"{path} lists no classes; add one line for each.")
    if len(rows) > MOST_CLASSES:
        raise UserError(
            f"{path} lists {len(rows)} classes; results can hold at most {MOST_CLASSES}, so leave "
            "some out."
        )
    for where, row in rows:
        if not row[key_column].strip():
            raise UserError(f"{where}: the class has no {key_column}; add it.")
    return rows


def read_csv_rows(path: Path, columns: Iterable[str]) -> Iterable[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV file: its place, for messages, and its cells by column.

    For example `classes.csv line 2` and {"key": "cat", "name": "Cat"}. Lines before the names of
    columns that begin with # are comments.

    Args:
        columns: columns that the file must have; it may have more.

    Raises:
        UserError: The file does not exist, is not CSV in UTF-8, or lacks a column or a value.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct its name where it is given.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheet programs write a byte-order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error
    lines = text.splitlines(keepends=True)
    comments = list(takewhile(lambda line: line.startswith("#"), lines))
    table = "".join(lines[len(comments) :])
    reader = csv.DictReader(io.StringIO(table, newline=""))
    try:
        columns_of_file = reader.fieldnames or []
        missing_columns = [column for column in columns if column not in columns_of_file]
        if missing_columns:
            raise UserError(
                f"{path} lacks the column {missing_columns[0]}; it needs {', '.join(columns)}."
            )
        for row in reader:
            where = f"{path} line {len(comments) + reader.line_num}"
            # DictReader sets missing cells to None and puts surplus cells under the key None.
            has_too_few_cells = None in row.values()
            has_too_many_cells = None in row
            if has_too_few_cells or has_too_many_cells:
                raise UserError(
                    f"{where}: expected {len(columns_of_file)} values; correct the row."
                )
            yield where, row
    except csv.Error as error:
        raise UserError(
            f"{path} is not valid CSV after line {len(comments) + reader.line_num} ({error}); "
            "correct it."
        ) from error
