"""Datasets, pretraining proxy, models, targets and methods that a config chooses.

A choice by name that cannot be run is an error. If `all` or `default` leaves something out or adds
it, a notice (a sentence) tells the user.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rib.base.errors import UserError
from rib.catalog.catalog import Catalog
from rib.catalog.model_names import with_styles
from rib.schema.budget import DEFAULT, Budget, images_within
from rib.schema.entries import EVALUATED, Dataset, Family, Method, Model, ProxyPart
from rib.schema.forms import CURVE, EXTERNAL, SELECT
from rib.schema.messages import known_name
from rib.schema.run import ALL, LOADED, PRETRAINED, SEEDS, TARGETS, VARIANTS, Run, in_path

# The ranking shows differences from this method if the run has it.
DEFAULT_COMPARE_TO = "ft"


def as_list(choice: str | list[str]) -> list[str]:
    """One name or several as a list."""
    return [choice] if isinstance(choice, str) else choice


def choose(
    key: str,
    entries: Mapping[str, object],
    config: Mapping[str, Any],
    family: Family,
    synonyms: Mapping[str, str] | None = None,
) -> list[str]:
    """Names of the entries that config selects.

    Args:
        key: key of config, such as `models`. Its value is `all`, `default`, a name or a list.
        entries: all that can be chosen, by name.
        synonyms: names in `entries` by other names that users may write: {"timm/resnet18":
            "resnet18"}.

    Raises:
        UserError: A name is unknown, or no name is given (allowed for methods).
    """
    choice = config[key]
    where = f"config, {key}"
    if choice == "all":
        return list(entries)
    if choice == "default":
        choice = getattr(family.defaults, key)
        where = f"families/{family.name}.yaml, {key}"
    names = []
    for written_name in as_list(choice):
        name = written_name
        if synonyms:
            name = synonyms.get(written_name, written_name)
        known_name(name, entries, key.removesuffix("s"), f"{where} (family {family.name})")
        names.append(name)
    if not names and key != "methods":
        raise UserError(
            f"{where}: the list is empty; name at least one of {', '.join(sorted(entries))}."
        )
    return list(dict.fromkeys(names))


def choose_datasets(
    config: Mapping[str, Any], family: Family, catalog: Catalog
) -> dict[str, Dataset]:
    """Datasets to evaluate on, in the catalogue's order.

    Raises:
        UserError: A dataset is unknown, or the family has none.
    """
    datasets = catalog.evaluated_datasets(family)
    if not datasets:
        raise UserError(
            f"config, family: the catalogue has no dataset to evaluate in family {family.name}; "
            "add one."
        )
    if config["datasets"] == "default":
        chosen_names = [name for name, dataset in datasets.items() if not dataset.optional]
    else:
        chosen_names = choose("datasets", datasets, config, family)
    return {name: dataset for name, dataset in datasets.items() if name in chosen_names}


def check_scores(family: Family, catalog: Catalog) -> None:
    """Raise a UserError if a family asks for RI of the worst group, but has no groups."""
    datasets = catalog.evaluated_datasets(family)
    has_groups = any(dataset.groups for dataset in datasets.values())
    if "worst_group" in family.scores and not has_groups:
        raise UserError(
            f"families/{family.name}.yaml, scores: worst_group is asked for, but no dataset of the "
            "family has groups; add groups to an entry of datasets.yaml, or remove worst_group."
        )


def choose_uncropped(config: Mapping[str, Any], family: Family, catalog: Catalog) -> list[str]:
    """Names of the family's datasets that are read without crop, in the catalogue's order.

    config's `uncropped` chooses them: `all`, `default` (none), a name or a list.

    Raises:
        UserError: The family has no dataset of a name.
    """
    datasets = catalog.datasets_of(family, *EVALUATED, "reference")
    choice = config["uncropped"]
    if choice == "default":
        return []
    if choice == "all":
        return list(datasets)
    chosen_names = as_list(choice)
    for name in chosen_names:
        known_name(name, datasets, "dataset", f"config, uncropped (family {family.name})")
    return [name for name in datasets if name in chosen_names]


@dataclass(frozen=True)
class Reference:
    """The pretraining proxy: a whole dataset of role reference, or part of an evaluated one."""

    dataset: Dataset
    images_per_class: int | None  # in the part; None for a whole dataset


def choose_reference(
    config: Mapping[str, Any], family: Family, catalog: Catalog
) -> Reference | None:
    """The pretraining proxy that config.yaml or the family names, if any.

    Raises:
        UserError: The dataset is unknown or has another role.
    """
    choice = config["reference"]
    where = "config, reference"
    if choice == "default":
        choice = family.reference
        where = f"families/{family.name}.yaml, reference"
    if choice in (None, "none"):
        return None
    if isinstance(choice, ProxyPart):
        name = choice.part_of
        images_per_class = choice.images_per_class
        candidates = catalog.evaluated_datasets(family)
        kind = "dataset that is evaluated"
    else:
        name = choice
        images_per_class = None
        candidates = catalog.datasets_of(family, "reference")
        kind = "dataset of role reference"
    if not candidates:
        raise UserError(
            f"{where}: family {family.name} has no {kind}; give it one or set reference to none."
        )
    known_name(name, candidates, kind, where)
    return Reference(candidates[name], images_per_class)


def head_of(model: Model, family: Family) -> str:
    """Origin of a model's head: `published`, `zero_shot`, `fitted` or `pretrained`.

    A text tower makes `zero_shot` heads from names of classes. `fitted` heads are trained here on
    the reference dataset, and `pretrained` ones together with the rest of the model.
    """
    if model.pretrain:
        return "pretrained"
    if model.head == "none":
        return "fitted"
    own_classes = family.classes.format == "own"
    if model.head == "published" and own_classes:
        return "fitted"
    return model.head


def library_models(config: Mapping[str, Any], family: Family) -> list[str]:
    """Models that config names as libraries and the hub do, such as `timm/resnet18`.

    They may have no entry in the catalogue yet; `Catalog.with_models` adds one.
    """
    return [name for name in _written_models(config, family) if "/" in name or ":" in name]


def _written_models(config: Mapping[str, Any], family: Family) -> list[str]:
    """Models as config or the family's defaults write them: ["timm/resnet18"], or ["all"]."""
    choice = config["models"]
    if choice == "default":
        choice = family.defaults.models
    return as_list(choice)


