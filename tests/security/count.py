"""Run every attack on the project, and write what came of it (make security).

    python tests/security/count.py [tests/torture ...]

The report is reports/security.md. The folders or files of a part can be named; the report has all
parts that were run with the same code of the workflow. Attacks are the tests with the marker
`attack`. A fuzz test states how many inputs it tried, a test that kills runs how often
(`record_property`). FUZZ_EXAMPLES and RIB_KILLS change these numbers, see tests/tiny/fuzz.py and
tests/torture.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest

from rib.base.files import write_text
from rib.base.progress import duration

REPORT, PARTS = Path("reports/security.md"), Path("work/security")
HEAD = """# Attacks

Made by `make security`. Each attack is a test with the marker `attack`; \
[the threat model](../docs/threat-model.md) says
what the topics mean and what is not defended.

"""


class Results:
    """Plugin of pytest that keeps topic, outcome and properties of each attack.

    Attributes:
        topics: topic by test.
        outcomes: `passed`, `failed` or `skipped` by test.
        tried: number of inputs or kills by test.
    """

    def __init__(self):
        self.topics: dict[str, str] = {}
        self.outcomes: dict[str, str] = {}
        self.tried: dict[str, dict[str, int]] = defaultdict(dict)
        self.seconds = 0.0
        self.code = subprocess.check_output(
            ["git", "rev-parse", "HEAD:workflow"], text=True
        ).strip()

    def save(self, part: str) -> None:
        """Keep these results, and add those of other parts with the same code."""
        PARTS.mkdir(parents=True, exist_ok=True)
        own = PARTS / f"{re.sub('[^a-z_]+', '-', part)}.json"
        write_text(own, json.dumps(vars(self)))
        others = [json.loads(path.read_text()) for path in PARTS.glob("*.json") if path != own]
        for other in (other for other in others if other["code"] == self.code):
            self.topics, self.outcomes = (
                other["topics"] | self.topics,
                other["outcomes"] | self.outcomes,
            )
            self.tried |= {
                test: given for test, given in other["tried"].items() if test not in self.tried
            }
            self.seconds += other["seconds"]

    def pytest_collection_finish(self, session) -> None:
        self.topics = {
            item.nodeid: item.get_closest_marker("attack").args[0] for item in session.items
        }

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        self.tried[report.nodeid] |= dict(report.user_properties)

    def page(self) -> str:
        """The report, as Markdown."""
        tests = defaultdict(list)
        for test, topic in self.topics.items():
            tests[topic].append(test)
        lines = ["| topic | attacks | repelled | failed | skipped |", "|---|---|---|---|---|"]
        for topic, names in [*sorted(tests.items()), ("all", sorted(self.topics))]:
            found = [self.outcomes.get(name) for name in names]
            numbers = [
                len(names),
                *(found.count(outcome) for outcome in ("passed", "failed", "skipped")),
            ]
            lines.append(f"| {topic} | {' | '.join(map(str, numbers))} |")
        tried = {test: given for test, given in self.tried.items() if given}
        if tried:
            lines += ["", "| test of random inputs or kills | number |", "|---|---|"]
            for test, given in sorted(tried.items()):
                said = ", ".join(f"{number:,} {what}" for what, number in given.items())
                lines.append(f"| {_readable(test)} | {said} |")
        machine = (
            f"Python {platform.python_version()}, "
            f"DVC {version('dvc')}, Snakemake {version('snakemake')}"
        )
        lines += ["", f"{duration(self.seconds)} on {machine}.", ""]
        for topic, names in sorted(tests.items()):
            lines += [f"## {topic}", "", *(f"- {_readable(name)}" for name in sorted(names)), ""]
        return HEAD + "\n".join(lines)


def _readable(test: str) -> str:
    """Name of a test as plain text."""
    name = test.split("::test_")[-1].replace("_", " ")
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", name.encode("ascii", "backslashreplace").decode())


def main() -> int:
    """Run the attacks named on the command line, or all; pytest's exit code."""
    os.environ["RIB_SECURITY"] = "1"  # some fuzz tests try more inputs
    results, started = Results(), time.monotonic()
    chosen = sys.argv[1:] or ["tests/unit", "tests/workflow", "tests/integration", "tests/torture"]
    status = pytest.main(
        ["-m", "attack", "-q", "--durations=0", "--durations-min=60", *chosen], plugins=[results]
    )
    results.seconds = time.monotonic() - started
    results.save(" ".join(chosen))
    write_text(REPORT, results.page())
    print(f"wrote {REPORT}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
