"""The grid of a run: the choices of config, resolved with the catalogue. No torch."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rib.base.errors import UserError
from rib.config import choices
from rib.config.catalog import Catalog
from rib.config.choices import Reference
from rib.config.entries import EVALUATED, EXTERNAL, Dataset, Family, Method, Model
from rib.config.geometry import Geometry
from rib.config.model_names import parse_name, terms
from rib.config.run import ALL, NO_TARGET, PRETRAINED, SEEDS, TARGETS, Run, largest
from rib.config.schema import known_name, load_schema
from rib.config.settings import LENGTH
from rib.config.sweeps import Variants, in_path, resolve_methods

UNRECORDED = (
    "catalog",
    "archives",
    "external",
    "bundles",
    "monitor",
)  # keys of config that are no settings of results
# Settings of the machine, on which results do not depend.
OF_MACHINE = ("warm_start", "jobs_per_gpu", "decode_workers")
# Choices, besides those of UNRECORDED, on which no table of a plain run depends: what a page shows, what is pulled, and
# settings of analyses that have tables of their own.
NOT_OF_GRID = ("analyses", "pull", "select", "representations", "distances", "slices", "stir")
OF_CALL = (
    "archives",
    "bundles",
    "pull",
    "monitor",
)  # keys of config that are about a call, not about the grid
# What a model is, without its label and style.
MODEL_FACTS = (
    "name",
    "library",
    "architecture",
    "source",
    "tokenizer",
    "weights",
    "pretrain",
    "preprocessing",
)
MODEL_FACTS += ("pretraining", "licence")


@dataclass(frozen=True)
class Grid:
    """Models, methods, targets, sizes and seeds of a run."""

    config: Mapping
    catalog: Catalog
    family: Family
    datasets: dict[str, Dataset]  # evaluated datasets, in the order of the catalogue
    reference: Reference | None
    models: dict[str, Model]
    methods: dict[
        str, Method
    ]  # methods by name with resolved settings; each swept value is a separate variant
    targets: list[str]
    sizes: list[str]  # sizes of the training subset of the target, as written in paths
    seeds: list[int]
    split_fractions: dict[str, float] | None  # fractions of protocol held_out; None under `paper`
    compare_to: str  # method, or the pretrained model, that differences in the ranking are from
    selection: (
        dict[str, object] | None
    )  # how a variant of each sweep is chosen (see `choose_selection`), if at all
    notices: list[str]  # messages about what was added to the grid or left out, and why
    entries_of_methods: list[
        str
    ]  # names of the methods' entries, of which `methods` are the variants

    @property
    def shown_size(self) -> str:
        """The largest size, which figures and headlines show."""
        return largest(self.sizes)

    @cached_property
    def ood(self) -> list[str]:
        """Datasets that count in RI."""
        return choices.ood_datasets(self.datasets)

    def head(self, model: str) -> str:
        """Origin of a model's head (see `head_of`)."""
        return choices.head_of(self.models[model], self.family)

    def excludes_proxy(self, dataset: str) -> bool:
        """Whether a dataset shares source images with the pretraining proxy, which are then excluded from it."""
        if self.reference is None or self.reference.images_per_class is None:
            return False
        group = self.catalog.datasets[dataset].source_group
        return (
            dataset == self.reference.dataset.name
            or group == self.reference.dataset.source_group is not None
        )

    def datasets_read(self) -> list[Dataset]:
        """Datasets that jobs read: evaluated ones, the pretraining proxy if used, and those for pretraining models."""
        trained = [
            how[key]
            for model in self.models.values()
            if (how := model.pretrain)
            for key in ("dataset", "test")
        ]
        methods = any(method.reference != "no" for method in self.methods.values())
        fitted = any(self.head(model) == "fitted" for model in self.models)
        proxy = self.reference and (
            methods or fitted or any(map(self.excludes_proxy, self.datasets))
        )
        names = dict.fromkeys(
            [*self.datasets, *([self.reference.dataset.name] if proxy else []), *trained]
        )
        return [self.catalog.datasets[name] for name in names]

    def evaluation_groups(self) -> dict[str, list[str]]:
        """Datasets of each evaluation group, in the order of the catalogue.

        A group of which only a part is evaluated has a name of its own, since its rows are others than the whole group's.
        """
        groups: dict[str, list[str]] = {}
        for name in self.datasets:
            groups.setdefault(self.group_of(name), []).append(name)
        return groups

    def group_of(self, dataset: str) -> str:
        """Name of the evaluation group of an evaluated dataset (see `evaluation_groups`)."""
        group = self.datasets[dataset].evaluation_group
        of_family = self.catalog.datasets_of(self.family, *EVALUATED)
        in_group = {
            name: entry for name, entry in of_family.items() if entry.evaluation_group == group
        }
        usual = [name for name, entry in in_group.items() if not entry.optional] or list(in_group)
        evaluated = [name for name in in_group if name in self.datasets]
        if evaluated == usual:
            return group
        return f"{group}_{_short_digest(evaluated)}"

    @cached_property
    def digest(self) -> str:
        """Digest of the choices on which tables of a plain run depend, in the path of the folder that has them."""
        return _short_digest(
            {key: value for key, value in self.resolved().items() if key not in NOT_OF_GRID}
        )

    def evaluated_before(self, dataset: str) -> list[str]:
        """Evaluated datasets that are split before this one; references are split last."""
        names = list(self.datasets)
        return names[: names.index(dataset)] if dataset in names else names

    def split_before(self, dataset: str) -> list[str]:
        """Those of `evaluated_before` whose entries say that they have the same source images."""
        group = self.catalog.datasets[dataset].source_group
        related = [
            name for name, entry in self.datasets.items() if entry.source_group == group is not None
        ]
        return related[: related.index(dataset)] if dataset in related else related

    def source_groups(self) -> dict[str, str]:
        """Source group by dataset, for datasets that share source images with others."""
        return {
            name: entry.source_group for name, entry in self.datasets.items() if entry.source_group
        }

    def leak_free_groups(self) -> dict[str, str] | None:
        """`source_groups` if images that share sources with the target are excluded from RI, else None.

        Under held_out nothing is excluded, because test images share no sources with training images.
        """
        return (
            self.source_groups()
            if self.config["leak_free"] and self.split_fractions is None
            else None
        )

    def conditions(self) -> list[str]:
        """Conditions of all results that are not columns of the tables, as short phrases."""
        found = [f"protocol {self.config['protocol']}"]
        if self.leak_free_groups() is not None:
            found.append("leak-free")
        if (budget := self.config["budget"]["max_images_per_dataset"]) != ALL:
            found.append(f"at most {budget} images per dataset")
        if labels := [
            entry.label for name, entry in self.datasets.items() if self.excludes_proxy(name)
        ]:
            found.append(
                f"pretraining proxy: {self.reference.images_per_class} images per class of {self.reference.dataset.label}, "
                f"excluded from {', '.join(labels)}"
            )
        family = self.catalog.datasets_of(self.family, *EVALUATED).values()
        if missing := [
            entry.label
            for entry in family
            if not entry.optional and entry.name not in self.datasets
        ]:
            found.append(f"without {', '.join(missing)}")
        if more := [self.datasets[name].label for name in self.ood if self.datasets[name].optional]:
            found.append(f"RI with {', '.join(more)}")
        return found

    def misfit(self, method: str, model: str) -> str | None:
        """Reason why a method, or one of its parents, does not support a model; None if they do."""
        how, entry = self.methods[method], self.models[model]
        if entry.type not in how.types:
            return f"it is not for {entry.type}s"
        if how.text == "required" and self.head(model) != "zero_shot":  # made by the text tower
            return "it trains with texts, but the model has no text tower"
        return next(filter(None, (self.misfit(parent, model) for parent in how.parents)), None)

    def methods_of(self, model: str) -> list[str]:
        """Methods that, with all of their parents, support a model."""
        return [name for name in self.methods if self.misfit(name, model) is None]

    def runs(self) -> list[Run]:
        """All runs with RI: of each model the pretrained one, then targets x methods x sizes x seeds (the first of a merge over them)."""
        found, first = [], self.seeds[:1]
        seeds = {
            name: first if method.over == SEEDS else self.seeds
            for name, method in self.methods.items()
        }
        for model in self.models:
            found.append(Run(model, NO_TARGET, PRETRAINED, ALL, 0))
            methods = [name for name in self.methods_of(model) if name not in self.over_targets]
            for target, name, size in itertools.product(self.targets, methods, self.sizes):
                found.extend(Run(model, target, name, size, seed) for seed in seeds[name])
        return found

    @cached_property
    def over_targets(self) -> list[str]:
        """Merges over targets, whose runs have no target and no RI."""
        return [name for name, method in self.methods.items() if method.over == TARGETS]

    @cached_property
    def not_trained_on(self) -> list[str]:
        """Datasets on which merges over targets are scored."""
        return choices.not_trained_on(self.datasets, self.targets)

    def runs_over_targets(self) -> list[Run]:
        """Runs of merges over targets: models x methods x sizes x seeds."""
        own = {
            model: [name for name in self.methods_of(model) if name in self.over_targets]
            for model in self.models
        }
        runs = itertools.product(self.sizes, self.seeds)
        return [
            Run(model, NO_TARGET, name, *run)
            for run in runs
            for model in own
            for name in own[model]
        ]

    def parents_of(self, method: str) -> list[str]:
        """Keys of the runs that a method's run starts from or merges (see rib.config.run.parent_of), by method's name if possible."""
        how = self.methods[method]
        if how.over not in (SEEDS, TARGETS):
            return list(how.parents)
        column, values = ("seed", self.seeds) if how.over == SEEDS else ("target", self.targets)
        return [f"{parent}, {column} {value}" for parent in how.parents for value in values]

    def shared_fisher(self, method: str) -> tuple[int, str] | None:
        """Most images, and kind, of the Fisher information that a method's trainings on all targets share; None if none.

        It is that of the pretrained model on the pretraining proxy; see rib.methods for which methods
        have it. Without a proxy it is of the target, and with another start that depends on it.
        """
        how = self.methods[method]
        takes_fisher = how.trains and {"fisher", "fisher_images"} <= how.settings.keys()
        if not takes_fisher or how.parents or how.reference == "no" or self.reference is None:
            return None
        return how.settings["fisher_images"], how.settings["fisher"]

    def geometry(self, model: str) -> Geometry:
        """Input geometry of a model; models with the same geometry share prepared data."""
        shown, size = self.models[model].preprocessing, self.setting("image_size")
        own = {
            "size": shown["input_size"] if size == "native" else size,
            "interpolation": shown["interpolation"],
        }
        crop = {key: shown[key] for key in ("crop_pct", "crop_mode")}
        return Geometry(
            **own, **(crop if self.family.crop_pct is None else {"crop_pct": self.family.crop_pct})
        )

    def arguments(self, model: str) -> dict:
        """Arguments of the library's create_model, with the input size if the network has to be built for it."""
        entry, size = self.models[model], self.geometry(model).size
        resized = entry.resized_by and size != entry.preprocessing["input_size"]
        return {**entry.arguments, **({entry.resized_by: size} if resized else {})}

    def setting(self, key: str):
        """A setting of config.yaml, with `default` replaced by the family's value."""
        value = self.config["training"].get(key, self.config.get(key))
        return self.family.defaults[key] if value == "default" else value

    def training(self, method: str) -> dict:
        """How a method is trained (rib.training.settings.TrainingSettings)."""
        how = self.methods[method]
        shared = {key: self.setting(key) for key in self.config["training"] if key not in LENGTH}
        return {
            **self.catalog.recipes[how.recipe].training,
            **dict.fromkeys(LENGTH),
            **how.length,
            **shared,
        }

    def compute(self) -> dict:
        """Settings of torch (rib.models.device.ComputeSettings)."""
        chosen = self.config["compute"]
        return {"threads": chosen["threads_per_job"]} | {
            key: chosen[key] for key in ("device", "precision", "compile")
        }

    def view_at(self, geometry: Geometry) -> dict:
        """View of the datasets at a geometry (rib.data.view.DatasetView)."""
        return {
            "geometry": vars(geometry),
            "budget": self.config["budget"]["max_images_per_dataset"],
            "images_per_class": self.reference.images_per_class if self.reference else None,
        }

    def view_of(self, model: str) -> dict:
        """View of the datasets and the pretraining proxy for a model."""
        view, how = self.view_at(self.geometry(model)), self.models[model].pretrain
        if how and self.reference and how["dataset"] == self.reference.dataset.name:
            # Images that were not used for pretraining must not be part of the proxy.
            return {**view, "pretraining_size": str(how["size"])}
        return view

    def preparation(self, dataset: str, geometry: Geometry) -> dict:
        """Fields of the settings with which a dataset is prepared, but the digest of the code.

        See rib.data.settings.PreparationSettings. Encoded photos have no geometry yet.
        """
        entry = self.catalog.datasets[dataset]
        return {
            "digests": tuple(archive.get("digest") for archive in entry.sources),
            "layout": str(self.catalog.layout_file(entry.layout)),
            "settings": entry.settings,
            "source_group": entry.source_group,
            "icons": self.catalog.icons(entry),
            "exclude": sorted(entry.exclude),
            "space": self.catalog.label_space(entry),
            "classes_per_dataset": self.family.classes_per_dataset,
            "storage": entry.storage,
            "geometry": None if entry.storage == "encoded" else geometry,
            "expected": entry.images,
            "about": entry.about_images,
        }

    def conversion(self, model: str) -> dict:
        """Facts of a model with which it is converted or trained here.

        They are fields of rib.models.settings.ConversionSettings and
        rib.training.settings.PretrainingSettings.
        """
        entry, head, space = (
            self.models[model],
            self.head(model),
            self.catalog.family_label_space(self.family.name),
        )
        own_classes = self.family.classes["format"] == "own"
        return {
            "entry": {
                **{key: getattr(entry, key) for key in MODEL_FACTS},
                "arguments": self.arguments(model),
            },
            "head": head,
            "num_classes": space.num_classes,
            "class_names": list(space.names) if head == "zero_shot" and own_classes else None,
        }

    def as_config(self) -> dict:
        """A config.yaml that gives this grid: its choices with every `default` and `all` resolved.

        Not resolved are recipes and lengths of trainings, which depend on the method, and what a method's entry and the
        family say of its settings.
        """
        config = self.config
        named_models = config["models"] not in ("default", "all")
        shared = {key: self.setting(key) for key in config["training"] if key not in LENGTH}
        choices_of_grid = {
            **config,
            "datasets": list(self.datasets),
            "reference": self._reference_choice(),
            "models": config["models"] if named_models else list(self.models),
            "methods": self.entries_of_methods,
            "targets": self.targets,
            "image_size": self.setting("image_size"),
            "train_subset": [_size_in_config(size) for size in self.sizes],
            "training": config["training"] | shared,
        }
        # In the order of the schema, whatever the order of the command line.
        keys = [key for key in load_schema("config")["properties"] if key not in OF_CALL]
        return {key: choices_of_grid[key] for key in keys}

    def _reference_choice(self) -> str:
        """The choice of config that gives the pretraining proxy; a part of a dataset can only be the family's default."""
        if self.reference is None:
            return "none"
        if self.reference.images_per_class is not None:
            return "default"
        return self.reference.dataset.name

    def resolved(self) -> dict:
        """The configuration with every `default` and `all` resolved, without settings of the machine."""
        return {
            **{key: value for key, value in self.config.items() if key not in UNRECORDED},
            "compute": {
                key: value for key, value in self.config["compute"].items() if key not in OF_MACHINE
            },
            "datasets": list(self.datasets),
            "reference": self.reference and self.reference.dataset.name,
            "models": list(self.models),
            "methods": list(self.methods),
            "method_settings": {
                name: {
                    **method.settings,
                    **({"recipe": method.recipe, **method.length} if method.trains else {}),
                }
                for name, method in self.methods.items()
            },
            "recipes": list(
                dict.fromkeys(method.recipe for method in self.methods.values() if method.recipe)
            ),
            "targets": self.targets,
            "compare_to": self.compare_to,
            "image_size": self.setting("image_size"),
            "train_subset": self.sizes,
            "training": {
                key: self.setting(key) for key in self.config["training"] if key not in LENGTH
            },
        }


