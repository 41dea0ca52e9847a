"""The catalogue: facts about families, datasets, models and methods, parsed once from YAML. No torch.

A catalogue folder holds families/<name>.yaml, datasets.yaml, models.yaml, methods.yaml, classes/ and, for
mechanisms of one's own, layouts/<layout>.py and methods/<mechanism>.py; each part is optional. The project's
own folder comes first, folders of the user after it; a name may be defined once only.
"""

import ast
import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import jsonschema
import yaml

from rib.classes import (
    ClassSpace,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_table,
    read_timm_list,
    read_wnid_list,
)
from rib.io import UserError, from_home, is_file, is_folder
from rib.runs import NO_TARGET, PRETRAINED

LIBRARY = Path(__file__).resolve().parent
SCHEMAS = LIBRARY.parents[1] / "schemas"
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's reads the catalogue in a tenth of the time
# What a layout gets besides its own settings (rib.data.layouts).
LAYOUT_ARGUMENTS = {"space", "geometry", "dataset", "source_group", "icons", "exclude"}
FINETUNE, RECIPE, CURVE, SELECT = "finetune", "recipe", "curve", "select"
MERGES = (RECIPE, CURVE, SELECT)
FAMILY_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")  # of a file, so that no schema can say it
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
LARGEST = (1 << 63) - 1  # whole number
QUOTED = 100  # characters of a bad value that a message shows
CLASS_READERS = {
    "class_map": read_class_map,
    "wnids": read_wnid_list,
    "index_map": read_index_map,
    "own": read_own_classes,
}


@dataclass(frozen=True)
class Family:
    """Related datasets over one label space, and the grid that is run when config leaves it open."""

    name: str
    title: str
    description: str
    classes: dict
    defaults: dict
    method_settings: dict
    crop: float | None = None
    example_target: str | None = None
    reference: str | dict | None = None
    one_image_per_class: bool = False


@dataclass(frozen=True)
class Dataset:
    """One dataset: where its archive comes from, how it is laid out, what may be done with it.

    Attributes:
        raw: the folder of data/raw where its archives lie: its own, or another dataset's whose archives it shares.
    """

    name: str
    family: str
    label: str
    raw: str
    sources: tuple[dict, ...]
    layout: str
    settings: dict
    suite: str
    licence: str
    origin: str
    classes: dict | None = None
    images: int | None = None
    about_images: int | None = None
    role: str = "ood"
    optional: bool = False
    variant_of: str | None = None
    adversarially_filtered: bool = False
    storage: str = "array"
    publishable: bool = True
    tuning: dict | None = None
    source_group: str | None = None
    icons_file: str | None = None
    exclude: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """One pretrained model: its head, its weights' source and its preprocessing.

    Attributes:
        source: of published weights; None where they are trained here.
        pretrain: how that is done: dataset, size, test, and the settings of training; None for published weights.
    """

    name: str
    families: tuple[str, ...]
    label: str
    type: str
    pretraining: str
    library: str
    architecture: str
    weights: dict
    preprocessing: dict
    licence: str
    style: dict
    source: dict | None = None
    pretrain: dict | None = None
    head: str = "published"
    baseline: bool = False
    parameters: int | None = None

    @property
    def sources(self) -> tuple[dict, ...]:
        """What is downloaded."""
        return (self.source,) if self.source else ()

    @property
    def raw(self) -> str:
        """The folder of data/raw where it lies."""
        return self.name


@dataclass(frozen=True)
class Method:
    """One fine-tuning method: a mechanism (a module) with settings, or a merge of other methods' weights.

    Attributes:
        parents: the methods it needs first: those that a merge averages, or the one that it starts from.
        form: `finetune`, or how a merge finds its weights: `recipe`, `curve` or `select`.
        reference: whether it uses the family's reference dataset: `no`, `optional` or `required`.
        types: of models that it is for.
        trains_on: `images`, or `features` that are computed once.
        stores: `all`, or `part` where only a small part of the network changes.
    """

    name: str
    label: str
    form: str
    mechanism: str
    settings: dict
    parents: tuple[str, ...]
    reference: str
    types: tuple[str, ...]
    source: str
    style: dict
    stores: str = "all"
    trains_on: str = "images"

    @property
    def trains(self) -> bool:
        """Whether it trains, rather than merging what others trained."""
        return self.form == FINETUNE


