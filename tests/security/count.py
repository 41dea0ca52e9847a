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
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest

from rib.base.files import write_text
from rib.base.progress import duration

REPORT = Path("reports/security.md")
PARTS = Path("work/security")
OUTCOMES = ("passed", "failed", "skipped")
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
        seconds: that the tests took.
        code: git's hash of the folder workflow.
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
        saved = PARTS / f"{re.sub('[^a-z_]+', '-', part)}.json"
        write_text(saved, json.dumps(vars(self)))
        for path in PARTS.glob("*.json"):
            results_of_part = json.loads(path.read_text())
            if path != saved and results_of_part["code"] == self.code:
                self.add(results_of_part)

    def add(self, results: dict) -> None:
        """Add results that were saved, of tests that are not among these."""
        self.topics = results["topics"] | self.topics
        self.outcomes = results["outcomes"] | self.outcomes
        for test, numbers in results["tried"].items():
            if test not in self.tried:
                self.tried[test] = numbers
        self.seconds += results["seconds"]

    def pytest_collection_finish(self, session) -> None:
        """Keep the topics of all attacks that will be run."""
        for item in session.items:
            (topic,) = item.get_closest_marker("attack").args
            self.topics[item.nodeid] = topic

    def pytest_runtest_logreport(self, report) -> None:
        """Keep the outcome of an attack; a report is also of what is set up for it."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        self.tried[report.nodeid] |= dict(report.user_properties)

    def page(self) -> str:
        """The report, as Markdown."""
        tests_of_topic = defaultdict(list)
        for test, topic in sorted(self.topics.items()):
            tests_of_topic[topic].append(test)
        topics = sorted(tests_of_topic)
        lines = ["| topic | attacks | repelled | failed | skipped |", "|---|---|---|---|---|"]
        lines += [self._line_of_topic(topic, tests_of_topic[topic]) for topic in topics]
        lines.append(self._line_of_topic("all", list(self.topics)))
        lines += self._lines_of_numbers()
        machine = (
            f"Python {platform.python_version()}, "
            f"DVC {version('dvc')}, Snakemake {version('snakemake')}"
        )
        lines += ["", f"{duration(self.seconds)} on {machine}.", ""]
        for topic in topics:
            names = [f"- {_readable(test)}" for test in tests_of_topic[topic]]
            lines += [f"## {topic}", "", *names, ""]
        return HEAD + "\n".join(lines)

    def _line_of_topic(self, topic: str, tests: list[str]) -> str:
        """A row of the table of topics: the number of attacks, and of those with each outcome."""
        counts = Counter(self.outcomes.get(test) for test in tests)
        numbers = [len(tests), *(counts[outcome] for outcome in OUTCOMES)]
        return f"| {topic} | {' | '.join(map(str, numbers))} |"

    def _lines_of_numbers(self) -> list[str]:
        """The table of tests that state how many inputs or kills they tried, if there are any."""
        lines = []
        for test, numbers in sorted(self.tried.items()):
            if numbers:
                phrases = [f"{number:,} {name}" for name, number in numbers.items()]
                lines.append(f"| {_readable(test)} | {', '.join(phrases)} |")
        if lines:
            lines = ["", "| test of random inputs or kills | number |", "|---|---|", *lines]
        return lines


def _readable(test: str) -> str:
    """Name of a test as plain text, in which Markdown has nothing to read."""
    name = test.split("::test_")[-1].replace("_", " ")
    in_ascii = name.encode("ascii", "backslashreplace").decode()
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", in_ascii)


def main() -> int:
    """Run the attacks named on the command line, or all; pytest's exit code."""
    os.environ["RIB_SECURITY"] = "1"  # some fuzz tests try more inputs
    paths = ["tests/unit", "tests/workflow", "tests/integration", "tests/torture"]
    if len(sys.argv) > 1:
        paths = sys.argv[1:]
    results = Results()
    started = time.monotonic()
    status = pytest.main(
        ["-m", "attack", "-q", "--durations=0", "--durations-min=60", *paths], plugins=[results]
    )
    results.seconds = time.monotonic() - started
    results.save(" ".join(paths))
    write_text(REPORT, results.page())
    print(f"wrote {REPORT}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