def choose_models(
    config: Mapping[str, Any], family: Family, catalog: Catalog, reference: Reference | None
) -> tuple[dict[str, Model], list[str]]:
    """Models to run by name, and notices about models that were left out.

    A model without a head for the family's classes needs a reference dataset to fit one. Without a
    reference dataset, `all` leaves the model out, and choosing it by name is an error. Models
    chosen by name need not list the family.

    Raises:
        UserError: A model is unknown or belongs to another family, its head cannot be fitted, or
            none is left.
    """
    models = _selected_models(config, family, catalog)
    headless = []  # names of models whose head can't be fitted, for want of images
    if reference is None:
        headless = [name for name, model in models.items() if head_of(model, family) == "fitted"]
    reason = (
        f"has no head for the classes of family {family.name}, and there is no reference dataset "
        "to fit one"
    )
    are_chosen_by_name = config["models"] != "all"
    is_none_left = len(headless) == len(models)
    if headless and (are_chosen_by_name or is_none_left):
        raise UserError(
            f"config, models: '{headless[0]}' {reason}; set reference, or leave the model out."
        )
    chosen = {name: model for name, model in models.items() if name not in headless}
    for model in chosen.values():
        _check_pretraining(model, family, catalog, budget_of(config))
        if reference is not None and head_of(model, family) == "fitted":
            _check_images_for_head(model, family, catalog, reference, budget_of(config))
    notices = [f"model '{name}' is left out: it {reason}" for name in headless]
    return with_styles(chosen), notices


def _selected_models(
    config: Mapping[str, Any], family: Family, catalog: Catalog
) -> dict[str, Model]:
    """Models that config selects, by their names in the catalogue."""
    written_names = _written_models(config, family)
    name_in_catalog = {model.record: name for name, model in catalog.models.items() if model.record}
    models = catalog.models
    if config["models"] == "all":
        models = {name: model for name, model in models.items() if family.name in model.families}
    for name in written_names:
        if name not in name_in_catalog:
            _refuse_unknown_pair(name, models)
    if not models:
        raise UserError(
            f"config, models: no model of the catalogue lists family {family.name}; choose models "
            "by name, or add the family to their entries."
        )
    names = choose("models", models, config, family, synonyms=name_in_catalog)
    return {name: models[name] for name in names}


