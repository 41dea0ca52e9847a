"""A project for measuring `snakemake preview`.

It has the rows of tiny.large_grid and records of the jobs that made them.

    PYTHONPATH=workflow/lib:tests python tests/tiny/large_preview.py FOLDER [SHARE]

writes it, with a share of the runs (1), into FOLDER/project; time `snakemake preview` there.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from rib.config.run import PRETRAINED
from tiny import large_grid
from tiny.project import copy_project

GEOMETRY = "64px-bicubic-crop1"
SOURCE = {"kind": "file", "path": "archives/none", "file": "none", "digest": f"sha256:{64 * '0'}"}
DATASET = {
    "family": "large",
    "source": SOURCE,
    "layout": "class_folders",
    "evaluation_group": "all",
    "licence": "none",
}
DATASET |= {"origin": "noise"}
MODEL = {
    "families": ["large"],
    "type": "cnn",
    "pretraining": "none",
    "library": "timm",
    "architecture": "test_efficientnet",
}
MODEL |= {"source": SOURCE, "weights": {"member": "none", "keys": "by_name"}, "licence": "none"}
MODEL |= {
    "preprocessing": {
        "input_size": 64,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": 3 * [0.5],
        "std": 3 * [0.5],
    }
}
METHOD = {"algorithm": "ft", "recipes": {"paper": {"lr": 0.001}}, "source": "none"}
# Writes the record of each evaluation and training whose files are there, as its job would.
RECORDS = """
include: "Snakefile"
from snakemake_internals.rules import settings_now
from rib.base.files import sha256
from tiny.records import FACTS
for stage, rule in {"finetune": "finetune", "evaluate": "evaluate"}.items():
    for path in map(Path, RECORDS_BY_STAGE[stage]):
        rows = path.with_name(path.name.replace("provenance.json", "parquet"))
        files = [rows, rows.with_suffix(".manifest.json")] if stage == "evaluate" else []
        if all(map(Path.exists, files)):
            path.parent.mkdir(parents=True, exist_ok=True)
            hashes = {str(file): sha256(file) for file in files}
            facts = {
                **FACTS,
                "rule": rule,
                "cfg": settings_now(workflow.get_rule(rule), str(path)),
                "log": "l",
                "inputs": {},
                "outputs": hashes,
                "sizes": dict.fromkeys(hashes, 1),
            }
            provenance.write(path, facts)
"""


def catalogue(folder: Path) -> None:
    """Write entries of the grid's datasets, models and methods; none of their files are needed."""
    (folder / "families").mkdir(parents=True)
    (folder / "classes").mkdir()
    (folder / "classes/large.csv").write_text("wnid\nn01440764\nn02206856\n")
    names = [f"model{number}" for number in range(large_grid.MODELS)]
    defaults = {
        "models": names,
        "methods": large_grid.METHODS,
        "targets": large_grid.DATASETS,
        "image_size": 64,
    }
    defaults |= {"epochs": 1, "batch_size": 8}
    family = {
        "title": "Large",
        "description": "noise",
        "classes": {"file": "large.csv", "format": "wnids"},
    }
    style = {"colour": "#000000", "marker": "o"}
    for name, entries in {
        "families/large": {**family, "defaults": defaults},
        "datasets": {name: {"label": name, **DATASET} for name in large_grid.DATASETS},
        "models": {name: {"label": name, **MODEL, "style": style} for name in names},
        "methods": {name: {"label": name, **METHOD, "style": style} for name in large_grid.METHODS},
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(entries))


def main(folder: Path, share: float) -> None:
    """Write the project into a folder, with a share of the runs from 0 to 1."""
    project = copy_project(folder / "project")
    rows = folder / "grid"
    if not rows.exists():
        rows.mkdir()
        large_grid.write_rows(rows)
    catalogue(project / "mine")
    config = (project / "config.yaml").read_text().replace("family: fashion", "family: large")
    config = config.replace("catalog: []", "catalog: mine").replace(
        "seeds: [0]", "seeds: [0, 1, 2]"
    )
    (project / "config.yaml").write_text(config)
    results = project / "results/large"
    for name in large_grid.DATASETS:
        shutil.copytree(rows / "prepare" / name / "none", results / "prepare" / name / GEOMETRY)
    for run in large_grid.runs():
        if run.method == PRETRAINED or random.Random(str(run)).random() < share:
            shutil.copytree(
                rows / "evaluate" / str(run),
                results / "paper/evaluate" / str(run),
                copy_function=os.link,
            )
    (project / "records.smk").write_text(RECORDS)
    subprocess.run(
        ["snakemake", "-s", "records.smk", "--list-rules"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
