"""Cost of one mRI per model and method, from the records of the jobs. No torch.

The cost of a method's mRI covers, for every target, the fine-tuning of the method and of the methods it needs (parents
of a merge, or the method it starts from), once the Fisher information that trainings on all targets share, its merge with the Fisher information that it needs, and its evaluation on all
datasets; also one evaluation of the pretrained model. Seconds are those for which a job held its GPU, and on a CPU its
processor time, which other work on the machine doesn't change; seeds are averaged, but a merge over seeds needs the trainings
of all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import read_json
from rib.base.progress import log
from rib.config.run import PRETRAINED
from rib.records import provenance

STAGES = ["finetune", "merge", "evaluate"]
JOB = [
    "stage",
    "model",
    "target",
    "method",
    "size",
    "seed",
    "seconds",
    "images",
    "megabytes",
    "device",
    "record",
]


def jobs_of(records: Sequence[str]) -> pd.DataFrame:
    """One row per job: stage, model, target, method, size, seed, seconds, images, megabytes, device, and its record.

    Images are those of its manifest, in training counted once per epoch, and megabytes those of its outputs. Without a record
    seconds and megabytes are NaN; if a manifest has no images or device or was not pulled, those are 0 and empty.

    Args:
        records: paths `.../<stage>/<model>/<target>/<method>/<size>/<seed>/...provenance.json`; if a file was not
            pulled, the gathered record is used.
    """
    made, lines = provenance.of_jobs(records), []
    for path in records:
        manifest = Path(path.replace(provenance.ENDING, "manifest.json"))
        said = read_json(manifest) if manifest.is_file() else {}
        device, spent = said.get("device", ""), (float("nan"), float("nan"))
        if found := made.get(path):
            spent = (
                found["seconds" if device == "cuda" else "cpu_seconds"],
                sum(found["sizes"].values()) / 1e6,
            )
        lines.append(
            (*Path(path).parts[-7:-1], spent[0], said.get("images", 0), spent[1], device, path)
        )
    return pd.DataFrame(lines, columns=JOB)


def cost_table(jobs: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Seconds for one mRI of each model, method and size, in total and by stage.

    Args:
        parents: methods to list, in order, each with the methods whose checkpoints it needs.

    Returns:
        model, method, size, device (devices of the jobs, joined by +), jobs, finetune, merge, evaluate, seconds, images
        (passed through training) and megabytes (of fine-tuning and merging); methods with a missing record are left out.
    """
    lines = []
    for (model, size), part in jobs[jobs["method"] != PRETRAINED].groupby(
        ["model", "size"], sort=False
    ):
        before = jobs[(jobs["model"] == model) & (jobs["method"] == PRETRAINED)]
        for method in [name for name in parents if name in set(part["method"])]:
            trained = part["method"].isin(_with_needed(method, parents)) & (
                part["stage"] == "finetune"
            )
            own = part[trained | ((part["method"] == method) & (part["stage"] != "finetune"))]
            own = own.drop_duplicates("record")  # variants of a method share Fisher information
            if own["seconds"].isna().any() or before["seconds"].isna().any():
                log.warning(
                    "cost of %s, %s: left out, since a job's record is missing", model, method
                )
                continue
            seeds = part[part["method"] == method]["seed"].nunique()
            seconds = own.groupby("stage")["seconds"].sum().reindex(STAGES, fill_value=0.0) / seeds
            seconds["evaluate"] += before["seconds"].sum()
            devices = "+".join(sorted({*own["device"], *before["device"]} - {""}))
            images = own.loc[own["stage"] == "finetune", "images"].sum() / seeds
            stored = own.loc[own["stage"] != "evaluate", "megabytes"].sum() / seeds
            jobs_needed = len(own) / seeds + len(before)
            lines.append(
                (model, method, size, devices, jobs_needed, *seconds, seconds.sum(), images, stored)
            )
    columns = [
        "model",
        "method",
        "size",
        "device",
        "jobs",
        *STAGES,
        "seconds",
        "images",
        "megabytes",
    ]
    return pd.DataFrame(lines, columns=columns).astype({"jobs": int, "images": int})


def _with_needed(method: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """A method and all methods it needs, directly or indirectly."""
    return {method}.union(*(_with_needed(parent, parents) for parent in parents.get(method, ())))


def cost_of(
    *,
    records: Sequence[str],
    fisher: Mapping[str, Sequence[str]],
    shared_fisher: Mapping[str, Sequence[str]],
    parents: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """`cost_table` of the jobs with these records (see `jobs_of`).

    Args:
        fisher: records of the Fisher information that a merge needs, by method.
        shared_fisher: records of the Fisher information that a method's trainings on all targets share, by method.
    """
    jobs = jobs_of(records)
    merging = [
        jobs_of(paths).assign(method=method, stage="merge") for method, paths in fisher.items()
    ]
    training = [
        jobs_of(paths).assign(method=method, stage="finetune", size=size)
        for method, paths in shared_fisher.items()
        for size in jobs.loc[jobs["method"] == method, "size"].unique()
    ]
    return cost_table(pd.concat([jobs, *merging, *training], ignore_index=True), parents)
