"""A project with the tables of a small grid, made from invented rows without any network, its bundle, and forged bundles."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis.comparison import COLUMNS, comparison_tables
from rib.analysis.tables import grid_tables
from rib.analysis.writing import write_tables
from rib.base.files import sha256, write_json
from rib.data.view import DatasetFiles, DatasetView
from rib.records import provenance
from rib.reporting.bundle import RECORDS, write_bundle

IMAGES = 40
CLASSES = {"keys": ["a", "b"], "indices": [[0], [1]], "names": ["a", "b"], "num_classes": 1000}
TABLES = ("accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes")
SETTINGS = {
    "ood_datasets": ["red", "green", "blue"],
    "source_groups": None,
    "conditions": "protocol paper",
    "replicates": 100,
    "confidence": 0.95,
    "seed": 0,
}
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
    """Make a project and its bundle; the bundle's path.

    Args:
        methods: by how much each changes the share of right answers, 0.5 before.
        datasets: each dataset's images as a seed.
        config: what its configuration has besides.
    """
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
        return folder / _made(
            methods, datasets or {"red": 0, "green": 1, "blue": 2}, targets, config or {}, model
        )
    finally:
        os.chdir(before)


def _made(methods, datasets, targets, config, model) -> Path:
    prepared = [_prepare(name, images) for name, images in datasets.items()]
    runs = [
        ("none", "pretrained", 0.0),
        *((target, name, by) for target in targets for name, by in methods.items()),
    ]
    rows = [_evaluate(model, target, method, by, prepared) for target, method, by in runs]
    cfg = {**SETTINGS, "fit": {"can_fit": list(methods), "threshold": None, "whole_targets": True}}
    cfg |= {
        "view": {"geometry": {}, "budget": "all", "images_per_class": None},
        "in_distribution": [],
    }
    cfg |= {"excludes_proxy": [], "split": []}
    tables, page = Path("reports/tiny/tables"), Path("reports/tiny/index.html")
    tables.mkdir(parents=True)
    outputs = {name: tables / f"{name}.csv" for name in (*TABLES, *COLUMNS)}
    outputs |= {"mri_json": tables / "mri.json", "counts": tables / "counts.npz"}
    manifests = [path.with_suffix(".manifest.json") for path in rows]
    settings = {key: SETTINGS[key] for key in SETTINGS if key != "conditions"}
    conditions = SETTINGS["conditions"]
    of_grid = grid_tables(
        rows=rows,
        indexes=[folder / "index.parquet" for folder in prepared],
        manifests=manifests,
        datasets=[DatasetFiles(folder.parts[-2], folder) for folder in prepared],
        view=DatasetView(geometry=None, budget="all", images_per_class=None),
        fit=cfg["fit"],
        outputs=outputs,
        **settings,
    )
    write_tables(of_grid, outputs, of_grid["fit"], conditions=conditions)
    compared = comparison_tables(
        counts=outputs["counts"], fit=outputs["fit"], compare_to="ft", **settings
    )
    write_tables(compared, outputs, of_grid["fit"], conditions=conditions)
    page.write_text("<p>page</p>")
    facts = [
        folder / name
        for folder in prepared
        for name in ("index.parquet", "classes.json", "manifest.json")
    ]
    claims = [outputs[name] for name in (*TABLES, *COLUMNS)]
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
    made = outputs["mri_json"], outputs["counts"], *(outputs[name] for name in TABLES)
    _record("compute_metrics", tables / "provenance.json", [*rows, *manifests, *facts], made, cfg)
    compared = [outputs[name] for name in COLUMNS]
    _record(
        "compare_methods",
        tables / "comparison.provenance.json",
        [outputs["counts"], outputs["fit"]],
        compared,
        {},
    )
    _record("write_page", page.with_suffix(".provenance.json"), claims, [page], {"about": about})
    records = [str(path) for path in provenance.below([Path("results"), Path("reports")])]
    more = [*facts, *manifests, *claims, page]
    write_bundle(
        rows=rows, more=more, records=records, config=about["config"], bundle=Path("tiny.rib.zip")
    )
    return Path("tiny.rib.zip")


def _prepare(name: str, images: int) -> Path:
    folder = Path(f"results/tiny/prepare/{name}/160px")
    folder.mkdir(parents=True)
    ids = [f"{name}-{images}-{number}" for number in range(IMAGES)]
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


def _evaluate(model: str, target: str, method: str, by: float, prepared: list[Path]) -> Path:
    folder = Path(f"results/tiny/paper/evaluate/{model}/{target}/{method}/all/0")
    folder.mkdir(parents=True)
    rows, manifest = folder / "tiny.parquet", folder / "tiny.manifest.json"
    run = {
        "model": model,
        "target": target,
        "method": method,
        "size": "all",
        "seed": 0,
        "alpha": np.nan,
    }
    rng, parts = np.random.default_rng(len(target + method)), []
    for place in prepared:
        rank = (rng.random(IMAGES) > 0.5 + by).astype(np.int16)
        parts.append(
            pd.DataFrame(
                {**run, "dataset": place.parts[-2], "row": np.arange(IMAGES), "rank": rank}
            )
        )
    pd.concat(parts).to_parquet(rows)
    write_json(manifest, {"device": "cpu", "fit": {} if method == "pretrained" else {method: 1.0}})
    _record("evaluate_run", folder / "tiny.provenance.json", [], [rows, manifest], {})
    return rows


def _record(rule: str, path: Path, inputs, outputs, cfg: Mapping) -> None:
    hashes = [{str(file): sha256(file) for file in files} for files in (inputs, outputs)]
    times = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:01.000+00:00"}
    sizes = {str(file): file.stat().st_size for file in outputs}
    what = {"rule": rule, "job": "", "log": "logs/x.log", "cfg": cfg, "inputs": hashes[0]}
    provenance.write(path, {**what, **times, **COSTS, "outputs": hashes[1], "sizes": sizes})


def forged(
    bundle: Path,
    files: Callable[[dict[str, bytes]], object] = dict,
    records: Callable[[dict[str, dict]], object] = dict,
    consistent: bool = True,
) -> Path:
    """A copy of a bundle with changed files and records; if consistent, its records have the hashes of the changed files."""
    with zipfile.ZipFile(bundle) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    old = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    files(found)
    new = {
        old[name]: hashlib.sha256(data).hexdigest() for name, data in found.items() if name in old
    }
    lines = {name: line for name, [line] in provenance.from_lines(found[RECORDS].decode()).items()}
    records(lines)
    if consistent:
        for line, key in ((line, key) for line in lines.values() for key in ("inputs", "outputs")):
            line[key] = {name: new.get(digest, digest) for name, digest in line[key].items()}
        found[RECORDS] = provenance.as_lines(
            {name: [line] for name, line in lines.items()}
        ).encode()
    path = bundle.with_name("forged.rib.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in found.items():
            archive.writestr(name, data)
    return path
