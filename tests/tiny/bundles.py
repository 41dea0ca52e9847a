"""A project with the tables of a small grid, its bundle, and forged bundles.

The tables are made from invented rows, without any network.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis.comparison import COLUMNS, comparison_tables
from rib.analysis.counts import RowFiles
from rib.analysis.settings import (
    FitRule,
    GridTableSettings,
    MethodComparisonSettings,
    RIStatistics,
)
from rib.analysis.tables import grid_tables, json_by_method
from rib.analysis.writing import write_tables
from rib.base.files import sha256, write_json
from rib.base.settings import to_params
from rib.data.settings import DatasetView
from rib.data.view import DatasetFiles
from rib.records import provenance
from rib.reporting.bundle import RECORDS, write_bundle

IMAGES = 40
CLASSES = {"keys": ["a", "b"], "indices": [[0], [1]], "names": ["a", "b"], "num_classes": 1000}
TABLES = ("accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes")
RI = RIStatistics(
    ood_datasets=["red", "green", "blue"],
    source_groups=None,
    replicates=100,
    confidence=0.95,
    seed=0,
)
CONDITIONS = "protocol paper"
COSTS = {
    "seconds": 1.0,
    "cpu_seconds": 1.0,
    "peak_memory": 1,
    "commit": "abc",
    "versions": {"numpy": "2"},
}
COSTS |= {"machine": {"processor": "p", "system": "s", "python": "3"}}


def make(
    folder: Path,
    methods: Mapping[str, float],
    datasets: Mapping[str, int] | None = None,
    targets: tuple[str, ...] = ("red", "green"),
    config: Mapping | None = None,
    model: str = "m",
) -> Path:
    """Make a project and its bundle; gives the bundle's path.

    Args:
        folder: of the project, which does not exist yet.
        methods: by how much each changes the share of right answers, 0.5 before.
        datasets: each dataset's images as a seed.
        targets: what each method was fine-tuned on.
        config: what its configuration has besides.
        model: name of the model of all runs.
    """
    folder.mkdir()
    if datasets is None:
        datasets = {"red": 0, "green": 1, "blue": 2}
    folder_before = Path.cwd()
    os.chdir(folder)
    try:
        return folder / _write_project(methods, datasets, targets, config or {}, model)
    finally:
        os.chdir(folder_before)


def _write_project(methods, datasets, targets, config, model) -> Path:
    """Write rows, tables, page and bundle into the current folder; gives the bundle's path."""
    prepared = [_prepare(name, seed) for name, seed in datasets.items()]
    runs = [("none", "pretrained", 0.0)]
    for target in targets:
        runs += [(target, method, gain) for method, gain in methods.items()]
    rows = [_evaluate(model, target, method, gain, prepared) for target, method, gain in runs]
    settings = GridTableSettings(
        ri=RI,
        fit=FitRule(can_fit=list(methods), threshold=None, whole_targets=True),
        in_distribution=[],
        view=DatasetView(geometry=None, budget="all", images_per_class=None),
        excludes_proxy=[],
        split=[],
        conditions=CONDITIONS,
        code="",
    )
    tables = Path("reports/tiny/tables")
    page = Path("reports/tiny/index.html")
    tables.mkdir(parents=True)
    outputs = {name: tables / f"{name}.csv" for name in (*TABLES, *COLUMNS)}
    outputs |= {"mri_json": tables / "mri.json", "counts": tables / "counts.npz"}
    manifests = [path.with_suffix(".manifest.json") for path in rows]
    of_grid = grid_tables(
        files=RowFiles(rows, [folder / "index.parquet" for folder in prepared]),
        manifests=manifests,
        datasets=[DatasetFiles(folder.parts[-2], folder) for folder in prepared],
        settings=settings,
        counts_file=outputs["counts"],
    )
    write_json(outputs["mri_json"], json_by_method(of_grid["mri"]))
    write_tables(of_grid, outputs, of_grid["fit"], conditions=CONDITIONS)
    comparison = MethodComparisonSettings(ri=RI, compare_to="ft", conditions=CONDITIONS, code="")
    compared = comparison_tables(outputs["counts"], outputs["fit"], comparison)
    write_tables(compared, outputs, of_grid["fit"], conditions=CONDITIONS)
    page.write_text("<p>page</p>")
    files_of_datasets = [
        folder / name
        for folder in prepared
        for name in ("index.parquet", "classes.json", "manifest.json")
    ]
    claimed_tables = [outputs[name] for name in (*TABLES, *COLUMNS)]
    labels = {name: {"label": name.title()} for name in (*methods, *datasets)}
    about = {
        "config": {"reference": None, "compare_to": "ft", "methods": list(methods), **config},
        "family": {"title": "Tiny"},
    }
    about |= {
        "models": {model: {"label": "M"}},
        "methods": {name: labels[name] for name in methods},
    }
    about |= {"datasets": {name: labels[name] for name in datasets}}
    _record(
        "compute_metrics",
        tables / "provenance.json",
        [*rows, *manifests, *files_of_datasets],
        [outputs["mri_json"], outputs["counts"], *(outputs[name] for name in TABLES)],
        to_params(settings),
    )
    _record(
        "compare_methods",
        tables / "comparison.provenance.json",
        [outputs["counts"], outputs["fit"]],
        [outputs[name] for name in COLUMNS],
        {},
    )
    record_of_page = page.with_suffix(".provenance.json")
    _record("write_page", record_of_page, claimed_tables, [page], {"about": about})
    records = [str(path) for path in provenance.below([Path("results"), Path("reports")])]
    bundle = Path("tiny.rib.zip")
    write_bundle(
        rows=rows,
        more=[*files_of_datasets, *manifests, *claimed_tables, page],
        records=records,
        config=about["config"],
        bundle=bundle,
    )
    return bundle


