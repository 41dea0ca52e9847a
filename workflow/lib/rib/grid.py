"""The grid of a run: config's choices resolved against the catalogue. No torch."""

import collections
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rib.catalog import CURVE, SELECT, Catalog, Dataset, Family, Method, Model, check_settings, known_name
from rib.geometry import Geometry
from rib.io import UserError
from rib.runs import ALL, NO_TARGET, PRETRAINED, Run, largest


@dataclass(frozen=True)
class Reference:
    """What stands for what pretraining saw.

    Attributes:
        dataset: it, or what it is a part of.
        images_per_class: the part's size; None for the whole of a dataset that is kept for that.
    """

    dataset: Dataset
    images_per_class: int | None

    @property
    def name(self) -> str:
        return self.dataset.name


class Grid:
    """Models, methods, targets, sizes and seeds of a run, and the choices behind them.

    Args:
        config: config.yaml, validated.
        catalog: the catalogue.

    Attributes:
        datasets: those that are evaluated, in catalogue order.
        reference: what stands for what pretraining saw, None where there is nothing.
        methods: every method of the grid, sweeps as variants of their own, their settings resolved.
        sizes: of the training part, as they stand in paths.
        shown_size: the largest of them, which figures and headlines show.
        notices: lines that tell the user what was added to the grid or left out, and why.

    Raises:
        UserError: an unknown family, model, method or target, or one of another family; a choice that can't be run.
    """

    def __init__(self, config: Mapping, catalog: Catalog):
        self.config = config
        self.catalog = catalog
        self.notices: list[str] = []
        self.family: Family = catalog.families[known_name(config["family"], catalog.families, "family", "config")]
        self.datasets: dict[str, Dataset] = self._datasets()
        self.reference: Reference | None = self._reference()
        self.models: dict[str, Model] = self._models()
        self._refuse_headless()
        self._check_pretraining()
        self.targets: list[str] = self._targets()
        self.shares: dict[str, float] | None = self._shares()
        chosen = self._choose("methods", {PRETRAINED: None, **catalog.methods})
        words = {entry.tuning["accept"] for entry in catalog.datasets.values() if entry.tuning}
        for word in _list(config["accept"]):
            known_name(word, words, "word", "config, accept")
        explicit = config["methods"] not in ("all", "default")
        wanted = [name for name in chosen if name != PRETRAINED and self._possible(name, explicit)]
        self.methods: dict[str, Method] = self._variants(self._with_parents(wanted))
        self.seeds: list[int] = config["seeds"]
        self.sizes: list[str] = [_plain(size) for size in config["downstream_size"]]
        if len(set(self.sizes)) < len(self.sizes):
            raise UserError(
                "config, downstream_size: two fractions agree in their first twelve digits; give one of them."
            )
        self.shown_size = largest(self.sizes)
        for model in self.models:
            for name in self.methods.keys() - set(self.methods_of(model)):
                self.notices.append(
                    f"method '{name}' is not run on '{model}': it is not for {self.models[model].type}s"
                )

    def _datasets(self) -> dict[str, Dataset]:
        """Datasets to evaluate on, in catalogue order."""
        family = {
            name: entry
            for name, entry in self.catalog.datasets.items()
            if entry.family == self.family.name and entry.role != "reference"
        }
        if not family:
            raise UserError(
                f"config, family: no dataset of the catalogue is evaluated in family {self.family.name}; add one."
            )
        if self.config["datasets"] == "default":
            return {name: entry for name, entry in family.items() if not entry.optional}
        chosen = self._choose("datasets", family)
        return {name: entry for name, entry in family.items() if name in chosen}

    def _models(self) -> dict[str, Model]:
        """Models to run; by name any of the catalogue, since a family of one's own uses those that are there."""
        known = self.catalog.models
        if self.config["models"] == "all":
            known = {name: entry for name, entry in known.items() if self.family.name in entry.families}
        for name in _list(self.config["models"]):
            self._explain_pair(name, known)
        if not known:
            raise UserError(
                f"config, models: no model of the catalogue names family {self.family.name}; name models, or the family in "
                "their entries."
            )
        return {name: known[name] for name in self._choose("models", known)}

    def _explain_pair(self, name: str, known: Mapping[str, Model]) -> None:
        """Say of a pair of architecture and pretraining that doesn't exist which do.

        Raises:
            UserError: it doesn't, and the architecture or the pretraining is known.
        """
        architecture, dot, tag = name.partition(".")
        pairs = [entry.split(".", 1) for entry in known if "." in entry]
        tags = sorted(other for of, other in pairs if of == architecture)
        others = sorted(of for of, other in pairs if other == tag)
        if dot and name not in known and (tags or others):
            also = f"; '{tag}' exists for {', '.join(others)}" if others else ""
            has = f"has {', '.join(tags)}" if tags else "is unknown"
            raise UserError(f"config, models: there is no '{name}': '{architecture}' {has}{also}.")

    def _reference(self) -> Reference | None:
        """What stands for pretraining, by config or the family.

        Raises:
            UserError: an unknown dataset, or one that is evaluated.
        """
        choice, where = self.config["reference"], "config, reference"
        if choice == "default":
            choice, where = self.family.reference, f"families/{self.family.name}.yaml, reference"
        if choice in (None, "none"):
            return None
        part = choice if isinstance(choice, dict) else {"part_of": choice, "images_per_class": None}
        whole = part["images_per_class"] is None
        of_family = {
            name: entry
            for name, entry in self.catalog.datasets.items()
            if entry.family == self.family.name and (entry.role == "reference") == whole
        }
        kind = "dataset of role reference" if whole else "dataset that is evaluated"
        if not of_family:
            raise UserError(f"{where}: family {self.family.name} has no {kind}; give it one or set reference to none.")
        return Reference(of_family[known_name(part["part_of"], of_family, kind, where)], part["images_per_class"])

    def uses_reference(self) -> bool:
        """Whether any job reads the dataset that stands for pretraining."""
        methods = any(method.reference != "no" for method in self.methods.values())
        apart = any(map(self.kept_apart, self.datasets))
        return self.reference is not None and (methods or apart or any(self.head(m) == "fitted" for m in self.models))

    def head(self, model: str) -> str:
        """Where a model's head comes from: `published`, `zero_shot`, `fitted` or `pretrained` (here, with the rest)."""
        entry = self.models[model]
        if entry.pretrain:
            return "pretrained"
        own = self.family.classes["format"] == "own"
        return "fitted" if entry.head == "none" or (own and entry.head == "published") else entry.head

    def datasets_read(self) -> list[Dataset]:
        """Datasets that jobs read: those that are evaluated, the reference where it is used, and what models are trained on."""
        read = {**self.datasets}
        if self.uses_reference():
            read.setdefault(self.reference.name, self.reference.dataset)
        for model in self.models.values():
            for key in ("dataset", "test") if model.pretrain else ():
                read.setdefault(model.pretrain[key], self.catalog.datasets[model.pretrain[key]])
        return list(read.values())

    def _refuse_headless(self) -> None:
        """Leave out, with a line, models that have no head and nothing to fit one on.

        Raises:
            UserError: one was asked for by name, or none is left.
        """
        headless = [name for name in self.models if self.head(name) == "fitted"] if self.reference is None else []
        why = (
            f"has no head for the classes of family {self.family.name}, and there is no reference dataset to fit one on"
        )
        if headless and (self.config["models"] != "all" or len(headless) == len(self.models)):
            raise UserError(
                f"config, models: '{headless[0]}' {why}; give the family one (reference) or leave the model out."
            )
        for name in headless:
            del self.models[name]
            self.notices.append(f"model '{name}' is left out: it {why}")

    def _check_pretraining(self) -> None:
        """See that models that are pretrained here are trained and tested on what is kept for that.

        Raises:
            UserError: one isn't, or is for another family.
        """
        for name, model in self.models.items():
            for key, role in (("dataset", "reference"), ("test", "in_distribution")) if model.pretrain else ():
                own = self.catalog.datasets.get(model.pretrain[key])
                if own and own.family != self.family.name:
                    raise UserError(
                        f"config, models: '{name}' is trained here for family {own.family}; choose other models for family "
                        f"{self.family.name}."
                    )
                known = {
                    entry.name: entry
                    for entry in self.catalog.datasets.values()
                    if entry.family == self.family.name and entry.role == role
                }
                kind = f"dataset of role {role} of family {self.family.name}"
                known_name(model.pretrain[key], known, kind, f"models.yaml, {name}, pretrain.{key}")

    def kept_apart(self, dataset: str) -> bool:
        """Whether a dataset shares its source images with the part that stands for pretraining."""
        if self.reference is None or self.reference.images_per_class is None:
            return False
        whole, entry = self.reference.dataset, self.catalog.datasets[dataset]
        return entry.name == whole.name or entry.source_group == whole.source_group is not None

    def split_before(self, dataset: str) -> list[str]:
        """Evaluated datasets that share a dataset's sources and are split before it: in the catalogue's order, references last."""
        group = self.catalog.datasets[dataset].source_group
        kin = [name for name, entry in self.datasets.items() if entry.source_group == group is not None]
        return kin[: kin.index(dataset)] if dataset in kin else kin

    def unlike_published(self) -> str | None:
        """Why accuracies of this run can't be compared with published ones, None if they can."""
        if self.shares:
            return "protocol held_out scores a part"
        if self.config["budget"]["max_images_per_dataset"] != ALL:
            return "the budget leaves images out"
        for name, model in self.models.items():
            geometry = self.geometry(name)
            if (geometry.size, geometry.crop) != (model.preprocessing["size"], model.preprocessing["crop"]):
                return "images are not brought to the models' own geometry"
        return None

    def source_groups(self) -> dict[str, str]:
        """Name of the source images that a dataset shares with others, of the datasets that do."""
        return {name: entry.source_group for name, entry in self.datasets.items() if entry.source_group}

    def leak_free_groups(self) -> dict[str, str] | None:
        """`source_groups` where what the target was made from is to be left out of the others, None where nothing is.

        Under held_out there is nothing to leave out: whatever is scored was made from sources that nothing trained on.
        """
        return self.source_groups() if self.config["leak_free"] and self.shares is None else None

    def conditions(self) -> list[str]:
        """What a number of this run hangs on besides its row's columns, as short phrases for every table."""
        found = [f"protocol {self.config['protocol']}"]
        if self.config["leak_free"]:
            found.append("leak-free")
        if (budget := self.config["budget"]["max_images_per_dataset"]) != ALL:
            found.append(f"at most {budget} images per dataset")
        if apart := [entry.label for name, entry in self.datasets.items() if self.kept_apart(name)]:
            part = self.reference
            found.append(
                f"{part.images_per_class} images per class of {part.dataset.label} stand for pretraining and are left out of "
                + ", ".join(apart)
            )
        family = [e for e in self.catalog.datasets.values() if e.family == self.family.name and e.role != "reference"]
        if missing := [entry.label for entry in family if not entry.optional and entry.name not in self.datasets]:
            found.append(f"without {', '.join(missing)}")
        if more := [self.datasets[name].label for name in self.ood() if self.datasets[name].optional]:
            found.append(f"RI with {', '.join(more)}")
        return found

    def ood(self) -> list[str]:
        """Datasets that count in RI: those out of distribution, a variant only in its original's absence."""
        return [
            name
            for name, dataset in self.datasets.items()
            if dataset.role == "ood" and dataset.variant_of not in self.datasets
        ]

    def in_distribution(self, dataset: str) -> str | None:
        """The in-distribution dataset that is scored among the same classes as a dataset, None where there is none.

        Accuracies among 200 classes and among 1000 are not comparable: what is fine-tuned on 200 may lose the others.
        """
        space = self.catalog.space(self.datasets[dataset]).digest
        fit = (name for name, entry in self.datasets.items() if entry.role == "in_distribution")
        return next((name for name in fit if self.catalog.space(self.datasets[name]).digest == space), None)

    def baselines(self) -> list[dict]:
        """Published accuracies of models trained on in-distribution images alone, on which lines are fitted.

        Returns:
            One per model and dataset out of distribution that has an in-distribution one (`in_distribution`) and was not
            chosen by a network: model, dataset, in_distribution, id, ood (percent). Of baselines.csv, and of published.csv
            where the model's entry says baseline.
        """
        columns = ("model", "dataset", "accuracy", "source")
        rows = self.catalog.table("baselines.csv", columns, ["accuracy"])
        own = {name for name, entry in self.catalog.models.items() if entry.baseline}
        rows += [row for row in self.catalog.table("published.csv", columns, ["accuracy"]) if row["model"] in own]
        stated = {(row["model"], row["dataset"]): float(row["accuracy"]) for row in rows}
        return [
            {"model": model, "dataset": name, "in_distribution": inside, "id": stated[model, inside], "ood": accuracy}
            for name in self.ood()
            if not self.datasets[name].adversarially_filtered and (inside := self.in_distribution(name))
            for (model, dataset), accuracy in stated.items()
            if dataset == name and (model, inside) in stated
        ]

    def _targets(self) -> list[str]:
        """Datasets to fine-tune on: those chosen, less those that may not be tuned on.

        Raises:
            UserError: one of those was asked for by name.
        """
        why = {name: self._no_target(dataset) for name, dataset in self.datasets.items()}
        default = self.config["targets"] == "default" and self.config["datasets"] != "default"
        chosen = (
            [name for name in self.family.defaults["targets"] if name in self.datasets]
            if default
            else self._choose("targets", self.datasets)
        )
        refused = [name for name in chosen if why[name]]
        for name in chosen:
            if (terms := self.datasets[name].tuning) and name not in refused:
                self.notices.append(
                    f"dataset '{name}' is fine-tuned on, as {terms['accept']} accepts: {terms['terms']}"
                )
        if refused and self.config["targets"] not in ("all", "default"):
            raise UserError(f"config, targets: '{refused[0]}' can't be a target: {why[refused[0]]}.")
        self.notices += [f"dataset '{name}' is evaluated and not fine-tuned on: {why[name]}" for name in refused]
        return [name for name in chosen if not why[name]]

    def _no_target(self, dataset: Dataset) -> str | None:
        """Why a dataset can't be a target, None if it can."""
        if dataset.role != "ood":
            return "it is what the models were pretrained for"
        if dataset.optional and self.config["targets"] == "all":
            return "it is optional; name it to do so"
        if dataset.name not in self.ood():
            return "it is a variant of a dataset that is there"
        if dataset.tuning and dataset.tuning["accept"] not in _list(self.config["accept"]):
            return (
                f"{dataset.tuning['terms']} To do it all the same, list {dataset.tuning['accept']} in config's accept"
            )
        return None

    def _shares(self) -> dict[str, float] | None:
        """Shares of the splits; None under protocol `paper`, which has none."""
        if self.config["protocol"] == "paper":
            return None
        if self.family.one_image_per_class:
            raise UserError(
                f"config, protocol: held_out can't be run on family {self.family.name}, whose datasets have one image per "
                "class: every image held out would leave its class without training images; set it to paper."
            )
        shares = self.config["split"]
        if sum(shares.values()) >= 1:
            raise UserError(
                f"config, split: train and select add up to {sum(shares.values()):g}; leave a share to test."
            )
        return shares

    def _possible(self, name: str, explicit: bool) -> bool:
        """Whether a method can be run here; where it was asked for by `all` or `default` a line says why not.

        Raises:
            UserError: it can't, and was asked for by name.
        """
        why = self._obstacle(name)
        if why and explicit:
            raise UserError(f"config, methods: '{name}' can't be run: {why}.")
        if why:
            self.notices.append(f"method '{name}' is left out: {why}")
        return why is None

    def _obstacle(self, name: str) -> str | None:
        """Why a method, or one that it hangs on, can't be run with these choices; None if it can."""
        method = self.catalog.methods[name]
        types = sorted({model.type for model in self.models.values()})
        if method.form == SELECT and self.shares is None:
            return "it selects on held-out images; set protocol to held_out"
        if method.reference == "required" and self.reference is None:
            chosen_none = self.config["reference"] == "none" and self.family.reference is not None
            whose = "config's reference is none" if chosen_none else f"family {self.family.name} has none"
            return f"it needs a reference dataset, and {whose}"
        if not set(types) & set(method.types):
            return f"it is for models of type {' and '.join(method.types)}, and those chosen are {' and '.join(types)}"
        obstacles = ((parent, self._obstacle(parent)) for parent in method.parents)
        return next((f"of '{parent}': {why}" for parent, why in obstacles if why), None)

    def _choose(self, key: str, known: Mapping) -> list[str]:
        choice = self.config[key]
        if choice == "all":
            return list(known)
        if choice == "default":
            choice, where = self.family.defaults[key], f"families/{self.family.name}.yaml, {key}"
        else:
            choice, where = _list(choice), f"config, {key}"
        place = f"{where} (family {self.family.name})"
        names = [known_name(name, known, key.removesuffix("s"), place) for name in choice]
        if not names and key != "methods":
            raise UserError(f"{where}: the list is empty; name at least one of {', '.join(sorted(known))}.")
        return list(dict.fromkeys(names))

    def _with_parents(self, names: Iterable[str]) -> list[str]:
        methods = self.catalog.methods
        chosen = list(names)
        for name in chosen.copy():
            for parent in methods[name].parents:
                if parent not in chosen:
                    chosen.insert(chosen.index(name), parent)
                    does = "starts from it" if methods[name].trains else "averages its weights"
                    self.notices.append(f"method '{parent}' is added to the grid: '{name}' {does}")
        return chosen

    def _variants(self, names: Iterable[str]) -> dict[str, Method]:
        """Methods with their settings resolved; one per combination of swept values, its own or its parents'.

        Raises:
            UserError: a swept value can't be part of a name.
        """
        overrides = self._overrides()
        sweeps = {
            name: _sweep(
                {**self.catalog.methods[name].settings, **overrides.get(name, {})},
                self.catalog.wanted_settings(self.catalog.methods[name]),
            )
            for name in names
        }
        found: dict[str, Method] = {}
        for name, own in sweeps.items():
            method = self.catalog.methods[name]
            for (settings, swept), *of_parents in itertools.product(
                own, *(sweeps[parent] for parent in method.parents)
            ):
                inherited = dict(zip(method.parents, (part for _, part in of_parents), strict=True))
                shown = _named(swept, inherited)
                variant = replace(
                    method,
                    name=name + _suffix(shown),
                    label=", ".join([method.label, *(f"{key} {value}" for key, value in shown.items())]),
                    settings=settings,
                    parents=tuple(parent + _suffix(part) for parent, part in inherited.items()),
                )
                if variant.name in found or not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", variant.name):
                    raise UserError(
                        f"the swept method '{variant.name[:200]}' can't be told from another or holds what a path can't; sweep "
                        "over numbers or plain words, not too long, and list each once."
                    )
                found[variant.name] = variant
        return found

    def _overrides(self) -> dict[str, dict]:
        """Settings by method that the family or, over it, the run's config gives in place of the entry's."""
        merged: dict[str, dict] = {}
        places = {
            f"families/{self.family.name}.yaml, method_settings": self.family.method_settings,
            "config, method_settings": self.config["method_settings"],
        }
        for where, part in places.items():
            for name, settings in part.items():
                known_name(name, self.catalog.methods, "method", where)
                wanted = self.catalog.wanted_settings(self.catalog.methods[name])
                checked = check_settings(settings, wanted, f"{where}, {name}", complete=False)
                merged[name] = {**merged.get(name, {}), **checked}
        return merged

    def methods_of(self, model: str) -> list[str]:
        """Methods that are for a model's type, those of which all parents are."""
        kind = self.models[model].type
        fit = {name for name, method in self.methods.items() if kind in method.types}
        return [name for name in self.methods if name in fit and fit.issuperset(self.methods[name].parents)]

    def shared_methods(self) -> list[str]:
        """Methods that every model of the grid has."""
        sets = [set(self.methods_of(model)) for model in self.models]
        return [name for name in self.methods if all(name in found for found in sets)]

    def runs(self) -> list[Run]:
        """Every run of the grid: per model the pretrained one, then targets x methods x sizes x seeds."""
        return [
            run
            for model in self.models
            for run in [
                Run(model, NO_TARGET, PRETRAINED, ALL, 0),
                *(
                    Run(model, *rest)
                    for rest in itertools.product(self.targets, self.methods_of(model), self.sizes, self.seeds)
                ),
            ]
        ]

    def compared_runs(self) -> list[Run]:
        """Fine-tuned runs whose representations are compared with the pretrained model's (config, representations).

        Raises:
            UserError: an unknown target or method, or a method that is a curve, which has several states.
        """
        chosen, where = self.config["representations"], "config, representations"
        single = [name for name, method in self.methods.items() if method.form != CURVE]
        targets, methods = ([] if chosen[key] in ("default", "all") else chosen[key] for key in ("targets", "methods"))
        for name in targets:
            known_name(name, self.targets, "target of this run", where)
        for name in methods:
            known_name(name, single, "method of this run with one state", where)
        if chosen["targets"] == "default":
            targets = [name for name in (self.family.example_target, *self.targets) if name in self.targets][:1]
        targets, methods = targets or self.targets, methods or single
        return [run for run in self.runs() if run.target in targets and run.method in methods]

    def suites(self) -> dict[str, list[str]]:
        """Datasets of each evaluation suite, in catalogue order."""
        suites: dict[str, list[str]] = {}
        for name, dataset in self.datasets.items():
            suites.setdefault(dataset.suite, []).append(name)
        return suites

    def geometry(self, model: str) -> Geometry:
        """Geometry in which a model sees images; models that agree share prepared data."""
        preprocessing = self.models[model].preprocessing
        size = self.setting("image_size")
        return Geometry(
            size=preprocessing["size"] if size == "native" else size,
            crop=preprocessing["crop"] if self.family.crop is None else self.family.crop,
            interpolation=preprocessing["interpolation"],
        )

    def setting(self, key: str):
        """A choice of config.yaml for which `default` means the family's."""
        value = self.config["training"].get(key, self.config.get(key))
        return self.family.defaults[key] if value == "default" else value

    def training(self) -> dict:
        """Settings shared by all fine-tuning methods, resolved."""
        return {key: self.setting(key) for key in self.config["training"]}

    def resolved(self) -> dict:
        """The configuration with every `default` and `all` replaced by what it stands for, less what is a machine's."""
        compute = {
            key: value
            for key, value in self.config["compute"].items()
            if key not in ("warm_start", "jobs_per_gpu", "checkpoints_per_pass")
        }
        return {
            **{key: value for key, value in self.config.items() if key not in ("catalog", "archives")},
            "compute": compute,
            "datasets": list(self.datasets),
            "reference": self.reference and self.reference.name,
            "models": list(self.models),
            "methods": list(self.methods),
            "method_settings": {name: method.settings for name, method in self.methods.items()},
            "targets": self.targets,
            "image_size": self.setting("image_size"),
            "training": self.training(),
        }


