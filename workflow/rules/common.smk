# Shared by all stages: validated config, the grid, path templates, job settings, input functions.

import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path[:0] = [str(WORKFLOW / "lib"), str(WORKFLOW / "rules")]

from adopt import adopt_pulled  # noqa: E402
from rib import code, warm  # noqa: E402
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
    if workflow.is_main_process:
        adopt_pulled()
except UserError as error:
    raise WorkflowError(str(error)) from None
if CONFIG["compute"]["warm_start"] and workflow.is_main_process:
    os.environ[warm.OWNER] = str(os.getpid())
# Where archives lie is a machine's affair, so it is no setting of the jobs that look there.
if folders := CONFIG["archives"]:
    os.environ["RIB_ARCHIVES"] = os.pathsep.join([folders] if isinstance(folders, str) else folders)
for notice in GRID.notices:
    print(notice, file=sys.stderr)

FAMILY = GRID.family.name
PREPARED = f"results/{FAMILY}/prepare/{{dataset}}/{{geometry}}"
MODEL = f"results/{FAMILY}/models/{{model}}"
RUNS = f"results/{FAMILY}/{CONFIG['protocol']}"
RUN = "{model}/{target}/{method}/{size}/{seed}"
REPORTS = f"reports/{FAMILY}"
LOGS = f"logs/{FAMILY}"
MODEL_FILES = [f"{MODEL}/weights.safetensors", f"{MODEL}/model.json"]
PREPARED_FILES = ["images.npy", "index.parquet", "classes.json"]
COMPUTE = {key: CONFIG["compute"][key] for key in ("device", "threads_per_job")}
THREADS = CONFIG["compute"]["threads_per_job"]
SUITES = GRID.suites()
GEOMETRIES = {geometry.key: geometry for geometry in map(GRID.geometry, GRID.models)}


wildcard_constraints:
    dataset="[A-Za-z0-9_]+",
    model="[A-Za-z0-9_.-]+",
    method="[A-Za-z0-9_.-]+",
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


def of_form(*forms):
    """Wildcard constraint that admits the grid's methods of some forms."""
    return "|".join(re.escape(name) for name, method in GRID.methods.items() if method.form in forms) or "(?!)"


def archives(entry):
    """Where an entry's published archives lie."""
    return [f"data/raw/{entry.name}/{source['file']}" for source in entry.sources]


def prepared(file, dataset, model):
    """A file of a prepared dataset, at a model's geometry."""
    return f"{PREPARED}/{file}".format(dataset=dataset, geometry=GRID.geometry(model).key)


def checkpointed(w):
    """Methods whose checkpoints a run's weights come from: none, itself, or a merge's parents."""
    if w.method == PRETRAINED:
        return []
    method = GRID.methods[w.method]
    return [w.method] if method.trains else list(method.parents)


def checkpoints(file, methods=checkpointed):
    """Input function: a file of each checkpoint that a run's weights come from, or of other methods' for its target."""
    pattern = f"{RUNS}/finetune/{RUN}/{file}"
    return lambda w: [pattern.format(**{**w, "method": method}) for method in methods(w)]


def parents(w):
    """Methods that a run needs first: a merge's, or the one that training starts from."""
    return GRID.methods[w.method].parents


def reference(file):
    """Input function: a file of the reference dataset, nothing where there is none or the method doesn't use it."""
    used = GRID.reference is not None
    return lambda w: (
        prepared(file, GRID.reference.name, w.model) if used and GRID.methods[w.method].reference != "no" else []
    )


def preparation(w):
    """Settings of a prepare job."""
    entry = CATALOG.datasets[w.dataset]
    layout = CATALOG.layout_file(entry.layout)
    return {
        "digests": [source["digest"] for source in entry.sources],
        "layout": local(layout),
        "arguments": {
            **entry.settings,
            "source_group": entry.source_group,
            "icons": CATALOG.icons(entry),
            "exclude": sorted(entry.exclude),
        },
        "space": CATALOG.space(entry).to_json(),
        "geometry": vars(GEOMETRIES[w.geometry]),
        "expected": entry.images,
        "code": digest("prepare", layout),
    }


def conversion(w):
    """Settings of a models job: what the weights are, not how figures draw them."""
    entry = vars(CATALOG.models[w.model])
    facts = ("name", "library", "architecture", "source", "weights", "preprocessing", "pretraining", "licence")
    return {"entry": {key: entry[key] for key in facts}, "code": digest("models")}


def method_job(stage, name, **more):
    """Settings of a job that runs a method's mechanism."""
    method = GRID.methods[name]
    mechanism = CATALOG.mechanism_file(method.mechanism)
    settings = {"mechanism": local(mechanism), "settings": method.settings, "parents": list(method.parents)}
    return {**settings, **more, "code": digest(stage, mechanism)}


def recipe(w):
    """Input function: a merge's recipe, nothing for other methods."""
    trained = w.method == PRETRAINED or GRID.methods[w.method].trains
    return [] if trained else f"{RUNS}/merge/{RUN}/recipe.json".format(**w)


def suite(file):
    """Input function: a file of each dataset of a suite."""
    return lambda w: [prepared(file, dataset, w.model) for dataset in SUITES[w.suite]]
