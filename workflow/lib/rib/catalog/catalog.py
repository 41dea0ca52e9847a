"""The catalogue: facts about families, datasets, models and methods, read from YAML. No torch.

A catalogue folder may have families/<name>.yaml, datasets.yaml, models.yaml, methods.yaml,
recipes.yaml, augmentations.yaml, classes/ and, for custom algorithms, layouts/<layout>.py and
methods/<algorithm>.py. The project's folder comes first, then the user's. A name may be defined
only once.
"""

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import copy
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from rib.base.appearance import BLACK
from rib.base.errors import UserError
from rib.base.files import from_home
from rib.base.params import replaced
from rib.base.plugins import LIBRARY, WORKFLOW
from rib.base.text import WHY, presentable
from rib.catalog.hub_datasets import sources_of
from rib.catalog.hub_names import LOCK, HubLock, HubRequest, UnresolvedError, read_lock, request_of
from rib.catalog.label_space import (
    READERS,
    LabelSpace,
    read_csv_rows,
    read_own_classes,
    read_timm_list,
)
from rib.catalog.model_names import checked_model, entry_of, parse_name
from rib.schema.addresses import ADDRESSES, redacted_addresses
from rib.schema.algorithm_settings import (
    RECIPE,
    check_settings,
    known_settings,
    refuse_other_than_json,
    settings_of_entry,
)
from rib.schema.augmentation_entries import AugmentationEntry
from rib.schema.checking import checked, checked_entries
from rib.schema.entries import EVALUATED, Dataset, Family, Method, Model, Recipe
from rib.schema.fields import Described, is_number, number, stated
from rib.schema.forms import CURVE, EXTERNAL, MERGES, SELECT
from rib.schema.messages import known_name, show
from rib.schema.model_arguments import check_arguments
from rib.schema.run import ALL, METHODS, TARGETS
from rib.schema.source_entries import HF_DATASETS
from rib.schema.yaml_files import read_yaml

PROJECT_CATALOG = WORKFLOW / "catalog"
BASE = LIBRARY / "methods/base.py"  # base class of methods that train, not an algorithm
# Settings of layouts that list all levels of a slice, by the slice's column of the index.
LISTS_LEVELS = {"corruption": "corruptions", "severity": "severities"}
PHOTOS = "photos"  # setting of a layout that takes its images from another layout
TABLES = "config, external"  # config's key for tables of weights trained elsewhere
MARKERS = "Hx+8234"  # of methods in these tables; methods.yaml uses others
# Columns of these tables.
REQUIRED_COLUMNS = ("model", "target", "method", "seed", "file")
OPTIONAL_COLUMNS = ("size", "label")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
# For models that are pretrained here without a recipe.
SGD_OF_PRETRAINING = {"momentum": 0.9, "weight_decay": 0.0, "warmup_fraction": 0.1}
# Keys of a model's entry that its record gives if the entry lacks them.
FACTS_OF_RECORDS = {"library", "architecture", "type", "preprocessing", "licence", "source"}
EntryT = TypeVar("EntryT", Recipe, AugmentationEntry, Method, Model, Dataset, Family)


