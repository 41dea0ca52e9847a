"""Cost of one mRI per model and method, from the records of the jobs. No torch.

The cost of a method's mRI covers

    - for every target, the fine-tuning of the method and of the methods it needs (parents of a
      merge, or the method it starts from), its merge with the Fisher information that it needs, and
      its evaluation on all datasets,
    - once, the Fisher information that trainings on all targets share, and
    - one evaluation of the pretrained model.

Seconds are the time for which a job kept its GPU; on a CPU, its processor time, which other work on
the machine doesn't change. Seeds are averaged, but a merge over seeds needs the trainings of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rib.base.files import read_json
from rib.base.progress import log
from rib.records import provenance
from rib.schema.layout import Layout
from rib.schema.run import PRETRAINED, RUN_COLUMNS
from rib.statistics.inputs import Inputs

STAGES = ["finetune", "merge", "evaluate"]
JOB_COLUMNS = [
    "stage",
    *RUN_COLUMNS,
    "seconds",
    "images",
    "megabytes",
    "memory",
    "device",
    "record",
]
COST_COLUMNS = [
    "model",
    "method",
    "size",
    "device",
    "jobs",
    *STAGES,
    "seconds",
    "images",
    "megabytes",
    "memory",
]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table cost to write: seconds, megabytes and memory for one mRI, by model, method, size."""
    return {"cost": cost_of(**inputs.params)}


def jobs_of(records: Sequence[str]) -> pd.DataFrame:
    """One row per job: what it did, seconds, images, megabytes and device.

    Args:
        records: paths `.../<stage>/<model>/<target>/<method>/<size>/<seed>/...provenance.json`. If
            a file was not pulled, the gathered record is used.

    Returns:
        stage, model, target, method, size, seed, seconds (NaN without a record), images (of the
        manifest, in training once per epoch; 0 if unknown), megabytes of the outputs and memory
        (most megabytes of main memory that the process held; both NaN without a record), device
        (empty if unknown), record (path).
    """
    record_of_path = provenance.of_jobs(records)
    rows = []
    for path in records:
        manifest_path = Path(path.replace(provenance.ENDING, "manifest.json"))
        manifest = {}
        if manifest_path.is_file():
            manifest = read_json(manifest_path)
        device = manifest.get("device", "")
        seconds = np.nan
        megabytes = np.nan
        memory = np.nan
        if path in record_of_path:
            record = record_of_path[path]
            # Time with the GPU, or processor time.
            seconds = record["seconds"] if device == "cuda" else record["cpu_seconds"]
            bytes_of_files = record["sizes"].values()
            megabytes = sum(bytes_of_files) / 1e6
            memory = record["peak_memory"] / 1e6
        job_path = Path(path)
        row: dict[str, Any] = {"stage": Layout.stage_of(job_path)}
        row.update(asdict(Layout.run_of(job_path)))
        row["seconds"] = seconds
        row["images"] = manifest.get("images", 0)
        row["megabytes"] = megabytes
        row["memory"] = memory
        row["device"] = device
        row["record"] = path
        rows.append(row)
    return pd.DataFrame(rows, columns=JOB_COLUMNS)