def is_text(value: object) -> bool:
    """Whether a value is text that a file can hold: half a character, as YAML's escapes can write it, is none."""
    return isinstance(value, str) and HALF_CHARACTER.search(value) is None


def is_whole(value: object) -> bool:
    """Whether a value is a whole number as paths and every library write it: not 1.0, and of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_number(value: object) -> bool:
    """Whether a value is a number that can be counted with: neither infinite nor none at all."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _matches(validator, pattern: str, value: object, schema: dict):
    """`$` in a schema is the end, where Python's also stands before a last line break."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


JSON_SCHEMA = jsonschema.Draft202012Validator
Validator = jsonschema.validators.extend(
    JSON_SCHEMA,
    {"pattern": _matches},
    type_checker=JSON_SCHEMA.TYPE_CHECKER.redefine_many(
        {
            "string": lambda _, value: is_text(value),
            "integer": lambda _, value: is_whole(value),
            "number": lambda _, value: is_number(value),
        }
    ),
)


@cache
def load_schema(name: str) -> dict:
    """A schema of workflow/schemas with the definitions that it shares with others."""
    own, shared = (
        yaml.load((SCHEMAS / f"{part}.schema.yaml").read_text(encoding="utf-8"), SAFE_LOADER)
        for part in (name, "common")
    )
    return {**own, "$defs": shared["$defs"]}


def validated(value: object, schema_name: str, where: str) -> dict:
    """Check a parsed YAML value against a schema of workflow/schemas and fill in the defaults.

    Args:
        value: the parsed file.
        schema_name: for example `config`.
        where: the file, for messages.

    Returns:
        A new dict with every default of the schema filled in.

    Raises:
        UserError: an unknown key, a missing key, or a value of the wrong type or out of bounds.
    """
    schema = load_schema(schema_name)
    try:
        filled = _filled(value, schema)
        errors = sorted(Validator(schema).iter_errors(filled), key=lambda error: list(map(str, error.path)))
    except (RecursionError, ValueError) as error:  # (see _written)
        raise UserError(f"{where}: it holds itself, or a number of thousands of digits; correct it.") from error
    if errors:
        raise UserError(f"{where}: {_sentence(errors[0])}")
    return filled


def _filled(value: object, schema: dict) -> object:
    """The value with the schema's defaults, and with numbers and truth values where --config gave their text.

    `--config seeds='[0,1]'` arrives as a list of strings.
    """
    if isinstance(value, str):
        meant = {"true": True, "false": False}.get(value.lower(), _number(value))
        fits = meant is not None and not _valid(value, schema) and _valid(meant, schema)
        return meant if fits else value
    if isinstance(value, list):
        return [_filled(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    other = schema.get("additionalProperties") or {}
    filled = {key: _filled(item, known.get(key, other)) for key, item in value.items()}
    for key, part in known.items():
        if key not in filled and "default" in part:
            filled[key] = _filled(part["default"], part)
    return filled


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return None


def _valid(value: object, schema: dict) -> bool:
    return "$ref" in schema or Validator(schema).is_valid(value)


def _sentence(error: jsonschema.ValidationError) -> str:
    place = ".".join(map(str, error.absolute_path))
    inside = f" in '{place}'" if place else ""
    shown = _shown(error.instance)
    why = error.message.replace(_written(error.instance), "it", 1)
    meaning = f"; it is: {error.schema['description']}" if "description" in error.schema else ""
    if "propertyNames" in error.schema_path:
        return f"{shown}{inside} is no name that can be used here ({why}){meaning}."
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        key = next(key for key in error.instance if key not in allowed)
        return f"unknown key {_shown(key)}{inside}{_nearest(key, allowed)}; allowed are {', '.join(sorted(allowed))}."
    if error.validator == "required":
        key = next(key for key in error.validator_value if key not in error.instance)
        return f"the key '{key}' is missing{inside}; add it."
    if error.validator == "oneOf":
        keys = ", ".join(key for part in error.schema["oneOf"] for key in part["required"])
        return f"give exactly one of the keys {keys}{inside}."
    what = f"'{place}' is" if place else "the whole is"
    return f"{what} {shown}, which is not valid ({why}){meaning}."


def _shown(value: object) -> str:
    """A bad value as a message shows it."""
    text = _written(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."


def _written(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no number of so many digits
        return "a number of thousands of digits"


def _nearest(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:QUOTED] if isinstance(name, str) else "", list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def known_name(name: object, known: Iterable[str], kind: str, where: str) -> str:
    """Return the name if it is known.

    Raises:
        UserError: it isn't; the sentence lists the known ones.
    """
    known = list(known)
    if name not in known:
        raise UserError(
            f"{where}: unknown {kind} {_shown(name)}{_nearest(name, known)}; known are "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    return name


def check_settings(
    settings: Mapping, wanted: Mapping[str, str], where: str, complete: bool = True, sweeps: bool = True
) -> dict:
    """Check the settings of a mechanism or layout against its keyword arguments.

    Args:
        settings: of an entry.
        wanted: annotation of each keyword argument.
        where: the entry, for messages.
        complete: whether each must be given.
        sweeps: whether a list of values may stand for one.

    Returns:
        The settings, with numbers where YAML 1.1 reads text: `1e-3`.

    Raises:
        UserError: an unknown or missing setting, or a value of another kind than the annotation's.
    """
    for key in settings:
        if key not in wanted:
            allowed = ", ".join(sorted(wanted)) or "none"
            raise UserError(f"{where}: unknown setting {_shown(key)}{_nearest(key, wanted)}; allowed are {allowed}.")
    for key in sorted(set(wanted) - set(settings)) if complete else ():
        raise UserError(f"{where}: the setting '{key}' is missing; add it.")
    return {
        key: _checked(value, wanted[key], f"{where}: the setting '{key}'", sweeps) for key, value in settings.items()
    }


def _checked(value: object, wanted: str, where: str, sweeps: bool) -> object:
    """A setting's value; of a list of values, which sweeps, each."""
    if value == []:
        raise UserError(f"{where} is an empty list; give a value, or several to sweep.")
    check = _checked_list if wanted.startswith("list") else _checked_one
    swept = isinstance(value, list) and (check is _checked_one or isinstance(value[0], list))
    return [check(item, wanted, where) for item in value] if swept and sweeps else check(value, wanted, where)


