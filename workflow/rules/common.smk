# Shared by all stages: validated config, the grid, path templates, job settings, input functions.

import gc
import os
import re
import sys
from functools import cache
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")
# A graph of thousands of jobs is millions of small objects that live to the end, which Python's collector would visit
# again and again: a dry-run of 5863 jobs takes 14.5 s in place of 16.2.
gc.set_threshold(200_000, 50, 100)

from adopt import begin, code_changes  # noqa: E402
from rib import code, warm  # noqa: E402
from rib.catalog import Catalog, validated  # noqa: E402
from rib.data.download import ARCHIVES  # noqa: E402
from rib.data.folders import listing  # noqa: E402
from rib.runs import CORRUPT_ALLOWED, JOBS_PER_GPU  # noqa: E402
from rib.grid import Grid  # noqa: E402
from rib.io import UserError  # noqa: E402
from rib.owner import OWNER  # noqa: E402
from rib.runs import PRETRAINED  # noqa: E402

CONFIG = validated(config, "config", "config.yaml or --config")
EXTRA = CONFIG["catalog"]
FOLDERS = [str(WORKFLOW / "catalog"), *([EXTRA] if isinstance(EXTRA, str) else EXTRA)]
CATALOG = Catalog(FOLDERS)
GRID = Grid(CONFIG, CATALOG)
COMPARED = GRID.compared_runs()
for dataset in GRID.datasets_read():
    CATALOG.space(dataset), CATALOG.icons(dataset)  # a bad class map stops here, before any job
SOURCES = CATALOG.sources
if workflow.is_main_process:
    if not os.access(".", os.W_OK):
        raise UserError(f"{Path.cwd()} can't be written; make the folder writable, or copy the project elsewhere.")
    begin(workflow)
    os.environ[OWNER] = str(os.getpid())
    os.environ.pop(warm.WARM, None)
    if CONFIG["compute"]["warm_start"]:
        os.environ[warm.WARM] = "1"
# Where archives lie is a machine's affair, so it is no setting of the jobs that look there.
if folders := CONFIG["archives"]:
    os.environ[ARCHIVES] = os.pathsep.join([folders] if isinstance(folders, str) else folders)
# So is how many corrupt images are put up with: what comes of it is in the manifest.
os.environ[JOBS_PER_GPU] = str(CONFIG["compute"]["jobs_per_gpu"])
os.environ[CORRUPT_ALLOWED] = str(CONFIG["corrupt_images"])
for notice in GRID.notices:
    print(notice, file=sys.stderr)

FAMILY = GRID.family.name
PREPARED = f"results/{FAMILY}/prepare/{{dataset}}/{{geometry}}"
SUITE = f"results/{FAMILY}/prepare/suite_{{suite}}/{{geometry}}"
MODEL = f"results/{FAMILY}/models/{{model}}"
RUNS = f"results/{FAMILY}/{CONFIG['protocol']}"
RUN = "{model}/{target}/{method}/{size}/{seed}"
SPLIT = f"{RUNS}/split/{{dataset}}/{{geometry}}"
REPORTS = f"reports/{FAMILY}"
LOGS = f"logs/{FAMILY}"
MODEL_WEIGHTS = f"{MODEL}/weights.safetensors"
PREPARED_FILES = ["images.npy", "index.parquet", "classes.json"]
THREADS = CONFIG["compute"]["threads_per_job"]
COMPUTE = {"threads": THREADS} | {key: CONFIG["compute"][key] for key in ("device", "precision", "compile")}
GPU = (
    0 if CONFIG["compute"]["device"] == "cpu" else 1
)  # a job's claim on --resources gpu=N; none is taken where none is
SUITES = GRID.suites()
LARGE_SETS = {name for name, entry in CATALOG.datasets.items() if entry.storage == "encoded"} & set(GRID.datasets)
DATASETS_READ = GRID.datasets_read()
TRAINED_HERE = [name for name, model in CATALOG.models.items() if model.pretrain]
CURVES = [name for name, method in GRID.methods.items() if method.form == "curve"]
ENCODED = "encoded"  # in place of a geometry: photos as published, decoded when used
GEOMETRIES = {ENCODED: None} | {geometry.key: geometry for geometry in map(GRID.geometry, GRID.models)}
LARGE = 5000  # images from which preparing a dataset pays for several threads
# What figures show, and under which names.
SHOWN = {name: method for name, method in GRID.methods.items() if method.form != "curve"}
COMMON = [name for name in GRID.shared_methods() if name in SHOWN]
METHOD = next(iter(name for name in ("ft", *COMMON) if name in COMMON), None)
TARGET = next(iter(name for name in (GRID.family.example_target, *GRID.targets) if name in GRID.targets), None)
FIRST = next(iter(GRID.models))
LABELS = {name: model.label for name, model in GRID.models.items()}
METHOD_LABELS = {name: method.label for name, method in SHOWN.items()}
METHOD_LOOKS = {name: {"label": method.label, **method.style} for name, method in SHOWN.items()}
DATASET_LABELS = {name: dataset.label for name, dataset in GRID.datasets.items()}
TARGET_LABELS = {name: DATASET_LABELS[name] for name in GRID.targets}
SHEET = {name: label for name, label in DATASET_LABELS.items() if GRID.datasets[name].publishable}
EXAMPLE = {
    "target": TARGET,
    "method": METHOD,
    "method_label": METHOD_LABELS.get(METHOD),
    "datasets": DATASET_LABELS,
}
CONFIDENCE = CONFIG["statistics"]["confidence"]
PRETRAINED_RUNS = {run.model: run for run in GRID.runs() if run.method == PRETRAINED}
# What the files of rules/analysis/ add to the run (see `analysis`).
ANALYSES = {}
FIGURE = f"{REPORTS}/figures/{{figure}}"


