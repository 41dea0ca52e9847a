"""Figures and analyses of a run, checked when the workflow is read rather than when a job fails."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.errors import UserError
from rib.config.settings import Setting, signature_of
from rib.reporting.questions import QUESTIONS


@dataclass(frozen=True)
class RegisteredFigure:
    """A figure and the arguments of its `draw` function."""

    module: Path
    inputs: Mapping[str, str | list[str]]  # path or list of paths for each positional argument
    settings: Mapping[str, object]  # keyword arguments
    caption: Path  # reStructuredText file
    question: str  # that it helps to answer, a key of QUESTIONS


@dataclass(frozen=True)
class Analysis:
    """Tables, figures and files that an analysis adds to a run."""

    tables: Mapping[str, str]  # shown on the page, by name
    figures: Sequence[str] = ()
    # Further files that the page links to, by title.
    files: Mapping[str, list[str]] = field(default_factory=dict)
    # An optional one is part of a run only if config's `analyses` lists it; its rules always exist.
    optional: bool = False


class Registry:
    """Figures and analyses of a run, in the order of the page.

    Args:
        workflow: the folder that contains lib/ and report/.
        analyses: `analyses` of config: `all`, or names of optional ones.
    """

    def __init__(self, workflow: Path, analyses: str | Sequence[str]):
        self.figures: dict[str, RegisteredFigure] = {}
        self.analyses: dict[str, Analysis] = {}
        self._workflow = workflow
        self._analyses_in_config = analyses

    def figure(
        self,
        name: str,
        *,
        question: str,
        inputs: Mapping[str, str | list[str]],
        settings: Mapping[str, object],
        captions: str = "",
    ) -> None:
        """Register a figure, drawn by rib/figures/<name>.py with report/captions/<name>.rst.

        Args:
            name: of the figure.
            question: that it helps to answer, a key of QUESTIONS.
            inputs: positional arguments of `draw`.
            settings: keyword arguments of `draw`.
            captions: a folder in report/captions with another caption, for a run whose figure shows
                more.

        Raises a UserError if one of the files is missing, the question is unknown, or `draw` has
        other arguments.
        """
        if question not in QUESTIONS:
            raise UserError(
                f"the figure '{name}' has the question '{question}'; "
                f"known are {', '.join(QUESTIONS)}."
            )
        module = self._workflow / f"lib/rib/figures/{name}.py"
        caption = self._workflow / "report/captions" / captions / f"{name}.rst"
        for path in (module, caption):
            if not path.is_file():
                raise UserError(
                    f"the figure '{name}' is registered, but {path} does not exist; add it."
                )
        positional, keywords = signature_of(module, "draw")
        _refuse_other_arguments(module, positional, inputs)
        _refuse_other_arguments(module, keywords, settings)
        self.figures[name] = RegisteredFigure(module, inputs, settings, caption, question)

    def analysis(self, name: str, **attributes) -> None:
        """Register an analysis by the attributes of `Analysis`, after its figures.

        Raises a UserError if one of its figures is not registered.
        """
        analysis = Analysis(**attributes)
        self.analyses[name] = analysis
        unregistered = set(analysis.figures) - self.figures.keys()
        if unregistered:
            raise UserError(
                f"the analysis '{name}' lists the figure '{min(unregistered)}', which is not "
                "registered."
            )

    def chosen(self) -> list[Analysis]:
        """Analyses that are part of the run; a UserError if config lists an unknown one."""
        optional = [name for name, analysis in self.analyses.items() if analysis.optional]
        if self._analyses_in_config == "all":
            return list(self.analyses.values())
        for name in self._analyses_in_config:
            if name not in optional:
                raise UserError(
                    f"config, analyses: unknown '{name}'; known are "
                    f"{', '.join(optional) or 'none'}."
                )
        return [
            analysis
            for name, analysis in self.analyses.items()
            if not analysis.optional or name in self._analyses_in_config
        ]

    def chosen_figures(self) -> list[str]:
        """Names of the figures of the run: those without an analysis, and those of its analyses."""
        figures_of_chosen = _figures_of(self.chosen())
        figures_of_all = _figures_of(self.analyses.values())
        return [
            name for name in self.figures if name in figures_of_chosen or name not in figures_of_all
        ]

    def chosen_tables(self) -> dict[str, str]:
        """Tables of all analyses that are part of the run, by name."""
        tables = {}
        for analysis in self.chosen():
            tables.update(analysis.tables)
        return tables

    def chosen_files(self) -> dict[str, list[str]]:
        """Further files of all analyses that are part of the run, by title."""
        files = {}
        for analysis in self.chosen():
            files.update(analysis.files)
        return files


def _refuse_other_arguments(
    module: Path, parameters: Mapping[str, Setting], registered: Collection[str]
) -> None:
    """Raise a UserError unless the registered arguments are those that a figure's `draw` takes."""
    required = {name for name, parameter in parameters.items() if parameter.required}
    if not required <= set(registered) <= parameters.keys():
        raise UserError(
            f"{module}: draw has the arguments {', '.join(parameters)}, but the figure is "
            f"registered with {', '.join(registered)}; change one of them."
        )


def _figures_of(analyses: Collection[Analysis]) -> set[str]:
    """Names of the figures of analyses."""
    names = set()
    for analysis in analyses:
        names.update(analysis.figures)
    return names


def shades_of(colours: Sequence[str]) -> list[str]:
    """Colours #rrggbb, each darker than an equal one before."""
    shades = []
    for position, colour in enumerate(colours):
        equal_before = colours[:position].count(colour)
        brightness = 1 - equal_before / (1.6 * colours.count(colour))
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        channels = [round(channel * brightness) for channel in (red, green, blue)]
        shades.append("#" + bytes(channels).hex())
    return shades