def _checked_list(value: object, wanted: str, where: str) -> list:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} holds {_shown(value)}; give a list.")
    return [_checked_one(item, wanted[len("list[") : -1] or "scalar", where) for item in value]


def _checked_one(value: object, wanted: str, where: str) -> object:
    """A value that is no list of the kind that the annotation says, with numbers where YAML reads text."""
    found = _number(value) if isinstance(value, str) and wanted in ("float", "int") else value
    scalar = is_text(value) or is_number(value) or isinstance(value, bool)
    kinds = {
        "float": ("a number", is_number(found)),
        "int": ("a whole number", is_whole(found)),
        "str": ("text, in quotes where YAML reads something else", is_text(value)),
        "bool": ("true or false", isinstance(value, bool)),
        "scalar": ("text or a number", scalar),
        "dict": ("a value for each key", isinstance(value, dict) and _is_json(value)),
    }
    kind, fits = kinds.get(wanted.partition("[")[0], ("text, numbers, or lists and keys of these", _is_json(value)))
    if not fits:
        raise UserError(f"{where} is {_shown(value)}; give {kind}.")
    return found


def _is_json(value: object) -> bool:
    """Whether a value can be recorded and read again."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return is_text(text) and json.loads(text) == value
    except (TypeError, ValueError, RecursionError):
        return False


def read_yaml(path: Path) -> object:
    """Parse a YAML file.

    Raises:
        UserError: it can't be read or isn't valid YAML; the sentence names file and line.
    """
    try:
        return yaml.load(_text(path), _StrictLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:500]}; correct it.") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); correct it or take it away.") from error


class _StrictLoader(SAFE_LOADER):
    """A safe loader that refuses a key given twice, of which plain YAML keeps the last."""

    def construct_object(self, node, deep=False):
        """A node's value; a failure to read it, as of the date 2020-13-45, tells its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            why = f"this isn't what its form says, a date or number for example ({error})"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from error

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


