# Shared by all rules: configuration, grid, paths, wildcards, and functions for several stages.
# Other rule files use only their own names and these.

import os
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")
WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(WORKFLOW / "rules"))

from rib.base.errors import UserError  # noqa: E402
from rib.base.files import refuse_unwritable  # noqa: E402
from rib.base.processors import refuse_fewer_processors  # noqa: E402
from rib.base.progress import print_lines  # noqa: E402
from rib.base.params import from_params, to_params  # noqa: E402
from rib.catalog.catalog import Catalog  # noqa: E402
from rib.schema.config import config_of  # noqa: E402
from rib.grid.evaluation_groups import evaluation_groups  # noqa: E402
from rib.schema.forms import COEFFICIENTS, CURVE, MERGES, SELECT  # noqa: E402
from rib.grid.grid import resolve_grid  # noqa: E402
from rib.grid.labels import GridLabels  # noqa: E402
from rib.schema.messages import known_name  # noqa: E402
from rib.grid.memory import MEGABYTES_OF_LARGE_DATASETS, NetworkMemory  # noqa: E402
from rib.grid.paths import Paths, manifest_of  # noqa: E402
from rib.schema.run import (
    ALL,
    LOADED,
    NO_TARGET,
    PRETRAINED,
    RUN_COLUMNS,
    Run,
    parent_of,
)  # noqa: E402
from rib.schema.yaml_files import read_yaml  # noqa: E402
from rib.data import grid_views, variables  # noqa: E402
from rib.evaluation.evaluation_settings import MergeSettings  # noqa: E402
from rib.jobs import code_digest  # noqa: E402
from rib.jobs.gpu_lock import JOBS_PER_GPU, uncounted_gpus  # noqa: E402
from rib.models.model_settings import GPUS, ComputeSettings  # noqa: E402
from rib.report.about import describe_grid  # noqa: E402
from rib.report.described import analyses_of_page, described_analyses  # noqa: E402
from rib.report.run_times import RunTimes  # noqa: E402

# Snakemake would silently keep the last of two equal keys.
config_of(read_yaml(Path("config.yaml")), "config.yaml")


configfile: "config.yaml"


CONFIG = config_of(config, "config.yaml or --config")
OWN_FOLDERS = [CONFIG["catalog"]] if isinstance(CONFIG["catalog"], str) else CONFIG["catalog"]
FOLDERS = [str(WORKFLOW / "catalog"), *OWN_FOLDERS]
GRID = resolve_grid(CONFIG, Catalog(FOLDERS, CONFIG["external"]))
CATALOG = GRID.catalog  # with models and files that config names by their place on the hub
PATHS = Paths(GRID)
LABELS = GridLabels(GRID)

# Otherwise Snakemake deletes outdated outputs before a job finds that it cannot write.
refuse_unwritable(".", ".snakemake", "logs", "work", f"results/{GRID.family.name}", PATHS.report)
for DATASET in GRID.datasets_read():  # an invalid class map fails before any job runs
    CATALOG.label_space(DATASET)
    CATALOG.icons(DATASET)
# Archives that are there may be another user's, in a folder that is only read.
for ENTRY in [*GRID.datasets_read(), *GRID.models.values()]:
    refuse_unwritable(*(path for path in PATHS.archives(ENTRY) if not os.path.exists(path)))
print_lines(*GRID.notices, file=sys.stderr)

GPU = 0 if CONFIG["compute"]["device"] == "cpu" else 1  # each job's share of --resources gpu=N
# `global_resources` is public, but Snakemake's docs do not mention it.
GPUS_GIVEN = workflow.global_resources.get("gpu").value
# What to say where GPUs are seen and their number was not given; the Snakefile refuses to start.
UNCOUNTED_GPUS = None
# Snakemake has no number of cores if a cluster runs the jobs.
with suppress(WorkflowError):
    refuse_fewer_processors(workflow.cores)
    if GPU and GPUS_GIVEN is None and workflow.is_main_process:
        UNCOUNTED_GPUS = uncounted_gpus(CONFIG["compute"]["jobs_per_gpu"])