wildcard_constraints:
    dataset="|".join(CATALOG.datasets),
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


def figure_files(names):
    """Files of some figures."""
    return expand(f"{FIGURE}.{{ending}}", figure=names, ending=["png", "pdf", "csv"])


def analysis(name, tables, figures, optional, files=None):
    """Register an analysis: its tables by name, and what its figures read and their settings (as in FIGURE_JOBS).

    Its further files, lists by what they are called, are made and linked, not shown. An optional one is part of the run only where config's `analyses` names it; its rules are always there.
    """
    chosen = not optional or CONFIG["analyses"] == "all" or name in CONFIG["analyses"]
    ANALYSES[name] = {
        "tables": tables,
        "figures": figures,
        "optional": optional,
        "chosen": chosen,
        "files": files or {},
    }


def of_form(*forms):
    """Wildcard constraint that admits the grid's methods of some forms."""
    return "|".join(re.escape(name) for name, method in GRID.methods.items() if method.form in forms) or "(?!)"


def is_large(dataset):
    """Whether preparing a dataset takes long."""
    entry = CATALOG.datasets[dataset]
    return (entry.images or entry.about_images or 0) > LARGE


def memory(datasets, usual):
    """Megabytes of a job: the index of a very large set and rows about it take some more."""
    return 16000 if LARGE_SETS.intersection(datasets) else usual


def archives(entry):
    """Where an entry's published archives lie."""
    return [f"data/raw/{entry.raw}/{source['file']}" for source in entry.sources]


def source(w):
    """Settings of a download job: of a folder, what lies in it too."""
    found = next(part for part in SOURCES[w.name].sources if part["file"] == w.archive)
    if found["kind"] in ("file", "folder"):
        found = {**found, "path": local(found["path"])}
    if found["kind"] != "folder":
        return found
    try:
        return {**found, "listing": listing(Path(found["path"]))}
    except UserError as error:
        raise UserError(f"{w.name}: {error}") from None


@cache
def geometry(model):
    """Name of a model's geometry."""
    return GRID.geometry(model).key


def prepared(file, dataset, geometry):
    """A file of a prepared dataset, which some keep in one form for all geometries."""
    encoded = CATALOG.datasets[dataset].storage == "encoded"
    return f"{PREPARED}/{file}".format(dataset=dataset, geometry=ENCODED if encoded else geometry)


def target(file, w):
    """A file of a run's prepared target."""
    return prepared(file, w.target, geometry(w.model))


@cache
def seen_at(geometry):
    """How jobs see datasets at a geometry (rib.data.splits.opened)."""
    return {
        "geometry": vars(GEOMETRIES[geometry]),
        "workers": THREADS,
        "budget": CONFIG["budget"]["max_images_per_dataset"],
        "images_per_class": GRID.reference.images_per_class if GRID.reference else None,
    }


@cache
def images(model):
    """How a model's jobs see datasets, and its reference."""
    seen = dict(seen_at(geometry(model)))
    how = GRID.models[model].pretrain
    if how and GRID.reference and how["dataset"] == GRID.reference.name:
        seen["pretraining_size"] = str(how["size"])  # what it never saw doesn't stand for its pretraining
    return seen


