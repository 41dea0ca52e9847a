"""What Snakemake knows of outputs and locks: adoption of outputs that came by `dvc pull` or `dvc checkout`, or were accepted.

Snakemake holds no record of them and their times are those of the copying, so it would make them again. Where their
hashes agree with the gathered provenance records, Snakemake's own record and the time of their making are restored;
the run then has nothing to do. What only looks (a dry-run, a list, `snakemake status`) sees them as adopted and writes nothing.

This file is the only one that touches Snakemake's private interface (persistence, times of files);
tests/workflow/test_sharing.py and test_beside.py pin what it relies on.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from zlib import crc32

from snakemake.io import Mtime, _IOFile
from snakemake.iocontainers import Wildcards
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

from rib import provenance
from rib.io import UserError
from rib.job import sweep
from rib.owner import announce, others
from rib.verify import related

LONG_AGO = 1.0  # seconds since 1970; Snakemake takes 0 for no time at all
LOOKS = {"status", "plan", "verify"}  # targets that read what is there and make nothing


class SnakemakeRecords:
    """What Snakemake noted about outputs, in the current folder."""

    def __init__(self):
        self._store = FilePersistence()
        self.locked = any(self._store._read_locks())

    def knows(self, path: str) -> bool:
        """Whether Snakemake made or adopted this very file, or is at work on it in another process."""
        record = self._store._read_record(path)
        if record is not None and abs(record.endtime - os.lstat(path).st_mtime) < 1e-3:
            return True
        return self.locked and self.is_unfinished(path)

    def is_unfinished(self, path: str) -> bool:
        """Whether a job that makes this file was started and has not ended."""
        return bool(self._store._filter_incomplete_keys([path]))

    def unlock(self) -> None:
        """Take away the locks that a killed run has left here."""
        shutil.rmtree(self._store._lockdir, ignore_errors=True)
        self.locked = False

    def adopt(self, path: str, made: Mapping, ended: float) -> None:
        """Note an output as if its job had run here.

        Args:
            path: the output.
            made: its job's record.
            ended: when it was made, in seconds since 1970.
        """
        record = MetadataRecord(
            rule=made["rule"],
            input=sorted(made["inputs"]),
            log=[made["log"]],
            params=[repr(made["cfg"])],
            record_format_version=RECORD_FORMAT_VERSION,
            job_hash=crc32(made["log"].encode()),
            starttime=ended - made["seconds"],
            endtime=ended,
            incomplete=False,
            input_checksums=made["inputs"],
        )
        self._keep(path, record)

    def _keep(self, path: str, record: MetadataRecord) -> None:
        self._store._write_record(path, record)
        self._store._unmark_incomplete(path)
        os.utime(path, (record.endtime, record.endtime), follow_symlinks=False)

    def accept(self, path: str, made: Mapping) -> None:
        """Note a job whose record, at `path`, was rewritten since its code changed and its bytes did not."""
        for output in made["outputs"]:
            self.adopt(output, made, ended_at(made))
        # The record itself is new, and what shows records is to be made anew.
        self.adopt(path, made, os.lstat(path).st_mtime)


class SeenRecords(SnakemakeRecords):
    """What Snakemake would know of outputs after adoption, for this process alone: nothing is written."""

    def __init__(self):
        super().__init__()
        self.locked = self.locked and bool(others(locked=True))
        self._seen: dict[str, MetadataRecord] = {}

    def _keep(self, path: str, record: MetadataRecord) -> None:
        self._seen[path] = record

    def show(self) -> None:
        """Have Snakemake see it, and no locks, which only who writes heeds."""
        seen = self._seen
        read, unfinished = FilePersistence._read_record, FilePersistence._filter_incomplete_keys
        time = _IOFile.mtime_uncached

        async def mtime_uncached(file, *arguments, **more):
            return Mtime(local=seen[file].endtime) if file in seen else await time(file, *arguments, **more)

        FilePersistence._read_record = lambda store, key: seen.get(key) or read(store, key)
        FilePersistence._filter_incomplete_keys = lambda store, keys: unfinished(store, set(keys) - seen.keys())
        FilePersistence._read_locks = lambda store: ()
        _IOFile.mtime_uncached = mtime_uncached


def _delete_own_locks(store: FilePersistence) -> None:
    """Take away the locks of this run; Snakemake's function takes away those of runs beside it, too."""
    for path in store._lockfile.values():
        Path(path).unlink(missing_ok=True)
    store._lockfile.clear()


def _unlock_unless_at_work(store: FilePersistence) -> None:
    """What `snakemake --unlock` does."""
    if alive := others(locked=True):
        raise UserError(f"a run is at work in this folder ({'; '.join(alive)}); its locks stay. Stop it first.")
    shutil.rmtree(store._lockdir, ignore_errors=True)


FilePersistence._delete_locks = _delete_own_locks
FilePersistence.cleanup_locks = _unlock_unless_at_work


