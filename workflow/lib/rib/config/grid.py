"""The grid of a run: the choices of config, resolved with the catalogue. No torch."""

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rib.base.errors import UserError
from rib.config import choices
from rib.config.budget import Budget, images_within
from rib.config.catalog import SGD_OF_PRETRAINING, Catalog
from rib.config.choices import Reference
from rib.config.entries import EVALUATED, Dataset, Family, Method, Model, Parts
from rib.config.fields import stated
from rib.config.forms import EXTERNAL
from rib.config.geometry import Geometry, geometry_of
from rib.config.hub_datasets import dataset_terms
from rib.config.messages import known_name
from rib.config.model_names import parse_name, terms
from rib.config.run import ALL, NO_TARGET, PRETRAINED, SEEDS, TARGETS, Run, images_of, largest
from rib.config.settings import FISHER_IMAGES, LENGTH, OTHER, RATE, RECIPE
from rib.config.sources import without_addresses
from rib.config.sweeps import Variants, in_path, resolve_methods

# Keys of config that are no settings of results.
UNRECORDED = ("name", "catalog", "archives", "external", "monitor")
# Settings of the machine, on which results do not depend. `deterministic` is one: with `warn` a
# training on CUDA may give other numbers each time, which no digest could tell apart.
OF_MACHINE = ("jobs_per_gpu", "gpu_memory_gb", "decode_workers", "deterministic")
# Keys of config that are about a call, not about the grid.
OF_CALL = ("archives", "monitor")
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
    "pretraining",
    "licence",
)

# In names of evaluation groups, before the part of a dataset; no other name of a group has it.
BEFORE_PART = "-"
NO_LIMIT_OF_STEPS = 10**9
# Side of the images, in pixels, on which published errors relative to AlexNet's were measured.
SIDE_OF_PUBLISHED_ERRORS = 224


