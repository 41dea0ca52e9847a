"""Compare the results of two commits: make same-results BEFORE=<commit>

The other commit is the working tree's, with its uncommitted changes to files that git knows. Both
run the grids of export.py in folders of their own, with an environment of their own if they need
other packages. What a commit gave is kept in build/same_results/<commit>/results and is not made
again; all of build/ may be deleted.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rib.base.errors import UserError
from same_results import compare

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build/same_results"
DROPPED = "tests/dropped.txt"
REQUIREMENTS = ("requirements-torch.txt", "requirements.txt", "requirements-npm.txt")


def git(*words: str) -> str:
    """What git prints.

    Raises:
        subprocess.CalledProcessError: git fails.
    """
    completed = subprocess.run(
        ["git", *words], cwd=ROOT, check=True, text=True, capture_output=True
    )
    return completed.stdout.strip()


def commit_of(name: str) -> str:
    """Hash of a commit, by any name that git has for it."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise UserError(f"BEFORE={name}: git knows no such commit; see git log.") from error


def commit_of_working_tree() -> str:
    """Hash of the last commit, or of one that git makes of it and uncommitted changes."""
    return git("stash", "create") or commit_of("HEAD")


def results_of(commit: str) -> Path:
    """Folder of a commit's results in neutral form, which are made if they aren't there."""
    results = KEPT / commit / "results"
    if results.is_dir():
        print(f"{commit[:8]}: results are in {results.relative_to(ROOT)}", flush=True)
        return results
    project = KEPT / commit / "project"
    if not project.is_dir():
        check_out(commit, project)
    log = KEPT / commit / "log.txt"
    print(f"{commit[:8]}: running the grids, see {log.relative_to(ROOT)}", flush=True)
    unfinished = results.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with open(log, "a") as printed:
        completed = subprocess.run(
            [python_of(commit, project), "-m", "same_results.export", project, unfinished],
            cwd=project,
            env=environment_of(project),
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    if completed.returncode:
        raise UserError(f"{commit[:8]}: the grids have failed; the end of {log} says why.")
    unfinished.rename(results)
    shutil.rmtree(project)
    return results


def check_out(commit: str, project: Path) -> None:
    """Write the files of a commit into a folder."""
    unfinished = project.with_name("unfinished_project")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x"], cwd=unfinished, check=True, input=archive.stdout)
    unfinished.rename(project)


def environment_of(project: Path) -> dict[str, str]:
    """Variables of the export: library of the commit, and its tests if they have the export."""
    tests = project / "tests"
    if not (tests / "same_results/export.py").is_file():
        tests = ROOT / "tests"
    path = os.pathsep.join([str(project / "workflow/lib"), str(tests)])
    return {**os.environ, "PYTHONPATH": path}


def python_of(commit: str, project: Path) -> Path:
    """Python with the packages of a commit: this one if they are the same, else one made for it."""
    needed = digest_of_requirements(project)
    if needed == digest_of_requirements(ROOT):
        return Path(sys.executable)
    environment = KEPT / f"environments/{needed}"
    completed = subprocess.run(
        ["make", "environment", f"VENV={environment}"], cwd=project, text=True, capture_output=True
    )
    if completed.returncode:
        errors = [line for line in completed.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1] if errors else "make environment fails."
        raise UserError(f"{commit[:8]}: its environment can't be made: {reason}")
    return environment / "bin/python"


def digest_of_requirements(project: Path) -> str:
    """Digest of the pinned packages of a project's environment."""
    digest = hashlib.sha256()
    for name in REQUIREMENTS:
        path = project / "envs" / name
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def new_explanations(before: str, after: str) -> list[compare.Explanation]:
    """Explanations in tests/dropped.txt that were written since the commit BEFORE.

    Older lines explain older changes, and would hide new ones.
    """
    known = set(compare.read_explanations(text_in(before)))
    return [line for line in compare.read_explanations(text_in(after)) if line not in known]


def text_in(commit: str) -> str:
    """Text of tests/dropped.txt in a commit; empty if the commit has none."""
    try:
        return git("show", f"{commit}:{DROPPED}")
    except subprocess.CalledProcessError:
        return ""


def main() -> int:
    """0 if everything is the same or explained, 1 if not, 2 if that can't be found out."""
    parser = argparse.ArgumentParser(prog="make same-results")
    parser.add_argument("before", help="the commit to compare with")
    arguments = parser.parse_args()
    try:
        before = commit_of(arguments.before)
        after = commit_of_working_tree()
        explanations = new_explanations(before, after)
        differences = list(compare.differences(results_of(before), results_of(after)))
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    unexplained = compare.unexplained(differences, explanations)
    for difference in differences:
        mark = "  <- not explained" if difference in unexplained else ""
        print(f"{difference}{mark}")
    print(
        f"{len(differences)} differences between {before[:8]} and {after[:8]}, {len(unexplained)} "
        f"of them moved or gone without a new line in {DROPPED}"
    )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
