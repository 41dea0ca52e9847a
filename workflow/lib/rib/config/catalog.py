"""The catalogue: facts about families, datasets, models and methods, read from YAML. No torch.

A catalogue folder contains families/<name>.yaml, datasets.yaml, models.yaml, methods.yaml, recipes.yaml, classes/ and,
for custom algorithms, layouts/<layout>.py and methods/<algorithm>.py; all of them are optional. The project's folder
comes first, followed by folders of the user. A name may be defined only once.
"""

import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import from_home
from rib.base.plugins import LIBRARY, shipped
from rib.base.text import WHY, presentable, redacted
from rib.config.entries import (
    CURVE,
    EXTERNAL,
    FINETUNE,
    MERGES,
    SELECT,
    Dataset,
    Family,
    Method,
    Model,
    Recipe,
)
from rib.config.label_space import READERS, LabelSpace, read_own_classes, read_table, read_timm_list
from rib.config.model_names import LOCK, entry_of, parse_name, read_lock, resolve, validated_models
from rib.config.run import ALL, METHODS, TARGETS
from rib.config.schema import known_name, load_schema, number, read_yaml, validated
from rib.config.settings import (
    BASE,
    RECIPE,
    TRAINING,
    Setting,
    algorithm_settings,
    check_settings,
    signature_of,
)
from rib.config.values import is_number, show

PROJECT_CATALOG = shipped("catalog")
FAMILY_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")  # a file name, which the schema cannot check
TABLES, MARKERS = "config, external", "Hx+8234"  # markers of methods.yaml are others
# Of these tables; the last two may be left out.
COLUMNS = ("model", "target", "method", "seed", "file", "size", "label")