if UNCOUNTED_GPUS is not None:
    print_lines(UNCOUNTED_GPUS, file=sys.stderr)

# Settings of the machine reach jobs as environment variables, so a change repeats no job.
variables.set_from(CONFIG)
os.environ[JOBS_PER_GPU] = str(CONFIG["compute"]["jobs_per_gpu"])
os.environ[GPUS] = str(GPUS_GIVEN or 0)
os.environ.update(RIB_SNAKEMAKE=str(os.getpid()))  # scripts/_run.py

FAMILY = GRID.family.name
REPORT = PATHS.report  # folder of tables, figures and page
ANALYSES = described_analyses(GRID, PATHS, CONFIG["analyses"])
PAGE_ANALYSES = analyses_of_page(ANALYSES, PATHS)
REPORTING = WORKFLOW / "lib/rib/report"
EVALUATION_GROUPS = evaluation_groups(GRID)
DATASETS_READ = GRID.datasets_read()
# Datasets whose images are kept encoded: all that jobs read, then only evaluated ones.
LARGE_DATASETS_READ = {entry.name for entry in DATASETS_READ if entry.storage == "encoded"}
LARGE_DATASETS = LARGE_DATASETS_READ & set(GRID.datasets)
ENSEMBLES = [name for name, method in GRID.methods.items() if method.form == "ensemble"]
ABOUT = describe_grid(GRID)  # for the page and model cards
CONDITIONS = "; ".join(ABOUT.conditions)
# Class names of the family; None for ImageNet's, which libraries know.
CLASS_NAMES = None
if GRID.family.classes.format == "own":
    CLASS_NAMES = list(CATALOG.family_label_space(FAMILY).names)
COMPUTE = ComputeSettings(
    device=CONFIG["compute"]["device"],
    threads_per_job=CONFIG["compute"]["threads_per_job"],
    precision=CONFIG["compute"]["precision"],
    compile=CONFIG["compute"]["compile"],
    deterministic=CONFIG["compute"]["deterministic"],
    expects_gpu=GRID.family.expects_gpu,
)
EVALUATION_BATCH_SIZE = CONFIG["compute"]["evaluation_batch_size"]
MEMORY = NetworkMemory(GRID)
MEMORY.refuse_what_does_not_fit()
RUN_TIMES = RunTimes(GRID, Path("results", FAMILY))


@cache
def view_of(model, *datasets):
    """How a job of a model reads datasets; it must read no others."""
    return grid_views.view_of(GRID, model, datasets)


def view_at(geometry, *datasets):
    """How a job reads datasets at a geometry."""
    return grid_views.view_at(GRID, PATHS.geometries[geometry], datasets)


wildcard_constraints:
    dataset="|".join(CATALOG.datasets),
    model="[A-Za-z0-9_.-]+",
    method="[A-Za-z0-9_.-]+",
    target="[A-Za-z0-9_]+",
    size="[A-Za-z0-9_.]+",
    seed="[0-9]+",
    group="|".join(EVALUATION_GROUPS),
    family=re.escape(FAMILY),
    protocol=re.escape(CONFIG["protocol"]),
    entry="[A-Za-z0-9_.-]+",
    geometry="[A-Za-z0-9_.-]+",


def local(path):
    """A path, relative to the project if it is inside, so a moved project keeps its results.

    /home/me/project/data/noto gives data/noto; /data/noto stays.
    """
    path = Path(path).resolve()
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def digest(stage, *modules):
    """Digest of the source code of a script (`stage` is its name without .py) and modules."""
    script = code_digest.script_of(stage, WORKFLOW / "scripts")
    return code_digest.digest(script, *map(Path, modules))


