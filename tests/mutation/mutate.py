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
from collections.abc import Iterable, Iterator
from pathlib import Path

import rule_mutants

LIBRARY = Path("workflow/lib/rib")
STAGE = Path("work/mutation")
REPORT = Path("reports/mutation.md")
EQUIVALENT = Path(__file__).with_name("equivalent.csv")
GROUPS = {
    "metrics": [
        "analysis/counts",
        "analysis/bootstrap",
        "analysis/ri",
        "analysis/tables",
        "analysis/published",
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
# What people read is not pinned by tests: words of errors, logs and progress bars.
WORDS = [r"raise \w*Error\(", r"\blog\.\w+\(", r"\bProgress\(", r"print\("]
SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {modules}
also_copy = {copied}
do_not_mutate_patterns = {words}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-m", "not thorough and not slow"]
pytest_add_cli_args_test_selection = [
    "tests/unit",
    "--ignore=tests/unit/test_project.py",
    "--ignore=tests/unit/test_envs.py",
    "--ignore=tests/unit/test_fuzz.py",
]
"""


def changed_modules() -> list[str]:
    """Modules of the library that differ from the branch main."""
    command = ["git", "diff", "--name-only", "--diff-filter=d", "main", "--", f"{LIBRARY}/*.py"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [str(Path(path).relative_to(LIBRARY).with_suffix("")) for path in listed]


def files_of(modules: Iterable[str]) -> list[str]:
    """Files of modules, relative to the library; `methods/*` means all in a folder.

    Raises:
        SystemExit: there is no such module.
    """
    files = []
    for module in modules:
        found = sorted(str(path.relative_to(LIBRARY)) for path in LIBRARY.glob(f"{module}.py"))
        if not found:
            sys.exit(f"{LIBRARY}/{module}.py: no such module")
        files += found
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
    """
    for name in ("src", "mutants/tests"):
        shutil.rmtree(STAGE / name, ignore_errors=True)
    for path in filter(Path.is_file, (STAGE / "mutants/src").rglob("*")):
        if path.suffix not in (".py", ".meta"):  # mutmut copies a file only if there is none
            path.unlink()
    for path in project_files():
        if path.is_relative_to("workflow/lib"):
            places = ["src" / path.relative_to("workflow/lib")]
        elif path.is_relative_to("workflow"):
            places = [
                path,
                path.relative_to("workflow"),
            ]  # where the package finds schemas from `src`
        else:
            places = [path]
        for place in places:
            (STAGE / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, STAGE / place)
    # Whoever opens a file of the library finds the mutated one.
    (STAGE / "mutants/workflow").mkdir(parents=True, exist_ok=True)
    (STAGE / "mutants/workflow/lib").unlink(missing_ok=True)
    (STAGE / "mutants/workflow/lib").symlink_to("../src")
    copied = sorted(
        {entry.name for entry in STAGE.iterdir()} - {"src", "mutants", "pyproject.toml"}
    )
    settings = Path("pyproject.toml").read_text().replace(
        '"workflow/lib"', '"src"'
    ) + SETTINGS.format(
        modules=json.dumps([f"src/rib/{file}" for file in files]),
        copied=json.dumps(copied),
        words=json.dumps(WORDS),
    )
    (STAGE / "pyproject.toml").write_text(settings)


def forget_survivors() -> None:
    """Have mutants that lived tried again, and tests chosen anew: tests may have changed."""
    (STAGE / "mutants/mutmut-stats.json").unlink(missing_ok=True)
    for path in (STAGE / "mutants/src").rglob("*.py.meta"):
        facts = json.loads(path.read_text())
        codes = facts["exit_code_by_key"]
        facts["exit_code_by_key"] = {
            key: code if code in NOTICED else None for key, code in codes.items()
        }
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

    lines = get_diff_for_mutant(mutant, path=path).splitlines()[2:]
    return tuple(
        "\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )


def lived(files: Iterable[str]) -> Iterator[tuple[str, Counter, list[str]]]:
    """By file: how many mutants there are of each kind, and what unnoticed ones look like."""
    known = equivalents()
    os.chdir(STAGE)
    for file in files:
        meta = Path(f"mutants/src/rib/{file}.meta")
        codes = json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
        counts, shown = Counter(mutants=len(codes)), []
        for mutant, code in codes.items():
            if code is None:
                counts["not tried"] += 1
                continue
            if code in NOTICED:
                counts["noticed"] += 1
                continue
            before, after = difference(mutant, f"src/rib/{file}")
            if any(old.search(before) and new.search(after) for old, new in known):
                counts["equivalent"] += 1
                continue
            counts["no test"] += code in (5, 33)
            shown.append(f"{mutant}{' (no test)' * (code in (5, 33))}\n  - {before}\n  + {after}")
        yield file, counts, shown


def score(counts: Counter) -> float:
    """Percent of the mutants that were tried and change something which the tests notice."""
    return (
        100
        * counts["noticed"]
        / max(1, counts["mutants"] - counts["not tried"] - counts["equivalent"])
    )


def table(by_file: dict[str, Counter]) -> str:
    """The report: a row for each group.

    The score is of the mutants that were tried and aren't equivalent.
    """
    kinds = ["mutants", "not tried", "equivalent", "noticed"]
    rows = [
        f"| modules | {' | '.join(kinds)} | lived | noticed, % |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for group, modules in GROUPS.items():
        counts = sum((by_file[file] for file in files_of(modules)), Counter())
        numbers = [counts[kind] for kind in kinds]
        numbers.append(numbers[0] - sum(numbers[1:]))
        rows.append(f"| {group} | {' | '.join(map(str, numbers))} | {score(counts):.1f} |")
    return "\n".join(rows)


def main() -> None:
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
    chosen = parser.parse_args()
    if chosen.modules == ["rules"]:
        rule_mutants.try_all(chosen.sample, project_files())
        return
    if importlib.util.find_spec("mutmut") is None:
        sys.exit("mutmut is missing; call `make mutation`, which installs it.")
    scored = chosen.modules == ["scored"]
    modules = (
        [name for group in GROUPS.values() for name in group]
        if scored
        else chosen.modules or changed_modules()
    )
    if not modules:
        sys.exit(
            "no module differs from main; name some, for example: "
            'make mutation MODULES="analysis/ri methods/ewc"'
        )
    files, project = files_of(modules), Path.cwd()
    if not chosen.report:
        make_stage(files)
        forget_survivors()
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(chosen.processes)]
        if chosen.digit:
            command.append(f"*__mutmut_*{chosen.digit}")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # workers are forked
        subprocess.run(command, cwd=STAGE, env=environment, check=True)
    by_file = {}
    for file, by_file[file], shown in lived(files):
        print(*shown, sep="\n")
        print(f"{file}: {score(by_file[file]):.1f} % noticed, {dict(by_file[file])}")
    if scored:
        os.chdir(project)
        choice = f" DIGIT={chosen.digit}" if chosen.digit else ""
        head = (
            "# Mutation testing\n\n"
            f"Made by `make mutation MODULES=scored{choice}`, with the tests of `make test` alone; "
            "what is judged equivalent stands in tests/mutation/equivalent.csv."
        )
        REPORT.write_text(f"{head}\n\n{table(by_file)}\n", encoding="utf-8")
        print(f"written: {REPORT}")


if __name__ == "__main__":
    main()