def apart(w, datasets):
    """The manifest of the dataset of which a part stands for pretraining, if one of the datasets shares its sources."""
    shared = any(GRID.kept_apart(name) for name in datasets)
    return prepared("manifest.json", GRID.reference.name, geometry(w.model)) if shared else []


def splits(geometry, datasets):
    """Files that tell the parts of some datasets, by protocol held_out; none by others."""
    return [f"{SPLIT}.parquet".format(dataset=name, geometry=geometry) for name in datasets] if GRID.shares else []


def split(w, datasets):
    """The file for the one dataset in a list, nothing where the list is empty or there are no parts."""
    return next(iter(splits(geometry(w.model), datasets)), [])


def checkpointed(w):
    """Methods whose checkpoints a run's weights come from: none, itself, or a merge's parents."""
    if w.method == PRETRAINED:
        return []
    method = GRID.methods[w.method]
    return [w.method] if method.trains else list(method.parents)


def checkpoints(file, w, methods):
    """A file of each of some methods' checkpoints, for a run's model, target, size and seed."""
    return [f"{RUNS}/finetune/{RUN}/{file}".format(**{**w, "method": method}) for method in methods]


def uses_reference(w):
    """Whether a run's method uses what stands for pretraining."""
    return GRID.reference is not None and GRID.methods[w.method].reference != "no"


def kept_whole(w):
    """The reference dataset in a list, where the run uses all of it; none where it is a part of one that is evaluated."""
    whole = uses_reference(w) and GRID.reference.images_per_class is None
    return [GRID.reference.name] if whole else []


def reference(file, w):
    """A file of the reference dataset, nothing where there is none or the method doesn't use it."""
    return prepared(file, GRID.reference.name, geometry(w.model)) if uses_reference(w) else []


def preparation(w):
    """Settings of a prepare job."""
    entry = CATALOG.datasets[w.dataset]
    layout = CATALOG.layout_file(entry.layout)
    return {
        "digests": [part.get("digest") for part in entry.sources],
        "layout": local(layout),
        "arguments": {
            **entry.settings,
            "source_group": entry.source_group,
            "icons": CATALOG.icons(entry),
            "exclude": sorted(entry.exclude),
        },
        "space": CATALOG.space(entry).to_json(),
        "storage": entry.storage,
        "geometry": GEOMETRIES[w.geometry] and vars(GEOMETRIES[w.geometry]),
        "expected": entry.images,
        "about": entry.about_images,
        "code": digest("prepare", layout),
    }


def fitted_on(w):
    """Input function: the reference dataset that a model's head is fitted on, nothing for other heads."""
    if GRID.head(w.model) != "fitted":
        return []
    return prepared("manifest.json", GRID.reference.name, geometry(w.model))


def conversion(w):
    """Settings of a models job: what the weights are, not how figures draw them; for a fitted head, what it sees."""
    entry, head, space = vars(CATALOG.models[w.model]), GRID.head(w.model), CATALOG.class_space(FAMILY)
    facts = ("name", "library", "architecture", "source", "weights", "preprocessing", "pretraining", "licence")
    return {
        "entry": {key: entry[key] for key in facts},
        "head": head,
        "outputs": space.outputs,
        "names": list(space.names) if head == "zero_shot" and GRID.family.classes["format"] == "own" else None,
        "images": images(w.model) if head == "fitted" else None,
        "compute": COMPUTE,
        "code": digest("models"),
    }


def pretraining_inputs(w):
    """Inputs of a pretrain job by name."""
    how = CATALOG.models[w.model].pretrain
    return {
        **{key: prepared("manifest.json", how[key], geometry(w.model)) for key in ("dataset", "test")},
        "images": ancient(
            [prepared(file, how[key], geometry(w.model)) for key in ("dataset", "test") for file in PREPARED_FILES]
        ),
    }


def pretraining(w):
    """Settings of a pretrain job: what the model is and sees, not how figures draw it."""
    entry = vars(CATALOG.models[w.model])
    facts = ("name", "library", "architecture", "pretrain", "preprocessing", "pretraining", "licence")
    return {
        "entry": {key: entry[key] for key in facts},
        "outputs": CATALOG.class_space(FAMILY).outputs,
        "images": images(w.model),
        "compute": COMPUTE,
        "code": digest("pretrain"),
    }


