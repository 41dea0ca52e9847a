"""Compare what two project folders made, byte by byte: python tests/same_bytes.py BEFORE AFTER

A rewriting of code moves no number. To see that, run the same grid in a copy of the project before
the change and in one after it, on the same machine, and compare the two folders. Every file below
results/ and reports/ must be in both with the same bytes, except those that MAY_DIFFER lists with
the reason.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDERS = ("results", "reports")
# Patterns of file names, and why such files differ between two runs of the same code.
MAY_DIFFER = {
    "*provenance.json": "times, versions, settings and code digests",
    "*.html": "times and versions",
    "ro-crate-metadata.json": "times and versions",
    "cost.*": "processor time of this run",
    "cost_*": "processor time of this run",
}


def files_of(project: Path) -> set[Path]:
    """Paths of all files that a project made, relative to it."""
    files = set()
    for folder in FOLDERS:
        for path in (project / folder).rglob("*"):
            if path.is_file():
                files.add(path.relative_to(project))
    return files


def may_differ(path: Path) -> bool:
    """Whether the bytes of such a file differ between two runs of the same code."""
    return any(path.match(pattern) for pattern in MAY_DIFFER)


def differences(before: Path, after: Path) -> list[str]:
    """One line for each file that is in one project only or has other bytes, sorted by path."""
    files_before = files_of(before)
    files_after = files_of(after)
    lines = []
    for path in sorted(files_before | files_after):
        if path not in files_after:
            lines.append(f"only before: {path}")
        elif path not in files_before:
            lines.append(f"only after: {path}")
        elif not may_differ(path) and (before / path).read_bytes() != (after / path).read_bytes():
            lines.append(f"differs: {path}")
    return lines


def print_comparison(lines: Iterable[str], number_of_files: int) -> None:
    """Print the differences, and how many files were compared."""
    for line in lines:
        print(line)
    print(f"{number_of_files} files compared")


def main() -> int:
    """0 if nothing differs, 1 if something does, 2 if there is nothing to compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("before", type=Path, help="project folder that was run before a change")
    parser.add_argument("after", type=Path, help="project folder that was run after it")
    folders = parser.parse_args()
    compared = {path for path in files_of(folders.before) if not may_differ(path)}
    if not compared:
        print(f"{folders.before}: nothing was made there; run the workflow in it first.")
        return 2
    lines = differences(folders.before, folders.after)
    print_comparison(lines, len(compared))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