class Catalog:
    """Entries of catalogue folders. Each file is read at most once, when it is first needed.

    Args:
        folders: the project's folder, then the user's.
        tables: CSV files that list weights trained elsewhere.
        project: folder of the project, which may have a lock file (rib.catalog.hub_names).

    Raises:
        UserError: A folder does not exist, an entry is invalid, or a name is defined twice.
    """

    def __init__(self, folders: Iterable[Path], tables: Iterable[str] = (), project: Path = Path()):
        """Check that the folders can be read and find their modules; entries are read later."""
        self.folders = [Path(folder) for folder in folders]
        self.tables = [from_home(table, TABLES) for table in tables]
        self.project = project
        self._space = cache(self._read_label_space)  # every job of a grid needs it
        # Keys of sources with their whole addresses, by entry and file. Entries have the addresses
        # without query strings, which may be secret.
        self._addresses: dict[tuple[str, str], dict[str, Any]] = {}
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
        """Families by name, which is the file's name."""
        paths = [path for folder in self.folders for path in sorted(folder.glob("families/*.yaml"))]
        return _by_name(
            (checked(Family, read_yaml(path), str(path), path.stem), path) for path in paths
        )

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Datasets by name; a dataset without evaluation_group is alone in a group.

        Datasets that name repositories of the hub have no sources before `with_hub_files`.

        Raises:
            UserError: An entry is invalid, or names a dataset for its archives that is unknown or
                has no archives itself.
        """
        entries = self._dataset_entries
        # `raw` names the dataset whose entry states the archives, usually the dataset itself.
        return {name: self._dataset(entry, entries[entry.raw]) for name, entry in entries.items()}

    @cached_property
    def hub_sources(self) -> dict[str, list[dict[str, Any]]]:
        """Sources as their entries state them, of datasets that name repositories of the hub.

        For example {"pets": [{"kind": "hf-datasets", "repo": "OWNER/NAME"}]}, which
        `with_hub_files` replaces by a source for each file of the repository.
        """
        sources_by_name = {}
        for name, entry in self._dataset_entries.items():
            if any(source["kind"] == HF_DATASETS for source in entry.archives):
                sources_by_name[name] = list(entry.archives)
        return sources_by_name

    @cached_property
    def _dataset_entries(self) -> dict[str, Dataset]:
        """Entries of datasets.yaml by name, with the sources that each states itself."""
        entries = self._entries("datasets.yaml", self._datasets_of_file)
        for name, entry in entries.items():
            if entry.archives_of is not None:
                where = f"datasets.yaml, {name}, archives_of"
                known_name(entry.raw, entries, "dataset", where)
                if entries[entry.raw].archives_of is not None:
                    raise UserError(
                        f"{where}: '{entry.raw}' has archives_of itself, so no archives of its "
                        "own; name a dataset that has a source."
                    )
            _check_test_set(entry, entries)
        return entries

    def datasets_of(self, family: Family, *roles: str) -> dict[str, Dataset]:
        """Datasets of a family by name, if they have one of the roles, such as `ood`."""
        return {
            name: dataset
            for name, dataset in self.datasets.items()
            if dataset.family == family.name and dataset.role in roles
        }

    def evaluated_datasets(self, family: Family) -> dict[str, Dataset]:
        """Datasets of a family that can be evaluated, out of distribution or in distribution."""
        return self.datasets_of(family, *EVALUATED)

    def _dataset(self, entry: Dataset, owner: Dataset) -> Dataset:
        """The checked entry with its archives, which may be another dataset's (`owner`)."""
        where = f"datasets.yaml, {entry.name}"
        # `with_hub_files` adds files of the hub for datasets that a run reads.
        archives = () if owner.name in self.hub_sources else owner.archives
        _refuse_equal_files(archives, where)
        known_name(entry.layout, self._layouts, "layout", where)
        self.check_layout_settings(entry.settings, where)
        _check_parts(entry, where)
        return replaced(entry, archives=archives)

    @cached_property
    def lock(self) -> HubLock:
        """Resolved names from the lock files of the folders and the project.

        A later file overrides an earlier one; the project's lock file is last.
        """
        lock = HubLock(models={}, datasets={})
        for folder in (*self.folders, self.project):
            lock = lock.with_names_of(read_lock(folder / LOCK))
        return lock

    def with_hub_files(self, names: Iterable[str]) -> "Catalog":
        """This catalogue with the files of hub repositories filled in for the named datasets.

        Each file becomes a source among the dataset's `archives`. Datasets that a run doesn't read
        thus need no lock.

        Raises:
            UnresolvedError: No lock file has a repository.
            UserError: A repository lacks files that an entry chooses.
        """
        names_of_hub = [name for name in names if self.datasets[name].raw in self.hub_sources]
        unresolved = []
        for raw in dict.fromkeys(self.datasets[name].raw for name in names_of_hub):
            for request in self.hub_requests(raw):
                if request.name not in self.lock.datasets:
                    unresolved.append(request)
        if unresolved:
            raise UnresolvedError({}, unresolved)
        datasets = dict(self.datasets)
        for name in names_of_hub:
            datasets[name] = self._dataset_with_hub_files(datasets[name])
        return self._with_entries(datasets=datasets)

    def hub_requests(self, name: str) -> list[HubRequest]:
        """Repositories that a dataset's own sources name, for a look-up in a lock or on the hub."""
        where = f"datasets.yaml, {name}"
        if not self.datasets[name].fetched:
            where += " (not yet fetched by us)"
        return [
            request_of(source, where)
            for source in self.hub_sources[name]
            if source["kind"] == HF_DATASETS
        ]

    def _dataset_with_hub_files(self, dataset: Dataset) -> Dataset:
        """The dataset with a source for each file of its repositories, and their licences."""
        where = f"datasets.yaml, {dataset.raw}"
        sources: list[dict[str, Any]] = []
        gated_repositories = []
        licences = []
        for source in self.hub_sources[dataset.raw]:
            if source["kind"] != HF_DATASETS:
                sources.append(source)
                continue
            request = request_of(source, where)
            repository = self.lock.datasets[request.name]
            sources.extend(sources_of(source, repository, f"{where}: {request.name}"))
            licences.append(repository.licence)
            if repository.gated:
                gated_repositories.append(request.repo)
        _refuse_equal_files(sources, where)
        return replaced(
            dataset,
            archives=tuple(sources),
            gated_repositories=tuple(dict.fromkeys(gated_repositories)),
            licences_on_hub=tuple(dict.fromkeys(licences)),
        )

    def check_layout_settings(self, settings: Mapping[str, Any], where: str) -> None:
        """Check a layout's settings without importing its module; preparation checks the rest.

        Args:
            settings: of a dataset's entry. `photos` gives another layout, with settings, that
                supplies the images: {"photos": {"layout": "NAME", "settings": {...}}}.
            where: file and entry, for messages.

        Raises:
            UserError: A setting is an empty list or not a JSON value. Or `photos` lacks `layout`
                and `settings`, or its layout is unknown or takes images from yet another layout.
        """
        for name, setting in settings.items():
            refuse_other_than_json(setting, f"{where}: the setting '{name}'")
        if PHOTOS not in settings:
            return
        photos = settings[PHOTOS]
        where = f"{where}, {PHOTOS}"
        if not isinstance(photos, dict) or not isinstance(photos.get("layout"), str):
            raise UserError(f"{where}: give the layout of the images, and its settings.")
        for key in photos:
            known_name(key, ("layout", "settings"), "key", where, "allowed")
        known_name(photos["layout"], self._layouts, "layout", where)
        settings_of_photos = photos.get("settings", {})
        if not isinstance(settings_of_photos, dict):
            raise UserError(f"{where}: give the settings by name.")
        if PHOTOS in settings_of_photos:
            raise UserError(
                f"{where}: '{photos['layout']}' takes its images from another layout itself; give "
                "that one."
            )
        self.check_layout_settings(settings_of_photos, where)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Models of models.yaml by name; `with_models` gives a copy with library models too."""
        models = self._entries("models.yaml", self._models_of_file)
        for model in models.values():
            self.pretraining(model)  # raises if a recipe or an augmentation is unknown
        return models

    def pretraining(self, model: Model) -> dict[str, Any] | None:
        """How a model is pretrained here, as jobs get it; None if it isn't pretrained here.

        For example {"dataset": "fashion_train", "epochs": 10, "lr": 0.1, "momentum": 0.9, ...}.
        Settings of SGD are added unless a recipe states them. The name of an augmentation is
        replaced by the entry's transforms, because a change of these must train the model again.

        Raises:
            UserError: The recipe or augmentation is unknown, or the entry states a key that the
                recipe sets.
        """
        if model.pretrain is None:
            return None
        where = f"models.yaml, {model.name}"
        pretrain = stated(model.pretrain)
        if "augmentation" in pretrain:
            name = pretrain["augmentation"]
            known_name(name, self.augmentations, "augmentation", f"{where}, pretrain.augmentation")
            pretrain["augmentation"] = self.augmentations[name].facts
        if "recipe" not in pretrain:
            return {**SGD_OF_PRETRAINING, **pretrain}
        recipe = pretrain["recipe"]
        known_name(recipe, self.recipes, "recipe", f"{where}, pretrain.recipe")
        keys_of_recipe = [*SGD_OF_PRETRAINING]
        if self.recipes[recipe].augmentation:
            keys_of_recipe.append("augmentation")
        for key in keys_of_recipe:
            if key in pretrain:
                raise UserError(
                    f"{where}: pretrain.{key} is set by the recipe '{recipe}'; leave out one of "
                    "the two."
                )
        return pretrain

    def with_models(self, names: Collection[str]) -> "Catalog":
        """This catalogue with models that libraries and the hub name, such as timm/resnet18.

        A model without an entry for its record gets the short form of its name: `resnet18` for
        timm/resnet18.

        Raises:
            UnresolvedError: No lock file has a name, with the commit or digest of its weights.
            UserError: The short form of a name is taken.
        """
        models = dict(self.models)
        unresolved = []
        short_names = {name: parse_name(name).short for name in names}  # for paths
        for name in names:
            source = self.lock.models.get(name, {}).get("source", {})
            is_pinned = isinstance(source, dict) and ("revision" in source or "digest" in source)
            if not is_pinned:
                unresolved.append(name)
        if unresolved:
            raise UnresolvedError(dict.fromkeys(unresolved, "config, models"))
        known_records = {model.record for model in models.values() if model.record}
        for name in names:
            if name in known_records:
                continue
            short = short_names[name]
            if short in models:
                raise UserError(
                    f"config, models: '{name}' is called '{short}' here, as another model is; "
                    "choose one."
                )
            entry = {"record": name, **entry_of(name, self.lock.models[name])}
            model = checked_model(short, entry, str(LOCK))
            models[short] = self._with_archives(model, LOCK, ())
            known_records.add(name)
        return self._with_entries(models=models)

    def _with_entries(self, **entries: Mapping[str, Any]) -> "Catalog":
        """A copy with other entries in place of the ones that were read: `models={"net": ...}`."""
        catalog = copy(self)
        # `sources` is made from datasets and models, so the copy must make it again.
        vars(catalog).pop("sources", None)
        vars(catalog).update(entries)
        return catalog

    def _with_recorded_facts(self, content: object, path: Path) -> object:
        """A models.yaml's content, with the recorded facts of models that its entries name.

        {"net": {"record": "timm/resnet18", "label": "Net"}} becomes {"net": {"library": "timm",
        ..., "record": "timm/resnet18", "label": "Net"}}; an entry's own keys win. An entry that
        states all facts itself needs no lock.
        """
        if not isinstance(content, dict):
            return content  # the check of the entries refuses it
        completed = dict(content)
        unresolved = {}
        for name, entry in content.items():
            if not isinstance(entry, dict) or "record" not in entry:
                continue
            record = str(entry["record"])
            where = f"{path}, {name}, record"
            if record in self.lock.models:
                facts = self.lock.models[record]
                _refuse_other_revision(entry, facts, where)
                completed[name] = facts | entry
            elif not entry.keys() >= FACTS_OF_RECORDS:
                parse_name(record)
                unresolved[record] = where
        if unresolved:
            raise UnresolvedError(unresolved)
        return completed

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """Optimisers and schedules of training by name."""
        return self._entries("recipes.yaml", _reader(Recipe))

    @cached_property
    def augmentations(self) -> dict[str, AugmentationEntry]:
        """Random transforms of images in pretraining, by name.

        Raises:
            UserError: An entry is not valid, or `most` is more than the number of its transforms.
        """
        augmentations = self._entries("augmentations.yaml", _reader(AugmentationEntry))
        for name, augmentation in augmentations.items():
            transforms = augmentation.transforms
            if augmentation.most > len(transforms):
                raise UserError(
                    f"augmentations.yaml, {name}: most is {augmentation.most}; give "
                    f"{len(transforms)}, the number of its transforms, or less."
                )
        return augmentations

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Methods by name, from methods.yaml and the user's tables of trained weights.

        Raises:
            UserError: An entry is invalid, or a parent is unknown, a merge itself or, for a method
                that trains, started from a third method.
        """
        entries = self._entries(
            "methods.yaml", _reader(Method), [(Path(TABLES), self._external_methods())]
        )
        methods = {name: self._method(entry) for name, entry in entries.items()}
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
        """Rows of the user's tables of weights trained elsewhere, by run.

        For example {"resnet18/sketch/ft/all/0": {"model": "resnet18", ..., "path": Path("ft.pth"),
        "where": "weights.csv line 2"}}: the cells by column, the weights' file, and the row's own
        place.

        Raises:
            UserError: A column is unknown or missing, a seed is not a whole number or has leading
                zeros, or two rows are for one run.
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
        """Datasets and models by name, for the jobs that download them into data/raw/<name>.

        A dataset that uses another one's archives is left out.

        Raises:
            UserError: A dataset and a model have the same name.
        """
        common_names = self.datasets.keys() & self.models.keys()
        if common_names:
            raise UserError(
                f"'{min(common_names)}' is both a dataset and a model, which share the folder "
                "data/raw; rename one."
            )
        entries: dict[str, Dataset | Model] = {**self.datasets, **self.models}
        return {name: entry for name, entry in entries.items() if entry.raw == name}

    def _method(self, entry: Method) -> Method:
        """The entry with checked settings, and `starts_from`, if stated, as its only parent."""
        where = f"methods.yaml, {entry.name}"
        known_name(entry.algorithm, self._algorithms, "algorithm", where)
        _check_keys_of_form(entry, where)
        settings = settings_of_entry(entry.settings, entry.trains, where)
        # A method that trains has at most one parent, which its entry calls starts_from.
        parents = entry.parents if entry.starts_from is None else (entry.starts_from,)
        return replaced(
            entry,
            parents=parents,
            settings=settings,
            recipes=self._settings_by_recipe(entry.recipes, settings, where),
        )

    def _settings_by_recipe(
        self,
        settings_by_recipe: Mapping[str, dict[str, Any]],
        settings_for_all: Mapping[str, Any],
        where: str,
    ) -> dict[str, dict[str, Any]]:
        """Checked settings of a method for single recipes, such as {"adamw": {"lr": 1e-5}}.

        They must have names and kinds as in `settings_for_all` recipes.
        """
        known = known_settings(settings_for_all, trains=True)
        del known[RECIPE]  # settings for a recipe can't name another recipe
        checked = {}
        for recipe, settings in settings_by_recipe.items():
            known_name(recipe, self.recipes, "recipe", where)
            checked[recipe] = check_settings(settings, known, f"{where}, recipes, {recipe}")
        return checked

    def _entries(
        self,
        file: str,
        read: Callable[[Any, Path], Mapping[str, EntryT]],
        others: Iterable[tuple[Path, Mapping[str, EntryT]]] = (),
    ) -> dict[str, EntryT]:
        """Entries of a file in all catalogue folders, by name; `read` makes them from its content.

        `others` are further entries, each with the file or key that they come from.
        """

        def entries_with_files() -> Iterator[tuple[EntryT, Path]]:
            for folder in self.folders:
                path = folder / file
                if path.exists():
                    for entry in read(read_yaml(path), path).values():
                        yield entry, path
            for path, further_entries in others:
                for entry in further_entries.values():
                    yield entry, path

        return _by_name(entries_with_files())

    def _datasets_of_file(self, content: Any, path: Path) -> dict[str, Dataset]:
        """Datasets of one datasets.yaml by name, with `archives` and `publishable` filled in."""
        datasets = {}
        for name, entry in checked_entries(Dataset, content, str(path)).items():
            publishable = entry.publishable
            if publishable is None:
                # We don't know the licences of a user's data, so the page shows an image only if
                # the entry says publishable.
                publishable = path.parent == self.folders[0]
            archives = self._archives(name, entry.own_sources, path)
            datasets[name] = replaced(entry, publishable=publishable, archives=archives)
        return datasets

    def _models_of_file(self, content: Any, path: Path) -> dict[str, Model]:
        """Models of one models.yaml by name, with `archives` filled in."""
        models = {}
        complete_entries = self._with_recorded_facts(content, path)
        for name, model in checked_entries(Model, complete_entries, str(path)).items():
            check_arguments(model.library, model.arguments, f"{path}, {name}")
            # Paths in records are relative to the project, paths in entries to the entry's file.
            keys_with_paths = [key for key in ("source", "tokenizer") if key in content[name]]
            models[name] = self._with_archives(model, path, keys_with_paths)
        return models

    def _with_archives(self, model: Model, path: Path, keys_with_paths: Collection[str]) -> Model:
        """The model with its downloads as jobs get them.

        `keys_with_paths` (`source`, `tokenizer`) have paths relative to the entry's file.
        """
        if model.source is None:
            return model
        sources = {"source": [model.source], "tokenizer": model.tokenizer}
        archives: tuple[dict[str, Any], ...] = ()
        for key, sources_of_key in sources.items():
            relative_to = path if key in keys_with_paths else None
            archives += self._archives(model.name, sources_of_key, relative_to)
        return replaced(model, archives=archives)

    def _archives(
        self, name: str, sources: Iterable[Described], relative_to: Path | None
    ) -> tuple[dict[str, Any], ...]:
        """Sources as jobs get them, such as ({"kind": "http", "file": "noto.tar", "urls": [...]},).

        Secrets in addresses are kept apart, for `with_addresses`.
        """
        archives = []
        for source in sources:
            archive = stated(source)
            if archive["kind"] in ("file", "folder") and relative_to is not None:
                path = from_home(archive["path"], f"{relative_to}, {name}")
                archive["path"] = str(relative_to.parent / path)
            if archive["kind"] != HF_DATASETS:
                # Only a folder, which is packed here, may lack a file name.
                archive = {"file": f"{name}.tar", **archive}
            addresses = {key: archive[key] for key in ADDRESSES if key in archive}
            if addresses:
                self._addresses[name, archive["file"]] = addresses
                archive.update(redacted_addresses(archive))
            archives.append(archive)
        return tuple(archives)

    def with_addresses(self, name: str, source: Mapping[str, Any]) -> dict[str, Any]:
        """A source with its whole addresses, which may contain secrets, for its download.

        Args:
            name: the dataset or model with the source.
            source: one of its `archives`, such as {"kind": "http", "file": "photos.tar", ...},
                whose addresses have no secrets.
        """
        return {**source, **self._addresses.get((name, source["file"]), {})}

    def _external_methods(self) -> dict[str, Method]:
        """A method for each name in the user's tables, with its first label there."""
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
        return checked_entries(Method, entries, TABLES)

    def algorithm_file(self, algorithm: str) -> Path:
        """File of an algorithm: methods/<algorithm>.py of the library or of a user's folder."""
        return self._algorithms[known_name(algorithm, self._algorithms, "algorithm", "catalogue")]

    def layout_file(self, layout: str) -> Path:
        """File of a dataset's layout.

        It is data/layouts/<layout>.py of the library, or layouts/<layout>.py of a user's folder.
        """
        return self._layouts[layout]

    def photos_layout_file(self, dataset: Dataset) -> Path | None:
        """File of the other layout that supplies the images of this dataset's layout, if any."""
        if PHOTOS not in dataset.settings:
            return None
        return self.layout_file(dataset.settings[PHOTOS]["layout"])

    def family_label_space(self, family: str) -> LabelSpace:
        """Classes of a family and their network outputs, by the family's name."""
        where = f"families/{family}.yaml"
        return self._space(**dict(self.families[family].classes), where=where)

    def label_space(self, dataset: Dataset) -> LabelSpace:
        """Classes of a dataset and their network outputs: the dataset's own, or its family's.

        If classes are per dataset, preparation restricts them to classes that have images.

        Raises:
            UserError: Only one of dataset and family has format own, or the space has only one
                class or names that can't be shown.
        """
        where = f"datasets.yaml, {dataset.name}"
        space_of_family = self.family_label_space(dataset.family)
        if not dataset.classes:
            space = space_of_family
        elif dataset.classes.format == "own":
            class_file = self._class_file(dataset.classes.file, where)
            space = read_own_classes(class_file, space_of_family)
        else:
            space = self._space(**dict(dataset.classes), where=where)
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
        """The label space of a key `classes`; `format` is `timm` or a key of `READERS`."""
        if format == "timm":
            return read_timm_list(file)
        read_classes = READERS[format]
        return read_classes(self._class_file(file, where))

    def table(
        self, name: str, columns: Iterable[str], numbers: Iterable[str]
    ) -> list[dict[str, str]]:
        """Rows of a CSV file, from all catalogue folders that have it: [{"model": "net", ...}].

        Args:
            name: name of the file.
            columns: columns that the file must have.
            numbers: columns that contain numbers.

        Raises:
            UserError: A file lacks a column, or one of `numbers` is not a number.
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
        """Icon name by codepoint, with which a layout finds an emoji's drawing: {"1f98a": "fox"}.

        Empty if the entry names no file with them.
        """
        if dataset.icons_file is None:
            return {}
        icons_file = self._class_file(dataset.icons_file, f"datasets.yaml, {dataset.name}")
        table = read_csv_rows(icons_file, ("codepoint", "icon"))
        return {row["codepoint"]: row["icon"] for _, row in table}

    def only(self, dataset: Dataset) -> tuple[str, ...] | None:
        """Ids of the images that a dataset is limited to, in the file's order; None for no limit.

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

    def file_digests(self, dataset: Dataset) -> dict[str, str]:
        """SHA-256 of files in a dataset's archive by name: {"images.csv": "9f86..."}.

        Empty if the entry names no file with them.

        Raises:
            UserError: No catalogue folder has the file, or it lists nothing.
        """
        if dataset.digests_file is None:
            return {}
        rows = self.table(dataset.digests_file, ["file", "sha256"], [])
        if not rows:
            raise UserError(
                f"datasets.yaml, {dataset.name}: {dataset.digests_file} is not in any catalogue "
                "folder, or lists no file; add it, or remove digests_file."
            )
        return {row["file"]: row["sha256"] for row in rows}

    def _class_file(self, name: str, where: str) -> Path:
        """A class file, such as objectnet.csv, in the first catalogue folder that has it."""
        for folder in self.folders:
            path = folder / "classes" / name
            if path.is_file():
                return path
        raise UserError(
            f"{where}: no catalogue folder has the file classes/{name}; add it or correct its name."
        )