def _prepare(name: str, seed: int) -> Path:
    """Write a prepared dataset without images; gives its folder."""
    folder = Path(f"results/tiny/prepare/{name}/160px")
    folder.mkdir(parents=True)
    ids = [f"{name}-{seed}-{number}" for number in range(IMAGES)]
    index = {
        "row": range(IMAGES),
        "image_id": ids,
        "label": np.arange(IMAGES) % 2,
        "source_id": ids,
        "object_id": ids,
    }
    pd.DataFrame(index).to_parquet(folder / "index.parquet")
    write_json(folder / "classes.json", CLASSES)
    write_json(folder / "manifest.json", {})
    files = [folder / file for file in ("index.parquet", "classes.json", "manifest.json")]
    _record("prepare", folder / "provenance.json", [], files, {})
    return folder


def _evaluate(model: str, target: str, method: str, gain: float, prepared: list[Path]) -> Path:
    """Write rows of a run with a share 0.5 + gain of right answers; gives the file of the rows."""
    folder = Path(f"results/tiny/paper/evaluate/{model}/{target}/{method}/all/0")
    folder.mkdir(parents=True)
    rows = folder / "tiny.parquet"
    manifest = folder / "tiny.manifest.json"
    run = {
        "model": model,
        "target": target,
        "method": method,
        "size": "all",
        "seed": 0,
        "alpha": np.nan,
    }
    rng = np.random.default_rng(len(target + method))
    rows_by_dataset = []
    for dataset in prepared:
        name = dataset.parent.name
        rank = (rng.random(IMAGES) > 0.5 + gain).astype(np.int16)
        columns = {**run, "dataset": name, "row": np.arange(IMAGES), "rank": rank}
        rows_by_dataset.append(pd.DataFrame(columns))
    pd.concat(rows_by_dataset).to_parquet(rows)
    write_json(manifest, {"device": "cpu", "fit": {} if method == "pretrained" else {method: 1.0}})
    _record("evaluate_run", folder / "tiny.provenance.json", [], [rows, manifest], {})
    return rows


def _record(rule: str, path: Path, inputs, outputs, cfg: Mapping) -> None:
    """Write the provenance record of a job of a rule."""
    facts = {
        "rule": rule,
        "job": "",
        "log": "logs/x.log",
        "cfg": cfg,
        "inputs": {str(file): sha256(file) for file in inputs},
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:01.000+00:00",
        **COSTS,
        "outputs": {str(file): sha256(file) for file in outputs},
        "sizes": {str(file): file.stat().st_size for file in outputs},
    }
    provenance.write(path, facts)


def forged(
    bundle: Path,
    files: Callable[[dict[str, bytes]], object] = dict,
    records: Callable[[dict[str, dict]], object] = dict,
    consistent: bool = True,
) -> Path:
    """A copy of a bundle with changed files and records; gives its path.

    Args:
        files: changes the bytes of the files, by name, in place.
        records: changes the records, by name, in place; they are written only if consistent.
        consistent: whether the records have the hashes of the changed files.
    """
    with zipfile.ZipFile(bundle) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    old_hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    files(contents)
    new_hash_of_old = {
        old_hashes[name]: hashlib.sha256(data).hexdigest()
        for name, data in contents.items()
        if name in old_hashes
    }
    lines = provenance.from_lines(contents[RECORDS].decode())
    record_of_name = {name: record for name, [record] in lines.items()}
    records(record_of_name)
    if consistent:
        for record in record_of_name.values():
            for key in ("inputs", "outputs"):
                record[key] = {
                    name: new_hash_of_old.get(old_hash, old_hash)
                    for name, old_hash in record[key].items()
                }
        lines = {name: [record] for name, record in record_of_name.items()}
        contents[RECORDS] = provenance.as_lines(lines).encode()
    path = bundle.with_name("forged.rib.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path
