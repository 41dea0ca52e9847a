"""How config becomes runs: its choices, resolved with the catalogue. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rib.base.errors import UserError
from rib.catalog.catalog import SGD_OF_PRETRAINING, Catalog
from rib.catalog.hub_datasets import dataset_terms
from rib.catalog.model_names import parse_name, terms
from rib.grid import choices
from rib.grid.choices import Reference
from rib.grid.sweeps import Variants, resolve_methods
from rib.schema.algorithm_settings import FISHER, FISHER_IMAGES, LENGTH, OTHER, RATE
from rib.schema.budget import Budget
from rib.schema.entries import Dataset, Family, Method, Model
from rib.schema.forms import EXTERNAL
from rib.schema.geometry import Geometry
from rib.schema.messages import known_name
from rib.schema.run import ALL, NO_TARGET, PRETRAINED, SEEDS, TARGETS, Run, images_of, largest

NO_LIMIT_OF_STEPS = 10**9


def resolve_grid(config: Mapping[str, Any], catalog: Catalog) -> Grid:
    """The grid of a config: models, methods, targets and runs, with notices for the user.

    The grid's catalogue also has models and files of datasets that config names by their place on
    the hub.

    Raises:
        UserError: A choice is unknown, belongs to another family, or can't be run.
    """
    family_name = known_name(config["family"], catalog.families, "family", "config")
    family = catalog.families[family_name]
    datasets = choices.choose_datasets(config, family, catalog)
    choices.check_budget(config, family, catalog)
    reference = choices.choose_reference(config, family, catalog)
    catalog = catalog.with_models(choices.library_models(config, family))
    models, notices_on_models = choices.choose_models(config, family, catalog, reference)
    targets, notices_on_targets = choices.choose_targets(config, family, catalog, datasets)
    id_targets = choices.choose_id_targets(config, family, catalog, datasets)
    split_fractions = choices.choose_split_fractions(config, family)
    entries_of_targets = [catalog.datasets[name] for name in (*targets, *id_targets)]
    choices.check_images_of_targets(config, family, catalog, entries_of_targets)
    choices.check_scores(family, catalog)
    choices.check_subset_ceiling(family, catalog)
    uncropped = choices.choose_uncropped(config, family, catalog)
    # Which methods run depends on how many variants their sweeps have.
    recipes = choices.choose("recipes", catalog.recipes, config, family)
    variants = Variants(recipes, config, family, catalog)
    entries_of_methods, notices_on_methods = choices.choose_methods(
        config=config,
        family=family,
        catalog=catalog,
        datasets=datasets,
        reference=reference,
        models=models,
        targets=targets,
        id_targets=id_targets,
        is_swept=variants.is_swept,
    )
    sizes = choices.choose_sizes(config, family, entries_of_targets)
    methods = resolve_methods(entries_of_methods, variants)
    grid = Grid(
        config=config,
        catalog=catalog,
        family=family,
        datasets=datasets,
        reference=reference,
        models=models,
        methods=methods,
        targets=targets,
        id_targets=id_targets,
        sizes=sizes,
        seeds=config["seeds"],
        split_fractions=split_fractions,
        compare_to=choices.choose_compare_to(config, methods),
        selection=choices.choose_selection(config, methods, datasets, targets),
        uncropped=uncropped,
        notices=[
            *notices_on_models,
            *notices_on_targets,
            *notices_on_methods,
            *terms(models.values()),
        ],
        entries_of_methods=entries_of_methods,
    )
    # These checks need the finished grid.
    _check_external_weights(grid)
    _check_learning_rates(grid)
    grid = _with_hub_files(grid)
    notices = [
        *grid.notices,
        *_notices_on_grid(grid),
        *dataset_terms(grid.datasets_read()),
    ]
    return replace(grid, notices=notices)


@dataclass(frozen=True)
class Grid:
    """The runs that a config asks for, with names in place of its `default` and `all`."""

    config: Mapping[str, Any]
    catalog: Catalog
    family: Family
    datasets: dict[str, Dataset]  # evaluated ones, in the order of the catalogue
    reference: Reference | None
    models: dict[str, Model]
    # methods by name with resolved settings, one for each swept value
    methods: dict[str, Method]
    targets: list[str]  # out of distribution: mRI and all means over targets are of these
    id_targets: list[str]  # training sets in distribution, such as ["imagenet_train"]
    sizes: list[str]  # of the training subset, as written in paths: "all", "1000", "0.5"
    seeds: list[int]
    # under protocol held_out; None under `paper`
    split_fractions: dict[str, float] | None
    compare_to: str  # the ranking shows differences from this method
    selection: choices.VariantSelection | None
    uncropped: list[str]  # datasets that are read without the models' crop
    notices: list[str]  # about additions and omissions, with reasons
    # names of the catalogue's methods whose variants `methods` has
    entries_of_methods: list[str]
    # if this grid is a part of another one (`of_runs`): its only runs
    chosen_runs: frozenset[Run] | None = None

    def runs(self) -> list[Run]:
        """All runs that have an RI (mean change of accuracy), so no merges over targets.

        For each model: the pretrained model, then targets x methods x sizes x seeds. A merge over
        seeds has only the first seed. For example Run("net", "sketch", "ft", "all", 0). A part of a
        grid (`of_runs`) has its chosen runs only.
        """
        runs = []
        for model in self.models:
            runs.append(Run(model, NO_TARGET, PRETRAINED, ALL, 0))
            methods = [name for name in self.methods_of(model) if name not in self.over_targets]
            for target, method, size in itertools.product(self.all_targets, methods, self.sizes):
                merges_seeds = self.methods[method].over == SEEDS
                seeds = self.seeds[:1] if merges_seeds else self.seeds
                runs.extend(Run(model, target, method, size, seed) for seed in seeds)
        if self.chosen_runs is not None:
            runs = [run for run in runs if run in self.chosen_runs]
        return runs

    def of_runs(self, runs: Collection[Run]) -> Grid:
        """The part of this grid with only the given runs.

        Models, methods, targets and sizes are restricted to these runs, in the order of this grid.
        Merges over targets are left out. One value of a swept setting can still be selected if at
        least two of the values have runs.
        """
        models = {run.model for run in runs}
        fine_tuned = [run for run in runs if run.method != PRETRAINED]
        methods = {run.method for run in fine_tuned}
        targets = {run.target for run in fine_tuned}
        sizes = {run.size for run in fine_tuned}
        return replace(
            self,
            models={name: entry for name, entry in self.models.items() if name in models},
            methods={name: entry for name, entry in self.methods.items() if name in methods},
            targets=[name for name in self.targets if name in targets],
            id_targets=[name for name in self.id_targets if name in targets],
            sizes=[size for size in self.sizes if size in sizes],
            selection=_selection_among(methods, self.selection),
            chosen_runs=frozenset(runs),
        )

    @property
    def all_targets(self) -> list[str]:
        """Datasets to fine-tune on, out of distribution and then in distribution."""
        return [*self.targets, *self.id_targets]

    @cached_property
    def of_ood_targets(self) -> Grid:
        """This grid without targets in distribution, which mRI and other means leave out.

        Without other targets it has the pretrained models only.
        """
        if not self.id_targets:
            return self
        if self.targets:
            chosen_runs = self.chosen_runs
            if chosen_runs is not None:
                chosen_runs = frozenset(
                    run for run in chosen_runs if run.target not in self.id_targets
                )
            return replace(self, id_targets=[], chosen_runs=chosen_runs)
        return replace(
            self,
            id_targets=[],
            methods={},
            entries_of_methods=[],
            compare_to=PRETRAINED,
            selection=None,
            chosen_runs=None,
        )

    def methods_of(self, model: str) -> list[str]:
        """Methods that support a model, as all of their parents do.

        In a part of a grid, these are the methods of the model's runs.
        """
        if self.chosen_runs is None:
            return [name for name in self.methods if self.misfit(name, model) is None]
        methods_of_runs = {run.method for run in self.chosen_runs if run.model == model}
        return [name for name in self.methods if name in methods_of_runs]

    def misfit(self, method: str, model: str) -> str | None:
        """Why a method or one of its parents does not support a model; None if all do."""
        method_entry = self.methods[method]
        model_type = self.models[model].type
        if model_type not in method_entry.types:
            return f"it is not for {model_type}s"
        has_text_tower = self.head(model) == "zero_shot"  # only text towers make such heads
        if method_entry.text == "required" and not has_text_tower:
            return "it trains with texts, but the model has no text tower"
        for parent in method_entry.parents:
            reason = self.misfit(parent, model)
            if reason is not None:
                return reason
        return None

    @cached_property
    def over_targets(self) -> list[str]:
        """Names of methods that merge the weights of all targets; their runs have no RI."""
        return [name for name, method in self.methods.items() if method.over == TARGETS]

    def runs_over_targets(self) -> list[Run]:
        """Runs of merges over targets: sizes x seeds x models x methods.

        Such a run merges weights fine-tuned on all targets, so it has no target itself.
        """
        merges_of_model = {}
        for model in self.models:
            supported = self.methods_of(model)
            merges_of_model[model] = [name for name in supported if name in self.over_targets]
        runs: list[Run] = []
        for size, seed in itertools.product(self.sizes, self.seeds):
            for model, merges in merges_of_model.items():
                runs.extend(Run(model, NO_TARGET, merge, size, seed) for merge in merges)
        return runs

    def parents_of(self, method: str) -> list[str]:
        """Keys of the runs that a method's run starts from or merges.

        A key is the parent's name, followed by its seed or target if parents differ in that:
        ["ft"], or ["ft, seed 0", "ft, seed 1"] for a merge over seeds. rib.schema.run.parent_of
        reads it.
        """
        method_entry = self.methods[method]
        if method_entry.over == SEEDS:
            column = "seed"
            merged_over: Sequence[str | int] = self.seeds
        elif method_entry.over == TARGETS:
            column = "target"
            merged_over = self.targets
        else:
            return list(method_entry.parents)
        pairs = itertools.product(method_entry.parents, merged_over)
        return [f"{parent}, {column} {seed_or_target}" for parent, seed_or_target in pairs]

    def evaluation_of(self, method: str) -> str:
        """Name of the job that evaluates a method's runs: `wise_ft-alpha` for wise_ft-alpha0.5."""
        if method == PRETRAINED:
            return PRETRAINED
        return self.methods[method].evaluation

    def settings_on(self, method: str, model: str) -> dict[str, Any]:
        """Settings of a method on a model, with the model's learning rate: {"lr": 0.1, ...}.

        A rate for the model overrides one for its group, which overrides `other`.

        Raises:
            UserError: Rates are stated by model and group, and none fits this model.
        """
        settings = self.methods[method].settings
        rates = settings.get(RATE)
        if not isinstance(rates, dict):
            return settings
        key = self.key_of_rate(method, model)
        if key is None:
            raise UserError(
                f"method '{method}': {RATE} is stated by model, for {', '.join(rates)}, and not "
                f"for '{model}' or its group; add a rate for it, or for '{OTHER}', to the recipes "
                "of the family's or the method's entry, or to method_settings."
            )
        return {**settings, RATE: rates[key]}

    def key_of_rate(self, method: str, model: str) -> str | None:
        """Key of a model's rate, if a method states learning rates by model.

        {"my_cnn": 0.1, "other": 0.3} gives `my_cnn` for this model, and `other` for models that
        neither have a key nor are in a group with a key. None if the method has one rate for all
        models, or none for this one.
        """
        rates = self.methods[method].settings.get(RATE)
        if isinstance(rates, dict):
            for key in (model, self.models[model].group, OTHER):
                if key in rates:
                    return key
        return None

    def training(self, method: str) -> dict[str, Any]:
        """How a method is trained: {"optimizer": "sgd", "epochs": 10, "steps": None, ...}.

        They are fields of rib.training.training_settings.TrainingSettings. The learning rate is
        missing, since it depends on the model (`settings_on`).
        """
        method_entry = self.methods[method]
        assert method_entry.recipe is not None  # a method that trains has one
        training = dict(self.catalog.recipes[method_entry.recipe].training)
        for key in LENGTH:  # epochs or steps; the other is None
            training[key] = method_entry.length.get(key)
        training.update(self.shared_training())
        return training

    def training_of(self, method: str, target: str, size: str) -> dict[str, Any]:
        """How a run is trained: `training`, perhaps shortened.

        A subset is usually trained for as many steps as the whole target. A family may name a
        dataset as ceiling (`subset_ceiling`): a subset of a larger target is trained for as many
        steps as that whole dataset. A subset that is itself larger is trained for as many epochs as
        the whole target.
        """
        training = self.training(method)
        is_as_long_as_target = training["steps"] is None and training["subset_length"] == "steps"
        if not (is_as_long_as_target and self.has_ceiling(target, size)):
            return training
        images_of_ceiling = self.images_of_ceiling
        assert images_of_ceiling is not None  # has_ceiling implies it
        if self._stated_images_of_run(target, size) > images_of_ceiling:
            return {**training, "subset_length": "epochs"}
        steps_per_epoch = math.ceil(images_of_ceiling / training["batch_size"])
        return {**training, "epochs": None, "steps": training["epochs"] * steps_per_epoch}

    def shortened_trainings(self, target: str, size: str) -> list[dict[str, Any]]:
        """Settings of trainings on a subset of a target that the family's ceiling shortens.

        For example [{"optimizer": "sgd", "epochs": None, "steps": 7960, ...}], one per method.
        The page mentions them, since the whole target is trained for more steps.
        """
        return [
            self.training_of(name, target, size)
            for name, method in self.methods.items()
            if method.trains and self.training(name) != self.training_of(name, target, size)
        ]

    def has_ceiling(self, target: str, size: str) -> bool:
        """Whether a size is a subset of a target that is larger than the family's ceiling dataset.

        Numbers of images come from the entries, within the budget. A target whose entry states no
        number has no ceiling.
        """
        if size == ALL or self.images_of_ceiling is None:
            return False
        return self._stated_images_of_run(target, ALL) > self.images_of_ceiling

    @cached_property
    def images_of_ceiling(self) -> int | None:
        """Training images of the dataset that limits the length of subsets' trainings.

        The budget doesn't matter. None if the family has no such dataset (`subset_ceiling`).
        """
        if self.family.subset_ceiling is None:
            return None
        dataset = self.catalog.datasets[self.family.subset_ceiling]
        images = dataset.images or dataset.about_images
        assert images is not None  # check_subset_ceiling ensures it
        return self._images_of_train_split(images)

    def _stated_images_of_run(self, target: str, size: str) -> int:
        """Training images according to the target's entry; 0 if it states no number."""
        dataset = self.catalog.datasets[target]
        stated_images = dataset.images or dataset.about_images or 0
        images_in_budget = self.budget.images(target, stated_images)
        return images_of(size, self._images_of_train_split(images_in_budget))

    def _images_of_train_split(self, images: int) -> int:
        """Training images among all images of a dataset, under the protocol."""
        if self.split_fractions is None:
            return images
        return math.ceil(images * self.split_fractions["train"])

    def pretraining(self, model: str) -> dict[str, Any]:
        """How a model is pretrained here: {"momentum": 0.9, "epochs": 10, "batch_size": 128, ...}.

        They are fields of rib.training.training_settings.TrainingSettings.
        """
        pretrain = self.catalog.pretraining(self.models[model])
        assert pretrain is not None  # only called for models pretrained here
        if "recipe" in pretrain:
            recipe = self.catalog.recipes[pretrain["recipe"]].training
        else:
            recipe = {key: pretrain[key] for key in SGD_OF_PRETRAINING}
            recipe["warmup_steps"] = NO_LIMIT_OF_STEPS  # only the fraction bounds the warm-up
        return {
            **recipe,
            "epochs": pretrain.get("epochs"),
            "steps": pretrain.get("steps"),
            "batch_size": pretrain["batch_size"],
            "micro_batch_size": ALL,  # BatchNorm needs whole batches
        }

    def shared_training(self) -> dict[str, Any]:
        """Settings of training that all methods have in common, in config's order.

        For example {"batch_size": 64, "micro_batch_size": "all", "subset_length": "steps"}.
        """
        return {key: self.choice(key) for key in self.config["training"] if key not in LENGTH}

    def choice(self, key: str) -> Any:
        """A choice of config.yaml, with the family's value in place of `default`.

        Args:
            key: at the top of config.yaml or under `training`, such as `image_size`.
        """
        choice = self.config["training"].get(key, self.config.get(key))
        if choice == "default":
            return getattr(self.family.defaults, key)
        return choice

    def datasets_of_training(self, run: Run) -> list[str]:
        """Names of the datasets that a run's training reads.

        They are the target and, if the method needs it, the pretraining proxy (images in place of
        the pretraining data).
        """
        names = [run.target]
        if self.reference is not None and self.methods[run.method].reference != "no":
            names.append(self.reference.dataset.name)
        return names

    def shared_fisher(self, method: str) -> tuple[int, str] | None:
        """Largest number of images and kind of the Fisher information that all targets share.

        Fisher information says how much outputs depend on each weight. The pretrained model's, on
        the pretraining proxy, doesn't depend on the target, so it is computed once. None if the
        method takes no Fisher information, starts from another method, or has no proxy and
        therefore takes the target's.

        Returns:
            The method's settings, such as (1000, "sampled").
        """
        method_entry = self.methods[method]
        takes_fisher = method_entry.trains and method_entry.fisher_information
        starts_from_pretrained = not method_entry.parents
        uses_proxy = method_entry.reference != "no" and self.reference is not None
        if not (takes_fisher and starts_from_pretrained and uses_proxy):
            return None
        return method_entry.settings[FISHER_IMAGES], method_entry.settings[FISHER]

    def datasets_read(self) -> list[Dataset]:
        """Datasets that jobs read.

        These are the evaluated datasets, targets in distribution, the pretraining proxy if it is
        used, and datasets for pretraining models here.
        """
        names = [*self.datasets, *self.id_targets]
        if self._uses_proxy():
            assert self.reference is not None  # _uses_proxy implies it
            names.append(self.reference.dataset.name)
        for model in self.models.values():
            if model.is_trained_here:
                assert model.pretrain is not None
                names += [model.pretrain.dataset, model.pretrain.test]
        return [self.catalog.datasets[name] for name in dict.fromkeys(names)]

    def _uses_proxy(self) -> bool:
        """Whether a method or a head needs the pretraining proxy, or a dataset excludes it."""
        if self.reference is None:
            return False
        needed_by_method = any(method.reference != "no" for method in self.methods.values())
        needed_by_head = any(self.head(model) == "fitted" for model in self.models)
        needed_by_dataset = any(self.excludes_proxy(dataset) for dataset in self.datasets)
        return needed_by_method or needed_by_head or needed_by_dataset

    def excludes_proxy(self, dataset: str) -> bool:
        """Whether the pretraining proxy's images are left out of a dataset.

        The proxy stands in for the pretraining data. Its images are left out if they are a part of
        this dataset, or of one with the same source images.
        """
        if self.reference is None or self.reference.images_per_class is None:
            return False
        proxy = self.reference.dataset
        if dataset == proxy.name:
            return True
        source_group = self.catalog.datasets[dataset].source_group
        return source_group is not None and source_group == proxy.source_group

    @cached_property
    def ood(self) -> list[str]:
        """Names of the datasets that count in RI (mean change of accuracy by fine-tuning)."""
        return choices.ood_datasets(self.datasets)

    @cached_property
    def not_trained_on(self) -> list[str]:
        """Names of datasets that share no source images with targets; for merges over targets."""
        return choices.not_trained_on(self.datasets, self.targets)

    def head(self, model: str) -> str:
        """Origin of a model's head: `published`, `zero_shot`, `fitted` or `pretrained`."""
        return choices.head_of(self.models[model], self.family)

    def geometry(self, model: str) -> Geometry:
        """Input geometry of a model; models with the same geometry share prepared data.

        Config may override the input size, and the family the fraction that the crop keeps.
        """
        preprocessing = self.models[model].preprocessing
        size = self.choice("image_size")
        if size == "native":
            size = preprocessing.input_size
        if self.family.crop_pct is not None:
            return Geometry(size, self.family.crop_pct, preprocessing.interpolation)
        return Geometry(
            size=size,
            crop_pct=preprocessing.crop_pct,
            interpolation=preprocessing.interpolation,
            crop_mode=preprocessing.crop_mode,
        )

    @cached_property
    def budget(self) -> Budget:
        """Limits on the number of images of each dataset."""
        return choices.budget_of(self.config)

    @property
    def shown_size(self) -> str:
        """The largest size, which figures and headlines show."""
        return largest(self.sizes)


