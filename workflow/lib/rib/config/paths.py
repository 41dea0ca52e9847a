"""Where the files of a grid are, relative to the project. No torch, no pandas.

Rules have these paths in their outputs; whoever reads a file of another job asks here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from rib.config.entries import Dataset, Model
from rib.config.evaluation_groups import evaluation_groups, groups_of
from rib.config.forms import MERGES, SELECT
from rib.config.geometry import Geometry
from rib.config.grid import Grid
from rib.config.run import MERGE, PRETRAINED, Run, parent_of
from rib.config.settings import FISHER_IMAGES

PREPARED = "results/{family}/prepare/{dataset}/{geometry}"
MODEL = "results/{family}/models/{model}"
TEXT = "results/{family}/text/{model}"
STAGE = "results/{family}/{protocol}/{stage}"


class Paths:
    """Paths of the files of a grid; each method says what of.

    For example `Paths(grid).checkpoint("history.csv", run)` is
    results/fashion/paper/finetune/net/edges/ft/all/0/history.csv.
    """

    def __init__(self, grid: Grid, report: str = ""):
        """`report` is another folder for tables, figures and page than that of config's `name`."""
        self._grid = grid
        self.family = grid.family.name
        self.protocol = grid.config["protocol"]
        self.report = report or f"reports/{grid.config['name'] or default_name(grid)}"

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """Keys of the checkpoints that make up a run's weights, by method.

        The pretrained model has none, a training itself, and a merge its parents.
        """
        keys: dict[str, list[str]] = {PRETRAINED: []}
        for name, method in self._grid.methods.items():
            keys[name] = self._grid.parents_of(name) if method.form in MERGES else [name]
        return keys

    @cached_property
    def pretrained_runs(self) -> dict[str, Run]:
        """The run of each model before fine-tuning."""
        return {run.model: run for run in self._grid.runs() if run.method == PRETRAINED}

    @cached_property
    def checkpoint_runs(self) -> list[Run]:
        """Runs that have a checkpoint of their own: trainings, and weights trained elsewhere."""
        return [
            run
            for run in self._grid.runs()
            if run.method != PRETRAINED and self._grid.methods[run.method].form not in MERGES
        ]

    @cached_property
    def trained_runs(self) -> list[Run]:
        """Runs that are trained here."""
        return [run for run in self.checkpoint_runs if self._grid.methods[run.method].trains]

    @cached_property
    def merged_runs(self) -> list[Run]:
        """Runs whose networks are merged of the checkpoints of others."""
        merged = [
            run
            for run in self._grid.runs()
            if run.method != PRETRAINED and self._grid.methods[run.method].form in MERGES
        ]
        return merged + self._grid.runs_over_targets()

    @cached_property
    def geometries(self) -> dict[str, Geometry]:
        """Geometries of the models' images, each by its key, such as `224`."""
        return {geometry.key: geometry for geometry in map(self._grid.geometry, self._grid.models)}

    def geometry_of(self, model: str) -> str:
        """Key of the geometry of a model's images, such as `224`."""
        return self._grid.geometry(model).key

    @property
    def first_geometry(self) -> str:
        """Key of the first model's geometry, at which indexes and labels are read."""
        return self.geometry_of(next(iter(self._grid.models)))

    def stage(self, stage: str) -> str:
        """Folder of a stage, such as results/fashion/paper/evaluate."""
        return STAGE.format(family=self.family, protocol=self.protocol, stage=stage)

    def prepared(self, file: str, dataset: str, geometry: str) -> str:
        """A file of a prepared dataset, such as results/emoji/prepare/noto/224/manifest.json.

        Encoded datasets (photos as published, decoded when used) are the same at all geometries,
        and those that models see without their crop are prepared without it.
        """
        if self._grid.catalog.datasets[dataset].storage == "encoded":
            geometry = "encoded"
        elif dataset in self._grid.uncropped:
            geometry = self.geometries[geometry].without_crop().key
        folder = PREPARED.format(family=self.family, dataset=dataset, geometry=geometry)
        return f"{folder}/{file}"

    def indexes(self, datasets: Iterable[str] | None = None) -> list[str]:
        """Indexes of prepared datasets, which have the labels and objects of their images.

        They are the same at all geometries. Of all evaluated datasets if none are given.
        """
        names = self._grid.datasets if datasets is None else datasets
        return [self.prepared("index.parquet", name, self.first_geometry) for name in names]

    def classes(self) -> list[str]:
        """Classes of all evaluated datasets, in their order."""
        return [
            self.prepared("classes.json", name, self.first_geometry) for name in self._grid.datasets
        ]

    def prepared_files(self, geometry: str, datasets: Iterable[str]) -> list[str]:
        """All files of prepared datasets that jobs read."""
        files = ("images.npy", "index.parquet", "classes.json")
        return [self.prepared(file, name, geometry) for name in datasets for file in files]

    def proxy(self, geometry: str, datasets: Iterable[str]) -> str | list[str]:
        """Manifest of the dataset with the pretraining proxy, if one of the datasets excludes it.

        The proxy is images that stand in for the pretraining data. Otherwise it is an empty list,
        which is how a rule says that a job lacks an input.
        """
        if not any(self._grid.excludes_proxy(dataset) for dataset in datasets):
            return []
        assert self._grid.reference is not None  # it has the proxy
        return self.prepared("manifest.json", self._grid.reference.dataset.name, geometry)

    def split(self, geometry: str, dataset: str) -> str | list[str]:
        """Split of a dataset under protocol held_out; an empty list otherwise."""
        if not self._grid.split_fractions:
            return []
        return f"{self.stage('split')}/{dataset}/{geometry}.parquet"

    def splits(self, geometry: str, datasets: Iterable[str]) -> list[str]:
        """Splits of datasets under protocol held_out; none otherwise."""
        if not self._grid.split_fractions:
            return []
        return [f"{self.stage('split')}/{name}/{geometry}.parquet" for name in datasets]

    def archives(self, entry: Dataset | Model) -> list[str]:
        """Archives of a dataset or model as published, such as data/raw/noto/images.zip."""
        return [f"data/raw/{entry.raw}/{source['file']}" for source in entry.archives]

    def model(self, file: str, model: str) -> str:
        """A file of a pretrained model, such as results/emoji/models/net/model.json."""
        return f"{MODEL.format(family=self.family, model=model)}/{file}"

    def text(self, file: str, model: str) -> str:
        """A file of a stored text tower, such as results/emoji/text/clip/tower.safetensors."""
        return f"{TEXT.format(family=self.family, model=model)}/{file}"

    def checkpoint(self, file: str, run: Run) -> str:
        """A file of a training: checkpoint.safetensors, manifest.json or history.csv."""
        return f"{self.stage('finetune')}/{run}/{file}"

    def checkpoints(self, file: str, run: Run, parents: Iterable[str]) -> list[str]:
        """A file of each parent's training.

        It is that of the run's model, target, size and seed unless the parent's key says otherwise:
        of the parent `ft, seed 1` it is that of seed 1.
        """
        return [self.checkpoint(file, _parent(run, key)) for key in parents]

    def selection(self, run: Run) -> str:
        """Coefficients that were selected for a merge on held-out images."""
        return f"{self.stage('merge')}/{run}/selection.json"

    def fisher(self, ending: str, run: Run) -> list[str]:
        """A file of the Fisher information of each parent of a merge that takes it.

        It is named after the number of images: .../fisher/net/edges/ft/all/0/1000.safetensors.
        """
        method = self._grid.methods.get(run.method)  # None for the pretrained model
        if method is None or method.form != MERGE or FISHER_IMAGES not in method.settings:
            return []
        return [
            f"{self.stage('fisher')}/{_parent(run, key)}/{method.settings[FISHER_IMAGES]}.{ending}"
            for key in self.parents[run.method]
        ]

    def shared_fisher(self, ending: str, run: Run) -> list[str]:
        """A file of the Fisher information that a method's trainings of a model and seed share.

        It is of the pretrained model on the pretraining proxy; none if they share none. Its name
        says how it was computed: 1000.safetensors, or 1000_empirical.safetensors if it is of
        another kind than `sampled`.
        """
        shared = self._grid.shared_fisher(run.method)
        if shared is None:
            return []
        images, kind = shared
        name = images if kind == "sampled" else f"{images}_{kind}"
        pretrained = replace(self.pretrained_runs[run.model], seed=run.seed)
        return [f"{self.stage('fisher')}/{pretrained}/{name}.{ending}"]

    def rows(
        self,
        runs: Iterable[Run],
        stage: str = "evaluate",
        groups: Sequence[str] | None = None,
    ) -> list[str]:
        """Files with the rows of runs on evaluation groups, each once.

        One of them is results/emoji/paper/evaluate/net/noto/ft/all/0/emoji.parquet. Of all groups
        if none are given.
        """
        if groups is None:
            groups = list(self.evaluation_groups)
        files: list[str] = []
        for run in runs:
            entry = self._grid.evaluation_of(run.method)
            folder = f"{run.model}/{run.target}/{entry}/{run.size}/{run.seed}"
            files.extend(f"{self.stage(stage)}/{folder}/{group}.parquet" for group in groups)
        return list(dict.fromkeys(files))

    def rows_on_select_splits(self, runs: Iterable[Run]) -> list[str]:
        """Files with the rows of runs on the select splits of their targets, each once.

        Variants and learning rates are chosen by them.
        """
        files: list[str] = []
        for run in runs:
            files.extend(self.rows([run], "select", groups_of(self._grid, run.target)))
        return list(dict.fromkeys(files))

    def features(self, runs: Iterable[Run], stage: str = "features") -> list[str]:
        """Files with the features of runs on the out-of-distribution datasets."""
        return [
            f"{self.stage(stage)}/{run}/{dataset}.safetensors"
            for run in runs
            for dataset in self._grid.ood
        ]

    def splits_of_all(self) -> list[str]:
        """Splits of all evaluated datasets at all geometries."""
        return [path for key in self.geometries for path in self.splits(key, self._grid.datasets)]

    def label_verdicts(self) -> list[str]:
        """Verdicts on the labels of the targets of this run's trainings, each once.

        A model can contradict labels if its head has classes that others published, or is made from
        names of classes; a head that was trained on the family's own labels can't. There are none
        under protocol held_out, where sweeps score nothing but select splits.
        """
        if self.protocol == "held_out":
            return []
        verdicts = [
            self.verdict(run.model, run.target)
            for run in self.trained_runs
            if self._grid.head(run.model) in ("published", "zero_shot")
        ]
        return list(dict.fromkeys(verdicts))

    def verdict(self, model: str, target: str) -> str:
        """What a pretrained model says of the labels of a target."""
        return f"{self.stage('labels')}/{model}/{target}.json"

    def records(self) -> dict[str, list[str]]:
        """Records of the jobs behind the tables, by stage.

        Stages that some grids lack, such as `split`, are there only if they have a job.
        """
        grid = self._grid
        entries: list[Dataset | Model] = [*grid.datasets_read(), *grid.models.values()]
        archives = []
        for entry in entries:
            archives += self.archives(entry)
        prepared = [
            self.prepared("provenance.json", dataset.name, geometry)
            for geometry in self.geometries
            for dataset in grid.datasets_read()
        ]
        fisher: list[str] = []
        for run in self.merged_runs:
            fisher.extend(self.fisher("provenance.json", run))
        for run in self.trained_runs:
            fisher.extend(self.shared_fisher("provenance.json", run))
        selected = [run for run in self.merged_runs if grid.methods[run.method].form == SELECT]
        to_choose_from = self.runs_to_choose_from()
        records = {
            "download": [f"{file}.provenance.json" for file in archives],
            "prepare": prepared,
            "split": [beside("provenance", path) for path in self.splits_of_all()],
            "models": [self.model("provenance.json", model) for model in grid.models],
            "text": [self.text("provenance.json", model) for model in self.models_with_texts()],
            "labels": [beside("provenance", path) for path in self.label_verdicts()],
            "finetune": [self.checkpoint("provenance.json", run) for run in self.checkpoint_runs],
            "fisher": fisher,
            "merge": [f"{self.stage('merge')}/{run}/provenance.json" for run in selected],
            "evaluate": [beside("provenance", path) for path in self.rows(grid.runs())],
            "evaluate_over_targets": [
                beside("provenance", path) for path in self.rows_over_targets()
            ],
            "select": [
                beside("provenance", path) for path in self.rows_on_select_splits(to_choose_from)
            ],
        }
        return {stage: list(dict.fromkeys(paths)) for stage, paths in records.items() if paths}

    def models_with_texts(self) -> list[str]:
        """Models of which a method trains with texts."""
        grid = self._grid
        return [
            name
            for name in grid.models
            if any(grid.methods[method].text != "no" for method in grid.methods_of(name))
        ]

    def runs_to_choose_from(self) -> list[Run]:
        """Variants of sweeps that are scored on the select splits, to choose among them."""
        if self._grid.config["select"] != "target" or not self._grid.selection:
            return []
        variants = []
        for variants_of_sweep in self._grid.selection.variants.values():
            variants.extend(variants_of_sweep)
        return [run for run in self._grid.runs() if run.method in variants]

    @cached_property
    def evaluation_groups(self) -> dict[str, list[str]]:
        """Datasets of each evaluation group; a job evaluates a run on one group."""
        return evaluation_groups(self._grid)

    @cached_property
    def groups_not_trained_on(self) -> dict[str, list[str]]:
        """Datasets on which merges over targets are scored, by evaluation group that has some."""
        groups = {}
        for group, names in self.evaluation_groups.items():
            left = [name for name in names if name in self._grid.not_trained_on]
            if left:
                groups[group] = left
        return groups

    def manifests(self, rows: Iterable[str]) -> list[str]:
        """Manifests of files with rows, which say what the networks were made of."""
        return [beside("manifest", path) for path in rows]

    def rows_over_targets(self) -> list[str]:
        """Files with the rows of merges over targets, on datasets that they weren't trained on."""
        groups = list(self.groups_not_trained_on)
        return self.rows(self._grid.runs_over_targets(), "evaluate_over_targets", groups)

    def table(self, name: str) -> str:
        """CSV file of a table, such as reports/fashion/tables/mri.csv."""
        return f"{self.report}/tables/{name}.csv"

    def figure(self, name: str, ending: str) -> str:
        """A file of a figure, such as reports/fashion/figures/cost.png."""
        return f"{self.report}/figures/{name}.{ending}"

    @property
    def counts(self) -> str:
        """Right answers of each run by dataset and object, from which intervals are resampled."""
        return f"{self.report}/tables/counts.npz"

    @property
    def mri_json(self) -> str:
        """mRI by method, for `dvc metrics`."""
        return f"{self.report}/tables/mri.json"