def _list(value: str | list[str]) -> list[str]:
    """One choice or several, as several."""
    return [value] if isinstance(value, str) else value


def _sweep(settings: Mapping, wanted: Mapping[str, str]) -> list[tuple[dict, dict]]:
    """Every combination of listed values: the settings, and which of them are swept.

    A setting that is itself a list sweeps as a list of lists.
    """
    swept = [
        key
        for key, value in settings.items()
        if isinstance(value, list) and (not wanted[key].startswith("list") or isinstance(value[0], list))
    ]
    return [
        ({**settings, **dict(zip(swept, values, strict=True))}, dict(zip(swept, values, strict=True)))
        for values in itertools.product(*(settings[key] for key in swept))
    ]


def _named(own: Mapping, inherited: Mapping[str, Mapping]) -> dict[str, object]:
    """Swept settings of a method and its parents by name; the parent's name goes before one that two of them have."""
    keys = collections.Counter([*own, *(key for part in inherited.values() for key in part)])
    shown = dict(own)
    for parent, part in inherited.items():
        shown |= {key if keys[key] == 1 else f"{parent}_{key}": value for key, value in part.items()}
    return shown


def _suffix(swept: Mapping) -> str:
    """What names a variant, for example `-rank4`."""
    return "".join(f"-{key}{_plain(value)}" for key, value in swept.items())


def _plain(value: object) -> str:
    """A value as it stands in paths; numbers without an exponent, which holds a minus sign."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