class Catalog:
    """All entries of the given catalogue folders; reading is lazy and done once.

    Args:
        folders: the project's own folder first, then the user's.

    Raises:
        UserError: a folder that doesn't exist, an invalid entry, or a name defined twice.
    """

    def __init__(self, folders: Iterable[Path]):
        self.folders = [Path(folder) for folder in folders]
        self._space = cache(self._read_space)  # parsed once, since every job of a grid asks
        for folder in self.folders:
            if not is_folder(folder):
                raise UserError(f"catalog: the folder {folder} does not exist; correct the path.")
            if not os.access(folder, os.R_OK | os.X_OK):
                raise UserError(f"catalog: the folder {folder} may not be read; change its permissions.")

    @cached_property
    def families(self) -> dict[str, Family]:
        """Families by name; a family's name is its file's."""
        entries: dict[str, tuple[dict, Path]] = {}
        for folder in self.folders:
            for path in sorted(folder.glob("families/*.yaml")):
                if not FAMILY_NAME.fullmatch(path.stem):
                    raise UserError(
                        f"{path}: the file's name is the family's, and part of paths; use letters, digits and _ alone."
                    )
                self._add(entries, path.stem, validated(read_yaml(path), "family", str(path)), path)
        return {name: Family(name=name, **entry) for name, (entry, _) in entries.items()}

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Datasets by name; a dataset that names no suite is a suite of its own."""
        entries = self._entries("datasets")
        for name, entry in entries.items():
            if (other := entry.get("archives_of")) is not None:
                known_name(other, [key for key in entries if "archives_of" not in entries[key]], "dataset", name)
                entry |= {key: entries[other][key] for key in ("source", "sources") if key in entries[other]}
        datasets = {name: _dataset(name, entry) for name, entry in entries.items()}
        if NO_TARGET in datasets:
            raise UserError(f"datasets.yaml: '{NO_TARGET}' stands for no target and can't name a dataset; rename it.")
        return {name: self._checked_dataset(dataset) for name, dataset in datasets.items()}

    def _checked_dataset(self, dataset: Dataset) -> Dataset:
        keywords = keyword_arguments(self.layout_file(dataset.layout), "items")
        wanted = {key: kind for key, kind in keywords.items() if key not in LAYOUT_ARGUMENTS}
        where = f"datasets.yaml, {dataset.name}"
        return replace(dataset, settings=check_settings(dataset.settings, wanted, where, sweeps=False))

    @cached_property
    def models(self) -> dict[str, Model]:
        """Models by name."""
        return {
            name: Model(name=name, **{**entry, "families": tuple(entry["families"])})
            for name, entry in self._entries("models").items()
        }

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Methods by name, their settings checked against their mechanism's keyword arguments."""
        methods = {name: self._method(name, entry) for name, entry in self._entries("methods").items()}
        if PRETRAINED in methods:
            raise UserError(
                f"methods.yaml: '{PRETRAINED}' is the model before fine-tuning and needs no entry; rename it."
            )
        return {name: self._checked_method(method, methods) for name, method in methods.items()}

    @cached_property
    def sources(self) -> dict[str, Dataset | Model]:
        """Everything that is downloaded, by name: datasets and models, which share the folder data/raw."""
        for name in self.datasets.keys() & self.models.keys():
            raise UserError(f"'{name}' names both a dataset and a model, which share the folder data/raw; rename one.")
        return {name: entry for name, entry in {**self.datasets, **self.models}.items() if entry.raw == name}

    def _method(self, name: str, entry: dict) -> Method:
        mechanism = self.mechanism_file(entry["mechanism"])
        form, wanted = mechanism_settings(mechanism)
        start = entry.pop("starts_from", None)
        where = f"methods.yaml, {name}"
        if start and form != FINETUNE:
            raise UserError(f"{where}: starts_from is for methods that train; name what it merges in parents.")
        if entry["parents"] and form == FINETUNE:
            raise UserError(f"{where}: parents are for merges; name what it starts from in starts_from.")
        return Method(
            name=name,
            **{
                **entry,
                "form": form,
                "parents": (start,) if start else tuple(entry["parents"]),
                "types": tuple(entry["types"]),
                "settings": check_settings(entry["settings"], wanted, where),
            },
        )

    def _checked_method(self, method: Method, methods: dict[str, Method]) -> Method:
        where = f"methods.yaml, {method.name}"
        for parent in method.parents:
            known_name(parent, methods, "parent", where)
            if not methods[parent].trains:
                raise UserError(
                    f"{where}: its parent '{parent}' is itself a merge; name the methods it merges instead."
                )
            if method.trains and methods[parent].parents:
                raise UserError(
                    f"{where}: its start '{parent}' itself starts from another method; name one that doesn't."
                )
        return method

    def wanted_settings(self, method: Method) -> Mapping[str, str]:
        """Settings that a method's mechanism takes, with annotations."""
        return mechanism_settings(self.mechanism_file(method.mechanism))[1]

    def _entries(self, kind: str) -> dict[str, dict]:
        entries: dict[str, tuple[dict, Path]] = {}
        for folder in self.folders:
            path = folder / f"{kind}.yaml"
            if path.exists():
                for name, entry in validated(read_yaml(path), kind, str(path)).items():
                    for source in [entry.get("source"), *entry.get("sources", [])]:
                        if isinstance(source, dict) and source["kind"] in ("file", "folder"):
                            source["path"] = str(folder / from_home(source["path"], f"{path}, {name}"))
                    self._add(entries, name, entry, path)
        return {name: entry for name, (entry, _) in entries.items()}

    def _add(self, entries: dict, name: str, entry: dict, path: Path) -> None:
        if name in entries:
            raise UserError(f"{path}: '{name}' is defined in {entries[name][1]} already; rename one of the two.")
        entries[name] = (entry, path)

    def mechanism_file(self, mechanism: str) -> Path:
        """File of a method's mechanism: methods/<mechanism>.py of the library or of a user's folder."""
        return self._mechanisms[known_name(mechanism, self._mechanisms, "mechanism", "catalogue")]

    def layout_file(self, layout: str) -> Path:
        """File of a dataset's layout: data/layouts/<layout>.py of the library or layouts/ of a user's folder."""
        return self._layouts[known_name(layout, self._layouts, "layout", "catalogue")]

    @cached_property
    def _mechanisms(self) -> dict[str, Path]:
        return self._modules(LIBRARY / "methods", *(folder / "methods" for folder in self.folders))

    @cached_property
    def _layouts(self) -> dict[str, Path]:
        return self._modules(LIBRARY / "data/layouts", *(folder / "layouts" for folder in self.folders))

    def _modules(self, *folders: Path) -> dict[str, Path]:
        """Modules by name; looked up once, since every job of a grid asks."""
        found: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.glob("[a-z]*.py")):
                if path.stem in found:
                    raise UserError(
                        f"{path}: a module of this name is in {found[path.stem].parent} already; rename it."
                    )
                found[path.stem] = path
        return found

    def class_space(self, family: str) -> ClassSpace:
        """Class space of a family."""
        return self._space(**self.families[family].classes)

    def space(self, dataset: Dataset) -> ClassSpace:
        """Class space of a dataset: its own, or its family's.

        Raises:
            UserError: the family's is one of its own and the dataset's isn't, or the other way round; it has one class
                alone, among which nothing can be told apart.
        """
        space = whole = self.class_space(dataset.family)
        if dataset.classes and dataset.classes["format"] == "own":
            space = read_own_classes(self._class_file(dataset.classes["file"]), whole)
        elif dataset.classes:
            space = self._space(**dataset.classes)
        if space.outputs != whole.outputs:
            raise UserError(f"datasets.yaml, {dataset.name}: its classes are not its family's; give format own.")
        if len(space.keys) < 2:
            raise UserError(
                f"datasets.yaml, {dataset.name}: '{space.keys[0]}' is its only class, and images are told apart among two or "
                "more; add to its class file."
            )
        return space

    def _read_space(self, file: str, format: str) -> ClassSpace:
        return read_timm_list(file) if format == "timm" else CLASS_READERS[format](self._class_file(file))

    def table(self, name: str, columns: Iterable[str], numbers: Iterable[str]) -> list[dict[str, str]]:
        """Rows of a CSV file that each catalogue folder may have.

        Args:
            name: the file.
            columns: that it must have.
            numbers: columns that must hold numbers.

        Raises:
            UserError: one holds something else; the sentence names file and line.
        """
        paths = [folder / name for folder in self.folders if is_file(folder / name)]
        rows = [(path, line, row) for path in paths for line, row in read_table(path, columns)]
        for path, line, row in rows:
            for column in numbers:
                if not is_number(_number(row[column])):
                    raise UserError(f"{path} line {line}: {column} is '{row[column]}'; give a number.")
        return [row for _, _, row in rows]

    def icons(self, dataset: Dataset) -> dict[str, str]:
        """Icon name by codepoint for a set whose package has no such table; empty for the others."""
        if dataset.icons_file is None:
            return {}
        table = read_table(self._class_file(dataset.icons_file), ("codepoint", "icon"))
        return {row["codepoint"]: row["icon"] for _, row in table}

    def _class_file(self, name: str) -> Path:
        for folder in self.folders:
            if is_file(folder / "classes" / name):
                return folder / "classes" / name
        raise UserError(f"the class file classes/{name} is in none of the catalogue folders; add it to one.")


