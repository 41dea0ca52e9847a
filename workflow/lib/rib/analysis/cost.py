"""Cost of one mRI per model and method, from the records of the jobs. No torch.

The cost of a method's mRI covers, for every target, the fine-tuning of the method and of the methods it needs (parents
of a merge, or the method it starts from), its merge, and its evaluation on all datasets; also one evaluation of the
pretrained model. Seconds are the time for which a job held its processor or GPU; seeds are averaged, but a merge over seeds
needs the trainings of all.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import read_json, write_table
from rib.base.progress import log
from rib.config.run import PRETRAINED
from rib.records import provenance

STAGES = ["finetune", "merge", "evaluate"]


def jobs_of(records: Iterable[str]) -> pd.DataFrame:
    """One row per job: stage, model, target, method, size, seed, seconds, device.

    Seconds is NaN without a record, and device is empty if the manifest has none or was not pulled.

    Args:
        records: paths `.../<stage>/<model>/<target>/<method>/<size>/<seed>/...provenance.json`; if a file was not
            pulled, the gathered record is used.
    """
    gathered = provenance.load()
    lines = []
    for path in records:
        found = provenance.read(Path(path)) or next(iter(gathered.get(path, [])), None)
        manifest = Path(path.replace(provenance.ENDING, "manifest.json"))
        device = read_json(manifest).get("device", "") if manifest.is_file() else ""
        lines.append((*Path(path).parts[-7:-1], found["seconds"] if found else float("nan"), device))
    return pd.DataFrame(lines, columns=["stage", "model", "target", "method", "size", "seed", "seconds", "device"])


def cost_table(jobs: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Seconds for one mRI of each model, method and size, in total and by stage.

    Args:
        parents: methods to list, in order, each with the methods whose checkpoints it needs.

    Returns:
        model, method, size, device (devices of the jobs, joined by +), jobs, finetune, merge, evaluate, seconds;
        methods with a missing job record are left out.
    """
    lines = []
    for (model, size), part in jobs[jobs["method"] != PRETRAINED].groupby(["model", "size"], sort=False):
        before = jobs[(jobs["model"] == model) & (jobs["method"] == PRETRAINED)]
        for method in [name for name in parents if name in set(part["method"])]:
            trained = part["method"].isin(_with_needed(method, parents)) & (part["stage"] == "finetune")
            own = part[trained | ((part["method"] == method) & (part["stage"] != "finetune"))]
            if own["seconds"].isna().any() or before["seconds"].isna().any():
                log.warning("cost of %s, %s: left out, since a job's record is missing", model, method)
                continue
            seeds = part[part["method"] == method]["seed"].nunique()
            seconds = own.groupby("stage")["seconds"].sum().reindex(STAGES, fill_value=0.0) / seeds
            seconds["evaluate"] += before["seconds"].sum()
            devices = "+".join(sorted({*own["device"], *before["device"]} - {""}))
            lines.append((model, method, size, devices, len(own) / seeds + len(before), *seconds, seconds.sum()))
    columns = ["model", "method", "size", "device", "jobs", *STAGES, "seconds"]
    return pd.DataFrame(lines, columns=columns).astype({"jobs": int})


def _with_needed(method: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """A method and all methods it needs, directly or indirectly."""
    return {method}.union(*(_with_needed(parent, parents) for parent in parents.get(method, ())))


def write_costs(*, records: Iterable[str], parents: Mapping[str, Sequence[str]], conditions: str, table: Path) -> None:
    """Write `cost_table` of the jobs with these records (see `jobs_of`)."""
    write_table(table, cost_table(jobs_of(records), parents).assign(conditions=conditions), "%.2f")