def _size_in_config(size: str) -> str | int | float:
    """A size of the training subset as config.yaml has it, not as paths have it."""
    if size == ALL:
        return size
    return float(size) if "." in size else int(size)


def _short_digest(value: object) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of a value as JSON, keys sorted."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def resolve_grid(config: Mapping, catalog: Catalog) -> Grid:
    """Resolve a validated config; raise a UserError if a choice is unknown, of another family, or can't be run."""
    family = catalog.families[known_name(config["family"], catalog.families, "family", "config")]
    datasets = choices.choose_datasets(config, family, catalog)
    reference = choices.choose_reference(config, family, catalog)
    models, notices = choices.choose_models(config, family, catalog, reference)
    targets, of_targets = choices.choose_targets(config, family, catalog, datasets)
    fractions = choices.choose_split_fractions(config, family)
    recipes = choices.choose("recipes", catalog.recipes, config, family)
    variants = Variants(recipes, config, family, catalog)

    def other_obstacle(method: Method) -> str | None:
        nothing = choices.nothing_to_merge(method, config, datasets, targets, variants.swept)
        return nothing or choices.too_many_images(method, config, datasets, catalog)

    names, of_methods = choices.choose_methods(
        config, family, catalog, models, reference, other_obstacle
    )
    subsets, budget = config["train_subset"], config["budget"]["max_images_per_dataset"]
    if subsets == "default":  # without those that the budget makes impossible
        subsets = [
            size
            for size in family.defaults["train_subset"]
            if ALL in (size, budget) or size < budget
        ]
    sizes = [in_path(size) for size in subsets or [ALL]]
    if len(set(sizes)) < len(sizes):
        raise UserError(
            "config, train_subset: two fractions agree in their first twelve digits; remove one of them."
        )
    methods = resolve_methods(names, variants)
    grid = Grid(
        config=config,
        catalog=catalog,
        family=family,
        datasets=datasets,
        reference=reference,
        models=models,
        methods=methods,
        targets=targets,
        sizes=sizes,
        seeds=config["seeds"],
        split_fractions=fractions,
        compare_to=choices.choose_compare_to(config, methods),
        selection=choices.choose_selection(config, methods, datasets, targets),
        notices=[*notices, *of_targets, *of_methods, *terms(models.values())],
        entries_of_methods=names,
    )
    external = [name for name, method in methods.items() if method.form == EXTERNAL]
    named = [parse_name(name).short for name in catalog.records if external]
    known = {"model": [*catalog.models, *named], "target": catalog.datasets_of(family, *EVALUATED)}
    choices.check_external(
        catalog.external, known, [run for run in grid.runs() if run.method in external]
    )
    if config["leak_free"] and grid.leak_free_groups() is None:
        grid.notices.append(
            "leak_free: true has no effect under protocol held_out, which scores no image that shares "
            "its source with one that was trained on"
        )
    for model in models:
        for name in sorted(grid.methods.keys() - set(grid.methods_of(model))):
            grid.notices.append(
                f"method '{name}' is not run on '{model}': {grid.misfit(name, model)}"
            )
    return grid