def _dataset(name: str, entry: dict) -> Dataset:
    raw = entry.get("archives_of", name)
    sources = tuple({"file": f"{raw}.tar", **source} for source in entry.get("sources") or [entry["source"]])
    files = [source["file"] for source in sources]
    for file in files:
        if files.count(file) > 1:
            raise UserError(
                f"datasets.yaml, {name}: two of its sources have the file {file}; give each a name by file."
            )
    rest = {key: value for key, value in entry.items() if key not in ("archives_of", "source", "sources")}
    return Dataset(name=name, raw=raw, **{**rest, "sources": sources, "suite": entry.get("suite", name)})


@cache
def mechanism_settings(path: Path) -> tuple[str, Mapping[str, str]]:
    """What a mechanism is, and the settings that a method's entry must give, with annotations.

    Of a merge the keyword-only arguments of its function (`recipe`, `curve` or `select`); else of the constructor
    of the class marked with `@mechanism`, where `**common` stands for those of FineTuning. Read from the source,
    since importing it would import torch.
    """
    for node in _source(path).body:
        if isinstance(node, ast.FunctionDef) and node.name in MERGES:
            return node.name, _keywords(node)
        marks = getattr(node, "decorator_list", [])
        if isinstance(node, ast.ClassDef) and any(getattr(mark, "id", None) == "mechanism" for mark in marks):
            return FINETUNE, _constructor_settings(node)
    raise UserError(f"{path} has neither a class marked with @mechanism nor a function {', '.join(MERGES)}; add one.")


def _source(path: Path) -> ast.Module:
    """A module's source.

    Raises:
        UserError: it can't be read or is no Python; the sentence names file and line.
    """
    try:
        return ast.parse(_text(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{path}{line} is no Python ({getattr(error, 'msg', error)}); correct it.") from error


def _constructor_settings(node: ast.ClassDef) -> Mapping[str, str]:
    init = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    own = _keywords(init) if init else {}
    return own if init and init.args.kwarg is None else {**own, **_common_settings()}


@cache
def _common_settings() -> Mapping[str, str]:
    """Settings of every method that trains weights: the constructor's of FineTuning."""
    body = _source(LIBRARY / "methods/_base.py").body
    base = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == "FineTuning")
    return _keywords(next(part for part in base.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"))


@cache
def keyword_arguments(path: Path, function: str) -> Mapping[str, str]:
    """Keyword-only arguments of a module's function, with annotations.

    Raises:
        UserError: the module has no such function.
    """
    for node in _source(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return _keywords(node)
    raise UserError(f"{path} has no function '{function}'; add it.")


def _keywords(function: ast.FunctionDef) -> Mapping[str, str]:
    return {part.arg: ast.unparse(part.annotation) if part.annotation else "" for part in function.args.kwonlyargs}
