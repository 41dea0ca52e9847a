"""Paths of a grid's files, relative to the project. No torch, no pandas.

Rules write these paths, and jobs that read another job's file ask here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from rib.grid.evaluation_groups import evaluation_groups, groups_of
from rib.grid.grid import Grid
from rib.schema.algorithm_settings import FISHER_IMAGES
from rib.schema.entries import Dataset, Model
from rib.schema.forms import MERGES, SELECT
from rib.schema.geometry import Geometry
from rib.schema.layout import Layout
from rib.schema.run import MERGE, PRETRAINED, Run, parent_of


class Paths(Layout):
    """Paths of the files of a grid.

    For example `Paths(grid).checkpoint("history.csv", run)` is
    results/fashion/paper/finetune/net/edges/ft/all/0/history.csv.

    Args:
        report: folder for tables, figures and page, if not the one that config's `name` gives.
    """

    def __init__(self, grid: Grid, report: str = ""):
        super().__init__(family=grid.family.name, protocol=grid.config["protocol"])
        self._grid = grid
        self.report = report or f"reports/{grid.config['name'] or default_name(grid)}"

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """Keys of the checkpoints that make each method's weights: {"ft": ["ft"], "half": ["ft"]}.

        A training has its own key, a merge has its parents' keys, the pretrained model none.
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
        """Runs with a checkpoint: trainings, and weights trained elsewhere."""
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
        """Runs whose networks are merged from checkpoints of other runs."""
        merged = [
            run
            for run in self._grid.runs()
            if run.method != PRETRAINED and self._grid.methods[run.method].form in MERGES
        ]
        return merged + self._grid.runs_over_targets()

    @cached_property
    def geometries(self) -> dict[str, Geometry]:
        """Sizes and crops of the models' images: {"224px-bicubic-crop0.875": Geometry(...)}."""
        return {geometry.key: geometry for geometry in map(self._grid.geometry, self._grid.models)}

    def geometry_of(self, model: str) -> str:
        """Key of the size and crop of a model's images, such as `224px-bicubic-crop0.875`."""
        return self._grid.geometry(model).key

    @property
    def first_geometry(self) -> str:
        """Key of the first model's geometry, at which jobs read indexes and labels."""
        return self.geometry_of(next(iter(self._grid.models)))

    def prepared(self, file: str, dataset: str, geometry: str) -> str:
        """A file of a prepared dataset.

        For example results/emoji/prepare/noto/224px-bicubic-crop0.875/manifest.json. Encoded
        datasets (images as published, decoded when used) are the same at all geometries; their
        folder is `encoded`. Datasets in config's `uncropped` are prepared without crop.
        """
        if self._grid.catalog.datasets[dataset].storage == "encoded":
            geometry = "encoded"
        elif dataset in self._grid.uncropped:
            geometry = self.geometries[geometry].without_crop().key
        return self.of_dataset(dataset, geometry, file)

    def indexes(self, datasets: Iterable[str] | None = None) -> list[str]:
        """Files index.parquet of prepared datasets: label and object of each image.

        They are the same at all geometries. The default is all evaluated datasets.
        """
        names = self._grid.datasets if datasets is None else datasets
        return [self.prepared("index.parquet", name, self.first_geometry) for name in names]

    def classes(self) -> list[str]:
        """Class files of all evaluated datasets, in their order."""
        return [
            self.prepared("classes.json", name, self.first_geometry) for name in self._grid.datasets
        ]

    def prepared_files(self, geometry: str, datasets: Iterable[str]) -> list[str]:
        """All files of prepared datasets that jobs read."""
        files = ("images.npy", "index.parquet", "classes.json")
        return [self.prepared(file, name, geometry) for name in datasets for file in files]

    def proxy(self, geometry: str, datasets: Iterable[str]) -> str | list[str]:
        """Manifest of the pretraining proxy's dataset, if a dataset leaves out the proxy's images.

        The proxy stands in for the pretraining data. Otherwise an empty list, which tells Snakemake
        that the job lacks this input.
        """
        if not any(self._grid.excludes_proxy(dataset) for dataset in datasets):
            return []
        assert self._grid.reference is not None  # excludes_proxy implies it
        return self.prepared("manifest.json", self._grid.reference.dataset.name, geometry)

    def split(self, geometry: str, dataset: str) -> str | list[str]:
        """File that splits a dataset into train, select and test; [] without held_out."""
        if not self._grid.split_fractions:
            return []
        return self.of_split(dataset, geometry)

    def splits(self, geometry: str, datasets: Iterable[str]) -> list[str]:
        """Files that split several datasets, as `split` gives them; [] without held_out."""
        if not self._grid.split_fractions:
            return []
        return [self.of_split(name, geometry) for name in datasets]

    def archives(self, entry: Dataset | Model) -> list[str]:
        """Archives of a dataset or model as published, such as data/raw/noto/images.zip."""
        return [f"data/raw/{entry.raw}/{source['file']}" for source in entry.archives]

    def model(self, file: str, model: str) -> str:
        """A file of a pretrained model, such as results/emoji/models/net/model.json."""
        return self.of_model(model, file)

    def text(self, file: str, model: str) -> str:
        """A file of a stored text tower, such as results/emoji/text/clip/tower.safetensors."""
        return self.of_text(model, file)

    def checkpoint(self, file: str, run: Run) -> str:
        """A file of a training: .../net/noto/ft/all/0/history.csv."""
        return self.of_run("finetune", run, file)

    def checkpoints(self, file: str, run: Run, parents: Iterable[str]) -> list[str]:
        """A file of each parent's training: [".../net/noto/ft/all/1/manifest.json"].

        Parents are keys such as `ft, seed 1`. The training has the run's model, target, size and
        seed unless the parent's key says otherwise: here it has seed 1.
        """
        return [self.checkpoint(file, _parent(run, key)) for key in parents]

    def selection(self, run: Run) -> str:
        """File with coefficients of a merge that were selected on held-out images."""
        return self.of_run("merge", run, "selection.json")

    def fisher(self, ending: str, run: Run) -> list[str]:
        """A file of each parent's Fisher information, for merges that use it; else [].

        The name has the number of images: .../fisher/net/edges/ft/all/0/1000.safetensors.
        """
        method = self._grid.methods.get(run.method)  # None for the pretrained model
        if method is None or method.form != MERGE or not method.fisher_information:
            return []
        return [
            self.of_run("fisher", _parent(run, key), f"{method.settings[FISHER_IMAGES]}.{ending}")
            for key in self.parents[run.method]
        ]

    def shared_fisher(self, ending: str, run: Run) -> list[str]:
        """A file of the Fisher information that a method's trainings of a model and seed share.

        It is the pretrained model's, on the pretraining proxy. The name has images and kind:
        1000.safetensors for `sampled`, 1000_empirical.safetensors for another kind. Empty if the
        trainings share none.
        """
        shared = self._grid.shared_fisher(run.method)
        if shared is None:
            return []
        images, kind = shared
        name = images if kind == "sampled" else f"{images}_{kind}"
        pretrained = replace(self.pretrained_runs[run.model], seed=run.seed)
        return [self.of_run("fisher", pretrained, f"{name}.{ending}")]

    def rows(
        self,
        runs: Iterable[Run],
        stage: str = "evaluate",
        groups: Sequence[str] | None = None,
    ) -> list[str]:
        """Files with a row per image that runs were scored on, each once.

        For example results/emoji/paper/evaluate/net/noto/ft/all/0/emoji.parquet. A job scores a run
        on one group of datasets; the default is all groups.
        """
        if groups is None:
            groups = list(self.evaluation_groups)
        files: list[str] = []
        for run in runs:
            # wise_ft-alpha0.5 and other alphas share a file, in the folder wise_ft-alpha.
            evaluated = replace(run, method=self._grid.evaluation_of(run.method))
            files.extend(self.of_run(stage, evaluated, f"{group}.parquet") for group in groups)
        return list(dict.fromkeys(files))

    def rows_on_select_splits(self, runs: Iterable[Run]) -> list[str]:
        """Files with a row per image of the runs' targets in their select split, each once.

        By these held-out images variants and learning rates are chosen.
        """
        files: list[str] = []
        for run in runs:
            files.extend(self.rows([run], "select", groups_of(self._grid, run.target)))
        return list(dict.fromkeys(files))

    def features(self, runs: Iterable[Run], stage: str = "features") -> list[str]:
        """Files with features (outputs of layers) of runs on the out-of-distribution datasets.

        Stage `epochs` has them at several times of a training.
        """
        return [
            self.of_run(stage, run, f"{dataset}.safetensors")
            for run in runs
            for dataset in self._grid.ood
        ]

    def splits_of_all(self) -> list[str]:
        """Splits of all evaluated datasets at all geometries."""
        return [path for key in self.geometries for path in self.splits(key, self._grid.datasets)]

    def label_verdicts(self) -> list[str]:
        """Files that say whether pretrained models confirm the labels of all evaluated datasets.

        For example ["results/emoji/paper/labels/net/verdicts.json"]. Only a head with published
        classes, or made from names of classes, can contradict labels; a head trained on the
        family's own labels can't. Empty under protocol held_out, where sweeps score nothing but
        select splits.
        """
        if self.protocol == "held_out":
            return []
        return [
            f"{self.stage('labels')}/{model}/verdicts.json"
            for model in self._grid.models
            if self._grid.head(model) in ("published", "zero_shot")
        ]

    def records(self) -> dict[str, list[str]]:
        """Provenance records of the jobs behind the tables, by stage, if it has jobs.

        For example {"finetune": ["results/emoji/paper/finetune/net/noto/ft/all/0/provenance.json"],
        ...}.
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
            "merge": [self.of_run("merge", run, "provenance.json") for run in selected],
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
        """Models for which a method trains with texts."""
        grid = self._grid
        return [
            name
            for name in grid.models
            if any(grid.methods[method].text != "no" for method in grid.methods_of(name))
        ]

    def runs_to_choose_from(self) -> list[Run]:
        """Runs with different values of a setting, from which `select: target` chooses."""
        if self._grid.config["select"] != "target" or not self._grid.selection:
            return []
        variants = []
        for variants_of_sweep in self._grid.selection.variants.values():
            variants.extend(variants_of_sweep)
        runs_on_targets = self._grid.of_ood_targets.runs()  # a variant is chosen by these
        return [run for run in runs_on_targets if run.method in variants]

    @cached_property
    def evaluation_groups(self) -> dict[str, list[str]]:
        """Datasets that one job evaluates a run on: {"emoji": ["noto", "twemoji"], ...}."""
        return evaluation_groups(self._grid)

    @cached_property
    def groups_not_trained_on(self) -> dict[str, list[str]]:
        """`evaluation_groups` with only datasets that merges over targets are scored on."""
        groups = {}
        for group, names in self.evaluation_groups.items():
            left = [name for name in names if name in self._grid.not_trained_on]
            if left:
                groups[group] = left
        return groups

    def manifests(self, rows: Iterable[str]) -> list[str]:
        """Manifests of files with rows, which describe the networks behind the rows."""
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
        """NumPy file with right answers of each run by dataset and object, for intervals."""
        return f"{self.report}/tables/counts.npz"

    @property
    def mri_json(self) -> str:
        """JSON file with mRI by method, for `dvc metrics`."""
        return f"{self.report}/tables/mri.json"


def manifest_of(path: str) -> str | None:
    """Manifest that stands in for a large file of another job; None for other files.

    .../prepare/noto/encoded/index.parquet gives .../prepare/noto/encoded/manifest.json, and
    .../all/0/emoji.parquet gives .../all/0/emoji.manifest.json. Jobs watch the manifest, which
    changes only with the content.
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
    """For net/noto/soup/all/0 and the key `ft, seed 1`, the run net/noto/ft/all/1."""
    changes: dict[str, Any] = parent_of(key)
    return replace(run, **changes)


def default_name(grid: Grid) -> str:
    """Name of a report that config doesn't name: fashion, or fashion_held_out."""
    protocol = grid.config["protocol"]
    return grid.family.name if protocol == "paper" else f"{grid.family.name}_{protocol}"


def beside(kind: str, path: str) -> str:
    """The `provenance` or `manifest` next to a file: a/emoji.manifest.json for a/emoji.parquet."""
    folder, _, file = path.rpartition("/")
    name = file.rpartition(".")[0]
    return f"{folder}/{name}.{kind}.json"
