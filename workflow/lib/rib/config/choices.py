"""Resolve the datasets, pretraining proxy, models, targets and methods of a config.

A choice by name that cannot be run is an error; what `all` or `default` leaves out or adds is reported as a notice.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.entries import CURVE, EVALUATED, EXTERNAL, SELECT, Dataset, Family, Method, Model
from rib.config.model_names import with_styles
from rib.config.run import ALL, LOADED, PRETRAINED, SEEDS, TARGETS, VARIANTS, Run
from rib.config.schema import known_name
from rib.config.settings import constant

USUAL_REFERENCE = "ft"  # that differences in the ranking are from, in runs with this method


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def choose(
    key: str, known: Mapping, config: Mapping, family: Family, named: Mapping | None = None
) -> list[str]:
    """Known names that config's `key` selects, some by other names; raise a UserError for an unknown one or none."""
    choice, where = config[key], f"config, {key}"
    if choice == "all":
        return list(known)
    if choice == "default":
        choice, where = family.defaults[key], f"families/{family.name}.yaml, {key}"
    kind, within = key.removesuffix("s"), f"{where} (family {family.name})"
    names = [
        known_name((named or {}).get(name, name), known, kind, within) for name in as_list(choice)
    ]
    if not names and key != "methods":
        raise UserError(
            f"{where}: the list is empty; name at least one of {', '.join(sorted(known))}."
        )
    return list(dict.fromkeys(names))


def choose_datasets(config: Mapping, family: Family, catalog: Catalog) -> dict[str, Dataset]:
    """Datasets to evaluate on, in the catalogue's order; raise a UserError if one is unknown or the family has none."""
    known = catalog.datasets_of(family, *EVALUATED)
    if not known:
        raise UserError(
            f"config, family: the catalogue has no dataset to evaluate in family {family.name}; add one."
        )
    if config["datasets"] == "default":
        return {name: entry for name, entry in known.items() if not entry.optional}
    chosen = choose("datasets", known, config, family)
    return {name: entry for name, entry in known.items() if name in chosen}


@dataclass(frozen=True)
class Reference:
    """The pretraining proxy: a dataset, or part of one, that replaces the pretraining data."""

    dataset: Dataset
    images_per_class: int | None  # size of the part; None for a whole dataset of role reference


def choose_reference(config: Mapping, family: Family, catalog: Catalog) -> Reference | None:
    """The pretraining proxy of config or family, if any; raise a UserError if it is unknown or has another role."""
    choice, where = config["reference"], "config, reference"
    if choice == "default":
        choice, where = family.reference, f"families/{family.name}.yaml, reference"
    if choice in (None, "none"):
        return None
    name, size = (
        (choice["part_of"], choice["images_per_class"])
        if isinstance(choice, dict)
        else (choice, None)
    )
    fitting = catalog.datasets_of(family, *(EVALUATED if size else ["reference"]))
    kind = "dataset that is evaluated" if size else "dataset of role reference"
    if not fitting:
        raise UserError(
            f"{where}: family {family.name} has no {kind}; give it one or set reference to none."
        )
    return Reference(fitting[known_name(name, fitting, kind, where)], size)


def head_of(model: Model, family: Family) -> str:
    """Origin of a model's head: `published`, `zero_shot`, `fitted` or `pretrained` (trained here with the rest)."""
    if model.pretrain:
        return "pretrained"
    own_classes = family.classes["format"] == "own"
    return (
        "fitted"
        if model.head == "none" or (own_classes and model.head == "published")
        else model.head
    )


