"""A copy of the project in a folder of its own, and Snakemake run there with what users write."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import yaml
from snakemake.utils import update_config

from rib.catalog.catalog import Catalog
from rib.grid.grid import Grid, resolve_grid
from rib.schema.config import config_of
from tiny.projects import forked

ROOT = Path(__file__).parents[3]
TARGET_RULES = ("total", "all", "tables", "figures")
# What a new run of a grid leads to, besides figures: a job of each of these rules.
TABLES = dict.fromkeys(
    (
        "compute_metrics",
        "analyse_comparison",
        "analyse_summary",
        "analyse_cost",
        "analyse_training",
        "analyse_samples",
        "analyse_cells",
        "analyse_data_and_models",
    ),
    1,
)
# Jobs that draw the figures of tables, and that of images.
FIGURES = {"draw_figures": 1, "draw_examples": 1}
PAGE = {"write_page": 1}
# Rule and number of jobs in a line of Snakemake's table.
TABLE_LINE = r"^(\w+) +(\d+)$"
# Variables of the environment, which nothing that a run writes may contain.
SECRETS = {
    "HF_TOKEN": "hf_TokenOfTests",
    "OBJECTNET_PASSWORD": "PasswordOfTests",
    "AWS_SECRET_ACCESS_KEY": "KeyOfTests",
}
# Options of git that say who commits.
AUTHOR = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
# Files and folders of the project that a copy has.
COPIED = (
    "Snakefile",
    "config.yaml",
    "CITATION.cff",
    "workflow",
    "data/networks",
    "profiles",
    "envs",
    ".gitignore",
    ".gitattributes",
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
)


@dataclass
class Project:
    """A project folder.

    Attributes:
        folder: its path.
        family: the family that commands run on.
    """

    folder: Path
    family: str = "tiny"

    def snakemake(
        self, *arguments: str, config: tuple[str, ...] = (), check: bool = True, **environment: str
    ) -> str:
        """Run Snakemake and return all it printed; `config` are extra key=value choices.

        Without `check` it must fail.
        """
        words = [*arguments, "--config", *self.choices(*config)]
        return self.fork("snakemake", *words, check=check, **environment)

    def rib(
        self,
        command: str,
        *arguments: str,
        config: tuple[str, ...] = (),
        check: bool = True,
        **environment: str,
    ) -> str:
        """Run a command of `rib` and return all it printed; as `snakemake` otherwise."""
        words = [sys.executable, "-m", "rib.commands", command, *arguments]
        if command != "pull":  # it has no config
            words += ["--config", *self.choices(*config)]
        library = str(self.folder / "workflow/lib")
        return self.run(*words, check=check, PYTHONPATH=library, **environment)

    def choices(self, *config: str) -> list[str]:
        """What follows --config: the family, its catalogue, and extra key=value choices."""
        words = [f"family={self.family}", *config]
        if self.family == "tiny" and not any(choice.startswith("catalog=") for choice in config):
            words.append("catalog=mine")
        return words

    def grid(self, *config: str) -> Grid:
        """The grid of the project's config.yaml; `config` are extra key=value choices."""
        choices = yaml.safe_load((self.folder / "config.yaml").read_text())
        for choice in (f"family={self.family}", *config):
            key, _, text = choice.partition("=")
            update_config(choices, {key: yaml.safe_load(text)})
        folders = [self.folder / "workflow/catalog", *self.folder.glob("mine")]
        return resolve_grid(config_of(choices, "config.yaml"), Catalog(folders))

    def run(self, *words: str, check: bool = True, **environment: str) -> str:
        """Run a command here and return all it printed; without `check` it must fail."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        completed = subprocess.run(
            words, cwd=self.folder, env=with_hidden_gpus(environment), timeout=600, **streams
        )
        assert (completed.returncode == 0) == check, f"{words}\n{completed.stdout}"
        return completed.stdout

    def fork(self, program: str, *words: str, check: bool = True, **environment: str) -> str:
        """As `run`, for a program of tiny.projects.forked."""
        status, printed = forked.call(program, words, self.folder, with_hidden_gpus(environment))
        assert (status == 0) == check, f"{program} {words}\n{printed}"
        return printed

    def unlock(self) -> None:
        """Remove the lock of a run that was killed, if it has left one, as a user does."""
        if any((self.folder / ".snakemake/locks").glob("*.lock")):
            self.snakemake("--unlock")

    def git(self, *words: str) -> str:
        """Run git as somebody and return all it printed."""
        return self.run("git", *AUTHOR, *words)

    def dvc(self, *words: str, check: bool = True) -> str:
        """Run DVC and return all it printed; without `check` it must fail."""
        return self.fork("dvc", *words, check=check)

    def commit(self, message: str) -> str:
        """Track what runs made and commit it, as a user does; gives what tracking printed."""
        printed = self.rib("track")
        self.git("add", "--all")
        self.git("commit", "-qm", message)
        return printed

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        """Start a command, a process group of its own, that writes to printed.txt."""
        with open(self.folder / "printed.txt", "w") as printed:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=with_hidden_gpus(environment),
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self) -> str:
        """What the command that was started last has printed so far."""
        return (self.folder / "printed.txt").read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Processes at work in the project's folder."""
        at_work = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.status() != psutil.STATUS_ZOMBIE
                    and Path(process.cwd()) == self.folder.resolve()
                ):
                    at_work.append(process)
        return at_work

    def planned(self, *arguments: str, config: tuple[str, ...] = ()) -> dict[str, int]:
        """Number of jobs of each rule that a dry-run counts."""
        return jobs(self.snakemake("-n", *arguments, "--quiet", "rules", config=config))

    def listed(self, *arguments: str, config: tuple[str, ...] = ()) -> str:
        """All that a dry-run prints, with each job and its files."""
        return self.snakemake("-n", *arguments, config=config)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in a file of the project; the text must be there."""
        text = (self.folder / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        (self.folder / path).write_text(text.replace(old, new, 1))

    def state(self) -> dict[Path, tuple[int, bytes]]:
        """Time and bytes of every file that matters for what runs next.

        Left out are logs, what jobs have at work, and what Snakemake keeps besides its records.
        """
        left_out = (
            "logs",
            "work",
            "printed.txt",
            "__pycache__",
            "auxiliary",
            "log",
            "iocache",
            "scripts",
        )
        time_and_bytes = {}
        for path in self.folder.rglob("*"):
            names = set(path.relative_to(self.folder).parts)
            if path.is_file() and not names.intersection(left_out):
                time_and_bytes[path] = (path.lstat().st_mtime_ns, path.read_bytes())
        return time_and_bytes

    def products(self) -> dict[str, bytes]:
        """Bytes of every result that must be reproducible.

        That is all but records, and what tells times: pages and costs.
        """
        files = [
            path
            for top in ("results", "reports")
            for path in (self.folder / top).rglob("*")
            if path.is_file()
        ]
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if not path.name.endswith(("provenance.json", ".html")) and path.stem != "cost"
        }


def with_hidden_gpus(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process; without one that names GPUs it computes on the CPU, as elsewhere."""
    return {"CUDA_VISIBLE_DEVICES": "", **os.environ, **environment}