def _selection_among(
    methods: Collection[str], selection: choices.VariantSelection | None
) -> choices.VariantSelection | None:
    """The selection without sweeps that have fewer than two variants among `methods`.

    None if no sweep is left, since there is nothing to select.
    """
    if selection is None:
        return None
    variants_of_sweeps = {}
    for sweep, variants in selection.variants.items():
        variants_among_methods = [name for name in variants if name in methods]
        if len(variants_among_methods) > 1:
            variants_of_sweeps[sweep] = variants_among_methods
    if not variants_of_sweeps:
        return None
    return replace(selection, variants=variants_of_sweeps)


def _check_external_weights(grid: Grid) -> None:
    """Raise a UserError if a run whose weights were trained elsewhere has no row in a table."""
    catalog = grid.catalog
    external_methods = [name for name, method in grid.methods.items() if method.form == EXTERNAL]
    # A table may name all models that could be chosen, not only those of this grid.
    models = list(catalog.models)
    if external_methods:
        models += [parse_name(record).short for record in catalog.lock.models]
    known_names = {
        "model": models,
        "target": [*catalog.evaluated_datasets(grid.family), *grid.id_targets],
    }
    external_runs = [run for run in grid.runs() if run.method in external_methods]
    choices.check_external(catalog.external, known_names, external_runs)


