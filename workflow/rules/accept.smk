# Accept results after a change of code that does not change them: a sample of the affected jobs is
# re-run in another folder, and if its outputs are identical, all results are kept (see
# rib.records.accept).

from code_changes import code_changes
from rib.records.settings import AcceptSettings, ChangedJob, MirrorSettings
from snakemake_internals.call import gpus_of

# Their outputs contain times and so always differ; re-running them takes seconds.
TELL_TIMES = ("count_costs", "write_page")


def local_options():
    """Snakemake's options for the cores and GPUs of this call: `--cores 4 --resources gpu=1`."""
    options = ["--cores", str(workflow.cores)]
    gpus = gpus_of(workflow)
    if gpus is not None:
        options += ["--resources", f"gpu={gpus}"]
    return options


def accept_settings(wildcards):
    """Settings of `snakemake accept`: which jobs have only changed code, and how to re-run some."""
    external = [str(Path(file).expanduser().resolve()) for file in CONFIG["external"]]
    changes = code_changes(workflow, GRID_RECORDS, [METRICS, REPORTS], TELL_TIMES)
    _, *own_catalog_folders = FOLDERS  # the first one is the project's
    settings = AcceptSettings(
        changes={path: ChangedJob(**change) for path, change in changes.items()},
        mirror=MirrorSettings(
            catalog_folders=own_catalog_folders,
            output_folders=["data/raw", f"results/{FAMILY}", REPORTS],
            config={**config, "external": external},
            options=local_options(),
        ),
    )
    return to_params(settings)


rule accept:
    log:
        "logs/accept.log",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        cfg=accept_settings,
    script:
        "../scripts/accept.py"