def _refuse_unknown_pair(name: str, models: Mapping[str, Model]) -> None:
    """Raise a UserError for `ViT-B-32.opanai` that lists the pretrainings of ViT-B-32."""
    if name in models or "." not in name:
        return
    architecture, pretraining = name.split(".", 1)
    pretrainings_of_architecture = []
    architectures_with_pretraining = []
    for model in models:
        if "." not in model:
            continue
        architecture_of_model, pretraining_of_model = model.split(".", 1)
        if architecture_of_model == architecture:
            pretrainings_of_architecture.append(pretraining_of_model)
        if pretraining_of_model == pretraining:
            architectures_with_pretraining.append(architecture_of_model)
    # Then the caller's list of all names is more helpful.
    if not pretrainings_of_architecture and not architectures_with_pretraining:
        return
    pretrainings = "is unknown"
    if pretrainings_of_architecture:
        pretrainings = f"has {', '.join(sorted(pretrainings_of_architecture))}"
    also = ""
    if architectures_with_pretraining:
        architectures = ", ".join(sorted(architectures_with_pretraining))
        also = f"; '{pretraining}' exists for {architectures}"
    raise UserError(f"config, models: there is no '{name}': '{architecture}' {pretrainings}{also}.")


def _check_pretraining(model: Model, family: Family, catalog: Catalog, budget: Budget) -> None:
    """Raise a UserError if a model can't be pretrained here.

    Its datasets must be the family's, and have as many images as it is pretrained on.
    """
    if not model.pretrain:
        return
    for key, role in (("dataset", "reference"), ("test", "in_distribution")):
        name = getattr(model.pretrain, key)
        dataset = catalog.datasets.get(name)
        if dataset and dataset.family != family.name:
            raise UserError(
                f"config, models: '{model.name}' is trained for family {dataset.family}; choose "
                f"other models for family {family.name}."
            )
        known_name(
            name,
            catalog.datasets_of(family, role),
            f"dataset of role {role} of family {family.name}",
            f"models.yaml, {model.name}, pretrain.{key}",
        )
    size = model.pretrain.size  # a number of images, a fraction or `all`
    dataset = catalog.datasets[model.pretrain.dataset]
    available = _images_in_budget(dataset, budget)
    if isinstance(size, int) and available is not None and size > available:
        raise UserError(
            f"models.yaml, {model.name}: pretrain.size is {size}, but {dataset.name} has "
            f"{available} images in this run; set at most that, or raise budget."
        )


def _check_images_for_head(
    model: Model, family: Family, catalog: Catalog, reference: Reference, budget: Budget
) -> None:
    """Raise a UserError if the reference has too few images to fit a model's head, if known.

    Each class needs an image, and one class a second, which is held out to choose the penalty.
    """
    dataset = reference.dataset
    available = _images_in_budget(dataset, budget)
    if reference.images_per_class is not None:
        available = reference.images_per_class * len(catalog.label_space(dataset).keys)
    classes = catalog.family_label_space(family.name).num_classes
    if available is not None and available <= classes:
        raise UserError(
            f"config, models: the head of '{model.name}' is fitted on {dataset.name}, of which "
            f"this run uses at most {available} images, but {classes} classes need at least "
            f"{classes + 1}; raise budget.max_images_per_dataset or reference.images_per_class, "
            "or add images."
        )


def check_images_of_targets(
    config: Mapping[str, Any], family: Family, catalog: Catalog, targets: Collection[Dataset]
) -> None:
    """Check that protocol held_out can train and test on the budget's images of each target.

    Each class needs an image in the train split, and one class a second image to test on.

    Raises:
        UserError: The budget leaves too few images, as far as numbers are known.
    """
    splits_each_class = config["protocol"] != "paper" and family.split_by == "source"
    if not splits_each_class or family.classes_per_dataset:
        return
    for dataset in targets:
        available = _images_in_budget(dataset, budget_of(config))
        classes = len(catalog.label_space(dataset).keys)
        lacks_classes = dataset.settings.get("partial", False)
        if available is not None and available <= classes and not lacks_classes:
            raise UserError(
                f"config, budget.max_images_per_dataset: protocol held_out trains and tests on "
                f"{dataset.name}, of which this run uses {available} images, but {classes} classes "
                f"need at least {classes + 1}; raise the limit, or set protocol to paper."
            )