def ended_at(made: Mapping) -> float:
    """When the job of a record ended, in seconds since 1970."""
    return datetime.fromisoformat(made["ended"]).timestamp()


def code_changes(workflow, records: Iterable[str], reports: str, but: Iterable[str]) -> dict[str, dict]:
    """Finished jobs whose settings are those of their record but for the digest of their code.

    Args:
        workflow: Snakemake's.
        records: paths of records of the grid's jobs; those that these hang on are looked at too.
        reports: folder of the family's reports.
        but: rules to leave out.

    Returns:
        By path of the record, `rule`, `code` (the digest now), `kind` (jobs of one kind run the same code) and `model`.
    """
    changes, known = {}, SnakemakeRecords()
    for path in related([*records, *map(str, provenance.below([Path(reports)]))])[0]:
        made = provenance.read(Path(path))
        if made is None or made["rule"] in but or not workflow.is_rule(made["rule"]):
            continue
        now = _settings_now(workflow.get_rule(made["rule"]), path)
        old, new = made["cfg"].get("code"), (now or {}).get("code")
        if not new or old in (None, new) or repr({**now, "code": old}) != repr(made["cfg"]):
            continue
        if not any(map(known.is_unfinished, [*made["outputs"], path])):
            wildcards = workflow.get_rule(made["rule"]).get_wildcards(path)
            what = "/".join(wildcards.get(key, "") for key in ("method", "figure"))
            kind = f"{made['rule']} {what} {old} {new}"
            changes[path] = {"rule": made["rule"], "code": new, "kind": kind, "model": wildcards.get("model", "")}
    return changes


def _settings_now(rule, path: str) -> Mapping | None:
    """Settings that a rule gives the job of a record now; None where it has no such job in this grid."""
    if not rule.is_producer(path):
        return None
    cfg = rule.params.cfg
    if not callable(cfg):
        return cfg
    try:
        return cfg(Wildcards(fromdict=rule.get_wildcards(path)))
    except KeyError:  # a model or method that was taken out of the grid
        return None


def begin(workflow) -> None:
    """Have a run begun once Snakemake knows that it is one: announced, locks of killed ones gone, what was pulled adopted.

    Snakemake knows that after it has read the rules, right before it builds its graph. Who builds one to look at it only
    sees what a run would adopt.
    """
    prepare, begun = workflow._prepare_dag, []

    def begin_and_prepare(*arguments, **more):
        targets = workflow.dag_settings.targets
        if not begun and not (targets and LOOKS.issuperset(targets)):
            begun.append(True)
            if workflow.executor_plugin is not None and not workflow.dryrun:
                _lift_rate_limit(workflow.scheduling_settings)
                _unlock_after_kill()
                sweep()
                _adopt_pulled(SnakemakeRecords(), "Adopted the outputs of {} jobs, which agree with their records.")
            else:
                seen = SeenRecords()
                _adopt_pulled(seen, "The outputs of {} jobs agree with their records; a run adopts them.")
                seen.show()
        return prepare(*arguments, **more)

    workflow._prepare_dag = begin_and_prepare


def _lift_rate_limit(settings) -> None:
    """Take away Snakemake's default limit of 100 jobs per second, which nothing here comes near; a user's own stays.

    It sets a timer at every look for ready jobs, which looks again a second later: each job that ends adds such a chain,
    and after 600 jobs that was half a processor.
    """
    limit = settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        settings.max_jobs_per_timespan = None


def _unlock_after_kill() -> None:
    """Announce this run, and take away Snakemake's locks where no run is left that they could be of.

    Snakemake's locks are files that a killed run leaves behind; the kernel knows which runs live.
    """
    records = SnakemakeRecords()
    alive = announce(records.locked)
    if not records.locked:
        return
    if not alive:
        records.unlock()
        print("The run before this one was killed; going on where it was.", file=sys.stderr)
        return
    print(
        f"Another run is at work in this folder ({'; '.join(alive)}). Where both would make the same files this one stops: "
        "wait for the other, or stop it.",
        file=sys.stderr,
    )


def _adopt_pulled(records: SnakemakeRecords, words: str) -> None:
    """Adopt what came by DVC, saying how much it was.

    Args:
        records: what is adopted is noted there.
        words: that say so, of a number of jobs.

    Raises:
        UserError: a file is not what the records say.
    """
    gathered = provenance.load()
    if not gathered:
        return
    pulled = provenance.match(gathered, records.knows, records.is_unfinished)
    stale = provenance.made_from_others(gathered) if pulled else set()
    for path, record in pulled.items():
        for output in [*record["outputs"], path]:
            # Made from others than the inputs here, it counts as older than any, which makes Snakemake compare checksums.
            records.adopt(output, record, LONG_AGO if path in stale else ended_at(record))
    if pulled:
        print(words.format(len(pulled)), file=sys.stderr)
