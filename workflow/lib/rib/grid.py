"""The grid of a run: config's choices resolved against the catalogue. No torch."""

from collections.abc import Iterable, Mapping

from rib.catalog import Catalog, Dataset, Family, Method, Model, check_settings, known_name
from rib.geometry import Geometry
from rib.io import UserError
from rib.runs import NO_TARGET, PRETRAINED, Run


class Grid:
    """Models, methods, targets and seeds of a run, and the choices behind them.

    Args:
        config: config.yaml, validated.
        catalog: the catalogue.

    Attributes:
        notices: lines that tell the user what was added to the grid and why.

    Raises:
        UserError: an unknown family, model, method or target, or one of another family.
    """

    def __init__(self, config: Mapping, catalog: Catalog):
        self.config = config
        self.catalog = catalog
        self.notices: list[str] = []
        self.family: Family = catalog.families[known_name(config["family"], catalog.families, "family", "config")]
        self.datasets: dict[str, Dataset] = {
            name: entry for name, entry in catalog.datasets.items() if entry.family == self.family.name
        }
        in_family = {name: entry for name, entry in catalog.models.items() if self.family.name in entry.families}
        self.models: dict[str, Model] = {name: in_family[name] for name in self._choose("models", in_family)}
        self.targets: list[str] = self._choose("targets", self.datasets)
        chosen = self._choose("methods", {PRETRAINED: None, **catalog.methods})
        self.methods: dict[str, Method] = self._with_parents(name for name in chosen if name != PRETRAINED)
        self.seeds: list[int] = config["seeds"]
        self._overrides: dict[str, dict] = {}
        for name, settings in self.family.method_settings.items():
            where = f"families/{self.family.name}.yaml, method_settings"
            known_name(name, catalog.methods, "method", where)
            wanted = catalog.wanted_settings(catalog.methods[name])
            self._overrides[name] = check_settings(settings, wanted, f"{where}, {name}", complete=False)

    def _choose(self, key: str, known: Mapping) -> list[str]:
        choice = self.config[key]
        if choice == "all":
            return list(known)
        if choice == "default":
            choice, where = self.family.defaults[key], f"families/{self.family.name}.yaml, {key}"
        else:
            choice, where = [choice] if isinstance(choice, str) else choice, f"config, {key}"
        names = [
            known_name(name, known, key.removesuffix("s"), f"{where} (family {self.family.name})") for name in choice
        ]
        if not names and key != "methods":
            raise UserError(f"{where}: the list is empty; name at least one of {', '.join(sorted(known))}.")
        return list(dict.fromkeys(names))

    def _with_parents(self, names: Iterable[str]) -> dict[str, Method]:
        methods = self.catalog.methods
        chosen = list(names)
        for name in chosen.copy():
            for parent in methods[name].parents:
                if parent not in chosen:
                    chosen.insert(chosen.index(name), parent)
                    self.notices.append(f"method '{parent}' is added to the grid: '{name}' averages its weights")
        return {name: methods[name] for name in chosen}

    def runs(self) -> list[Run]:
        """Every run of the grid: per model the pretrained one, then targets x methods x seeds."""
        return [
            run
            for model in self.models
            for run in [
                Run(model, NO_TARGET, PRETRAINED, 0),
                *(
                    Run(model, target, method, seed)
                    for target in self.targets
                    for method in self.methods
                    for seed in self.seeds
                ),
            ]
        ]

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

    def method_settings(self, method: str) -> dict:
        """A method's settings: its entry's, and over them the family's."""
        return {**self.catalog.methods[method].settings, **self._overrides.get(method, {})}

    def training(self) -> dict:
        """Settings shared by all fine-tuning methods, resolved."""
        return {key: self.setting(key) for key in self.config["training"]}

    def resolved(self) -> dict:
        """The configuration with every `default` and `all` replaced by what it stands for, less what is a machine's."""
        compute = {key: value for key, value in self.config["compute"].items() if key != "warm_start"}
        return {
            **{key: value for key, value in self.config.items() if key != "catalog"},
            "compute": compute,
            "models": list(self.models),
            "methods": list(self.methods),
            "targets": self.targets,
            "image_size": self.setting("image_size"),
            "training": self.training(),
        }