def budget_of(config: Mapping[str, Any]) -> Budget:
    """Limits that config's `budget` sets for the number of images of each dataset."""
    return Budget.from_config(config["budget"]["max_images_per_dataset"])


def check_budget(config: Mapping[str, Any], family: Family, catalog: Catalog) -> None:
    """Raise a UserError if the budget limits a dataset that the family does not have."""
    datasets = [name for name, entry in catalog.datasets.items() if entry.family == family.name]
    for name in budget_of(config).of_dataset:
        known_name(
            name,
            datasets,
            f"dataset of family {family.name}",
            "config, budget.max_images_per_dataset",
            listed_as=f"besides '{DEFAULT}' there",
        )


def check_subset_ceiling(family: Family, catalog: Catalog) -> None:
    """Check the dataset that limits how long subsets of larger targets are trained.

    Raises:
        UserError: The family lacks the dataset, or its entry states no number of images.
    """
    name = family.subset_ceiling
    if name is None:
        return
    where = f"families/{family.name}.yaml, subset_ceiling"
    known_name(name, catalog.evaluated_datasets(family), "dataset", where)
    dataset = catalog.datasets[name]
    if dataset.images is None and dataset.about_images is None:
        raise UserError(
            f"{where}: the entry of '{name}' does not state its number of images; add images or "
            "about_images to it, or name another dataset."
        )


def _images_in_budget(dataset: Dataset, budget: Budget) -> int | None:
    """Number of a dataset's images that the budget leaves.

    None if the entry states no number of images and the budget none or a share.
    """
    if dataset.images is not None:
        return budget.images(dataset.name, dataset.images)
    limit = budget.limit(dataset.name)
    if limit == ALL or isinstance(limit, float):
        return None
    return limit


def ood_datasets(datasets: Mapping[str, Dataset]) -> list[str]:
    """Names of the datasets that count in RI, the change of accuracy by fine-tuning.

    They are out of distribution. A variant of another dataset counts only if the other isn't
    evaluated.

    Args:
        datasets: the evaluated datasets by name.
    """
    names = []
    for name, dataset in datasets.items():
        if dataset.role == "ood" and dataset.variant_of not in datasets:
            names.append(name)
    return names


def choose_targets(
    config: Mapping[str, Any], family: Family, catalog: Catalog, datasets: Mapping[str, Dataset]
) -> tuple[list[str], list[str]]:
    """Out-of-distribution datasets to fine-tune on, and notices about datasets left out.

    Some datasets can't be fine-tuned on, or only if their terms are accepted. `all` and `default`
    leave these out; choosing one by name is an error. `choose_id_targets` chooses training sets in
    distribution.

    Args:
        config: its keys targets, datasets and accept_terms are read.
        datasets: evaluated datasets by name.

    Raises:
        UserError: A dataset chosen by name must not be fine-tuned on, or a word of accept_terms is
            unknown.
    """
    _check_accepted_terms(config, catalog)
    ood = ood_datasets(datasets)
    obstacles = {}  # why a dataset cannot be a target; None if it can
    for name, dataset in datasets.items():
        obstacles[name] = _reason_against_target(dataset, ood, config)
    possible = ", ".join(name for name, reason in obstacles.items() if reason is None)
    id_targets = choose_id_targets(config, family, catalog, datasets)
    if config["targets"] == "default" and config["datasets"] != "default":
        chosen = [name for name in family.defaults.targets if name in datasets]
    else:
        of_role_ood = [name for name in as_list(config["targets"]) if name not in id_targets]
        chosen = []
        if of_role_ood or not id_targets:
            others = config["targets"] if not id_targets else of_role_ood
            chosen = choose("targets", datasets, {**config, "targets": others}, family)
    targets = []
    reasons_of_refused = {}
    for name in chosen:
        reason = obstacles[name]
        if reason is None:
            targets.append(name)
            continue
        if config["targets"] not in ("all", "default"):
            raise UserError(
                f"config, targets: '{name}' cannot be a target: {reason}; targets can be "
                f"{possible or 'none'}."
            )
        reasons_of_refused[name] = reason
    notices = []
    for name in targets:
        terms = datasets[name].tuning
        if terms:
            notices.append(
                f"dataset '{name}' is a target because {terms.accept} is accepted: {terms.terms}"
            )
    for name, reason in reasons_of_refused.items():
        notices.append(f"dataset '{name}' is evaluated but not a target: {reason}")
    return targets, notices


