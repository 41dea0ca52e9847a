"""What the user asked of this call of Snakemake, which has no documented interface for it."""


def gpus_of(workflow) -> int | None:
    """GPUs of `--resources gpu=N`; None if the user set no number (`global_resources`)."""
    gpus = workflow.global_resources.get("gpu")
    return None if gpus is None else gpus.value


def stated_cores_of(workflow) -> int | None:
    """Cores of `--cores N`; None where none are set, as on a cluster (`_cores`)."""
    return workflow._cores