def choose_models(
    config: Mapping, family: Family, catalog: Catalog, reference: Reference | None
) -> tuple[dict[str, Model], list[str]]:
    """Models to run, and notices. Models chosen by name need not list the family.

    Raises:
        UserError: A model is unknown or belongs to another family, its head cannot be fitted, or none is left.
    """
    wanted = family.defaults["models"] if config["models"] == "default" else config["models"]
    named = catalog.add_models([name for name in as_list(wanted) if "/" in name or ":" in name])
    known = catalog.models
    if config["models"] == "all":
        known = {name: entry for name, entry in known.items() if family.name in entry.families}
    for name in as_list(wanted):
        if name not in named:
            _explain_pair(name, known)
    if not known:
        raise UserError(
            f"config, models: no model of the catalogue lists family {family.name}; choose models by name, or add the "
            "family to their entries."
        )
    models = {name: known[name] for name in choose("models", known, config, family, named)}
    headless = (
        [name for name in models if head_of(models[name], family) == "fitted"]
        if reference is None
        else []
    )
    why = f"has no head for the classes of family {family.name}, and there is no reference dataset to fit one"
    if headless and (config["models"] != "all" or len(headless) == len(models)):
        raise UserError(
            f"config, models: '{headless[0]}' {why}; set reference, or leave the model out."
        )
    chosen = {name: model for name, model in models.items() if name not in headless}
    for model in chosen.values():
        _check_pretraining(model, family, catalog)
    return with_styles(chosen), [f"model '{name}' is left out: it {why}" for name in headless]


def _explain_pair(name: str, known: Mapping[str, Model]) -> None:
    """Refuse a pair of architecture and pretraining that does not exist, listing those that do."""
    architecture, dot, tag = name.partition(".")
    pairs = [entry.split(".", 1) for entry in known if "." in entry]
    tags = sorted(other for of, other in pairs if of == architecture)
    others = sorted(of for of, other in pairs if other == tag)
    if dot and name not in known and (tags or others):
        also = f"; '{tag}' exists for {', '.join(others)}" if others else ""
        has = f"has {', '.join(tags)}" if tags else "is unknown"
        raise UserError(f"config, models: there is no '{name}': '{architecture}' {has}{also}.")


def _check_pretraining(model: Model, family: Family, catalog: Catalog) -> None:
    """Check that a model pretrained here is trained on a reference dataset and tested in distribution."""
    for key, role in (
        (("dataset", "reference"), ("test", "in_distribution")) if model.pretrain else ()
    ):
        own = catalog.datasets.get(model.pretrain[key])
        if own and own.family != family.name:
            raise UserError(
                f"config, models: '{model.name}' is trained for family {own.family}; choose other models for family "
                f"{family.name}."
            )
        kind, where = (
            f"dataset of role {role} of family {family.name}",
            f"models.yaml, {model.name}, pretrain.{key}",
        )
        known_name(model.pretrain[key], catalog.datasets_of(family, role), kind, where)


def ood_datasets(datasets: Mapping[str, Dataset]) -> list[str]:
    """Datasets that count in RI: those out of distribution, and a variant only if its original is not evaluated."""
    return [
        name
        for name, entry in datasets.items()
        if entry.role == "ood" and entry.variant_of not in datasets
    ]


def choose_targets(
    config: Mapping, family: Family, catalog: Catalog, datasets: Mapping[str, Dataset]
) -> tuple[list[str], list[str]]:
    """Datasets to fine-tune on, and notices.

    Raises:
        UserError: A dataset chosen by name must not be fine-tuned on, or a word of accept_terms is unknown.
    """
    words = {entry.tuning["accept"] for entry in catalog.datasets.values() if entry.tuning}
    for word in as_list(config["accept_terms"]):
        known_name(word, words, "word", "config, accept_terms")
    ood = ood_datasets(datasets)
    why = {name: _no_target(dataset, ood, config) for name, dataset in datasets.items()}
    if config["targets"] == "default" and config["datasets"] != "default":
        chosen = [name for name in family.defaults["targets"] if name in datasets]
    else:
        chosen = choose("targets", datasets, config, family)
    refused = [name for name in chosen if why[name]]
    if refused and config["targets"] not in ("all", "default"):
        raise UserError(f"config, targets: '{refused[0]}' cannot be a target: {why[refused[0]]}.")
    targets = [name for name in chosen if not why[name]]
    terms = {name: datasets[name].tuning for name in targets if datasets[name].tuning}
    return targets, [
        *(
            f"dataset '{name}' is a target because {t['accept']} is accepted: {t['terms']}"
            for name, t in terms.items()
        ),
        *(f"dataset '{name}' is evaluated but not a target: {why[name]}" for name in refused),
    ]