def method_job(stage, name, **more):
    """Settings of a job that runs a method's mechanism."""
    method = GRID.methods[name]
    mechanism = CATALOG.mechanism_file(method.mechanism)
    settings = {"mechanism": local(mechanism), "settings": method.settings, "parents": list(method.parents)}
    return {**settings, **more, "code": digest(stage, mechanism)}


def training(stage, w):
    """Settings of a job that trains a run."""
    return method_job(
        stage,
        w.method,
        training=GRID.training(),
        images=images(w.model),
        compute=COMPUTE,
    )


def recipe(w):
    """A merge's recipe, nothing for other methods."""
    trained = w.method == PRETRAINED or GRID.methods[w.method].trains
    return [] if trained else f"{RUNS}/merge/{RUN}/recipe.json".format(**w)


def training_inputs(w):
    """Inputs of a finetune job by name."""
    start = GRID.methods[w.method].parents
    return {
        "model": f"{MODEL}/manifest.json".format(model=w.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=w.model)),
        "target": target("manifest.json", w),
        "images": ancient([target(file, w) for file in PREPARED_FILES]),
        "reference": reference("manifest.json", w),
        "apart": apart(w, [w.target]),
        "split": split(w, [w.target]),
        "reference_split": split(w, kept_whole(w)),
        "start": checkpoints("manifest.json", w, start),
        "start_weights": ancient(checkpoints("checkpoint.safetensors", w, start)),
    }


def selection_inputs(w):
    """Inputs of a job that chooses weights, by name."""
    methods = checkpointed(w)
    return {
        "model": f"{MODEL}/manifest.json".format(model=w.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=w.model)),
        "manifests": checkpoints("manifest.json", w, methods),
        "checkpoints": ancient(checkpoints("checkpoint.safetensors", w, methods)),
        "target": target("manifest.json", w),
        "images": ancient(target("images.npy", w)),
        "apart": apart(w, [w.target]),
        "split": split(w, [w.target]),
    }


def state_inputs(w):
    """Inputs by name of a job that passes images through a run's network: what its weights are made from."""
    methods = checkpointed(w)
    return {
        "model": f"{MODEL}/manifest.json".format(model=w.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=w.model)),
        "recipe": recipe(w),
        "manifests": checkpoints("manifest.json", w, methods),
        "checkpoints": ancient(checkpoints("checkpoint.safetensors", w, methods)),
    }


def evaluation_inputs(w):
    """Inputs of an evaluate job by name; one function, since each costs a dry-run of thousands of jobs its time."""
    return {
        **state_inputs(w),
        "suite": f"{SUITE}/manifest.json".format(suite=w.suite, geometry=geometry(w.model)),
        "apart": apart(w, SUITES[w.suite]),
        "splits": splits(geometry(w.model), SUITES[w.suite]),
    }


def shared_job(w):
    """Group of an evaluate job whose members may share a job of a cluster, where its profile says how many do."""
    long = LARGE_SETS.intersection(SUITES[w.suite])
    return "scores" if "scores" in workflow.group_settings.group_components and not long else None


@cache
def shared_passes(model):
    """A model's runs that may be scored in one pass over encoded photos (rib.passes.scorings)."""
    most = CONFIG["compute"]["checkpoints_per_pass"]
    if most == 1:
        return None
    runs = [{**vars(run), "seed": str(run.seed)} for run in GRID.runs() if run.model == model]
    trained = {name: [name] if method.trains else list(method.parents) for name, method in GRID.methods.items()}
    return {
        "runs": runs,
        "parents": {PRETRAINED: [], **trained},
        "merged": [name for name, method in GRID.methods.items() if not method.trains],
        "checkpoint": f"{RUNS}/finetune/{RUN}/checkpoint.safetensors",
        "recipe": f"{RUNS}/merge/{RUN}/recipe.json",
        "most": most,
    }


def dataset_inputs(w):
    """Inputs by name of a job that passes one dataset's images through a network."""
    return {
        "dataset": prepared("manifest.json", w.dataset, geometry(w.model)),
        "images": ancient([prepared(file, w.dataset, geometry(w.model)) for file in PREPARED_FILES]),
        "apart": apart(w, [w.dataset]),
        "split": split(w, [w.dataset]),
    }


def feature_inputs(w):
    """Inputs of a features job by name."""
    return {**state_inputs(w), **dataset_inputs(w)}


def published_table(w):
    """The table, if there is anything to compare with."""
    if not STATED:
        raise UserError(
            "published.csv of the catalogue has no number of these models on these datasets; choose others, or add the file "
            "to a catalogue folder of your own."
        )
    return PUBLISHED
