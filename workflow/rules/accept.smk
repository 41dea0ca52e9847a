# Accept results after a change of code that does not change them: a sample of the affected jobs is re-run in another
# folder, and if its outputs are identical, all results are kept (see rib.records.accept).

from code_changes import code_changes

# Their outputs contain times and so always differ; re-running them takes seconds.
TELL_TIMES = ("count_costs", "write_page")


def local_options():
    """Cores and GPUs of this call."""
    gpus = workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else None
    return [
        "--cores",
        str(workflow.cores),
        *([] if gpus is None else ["--resources", f"gpu={gpus}"]),
    ]


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