def _no_target(dataset: Dataset, ood: list[str], config: Mapping) -> str | None:
    """Reason why a dataset cannot be a target; None if it can."""
    if dataset.role != "ood":
        return "it is in distribution"
    if dataset.optional and config["targets"] == "all":
        return "it is optional; choose it by name"
    if dataset.name not in ood:
        return "it is a variant of another dataset of the run"
    if dataset.tuning and dataset.tuning["accept"] not in as_list(config["accept_terms"]):
        return f"{dataset.tuning['terms']} To do so nevertheless, list {dataset.tuning['accept']} in accept_terms"
    return None


def choose_split_fractions(config: Mapping, family: Family) -> dict[str, float] | None:
    """Fractions of the train and select splits; None under protocol `paper`.

    Raises:
        UserError: The family cannot be split, or nothing is left to test.
    """
    if config["protocol"] == "paper":
        return None
    if family.one_image_per_class:
        raise UserError(
            f"config, protocol: held_out is not possible for family {family.name}, because its datasets have one image "
            "per class; set it to paper."
        )
    if (total := sum(config["split"].values())) >= 1:
        raise UserError(
            f"config, split: train and select add up to {total:g}; make the sum less than 1."
        )
    return config["split"]


def not_trained_on(datasets: Mapping[str, Dataset], targets: Collection[str]) -> list[str]:
    """Datasets that count in RI, and are no targets, nor variants of them, nor share source images with any."""
    groups = {datasets[name].source_group for name in targets} - {None}
    others = [
        name
        for name in ood_datasets(datasets)
        if not {name, datasets[name].variant_of} & {*targets}
    ]
    return [name for name in others if datasets[name].source_group not in groups]


def nothing_to_merge(
    method: Method,
    config: Mapping,
    datasets: Mapping[str, Dataset],
    targets: list[str],
    swept: Callable[[str], bool],
) -> str | None:
    """Reason why a merge has one parent or can't be scored, if it does; `swept`: whether a method has several variants."""
    if method.over == SEEDS and len(config["seeds"]) < 2:
        return "it merges over seeds, and there is one; list several in seeds"
    if method.over == VARIANTS and not any(map(swept, method.parents)):
        return f"it merges a sweep with one recipe; sweep a setting of {' or '.join(method.parents)} in method_settings"
    if method.over == TARGETS and len(targets) < 2:
        return "it merges over targets; choose several"
    if method.over == TARGETS and not not_trained_on(datasets, targets):
        return (
            "no dataset is left to score it on: each is a target, or shares source images with one"
        )
    return None


def too_many_images(
    method: Method, config: Mapping, datasets: Mapping[str, Dataset], catalog: Catalog
) -> str | None:
    """Reason why a method would take too long to evaluate, if its algorithm limits the images of a dataset.

    Datasets whose entries don't say how many images they have are not counted.
    """
    most = constant(catalog.algorithm_file(method.algorithm), "MOST_IMAGES", None)
    budget = config["budget"]["max_images_per_dataset"]
    if most is None or (budget != ALL and budget <= most):
        return None
    for name, dataset in datasets.items():
        images = dataset.images or dataset.about_images or 0
        if images > most:
            return (
                f"it is too slow for more than {most:,} images of a dataset, and '{name}' has {images:,}; leave the "
                f"dataset out, or set budget.max_images_per_dataset to at most {most}"
            )
    return None