def _refuse_other_revision(entry: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> None:
    """Raise a UserError if an entry's weights are of another revision than its recorded facts."""
    own = entry.get("source")
    recorded = facts.get("source")
    if not isinstance(own, dict) or not isinstance(recorded, dict):
        return  # one has no source, or the check of the entry refuses it
    own_revision = own.get("revision")
    recorded_revision = recorded.get("revision")
    if own.get("repo") != recorded.get("repo") or None in (own_revision, recorded_revision):
        return
    if own_revision != recorded_revision:
        raise UserError(
            f"{where}: source.revision is {show(own_revision)}, but {LOCK} has "
            f"{show(recorded_revision)}; remove source.revision, or remove the name from "
            f"{LOCK} and run `rib lock`."
        )


def _refuse_equal_files(sources: Iterable[Mapping[str, Any]], where: str) -> None:
    """Raise a UserError if two sources would get the same file name in data/raw."""
    files = [source["file"] for source in sources]
    for file in files:
        if files.count(file) > 1:
            raise UserError(
                f"{where}: two of its sources have the file name {file}; set file to different "
                "names."
            )


def _check_test_set(entry: Dataset, entries: Mapping[str, Dataset]) -> None:
    """Raise a UserError unless `test` names the test set of a training set of the same family."""
    if entry.test is None:
        return
    where = f"datasets.yaml, {entry.name}, test"
    if entry.role != "reference":
        raise UserError(
            f"{where}: only a dataset of role reference has a test set, and '{entry.name}' has "
            f"role {entry.role}; remove the key."
        )
    tests = []
    for name, dataset in entries.items():
        if dataset.family == entry.family and dataset.role == "in_distribution":
            tests.append(name)
    known_name(entry.test, tests, "dataset of role in_distribution of the same family", where)


def _check_parts(entry: Dataset, where: str) -> None:
    """Raise a UserError if a dataset's parts don't have each level of its slice once.

    For example, each corruption of imagenet_c must be in one part (noise, blur, weather or
    digital).
    """
    if entry.parts is None:
        return
    where = f"{where}, parts"
    if entry.evaluation_group != entry.name:
        raise UserError(
            f"{where}: a dataset in parts is evaluated by itself; remove its evaluation_group."
        )
    column = entry.parts.column
    part_of_level: dict[str | int, str] = {}
    for part, levels in entry.parts.levels.items():
        for level in levels:
            if level in part_of_level:
                raise UserError(
                    f"{where}: {column} {level!r} is in '{part_of_level[level]}' and in '{part}'; "
                    "remove it from one of them."
                )
            part_of_level[level] = part
    setting = LISTS_LEVELS.get(column, "")
    listed_levels = entry.settings.get(setting)
    if isinstance(listed_levels, list):  # the layout itself refuses anything else
        _refuse_other_levels(part_of_level, listed_levels, f"settings.{setting}", where)


def _refuse_other_levels(
    part_of_level: Mapping[str | int, str],
    listed_levels: Collection[str | int],
    listed_in: str,
    where: str,
) -> None:
    """`part_of_level`, such as {"fog": "weather"}, must have exactly the listed levels as keys."""
    for level, part in part_of_level.items():
        if level not in listed_levels:
            raise UserError(
                f"{where}: {level!r} of '{part}' is not in {listed_in}; correct one of the two."
            )
    for level in listed_levels:
        if level not in part_of_level:
            raise UserError(f"{where}: {level!r} of {listed_in} is in no part; add it to one.")


def _check_keys_of_form(entry: Method, where: str) -> None:
    """Raise a UserError for keys that a method of this form can't have: a merge has no recipes."""
    if entry.starts_from is not None and not entry.trains:
        raise UserError(
            f"{where}: starts_from is only for methods that train; list the merged methods in "
            "parents."
        )
    if entry.parents and entry.trains:
        raise UserError(
            f"{where}: parents is only for merges; state the form of the merge, or use starts_from "
            "for the method that it starts from."
        )
    for key, default in (("over", METHODS), ("fewest_parents", 1)):
        if getattr(entry, key) != default and entry.form not in MERGES:
            raise UserError(f"{where}: {key} is only for merges.")
    if entry.over == TARGETS and entry.form in (CURVE, SELECT):
        raise UserError(
            f"{where}: over: targets is not for a {entry.form}: there is no target to select or "
            "trace it on."
        )
    for key in ("pretrained_teacher", "stored_outputs", "padding_prompt"):
        if getattr(entry, key) and not entry.trains:
            raise UserError(f"{where}: {key} is only for methods that train.")
    if entry.recipes and not entry.trains:
        raise UserError(
            f"{where}: recipes is only for methods that train; a merge has those of its parents."
        )


def _reader(kind: type[EntryT]) -> Callable[[Any, Path], Mapping[str, EntryT]]:
    """A function that makes entries of a class, by name, from the content of a YAML file."""
    return lambda content, path: checked_entries(kind, content, str(path))


def _by_name(entries_with_files: Iterable[tuple[EntryT, Path]]) -> dict[str, EntryT]:
    """Entries by their names; a UserError if two files define the same name."""
    entries: dict[str, EntryT] = {}
    file_of: dict[str, Path] = {}
    for entry, path in entries_with_files:
        name = entry.name
        if name in entries:
            raise UserError(
                f"{path}: '{name}' is already defined in {file_of[name]}; rename one of them."
            )
        entries[name] = entry
        file_of[name] = path
    return entries


def _modules_by_name(folders: Iterable[Path]) -> dict[str, Path]:
    """{"ft": .../methods/ft.py}; a UserError if two folders have a module of one name."""
    modules: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("[a-z]*.py")):  # without modules that begin with _
            if path == BASE:
                continue
            if path.stem in modules:
                raise UserError(
                    f"{path}: {modules[path.stem].parent} already contains a module of this name; "
                    "rename it."
                )
            modules[path.stem] = path
    return modules
