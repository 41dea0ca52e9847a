# After a change of code that changes no bytes: a sample of the jobs that it touches is made anew elsewhere, and where its
# bytes are the same, the results of the rest are kept (see rib.accept).

# What they write differs from run to run; they are made anew, which takes seconds.
TELL_TIMES = ("count_costs", "write_page")


rule accept:
    log:
        "logs/accept.log",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        cfg=lambda w: {
            "changes": code_changes(workflow, GRID_RECORDS, REPORTS, TELL_TIMES),
            "mirror": {
                "linked": FOLDERS[1:],
                "made": ["data/raw", f"results/{FAMILY}", REPORTS],
                "config": config,
                "cores": workflow.cores,
                "gpus": workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else None,
            },
        },
    script:
        "../scripts/accept.py"