def of_form(*forms):
    """Wildcard constraint for the grid's methods of some forms: `soup|wise_ft`.

    Without such a method, the pattern matches nothing.
    """
    return any_of(name for name, method in GRID.methods.items() if method.form in forms)


def any_of(names):
    """Wildcard constraint for some names; without names, a pattern that matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


# Whether a job that may use a GPU has one; with `device: auto` a CPU computes without one.
HAS_GPU = GPU == 1 and (COMPUTE.device == "cuda" or COMPUTE.expects_gpu or os.environ[GPUS] != "0")
# Threads that decode images, if config leaves them to the job. At 0.88 ms for a JPEG of 224 px, 8
# threads decode 9,000 a second.
DECODERS = 4
DECODERS_BESIDE_GPU = 8
# Beside the threads that decode, one starts the GPU's work and one reads ahead and pins memory.
OTHER_THREADS_OF_GPU_JOB = 2
FEWEST_PROCESSORS_OF_GPU_JOB = 4


def decode_workers(beside_gpu):
    """Threads that decode the encoded images of a job, while a GPU computes or not."""
    if CONFIG["compute"]["decode_workers"] != "default":
        return CONFIG["compute"]["decode_workers"]
    return DECODERS_BESIDE_GPU if beside_gpu else DECODERS


def processors_of_gpu_job(wildcards, threads):
    """Processors that SLURM gives a job on a GPU; elsewhere Snakemake reserves threads."""
    if not GPU:
        return threads
    return max(FEWEST_PROCESSORS_OF_GPU_JOB, threads + OTHER_THREADS_OF_GPU_JOB)


def number_of_attempt(wildcards, attempt):
    """Number of times, from 1, that Snakemake started a job in this call (for rib.jobs.script)."""
    return attempt


def time_limit(minutes):
    """Minutes that a cluster may give a job, no more than config allows."""
    return min(minutes, CONFIG["compute"]["max_runtime"])


# Resources of each job that computes with a network.
GPU_JOB = {"gpu": GPU, "cpus_per_task": processors_of_gpu_job, "attempt": number_of_attempt}


def memory_of(datasets, usual):
    """Megabytes of a job: `usual`, or more if a very large dataset adds its index and rows."""
    if LARGE_DATASETS_READ.intersection(datasets):
        return usual + MEGABYTES_OF_LARGE_DATASETS
    return usual


def memory_of_training(wildcards, datasets, attempt):
    """Megabytes of a job that trains a model on datasets; a repeated job asks for more."""
    megabytes = MEMORY.training_on_host(
        wildcards.model,
        wildcards.get("method"),
        wildcards.get("target"),
        wildcards.get("size", ALL),
    )
    return attempt * memory_of(datasets, megabytes)


def memory_of_evaluation(wildcards, datasets, attempt):
    """Megabytes of a job with a run's networks and datasets; a repeated job asks for more."""
    networks = MEMORY.networks_of(wildcards.method)
    return attempt * memory_of(datasets, MEMORY.evaluation_on_host(wildcards.model, networks))


def threads_for(datasets):
    """Threads that Snakemake reserves for a job that reads datasets.

    Torch computes in `threads_per_job` of them. Scripts decode images in all of them.
    """
    if LARGE_DATASETS_READ.intersection(datasets):
        return max(COMPUTE.threads_per_job, decode_workers(beside_gpu=HAS_GPU))
    return COMPUTE.threads_per_job


def dataset_inputs(role, dataset, geometry):
    """Inputs of a job that reads a dataset's images; most names begin with the role.

    For example "target", "dataset_files", "target_proxy" and "target_split".
    """
    return {
        role: PATHS.prepared("manifest.json", dataset, geometry),
        "dataset_files": ancient(PATHS.prepared_files(geometry, [dataset])),
        f"{role}_proxy": PATHS.proxy(geometry, [dataset]),
        f"{role}_split": PATHS.split(geometry, dataset),
    }


