"""The command line `rib`: what a run costs, whether its files are intact, and sharing them.

Snakemake runs the workflow (`snakemake`); these commands start no jobs.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout
from snakemake.cli import parse_config
from snakemake.utils import update_config

from rib.base.errors import UserError
from rib.base.locks import acquire
from rib.base.progress import log, print_lines
from rib.catalog.catalog import PROJECT_CATALOG, Catalog
from rib.catalog.hub_names import LOCK, UnresolvedError
from rib.grid.grid import Grid, resolve_grid
from rib.grid.paths import Paths
from rib.jobs.messages import errors_as_sentences
from rib.models.lock import renew, resolve
from rib.records.pull import pull, restore_metadata
from rib.records.track import track
from rib.records.verify import verify
from rib.report.described import described_analyses
from rib.report.plan import print_plan
from rib.schema.config import config_of
from rib.schema.yaml_files import read_yaml

# Stages in `results/<family>/<protocol>/` whose files are shared and verified.
STAGES = (
    "split",
    "labels",
    "finetune",
    "merge",
    "evaluate",
    "evaluate_over_targets",
    "select",
    "features",
    "fisher",
    "export",
)
SNAKEMAKES_LOCKS = Path(".snakemake/locks")
OWN_LOCK = Path(".snakemake/rib.lock")
VERIFY_LOG = Path("logs/verify.log")
PREVIEW_LOG = Path("logs/preview.log")
CITATION = PROJECT_CATALOG.parents[1] / "CITATION.cff"


def main(words: Sequence[str] | None = None) -> None:
    """Run a command, by default the command line's; mistakes are printed as a sentence.

    Example: `main(["plan", "--config", "family=imagenet", "models=all"])`.
    """
    arguments = parser().parse_args(words)
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO)
    log.addHandler(screen)
    log.setLevel(logging.DEBUG)
    with errors_as_sentences():
        arguments.run(arguments)


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; a command's function is the result's attribute `run`."""
    rib = argparse.ArgumentParser(prog="rib", description=__doc__)
    commands = rib.add_subparsers(title="commands", required=True, metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE")
    config.add_argument("--configfile", nargs="+", default=[], type=Path, metavar="FILE")

    purpose = "say what a run costs: jobs, images, hours and bytes"
    command = commands.add_parser("plan", parents=[config], help=purpose, description=purpose)
    command.set_defaults(run=run_plan)

    purpose = "look up names of models and datasets once, and keep what is found in hub.lock.json"
    command = commands.add_parser("lock", parents=[config], help=purpose, description=purpose)
    command.add_argument(
        "--folder", type=Path, help="renew the lock file of this catalogue folder instead"
    )
    command.add_argument(
        "--without-hub",
        action="store_true",
        help="with --folder: models as the installed libraries record them, without commits",
    )
    command.set_defaults(run=run_lock)

    purpose = "make tables, figures and a page of the runs that are finished, also beside a run"
    command = commands.add_parser("preview", parents=[config], help=purpose, description=purpose)
    command.set_defaults(run=run_preview)

    purpose = "compare every byte of the results, and of what they were made from, with the records"
    command = commands.add_parser("verify", parents=[config], help=purpose, description=purpose)
    command.set_defaults(run=run_verify)

    purpose = "add the results to DVC, to be shared with `dvc push`"
    command = commands.add_parser("track", parents=[config], help=purpose, description=purpose)
    command.set_defaults(run=run_track)

    purpose = "get shared results, check them, and tell Snakemake that they are made"
    command = commands.add_parser("pull", help=purpose, description=purpose)
    command.add_argument("paths", nargs="*", metavar="PATH", help="all that is shared if left out")
    command.set_defaults(run=run_pull)
    return rib


def run_plan(arguments: argparse.Namespace) -> None:
    """Print the cost of a run of the grid."""
    print_plan(read_grid(arguments))


def run_lock(arguments: argparse.Namespace) -> None:
    """Resolve the names that the grid lacks, or all names of a catalogue folder."""
    if arguments.without_hub and arguments.folder is None:
        raise UserError("rib lock: --without-hub is only for --folder; give the folder.")
    if arguments.folder is not None:
        renew(arguments.folder, ask_hub=not arguments.without_hub)
        return
    # Names in entries of models, then models of config, then datasets: each needs the ones before.
    for _ in range(3):
        try:
            read_grid(arguments)
        except UnresolvedError as error:
            resolve(error)
        else:
            print_lines(f"{LOCK} has all names that are chosen.")
            return
    read_grid(arguments)


def run_preview(arguments: argparse.Namespace) -> None:
    """Make tables, figures and page of the finished runs in reports/<name>/preview."""
    from rib.report.preview import write_preview  # with Matplotlib, which is slow

    PREVIEW_LOG.parent.mkdir(exist_ok=True)
    log.addHandler(logging.FileHandler(PREVIEW_LOG, mode="w", encoding="utf-8"))
    page = write_preview(read_grid(arguments), CITATION)
    print_lines(f"Page: {page}")


def run_verify(arguments: argparse.Namespace) -> None:
    """Check the grid's files against their records; VERIFY_LOG lists all differences."""
    grid = read_grid(arguments)
    VERIFY_LOG.parent.mkdir(exist_ok=True)
    log.addHandler(logging.FileHandler(VERIFY_LOG, mode="w", encoding="utf-8"))
    verify(patterns_of_results(grid), str(VERIFY_LOG))


def run_track(arguments: argparse.Namespace) -> None:
    """Add results of the grid's family and protocol to DVC."""
    grid = read_grid(arguments)
    with folder_at_rest():
        track(patterns_of_results(grid), Path(Paths(grid).report))


def run_pull(arguments: argparse.Namespace) -> None:
    """Get shared results, and give Snakemake their metadata."""
    with folder_at_rest():
        files = pull(arguments.paths)
        jobs = restore_metadata()
    print_lines(f"{files} files are in place; Snakemake knows the outputs of {jobs} more jobs.")


def read_grid(arguments: argparse.Namespace) -> Grid:
    """The grid that config.yaml, --configfile and --config choose, in Snakemake's order.

    Raises:
        UserError: A file or a value is wrong.
    """
    config: dict[str, Any] = {}
    for file in (Path("config.yaml"), *arguments.configfile):
        content = read_yaml(file)
        config_of(content, str(file))  # for messages with the file's name
        update_config(config, content)
    try:
        update_config(config, parse_config(arguments.config))
    except ValueError as error:
        raise UserError(str(error)) from None
    config = config_of(config, "config.yaml or --config")
    choice = config["catalog"]
    own_folders = [choice] if isinstance(choice, str) else choice
    catalog = Catalog([PROJECT_CATALOG, *map(Path, own_folders)], config["external"])
    grid = resolve_grid(config, catalog)
    print_lines(*grid.notices, file=sys.stderr)
    return grid


def patterns_of_results(grid: Grid) -> list[str]:
    """Glob patterns of the results of a grid's family and protocol, to be verified or shared.

    For example ["data/raw/*", "results/emoji/prepare/*", ..., "reports/emoji/tables", ...].
    """
    paths = Paths(grid)
    family = f"results/{paths.family}"
    analyses = described_analyses(grid, paths, grid.config["analyses"])
    # Analyses outside the run have a folder of their own in the report's.
    on_demand = [name for name, analysis in analyses.items() if analysis.folder != paths.report]
    shown = ("tables", "figures", "index.html", "index.provenance.json", "paper", *on_demand)
    return [
        "data/raw/*",
        *(f"{family}/{stage}/*" for stage in ("prepare", "models", "text")),
        *(f"{paths.stage(stage)}/*" for stage in STAGES),
        *(f"{paths.report}/{name}" for name in shown),
    ]


@contextmanager
def folder_at_rest() -> Iterator[None]:
    """A block in which nothing else changes the folder: no Snakemake, `rib track` or `rib pull`.

    Raises:
        UserError: Snakemake or one of these commands is working in the folder.
    """
    if any(SNAKEMAKES_LOCKS.glob("*.lock")):
        raise UserError(
            "Snakemake is at work in this folder; wait until it ends, or run `snakemake --unlock` "
            "if it was killed."
        )
    OWN_LOCK.parent.mkdir(exist_ok=True)
    try:
        lock = acquire(OWN_LOCK, timeout=0)
    except Timeout:
        raise UserError(
            "another `rib track` or `rib pull` is at work in this folder; wait until it ends."
        ) from None
    try:
        yield
    finally:
        lock.release()


if __name__ == "__main__":
    main()
