"""The catalogue: facts about families, datasets, models and methods, read from YAML. No torch.

A catalogue folder contains families/<name>.yaml, datasets.yaml, models.yaml, methods.yaml,
recipes.yaml, augmentations.yaml, classes/ and, for custom algorithms, layouts/<layout>.py and
methods/<algorithm>.py; all of them are optional. The project's folder comes first, followed by
folders of the user. A name may be defined only once.
"""

import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from rib.base.appearance import BLACK
from rib.base.errors import UserError
from rib.base.files import from_home
from rib.base.plugins import LIBRARY, WORKFLOW
from rib.base.text import WHY, presentable
from rib.config import hub_datasets
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
    Parts,
    Schedule,
)
from rib.config.hub_datasets import (
    HubRepository,
    parsed_source,
    read_dataset_lock,
    request_of,
    resolve_requests,
    sources_of,
)
from rib.config.label_space import (
    READERS,
    LabelSpace,
    read_csv_rows,
    read_own_classes,
    read_timm_list,
)
from rib.config.model_names import LOCK, entry_of, parse_name, read_lock, resolve, validated_models
from rib.config.run import ALL, METHODS, TARGETS
from rib.config.schema import load_schema, number, read_yaml, validated
from rib.config.settings import (
    RECIPE,
    check_settings,
    known_settings,
    refuse_other_than_json,
    settings_of_entry,
)
from rib.config.sources import ADDRESSES, redacted_addresses
from rib.config.values import is_number, known_name, show

PROJECT_CATALOG = WORKFLOW / "catalog"
BASE = LIBRARY / "methods/base.py"  # the class of all methods that train, no algorithm itself
FAMILY_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")  # a file name, which the schema cannot check
# Settings of layouts that list all levels of a slice, by the slice's column of the index.
LISTS_LEVELS = {"corruption": "corruptions", "severity": "severities"}
PHOTOS = "photos"  # setting of a layout that takes its photos from another one
TABLES = "config, external"  # the key that lists tables of weights that were trained elsewhere
MARKERS = "Hx+8234"  # of the methods in these tables; markers of methods.yaml are others
# Columns of these tables.
REQUIRED_COLUMNS = ("model", "target", "method", "seed", "file")
OPTIONAL_COLUMNS = ("size", "label")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
# Of models that are pretrained here without a recipe.
SGD_OF_PRETRAINING = {"momentum": 0.9, "weight_decay": 0.0, "warmup_fraction": 0.1}


