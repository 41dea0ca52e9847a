"""Find finished jobs with a change of code only, and re-run such jobs in a copy of the project."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from snakemake_internals.records import SnakemakeRecords
from snakemake_internals.rules import rule_named, settings_now, wildcards_of

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log, log_lines
from rib.jobs.job import WORK, private
from rib.records import provenance
from rib.records.verify import related

CODE = ("Snakefile", "workflow", "profiles", "envs", "CITATION.cff")


def code_changes(
    workflow, records: Iterable[str], folders: Iterable[str], without: Collection[str]
) -> dict[str, dict]:
    """Finished jobs that would now get other settings, but only because their code has changed.

    A job is known by its record, which is one of its outputs.

    Args:
        workflow: Snakemake's, which has the rules.
        records: paths of provenance records; the jobs that these depend on are examined, too.
        folders: all records in these are examined, too.
        without: rules whose jobs are left out.

    Returns:
        `code` (current digest), `kind` (jobs of one kind run the same code) and `model`, by path of
        the record.
    """
    snakemake_records = SnakemakeRecords()
    records_in_folders = map(str, provenance.below(map(Path, folders)))
    paths, _record_of_output = related([*records, *records_in_folders])
    changes = {}
    for path in paths:
        job_record = provenance.read(Path(path))
        if job_record is None or job_record["rule"] in without:
            continue
        rule = rule_named(workflow, job_record["rule"])
        if rule is None:
            continue
        new_settings = settings_now(rule, path)
        if new_settings is None or not _differ_in_code_only(job_record["cfg"], new_settings):
            continue
        files = [*job_record["outputs"], path]
        if any(snakemake_records.is_unfinished(file) for file in files):
            continue
        wildcards = wildcards_of(rule, path)
        changes[path] = {
            "code": new_settings["code"],
            "kind": _kind_of_job(job_record, wildcards, new_settings["code"]),
            "model": wildcards.get("model", ""),
        }
    return changes


def _kind_of_job(job_record: Mapping, wildcards: Mapping[str, str], new_code: str) -> str:
    """Name of the jobs that run the same code as a job: `<rule>/<method>/<figure>/<old>/<new>`.

    Method and figure are empty for jobs without one. The last two are the digests of the code that
    the job ran, and of the code as it is now.
    """
    fields = (
        job_record["rule"],
        wildcards.get("method", ""),
        wildcards.get("figure", ""),
        job_record["cfg"]["code"],
        new_code,
    )
    return "/".join(fields)


def _differ_in_code_only(old_settings: Mapping, new_settings: Mapping) -> bool:
    """Whether settings of a job are the same but for the digest of its code."""
    old_code = old_settings.get("code")
    new_code = new_settings.get("code")
    if not old_code or not new_code or old_code == new_code:
        return False
    return repr({**new_settings, "code": old_code}) == repr(old_settings)


@contextlib.contextmanager
def made_again(
    records: Sequence[str],
    *,
    catalog_folders: Iterable[str],
    output_folders: Iterable[str],
    config: Mapping,
    options: Sequence[str],
) -> Iterator[Path]:
    """Re-run jobs with the current code and the project's inputs, in a mirror that is deleted then.

    Code is copied; outputs of jobs are linked file by file. Before a job writes, its outputs are
    deleted, which removes the links but not the files they point to.

    Args:
        records: paths of the jobs' provenance records.
        catalog_folders: the user's catalogue folders.
        output_folders: folders with outputs of jobs.
        config: the whole configuration, including the command line.
        options: Snakemake options for cores and GPUs.

    Yields:
        The mirror.

    Raises a UserError if a job fails.
    """
    # If this process is killed, the next job removes the mirror.
    with private("accept", "logs/accept.log", {}, resumes=None):
        mirror = WORK / "accept"
        _copy_code(mirror)
        for catalog_folder in map(Path, catalog_folders):
            if not catalog_folder.is_absolute():
                link = mirror / catalog_folder
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(catalog_folder.resolve())
        for folder in map(Path, output_folders):
            _link_files(folder, mirror)
        write_text(mirror / "config.yaml", json.dumps(config, indent=1))
        records_by_rule = defaultdict(list)
        for path in records:
            rule = provenance.read(Path(path))["rule"]
            records_by_rule[rule].append(path)
        for rule, records_of_rule in records_by_rule.items():
            _run_jobs(rule, records_of_rule, options, mirror)
        yield mirror


def _copy_code(mirror: Path) -> None:
    """Copy what runs into a mirror of the project."""
    for path in map(Path, CODE):
        if path.is_dir():
            shutil.copytree(path, mirror / path)
        else:
            shutil.copy2(path, mirror / path)


def _link_files(folder: Path, mirror: Path) -> None:
    """Link each file below a folder of the project into a mirror of the project."""
    for file in folder.rglob("*"):
        if file.is_file():
            link = mirror / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
            # Snakemake compares the times of the links themselves.
            stat = file.lstat()
            os.utime(link, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)


def _run_jobs(rule: str, records: Sequence[str], options: Sequence[str], mirror: Path) -> None:
    """Run jobs of one rule again, in a copy of the project.

    Args:
        records: paths of the jobs' provenance records. Each job writes one among its outputs, so
            Snakemake runs a job if it is asked for its record.
        options: Snakemake options for cores and GPUs.
        mirror: folder with the copy of the project.

    Raises:
        UserError: a job fails.
    """
    log.info("%s: %d jobs", rule, len(records))
    # --force runs the jobs although their outputs exist. Allowing only their rule prevents that the
    # jobs that made their inputs run again too.
    words = [*records, "--allowed-rules", rule, "--force", *options]
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", *words],
        cwd=mirror,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log_lines(run.stdout)
    if run.returncode:
        raise UserError(
            f"a sampled job of {rule} fails with the current code ({', '.join(records)}); "
            "nothing was accepted. See its output in logs/accept.log."
        )
