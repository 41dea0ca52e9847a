# What every rule needs: validated config, the grid, path templates, code digests. No rules here.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(WORKFLOW / "lib"))

from rib import code  # noqa: E402
from rib.catalog import Catalog, validated  # noqa: E402
from rib.grid import Grid  # noqa: E402
from rib.io import UserError  # noqa: E402
from rib.runs import PRETRAINED  # noqa: E402

try:
    CONFIG = validated(config, "config", "config.yaml or --config")
    EXTRA = CONFIG["catalog"]
    CATALOG = Catalog([WORKFLOW / "catalog", *([EXTRA] if isinstance(EXTRA, str) else EXTRA)])
    GRID = Grid(CONFIG, CATALOG)
    SPACE = CATALOG.class_space(GRID.family.name)
except UserError as error:
    raise WorkflowError(str(error)) from None
for notice in GRID.notices:
    print(notice, file=sys.stderr)

FAMILY = GRID.family.name
PREPARED = f"results/{FAMILY}/prepare/{{dataset}}/{{geometry}}"
MODEL = f"results/{FAMILY}/models/{{model}}"
RUNS = f"results/{FAMILY}/{CONFIG['protocol']}"
RUN = "{model}/{target}/{method}/{size}/{seed}"
REPORTS = f"reports/{FAMILY}"
LOGS = f"logs/{FAMILY}"
COMPUTE = {key: CONFIG["compute"][key] for key in ("device", "threads_per_job")}
THREADS = CONFIG["compute"]["threads_per_job"]
SUITES = GRID.suites()


wildcard_constraints:
    dataset="[A-Za-z0-9_]+",
    model="[A-Za-z0-9_.-]+",
    method="[a-z0-9_]+",
    target="[A-Za-z0-9_]+",
    size="[A-Za-z0-9_.]+",
    seed="[0-9]+",
    suite="[A-Za-z0-9_]+",
    geometry="[A-Za-z0-9_.-]+",


def local(path):
    """A path as it is told to jobs: relative where it can be, so that a moved project keeps its results."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def digest(stage, *modules):
    """Digest of the source that a stage's script and these modules run."""
    return code.digest(WORKFLOW / "scripts" / f"{stage}.py", *map(Path, modules))


def of_kind(kind):
    """Wildcard constraint that admits the methods of one kind."""
    return "|".join(name for name, method in CATALOG.methods.items() if method.kind == kind) or "(?!)"


def archive(entry):
    """Where an entry's published archive lies."""
    return f"data/raw/{entry.name}/{entry.source['file']}"


def prepared(file, dataset, model):
    """A file of a prepared dataset, at a model's geometry."""
    return f"{PREPARED}/{file}".format(dataset=dataset, geometry=GRID.geometry(model).key)


def parents(w):
    """Checkpointed methods that a run's weights come from: none, itself, or a merge's parents."""
    if w.method == PRETRAINED:
        return []
    method = CATALOG.methods[w.method]
    return [w.method] if method.kind == "finetune" else list(method.parents)


def checkpoints(file):
    """Input function: a file of each checkpoint that a run's weights come from."""
    pattern = f"{RUNS}/finetune/{RUN}/{file}"
    return lambda w: [pattern.format(**{**w, "method": parent}) for parent in parents(w)]