class Catalog:
    """Entries of catalogue folders, each folder read at most once, when it is needed.

    Args:
        folders: the project's folder, then those of the user.
        tables: CSV files that list weights that were trained elsewhere.

    Raises:
        UserError: A folder does not exist, an entry is invalid, or a name is defined twice.
    """

    def __init__(self, folders: Iterable[Path], tables: Iterable[str] = ()):
        """Check that the folders can be read, and find modules in them; entries are read later."""
        self.folders = [Path(folder) for folder in folders]
        self.tables = [from_home(table, TABLES) for table in tables]
        self._space = cache(self._read_label_space)  # every job of a grid needs it
        # Keys of sources with addresses, by entry and file; the entries have them without query
        # strings.
        self._addresses: dict[tuple[str, str], dict[str, Any]] = {}
        # Sources as written of datasets that name repositories of the hub, see `hub_sources`.
        self._hub_sources: dict[str, list[dict[str, Any]]] = {}
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(f"catalog: the folder {folder} does not exist; correct the path.")
            if not os.access(folder, os.R_OK | os.X_OK):
                raise UserError(
                    f"catalog: the folder {folder} is not readable; change its permissions."
                )
        algorithm_folders = [folder / "methods" for folder in self.folders]
        self._algorithms = _modules_by_name([LIBRARY / "methods", *algorithm_folders])
        layout_folders = [folder / "layouts" for folder in self.folders]
        self._layouts = _modules_by_name([LIBRARY / "data/layouts", *layout_folders])

    @cached_property
    def families(self) -> dict[str, Family]:
        """Families by name, which is the name of the file."""
        entries: dict[str, tuple[dict[str, Any], Path]] = {}
        for folder in self.folders:
            for path in sorted(folder.glob("families/*.yaml")):
                if not FAMILY_NAME.fullmatch(path.stem):
                    raise UserError(
                        f"{path}: the file name is the name of the family; use only letters, "
                        "digits and _."
                    )
                entry = validated(read_yaml(path), "family", str(path))
                _add_entry(entries, path.stem, entry, path)
        families = {}
        for name, (entry, _) in entries.items():
            if entry["fit_threshold"] == "none":  # as users write it
                entry["fit_threshold"] = None
            families[name] = Family(name=name, **entry)
        return families

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Datasets by name; a dataset without an evaluation_group forms one alone.

        Those that name repositories of the hub have no sources until `add_hub_files` adds them.

        Raises:
            UserError: An entry is invalid, or the dataset whose archives it uses is unknown or has
                none of its own.
        """
        entries = self._entries("datasets")
        # An entry has one source, several sources, or the name of a dataset whose archives it uses.
        sources_by_dataset = {}
        for name, entry in entries.items():
            if "archives_of" in entry:
                where = f"datasets.yaml, {name}, archives_of"
                raw = known_name(entry["archives_of"], entries, "dataset", where)
                if "archives_of" in entries[raw]:
                    raise UserError(
                        f"{where}: '{raw}' has archives_of itself, so no archives of its own; name "
                        "a dataset that has a source."
                    )
                continue
            if "sources" in entry:
                sources_by_dataset[name] = entry.pop("sources")
            else:
                sources_by_dataset[name] = [entry.pop("source")]
        for name, sources in sources_by_dataset.items():
            if any(source["kind"] == hub_datasets.KIND for source in sources):
                self._hub_sources[name] = sources
        datasets = {}
        for name, entry in entries.items():
            datasets[name] = self._dataset(name, entry, sources_by_dataset)
        return datasets

    def datasets_of(self, family: Family, *roles: str) -> dict[str, Dataset]:
        """Datasets of a family with one of the roles."""
        return {
            name: dataset
            for name, dataset in self.datasets.items()
            if dataset.family == family.name and dataset.role in roles
        }

    def _dataset(
        self,
        name: str,
        entry: dict[str, Any],
        sources_by_dataset: Mapping[str, list[dict[str, Any]]],
    ) -> Dataset:
        """The dataset that an entry of datasets.yaml defines, with checked settings.

        Args:
            name: that of the dataset.
            entry: its keys without sources; archives_of and settings are removed from it.
            sources_by_dataset: sources of archives, by the dataset that they belong to.

        Raises:
            UserError: Two archives have one file name, or a setting of its layout is not valid.
        """
        where = f"datasets.yaml, {name}"
        raw = entry.pop("archives_of", name)  # the dataset whose archives it uses
        sources = []
        if raw not in self._hub_sources:  # otherwise `add_hub_files` adds them
            for source in sources_by_dataset[raw]:
                sources.append({"file": f"{raw}.tar", **source})  # a source may name its file
        _refuse_equal_files(sources, where)
        self.layout_file(entry["layout"])  # refuses an unknown one
        settings = entry.pop("settings")
        self.check_layout_settings(settings, where)
        if "parts" in entry:
            entry["parts"] = _parts_of(entry, settings, where)
        entry.setdefault("evaluation_group", name)
        return Dataset(name=name, raw=raw, sources=tuple(sources), settings=settings, **entry)

    @property
    def hub_sources(self) -> dict[str, list[dict[str, Any]]]:
        """Sources, as written, of datasets that name repositories of the hub, by dataset."""
        _ = self.datasets  # which finds them
        return self._hub_sources

    @cached_property
    def hub_repositories(self) -> dict[str, HubRepository]:
        """What lock files of the catalogue folders and the project have of repositories, by name.

        Of several files that have a repository, the last one counts; that is the project's.
        """
        repositories: dict[str, HubRepository] = {}
        for folder in self.folders:
            repositories.update(read_dataset_lock(folder / hub_datasets.LOCK.name))
        repositories.update(read_dataset_lock(hub_datasets.LOCK))
        return repositories

    def add_hub_files(self, names: Iterable[str]) -> None:
        """Add the files of repositories of the hub to the sources of datasets that name them.

        Only files that no lock file has are asked of the hub, so that datasets that no run reads
        need neither.

        Args:
            names: names of datasets of any kind.

        Raises:
            UserError: A repository, config or split can't be resolved.
        """
        names_of_hub = [name for name in names if self.datasets[name].raw in self.hub_sources]
        requests = []
        for raw in dict.fromkeys(self.datasets[name].raw for name in names_of_hub):
            where = f"datasets.yaml, {raw}"
            if not self.datasets[raw].fetched:
                where += " (not yet fetched by us)"
            for source in self.hub_sources[raw]:
                if source["kind"] == hub_datasets.KIND:
                    request = request_of(source, where, self.hub_repositories)
                    if request is not None:
                        requests.append(request)
        if requests:
            self.hub_repositories.update(resolve_requests(requests, self.hub_repositories))
        for name in names_of_hub:
            self.datasets[name] = self._with_hub_files(self.datasets[name])

    def _with_hub_files(self, dataset: Dataset) -> Dataset:
        """A dataset with the files that its entry chooses of repositories of the hub."""
        sources: list[dict[str, Any]] = []
        gated_repositories = []
        licences = []
        for source in self.hub_sources[dataset.raw]:
            if source["kind"] != hub_datasets.KIND:
                sources.append({"file": f"{dataset.raw}.tar", **source})
                continue
            sources.extend(sources_of(source, self.hub_repositories))
            name = hub_datasets.name_of(source["repo"], source.get("revision"))
            repository = self.hub_repositories[name]
            licences.append(repository.licence)
            if repository.gated:
                gated_repositories.append(source["repo"])
        _refuse_equal_files(sources, f"datasets.yaml, {dataset.raw}")
        return replace(
            dataset,
            sources=tuple(sources),
            gated_repositories=tuple(dict.fromkeys(gated_repositories)),
            licences_on_hub=tuple(dict.fromkeys(licences)),
        )

    def check_layout_settings(self, settings: Mapping[str, Any], where: str) -> None:
        """Check a layout's settings as far as its module isn't needed; preparation checks the rest.

        Args:
            settings: of a dataset's entry. `photos` names the layout from which this one takes its
                photos, and the settings of that one.
            where: file and entry, for messages.

        Raises:
            UserError: A setting is an empty list or no value of JSON, or `photos` does not have the
                keys `layout` and `settings`, or names a layout that is unknown or takes its photos
                from another one itself.
        """
        for name, setting in settings.items():
            if not isinstance(name, str):
                raise UserError(f"{where}: unknown setting {show(name)}; give its name as text.")
            refuse_other_than_json(setting, f"{where}: the setting '{name}'")
        if PHOTOS not in settings:
            return
        photos = settings[PHOTOS]
        where = f"{where}, {PHOTOS}"
        if not isinstance(photos, dict) or not isinstance(photos.get("layout"), str):
            raise UserError(f"{where}: give the layout of the photos, and its settings.")
        for key in photos:
            known_name(key, ("layout", "settings"), "key", where, "allowed")
        self.layout_file(photos["layout"])
        settings_of_photos = photos.get("settings", {})
        if not isinstance(settings_of_photos, dict):
            raise UserError(f"{where}: give the settings by name.")
        if PHOTOS in settings_of_photos:
            raise UserError(
                f"{where}: '{photos['layout']}' takes its photos from another layout itself; give "
                "that one."
            )
        self.check_layout_settings(settings_of_photos, where)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Models by name; `add_models` adds others."""
        models = {}
        for name, entry in self._entries("models").items():
            if "pretrain" in entry:
                entry["pretrain"] = self._pretraining(entry["pretrain"], f"models.yaml, {name}")
            models[name] = Model(name=name, **entry)
        return models

    def _pretraining(self, pretrain: dict[str, Any], where: str) -> dict[str, Any]:
        """How a model is pretrained here, with the defaults of SGD if it names no recipe.

        A recipe states these itself, so an entry has either a recipe or settings of SGD. In place
        of the name of an augmentation there is what its entry says of images, so that its change
        trains again.

        Args:
            pretrain: `pretrain` of the model's entry.
            where: file and entry, for messages.

        Raises:
            UserError: The recipe or the augmentation is unknown, or a key is given that is the
                recipe's.
        """
        if "augmentation" in pretrain:
            name = pretrain["augmentation"]
            known_name(name, self.augmentations, "augmentation", f"{where}, pretrain.augmentation")
            pretrain = {**pretrain, "augmentation": self.augmentations[name]}
        if "recipe" not in pretrain:
            return {**SGD_OF_PRETRAINING, **pretrain}
        recipe = pretrain["recipe"]
        known_name(recipe, self.recipes, "recipe", f"{where}, pretrain.recipe")
        keys_of_recipe = [*SGD_OF_PRETRAINING]
        if self.recipes[recipe].training["augmentation"]:
            keys_of_recipe.append("augmentation")
        for key in keys_of_recipe:
            if key in pretrain:
                raise UserError(
                    f"{where}: pretrain.{key} is set by the recipe '{recipe}'; leave out one of "
                    "the two."
                )
        return pretrain

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """Facts of models by name, from lock files of the catalogue folders and the project.

        Of several files that have a model, the last one counts; that is the project's.
        """
        facts_by_name: dict[str, dict[str, Any]] = {}
        for folder in self.folders:
            facts_by_name.update(read_lock(folder / LOCK.name))
        facts_by_name.update(read_lock(LOCK))
        return facts_by_name

    def add_models(self, names: Collection[str]) -> dict[str, str]:
        """Add models by the libraries' and the hub's names.

        Returns:
            The name in `models` of each model by its record's name: that of an entry if there is
            one, else the short form.

        Raises:
            UserError: A name cannot be resolved, or its short form is taken.
        """
        unresolved = []
        for name in names:
            source = self.records.get(name, {}).get("source", {})
            is_pinned = "revision" in source or "digest" in source
            if not is_pinned:
                unresolved.append(name)
        self.records.update(resolve(unresolved))
        name_by_record = {model.record: name for name, model in self.models.items() if model.record}
        for name in names:
            if name in name_by_record:
                continue
            short = parse_name(name).short  # for paths
            if short in self.models:
                raise UserError(
                    f"config, models: '{name}' is called '{short}' here, as another model is; "
                    "choose one."
                )
            entry = {"record": name, **entry_of(name, self.records[name])}
            validated_entries = validated_models({short: entry}, str(LOCK))
            self.models[short] = Model(name=short, **validated_entries[short])
            name_by_record[name] = short
        return name_by_record

    def _with_records(self, entries: object) -> object:
        """Entries of models.yaml, completed with what the lock files know of these models.

        An entry may name its record there, such as `record: timm/resnet18`. It overrides facts of
        the record. Records that no lock file has are looked up, and added to the project's.

        Args:
            entries: models.yaml as it was read, which may be anything.
        """
        if not isinstance(entries, dict):
            return entries
        record_of_entry = {}
        for name, entry in entries.items():
            if isinstance(entry, dict) and "record" in entry:
                record_of_entry[name] = str(entry["record"])
        missing_records = [
            record for record in record_of_entry.values() if record not in self.records
        ]
        self.records.update(resolve(missing_records))
        completed = dict(entries)
        for name, record in record_of_entry.items():
            completed[name] = self.records[record] | entries[name]
        return completed

    @cached_property
    def recipes(self) -> dict[str, Schedule]:
        """Schedules of training by name, from recipes.yaml.

        Their settings, all but label and source, are in the order of the schema.
        """
        keys_in_order = load_schema("recipes")["additionalProperties"]["properties"]
        keys_of_training = [key for key in keys_in_order if key not in ("label", "source")]
        schedules = {}
        for name, entry in self._entries("recipes").items():
            training = {key: entry[key] for key in keys_of_training}
            schedules[name] = Schedule(entry["label"], entry["source"], training)
        return schedules

    @cached_property
    def augmentations(self) -> dict[str, dict[str, Any]]:
        """Random transforms of images in pretraining by name, from augmentations.yaml.

        Each has the keys of its entry that images depend on, such as {"most": 1, "transforms":
        {"invert": {}, "noise": {"sigma": 0.1}}}.

        Raises:
            UserError: An entry is not valid, or `most` is more than the number of its transforms.
        """
        augmentations = {}
        for name, entry in self._entries("augmentations").items():
            most = entry["most"]
            transforms = entry["transforms"]
            if most > len(transforms):
                raise UserError(
                    f"augmentations.yaml, {name}: most is {most}; give {len(transforms)}, the "
                    "number of its transforms, or less."
                )
            augmentations[name] = {"most": most, "transforms": transforms}
        return augmentations

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Methods by name."""
        methods = {}
        for name, entry in self._entries("methods").items():
            methods[name] = self._method(name, entry)
        for name, method in methods.items():
            where = f"methods.yaml, {name}"
            for parent in method.parents:
                known_name(parent, methods, "parent", where)
                if methods[parent].form in MERGES:
                    raise UserError(
                        f"{where}: its parent '{parent}' is itself a merge; list the methods that "
                        "it merges instead."
                    )
                if method.trains and methods[parent].parents:
                    raise UserError(
                        f"{where}: starts_from '{parent}' itself starts from another method; "
                        "choose one that does not."
                    )
        return methods

    @cached_property
    def external(self) -> dict[str, dict[str, Any]]:
        """Rows of the user's tables that list weights which were trained elsewhere.

        They are by run, such as `resnet18/sketch/ft/all/0`. Besides its cells by column, each row
        has `path`, the file of the weights, and `where`, its own file and line.

        Raises:
            UserError: A column is unknown or missing, a seed is no whole number or has zeros in
                front, or two rows are of one run.
        """
        rows: dict[str, dict[str, Any]] = {}
        for table in self.tables:
            for where, row in read_csv_rows(table, REQUIRED_COLUMNS):
                for column in row:
                    known_name(column, COLUMNS, "column", where)
                if not re.fullmatch("0|[1-9][0-9]*", row["seed"]):
                    raise UserError(
                        f"{where}: the seed is {show(row['seed'])}; give a whole number, without "
                        "zeros in front."
                    )
                size = row.get("size") or ALL
                run = "/".join((row["model"], row["target"], row["method"], size, row["seed"]))
                if run in rows:
                    raise UserError(
                        f"{where}: {run} is in {rows[run]['where']} too; remove one of these rows."
                    )
                path = table.parent / from_home(row["file"], where)
                rows[run] = {**row, "size": size, "where": where, "path": path}
        return rows

    @cached_property
    def sources(self) -> dict[str, Dataset | Model]:
        """Datasets and models with downloads of their own, by name; they share data/raw.

        A dataset that uses the archives of another one has none of its own.

        Raises:
            UserError: A dataset and a model have one name.
        """
        common_names = self.datasets.keys() & self.models.keys()
        if common_names:
            raise UserError(
                f"'{min(common_names)}' is both a dataset and a model, which share the folder "
                "data/raw; rename one."
            )
        entries: dict[str, Dataset | Model] = {**self.datasets, **self.models}
        return {name: entry for name, entry in entries.items() if entry.raw == name}

    def _method(self, name: str, entry: dict[str, Any]) -> Method:
        """The method that an entry of methods.yaml defines, with all of its settings.

        Raises:
            UserError: The entry has a key or a setting that is not allowed.
        """
        where = f"methods.yaml, {name}"
        self.algorithm_file(entry["algorithm"])  # refuses an unknown one
        form = entry["form"]
        _check_keys_of_form(entry, form, where)
        settings = settings_of_entry(entry["settings"], form == FINETUNE, where)
        settings_by_recipe = self._settings_by_recipe(entry["recipes"], settings, where)
        # A method that trains has one parent at most, which its entry calls starts_from.
        parents = tuple(entry["parents"])
        if entry.get("starts_from"):
            parents = (entry["starts_from"],)
        fields = dict(entry)
        fields.pop("starts_from", None)
        fields["parents"] = parents
        fields["types"] = tuple(entry["types"])
        fields["settings"] = settings
        fields["recipes"] = settings_by_recipe
        return Method(name=name, **fields)

    def _settings_by_recipe(
        self,
        settings_by_recipe: Mapping[str, dict[str, Any]],
        settings_of_entry: Mapping[str, Any],
        where: str,
    ) -> dict[str, dict[str, Any]]:
        """Settings of a method that trains which hold with one recipe only, checked.

        Args:
            settings_by_recipe: such as {"adamw": {"lr": 1e-5}}.
            settings_of_entry: those that hold with all recipes.
            where: file and entry, for messages.
        """
        known = known_settings(settings_of_entry, trains=True)
        del known[RECIPE]  # what holds with a recipe can't name another one
        checked = {}
        for recipe, settings in settings_by_recipe.items():
            known_name(recipe, self.recipes, "recipe", where)
            checked[recipe] = check_settings(settings, known, f"{where}, recipes, {recipe}")
        return checked

    def _entries(self, kind: str) -> dict[str, dict[str, Any]]:
        """Entries of one kind of all catalogue folders by name, with defaults filled in.

        Args:
            kind: name of a file in each folder and of its schema: datasets, models, methods,
                recipes or augmentations.

        Raises:
            UserError: A file doesn't fit its schema, or two entries have one name.
        """
        entries: dict[str, tuple[dict[str, Any], Path]] = {}  # with the file of each
        for folder in self.folders:
            path = folder / f"{kind}.yaml"
            if not path.exists():
                continue
            content = read_yaml(path)
            if kind == "models":
                checked = validated_models(self._with_records(content), str(path))
            elif kind == "datasets":
                checked = validated(_with_parsed_sources(content), kind, str(path))
            else:
                checked = validated(content, kind, str(path))
            for name, entry in checked.items():
                # Paths of records are relative to the project, those of entries to their file.
                if content[name].keys() & {"source", "sources"}:
                    _locate_sources(name, entry, path)
                self._hide_addresses(name, entry)
                if kind == "datasets":
                    # A user's licences are unknown here; the page shows no image by mistake.
                    entry.setdefault("publishable", folder == self.folders[0])
                _add_entry(entries, name, entry, path)
        if kind == "methods":
            for name, entry in self._external_methods().items():
                _add_entry(entries, name, entry, Path(TABLES))
        return {name: entry for name, (entry, _) in entries.items()}

    def _hide_addresses(self, name: str, entry: dict[str, Any]) -> None:
        """Keep the addresses of an entry's sources apart, and remove secrets from the entry.

        `with_addresses` gives a source its addresses back.

        Args:
            name: that of the dataset or model.
            entry: its entry, which is changed.
        """
        sources = [*_sources_of(entry), *entry.get("tokenizer", [])]
        for source in sources:
            addresses = {key: source[key] for key in ADDRESSES if key in source}
            if addresses:
                self._addresses[name, source["file"]] = addresses
                source.update(redacted_addresses(source))

    def with_addresses(self, name: str, source: Mapping[str, Any]) -> dict[str, Any]:
        """A source with its whole addresses, which may hold secrets.

        Args:
            name: the dataset or model with the source.
            source: of the entry, whose addresses have no secrets (see `_hide_addresses`).
        """
        return {**source, **self._addresses.get((name, source["file"]), {})}

    def _external_methods(self) -> dict[str, dict[str, Any]]:
        """Entries of the methods in the tables of weights that were trained elsewhere, by name.

        A method's label is the first one that a row has for it, or else its name.
        """
        names = []
        label_of_method: dict[str, str] = {}
        for row in self.external.values():
            name = row["method"]
            if name not in names:
                names.append(name)
            if row.get("label") and name not in label_of_method:
                label_of_method[name] = row["label"]
        entries = {}
        for name, marker in zip(names, itertools.cycle(MARKERS), strict=False):
            entries[name] = {
                "label": label_of_method.get(name, name),
                "algorithm": EXTERNAL,
                "form": EXTERNAL,
                "source": "trained elsewhere",
                "style": {"colour": BLACK, "marker": marker},
            }
        return validated(entries, "methods", TABLES)

    def algorithm_file(self, algorithm: str) -> Path:
        """File of an algorithm: methods/<algorithm>.py of the library or of a user's folder."""
        return self._algorithms[known_name(algorithm, self._algorithms, "algorithm", "catalogue")]

    def layout_file(self, layout: str) -> Path:
        """File of a dataset's layout.

        It is data/layouts/<layout>.py of the library, or layouts/<layout>.py of a user's folder.
        """
        return self._layouts[known_name(layout, self._layouts, "layout", "catalogue")]

    def photos_layout_file(self, dataset: Dataset) -> Path | None:
        """File of the layout from which a dataset's layout takes its photos, if it does."""
        if PHOTOS not in dataset.settings:
            return None
        return self.layout_file(dataset.settings[PHOTOS]["layout"])

    def family_label_space(self, family: str) -> LabelSpace:
        """Label space of a family by its name: its classes, and their network outputs."""
        where = f"families/{family}.yaml"
        return self._space(**self.families[family].classes, where=where)

    def label_space(self, dataset: Dataset) -> LabelSpace:
        """Label space of a dataset (classes, and their network outputs): its own, or its family's.

        Preparation restricts it if classes are per dataset.

        Raises:
            UserError: Only one of dataset and family has format own, or the space has only one
                class or names that can't be shown.
        """
        where = f"datasets.yaml, {dataset.name}"
        space_of_family = self.family_label_space(dataset.family)
        if not dataset.classes:
            space = space_of_family
        elif dataset.classes["format"] == "own":
            class_file = self._class_file(dataset.classes["file"], where)
            space = read_own_classes(class_file, space_of_family)
        else:
            space = self._space(**dataset.classes, where=where)
        if space.num_classes != space_of_family.num_classes:
            raise UserError(f"{where}: its classes are not those of its family; use format own.")
        if len(space.keys) < 2:
            raise UserError(
                f"{where}: '{space.keys[0]}' is its only class; add more to its class file."
            )
        for text in (*space.keys, *space.names):
            if not presentable(text):
                raise UserError(
                    f"{where}: its class {show(text)} is not valid ({WHY}); rename it in its class "
                    "file."
                )
        return space

    def _read_label_space(self, file: str, format: str, where: str) -> LabelSpace:
        """Label space (classes, and their network outputs) that an entry names under `classes`.

        Args:
            file: name of a class file in a catalogue folder, or of a list that timm has.
            format: `timm`, or how the class file is written, a key of `READERS`.
            where: file and entry, for messages.
        """
        if format == "timm":
            return read_timm_list(file)
        read_classes = READERS[format]
        return read_classes(self._class_file(file, where))

    def table(
        self, name: str, columns: Iterable[str], numbers: Iterable[str]
    ) -> list[dict[str, str]]:
        """Rows of a CSV file that each catalogue folder may contain.

        Args:
            name: name of the file.
            columns: columns that the file must have.
            numbers: columns that contain numbers.

        Raises:
            UserError: A file lacks a column, or one of `numbers` contains something else; the
                message names file and line.
        """
        number_columns = list(numbers)
        rows_with_place: list[tuple[str, dict[str, str]]] = []
        for folder in self.folders:
            path = folder / name
            if path.is_file():
                rows_with_place.extend(read_csv_rows(path, columns))
        for where, row in rows_with_place:
            for column in number_columns:
                if not is_number(number(row[column])):
                    raise UserError(f"{where}: {column} is '{row[column]}'; give a number.")
        return [row for _, row in rows_with_place]

    def icons(self, dataset: Dataset) -> dict[str, str]:
        """Icon name by codepoint, for datasets whose package has no such table; else empty."""
        if dataset.icons_file is None:
            return {}
        icons_file = self._class_file(dataset.icons_file, f"datasets.yaml, {dataset.name}")
        table = read_csv_rows(icons_file, ("codepoint", "icon"))
        return {row["codepoint"]: row["icon"] for _, row in table}

    def only(self, dataset: Dataset) -> tuple[str, ...] | None:
        """Ids of the images of a dataset, in the order of its file; None: all that are found.

        Raises:
            UserError: No catalogue folder has the file, or it lists no image.
        """
        if dataset.only_file is None:
            return None
        image_ids = [row["image_id"] for row in self.table(dataset.only_file, ["image_id"], [])]
        if not image_ids:
            raise UserError(
                f"datasets.yaml, {dataset.name}: {dataset.only_file} is not in any catalogue "
                "folder, or lists no image; add it, or remove only_file."
            )
        return tuple(image_ids)

    def _class_file(self, name: str, where: str) -> Path:
        """The class file of a name in the first catalogue folder that has one."""
        for folder in self.folders:
            path = folder / "classes" / name
            if path.is_file():
                return path
        raise UserError(
            f"{where}: no catalogue folder has the file classes/{name}; add it or correct its name."
        )


