"""Runs that are scored while photos are decoded once. No torch.

Photos that are kept encoded are decoded whenever they are scored. A job that scores one run on such a suite therefore
scores other runs of its model too whose own jobs are still due, and leaves what it found in the private folders of those
jobs (see rib.job), which then find it there. That is all: rules, records and bytes are those of jobs by themselves, and a
job that is killed takes nothing along but its own work.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from rib.io import log
from rib.job import Outputs, identity, input_hashes, private_folder
from rib.merge import State, run_states

LOCKS = Path("work/locks")
RUN = ("model", "target", "method", "size", "seed")


@dataclass(frozen=True)
class Scoring:
    """One run to score, and where to write what was found.

    Attributes:
        run: model, target, method, size, seed.
        states: alpha and weight of each averaged method (see rib.merge.run_states).
        checkpoints: file of each fine-tuned method.
        rows: path, written last.
        manifest: path.
    """

    run: Mapping[str, object]
    states: Sequence[State]
    checkpoints: Mapping[str, Path]
    rows: Path
    manifest: Path


@dataclass(frozen=True)
class Job:
    """An evaluate job, as its rule describes it.

    Attributes:
        wildcards: of the rule, in order: those of the run, and the suite.
        cfg: its settings, `parents` among them.
        inputs: by name, `recipe`, `checkpoints` and `manifests` among them.
        outputs: by name, `rows` and `manifest` among them.
        log: its log file.
    """

    wildcards: Mapping[str, str]
    cfg: Mapping
    inputs: Mapping[str, object]
    outputs: Mapping[str, str]
    log: str

    def identity(self) -> str:
        """What names the job's private folder."""
        return identity(
            "evaluate", "/".join(self.wildcards.values()), self.outputs, self.cfg, input_hashes(self.inputs)
        )

    def staged(self) -> Outputs:
        """Where the job writes."""
        return Outputs(Path("work") / self.identity(), self.outputs)

    def scoring(self) -> Scoring:
        """What the job has to do."""
        run = {key: self.wildcards[key] for key in RUN}
        checkpoints = dict(zip(self.cfg["parents"], map(Path, self.inputs["checkpoints"]), strict=True))
        staged = self.staged()
        states = run_states(run["method"], self.inputs["recipe"])
        return Scoring({**run, "seed": int(run["seed"])}, states, checkpoints, staged["rows"], staged["manifest"])

    def of_run(self, run: Mapping[str, str], grid: Mapping) -> "Job":
        """The job that scores another run of the model on the same suite.

        Args:
            run: its wildcards.
            grid: see `scorings`.
        """
        own, other = ("/".join(str(names[key]) for key in RUN) for names in (self.wildcards, run))

        def swapped(path: str) -> str:
            return path.replace(f"/{own}/", f"/{other}/")

        parents = grid["parents"][run["method"]]
        checkpoints = [grid["checkpoint"].format(**{**run, "method": parent}) for parent in parents]
        merged = run["method"] in grid["merged"]
        inputs = {
            **self.inputs,
            "recipe": grid["recipe"].format(**run) if merged else [],
            "checkpoints": checkpoints,
            "manifests": [str(Path(path).with_name("manifest.json")) for path in checkpoints],
        }
        return replace(
            self,
            wildcards={**self.wildcards, **run},
            cfg={**self.cfg, "parents": parents},
            inputs=inputs,
            outputs={name: swapped(path) for name, path in self.outputs.items()},
            log=swapped(self.log),
        )

    def is_due(self) -> bool:
        """Whether it can be done and nobody has done it."""
        own = [self.inputs["recipe"] or [], self.inputs["checkpoints"], self.inputs["manifests"]]
        needed = [path for part in own for path in ([part] if isinstance(part, str) else part)]
        return not Path(self.outputs["rows"]).exists() and all(Path(path).exists() for path in needed)


@contextlib.contextmanager
def scorings(job: Job, grid: Mapping | None) -> Iterator[list[Scoring]]:
    """What a job scores: its own run, unless another job has, and others that are due.

    Args:
        job: the one that runs.
        grid: of the model's other runs: `runs` (wildcards of each), `parents` (methods whose checkpoints each method's weights
            come from), `merged` (methods that have a recipe), `checkpoint` and `recipe` (paths with the run's wildcards),
            `most` (networks that may be in memory at once). None: the job is by itself.

    Yields:
        The scorings, which are the caller's until the context ends.
    """
    if grid is None:
        yield [job.scoring()]
        return
    LOCKS.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(FileLock(LOCKS / f"{job.identity()}.lock"))  # waits for a job that is at work on it
        own = job.scoring()
        if own.rows.exists():
            log.info("another job has scored this run already")
            yield []
            return
        chosen, room = [own], grid["most"] - len(own.states)
        for run in reversed(grid["runs"]):  # Snakemake begins with the others
            other = job.of_run(run, grid)
            if room <= 0 or not other.is_due():
                continue
            scoring = other.scoring()
            if len(scoring.states) > room or scoring.rows.exists():
                continue
            with contextlib.suppress(Timeout):
                stack.enter_context(FileLock(LOCKS / f"{other.identity()}.lock", timeout=0))
                private_folder(scoring.rows.parent, [other.log, *other.outputs.values()], keep=True)
                chosen.append(scoring)
                room -= len(scoring.states)
        if len(chosen) > 1:
            log.info("scoring %d runs while the photos are decoded once", len(chosen))
        yield chosen