def _check_learning_rates(grid: Grid) -> None:
    """Raise a UserError if a method has no learning rate for a model."""
    for model in grid.models:
        for method in grid.methods_of(model):
            grid.settings_on(method, model)  # raises if there is no rate


def _with_hub_files(grid: Grid) -> Grid:
    """The grid with the files of datasets on the hub, when it is known which datasets it reads."""
    catalog = grid.catalog.with_hub_files([dataset.name for dataset in grid.datasets_read()])
    datasets = {name: catalog.datasets[name] for name in grid.datasets}
    reference = grid.reference
    if reference is not None:
        reference = replace(reference, dataset=catalog.datasets[reference.dataset.name])
    return replace(grid, catalog=catalog, datasets=datasets, reference=reference)


def _notices_on_grid(grid: Grid) -> list[str]:
    """Sentences on choices without effect, and on methods that are not run on a model."""
    notices = []
    if grid.config["leak_free"] and grid.split_fractions is not None:
        notices.append(
            "leak_free: true has no effect under protocol held_out, which scores no image that "
            "shares its source with one that was trained on"
        )
    datasets_read = [dataset.name for dataset in grid.datasets_read()]
    for name in grid.budget.of_dataset:
        if name not in datasets_read:
            notices.append(
                f"budget.max_images_per_dataset has no effect on '{name}', which is not read here"
            )
    for model in grid.models:
        for method in sorted(grid.methods):
            reason = grid.misfit(method, model)
            if reason is not None:
                notices.append(f"method '{method}' is not run on '{model}': {reason}")
    return notices