def choose_methods(
    config: Mapping,
    family: Family,
    catalog: Catalog,
    models: Mapping[str, Model],
    reference: Reference | None,
    other_obstacle: Callable[[Method], str | None],
) -> tuple[list[str], list[str]]:
    """Methods to run, with their parents first, and notices; raise a UserError if one chosen by name cannot be run.

    `other_obstacle` says why a method cannot be run for other reasons than those here, or None.
    """
    types = sorted({model.type for model in models.values()})

    def obstacle(name: str) -> str | None:
        """Reason why a method cannot be run with these choices; None if it can."""
        method = catalog.methods[name]
        if method.form == SELECT and config["protocol"] == "paper":
            return "it selects on held-out images; set protocol to held_out"
        if method.reference == "required" and reference is None:
            chosen_none = config["reference"] == "none" and family.reference is not None
            return f"it needs a reference dataset, and {'config sets reference to none' if chosen_none else f'family {family.name} has none'}"
        if not set(types) & set(method.types):
            return f"it is for models of type {' and '.join(method.types)}, but those chosen are {' and '.join(types)}"
        if method.text == "required" and "zero_shot" not in (
            head_of(model, family) for model in models.values()
        ):
            return "it trains with texts, but no chosen model has a text tower"
        parents = ((parent, obstacle(parent)) for parent in method.parents)
        return next(
            (f"of '{parent}': {why}" for parent, why in parents if why), None
        ) or other_obstacle(method)

    names = choose("methods", {PRETRAINED: None, **catalog.methods}, config, family)
    names += [
        name
        for name, method in catalog.methods.items()
        if method.form == EXTERNAL and name not in names
    ]
    why = {name: obstacle(name) for name in names if name != PRETRAINED}
    refused = [name for name in why if why[name]]
    if refused and config["methods"] not in ("all", "default"):
        raise UserError(f"config, methods: '{refused[0]}' cannot be run: {why[refused[0]]}.")
    chosen = [name for name in why if not why[name]]
    notices = [f"method '{name}' is left out: {why[name]}" for name in refused]
    to_add = chosen.copy()
    for name in to_add:
        method = catalog.methods[name]
        for parent in method.parents:
            if parent not in chosen:
                chosen.insert(chosen.index(name), parent)
                to_add.append(parent)
                merges = "is computed from it" if method.form in LOADED else "averages its weights"
                does = "starts from it" if method.trains else merges
                notices.append(f"method '{parent}' is added to the grid: '{name}' {does}")
    return chosen, notices


def choose_selection(
    config: Mapping,
    methods: Mapping[str, Method],
    datasets: Mapping[str, Dataset],
    targets: list[str],
) -> dict[str, object] | None:
    """`rule`, `variants` and `groups` of rib.analysis.selection; None if no variant is to be chosen.

    Raises:
        UserError: No method has several variants, or the rule has no images to choose by.
    """
    rule, variants = config["select"], {}
    if rule == "none":
        return None
    for name, method in methods.items():
        if method.form != CURVE and method.over != TARGETS:
            variants.setdefault(method.base, []).append(name)
    variants = {base: names for base, names in variants.items() if len(names) > 1}
    groups = {name: datasets[name].source_group or name for name in ood_datasets(datasets)}
    if not variants:
        raise UserError(
            "config, select: no method has several variants; sweep a setting, list several recipes or set it to none."
        )
    if rule == "target" and config["protocol"] == "paper":
        raise UserError(
            "config, select: target chooses by images of the target that were not trained on, and protocol paper trains "
            "on all of them; set protocol to held_out, or select to leave_one_out."
        )
    for target, other in itertools.product(targets, groups) if rule == "leave_one_out" else ():
        if set(groups.values()) <= {groups[target], groups[other]}:
            raise UserError(
                f"config, select: for target '{target}' and dataset '{other}', leave_one_out has no dataset to choose by "
                "that shares no source images with either; evaluate on more datasets or choose other targets."
            )
    return {"rule": rule, "variants": variants, "groups": groups}


def choose_compare_to(config: Mapping, methods: Mapping[str, Method]) -> str:
    """The method that differences in the ranking are from; a UserError if it is none of the run's."""
    with_mri = [
        name for name, method in methods.items() if method.form != CURVE and method.over != TARGETS
    ]
    if config["compare_to"] == "default":
        return USUAL_REFERENCE if USUAL_REFERENCE in with_mri else PRETRAINED
    return known_name(config["compare_to"], [*with_mri, PRETRAINED], "method", "config, compare_to")


def check_external(
    rows: Mapping[str, Mapping], known: Mapping[str, Collection[str]], runs: Iterable[Run]
) -> None:
    """Raise a UserError if a row of Catalog.external has an unknown name, or a run that was trained elsewhere has no row."""
    for row, (column, names) in itertools.product(rows.values(), known.items()):
        known_name(row[column], names, column, row["where"])
    if missing := [str(run) for run in runs if str(run) not in rows]:
        raise UserError(
            f"config, external: {len(missing)} runs have no row, such as {', '.join(missing[:3])}; add rows, or choose others."
        )