def _with_parsed_sources(entries: object) -> object:
    """Entries of datasets.yaml in which repositories of the hub are mappings, no longer names.

    Args:
        entries: datasets.yaml as it was read, which may be anything.
    """
    if not isinstance(entries, dict):
        return entries
    parsed_entries = {}
    for name, entry in entries.items():
        if isinstance(entry, dict):
            entry = dict(entry)
            if "source" in entry:
                entry["source"] = parsed_source(entry["source"])
            if isinstance(entry.get("sources"), list):
                entry["sources"] = [parsed_source(source) for source in entry["sources"]]
        parsed_entries[name] = entry
    return parsed_entries


def _refuse_equal_files(sources: Iterable[Mapping[str, Any]], where: str) -> None:
    """Raise a UserError if two sources of a dataset have the same file name."""
    files = [source["file"] for source in sources]
    for file in files:
        if files.count(file) > 1:
            raise UserError(
                f"{where}: two of its sources have the file name {file}; set file to different "
                "names."
            )


def _parts_of(entry: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Parts:
    """The parts in which a dataset is evaluated.

    Whether images have the levels is known when the dataset is prepared (rib.data.parts), unless a
    setting of the layout lists them.

    Args:
        entry: keys of the dataset's entry.
        settings: of its layout.
        where: file and entry, for messages.

    Raises:
        UserError: A level is in two parts, or the dataset is in an evaluation group with others; a
            part has a level that the setting does not list, or a listed one is in no part.
    """
    where = f"{where}, parts"
    if "evaluation_group" in entry:
        raise UserError(
            f"{where}: a dataset in parts is evaluated by itself; remove its evaluation_group."
        )
    column = entry["parts"]["column"]
    levels_of_parts = entry["parts"]["levels"]
    part_of_level: dict[str | int, str] = {}
    for part, levels in levels_of_parts.items():
        for level in levels:
            if level in part_of_level:
                raise UserError(
                    f"{where}: {column} {level!r} is in '{part_of_level[level]}' and in '{part}'; "
                    "remove it from one of them."
                )
            part_of_level[level] = part
    setting = LISTS_LEVELS.get(column, "")
    listed_levels = settings.get(setting)
    if isinstance(listed_levels, list):  # what else it is, the layout refuses
        _refuse_other_levels(part_of_level, listed_levels, f"settings.{setting}", where)
    return Parts(
        column=column,
        levels={part: tuple(levels) for part, levels in levels_of_parts.items()},
    )


def _refuse_other_levels(
    part_of_level: Mapping[str | int, str],
    listed_levels: Collection[str | int],
    listed_in: str,
    where: str,
) -> None:
    """Raise a UserError unless parts have exactly the levels that a setting of a layout lists.

    Args:
        part_of_level: the part that each level is in.
        listed_in: the setting, for messages.
        where: file, entry and key, for messages.
    """
    for level, part in part_of_level.items():
        if level not in listed_levels:
            raise UserError(
                f"{where}: {level!r} of '{part}' is not in {listed_in}; correct one of the two."
            )
    for level in listed_levels:
        if level not in part_of_level:
            raise UserError(f"{where}: {level!r} of {listed_in} is in no part; add it to one.")


def _sources_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sources of an entry of a dataset or model; empty for other entries.

    An entry has one under `source`, or several under `sources`. In entries of methods and recipes
    `source` is a text.
    """
    sources = [entry.get("source"), *entry.get("sources", [])]
    return [source for source in sources if isinstance(source, dict)]


def _locate_sources(name: str, entry: dict[str, Any], path: Path) -> None:
    """Resolve paths in the sources of an entry, relative to the file with the entry.

    Args:
        name: that of the dataset or model.
        entry: its entry, which is changed.
        path: the file with the entry.
    """
    for source in _sources_of(entry):
        if source["kind"] in ("file", "folder"):
            path_of_source = from_home(source["path"], f"{path}, {name}")
            source["path"] = str(path.parent / path_of_source)


def _check_keys_of_form(entry: Mapping[str, Any], form: str, where: str) -> None:
    """Refuse keys of a method's entry that its form of algorithm does not have.

    Args:
        entry: the method's entry in the catalogue.
        form: what the algorithm makes: a fine-tuned checkpoint, or a merge of other methods.
        where: file and entry, for messages.
    """
    if entry.get("starts_from") and form != FINETUNE:
        raise UserError(
            f"{where}: starts_from is only for methods that train; list the merged methods in "
            "parents."
        )
    if entry["parents"] and form == FINETUNE:
        raise UserError(
            f"{where}: parents is only for merges; state the form of the merge, or use starts_from "
            "for the method that it starts from."
        )
    for key, default in (("over", METHODS), ("fewest_parents", 1)):
        if entry[key] != default and form not in MERGES:
            raise UserError(f"{where}: {key} is only for merges.")
    if entry["over"] == TARGETS and form in (CURVE, SELECT):
        raise UserError(
            f"{where}: over: targets is not for a {form}: there is no target to select or trace it "
            "on."
        )
    if entry["recipes"] and form != FINETUNE:
        raise UserError(
            f"{where}: recipes is only for methods that train; a merge has those of its parents."
        )


def _add_entry(
    entries: dict[str, tuple[dict[str, Any], Path]], name: str, entry: dict[str, Any], path: Path
) -> None:
    """Add an entry to those of all catalogue folders; a UserError if another one has its name.

    Args:
        entries: entry and file by name, to which it is added.
        path: file of the entry.
    """
    if name in entries:
        _, first_path = entries[name]
        raise UserError(f"{path}: '{name}' is already defined in {first_path}; rename one of them.")
    entries[name] = (entry, path)


def _modules_by_name(folders: Iterable[Path]) -> dict[str, Path]:
    """Files of algorithms or layouts by name, such as {"ft": .../methods/ft.py}.

    Raises:
        UserError: Two folders have a module of one name.
    """
    modules: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("[a-z]*.py")):  # not those that begin with _
            if path == BASE:
                continue
            if path.stem in modules:
                raise UserError(
                    f"{path}: {modules[path.stem].parent} already contains a module of this name; "
                    "rename it."
                )
            modules[path.stem] = path
    return modules
