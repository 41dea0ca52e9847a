"""Mutation testing: small changes of the library are tried, and the unit tests should notice them.

    make mutation                      the modules that differ from the branch main
    make mutation MODULES="analysis/ri methods/ewc"
    make mutation MODULES=scored       those of the groups below; writes reports/mutation.md; with
                                       DIGIT=7 only the tenth of the mutants whose number in their
                                       function ends with 7
    make mutation MODULES=rules        inputs, settings and digests of the rules, by
                                       rule_mutants.py; of some hundreds of changes SAMPLE=20
                                       tries twenty, always the same

Tests are those of `make test` alone. mutmut makes the mutants and runs them. It wants the package
below `src`, so it works on a copy of the project in work/mutation, which is kept: a mutant that was
noticed is tried again only if its function has changed.
"""

import argparse
import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import rule_mutants

LIBRARY = Path("workflow/lib/rib")
STAGE = Path("work/mutation")
STARTUP = STAGE / "startup"  # in PYTHONPATH
# While mutmut notes which tests call which functions, processes that tests start in other folders
# would look for its settings there, and fail.
WITHOUT_STATISTICS = """
import os

if os.environ.get("MUTANT_UNDER_TEST") == "stats":
    del os.environ["MUTANT_UNDER_TEST"]
"""
# mutmut runs the tests several times in one process. DVC's loggers would write to the stream that
# pytest closed at the end of the first time, which DVC makes an error.
STREAMS_OF_DVC = """
import logging
import sys


def pytest_sessionstart():
    for name in ("dvc", "dvc_objects", "dvc_data"):
        for handler in logging.getLogger(name).handlers:
            handler.stream = sys.stdout
"""
REPORT = Path("reports/mutation.md")
EQUIVALENT = Path(__file__).with_name("equivalent.csv")
GROUPS = {
    "metrics": [
        "analysis/counts",
        "analysis/bootstrap",
        "analysis/ri",
        "analysis/tables",
        "analyses/published/tables",
    ],
    "methods": ["methods/*"],
    "training": ["training/*", "models/checkpoint"],
    "evaluation": [
        f"evaluation/{name}"
        for name in ("evaluate", "score", "features", "recipes", "select_weights")
    ],
    "records": ["records/*"],
}
NOTICED = {1, 3, 24, 36, 37, 152, 255, -24, -9, -11}  # exit codes: failed, ran out of time, crashed
WITHOUT_TEST = {5, 33}  # exit codes: no test runs the function
# What people read is not pinned by tests: words of errors, logs and progress bars.
WORDS = [r"raise \w*Error\(", r"\blog\.\w+\(", r"\bProgress\(", r"print\("]
SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {modules}
also_copy = {copied}
do_not_mutate_patterns = {words}
pytest_add_cli_args = [
    "-p", "no:cacheprovider",
    "-p", "streams_of_dvc",
    "-m", "not thorough and not slow",
]
pytest_add_cli_args_test_selection = [
    "tests/unit",
    "--ignore=tests/unit/test_project.py",
    "--ignore=tests/unit/test_envs.py",
    "--ignore=tests/unit/test_fuzz.py",
    "--ignore=tests/unit/test_wiring.py",
    "--ignore=tests/unit/test_code_digest.py",
]
"""


def changed_modules() -> list[str]:
    """Modules of the library that differ from the branch main."""
    command = ["git", "diff", "--name-only", "--diff-filter=d", "main", "--", f"{LIBRARY}/*.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [str(Path(path).relative_to(LIBRARY).with_suffix("")) for path in printed.split()]


def files_of(modules: Iterable[str]) -> list[str]:
    """Files of modules, relative to the library; `methods/*` means all in a folder.

    Raises:
        SystemExit: there is no such module.
    """
    files = []
    for module in modules:
        paths = sorted(LIBRARY.glob(f"{module}.py"))
        if not paths:
            sys.exit(f"{LIBRARY}/{module}.py: no such module")
        files += [str(path.relative_to(LIBRARY)) for path in paths]
    return list(dict.fromkeys(files))


def project_files() -> list[Path]:
    """Files of the project that git knows or would add."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True
    )
    paths = [Path(os.fsdecode(name)) for name in tracked.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def make_stage(files: Iterable[str]) -> None:
    """Copy the project to work/mutation, the library below `src`.

    Times of files are kept, so that mutants of the unchanged ones are, too.

    Args:
        files: those to mutate, relative to the library.
    """
    for name in ("src", "mutants/tests"):
        shutil.rmtree(STAGE / name, ignore_errors=True)
    for path in filter(Path.is_file, (STAGE / "mutants/src").rglob("*")):
        if path.suffix not in (".py", ".meta"):  # mutmut copies a file only if there is none
            path.unlink()
    for path in project_files():
        for path_in_stage in paths_in_stage(path):
            (STAGE / path_in_stage).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, STAGE / path_in_stage)
    # Whoever opens a file of the library finds the mutated one.
    (STAGE / "mutants/workflow").mkdir(parents=True, exist_ok=True)
    (STAGE / "mutants/workflow/lib").unlink(missing_ok=True)
    (STAGE / "mutants/workflow/lib").symlink_to("../src")
    names_in_stage = {entry.name for entry in STAGE.iterdir()}
    copied = sorted(names_in_stage - {"src", "mutants", "pyproject.toml"})
    settings_of_project = Path("pyproject.toml").read_text().replace('"workflow/lib"', '"src"')
    settings_of_mutmut = SETTINGS.format(
        modules=json.dumps([f"src/rib/{file}" for file in files]),
        copied=json.dumps(copied),
        words=json.dumps(WORDS),
    )
    (STAGE / "pyproject.toml").write_text(settings_of_project + settings_of_mutmut)