def reference_inputs(role, model):
    """Manifest and split of the pretraining proxy, such as "reference" and "reference_split".

    The split is an empty list if the proxy is a part of a dataset.
    """
    name = GRID.reference.dataset.name
    geometry = PATHS.geometry_of(model)
    is_whole_dataset = GRID.reference.images_per_class is None
    return {
        role: PATHS.prepared("manifest.json", name, geometry),
        f"{role}_split": PATHS.split(geometry, name) if is_whole_dataset else [],
    }


def network_files(run):
    """Inputs for building a run's network, by name.

    Large files are `ancient`, since jobs watch their manifests instead.
    """
    parents = PATHS.parents[run.method]
    is_selected = run.method != PRETRAINED and GRID.methods[run.method].form == SELECT
    return {
        "model": PATHS.model("manifest.json", run.model),
        "weights": ancient(PATHS.model("weights.safetensors", run.model)),
        "selection": PATHS.selection(run) if is_selected else [],
        "checkpoint_manifests": PATHS.checkpoints("manifest.json", run, parents),
        "checkpoints": ancient(PATHS.checkpoints("checkpoint.safetensors", run, parents)),
        "fisher_manifests": PATHS.fisher("manifest.json", run),
        "fisher": ancient(PATHS.fisher("safetensors", run)),
    }


def network_inputs(wildcards):
    """Inputs of a job that passes images through a run's network, by name.

    The images are the wildcard's dataset or, without one, the target.
    """
    return {
        **network_files(Run.from_wildcards(wildcards)),
        **dataset_inputs(
            "dataset",
            wildcards.get("dataset", wildcards.target),
            PATHS.geometry_of(wildcards.model),
        ),
    }


def merge_of(method, settings_of_networks):
    """How the networks of a method are merged; None if they aren't, or were selected.

    `settings_of_networks` has the settings of each network by its method.
    """
    chosen = GRID.methods.get(method)  # None for the pretrained model
    if chosen is None or chosen.form not in (COEFFICIENTS, CURVE, *LOADED):
        return None
    return MergeSettings(
        form=chosen.form,
        algorithm=local(CATALOG.algorithm_file(chosen.algorithm)),
        settings=settings_of_networks,
    )


def merge_of_run(method):
    """How the network of a method's run is merged; None if it isn't, or was selected."""
    if method == PRETRAINED:
        return None
    return merge_of(method, {method: GRID.methods[method].settings})


def network_settings(wildcards):
    """Fields of the settings of a job that passes images through a run's network, without `code`.

    The images are the wildcard's dataset, else the target. The pretrained model has no target and
    gets the pretraining proxy's dataset.
    """
    dataset = wildcards.get("dataset", wildcards.target)
    if dataset == NO_TARGET:
        dataset = GRID.reference.dataset.name
    return {
        "parents": PATHS.parents[wildcards.method],
        "merge": merge_of_run(wildcards.method),
        "view": view_of(wildcards.model, dataset),
        "evaluation_batch_size": EVALUATION_BATCH_SIZE,
        "compute": COMPUTE,
    }


def digest_with_merge(script, method):
    """Digest of a script's code, with the algorithm if the method is a merge."""
    if method == PRETRAINED or GRID.methods[method].form not in MERGES:
        return digest(script)
    return digest(script, CATALOG.algorithm_file(GRID.methods[method].algorithm))


def inputs_of_metrics(runs):
    """Inputs of a job that computes accuracies, RI and mRI of runs, by name."""
    rows = PATHS.rows(runs)
    indexes = PATHS.indexes()
    return {
        "rows": ancient(rows),
        "row_manifests": PATHS.manifests(rows),
        "indexes": ancient(indexes),
        "classes": ancient(PATHS.classes()),
        "prepared": list(map(manifest_of, indexes)),
        "proxy": PATHS.proxy(PATHS.first_geometry, GRID.datasets),
        "splits": PATHS.splits(PATHS.first_geometry, GRID.datasets),
    }