def cost_table(jobs: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Seconds for one mRI of each model, method and size, in total and by stage.

    Args:
        jobs: one row per job, columns `JOB_COLUMNS`, from `jobs_of`.
        parents: methods to list, in order, each with the methods whose checkpoints it needs, such
            as {"ft": [], "wise_ft": ["ft"]}.

    Returns:
        model, method, size, device (devices of the jobs, joined by +), jobs, finetune, merge,
        evaluate, seconds, images (passed through training), megabytes (of fine-tuning and merging)
        and memory (megabytes of main memory of the training that held most; NaN if none trains). A
        method with a missing record is left out.
    """
    is_pretrained = jobs["method"] == PRETRAINED
    rows = []
    for (model, size), of_size in jobs[~is_pretrained].groupby(["model", "size"], sort=False):
        of_pretrained = jobs[(jobs["model"] == model) & is_pretrained]
        methods_with_jobs = set(of_size["method"])
        for method in parents:
            if method not in methods_with_jobs:
                continue
            needed = _jobs_of_method(of_size, method, parents)
            if needed["seconds"].isna().any() or of_pretrained["seconds"].isna().any():
                log.warning(
                    "cost of %s, %s: left out, since a job's record is missing", model, method
                )
                continue
            seeds = of_size[of_size["method"] == method]["seed"].nunique()
            cost = _cost_of_jobs(needed, of_pretrained, seeds)
            rows.append({"model": model, "method": method, "size": size, **cost})
    return pd.DataFrame(rows, columns=COST_COLUMNS).astype({"jobs": int, "images": int})


def _jobs_of_method(
    jobs: pd.DataFrame, method: str, parents: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """A method's own jobs, and trainings of the methods whose checkpoints it needs."""
    is_training = jobs["stage"] == "finetune"
    is_needed_training = jobs["method"].isin(_with_needed(method, parents)) & is_training
    is_own_other_job = (jobs["method"] == method) & ~is_training
    needed = jobs[is_needed_training | is_own_other_job]
    return needed.drop_duplicates("record")  # variants of a method share Fisher information


def _cost_of_jobs(
    jobs: pd.DataFrame, of_pretrained: pd.DataFrame, seeds: int
) -> dict[str, str | float]:
    """{"device": "cuda", "jobs": 24.0, "finetune": 3600.0, ..., "memory": 520.0}, per seed."""
    # `jobs` are of all seeds, `of_pretrained` evaluates the pretrained model.
    seconds_of_stages = jobs.groupby("stage")["seconds"].sum()
    seconds = seconds_of_stages.reindex(STAGES, fill_value=0.0) / seeds
    # The pretrained model is evaluated once for all seeds.
    seconds["evaluate"] += of_pretrained["seconds"].sum()
    trainings = jobs[jobs["stage"] == "finetune"]
    trainings_and_merges = jobs[jobs["stage"] != "evaluate"]
    devices = {*jobs["device"], *of_pretrained["device"]} - {""}
    return {
        "device": "+".join(sorted(devices)),
        "jobs": len(jobs) / seeds + len(of_pretrained),
        **{stage: seconds[stage] for stage in STAGES},
        "seconds": seconds.sum(),
        "images": trainings["images"].sum() / seeds,
        "megabytes": trainings_and_merges["megabytes"].sum() / seeds,
        "memory": trainings["memory"].max(),
    }


def _with_needed(method: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """The method and, recursively, the methods it needs: wise_ft gives {"wise_ft", "ft"}."""
    methods = {method}
    for parent in parents.get(method, ()):
        methods |= _with_needed(parent, parents)
    return methods


def cost_of(
    records: Sequence[str],
    evaluated: Mapping[str, Sequence[str]],
    fisher: Mapping[str, Sequence[str]],
    shared_fisher: Mapping[str, Sequence[str]],
    parents: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Cost of one mRI (mean RI over targets) by model, method and size: columns `COST_COLUMNS`.

    Jobs that compute Fisher information count as merges of the methods that need it or, if
    trainings on all targets share it, as trainings, once for each size. Methods that are evaluated
    together share the seconds.

    Args:
        records: paths of the jobs' records, as for `jobs_of`.
        evaluated: methods that each evaluation scores, by the method in its path, such as
            {"wise_ft-alpha": ["wise_ft-alpha0.25", "wise_ft-alpha0.5"]}.
        fisher: by method, records of the Fisher information that its merge needs.
        shared_fisher: by method, records of the Fisher information that its trainings on all
            targets share.
        parents: methods to list, each with the methods whose checkpoints it needs, such as
            {"ft": [], "wise_ft": ["ft"]}.
    """
    jobs = jobs_of(records)
    is_evaluation = jobs["stage"] == "evaluate"
    tables = [jobs[~is_evaluation], _by_method(jobs[is_evaluation], evaluated)]
    for method, paths in fisher.items():
        tables.append(jobs_of(paths).assign(method=method, stage="merge"))
    for method, paths in shared_fisher.items():
        sizes = jobs.loc[jobs["method"] == method, "size"].unique()
        for size in sizes:
            tables.append(jobs_of(paths).assign(method=method, stage="finetune", size=size))
    return cost_table(pd.concat(tables, ignore_index=True), parents)


def _by_method(evaluations: pd.DataFrame, evaluated: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row per evaluated method, with an equal share of the evaluation's seconds."""
    # Before, `method` is the one in the path of the job, which may evaluate several.
    methods = evaluations["method"].map(evaluated)
    seconds = evaluations["seconds"] / methods.map(len)
    return evaluations.assign(method=methods, seconds=seconds).explode("method")
