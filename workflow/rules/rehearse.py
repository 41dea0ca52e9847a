"""Jobs made anew in a mirror of the project, with its code and everything made as it is now, and no effect on it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rib.io import Progress, UserError, log, write_text

NEEDED = ("Snakefile", "workflow", "profiles", "envs", "CITATION.cff")


@contextlib.contextmanager
def _mirrored(linked: Iterable[str], made: Iterable[str], config: Mapping) -> Iterator[Path]:
    """A folder below work/ that Snakemake can run in as in the project, taken away at the end.

    Code is copied, what jobs made linked file by file: a job takes its outputs' names away before it writes, so that
    a link goes and the file that it points to stays.

    Args:
        linked: the user's catalogue folders.
        made: folders of what jobs made.
        config: the whole configuration, those given on the command line included.
    """
    Path("work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="accept-", dir="work") as name:
        folder = Path(name)
        for part in map(Path, NEEDED):
            copy = shutil.copytree if part.is_dir() else shutil.copy2
            copy(part, folder / part, **({"ignore": shutil.ignore_patterns("__pycache__")} if part.is_dir() else {}))
        for part in (path for path in map(Path, linked) if not path.is_absolute()):
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).symlink_to(part.resolve())
        for place in made:
            for parent, _, files in os.walk(place):
                (folder / parent).mkdir(parents=True, exist_ok=True)
                for file in files:
                    _link(Path(parent) / file, folder)
        write_text(folder / "config.yaml", json.dumps(config, indent=1))
        yield folder


def _link(file: Path, folder: Path) -> None:
    """A link of a file's own times, by which Snakemake judges what has to be made anew."""
    (folder / file).symlink_to(file.absolute())
    stat = file.lstat()
    os.utime(folder / file, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)


@contextlib.contextmanager
def rehearsed(
    by_rule: Mapping[str, Sequence[str]],
    *,
    linked: Iterable[str],
    made: Iterable[str],
    config: Mapping,
    cores: int,
    gpus: int | None,
    log_file: str,
) -> Iterator[Path]:
    """Make jobs anew in a mirror, each from the inputs that the project has; the mirror lasts as long as the context.

    Args:
        by_rule: paths of records by the rule that writes them.
        linked: see `_mirrored`.
        made: see `_mirrored`.
        config: see `_mirrored`.
        cores: jobs at once.
        gpus: as in --resources gpu=N, None where that was not given.
        log_file: where a failure's output goes.

    Raises:
        UserError: a job failed.
    """
    options = ["--force", "--cores", str(cores), *([] if gpus is None else ["--resources", f"gpu={gpus}"])]
    total = sum(map(len, by_rule.values()))
    with _mirrored(linked, made, config) as folder:
        with Progress(desc="making sampled jobs anew", total=total, unit="job") as progress:
            for rule, records in by_rule.items():
                log.info("%s: %d job%s", rule, len(records), "s" if len(records) > 1 else "")
                _run(folder, rule, records, options, log_file)
                progress.update(len(records))
        yield folder


def _run(folder: Path, rule: str, records: Sequence[str], options: Sequence[str], log_file: str) -> None:
    # With one rule alone, nothing that a job is made from is made anew.
    command = [sys.executable, "-m", "snakemake", *records, "--allowed-rules", rule, *options]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log.debug("%s", done.stdout)
    if done.returncode:
        raise UserError(
            f"a sampled job of {rule} fails with the code as it is now ({', '.join(records)}); nothing was accepted. Its "
            f"output is in {log_file}."
        )
