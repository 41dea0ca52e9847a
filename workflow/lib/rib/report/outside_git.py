"""Files of the catalogue that no commit contains, for the results page."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

# Files of a catalogue folder that are not data.
CATALOGUE_FILES = (".yaml", ".csv", ".py")


def outside_git(folders: Iterable[str | Path]) -> list[str]:
    """Sorted paths of catalogue files in these folders that git does not track.

    Results may depend on them, but no commit contains them, so the results page lists them.
    """
    untracked = []
    for folder in map(Path, folders):
        tracked = _tracked_files(folder)
        for path in folder.rglob("*"):
            is_catalogue_file = path.suffix in CATALOGUE_FILES and path.is_file()
            if is_catalogue_file and path not in tracked:
                untracked.append(str(path))
    return sorted(untracked)


def _tracked_files(folder: Path) -> set[Path]:
    """Files in a folder that git tracks, as clones lack all others; empty without a repository."""
    command = ["git", "--no-optional-locks", "-C", str(folder), "ls-files", "-z"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    names = process.stdout.split("\0")
    return {folder / name for name in names if name}
