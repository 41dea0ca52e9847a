"""What the rules give to each job, as Snakemake reads it from the rules' files.

No job runs and no file is needed. Snakemake loads the workflow in a process of its own, one for
each grid. There, `rib.jobs.code_digest.digest` is replaced by a function that names the files of
which a digest is made, so that the settings of a job say which code its rule counts.
"""

import contextlib
import importlib
import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "workflow/lib/rib"


@dataclass(frozen=True)
class Grid:
    """What is read of the rules.

    Attributes:
        targets: rules or files, as they are given to `snakemake`.
        config: what is chosen, instead of the values of config.yaml.
    """

    targets: tuple[str, ...]
    config: Mapping


@dataclass(frozen=True)
class Job:
    """What a rule gives to one job.

    Attributes:
        rule: its name.
        script: file name without the ending; empty if the rule runs nothing.
        wildcards: values by name.
        inputs: paths by name; an input that is one path is a list of one.
        is_list: whether an input is a list of paths, by name.
        watched: input paths whose change makes the job run again, which are those that are not
            `ancient`.
        outputs: paths by name.
        settings: `params.cfg`.
        not_json: names of parameters that JSON would change; Snakemake would not see all their
            changes.
        code: files of which the code digest is made, the script first; relative to workflow/,
            lib/rib/ left out.
    """

    rule: str
    script: str
    wildcards: dict[str, str]
    inputs: dict[str, list[str]]
    is_list: dict[str, bool]
    watched: list[str]
    outputs: dict[str, str]
    settings: dict
    not_json: list[str]
    code: list[str]