@dataclass(frozen=True)
class Grid:
    """Models, methods, targets, sizes and seeds of a run."""

    config: Mapping[str, Any]
    catalog: Catalog
    family: Family
    datasets: dict[str, Dataset]  # evaluated datasets, in the order of the catalogue
    reference: Reference | None
    models: dict[str, Model]
    # methods by name with resolved settings; each swept value is a separate variant
    methods: dict[str, Method]
    targets: list[str]
    sizes: list[str]  # sizes of the training subset of the target, as written in paths
    seeds: list[int]
    # fractions of protocol held_out; None under `paper`
    split_fractions: dict[str, float] | None
    compare_to: str  # method, or the pretrained model, that differences in the ranking are from
    selection: choices.VariantSelection | None
    uncropped: list[str]  # datasets of which models see whole photos, without their crop
    notices: list[str]  # messages about what was added to the grid or left out, and why
    # names of the methods' entries, of which `methods` are the variants
    entries_of_methods: list[str]
    # the only runs of this grid, if it is a part of another one (see `of_runs`)
    chosen_runs: frozenset[Run] | None = None

    @property
    def shown_size(self) -> str:
        """The largest size, which figures and headlines show."""
        return largest(self.sizes)

    @cached_property
    def ood(self) -> list[str]:
        """Datasets that count in RI."""
        return choices.ood_datasets(self.datasets)

    @cached_property
    def budget(self) -> Budget:
        """How many images of each dataset are used."""
        return choices.budget_of(self.config)

    def head(self, model: str) -> str:
        """Origin of a model's head (see `head_of`)."""
        return choices.head_of(self.models[model], self.family)

    def excludes_proxy(self, dataset: str) -> bool:
        """Whether the images of the pretraining proxy are excluded from a dataset.

        The proxy is images that stand in for the pretraining data. They are excluded if they are a
        part of the dataset, or of one with the same source images.
        """
        if self.reference is None or self.reference.images_per_class is None:
            return False
        proxy = self.reference.dataset
        if dataset == proxy.name:
            return True
        source_group = self.catalog.datasets[dataset].source_group
        return source_group is not None and source_group == proxy.source_group

    def datasets_read(self) -> list[Dataset]:
        """Datasets that jobs read.

        These are the evaluated ones, the pretraining proxy if it is used, and those of models that
        are pretrained here.
        """
        names = list(self.datasets)
        if self._uses_proxy():
            assert self.reference is not None  # it is the proxy
            names.append(self.reference.dataset.name)
        for model in self.models.values():
            if model.is_trained_here:
                assert model.pretrain is not None
                names += [model.pretrain.dataset, model.pretrain.test]
        return [self.catalog.datasets[name] for name in dict.fromkeys(names)]

    def _uses_proxy(self) -> bool:
        """Whether a method, a head or an evaluated dataset needs the pretraining proxy.

        The proxy is images that stand in for the pretraining data. A dataset needs them if they are
        excluded from it.
        """
        if self.reference is None:
            return False
        needed_by_method = any(method.reference != "no" for method in self.methods.values())
        needed_by_head = any(self.head(model) == "fitted" for model in self.models)
        needed_by_dataset = any(self.excludes_proxy(dataset) for dataset in self.datasets)
        return needed_by_method or needed_by_head or needed_by_dataset

    def evaluation_groups(self) -> dict[str, list[str]]:
        """Datasets of each evaluation group, which one job evaluates, in the catalogue's order.

        A group of which only some datasets are evaluated has a name of its own, since its rows are
        others than the whole group's. A dataset that is evaluated in parts has a group for each.
        """
        return self._evaluation_groups

    @cached_property
    def _evaluation_groups(self) -> dict[str, list[str]]:
        """See `evaluation_groups`."""
        groups: dict[str, list[str]] = {}
        for name in self.datasets:
            for group in self.groups_of(name):
                groups.setdefault(group, []).append(name)
        return groups

    def groups_of(self, dataset: str) -> list[str]:
        """Names of the evaluation groups of an evaluated dataset (see `evaluation_groups`).

        It is one, unless the dataset is evaluated in parts: those of imagenet_c are called
        imagenet_c-noise, imagenet_c-blur and so on.
        """
        group = self._group_of(dataset)
        parts = self.datasets[dataset].parts
        if parts is None:
            return [group]
        return [f"{group}{BEFORE_PART}{part}" for part in parts.levels]

    def part_of_group(self, group: str) -> dict[str, Any] | None:
        """Fields of rib.data.dataset_part.DatasetPart, the part of a dataset that a group is.

        Args:
            group: one of `evaluation_groups`, such as imagenet_c-noise. Of one that is whole
                datasets, such as imagenet, the part is None.
        """
        if BEFORE_PART not in group:
            return None
        parts = self._parts_of_dataset(group)
        return {"column": parts.column, "levels": parts.levels[_name_of_part(group)]}

    def levels_of_other_parts(self, group: str) -> list[str | int]:
        """Levels of the slice that are in the other parts of the dataset of which a group is one.

        They are in the order of the dataset's entry.
        """
        other_levels: list[str | int] = []
        for name, levels in self._parts_of_dataset(group).levels.items():
            if name != _name_of_part(group):
                other_levels.extend(levels)
        return other_levels

    def _parts_of_dataset(self, group: str) -> Parts:
        """All parts of the dataset of which an evaluation group is one."""
        (dataset,) = self.evaluation_groups()[group]
        parts = self.datasets[dataset].parts
        assert parts is not None  # otherwise its group would not have this name
        return parts

    def _group_of(self, dataset: str) -> str:
        """Name of the evaluation group of an evaluated dataset, without that of a part.

        It is the name in the catalogue if those datasets of the group are evaluated that are by
        default; otherwise a digest of the evaluated ones is added.
        """
        group = self.datasets[dataset].evaluation_group
        in_group = []
        not_optional = []
        for name, entry in self.catalog.datasets_of(self.family, *EVALUATED).items():
            if entry.evaluation_group == group:
                in_group.append(name)
                if not entry.optional:
                    not_optional.append(name)
        evaluated = [name for name in in_group if name in self.datasets]
        evaluated_by_default = not_optional if not_optional else in_group
        if evaluated == evaluated_by_default:
            return group
        return f"{group}_{short_digest(evaluated)}"

    def evaluated_before(self, dataset: str) -> list[str]:
        """Evaluated datasets that are split into train, select and test before this one.

        They are those before it in the catalogue. A reference dataset is split after all of them.
        """
        return _names_before(dataset, list(self.datasets))

    def split_before(self, dataset: str) -> list[str]:
        """Those of `evaluated_before` that share source images with this dataset, by their entries.

        A source image is then in the same split in all of them.
        """
        source_group = self.catalog.datasets[dataset].source_group
        if source_group is None:
            return []
        related = [
            name for name, entry in self.datasets.items() if entry.source_group == source_group
        ]
        return _names_before(dataset, related)

    def source_groups(self) -> dict[str, str]:
        """Source group by dataset, for datasets that share source images with others."""
        return {
            name: entry.source_group for name, entry in self.datasets.items() if entry.source_group
        }

    def sharing_targets(self) -> list[str]:
        """Targets whose source images other evaluated datasets show too, by their entries."""
        groups = self.source_groups()
        datasets_by_group = Counter(groups.values())
        return [
            target
            for target in self.targets
            if target in groups and datasets_by_group[groups[target]] > 1
        ]

    def leak_free_groups(self) -> dict[str, str] | None:
        """Source group by dataset, if images that share sources with the target don't count in RI.

        None if all count: config doesn't ask for less or, under protocol held_out, test images
        share no sources with training images anyway.
        """
        if self.config["leak_free"] and self.split_fractions is None:
            return self.source_groups()
        return None

    def leaking_groups(self) -> dict[str, str] | None:
        """Source group by dataset, if images that share sources with the target count in RI.

        None if they don't count, or if no target shares its sources.
        """
        is_leak_free = self.config["leak_free"] or self.split_fractions is not None
        if is_leak_free or not self.sharing_targets():
            return None
        return self.source_groups()

    def conditions(self) -> list[str]:
        """Conditions of all results that are not columns of the tables, as short phrases."""
        phrases = [f"protocol {self.config['protocol']}"]
        if self.leak_free_groups() is not None:
            phrases.append("leak-free")
        labels = {entry.name: entry.label for entry in self.datasets_read()}
        budget = self.budget.phrase(labels)
        if budget is not None:
            phrases.append(f"{budget} (intervals are of these images)")
        phrases.extend(self._phrases_on_subsets())
        labels_without_proxy = []
        for name, entry in self.datasets.items():
            if self.excludes_proxy(name):
                labels_without_proxy.append(entry.label)
        if labels_without_proxy:
            assert self.reference is not None  # it is the proxy
            phrases.append(
                f"pretraining proxy: {self.reference.images_per_class} images per class of "
                f"{self.reference.dataset.label}, excluded from {', '.join(labels_without_proxy)}"
            )
        labels_of_uncropped = [
            entry.label for name, entry in self.datasets.items() if name in self.uncropped
        ]
        if labels_of_uncropped:
            phrases.append(f"whole photos of {', '.join(labels_of_uncropped)}")
        labels_left_out = []
        for entry in self.catalog.datasets_of(self.family, *EVALUATED).values():
            if not entry.optional and entry.name not in self.datasets:
                labels_left_out.append(entry.label)
        if labels_left_out:
            phrases.append(f"without {', '.join(labels_left_out)}")
        labels_of_optional = []
        for name in self.ood:
            if self.datasets[name].optional:
                labels_of_optional.append(self.datasets[name].label)
        if labels_of_optional:
            phrases.append(f"RI with {', '.join(labels_of_optional)}")
        return phrases

    def _phrases_on_subsets(self) -> list[str]:
        """Phrases about the lengths of trainings that the family's ceiling shortens.

        For example: size 1000 of IN-C is trained for the steps of IN-Sketch (796 per epoch).
        """
        phrases = []
        for size, target in itertools.product(self.sizes, self.targets):
            trainings = [
                self.training_of(name, target, size)
                for name, method in self.methods.items()
                if method.trains and self.training(name) != self.training_of(name, target, size)
            ]
            if not trainings:
                continue
            phrase = f"size {size} of {self.catalog.datasets[target].label} is trained for"
            if trainings[0]["steps"] is None:
                phrases.append(f"{phrase} as many epochs as the whole")
                continue
            assert self.family.subset_ceiling is not None and self._images_of_ceiling is not None
            ceiling = self.catalog.datasets[self.family.subset_ceiling].label
            steps = math.ceil(self._images_of_ceiling / trainings[0]["batch_size"])
            phrases.append(f"{phrase} the steps of {ceiling} ({steps} per epoch)")
        return phrases

    def misfit(self, method: str, model: str) -> str | None:
        """Reason why a method, or one of its parents, does not support a model; None if they do."""
        method_entry = self.methods[method]
        model_type = self.models[model].type
        if model_type not in method_entry.types:
            return f"it is not for {model_type}s"
        has_text_tower = self.head(model) == "zero_shot"  # a head that the text tower makes
        if method_entry.text == "required" and not has_text_tower:
            return "it trains with texts, but the model has no text tower"
        for parent in method_entry.parents:
            reason = self.misfit(parent, model)
            if reason is not None:
                return reason
        return None

    def methods_of(self, model: str) -> list[str]:
        """Methods that, with all of their parents, support a model.

        In a part of a grid, these are the methods of the model's runs.
        """
        if self.chosen_runs is None:
            return [name for name in self.methods if self.misfit(name, model) is None]
        methods_of_runs = {run.method for run in self.chosen_runs if run.model == model}
        return [name for name in self.methods if name in methods_of_runs]

    def runs(self) -> list[Run]:
        """All runs with RI, that is all but merges over targets.

        Of each model these are the pretrained one, then targets x methods x sizes x seeds; a merge
        over seeds has only the first one. In a part of a grid (`of_runs`) they are its runs only.
        """
        runs = []
        for model in self.models:
            runs.append(Run(model, NO_TARGET, PRETRAINED, ALL, 0))
            methods = [name for name in self.methods_of(model) if name not in self.over_targets]
            for target, method, size in itertools.product(self.targets, methods, self.sizes):
                merges_seeds = self.methods[method].over == SEEDS
                seeds = self.seeds[:1] if merges_seeds else self.seeds
                runs.extend(Run(model, target, method, size, seed) for seed in seeds)
        if self.chosen_runs is not None:
            runs = [run for run in runs if run in self.chosen_runs]
        return runs

    def of_runs(self, runs: Collection[Run]) -> "Grid":
        """The part of this grid that has only the given ones of its `runs`.

        Its models, methods, targets and sizes are those of the runs, in the order of this grid;
        merges over targets are left out. All else stays. A variant is chosen of those sweeps that
        have runs of at least two variants.
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
            sizes=[size for size in self.sizes if size in sizes],
            selection=_selection_among(methods, self.selection),
            chosen_runs=frozenset(runs),
        )

    @cached_property
    def over_targets(self) -> list[str]:
        """Names of the methods that merge the weights of all targets; their runs have no RI."""
        return [name for name, method in self.methods.items() if method.over == TARGETS]

    @cached_property
    def not_trained_on(self) -> list[str]:
        """Datasets on which merges over targets are scored."""
        return choices.not_trained_on(self.datasets, self.targets)

    def runs_over_targets(self) -> list[Run]:
        """Runs of merges over targets: sizes x seeds x models x methods.

        Such a run merges the weights that were fine-tuned on all targets, so it has no target.
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

        A key is the name of the parent, such as `ft`, followed by its seed or target if parents
        differ in these: `ft, seed 1`. See rib.config.run.parent_of.
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
        """Name of the job that evaluates a method's runs: `wise_ft-alpha` of wise_ft-alpha0.5."""
        if method == PRETRAINED:
            return PRETRAINED
        return self.methods[method].evaluation

    def shared_fisher(self, method: str) -> tuple[int, str] | None:
        """Which Fisher information is the same for all targets, so that it is computed once.

        It is that of the pretrained model on the pretraining proxy, images that stand in for the
        pretraining data. There is none if the method takes no Fisher information, starts from
        another method, or has no proxy, so that the information is that of the target.

        Returns:
            The most images for it and its kind, settings of the method; None if there is none.
        """
        method_entry = self.methods[method]
        settings = method_entry.settings
        takes_fisher = method_entry.trains and {"fisher", FISHER_IMAGES} <= settings.keys()
        starts_from_pretrained = not method_entry.parents
        uses_proxy = method_entry.reference != "no" and self.reference is not None
        if not (takes_fisher and starts_from_pretrained and uses_proxy):
            return None
        return settings[FISHER_IMAGES], settings["fisher"]

    def geometry(self, model: str) -> Geometry:
        """Input geometry of a model; models with the same geometry share prepared data.

        Config may override the size of the model's entry, and the family what the crop keeps.
        """
        preprocessing = self.models[model].preprocessing
        size = self.setting("image_size")
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

    def errors_are_as_published(self, model: str, dataset: str) -> bool:
        """Whether errors of a model on corrupted photos can be compared with published ones.

        These photos are published at the size of the input. A model's crop below 1 enlarges and
        crops them again, so published errors are of photos that are read without it.
        """
        has_published_size = self.geometry(model).size == SIDE_OF_PUBLISHED_ERRORS
        return has_published_size and dataset in self.uncropped

    def arguments(self, model: str) -> dict[str, Any]:
        """Arguments of the library's create_model.

        They have the input size if the network has to be built for it.
        """
        entry = self.models[model]
        arguments = dict(entry.arguments)
        size = self.geometry(model).size
        if entry.resized_by and size != entry.preprocessing.input_size:
            arguments[entry.resized_by] = size
        return arguments

    def setting(self, key: str) -> Any:
        """A setting of config.yaml, with `default` replaced by the family's.

        Args:
            key: at the top of config.yaml or under `training`, such as `image_size`.
        """
        setting = self.config["training"].get(key, self.config.get(key))
        if setting == "default":
            return getattr(self.family.defaults, key)
        return setting

    def _shared_training(self) -> dict[str, Any]:
        """Settings of training that all methods have, in the order of config."""
        return {key: self.setting(key) for key in self.config["training"] if key not in LENGTH}

    def settings(self, method: str, model: str) -> dict[str, Any]:
        """Settings of a method's algorithm on a model, with the model's own learning rate.

        A rate that is stated for a model comes before that of its group, and that before `other`.

        Raises:
            UserError: Rates are stated by model and group, and there is none for this model.
        """
        settings = self.methods[method].settings
        rates = settings.get(RATE)
        if not isinstance(rates, dict):
            return settings
        key = self._key_of_rate(rates, model)
        if key is None:
            raise UserError(
                f"method '{method}': {RATE} is stated by model, for {', '.join(rates)}, and not "
                f"for '{model}' or its group; add a rate for it, or for '{OTHER}', to the recipes "
                "of the family's or the method's entry, or to method_settings."
            )
        return {**settings, RATE: rates[key]}

    def _key_of_rate(self, rates: Mapping[str, float], model: str) -> str | None:
        """Key of a model's rate in a mapping of rates: `my_cnn`, its group or `other`, or None."""
        for key in (model, self.models[model].group, OTHER):
            if key in rates:
                return key
        return None

    def has_other_rate(self, method: str, model: str) -> bool:
        """Whether a method, or one of its parents, is trained on a model at the rate `other`.

        That rate was not chosen for the model or its group.
        """
        method_entry = self.methods[method]
        rates = method_entry.settings.get(RATE)
        if isinstance(rates, dict) and self._key_of_rate(rates, model) == OTHER:
            return True
        return any(self.has_other_rate(parent, model) for parent in method_entry.parents)

    def other_rates(self) -> dict[str, list[str]]:
        """Methods that have another network's learning rate on a model (see `has_other_rate`).

        Returns:
            Names of methods by model, such as {"my_cnn": ["ft", "wise_ft"]}; models without such
            methods are left out.
        """
        methods_by_model = {}
        for model in self.models:
            methods = [name for name in self.methods_of(model) if self.has_other_rate(name, model)]
            if methods:
                methods_by_model[model] = methods
        return methods_by_model

    def training(self, method: str) -> dict[str, Any]:
        """How a method is trained (rib.training.settings.TrainingSettings)."""
        method_entry = self.methods[method]
        assert method_entry.recipe is not None  # of a method that trains
        training = dict(self.catalog.recipes[method_entry.recipe].training)
        for key in LENGTH:  # epochs or steps; the other is None
            training[key] = method_entry.length.get(key)
        training.update(self._shared_training())
        return training

    def training_of(self, method: str, target: str, size: str) -> dict[str, Any]:
        """How a run is trained, like `training`.

        A part of a target that is larger than the family's ceiling is trained for as many steps as
        the whole of the ceiling; or, if the part itself has more images than that, for as many
        epochs as the whole target.
        """
        training = self.training(method)
        is_as_long_as_target = training["steps"] is None and training["subset_length"] == "steps"
        if not (is_as_long_as_target and self.has_ceiling(target, size)):
            return training
        images_of_ceiling = self._images_of_ceiling
        assert images_of_ceiling is not None  # the target has more
        if self._stated_images_of_run(target, size) > images_of_ceiling:
            return {**training, "subset_length": "epochs"}
        steps_per_epoch = math.ceil(images_of_ceiling / training["batch_size"])
        return {**training, "epochs": None, "steps": training["epochs"] * steps_per_epoch}

    def has_ceiling(self, target: str, size: str) -> bool:
        """Whether this size of a target is a part of more images than the family's ceiling has.

        Numbers of images are those that the entries state, within the budget; a target whose entry
        states none has no ceiling.
        """
        if size == ALL or self._images_of_ceiling is None:
            return False
        return self._stated_images_of_run(target, ALL) > self._images_of_ceiling

    @cached_property
    def _images_of_ceiling(self) -> int | None:
        """Number of images that are trained on in the whole of the family's ceiling, if it has one.

        A budget does not change it.
        """
        if self.family.subset_ceiling is None:
            return None
        dataset = self.catalog.datasets[self.family.subset_ceiling]
        images = dataset.images or dataset.about_images
        assert images is not None  # it has been checked
        return self._images_of_train_split(images)

    def _stated_images_of_run(self, target: str, size: str) -> int:
        """Number of images of a target that a run of a size is trained on, as entries state it.

        It is 0 if the target's entry states no number.
        """
        dataset = self.catalog.datasets[target]
        stated_images = dataset.images or dataset.about_images or 0
        images_in_budget = self.budget.images(target, stated_images)
        return images_of(size, self._images_of_train_split(images_in_budget))

    def _images_of_train_split(self, images: int) -> int:
        """How many of so many images of a dataset are trained on under the protocol."""
        if self.split_fractions is None:
            return images
        return math.ceil(images * self.split_fractions["train"])

    def pretraining(self, model: str) -> dict[str, Any]:
        """How a model is pretrained here (rib.training.settings.TrainingSettings)."""
        pretrain = self.catalog.pretraining(self.models[model])
        assert pretrain is not None  # it is pretrained here
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

    def compute(self) -> dict[str, Any]:
        """Fields of rib.models.settings.ComputeSettings, the settings of torch."""
        compute = self.config["compute"]
        return {
            "threads_per_job": compute["threads_per_job"],
            "device": compute["device"],
            "precision": compute["precision"],
            "compile": compute["compile"],
            "deterministic": compute["deterministic"],
            "expects_gpu": self.family.expects_gpu,
        }

    def view_at(self, geometry: Geometry, datasets: Collection[str]) -> dict[str, Any]:
        """Fields of rib.data.settings.DatasetView: which images of datasets jobs use, at what size.

        They are the geometry, how many images of each dataset are used, the size of the
        pretraining proxy if it is part of a dataset, and which of the datasets are not cropped.

        Args:
            datasets: names of those that the job reads. It does not depend on how others are read.
        """
        images_per_class = None
        if self.reference:
            images_per_class = self.reference.images_per_class
        return {
            "geometry": vars(geometry),
            "budget": self.budget.limits(datasets),
            "images_per_class": images_per_class,
            "uncropped": [name for name in self.uncropped if name in datasets],
        }

    def view_of(self, model: str, datasets: Collection[str]) -> dict[str, Any]:
        """Fields of rib.data.settings.DatasetView for the jobs of a model that read datasets.

        They say which images of datasets and of the pretraining proxy these use, at what size.
        """
        view = self.view_at(self.geometry(model), datasets)
        pretraining = self.models[model].pretrain  # of a model that is pretrained here
        if pretraining is None or self.reference is None:
            return view
        if pretraining.dataset == self.reference.dataset.name:
            # Such a model may have been pretrained on a subset of the dataset, of this size and
            # draw. The proxy must be the same subset, without images that the model has not seen.
            view["pretraining_size"] = str(pretraining.size)
            view["pretraining_seed"] = pretraining.seed
        return view

    def preparation(self, dataset: str, geometry: Geometry | None) -> dict[str, Any]:
        """Fields of the settings with which a dataset is prepared, but the digest of the code.

        See rib.data.settings.PreparationSettings. Encoded photos have no geometry yet.

        Args:
            geometry: that of the model; images are prepared without its crop if the grid says so.
        """
        entry = self.catalog.datasets[dataset]
        geometry = geometry_of(dataset, geometry, self.uncropped)
        if entry.storage == "encoded":
            geometry = None
        photos_layout = self.catalog.photos_layout_file(entry)
        return {
            "digests": tuple(archive.get("digest") for archive in entry.archives),
            "layout": str(self.catalog.layout_file(entry.layout)),
            "photos_layout": str(photos_layout) if photos_layout else None,
            "settings": entry.settings,
            "source_group": entry.source_group,
            "icons": self.catalog.icons(entry),
            "exclude": sorted(entry.exclude),
            "only": self.catalog.only(entry),
            "space": self.catalog.label_space(entry),
            "classes_per_dataset": self.family.classes_per_dataset,
            "storage": entry.storage,
            "geometry": geometry,
            "expected": entry.images,
            "about": entry.about_images,
        }

    def datasets_of_training(self, run: Run) -> list[str]:
        """Datasets that the training of a run reads: its target, and the proxy if it needs that."""
        names = [run.target]
        if self.reference is not None and self.methods[run.method].reference != "no":
            names.append(self.reference.dataset.name)
        return names

    def conversion(self, model: str) -> dict[str, Any]:
        """Facts of a model with which it is converted or trained here.

        They are fields of rib.models.settings.ConversionSettings and
        rib.training.settings.PretrainingSettings.
        """
        entry = self.models[model]
        facts: dict[str, Any] = {key: getattr(entry, key) for key in MODEL_FACTS}
        facts["weights"] = stated(entry.weights)
        facts["preprocessing"] = stated(entry.preprocessing)
        facts["arguments"] = self.arguments(model)
        sources = [without_addresses(archive) for archive in entry.archives]
        facts["source"] = sources[0] if sources else None
        facts["tokenizer"] = sources[1:]
        # Results depend on the weights, not on how published ones were made.
        facts["pretrain"] = None if sources else self.catalog.pretraining(entry)
        head = self.head(model)
        space = self.catalog.family_label_space(self.family.name)
        # A text tower makes the head from these; names of ImageNet's classes are known there.
        class_names = None
        has_own_classes = self.family.classes.format == "own"
        if head == "zero_shot" and has_own_classes:
            class_names = list(space.names)
        return {
            "entry": facts,
            "head": head,
            "num_classes": space.num_classes,
            "class_names": class_names,
        }

    def as_config(self) -> dict[str, Any]:
        """A config.yaml that gives this grid: its choices with every `default` and `all` resolved.

        Not resolved are recipes and lengths of trainings, which depend on the method, and what a
        method's entry and the family say of its settings.
        """
        choices_of_grid = dict(self.config)
        choices_of_grid["uncropped"] = self.uncropped
        models = self.config["models"]
        if models in ("default", "all"):
            models = list(self.models)
        choices_of_grid["datasets"] = list(self.datasets)
        choices_of_grid["reference"] = self._reference_choice()
        choices_of_grid["models"] = models
        choices_of_grid["methods"] = self.entries_of_methods
        choices_of_grid["targets"] = self.targets
        choices_of_grid["image_size"] = self.setting("image_size")
        choices_of_grid["train_subset"] = [_size_in_config(size) for size in self.sizes]
        choices_of_grid["training"] = self.config["training"] | self._shared_training()
        return {key: choices_of_grid[key] for key in choices_of_grid if key not in OF_CALL}

    def _reference_choice(self) -> str:
        """What to write for `reference` in config.yaml to get this grid's pretraining proxy.

        The proxy stands in for the data that models were pretrained on. It is called reference in
        config.yaml, and is a whole dataset or a few images per class of one.
        """
        if self.reference is None:
            return "none"
        is_part_of_dataset = self.reference.images_per_class is not None
        if is_part_of_dataset:
            # config.yaml can't define a part, only a family's file can, as the family's default.
            return "default"
        return self.reference.dataset.name

    def resolved(self) -> dict[str, Any]:
        """The config with every `default` and `all` resolved, without settings of the machine.

        Unlike in `as_config`, methods are variants, with all of their settings.
        """
        recorded = {key: choice for key, choice in self.config.items() if key not in UNRECORDED}
        compute = self.config["compute"]
        reference = self.reference.dataset.name if self.reference else None
        method_settings = {}
        for name, method in self.methods.items():
            method_settings[name] = _settings_in_config(method)
        recipes = [method.recipe for method in self.methods.values() if method.recipe]
        del recorded["uncropped"]
        if self.uncropped:  # without any, a grid is called as before there was this choice
            recorded["uncropped"] = self.uncropped
        are_subsets_shorter = bool(self._phrases_on_subsets())
        if are_subsets_shorter:  # likewise
            recorded["subset_ceiling"] = self._images_of_ceiling
        return {
            **recorded,
            "budget": {
                "max_images_per_dataset": self.budget.limits(
                    [dataset.name for dataset in self.datasets_read()]
                )
            },
            "compute": {key: compute[key] for key in compute if key not in OF_MACHINE},
            "datasets": list(self.datasets),
            "reference": reference,
            "models": list(self.models),
            "methods": list(self.methods),
            "method_settings": method_settings,
            "recipes": list(dict.fromkeys(recipes)),
            "targets": self.targets,
            "compare_to": self.compare_to,
            "image_size": self.setting("image_size"),
            "train_subset": self.sizes,
            "training": self._shared_training(),
        }


