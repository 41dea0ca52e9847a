# Accept results after a change of code that does not change them: a sample of the affected jobs is re-run in another
# folder, and if its outputs are identical, all results are kept (see rib.records.accept).

from code_changes import code_changes
from snakemake_internals.call import gpus_of

# Their outputs contain times and so always differ; re-running them takes seconds.
TELL_TIMES = ("count_costs", "write_page")


def local_options():
    """Cores and GPUs of this call."""
    options = ["--cores", str(workflow.cores)]
    gpus = gpus_of(workflow)
    if gpus is not None:
        options += ["--resources", f"gpu={gpus}"]
    return options


rule accept:
    log:
        "logs/accept.log",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        cfg=lambda w: {
            "changes": code_changes(workflow, GRID_RECORDS, [METRICS, REPORTS], TELL_TIMES),
            "mirror": {
                "linked": FOLDERS[1:],
                "made": ["data/raw", f"results/{FAMILY}", REPORTS],
                "config": {
                    **config,
                    "external": [
                        str(Path(it).expanduser().resolve()) for it in CONFIG["external"]
                    ],
                },
                "options": local_options(),
            },
        },
    script:
        "../scripts/accept.py"