def paths_in_stage(path: Path) -> list[Path]:
    """Where a file of the project is copied to, relative to the stage."""
    if path.is_relative_to("workflow/lib"):
        return ["src" / path.relative_to("workflow/lib")]
    if path.is_relative_to("workflow"):
        # and where the package finds schemas from `src`
        return [path, path.relative_to("workflow")]
    return [path]


def forget_survivors() -> None:
    """Have mutants that lived tried again, and tests chosen anew: tests may have changed."""
    (STAGE / "mutants/mutmut-stats.json").unlink(missing_ok=True)
    for path in (STAGE / "mutants/src").rglob("*.py.meta"):
        facts = json.loads(path.read_text())
        code_of_mutant = facts["exit_code_by_key"]
        for mutant, code in code_of_mutant.items():
            if code not in NOTICED:
                code_of_mutant[mutant] = None
        path.write_text(json.dumps(facts))


def equivalents() -> list[tuple[re.Pattern, re.Pattern]]:
    """Changes that were judged to change nothing.

    They are patterns of the line before and of the line after.
    """
    with open(EQUIVALENT, newline="", encoding="utf-8") as file:
        return [
            (re.compile(row["before"]), re.compile(row["after"])) for row in csv.DictReader(file)
        ]


def difference(mutant: str, path: str) -> tuple[str, str]:
    """The lines that a mutant takes away, and those that it puts in their place.

    The working directory is the stage.
    """
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    lines = get_diff_for_mutant(mutant, path=path).splitlines()[2:]  # without the names of files
    taken_away = [line[1:].strip() for line in lines if line.startswith("-")]
    put_there = [line[1:].strip() for line in lines if line.startswith("+")]
    return "\n".join(taken_away), "\n".join(put_there)


def lived(files: Iterable[str]) -> Iterator[tuple[str, Counter, list[str]]]:
    """By file: how many mutants there are of each kind, and what unnoticed ones look like."""
    equivalent_changes = equivalents()
    os.chdir(STAGE)
    for file in files:
        code_of_mutant = exit_codes(file)
        counts = Counter(mutants=len(code_of_mutant))
        survivors = []
        for mutant, code in code_of_mutant.items():
            if code is None:
                counts["not tried"] += 1
                continue
            if code in NOTICED:
                counts["noticed"] += 1
                continue
            before, after = difference(mutant, f"src/rib/{file}")
            if is_equivalent(before, after, equivalent_changes):
                counts["equivalent"] += 1
                continue
            name = mutant
            if code in WITHOUT_TEST:
                counts["no test"] += 1
                name = f"{mutant} (no test)"
            survivors.append(f"{name}\n  - {before}\n  + {after}")
        yield file, counts, survivors


def exit_codes(file: str) -> dict[str, int | None]:
    """Exit code of the tests of each mutant of a file; None if they were not run.

    The working directory is the stage.
    """
    path = Path(f"mutants/src/rib/{file}.meta")
    if not path.exists():
        return {}
    return json.loads(path.read_text())["exit_code_by_key"]


