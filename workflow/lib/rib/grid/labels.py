"""Labels, colours and markers in figures, and the runs that serve as examples. No plots."""

from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

from rib.grid.compared_runs import compared_runs, example_target
from rib.grid.grid import Grid
from rib.schema.algorithm_settings import RATE
from rib.schema.forms import MERGES
from rib.schema.run import in_path

VARIANT_MARKERS = ("s", "^", "v", "P", "X", "o", "D", "*")


class GridLabels:
    """Labels and styles of a grid's models, methods, targets and datasets, by name.

    Methods exclude curves, which have several networks per run (averages of weights from the
    pretrained to the fine-tuned ones), and merges over targets, which have no target.
    """

    def __init__(self, grid: Grid):
        self._grid = grid
        self.confidence: float = grid.config["statistics"]["confidence"]
        self.models = {name: model.label for name, model in grid.models.items()}
        self.model_styles = {
            name: {"label": model.label, **(dict(model.style) if model.style else {})}
            for name, model in grid.models.items()
        }
        self.datasets = {name: dataset.label for name, dataset in grid.datasets.items()}
        self.targets = {name: self.datasets[name] for name in grid.targets}

    @cached_property
    def curves(self) -> list[str]:
        """Names of methods with several networks per run: averages of two networks' weights."""
        return [name for name, method in self._grid.methods.items() if method.form == "curve"]

    @cached_property
    def methods(self) -> dict[str, str]:
        """Labels of methods by name: {"ft": "FT"}."""
        return {
            name: method.label
            for name, method in self._grid.methods.items()
            if name not in self.curves and name not in self._grid.over_targets
        }

    @cached_property
    def method_styles(self) -> dict[str, dict[str, Any]]:
        """Label, colour and marker of methods; values of a setting differ in shade and marker.

        For example {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        """
        styles = [self._grid.methods[name].style for name in self.methods]
        shades = shades_of([style.colour for style in styles])
        markers = markers_of([(style.colour, style.marker) for style in styles])
        looks = zip(self.methods.items(), styles, shades, markers, strict=True)
        return {
            name: {"label": label, "colour": shade, "marker": marker}
            for (name, label), style, shade, marker in looks
        }

    @cached_property
    def shared_methods(self) -> list[str]:
        """Methods that every model has."""
        return [
            name
            for name in self.methods
            if all(name in self._grid.methods_of(model) for model in self._grid.models)
        ]

    @cached_property
    def example_method(self) -> str | None:
        """The method in figures of a single method: `ft` or else the first that all models have."""
        if "ft" in self.shared_methods:
            return "ft"
        return next(iter(self.shared_methods), None)

    @cached_property
    def example_target(self) -> str | None:
        """The target in figures of a single target; None without targets."""
        return example_target(self._grid)

    @property
    def has_figures(self) -> bool:
        """Whether there are runs that figures can show."""
        return bool(self.example_method and self._grid.all_targets)

    @property
    def one_model(self) -> dict[str, str]:
        """For figures of a single model, the first: {"model": "net", "model_label": "Net"}."""
        name = next(iter(self.models))
        return {"model": name, "model_label": self.models[name]}

    @property
    def one_method(self) -> dict[str, str]:
        """For figures of a single method: {"method": "ft", "method_label": "FT"}.

        Call it only if `has_figures`.
        """
        assert self.example_method is not None
        return {"method": self.example_method, "method_label": self.methods[self.example_method]}

    @property
    def means(self) -> dict[str, Any]:
        """For figures of means: {"models": {"net": "Net"}, "methods": {...}, "confidence": 0.9}."""
        return {"models": self.models, "methods": self.methods, "confidence": self.confidence}

    @property
    def styled_means(self) -> dict[str, Any]:
        """`means`, but methods have label, colour and marker instead of only a label."""
        return {**self.means, "methods": self.method_styles}

    @property
    def by_target(self) -> dict[str, dict[str, str]]:
        """{"models": {"net": "Net"}, "methods": {"ft": "FT"}, "targets": {"noto": "Noto"}}."""
        return {"models": self.models, "methods": self.methods, "targets": self.targets}

    @property
    def accuracy_on_target(self) -> str:
        """Label of an axis with the accuracy on the target, which depends on protocol and size."""
        if self._grid.config["protocol"] == "held_out":
            return "test accuracy on the target"
        if self._grid.shown_size == "all":
            return "fit of the training images"
        return "accuracy on the target, partly trained on"

    @property
    def averages(self) -> dict[str, tuple[str, float]]:
        """Parent and its share of methods that average its weights with the pretrained ones.

        For example {"wise_ft": ("ft", 0.5)}.
        """
        averages = {}
        for name, method in self._grid.methods.items():
            has_one_parent = method.form in MERGES and len(self._grid.parents_of(name)) == 1
            if has_one_parent and "alpha" in method.settings:
                averages[name] = (method.parents[0], method.settings["alpha"])
        return averages

    @property
    def rates(self) -> list[list[tuple[str, str]]]:
        """Methods that differ in their learning rate alone, from the lowest rate to the highest.

        Each list has the variants of a method with one recipe, from two on, as names and rates:
        [[("ft-lr0.0001", "0.0001"), ("ft-lr0.001", "0.001")]].
        """
        rates_of_variants: dict[str, dict[str, float]] = {}
        for name in self.methods:
            method = self._grid.methods[name]
            rate = method.settings.get(RATE)
            if isinstance(rate, float) and method.without_rate not in (None, name):
                rates_of_variants.setdefault(method.without_rate, {})[name] = rate
        return [
            [(name, in_path(rate)) for name, rate in sorted(rates.items(), key=itemgetter(1))]
            for rates in rates_of_variants.values()
            if len(rates) > 1
        ]

    @property
    def of_compared_runs(self) -> dict[str, Any]:
        """Labels, styles and confidence, for figures of runs whose representations are compared."""
        runs = compared_runs(self._grid)
        methods = {run.method for run in runs}
        targets = {run.target for run in runs}
        return {
            "models": self.models,
            "methods": {
                name: style for name, style in self.method_styles.items() if name in methods
            },
            "targets": {name: label for name, label in self.targets.items() if name in targets},
            "confidence": self.confidence,
        }


def markers_of(looks: Sequence[tuple[str, str]]) -> list[str]:
    """Marker of each method, given pairs of colour and marker; equal pairs get different markers.

    Three times ("#ff0000", "D") gives D, s and ^.
    """
    markers = []
    for position, look in enumerate(looks):
        equal_before = looks[:position].count(look)
        _, own_marker = look
        others = [marker for marker in VARIANT_MARKERS if marker != own_marker]
        markers.append([own_marker, *others][equal_before % (1 + len(others))])
    return markers


def shades_of(colours: Sequence[str]) -> list[str]:
    """Colours #rrggbb, each darker than an equal one before.

    #ff0000, #0000ff and #ff0000 give #ff0000, #0000ff and a darker red.
    """
    shades = []
    for position, colour in enumerate(colours):
        equal_before = colours[:position].count(colour)
        brightness = 1 - equal_before / (1.3 * colours.count(colour))
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        channels = [round(channel * brightness) for channel in (red, green, blue)]
        shades.append("#" + bytes(channels).hex())
    return shades