# A few small grids that have jobs of all rules, and together something for every input.
REPORTS = ("all", "paper", "export")
GRIDS = {
    "drawings": Grid(
        targets=(
            *REPORTS,
            "learning_rates",
        ),
        config={
            "family": "emoji",
            "analyses": "all",
            "leak_free": True,  # `noto_corrupted` shares images with the target `noto`
            "datasets": ["noto", "noto_corrupted", "openmoji", "twemoji"],
            "targets": ["noto", "openmoji"],
            "models": ["efficientnet_lite0"],
            "methods": [
                *("ft", "lwf", "ewc", "lp_ft", "wise_ft", "wise_ft_curve"),
                *("fisher", "dawin", "soup_targets"),
            ],
            "method_settings": {"wise_ft": {"alpha": [0.25, 0.5]}},
            "select": "leave_one_out",
            "monitor": ["openmoji"],
        },
    ),
    "clothes, held out": Grid(
        targets=(*REPORTS, "learning_rates", "pretrain_again"),
        config={
            "family": "fashion",
            "protocol": "held_out",
            "catalog": "mine",
            "models": ["fashion_cnn_50k", "own_cnn"],
            "targets": ["fashion_edges"],
            "train_subset": ["all", 20],
            "methods": ["ft", "greedy_soup_sweep", "lp_ft", "l2_sp"],
            "method_settings": {
                "ft": {"lr": [0.1, 0.2]},
                "linear_probe": {"lr": [0.01, 0.015]},
                "lp_ft": {"lr": 0.01},
                "l2_sp": {"lr": {"fashion_cnn_50k": 0.003, "other": 0.001}},
            },
            "select": "target",
            "monitor": ["fashion_edges"],
            "external": ["theirs.csv"],
        },
    ),
    "photos": Grid(
        targets=(*REPORTS, "published", "slices"),
        config={
            "family": "imagenet",
            # All but imagenet_r and imagenet_v2 share images with the pretraining proxy, a part of
            # imagenet_val.
            "datasets": [
                "imagenet_val",
                "imagenet_v2",
                "imagenet_r",
                "imagenet_cartoon",
                "imagenet_c",
            ],
            "targets": ["imagenet_r", "imagenet_c", "imagenet_train"],
            "models": ["ViT-B-32.openai", "resnet18.tv_in1k"],
            "methods": ["ft", "ewc", "flyp", "soup_targets"],
            "recipes": ["paper"],
            "method_settings": {"ft": {"recipe": "paper"}},
            "train_subset": [1000],  # of IN-C for fewer steps than of the whole
            "monitor": ["imagenet_cartoon"],
            "analyses": ["epochs", "stir"],
            "representations": {"methods": ["ft"], "targets": ["imagenet_c"]},
        },
    ),
    "photos, held out": Grid(
        targets=REPORTS,
        config={
            "family": "imagenet",
            "protocol": "held_out",
            "reference": "imagenet_train",  # whole, so that it has a split of its own
            "datasets": ["imagenet_val", "imagenet_v2", "imagenet_r", "imagenet_cartoon"],
            "targets": ["imagenet_r", "imagenet_cartoon"],
            "models": ["vit_base_patch16_224.dino"],  # without a head
            "methods": ["ewc", "replay", "soup_targets"],
            "recipes": ["paper"],
            "method_settings": {"ft": {"recipe": "paper"}},
            "train_subset": ["all"],
            "analyses": ["epochs", "stir"],
            "representations": {"methods": ["replay"], "targets": ["imagenet_cartoon"]},
        },
    ),
    "replicates": Grid(
        targets=("all", "tables", "figures"),
        config={
            "family": "fashion",
            "catalog": "mine",
            "models": ["fashion_cnn_1k", "fashion_cnn_1k_seed1", "own_cnn"],
            "methods": ["ft"],
            "targets": ["fashion_edges"],
        },
    ),
}
THEIRS = """model,target,method,seed,size,file,label
own_cnn,fashion_edges,theirs,0,all,weights.pth,Theirs
own_cnn,fashion_edges,theirs,0,20,weights.pth,Theirs
fashion_cnn_50k,fashion_edges,theirs,0,all,weights.pth,Theirs
fashion_cnn_50k,fashion_edges,theirs,0,20,weights.pth,Theirs
"""
# A network that is pretrained here.
OWN_CNN = """own_cnn:
  families: [fashion]
  label: Own CNN
  group: Own CNNs
  type: cnn
  pretraining: Fashion-MNIST, 7,000 photos
  library: timm
  architecture: resnet10t
  pretrain:
    {dataset: fashion_train, size: 7000, test: fashion, recipe: adamw, lr: 0.002, steps: 9,
    batch_size: 8}
  preprocessing:
    {input_size: 32, crop_pct: 1.0, interpolation: bicubic, mean: [0.5, 0.5, 0.5],
    std: [0.5, 0.5, 0.5]}
  licence: MIT
  style: {colour: "#009E73", marker: d}
"""
FILES = {"theirs.csv": THEIRS, "weights.pth": "", "mine/models.yaml": OWN_CNN}


def read_jobs(
    grids: Mapping[str, Grid], files: Mapping[str, str] | None = None
) -> dict[str, list[Job]]:
    """Jobs of each grid, those that its targets need included.

    Snakemake is called in a new folder.

    Args:
        grids: by name.
        files: text of files that a grid names, by path relative to the folder in which Snakemake
            is called.
    """
    request = {
        "grids": {name: asdict(grid) for name, grid in grids.items()},
        "files": dict(files or {}),
    }
    # -P: modules beside this one have names of plugins
    command = [sys.executable, "-P", __file__]
    completed = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    jobs_of_grids = {}
    for name, jobs in json.loads(completed.stdout).items():
        jobs_of_grids[name] = [Job(**job) for job in jobs]
    return jobs_of_grids


def _describe_all(request: Mapping) -> dict[str, list[dict]]:
    """Describe each grid in a fork of this process, which has imported Snakemake."""
    described = {}
    for name, grid in request["grids"].items():
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(readable)
            with os.fdopen(writable, "w") as answer:
                jobs = _describe(Grid(**grid), request["files"])
                json.dump([asdict(job) for job in jobs], answer, default=_as_json)
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable) as answer:
            text = answer.read()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"the rules can't be read for the grid '{name}', see above")
        described[name] = json.loads(text)
    return described