def is_equivalent(
    before: str, after: str, equivalent_changes: Iterable[tuple[re.Pattern, re.Pattern]]
) -> bool:
    """Whether a change is one of those that were judged to change nothing."""
    return any(
        pattern_before.search(before) and pattern_after.search(after)
        for pattern_before, pattern_after in equivalent_changes
    )


def score(counts: Counter) -> float:
    """Percent of the mutants that were tried and change something which the tests notice."""
    tried = counts["mutants"] - counts["not tried"] - counts["equivalent"]
    return 100 * counts["noticed"] / max(1, tried)


def table(counts_of_file: dict[str, Counter]) -> str:
    """The report: a row for each group.

    The score is of the mutants that were tried and aren't equivalent.
    """
    kinds = ["mutants", "not tried", "equivalent", "noticed"]
    rows = [
        f"| modules | {' | '.join(kinds)} | lived | noticed, % |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for group, modules in GROUPS.items():
        counts = sum((counts_of_file[file] for file in files_of(modules)), Counter())
        survivors = counts["mutants"] - sum(counts[kind] for kind in kinds[1:])
        numbers = [*(counts[kind] for kind in kinds), survivors]
        rows.append(f"| {group} | {' | '.join(map(str, numbers))} | {score(counts):.1f} |")
    return "\n".join(rows)


def chosen_modules(names: Sequence[str]) -> list[str]:
    """The modules that the command line names: those of the groups, some, or the changed ones.

    Raises:
        SystemExit: none is named and none differs from main.
    """
    if names == ["scored"]:
        return [module for modules in GROUPS.values() for module in modules]
    modules = list(names) or changed_modules()
    if not modules:
        sys.exit(
            "no module differs from main; name some, for example: "
            'make mutation MODULES="analysis/ri methods/ewc"'
        )
    return modules


def run_mutmut(processes: int, digit: str | None) -> None:
    """Try the mutants in the stage, or those whose number in their function ends with a digit."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes)]
    if digit:
        command.append(f"*__mutmut_*{digit}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # workers are forked
    STARTUP.mkdir(exist_ok=True)
    (STARTUP / "sitecustomize.py").write_text(WITHOUT_STATISTICS)
    (STARTUP / "streams_of_dvc.py").write_text(STREAMS_OF_DVC)
    paths = [str(STARTUP.absolute()), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    subprocess.run(command, cwd=STAGE, env=environment, check=True)


def write_report(counts_of_file: dict[str, Counter], digit: str | None) -> None:
    """Write what came of the groups' mutants."""
    choice = f" DIGIT={digit}" if digit else ""
    head = (
        "# Mutation testing\n\n"
        f"Made by `make mutation MODULES=scored{choice}`, with the tests of `make test` alone; "
        "what is judged equivalent stands in tests/mutation/equivalent.csv."
    )
    REPORT.write_text(f"{head}\n\n{table(counts_of_file)}\n", encoding="utf-8")
    print(f"written: {REPORT}")


def main() -> None:
    """Try the mutants that the command line names, and tell which of them lived."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "modules", nargs="*", help="relative to the library, without .py; or 'scored', or 'rules'"
    )
    parser.add_argument(
        "--sample", type=int, help="try so many changes of the rules, always the same"
    )
    parser.add_argument(
        "--digit", choices=list("0123456789"), help="try only mutants whose number ends with it"
    )
    parser.add_argument(
        "--report", action="store_true", help="only tell what is known from a run that was stopped"
    )
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.modules == ["rules"]:
        rule_mutants.try_all(options.sample, project_files())
        return
    if importlib.util.find_spec("mutmut") is None:
        sys.exit("mutmut is missing; call `make mutation`, which installs it.")
    files = files_of(chosen_modules(options.modules))
    project = Path.cwd()
    if not options.report:
        make_stage(files)
        forget_survivors()
        run_mutmut(options.processes, options.digit)
    counts_of_file = {}
    for file, counts, survivors in lived(files):
        counts_of_file[file] = counts
        print(*survivors, sep="\n")
        print(f"{file}: {score(counts):.1f} % noticed, {dict(counts)}")
    if options.modules == ["scored"]:
        os.chdir(project)
        write_report(counts_of_file, options.digit)


if __name__ == "__main__":
    main()
