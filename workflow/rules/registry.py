"""Registration of figures and analyses, checked when the workflow is read rather than when a job fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.errors import UserError
from rib.config.settings import signature_of
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
    files: Mapping[str, list[str]] = field(
        default_factory=dict
    )  # further files that the page links to, by title
    optional: bool = False  # whether it is part of a run only if config's `analyses` lists it; its rules always exist


class Registry:
    """Figures and analyses of a run, in the order of the page.

    Args:
        workflow: the folder that contains lib/ and report/.
        analyses: `analyses` of config: `all`, or names of optional ones.
    """

    def __init__(self, workflow: Path, analyses: str | Sequence[str]):
        self.workflow, self.wanted = workflow, analyses
        self.figures: dict[str, RegisteredFigure] = {}
        self.analyses: dict[str, Analysis] = {}

    def figure(
        self,
        name: str,
        *,
        question: str,
        inputs: Mapping,
        settings: Mapping,
        captions: str = "",
    ) -> None:
        """Register a figure, drawn by rib/figures/<name>.py, with the caption report/captions/<name>.rst.

        `captions` is a folder in report/captions with another caption, for a run whose figure shows more.

        Raises a UserError if one of the files is missing, the question is unknown, or `draw` has other arguments.
        """
        if question not in QUESTIONS:
            raise UserError(
                f"the figure '{name}' has the question '{question}'; known are {', '.join(QUESTIONS)}."
            )
        module = self.workflow / f"lib/rib/figures/{name}.py"
        caption = self.workflow / "report/captions" / captions / f"{name}.rst"
        for path in (module, caption):
            if not path.is_file():
                raise UserError(
                    f"the figure '{name}' is registered, but {path} does not exist; add it."
                )
        for given, known in zip((inputs, settings), signature_of(module, "draw"), strict=True):
            required = {key for key, argument in known.items() if argument.required}
            if not required <= given.keys() <= known.keys():
                raise UserError(
                    f"{module}: draw has the arguments {', '.join(known)}, but the figure is registered with "
                    f"{', '.join(given)}; change one of them."
                )
        self.figures[name] = RegisteredFigure(module, inputs, settings, caption, question)

    def analysis(self, name: str, **parts) -> None:
        """Register an analysis, whose parts are the attributes of `Analysis`, after its figures."""
        self.analyses[name] = Analysis(**parts)
        if unknown := set(self.analyses[name].figures) - self.figures.keys():
            raise UserError(
                f"the analysis '{name}' lists the figure '{min(unknown)}', which is not registered."
            )

    def chosen(self) -> list[Analysis]:
        """Analyses that are part of the run; a UserError if config lists an unknown one."""
        optional = [name for name, entry in self.analyses.items() if entry.optional]
        wanted = optional if self.wanted == "all" else self.wanted
        for name in wanted:
            if name not in optional:
                raise UserError(
                    f"config, analyses: unknown '{name}'; known are {', '.join(optional) or 'none'}."
                )
        return [
            entry for name, entry in self.analyses.items() if name in wanted or not entry.optional
        ]

    def chosen_figures(self) -> list[str]:
        """Names of the figures of the run: those without an analysis, and those of its analyses."""
        shown = {name for entry in self.chosen() for name in entry.figures}
        of_analyses = {name for entry in self.analyses.values() for name in entry.figures}
        return [name for name in self.figures if name in shown or name not in of_analyses]

    def chosen_parts(self, part: str) -> dict[str, str] | dict[str, list[str]]:
        """The `tables` by name, or the `files` by title, of all analyses that are part of the run."""
        return {
            name: made for entry in self.chosen() for name, made in getattr(entry, part).items()
        }


def shades_of(colours: Sequence[str]) -> list[str]:
    """Colours #rrggbb, each darker than an equal one before."""
    darker = [
        1 - colours[:place].count(own) / (1.6 * colours.count(own))
        for place, own in enumerate(colours)
    ]
    parts = [[int(own[at : at + 2], 16) for at in (1, 3, 5)] for own in colours]
    return [
        "#" + "".join(f"{round(part * by):02x}" for part in own)
        for own, by in zip(parts, darker, strict=True)
    ]