def choose_id_targets(
    config: Mapping[str, Any], family: Family, catalog: Catalog, datasets: Mapping[str, Dataset]
) -> list[str]:
    """Training sets in distribution to fine-tune on, which config's targets must name.

    They have the role `reference` and name their test set by the key `test`.

    Args:
        datasets: evaluated datasets by name.

    Returns:
        Names such as ["imagenet_train"]; empty for `all` and `default`.

    Raises:
        UserError: One has no test set, its test set is not evaluated, or no dataset counts in RI.
    """
    references = catalog.datasets_of(family, "reference")
    id_targets = [name for name in as_list(config["targets"]) if name in references]
    for name in id_targets:
        test = references[name].test
        if test is None:
            raise UserError(
                f"config, targets: '{name}' cannot be a target: its entry names no test set; add "
                "the key test to it in datasets.yaml, with a dataset of role in_distribution."
            )
        if test not in datasets:
            raise UserError(
                f"config, targets: '{name}' is tested on '{test}', which this run does not "
                f"evaluate; add '{test}' to datasets."
            )
    if id_targets and not ood_datasets(datasets):
        raise UserError(
            f"config, targets: RI of '{id_targets[0]}' needs a dataset that is out of "
            "distribution; add one to datasets."
        )
    return list(dict.fromkeys(id_targets))


def _check_accepted_terms(config: Mapping[str, Any], catalog: Catalog) -> None:
    """Raise a UserError for a word such as objectnet_tuning that no dataset's terms ask for."""
    known_words = set()
    for dataset in catalog.datasets.values():
        if dataset.tuning:
            known_words.add(dataset.tuning.accept)
    for word in as_list(config["accept_terms"]):
        known_name(word, known_words, "word", "config, accept_terms")


def _reason_against_target(
    dataset: Dataset, ood: list[str], config: Mapping[str, Any]
) -> str | None:
    """Why a dataset cannot be a target, such as "it is in distribution"; None if it can.

    `ood` are the datasets that count in RI (mean change of accuracy).
    """
    if dataset.role != "ood":
        return "it is in distribution"
    if dataset.optional and config["targets"] == "all":
        return "it is optional; choose it by name"
    if dataset.name not in ood:
        return "it is a variant of another dataset of the run"
    if dataset.never_target is not None:
        return dataset.never_target
    terms = dataset.tuning
    if terms and terms.accept not in as_list(config["accept_terms"]):
        return f"{terms.terms} To do so nevertheless, list {terms.accept} in accept_terms"
    return None


def choose_split_fractions(config: Mapping[str, Any], family: Family) -> dict[str, float] | None:
    """Shares of images for training and for choosing variants: {"train": 0.6, "select": 0.2}.

    The rest is for testing. None under protocol `paper`, which trains and tests on all images.

    Raises:
        UserError: The family cannot be split, or nothing is left to test.
    """
    if config["protocol"] == "paper":
        return None
    if family.one_image_per_class:
        raise UserError(
            f"config, protocol: held_out is not possible for family {family.name}, because its "
            "datasets have one image per class; set it to paper."
        )
    total = sum(config["split"].values())
    if total >= 1:
        raise UserError(
            f"config, split: train and select add up to {total:g}; make the sum less than 1."
        )
    fractions: dict[str, float] = config["split"]
    return fractions


def not_trained_on(datasets: Mapping[str, Dataset], targets: Collection[str]) -> list[str]:
    """Names of datasets that count in RI and share no source images with a target.

    Targets and their variants, such as blurred copies, are left out. Merges over targets are scored
    on the remaining datasets.

    Args:
        datasets: evaluated datasets by name.
        targets: names of some of them.
    """
    source_groups_of_targets = {datasets[name].source_group for name in targets} - {None}
    names = []
    for name in ood_datasets(datasets):
        dataset = datasets[name]
        is_target = name in targets or dataset.variant_of in targets
        if not is_target and dataset.source_group not in source_groups_of_targets:
            names.append(name)
    return names


