"""The report of `make gpu`: what was checked, what fell short, what could not be checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PASSED = "passed"
FELL_SHORT = "fell short"
NOT_CHECKED = "not checked on this device"
# Checks of each method.
COLUMNS_OF_METHODS = (
    "no step waits or raises",
    "the same bytes twice",
    "the same bytes after resuming",
    "setup waits fewer times than there are images",
)


@dataclass(frozen=True)
class Check:
    """A row of the report.

    Attributes:
        subject: what is checked, such as `training, over the bare loop`.
        verdict: PASSED, FELL_SHORT or NOT_CHECKED.
        mark: what is asked for, such as `at least 0.95`.
        measured: such as `0.97 (1100 of 1134 images/s)`, or what went wrong.
    """

    subject: str
    verdict: str
    mark: str = ""
    measured: str = ""

    @classmethod
    def on_gpu(
        cls, subject: str, passed: bool | None, mark: str = "", measured: str = ""
    ) -> "Check":
        """A check that only a GPU can pass.

        Args:
            passed: None if it could not be checked.
        """
        verdict = NOT_CHECKED
        if passed is not None:
            verdict = PASSED if passed else FELL_SHORT
        return cls(subject, verdict, mark, measured)


def last_line(checks: Sequence[Check]) -> str:
    """What fell short, in one line, and how many checks could not be made."""
    short = [check for check in checks if check.verdict == FELL_SHORT]
    not_checked = [check for check in checks if check.verdict == NOT_CHECKED]
    line = "Nothing fell short"
    if short:
        details = [f"{check.subject} ({check.measured})" for check in short]
        line = f"Fell short: {'; '.join(details)}"
    if not_checked:
        line += f"; {len(not_checked)} of {len(checks)} checks were {NOT_CHECKED}"
    return f"{line}."


def page(
    is_gpu: bool,
    facts: str,
    methods: Mapping[str, Sequence[Check]],
    measurements: Sequence[Check],
) -> str:
    """The report in Markdown; its last line is `last_line` of all checks.

    Args:
        facts: device, versions and date, as a sentence.
        methods: four checks of each by name: whether steps wait, whether the bytes are the same
            twice and after resuming, and how often its setup waits.
    """
    title = "Report of a GPU"
    if not is_gpu:
        title = "Not a report of a GPU: `make gpu DEVICE=cpu` has tried the command itself"
    rows_of_methods = [
        _row(name, *(_verdict(check) for check in checks)) for name, checks in methods.items()
    ]
    rows_of_measurements = [
        _row(check.subject, check.verdict, check.mark, check.measured) for check in measurements
    ]
    all_checks = [*all_of(methods), *measurements]
    lines = [
        f"# {title}",
        "",
        facts,
        "",
        "## Steps of methods",
        "",
        _row("", *COLUMNS_OF_METHODS),
        f"|---{len(COLUMNS_OF_METHODS) * '|---'}|",
        *rows_of_methods,
        "",
        "## Speed, memory and logits",
        "",
        _row("", "", "mark", "measured"),
        "|---|---|---|---|",
        *rows_of_measurements,
        "",
        last_line(all_checks),
    ]
    return "".join(f"{line}\n" for line in lines)


def all_of(methods: Mapping[str, Sequence[Check]]) -> list[Check]:
    """The checks of all methods."""
    return [check for checks in methods.values() for check in checks]


def _verdict(check: Check) -> str:
    """A verdict, with what was measured or went wrong if there is something to say."""
    return f"{check.verdict}: {check.measured}" if check.measured else check.verdict


def _row(*cells: str) -> str:
    """A row of a Markdown table, whole whatever the cells contain."""
    escaped = [" ".join(cell.replace("|", "\\|").split()) for cell in cells]
    return f"| {' | '.join(escaped)} |"