def rows_of(path: Path) -> pd.DataFrame:
    """Evaluation rows with the columns of the datasets' indexes.

    The indexes lie in results/<family>/prepare and tell of each image.
    """
    prepared = path.parents[7] / "prepare"
    rows_with_index = []
    for name, rows in pd.read_parquet(path).groupby("dataset", observed=True, sort=False):
        index_file = next(prepared.glob(f"{name}/*/index.parquet"))
        index = pd.read_parquet(index_file).drop(columns="row")
        rows_with_index.append(rows.join(index, on="row"))
    return pd.concat(rows_with_index, ignore_index=True)


def jobs(printed: str) -> dict[str, int]:
    """Number of jobs of each rule, from the table that a run or a dry-run has printed."""
    return {
        rule: int(n)
        for rule, n in re.findall(TABLE_LINE, printed, re.M)
        if rule not in TARGET_RULES
    }


def methods(printed: str, rule: str) -> set[str]:
    """Methods, or entries that are evaluated, of one rule's jobs in what Project.listed printed."""
    blocks = re.findall(rf"^rule {rule}:\n((?:    .*\n)+)", printed, re.M)
    return {re.search(r"(?:method|entry)=(\w+)", block)[1] for block in blocks}


def copy_project(folder: Path) -> Path:
    """Copy what runs, not what runs made, into a folder; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            # with the bytecode, but not that which another process is writing
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copy(source, copy)
    return folder