class Catalog:
    """Entries of catalogue folders, the project's and then the user's, each read at most once, when needed.

    Raises:
        UserError: A folder does not exist, an entry is invalid, or a name is defined twice.
    """

    def __init__(self, folders: Iterable[Path], tables: Iterable[str] = ()):
        self.folders = [Path(folder) for folder in folders]
        self.tables = [from_home(table, TABLES) for table in tables]
        self._space = cache(self._read_label_space)  # every job of a grid needs it
        self.urls: dict[
            tuple[str, str], list[str]
        ] = {}  # by entry and file; entries have them without query strings
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(f"catalog: the folder {folder} does not exist; correct the path.")
            if not os.access(folder, os.R_OK | os.X_OK):
                raise UserError(
                    f"catalog: the folder {folder} is not readable; change its permissions."
                )
        self._algorithms = _modules(
            LIBRARY / "methods", *(folder / "methods" for folder in self.folders)
        )
        self._layouts = _modules(
            LIBRARY / "data/layouts", *(folder / "layouts" for folder in self.folders)
        )

    @cached_property
    def families(self) -> dict[str, Family]:
        """Families by name, which is the name of the file."""
        entries: dict[str, tuple[dict, Path]] = {}
        for path in [
            path for folder in self.folders for path in sorted(folder.glob("families/*.yaml"))
        ]:
            if not FAMILY_NAME.fullmatch(path.stem):
                raise UserError(
                    f"{path}: the file name is the name of the family; use only letters, digits and _."
                )
            _add(entries, path.stem, validated(read_yaml(path), "family", str(path)), path)
        return {name: _family(name, entry) for name, (entry, _) in entries.items()}

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Datasets by name; a dataset without an evaluation_group forms one alone."""
        entries = self._entries("datasets")
        sources = {
            name: entry.pop("sources", None) or [entry.pop("source")]
            for name, entry in entries.items()
            if "archives_of" not in entry
        }
        return {name: self._dataset(name, entry, sources) for name, entry in entries.items()}

    def datasets_of(self, family: Family, *roles: str) -> dict[str, Dataset]:
        """Datasets of a family with one of the roles."""
        return {
            name: e
            for name, e in self.datasets.items()
            if e.family == family.name and e.role in roles
        }

    def _dataset(self, name: str, entry: dict, sources: Mapping[str, list[dict]]) -> Dataset:
        where = f"datasets.yaml, {name}"
        raw = known_name(entry.pop("archives_of", name), sources, "dataset", name)
        named = tuple({"file": f"{raw}.tar", **source} for source in sources[raw])
        files = [source["file"] for source in named]
        if twice := [file for file in files if files.count(file) > 1]:
            raise UserError(
                f"{where}: two of its sources have the file name {twice[0]}; set file to different names."
            )
        _, known = signature_of(self.layout_file(entry["layout"]), "items")
        settings = check_settings(entry.pop("settings"), known, where, sweeps=False)
        return Dataset(
            name=name,
            raw=raw,
            sources=named,
            settings=settings,
            **{"evaluation_group": name, **entry},
        )

    @cached_property
    def models(self) -> dict[str, Model]:
        """Models by name; `add_models` adds others."""
        return {name: Model(name=name, **entry) for name, entry in self._entries("models").items()}

    @cached_property
    def records(self) -> dict[str, dict]:
        """Facts of models that the lock files of the catalogue folders and of the project have, by name."""
        files = [*(folder / LOCK.name for folder in self.folders), LOCK]
        return {name: facts for file in files for name, facts in read_lock(file).items()}

    def add_models(self, names: Collection[str]) -> dict[str, str]:
        """Add models by the libraries' and the hub's names; the name in `models` by name, that of an entry if there is one.

        Raises:
            UserError: A name cannot be resolved, or its short form is taken.
        """
        records = {name: self.records.get(name, {}).get("source", {}) for name in names}
        self.records.update(
            resolve(name for name in names if not records[name].keys() & {"revision", "digest"})
        )
        found = {model.record: name for name, model in self.models.items() if model.record}
        for name in names:
            if name not in found:
                short = parse_name(name).short
                if short in self.models:
                    raise UserError(
                        f"config, models: '{name}' is called '{short}' here, as another model is; choose one."
                    )
                recorded = {"record": name, **entry_of(name, self.records[name])}
                entry = validated_models({short: recorded}, str(LOCK))
                self.models[short], found[name] = Model(name=short, **entry[short]), short
        return found

    def _with_records(self, entries: object) -> object:
        """Entries of models with the facts of the records that they name."""
        if not isinstance(entries, dict):
            return entries
        names = {
            key: str(own["record"])
            for key, own in entries.items()
            if isinstance(own, dict) and "record" in own
        }
        self.records.update(resolve(name for name in names.values() if name not in self.records))
        return entries | {key: self.records[name] | entries[key] for key, name in names.items()}

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        order = load_schema("recipes")["additionalProperties"]["properties"]
        entries = {
            name: {key: own[key] for key in order} for name, own in self._entries("recipes").items()
        }
        return {
            name: Recipe(own.pop("label"), own.pop("source"), own) for name, own in entries.items()
        }

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Methods by name, with settings checked against the keyword arguments of their algorithm."""
        methods = {
            name: self._method(name, entry) for name, entry in self._entries("methods").items()
        }
        for name, method in methods.items():
            where = f"methods.yaml, {name}"
            for parent in method.parents:
                if methods[known_name(parent, methods, "parent", where)].form in MERGES:
                    raise UserError(
                        f"{where}: its parent '{parent}' is itself a merge; list the methods that it merges instead."
                    )
                if method.trains and methods[parent].parents:
                    raise UserError(
                        f"{where}: starts_from '{parent}' itself starts from another method; choose one that does not."
                    )
        return methods

    @cached_property
    def external(self) -> dict[str, dict]:
        """Rows of the tables of weights that were trained elsewhere, by the run's text, with `path` and place (`where`)."""
        rows = {}
        for table in self.tables:
            for where, row in read_table(table, COLUMNS[:5]):
                size = row.get("size") or ALL
                for column in row:
                    known_name(column, COLUMNS, "column", where)
                if not re.fullmatch("[0-9]+", row["seed"]):
                    raise UserError(
                        f"{where}: the seed is {show(row['seed'])}; give a whole number."
                    )
                run = "/".join((row["model"], row["target"], row["method"], size, row["seed"]))
                if run in rows:
                    raise UserError(
                        f"{where}: {run} is in {rows[run]['where']} too; remove one of these rows."
                    )
                rows[run] = {
                    **row,
                    "size": size,
                    "where": where,
                    "path": table.parent / from_home(row["file"], where),
                }
        return rows

    @cached_property
    def sources(self) -> dict[str, Dataset | Model]:
        """Datasets and models with downloads of their own, by name; they share the folder data/raw."""
        for name in self.datasets.keys() & self.models.keys():
            raise UserError(
                f"'{name}' is both a dataset and a model, which share the folder data/raw; rename one."
            )
        return {
            name: entry
            for name, entry in {**self.datasets, **self.models}.items()
            if entry.raw == name
        }

    def _method(self, name: str, entry: dict) -> Method:
        form, known = algorithm_settings(self.algorithm_file(entry["algorithm"]))
        start = entry.pop("starts_from", None)
        where = f"methods.yaml, {name}"
        if start and form != FINETUNE:
            raise UserError(
                f"{where}: starts_from is only for methods that train; list the merged methods in parents."
            )
        if entry["parents"] and form == FINETUNE:
            raise UserError(
                f"{where}: parents is only for merges; use starts_from for the method that it starts from."
            )
        over = entry["over"]
        if over != METHODS and form not in MERGES:
            raise UserError(f"{where}: over is only for merges.")
        if over == TARGETS and form in (CURVE, SELECT):
            raise UserError(
                f"{where}: over: targets is not for a {form}: there is no target to select or trace it on."
            )
        parents = (start,) if start else tuple(entry["parents"])
        if entry["recipes"] and form != FINETUNE:
            raise UserError(
                f"{where}: recipes is only for methods that train; a merge has those of its parents."
            )
        if form == FINETUNE and (taken := sorted(known.keys() & TRAINING.keys())):
            raise UserError(
                f"{where}: its algorithm has a setting '{taken[0]}', as all training has; rename it."
            )
        known = {**known, **TRAINING} if form == FINETUNE else known
        settings = check_settings(entry["settings"], known, where, later=("lr", *TRAINING))
        of_recipe = {
            key: setting for key, setting in known.items() if key != RECIPE
        }  # a recipe can't name another
        recipes = {
            known_name(recipe, self.recipes, RECIPE, where): check_settings(
                own, of_recipe, f"{where}, recipes, {recipe}", complete=False
            )
            for recipe, own in entry["recipes"].items()
        }
        entry |= {"form": form, "parents": parents, "types": tuple(entry["types"])}
        return Method(name=name, **{**entry, "settings": settings, "recipes": recipes})

    def settings_of(self, method: Method) -> Mapping[str, Setting]:
        """Settings of a method: those of its algorithm and, if it trains, of how it is trained."""
        known = algorithm_settings(self.algorithm_file(method.algorithm))[1]
        return {**known, **TRAINING} if method.trains else known

    def _entries(self, kind: str) -> dict[str, dict]:
        entries: dict[str, tuple[dict, Path]] = {}
        for path in filter(Path.exists, [folder / f"{kind}.yaml" for folder in self.folders]):
            own = read_yaml(path)
            if kind == "models":
                checked = validated_models(self._with_records(own), str(path))
            else:
                checked = validated(own, kind, str(path))
            for name, entry in checked.items():
                stated = own[name].keys() & {
                    "source",
                    "sources",
                }  # paths of records are relative to the project
                for source in [entry.get("source"), *entry.get("sources", [])] if stated else []:
                    if isinstance(source, dict) and source["kind"] in ("file", "folder"):
                        source["path"] = str(
                            path.parent / from_home(source["path"], f"{path}, {name}")
                        )
                    elif isinstance(source, dict) and source["kind"] == "http":
                        self.urls[name, source["file"]] = source["urls"]
                        source["urls"] = list(map(redacted, source["urls"]))
                _add(entries, name, entry, path)
        if kind == "methods":
            for name, entry in self._external_methods().items():
                _add(entries, name, entry, Path(TABLES))
        return {name: entry for name, (entry, _) in entries.items()}

    def _external_methods(self) -> dict[str, dict]:
        """Entries of the methods that the tables name."""
        labels = {row["method"]: row["method"] for row in self.external.values()}
        labels |= {
            row["method"]: row["label"]
            for row in reversed(self.external.values())
            if row.get("label")
        }
        shared = {"algorithm": EXTERNAL, "source": "trained elsewhere"}
        styles = ({"colour": "#000000", "marker": marker} for marker in itertools.cycle(MARKERS))
        entries = {
            name: {"label": labels[name], **shared, "style": next(styles)} for name in labels
        }
        return validated(entries, "methods", TABLES)

    def algorithm_file(self, algorithm: str) -> Path:
        """File of a method's algorithm: methods/<algorithm>.py of the library or of a user's folder."""
        return self._algorithms[known_name(algorithm, self._algorithms, "algorithm", "catalogue")]

    def layout_file(self, layout: str) -> Path:
        """File of a dataset's layout: data/layouts/<layout>.py of the library or layouts/ of a user's folder."""
        return self._layouts[known_name(layout, self._layouts, "layout", "catalogue")]

    def family_label_space(self, family: str) -> LabelSpace:
        return self._space(**self.families[family].classes)

    def label_space(self, dataset: Dataset) -> LabelSpace:
        """Label space of a dataset: its own, or its family's; preparation restricts it if classes are per dataset.

        Raises:
            UserError: Only one of dataset and family has format own, or the space has only one class or names that can't be shown.
        """
        where = f"datasets.yaml, {dataset.name}"
        space = whole = self.family_label_space(dataset.family)
        if dataset.classes and dataset.classes["format"] == "own":
            space = read_own_classes(self._class_file(dataset.classes["file"]), whole)
        elif dataset.classes:
            space = self._space(**dataset.classes)
        if space.num_classes != whole.num_classes:
            raise UserError(f"{where}: its classes are not those of its family; use format own.")
        if len(space.keys) < 2:
            raise UserError(
                f"{where}: '{space.keys[0]}' is its only class; add more to its class file."
            )
        if unfit := [text for text in (*space.keys, *space.names) if not presentable(text)]:
            raise UserError(
                f"{where}: its class {show(unfit[0])} is not valid ({WHY}); rename it in its class file."
            )
        return space

    def _read_label_space(self, file: str, format: str) -> LabelSpace:
        return read_timm_list(file) if format == "timm" else READERS[format](self._class_file(file))

    def table(
        self, name: str, columns: Iterable[str], numbers: Iterable[str]
    ) -> list[dict[str, str]]:
        """Rows of a CSV file that each catalogue folder may contain.

        Raises:
            UserError: One lacks a column, or one of `numbers` contains something else; the message names file and line.
        """
        paths = [folder / name for folder in self.folders if (folder / name).is_file()]
        rows = [found for path in paths for found in read_table(path, columns)]
        for (where, row), column in itertools.product(rows, numbers):
            if not is_number(number(row[column])):
                raise UserError(f"{where}: {column} is '{row[column]}'; give a number.")
        return [row for _, row in rows]

    def icons(self, dataset: Dataset) -> dict[str, str]:
        """Icon name by codepoint, for datasets whose package has no such table; empty for the others."""
        if dataset.icons_file is None:
            return {}
        table = read_table(self._class_file(dataset.icons_file), ("codepoint", "icon"))
        return {row["codepoint"]: row["icon"] for _, row in table}

    def _class_file(self, name: str) -> Path:
        for folder in self.folders:
            if (folder / "classes" / name).is_file():
                return folder / "classes" / name
        raise UserError(
            f"the class file classes/{name} is not in any catalogue folder; add it to one."
        )


def _family(name: str, entry: dict) -> Family:
    threshold = entry["fit_threshold"]
    return Family(
        name=name, **{**entry, "fit_threshold": None if threshold == "none" else threshold}
    )


def _add(entries: dict, name: str, entry: dict, path: Path) -> None:
    if name in entries:
        raise UserError(
            f"{path}: '{name}' is already defined in {entries[name][1]}; rename one of them."
        )
    entries[name] = (entry, path)


def _modules(*folders: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in [
        path for folder in folders for path in sorted({*folder.glob("[a-z]*.py")} - {BASE})
    ]:
        if path.stem in found:
            raise UserError(
                f"{path}: {found[path.stem].parent} already contains a module of this name; rename it."
            )
        found[path.stem] = path
    return found