def _selection_among(
    methods: Collection[str], selection: choices.VariantSelection | None
) -> choices.VariantSelection | None:
    """How one variant of each sweep is chosen, if a grid has only some of the methods.

    A sweep has several variants of one method. It is left out if fewer than two of them are among
    the methods; None if all sweeps are.

    Args:
        methods: names of methods, variants of sweeps among them.
        selection: `selection` of the whole grid.
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


def _names_before(name: str, names: list[str]) -> list[str]:
    """The names in a list before one of them; all of them if that is not in the list."""
    if name not in names:
        return names
    return names[: names.index(name)]


def _settings_in_config(method: Method) -> dict[str, Any]:
    """Settings of a method as `method_settings` of config.yaml would state them.

    If it trains, its recipe and its length are among them.
    """
    if not method.trains:
        return dict(method.settings)
    return {**method.settings, RECIPE: method.recipe, **method.length}


def _size_in_config(size: str) -> str | int | float:
    """A size of the training subset as it stands in config.yaml: `all`, 500 or 0.5.

    500 is a number of images, 0.5 a fraction of all.

    Args:
        size: the same as text.
    """
    if size == ALL:
        return size
    return float(size) if "." in size else int(size)


def _name_of_part(group: str) -> str:
    """Name of the part of a dataset that an evaluation group is: `noise` of imagenet_c-noise."""
    _, _, name = group.partition(BEFORE_PART)
    return name


def short_digest(content: object) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of content as JSON, keys sorted."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def resolve_grid(config: Mapping[str, Any], catalog: Catalog) -> Grid:
    """Resolve a validated config.

    Raises:
        UserError: A choice is unknown, of another family, or can't be run.
    """
    family_name = known_name(config["family"], catalog.families, "family", "config")
    family = catalog.families[family_name]
    datasets = choices.choose_datasets(config, family, catalog)
    choices.check_budget(config, family, catalog)
    reference = choices.choose_reference(config, family, catalog)
    models, notices_on_models = choices.choose_models(config, family, catalog, reference)
    targets, notices_on_targets = choices.choose_targets(config, family, catalog, datasets)
    split_fractions = choices.choose_split_fractions(config, family)
    choices.check_scores(family, catalog)
    choices.check_subset_ceiling(family, catalog)
    uncropped = choices.choose_uncropped(config, family, catalog)
    recipes = choices.choose("recipes", catalog.recipes, config, family)
    variants = Variants(recipes, config, family, catalog)
    conditions = choices.MethodConditions(
        config=config,
        family=family,
        catalog=catalog,
        datasets=datasets,
        reference=reference,
        models=models,
        targets=targets,
        is_swept=variants.is_swept,
    )
    entries_of_methods, notices_on_methods = choices.choose_methods(conditions)
    sizes = _sizes(config, family, [catalog.datasets[name] for name in targets])
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
    _check_external_weights(grid)
    _check_learning_rates(grid)
    grid.notices.extend(_notices_on_grid(grid))
    grid = _with_hub_files(grid)
    grid.notices.extend(dataset_terms(grid.datasets_read()))
    return grid


def _with_hub_files(grid: Grid) -> Grid:
    """A grid whose datasets have the files of the repositories of the hub that they name.

    Raises:
        UserError: A repository, config or split can't be resolved.
    """
    catalog = grid.catalog
    catalog.add_hub_files([dataset.name for dataset in grid.datasets_read()])
    datasets = {name: catalog.datasets[name] for name in grid.datasets}
    reference = grid.reference
    if reference is not None:
        reference = replace(reference, dataset=catalog.datasets[reference.dataset.name])
    return replace(grid, datasets=datasets, reference=reference)


def _sizes(config: Mapping[str, Any], family: Family, targets: Collection[Dataset]) -> list[str]:
    """Sizes of the training subset, as written in paths, such as `all`, `1000` and `0.5`.

    Without a choice in config they are the family's, but for those that the budget of images makes
    impossible.

    Raises:
        UserError: Two sizes are written alike.
    """
    subsets = config["train_subset"]
    if subsets == "default":
        fewest_images = _fewest_images_in_budget(choices.budget_of(config), targets)
        subsets = []
        for size in family.defaults.train_subset:
            if size == ALL or size < fewest_images:
                subsets.append(size)
    if not subsets:
        subsets = [ALL]
    sizes = [in_path(size) for size in subsets]
    if len(set(sizes)) < len(sizes):
        raise UserError(
            "config, train_subset: two fractions agree in their first twelve digits; remove one of "
            "them."
        )
    return sizes


def _fewest_images_in_budget(budget: Budget, targets: Collection[Dataset]) -> float:
    """The smallest number of images that the budget leaves of a target; infinite without any.

    Shares are of the images that the targets' entries state. Those that state none don't count.
    """
    fewest_images = math.inf
    for target in targets:
        limit = budget.limit(target.name)
        stated_images = target.images or target.about_images
        if limit != ALL and isinstance(limit, int):
            fewest_images = min(fewest_images, limit)
        elif limit != ALL and stated_images is not None:
            fewest_images = min(fewest_images, images_within(limit, stated_images))
    return fewest_images


def _check_external_weights(grid: Grid) -> None:
    """Check that the tables of weights that were trained elsewhere fit the grid.

    Raises:
        UserError: A table has an unknown name, or a run of the grid is in none.
    """
    catalog = grid.catalog
    external_methods = [name for name, method in grid.methods.items() if method.form == EXTERNAL]
    # A table may name all models that could be chosen, not only those of this grid.
    models = list(catalog.models)
    if external_methods:
        models += [parse_name(record).short for record in catalog.records]
    known_names = {"model": models, "target": catalog.datasets_of(grid.family, *EVALUATED)}
    external_runs = [run for run in grid.runs() if run.method in external_methods]
    choices.check_external(catalog.external, known_names, external_runs)


def _check_learning_rates(grid: Grid) -> None:
    """Raise a UserError if a method that is run on a model has no learning rate for it."""
    for model in grid.models:
        for method in grid.methods_of(model):
            grid.settings(method, model)  # raises if there is no rate


def _notices_on_grid(grid: Grid) -> list[str]:
    """Sentences on choices without effect, and on methods that are not run on a model."""
    notices = []
    if grid.config["leak_free"] and grid.leak_free_groups() is None:
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
