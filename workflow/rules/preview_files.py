"""Which files a preview can have: of an unfinished grid, some inputs of reports are missing."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from registry import Analysis, Registry
from snakemake_internals.rules import inputs_of_job, log_of_job, rule_that_makes

from rib.config.figure_settings import folder_of_kept
from rib.jobs.job import reason as reason_in_log
from rib.report.settings import PreviewSettings

TOO_SLOW = "it takes too long for a preview"
TOO_FEW = "too few of its runs are finished"
KILLED = "it was killed, perhaps for lack of memory"


class PreviewFiles:
    """Files of a preview, and why others are left out.

    Args:
        workflow: Snakemake's.
        folder: that of the preview, in which its rules make files.
        logs: folder of the logs of its jobs.
        settings: what the preview is of.

    Attributes:
        left_out: reasons, by the name of a figure, or of the rule that makes other files.
    """

    def __init__(self, workflow, folder: str, logs: str, settings: PreviewSettings):
        self.left_out: dict[str, str] = {}
        self._folder = Path(folder)
        self._logs = Path(logs)
        self._settings = settings
        self._rules = rules_of_folder(workflow, folder)
        self._reasons: dict[str, str | None] = {}  # that `reason_without` gave, by path

    def reason_without(self, path: str) -> str | None:
        """Why a preview is without a file; None if the file exists or can be made."""
        if path not in self._reasons:
            self._reasons[path] = self._find_reason(path)
        return self._reasons[path]

    def _find_reason(self, path: str) -> str | None:
        """Why a preview is without a file, found by its rule and the inputs of its job.

        None if the file exists or can be made.
        """
        if Path(path).exists():
            return None
        if self.name_of(path) in self._settings.too_slow:
            return TOO_SLOW
        rule = rule_that_makes(self._rules, path)
        if rule is None:
            return f"{path} is not made"
        for file in inputs_of_job(rule, path):
            if self.reason_without(file) is not None:
                return f"{file} is not made"
        if self._settings.all_were_tried:
            return reason_in_log(Path(log_of_job(rule, path))) or KILLED
        return None

    def name_of(self, path: str) -> str:
        """Name under which a file of the preview is left out.

        It is the name of the rule that makes the file; of a file that no rule makes, it is its name
        without ending.
        """
        rule = rule_that_makes(self._rules, path)
        if rule is None:
            return Path(path).stem
        return rule.name

    def can_have(self, path: str) -> bool:
        """Whether a preview can have a file; if not, the reason is noted in `left_out`."""
        reason = self.reason_without(path)
        if reason is None:
            return True
        self.left_out[self.name_of(path)] = reason
        return False

    def keep_possible_files(self, registry: Registry) -> None:
        """Remove the tables, figures and further files that a preview can't have from a registry.

        The registry lists what the page of the preview shows. Why something is not on the page is
        noted in `left_out`, by `can_have` and `_note_unregistered`.
        """
        self._note_unregistered(registry)
        impossible_figures = []
        chosen_figures = registry.chosen_figures()
        for rule, figures in registry.figures_of_rules().items():
            for name in figures:
                reason = self._reason_without_figure(name, registry.figures[name].paths, rule)
                if name in chosen_figures and reason is not None:
                    self.left_out[name] = reason
                    impossible_figures.append(name)
        chosen_analyses = registry.chosen()
        for name, analysis in registry.analyses.items():
            if analysis in chosen_analyses:
                registry.analyses[name] = self._possible_part(analysis, impossible_figures)
        for name in impossible_figures:
            del registry.figures[name]

    def _reason_without_figure(self, name: str, paths: Sequence[str], rule: str) -> str | None:
        """Why a preview is without a figure that a rule draws; None if it can be drawn.

        Others are drawn in the same job, so its own input files count, not those of its rule.
        """
        if name in self._settings.too_slow:
            return TOO_SLOW
        for path in paths:
            if self.reason_without(path) is not None:
                return f"{path} is not made"
        log_file = self._logs / f"{rule}.log"
        if not self._settings.all_were_tried or not log_file.exists():
            return None
        for folder in (self._folder / "figures", folder_of_kept(log_file)):
            if (folder / f"{name}.png").exists():
                return None
        return reason_in_log(log_file) or KILLED

    def _note_unregistered(self, registry: Registry) -> None:
        """Note in `left_out` which analyses and figures of a full run a registry lacks.

        A preview registers only what its finished runs suffice for. Models, for example, are not
        compared until runs of two of them are finished.
        """
        for name in self._settings.expected:
            if name not in registry.figures and name not in registry.analyses:
                self.left_out[name] = TOO_FEW

    def _possible_part(self, analysis: Analysis, impossible_figures: Collection[str]) -> Analysis:
        """An analysis without the tables, figures and further files that a preview can't have.

        `can_have` notes in `left_out` why it can't.
        """
        files = {}
        for title, paths in analysis.files.items():
            possible_paths = [path for path in paths if self.can_have(path)]
            if possible_paths:
                files[title] = possible_paths
        return replace(
            analysis,
            tables={name: path for name, path in analysis.tables.items() if self.can_have(path)},
            figures=[name for name in analysis.figures if name not in impossible_figures],
            files=files,
        )


def rules_of_folder(workflow, folder: str) -> list:
    """The rules that make files in a folder."""
    rules = []
    for rule in workflow.rules:
        outputs = map(str, rule.output)
        if any(output.startswith(f"{folder}/") for output in outputs):
            rules.append(rule)
    return rules