def choose_methods(
    *,
    config: Mapping[str, Any],
    family: Family,
    catalog: Catalog,
    datasets: Mapping[str, Dataset],
    reference: Reference | None,
    models: Mapping[str, Model],
    targets: list[str],
    id_targets: list[str],
    is_swept: Callable[[str], bool],
) -> tuple[list[str], list[str]]:
    """Methods to run, each after its parents, and notices (sentences) about changes of the choice.

    Parents are the methods that a method starts from or merges: `ft` for `wise_ft`. They are added.
    `all` and `default` leave out methods that can't be run; a list with such a method is an error.
    Methods for weights trained elsewhere, as in the user's tables, are added to any choice.

    Args:
        config: its keys methods, protocol, reference, seeds and budget are read.
        datasets: evaluated datasets, by name.
        reference: the pretraining proxy, which stands for the pretraining data; None without one.
        models: chosen models, by name.
        targets: names of out-of-distribution datasets to fine-tune on.
        id_targets: names of training sets in distribution to fine-tune on.
        is_swept: whether a method, by name, is run with several values of a setting.

    Returns:
        Names such as ["ft", "wise_ft"], without `pretrained`, which is always evaluated; notices.

    Raises:
        UserError: A method is unknown, or config lists methods and one to run has an obstacle.
    """

    def obstacle_to(method: Method) -> str | None:
        """Why a method or one of its parents cannot be run; None if all can."""
        obstacle = _obstacle_for_models(method, config, family, reference, models)
        if obstacle is None:
            obstacle = _target_as_reference(method, reference, id_targets)
        if obstacle is not None:
            return obstacle
        for name in method.parents:
            obstacle_of_parent = obstacle_to(catalog.methods[name])
            if obstacle_of_parent is not None:
                return f"of '{name}': {obstacle_of_parent}"
        obstacle = _nothing_to_merge(method, config, datasets, targets, is_swept)
        if obstacle is not None:
            return obstacle
        return _too_many_images(method, datasets, budget_of(config))

    choosable = {PRETRAINED: None, **catalog.methods}
    names = choose("methods", choosable, config, family)
    for name, method in catalog.methods.items():
        if method.form == EXTERNAL and name not in names:
            names.append(name)
    chosen = []
    notices = []
    for name in names:
        if name == PRETRAINED:  # always evaluated, not a method of the catalogue
            continue
        obstacle = obstacle_to(catalog.methods[name])
        if obstacle is None:
            chosen.append(name)
            continue
        if config["methods"] not in ("all", "default"):
            raise UserError(f"config, methods: '{name}' cannot be run: {obstacle}.")
        notices.append(f"method '{name}' is left out: {obstacle}")
    with_parents, notices_on_parents = _with_parents(chosen, catalog)
    return with_parents, notices + notices_on_parents


def _with_parents(names: list[str], catalog: Catalog) -> tuple[list[str], list[str]]:
    """Names, each after the methods that it starts from or merges, and a notice for each addition.

    ["wise_ft"] becomes ["ft", "wise_ft"], since `ft` is a parent of `wise_ft`.
    """
    complete = names.copy()
    notices = []
    to_check = deque(names)
    while to_check:
        name = to_check.popleft()
        method = catalog.methods[name]
        for parent in method.parents:
            if parent in complete:
                continue
            complete.insert(complete.index(name), parent)
            to_check.append(parent)
            if method.trains:
                reason = "starts from it"
            elif method.form in LOADED:
                reason = "is computed from it"
            else:
                reason = "averages its weights"
            notices.append(f"method '{parent}' is added to the grid: '{name}' {reason}")
    return complete, notices


def _obstacle_for_models(
    method: Method,
    config: Mapping[str, Any],
    family: Family,
    reference: Reference | None,
    models: Mapping[str, Model],
) -> str | None:
    """Why protocol, reference dataset or models don't allow a method; None if they do."""
    if method.form == SELECT and config["protocol"] == "paper":
        return "it selects on held-out images; set protocol to held_out"
    if method.reference == "required" and reference is None:
        if config["reference"] == "none" and family.reference is not None:
            return "it needs a reference dataset, and config sets reference to none"
        return f"it needs a reference dataset, and family {family.name} has none"
    model_types = sorted({model.type for model in models.values()})
    if not set(model_types) & set(method.types):
        return (
            f"it is for models of type {' and '.join(method.types)}, but those chosen are "
            f"{' and '.join(model_types)}"
        )
    # Only heads made by a text tower are zero-shot.
    have_text_tower = any(head_of(model, family) == "zero_shot" for model in models.values())
    if method.text == "required" and not have_text_tower:
        return "it trains with texts, but no chosen model has a text tower"
    return None


