"""Figures and analyses of a run, checked when the workflow is read rather than when a job fails.

What belongs to an analysis is in its folder `lib/rib/analyses/<name>/`: functions that make its
tables, a module and a caption for each figure, and `tables.yaml`, which says how the page shows its
tables.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.errors import UserError
from rib.config.schema import read_yaml
from rib.config.settings import Setting, signature_of
from rib.report.questions import QUESTIONS


@dataclass(frozen=True)
class RegisteredFigure:
    """A figure and the arguments of its `draw` function."""

    module: Path
    inputs: Mapping[str, str | list[str]]  # path or list of paths for each positional argument
    settings: Mapping[str, object]  # keyword arguments
    caption: Path  # reStructuredText file
    question: str  # that it helps to answer, a key of QUESTIONS

    @property
    def dotted_name(self) -> str:
        """Name by which the module is imported."""
        return f"rib.analyses.{self.module.parent.name}.{self.module.stem}"

    @property
    def paths(self) -> list[str]:
        """All files that it is drawn from."""
        paths: list[str] = []
        for path_or_paths in self.inputs.values():
            paths.extend([path_or_paths] if isinstance(path_or_paths, str) else path_or_paths)
        return paths

    @property
    def reads_images(self) -> bool:
        """Whether it reads more than tables: rows and images."""
        return not all(path.endswith(".csv") for path in self.paths)


@dataclass(frozen=True)
class Analysis:
    """Tables, figures and files that an analysis adds to a run."""

    tables: Mapping[str, str]  # shown on the page, by name
    figures: Sequence[str] = ()
    # Further files that the page links to, by title.
    files: Mapping[str, list[str]] = field(default_factory=dict)
    # An optional one is part of a run only if config's `analyses` lists it; its rules always exist.
    optional: bool = False
    # YAML file that says how the page shows the tables, if there are some.
    descriptions: Path | None = None


class Registry:
    """Figures and analyses of a run, in the order of the page.

    Args:
        workflow: the folder that contains lib/.
        analyses: `analyses` of config: `all`, or names of optional ones.
    """

    def __init__(self, workflow: Path, analyses: str | Sequence[str]):
        self.figures: dict[str, RegisteredFigure] = {}
        self.analyses: dict[str, Analysis] = {}
        self._folder = workflow / "lib/rib/analyses"
        self._analyses_in_config = analyses

    def figure(
        self,
        name: str,
        *,
        analysis: str,
        question: str,
        inputs: Mapping[str, str | list[str]],
        settings: Mapping[str, object],
        caption: str = "",
    ) -> None:
        """Register a figure of an analysis, which its module <name>.py draws.

        Args:
            name: of the figure.
            analysis: folder of the analysis to which the figure belongs.
            question: that it helps to answer, a key of QUESTIONS.
            inputs: positional arguments of `draw`.
            settings: keyword arguments of `draw`.
            caption: name of its caption, <caption>.rst in the same folder; that of the figure if
                left out.

        Raises a UserError if one of the files is missing, the question is unknown, or `draw` has
        other arguments.
        """
        if question not in QUESTIONS:
            raise UserError(
                f"the figure '{name}' has the question '{question}'; "
                f"known are {', '.join(QUESTIONS)}."
            )
        module = self._folder / analysis / f"{name}.py"
        caption_file = self._folder / analysis / f"{caption or name}.rst"
        for path in (module, caption_file):
            if not path.is_file():
                raise UserError(
                    f"the figure '{name}' is registered, but {path} does not exist; add it."
                )
        positional, keywords = signature_of(module, "draw")
        _refuse_other_arguments(module, positional, inputs)
        _refuse_other_arguments(module, keywords, settings)
        self.figures[name] = RegisteredFigure(module, inputs, settings, caption_file, question)

    def analysis(
        self,
        name: str,
        *,
        tables: Mapping[str, str],
        figures: Sequence[str] = (),
        files: Mapping[str, list[str]] | None = None,
        optional: bool = False,
        folder: str = "",
    ) -> None:
        """Register an analysis, after its figures; see the attributes of `Analysis`.

        Args:
            name: of the analysis.
            tables: path of each table that the page shows, by name.
            figures: names of its figures.
            files: further files that the page links to, by title.
            optional: whether it is part of a run only if config's `analyses` lists it.
            folder: that of the analysis; its name if left out.

        Raises a UserError if one of its figures is not registered, or a table not described.
        """
        unregistered = set(figures) - self.figures.keys()
        if unregistered:
            raise UserError(
                f"the analysis '{name}' lists the figure '{min(unregistered)}', which is not "
                "registered."
            )
        descriptions = None
        if tables:
            descriptions = self._folder / (folder or name) / "tables.yaml"
            _refuse_without_description(name, tables, descriptions)
        self.analyses[name] = Analysis(tables, figures, files or {}, optional, descriptions)

    def chosen(self) -> list[Analysis]:
        """Analyses that are part of the run.

        They are those that are not optional, and the optional ones that config lists.

        Raises:
            UserError: config lists one that doesn't exist, or isn't optional.
        """
        if self._analyses_in_config == "all":
            return list(self.analyses.values())
        optional = [name for name, analysis in self.analyses.items() if analysis.optional]
        for name in self._analyses_in_config:
            if name not in optional:
                known_names = ", ".join(optional) or "none"
                raise UserError(f"config, analyses: unknown '{name}'; known are {known_names}.")
        return [
            analysis
            for name, analysis in self.analyses.items()
            if not analysis.optional or name in self._analyses_in_config
        ]

    def chosen_figures(self) -> list[str]:
        """Names of the figures of the run: those without an analysis, and those of its analyses."""
        figures_of_chosen = _figures_of(self.chosen())
        figures_of_analyses = _figures_of(self.analyses.values())
        names = []
        for name in self.figures:
            has_no_analysis = name not in figures_of_analyses
            if has_no_analysis or name in figures_of_chosen:
                names.append(name)
        return names

    def figures_of_rules(self) -> dict[str, list[str]]:
        """Names of the figures that each rule draws.

        Those of tables are drawn by one rule. Those of an optional analysis have another, since not
        every run has them, and so has one of images, since who pulls tables alone can draw the
        others: {"plot_figures": ["radar", "cost"], "plot_examples": ["examples"],
        "plot_stir": ["stir"]}.
        """
        own_rules = {
            name: f"plot_{name}" for name, figure in self.figures.items() if figure.reads_images
        }
        for name, analysis in self.analyses.items():
            if analysis.optional:
                own_rules.update(dict.fromkeys(analysis.figures, f"plot_{name}"))
        figures_of_rules: dict[str, list[str]] = {}
        for figure in self.figures:
            rule = own_rules.get(figure, "plot_figures")
            figures_of_rules.setdefault(rule, []).append(figure)
        return figures_of_rules

    def chosen_tables(self) -> dict[str, str]:
        """Tables of all analyses that are part of the run, by name."""
        tables = {}
        for analysis in self.chosen():
            tables.update(analysis.tables)
        return tables

    def chosen_descriptions(self) -> list[Path]:
        """Files that say how the page shows the tables of the run, each once."""
        files = [analysis.descriptions for analysis in self.chosen() if analysis.descriptions]
        return list(dict.fromkeys(files))

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


def _refuse_without_description(name: str, tables: Collection[str], descriptions: Path) -> None:
    """Raise a UserError unless a file says how the page shows the tables of an analysis."""
    if not descriptions.is_file():
        raise UserError(
            f"the analysis '{name}' has tables, but {descriptions} does not exist; add it, with "
            "title, question, note and columns of each table."
        )
    described = read_yaml(descriptions)
    for table in tables:
        missing = {"title", "question", "note", "columns"} - described.get(table, {}).keys()
        if missing:
            raise UserError(
                f"{descriptions}: the table '{table}' has no {min(missing)}; add it to say how the "
                "page shows the table."
            )
        question = described[table]["question"]
        if question not in QUESTIONS:
            raise UserError(
                f"{descriptions}: the table '{table}' has the question '{question}'; "
                f"known are {', '.join(QUESTIONS)}."
            )


def _figures_of(analyses: Collection[Analysis]) -> set[str]:
    """Names of the figures of analyses."""
    names = set()
    for analysis in analyses:
        names.update(analysis.figures)
    return names


def shades_of(colours: Sequence[str]) -> list[str]:
    """Colours #rrggbb, each darker than an equal one before.

    Of #ff0000, #0000ff and #ff0000 the first two stay as they are, and the third is a darker red.
    """
    shades = []
    for position, colour in enumerate(colours):
        equal_before = colours[:position].count(colour)
        brightness = 1 - equal_before / (1.6 * colours.count(colour))
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        channels = [round(channel * brightness) for channel in (red, green, blue)]
        shades.append("#" + bytes(channels).hex())
    return shades