def manifest_of(path: str) -> str | None:
    """Manifest of a large file of another job, which its readers watch; None for other files.

    Of .../prepare/noto/224/index.parquet it is .../prepare/noto/224/manifest.json, of
    .../all/0/emoji.parquet it is .../all/0/emoji.manifest.json.
    """
    folder, _, file = path.rpartition("/")
    stage = path.split("/")[2:4]
    if not path.startswith("results/") or "split" in stage:
        return None
    if file in ("index.parquet", "classes.json", "images.npy"):
        return f"{folder}/manifest.json"
    for ending in (".index.parquet", ".parquet", ".safetensors"):
        if file.endswith(ending):
            return f"{folder}/{file.removesuffix(ending)}.manifest.json"
    return None


def _parent(run: Run, key: str) -> Run:
    """The run that a parent's key names, such as `ft, seed 1`."""
    changes: dict[str, Any] = parent_of(key)
    return replace(run, **changes)


def default_name(grid: Grid) -> str:
    """Name of a report that config doesn't name: fashion, or fashion_held_out."""
    protocol = grid.config["protocol"]
    return grid.family.name if protocol == "paper" else f"{grid.family.name}_{protocol}"


def beside(kind: str, path: str) -> str:
    """File next to another: its `provenance`, or its `manifest`.

    The manifest of a/emoji.parquet is a/emoji.manifest.json. Jobs watch manifests instead of large
    files.
    """
    folder, _, file = path.rpartition("/")
    name = file.rpartition(".")[0]
    return f"{folder}/{name}.{kind}.json"