def _target_as_reference(
    method: Method, reference: Reference | None, id_targets: Collection[str]
) -> str | None:
    """Why a method would read a target as if it were pretraining data; None if it would not."""
    if method.reference == "no" or reference is None or reference.dataset.name not in id_targets:
        return None
    return (
        f"it reads the reference dataset {reference.dataset.name}, which is a target here; set "
        "reference to none or to another dataset, or leave out the method"
    )


def _nothing_to_merge(
    method: Method,
    config: Mapping[str, Any],
    datasets: Mapping[str, Dataset],
    targets: list[str],
    is_swept: Callable[[str], bool],
) -> str | None:
    """Why a merge would have one parent only, or could not be scored; None if neither is so."""
    # `over` names the difference between the parents: seeds, variants, targets or methods.
    if method.over == SEEDS and len(config["seeds"]) < 2:
        return "it merges over seeds, and there is one; list several in seeds"
    if method.over == VARIANTS:
        has_swept_parent = any(is_swept(parent) for parent in method.parents)
        if not has_swept_parent:
            return (
                "it merges a sweep with one recipe; sweep a setting of "
                f"{' or '.join(method.parents)} in method_settings"
            )
    if method.over == TARGETS and len(targets) < 2:
        return "it merges over targets; choose several"
    if method.over == TARGETS and not not_trained_on(datasets, targets):
        return (
            "no dataset is left to score it on: each is a target, or shares source images with one"
        )
    return None


def _too_many_images(method: Method, datasets: Mapping[str, Dataset], budget: Budget) -> str | None:
    """Why a method would take too long to evaluate; unstated numbers of images count as 0."""
    if method.most_images is None:
        return None
    for name, dataset in datasets.items():
        stated_images = dataset.images or dataset.about_images or 0
        images = budget.images(name, stated_images)
        if images > method.most_images:
            return (
                f"it is too slow for more than {method.most_images:,} images of a dataset, and "
                f"'{name}' has {images:,}; leave the dataset out, or set "
                f"budget.max_images_per_dataset to at most {method.most_images}"
            )
    return None


def choose_sizes(
    config: Mapping[str, Any], family: Family, targets: Collection[Dataset]
) -> list[str]:
    """Sizes of the subset of a target that is trained on, as in paths: ["all", "1000", "0.5"].

    Without a choice in config they are the family's, except sizes that the image budget makes
    impossible.

    Args:
        config: its keys train_subset and budget are read.
        targets: datasets to fine-tune on.

    Raises:
        UserError: Two sizes are written alike.
    """
    subsets = config["train_subset"]
    if subsets == "default":
        fewest_images = _fewest_images_in_budget(budget_of(config), targets)
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
    """Images that the budget leaves of the smallest target; infinite if that is unknown."""
    fewest_images = math.inf
    for target in targets:
        limit = budget.limit(target.name)
        stated_images = target.images or target.about_images
        if limit != ALL and isinstance(limit, int):
            fewest_images = min(fewest_images, limit)
        elif limit != ALL and stated_images is not None:
            fewest_images = min(fewest_images, images_within(limit, stated_images))
    return fewest_images


@dataclass(frozen=True)
class VariantSelection:
    """How one variant of each swept method is chosen (rib.analyses.selection.tables).

    A variant is the method with one value of each setting, such as `ft-lr0.1`.
    """

    # target (by its held-out images), leave_one_out (by other datasets) or oracle (by the result)
    rule: str
    variants: dict[str, list[str]]  # {"ft": ["ft-lr0.1", "ft-lr0.01"]}
    # Datasets of one group are made from the same source images: {"flat": "fluent", "3d":
    # "fluent", "noto": "noto"}. All datasets in RI have one.
    groups: dict[str, str]


