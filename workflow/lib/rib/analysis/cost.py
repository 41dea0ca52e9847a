"""What one mRI costs, per model and method, from the records that jobs left. No torch.

An mRI of a method takes, for every target, its fine-tuning and that of the methods it needs (a merge's parents, or what it
starts from), its merge, and its evaluation on all datasets; and once the pretrained model's evaluation. Seconds are those
that a job held its processor or GPU for; several seeds are averaged.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib import provenance
from rib.io import log, read_json, write_table
from rib.runs import PRETRAINED

STAGES = ["finetune", "merge", "evaluate"]
JOB = ["stage", "model", "target", "method", "size", "seed"]
COLUMNS = ["model", "method", "size", "device", "jobs", *STAGES, "seconds"]


def jobs_of(records: Iterable[str]) -> pd.DataFrame:
    """A line per job: stage, model, target, method, size, seed, seconds, device.

    Args:
        records: paths `.../<stage>/<model>/<target>/<method>/<size>/<seed>/...provenance.json`; of one that was not pulled,
            the gathered record is taken.

    Returns:
        seconds is NaN where there is no record, device empty where the job's manifest names none or was not pulled.
    """
    gathered = provenance.load()
    lines = []
    for path in records:
        found = provenance.read(Path(path)) or next(iter(gathered.get(path, [])), None)
        manifest = Path(path.replace(provenance.ENDING, "manifest.json"))
        device = read_json(manifest).get("device", "") if manifest.is_file() else ""
        lines.append((*Path(path).parts[-7:-1], found["seconds"] if found else float("nan"), device))
    return pd.DataFrame(lines, columns=[*JOB, "seconds", "device"])


def cost_table(jobs: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Seconds that one mRI of each model, method and size takes, in all and by stage.

    Args:
        jobs: see `jobs_of`.
        parents: of each method, the methods whose checkpoints it needs; the methods to list, in order.

    Returns:
        model, method, size, device (those of the jobs, joined by +), jobs, finetune, merge, evaluate, seconds; methods of
        which a job's record is missing are left out.
    """
    lines = []
    for (model, size), part in jobs[jobs["method"] != PRETRAINED].groupby(["model", "size"], sort=False):
        before = jobs[(jobs["model"] == model) & (jobs["method"] == PRETRAINED)]
        for method in [name for name in parents if name in set(part["method"])]:
            trained = part["method"].isin(_with_needed(method, parents)) & (part["stage"] == "finetune")
            own = part[trained | ((part["method"] == method) & (part["stage"] != "finetune"))]
            if own["seconds"].isna().any() or before["seconds"].isna().any():
                log.warning("cost of %s, %s: a job's record is missing, so it is left out", model, method)
                continue
            seeds = own["seed"].nunique()
            seconds = own.groupby("stage")["seconds"].sum().reindex(STAGES, fill_value=0.0) / seeds
            seconds["evaluate"] += before["seconds"].sum()
            devices = "+".join(sorted({*own["device"], *before["device"]} - {""}))
            lines.append((model, method, size, devices, len(own) / seeds + len(before), *seconds, seconds.sum()))
    return pd.DataFrame(lines, columns=COLUMNS).astype({"jobs": int})


def _with_needed(method: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """A method and those it needs, directly or not."""
    return {method}.union(*(_with_needed(parent, parents) for parent in parents.get(method, ())))


def write_costs(*, records: Iterable[str], parents: Mapping[str, Sequence[str]], conditions: str, table: Path) -> None:
    """Write the table of costs.

    Args:
        records, parents: see `jobs_of` and `cost_table`.
        conditions: what the numbers hang on besides their columns; the last column.
        table: the CSV.
    """
    costs = cost_table(jobs_of(records), parents).assign(conditions=conditions)
    write_table(table, costs, "%.2f")