def _describe(grid: Grid, files: Mapping[str, str]) -> list[Job]:
    """Jobs that a grid's targets need, each before those that it needs itself."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        all_files = {"config.yaml": (ROOT / "config.yaml").read_text(), **files}
        for relative_path, text in all_files.items():
            path = Path(folder) / relative_path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()), _loaded_workflow(grid.config) as workflow:
            return list(_needed(workflow, grid.targets))


@contextlib.contextmanager
def _loaded_workflow(config: Mapping):
    """Snakemake's object of the workflow, which has read all rules."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
    )

    sys.path.insert(0, str(ROOT / "workflow/lib"))
    from rib.jobs import code_digest

    code_digest.digest = _files_of_code
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        loaded = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config=dict(config)),
            snakefile=ROOT / "Snakefile",
            workdir=Path.cwd(),
        )
        loaded.dag()  # reads the rules
        yield loaded._workflow


def _files_of_code(script: Path, *modules: Path) -> str:
    """In place of a digest: the files whose code it is of, a line each.

    A digest has the code of all that they import, too.
    """
    return "\n".join(_short(path) for path in (script, *modules))


def _short(path: Path) -> str:
    """`scripts/finetune.py` or `methods/lwf.py`; other files are absolute."""
    path = Path(path).resolve()
    for folder in (LIBRARY, ROOT / "workflow"):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)


def _needed(workflow, targets: Iterable[str]):
    """Jobs of targets and, recursively, of the files that they need.

    A file that no rule makes is somebody's own.
    """
    from snakemake.iocontainers import Wildcards

    described = set()
    waiting = list(targets)
    while waiting:
        target = waiting.pop()
        if workflow.is_rule(target):
            rule = workflow.get_rule(target)
            wildcards = Wildcards()
        else:
            rule = _producer(workflow, target)
            if rule is None:
                continue
            wildcards = Wildcards(fromdict=rule.get_wildcards(target))
        name = (rule.name, *sorted(wildcards.items()))
        if name not in described:
            described.add(name)
            job, inputs = _job(rule, wildcards)
            waiting.extend(inputs)
            yield job


def _producer(workflow, path: str):
    """The first rule that makes a file, or None."""
    for rule in workflow.rules:
        if rule.is_producer(path):
            return rule
    return None


def _job(rule, wildcards) -> tuple[Job, list[str]]:
    """What a rule gives to one job, and all paths of its inputs."""
    from snakemake.io import is_flagged

    all_inputs = rule.expand_input(wildcards)[0]
    inputs = {}
    is_list = {}
    for name, paths in all_inputs.items():
        is_list[name] = not isinstance(paths, str)
        inputs[name] = [str(path) for path in paths] if is_list[name] else [str(paths)]
    parameters = {}
    for name, value in rule.params.items():
        if not callable(value):
            parameters[name] = value
        elif "input" in inspect.signature(value).parameters:
            parameters[name] = value(wildcards, input=None)
        else:
            parameters[name] = value(wildcards)
    settings = dict(parameters.get("cfg", {}))
    job = Job(
        rule=rule.name,
        script=Path(rule.script).stem if rule.script else "",
        wildcards=dict(wildcards.items()),
        inputs=inputs,
        is_list=is_list,
        watched=[str(path) for path in all_inputs if not is_flagged(path, "ancient")],
        outputs={name: str(path) for name, path in rule.expand_output(wildcards)[0].items()},
        settings=settings,
        not_json=[
            name
            for name, value in parameters.items()
            if repr(json.loads(json.dumps(value, default=str))) != repr(value)
        ],
        code=settings.get("code", "").splitlines(),
    )
    return job, [str(path) for path in all_inputs]


def _as_json(unknown):
    """What JSON does not know: paths as text, sets as lists, other objects by their attributes."""
    if isinstance(unknown, Path):
        return str(unknown)
    if isinstance(unknown, set | frozenset):
        return sorted(unknown)
    return vars(unknown)


if __name__ == "__main__":
    importlib.import_module("snakemake.api")  # once, before the processes that read a grid
    print(json.dumps(_describe_all(json.load(sys.stdin))))