def choose_selection(
    config: Mapping[str, Any],
    methods: Mapping[str, Method],
    datasets: Mapping[str, Dataset],
    targets: list[str],
) -> VariantSelection | None:
    """How one variant of each swept method is chosen; None if config asks for no choice.

    Args:
        config: its keys select and protocol are read.
        methods: variants by name, such as {"ft-lr0.1": Method(...)}.
        datasets: evaluated datasets by name.
        targets: names of datasets to fine-tune on.

    Raises:
        UserError: No method has several variants, or the rule has no images to choose by.
    """
    rule = config["select"]
    if rule == "none":
        return None
    variants = _variants_of_swept_methods(methods)
    if not variants:
        raise UserError(
            "config, select: no method has several variants; sweep a setting, list several recipes "
            "or set it to none."
        )
    if rule == "target" and config["protocol"] == "paper":
        raise UserError(
            "config, select: target chooses by images of the target that were not trained on, and "
            "protocol paper trains on all of them; set protocol to held_out, or select to "
            "leave_one_out."
        )
    # A dataset that shares no source images is a group by itself.
    groups = {}
    for name in ood_datasets(datasets):
        groups[name] = datasets[name].source_group or name
    if rule == "leave_one_out":
        _check_leave_one_out(groups, targets)
    return VariantSelection(rule, variants, groups)


def _variants_of_swept_methods(methods: Mapping[str, Method]) -> dict[str, list[str]]:
    """Names of variants by method: {"ft": ["ft-lr1", "ft-lr2"]}.

    Left out are methods with only one variant, and methods that have no or several mRI.
    """
    variants_of_method: dict[str, list[str]] = {}
    for name, variant in methods.items():
        if _has_mri(variant):
            assert variant.base is not None
            variants_of_method.setdefault(variant.base, []).append(name)
    return {method: names for method, names in variants_of_method.items() if len(names) > 1}


def _has_mri(method: Method) -> bool:
    """Whether a method has exactly one mRI (mean of RI over targets).

    A curve has one for each of its networks. A merge over targets has no target and none.
    """
    return method.form != CURVE and method.over != TARGETS


def _check_leave_one_out(groups: Mapping[str, str], targets: list[str]) -> None:
    """Each pair of target and left-out dataset must leave another source group to choose by.

    `groups` are source groups by dataset: {"flat": "fluent", "3d": "fluent", "noto": "noto"}.
    """
    all_groups = set(groups.values())
    for target, left_out in itertools.product(targets, groups):
        groups_to_choose_by = all_groups - {groups[target], groups[left_out]}
        if not groups_to_choose_by:
            raise UserError(
                f"config, select: for target '{target}' and dataset '{left_out}', leave_one_out "
                "has no dataset to choose by that shares no source images with either; evaluate on "
                "more datasets or choose other targets."
            )


def choose_compare_to(config: Mapping[str, Any], methods: Mapping[str, Method]) -> str:
    """Name of the method with which the ranking compares all others.

    It is config's `compare_to`; by default plain fine-tuning if that is run, else the pretrained
    model.

    Args:
        methods: methods of the run by name, each value of a swept setting by itself: `ft-lr0.1`.

    Raises:
        UserError: The choice is not a method of the ranking.
    """
    ranked_methods = [name for name, method in methods.items() if _has_mri(method)]
    choice = config["compare_to"]
    if choice != "default":
        known_names = [*ranked_methods, PRETRAINED]
        return known_name(choice, known_names, "method", "config, compare_to")
    if DEFAULT_COMPARE_TO in ranked_methods:
        return DEFAULT_COMPARE_TO
    return PRETRAINED


def check_external(
    rows_by_run: Mapping[str, Mapping[str, Any]],
    known_names: Mapping[str, Collection[str]],
    runs: Iterable[Run],
) -> None:
    """Check the user's tables of weights trained elsewhere, which have one run per row.

    Args:
        rows_by_run: rows of all tables by run, such as `model/target/method/size/seed`; `where` of
            a row is its file and line.
        known_names: names that a row may have, by column: {"model": ["net"], "target": ["sketch"]}.
        runs: all runs of the grid whose weights were trained elsewhere.

    Raises:
        UserError: A row has an unknown name, or a run has no row.
    """
    for row in rows_by_run.values():
        for column, names in known_names.items():
            known_name(row[column], names, column, row["where"])
    missing = [str(run) for run in runs if str(run) not in rows_by_run]
    if missing:
        raise UserError(
            f"config, external: {len(missing)} runs have no row, such as {', '.join(missing[:3])}; "
            "add rows, or choose others."
        )
