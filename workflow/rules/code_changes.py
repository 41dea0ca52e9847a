"""Find finished jobs with a change of code only, and re-run such jobs in a copy of the project."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from snakemake.iocontainers import Wildcards
from snakemake_records import SnakemakeRecords

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log, log_lines
from rib.jobs.job import WORK, private
from rib.records import provenance
from rib.records.verify import related

CODE = ("Snakefile", "workflow", "profiles", "envs", "CITATION.cff")


def code_changes(
    workflow, records: Iterable[str], folders: Iterable[str], without: Iterable[str]
) -> dict[str, dict]:
    """Finished jobs of records, of folders, or that those depend on, whose settings differ from the record only in the code digest.

    Returns:
        `code` (current digest), `kind` (jobs of one kind run the same code) and `model`, by path of the record.
    """
    changes, known = {}, SnakemakeRecords()
    for path in related([*records, *map(str, provenance.below(map(Path, folders)))])[0]:
        made = provenance.read(Path(path))
        if made is None or made["rule"] in without or not workflow.is_rule(made["rule"]):
            continue
        rule = workflow.get_rule(made["rule"])
        now = settings_now(rule, path)
        old, new = made["cfg"].get("code"), (now or {}).get("code")
        if not new or old in (None, new) or repr({**now, "code": old}) != repr(made["cfg"]):
            continue
        if not any(map(known.is_unfinished, [*made["outputs"], path])):
            wildcards = rule.get_wildcards(path)
            kind = "/".join(
                [made["rule"], *(wildcards.get(key, "") for key in ("method", "figure")), old, new]
            )
            changes[path] = {"code": new, "kind": kind, "model": wildcards.get("model", "")}
    return changes


def settings_now(rule, path: str) -> Mapping | None:
    """Current settings of the job of a record; None if the grid has no such job."""
    if not rule.is_producer(path):
        return None
    cfg = rule.params.cfg
    try:
        return cfg(Wildcards(fromdict=rule.get_wildcards(path))) if callable(cfg) else cfg
    except KeyError:  # the model or method is no longer in the grid
        return None


@contextlib.contextmanager
def made_again(
    records: Sequence[str],
    *,
    linked: Iterable[str],
    made: Iterable[str],
    config: Mapping,
    options: Sequence[str],
) -> Iterator[Path]:
    """Re-run jobs with the current code and the project's inputs, in a mirror that is deleted afterwards.

    Code is copied; outputs of jobs are linked file by file. Before a job writes, its outputs are deleted, which removes
    the links but not the files they point to.

    Args:
        linked: the user's catalogue folders.
        made: folders with outputs of jobs.
        config: the whole configuration, including the command line.
        options: Snakemake options for cores and GPUs.

    Raises a UserError if a job fails.
    """
    with private(
        "accept", "logs/accept.log", {}, resumes=None
    ):  # removed by the next job if this process is killed
        mirror = WORK / "accept"
        for part in map(Path, CODE):
            (shutil.copytree if part.is_dir() else shutil.copy2)(part, mirror / part)
        for part in (path for path in map(Path, linked) if not path.is_absolute()):
            (mirror / part).parent.mkdir(parents=True, exist_ok=True)
            (mirror / part).symlink_to(part.resolve())
        for folder in made:
            for file in (path for path in Path(folder).rglob("*") if path.is_file()):
                (mirror / file).parent.mkdir(parents=True, exist_ok=True)
                (mirror / file).symlink_to(file.absolute())
                # Snakemake compares the times of the links themselves.
                stat = file.lstat()
                os.utime(
                    mirror / file, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False
                )
        write_text(mirror / "config.yaml", json.dumps(config, indent=1))
        rules = {path: provenance.read(Path(path))["rule"] for path in records}
        for rule in dict.fromkeys(rules.values()):
            own = [path for path in records if rules[path] == rule]
            log.info("%s: %d jobs", rule, len(own))
            # Allowing only one rule prevents that inputs are made again.
            command = [
                sys.executable,
                "-m",
                "snakemake",
                *own,
                "--allowed-rules",
                rule,
                "--force",
                *options,
            ]
            done = subprocess.run(
                command, cwd=mirror, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            log_lines(done.stdout)
            if done.returncode:
                raise UserError(
                    f"a sampled job of {rule} fails with the current code ({', '.join(own)}); nothing was accepted. See "
                    "its output in logs/accept.log."
                )
        yield mirror
